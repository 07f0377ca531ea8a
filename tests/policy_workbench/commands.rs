//! The commands themselves: output, exit codes, JUnit, and the way from a change that grants too much to a red test.

use std::path::Path;

use crate::{
    cli_support::{Ran, linkgate, run},
    policy_support::Folder,
};

fn shipped(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies").join(name)).unwrap()
}

/// The shipped set with its tests.
fn with_tests(guardrails: &str) -> Folder {
    let folder = Folder::new(guardrails);
    folder.write("guardrails/examples.cedar", &shipped("guardrails/examples.cedar"));
    std::fs::create_dir(folder.path().join("tests")).unwrap();
    for name in ["roles.toml", "gates.toml", "overrides.toml", "guardrails.toml"] {
        folder.write(&format!("tests/{name}"), &shipped(&format!("tests/{name}")));
    }
    folder
}

/// In the folder itself, so that places are short and the same in every run.
fn policy(folder: &Path, arguments: &[&str]) -> Ran {
    run(linkgate(&["policy"]).args(arguments).current_dir(folder))
}

/// The set's version changes with every word of it.
fn without_version(text: &str) -> String {
    let cut =
        |line: &str| line.split_once("(version ").map_or(line.to_owned(), |(before, _)| format!("{before}(version …)"));
    text.lines().map(cut).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_role_that_got_too_much_is_told_by_the_tests() {
    let folder = with_tests("");
    let good = policy(folder.path(), &["test", "--policies", ".", "--require-coverage"]);
    assert_eq!((good.code, good.err.as_str()), (0, ""), "{}", good.out);
    folder.edit("roles.toml", "auditor = [\n", "auditor = [\n  \"billing.write\",\n");
    let bad = policy(folder.path(), &["test", "--policies", ".", "--junit", "out.xml"]);
    assert_eq!(bad.code, 6, "{}", bad.err);
    insta::assert_snapshot!(without_version(&format!("{}\n{}", bad.out, bad.err)));
    let xml = std::fs::read_to_string(folder.path().join("out.xml")).unwrap();
    assert!(xml.contains("name=\"link role: auditor\">\n      <failure message=\"partner.billing.invoices.write: expected deny permission, got allow by linkgate.role.auditor\""), "{xml}");
    assert!(xml.contains("<testsuite name=\"./tests/gates.toml\" tests=\"32\" failures=\"1\" errors=\"0\">"), "{xml}");
    let json = policy(folder.path(), &["test", "--policies", ".", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(report["files"][3]["cases"][4]["failures"][0]["permission"], "partner.billing.invoices.write");
}

#[test]
fn coverage_can_be_required() {
    let folder = with_tests("");
    std::fs::remove_file(folder.path().join("tests/roles.toml")).unwrap();
    assert_eq!(policy(folder.path(), &["test", "--policies", "."]).code, 0);
    let low = policy(folder.path(), &["test", "--policies", ".", "--require-coverage"]);
    assert_eq!(low.code, 6, "{}", low.err);
    assert!(
        low.out.contains("reseller: partner.") && low.err.contains("100 % are required"),
        "{} {}",
        low.out,
        low.err
    );
    let some = policy(folder.path(), &["test", "--policies", ".", "--require-coverage", "10"]);
    assert_eq!(some.code, 0, "{}", some.err);
    let none = policy(folder.path(), &["test", "--policies", ".", "--only", "no such case"]);
    assert_eq!(none.code, 6, "nothing was tested: {}", none.out);
    let one = policy(folder.path(), &["test", "--policies", ".", "--only", "export"]);
    assert!(one.code == 0 && one.out.contains("tests/guardrails.toml: 2 cases"), "{}", one.out);
}

/// A folder without tests is told what to do; one without invariants is held to the shipped ones, and that is said.
#[test]
fn a_folder_without_tests_or_invariants_is_told_what_to_do() {
    let folder = Folder::new("");
    let ran = policy(folder.path(), &["test", "--policies", "."]);
    assert_eq!(ran.code, 3, "{}", ran.out);
    let told = format!("{}{}", ran.out, ran.err).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["./tests: cannot be listed", "linkgate policy test --help", "policies/tests", "linkgate demo --dir"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    #[cfg(feature = "prove")]
    {
        let without = policy(folder.path(), &["prove", "--policies", "."]);
        assert_eq!(without.code, 0, "{}{}", without.out, without.err);
        assert!(without.out.contains("built-in/invariants.toml (the folder has no invariants.toml"), "{}", without.out);
        folder.write("invariants.toml", &shipped("invariants.toml"));
        let with = policy(folder.path(), &["prove", "--policies", "."]);
        assert!(with.code == 0 && with.out.contains("invariants  ./invariants.toml\n"), "{}{}", with.out, with.err);
    }
}

const WORTH_A_LOOK: &str = "@id(\"odd\")\nforbid (principal, action, resource == Tenant::\"acme\");\n";

#[test]
fn check_tells_errors_and_warnings_with_their_places() {
    let folder = with_tests(WORTH_A_LOOK);
    let warned = policy(folder.path(), &["check", "--policies", ".", "--junit", "out.xml"]);
    assert_eq!((warned.code, warned.err.as_str()), (0, ""));
    insta::assert_snapshot!(
        "check_warns",
        warned.out.lines().filter(|line| !line.contains("(version")).collect::<Vec<_>>().join("\n")
    );
    let xml = std::fs::read_to_string(folder.path().join("out.xml")).unwrap();
    assert!(xml.contains("tests=\"4\" failures=\"0\"") && xml.contains("<system-out>"), "{xml}");
    let denied = policy(folder.path(), &["check", "--policies", ".", "--deny-warnings", "--junit", "out.xml"]);
    assert_eq!((denied.code, denied.err.as_str()), (3, "error: 1 warning\n"));
    assert!(std::fs::read_to_string(folder.path().join("out.xml")).unwrap().contains("failures=\"1\""));

    folder.write("guardrails/fails.cedar", "@id(\"adds\")\nforbid (principal, action, resource)\nwhen { context.now.toTime().toMilliseconds() + 9223372036854775807 > 0 };\n");
    let refused = policy(folder.path(), &["check", "--policies", ".", "--junit", "out.xml"]);
    assert_eq!((refused.code, refused.err.as_str()), (3, "error: 1 error: the set cannot be loaded\n"));
    insta::assert_snapshot!("check_refuses", refused.out);
    assert!(std::fs::read_to_string(folder.path().join("out.xml")).unwrap().contains("failures=\"1\""));
    let json = policy(folder.path(), &["check", "--policies", ".", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&report["valid"], &report["errors"][0]["line"]), (&false.into(), &3.into()));

    // What is refused here is refused where a gateway starts, too.
    std::fs::write(folder.path().join("linkgate.toml"), "[policy]\ndir = \".\"\n").unwrap();
    let serve = run(linkgate(&["check"]).current_dir(folder.path()));
    assert!(serve.out.contains("Cedar skips a `forbid` that fails"), "{}", serve.out);
    std::fs::remove_file(folder.path().join("guardrails/fails.cedar")).unwrap();
    let serve = run(linkgate(&["check"]).current_dir(folder.path()));
    assert!(!serve.out.contains("Cedar skips"), "{}", serve.out);
}

const PARTNER: &str = "018f0000-0000-7000-8000-000000000001";

#[test]
fn show_reads_a_link_of_the_database() {
    let folder = with_tests("");
    let dir = folder.path();
    std::fs::write(dir.join("linkgate.toml"), run(&mut linkgate(&["config", "print-default"])).out).unwrap();
    let command = |arguments: &[&str]| {
        let ran = run(linkgate(arguments).current_dir(dir));
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        ran.out
    };
    command(&["migrate"]);
    command(&["tenant", "create", "home", "--name", "Home"]);
    command(&["tenant", "create", "t1", "--name", "One"]);
    command(&["partner", "create", "--id", PARTNER, "--name", "Blue", "--home-tenant", "home"]);
    let link = command(&[
        "link",
        "create",
        "--partner",
        PARTNER,
        "--tenant",
        "t1",
        "--role",
        "msp_billing",
        "--override",
        "billing.write=false",
        "--start",
        "2026-01-01T00:00:00Z",
        "--require-mfa",
        "true",
        "--json",
    ]);
    let link: serde_json::Value = serde_json::from_str(&link).unwrap();
    let id = link["id"].as_str().unwrap();
    let show = ["policy", "show", "--policies", ".", "--at", "2026-06-01T00:00:00Z"];
    let by_id = command(&[&show[..], &["--link", id]].concat());
    insta::assert_snapshot!(without_version(&by_id.replace(id, "<link>")));
    assert_eq!(command(&[&show[..], &["--tenant", "t1", "--partner", PARTNER]].concat()), by_id);
    let json = command(&[&show[..], &["--link", id, "--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["permissions"][5]["gate"], "override");
    assert_eq!(json["permissions"][4]["on"], serde_json::json!(["mfa"]));
    assert!(by_id.starts_with(json["cedar"].as_str().unwrap().trim_end()));

    let fails = |arguments: &[&str]| run(linkgate(&[&show[..], arguments].concat()).current_dir(dir)).code;
    assert_eq!(fails(&["--link", PARTNER]), 4, "no such link");
    assert_eq!(fails(&["--tenant", "t2", "--partner", PARTNER]), 4);
    assert_eq!(fails(&["--tenant", "t1"]), 2, "whose link?");
    assert_eq!(fails(&[]), 2);
    assert_eq!(fails(&["--role", "auditors"]), 2);
    assert_eq!(fails(&["--role", "auditor"]), 0);
}
