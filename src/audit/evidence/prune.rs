//! Which old segments may go, so that the rest can still be verified and nothing is lost that is still needed.
//!
//! A segment may go if all of it was written before the day that was named, if a signed checkpoint ends with it (from there
//! on the rest is verified by itself), if the index has seen it, and if no record that was opened in it is still open.
//! What goes is checked once more as a whole: a journal that was touched is evidence, and stays. The pruning itself is a record
//! of the chain (`audit.prune`); `audit verify` asks for it where the beginning is missing.

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

/// What may go of all that was closed before `before`. `indexed`: the segment up to which the index came.
pub fn plan(
    dir: &Path,
    chain_id: ChainId,
    before: Millis,
    indexed: Option<u64>,
    keys: &Keys,
) -> Result<Plan, PruneError> {
    let mut witness = Witness::new(chain_id);
    witness.recall_shelf(dir, keys).map_err(io_error("read the checkpoints in", dir))?;
    let numbers = segments(dir).map_err(io_error("list", dir))?;
    let mut last: Option<(u64, Start)> = None;
    for pair in numbers.windows(2) {
        let [number, next] = *pair else { continue };
        let following = start(dir, next, &witness)?;
        if next != number + 1 || following.header.time >= before {
            break;
        }
        last = Some((number, following));
    }
    let (Some(first), Some((last, following))) = (numbers.first().copied(), last) else {
        return Err(PruneError::Nothing(before));
    };
    if !following.vouched {
        return Err(PruneError::NoCheckpoint(last));
    }
    let seen = indexed.unwrap_or_default();
    if seen <= last {
        return Err(PruneError::NotIndexed { seen, wanted: last });
    }
    if let Some(open) = still_open(dir, &numbers, last, &following.header)? {
        return Err(PruneError::StillOpen(open));
    }
    let checked = verify_against(dir, VerifyOptions::default(), Some(&mut witness))?;
    if let Some(finding) = checked.findings.first() {
        return Err(PruneError::Unsound(finding.to_string()));
    }
    let mut bytes = 0;
    for number in first..=last {
        let path = segment_path(dir, number);
        bytes += std::fs::metadata(&path).map_err(io_error("read", &path))?.len();
    }
    let begin = start(dir, first, &witness)?.seq;
    Ok(Plan {
        chain_id,
        segments: (first, last),
        records: (begin, following.seq.saturating_sub(1)),
        bytes,
        closed: following.header.time,
        unshipped: Vec::new(),
    })
}

/// A record opened up to the segment `last` that is not completed behind it.
fn still_open(
    dir: &Path,
    numbers: &[u64],
    last: u64,
    header: &SegmentHeader,
) -> Result<Option<DecisionId>, JournalError> {
    let mut open: HashSet<DecisionId> = header.open.iter().copied().collect();
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
    Ok(open.into_iter().min())
}

impl Plan {
    /// Refused while a configured target does not have all that would go. `force`: it is noted in the record instead.
    pub fn held_for(mut self, dir: &Path, ship: &ShipSettings, force: bool) -> Result<Self, PruneError> {
        let wanted = self.records.1;
        let behind = unshipped(dir, self.chain_id, ship, wanted).map_err(io_error("read the positions in", dir))?;
        match behind.first() {
            Some(Unshipped { target, taken }) if !force => {
                Err(PruneError::NotShipped { target, taken: *taken, wanted })
            }
            _ => {
                self.unshipped = behind;
                Ok(self)
            }
        }
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
