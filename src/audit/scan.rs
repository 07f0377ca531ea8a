//! Joined records straight from the journal: `audit export`, and queries while the database is away.
//!
//! Streams; holds only the records that are open at that point of the journal. Takes no lock and may run beside a
//! server. Records come in the order in which they were completed, those still open last. A line whose hash does not fit
//! ends the walk with an error: an export never passes on what was tampered with.

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::Path,
};

use super::{
    chain::ChainId,
    entry::Entry,
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

/// The newest records that match, newest first: what an index answers, from the journal alone.
pub fn newest(dir: &Path, filter: &RecordFilter, at_most: usize) -> Result<Vec<Record>, ScanError> {
    let wanted = filter.limit.unwrap_or(at_most).min(at_most);
    let kept = wanted.saturating_add(filter.offset);
    let mut found: VecDeque<Record> = VecDeque::new();
    let all = RecordFilter { limit: None, offset: 0, ..filter.clone() };
    export(dir, None, &all, |record| {
        if found.len() >= kept {
            found.pop_front();
        }
        if kept > 0 {
            found.push_back(record);
        }
        Ok(())
    })?;
    let mut found: Vec<Record> = found.into();
    found.sort_by_key(|record| std::cmp::Reverse(record.opening.seq));
    Ok(found.into_iter().skip(filter.offset).collect())
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
