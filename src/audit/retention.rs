//! Retention by age: what is older than `audit.retention` goes by itself, from the journal and from the index.
//!
//! By the rules of `evidence::prune`: nothing goes that a target of shipping does not have, that the index has not seen,
//! that is still open, or behind which no signed checkpoint ends; and the chain tells of it before anything goes. Where
//! something stands in the way of one segment, those before it go all the same, and what is held up is told: by the log, by
//! [`RetentionProgress`], by an alert. How a journal lets go is its own affair ([`RetainedJournal`]). Where the index is kept by months (Postgres), a month goes as a whole once it is over
//! and every chain has given it up; until then its records can be asked for.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    evidence::{
        Keys,
        prune::{self, Folder, Furthest, Plan, PruneError},
    },
    journal::{AuditUnavailable, Journal, JournalError},
    record::{ChangeRecord, Kind},
    ship::ShipSettings,
    traits::{IndexUnavailable, RetainedIndex},
};
use crate::domain::Millis;

/// Pause between two rounds.
pub const INTERVAL: Duration = Duration::from_secs(600);
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
    own: AtomicU64,
    gone: AtomicU64,
}

impl RetentionProgress {
    /// For how long the oldest segment should have been gone.
    pub fn overdue_seconds(&self) -> u64 {
        self.own.load(Ordering::Relaxed).max(self.gone.load(Ordering::Relaxed))
    }

    /// The same of journals whose servers are gone.
    pub fn gone_overdue(&self, seconds: u64) {
        self.gone.store(seconds, Ordering::Relaxed);
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

/// A journal as retention sees it: by `evidence::prune` it says what may go, and it lets go.
pub trait RetainedJournal: Send + Sync {
    /// What may go of all that was closed before this time.
    fn furthest(&self, before: Millis) -> impl Future<Output = Result<Furthest, RetentionError>> + Send;

    /// The chain has told of it: it goes.
    fn remove(&self, plan: &Plan) -> impl Future<Output = Result<(), RetentionError>> + Send;

    /// When the oldest segment was closed; `None` while there is but one.
    fn first_closed(&self) -> impl Future<Output = Result<Option<Millis>, RetentionError>> + Send;
}

/// In its folder.
pub struct OnDisk<S> {
    journal: Journal,
    store: Arc<S>,
    keys: Keys,
    ship: ShipSettings,
}

impl<S: RetainedIndex> RetainedJournal for OnDisk<S> {
    async fn furthest(&self, before: Millis) -> Result<Furthest, RetentionError> {
        let chain_id = self.journal.chain_id();
        let indexed = self.store.indexed_segment(chain_id).await?;
        let (journal, keys, ship) = (self.journal.clone(), self.keys.clone(), self.ship.clone());
        let look = move || {
            let folder = Folder { dir: journal.dir(), chain_id, indexed, keys: &keys, beyond: None };
            prune::furthest(folder, before, &ship)
        };
        Ok(blocking(look).await??)
    }

    async fn remove(&self, plan: &Plan) -> Result<(), RetentionError> {
        self.store.give_up(plan.chain_id, plan.segments.1, plan.records.1).await?;
        let (plan, dir) = (plan.clone(), self.journal.dir().to_owned());
        Ok(blocking(move || plan.remove(&dir)).await??)
    }

    async fn first_closed(&self) -> Result<Option<Millis>, RetentionError> {
        let dir = self.journal.dir().to_owned();
        Ok(blocking(move || prune::first_closed(&dir)).await??)
    }
}

/// One for each journal.
pub struct Retention<S, J> {
    journal: Journal,
    kept: J,
    store: Arc<S>,
    age: Duration,
    progress: Arc<RetentionProgress>,
    /// The last segment that the chain was told of.
    told: u64,
    /// The month of the index that it was told of last.
    told_month: Option<String>,
    /// What was logged last, so that it is logged once.
    complained: Option<String>,
}

impl<S: RetainedIndex> Retention<S, OnDisk<S>> {
    /// Of a journal on disk.
    pub fn new(journal: Journal, store: Arc<S>, settings: RetentionSettings) -> Self {
        let RetentionSettings { age, keys, ship } = settings;
        let kept = OnDisk { journal: journal.clone(), store: Arc::clone(&store), keys, ship };
        Self::of(journal, kept, store, age)
    }
}

impl<S: RetainedIndex, J: RetainedJournal> Retention<S, J> {
    /// Of the journal that is written as `journal`, and lies in `kept`.
    pub fn of(journal: Journal, kept: J, store: Arc<S>, age: Duration) -> Self {
        let progress = Arc::default();
        Self { journal, kept, store, age, progress, told: 0, told_month: None, complained: None }
    }

    pub fn progress(&self) -> Arc<RetentionProgress> {
        Arc::clone(&self.progress)
    }

    /// Runs until it is dropped.
    pub async fn run(&mut self) {
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
        let mut round = self.prune(now).await?;
        round.months = self.drop_months(self.before(now)).await?;
        Ok(round)
    }

    fn before(&self, now: Millis) -> Millis {
        Millis(now.0.saturating_sub(i64::try_from(self.age.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Of the journal alone.
    pub async fn prune(&mut self, now: Millis) -> Result<Round, RetentionError> {
        let before = self.before(now);
        let mut round = Round::default();
        loop {
            let found = self.kept.furthest(before).await?;
            round.held = found.held;
            let Some(plan) = found.plan else { break };
            if plan.segments.1 > self.told {
                let record =
                    ChangeRecord { user_id: Some(ACTOR.to_owned()), reason: Some(REASON.to_owned()), ..plan.record() };
                self.journal.append_change(&record).await?;
                // Should one of the next steps fail, they are done again without another record.
                self.told = plan.segments.1;
            }
            self.kept.remove(&plan).await?;
            let (first, last) = plan.segments;
            tracing::info!(chain = %plan.chain_id, first, last, "old segments of the audit journal are gone");
            round.segments = Some((round.segments.map_or(first, |(before, _)| before), last));
            if !found.more {
                break;
            }
        }
        let closed = self.kept.first_closed().await?;
        let overdue = closed.map_or(0, |closed| before.0.saturating_sub(closed.0).max(0) / 1000);
        // How long what is left has been due.
        self.progress.own.store(u64::try_from(overdue).unwrap_or_default(), Ordering::Relaxed);
        Ok(round)
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
pub fn whole(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
