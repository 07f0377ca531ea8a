//! Full disks, failing writes and failing syncs: refused, told, and nothing lost.

use std::{collections::HashMap, sync::atomic::Ordering::SeqCst, time::Duration};

use linkgate::{
    audit::{AuditUnavailable, Durability, Journal, OpenRecord},
    domain::DecisionId,
};

use crate::support::*;

/// Fills the disk while records are open: openings are refused, and every accepted record is still completed, on the
/// full disk, in the room that was set aside for it.
#[tokio::test]
async fn a_full_disk_refuses_openings_and_keeps_completions() {
    let (dir, faults) = (folder(), Faults::new());
    faults.leave_room(1 << 20);
    let journal = open_faulty(settings(dir.path()), &faults);
    faults.leave_room(0);
    let mut open = Vec::new();
    let refused = loop {
        let id = DecisionId::generate();
        match journal.admit(&opening(id), Durability::Os).await {
            Ok(record) => open.push(record),
            Err(error) => break (id, error),
        }
        assert!(open.len() < 5_000);
    };
    assert!(matches!(&refused.1, AuditUnavailable::Write(error) if error.kind() == std::io::ErrorKind::StorageFull));
    assert!(open.len() > 100 && !journal.healthy());
    let ids: Vec<DecisionId> = open.iter().map(OpenRecord::id).collect();
    open.into_iter().for_each(|record| record.complete(done(200)));
    eventually("all completions on the full disk", || journal.status().owed_bytes == 0).await;
    let found = records(dir.path());
    assert!(ids.iter().all(|id| found[id].status == Some(200)) && found.len() == ids.len());

    faults.leave_room(-1);
    eventually("recovery", || journal.healthy()).await;
    write(&journal, 1).await;
    drop(journal);
    assert!(!records(dir.path()).contains_key(&refused.0), "what was refused never happened");
    sound(dir.path());
}

/// No room can be set aside on this file system: writes fail half way, are cut off again, and completions wait.
#[tokio::test]
async fn a_write_that_fails_half_way_is_cut_off_and_done_again() {
    let (dir, faults) = (folder(), Faults::new());
    faults.no_reserve.store(true, SeqCst);
    let journal = open_faulty(settings(dir.path()), &faults);
    let ids = write(&journal, 3).await;
    let held = journal.admit(&opening(DecisionId::generate()), Durability::Os).await.unwrap();
    let before = std::fs::metadata(last_segment(dir.path())).unwrap().len();
    faults.leave_room(200);
    let refused = journal.admit(&opening(DecisionId::generate()), Durability::Os).await;
    assert!(matches!(refused, Err(AuditUnavailable::Write(_))));
    assert_eq!(std::fs::metadata(last_segment(dir.path())).unwrap().len(), before, "the torn part is cut off");
    let held_id = held.id();
    held.complete(done(200));
    for _ in 0..3 {
        let refused = journal.admit(&opening(DecisionId::generate()), Durability::Memory).await;
        assert!(matches!(refused, Err(AuditUnavailable::Write(_))), "not even buffered while completions are owed");
    }
    assert!(journal.status().owed_bytes > 0);
    faults.leave_room(-1);
    eventually("recovery", || journal.healthy() && journal.status().owed_bytes == 0).await;
    let found = records(dir.path());
    assert!(ids.iter().chain([&held_id]).all(|id| found[id].status == Some(200)) && found.len() == 4);
    drop(journal);
    sound(dir.path());
}

/// The truncation fails too: nothing is written over the torn part until it is cut off.
#[tokio::test]
async fn a_torn_part_that_cannot_be_cut_off_blocks_writing() {
    let (dir, faults) = (folder(), Faults::new());
    faults.no_reserve.store(true, SeqCst);
    let journal = open_faulty(settings(dir.path()), &faults);
    write(&journal, 1).await;
    journal.settle().await.unwrap();
    faults.truncate_fails.store(true, SeqCst);
    faults.leave_room(300);
    assert!(journal.admit(&opening(DecisionId::generate()), Durability::Os).await.is_err());
    faults.leave_room(-1);
    assert!(journal.admit(&opening(DecisionId::generate()), Durability::Os).await.is_err());
    let beside = linkgate::audit::verify::verify(dir.path(), Default::default()).unwrap();
    assert!(beside.is_sound() && beside.being_written, "a reader sees a line that is being written");
    faults.truncate_fails.store(false, SeqCst);
    eventually("recovery", || journal.healthy()).await;
    write(&journal, 1).await;
    drop(journal);
    assert_eq!(records(dir.path()).len(), 2);
    sound(dir.path());
}

#[tokio::test]
async fn a_failed_sync_poisons_the_journal() {
    let (dir, faults) = (folder(), Faults::new());
    let journal = open_faulty(settings(dir.path()), &faults);
    let held = journal.admit(&opening(DecisionId::generate()), Durability::Os).await.unwrap();
    faults.sync_fails.store(true, SeqCst);
    let id = DecisionId::generate();
    let refused = journal.admit(&opening(id), Durability::Disk).await;
    assert!(matches!(refused, Err(AuditUnavailable::Poisoned(_))), "{refused:?}");
    // A later sync that succeeds proves nothing about the first.
    faults.sync_fails.store(false, SeqCst);
    for level in [Durability::Memory, Durability::Os, Durability::Disk] {
        let refused = journal.admit(&opening(DecisionId::generate()), level).await;
        let error = refused.unwrap_err();
        assert!(matches!(error, AuditUnavailable::Poisoned(_)));
        assert!(error.to_string().contains("restart linkgate"), "{error}");
    }
    assert!(!journal.healthy());
    let held_id = held.id();
    held.complete(done(200));
    drop(journal);
    let found = records(dir.path());
    assert_eq!(found[&held_id].status, Some(200), "what can still be written is");
    assert_eq!(found[&id].status, Some(503));
    write(&open(dir.path()), 1).await;
    sound(dir.path());
}

/// Whoever waits when the disk fills up is answered within the timeout, and the keeper does not spin.
#[tokio::test]
async fn waiting_on_a_full_disk_ends() {
    let (dir, faults) = (folder(), Faults::new());
    faults.no_reserve.store(true, SeqCst);
    let mut short = settings(dir.path());
    (short.commit_timeout, short.flush_interval) = (Duration::from_millis(150), Duration::from_millis(20));
    let journal = open_faulty(short, &faults);
    let held = journal.admit(&opening(DecisionId::generate()), Durability::Os).await.unwrap();
    faults.leave_room(0);
    held.complete(done(200));
    let syncs = faults.syncs.load(SeqCst);
    assert!(matches!(journal.settle().await, Err(AuditUnavailable::Timeout)));
    assert!(faults.syncs.load(SeqCst) - syncs <= 1);
    faults.leave_room(-1);
    journal.settle().await.unwrap();
}

/// A new segment that cannot be begun leaves the old one in use.
#[tokio::test]
async fn rotation_fails_without_harm() {
    let (dir, faults) = (folder(), Faults::new());
    let mut small = settings(dir.path());
    (small.segment_bytes, small.flush_interval) = (4_000, Duration::from_millis(1));
    faults.leave_room(3 << 19);
    let journal = open_faulty(small.clone(), &faults);
    faults.leave_room(100);
    let ids = write(&journal, 40).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let more = write(&journal, 1).await;
    assert_eq!(linkgate::audit::reader::segments(dir.path()).unwrap(), [1]);
    drop(journal);
    sound(dir.path());
    faults.leave_room(-1);
    let journal = open_faulty(small, &faults);
    eventually("rotation", || journal.status().written.segment == 2).await;
    drop(journal);
    let found = records(dir.path());
    assert!(ids.iter().chain(&more).all(|id| found[id].status == Some(200)));
    sound(dir.path());
}

/// While a new segment is begun and the disk takes its time, openings at `os` go on, and nothing at `disk` is promised.
#[tokio::test]
async fn nobody_at_os_waits_for_the_sync_between_two_segments() {
    let (dir, faults) = (folder(), Faults::new());
    let mut small = settings(dir.path());
    (small.segment_bytes, small.flush_interval) = (4_000, Duration::from_millis(1));
    let journal = open_faulty(small, &faults);
    faults.blocks_when_begun.store(true, SeqCst);
    // On a thread of its own: should it wait, it waits under a lock.
    let (told, went) = std::sync::mpsc::channel();
    let writing = std::thread::spawn({
        let journal = journal.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                while journal.status().written.segment == 1 {
                    write(&journal, 1).await;
                }
                write(&journal, 5).await;
            });
            told.send(()).unwrap();
        }
    });
    let went_on = went.recv_timeout(Duration::from_secs(10));
    if went_on.is_ok() {
        let opened = opening(DecisionId::generate());
        let mut stable = Box::pin(journal.admit(&opened, Durability::Disk));
        let waited = tokio::time::timeout(Duration::from_millis(50), stable.as_mut()).await;
        assert!(waited.is_err(), "behind a segment that is not on stable storage");
        assert!(dir.path().join("segment-0000000002.seam").exists());
        faults.sync_blocks.store(false, SeqCst);
        stable.await.unwrap().complete(done(200));
    }
    faults.sync_blocks.store(false, SeqCst);
    writing.join().unwrap();
    went_on.expect("openings at `os` go on");
    journal.settle().await.unwrap();
    eventually("the mark is gone", || !dir.path().join("segment-0000000002.seam").exists()).await;
    drop(journal);
    sound(dir.path());
}

/// What comes before a new segment cannot be brought to stable storage: nothing is promised behind it either.
#[tokio::test]
async fn a_sync_that_fails_between_two_segments_poisons_the_journal() {
    let (dir, faults) = (folder(), Faults::new());
    let mut small = settings(dir.path());
    (small.segment_bytes, small.flush_interval) = (4_000, Duration::from_millis(1));
    let journal = open_faulty(small.clone(), &faults);
    faults.blocks_when_begun.store(true, SeqCst);
    let mut ids = Vec::new();
    while journal.status().written.segment == 1 {
        ids.extend(write(&journal, 1).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    faults.sync_fails.store(true, SeqCst);
    faults.sync_blocks.store(false, SeqCst);
    eventually("it takes nothing", || !journal.healthy()).await;
    assert!(matches!(journal.status().trouble, Some(AuditUnavailable::Poisoned(_))));
    drop(journal);
    assert!(dir.path().join("segment-0000000002.seam").exists());
    // The process ended and the machine did not: all of it is there, and the next start sees to the rest.
    let journal = Journal::open(small).unwrap().0;
    assert!(!dir.path().join("segment-0000000002.seam").exists());
    drop(journal);
    let found = records(dir.path());
    assert!(ids.iter().all(|id| found[id].status == Some(200)));
    sound(dir.path());
}

/// Who deletes the lock lets another server in: this one takes nothing more.
#[tokio::test]
async fn a_lock_that_was_deleted_ends_the_writing() {
    let dir = folder();
    let journal = open(dir.path());
    write(&journal, 1).await;
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    eventually("it is seen", || !journal.healthy()).await;
    // Another file is another lock.
    std::fs::write(dir.path().join("lock"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for level in [Durability::Memory, Durability::Os, Durability::Disk] {
        let refused = journal.admit(&opening(DecisionId::generate()), level).await;
        assert!(matches!(refused, Err(AuditUnavailable::Unlocked)), "{refused:?}");
    }
    drop(journal);
    write(&open(dir.path()), 1).await;
    sound(dir.path());
}

/// Faults come and go at random; in the end every accepted record is there once, completed as it was, and no refused
/// one is, other than as a refusal.
#[tokio::test]
async fn whatever_happens_is_reconciled() {
    let mut refusals = 0;
    for seed in 0..6u64 {
        let (dir, faults) = (folder(), Faults::new());
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut dice = move |sides: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % sides
        };
        faults.no_reserve.store(seed % 2 == 0, SeqCst);
        // Where room can be set aside, the first piece of it must run out within the test.
        faults.leave_room(if seed % 2 == 0 { -1 } else { 200_000 });
        let mut small = settings(dir.path());
        (small.segment_bytes, small.flush_interval) = (60_000, Duration::from_millis(1));
        small.commit_timeout = Duration::from_millis(100);
        let journal = open_faulty(small, &faults);
        let (mut open, mut accepted, mut refused) = (Vec::new(), HashMap::new(), Vec::new());
        for step in 0..4000u64 {
            match dice(40) {
                0 => faults.leave_room(i64::try_from(dice(3000)).unwrap()),
                1 | 2 => faults.leave_room(-1),
                3 => faults.truncate_fails.store(dice(2) == 0, SeqCst),
                4 => tokio::time::sleep(Duration::from_millis(2)).await,
                5..=20 if !open.is_empty() => {
                    let at = usize::try_from(dice(open.len() as u64)).unwrap();
                    let record: OpenRecord = open.swap_remove(at);
                    let status = 200 + u16::try_from(dice(300)).unwrap();
                    accepted.insert(record.id(), status);
                    record.complete(done(status));
                }
                _ => {
                    let level = [Durability::Memory, Durability::Os, Durability::Os, Durability::Disk]
                        [usize::try_from(step % 4).unwrap()];
                    let id = DecisionId::generate();
                    match journal.admit(&opening(id), level).await {
                        Ok(record) => open.push(record),
                        Err(_) => refused.push(id),
                    }
                }
            }
        }
        faults.truncate_fails.store(false, SeqCst);
        faults.leave_room(-1);
        for record in open {
            accepted.insert(record.id(), 299);
            record.complete(done(299));
        }
        eventually("recovery", || journal.healthy()).await;
        drop(journal);
        let found = records(dir.path());
        for (id, status) in &accepted {
            assert_eq!(found[id].status, Some(*status), "seed {seed}");
        }
        for id in &refused {
            assert!(found.get(id).is_none_or(|record| record.status == Some(503)), "seed {seed}");
        }
        assert!(accepted.len() > 200, "seed {seed}");
        refusals += refused.len();
        assert_eq!(sound(dir.path()).open_records, 0);
        assert!(Journal::open(settings(dir.path())).unwrap().1.aborted.is_empty());
    }
    assert!(refusals > 500, "{refusals}");
}
