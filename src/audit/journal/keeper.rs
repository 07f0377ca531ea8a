//! The keeper: the journal's one thread. It flushes buffered lines, brings the file to stable storage for all who wait
//! (group commit: who comes while a sync runs shares the next), and begins new segments.
//!
//! Invariants: no promise is answered before a sync that began after its line was written; a sync that failed poisons
//! the journal for good; a segment is on stable storage before the next one gets its first line, so that only the last
//! segment can have a torn tail.

use std::{
    io, mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    AuditUnavailable, JournalError, io_error,
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
/// records may still go there; they are lost only if the file is never brought back.
fn look_for_segment(shared: &Shared) {
    let (file, number) = {
        let writer = shared.lock();
        (Arc::clone(&writer.file), writer.segment)
    };
    let path = segment_path(&shared.settings.dir, number);
    let found = file.is_at(&path);
    let gone = !matches!(found, Ok(true));
    // Only this thread begins segments, so it is still the same one.
    let before = mem::replace(&mut shared.lock().gone, gone);
    if gone && !before {
        tracing::error!(path = %path.display(), error = found.err().map(tracing::field::display),
            "the audit journal is gone from its folder: requests that must be audited are refused");
    } else if before && !gone {
        tracing::info!(path = %path.display(), "the audit journal is in its folder again");
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
    let (old, number) = {
        let writer = shared.lock();
        let full = writer.offset >= shared.settings.segment_bytes || is_old(&writer, shared.settings.segment_age);
        if !full || writer.trouble.is_some() || !matches!(writer.state, State::Good) {
            return true;
        }
        (Arc::clone(&writer.file), writer.segment + 1)
    };
    // The bulk is synced without the lock, so that only what comes in meanwhile is synced under it.
    if let Err(error) = old.sync() {
        failed(shared, error);
        return false;
    }
    let dir = &shared.settings.dir;
    let file = match shared.medium.create(&segment_path(dir, number)) {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!(%error, segment = number, "cannot begin a new segment of the audit journal");
            return false;
        }
    };
    let begun = match shared.medium.sync_dir(dir) {
        Ok(()) => switch(shared, number, file, &old),
        Err(error) => {
            tracing::warn!(%error, segment = number, "cannot begin a new segment of the audit journal");
            false
        }
    };
    if !begun {
        withdraw(shared, number);
    }
    begun
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
    }
}

/// Whether the new segment is in use.
fn switch(shared: &Shared, number: u64, file: Arc<dyn SegmentFile>, old: &Arc<dyn SegmentFile>) -> bool {
    let mut writer = shared.lock();
    if writer.write_owed().is_err() || !matches!(writer.state, State::Good) {
        return false;
    }
    // Elsewhere segments are kept in their order anyway, and nobody waits for a database under the lock.
    if !shared.medium.elsewhere()
        && let Err(error) = old.sync()
    {
        drop(writer);
        poison(shared, error);
        return false;
    }
    let header = SegmentHeader {
        chain_id: shared.chain_id,
        segment: number,
        time: Millis::now(),
        format: FORMAT,
        outbox: writer.outbox.iter().copied().collect(),
        open: writer.open.keys().copied().collect(),
    };
    let mut text = Vec::new();
    let Ok(unplaced) = encode::plain(&mut text, LineType::Segment, &header) else { return false };
    let old_end = writer.offset;
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
        (writer.segment, writer.offset) = (number - 1, old_end);
        (writer.next_seq, writer.head, writer.head_hex, writer.reserved, writer.written) = before;
        writer.begun = begun_before;
        return false;
    }
    drop(writer);
    // Gives back what was set aside and not used; no line can come behind the end any more.
    if let Err(error) = old.truncate(old_end) {
        tracing::debug!(%error, "cannot give back unused room of a sealed audit segment");
    }
    true
}
