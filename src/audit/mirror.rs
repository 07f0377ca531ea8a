//! A journal that is kept elsewhere than in its folder: `audit.store = "postgres"`, for replicas without a volume.
//!
//! The folder is a working copy. The writer writes to it as ever, and its readers read it; but a sync brings what was written
//! since the last one into the [`Depot`], and nothing is promised before that. So a sync that failed has lost nothing: the
//! same bytes are given again. Segments are kept in their order, each up to some end of a line.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use memchr::memrchr;

use super::medium::{Medium, OsMedium, SegmentFile};

/// Given to the depot at once.
const RUN_BYTES: u64 = 4 << 20;
/// How often the depot hears of a server that has nothing to keep.
const HOLD: Duration = Duration::from_secs(1);

/// Where the journal is kept. Called on threads that may block.
pub trait Depot: Send + Sync {
    /// On stable storage when it returns. After an error the same bytes are given again, perhaps with more behind them.
    fn keep(&self, segment: u64, start: u64, bytes: &[u8]) -> io::Result<()>;

    /// Nothing is to be kept just now: only says that this server is still there, and finds out whether it may.
    fn hold(&self) -> io::Result<()>;
}

/// Another server has taken the chain over: nothing of this one is kept any more.
#[derive(Debug, thiserror::Error)]
#[error("another server writes this audit chain now")]
pub struct TakenOver;

/// What was kept, and confirmed, is not there any more: nothing is kept behind a hole.
#[derive(Debug, thiserror::Error)]
#[error("audit records that were kept are not there any more")]
pub struct Lost;

/// Why this is the end of the journal, and no failure of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    TakenOver,
    Lost,
}

pub(super) fn is_over(error: &io::Error) -> Option<Over> {
    let inner = error.get_ref()?;
    let lost = || inner.is::<Lost>().then_some(Over::Lost);
    inner.is::<TakenOver>().then_some(Over::TakenOver).or_else(lost)
}

/// The folder, and what of it is not in the depot yet.
pub struct Mirror {
    depot: Arc<dyn Depot>,
    /// Segments with something to keep, ascending; one sender at a time.
    sending: Arc<Mutex<Sending>>,
}

struct Sending {
    /// Ascending.
    files: Vec<Arc<Copied>>,
    /// When the depot was heard of last.
    heard: Instant,
}

struct Copied {
    number: u64,
    file: File,
    /// Behind the last whole write.
    end: AtomicU64,
    /// Up to where the depot has it.
    kept: AtomicU64,
}

struct Segment {
    depot: Arc<dyn Depot>,
    sending: Arc<Mutex<Sending>>,
    own: Arc<Copied>,
}

impl Mirror {
    pub fn new(depot: Arc<dyn Depot>) -> Self {
        Self { depot, sending: Arc::new(Mutex::new(Sending { files: Vec::new(), heard: Instant::now() })) }
    }

    fn open_as(&self, path: &Path, options: &mut OpenOptions, kept: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("segment-")?.get(..10)?.parse().ok());
        let number = number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no name of a segment"))?;
        let file = options.read(true).write(true).mode(0o600).open(path)?;
        let own = Arc::new(Copied { number, file, end: AtomicU64::new(kept), kept: AtomicU64::new(kept) });
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let files = &mut sending.files;
        // One that was begun and withdrawn is begun anew.
        files.retain(|before| before.number < number);
        files.push(Arc::clone(&own));
        Ok(Arc::new(Segment { depot: Arc::clone(&self.depot), sending: Arc::clone(&self.sending), own }))
    }
}

impl Medium for Mirror {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        self.open_as(path, OpenOptions::new().create_new(true), 0)
    }

    /// What is there was restored from the depot.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        let kept = std::fs::metadata(path)?.len();
        self.open_as(path, &mut OpenOptions::new(), kept)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsMedium.sync_dir(dir)
    }

    fn elsewhere(&self) -> bool {
        true
    }
}

impl Copied {
    /// Whole lines from `kept` on, about as much as one run holds: a server that ends between two runs must not leave half a
    /// line behind, which nobody could cut off again.
    fn lines(&self, kept: u64, end: u64) -> io::Result<Vec<u8>> {
        let read = |length: u64| {
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, kept).map(|()| bytes)
        };
        let mut bytes = read((end - kept).min(RUN_BYTES))?;
        if end - kept > RUN_BYTES {
            match memrchr(b'\n', &bytes) {
                Some(at) => bytes.truncate(at + 1),
                // One line is longer than that.
                None => bytes = read(end - kept)?,
            }
        }
        Ok(bytes)
    }

    /// Whether there was anything.
    fn send(&self, depot: &dyn Depot) -> io::Result<bool> {
        let mut sent = false;
        loop {
            let (kept, end) = (self.kept.load(Ordering::Acquire), self.end.load(Ordering::Acquire));
            if kept >= end {
                return Ok(sent);
            }
            let bytes = self.lines(kept, end)?;
            depot.keep(self.number, kept, &bytes)?;
            self.kept.store(kept + u64::try_from(bytes.len()).map_err(io::Error::other)?, Ordering::Release);
            sent = true;
        }
    }
}

impl SegmentFile for Segment {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.own.file.write_all_at(bytes, offset)?;
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.own.end.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        if length < self.own.kept.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "what is kept elsewhere cannot be cut off here"));
        }
        self.own.file.set_len(length)?;
        self.own.end.fetch_min(length, Ordering::AcqRel);
        Ok(())
    }

    /// With all segments before this one.
    fn sync(&self) -> io::Result<()> {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heard = false;
        for file in sending.files.iter().filter(|file| file.number <= self.own.number) {
            heard |= file.send(self.depot.as_ref())?;
        }
        sending.files.retain(|file| file.number >= self.own.number);
        if !heard && sending.heard.elapsed() >= HOLD {
            self.depot.hold()?;
            heard = true;
        }
        if heard {
            sending.heard = Instant::now();
        }
        Ok(())
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<bool> {
        self.own.file.reserve(offset, length)
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.own.file.is_at(path)
    }
}
