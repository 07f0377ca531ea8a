//! Counting what waits, for metrics.

use std::{collections::BTreeMap, sync::Arc};

use linkgate::{
    connector::rows::Severity,
    domain::Millis,
    store::{
        AlertKind, AlertStatus, AlertStore, Census, ExportJobs, SuspensionScope, Whose,
        admin::{Page, SuspensionInput},
        deliveries::DeliveryFilter,
    },
};
use serde_json::Value;

use crate::{
    alerts::{finding, linked, reading, subscribe},
    fixture::Fixture,
    writes::queued,
};

pub(crate) async fn what_waits_is_counted_and_what_is_done_is_not(fixture: Arc<Fixture>) {
    let take = async || Census::take(&fixture.db).await.unwrap();
    assert_eq!(take().await, Census::default());

    let of = linked(&fixture).await;
    subscribe(&fixture, of.0).await;
    let store = AlertStore::new(&fixture.db);
    let both = vec![finding("a", Severity::Warning), finding("b", Severity::Critical)];
    store.apply(vec![reading(&of, 10, both)]).await.unwrap();
    let jobs = ExportJobs::new(&fixture.db);
    for n in [7, 5, 6] {
        queued(&jobs, n).await;
    }
    let (lease, _) = jobs.lease::<Value>(Whose::Anyones, Millis(100), Millis(200)).await.unwrap().unwrap();
    let count = |severity| ((AlertKind::Billing, severity, AlertStatus::Active), 1);
    let input =
        |scope, subject: &str| SuspensionInput { scope, issuer: None, subject: subject.into(), reason: "r".into() };
    let suspend =
        async |scope, subject| fixture.admin.suspend(&fixture.actor, &input(scope, subject)).await.unwrap().value.id;
    suspend(SuspensionScope::User, "someone").await;
    let everything = suspend(SuspensionScope::All, "").await;
    let told = fixture.admin.deliveries(&DeliveryFilter::default(), Page::default()).await.unwrap();
    let expected = Census {
        alerts: BTreeMap::from([count(Severity::Warning), count(Severity::Critical)]),
        evaluation_due: Some(Millis(1_010)),
        deliveries: 2,
        oldest_delivery: told.iter().map(|delivery| delivery.created_at).min(),
        exports_queued: 2,
        exports_running: 1,
        oldest_export: Some(Millis(5)),
        suspensions: BTreeMap::from([("all", 1), ("user", 1)]),
    };
    assert_eq!(take().await, expected);

    // One alert is resolved, one export is given up, deliveries are dropped with their subscriptions.
    store.apply(vec![reading(&of, 20, vec![finding("b", Severity::Critical)])]).await.unwrap();
    assert!(jobs.fail(lease, "no", Millis(150)).await.unwrap());
    for one in told.iter().map(|delivery| delivery.subscription_id).collect::<std::collections::BTreeSet<_>>() {
        fixture.admin.delete_subscription(&fixture.actor, one, None).await.unwrap();
    }
    fixture.admin.restore(&fixture.actor, everything).await.unwrap();
    let expected = Census {
        suspensions: BTreeMap::from([("user", 1)]),
        alerts: BTreeMap::from([count(Severity::Critical)]),
        evaluation_due: Some(Millis(1_020)),
        deliveries: 0,
        oldest_delivery: None,
        exports_running: 0,
        oldest_export: Some(Millis(6)),
        ..expected
    };
    assert_eq!(take().await, expected);
}
