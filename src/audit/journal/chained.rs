//! Which changes of the outbox stand in the chain.
//!
//! A change is known by its id. Its number in the outbox says little: a database that was restored from a backup hands
//! numbers out again, and has changes wait again that were chained since. So what was chained lately is remembered by its
//! id, and from when on that is all there was. A change of before that time, or one whose number is not above all those
//! seen, may have been chained already: then the segments that were written since it was made are read, once.
//!
//! Headers of segments carry numbers alone. That keeps a row apart that was appended and never marked before the
//! segments went by; its id is read from its line.

use std::{
    collections::{HashSet, VecDeque},
    io,
    path::Path,
};

use memchr::memmem;

use super::{JournalError, io_error};
use crate::{
    audit::{
        check::{Checker, Row, remember},
        encode::{LineType, SegmentHeader},
        line::Line,
        reader::{Lines, Step, segment_path, segments},
    },
    domain::{DecisionId, Millis},
};

/// Ids remembered at most: two megabytes. Beyond them it is read again what is asked for.
const IDS_MAX: usize = 1 << 16;
/// How far the clock by which a change was made may be ahead of the one by which it was chained.
const CLOCK_SLACK_MS: i64 = 600_000;

/// Where a change stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::audit) enum Place {
    InChain,
    New,
    /// It may stand in a segment that was written after this time.
    Behind(Millis),
}

/// What is known of changes in the chain.
#[derive(Debug)]
pub(in crate::audit) struct Chained {
    /// Those chained last, oldest first, for the header of the next segment.
    rows: VecDeque<Row>,
    ids: HashSet<DecisionId, ahash::RandomState>,
    /// The largest number seen.
    highest: i64,
    /// Whatever was chained from this time on is among `ids`.
    since: Millis,
    /// The journal and the outbox are in one database, and are restored together: a number is never handed out again.
    one_database: bool,
}

impl Chained {
    /// Nothing was ever chained.
    pub(super) fn nothing() -> Self {
        Self {
            rows: VecDeque::new(),
            ids: HashSet::default(),
            highest: i64::MIN,
            since: Millis(i64::MIN),
            one_database: false,
        }
    }

    /// What a walk through the last segments saw.
    pub(super) fn seen(by: &Checker, one_database: bool) -> Self {
        let rows = by.outbox.clone();
        let ids = rows.iter().filter_map(|row| row.id).collect();
        let highest = rows.iter().map(|row| row.seq).max().unwrap_or(i64::MIN);
        Self { rows, ids, highest, since: by.outbox_since(), one_database }
    }

    /// Numbers for a segment's header.
    pub(super) fn numbers(&self) -> Vec<i64> {
        self.rows.iter().map(|row| row.seq).collect()
    }

    pub(in crate::audit) fn place(&self, seq: i64, id: DecisionId) -> Place {
        let numbered = || self.rows.iter().any(|row| row.seq == seq && row.id.is_none());
        if self.ids.contains(&id) || (self.one_database && numbered()) {
            return Place::InChain;
        }
        let made = id.made().unwrap_or(Millis(i64::MIN));
        let behind = Millis(made.0.saturating_sub(CLOCK_SLACK_MS));
        if behind >= self.since || (seq > self.highest && made >= self.since) {
            return Place::New;
        }
        Place::Behind(behind)
    }

    /// This row was chained just now.
    pub(super) fn add(&mut self, seq: i64, id: DecisionId) {
        if self.ids.len() >= IDS_MAX {
            self.ids = self.rows.iter().filter_map(|row| row.id).collect();
            self.since = Millis::now();
        }
        remember(&mut self.rows, Row { seq, id: Some(id) });
        self.ids.insert(id);
        self.highest = self.highest.max(seq);
    }

    /// What was read of the time since then.
    pub(in crate::audit) fn learn(&mut self, found: Vec<DecisionId>, since: Millis) {
        self.ids.extend(found);
        self.since = self.since.min(since);
    }
}

/// The changes from the outbox in all segments that were written to after this time. A line that was altered is none.
pub(in crate::audit) fn chained_since(dir: &Path, since: Millis) -> Result<Vec<DecisionId>, JournalError> {
    let mut found = Vec::new();
    let numbers = segments(dir).map_err(io_error("list", dir))?;
    for number in numbers.iter().rev() {
        let path = segment_path(dir, *number);
        let mut lines = match Lines::open(&path, 0) {
            Ok(lines) => lines,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let mut begun = None;
        while lines.step().map_err(io_error("read", &path))? == Step::Line {
            let bytes = lines.bytes();
            let head = bytes.get(..64).unwrap_or(bytes);
            if lines.number() == 1 {
                begun = Line::parse(bytes).ok().and_then(|line| line.visible_as::<SegmentHeader>().ok());
            } else if memmem::find(head, b"\"type\":\"change\"").is_some() {
                found.extend(from_outbox(bytes));
            }
        }
        // Those before it ended when it began.
        if *number == 1 || begun.is_some_and(|header| header.time <= since) {
            return Ok(found);
        }
    }
    // Where a journal is kept in the database, the folder never has all of it.
    tracing::debug!(dir = %dir.display(), %since, "segments of this time are not in the audit journal any more");
    Ok(found)
}

fn from_outbox(bytes: &[u8]) -> Option<DecisionId> {
    let line = Line::parse(bytes).ok().filter(|line| line.line_type == LineType::Change)?;
    let sound = line.computed_hash() == line.hash;
    line.outbox_seq().ok().flatten().filter(|_| sound)?;
    line.record_id().ok().flatten()
}
