//! The journal: append-only, hash-chained segment files on local disk. The durable truth of what was asked and done.
//!
//! On the request path [`Journal::admit`] comes before the act and [`OpenRecord::complete`] after it (invariant I3). At
//! `os` the calling thread hashes and serialises its record, takes the lock for the last forty bytes of the hash, and
//! lets the other requests that are ready on its thread do the same; the first that is polled again writes the lines of
//! all, and the completions owed by others, with one system call. No other thread is involved. At `memory` nothing is
//! written yet. At `disk` the keeper's group commit is awaited. `writer` holds the state under the lock, `keeper` the
//! thread that flushes, syncs and rotates, `recover` what happens at a start, `sums` what vouches for lines in memory.
//!
//! It does not decide what is audited, and it does not know the database.

mod guard;
mod keeper;
mod recover;
mod sums;
mod turn;
mod writer;

use std::{
    cell::Cell,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

pub use guard::OpenRecord;
pub use recover::Recovery;
pub(super) use recover::{Writers, chained_last, take_lock, writers};
pub use sums::Known;
pub use writer::Written;

use self::{
    turn::Turn,
    writer::{Body, Entered, Kept, State, Waiter, Writer, completion_room},
};
use super::{
    chain::{ChainHead, ChainId},
    check::Fault,
    encode::{self, LineType},
    medium::{Medium, OsMedium},
    record::{ChangeRecord, Completion, Opening},
    settings::{AuditSettings, Durability},
    traits::OutboxRow,
};
use crate::domain::DecisionId;

/// Why a record cannot be kept as promised; the request is refused with 503 `AUDIT_UNAVAILABLE`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuditUnavailable {
    #[error("the audit journal cannot be written: free space on its disk, or repair it")]
    Write(#[source] Arc<io::Error>),
    #[error("the audit journal's buffers are full: its disk is too slow for the load")]
    Full,
    #[error("the audit journal cannot be kept in the database, which is away: bring it back")]
    Away(#[source] Arc<io::Error>),
    #[error("the audit journal was not on stable storage within `audit.commit_timeout`")]
    Timeout,
    #[error("the audit journal's disk failed to sync: check the disk, then restart linkgate")]
    Poisoned(#[source] Arc<io::Error>),
    #[error("level `disk` is promised, but the audit journal is on a temporary file system")]
    Unstable,
    #[error("the audit journal's last segment is gone from its folder: bring `audit.dir` back, or restart linkgate")]
    Gone,
    #[error("the audit journal was altered while linkgate ran: look into it with `linkgate audit verify`")]
    Altered(#[source] Arc<JournalError>),
    #[error("another server has taken the audit chain over: restart linkgate")]
    TakenOver,
    #[error("the audit journal is closed")]
    Closed,
    #[error("the record cannot be written as JSON")]
    Encode,
}

impl AuditUnavailable {
    /// The error beneath, for a log line.
    pub fn cause(&self) -> String {
        std::error::Error::source(self).map_or_else(|| self.to_string(), ToString::to_string)
    }
}

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot {act} `{path}`")]
    Io { act: &'static str, path: PathBuf, source: io::Error },
    #[error("the audit journal in `{0}` is in use by another server: give each its own `audit.dir`")]
    Locked(PathBuf),
    #[error("`{dir}` is on {kind}, where nothing is on stable storage: move `audit.dir`, or set levels `os`")]
    Unstable { dir: PathBuf, kind: &'static str },
    #[error("`{0}` holds segments but no `chain.json`: restore it, or move the segments away")]
    NoChain(PathBuf),
    #[error("the audit journal is of format {0}, which this version cannot write")]
    Format(u32),
    #[error("`{file}` line {line}: {fault}; look into it with `linkgate audit verify`")]
    Broken { file: PathBuf, line: u64, fault: Fault },
    #[error(
        "the audit journal ends at record {found}, the database has seen record {stored}: its tail was cut off; look \
         into it with `linkgate audit verify`"
    )]
    CutOff { stored: u64, found: u64 },
    #[error("record {0} of the audit journal is not the one that the database has seen: `linkgate audit verify`")]
    Diverged(u64),
}

pub(crate) fn io_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { act, path: path.to_owned(), source }
}

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

pub(super) struct Shared {
    settings: AuditSettings,
    chain_id: ChainId,
    /// Not on a temporary file system.
    stable: bool,
    medium: Arc<dyn Medium>,
    writer: Mutex<Writer>,
    /// Wakes the keeper.
    wake: Condvar,
    /// Held as long as anyone may write.
    _lock: File,
}

thread_local! {
    /// Where a thread serialises its records; taken out while in use.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}
/// A larger buffer is given back to the allocator after use.
const SCRATCH_KEPT_BYTES: usize = 64 << 10;

fn with_scratch<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = SCRATCH.take();
    buffer.clear();
    let done = work(&mut buffer);
    if buffer.capacity() <= SCRATCH_KEPT_BYTES {
        SCRATCH.set(buffer);
    }
    done
}

type Commit = oneshot::Receiver<Result<Written, AuditUnavailable>>;

/// What is left to do before a line is as durable as promised.
enum Promise {
    Kept,
    Write(Entered),
    Sync(Commit),
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
        recover::take_lock(dir)
    }

    /// The same on a medium that keeps the journal elsewhere.
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
        let (record, promise) = self.shared.begin(opening, level)?;
        match promise {
            Promise::Kept => Ok(record),
            Promise::Write(entered) => {
                Turn::default().await;
                // A statement of its own: a completion takes the lock again.
                let kept = self.shared.lock().keep(&entered, Some(record.id()));
                match kept {
                    Kept::Yes => Ok(record),
                    Kept::TakenBack(error) => {
                        record.forget();
                        Err(error)
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

    fn refused(&self, record: OpenRecord, error: AuditUnavailable) -> AuditUnavailable {
        record.refused();
        error
    }

    /// Opening and completion of a request that ends here and now: a refusal.
    pub async fn record(
        &self,
        opening: &Opening<'_>,
        completion: &Completion,
        level: Durability,
    ) -> Result<(), AuditUnavailable> {
        match self.shared.once(opening, completion, level)? {
            Promise::Kept => Ok(()),
            Promise::Write(entered) => {
                Turn::default().await;
                let kept = self.shared.lock().keep(&entered, None);
                match kept {
                    Kept::Yes => Ok(()),
                    Kept::TakenBack(error) | Kept::No(error) => Err(error),
                }
            }
            Promise::Sync(commit) => self.shared.committed(commit).await.map(drop),
        }
    }

    /// Appends a change and waits until it is on stable storage (as far as the file system has any).
    pub async fn append_change(&self, change: &ChangeRecord) -> Result<Written, AuditUnavailable> {
        let commit = self.shared.change(change)?;
        self.shared.committed(commit).await
    }

    /// The same for rows of the outbox, in their order. A row that is in the chain already is not appended again, so
    /// after an error the same rows may be given again.
    pub async fn append_outbox(&self, rows: &[OutboxRow]) -> Result<Written, AuditUnavailable> {
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
            State::Good if writer.gone => Some(AuditUnavailable::Gone),
            State::Good => writer.trouble.clone().or_else(|| writer.away.clone()),
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

    pub fn dir(&self) -> &Path {
        &self.shared.settings.dir
    }

    /// Whether level `disk` can be kept at all: not on a temporary file system.
    pub fn is_stable(&self) -> bool {
        self.shared.stable
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A panic elsewhere cannot leave the state half changed: each change is made by code that does not panic.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything of an admission but the wait.
    fn begin(
        self: &Arc<Self>,
        opening: &Opening<'_>,
        level: Durability,
    ) -> Result<(OpenRecord, Promise), AuditUnavailable> {
        let level = self.keepable(level)?;
        let room = completion_room(opening.slices.iter().map(|slice| slice.managed_tenant_id.as_str()));
        let (seq, promise) = with_scratch(|text| {
            let unplaced = encode::opening(text, opening);
            let body = Body { line_type: LineType::Open, text, unplaced };
            let mut writer = self.lock();
            let entered = writer.open(opening.id, body, room, level != Durability::Disk)?;
            Ok((entered.seq, self.promise(&mut writer, entered, level)))
        })?;
        Ok((OpenRecord::new(Arc::clone(self), opening.id, seq), promise))
    }

    fn once(
        &self,
        opening: &Opening<'_>,
        completion: &Completion,
        level: Durability,
    ) -> Result<Promise, AuditUnavailable> {
        let level = self.keepable(level)?;
        with_scratch(|text| {
            let first = encode::opening(text, opening);
            let middle = text.len();
            let second = encode::completion(text, opening.id, completion);
            let (open, complete) = text.split_at_checked(middle).ok_or(AuditUnavailable::Encode)?;
            let bodies = [
                Body { line_type: LineType::Open, text: open, unplaced: first },
                Body { line_type: LineType::Complete, text: complete, unplaced: second },
            ];
            let mut writer = self.lock();
            let entered = writer.add(bodies, 0, level != Durability::Disk)?;
            Ok(self.promise(&mut writer, entered, level))
        })
    }

    fn change(&self, change: &ChangeRecord) -> Result<Commit, AuditUnavailable> {
        let mut text = Vec::new();
        let unplaced = encode::change(&mut text, change, None).map_err(|_| AuditUnavailable::Encode)?;
        let mut writer = self.lock();
        let entered = writer.add([Body { line_type: LineType::Change, text: &text, unplaced }], 0, false)?;
        Ok(self.enlist(&mut writer, entered.seq))
    }

    fn outbox(&self, row: &OutboxRow) -> Result<(), AuditUnavailable> {
        let mut text = Vec::new();
        let unplaced = encode::change(&mut text, &row.change, Some(row.seq)).map_err(|_| AuditUnavailable::Encode)?;
        let mut writer = self.lock();
        if !writer.outbox.contains(&row.seq) {
            writer.add([Body { line_type: LineType::Change, text: &text, unplaced }], 0, false)?;
            writer.chained(row.seq);
        }
        Ok(())
    }

    fn wait_for_all(&self) -> Commit {
        let mut writer = self.lock();
        let seq = writer.next_seq.saturating_sub(1);
        self.enlist(&mut writer, seq)
    }

    /// What cannot be kept is not promised. Where the folder may be lost with the process, what must outlive the one must be
    /// kept where the other does not matter.
    fn keepable(&self, level: Durability) -> Result<Durability, AuditUnavailable> {
        match level {
            Durability::Disk if !self.stable => Err(AuditUnavailable::Unstable),
            Durability::Os if self.medium.elsewhere() => Ok(Durability::Disk),
            kept => Ok(kept),
        }
    }

    fn promise(&self, writer: &mut Writer, entered: Entered, level: Durability) -> Promise {
        match level {
            Durability::Memory => Promise::Kept,
            Durability::Os => Promise::Write(entered),
            Durability::Disk => Promise::Sync(self.enlist(writer, entered.seq)),
        }
    }

    /// Asks the keeper for stable storage up to `seq`.
    fn enlist(&self, writer: &mut Writer, seq: u64) -> Commit {
        let (done, commit) = oneshot::channel();
        match writer.state.refusal() {
            None => {
                writer.waiters.push(Waiter { seq, done });
                self.wake.notify_one();
            }
            Some(refusal) => drop(done.send(Err(refusal))),
        }
        commit
    }

    async fn committed(&self, commit: Commit) -> Result<Written, AuditUnavailable> {
        match tokio::time::timeout(self.settings.commit_timeout, commit).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(AuditUnavailable::Closed),
            Err(_) => Err(AuditUnavailable::Timeout),
        }
    }

    /// The completion of an open record; never fails to the caller.
    fn complete(&self, id: DecisionId, completion: &Completion) {
        with_scratch(|text| {
            let unplaced = encode::completion(text, id, completion);
            self.lock().complete(id, Body { line_type: LineType::Complete, text, unplaced });
        });
    }

    fn flush_interval(&self) -> Duration {
        // Zero would spin.
        self.settings.flush_interval.max(Duration::from_millis(1))
    }
}
