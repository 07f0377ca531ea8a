//! Reads the journal behind the writer and gives its lines to one target.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::{
    form::{Form, put_all},
    position,
    settings::TargetSettings,
    target::Output,
};
use crate::audit::{
    batch::read_batch,
    chain::ChainId,
    journal::{AuditUnavailable, Journal, JournalError, Known, Written, io_error},
    line::Line,
    reader::{Lines, Step, segment_path, segments},
    traits::IndexPosition,
};

/// Pause between two looks at the journal.
const INTERVAL: Duration = Duration::from_millis(200);
/// First and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// A target that takes nothing for this long is told of.
const STALLED: Duration = Duration::from_secs(10);

/// How far a target is; for metrics.
#[derive(Debug)]
pub struct ShipProgress {
    target: &'static str,
    taken_seq: AtomicU64,
    /// Set while lines do not get through.
    stuck: AtomicBool,
}

impl ShipProgress {
    pub fn target(&self) -> &'static str {
        self.target
    }

    /// Lines of the chain that the target does not have yet.
    pub fn lag(&self, journal: &Journal) -> u64 {
        journal.status().last_seq.saturating_sub(self.taken_seq.load(Ordering::Relaxed))
    }

    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    fn tell_stuck(&self, why: &dyn std::fmt::Display) {
        if !self.stuck.swap(true, Ordering::Relaxed) {
            let what = "the audit journal is not shipped; its lines wait in the journal, and nothing is lost until they \
                        are pruned by force";
            tracing::error!(shipped_to = self.target, why = %why, "{what}");
        }
    }

    fn tell_well(&self) {
        if self.stuck.swap(false, Ordering::Relaxed) {
            tracing::info!(shipped_to = self.target, "the audit journal is shipped again");
        }
    }
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Audit(#[from] AuditUnavailable),
    #[error("the position in `{path}`: {source}")]
    Position { path: PathBuf, source: io::Error },
    #[error("the target takes nothing: {0}")]
    Target(io::Error),
    #[error("the reader of the audit journal was cancelled")]
    Cancelled,
}

/// One shipper a target.
pub struct Shipper {
    journal: Journal,
    settings: TargetSettings,
    form: Form,
    progress: Arc<ShipProgress>,
    /// `None`: the stored position is not known yet.
    hand: Option<Box<Hand>>,
}

/// What goes to the thread that may wait for a target.
struct Hand {
    journal: Journal,
    target: &'static str,
    form: Form,
    position: Option<IndexPosition>,
    output: Output,
}

impl Shipper {
    pub fn new(journal: Journal, settings: TargetSettings, form: Form) -> Self {
        let target = settings.name();
        let progress = ShipProgress { target, taken_seq: AtomicU64::new(0), stuck: AtomicBool::new(false) };
        Self { journal, settings, form, progress: Arc::new(progress), hand: None }
    }

    pub fn progress(&self) -> Arc<ShipProgress> {
        Arc::clone(&self.progress)
    }

    /// Runs until told to stop, and then once more to the journal's end.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let progress = self.progress();
        let mut backoff = BACKOFF.0;
        loop {
            let last = *stop.borrow();
            let pause = match self.watched(&progress).await {
                Ok(_) => {
                    progress.tell_well();
                    backoff = BACKOFF.0;
                    INTERVAL
                }
                Err(error) => {
                    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
                    progress.tell_stuck(&format_args!("{error}{}", source.unwrap_or_default()));
                    let pause = backoff;
                    backoff = (backoff * 2).min(BACKOFF.1);
                    pause
                }
            };
            if last {
                return;
            }
            // Nobody is left who could say so: that is the end as well.
            let _ = tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await;
        }
    }

    /// Catches up, and tells of a target that blocks.
    async fn watched(&mut self, progress: &ShipProgress) -> Result<u64, ShipError> {
        let mut work = std::pin::pin!(self.catch_up());
        let mut seen = progress.taken_seq.load(Ordering::Relaxed);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(STALLED) => {
                    let now = progress.taken_seq.load(Ordering::Relaxed);
                    if now == seen {
                        progress.tell_stuck(&format_args!("the target took nothing for {STALLED:?}"));
                    } else {
                        progress.tell_well();
                    }
                    seen = now;
                }
            }
        }
    }

    /// Ships all that the journal holds now; gives the number of lines.
    pub async fn catch_up(&mut self) -> Result<u64, ShipError> {
        let mut hand = match self.hand.take() {
            Some(hand) => hand,
            None => self.begin().await?,
        };
        let before = hand.taken();
        if self.journal.status().last_seq == before {
            self.hand = Some(hand);
            return Ok(0);
        }
        let until = match self.journal.settle().await {
            Ok(until) => until,
            Err(error) => {
                self.hand = Some(hand);
                return Err(error.into());
            }
        };
        while hand.taken() < until.head.seq {
            let mut busy = hand;
            let work = tokio::task::spawn_blocking(move || {
                let done = busy.ship(until);
                (busy, done)
            });
            let (back, done) = work.await.map_err(|_| ShipError::Cancelled)?;
            hand = back;
            self.progress.taken_seq.store(hand.taken(), Ordering::Relaxed);
            if let Err(error) = done {
                self.hand = Some(hand);
                return Err(error);
            }
        }
        let lines = hand.taken() - before;
        self.hand = Some(hand);
        Ok(lines)
    }

    /// Reads the stored position, which must be one of this journal.
    async fn begin(&self) -> Result<Box<Hand>, ShipError> {
        let (journal, target) = (self.journal.clone(), self.progress.target);
        let work = move || {
            let dir = journal.dir();
            let found = position::load(dir, target, journal.chain_id())
                .map_err(|source| ShipError::Position { path: position::path(dir, target), source })?;
            if let Some(found) = found {
                journal.check_head(found.head).map_err(|error| ShipError::Position {
                    path: position::path(dir, target),
                    source: io::Error::new(io::ErrorKind::InvalidData, not_here(&error)),
                })?;
            }
            Ok::<_, ShipError>(found)
        };
        let position = tokio::task::spawn_blocking(work).await.map_err(|_| ShipError::Cancelled)??;
        let output = Output::new(&self.settings, self.journal.dir(), self.journal.chain_id());
        let hand = Hand { journal: self.journal.clone(), target, form: self.form, position, output };
        self.progress.taken_seq.store(hand.taken(), Ordering::Relaxed);
        Ok(Box::new(hand))
    }
}

/// The words of the journal are about the database.
fn not_here(error: &JournalError) -> String {
    match error {
        JournalError::CutOff { stored, found } => {
            format!("record {stored} was shipped, and the journal ends at {found}: look into `linkgate audit verify`")
        }
        JournalError::Diverged(seq) => {
            format!("record {seq} was shipped, and is another one in the journal: look into `linkgate audit verify`")
        }
        other => other.to_string(),
    }
}

impl Hand {
    fn taken(&self) -> u64 {
        self.position.map_or(0, |position| position.head.seq)
    }

    /// One batch: read, given to the target, and the position moved.
    fn ship(&mut self, until: Written) -> Result<(), ShipError> {
        let (dir, chain_id): (_, ChainId) = (self.journal.dir().to_owned(), self.journal.chain_id());
        let after = self.place()?;
        // By their hashes: sums of lines written lately are for the index alone.
        let batch = read_batch(&dir, chain_id, after, until, &Known::nothing(), true)?;
        let mut lines = Vec::new();
        for chunk in &batch.chunks {
            put_all(self.form, &chunk.lines, &mut lines).map_err(|fault| JournalError::Broken {
                file: segment_path(&dir, chunk.segment),
                line: 0,
                fault: fault.into(),
            })?;
        }
        self.output.take(&lines).map_err(ShipError::Target)?;
        position::save(&dir, self.target, chain_id, batch.position)
            .map_err(|source| ShipError::Position { path: position::path(&dir, self.target), source })?;
        self.position = Some(batch.position);
        Ok(())
    }

    /// Where to read on: at the beginning of the first segment if the one of the position was pruned. Lines that went before
    /// they were shipped are told.
    fn place(&self) -> Result<Option<IndexPosition>, JournalError> {
        let Some(position) = self.position else { return Ok(None) };
        let dir = self.journal.dir();
        let first = segments(dir).map_err(io_error("list", dir))?.into_iter().next().unwrap_or(position.segment);
        if first <= position.segment {
            return Ok(Some(position));
        }
        let path = segment_path(dir, first);
        let mut lines = Lines::open(&path, 0).map_err(io_error("read", &path))?;
        if lines.step().map_err(io_error("read", &path))? != Step::Line {
            return Ok(Some(position));
        }
        let broken = |fault: crate::audit::line::NotALine| JournalError::Broken {
            file: path.clone(),
            line: 1,
            fault: fault.into(),
        };
        let seq = Line::parse(lines.bytes()).map_err(broken)?.seq;
        if seq == position.head.seq + 1 {
            return Ok(Some(IndexPosition { segment: first, offset: 0, head: position.head }));
        }
        tracing::error!(
            shipped_to = self.target,
            from = position.head.seq + 1,
            to = seq.saturating_sub(1),
            "lines of the audit journal were removed before they were shipped: the target never gets them"
        );
        Ok(None)
    }
}
