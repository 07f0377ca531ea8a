//! The journal's state under its lock: the chain's head, what is written, what is owed, what is open.
//!
//! No thread and no wait is in here, so every rule can be read in one place:
//! - A line is chained when it enters `owed`, in the order of the chain, and written with one call, oldest first.
//! - An opening that could not be written is taken back out of the chain: it was refused, and never happened. Only
//!   where another line was chained behind it in the meantime it stays, and is completed as refused.
//! - A completion is never taken back. It stays owed, in order, and openings are refused until it is written.
//! - Room for the completion of every open record is set aside on the disk before its opening is written.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

use super::{AuditUnavailable, JournalError, chained::Chained, sums::Sums};
use crate::{
    audit::{
        chain::{ChainHead, Hash, Unplaced},
        encode::{self, LineType},
        line::frame,
        medium::SegmentFile,
        record::Completion,
    },
    domain::{DecisionId, Millis},
};

/// Most records open at once: each holds its id here and room on the disk.
const MAX_OPEN: usize = 1 << 17;
/// Most bytes that wait to be written before further openings are refused.
const MAX_OWED_BYTES: usize = 8 << 20;
/// Buffered lines are written by the calling thread from this size on.
const FLUSH_BYTES: usize = 64 << 10;
/// Disk space is set aside in pieces of this size.
const RESERVE_STEP: u64 = 1 << 20;
/// Room set aside for a completion, without its slices.
const COMPLETION_BYTES: u64 = 768;
/// More for each slice, beside the tenant's id.
const COMPLETION_SLICE_BYTES: u64 = 128;

/// A line that is not chained yet.
pub(in crate::audit) struct Body<'b> {
    pub(in crate::audit) line_type: LineType,
    pub(in crate::audit) text: &'b [u8],
    pub(in crate::audit) unplaced: Unplaced,
}

/// How far the file goes, and the last line in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub segment: u64,
    pub offset: u64,
    pub head: ChainHead,
}

/// Someone who waits until a line is on stable storage.
pub(super) struct Waiter {
    pub(super) seq: u64,
    pub(super) done: oneshot::Sender<Result<Written, AuditUnavailable>>,
}

#[derive(Clone)]
pub(super) enum State {
    Good,
    /// A sync failed: what the kernel still holds cannot be known, so nothing may be promised again.
    Poisoned(Arc<io::Error>),
    /// The index found that the files do not hold what was written.
    Altered(Arc<JournalError>),
    /// The chain has another writer.
    TakenOver,
    /// What had been kept is not there any more.
    Lost,
    Closed,
}

impl State {
    /// Why nothing is accepted in this state.
    pub(super) fn refusal(&self) -> Option<AuditUnavailable> {
        match self {
            Self::Good => None,
            Self::Poisoned(error) => Some(AuditUnavailable::Poisoned(Arc::clone(error))),
            Self::Altered(error) => Some(AuditUnavailable::Altered(Arc::clone(error))),
            Self::TakenOver => Some(AuditUnavailable::TakenOver),
            Self::Lost => Some(AuditUnavailable::Lost),
            Self::Closed => Some(AuditUnavailable::Closed),
        }
    }
}

/// Lines that were chained and are not written yet.
pub(super) struct Entered {
    /// The last of them.
    pub(super) seq: u64,
    before: Mark,
}

/// Whether lines that were chained are written now.
pub(super) enum Kept {
    Yes,
    /// They are out of the chain again.
    TakenBack(AuditUnavailable),
    /// They are owed.
    No(AuditUnavailable),
}

/// Where the chain stood before lines were added.
struct Mark {
    owed: usize,
    next_seq: u64,
    head: Hash,
    head_hex: [u8; 64],
}

pub(in crate::audit) struct Writer {
    pub(super) file: Arc<dyn SegmentFile>,
    pub(super) segment: u64,
    /// Place and time of its header.
    pub(super) begun: (u64, Millis),
    /// Where the last whole write ended.
    pub(super) offset: u64,
    /// End of the room set aside; `None` where the file system cannot.
    pub(super) reserved: Option<u64>,
    /// A failed write may have left something behind `offset`.
    pub(super) dirty: bool,
    /// Room that the completions of open records need.
    pub(super) promised: u64,
    pub(super) next_seq: u64,
    pub(super) head: Hash,
    pub(super) head_hex: [u8; 64],
    /// The last line that is in the file.
    pub(super) written: ChainHead,
    /// Its place, for who asks without the lock; it may be behind.
    pub(super) written_seq: Arc<AtomicU64>,
    pub(super) owed: Vec<u8>,
    /// Of the lines written or owed lately.
    pub(super) sums: Sums,
    /// Records without a completion, with the room promised to each.
    pub(super) open: HashMap<DecisionId, u64, ahash::RandomState>,
    /// Changes of the outbox.
    pub(super) chained: Chained,
    pub(super) state: State,
    /// Why a write failed; `None` once the keeper found room again.
    pub(super) trouble: Option<AuditUnavailable>,
    /// Why what is written cannot be kept elsewhere just now; `None` once it was.
    pub(super) away: Option<AuditUnavailable>,
    /// Why what is written would be read by nobody, or by another writer too: the segment or the lock is not in its place.
    pub(super) gone: Option<AuditUnavailable>,
    pub(super) waiters: Vec<Waiter>,
}

/// Room that the completion of such a record may need.
pub(super) fn completion_room<'a>(slices: impl Iterator<Item = &'a str>) -> u64 {
    let length = |text: &str| u64::try_from(text.len()).unwrap_or(u64::MAX);
    slices.fold(COMPLETION_BYTES, |room, tenant| room + COMPLETION_SLICE_BYTES + length(tenant))
}

impl Writer {
    /// A writer behind `head` in an existing segment.
    pub(super) fn new(file: Arc<dyn SegmentFile>, segment: u64, offset: u64, head: ChainHead) -> Self {
        Self {
            file,
            segment,
            begun: (head.seq.saturating_add(1), Millis::now()),
            offset,
            reserved: Some(offset),
            dirty: false,
            promised: 0,
            next_seq: head.seq.saturating_add(1),
            head: head.hash,
            head_hex: head.hash.to_hex(),
            written: head,
            written_seq: Arc::default(),
            owed: Vec::with_capacity(FLUSH_BYTES * 2),
            sums: Sums::new(),
            open: HashMap::default(),
            chained: Chained::nothing(),
            state: State::Good,
            trouble: None,
            away: None,
            gone: None,
            waiters: Vec::new(),
        }
    }

    /// Opens a record. On failure the chain is as it was before.
    pub(super) fn open(
        &mut self,
        id: DecisionId,
        body: Body<'_>,
        room: u64,
        buffered: bool,
    ) -> Result<Entered, AuditUnavailable> {
        if self.open.len() >= MAX_OPEN {
            return Err(AuditUnavailable::Full);
        }
        let entered = self.add([body], room, buffered)?;
        self.open.insert(id, room);
        self.promised += room;
        Ok(entered)
    }

    /// Adds lines that stand for themselves. On failure the chain is as it was before. `buffered`: they need not be
    /// written yet.
    pub(super) fn add<'b>(
        &mut self,
        bodies: impl IntoIterator<Item = Body<'b>>,
        room: u64,
        buffered: bool,
    ) -> Result<Entered, AuditUnavailable> {
        if let Some(refusal) = self.state.refusal() {
            return Err(refusal);
        }
        if let Some(gone) = &self.gone {
            return Err(gone.clone());
        }
        if let Some(trouble) = &self.trouble {
            // Not tried by each request: the keeper finds out when there is room for many again.
            return Err(trouble.clone());
        }
        if let Some(away) = &self.away {
            return Err(away.clone());
        }
        if self.owed.len() >= MAX_OWED_BYTES {
            return Err(AuditUnavailable::Full);
        }
        let mark = Mark { owed: self.owed.len(), next_seq: self.next_seq, head: self.head, head_hex: self.head_hex };
        for body in bodies {
            self.push(body);
        }
        let done = self.set_aside(room).and_then(|()| {
            let wait = buffered && self.owed.len() < FLUSH_BYTES;
            if wait { Ok(()) } else { self.write_owed() }
        });
        if let Err(error) = done {
            self.take_back(&mark);
            return Err(error);
        }
        Ok(Entered { seq: self.next_seq - 1, before: mark })
    }

    fn take_back(&mut self, to: &Mark) {
        self.owed.truncate(to.owed);
        (self.next_seq, self.head, self.head_hex) = (to.next_seq, to.head, to.head_hex);
    }

    /// Writes these lines, and all others that are owed, unless somebody has done it in the meantime. `opened` is the
    /// record that they open.
    pub(super) fn keep(&mut self, entered: &Entered, opened: Option<DecisionId>) -> Kept {
        if self.written.seq >= entered.seq {
            return Kept::Yes;
        }
        // Where a write failed in the meantime it is not tried again for each request.
        let error = match self.trouble.clone().map_or_else(|| self.write_owed(), Err) {
            Ok(()) => return Kept::Yes,
            Err(error) => error,
        };
        if self.next_seq - 1 != entered.seq {
            return Kept::No(error);
        }
        self.take_back(&entered.before);
        if let Some(room) = opened.and_then(|id| self.open.remove(&id)) {
            self.promised = self.promised.saturating_sub(room);
        }
        Kept::TakenBack(error)
    }

    /// Completes an open record. It is owed from now on, whatever happens.
    pub(super) fn complete(&mut self, id: DecisionId, body: Body<'_>) {
        let Some(room) = self.open.remove(&id) else { return };
        self.promised = self.promised.saturating_sub(room);
        self.push(body);
        let closed = matches!(self.state, State::Closed);
        if closed || (self.owed.len() >= FLUSH_BYTES && self.trouble.is_none()) {
            // A failure is remembered in `trouble`, and the lines stay owed.
            let _ = self.write_owed();
        }
    }

    /// Chains a line behind what is owed.
    pub(super) fn push(&mut self, body: Body<'_>) {
        let Body { line_type, text, unplaced } = body;
        let start = self.owed.len();
        self.head = frame(&mut self.owed, self.next_seq, line_type, self.head, &mut self.head_hex, text, unplaced);
        let line = self.owed.get(start..).unwrap_or_default();
        self.sums.note(self.next_seq, line.strip_suffix(b"\n").unwrap_or(line));
        self.next_seq += 1;
    }

    /// Writes all that is owed, with one call. On failure nothing of it counts as written.
    pub(super) fn write_owed(&mut self) -> Result<(), AuditUnavailable> {
        if self.owed.is_empty() {
            return Ok(());
        }
        let written = self.clean_up().and_then(|()| self.file.write_at(&self.owed, self.offset));
        if let Err(error) = written {
            self.dirty = true;
            // Best effort, so that readers see no torn line for long; `clean_up` comes again before the next write.
            let _ = self.clean_up();
            return Err(self.failed(error));
        }
        self.offset += bytes(self.owed.len());
        self.owed.clear();
        if self.owed.capacity() > FLUSH_BYTES * 4 {
            self.owed.shrink_to(FLUSH_BYTES * 2);
        }
        self.written = ChainHead { seq: self.next_seq - 1, hash: self.head };
        self.written_seq.store(self.written.seq, Ordering::Release);
        Ok(())
    }

    /// Cuts off what a failed write left behind. The room set aside goes with it.
    fn clean_up(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.truncate(self.offset)?;
            self.dirty = false;
            self.reserved = self.reserved.map(|_| self.offset);
        }
        Ok(())
    }

    /// Makes sure that there is room for all that is owed and promised, and for `more`.
    pub(super) fn set_aside(&mut self, more: u64) -> Result<(), AuditUnavailable> {
        let Some(reserved) = self.reserved else { return Ok(()) };
        let needed = self.offset + bytes(self.owed.len()) + self.promised + more;
        if needed <= reserved {
            return Ok(());
        }
        let exact = needed - reserved;
        let set_aside = self.file.reserve(reserved, exact.max(RESERVE_STEP)).map(|can| (can, exact.max(RESERVE_STEP)));
        // A nearly full disk may still have what is needed just now.
        let set_aside = set_aside.or_else(|_| self.file.reserve(reserved, exact).map(|can| (can, exact)));
        match set_aside {
            Ok((can, length)) => {
                self.reserved = can.then_some(reserved + length);
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Writes what is owed and, while there is trouble, finds out whether there is room again. Called by the keeper from
    /// time to time. Completions may go into the room that was set aside for them long before openings are accepted.
    pub(super) fn settle(&mut self) {
        let troubled = self.trouble.is_some();
        // A failure is remembered in `trouble`.
        if self.write_owed().is_ok() && troubled && self.set_aside(RESERVE_STEP / 16).is_ok() {
            self.trouble = None;
            tracing::info!(segment = self.segment, "the audit journal is written again");
        }
    }

    fn failed(&mut self, error: io::Error) -> AuditUnavailable {
        let trouble = AuditUnavailable::Write(Arc::new(error));
        if self.trouble.is_none() {
            tracing::error!(segment = self.segment, owed = self.owed.len(), error = %trouble.cause(),
                "the audit journal cannot be written: requests that must be audited are refused");
        }
        self.trouble = Some(trouble.clone());
        trouble
    }

    pub(super) fn position(&self) -> Written {
        Written { segment: self.segment, offset: self.offset, head: self.written }
    }

    /// Opens belong to nobody any more: completes each as aborted.
    pub(super) fn abort_open(&mut self, ids: impl IntoIterator<Item = DecisionId>, completion: &Completion) {
        let mut text = Vec::new();
        for id in ids {
            text.clear();
            let unplaced = encode::completion(&mut text, id, completion);
            self.push(Body { line_type: LineType::Complete, text: &text, unplaced });
            self.open.remove(&id);
        }
    }
}

pub(super) fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
