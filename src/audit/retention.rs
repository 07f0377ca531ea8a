//! Retention by age: what is older than `audit.retention` goes by itself, from the journal and from the index.
//!
//! By the rules of `evidence::prune`: nothing goes that a target of shipping does not have, that the index has not seen,
//! that is still open, or behind which no signed checkpoint ends; and the chain tells of it before anything goes. Where
//! something stands in the way of one segment, those before it go all the same, and what is held up is told: by the log, by
//! [`RetentionProgress`], by an alert. Where the index is kept by months (Postgres), a month goes as a whole once it is over
//! and every chain has given it up; until then its records can be asked for.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    chain::ChainId,
    evidence::{
        Keys,
        prune::{self, Furthest, PruneError},
    },
    journal::{AuditUnavailable, Journal, JournalError},
    record::{ChangeRecord, Kind},
    ship::ShipSettings,
    traits::{IndexUnavailable, RetainedIndex},
};
use crate::domain::Millis;

/// Pause between two rounds.
const INTERVAL: Duration = Duration::from_secs(600);
/// What the record of a month of the index that goes is called.
pub const MONTH_ACTION: &str = "audit.drop_month";
/// Who prunes, in the records, and why.
const ACTOR: &str = "linkgate";
const REASON: &str = "retention";

/// What retention is configured with.
#[derive(Clone, Debug)]
pub struct RetentionSettings {
    /// How old records get.
    pub age: Duration,
    /// Of checkpoints.
    pub keys: Keys,
    pub ship: ShipSettings,
}

/// For metrics.
#[derive(Debug, Default)]
pub struct RetentionProgress {
    overdue_seconds: AtomicU64,
}

impl RetentionProgress {
    /// For how long the oldest segment should have been gone.
    pub fn overdue_seconds(&self) -> u64 {
        self.overdue_seconds.load(Ordering::Relaxed)
    }
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error(transparent)]
    Prune(#[from] PruneError),
    #[error(transparent)]
    Index(#[from] IndexUnavailable),
    #[error("the record of it cannot be written: {0}")]
    Audit(#[from] AuditUnavailable),
    #[error("the reader of the audit journal was cancelled")]
    Cancelled,
}

impl From<JournalError> for RetentionError {
    fn from(error: JournalError) -> Self {
        Self::Prune(error.into())
    }
}

/// What a round did.
#[derive(Debug, Default)]
pub struct Round {
    /// First and last segment that went.
    pub segments: Option<(u64, u64)>,
    /// Why the last segment that should go stays.
    pub held: Option<PruneError>,
    /// Months of the index that went.
    pub months: Vec<String>,
}

/// One for each journal.
pub struct Retention<S> {
    journal: Journal,
    store: Arc<S>,
    settings: RetentionSettings,
    progress: Arc<RetentionProgress>,
    /// The last segment that the chain was told of.
    told: u64,
    /// The month of the index that it was told of last.
    told_month: Option<String>,
    /// What was logged last, so that it is logged once.
    complained: Option<String>,
}

impl<S: RetainedIndex> Retention<S> {
    pub fn new(journal: Journal, store: Arc<S>, settings: RetentionSettings) -> Self {
        Self { journal, store, settings, progress: Arc::default(), told: 0, told_month: None, complained: None }
    }

    pub fn progress(&self) -> Arc<RetentionProgress> {
        Arc::clone(&self.progress)
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        loop {
            let complaint = match self.round(Millis::now()).await {
                Ok(round) => round.held.map(|held| whole(&held)),
                Err(error) => Some(whole(&error)),
            };
            if let Some(why) = complaint.as_ref().filter(|why| self.complained.as_ref() != Some(why)) {
                tracing::warn!(%why, "old audit records stay: what is older than `audit.retention` cannot go yet");
            }
            self.complained = complaint;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Removes what may go at this time.
    pub async fn round(&mut self, now: Millis) -> Result<Round, RetentionError> {
        let age = i64::try_from(self.settings.age.as_millis()).unwrap_or(i64::MAX);
        let before = Millis(now.0.saturating_sub(age));
        let chain = self.journal.chain_id();
        let indexed = self.store.indexed_segment(chain).await?;
        let found = self.look(chain, before, indexed).await?;
        let mut round = Round { held: found.held, ..Round::default() };
        if let Some(plan) = found.plan {
            if plan.segments.1 > self.told {
                let record =
                    ChangeRecord { user_id: Some(ACTOR.to_owned()), reason: Some(REASON.to_owned()), ..plan.record() };
                self.journal.append_change(&record).await?;
                // Should one of the next steps fail, they are done again without another record.
                self.told = plan.segments.1;
            }
            self.store.give_up(chain, plan.segments.1, plan.records.1, now).await?;
            let (segments, dir) = (plan.segments, self.journal.dir().to_owned());
            blocking(move || plan.remove(&dir)).await??;
            tracing::info!(first = segments.0, last = segments.1, "old segments of the audit journal are gone");
            round.segments = Some(segments);
        }
        self.measure(before).await?;
        round.months = self.drop_months(before).await?;
        Ok(round)
    }

    async fn look(&self, chain: ChainId, before: Millis, indexed: Option<u64>) -> Result<Furthest, RetentionError> {
        let (dir, keys, ship) = (self.dir(), self.settings.keys.clone(), self.settings.ship.clone());
        Ok(blocking(move || prune::furthest(&dir, chain, before, indexed, &keys, &ship)).await??)
    }

    fn dir(&self) -> PathBuf {
        self.journal.dir().to_owned()
    }

    /// How long what is left has been due.
    async fn measure(&self, before: Millis) -> Result<(), RetentionError> {
        let dir = self.dir();
        let closed = blocking(move || prune::first_closed(&dir)).await??;
        let overdue = closed.map_or(0, |closed| before.0.saturating_sub(closed.0).max(0) / 1000);
        self.progress.overdue_seconds.store(u64::try_from(overdue).unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    }

    /// Months of the index that are over, and that no chain needs any more.
    async fn drop_months(&mut self, before: Millis) -> Result<Vec<String>, RetentionError> {
        let mut gone = Vec::new();
        for month in self.store.months_over(before).await? {
            if self.told_month.as_ref() != Some(&month) {
                let record = ChangeRecord {
                    user_id: Some(ACTOR.to_owned()),
                    reason: Some(REASON.to_owned()),
                    resource_type: Some("audit_index_month".to_owned()),
                    resource_id: Some(month.clone()),
                    ..ChangeRecord::new(Kind::Admin, MONTH_ACTION)
                };
                self.journal.append_change(&record).await?;
                self.told_month = Some(month.clone());
            }
            if self.store.drop_month(&month, before).await? {
                tracing::info!(%month, "a month of the audit index is gone");
                gone.push(month);
            }
        }
        Ok(gone)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RetentionError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RetentionError::Cancelled)
}

/// The error and what is beneath it.
fn whole(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
