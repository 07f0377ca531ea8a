//! Background work of a running server: key refresh, the audit index, the outbox of changes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinSet;

use super::AppError;
use crate::{
    audit::{ChainHeads, Journal, indexer::Indexer, outbox::OutboxRelay},
    proxy::worker::Gateway,
    store::{AuditStore, Database},
};

/// How often the journal is looked at for records to index, and the outbox for changes to chain.
const INDEX_INTERVAL: Duration = Duration::from_millis(200);
const OUTBOX_INTERVAL: Duration = Duration::from_millis(500);

/// How long the start waits for the database to say which head it has seen.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Running tasks; all end when stopped.
#[derive(Debug)]
pub struct Background {
    tasks: JoinSet<()>,
    trouble: Trouble,
}

/// What went wrong for good and needs an operator; shown by readiness.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// Empty while all is well.
    pub fn message(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    fn set(&self, message: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }
}

/// Starts everything.
pub fn start(gateway: &Arc<Gateway>, database: &Database) -> Background {
    let trouble = Trouble::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&gateway.verifier).maintain());
    let store = Arc::new(AuditStore::new(database));
    let journal = Journal::clone(&gateway.journal);
    let indexer = Indexer::new(journal.clone(), Arc::clone(&store), INDEX_INTERVAL);
    let told = trouble.clone();
    tasks.spawn(async move {
        // Ends only where the journal was altered or cut off under our hands.
        let error = indexer.run().await;
        tracing::error!(%error, "the audit index stopped: the journal is not what was written");
        told.set(error.to_string());
    });
    tasks.spawn(OutboxRelay::new(journal, store, OUTBOX_INTERVAL).run());
    Background { tasks, trouble }
}

impl Background {
    pub fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// The journal must not end before what the database has seen of it: then its tail was cut off.
pub async fn check_head(journal: &Journal, database: &Database) -> Result<(), AppError> {
    let store = AuditStore::new(database);
    let stored = tokio::time::timeout(HEAD_TIMEOUT, store.head(journal.chain_id())).await;
    match stored {
        Ok(Ok(Some(head))) => Ok(journal.check_head(head)?),
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => Err(AppError::Head(error)),
        Err(_) => Err(AppError::HeadTimeout),
    }
}
