//! A journal whose server does not come back: which changes it had taken from the outbox and chained before it ended.
//!
//! A change that a chain claimed and did not mark may stand in its journal or not, and only the journal can say which
//! (see `outbox`). While an [`Outlived`] is held no server can begin to write there, so that what it says stays true until
//! the rows are marked or given to others. Reads; repairs and writes nothing.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    chain::ChainId,
    journal::{Chained, JournalError, Place, chained_last, chained_since, io_error, take_lock},
    reader::chain_file,
};
use crate::domain::DecisionId;

/// The journal of a server that ended, locked.
#[derive(Debug)]
pub struct Outlived {
    pub chain_id: ChainId,
    dir: PathBuf,
    chained: Chained,
    _lock: File,
}

impl Outlived {
    /// Refused while a server runs on it, and where its end is not as it was written.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        Self::opened(dir, false)
    }

    /// The same for a journal that was written out of the database which has the outbox too.
    pub fn open_kept(dir: &Path) -> Result<Self, JournalError> {
        Self::opened(dir, true)
    }

    fn opened(dir: &Path, one_database: bool) -> Result<Self, JournalError> {
        let chain = chain_file(dir)
            .and_then(|found| found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no chain.json")))
            .map_err(io_error("read the audit journal in", dir))?;
        let lock = take_lock(dir)?;
        let chained = chained_last(dir, chain.chain_id, one_database)?;
        Ok(Self { chain_id: chain.chain_id, dir: dir.to_owned(), chained, _lock: lock })
    }

    /// Whether this row, claimed by the chain and not marked, stands in the journal.
    pub fn holds(&mut self, seq: i64, id: DecisionId) -> Result<bool, JournalError> {
        if let Place::Behind(since) = self.chained.place(seq, id) {
            self.chained.learn(chained_since(&self.dir, since)?, since);
        }
        Ok(self.chained.place(seq, id) == Place::InChain)
    }
}
