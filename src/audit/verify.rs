//! `linkgate audit verify`: walks the chain and finds what was altered, removed, inserted, moved or cut off.
//!
//! Streams with constant memory (one line, and the records open at that point), and may run beside a server: an incomplete
//! last line of the last segment is then being written. Whether one runs is told by its lock, looked at for a moment and
//! only where the last line is incomplete; without a server such a line was cut off. The walk goes as far as the journal
//! went when it began. A tail that was cut off at a line's end leaves a perfect chain, and so does a journal that was
//! written anew from some record on; only the head that the database saw, or a checkpoint kept elsewhere
//! (`evidence::witness`), shows it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    chain::{ChainHead, ChainId},
    check::{Checker, Fault},
    evidence::{
        checkpoint::CheckpointError,
        witness::{Mismatch, ToldPruning, VerifiedFrom, Witness},
    },
    journal::{JournalError, Writers, io_error, writers},
    line::Line,
    reader::{Lines, Step, chain_file, extent, segment_path, segments},
};

/// Findings kept; further ones are counted.
const FINDINGS_KEPT: usize = 1000;

/// What to verify.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Begin at this segment and believe its header; `None`: from the first record on.
    pub from_segment: Option<u64>,
    /// The head that the database saw last, read *before* the walk begins.
    pub stored_head: Option<ChainHead>,
}

/// What is wrong, beside the faults of single lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Line(#[from] Fault),
    #[error("cut off: its last line is incomplete, though a later segment follows")]
    TornLine,
    #[error(
        "cut off: its last line is incomplete, and no server runs that would be writing it; after a crash the next start of \
         the server puts it aside (`cut-*` beside the journal) and records that; else keep a copy of the journal first, \
         and find out who cut it"
    )]
    TornTail,
    #[error("removed: the segment is missing")]
    SegmentMissing,
    #[error("removed: earlier segments are missing; if they were archived, verify with `--from-segment {0}`")]
    StartMissing(u64),
    #[error("cut off: the database has seen record {stored}, the journal ends at {found}")]
    CutOff { stored: u64, found: u64 },
    #[error("altered: the database has seen this record with hash {0}")]
    Diverged(super::chain::Hash),
    #[error(
        "removed: segments before it are missing, and no record says that they were pruned: find out who removed them, \
         and bring them back from a backup"
    )]
    Unrecorded,
    #[error(
        "rewritten: the checkpoint of {time} ({source_name}) was signed over other records; the first that differs lies \
         between {} and this one: compare them with a backup", .good + 1
    )]
    Rewritten { good: u64, time: crate::domain::Millis, source_name: String },
    #[error(
        "cut off: the checkpoint of {time} ({source_name}) covers record {signed}, the journal ends at {found}: if this is \
         no older copy of the journal, records are lost; bring them back from a backup"
    )]
    Shorter { signed: u64, found: u64, time: crate::domain::Millis, source_name: String },
    #[error(
        "the checkpoint in {source_name} is of chain {chain}, the journal of another one: is it the right journal?"
    )]
    OtherChain { chain: ChainId, source_name: String },
    #[error("the checkpoint in {source_name} cannot be relied on: {why}")]
    Unreliable { source_name: String, why: CheckpointError },
}

impl Problem {
    fn of(mismatch: Mismatch, found: u64) -> Self {
        match mismatch {
            Mismatch::Rewritten { good, time, source: source_name } => Self::Rewritten { good, time, source_name },
            Mismatch::CutOff { signed, time, source: source_name } => {
                Self::Shorter { signed, found, time, source_name }
            }
            Mismatch::OtherChain { chain, source: source_name } => Self::OtherChain { chain, source_name },
            Mismatch::Forged { source: source_name, why } => Self::Unreliable { source_name, why },
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "JournalFinding")]
pub struct Finding {
    pub file: PathBuf,
    /// Counted from 1; 0 where no line can be named.
    pub line: u64,
    pub seq: Option<u64>,
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub what: Problem,
}

fn as_text<S: serde::Serializer>(what: &Problem, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(what)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if let Some(seq) = self.seq {
            write!(f, ": record {seq}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Outcome of a walk.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "JournalVerification")]
pub struct Verification {
    #[schemars(with = "String")]
    pub chain_id: ChainId,
    pub segments: u64,
    pub lines: u64,
    /// The last line.
    pub head: ChainHead,
    /// Records opened and not completed at the end.
    pub open_records: usize,
    /// The last line was being written, by a server that runs.
    pub being_written: bool,
    /// The database's head was compared.
    pub compared: bool,
    /// Checkpoints that were compared and hold.
    pub checkpoints: usize,
    /// Checkpoints of keys that were not given.
    pub unknown_checkpoints: usize,
    /// The signed checkpoint from which on a journal without its beginning was verified.
    pub from_checkpoint: Option<VerifiedFrom>,
    /// Why it begins there, as the chain says itself.
    pub pruned: Option<ToldPruning>,
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more_findings: u64,
}

impl Verification {
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

struct Walk<'a> {
    dir: &'a Path,
    /// Last segment and its length when the walk began.
    end: (u64, u64),
    checker: Checker,
    stored: Option<ChainHead>,
    witness: Option<&'a mut Witness>,
    /// Segments before this one are gone, and a checkpoint vouches for the rest: a record must tell of it.
    pruned: Option<u64>,
    result: Verification,
}

/// Verifies the journal in `dir`. An error means that it could not be read; what is wrong with it is in the result.
pub fn verify(dir: &Path, options: VerifyOptions) -> Result<Verification, JournalError> {
    verify_against(dir, options, None)
}

/// The same, with checkpoints that were read before.
pub fn verify_against(
    dir: &Path,
    options: VerifyOptions,
    mut witness: Option<&mut Witness>,
) -> Result<Verification, JournalError> {
    let chain_id = chain_file(dir)
        .and_then(|found| found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no chain.json")))
        .map_err(io_error("read the audit journal in", dir))?
        .chain_id;
    let start = options.from_segment.unwrap_or(1);
    let checker = if start == 1 { Checker::from_genesis(chain_id) } else { Checker::from_any(chain_id) };
    let result = Verification {
        chain_id,
        segments: 0,
        lines: 0,
        head: checker.head(),
        open_records: 0,
        being_written: false,
        compared: false,
        checkpoints: 0,
        unknown_checkpoints: 0,
        from_checkpoint: None,
        pruned: None,
        findings: Vec::new(),
        more_findings: 0,
    };
    let end = extent(dir).map_err(io_error("list", dir))?.unwrap_or_default();
    let early = witness.as_mut().map(|witness| witness.settle()).unwrap_or_default();
    let mut walk = Walk { dir, end, checker, stored: options.stored_head, witness, pruned: None, result };
    for mismatch in early {
        walk.finding(start, 0, None, Problem::of(mismatch, 0));
    }
    let mut next = start;
    while let Some(number) = following(dir, next)?.filter(|number| *number <= end.0) {
        if number > next {
            walk.gap(next, number, start);
        }
        walk.segment(number)?;
        next = number + 1;
    }
    walk.finish(next.saturating_sub(1));
    Ok(walk.result)
}

/// The first segment from `number` on.
fn following(dir: &Path, number: u64) -> Result<Option<u64>, JournalError> {
    let numbers = segments(dir).map_err(io_error("list", dir))?;
    Ok(numbers.into_iter().find(|found| *found >= number))
}

impl Walk<'_> {
    fn gap(&mut self, expected: u64, found: u64, start: u64) {
        let whole_start = expected == start;
        if whole_start && start == 1 && self.vouched(found) {
            self.pruned = Some(found - 1);
            self.checker = Checker::from_any(self.result.chain_id);
            return;
        }
        let what = if whole_start { Problem::StartMissing(found) } else { Problem::SegmentMissing };
        self.finding(expected, 0, None, what);
        if whole_start {
            // The rest is still worth a look: its first header is believed.
            self.checker = Checker::from_any(self.result.chain_id);
        }
    }

    /// Whether a signed checkpoint ends where this segment begins.
    fn vouched(&self, number: u64) -> bool {
        let Some(witness) = &self.witness else { return false };
        let Ok(mut lines) = Lines::open(&segment_path(self.dir, number), 0) else { return false };
        lines.step().is_ok_and(|step| step == Step::Line)
            && Line::parse(lines.bytes()).is_ok_and(|line| witness.vouches_for(&line))
    }

    fn segment(&mut self, number: u64) -> Result<(), JournalError> {
        let path = segment_path(self.dir, number);
        let mut lines = match Lines::open(&path, 0) {
            Ok(lines) => lines,
            // A segment that was begun and withdrawn between listing and opening.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        self.result.segments += 1;
        loop {
            if (number, lines.next_offset()) >= self.end {
                return Ok(());
            }
            let mut step = lines.step().map_err(io_error("read", &path))?;
            if step != Step::Line {
                let sealed = following(self.dir, number + 1)?.is_some();
                // What was written between the end that was seen and the next segment is there now.
                step = lines.step().map_err(io_error("read", &path))?;
                if step != Step::Line {
                    match (step, sealed) {
                        (Step::Incomplete, true) => {
                            self.finding(number, lines.number() + 1, None, Problem::TornLine);
                        }
                        (Step::Incomplete, false) => match writers(self.dir)? {
                            Writers::Server => self.result.being_written = true,
                            // What it wrote before it ended is there now.
                            Writers::Nobody(_held) => step = lines.step().map_err(io_error("read", &path))?,
                        },
                        _ => {}
                    }
                    if step == Step::Incomplete && !sealed && !self.result.being_written {
                        self.finding(number, lines.number() + 1, None, Problem::TornTail);
                    }
                    if step != Step::Line {
                        return Ok(());
                    }
                }
            }
            self.result.lines += 1;
            let (seq, faults) = self.checker.line(lines.bytes(), number, lines.number() == 1);
            let faulty = !faults.is_empty();
            for fault in faults {
                self.finding(number, lines.number(), seq, fault.into());
            }
            let mismatch = self.witness.as_mut().and_then(|witness| witness.line(lines.bytes(), faulty));
            if let Some(mismatch) = mismatch {
                self.finding(number, lines.number(), seq, Problem::of(mismatch, 0));
            }
            self.compare(number, &lines, seq);
        }
    }

    /// The database's head, when the walk comes by.
    fn compare(&mut self, number: u64, lines: &Lines, seq: Option<u64>) {
        let Some(stored) = self.stored.filter(|stored| Some(stored.seq) == seq) else { return };
        self.result.compared = true;
        if Line::parse(lines.bytes()).is_ok_and(|line| line.hash != stored.hash) {
            self.finding(number, lines.number(), seq, Problem::Diverged(stored.hash));
        }
    }

    fn finish(&mut self, last_segment: u64) {
        self.result.head = self.checker.head();
        self.result.open_records = self.checker.open.len();
        let found = self.result.head.seq;
        if let Some(stored) = self.stored.filter(|stored| stored.seq > found) {
            self.result.compared = true;
            self.finding(last_segment.max(1), 0, None, Problem::CutOff { stored: stored.seq, found });
        }
        let Some(witness) = self.witness.take() else { return };
        let told = self.pruned.and_then(|pruned| witness.tells_of_pruning(pruned)).cloned();
        let unrecorded = self.pruned.filter(|_| told.is_none());
        self.result.pruned = told;
        let shorter = witness.finish();
        self.result.checkpoints = witness.held;
        self.result.unknown_checkpoints = witness.unknown;
        self.result.from_checkpoint = witness.from.clone();
        if let Some(pruned) = unrecorded {
            self.finding(pruned + 1, 1, None, Problem::Unrecorded);
        }
        if let Some(mismatch) = shorter {
            self.finding(last_segment.max(1), 0, None, Problem::of(mismatch, found));
        }
    }

    fn finding(&mut self, segment: u64, line: u64, seq: Option<u64>, what: Problem) {
        if self.result.findings.len() >= FINDINGS_KEPT {
            self.result.more_findings += 1;
            return;
        }
        self.result.findings.push(Finding { file: segment_path(self.dir, segment), line, seq, what });
    }
}
