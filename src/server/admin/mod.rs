//! The admin API: what the command line does with partners, users, tenants, links, approvals, webhooks and suspensions, and
//! what it tells of policies, access and the audit record, over HTTP, on a listener of its own. The public listener never
//! serves it.
//!
//! Reading order: `table` and `operations` (which operation, for which roles), `access` (who calls),
//! `call` (the life of a call), `ask` and `answer` (what comes and goes), `desk` (what an operation works with),
//! the operations (`parties`, `links`, `imports`, `webhooks`, `emergency`, `insight`, `questions`, `reviews`, `journal`),
//! `openapi` (their description), `listener` (sockets).
//!
//! Invariants: nobody is answered without a token, from loopback neither. Every call of somebody known leaves a record,
//! reads too, and no write acts before its record is as durable as `audit.writes` says. A write is in force in this
//! process before it is answered. What is long runs beside the runtime, on one thread and a few at a time (`Turns`): no token
//! can have the whole machine. What is changed stands in a record of its own, chained through the outbox, under the
//! same request id.

pub mod table;

mod operations;

mod access;
mod answer;
mod ask;
mod call;
mod desk;

mod emergency;
mod imports;
mod insight;
mod journal;
mod links;
mod parties;
mod questions;
mod reviews;
mod webhooks;

pub mod openapi;
mod parameters;

mod listener;
mod metrics;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{
    limit::LocalQuotas,
    proxy::worker::Live,
    store::{AuditStore, Database},
};

pub use listener::Listener;
use table::Work;

/// Addresses whose refusals are counted.
const COUNTED_ADDRESSES: usize = 20_000;

/// Places for work that is long.
struct Turns {
    import: Arc<Semaphore>,
    ask: Arc<Semaphore>,
    walk: Arc<Semaphore>,
    look: Arc<Semaphore>,
    send: Arc<Semaphore>,
}

impl Turns {
    fn new() -> Self {
        let of = |places| Arc::new(Semaphore::new(places));
        // A test of a webhook waits for its receiver and costs nothing meanwhile. The audit index on SQLite has four readers.
        Self { import: of(1), ask: of(2), walk: of(1), look: of(2), send: of(4) }
    }

    /// `None`: nothing to wait for.
    fn of(&self, work: Work) -> Option<Arc<Semaphore>> {
        match work {
            Work::Light => None,
            Work::Import => Some(Arc::clone(&self.import)),
            Work::Ask => Some(Arc::clone(&self.ask)),
            Work::Walk => Some(Arc::clone(&self.walk)),
            Work::Look => Some(Arc::clone(&self.look)),
            Work::Send => Some(Arc::clone(&self.send)),
        }
    }
}

/// What every call needs.
pub struct AdminApi {
    live: Arc<Live>,
    database: Database,
    records: AuditStore,
    quotas: LocalQuotas,
    metrics: metrics::Metrics,
    turns: Turns,
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
            turns: Turns::new(),
        }))
    }
}
