//! A journal that is kept in Postgres, as retention sees it: its oldest segments are written into a folder, where the rules
//! of journals on disk look at them.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::runtime::Handle;

use super::{AuditStore, DepotError, audit_index::unavailable, audit_rebuild::Extent};
use crate::{
    audit::{
        ChainId, IndexUnavailable, JournalError, RecordFilter, RecordSource, RetainedIndex,
        evidence::{
            Keys,
            prune::{self, Beyond, Folder, Furthest, Plan},
        },
        retention::{RetainedJournal, RetentionError},
        ship::ShipSettings,
    },
    domain::{DecisionId, Millis},
};

/// How much of a journal is looked at at once, in bytes: that much room is taken in the folder.
const AT_ONCE: u64 = 128 << 20;

/// A chain, and who prunes it.
pub struct KeptJournal {
    store: Arc<AuditStore>,
    chain: ChainId,
    epoch: i64,
    /// Made and removed by each look.
    scratch: PathBuf,
    keys: Keys,
    ship: ShipSettings,
    at_once: u64,
}

/// Asks the index for records that were opened in what would go.
struct Index {
    store: Arc<AuditStore>,
    runtime: Handle,
}

impl Beyond for Index {
    fn still_open(&self, records: &HashSet<DecisionId>) -> Result<Option<DecisionId>, IndexUnavailable> {
        let mut sorted: Vec<DecisionId> = records.iter().copied().collect();
        sorted.sort_unstable();
        for id in sorted {
            let filter = RecordFilter { id: Some(id), limit: Some(1), ..RecordFilter::default() };
            let found = self.runtime.block_on(self.store.query(&filter))?;
            // One that is not found is not known to be complete.
            if !found.first().is_some_and(crate::audit::Record::is_whole) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

impl KeptJournal {
    /// `epoch`: of the taking in whose name it is pruned. `scratch`: a folder of its own.
    pub fn new(
        store: Arc<AuditStore>,
        (chain, epoch): (ChainId, i64),
        scratch: PathBuf,
        keys: Keys,
        ship: ShipSettings,
    ) -> Self {
        Self { store, chain, epoch, scratch, keys, ship, at_once: AT_ONCE }
    }

    /// The same with less at once, in bytes: tests have no hundred mebibytes.
    pub fn looking_at(self, at_once: u64) -> Self {
        Self { at_once, ..self }
    }
}

/// A folder that is there, and empty.
pub fn emptied(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn depot(error: DepotError) -> RetentionError {
    match error {
        DepotError::Folder { path, source } => JournalError::Io { act: "write", path, source }.into(),
        other => unavailable_depot(other).into(),
    }
}

fn unavailable_depot(error: DepotError) -> IndexUnavailable {
    match error {
        DepotError::Store(error) => unavailable(error),
        other => IndexUnavailable::new(other),
    }
}

impl RetainedJournal for KeptJournal {
    async fn furthest(&self, before: Millis) -> Result<Furthest, RetentionError> {
        let closed = self.store.first_closed(self.chain).await.map_err(unavailable)?;
        if closed.is_none_or(|closed| closed >= before) {
            return Ok(Furthest::default());
        }
        let indexed = self.store.indexed_segment(self.chain).await?;
        let oldest = self.store.oldest_segments(self.chain, self.at_once).await.map_err(unavailable)?;
        let Some(oldest) = oldest else { return Ok(Furthest::default()) };
        let failed = |act| {
            let path = self.scratch.clone();
            move |source| JournalError::Io { act, path, source }
        };
        emptied(&self.scratch).map_err(failed("empty"))?;
        // A hole is found by the walk over what goes.
        let part = Extent::Segments(oldest.first, oldest.last);
        self.store.rebuild(self.chain, &self.scratch, part).await.map_err(depot)?;
        let beyond = Index { store: Arc::clone(&self.store), runtime: Handle::current() };
        let (dir, chain_id) = (self.scratch.clone(), self.chain);
        let (keys, ship) = (self.keys.clone(), self.ship.clone());
        let look = move || {
            let folder = Folder { dir: &dir, chain_id, indexed, keys: &keys, beyond: Some(&beyond) };
            prune::furthest(folder, before, &ship)
        };
        let found = tokio::task::spawn_blocking(look).await.map_err(|_| RetentionError::Cancelled)??;
        fs::remove_dir_all(&self.scratch).map_err(failed("remove"))?;
        Ok(Furthest { more: oldest.more, ..found })
    }

    async fn remove(&self, plan: &Plan) -> Result<(), RetentionError> {
        let given_up = self.store.give_up_kept(self.chain, Some(self.epoch), plan.segments.1, plan.records.1).await;
        Ok(given_up.map_err(unavailable)?)
    }

    async fn first_closed(&self) -> Result<Option<Millis>, RetentionError> {
        Ok(self.store.first_closed(self.chain).await.map_err(unavailable)?)
    }
}
