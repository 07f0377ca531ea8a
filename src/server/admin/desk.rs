//! What an operation of the admin API works with.

use std::sync::{Arc, OnceLock};

use super::{answer::store_problem, ask::Ask};
use crate::{
    portal::Problem,
    proxy::worker::Gateway,
    store::{Actor, Admin, AuditStore, Database, StoreError, admin::Written},
};

/// What an operation works with.
pub(super) struct Desk {
    pub(super) gateway: Arc<Gateway>,
    pub(super) admin: Admin,
    pub(super) records: AuditStore,
    pub(super) database: Database,
    pub(super) actor: Actor,
    /// What an act that failed had done until then, for the record of the call.
    pub(super) partly: OnceLock<String>,
}

impl Desk {
    /// Told once, by an act that fails after it did a part of its work.
    pub(super) fn partly(&self, done: String) {
        self.partly.get_or_init(|| done);
    }

    /// What was written, in force in this process.
    pub(super) async fn noticed<T>(&self, written: Written<T>) -> T {
        self.gateway.directory.notice(&written.change).await;
        written.value
    }

    /// The same, for an operation of the store as it ended.
    pub(super) async fn done<T>(&self, ask: &Ask, written: Result<Written<T>, StoreError>) -> Result<T, Problem> {
        Ok(self.noticed(written.map_err(|error| store_problem(ask, error))?).await)
    }
}
