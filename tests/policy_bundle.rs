//! Loading a policy set: what is accepted, what is refused and how it is said, and what a reload may change.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod policy_support;

use std::sync::Arc;

use linkgate::policy::{Bundle, Policies, settings::PolicySettings};
use policy_support::Folder;

#[test]
fn the_shipped_set_loads_without_a_warning() {
    let bundle = Bundle::load(None).unwrap_or_else(|errors| panic!("{}", errors.render()));
    assert!(bundle.warnings().is_empty(), "{:?}", bundle.warnings());
    assert_eq!(bundle.version().len(), 64);
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    assert_eq!(Bundle::load(Some(&shipped)).unwrap().version(), bundle.version(), "one set, one version");
}

#[test]
fn the_commented_examples_are_valid_policies() {
    let shipped = include_str!("../policies/guardrails/examples.cedar");
    let starts = ["// @id", "// forbid", "// permit", "// when", "// unless"];
    let switched_on = |line: &str| match line.strip_prefix("// ") {
        Some(code) if starts.iter().any(|start| line.starts_with(start)) => code.to_owned(),
        _ => line.to_owned(),
    };
    let text: Vec<_> = shipped.lines().map(switched_on).collect();
    let text = text.join("\n");
    assert_eq!(text.matches("\n@id(").count(), 5);
    let bundle = Folder::new(&text).load();
    assert!(bundle.warnings().is_empty(), "{:?}", bundle.warnings());
}

#[test]
fn every_error_of_every_file_is_told_at_once() {
    let folder = Folder::new("@id(\"a\")\nforbid (principal, action, resource)\nwhen { context.mfa = true };\n");
    folder.write("guardrails/second.cedar", "forbid (principal, action, resource) when { context.mfa };\n");
    folder.write(
        "guardrails/third.cedar",
        "@id(\"b\")\nforbid (principal, action == Action::\"partner.billing.invoice.read\", resource)\nwhen { context.amf };\n",
    );
    folder.edit("roles.toml", "\"support.write\"", "\"support.writes\"");
    folder.edit("roles.toml", "reseller = [", "resellers = [");
    insta::assert_snapshot!(folder.refused());
}

#[test]
fn a_syntax_error_in_the_role_table_has_a_caret() {
    let folder = Folder::new("");
    folder.edit("roles.toml", "msp_full = [\"partner.*\"]", "msp_full = [\"partner.*\"");
    insta::assert_snapshot!(folder.refused());
}

#[test]
fn the_role_table_is_strict() {
    let folder = Folder::new("");
    folder.write(
        "roles.toml",
        r#"link_role = {}

[link_roles]
msp_full = ["partner.*", "partner.*"]
msp_billing = "billing.read"
msp_support = ["support.read"]
enterprise_hq = ["partner.*", 7]
auditor = ["partner.tenants.*", "partner.bill*"]
reseler = []
delegate = ["partner.tenants.*"]

[user_roles]
partner_msp_full = "msp_ful"
partner_other = ["billing.reed"]
"#,
    );
    insta::assert_snapshot!(folder.refused());
}

#[test]
fn ids_are_asked_for_unique_and_not_taken() {
    let folder = Folder::new(
        r#"@id("one")
forbid (principal, action, resource) when { false };
@id("linkgate.gate.user")
permit (principal, action, resource);
@id("")
forbid (principal, action, resource) when { false };
"#,
    );
    let template =
        "@id(\"t\")\npermit (principal == ?principal, action, resource);\nforbid (principal, action, resource);";
    folder.write("guardrails/template.cedar", template);
    folder.write("guardrails/twice.cedar", "@id(\"one\")\nforbid (principal, action, resource)\nwhen { true };");
    insta::assert_snapshot!(folder.refused());
    let folder = Folder::new("@id(\"one\")\nforbid (principal, action, resource) when { context.mfa };");
    folder.write("guardrails/twice.cedar", "@id(\"one\")\nforbid (principal, action, resource)\nwhen { context.mfa };");
    folder.write(
        "guardrails/taken.cedar",
        "@id(\"linkgate.x\")\nforbid (principal, action, resource)\nwhen { context.mfa };",
    );
    insta::assert_snapshot!(folder.refused());
}

#[test]
fn a_schema_that_differs_from_the_catalogue_is_refused() {
    let folder = Folder::new("");
    // A permission leaves its scope: a guardrail over `billing.write` would no longer see it.
    folder.edit(
        "schema.cedarschema",
        "[\"partner.billing.payments.*\", \"billing.write\"]",
        "[\"partner.billing.payments.*\"]",
    );
    folder.edit(
        "schema.cedarschema",
        "action \"partner.alerts.acknowledge\"",
        "action \"partner.alerts.acknowledges\"",
    );
    insta::assert_snapshot!(folder.refused());
}

#[test]
fn a_schema_that_asks_for_more_than_is_known_is_refused() {
    let folder = Folder::new("");
    folder.edit("schema.cedarschema", "  mfa: Bool,", "  mfa: Bool,\n  device: String,");
    assert!(folder.refused().contains("schema.cedarschema:62:1"), "{}", folder.refused());
    let folder = Folder::new("");
    folder.edit("schema.cedarschema", "  granted: Set<Action>,\n", "");
    assert!(folder.refused().contains("granted"), "{}", folder.refused());
    let folder = Folder::new("");
    folder.edit("schema.cedarschema", "  partner_active: Bool,", "  partner_active: String,");
    assert!(folder.refused().contains("generated from roles.toml"), "{}", folder.refused());
    let folder = Folder::new("");
    folder.edit("schema.cedarschema", "entity Partner;", "entity Partner");
    insta::assert_snapshot!(folder.refused());
}

#[test]
fn groups_of_actions_may_be_added_for_guardrails() {
    let folder = Folder::new(
        "@id(\"a\")\nforbid (principal, action in [Action::\"exports\"], resource)\nunless { context.mfa };",
    );
    folder.edit("schema.cedarschema", "action \"billing.read\";", "action \"billing.read\";\naction \"exports\";");
    folder.edit(
        "schema.cedarschema",
        "action \"partner.reports.export\" in [",
        "action \"partner.reports.export\" in [\"exports\", ",
    );
    assert!(folder.load().warnings().is_empty());
}

#[test]
fn what_is_valid_but_worth_a_look_is_a_warning() {
    let folder = Folder::new(
        r#"@id("more-for-resellers")
permit (principal, action in [Action::"support.write"], resource is Link)
when { resource.role == Role::"reseller" };

@id("never")
forbid (principal, action, resource is Link)
when { resource is Tenant };
"#,
    );
    folder.write("guardrails/notes.txt", "");
    let warnings = folder.load().warnings().join("\n").replace(&format!("{}/", folder.path().display()), "");
    insta::assert_snapshot!(warnings);
}

#[test]
fn the_version_follows_every_input() {
    let folder = Folder::new("");
    let first = folder.load();
    assert_eq!(folder.load().version(), first.version());
    assert_ne!(folder.load().generation(), first.generation());
    let mut seen = vec![first.version().to_owned()];
    folder.edit("roles.toml", "auditor = [", "auditor = [ # more");
    seen.push(folder.load().version().to_owned());
    folder.write("guardrails/test.cedar", "// a word");
    seen.push(folder.load().version().to_owned());
    folder.write("guardrails/more.cedar", "");
    seen.push(folder.load().version().to_owned());
    folder.edit("schema.cedarschema", "// ", "//  ");
    seen.push(folder.load().version().to_owned());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[test]
fn i6_a_bad_set_never_replaces_a_good_one() {
    let folder = Folder::new("");
    let settings =
        PolicySettings { dir: Some(folder.path().to_owned()), memo_entries: 10, enforce: true, shadow: None };
    let policies = Policies::new(settings).unwrap();
    let first = policies.current();

    folder.write("guardrails/test.cedar", "forbid (principal, action, resource);");
    let errors = policies.reload().unwrap_err();
    assert_eq!(errors.problems[0].line(), Some(1));
    assert!(Arc::ptr_eq(&policies.current(), &first), "the old set stays");

    std::fs::remove_dir_all(folder.path().join("guardrails")).unwrap();
    assert!(policies.reload().is_err(), "a lost folder opens no doors");
    assert!(Arc::ptr_eq(&policies.current(), &first));

    std::fs::create_dir(folder.path().join("guardrails")).unwrap();
    folder.write("guardrails/test.cedar", "@id(\"a\") forbid (principal, action, resource) when { context.mfa };");
    let second = policies.reload().unwrap();
    assert!(Arc::ptr_eq(&policies.current(), &second));
    assert_ne!(second.version(), first.version());
    assert!(Arc::ptr_eq(&policies.reload().unwrap(), &second), "an unchanged set changes nothing");

    let nowhere = PolicySettings { dir: Some("/nowhere/at/all".into()), memo_entries: 10, enforce: true, shadow: None };
    assert_eq!(Policies::new(nowhere).unwrap_err().problems.len(), 3);
}
