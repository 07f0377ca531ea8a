//! Decision tables: the shipped ones hold and cover everything, a test file is read strictly, and each expectation can fail.

use linkgate::policy::suite::{self, SuiteReport};

use crate::policy_support::Folder;

/// Runs one test file over the shipped set with these guardrails.
fn run(guardrails: &str, tests: &str) -> Result<SuiteReport, String> {
    let folder = Folder::new(guardrails);
    std::fs::create_dir(folder.path().join("tests")).unwrap();
    folder.write("tests/a.toml", tests);
    suite::run(Some(folder.path()), None, None).map_err(|errors| {
        let text = errors.render().replace(&format!("{}/", folder.path().display()), "");
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    })
}

#[test]
fn the_shipped_suite_holds_and_covers_everything() {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for dir in [None, Some(shipped.as_path())] {
        let report = suite::run(dir, None, None).unwrap_or_else(|errors| panic!("{}", errors.render()));
        let failed: Vec<_> = report.cases().filter(|case| !case.failures.is_empty()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(report.coverage.least(), 100, "{:#?}", report.coverage);
        let kinds: Vec<_> = report.coverage.kinds.iter().map(|kind| (kind.name, kind.total)).collect();
        assert_eq!(
            kinds,
            [
                ("link roles × permissions", 7 * 26),
                ("user roles × permissions", 4 * 26),
                ("permissions, allowed and denied", 2 * 26),
                ("gates", 13),
                // 7 roles, the delegates' grant, 12 gates, 5 examples.
                ("rules", 25),
            ]
        );
    }
}

const OPEN: &str = "[defaults]\nuser.permissions = [\"partner.*\"]\nlink.access_role = \"auditor\"\nmfa = true\n";

/// Each expectation holds as it is and fails with one word changed.
#[test]
fn each_kind_of_expectation_can_fail() {
    let failures = |case: &str| run("", &format!("{OPEN}[[case]]\nname = \"x\"\n{case}")).unwrap().failures();
    for (case, from, to) in [
        ("allow = \"billing.read\"", "allow", "deny"),
        ("deny = \"billing.write\"", "deny", "allow"),
        ("deny = \"billing.write\"\nreason = \"permission\"", "\"permission\"", "\"guardrail\""),
        ("deny = \"billing.write\"\ncode = \"FORBIDDEN\"", "FORBIDDEN", "UNAUTHORIZED"),
        ("deny = \"billing.write\"\ngate = \"role\"", "\"role\"", "\"user\""),
        ("deny = \"billing.write\"\npolicies = []", "[]", "\"linkgate.gate.user\""),
        ("allow = \"billing.read\"\npolicies = \"linkgate.role.auditor\"", "role.auditor", "role.msp_full"),
        ("allow = \"billing.read\"\nlink.end_date = \"2026-06-02\"", "2026-06-02", "2026-06-01"),
        ("link = false\ndeny = \"billing.read\"\nreason = \"no_link\"", "no_link", "permission"),
    ] {
        assert_eq!(failures(case), 0, "{case}");
        assert!(failures(&case.replacen(from, to, 1)) > 0, "{case} with {to}");
    }
    let table = |cells: &str| {
        let table = format!("permission true false\npartner.tenants.list {cells}\n");
        let text = format!(
            "{OPEN}link.require_mfa = true\n[[matrix]]\nname = \"m\"\ncolumns = \"mfa\"\ntable = \"\"\"\n{table}\"\"\"\n"
        );
        run("", &text).unwrap().failures()
    };
    assert_eq!(table("yes mfa_required"), 0);
    assert_eq!(table("yes no"), 0);
    for wrong in ["no mfa_required", "yes yes", "yes .", "yes TENANT_LINK_EXPIRED", "yes guardrail"] {
        assert_eq!(table(wrong), 1, "{wrong}");
    }
}

#[test]
fn a_test_file_is_read_strictly() {
    let tests = r#"switch_on = ["export-need-mfa"]
casse = 1

[defaults]
user.role = ["partner_auditor"]
link.access_role = "auditor"

[[case]]
name = "a"
link.require_nfa = true
aloow = "billing.read"

[[case]]
name = "a"
allow = ["billing.reed", "billing.read", "partner.billing.read"]
reason = "permission"
policies = "linkgate.role.auditors"

[[case]]
name = "b"
now = "yesterday"
link.access_role = "auditors"
deny = "billing.write"
reason = "permision"
gate = "roles"

[[case]]
allow = "billing.read"

[[matrix]]
name = "m"
columns = "link.acces_role"
table = ""

[[matrix]]
name = "n"
columns = "link.access_role"
table = """
permission     auditor  msp_full
billing.read   yes      yess
billing.write  yes
billing.read   yes      yes
"""
"#;
    let rules = "// @id(\"export-needs-mfa\")\n// forbid (principal, action, resource) unless { context.mfa };\n";
    insta::assert_snapshot!(run(rules, tests).unwrap_err());
}

#[test]
fn a_file_without_a_case_and_a_folder_without_a_file_are_no_success() {
    assert!(run("", "[defaults]\nmfa = true\n").unwrap_err().contains("holds no case"));
    assert!(run("", "[case]\nname = \"x\"\n").unwrap_err().contains("two brackets"));
    assert!(run("", "[[case]]\nname = \"x\"\nmfa = true\n").unwrap_err().contains("asks nothing"));
    assert!(run("", "[[case]\n").unwrap_err().contains("tests/a.toml:1"));
    let folder = Folder::new("");
    assert!(suite::run(Some(folder.path()), None, None).unwrap_err().render().contains("tests/*.toml"));
    std::fs::create_dir(folder.path().join("tests")).unwrap();
    assert!(suite::run(Some(folder.path()), None, None).unwrap_err().render().contains("nothing was tested"));
}

const RULE: &str = "// @id(\"no-posts\")\n// forbid (principal, action in [Action::\"billing.read\"], resource)\n// when { context.method == \"POST\" };\n";

#[test]
fn a_rule_is_tested_before_it_is_switched_on_and_after() {
    let tests = format!(
        "switch_on = \"no-posts\"\n{OPEN}method = \"POST\"\n[[case]]\nname = \"x\"\ndeny = \"billing.read\"\npolicies = \"no-posts\"\n"
    );
    let off = run(RULE, &tests).unwrap();
    assert_eq!(off.failures(), 0);
    let on = run(&RULE.replace("// ", ""), &tests).unwrap();
    assert_eq!(on.failures(), 0, "one that is on stays on");
    assert_ne!(on.version, off.version);
    let without = tests.replace("switch_on = \"no-posts\"\n", "").replace("policies = \"no-posts\"\n", "");
    assert_eq!(run(RULE, &without).unwrap().failures(), 4, "and without it nothing forbids");
}

#[test]
fn a_guardrail_that_no_test_makes_decisive_is_named() {
    let on = RULE.replace("// ", "");
    let report = run(&on, &format!("{OPEN}[[case]]\nname = \"x\"\nallow = \"billing.read\"\n")).unwrap();
    let rules = report.coverage.kinds.iter().find(|kind| kind.name == "rules").unwrap();
    assert_eq!(rules.missing["never decisive"], ["no-posts"]);
    let decisive = format!("{OPEN}method = \"POST\"\n[[case]]\nname = \"x\"\ndeny = \"billing.read\"\n");
    let report = run(&on, &decisive).unwrap();
    let rules = report.coverage.kinds.iter().find(|kind| kind.name == "rules").unwrap();
    assert!(!rules.missing.contains_key("never decisive"), "{rules:?}");
    // Where another gate is told first it decided nothing.
    let hidden = format!("{decisive}user.permissions = []\n");
    let report = run(&on, &hidden).unwrap();
    let rules = report.coverage.kinds.iter().find(|kind| kind.name == "rules").unwrap();
    assert_eq!(rules.missing["never decisive"], ["no-posts"]);
}
