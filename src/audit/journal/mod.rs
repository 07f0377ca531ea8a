//! The journal: append-only, hash-chained segment files on local disk. The durable truth of what was asked and done.
//!
//! On the request path [`Journal::admit`] comes before the act and [`OpenRecord::complete`] after it (invariant I3). At
//! `os` the calling thread hashes and serialises its record, takes the lock for the last forty bytes of the hash, and
//! lets the other requests that are ready on its thread do the same; the first that is polled again writes the lines of
//! all, and the completions owed by others, with one system call. No other thread is involved. At `memory` nothing is
//! written yet. At `disk` the keeper's group commit is awaited. `shared` has everything of an admission but the wait,
//! `writer` the state under the lock, `keeper` the thread that flushes, syncs and rotates, `recover` what happens at a
//! start, `tail` and `seam` what a crash leaves, `lock` who may write, `chained` which changes it holds, `sums` what vouches for lines in memory, `error` why something is refused.
//!
//! It does not decide what is audited, and it does not know the database.

mod chained;
mod error;
mod guard;
mod keeper;
mod lock;
mod recover;
mod seam;
mod shared;
mod sums;
mod tail;
mod turn;
mod writer;

use std::{fs::File, path::Path, sync::Arc};

pub(super) use chained::{Chained, Place, chained_since};
pub(crate) use error::io_error;
pub use error::{AuditUnavailable, JournalError, Unkept};
pub use guard::OpenRecord;
pub(super) use lock::{Writers, take_lock, writers};
pub use recover::Recovery;
pub(super) use recover::chained_last;
pub use sums::Known;
pub use writer::Written;

use self::{
    shared::{Promise, Shared},
    turn::Turn,
    writer::{Kept, State},
};
use super::{
    chain::{ChainHead, ChainId},
    medium::{Medium, OsMedium},
    record::{ChangeRecord, Completion, Opening, OutboxRow},
    settings::{AuditSettings, Durability},
};

/// For metrics and readiness.
#[derive(Clone, Debug)]
pub struct JournalStatus {
    /// Why openings are refused just now.
    pub trouble: Option<AuditUnavailable>,
    /// Last line of the chain, written or owed.
    pub last_seq: u64,
    pub written: Written,
    pub owed_bytes: usize,
    pub open_records: usize,
    pub waiting: usize,
}

/// The open journal. Clones are handles to the same one; when the last is dropped it is flushed, synced and closed.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    _keeper: Arc<keeper::Keeper>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

impl Journal {
    /// Locks the folder, checks and repairs the journal's end, and starts the keeper. Blocks; reads the last segments.
    pub fn open(settings: AuditSettings) -> Result<(Self, Recovery), JournalError> {
        Self::open_on(settings, Arc::new(OsMedium))
    }

    /// The same, held against the head that the database saw last: a journal that ends before it, or has another past,
    /// is left exactly as it is found.
    pub fn open_behind(settings: AuditSettings, stored: Option<ChainHead>) -> Result<(Self, Recovery), JournalError> {
        Self::opened(settings, stored, Arc::new(OsMedium))
    }

    /// The lock of a folder, until it is dropped.
    pub fn lock(dir: &Path) -> Result<File, JournalError> {
        lock::take_lock(dir)
    }

    /// The same on another medium: one that keeps the journal elsewhere, or that a test gives.
    pub fn open_kept(
        settings: AuditSettings,
        stored: Option<ChainHead>,
        medium: Arc<dyn Medium>,
    ) -> Result<(Self, Recovery), JournalError> {
        Self::opened(settings, stored, medium)
    }

    /// The same on another medium: tests give it a faulty one.
    pub fn open_on(settings: AuditSettings, medium: Arc<dyn Medium>) -> Result<(Self, Recovery), JournalError> {
        Self::opened(settings, None, medium)
    }

    fn opened(
        settings: AuditSettings,
        stored: Option<ChainHead>,
        medium: Arc<dyn Medium>,
    ) -> Result<(Self, Recovery), JournalError> {
        let (shared, recovery) = recover::open(settings, stored, medium)?;
        let shared = Arc::new(shared);
        let keeper = keeper::Keeper::start(&shared)?;
        Ok((Self { shared, _keeper: Arc::new(keeper) }, recovery))
    }

    /// Writes a request's opening, as durable as `level` says, before anything is done for it.
    ///
    /// `memory` completes on the first poll and `os` on the second, for which it asks itself; neither wakes another
    /// thread. `disk` awaits stable storage, for at most `commit_timeout` (a tokio timer must be running). A record that
    /// was chained and is not there in time, or cannot be written with those behind it, is completed as refused.
    pub async fn admit(&self, opening: &Opening<'_>, level: Durability) -> Result<OpenRecord, AuditUnavailable> {
        self.try_admit(opening, level).await.map_err(|unkept| unkept.error)
    }

    /// The same, and says whether a record that is refused stands in the chain.
    pub async fn try_admit(&self, opening: &Opening<'_>, level: Durability) -> Result<OpenRecord, Unkept> {
        let (seq, promise) = self.shared.begin(opening, level)?;
        let record = OpenRecord::new(Arc::clone(&self.shared), opening.id, seq);
        match promise {
            Promise::Kept => Ok(record),
            Promise::Write(entered) => {
                Turn::default().await;
                match self.shared.keep(&entered, Some(record.id())) {
                    Kept::Yes => Ok(record),
                    Kept::TakenBack(error) => {
                        record.forget();
                        Err(error.into())
                    }
                    Kept::No(error) => Err(self.refused(record, error)),
                }
            }
            Promise::Sync(commit) => match self.shared.committed(commit).await {
                Ok(_) => Ok(record),
                Err(error) => Err(self.refused(record, error)),
            },
        }
    }

    fn refused(&self, record: OpenRecord, error: AuditUnavailable) -> Unkept {
        record.refused();
        Unkept::chained(error)
    }

    /// Opening and completion of a request that ends here and now: a refusal.
    pub async fn record(
        &self,
        opening: &Opening<'_>,
        completion: &Completion,
        level: Durability,
    ) -> Result<(), AuditUnavailable> {
        self.try_record(opening, completion, level).await.map_err(|unkept| unkept.error)
    }

    /// The same, and says whether a record that is not as durable as promised stands in the chain.
    pub async fn try_record(
        &self,
        opening: &Opening<'_>,
        completion: &Completion,
        level: Durability,
    ) -> Result<(), Unkept> {
        match self.shared.once(opening, completion, level)? {
            Promise::Kept => Ok(()),
            Promise::Write(entered) => {
                Turn::default().await;
                match self.shared.keep(&entered, None) {
                    Kept::Yes => Ok(()),
                    Kept::TakenBack(error) => Err(error.into()),
                    Kept::No(error) => Err(Unkept::chained(error)),
                }
            }
            Promise::Sync(commit) => self.shared.committed(commit).await.map(drop).map_err(Unkept::chained),
        }
    }

    /// Appends a change and waits until it is on stable storage (as far as the file system has any).
    pub async fn append_change(&self, change: &ChangeRecord) -> Result<Written, AuditUnavailable> {
        let commit = self.shared.change(change)?;
        self.shared.committed(commit).await
    }

    /// The same for rows of the outbox, in their order. A change that is in the chain already is not appended again, so
    /// after an error the same rows may be given again. One caller at a time.
    pub async fn append_outbox(&self, rows: &[OutboxRow]) -> Result<Written, AuditUnavailable> {
        if let Some(since) = self.shared.unknown(rows) {
            let shared = Arc::clone(&self.shared);
            let read = tokio::task::spawn_blocking(move || shared.look_back(since));
            read.await.map_err(|_| AuditUnavailable::Closed)??;
        }
        for row in rows {
            self.shared.outbox(row)?;
        }
        self.settle().await
    }

    /// Writes what is buffered, waits until it is on stable storage, and says how far that goes.
    pub async fn settle(&self) -> Result<Written, AuditUnavailable> {
        let commit = self.shared.wait_for_all();
        self.shared.committed(commit).await
    }

    /// Whether openings are accepted.
    pub fn healthy(&self) -> bool {
        self.status().trouble.is_none()
    }

    pub fn status(&self) -> JournalStatus {
        let writer = self.shared.lock();
        let trouble = match &writer.state {
            State::Good => writer.gone.clone().or_else(|| writer.trouble.clone()).or_else(|| writer.away.clone()),
            state => state.refusal(),
        };
        JournalStatus {
            trouble,
            last_seq: writer.next_seq.saturating_sub(1),
            written: writer.position(),
            owed_bytes: writer.owed.len(),
            open_records: writer.open.len(),
            waiting: writer.waiters.len(),
        }
    }

    /// Refuses openings from now on, writes and syncs what is owed, and ends the keeper. Blocks for a sync.
    /// Completions of records that are still open are written as they come.
    pub fn close(&self) {
        self._keeper.stop();
    }

    /// Refuses openings until a restart: what stands in the files is not what was written.
    pub fn distrust(&self, why: JournalError) {
        let mut writer = self.shared.lock();
        if matches!(writer.state, State::Good) {
            writer.state = State::Altered(Arc::new(why));
        }
    }

    /// Compares the journal with the head that the database saw last: a tail that was cut off, or another past, shows.
    pub fn check_head(&self, stored: ChainHead) -> Result<(), JournalError> {
        recover::check_head(self.dir(), self.status().written.head, stored)
    }

    /// What vouches for at most `most` lines behind `seq`. Of those up to `seq` nothing is remembered any more.
    pub fn known(&self, seq: u64, most: usize) -> Known {
        self.shared.lock().sums.behind(seq, most)
    }

    pub fn chain_id(&self) -> ChainId {
        self.shared.chain_id
    }

    pub fn settings(&self) -> &AuditSettings {
        &self.shared.settings
    }

    pub fn dir(&self) -> &Path {
        &self.shared.settings.dir
    }

    /// Whether level `disk` can be kept at all: not on a temporary file system.
    pub fn is_stable(&self) -> bool {
        self.shared.stable
    }
}
