//! Alerts: one live row a key whoever writes it, turns that readings take, leases, acknowledging.

use std::sync::Arc;

use linkgate::{
    connector::rows::Severity,
    domain::{LinkId, Millis, PartnerId, TenantId},
    store::{
        AlertKind, AlertRecord, AlertStatus, AlertStore, Evaluation, Finding, StoreError,
        admin::{SubscriptionInput, SubscriptionRecord},
        alerts::AlertFilter,
    },
};
use serde_json::value::RawValue;

use crate::fixture::{Fixture, change, link};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A partner with a link that asks for billing alerts.
pub(crate) async fn linked(fixture: &Fixture) -> (PartnerId, LinkId, TenantId) {
    let partner = fixture.partner("p").await;
    let tenant = fixture.tenant("t-1").await;
    let mut input = link(partner, &tenant, "msp_full");
    input.billing_alert_threshold =
        change(serde_json::json!({"billing_alert_threshold": 1000})).billing_alert_threshold;
    let made = fixture.grant(&input).await.unwrap().value;
    (partner, made.id, tenant)
}

pub(crate) async fn subscribe(fixture: &Fixture, partner: PartnerId) -> SubscriptionRecord {
    let input = SubscriptionInput { url: Some("https://hooks.example/in".into()), ..SubscriptionInput::default() };
    fixture.admin.create_subscription(&fixture.actor, partner, SECRET, &input).await.unwrap().value
}

pub(crate) fn finding(key: &str, severity: Severity) -> Finding {
    Finding {
        dedup_key: key.into(),
        alert_type: "billing_threshold",
        severity,
        title: "title".into(),
        message: format!("message {severity:?}"),
        since: Millis(1_000),
        resolved_at: None,
        incident: false,
        metadata: RawValue::from_string(r#"{"outstanding":90071992547409.93}"#.into()).unwrap(),
    }
}

pub(crate) fn reading(of: &(PartnerId, LinkId, TenantId), read_at: i64, findings: Vec<Finding>) -> Evaluation {
    Evaluation {
        partner_id: of.0,
        link_id: of.1,
        tenant_id: of.2.clone(),
        kind: AlertKind::Billing,
        read_at: Millis(read_at),
        findings,
        exhaustive: vec!["billing_threshold"],
        error: None,
        due_at: Millis(read_at + 1_000),
    }
}

async fn listed(store: &AlertStore, partner: PartnerId) -> Vec<AlertRecord> {
    let filter = AlertFilter {
        partner_id: partner,
        kind: AlertKind::Billing,
        since: Some(Millis(0)),
        default_since: Millis(0),
        severity: Vec::new(),
    };
    let keys = store.keys(&filter).await.unwrap();
    store.alerts(&keys.iter().map(|key| key.alert_id).collect::<Vec<_>>()).await.unwrap()
}

pub(crate) async fn an_alert_lives_from_active_to_resolved_and_may_come_again(fixture: Arc<Fixture>) {
    let of = linked(&fixture).await;
    subscribe(&fixture, of.0).await;
    let store = AlertStore::new(&fixture.db);
    let events = "SELECT count(*) FROM webhook_events WHERE type = 'partner.tenant.billing_threshold'";

    let applied = store.apply(vec![reading(&of, 10, vec![finding("k", Severity::Warning)])]).await.unwrap();
    assert_eq!((applied.activated, applied.resolved), (1, 0));
    let first = listed(&store, of.0).await.remove(0);
    assert_eq!((first.status, first.triggered_at), (AlertStatus::Active, Millis(1_000)));
    assert_eq!(first.metadata.get(), r#"{"outstanding":90071992547409.93}"#, "amounts stay exact");
    assert_eq!(fixture.count(events).await, 1);

    // The same again: nothing new, and nobody is told twice.
    assert_eq!(store.apply(vec![reading(&of, 20, vec![finding("k", Severity::Warning)])]).await.unwrap().activated, 0);
    assert_eq!(fixture.count(events).await, 1);

    // Acknowledged, it stays so until it becomes worse.
    let actor = fixture.actor.clone();
    let acknowledge = async |id| fixture.admin.acknowledge_alert(&actor, of.0, AlertKind::Billing, id).await;
    acknowledge(first.alert_id).await.unwrap();
    store.apply(vec![reading(&of, 30, vec![finding("k", Severity::Warning)])]).await.unwrap();
    assert_eq!(listed(&store, of.0).await[0].status, AlertStatus::Acknowledged);
    store.apply(vec![reading(&of, 40, vec![finding("k", Severity::Critical)])]).await.unwrap();
    let worse = listed(&store, of.0).await.remove(0);
    assert_eq!((worse.alert_id, worse.status), (first.alert_id, AlertStatus::Active));
    assert_eq!((worse.acknowledged_at, worse.triggered_at), (None, first.triggered_at));
    assert_eq!(fixture.count(events).await, 2);

    // An older reading that comes late changes nothing.
    assert_eq!(store.apply(vec![reading(&of, 35, Vec::new())]).await.unwrap().resolved, 0);
    assert_eq!(listed(&store, of.0).await[0].status, AlertStatus::Active);

    // A reading that is not complete resolves nothing; a complete one does.
    let mut partial = reading(&of, 50, Vec::new());
    (partial.exhaustive, partial.error) = (Vec::new(), Some("no answer in time".into()));
    assert_eq!(store.apply(vec![partial]).await.unwrap().resolved, 0);
    let state = store.evaluations(of.0, AlertKind::Billing).await.unwrap();
    assert_eq!((state[0].read_at, state[0].failed), (Some(Millis(40)), true));
    assert_eq!(store.apply(vec![reading(&of, 60, Vec::new())]).await.unwrap().resolved, 1);
    let over = listed(&store, of.0).await.remove(0);
    assert_eq!((over.status, over.resolved_at), (AlertStatus::Resolved, Some(Millis(1_000))), "not before it began");
    let conflict = acknowledge(first.alert_id).await.unwrap_err();
    assert_eq!(conflict.code().as_str(), "CONFLICT");

    // It comes again as another alert.
    store.apply(vec![reading(&of, 70, vec![finding("k", Severity::Warning)])]).await.unwrap();
    let all = listed(&store, of.0).await;
    assert_eq!(all.len(), 2);
    assert_eq!(fixture.count(events).await, 3);
    assert_eq!(fixture.count("SELECT count(*) FROM webhook_deliveries").await, 3);

    let now = Millis::now();
    assert_eq!(store.prune(now, Millis(1_001)).await.unwrap(), 1, "only what was resolved");
    assert_eq!(listed(&store, of.0).await[0].status, AlertStatus::Active);
    // Nobody looks at a revoked link: a day later its alerts are over.
    fixture.revoke(of.1).await;
    store.prune(now, Millis(0)).await.unwrap();
    assert_eq!(listed(&store, of.0).await[0].status, AlertStatus::Active);
    store.prune(Millis(now.0 + 2 * 86_400_000), Millis(0)).await.unwrap();
    assert_eq!(listed(&store, of.0).await[0].status, AlertStatus::Resolved);
}

pub(crate) async fn an_incident_is_one_alert_for_ever(fixture: Arc<Fixture>) {
    let of = linked(&fixture).await;
    let store = AlertStore::new(&fixture.db);
    let incident = |resolved_at: Option<i64>| Finding {
        incident: true,
        resolved_at: resolved_at.map(Millis),
        ..finding("breach:1", Severity::Info)
    };
    // Over before it was seen: kept, and nobody is told.
    let applied = store.apply(vec![reading(&of, 10, vec![incident(Some(2_000))])]).await.unwrap();
    assert_eq!(applied.activated, 0);
    store.apply(vec![reading(&of, 20, vec![incident(Some(2_000))])]).await.unwrap();
    let all = listed(&store, of.0).await;
    assert_eq!((all.len(), all[0].status, all[0].resolved_at), (1, AlertStatus::Resolved, Some(Millis(2_000))));
    // Opened again at its source.
    assert_eq!(store.apply(vec![reading(&of, 30, vec![incident(None)])]).await.unwrap().activated, 1);
    let again = listed(&store, of.0).await;
    assert_eq!((again.len(), again[0].alert_id, again[0].status), (1, all[0].alert_id, AlertStatus::Active));
}

pub(crate) async fn many_readings_at_once_make_one_alert(fixture: Arc<Fixture>) {
    let of = linked(&fixture).await;
    subscribe(&fixture, of.0).await;
    let mut tasks = Vec::new();
    for number in 0..12 {
        let (db, of) = (fixture.another().await, of.clone());
        tasks.push(tokio::spawn(async move {
            // Each replica reads two links' worth of findings, in an order of its own.
            let (one, other) = (finding("k:USD", Severity::Warning), finding("k:EUR", Severity::Warning));
            let findings = if number % 2 == 0 { vec![one, other] } else { vec![other, one] };
            let done = AlertStore::new(&db).apply(vec![reading(&of, 10 + number, findings)]).await;
            db.close().await;
            done.unwrap().activated
        }));
    }
    let mut activated = 0;
    for task in tasks {
        activated += task.await.unwrap();
    }
    assert_eq!(activated, 2, "one a currency");
    assert_eq!(fixture.count("SELECT count(*) FROM alerts").await, 2);
    assert_eq!(fixture.count("SELECT count(*) FROM webhook_deliveries").await, 2);
}

pub(crate) async fn one_replica_at_a_time_looks_at_a_link(fixture: Arc<Fixture>) {
    let of = linked(&fixture).await;
    let mut tasks = Vec::new();
    for number in 0..8 {
        let db = fixture.another().await;
        tasks.push(tokio::spawn(async move {
            let store = AlertStore::new(&db);
            let now = Millis::now();
            store.enrol(now, 100).await.unwrap();
            let leased = store.lease_due(&format!("replica-{number}"), now, Millis(now.0 + 60_000), 100).await.unwrap();
            db.close().await;
            leased.len()
        }));
    }
    let mut leased = 0;
    for task in tasks {
        leased += task.await.unwrap();
    }
    assert_eq!(leased, 2, "the link, once for billing and once for SLA");
    // A lease that ran out can be had by another; a result moves the time.
    let store = AlertStore::new(&fixture.db);
    let later = Millis(Millis::now().0 + 61_000);
    let again = store.lease_due("other", later, Millis(later.0 + 60_000), 100).await.unwrap();
    assert_eq!(again.len(), 2);
    store.apply(vec![reading(&of, later.0, Vec::new())]).await.unwrap();
    store.release("somebody else", of.1, AlertKind::Sla, later).await.unwrap();
    assert!(store.lease_due("third", later, later, 100).await.unwrap().is_empty(), "it is not theirs to give back");
    store.release("other", of.1, AlertKind::Sla, later).await.unwrap();
    let left = store.lease_due("third", later, Millis(later.0 + 1), 100).await.unwrap();
    assert_eq!(left.iter().map(|due| due.kind).collect::<Vec<_>>(), [AlertKind::Sla]);
    // A clock that ran years ahead, and was put right: neither its readings nor its times count.
    let ahead = Millis(later.0 + 1_000 * 86_400_000);
    store.apply(vec![reading(&of, ahead.0, vec![finding("k", Severity::Warning)])]).await.unwrap();
    store.lease_due("fourth", Millis(ahead.0 + 2_000), Millis(ahead.0 + 60_000), 100).await.unwrap();
    assert_eq!(store.apply(vec![reading(&of, later.0, Vec::new())]).await.unwrap().resolved, 0, "older, it seems");
    assert!(store.mend(later, Millis(later.0 + 600_000)).await.unwrap() > 0);
    assert_eq!(store.mend(later, Millis(later.0 + 600_000)).await.unwrap(), 0);
    let due = store.lease_due("fifth", later, Millis(later.0 + 60_000), 100).await.unwrap();
    assert!(due.iter().any(|due| due.kind == AlertKind::Billing));
    assert_eq!(store.apply(vec![reading(&of, later.0, Vec::new())]).await.unwrap().resolved, 1);
    // A revoked link is not put on the schedule, nor is one that wants to hear nothing.
    let tenant = fixture.tenant("t-2").await;
    let other = fixture.granted(of.0, &tenant, "auditor").await;
    fixture.revoke(other.id).await;
    assert_eq!(store.enrol(later, 100).await.unwrap(), 0);
    let quiet = change(serde_json::json!({"is_active": true, "notify_on_sla_breach": false}));
    fixture.admin.update_link(&fixture.actor, other.id, None, &quiet).await.unwrap();
    assert_eq!(store.enrol(later, 100).await.unwrap(), 0);
    let wanting = change(serde_json::json!({"billing_alert_threshold": 0}));
    fixture.admin.update_link(&fixture.actor, other.id, None, &wanting).await.unwrap();
    assert_eq!(store.enrol(later, 100).await.unwrap(), 1);
}

pub(crate) async fn acknowledging_is_done_once_and_loses_against_resolving(fixture: Arc<Fixture>) {
    let of = linked(&fixture).await;
    let store = AlertStore::new(&fixture.db);
    store.apply(vec![reading(&of, 10, vec![finding("k", Severity::Warning)])]).await.unwrap();
    let id = listed(&store, of.0).await[0].alert_id;
    let records = "SELECT count(*) FROM audit_outbox WHERE id IS NOT NULL";
    let before = fixture.count(records).await;
    let mut tasks = Vec::new();
    for number in 0..6 {
        let fixture = Arc::clone(&fixture);
        let partner = of.0;
        tasks.push(tokio::spawn(async move {
            let actor = linkgate::store::Actor::new(format!("user-{number}"));
            fixture.admin.acknowledge_alert(&actor, partner, AlertKind::Billing, id).await.unwrap().value
        }));
    }
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    assert!(seen.iter().all(|alert| alert.status == AlertStatus::Acknowledged));
    assert!(seen.iter().all(|alert| alert.acknowledged_by == seen[0].acknowledged_by), "the first one keeps it");
    assert_eq!(fixture.count(records).await, before + 1, "one record");

    let other = fixture.partner("other").await;
    for (partner, kind) in [(other, AlertKind::Billing), (of.0, AlertKind::Sla)] {
        let refused = fixture.admin.acknowledge_alert(&fixture.actor, partner, kind, id).await.unwrap_err();
        assert!(matches!(refused, StoreError::NotFound { what: "alert", .. }), "{refused}");
    }

    // Acknowledging and resolving at the same time: whatever comes first, the alert ends resolved.
    for round in 0..10 {
        let key = format!("race-{round}");
        let base = 100 + round * 10;
        store.apply(vec![reading(&of, base, vec![finding(&key, Severity::Warning)])]).await.unwrap();
        let alert = listed(&store, of.0).await.into_iter().find(|alert| alert.dedup_key == key).unwrap();
        let resolving = store.apply(vec![reading(&of, base + 1, Vec::new())]);
        let acknowledging = fixture.admin.acknowledge_alert(&fixture.actor, of.0, AlertKind::Billing, alert.alert_id);
        let (resolved, acknowledged) = tokio::join!(resolving, acknowledging);
        assert_eq!(resolved.unwrap().resolved, 1);
        if let Err(error) = acknowledged {
            assert_eq!(error.code().as_str(), "CONFLICT");
        }
        assert_eq!(store.alert(alert.alert_id).await.unwrap().unwrap().status, AlertStatus::Resolved);
    }
}
