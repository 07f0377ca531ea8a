//! The keeper: the journal's one thread. It flushes buffered lines, brings the file to stable storage for all who wait
//! (group commit: who comes while a sync runs shares the next), and begins new segments.
//!
//! Invariants: no promise is answered before a sync that began after its line was written; a sync that failed poisons
//! the journal for good; nothing in a segment is promised before the one before it is on stable storage. A new segment
//! takes lines before that, so that nobody waits for a sync under the lock; until then it is marked (see `seam`), so that
//! a start knows that only the last segment, or a marked one with the end of the one before, may have lost anything.

use std::{
    io, mem,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    AuditUnavailable, JournalError, io_error,
    lock::LOCK_FILE,
    seam,
    shared::Shared,
    writer::{Body, State, Waiter, Writer, Written},
};
use crate::{
    audit::{
        encode::{self, FORMAT, LineType, SegmentHeader},
        medium::SegmentFile,
        mirror::{Over, is_over},
        reader::segment_path,
    },
    domain::Millis,
};

/// Ends the thread when the last handle of the journal is dropped.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self, JournalError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (mine, stopped) = (Arc::clone(shared), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("audit-journal".to_owned())
            .spawn(move || keep(&mine, &stopped))
            .map_err(io_error("start the keeper of", &shared.settings.dir))?;
        Ok(Self { shared: Arc::clone(shared), stop, thread: Mutex::new(Some(thread)) })
    }

    /// Waits until all is written and synced.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        {
            // Under the lock, so that the keeper cannot look before and sleep after.
            let _writer = self.shared.lock();
            self.shared.wake.notify_one();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the keeper is reported by the panic hook; the journal is closed either way.
            let _ = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Should the keeper ever panic, nobody may wait for it in vain.
struct Closing<'s>(&'s Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let waiters = {
            let mut writer = self.0.lock();
            if matches!(writer.state, State::Good) {
                writer.state = State::Closed;
            }
            mem::take(&mut writer.waiters)
        };
        answer(waiters, &Err(AuditUnavailable::Closed));
    }
}

fn keep(shared: &Shared, stop: &AtomicBool) {
    let _closing = Closing(shared);
    let mut next_flush = Instant::now() + shared.flush_interval();
    let mut next_rotation = Instant::now();
    loop {
        let mut writer = shared.lock();
        while !can_commit(&writer) && !stop.load(Ordering::Acquire) {
            let Some(left) = next_flush.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                break;
            };
            writer = shared.wake.wait_timeout(writer, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let stopping = stop.load(Ordering::Acquire);
        if stopping && matches!(writer.state, State::Good) {
            // Before the last flush: nothing is accepted behind it but completions, which then write themselves.
            writer.state = State::Closed;
        }
        // What nobody waits for is kept elsewhere within the same time in which it is written here.
        let good = matches!(writer.state, State::Good);
        drop(writer);
        let due = good && shared.medium.elsewhere() && Instant::now() >= next_flush;
        commit(shared, stopping || due);
        let now = Instant::now();
        if now >= next_flush {
            next_flush = now + shared.flush_interval();
            look_for_segment(shared);
            if now >= next_rotation && !rotate_if_full(shared) {
                next_rotation = now + ROTATION_RETRY;
            }
        }
        if stopping {
            return;
        }
    }
}

/// Whether someone waits for what a sync can give now. While nothing can be written, those who wait for lines that are
/// owed are looked at again at the next flush only.
fn can_commit(writer: &Writer) -> bool {
    let written = writer.written.seq;
    !writer.waiters.is_empty()
        && (writer.trouble.is_none() || writer.waiters.iter().any(|waiter| waiter.seq <= written))
}

/// Writes what is owed and, if someone waits or `always`, syncs and answers those whose lines it covers.
fn commit(shared: &Shared, always: bool) {
    let (file, written, wanted) = {
        let mut writer = shared.lock();
        writer.settle();
        writer.waiters.retain(|waiter| !waiter.done.is_closed());
        let written = writer.position();
        let wanted = writer.waiters.iter().any(|waiter| waiter.seq <= written.head.seq);
        (Arc::clone(&writer.file), written, wanted)
    };
    if !(wanted || always) {
        return;
    }
    match file.sync() {
        Ok(()) => release(shared, written),
        Err(error) => failed(shared, error),
    }
}

/// What was written is still here where it is to be kept elsewhere: it is tried again. Who waits is refused, and so is
/// everybody until it is kept.
fn failed(shared: &Shared, error: io::Error) {
    if !shared.medium.elsewhere() {
        return poison(shared, error);
    }
    if let Some(over) = is_over(&error) {
        let dir = shared.settings.dir.display();
        let (state, told) = match over {
            Over::TakenOver => {
                tracing::error!(
                    "another server has taken the audit chain: no audited request is accepted until a restart"
                );
                (State::TakenOver, AuditUnavailable::TakenOver)
            }
            Over::Lost => {
                tracing::error!(%dir,
                    "the database has lost audit records that it had confirmed, as a failover to a standby that was \
                     behind does: no audited request is accepted; keep a copy of `audit.dir`, whose files still have \
                     them, then restart linkgate, which goes on behind what is left");
                (State::Lost, AuditUnavailable::Lost)
            }
        };
        let waiters = {
            let mut writer = shared.lock();
            writer.state = state;
            mem::take(&mut writer.waiters)
        };
        return answer(waiters, &Err(told));
    }
    let away = AuditUnavailable::Away(Arc::new(error));
    let (waiters, first) = {
        let mut writer = shared.lock();
        let first = writer.away.replace(away.clone()).is_none();
        (mem::take(&mut writer.waiters), first)
    };
    if first {
        tracing::error!(error = %away.cause(),
            "the audit journal cannot be kept in the database: requests that must be audited are refused");
    }
    answer(waiters, &Err(away));
}

/// A segment that was moved away or deleted takes writes as before, and nobody would ever read them. Between two looks
/// records may still go there; they are lost only if the file is never brought back. And who deletes the lock lets
/// another server in.
fn look_for_segment(shared: &Shared) {
    let (file, number) = {
        let writer = shared.lock();
        (Arc::clone(&writer.file), writer.segment)
    };
    let dir = &shared.settings.dir;
    let segment = (segment_path(dir, number), AuditUnavailable::Gone);
    let lock = (dir.join(LOCK_FILE), AuditUnavailable::Unlocked);
    let look = |file: &dyn SegmentFile, (path, why): (PathBuf, AuditUnavailable)| {
        let found = file.is_at(&path);
        (!matches!(found, Ok(true))).then(|| (path, why, found.err()))
    };
    let gone = look(file.as_ref(), segment).or_else(|| look(&shared.lock_file, lock));
    // Only this thread begins segments, so it is still the same one.
    let before = mem::replace(&mut shared.lock().gone, gone.as_ref().map(|(_, why, _)| why.clone()));
    match (gone, before) {
        (Some((path, why, error)), None) => {
            tracing::error!(path = %path.display(), error = error.map(tracing::field::display),
                "requests that must be audited are refused: {why}");
        }
        (None, Some(_)) => tracing::info!(dir = %dir.display(), "the audit journal is in its folder again"),
        _ => {}
    }
}

fn release(shared: &Shared, synced: Written) {
    let ready = {
        let mut writer = shared.lock();
        if writer.away.take().is_some() {
            tracing::info!("the audit journal is kept in the database again");
        }
        let (ready, rest) =
            mem::take(&mut writer.waiters).into_iter().partition(|waiter| waiter.seq <= synced.head.seq);
        writer.waiters = rest;
        ready
    };
    answer(ready, &Ok(synced));
}

/// After a failed sync the kernel may have dropped what it held, and a second sync would say that all is well.
fn poison(shared: &Shared, error: io::Error) {
    let error = Arc::new(error);
    tracing::error!(%error, dir = %shared.settings.dir.display(),
        "the audit journal could not be brought to stable storage: no audited request is accepted until a restart");
    let waiters = {
        let mut writer = shared.lock();
        writer.state = State::Poisoned(Arc::clone(&error));
        mem::take(&mut writer.waiters)
    };
    answer(waiters, &Err(AuditUnavailable::Poisoned(error)));
}

fn answer(waiters: Vec<Waiter>, result: &Result<Written, AuditUnavailable>) {
    for waiter in waiters {
        // Who gave up waiting is gone.
        let _ = waiter.done.send(result.clone());
    }
}

/// Pause after a failed attempt to begin a new segment.
const ROTATION_RETRY: Duration = Duration::from_secs(5);

/// Begins a new segment once the present one is large or old enough. `false`: it failed, and the present one stays in use.
fn rotate_if_full(shared: &Shared) -> bool {
    let (old, number, written) = {
        let writer = shared.lock();
        let full = writer.offset >= shared.settings.segment_bytes || is_old(&writer, shared.settings.segment_age);
        if !full || writer.trouble.is_some() || !matches!(writer.state, State::Good) {
            return true;
        }
        (Arc::clone(&writer.file), writer.segment + 1, writer.position())
    };
    // The bulk of it beforehand, so that the seam is open for no longer than what comes in meanwhile takes.
    match old.sync() {
        Ok(()) => release(shared, written),
        Err(error) => {
            failed(shared, error);
            return false;
        }
    }
    let ended = match begin(shared, number) {
        Ok(file) => switch(shared, number, file, &old),
        Err(error) => {
            tracing::warn!(%error, segment = number, "cannot begin a new segment of the audit journal");
            None
        }
    };
    let Some(ended) = ended else {
        withdraw(shared, number);
        return false;
    };
    // Elsewhere segments are kept in their order anyway.
    if !shared.medium.elsewhere() {
        if let Err(error) = old.sync() {
            poison(shared, error);
            return false;
        }
        release(shared, ended);
        if let Err(error) = seam::unmark(&shared.settings.dir, number) {
            // What it marks is whole: it does no harm, and the next start takes it away.
            tracing::warn!(%error, segment = number, "cannot remove the mark of a new segment of the audit journal");
        }
    }
    // Gives back what was set aside and not used; no line can come behind the end any more.
    if let Err(error) = old.truncate(ended.offset) {
        tracing::debug!(%error, "cannot give back unused room of a sealed audit segment");
    }
    true
}

/// The file of a new segment, marked where what comes before it is not on stable storage yet.
fn begin(shared: &Shared, number: u64) -> io::Result<Arc<dyn SegmentFile>> {
    let dir = &shared.settings.dir;
    if !shared.medium.elsewhere() {
        seam::mark(dir, number)?;
    }
    let file = shared.medium.create(&segment_path(dir, number))?;
    shared.medium.sync_dir(dir)?;
    Ok(file)
}

/// One that holds nothing but its header does not get old.
fn is_old(writer: &Writer, age: Option<Duration>) -> bool {
    let (header, begun) = writer.begun;
    let since = u64::try_from(Millis::now().0.saturating_sub(begun.0)).unwrap_or_default();
    age.is_some_and(|age| writer.written.seq > header && Duration::from_millis(since) >= age)
}

/// A segment without a header is nothing; readers and recovery treat it so, should it stay.
fn withdraw(shared: &Shared, number: u64) {
    let path = segment_path(&shared.settings.dir, number);
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove an empty segment of the audit journal");
        return;
    }
    if let Err(error) = seam::unmark(&shared.settings.dir, number) {
        tracing::warn!(%error, path = %path.display(), "cannot remove the mark of a segment of the audit journal");
    }
}

/// Where the old segment ends, once the new one is in use.
fn switch(shared: &Shared, number: u64, file: Arc<dyn SegmentFile>, old: &Arc<dyn SegmentFile>) -> Option<Written> {
    let mut writer = shared.lock();
    if writer.write_owed().is_err() || !matches!(writer.state, State::Good) {
        return None;
    }
    let header = SegmentHeader {
        chain_id: shared.chain_id,
        segment: number,
        time: Millis::now(),
        format: FORMAT,
        outbox: writer.chained.numbers(),
        open: writer.open.keys().copied().collect(),
    };
    let mut text = Vec::new();
    let unplaced = encode::plain(&mut text, LineType::Segment, &header).ok()?;
    let ended = writer.position();
    let before = (writer.next_seq, writer.head, writer.head_hex, writer.reserved, writer.written);
    let begun_before = writer.begun;
    writer.file = file;
    (writer.segment, writer.offset) = (number, 0);
    writer.begun = (writer.next_seq, header.time);
    writer.reserved = before.3.map(|_| 0);
    writer.push(Body { line_type: LineType::Segment, text: &text, unplaced });
    let begun = writer.set_aside(0).and_then(|()| writer.write_owed());
    if begun.is_err() {
        // Back to where it was: the old segment still has the room that was set aside in it.
        writer.owed.clear();
        writer.dirty = false;
        writer.file = Arc::clone(old);
        (writer.segment, writer.offset) = (number - 1, ended.offset);
        (writer.next_seq, writer.head, writer.head_hex, writer.reserved, writer.written) = before;
        writer.begun = begun_before;
        return None;
    }
    Some(ended)
}
