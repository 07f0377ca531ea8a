//! What the audit room asks of a database; the store room implements it.
//!
//! The journal is the truth and the database an index of it. Everything here may be away for a while: the journal goes
//! on, and the index catches up from the position that it stored itself, in one transaction with what it indexed.

use std::future::Future;

use super::{
    chain::{ChainHead, ChainId},
    joined::{Completed, Record, RecordFilter},
    record::ChangeRecord,
};

/// The database could not be asked. Display says what to look at; the source says why.
#[derive(Debug, thiserror::Error)]
#[error("the audit index cannot be read or written: is the database up and migrated?")]
pub struct IndexUnavailable(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl IndexUnavailable {
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// How far one journal is indexed: the place of the next unread line, and the last line read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexPosition {
    /// Number of the segment file.
    pub segment: u64,
    /// Byte offset in it; always the start of a line.
    pub offset: u64,
    /// The chain's head up to there.
    pub head: ChainHead,
}

/// What the indexer hands over at once.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexBatch {
    pub chain_id: ChainId,
    /// The position that the batch starts from; `None` for the first of a chain. A sink whose stored position is
    /// another one must refuse the batch (two indexers on one chain).
    pub after: Option<IndexPosition>,
    /// To insert, ascending in `opening.seq`; most are whole.
    pub records: Vec<Record>,
    /// Completions of records of earlier batches: update the row with that id as [`Record::complete`] does.
    pub completions: Vec<Completed>,
    /// To store together with the rest, in one transaction.
    pub position: IndexPosition,
}

/// The index being filled.
pub trait IndexSink: Send + Sync {
    /// The position stored with the last batch of this chain.
    fn position(&self, chain: ChainId) -> impl Future<Output = Result<Option<IndexPosition>, IndexUnavailable>> + Send;

    /// Rows, completions, position and head in one transaction.
    fn store(&self, batch: IndexBatch) -> impl Future<Output = Result<(), IndexUnavailable>> + Send;
}

/// The chain's head as the database last saw it: what a cut-off tail is found by.
pub trait ChainHeads: Send + Sync {
    fn head(&self, chain: ChainId) -> impl Future<Output = Result<Option<ChainHead>, IndexUnavailable>> + Send;
}

/// The index being asked.
pub trait RecordSource: Send + Sync {
    /// Newest first. `filter.limit` of `None` means the source's own bound.
    fn query(&self, filter: &RecordFilter) -> impl Future<Output = Result<Vec<Record>, IndexUnavailable>> + Send;
}

/// One change waiting to be chained.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    /// The outbox's own sequence number; unique in the database.
    pub seq: i64,
    pub change: ChangeRecord,
}

/// Changes that were committed together with the rows that they describe and still have to be chained.
///
/// Each row is claimed by one chain for good: a row that a chain has claimed is given to no other, and is given to the
/// same chain again until it is marked. That, and the journal knowing which rows it holds, makes it exactly once.
pub trait OutboxSource: Send + Sync {
    /// Claims up to `limit` rows for this chain and gives all that it has claimed and not marked, at most `limit` in
    /// all, ascending in `seq`.
    fn claim(
        &self,
        chain: ChainId,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<OutboxRow>, IndexUnavailable>> + Send;

    /// These rows are in the chain, on stable storage.
    fn mark_chained(&self, chain: ChainId, seqs: &[i64]) -> impl Future<Output = Result<(), IndexUnavailable>> + Send;
}
