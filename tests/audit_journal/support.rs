//! What the tests share: journals in temporary folders, sample records, and a medium that fails on command.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use linkgate::{
    audit::{
        AuditSettings, Completion, Decision, Durability, Journal, Opening, Record, RecordFilter,
        medium::{Medium, OsMedium, SegmentFile},
        reader::{segment_path, segments},
        scan,
    },
    domain::{DecisionId, Millis},
};
use tempfile::TempDir;

/// A folder on a real disk: `/tmp` may be a temporary file system.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new().prefix("audit-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub(crate) fn settings(dir: &Path) -> AuditSettings {
    AuditSettings {
        dir: dir.to_owned(),
        segment_bytes: 1 << 30,
        segment_age: None,
        writes: Durability::Disk,
        reads: Durability::Os,
        commit_timeout: Duration::from_secs(20),
        flush_interval: Duration::from_millis(5),
    }
}

pub(crate) fn open(dir: &Path) -> Journal {
    Journal::open(settings(dir)).unwrap().0
}

pub(crate) fn opening(id: DecisionId) -> Opening<'static> {
    Opening {
        user_id: Some("u-1"),
        managed_tenant_id: Some("t-1"),
        session_id: Some("a-session"),
        decision: Decision::Allow,
        action: Some("partner.billing.read"),
        ..Opening::new(id, Millis::now(), "GET", "/api/v1/invoices?q=secret", "req_1")
    }
}

pub(crate) fn done(status: u16) -> Completion {
    Completion { status: Some(status), bytes: 10, ..Completion::default() }
}

/// Opens and completes `count` records at `os`.
pub(crate) async fn write(journal: &Journal, count: usize) -> Vec<DecisionId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = DecisionId::generate();
        journal.admit(&opening(id), Durability::Os).await.unwrap().complete(done(200));
        ids.push(id);
    }
    ids
}

/// Every record in the journal, by id; a repeated id fails the test.
pub(crate) fn records(dir: &Path) -> HashMap<DecisionId, Record> {
    let mut all = HashMap::new();
    scan::export(dir, None, &RecordFilter::default(), |record| {
        let id = record.id;
        assert!(all.insert(id, record).is_none(), "{id} twice");
        Ok(())
    })
    .unwrap();
    all
}

pub(crate) fn sound(dir: &Path) -> linkgate::audit::verify::Verification {
    let result = linkgate::audit::verify::verify(dir, Default::default()).unwrap();
    assert!(result.is_sound(), "{:?}", result.findings);
    result
}

pub(crate) fn last_segment(dir: &Path) -> PathBuf {
    segment_path(dir, *segments(dir).unwrap().last().unwrap())
}

pub(crate) fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

pub(crate) fn write_lines(path: &Path, lines: &[String]) {
    std::fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// Waits until it holds, for at most ten seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What the medium does wrong just now.
#[derive(Default)]
pub(crate) struct Faults {
    /// Bytes that still fit on the disk; unlimited if negative.
    room: AtomicI64,
    pub no_reserve: AtomicBool,
    pub sync_fails: AtomicBool,
    pub sync_blocks: AtomicBool,
    /// From the next segment that is begun on, syncs block.
    pub blocks_when_begun: AtomicBool,
    pub truncate_fails: AtomicBool,
    pub syncs: AtomicU64,
    pub writes: AtomicU64,
    pub sync_ms: AtomicU64,
}

impl Faults {
    pub(crate) fn new() -> Arc<Self> {
        let faults = Self::default();
        faults.room.store(-1, Ordering::SeqCst);
        Arc::new(faults)
    }

    pub(crate) fn leave_room(&self, bytes: i64) {
        self.room.store(bytes, Ordering::SeqCst);
    }

    /// Takes as much of `wanted` as there is.
    fn take(&self, wanted: usize) -> usize {
        let mut granted = wanted;
        let _ = self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| {
            if room < 0 {
                granted = wanted;
                return None;
            }
            granted = wanted.min(usize::try_from(room).unwrap());
            Some(room - i64::try_from(granted).unwrap())
        });
        granted
    }
}

#[derive(Clone)]
pub(crate) struct FaultyMedium(pub Arc<Faults>);

struct FaultyFile {
    file: Arc<dyn SegmentFile>,
    faults: Arc<Faults>,
    /// End of the room that was set aside: writes below it need none.
    reserved: AtomicU64,
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl Medium for FaultyMedium {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        let (file, faults) = (OsMedium.create(path)?, Arc::clone(&self.0));
        if faults.blocks_when_begun.swap(false, Ordering::SeqCst) {
            faults.sync_blocks.store(true, Ordering::SeqCst);
        }
        Ok(Arc::new(FaultyFile { file, faults, reserved: AtomicU64::new(0) }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        let (file, faults) = (OsMedium.open(path)?, Arc::clone(&self.0));
        let length = std::fs::metadata(path)?.len();
        Ok(Arc::new(FaultyFile { file, faults, reserved: AtomicU64::new(length) }))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsMedium.sync_dir(dir)
    }
}

impl SegmentFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.faults.writes.fetch_add(1, Ordering::SeqCst);
        let reserved = self.reserved.load(Ordering::SeqCst);
        let end = offset + bytes.len() as u64;
        let beyond = usize::try_from(end.saturating_sub(reserved.max(offset))).unwrap();
        let granted = self.faults.take(beyond);
        if granted < beyond {
            // As a real disk does it: a part is written.
            self.file.write_at(&bytes[..bytes.len() - beyond + granted], offset)?;
            return Err(full());
        }
        self.file.write_at(bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        if self.faults.truncate_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("truncate"));
        }
        self.reserved.store(length, Ordering::SeqCst);
        self.file.truncate(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        while self.faults.sync_blocks.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(self.faults.sync_ms.load(Ordering::SeqCst)));
        if self.faults.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.file.sync()
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.file.is_at(path)
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<bool> {
        if self.faults.no_reserve.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let wanted = usize::try_from(length).unwrap();
        let granted = self.faults.take(wanted);
        if granted < wanted {
            // All or nothing: what was taken is given back.
            self.faults.room.fetch_add(i64::try_from(granted).unwrap(), Ordering::SeqCst);
            return Err(full());
        }
        self.reserved.store(offset + length, Ordering::SeqCst);
        Ok(true)
    }
}

pub(crate) fn open_faulty(settings: AuditSettings, faults: &Arc<Faults>) -> Journal {
    Journal::open_on(settings, Arc::new(FaultyMedium(Arc::clone(faults)))).unwrap().0
}
