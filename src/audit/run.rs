//! Asking a run of lines: which records in it match, newest first, and what completes them.
//!
//! The index says only where to look; the lines themselves say what is there. Each line that goes into an answer is
//! checked against its hash, so that an answer never passes on what was altered. The caller gets the lines from the
//! journal or from a copy of them.

use std::collections::{HashMap, HashSet};

use memchr::memchr_iter;

use super::{
    chain::ChainId,
    check::Fault,
    encode::LineType,
    entry::Entry,
    glance::{Glance, Said, plain},
    joined::{Completed, Record, RecordFilter},
    line::NotALine,
    scan::checked_entry,
};
use crate::domain::{DecisionId, Millis};

/// What a run holds for a question.
#[derive(Debug)]
pub struct Picked<T> {
    /// What is kept of records that match, newest first.
    pub whole: Vec<T>,
    /// Records that match, kept or not.
    pub looked_at: usize,
    /// Records whose completion is not in the run: all but what a completion may overturn matches.
    pub open: Vec<Record>,
}

impl<T> Default for Picked<T> {
    fn default() -> Self {
        Self { whole: Vec::new(), looked_at: 0, open: Vec::new() }
    }
}

/// All that the opening says fits, or its completion may still change what does not.
struct Candidate<'a> {
    time: Millis,
    seq: u64,
    opening: &'a [u8],
    completion: Option<&'a [u8]>,
    change: bool,
}

/// Of the records of a run that match the newest `wanted` that `keep` makes something of, and all that are open, may match
/// and are not older than these.
pub fn pick<T>(
    run: &[u8],
    chain: ChainId,
    filter: &RecordFilter,
    wanted: usize,
    keep: impl Fn(Record) -> Option<T>,
) -> Result<Picked<T>, Fault> {
    let mut picked = Picked::default();
    for candidate in candidates(run, filter)? {
        // All that is left is older.
        if picked.whole.len() >= wanted {
            break;
        }
        let open = !candidate.change && candidate.completion.is_none();
        let mut record = match checked_entry(candidate.opening, chain)? {
            Some(Entry::Record(record)) => *record,
            _ => return Err(not_as_it_seemed()),
        };
        if open {
            picked.open.push(record);
            continue;
        }
        if let Some(line) = candidate.completion {
            match checked_entry(line, chain)? {
                Some(Entry::Completed(completed)) => record.complete(completed),
                _ => return Err(not_as_it_seemed()),
            }
        }
        if filter.matches(&record) {
            picked.looked_at += 1;
            picked.whole.extend(keep(record));
        }
    }
    Ok(picked)
}

/// Completions of these records that stand in the run; what is found leaves `wanted`.
pub fn completions(
    run: &[u8],
    chain: ChainId,
    wanted: &mut HashSet<DecisionId, ahash::RandomState>,
) -> Result<Vec<Completed>, Fault> {
    let mut found = Vec::new();
    for line in each(run) {
        let seen = Glance::at(line)?;
        if seen.line_type == LineType::Complete
            && wanted.remove(&uuid(seen.said.id.unwrap_or_default())?)
            && let Some(Entry::Completed(completed)) = checked_entry(line, chain)?
        {
            found.push(completed);
        }
    }
    Ok(found)
}

/// Which of these records were opened in the run.
pub fn opened(run: &[u8], ids: &HashSet<DecisionId, ahash::RandomState>) -> Result<Vec<DecisionId>, Fault> {
    let mut found = Vec::new();
    for line in each(run) {
        let seen = Glance::at(line)?;
        if seen.line_type == LineType::Open {
            found.extend(Some(uuid(seen.said.id.unwrap_or_default())?).filter(|id| ids.contains(id)));
        }
    }
    Ok(found)
}

fn not_as_it_seemed() -> Fault {
    NotALine("it is not what it seemed".to_owned()).into()
}

/// The lines of a run; it ends with a newline.
fn each(run: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    // Collected, because newlines are found forwards and lines are wanted from the end.
    let mut ends = Vec::with_capacity(run.len() / 512);
    ends.extend(memchr_iter(b'\n', run));
    (0..ends.len()).filter_map(move |at| {
        let begin = at.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |end| end + 1);
        run.get(begin..*ends.get(at)?)
    })
}

/// The records of a run that may match, newest first.
fn candidates<'a>(run: &'a [u8], filter: &RecordFilter) -> Result<Vec<Candidate<'a>>, Fault> {
    let asked = Asked::new(filter);
    let mut completions: HashMap<&[u8], Glance<'a>, ahash::RandomState> = HashMap::default();
    let mut lines: HashMap<&[u8], &'a [u8], ahash::RandomState> = HashMap::default();
    let mut found = Vec::new();
    // From the end: a completion is seen before its opening.
    for line in each(run).rev() {
        let seen = Glance::at(line)?;
        let change = match seen.line_type {
            LineType::Segment | LineType::Recovery => continue,
            LineType::Complete => {
                if let Some(id) = seen.said.id {
                    lines.insert(id, line);
                    completions.insert(id, seen);
                }
                continue;
            }
            LineType::Open => false,
            LineType::Change => true,
        };
        let (Some(id), Some(time)) = (seen.said.id, seen.said.time) else {
            return Err(NotALine("a record has no id or no time".to_owned()).into());
        };
        let completion = if change { None } else { completions.remove(id) };
        // What a completion may overturn decides only once there is one that overturns nothing.
        let settled =
            change || completion.as_ref().is_some_and(|done| done.said.decision.is_none() && !done.has_slices());
        let time = instant(time)?;
        if asked.fits(&seen, time) && (!settled || asked.fits_as_opened(&seen)?) {
            let completion = completion.and_then(|done| lines.get(done.said.id?).copied());
            found.push(Candidate { time, seq: seen.seq, opening: line, completion, change });
        }
    }
    found.sort_by_key(|candidate| std::cmp::Reverse((candidate.time, candidate.seq)));
    Ok(found)
}

fn uuid(text: &[u8]) -> Result<DecisionId, Fault> {
    let id = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    id.ok_or_else(|| NotALine("an id is no UUID".to_owned()).into())
}

pub(super) fn instant(text: &[u8]) -> Result<Millis, Fault> {
    let time = std::str::from_utf8(text).ok().and_then(|text| Millis::parse(text).ok());
    time.ok_or_else(|| NotALine("a time is none".to_owned()).into())
}

/// A filter, its ids as the lines have them.
struct Asked<'f> {
    filter: &'f RecordFilter,
    id: Option<String>,
    partner: Option<String>,
}

impl<'f> Asked<'f> {
    fn new(filter: &'f RecordFilter) -> Self {
        let partner = filter.partner_id.map(|partner| partner.to_string());
        Self { filter, id: filter.id.map(|id| id.to_string()), partner }
    }

    /// All of the filter that no completion can change.
    fn fits(&self, seen: &Glance<'_>, time: Millis) -> bool {
        let Said { id, partner, user, action, request, kind, .. } = seen.said;
        let kind = kind.or((seen.line_type == LineType::Open).then_some(b"access"));
        says(self.id.as_deref(), id)
            && says(self.filter.request_id.as_deref(), request)
            && says(self.partner.as_deref(), partner)
            && says(self.filter.user_id.as_deref(), user)
            && says(self.filter.action.as_deref(), action)
            && says(self.filter.kind.map(super::Kind::as_str), kind)
            && self.filter.from.is_none_or(|from| from <= time)
            && self.filter.to.is_none_or(|to| time < to)
    }

    /// The rest.
    fn fits_as_opened(&self, seen: &Glance<'_>) -> Result<bool, Fault> {
        if !says(self.filter.decision.map(super::Decision::as_str), seen.said.decision) {
            return Ok(false);
        }
        let tenant = self.filter.managed_tenant_id.as_deref();
        Ok(says(tenant, seen.said.tenant) || seen.slice_tenants()?.into_iter().any(|slice| says(tenant, Some(slice))))
    }
}

fn says(wanted: Option<&str>, found: Option<&[u8]>) -> bool {
    wanted.is_none_or(|wanted| found.is_some_and(|inside| plain(inside) == wanted.as_bytes()))
}

/// The lines of a run with these numbers, each checked against its hash.
pub fn lines(run: &[u8], wanted: &std::collections::BTreeSet<u64>) -> Result<Vec<(u64, Vec<u8>)>, Fault> {
    let mut found = Vec::with_capacity(wanted.len());
    for line in each(run) {
        let seen = Glance::at(line)?;
        if wanted.contains(&seen.seq) {
            if !seen.holds() {
                return Err(Fault::Altered);
            }
            found.push((seen.seq, line.to_vec()));
        }
    }
    Ok(found)
}
