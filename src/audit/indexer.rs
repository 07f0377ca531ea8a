//! Fills the database's index from the journal, behind the requests.
//!
//! The sink stores each batch together with the position that it reaches, in one transaction, so a crash anywhere
//! repeats or skips nothing. Only what is on stable storage is indexed: after a power failure the database can never
//! have seen more than the journal holds, and a head that the journal lacks means that someone cut it off. While the
//! database is away the journal goes on, and the indexer catches up later.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    batch::{BATCH_LINES, read_batch},
    journal::{AuditUnavailable, Journal, JournalError},
    traits::{IndexPosition, IndexSink, IndexUnavailable},
};

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
            let keep_lines = self.sink.keeps_lines();
            let known = self.journal.known(after.map_or(0, |after| after.head.seq), BATCH_LINES);
            let batch = blocking(move || read_batch(&dir, chain, after, until, &known, keep_lines)).await??;
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
