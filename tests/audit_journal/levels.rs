//! The three levels, the guard, group commit and rotation.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use linkgate::{
    audit::{
        AuditUnavailable, ChangeRecord, Decision, Durability, Journal, JournalError, Kind,
        medium::volatile_file_system, reader::segments,
    },
    domain::DecisionId,
};

use crate::support::*;

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Without a runtime, on the second poll, for which it asks itself, and in the file when it returns.
#[test]
fn os_is_written_by_the_calling_thread() {
    let dir = folder();
    let mut slow = settings(dir.path());
    slow.flush_interval = Duration::from_secs(3600);
    let journal = Journal::open(slow).unwrap().0;
    let id = DecisionId::generate();
    let opening = opening(id);
    let mut admission = pin!(journal.admit(&opening, Durability::Os));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    assert!(admission.as_mut().poll(&mut context).is_pending());
    assert_eq!(woken.0.load(SeqCst), 1);
    let Poll::Ready(record) = admission.as_mut().poll(&mut context) else { panic!("it waits") };
    let record = record.unwrap();
    let last = lines(&last_segment(dir.path())).pop().unwrap();
    assert!(last.contains(&id.to_string()) && last.contains("\"type\":\"open\""), "{last}");
    assert!(!last.contains("secret"), "query values are redacted");
    record.complete(done(204));
    journal.close();
    assert_eq!(records(dir.path())[&id].status, Some(204));
}

/// Requests that are ready at the same time share a write; none is admitted before its line is in the file.
#[test]
fn os_shares_a_write_with_those_that_are_ready() {
    let (dir, faults) = (folder(), Faults::new());
    let mut slow = settings(dir.path());
    slow.flush_interval = Duration::from_secs(3600);
    let journal = open_faulty(slow, &faults);
    let before = faults.writes.load(SeqCst);
    let openings: Vec<_> = (0..20).map(|_| opening(DecisionId::generate())).collect();
    let mut admissions: Vec<_> =
        openings.iter().map(|opening| Box::pin(journal.admit(opening, Durability::Os))).collect();
    let mut context = Context::from_waker(Waker::noop());
    for admission in &mut admissions {
        assert!(admission.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(lines(&last_segment(dir.path())).len(), 1, "only the header is written");
    // One goes away before it was admitted.
    drop(admissions.pop());
    for (admission, opening) in admissions.iter_mut().zip(&openings) {
        let Poll::Ready(record) = admission.as_mut().poll(&mut context) else { panic!("it waits") };
        let text = std::fs::read_to_string(last_segment(dir.path())).unwrap();
        assert!(text.contains(&opening.id.to_string()));
        record.unwrap().complete(done(200));
    }
    assert_eq!(faults.writes.load(SeqCst), before + 1);
    drop(admissions);
    drop(journal);
    let found = records(dir.path());
    assert_eq!(found[&openings[19].id].aborted, Some(true));
    assert!(openings[..19].iter().all(|opening| found[&opening.id].status == Some(200)));
    sound(dir.path());
}

/// The shared write fails: nobody of them is admitted. Who has nothing behind it was never there; the others stand in the
/// record as refused.
#[test]
fn os_is_refused_to_all_whose_write_failed() {
    for backwards in [false, true] {
        let (dir, faults) = (folder(), Faults::new());
        faults.no_reserve.store(true, SeqCst);
        let mut slow = settings(dir.path());
        // The keeper does not come in between.
        slow.flush_interval = Duration::from_secs(1);
        let journal = open_faulty(slow, &faults);
        let openings: Vec<_> = (0..5).map(|_| opening(DecisionId::generate())).collect();
        let mut context = Context::from_waker(Waker::noop());
        let mut admissions: Vec<_> =
            openings.iter().map(|opening| Box::pin(journal.admit(opening, Durability::Os))).collect();
        for admission in &mut admissions {
            assert!(admission.as_mut().poll(&mut context).is_pending());
        }
        faults.leave_room(100);
        if backwards {
            admissions.reverse();
        }
        for admission in &mut admissions {
            let Poll::Ready(Err(AuditUnavailable::Write(_))) = admission.as_mut().poll(&mut context) else {
                panic!("admitted")
            };
        }
        drop(admissions);
        assert_eq!(journal.status().open_records, 0);
        faults.leave_room(-1);
        let since = std::time::Instant::now();
        while !journal.healthy() {
            assert!(since.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(journal);
        let found = records(dir.path());
        // Polled from the last one on, each has nothing behind it any more.
        let refused: Vec<_> = openings.iter().filter_map(|opening| found.get(&opening.id)).collect();
        assert_eq!(refused.len(), if backwards { 0 } else { 5 });
        assert!(refused.iter().all(|record| record.status == Some(503) && record.decision == Decision::Deny));
        assert_eq!(sound(dir.path()).open_records, 0);
    }
}

#[tokio::test]
async fn memory_is_written_by_the_flush() {
    let dir = folder();
    let mut slow = settings(dir.path());
    slow.flush_interval = Duration::from_millis(200);
    let journal = Journal::open(slow).unwrap().0;
    let id = DecisionId::generate();
    let record = journal.admit(&opening(id), Durability::Memory).await.unwrap();
    assert_eq!(lines(&last_segment(dir.path())).len(), 1, "only the header is written");
    assert!(journal.status().owed_bytes > 0);
    eventually("the flush", || lines(&last_segment(dir.path())).len() == 2).await;
    record.complete(done(200));
    eventually("the flush of the completion", || lines(&last_segment(dir.path())).len() == 3).await;
    assert_eq!(records(dir.path())[&id].status, Some(200));
}

/// A buffer that is full of `memory` records is written by whoever fills it, so it never grows past its bound.
#[tokio::test]
async fn memory_is_bounded() {
    let dir = folder();
    let mut never = settings(dir.path());
    never.flush_interval = Duration::from_secs(3600);
    let journal = Journal::open(never).unwrap().0;
    let mut ids = Vec::new();
    for _ in 0..2000 {
        let id = DecisionId::generate();
        journal.admit(&opening(id), Durability::Memory).await.unwrap().complete(done(200));
        assert!(journal.status().owed_bytes < 128 << 10);
        ids.push(id);
    }
    drop(journal);
    let found = records(dir.path());
    assert!(ids.iter().all(|id| found[id].completion.is_some()), "closing writes what is left");
}

#[tokio::test]
async fn disk_waits_for_stable_storage() {
    let (dir, faults) = (folder(), Faults::new());
    let journal = open_faulty(settings(dir.path()), &faults);
    faults.sync_blocks.store(true, SeqCst);
    let waiting = tokio::spawn({
        let journal = journal.clone();
        async move { journal.admit(&opening(DecisionId::generate()), Durability::Disk).await.map(|open| open.seq()) }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "acknowledged before the sync ended");
    // Those who need no stable storage are not held up by the sync.
    write(&journal, 10).await;
    faults.sync_blocks.store(false, SeqCst);
    assert_eq!(waiting.await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn those_who_wait_share_a_sync() {
    let (dir, faults) = (folder(), Faults::new());
    let journal = open_faulty(settings(dir.path()), &faults);
    faults.sync_ms.store(20, SeqCst);
    let before = faults.syncs.load(SeqCst);
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let id = DecisionId::generate();
                for _ in 0..5 {
                    let id = DecisionId::generate();
                    journal.admit(&opening(id), Durability::Disk).await.unwrap().complete(done(200));
                }
                let open = journal.admit(&opening(id), Durability::Disk).await.unwrap();
                let synced = journal.status().written.head.seq;
                assert!(open.seq() <= synced);
                open.complete(done(200));
                id
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let syncs = faults.syncs.load(SeqCst) - before;
    assert!((6..=30).contains(&syncs), "{syncs} syncs for 384 records of 64 tasks");
    drop(journal);
    assert_eq!(records(dir.path()).len(), 384);
    sound(dir.path());
}

#[tokio::test]
async fn a_commit_that_takes_too_long_is_a_refusal_and_says_so() {
    let (dir, faults) = (folder(), Faults::new());
    let mut short = settings(dir.path());
    short.commit_timeout = Duration::from_millis(50);
    let journal = open_faulty(short, &faults);
    faults.sync_blocks.store(true, SeqCst);
    let id = DecisionId::generate();
    let refused = journal.admit(&opening(id), Durability::Disk).await;
    assert!(matches!(refused, Err(AuditUnavailable::Timeout)), "{refused:?}");
    faults.sync_blocks.store(false, SeqCst);
    drop(journal);
    let record = &records(dir.path())[&id];
    assert_eq!((record.status, record.decision), (Some(503), Decision::Deny));
    assert_eq!(record.reason.as_deref(), Some("audit_unavailable"));
}

/// Who is refused is told the record's id where the record stands in the chain, and none where it does not.
#[tokio::test]
async fn a_refusal_says_whether_its_record_stands() {
    let (dir, faults) = (folder(), Faults::new());
    let mut short = settings(dir.path());
    short.commit_timeout = Duration::from_millis(50);
    let journal = open_faulty(short, &faults);
    faults.sync_blocks.store(true, SeqCst);
    let (late, refusal) = (DecisionId::generate(), DecisionId::generate());
    let unkept = journal.try_admit(&opening(late), Durability::Disk).await.unwrap_err();
    assert!(unkept.recorded && matches!(unkept.error, AuditUnavailable::Timeout));
    assert!(journal.try_record(&opening(refusal), &done(403), Durability::Disk).await.unwrap_err().recorded);
    faults.sync_blocks.store(false, SeqCst);
    eventually("the completion is written", || journal.status().owed_bytes == 0).await;

    faults.no_reserve.store(true, SeqCst);
    faults.leave_room(100);
    // The room that was set aside before is used up first.
    let (never, unkept) = loop {
        let id = DecisionId::generate();
        match journal.try_admit(&opening(id), Durability::Os).await {
            Ok(record) => record.complete(done(200)),
            Err(unkept) => break (id, unkept),
        }
    };
    assert!(!unkept.recorded && unkept.error.told().contains(&unkept.error.cause()), "{}", unkept.error.told());
    faults.leave_room(-1);
    eventually("recovery", || journal.healthy()).await;
    drop(journal);
    let found = records(dir.path());
    assert!(found.contains_key(&late) && found.contains_key(&refusal) && !found.contains_key(&never));
}

/// The client went away while the opening was on its way to the disk.
#[tokio::test]
async fn an_admission_that_is_dropped_is_aborted() {
    let (dir, faults) = (folder(), Faults::new());
    let journal = open_faulty(settings(dir.path()), &faults);
    faults.sync_blocks.store(true, SeqCst);
    let id = DecisionId::generate();
    let waited = tokio::time::timeout(Duration::from_millis(50), journal.admit(&opening(id), Durability::Disk)).await;
    assert!(waited.is_err());
    faults.sync_blocks.store(false, SeqCst);
    drop(journal);
    assert_eq!(records(dir.path())[&id].aborted, Some(true));
}

#[tokio::test]
async fn dropped_is_aborted_and_completed_is_not() {
    let dir = folder();
    let journal = open(dir.path());
    let (dropped, completed) = (DecisionId::generate(), DecisionId::generate());
    drop(journal.admit(&opening(dropped), Durability::Os).await.unwrap());
    journal.admit(&opening(completed), Durability::Os).await.unwrap().complete(done(200));
    drop(journal);
    let found = records(dir.path());
    assert_eq!((found[&dropped].aborted, found[&dropped].status), (Some(true), None));
    assert_eq!((found[&completed].aborted, found[&completed].status), (Some(false), Some(200)));
    let completions = lines(&last_segment(dir.path())).iter().filter(|l| l.contains("\"type\":\"complete\"")).count();
    assert_eq!(completions, 2, "exactly once");
}

/// A guard may outlive the journal's handles: its completion is still written.
#[tokio::test]
async fn a_record_is_completed_after_the_close_too() {
    let dir = folder();
    let journal = open(dir.path());
    let id = DecisionId::generate();
    let record = journal.admit(&opening(id), Durability::Os).await.unwrap();
    journal.close();
    let refused = journal.admit(&opening(DecisionId::generate()), Durability::Os).await;
    assert!(matches!(refused, Err(AuditUnavailable::Closed)));
    assert!(!journal.healthy());
    drop(journal);
    record.complete(done(201));
    assert_eq!(records(dir.path())[&id].status, Some(201));
    sound(dir.path());
}

#[tokio::test]
async fn a_refusal_is_one_record() {
    let dir = folder();
    let journal = open(dir.path());
    for level in [Durability::Memory, Durability::Os, Durability::Disk] {
        let id = DecisionId::generate();
        journal.record(&opening(id), &done(403), level).await.unwrap();
        journal.settle().await.unwrap();
        let record = &records(dir.path())[&id];
        assert_eq!(record.status, Some(403));
        assert_eq!(record.completion.unwrap().seq, record.opening.seq + 1);
    }
    assert_eq!(journal.status().open_records, 0);
}

#[tokio::test]
async fn a_change_is_on_stable_storage() {
    let (dir, faults) = (folder(), Faults::new());
    let journal = open_faulty(settings(dir.path()), &faults);
    let before = faults.syncs.load(SeqCst);
    let change = ChangeRecord::new(Kind::Policy, "policy.load");
    let written = journal.append_change(&change).await.unwrap();
    assert!(faults.syncs.load(SeqCst) > before && written.head.seq == 2);
    assert_eq!(records(dir.path())[&change.id].action.as_deref(), Some("policy.load"));
}

#[tokio::test]
async fn segments_follow_one_another_under_load() {
    let dir = folder();
    let mut small = settings(dir.path());
    (small.segment_bytes, small.flush_interval) = (20_000, Duration::from_millis(1));
    let journal = Journal::open(small).unwrap().0;
    let held = journal.admit(&opening(DecisionId::generate()), Durability::Os).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for round in 0..40 {
                    let level = [Durability::Memory, Durability::Os, Durability::Disk][round % 3];
                    let id = DecisionId::generate();
                    journal.admit(&opening(id), level).await.unwrap().complete(done(200));
                    ids.push(id);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                ids
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    held.complete(done(200));
    drop(journal);
    let count = segments(dir.path()).unwrap().len();
    assert!(count >= 4, "{count} segments");
    let found = records(dir.path());
    assert!(found.len() == 321 && ids.iter().all(|id| found[id].status == Some(200)));
    assert_eq!(sound(dir.path()).open_records, 0);
}

/// `/dev/shm` is a temporary file system on every Linux that runs tests.
#[tokio::test]
async fn disk_is_not_promised_where_nothing_is_stable() {
    let volatile = tempfile::tempdir_in("/dev/shm").unwrap();
    assert_eq!(volatile_file_system(volatile.path()).unwrap(), Some("tmpfs"));
    let mut levels = settings(volatile.path());
    let error = Journal::open(levels.clone()).map(drop).unwrap_err();
    assert!(matches!(error, JournalError::Unstable { kind: "tmpfs", .. }), "{error}");
    levels.writes = Durability::Os;
    let (journal, _) = Journal::open(levels).unwrap();
    assert!(!journal.is_stable());
    let refused = journal.admit(&opening(DecisionId::generate()), Durability::Disk).await;
    assert!(matches!(refused, Err(AuditUnavailable::Unstable)));
    journal.append_change(&ChangeRecord::new(Kind::Config, "config.load")).await.unwrap();
    write(&journal, 3).await;
    drop(journal);
    assert_eq!(records(volatile.path()).len(), 4);
}

/// What is never closed never gets old enough to go.
#[tokio::test]
async fn a_segment_is_closed_by_its_age_if_it_holds_anything() {
    let dir = folder();
    let aging = linkgate::audit::AuditSettings { segment_age: Some(Duration::from_millis(20)), ..settings(dir.path()) };
    let journal = Journal::open(aging).unwrap().0;
    write(&journal, 1).await;
    eventually("it is closed", || segments(dir.path()).unwrap().len() == 2).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(segments(dir.path()).unwrap(), [1, 2], "a header alone does not get old");
    write(&journal, 1).await;
    eventually("the next one is closed", || segments(dir.path()).unwrap().len() == 3).await;
    journal.close();
    assert_eq!(sound(dir.path()).segments, 3);
}
