//! Fills the database's index from the journal, behind the requests.
//!
//! The sink stores each batch together with the position that it reaches, in one transaction, so a crash anywhere
//! repeats or skips nothing. Only what is on stable storage is indexed: after a power failure the database can never
//! have seen more than the journal holds, and a head that the journal lacks means that someone cut it off. While the
//! database is away the journal goes on, and the indexer catches up later.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    chain::{ChainHead, ChainId, Hash},
    check::Fault,
    entry::Entry,
    joined::{Completed, Record},
    journal::{AuditUnavailable, Journal, JournalError, Written, io_error},
    line::Line,
    reader::{Lines, Step, segment_path, segments},
    traits::{IndexBatch, IndexPosition, IndexSink, IndexUnavailable},
};
use crate::domain::DecisionId;

/// Lines of one batch at most.
const BATCH_LINES: usize = 1000;
/// Bytes of one batch at most, the last line aside.
const BATCH_BYTES: u64 = 4 << 20;
/// First and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// How far the index is; for metrics.
#[derive(Debug, Default)]
pub struct IndexProgress {
    indexed_seq: AtomicU64,
    failures: AtomicU64,
}

impl IndexProgress {
    pub fn indexed_seq(&self) -> u64 {
        self.indexed_seq.load(Ordering::Relaxed)
    }

    /// Failed attempts so far.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Lines of the chain that are not indexed yet.
    pub fn lag(&self, journal: &Journal) -> u64 {
        journal.status().last_seq.saturating_sub(self.indexed_seq())
    }
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum IndexerError {
    /// The journal was touched: no later round can succeed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Index(#[from] IndexUnavailable),
    #[error(transparent)]
    Audit(#[from] AuditUnavailable),
    #[error("the reader of the audit journal was cancelled")]
    Cancelled,
}

/// One indexer a chain.
pub struct Indexer<S> {
    journal: Journal,
    sink: Arc<S>,
    interval: Duration,
    progress: Arc<IndexProgress>,
    position: Option<IndexPosition>,
    /// The stored position was read and compared with the journal.
    known: bool,
}

impl<S: IndexSink> Indexer<S> {
    /// `interval`: the pause between two rounds, and so about how far the index may be behind.
    pub fn new(journal: Journal, sink: Arc<S>, interval: Duration) -> Self {
        Self { journal, sink, interval, progress: Arc::default(), position: None, known: false }
    }

    pub fn progress(&self) -> Arc<IndexProgress> {
        Arc::clone(&self.progress)
    }

    /// Runs until it is dropped, or until the journal is found altered or cut off: that error is for the operator, and
    /// the caller must stop accepting audited requests. A journal that cannot be read just now is tried again.
    pub async fn run(mut self) -> JournalError {
        let mut backoff = BACKOFF.0;
        loop {
            let pause = match self.catch_up().await {
                Ok(_) => {
                    backoff = BACKOFF.0;
                    self.interval
                }
                Err(IndexerError::Journal(error)) if !matches!(error, JournalError::Io { .. }) => {
                    tracing::error!(%error, "the audit index cannot go on");
                    return error;
                }
                Err(error) => {
                    self.progress.failures.fetch_add(1, Ordering::Relaxed);
                    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, source, retry_in = ?backoff, "the audit index is behind");
                    let pause = backoff;
                    backoff = (backoff * 2).min(BACKOFF.1);
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Indexes all that the journal holds now; gives the number of lines. Also the last act of a shutdown.
    pub async fn catch_up(&mut self) -> Result<u64, IndexerError> {
        let chain = self.journal.chain_id();
        if !self.known {
            self.position = self.sink.position(chain).await?;
            if let Some(position) = self.position {
                let journal = self.journal.clone();
                blocking(move || journal.check_head(position.head)).await??;
                self.progress.indexed_seq.store(position.head.seq, Ordering::Relaxed);
            }
            self.known = true;
        }
        let mut lines = 0;
        if self.journal.status().last_seq == self.progress.indexed_seq() {
            return Ok(lines);
        }
        let until = self.journal.settle().await?;
        while self.position.is_none_or(|position| position.head.seq < until.head.seq) {
            let (dir, after) = (self.journal.dir().to_owned(), self.position);
            let batch = blocking(move || read_batch(&dir, chain, after, until)).await??;
            let position = batch.position;
            if let Err(error) = self.sink.store(batch).await {
                // Whether it was stored is not known: ask again before going on.
                self.known = false;
                return Err(error.into());
            }
            lines += position.head.seq - self.position.map_or(0, |before| before.head.seq);
            self.position = Some(position);
            self.progress.indexed_seq.store(position.head.seq, Ordering::Relaxed);
        }
        Ok(lines)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, IndexerError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| IndexerError::Cancelled)
}

/// Reads on behind `after`, up to `until` at most. Every line is checked on the way.
fn read_batch(
    dir: &Path,
    chain_id: ChainId,
    after: Option<IndexPosition>,
    until: Written,
) -> Result<IndexBatch, JournalError> {
    let start = match after {
        Some(after) => after,
        None => {
            let first = segments(dir).map_err(io_error("list", dir))?.into_iter().next().unwrap_or(1);
            IndexPosition { segment: first, offset: 0, head: ChainHead { seq: 0, hash: Hash::GENESIS } }
        }
    };
    let mut reading =
        Reading { chain_id, position: start, begun: after.is_some(), join: Join::default(), lines: 0, bytes: 0 };
    loop {
        let number = reading.position.segment;
        let path = segment_path(dir, number);
        let mut lines = Lines::open(&path, reading.position.offset).map_err(io_error("read", &path))?;
        let offset = reading.position.offset;
        let mut full = false;
        while !full && reading.position.head.seq < until.head.seq {
            if lines.step().map_err(io_error("read", &path))? != Step::Line {
                break;
            }
            reading.line(&lines).map_err(|fault| broken(dir, number, offset, lines.number(), fault))?;
            full = reading.lines >= BATCH_LINES || reading.bytes >= BATCH_BYTES;
        }
        if full || reading.position.head.seq >= until.head.seq {
            break;
        }
        if number >= until.segment {
            // The journal said that this much is written, and it is not there.
            return Err(JournalError::CutOff { stored: until.head.seq, found: reading.position.head.seq });
        }
        (reading.position.segment, reading.position.offset) = (number + 1, 0);
    }
    let Reading { position, join, .. } = reading;
    Ok(IndexBatch { chain_id, after, records: join.records, completions: join.completions, position })
}

/// Names the line as `verify` would: counted from the segment's start.
fn broken(dir: &Path, number: u64, offset: u64, line: u64, fault: Fault) -> JournalError {
    let file = segment_path(dir, number);
    let before = std::fs::read(&file)
        .map(|bytes| {
            let read = usize::try_from(offset).unwrap_or(usize::MAX);
            bytes.iter().take(read).filter(|byte| **byte == b'\n').count()
        })
        .unwrap_or_default();
    JournalError::Broken { file, line: line + u64::try_from(before).unwrap_or_default(), fault }
}

struct Reading {
    chain_id: ChainId,
    position: IndexPosition,
    /// The place of the next line is known.
    begun: bool,
    join: Join,
    lines: usize,
    bytes: u64,
}

impl Reading {
    fn line(&mut self, lines: &Lines) -> Result<(), Fault> {
        let line = Line::parse(lines.bytes())?;
        if line.computed_hash() != line.hash {
            return Err(Fault::Altered);
        }
        let expected = self.position.head.seq + 1;
        if self.begun || expected == line.seq {
            if line.seq > expected {
                return Err(Fault::Missing { from: expected, to: line.seq - 1 });
            }
            if line.seq < expected {
                return Err(Fault::Misplaced { expected });
            }
            if line.prev != self.position.head.hash {
                return Err(Fault::Unchained);
            }
        }
        self.begun = true;
        if let Some(entry) = line.entry(self.chain_id)? {
            self.join.add(entry);
        }
        self.lines += 1;
        self.bytes += lines.next_offset() - lines.start();
        self.position.offset = lines.next_offset();
        self.position.head = ChainHead { seq: line.seq, hash: line.hash };
        Ok(())
    }
}

/// Completions find their openings within the batch; the others go to the sink as they are.
#[derive(Default)]
struct Join {
    records: Vec<Record>,
    completions: Vec<Completed>,
    places: HashMap<DecisionId, usize, ahash::RandomState>,
}

impl Join {
    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Record(record) => {
                self.places.insert(record.id, self.records.len());
                self.records.push(*record);
            }
            Entry::Completed(completed) => {
                match self.places.remove(&completed.id).and_then(|at| self.records.get_mut(at)) {
                    Some(record) => record.complete(completed),
                    None => self.completions.push(completed),
                }
            }
        }
    }
}
