//! The one rule of what may follow what in a journal; recovery and `verify` both apply it.
//!
//! It holds the expected place, the records that are open and the outbox rows seen last: nothing that grows with the
//! journal. After a fault it goes on from the line that it found, so that one act of tampering is told once or twice and
//! not for every line behind it.

use std::collections::{HashSet, VecDeque};

use super::{
    chain::{ChainHead, ChainId, Hash},
    encode::{FORMAT, LineType, RecoveryNote, SegmentHeader},
    line::{Line, NotALine},
};
use crate::domain::{DecisionId, Millis};

/// How many outbox rows the journal remembers: at least as many as may be claimed and not marked at once.
pub(super) const OUTBOX_REMEMBERED: usize = 256;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("altered: {0}")]
    Unreadable(#[from] NotALine),
    #[error("altered: its hash does not fit its content")]
    Altered,
    #[error("removed: records {from} to {to} are missing before it")]
    Missing { from: u64, to: u64 },
    #[error("inserted or moved: record {expected} is expected here")]
    Misplaced { expected: u64 },
    #[error("altered or exchanged: the record before it is not the one that it was chained to")]
    Unchained,
    #[error("the segment does not begin with its header")]
    NoHeader,
    #[error("a segment header stands within a segment")]
    StrayHeader,
    #[error("the segment header names {what} `{found}`, expected `{expected}`")]
    Header { what: &'static str, found: String, expected: String },
    #[error("it completes record {0}, which was never opened or is completed already")]
    NotOpen(DecisionId),
    #[error("it opens record {0} a second time")]
    OpenedTwice(DecisionId),
}

/// State of a walk along the chain.
#[derive(Debug)]
pub struct Checker {
    chain_id: ChainId,
    /// Expected `seq` and `prev`; `None` where the walk begins in the middle.
    expected: Option<(u64, Hash)>,
    pub(super) open: HashSet<DecisionId, ahash::RandomState>,
    pub(super) outbox: VecDeque<Row>,
    /// When the first segment of the walk was begun; of the first of all, before all time.
    since: Option<Millis>,
    /// A row whose line was seen is not among `outbox` any more.
    forgotten: bool,
    /// Place and time of the last header.
    pub(super) begun: Option<(u64, Millis)>,
    /// A fault was found: what follows from it is not told again.
    broken: bool,
}

impl Checker {
    /// A walk from the first line of a chain.
    pub fn from_genesis(chain_id: ChainId) -> Self {
        Self { expected: Some((1, Hash::GENESIS)), ..Self::from_any(chain_id) }
    }

    /// A walk from the first line of some segment, whose place is believed.
    pub fn from_any(chain_id: ChainId) -> Self {
        Self {
            chain_id,
            expected: None,
            open: HashSet::default(),
            outbox: VecDeque::new(),
            since: None,
            forgotten: false,
            begun: None,
            broken: false,
        }
    }

    /// From when on every row that was chained is in `outbox`, with its id.
    pub(super) fn outbox_since(&self) -> Millis {
        self.since.filter(|_| !self.forgotten).unwrap_or_else(Millis::now)
    }

    /// The last line seen.
    pub fn head(&self) -> ChainHead {
        let (next, hash) = self.expected.unwrap_or((1, Hash::GENESIS));
        ChainHead { seq: next.saturating_sub(1), hash }
    }

    /// Takes the next line. `first` says that it is the first of segment number `segment`.
    pub fn line(&mut self, bytes: &[u8], segment: u64, first: bool) -> (Option<u64>, Vec<Fault>) {
        let line = match Line::parse(bytes) {
            Ok(line) => line,
            Err(fault) => {
                self.broken = true;
                return (None, vec![fault.into()]);
            }
        };
        let mut faults = Vec::new();
        if line.computed_hash() != line.hash {
            faults.push(Fault::Altered);
        }
        self.place(&line, &mut faults);
        if faults.iter().any(|fault| matches!(fault, Fault::Misplaced { .. })) {
            // It does not belong here: neither the walk nor the open records go on from it.
            self.broken = true;
            return (Some(line.seq), faults);
        }
        self.broken |= !faults.is_empty();
        if first != (line.line_type == LineType::Segment) {
            faults.push(if first { Fault::NoHeader } else { Fault::StrayHeader });
        }
        if let Err(fault) = self.content(&line, segment, &mut faults) {
            faults.push(fault);
        }
        self.broken |= !faults.is_empty();
        self.expected = Some((line.seq.saturating_add(1), line.hash));
        (Some(line.seq), faults)
    }

    fn place(&self, line: &Line<'_>, faults: &mut Vec<Fault>) {
        let Some((seq, prev)) = self.expected else { return };
        if line.seq < seq {
            faults.push(Fault::Misplaced { expected: seq });
        } else if line.seq > seq {
            faults.push(Fault::Missing { from: seq, to: line.seq - 1 });
        } else if line.prev != prev {
            faults.push(Fault::Unchained);
        }
    }

    fn content(&mut self, line: &Line<'_>, segment: u64, faults: &mut Vec<Fault>) -> Result<(), Fault> {
        let id = line.record_id()?;
        match (line.line_type, id) {
            (LineType::Open, Some(id)) if !self.open.insert(id) && !self.broken => {
                faults.push(Fault::OpenedTwice(id));
            }
            (LineType::Complete, Some(id)) if !self.open.remove(&id) && !self.broken => {
                faults.push(Fault::NotOpen(id));
            }
            (LineType::Change, _) => {
                if let Some(seq) = line.outbox_seq()? {
                    let forgotten = remember(&mut self.outbox, Row { seq, id });
                    self.forgotten |= forgotten.is_some_and(|row| row.id.is_some());
                }
            }
            (LineType::Segment, _) => {
                let header: SegmentHeader = line.visible_as()?;
                self.begun = Some((line.seq, header.time));
                self.header(&header, segment, faults);
            }
            (LineType::Recovery, _) => {
                line.visible_as::<RecoveryNote>()?;
            }
            _ => {}
        }
        Ok(())
    }

    fn header(&mut self, header: &SegmentHeader, segment: u64, faults: &mut Vec<Fault>) {
        let mut differs = |what, found: String, expected: String| {
            if found != expected {
                faults.push(Fault::Header { what, found, expected });
            }
        };
        differs("chain", header.chain_id.to_string(), self.chain_id.to_string());
        differs("segment", header.segment.to_string(), segment.to_string());
        differs("format", header.format.to_string(), FORMAT.to_string());
        let open: HashSet<DecisionId, ahash::RandomState> = header.open.iter().copied().collect();
        if self.expected.is_some() && !self.broken && open != self.open {
            differs("open records", open.len().to_string(), format!("{} (others)", self.open.len()));
        }
        self.open = open;
        self.since.get_or_insert(if segment == 1 { Millis(i64::MIN) } else { header.time });
        // It names the rows that were seen last, and those from before the walk.
        let mut seen = std::mem::take(&mut self.outbox).into_iter().rev();
        for seq in header.outbox.iter().rev() {
            let id = seen.next().filter(|row| row.seq == *seq).and_then(|row| row.id);
            self.outbox.push_front(Row { seq: *seq, id });
        }
    }
}

/// A row of the outbox that was chained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) seq: i64,
    /// Of the change; `None`: only a header told of it.
    pub(super) id: Option<DecisionId>,
}

/// Appends to the rows remembered; gives the one that went for it.
pub(super) fn remember(outbox: &mut VecDeque<Row>, row: Row) -> Option<Row> {
    let oldest = if outbox.len() >= OUTBOX_REMEMBERED { outbox.pop_front() } else { None };
    outbox.push_back(row);
    oldest
}
