//! What all handles of a journal share, and everything of an admission but the wait: serialise, chain, and say what is left
//! to do before the line is as durable as promised.

use std::{
    cell::Cell,
    fs::File,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    AuditUnavailable,
    chained::{Place, chained_since},
    writer::{Body, Entered, Kept, Waiter, Writer, Written, completion_room},
};
use crate::{
    audit::{
        chain::ChainId,
        encode::{self, LineType},
        medium::Medium,
        record::{ChangeRecord, Completion, Opening, OutboxRow},
        settings::{AuditSettings, Durability},
    },
    domain::{DecisionId, Millis},
};

pub(super) struct Shared {
    pub(super) settings: AuditSettings,
    pub(super) chain_id: ChainId,
    /// Not on a temporary file system.
    pub(super) stable: bool,
    pub(super) medium: Arc<dyn Medium>,
    pub(super) writer: Mutex<Writer>,
    /// The writer's own.
    pub(super) written_seq: Arc<AtomicU64>,
    /// Wakes the keeper.
    pub(super) wake: Condvar,
    /// Held as long as anyone may write.
    pub(super) lock_file: File,
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

pub(super) type Commit = oneshot::Receiver<Result<Written, AuditUnavailable>>;

/// What is left to do before a line is as durable as promised.
pub(super) enum Promise {
    Kept,
    Write(Entered),
    Sync(Commit),
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Writer> {
        // A panic elsewhere cannot leave the state half changed: each change is made by code that does not panic.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything of an admission but the wait, and the place of the line in the chain.
    pub(super) fn begin(&self, opening: &Opening<'_>, level: Durability) -> Result<(u64, Promise), AuditUnavailable> {
        let level = self.keepable(level)?;
        let room = completion_room(opening.slices.iter().map(|slice| slice.managed_tenant_id.as_str()));
        with_scratch(|text| {
            let unplaced = encode::opening(text, opening);
            let body = Body { line_type: LineType::Open, text, unplaced };
            let mut writer = self.lock();
            let entered = writer.open(opening.id, body, room, level != Durability::Disk)?;
            Ok((entered.seq, self.promise(&mut writer, entered, level)))
        })
    }

    pub(super) fn once(
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

    pub(super) fn change(&self, change: &ChangeRecord) -> Result<Commit, AuditUnavailable> {
        let mut text = Vec::new();
        let unplaced = encode::change(&mut text, change, None).map_err(|_| AuditUnavailable::Encode)?;
        let mut writer = self.lock();
        let entered = writer.add([Body { line_type: LineType::Change, text: &text, unplaced }], 0, false)?;
        Ok(self.enlist(&mut writer, entered.seq))
    }

    pub(super) fn outbox(&self, row: &OutboxRow) -> Result<(), AuditUnavailable> {
        let mut text = Vec::new();
        let unplaced = encode::change(&mut text, &row.change, Some(row.seq)).map_err(|_| AuditUnavailable::Encode)?;
        let mut writer = self.lock();
        if writer.chained.place(row.seq, row.change.id) != Place::InChain {
            writer.add([Body { line_type: LineType::Change, text: &text, unplaced }], 0, false)?;
            writer.chained.add(row.seq, row.change.id);
        }
        Ok(())
    }

    /// Makes sure that these lines are written. `opened`: the record that they open.
    pub(super) fn keep(&self, entered: &Entered, opened: Option<DecisionId>) -> Kept {
        // Mostly another request has written them in the meantime, with its own; what is written stays so, and a place that
        // somebody waits for is given to nobody else.
        if self.written_seq.load(Ordering::Acquire) >= entered.seq {
            return Kept::Yes;
        }
        self.lock().keep(entered, opened)
    }

    /// From when on it must be known what was chained, to say of each of these rows whether it was.
    pub(super) fn unknown(&self, rows: &[OutboxRow]) -> Option<Millis> {
        let writer = self.lock();
        let places = rows.iter().map(|row| writer.chained.place(row.seq, row.change.id));
        places.filter_map(|place| if let Place::Behind(since) = place { Some(since) } else { None }).min()
    }

    /// Reads that in the journal. All that was chained is in its files: who appends changes waits for that.
    pub(super) fn look_back(&self, since: Millis) -> Result<(), AuditUnavailable> {
        let found = chained_since(&self.settings.dir, since);
        let found = found.map_err(|error| AuditUnavailable::Unread(Arc::new(error)))?;
        self.lock().chained.learn(found, since);
        Ok(())
    }

    pub(super) fn wait_for_all(&self) -> Commit {
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

    pub(super) async fn committed(&self, commit: Commit) -> Result<Written, AuditUnavailable> {
        match tokio::time::timeout(self.settings.commit_timeout, commit).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(AuditUnavailable::Closed),
            Err(_) => Err(AuditUnavailable::Timeout),
        }
    }

    /// The completion of an open record; never fails to the caller.
    pub(super) fn complete(&self, id: DecisionId, completion: &Completion) {
        with_scratch(|text| {
            let unplaced = encode::completion(text, id, completion);
            self.lock().complete(id, Body { line_type: LineType::Complete, text, unplaced });
        });
    }

    pub(super) fn flush_interval(&self) -> Duration {
        // Zero would spin.
        self.settings.flush_interval.max(Duration::from_millis(1))
    }
}
