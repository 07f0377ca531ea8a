//! Shadow mode and the log-only rollout: sets that are asked, or enforced in part, and what is told of them.

use serde_json::json;

use super::{
    client::Request,
    rig::{HOME1, P1, Rig, Setup},
    why::{MFA, OOPS, linkgate, private, until},
};

const HARMLESS: &str =
    "@id(\"test.harmless\")\nforbid (principal, action, resource) when { context.method == \"BREW\" };\n";
/// Fails wherever it applies.
const FAILS: &str =
    "@id(\"overflows\")\npermit (principal, action, resource) when { 9223372036854775807 + 1 > 0 && context.mfa };\n";

fn metric(rig: &Rig, name: &str) -> Option<f64> {
    let metrics = rig.health("/metrics").text();
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn shadowed(rules: &str) -> Rig {
    Rig::with(Setup {
        guardrails: vec![("own.cedar", HARMLESS.to_owned())],
        shadow: vec![("own.cedar", rules.to_owned())],
        ..Setup::default()
    })
}

#[test]
fn a_shadow_set_is_asked_counted_recorded_and_never_enforced() {
    let rig = shadowed(&format!("{MFA}{OOPS}"));
    let allowed = rig.ask(Request::get("/api/invoices").tenant("t-full"));
    assert_eq!(allowed.status, 200, "the set in force decides");
    let refused = rig.ask(Request::new("POST", "/api/invoices").tenant("t-auditor"));
    assert_eq!(refused.error(), "FORBIDDEN/permission");
    let agreed = rig.ask(Request::get("/api/tickets/1").tenant("t-full"));
    let record =
        |answer: &super::client::Answer| private(&rig, answer.header("x-decision-id"))["priv"]["shadow"].clone();
    let flip = record(&allowed);
    assert_eq!(flip["differs"], json!([{"decision": "deny", "reason": "guardrail", "policies": ["export-needs-mfa"]}]));
    assert_eq!(record(&refused)["differs"][0]["decision"], "allow");
    assert!(record(&agreed)["version"].is_string() && record(&agreed).get("differs").is_none());

    let flips = |labels: &str| metric(&rig, &format!("linkgate_shadow_flips_total{{{labels}}}"));
    assert_eq!(flips("direction=\"allow_to_deny\",rule=\"export-needs-mfa\""), Some(1.0));
    assert_eq!(flips("direction=\"deny_to_allow\",rule=\"permission\""), Some(1.0));
    assert_eq!(metric(&rig, "linkgate_shadow_agreed_total"), Some(1.0));
    assert_eq!(metric(&rig, "linkgate_shadow_loaded"), Some(1.0));

    let report = linkgate(&rig, &["--json", "policy", "shadow", "report"]).json();
    assert_eq!((&report["shadowed"], &report["agreed"]), (&json!(3), &json!(1)));
    let rows = report["flips"].as_array().unwrap();
    assert_eq!((rows[0]["direction"].as_str(), rows[0]["tenant"].as_str()), (Some("deny_to_allow"), Some("t-auditor")));
    assert_eq!(rows[0]["permitted_by"], "auditors-correct-invoices");
    assert_eq!((rows[1]["tenant"].as_str(), rows[1]["partner_id"].as_str()), (Some("t-full"), Some(P1)));
    assert_eq!(rows[1]["refused_by"], "guardrail (export-needs-mfa)");
    let explained = linkgate(&rig, &["explain", allowed.header("x-decision-id")]);
    assert!(explained.out.contains("shadow said        deny, guardrail (export-needs-mfa)"), "{}", explained.out);

    // A consolidated read names the tenant of each flip, where no tenant can see it.
    rig.ask(Request::get("/api/v1/partner/billing/invoices"));
    let line = rig.lines().into_iter().find(|line| line["pub"]["path"] == "/api/v1/partner/billing/invoices").unwrap();
    assert!(line["priv"]["shadow"]["differs"][0]["managed_tenant_id"].is_string(), "{line:#}");
    assert!(!line["slices"].to_string().contains("shadow"));
    // All tenants are decided before it is known which ones are asked for; the record is about these.
    let one = rig.ask(Request::get("/api/v1/partner/billing/invoices?tenant_ids=t-billing"));
    assert_eq!(one.status, 200, "{}", one.text());
    let differs = record(&one)["differs"].clone();
    assert_eq!((differs.as_array().unwrap().len(), &differs[0]["managed_tenant_id"]), (1, &json!("t-billing")));
}

#[test]
fn a_shadow_set_that_is_bad_or_fails_harms_nothing_and_is_told() {
    let rig = shadowed(FAILS);
    let mfa = rig.token_with("user-1", HOME1, json!({"roles": ["partner_msp_full"], "amr": ["mfa"]}));
    let ask = || Request::get("/api/invoices").tenant("t-full").bearer(&mfa).send(rig.public);
    let answer = ask();
    assert_eq!(answer.status, 200);
    assert_eq!(metric(&rig, "linkgate_shadow_errors_total"), Some(1.0));
    assert_eq!(metric(&rig, "linkgate_policy_errors_total"), Some(0.0), "the set in force has none");
    let shadow = private(&rig, answer.header("x-decision-id"))["priv"]["shadow"].clone();
    assert_eq!(shadow["differs"][0]["reason"], "policy_error");
    let version = shadow["version"].clone();
    assert_eq!(linkgate(&rig, &["--json", "policy", "shadow", "report"]).json()["errors"], 1);

    // A bad file: the last good shadow set stays, and the load is audited.
    let loads = || {
        let lines = rig.lines();
        let loads = lines.iter().filter(|line| line["pub"]["action"] == "policy.shadow.load");
        loads.map(|line| line["pub"]["decision"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(loads(), ["allow"]);
    let file = rig.dir.path().join("shadow/guardrails/own.cedar");
    std::fs::write(&file, "@id(\"bad\") forbid (principal, action, resource) when { context.metod == \"GET\" };")
        .unwrap();
    until("the refusal is recorded", || loads() == ["allow", "deny"]);
    assert_eq!(private(&rig, ask().header("x-decision-id"))["priv"]["shadow"]["version"], version);
    std::fs::write(&file, HARMLESS).unwrap();
    until("a good one is asked", || loads() == ["allow", "deny", "allow"]);
    let shadow = private(&rig, ask().header("x-decision-id"))["priv"]["shadow"].clone();
    assert!(shadow.get("differs").is_none() && shadow["version"] != version);
}

#[test]
fn a_gateway_starts_with_a_bad_shadow_set_and_says_so() {
    let rig = shadowed("@id(\"bad\") forbid (principal, action, resource) when { context.metod == \"GET\" };");
    assert_eq!(rig.ask(Request::get("/api/invoices").tenant("t-full")).status, 200);
    assert_eq!(metric(&rig, "linkgate_shadow_loaded"), Some(0.0));
    let ready = rig.health("/readyz");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("shadow set could not be loaded"), "{}", ready.text());
    let checked = linkgate(&rig, &["check"]);
    assert!(checked.code == 3 && checked.out.contains("the shadow policies are invalid"), "{}", checked.out);
}

#[test]
fn a_log_only_rollout_lets_guardrails_and_roles_through_and_nothing_else() {
    let rig = Rig::with(Setup {
        guardrails: vec![("own.cedar", MFA.to_owned())],
        policy: "enforce = false\n".to_owned(),
        ..Setup::default()
    });
    let ask = |method: &str, tenant: &str| {
        let request =
            if method == "GET" { Request::get("/api/invoices") } else { Request::new("POST", "/api/invoices") };
        rig.ask(request.tenant(tenant))
    };
    let let_through = [("GET", "t-full", "guardrail"), ("POST", "t-auditor", "permission")];
    for (method, tenant, reason) in let_through {
        let answer = ask(method, tenant);
        assert_eq!(answer.status, 200, "{tenant}: {}", answer.text());
        let waived = private(&rig, answer.header("x-decision-id"))["priv"]["waived"].clone();
        assert_eq!(waived[0]["reason"], reason, "{waived}");
    }
    for (tenant, refused) in [
        ("t-expired", "TENANT_LINK_EXPIRED"),
        ("t-revoked", "TENANT_ACCESS_DENIED/link_inactive"),
        ("t-future", "TENANT_ACCESS_DENIED/link_not_started"),
        ("t-pending", "TENANT_ACCESS_DENIED/link_pending"),
        ("t-override", "FORBIDDEN/override"),
        ("t-mfa", "FORBIDDEN/mfa_required"),
        ("t-cidr", "FORBIDDEN/ip_not_allowed"),
        ("t-other", "TENANT_ACCESS_DENIED/no_link"),
        ("t-unlinked", "TENANT_ACCESS_DENIED/no_link"),
    ] {
        let error = ask("GET", tenant).error();
        assert!(error.starts_with(refused), "{tenant}: {error}");
    }
    let narrow = rig.token_with("user-1", HOME1, json!({"permissions": ["partner.tenants.*"]}));
    let answer = Request::get("/api/invoices").tenant("t-full").bearer(&narrow).send(rig.public);
    assert_eq!(answer.error(), "FORBIDDEN/permission", "what the user does not hold stays refused");

    assert_eq!(metric(&rig, "linkgate_policy_enforced"), Some(0.0));
    assert_eq!(metric(&rig, "linkgate_policy_waived_total"), Some(2.0));
    assert!(rig.health("/readyz").text().contains("NOT ENFORCED"));
    let checked = linkgate(&rig, &["check"]);
    assert!(checked.code == 0 && checked.out.contains("NOT ENFORCED"), "{}{}", checked.out, checked.err);
    let report = linkgate(&rig, &["--json", "policy", "shadow", "report"]).json();
    assert_eq!(report["waived"], 2);
    // The set refused them, whatever was let through: replaying it finds nothing new.
    let replayed = linkgate(&rig, &["--json", "policy", "replay"]);
    assert_eq!((replayed.code, &replayed.json()["flips"]), (0, &json!([])), "{}", replayed.err);
}
