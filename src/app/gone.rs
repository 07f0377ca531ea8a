//! Journals in the database whose servers are gone for good (scaled away, moved to other host names): they age like all
//! others.
//!
//! One of the servers that are there takes such a journal for a moment, as a start would: what was open is completed as
//! aborted, and all is closed, indexed and signed. From then on its segments go by the same rules as those of a journal that
//! is written, each pruning told in that journal itself; and once all that its server wrote has gone, so does the rest of
//! it, which the own journal tells (`audit.drop_journal`). What no target of shipping has got is not given up: whoever
//! starts and takes the journal ships it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    AppError,
    kept::{self, Opened},
};
use crate::{
    audit::{
        AuditSettings, AuditUnavailable, ChangeRecord, IndexUnavailable, Journal, JournalError, Kind,
        evidence::{Checkpointer, Signer},
        indexer::{Indexer, IndexerError},
        line::Line,
        reader::{Lines, Step, segment_path},
        retention::{
            INTERVAL, RetainedJournal, Retention, RetentionError, RetentionProgress, RetentionSettings, whole,
        },
    },
    domain::Millis,
    store::{AuditStore, Database, Extent, Gone, HEARD, KeptJournal, PostgresDepot, StoreError, emptied},
};

/// What the record of a journal that goes as a whole is called.
pub const DROP_ACTION: &str = "audit.drop_journal";
/// Who does it, in the record, and why.
const ACTOR: &str = "linkgate";
const REASON: &str = "retention";
/// Unheard of for so long a server is gone for good, or for the retention, where that is shorter.
const SILENT: Duration = Duration::from_secs(86_400);
/// Longest wait until a journal that was taken has closed its segment.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// Why nothing was done about a journal this time.
#[derive(Debug, thiserror::Error)]
pub enum GoneError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Open(#[from] AppError),
    #[error(transparent)]
    Index(#[from] IndexUnavailable),
    #[error(transparent)]
    Reader(#[from] IndexerError),
    #[error(transparent)]
    Retention(#[from] RetentionError),
    #[error("the record of it cannot be written: {0}")]
    Audit(#[from] AuditUnavailable),
    #[error("its last segment was not closed in time")]
    Unclosed,
}

impl From<JournalError> for GoneError {
    fn from(error: JournalError) -> Self {
        Self::Open(error.into())
    }
}

/// Looks after them; one in each server.
#[derive(Clone)]
pub struct Orphans {
    pub database: Database,
    pub store: Arc<AuditStore>,
    /// This server's own.
    pub journal: Journal,
    pub settings: RetentionSettings,
    pub signer: Option<Arc<Signer>>,
    pub progress: Arc<RetentionProgress>,
}

impl Orphans {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let mut told: Option<String> = None;
        loop {
            let complaint = match self.round(Millis::now()).await {
                Ok(complaint) => complaint,
                Err(error) => Some(whole(&error)),
            };
            if let Some(why) = complaint.as_ref().filter(|why| told.as_ref() != Some(why)) {
                tracing::warn!(%why, "the audit journal of a server that is gone does not age as it should");
            }
            told = complaint;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn silent(&self) -> Duration {
        SILENT.min(self.settings.age)
    }

    /// Looks at each; gives the last complaint.
    pub async fn round(&self, now: Millis) -> Result<Option<String>, StoreError> {
        let (mut overdue, mut complaint) = (0, None);
        for gone in self.store.gone_journals(self.silent()).await? {
            if gone.ended_seq.is_some_and(|ended| gone.given_up >= ended) {
                if let Err(error) = self.drop(&gone).await {
                    complaint = Some(format!("chain {}: {}", gone.chain, whole(&error)));
                }
                continue;
            }
            match self.look_after(&gone, now).await {
                Ok(held) => complaint = held.map(|held| format!("chain {}: {held}", gone.chain)).or(complaint),
                Err(error) => complaint = Some(format!("chain {}: {}", gone.chain, whole(&error))),
            }
            let closed = self.store.first_closed(gone.chain).await?;
            let due = closed.map_or(0, |closed| self.before(now).0.saturating_sub(closed.0).max(0) / 1000);
            overdue = overdue.max(u64::try_from(due).unwrap_or_default());
        }
        self.progress.gone_overdue(overdue);
        Ok(complaint)
    }

    fn before(&self, now: Millis) -> Millis {
        Millis(now.0.saturating_sub(i64::try_from(self.settings.age.as_millis()).unwrap_or(i64::MAX)))
    }

    /// A folder below that of the own journal, for this alone.
    fn folder(&self, name: &str) -> PathBuf {
        self.journal.dir().join(name)
    }

    fn kept(&self, chain: crate::audit::ChainId, epoch: i64) -> KeptJournal {
        let RetentionSettings { keys, ship, .. } = self.settings.clone();
        KeptJournal::new(Arc::clone(&self.store), (chain, epoch), self.folder(kept::GONE_PART), keys, ship)
    }

    /// Ends it, or prunes it. Gives what holds up what should go.
    async fn look_after(&self, gone: &Gone, now: Millis) -> Result<Option<String>, GoneError> {
        if gone.ended_seq.is_none() {
            return self.adopt(gone, now).await;
        }
        // Without taking it: it is of no use where nothing may go.
        let found = self.kept(gone.chain, 0).furthest(self.before(now)).await?;
        match found.plan {
            Some(_) => self.adopt(gone, now).await,
            None => Ok(found.held.map(|held| whole(&held))),
        }
    }

    /// All that its server wrote has gone.
    async fn drop(&self, gone: &Gone) -> Result<(), GoneError> {
        let record = ChangeRecord {
            user_id: Some(ACTOR.to_owned()),
            reason: Some(REASON.to_owned()),
            resource_type: Some("audit_journal".to_owned()),
            resource_id: Some(gone.chain.to_string()),
            before: Some(serde_json::json!({ "holder": gone.holder, "given_up": gone.given_up })),
            ..ChangeRecord::new(Kind::Admin, DROP_ACTION)
        };
        self.journal.append_change(&record).await?;
        if self.store.drop_journal(gone.chain).await? {
            tracing::info!(chain = %gone.chain, holder = gone.holder, "the audit journal of a server that is gone was too old");
        }
        Ok(())
    }

    async fn adopt(&self, gone: &Gone, now: Millis) -> Result<Option<String>, GoneError> {
        let silent = if gone.ended_seq.is_some() { HEARD } else { self.silent() };
        let taken = PostgresDepot::adopt(&self.database, gone.chain, silent).await.map_err(AppError::Kept)?;
        // Somebody else has it.
        let Some(depot) = taken else { return Ok(None) };
        let dir = self.folder(kept::GONE);
        let failed = |act| {
            let path = dir.clone();
            move |source| JournalError::Io { act, path, source }
        };
        emptied(&dir).map_err(failed("empty"))?;
        // A segment is closed as soon as there is anything in it.
        let settings = AuditSettings {
            dir: dir.clone(),
            segment_age: Some(Duration::ZERO),
            flush_interval: Duration::from_millis(20),
            ..self.journal.settings().clone()
        };
        let Some(opened) = kept::go_on(&self.store, depot, settings, Extent::ToGoOn).await? else { return Ok(None) };
        let done = self.end(&opened, now).await;
        // Its last lines wait for the database, on a thread that may.
        let closing = tokio::task::spawn_blocking(move || opened.journal.close());
        closing.await.map_err(|_| GoneError::Retention(RetentionError::Cancelled))?;
        std::fs::remove_dir_all(&dir).map_err(failed("remove"))?;
        done
    }

    /// Ends what its server left, and removes what may go.
    async fn end(&self, Opened { journal, epoch, .. }: &Opened, now: Millis) -> Result<Option<String>, GoneError> {
        let (journal, epoch, chain) = (journal.clone(), *epoch, journal.chain_id());
        let header = closed(&journal).await?;
        self.seal(&journal, epoch).await?;
        self.store.end_journal(chain, epoch, header.saturating_sub(1)).await?;
        let kept = self.kept(chain, epoch);
        let mut retention = Retention::of(journal.clone(), kept, Arc::clone(&self.store), self.settings.age);
        let round = retention.prune(now).await?;
        self.seal(&journal, epoch).await?;
        if let Some((first, last)) = round.segments {
            tracing::info!(%chain, first, last, "old segments of the audit journal of a server that is gone went");
        }
        Ok(round.held.map(|held| whole(&held)))
    }

    /// Indexed, signed and tidied.
    async fn seal(&self, journal: &Journal, epoch: i64) -> Result<(), GoneError> {
        let mut indexer = Indexer::new(journal.clone(), Arc::clone(&self.store), INTERVAL);
        indexer.catch_up().await?;
        if let Some(signer) = &self.signer {
            let (store, signer) = (Arc::clone(&self.store), Arc::clone(signer));
            Checkpointer::new(journal.clone(), store, signer, INTERVAL).sign_now().await?;
        }
        Ok(self.store.tidy_journal(journal.chain_id(), epoch, &[]).await?)
    }
}

/// Waits until the last segment holds nothing but its header, and gives the number of that line.
async fn closed(journal: &Journal) -> Result<u64, GoneError> {
    let since = tokio::time::Instant::now();
    loop {
        let written = journal.settle().await?;
        if first_seq(journal, written.segment)? == Some(written.head.seq) {
            return Ok(written.head.seq);
        }
        if since.elapsed() > CLOSED_WITHIN {
            return Err(GoneError::Unclosed);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn first_seq(journal: &Journal, segment: u64) -> Result<Option<u64>, JournalError> {
    let path = segment_path(journal.dir(), segment);
    let failed = |source| JournalError::Io { act: "read", path: path.clone(), source };
    let mut lines = Lines::open(&path, 0).map_err(failed)?;
    let whole = lines.step().map_err(failed)? == Step::Line;
    Ok(Line::parse(lines.bytes()).ok().filter(|_| whole).map(|line| line.seq))
}
