//! A journal that is kept elsewhere: nothing is promised before it is there, and what could not be kept is kept later.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use linkgate::{
    audit::{
        AuditSettings, AuditUnavailable, Durability, Journal,
        evidence::{Checkpointer, shelf},
        medium::{Medium, SegmentFile},
        mirror::{Depot, Lost, Mirror, TakenOver},
        reader::{segment_path, segments},
    },
    domain::DecisionId,
};

use crate::{evidence, support::*};

#[derive(Default)]
struct Memory {
    segments: Mutex<BTreeMap<u64, Vec<u8>>>,
    away: AtomicBool,
    taken: AtomicBool,
    lost: AtomicBool,
}

impl Memory {
    fn text(&self) -> String {
        let segments = self.segments.lock().unwrap();
        segments.values().map(|bytes| String::from_utf8(bytes.clone()).unwrap()).collect()
    }
}

impl Depot for Memory {
    fn keep(&self, segment: u64, start: u64, bytes: &[u8]) -> io::Result<()> {
        self.hold()?;
        let mut segments = self.segments.lock().unwrap();
        let kept = segments.entry(segment).or_default();
        let start = usize::try_from(start).unwrap();
        assert!(start <= kept.len(), "a hole in segment {segment}");
        kept.truncate(start);
        kept.extend_from_slice(bytes);
        assert_eq!(bytes.last(), Some(&b'\n'), "whole lines");
        Ok(())
    }

    fn hold(&self) -> io::Result<()> {
        if self.lost.load(Ordering::SeqCst) {
            return Err(io::Error::other(Lost));
        }
        match (self.taken.load(Ordering::SeqCst), self.away.load(Ordering::SeqCst)) {
            (true, _) => Err(io::Error::other(TakenOver)),
            (_, true) => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(()),
        }
    }
}

fn opened(dir: &Path, depot: &Arc<Memory>) -> Journal {
    let settings = AuditSettings { segment_bytes: 16_000, ..settings(dir) };
    Journal::open_kept(settings, None, Arc::new(Mirror::new(Arc::clone(depot) as Arc<dyn Depot>))).unwrap().0
}

fn folder_text(dir: &Path) -> String {
    let numbers = segments(dir).unwrap().into_iter();
    numbers.map(|number| fs::read_to_string(segment_path(dir, number)).unwrap()).collect()
}

#[tokio::test]
async fn nothing_is_promised_before_it_is_kept_and_what_could_not_be_is_kept_later() {
    let (dir, depot) = (folder(), Arc::new(Memory::default()));
    let journal = opened(dir.path(), &depot);
    for level in [Durability::Os, Durability::Disk] {
        for _ in 0..30 {
            let id = DecisionId::generate();
            let record = journal.admit(&opening(id), level).await.unwrap();
            assert!(depot.text().contains(&id.to_string()), "{level:?}: it is promised and not kept");
            record.complete(done(200));
        }
    }
    let left = journal.admit(&opening(DecisionId::generate()), Durability::Os).await.unwrap();
    depot.away.store(true, Ordering::SeqCst);
    let id = DecisionId::generate();
    let refused = journal.admit(&opening(id), Durability::Os).await;
    assert!(matches!(refused, Err(AuditUnavailable::Away(_))), "{refused:?}");
    assert!(!journal.healthy());
    let again = journal.admit(&opening(DecisionId::generate()), Durability::Memory).await;
    assert!(matches!(again, Err(AuditUnavailable::Away(_))), "{again:?}");
    left.complete(done(204));
    assert!(!depot.text().contains(&id.to_string()));
    depot.away.store(false, Ordering::SeqCst);
    eventually("it goes on by itself", || journal.healthy()).await;
    write(&journal, 60).await;
    journal.settle().await.unwrap();
    journal.close();
    assert!(segments(dir.path()).unwrap().len() > 1, "of several segments");
    assert_eq!(depot.text(), folder_text(dir.path()));
    sound(dir.path());
    // What was refused says so.
    let all = records(dir.path());
    assert_eq!((all[&id].status, all[&id].reason.as_deref()), (Some(503), Some("audit_unavailable")));
    assert_eq!(all.len(), 122);
}

#[tokio::test]
async fn whoever_lost_the_chain_keeps_nothing_more() {
    let (dir, depot) = (folder(), Arc::new(Memory::default()));
    let journal = opened(dir.path(), &depot);
    write(&journal, 3).await;
    journal.settle().await.unwrap();
    depot.taken.store(true, Ordering::SeqCst);
    let before = depot.text();
    let refused = journal.admit(&opening(DecisionId::generate()), Durability::Os).await;
    assert!(matches!(refused, Err(AuditUnavailable::TakenOver)), "{refused:?}");
    // For good: the chain has another writer.
    depot.taken.store(false, Ordering::SeqCst);
    let refused = journal.admit(&opening(DecisionId::generate()), Durability::Os).await;
    assert!(matches!(refused, Err(AuditUnavailable::TakenOver)), "{refused:?}");
    journal.close();
    assert!(depot.text().starts_with(&before));
}

/// A backlog goes in several runs: should the server end between two of them, half a line could never be cut off again.
#[test]
fn each_run_ends_with_a_line() {
    let (dir, depot) = (folder(), Arc::new(Memory::default()));
    let mirror = Mirror::new(Arc::clone(&depot) as Arc<dyn Depot>);
    let file = mirror.create(&segment_path(dir.path(), 1)).unwrap();
    let line = |length: usize| format!("{}\n", "x".repeat(length));
    let text = [line(300_000).repeat(40), line(9 << 20), line(5)].concat();
    file.write_at(text.as_bytes(), 0).unwrap();
    // What is kept asserts it of every run.
    file.sync().unwrap();
    assert!(depot.text() == text);
}

#[tokio::test]
async fn what_was_kept_and_is_lost_ends_the_journal() {
    let (dir, depot) = (folder(), Arc::new(Memory::default()));
    let journal = opened(dir.path(), &depot);
    write(&journal, 3).await;
    journal.settle().await.unwrap();
    depot.lost.store(true, Ordering::SeqCst);
    let before = depot.text();
    let refused = journal.admit(&opening(DecisionId::generate()), Durability::Os).await;
    assert!(matches!(refused, Err(AuditUnavailable::Lost)), "{refused:?}");
    depot.lost.store(false, Ordering::SeqCst);
    let refused = journal.admit(&opening(DecisionId::generate()), Durability::Os).await;
    assert!(matches!(refused, Err(AuditUnavailable::Lost)), "for good: {refused:?}");
    depot.lost.store(true, Ordering::SeqCst);
    journal.close();
    assert_eq!(depot.text(), before);
    // What was lost is in the folder still.
    assert!(folder_text(dir.path()).starts_with(&before));
}

/// A mirror that has something written at the very moment in which a segment is begun: behind the last sync of the one
/// before, and into that.
struct Between {
    mirror: Mirror,
    depot: Arc<Memory>,
    journal: Arc<OnceLock<Journal>>,
}

impl Medium for Between {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        if let Some(journal) = self.journal.get().filter(|_| !self.depot.away.swap(true, Ordering::SeqCst)) {
            let (late, done) = (opening(DecisionId::generate()), done(200));
            journal.record(&late, &done, Durability::Memory).now_or_never().unwrap().unwrap();
        }
        self.mirror.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        self.mirror.open(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.mirror.sync_dir(dir)
    }

    fn elsewhere(&self) -> bool {
        true
    }
}

/// The end of a segment is signed once the walk comes by; its last lines may have come in behind the last sync.
#[tokio::test]
async fn no_end_of_a_segment_is_signed_before_it_is_kept() {
    let (dir, depot, handle) = (folder(), Arc::new(Memory::default()), Arc::new(OnceLock::new()));
    let settings = AuditSettings { segment_bytes: 16_000, ..settings(dir.path()) };
    let mirror = Mirror::new(Arc::clone(&depot) as Arc<dyn Depot>);
    let medium = Between { mirror, depot: Arc::clone(&depot), journal: Arc::clone(&handle) };
    let journal = Journal::open_kept(settings, None, Arc::new(medium)).unwrap().0;
    handle.set(journal.clone()).unwrap();
    let store = Arc::new(evidence::Memory::default());
    let mut checkpointer = Checkpointer::new(journal.clone(), store, evidence::signer(), Duration::from_secs(3600));
    while journal.status().written.segment == 1 {
        // The last of them finds the depot away.
        let admitted = journal.admit(&opening(DecisionId::generate()), Durability::Memory).await;
        if let Ok(record) = admitted {
            record.complete(done(200));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let finished = fs::read_to_string(segment_path(dir.path(), 1)).unwrap();
    assert!(!depot.text().starts_with(&finished), "its last lines are not kept yet");
    checkpointer.sign_now().await.unwrap_err();
    assert!(shelf::last(dir.path()).unwrap().is_none(), "it was signed before it was kept");
    depot.away.store(false, Ordering::SeqCst);
    eventually("it goes on by itself", || journal.healthy()).await;
    checkpointer.sign_now().await.unwrap();
    assert!(depot.text().starts_with(&finished));
    assert!(shelf::last(dir.path()).unwrap().is_some());
    // The medium holds the journal, and the journal the medium.
    journal.close();
}
