//! Turns for the long questions that tenants' administrators put to the audit index.
//!
//! The index has few readers, and the indexer and the operators need them too: of tenants one is served at a time, in the
//! order in which they came. The line is short, and no tenant can fill it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AuditStore;
use crate::domain::TenantId;

/// Questions under way at once.
const PLACES: usize = 1;
/// Questions under way or waiting, in all and of one tenant.
const MOST: usize = 32;
const MOST_OF_ONE: usize = 4;

/// Who waits or is served; one for a database, whoever asks it.
#[derive(Debug)]
pub(crate) struct Turns {
    places: Arc<Semaphore>,
    line: Mutex<HashMap<TenantId, usize>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), line: Mutex::default() }
    }
}

/// A place among the questions under way; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _place: OwnedSemaphorePermit,
    _standing: Standing,
}

/// A place in the line.
#[derive(Debug)]
struct Standing {
    turns: Arc<Turns>,
    tenant: TenantId,
}

impl Drop for Standing {
    fn drop(&mut self) {
        let mut line = self.turns.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(standing) = line.get_mut(&self.tenant) {
            *standing -= 1;
            if *standing == 0 {
                line.remove(&self.tenant);
            }
        }
    }
}

impl Turns {
    async fn take(self: &Arc<Self>, tenant: &TenantId, patience: Duration) -> Option<Turn> {
        let standing = self.stand(tenant)?;
        let place = tokio::time::timeout(patience, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()?;
        Some(Turn { _place: place, _standing: standing })
    }

    fn stand(self: &Arc<Self>, tenant: &TenantId) -> Option<Standing> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.values().sum::<usize>() >= MOST || line.get(tenant).is_some_and(|standing| *standing >= MOST_OF_ONE) {
            return None;
        }
        *line.entry(tenant.clone()).or_default() += 1;
        Some(Standing { turns: Arc::clone(self), tenant: tenant.clone() })
    }
}

impl AuditStore {
    /// A tenant's turn to ask. `None`: too many stand before it, or none came free in time.
    pub async fn turn(&self, tenant: &TenantId, patience: Duration) -> Option<Turn> {
        self.db.turns.take(tenant, patience).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[tokio::test]
    async fn one_is_served_at_a_time_and_no_tenant_fills_the_line() {
        let turns = Arc::new(Turns::default());
        let wait = Duration::from_millis(50);
        let first = turns.take(&tenant("a"), wait).await.unwrap();
        assert!(turns.take(&tenant("b"), wait).await.is_none(), "none came free in time");
        let waiting: Vec<_> = (1..MOST_OF_ONE).map(|_| turns.stand(&tenant("a")).unwrap()).collect();
        assert!(turns.stand(&tenant("a")).is_none(), "as many of one tenant as there may be");
        let other = tenant("b");
        let (next, ()) = tokio::join!(turns.take(&other, wait), async { drop(first) });
        assert!(next.is_some(), "another's turn comes though the first one's line is full");
        drop((next, waiting));
        let others: Vec<_> = (0..MOST).map(|n| turns.stand(&tenant(&n.to_string())).unwrap()).collect();
        assert!(turns.stand(&tenant("c")).is_none(), "the line is full");
        drop(others);
        assert!(turns.line.lock().unwrap().is_empty());
        assert!(turns.take(&tenant("a"), wait).await.is_some());
    }
}
