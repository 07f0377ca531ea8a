//! Joined records straight from the journal: `audit export`, and queries while the database is away.
//!
//! Streams; holds only the records that are open at that point of the journal. Takes no lock and may run beside a
//! server. Records come in the order in which they were completed, those still open last. A line whose hash does not fit
//! ends the walk with an error: an export never passes on what was tampered with.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    path::Path,
};

use serde::Serialize;

use super::{
    chain::ChainId,
    entry::Entry,
    gather::{MOST_BYTES, TooMuch, held},
    joined::{Record, RecordFilter},
    journal::{JournalError, io_error},
    line::Line,
    reader::{Lines, Step, chain_file, extent, segment_path, segments},
};
use crate::domain::DecisionId;

/// Records waiting for their completion; beyond it (only in a journal that was tampered with) the rest is given as open.
const JOINS_MAX: usize = 1 << 18;

/// What an export saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    pub records: u64,
    /// Completions of records that were opened before the first segment read.
    pub strays: u64,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot write a record")]
    Output(#[source] io::Error),
    /// What is asked for is more than may be held.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}

struct Join<'f, F> {
    filter: &'f RecordFilter,
    emit: F,
    open: HashMap<DecisionId, Record, ahash::RandomState>,
    skip: usize,
    left: usize,
    seen: Exported,
}

/// Gives every record that the filter matches to `emit`, oldest first, `offset` and `limit` applied.
pub fn export(
    dir: &Path,
    from_segment: Option<u64>,
    filter: &RecordFilter,
    emit: impl FnMut(Record) -> io::Result<()>,
) -> Result<Exported, ScanError> {
    let chain_id = chain_of(dir)?;
    let mut join = Join {
        filter,
        emit,
        open: HashMap::default(),
        skip: filter.offset,
        left: filter.limit.unwrap_or(usize::MAX),
        seen: Exported::default(),
    };
    // As far as the journal goes now: beside a busy server a walk to the end might never end.
    let end = extent(dir).map_err(io_error("list", dir))?.unwrap_or_default();
    for number in segments(dir).map_err(io_error("list", dir))? {
        if join.left == 0 {
            return Ok(join.seen);
        }
        if number >= from_segment.unwrap_or(0) && number <= end.0 {
            walk(dir, number, end, chain_id, &mut join)?;
        }
    }
    let mut rest: Vec<Record> = join.open.drain().map(|(_, record)| record).collect();
    rest.sort_unstable_by_key(|record| record.opening.seq);
    rest.into_iter().try_for_each(|record| join.give(record))?;
    Ok(join.seen)
}

/// The newest records that match, newest first: what an index answers, from the journal alone. Which records are skipped
/// is known at the end only: then the numbers of the others are found first, and they themselves by a second walk.
pub fn newest(dir: &Path, filter: &RecordFilter, at_most: usize) -> Result<Vec<Record>, ScanError> {
    let wanted = filter.limit.unwrap_or(at_most).min(at_most);
    let all = RecordFilter { limit: None, offset: 0, ..filter.clone() };
    let at_once = if filter.offset == 0 { last(dir, &all, wanted, Some)? } else { None };
    let found = match at_once {
        Some(found) => Some(found),
        None => {
            let numbers = last(dir, &all, wanted.saturating_add(filter.offset), |record| Some(record.opening.seq))?;
            let mut numbers = numbers.ok_or(TooMuch(MOST_BYTES))?;
            numbers.sort_unstable_by_key(|seq| std::cmp::Reverse(*seq));
            let shown: HashSet<u64, ahash::RandomState> = numbers.into_iter().skip(filter.offset).collect();
            last(dir, &all, shown.len(), |record| shown.contains(&record.opening.seq).then_some(record))?
        }
    };
    let mut found = found.ok_or(TooMuch(MOST_BYTES))?;
    found.sort_by_key(|record| std::cmp::Reverse(record.opening.seq));
    Ok(found)
}

/// What is kept of the last records of the journal that match; `None`: more than may be held.
fn last<T: Serialize>(
    dir: &Path,
    filter: &RecordFilter,
    most: usize,
    keep: impl Fn(Record) -> Option<T>,
) -> Result<Option<Vec<T>>, ScanError> {
    let mut found: VecDeque<(usize, T)> = VecDeque::new();
    let (mut bytes, mut full) = (0_usize, false);
    let done = export(dir, None, filter, |record| {
        let Some(kept) = keep(record).filter(|_| most > 0) else { return Ok(()) };
        if found.len() >= most {
            bytes -= found.pop_front().map_or(0, |(size, _)| size);
        }
        let size = held(&kept);
        bytes = bytes.saturating_add(size);
        found.push_back((size, kept));
        full = bytes > MOST_BYTES;
        if full { Err(io::Error::other("more than may be held")) } else { Ok(()) }
    });
    match done {
        Err(ScanError::Output(_)) if full => Ok(None),
        done => done.map(|_| Some(found.into_iter().map(|(_, kept)| kept).collect())),
    }
}

fn chain_of(dir: &Path) -> Result<ChainId, JournalError> {
    chain_file(dir)
        .and_then(|found| found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no chain.json")))
        .map(|found| found.chain_id)
        .map_err(io_error("read the audit journal in", dir))
}

fn walk<F: FnMut(Record) -> io::Result<()>>(
    dir: &Path,
    number: u64,
    end: (u64, u64),
    chain_id: ChainId,
    join: &mut Join<'_, F>,
) -> Result<(), ScanError> {
    let path = segment_path(dir, number);
    let mut lines = match Lines::open(&path, 0) {
        Ok(lines) => lines,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("read", &path)(error).into()),
    };
    while join.left > 0
        && (number, lines.next_offset()) < end
        && lines.step().map_err(io_error("read", &path))? == Step::Line
    {
        let entry = checked_entry(lines.bytes(), chain_id).map_err(|fault| JournalError::Broken {
            file: path.clone(),
            line: lines.number(),
            fault,
        })?;
        match entry {
            Some(Entry::Record(record)) if record.is_whole() => join.give(*record)?,
            Some(Entry::Record(record)) => join.wait_for_completion(*record)?,
            Some(Entry::Completed(completed)) => match join.open.remove(&completed.id) {
                Some(mut record) => {
                    record.complete(completed);
                    join.give(record)?;
                }
                None => join.seen.strays += 1,
            },
            None => {}
        }
    }
    Ok(())
}

/// The line's content, if its hash fits.
pub(super) fn checked_entry(bytes: &[u8], chain_id: ChainId) -> Result<Option<Entry>, super::check::Fault> {
    let line = Line::parse(bytes)?;
    if line.computed_hash() != line.hash {
        return Err(super::check::Fault::Altered);
    }
    Ok(line.entry(chain_id)?)
}

impl<F: FnMut(Record) -> io::Result<()>> Join<'_, F> {
    fn wait_for_completion(&mut self, record: Record) -> Result<(), ScanError> {
        if self.open.len() >= JOINS_MAX {
            return self.give(record);
        }
        self.open.insert(record.id, record);
        Ok(())
    }

    fn give(&mut self, record: Record) -> Result<(), ScanError> {
        if self.left == 0 || !self.filter.matches(&record) {
            return Ok(());
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(());
        }
        self.left -= 1;
        self.seen.records += 1;
        (self.emit)(record).map_err(ScanError::Output)
    }
}
