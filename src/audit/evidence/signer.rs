//! When a checkpoint is signed: at an interval while something is written, at the end of each segment, at a clean stop.
//!
//! Invariants: nothing is signed that is not on stable storage; nothing is signed that is not a continuation of what was
//! signed before, as far as the database and the file beside the journal know it; a checkpoint is on disk before the
//! database has it. While the database is away checkpoints go on, until so much of the tree waits to be stored that it
//! would fill the memory; nothing is lost then either, they are made later.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    checkpoint::{Cause, Checkpoint, Kept},
    note::Signer,
    shelf::{self, Shelf},
    tree::Tile,
    walk::Walker,
};
use crate::audit::{
    chain::ChainHead,
    indexer::IndexerError,
    journal::{Journal, JournalError, Written, io_error},
    reader::segments,
    traits::{EvidenceStore, IndexUnavailable},
};

/// How often the journal is looked at for lines to take into the tree: little work each time instead of much at once.
const TICK: Duration = Duration::from_secs(1);
/// Longest pause after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// Tiles that wait for the database at most: 32 mebibytes, or a million lines.
const TILES_MAX: usize = 4096;

/// How far checkpoints are; for metrics.
#[derive(Debug, Default)]
pub struct CheckpointProgress {
    signed_seq: AtomicU64,
    failures: AtomicU64,
    last: Mutex<Option<Arc<str>>>,
}

impl CheckpointProgress {
    /// The last checkpoint that this process signed.
    pub fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).as_deref().map(str::to_owned)
    }

    /// The last line that is signed.
    pub fn signed_seq(&self) -> u64 {
        self.signed_seq.load(Ordering::Relaxed)
    }

    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// One for each journal.
pub struct Checkpointer<S> {
    journal: Journal,
    store: Arc<S>,
    signer: Arc<Signer>,
    interval: Duration,
    progress: Arc<CheckpointProgress>,
    state: Option<Box<State>>,
}

struct State {
    walker: Walker,
    shelf: Shelf,
    signer: Arc<Signer>,
    /// Last line that a checkpoint covers, and when that was signed.
    signed: u64,
    at: Instant,
    /// Signed, and not in the database yet.
    unstored: Vec<Kept>,
}

impl<S: EvidenceStore> Checkpointer<S> {
    pub fn new(journal: Journal, store: Arc<S>, signer: Arc<Signer>, interval: Duration) -> Self {
        Self { journal, store, signer, interval, progress: Arc::default(), state: None }
    }

    pub fn progress(&self) -> Arc<CheckpointProgress> {
        Arc::clone(&self.progress)
    }

    /// Runs until it is dropped, or until the journal is found altered or cut off: that error is for the operator, and
    /// the caller must stop accepting audited requests. What only fails just now is tried again.
    pub async fn run(mut self) -> JournalError {
        let mut pause = TICK;
        loop {
            match self.round(None).await {
                Ok(()) => pause = TICK,
                Err(IndexerError::Journal(error)) if !matches!(error, JournalError::Io { .. }) => {
                    tracing::error!(%error, "no further checkpoint of the audit chain is signed");
                    return error;
                }
                Err(error) => {
                    self.progress.failures.fetch_add(1, Ordering::Relaxed);
                    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    pause = (pause * 2).min(BACKOFF_MAX);
                    tracing::warn!(%error, source, retry_in = ?pause, "checkpoints of the audit chain are behind");
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The last act of a stop: what was written since the last checkpoint is signed.
    pub async fn finish(&mut self) -> Result<(), IndexerError> {
        self.round(Some(Cause::Stop)).await
    }

    /// Signs what was written, without waiting for the interval.
    pub async fn sign_now(&mut self) -> Result<(), IndexerError> {
        self.round(Some(Cause::Interval)).await
    }

    async fn round(&mut self, due: Option<Cause>) -> Result<(), IndexerError> {
        // After a failure on the way the state is gone, and read again from what is stored.
        let state = match self.state.take() {
            Some(state) => state,
            None => self.resume().await?,
        };
        let state = self.advance(state, due).await?;
        self.progress.signed_seq.store(state.signed, Ordering::Relaxed);
        self.state = Some(state);
        Ok(())
    }

    async fn advance(&self, mut state: Box<State>, due: Option<Cause>) -> Result<Box<State>, IndexerError> {
        let mut written = self.journal.status().written;
        if written.segment > state.walker.segment {
            // The end of a segment is signed on the way: it has to be as durable as that.
            written = self.journal.settle().await?;
        }
        if written.head.seq > state.walker.head.seq {
            state = walked(state, written, None).await?;
        }
        let full = state.walker.tiles.len() >= TILES_MAX;
        let passed = state.at.elapsed() >= self.interval || (full && state.unstored.is_empty());
        let cause = due.or_else(|| passed.then_some(Cause::Interval));
        if let Some(cause) = cause.filter(|_| written.head.seq > state.signed) {
            let settled = self.journal.settle().await?;
            state = walked(state, settled, Some(cause)).await?;
        }
        if let Some(kept) = state.unstored.last() {
            *self.progress.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept.note.as_str().into());
        }
        self.keep(&mut state).await;
        Ok(state)
    }

    /// Brings what is signed into the database, together with the tree.
    async fn keep(&self, state: &mut State) {
        if state.unstored.is_empty() {
            return;
        }
        let tiles: Vec<Tile> = state.walker.tiles.iter().map(|(at, bytes)| (*at, bytes.clone())).collect();
        match self.store.keep(self.journal.chain_id(), &state.unstored, &tiles).await {
            Ok(()) => {
                state.walker.stored(&tiles);
                state.unstored.clear();
            }
            // Signing goes on; this is tried again.
            Err(error) => {
                self.progress.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, waiting = state.unstored.len(),
                    "checkpoints of the audit chain wait for the database");
            }
        }
    }

    /// Goes on behind the last checkpoint in the database. Neither that nor the one beside the journal may say anything
    /// that the journal does not.
    async fn resume(&self) -> Result<Box<State>, IndexerError> {
        let (dir, chain) = (self.journal.dir().to_owned(), self.journal.chain_id());
        let found = self.store.last(chain).await?;
        let beside = shelf::last(&dir).map_err(io_error("read", &shelf::path(&dir)))?;
        let known: Vec<ChainHead> = [found.as_ref().map(|(kept, _)| kept), beside.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|kept| kept.checkpoint().ok())
            .filter(|said| said.chain_id == chain)
            .map(|said| said.head)
            .collect();
        let (journal, heads) = (self.journal.clone(), known.clone());
        tokio::task::spawn_blocking(move || heads.into_iter().try_for_each(|head| journal.check_head(head)))
            .await
            .map_err(|_| IndexerError::Cancelled)??;
        let walker = match found {
            None => behind_pruned(&dir).unwrap_or_else(|| Walker::new(dir.clone(), chain)),
            Some((kept, tiles)) => Walker::behind(dir.clone(), &kept, tiles)
                .ok_or_else(|| IndexUnavailable::new("the stored tree does not fit its checkpoint"))?,
        };
        let shelf = Shelf::open(&dir).map_err(io_error("open", &shelf::path(&dir)))?;
        let signed = known.iter().map(|head| head.seq).max().unwrap_or_default();
        let signer = Arc::clone(&self.signer);
        // Due at once where something was written: the last process may have had no time for it.
        let at = Instant::now().checked_sub(self.interval).unwrap_or_else(Instant::now);
        Ok(Box::new(State { walker, shelf, signer, signed, at, unstored: Vec::new() }))
    }
}

/// Reads on, on a thread that may wait for a disk; the ends of segments on the way are signed, and with a `cause` what was
/// reached. That must be on stable storage then.
async fn walked(mut state: Box<State>, until: Written, cause: Option<Cause>) -> Result<Box<State>, IndexerError> {
    let work = move || {
        let State { walker, shelf, signer, signed, at, unstored } = &mut *state;
        let before = unstored.len();
        walker.walk(until, TILES_MAX, |walker| {
            if walker.head.seq > *signed {
                *signed = walker.head.seq;
                unstored.push(signed_at(walker, signer, Cause::Segment));
            }
        })?;
        if let Some(cause) = cause {
            *at = Instant::now();
            if walker.head.seq > *signed {
                *signed = walker.head.seq;
                unstored.push(signed_at(walker, signer, cause));
            }
        }
        let made = unstored.get(before..).unwrap_or_default();
        shelf.add(made).map_err(io_error("write", Path::new(shelf::SHELF_FILE)))?;
        Ok::<_, JournalError>(state)
    };
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| IndexerError::Cancelled)??)
}

/// Where the database knows nothing and the journal has lost its beginning: the tree goes on from the checkpoint at which
/// it was pruned, and does not begin anew, which would contradict what was signed.
fn behind_pruned(dir: &Path) -> Option<Walker> {
    let first = segments(dir).ok()?.into_iter().next().filter(|first| *first > 1)?;
    let mut found = None;
    let read = shelf::each::<std::io::Error>(dir, |kept| {
        if kept.cause == Cause::Segment && kept.segment == first {
            found = Some(kept);
        }
        Ok(())
    });
    read.ok()?;
    Walker::behind(dir.to_owned(), &found?, Vec::new())
}

fn signed_at(walker: &Walker, signer: &Signer, cause: Cause) -> Kept {
    let first = walker.first.unwrap_or(1);
    let (_, note) = Checkpoint::signed(signer, walker.chain_id, first, walker.head, &walker.frontier);
    let peaks = walker.frontier.peaks().to_vec();
    Kept { note, cause, segment: walker.segment, offset: walker.offset, peaks }
}
