//! Which old segments may go, so that the rest can still be verified and nothing is lost that is still needed.
//!
//! A segment may go if all of it was written before the day that was named, if a signed checkpoint ends with it (from there
//! on the rest is verified by itself), if the index has seen it, and if no record that was opened in it is still open.
//! What goes is checked once more as a whole: a journal that was touched is evidence, and stays. The pruning itself is a record
//! of the chain (`audit.prune`); `audit verify` asks for it where the beginning is missing.
//!
//! The rules look at files. Of a journal that is kept in the database the oldest segments are written out for them
//! ([`Folder::beyond`]).

use std::{collections::HashSet, path::Path};

use serde::Serialize;

use super::{
    note::Keys,
    witness::{PRUNE_ACTION, Witness},
};
use crate::{
    audit::{
        chain::ChainId,
        encode::{LineType, SegmentHeader},
        journal::{JournalError, io_error},
        line::Line,
        reader::{Lines, Step, segment_path, segments},
        record::{ChangeRecord, Kind},
        ship::{ShipSettings, Unshipped, unshipped},
        traits::IndexUnavailable,
        verify::{VerifyOptions, verify_against},
    },
    domain::{DecisionId, Millis},
};

/// What a pruning would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub chain_id: ChainId,
    /// First and last segment that go.
    pub segments: (u64, u64),
    /// First and last line that go.
    pub records: (u64, u64),
    pub bytes: u64,
    /// When the last of them was closed.
    pub closed: Millis,
    /// Targets that do not have all of them, and never get them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unshipped: Vec<Unshipped>,
}

/// What to do about a target that is behind.
const NEVER_SHIPPED: &str =
    "let the server ship them first, take the target out of the configuration, or give them up with `--unshipped`";

/// Why nothing may go.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Index(#[from] IndexUnavailable),
    #[error("no whole segment was written before {0}: there is nothing to prune")]
    Nothing(Millis),
    #[error(
        "no signed checkpoint ends with segment {0}: without one the rest could not be verified by itself; set \
         `audit.checkpoint_key_file`, and let the server sign"
    )]
    NoCheckpoint(u64),
    #[error("the audit index has seen segments up to {seen} only: let the server index segment {wanted} first")]
    NotIndexed { seen: u64, wanted: u64 },
    #[error("record {0} was opened in a segment that would go, and is still open: wait until it is completed")]
    StillOpen(DecisionId),
    #[error(
        "the target `{target}` of [audit.ship] has records up to {taken} only, and {wanted} would go: {NEVER_SHIPPED}"
    )]
    NotShipped { target: &'static str, taken: u64, wanted: u64 },
    #[error("the journal is not as it was written, and what was touched is evidence: `linkgate audit verify` ({0})")]
    Unsound(String),
}

/// What is looked at.
#[derive(Clone, Copy)]
pub struct Folder<'a> {
    pub dir: &'a Path,
    pub chain_id: ChainId,
    /// The segment up to which the index came.
    pub indexed: Option<u64>,
    pub keys: &'a Keys,
    /// Only the oldest segments lie there: who knows of the others.
    pub beyond: Option<&'a dyn Beyond>,
}

/// What is known of the journal beyond the segments that are looked at.
pub trait Beyond {
    /// One of these records that is not completed.
    fn still_open(&self, records: &HashSet<DecisionId>) -> Result<Option<DecisionId>, IndexUnavailable>;
}

/// The first line of a segment.
struct Start {
    seq: u64,
    header: SegmentHeader,
    vouched: bool,
}

fn start(dir: &Path, number: u64, witness: &Witness) -> Result<Start, JournalError> {
    let path = segment_path(dir, number);
    let mut lines = Lines::open(&path, 0).map_err(io_error("read", &path))?;
    lines.step().map_err(io_error("read", &path))?;
    let broken =
        |fault: crate::audit::line::NotALine| JournalError::Broken { file: path.clone(), line: 1, fault: fault.into() };
    let line = Line::parse(lines.bytes()).map_err(broken)?;
    let header: SegmentHeader = line.visible_as().map_err(broken)?;
    Ok(Start { seq: line.seq, header, vouched: witness.vouches_for(&line) })
}

/// A segment that was closed, and the one behind it.
struct Closed {
    number: u64,
    following: Start,
}

/// Segments that were closed before this time, oldest first, without a gap.
fn closed_before(dir: &Path, numbers: &[u64], before: Millis, witness: &Witness) -> Result<Vec<Closed>, JournalError> {
    let mut closed = Vec::new();
    for pair in numbers.windows(2) {
        let [number, next] = *pair else { continue };
        let following = start(dir, next, witness)?;
        if next != number + 1 || following.header.time >= before {
            break;
        }
        closed.push(Closed { number, following });
    }
    Ok(closed)
}

/// When the oldest segment was closed; `None` while there is but one.
pub fn first_closed(dir: &Path) -> Result<Option<Millis>, JournalError> {
    let numbers = segments(dir).map_err(io_error("list", dir))?;
    let Some(second) = numbers.get(1) else { return Ok(None) };
    let chain_id = ChainId(uuid::Uuid::nil());
    Ok(Some(start(dir, *second, &Witness::new(chain_id))?.header.time))
}

/// Whether all up to this segment may go.
fn may_go(folder: Folder<'_>, numbers: &[u64], last: &Closed) -> Result<(), PruneError> {
    let number = last.number;
    if !last.following.vouched {
        return Err(PruneError::NoCheckpoint(number));
    }
    let seen = folder.indexed.unwrap_or_default();
    if seen <= number {
        return Err(PruneError::NotIndexed { seen, wanted: number });
    }
    let mut open: HashSet<DecisionId> = last.following.header.open.iter().copied().collect();
    completed_behind(folder.dir, numbers, number, &mut open)?;
    let still = match folder.beyond {
        Some(beyond) if !open.is_empty() => beyond.still_open(&open)?,
        _ => open.into_iter().min(),
    };
    still.map_or(Ok(()), |open| Err(PruneError::StillOpen(open)))
}

/// What may go of all that was closed before `before`: all of it, or nothing. `indexed`: the segment up to which the index
/// came.
pub fn plan(
    dir: &Path,
    chain_id: ChainId,
    before: Millis,
    indexed: Option<u64>,
    keys: &Keys,
) -> Result<Plan, PruneError> {
    let folder = Folder { dir, chain_id, indexed, keys, beyond: None };
    let (mut witness, numbers) = look_around(folder)?;
    let last = closed_before(dir, &numbers, before, &witness)?.pop().ok_or(PruneError::Nothing(before))?;
    may_go(folder, &numbers, &last)?;
    plan_of(folder, &numbers, &last, &mut witness)
}

/// What may go just now, and what holds up the rest.
#[derive(Debug, Default)]
pub struct Furthest {
    pub plan: Option<Plan>,
    /// Why the last segment that is old enough stays.
    pub held: Option<PruneError>,
    /// There are more segments than were looked at.
    pub more: bool,
}

/// The same as far as it goes: where something stands in the way of a segment, those before it. What a target of `ship` does
/// not have stays.
pub fn furthest(folder: Folder<'_>, before: Millis, ship: &ShipSettings) -> Result<Furthest, PruneError> {
    let (mut witness, numbers) = look_around(folder)?;
    let mut held = None;
    for last in closed_before(folder.dir, &numbers, before, &witness)?.iter().rev() {
        let wanted = last.following.seq.saturating_sub(1);
        let free = may_go(folder, &numbers, last).and_then(|()| shipped(folder.dir, folder.chain_id, ship, wanted));
        match free {
            Ok(()) => {
                let plan = plan_of(folder, &numbers, last, &mut witness)?;
                return Ok(Furthest { plan: Some(plan), held, more: false });
            }
            Err(error @ (PruneError::Journal(_) | PruneError::Index(_))) => return Err(error),
            Err(error) => held = held.or(Some(error)),
        }
    }
    Ok(Furthest { plan: None, held, more: false })
}

/// Fails while a target does not have all up to `wanted`.
fn shipped(dir: &Path, chain_id: ChainId, ship: &ShipSettings, wanted: u64) -> Result<(), PruneError> {
    let behind = unshipped(dir, chain_id, ship, wanted).map_err(io_error("read the positions in", dir))?;
    match behind.first() {
        Some(Unshipped { target, taken }) => Err(PruneError::NotShipped { target, taken: *taken, wanted }),
        None => Ok(()),
    }
}

fn look_around(Folder { dir, chain_id, keys, .. }: Folder<'_>) -> Result<(Witness, Vec<u64>), PruneError> {
    let mut witness = Witness::new(chain_id);
    witness.recall_shelf(dir, keys).map_err(io_error("read the checkpoints in", dir))?;
    let numbers = segments(dir).map_err(io_error("list", dir))?;
    Ok((witness, numbers))
}

/// What goes is checked once more, with all the rest that lies there.
fn plan_of(
    Folder { dir, chain_id, beyond, .. }: Folder<'_>,
    numbers: &[u64],
    last: &Closed,
    witness: &mut Witness,
) -> Result<Plan, PruneError> {
    let first = numbers.first().copied().unwrap_or(last.number);
    // The record of the pruning before stands where it is not looked at.
    let options = VerifyOptions { from_segment: beyond.map(|_| first), ..VerifyOptions::default() };
    let checked = verify_against(dir, options, Some(witness))?;
    if let Some(finding) = checked.findings.first() {
        return Err(PruneError::Unsound(finding.to_string()));
    }
    let mut bytes = 0;
    for number in first..=last.number {
        let path = segment_path(dir, number);
        bytes += std::fs::metadata(&path).map_err(io_error("read", &path))?.len();
    }
    let begin = start(dir, first, witness)?.seq;
    Ok(Plan {
        chain_id,
        segments: (first, last.number),
        records: (begin, last.following.seq.saturating_sub(1)),
        bytes,
        closed: last.following.header.time,
        unshipped: Vec::new(),
    })
}

/// Takes out of `open` what is completed behind the segment `last`.
fn completed_behind(
    dir: &Path,
    numbers: &[u64],
    last: u64,
    open: &mut HashSet<DecisionId>,
) -> Result<(), JournalError> {
    for number in numbers.iter().filter(|number| **number > last) {
        let path = segment_path(dir, *number);
        let mut lines = Lines::open(&path, 0).map_err(io_error("read", &path))?;
        while !open.is_empty() && lines.step().map_err(io_error("read", &path))? == Step::Line {
            let id = Line::parse(lines.bytes()).ok().filter(|line| line.line_type == LineType::Complete);
            if let Some(id) = id.and_then(|line| line.record_id().ok().flatten()) {
                open.remove(&id);
            }
        }
    }
    Ok(())
}

impl Plan {
    /// Refused while a configured target does not have all that would go. `force`: it is noted in the record instead.
    pub fn held_for(mut self, dir: &Path, ship: &ShipSettings, force: bool) -> Result<Self, PruneError> {
        let wanted = self.records.1;
        if !force {
            shipped(dir, self.chain_id, ship, wanted)?;
        }
        self.unshipped = unshipped(dir, self.chain_id, ship, wanted).map_err(io_error("read the positions in", dir))?;
        Ok(self)
    }

    /// The record of it; who does it is for the caller to say.
    pub fn record(&self) -> ChangeRecord {
        ChangeRecord {
            resource_type: Some("audit_segment".to_owned()),
            resource_id: Some(self.segments.1.to_string()),
            before: serde_json::to_value(self).ok(),
            ..ChangeRecord::new(Kind::Admin, PRUNE_ACTION)
        }
    }

    /// Removes the files, oldest first: whatever stops it half-way, what is left is a whole end of the journal.
    pub fn remove(&self, dir: &Path) -> Result<(), JournalError> {
        for number in self.segments.0..=self.segments.1 {
            let path = segment_path(dir, number);
            std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
    }
}
