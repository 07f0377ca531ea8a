//! What a running server forgets, whatever is switched on: rows that nobody asks for again, each at its own age. And what it
//! makes ahead of its time: partitions of the audit index.
//!
//! Idempotency keys and exports are forgotten by the export worker, which has their files; links and their history are
//! never deleted. Every replica does this, and does it again where it failed.

use std::{sync::Arc, time::Duration};

use crate::{
    domain::Millis,
    proxy::worker::Live,
    store::{AlertStore, AuditStore, Database, StoreError, deliveries::DeliveryQueue, ending},
};

/// How often.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// How long a change that was chained stays in the outbox: for people who look at it. The chain has it for good.
const CHAINED_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How long it is known that an end of a link was announced. Ends that have passed are never announced.
const NOTICES_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Runs until it is dropped.
pub async fn run(live: Arc<Live>, database: Database, audit: Arc<AuditStore>) {
    loop {
        let gateway = live.current();
        let settings = &gateway.settings;
        let now = Millis::now();
        let before = |age: Duration| Millis(now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
        match audit.make_months().await {
            Ok(0) => {}
            Ok(made) => tracing::info!(made, "partitions of the audit index for the months to come"),
            Err(error) => tracing::warn!(%error, "the audit index lacks partitions for the months to come"),
        }
        if let Err(error) = audit.note_alive(gateway.journal.chain_id()).await {
            tracing::warn!(%error, "it is not noted in the audit index that this server is there");
        }
        told("changes that were chained", audit.prune_outbox(before(CHAINED_KEPT)).await);
        told("announced ends of links", ending::forget_notices(&database, before(NOTICES_KEPT)).await);
        let webhooks = &settings.webhooks;
        let queue = DeliveryQueue::new(&database);
        told("webhook deliveries", queue.prune(now, before(webhooks.keep_delivered), before(webhooks.keep_dead)).await);
        if let Some(portal) = &settings.portal {
            let alerts = AlertStore::new(&database);
            told("alerts", alerts.prune(now, before(portal.alerts.keep_resolved)).await);
        }
        drop(gateway);
        tokio::time::sleep(INTERVAL).await;
    }
}

fn told(what: &str, pruned: Result<u64, StoreError>) {
    match pruned {
        Ok(0) => {}
        Ok(gone) => tracing::info!(gone, "old {what} are forgotten"),
        Err(error) => tracing::warn!(%error, "old {what} cannot be forgotten"),
    }
}
