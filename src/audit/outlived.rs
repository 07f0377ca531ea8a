//! A journal whose server does not come back: which changes it had taken from the outbox and chained before it ended.
//!
//! A change that a chain claimed and did not mark may stand in its journal or not, and only the journal can say which
//! (see `outbox`). While an [`Outlived`] is held no server can begin to write there, so that what it says stays true until
//! the rows are marked or given to others. Reads; repairs and writes nothing.

use std::{collections::HashSet, fs::File, io, path::Path};

use super::{
    chain::ChainId,
    journal::{JournalError, chained_last, io_error, take_lock},
    reader::chain_file,
};

/// The journal of a server that ended, locked.
#[derive(Debug)]
pub struct Outlived {
    pub chain_id: ChainId,
    /// Numbers of outbox rows.
    chained: HashSet<i64>,
    _lock: File,
}

impl Outlived {
    /// Refused while a server runs on it, and where its end is not as it was written.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let chain = chain_file(dir)
            .and_then(|found| found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no chain.json")))
            .map_err(io_error("read the audit journal in", dir))?;
        let lock = take_lock(dir)?;
        let chained = chained_last(dir, chain.chain_id)?.into_iter().collect();
        Ok(Self { chain_id: chain.chain_id, chained, _lock: lock })
    }

    /// Whether this row, claimed by the chain and not marked, stands in the journal.
    pub fn holds(&self, seq: i64) -> bool {
        self.chained.contains(&seq)
    }
}
