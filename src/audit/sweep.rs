//! Walks the openings of a journal, several segments at a time: what a replay and a shadow report are made from.
//!
//! Straight from the files and without joining completions: what the policies were asked and said stands in the opening.
//! Every line's hash is checked, and a line that does not fit ends the walk: nothing is concluded from a journal that
//! was tampered with. Takes no lock and may run beside a server, as far as the journal goes when it begins. Segments
//! that were archived away are told, never passed over in silence.

use std::{
    borrow::Cow,
    io,
    net::IpAddr,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde::Deserialize;

use super::{
    asked::{Other, Question, Shadow, if_known},
    check::Fault,
    decision::Decision,
    encode::{LineType, SegmentHeader},
    journal::{JournalError, io_error},
    line::{Line, NotALine, read},
    reader::{Lines, Step, extent, segment_path, segments},
    record::{Kind, Slice},
};
use crate::domain::{DecisionId, LinkId, LinkVersion, Millis, PartnerId};

/// A clock may have been set back between two lines; a segment is left out only if it ended this long before.
const CLOCK_SLACK_MS: i64 = 3_600_000;

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `since <= time`.
    pub since: Option<Millis>,
    /// `time < until`.
    pub until: Option<Millis>,
    pub partner_id: Option<PartnerId>,
    /// The managed tenant itself, or any slice's.
    pub tenant: Option<String>,
}

/// One opening, as far as decisions concern it.
#[derive(Debug)]
pub struct Opened<'a> {
    pub visible: Visible<'a>,
    pub private: Private<'a>,
    pub slices: Vec<Slice>,
}

/// What a tenant may see of it.
#[derive(Debug, Deserialize)]
pub struct Visible<'a> {
    pub id: DecisionId,
    pub time: Millis,
    /// What is not said is `access`.
    #[serde(default)]
    pub kind: Kind,
    #[serde(borrow)]
    pub user_id: Option<Cow<'a, str>>,
    pub partner_id: Option<PartnerId>,
    #[serde(borrow)]
    pub partner_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub action: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    #[serde(borrow)]
    pub managed_tenant_id: Option<Cow<'a, str>>,
    pub decision: Decision,
    #[serde(borrow)]
    pub reason: Option<Cow<'a, str>>,
    pub client_ip: Option<IpAddr>,
}

/// And what it may not.
#[derive(Debug, Deserialize)]
pub struct Private<'a> {
    #[serde(borrow)]
    pub issuer: Option<Cow<'a, str>>,
    pub link_id: Option<LinkId>,
    pub link_version: Option<LinkVersion>,
    #[serde(borrow, default)]
    pub policies: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    pub policy_version: Option<Cow<'a, str>>,
    pub mfa: bool,
    #[serde(default, deserialize_with = "if_known")]
    pub asked: Option<Question>,
    pub shadow: Option<Shadow>,
    #[serde(default)]
    pub waived: Vec<Other>,
}

/// What a walk saw.
#[derive(Debug)]
pub struct Swept<W> {
    /// One of each thread.
    pub workers: Vec<W>,
    /// Openings that were wanted.
    pub records: u64,
    /// The first segment that is there begins at this time and is not the journal's first: what is older than it was
    /// wanted and is not there.
    pub missing_before: Option<Millis>,
    /// When the first segment that is there was begun: of what was before, the journal knows nothing.
    pub begins: Option<Millis>,
}

/// How far it is; called from all threads.
pub trait Progress: Sync {
    /// Bytes that will be read at most, once at the beginning.
    fn total(&self, bytes: u64);
    /// Bytes read since the last call.
    fn advance(&self, bytes: u64);
}

/// Shared by the threads.
struct Walk<'a> {
    dir: &'a Path,
    wanted: &'a Wanted,
    numbers: Vec<u64>,
    next: AtomicUsize,
    end: (u64, u64),
    broken: Mutex<Option<JournalError>>,
    stop: AtomicBool,
    progress: &'a dyn Progress,
}

/// Shows every wanted opening to `each`, in no order, on as many threads as there are of `workers`.
pub fn sweep<W: Send>(
    dir: &Path,
    wanted: &Wanted,
    workers: Vec<W>,
    progress: &dyn Progress,
    each: impl Fn(&mut W, &Opened<'_>) + Sync,
) -> Result<Swept<W>, JournalError> {
    let all = segments(dir).map_err(io_error("list", dir))?;
    if all.is_empty() {
        return Err(io_error("read the audit journal in", dir)(io::Error::new(
            io::ErrorKind::NotFound,
            "there are no segments",
        )));
    }
    let end = extent(dir).map_err(io_error("list", dir))?.unwrap_or_default();
    let (numbers, begins) = chosen(dir, &all, wanted)?;
    let archived = all.first().is_some_and(|first| *first > 1);
    let missing_before = begins.filter(|begins| archived && wanted.since.is_none_or(|since| since < *begins));
    let sizes = numbers.iter().map(|number| std::fs::metadata(segment_path(dir, *number)).map_or(0, |file| file.len()));
    progress.total(sizes.sum());
    let walk = Walk {
        dir,
        wanted,
        numbers,
        next: AtomicUsize::new(0),
        end,
        broken: Mutex::new(None),
        stop: AtomicBool::new(false),
        progress,
    };
    let mut done = Vec::with_capacity(workers.len());
    let mut records = 0;
    std::thread::scope(|scope| {
        let (walk, each) = (&walk, &each);
        let running: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                scope.spawn(move || {
                    let seen = walk.run(&mut worker, each);
                    (worker, seen)
                })
            })
            .collect();
        for thread in running {
            if let Ok((worker, seen)) = thread.join() {
                records += seen;
                done.push(worker);
            } else {
                walk.fail(io_error("read", dir)(io::Error::other("a thread ended by a panic")));
            }
        }
    });
    match walk.broken.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(Swept { workers: done, records, missing_before, begins }),
    }
}

/// The segments that may hold what is wanted, and from when on the journal is there.
fn chosen(dir: &Path, all: &[u64], wanted: &Wanted) -> Result<(Vec<u64>, Option<Millis>), JournalError> {
    let begins = all.iter().map(|number| begin(dir, *number)).collect::<Result<Vec<_>, _>>()?;
    let ended_before = |next: usize| {
        let (Some(since), Some(Some(begin))) = (wanted.since, begins.get(next)) else { return false };
        begin.0 < since.0.saturating_sub(CLOCK_SLACK_MS)
    };
    let begun_after = |at: usize| {
        let (Some(until), Some(Some(begin))) = (wanted.until, begins.get(at)) else { return false };
        begin.0 > until.0.saturating_add(CLOCK_SLACK_MS)
    };
    let numbers =
        all.iter().enumerate().filter(|(at, _)| !ended_before(at + 1) && !begun_after(*at)).map(|(_, number)| *number);
    Ok((numbers.collect(), begins.first().copied().flatten()))
}

/// When a segment was begun; `None` for one whose header is still being written.
fn begin(dir: &Path, number: u64) -> Result<Option<Millis>, JournalError> {
    let path = segment_path(dir, number);
    let mut lines = match Lines::open(&path, 0) {
        Ok(lines) => lines,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    if lines.step().map_err(io_error("read", &path))? != Step::Line {
        return Ok(None);
    }
    let header = Line::parse(lines.bytes()).and_then(|line| line.visible_as::<SegmentHeader>());
    header.map(|header| Some(header.time)).map_err(|error| broken(&path, 1, error.into()))
}

fn broken(path: &Path, line: u64, fault: Fault) -> JournalError {
    JournalError::Broken { file: path.to_owned(), line, fault }
}

impl Walk<'_> {
    fn run<W>(&self, worker: &mut W, each: &impl Fn(&mut W, &Opened<'_>)) -> u64 {
        let mut seen = 0;
        while !self.stop.load(Ordering::Relaxed)
            && let Some(number) = self.numbers.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            if let Err(error) = self.segment(*number, worker, each, &mut seen) {
                self.fail(error);
            }
        }
        seen
    }

    /// The first fault is told; the others stop.
    fn fail(&self, error: JournalError) {
        self.stop.store(true, Ordering::Relaxed);
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn segment<W>(
        &self,
        number: u64,
        worker: &mut W,
        each: &impl Fn(&mut W, &Opened<'_>),
        seen: &mut u64,
    ) -> Result<(), JournalError> {
        let path = segment_path(self.dir, number);
        let mut lines = match Lines::open(&path, 0) {
            Ok(lines) => lines,
            // Begun and withdrawn meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let mut told = 0;
        while !self.stop.load(Ordering::Relaxed)
            && (number, lines.next_offset()) < self.end
            && lines.step().map_err(io_error("read", &path))? == Step::Line
        {
            let fault = |fault: Fault| broken(&path, lines.number(), fault);
            let line = Line::parse(lines.bytes()).map_err(|error| fault(error.into()))?;
            if line.computed_hash() != line.hash {
                return Err(fault(Fault::Altered));
            }
            if line.line_type == LineType::Open
                && let Some(opened) = opened(&line, self.wanted).map_err(|error| fault(error.into()))?
            {
                *seen += 1;
                each(worker, &opened);
            }
            if lines.next_offset() - told >= 1 << 20 {
                self.progress.advance(lines.next_offset() - told);
                told = lines.next_offset();
            }
        }
        self.progress.advance(lines.next_offset() - told);
        Ok(())
    }
}

/// The parts are read one after the other: what is not wanted is known after the first.
fn opened<'l>(line: &Line<'l>, wanted: &Wanted) -> Result<Option<Opened<'l>>, NotALine> {
    let visible: Visible<'l> = read(line.visible)?;
    // A call of the admin API is no request to a tenant.
    if !visible.kind.is_access()
        || wanted.since.is_some_and(|since| visible.time < since)
        || wanted.until.is_some_and(|until| until <= visible.time)
        || (wanted.partner_id.is_some() && wanted.partner_id != visible.partner_id)
    {
        return Ok(None);
    }
    let mut slices = line.slices.iter().map(|slice| read::<Slice>(slice)).collect::<Result<Vec<_>, _>>()?;
    if let Some(tenant) = &wanted.tenant {
        slices.retain(|slice| slice.managed_tenant_id == *tenant);
        if slices.is_empty() && visible.managed_tenant_id.as_deref() != Some(tenant) {
            return Ok(None);
        }
    }
    Ok(Some(Opened { visible, private: read(line.private)?, slices }))
}

/// The same of a run of whole lines, wherever they come from; gives how many openings were wanted.
pub fn sweep_run(run: &[u8], wanted: &Wanted, mut each: impl FnMut(&Opened<'_>)) -> Result<u64, Fault> {
    let mut seen = 0;
    for bytes in run.split(|byte| *byte == b'\n').filter(|bytes| !bytes.is_empty()) {
        let line = Line::parse(bytes)?;
        if line.computed_hash() != line.hash {
            return Err(Fault::Altered);
        }
        if line.line_type == LineType::Open
            && let Some(opened) = opened(&line, wanted)?
        {
            seen += 1;
            each(&opened);
        }
    }
    Ok(seen)
}
