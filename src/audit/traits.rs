//! What the audit room asks of a database; the store room implements it.
//!
//! The journal is the truth and the database an index of it. Everything here may be away for a while: the journal goes
//! on, and the index catches up from the position that it stored itself, in one transaction with what it indexed.

use std::{future::Future, path::PathBuf};

use serde::Serialize;

use super::{
    chain::{ChainHead, ChainId},
    check::Fault,
    evidence::{Kept, tree::Tile},
    gather::{Gathered, Search, TooMuch},
    joined::{Record, RecordFilter},
    journal::JournalError,
    record::OutboxRow,
};
use crate::domain::{DecisionId, Millis};

/// The index could not be asked. Display says what to look at; the source says why.
#[derive(Debug, thiserror::Error)]
pub enum IndexUnavailable {
    #[error("the audit index cannot be read or written: is the database up and migrated?")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The index only says where in the journal the records stand.
    #[error(
        "the records stand in the audit journal in `{dir}`, which cannot be read: is it `audit.dir` of the server?"
    )]
    Journal { dir: PathBuf, source: JournalError },
    /// A stored copy of the journal's lines is not as it was written.
    #[error("a copy of the journal's lines in the audit index was altered: {0}")]
    Altered(Fault),
    /// The answer would be larger than what one question may hold.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}

impl IndexUnavailable {
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Database(source.into())
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

/// A run of whole lines of one segment, and what its records can be asked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub segment: u64,
    /// Byte offsets in the segment: where the first line begins and where the last one ends.
    pub start: u64,
    pub end: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    /// Times of the records opened here; `None` where none is (completions alone).
    pub times: Option<(Millis, Millis)>,
    /// Openings and changes.
    pub records: u64,
    /// Hashes of all words (see `words`), most of them once. The id of a completion whose opening lies before this chunk
    /// is one of them.
    pub words: Vec<u64>,
    /// The lines, each with its newline. Empty unless the sink keeps them.
    pub lines: Vec<u8>,
}

/// A completion whose opening lies in an earlier chunk, and which may say something that the opening did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    pub id: DecisionId,
    /// Words that the record has from now on: a decision that was overturned, tenants of its slices.
    pub words: Vec<u64>,
}

/// What the indexer hands over at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexBatch {
    pub chain_id: ChainId,
    /// The position that the batch starts from; `None` for the first of a chain. A sink whose stored position is
    /// another one must refuse the batch (two indexers on one chain).
    pub after: Option<IndexPosition>,
    /// Ascending; each begins where the one before it, or the batch before this one, ended.
    pub chunks: Vec<Chunk>,
    /// The chunk of each of these openings is found by these words too from now on.
    pub late: Vec<Late>,
    /// To store together with the rest, in one transaction.
    pub position: IndexPosition,
}

/// The index being filled.
pub trait IndexSink: Send + Sync {
    /// Whether chunks carry their lines: an index that is asked where the journal is not must have them.
    fn keeps_lines(&self) -> bool;

    /// The position stored with the last batch of this chain.
    fn position(&self, chain: ChainId) -> impl Future<Output = Result<Option<IndexPosition>, IndexUnavailable>> + Send;

    /// Chunks, late words and position in one transaction.
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

/// The index being asked for a part of each record.
pub trait RecordSearch: Send + Sync {
    /// Newest first, in one walk. `filter.limit` of `None` means the source's own bound.
    fn search<T: Serialize + Send + 'static>(
        &self,
        search: &Search<T>,
    ) -> impl Future<Output = Result<Gathered<T>, IndexUnavailable>> + Send;
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

/// Where checkpoints and the tree that they are about are kept for questions.
pub trait EvidenceStore: Send + Sync {
    /// The last checkpoint of this chain, and the last tile of each level of its tree.
    fn last(&self, chain: ChainId) -> impl Future<Output = Result<Option<(Kept, Vec<Tile>)>, IndexUnavailable>> + Send;

    /// Checkpoints and tiles in one transaction. A tile that is there is replaced: it grew. A checkpoint that is there
    /// stays.
    fn keep(
        &self,
        chain: ChainId,
        signed: &[Kept],
        tiles: &[Tile],
    ) -> impl Future<Output = Result<(), IndexUnavailable>> + Send;
}

/// The index as retention sees it.
pub trait RetainedIndex: Send + Sync {
    /// The segment up to which the index of this chain came.
    fn indexed_segment(&self, chain: ChainId) -> impl Future<Output = Result<Option<u64>, IndexUnavailable>> + Send;

    /// This chain gives up its lines up to `last`, which ended with `segment`. Where the index is not kept by months they go
    /// at once, else with their month.
    fn give_up(
        &self,
        chain: ChainId,
        segment: u64,
        last: u64,
    ) -> impl Future<Output = Result<(), IndexUnavailable>> + Send;

    /// Months that were over at this time, and of which nothing must stay; oldest first.
    fn months_over(&self, cutoff: Millis) -> impl Future<Output = Result<Vec<String>, IndexUnavailable>> + Send;

    /// Drops one as a whole, if nothing of it must stay; `false`: something must, or somebody else has dropped it.
    fn drop_month(&self, month: &str, cutoff: Millis) -> impl Future<Output = Result<bool, IndexUnavailable>> + Send;
}
