//! What an operation of the admin API works with.

use std::sync::Arc;

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
}

impl Desk {
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
