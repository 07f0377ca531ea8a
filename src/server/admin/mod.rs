//! The admin API: what the command line does with partners, users, tenants, links, approvals, webhooks and suspensions,
//! over HTTP, on a listener of its own. The public listener never serves it.
//!
//! Reading order: `table` (which operation, for which roles), `access` (who calls), `call` (the life of a call), `ask`
//! and `answer` (what comes and goes), the operations (`parties`, `links`, `webhooks`, `emergency`, `insight`), `openapi`
//! (their description), `listener` (sockets).
//!
//! Invariants: nobody is answered without a token, from loopback neither. Every call of somebody known leaves a record,
//! reads too, and no write acts before its record is as durable as `audit.writes` says. A write is in force in this
//! process before it is answered. What is changed stands in a record of its own, chained through the outbox, under the
//! same request id.

pub mod table;

mod access;
mod answer;
mod ask;
mod call;

mod emergency;
mod insight;
mod links;
mod parties;
mod webhooks;

pub mod openapi;

mod listener;
mod metrics;

use std::sync::Arc;

use crate::{
    limit::LocalQuotas,
    proxy::worker::Live,
    store::{AuditStore, Database},
};

pub use listener::Listener;

/// Addresses whose refusals are counted.
const COUNTED_ADDRESSES: usize = 20_000;

/// What every call needs.
pub struct AdminApi {
    live: Arc<Live>,
    database: Database,
    records: AuditStore,
    quotas: LocalQuotas,
    metrics: metrics::Metrics,
}

impl std::fmt::Debug for AdminApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminApi").finish_non_exhaustive()
    }
}

impl AdminApi {
    pub fn new(
        live: &Arc<Live>,
        database: &Database,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            records: AuditStore::new(database, live.current().journal.dir()),
            live: Arc::clone(live),
            database: database.clone(),
            quotas: LocalQuotas::new(COUNTED_ADDRESSES),
            metrics: metrics::Metrics::register(registry)?,
        }))
    }
}
