//! What `policy check` finds beyond plain validity: rules that can fail (refused), and rules that cannot be meant (warned
//! of). Each kind has a sibling that passes without a word.

use linkgate::policy::Bundle;

use crate::policy_support::Folder;

const WRITES: &str = "principal, action in [Action::\"billing.write\"], resource";

/// The warnings of a set with these rules, without the folder's name.
fn warnings(rules: &str) -> Vec<String> {
    let folder = Folder::new(rules);
    let bundle = folder.load();
    let name = format!("{}/guardrails/test.cedar:", folder.path().display());
    bundle.warnings().iter().map(|text| text.replace(&name, "")).collect()
}

/// Beside the note that every permit gets.
fn told(rules: &str) -> String {
    let mut all = warnings(rules);
    all.retain(|text| !text.contains("is a permit"));
    all.join("\n")
}

fn forbid(id: &str, condition: &str) -> String {
    format!("@id(\"{id}\") forbid ({WRITES}) when {{ {condition} }};\n")
}

#[test]
fn a_forbid_that_can_fail_is_never_loaded() {
    let folder = Folder::new(
        r#"@id("adds")
forbid (principal, action, resource)
when { context.now.toTime().toMilliseconds() + 9223372036854775807 > 0 };

@id("somebody-elses-tenant")
forbid (principal, action, resource)
when {
  context.mfa &&
  Tenant::"elsewhere".status == "suspended"
};
"#,
    );
    folder.write(
        "guardrails/second.cedar",
        "@id(\"since\")\nforbid (principal, action, resource is Link)\nunless { context.now.offset(duration(\"106751991167d\")) > resource.starts };\n",
    );
    folder.write(
        "guardrails/fine.cedar",
        "@id(\"fine\")\nforbid (principal, action, resource is Link)\nwhen { context.now.durationSince(resource.starts) < duration(\"1h\") };\n",
    );
    insta::assert_snapshot!(folder.refused());
}

#[test]
fn the_same_without_what_can_fail_is_loaded() {
    let rules = [
        forbid("adds", "context.now.toTime().toHours() + 1 > 22"),
        forbid("tenant", "resource is Link && resource.tenant.status == \"suspended\""),
        forbid("moved", "context.now.offset(duration(\"-30d\")) > datetime(\"2026-01-01\")"),
        forbid("address", "!context.ip.isInRange(ip(\"192.0.2.0/24\"))"),
    ];
    assert_eq!(told(&rules.concat()), "");
}

#[test]
fn a_permit_that_can_fail_is_a_warning_because_it_opens_nothing() {
    let text =
        warnings(&format!("@id(\"p\") permit ({WRITES}) when {{ 9223372036854775807 + 1 > 0 && context.mfa }};"));
    assert!(text.iter().any(|one| one.contains("`p` can fail, and then the request is refused (503)")), "{text:?}");
    assert_eq!(told(&format!("@id(\"p\") permit ({WRITES}) when {{ 1 + 1 > 0 && context.mfa || context.mfa }};")), "");
}

#[test]
fn no_generated_rule_can_fail() {
    let bundle = Bundle::load(None).unwrap();
    assert!(bundle.policies().any(|policy| policy.generated && policy.forbids));
    assert!(bundle.findings().is_empty());
}

#[test]
fn a_rule_that_can_never_match() {
    for (never, may) in [
        (
            "context.method == \"GET\" && context.method == \"POST\"",
            "context.method == \"GET\" || context.method == \"POST\"",
        ),
        (
            "context.now >= datetime(\"2027-01-03\") && context.now < datetime(\"2026-12-30\")",
            "context.now >= datetime(\"2026-12-30\") && context.now < datetime(\"2027-01-03\")",
        ),
        (
            "action in [Action::\"support.write\"] && context.mfa",
            "action in [Action::\"partner.billing.*\"] && context.mfa",
        ),
        ("action == Action::\"billing.write\"", "action == Action::\"partner.billing.invoices.write\""),
        ("context.now.toTime() > duration(\"25h\")", "context.now.toTime() > duration(\"23h\")"),
        ("resource == Tenant::\"a\"", "resource in Tenant::\"a\""),
    ] {
        assert!(
            told(&forbid("x", never)).contains("never match") || told(&forbid("x", never)).contains("impossible"),
            "{never}: {}",
            told(&forbid("x", never))
        );
        assert_eq!(told(&forbid("x", may)), "", "{may}");
    }
    let scoped = |resource: &str| format!("@id(\"x\") forbid (principal, action, {resource}) when {{ context.mfa }};");
    let tenant = told(&scoped("resource == Tenant::\"acme\""));
    assert!(tenant.contains("its resource is a bare `Tenant`") && tenant.contains("resource in Tenant"), "{tenant}");
    assert_eq!(told(&scoped("resource in Tenant::\"acme\"")), "");
    assert_eq!(told(&scoped("resource is Link in Tenant::\"acme\"")), "");
}

#[test]
fn a_condition_that_is_always_true_and_a_rule_that_shuts_everything() {
    assert!(told(&forbid("x", "context.mfa || !context.mfa")).contains("the condition of `x` is always true"));
    assert_eq!(told(&forbid("x", "context.mfa || context.method == \"PUT\"")), "");
    let all = |condition: &str| format!("@id(\"x\") forbid (principal, action, resource) {condition};");
    assert!(told(&all("")).contains("with it no cross-tenant request is allowed"));
    assert!(told(&all("when { resource is Link }")).contains("no cross-tenant request is allowed"));
    assert_eq!(told(&all("unless { context.mfa }")), "");
    assert_eq!(told(&format!("@id(\"x\") forbid ({WRITES});")), "", "an area may be shut");
}

#[test]
fn a_rule_that_another_covers() {
    let wide = "@id(\"wide\") forbid (principal, action in [Action::\"partner.billing.*\"], resource) unless { context.mfa };\n";
    assert!(
        told(&format!("{wide}{}", forbid("narrow", "!context.mfa && context.method == \"POST\"")))
            .contains("`narrow` is covered by `wide`")
    );
    assert_eq!(told(&format!("{wide}{}", forbid("other", "context.method == \"POST\""))), "");
    // Of two that say the same, only the later one is idle.
    let twice = told(&format!("{}{}", forbid("one", "context.mfa"), forbid("two", "context.mfa == true")));
    assert!(twice.contains("`two` is covered by `one`") && !twice.contains("`one` is covered"), "{twice}");
    // By a gate.
    let gate =
        told("@id(\"x\") forbid (principal, action, resource is Link) when { !resource.approved && context.mfa };");
    assert!(gate.contains("`x` is covered by `linkgate.gate.approval`"), "{gate}");
    assert_eq!(
        told("@id(\"x\") forbid (principal, action, resource is Link) when { resource.approved && context.mfa };"),
        ""
    );
    // By what a role grants anyway.
    let permit = |action: &str| {
        format!(
            "@id(\"x\") permit (principal, action == Action::\"{action}\", resource is Link) when {{ resource.role == Role::\"reseller\" }};"
        )
    };
    assert!(told(&permit("partner.support.tickets.read")).contains("`x` is covered by `linkgate.role.reseller`"));
    assert_eq!(told(&permit("partner.support.tickets.comment")), "");
}

#[test]
fn a_permit_that_a_prohibition_always_beats() {
    let permit = |condition: &str| {
        format!(
            "@id(\"x\") permit (principal, action == Action::\"partner.support.tickets.comment\", resource is Link) when {{ {condition} }};\n"
        )
    };
    for (beaten, gate) in [
        ("action in resource.denied", "linkgate.gate.override"),
        ("!resource.active && context.mfa", "linkgate.gate.active"),
        ("resource.suspended", "linkgate.gate.suspension"),
        ("resource.require_mfa && !context.mfa", "linkgate.gate.mfa"),
        ("!(action in principal.holds)", "linkgate.gate.user"),
    ] {
        let text = told(&permit(beaten));
        assert!(text.contains(&format!("`x` can never permit anything: `{gate}`")), "{beaten}: {text}");
    }
    let by_hand = "@id(\"no-comments\") forbid (principal, action in [Action::\"support.write\"], resource) when { context.method == \"POST\" };\n";
    let role = "resource.role == Role::\"reseller\"";
    assert!(
        told(&format!("{by_hand}{}", permit(&format!("{role} && context.method == \"POST\""))))
            .contains("`no-comments` forbids all")
    );
    assert_eq!(told(&format!("{by_hand}{}", permit(role))), "");
}

#[test]
fn ids_that_nobody_can_have() {
    let rule = |principal: &str| format!("@id(\"x\") forbid ({principal}, action, resource) when {{ context.mfa }};");
    for (nobody, somebody) in [
        (
            "principal == PartnerUser::\"user-4711\"",
            "principal == PartnerUser::\"https://login.example.net|user-4711\"",
        ),
        ("principal in Partner::\"acme\"", "principal in Partner::\"0197a000-0000-7000-8000-00000000000a\""),
        (
            "principal in Partner::\"0197A000-0000-7000-8000-00000000000A\"",
            "principal is PartnerUser in Partner::\"0197a000-0000-7000-8000-00000000000a\"",
        ),
    ] {
        assert!(told(&rule(nobody)).contains("names nobody"), "{nobody}");
        assert_eq!(told(&rule(somebody)), "", "{somebody}");
    }
    let text = told(&forbid("x", "resource == Link::\"17\" && context.mfa"));
    assert!(text.contains(":") && text.contains("`Link::\"17\"` names nobody"), "{text}");
}
