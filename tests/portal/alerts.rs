//! Endpoints 12 and 13 and acknowledge, over stored alerts; their sources are `alert_sources`' task.

use std::{collections::BTreeSet, thread, time::Duration};

use linkgate::{
    config::settings::DatabaseSettings,
    connector::rows::Severity,
    domain::{LinkId, Millis},
    store::{AlertKind, AlertStore, Database, Evaluation, Finding},
};
use serde_json::{Value, json, value::RawValue};

use super::{
    client::{Answer, Request},
    gateway_rig::{HOME1, P1, P2, Rig, Setup},
};

const FIELDS: [&str; 12] = [
    "alert_id",
    "tenant_id",
    "tenant_name",
    "alert_type",
    "severity",
    "title",
    "message",
    "triggered_at",
    "acknowledged_at",
    "resolved_at",
    "status",
    "metadata",
];

/// Nothing runs beside the test, and nothing is asked of services while a request is young.
fn quiet() -> Rig {
    let routes = "[alerts]\nbackground = false\nfresh_for = \"1h\"\n".to_owned();
    Rig::with(Setup { routes, ..Setup::default() })
}

pub fn store(rig: &Rig) -> AlertStore {
    let settings = DatabaseSettings::Sqlite { path: rig.dir.path().join("linkgate.db") };
    AlertStore::new(&rig.block_on(Database::open(&settings)).unwrap())
}

fn finding(link: LinkId, key: &str, severity: Severity, minutes_ago: i64) -> Finding {
    Finding {
        dedup_key: format!("{key}:{link}"),
        alert_type: "billing_threshold",
        severity,
        title: "Outstanding balance has reached the threshold".into(),
        message: "1500.00 USD is outstanding; the alert threshold is 1000.00 USD.".into(),
        since: Millis(Millis::now().0 - minutes_ago * 60_000),
        resolved_at: None,
        incident: false,
        metadata: RawValue::from_string(r#"{"currency":"USD","outstanding_balance":90071992547409.93}"#.into())
            .unwrap(),
    }
}

/// As if the link's sources had just said this.
fn say(rig: &Rig, partner: &str, tenant: &str, kind: AlertKind, findings: impl Fn(LinkId) -> Vec<Finding>) {
    let link = rig.links[tenant];
    let now = Millis::now();
    let reading = Evaluation {
        partner_id: partner.parse().unwrap(),
        link_id: link,
        tenant_id: linkgate::domain::TenantId::new(tenant).unwrap(),
        kind,
        read_at: now,
        findings: findings(link),
        exhaustive: vec!["billing_threshold"],
        error: None,
        due_at: Millis(now.0 + 3_600_000),
    };
    rig.block_on(store(rig).apply(vec![reading])).unwrap();
}

fn list(rig: &Rig, query: &str) -> Answer {
    rig.ask(Request::get(&format!("/api/v1/partner/alerts/billing{query}")))
}

fn ids(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    body["items"].as_array().unwrap().iter().map(|item| item["tenant_id"].as_str().unwrap().to_owned()).collect()
}

/// Alerts of three links of partner 1 and one of partner 2.
fn seeded() -> Rig {
    let rig = quiet();
    say(&rig, P1, "t-full", AlertKind::Billing, |link| {
        vec![finding(link, "a", Severity::Critical, 5), finding(link, "b", Severity::Warning, 50 * 24 * 60)]
    });
    say(&rig, P1, "t-billing", AlertKind::Billing, |link| vec![finding(link, "a", Severity::Warning, 10)]);
    say(&rig, P1, "t-support", AlertKind::Billing, |link| vec![finding(link, "a", Severity::Warning, 1)]);
    say(&rig, P1, "t-revoked", AlertKind::Billing, |link| vec![finding(link, "a", Severity::Warning, 1)]);
    say(&rig, P2, "t-other", AlertKind::Billing, |link| vec![finding(link, "a", Severity::Warning, 1)]);
    rig
}

#[test]
fn only_alerts_of_granted_live_links_are_listed_with_exactly_the_contracts_fields() {
    let rig = seeded();
    let answer = list(&rig, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    // Newest first; a live one is shown however old it is.
    assert_eq!(ids(&answer), ["t-full", "t-billing", "t-full"]);
    let fields: BTreeSet<&str> = body["items"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(FIELDS));
    let item = &body["items"][0];
    assert_eq!(item["tenant_name"], "t-full");
    assert_eq!((&item["severity"], &item["status"]), (&json!("critical"), &json!("active")));
    assert_eq!((&item["acknowledged_at"], &item["resolved_at"]), (&Value::Null, &Value::Null));
    assert!(item["triggered_at"].as_str().unwrap().ends_with('Z'));
    assert!(answer.text().contains(r#""outstanding_balance":90071992547409.93"#), "exact: {}", answer.text());
    let envelope: BTreeSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = BTreeSet::from([
        "items",
        "total",
        "limit",
        "offset",
        "has_more",
        "active_count",
        "acknowledged_count",
        "resolved_count",
        "total_exact",
        "partial",
        "sources",
    ]);
    assert_eq!(envelope, expected);
    assert_eq!((&body["total"], &body["active_count"], &body["has_more"]), (&json!(3), &json!(3), &json!(false)));
    assert_eq!((&body["partial"], &body["total_exact"]), (&json!(false), &json!(true)));
    // The support role may not read billing alerts: told, and neither partial nor listed.
    let forbidden = body["sources"].as_array().unwrap().iter().filter(|one| one["status"] == "forbidden");
    let forbidden: Vec<_> = forbidden.map(|one| one["tenant_id"].as_str().unwrap()).collect();
    assert!(forbidden.contains(&"t-support"), "{forbidden:?}");
    assert!(!answer.text().contains("t-other") && !answer.text().contains("t-revoked"));

    rig.revoke("t-full");
    let after = (0..50).map(|_| list(&rig, "")).find(|answer| {
        thread::sleep(Duration::from_millis(20));
        answer.status == 200 && ids(answer) == ["t-billing"]
    });
    assert!(after.is_some(), "the alerts of a revoked link are gone with it");
}

#[test]
fn filters_paging_and_mistakes() {
    let rig = seeded();
    assert_eq!(ids(&list(&rig, "?severity=critical")), ["t-full"]);
    assert_eq!(ids(&list(&rig, "?severity=critical,warning&limit=1&offset=1")), ["t-billing"]);
    let page = list(&rig, "?limit=2").json();
    assert_eq!((&page["has_more"], &page["total"], &page["limit"]), (&json!(true), &json!(3), &json!(2)));
    assert_eq!(ids(&list(&rig, "?tenant_ids=t-billing")), ["t-billing"]);
    assert_eq!(ids(&list(&rig, "?status=resolved,acknowledged")), Vec::<String>::new());
    let day_ago = Millis(Millis::now().0 - 86_400_000);
    assert_eq!(ids(&list(&rig, &format!("?from_date={day_ago}"))), ["t-full", "t-billing"]);
    assert_eq!(ids(&list(&rig, "?from_date=2020-01-01")), ["t-full", "t-billing", "t-full"]);
    for (query, field) in [
        ("?status=open", "status"),
        ("?severity=high", "severity"),
        ("?from_date=yesterday", "from_date"),
        ("?to_date=2026-01-01", "to_date"),
        ("?limit=0", "limit"),
        ("?offset=10000", "offset"),
        ("?colour=red", "colour"),
    ] {
        let answer = list(&rig, query);
        assert_eq!(answer.status, 422, "{query}: {}", answer.text());
        assert!(answer.text().contains(field), "{query}: {}", answer.text());
    }
    assert_eq!(list(&rig, "?tenant_ids=t-other").error(), "TENANT_ACCESS_DENIED/no_link");
    assert_eq!(list(&rig, "?tenant_ids=t-revoked").error(), "TENANT_ACCESS_DENIED/link_inactive");
    let nobody = rig.token_with("user-1", HOME1, json!({"roles": ["partner_msp_support"]}));
    let refused = Request::get("/api/v1/partner/alerts/billing").bearer(&nobody).send(rig.public);
    assert_eq!(refused.error(), "FORBIDDEN/permission");
}

#[test]
fn sources_that_fail_are_told_and_stored_alerts_are_shown_all_the_same() {
    let rig = seeded();
    let threshold = serde_json::from_value(json!({"billing_alert_threshold": 1000})).unwrap();
    rig.update("t-full", &threshold);
    let asked = || {
        let answer = list(&rig, "");
        let body = answer.json();
        let failed = body["sources"].as_array().unwrap().iter().find(|one| one["status"] == "error").cloned();
        (answer, body, failed)
    };
    let found = (0..50).map(|_| asked()).find(|(_, _, failed)| {
        thread::sleep(Duration::from_millis(20));
        failed.is_some()
    });
    let (answer, body, failed) = found.expect("the source that has no connector is told");
    let failed = failed.unwrap();
    assert_eq!(failed["tenant_id"], "t-full");
    assert!(failed["as_of"].is_string(), "the last good reading: {failed}");
    assert_eq!((answer.status, &body["partial"]), (200, &json!(true)));
    assert_eq!(ids(&answer), ["t-full", "t-billing", "t-full"]);
    let strict = list(&rig, "?strict=true");
    assert_eq!((strict.status, strict.error().as_str()), (502, "UPSTREAM_ERROR"));
}

fn acknowledge(rig: &Rig, kind: &str, id: &str) -> Answer {
    rig.ask(Request::new("POST", &format!("/api/v1/partner/alerts/{kind}/{id}/acknowledge")).body(""))
}

#[test]
fn acknowledging_is_idempotent_audited_and_for_own_alerts_only() {
    let rig = seeded();
    let body = list(&rig, "").json();
    let id = body["items"][0]["alert_id"].as_str().unwrap().to_owned();
    let first = acknowledge(&rig, "billing", &id);
    assert_eq!(first.status, 200, "{}", first.text());
    let alert = first.json();
    let fields: BTreeSet<&str> = alert.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(FIELDS));
    assert_eq!((&alert["status"], &alert["alert_id"]), (&json!("acknowledged"), &json!(id)));
    let again = acknowledge(&rig, "billing", &id);
    assert_eq!((again.status, again.json()), (200, alert), "the first time stays");
    let counted = list(&rig, "?status=acknowledged").json();
    assert_eq!((&counted["total"], &counted["acknowledged_count"]), (&json!(1), &json!(1)));

    let found = (0..200).find_map(|_| {
        thread::sleep(Duration::from_millis(25));
        rig.records().into_iter().find(|record| record["action"] == "alert.acknowledge")
    });
    let record = found.expect("the change is chained");
    assert_eq!((&record["user_id"], &record["resource_id"]), (&json!("user-1"), &json!(id)));
    assert_eq!(record["managed_tenant_id"], "t-full");

    // Not the caller's, not of this kind, not there, no id at all, of a revoked link: one answer.
    let theirs = ids_of(&rig, "t-other");
    let gone = ids_of(&rig, "t-revoked");
    let nil = uuid::Uuid::nil().to_string();
    for (kind, id) in
        [("billing", &*theirs), ("billing", &*gone), ("sla", &*id), ("billing", &*nil), ("billing", "no-id")]
    {
        let answer = acknowledge(&rig, kind, id);
        assert_eq!((answer.status, answer.error().as_str()), (404, "ALERT_NOT_FOUND"), "{kind} {id}");
    }
    // An auditor reads and never writes.
    say(&rig, P1, "t-auditor", AlertKind::Billing, |link| vec![finding(link, "a", Severity::Warning, 1)]);
    let seen = list(&rig, "?tenant_ids=t-auditor").json();
    let readable = seen["items"][0]["alert_id"].as_str().unwrap();
    assert_eq!(acknowledge(&rig, "billing", readable).error(), "FORBIDDEN/permission");

    // The billing role reads them and acknowledges none.
    let seen = list(&rig, "?tenant_ids=t-billing").json();
    let readable = seen["items"][0]["alert_id"].as_str().unwrap();
    assert_eq!(acknowledge(&rig, "billing", readable).error(), "FORBIDDEN/permission");
    say(&rig, P1, "t-full", AlertKind::Billing, |_| Vec::new());
    let resolved = list(&rig, "?status=resolved").json();
    let id = resolved["items"][0]["alert_id"].as_str().unwrap();
    let conflict = acknowledge(&rig, "billing", id);
    assert_eq!((conflict.status, conflict.error().as_str()), (409, "CONFLICT"));
    let path = format!("/api/v1/partner/alerts/billing/{id}/acknowledge");
    let unknown = rig.ask(Request::new("POST", &path).json(r#"{"note":"x"}"#));
    assert_eq!(unknown.error(), "VALIDATION_ERROR");
    assert_eq!(rig.ask(Request::get(&path)).status, 405);
}

/// The first alert of a tenant, whoever may see it.
fn ids_of(rig: &Rig, tenant: &str) -> String {
    let partner = if tenant == "t-other" { P2 } else { P1 };
    let filter = linkgate::store::alerts::AlertFilter {
        partner_id: partner.parse().unwrap(),
        kind: AlertKind::Billing,
        since: Some(Millis(0)),
        default_since: Millis(0),
        severity: Vec::new(),
    };
    let keys = rig.block_on(store(rig).keys(&filter)).unwrap();
    keys.iter().find(|key| key.link_id == rig.links[tenant]).unwrap().alert_id.to_string()
}
