//! What the journal asks of a file system, so that tests can give it a faulty one.
//!
//! Five calls on a segment and three around it; everything else (locks, listing, reading) is plain `std::fs`.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// One segment, open for writing.
pub trait SegmentFile: Send + Sync {
    /// Writes all of it or fails; after a failure any part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// To stable storage, data and what is needed to read it.
    fn sync(&self) -> io::Result<()>;
    /// Sets room aside beyond the end, without changing the length. `false`: this file system cannot.
    fn reserve(&self, offset: u64, length: u64) -> io::Result<bool>;
    /// Whether this file is still what stands at `path`: one that was moved away or deleted takes writes all the same.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
}

/// Where segments live.
pub trait Medium: Send + Sync {
    /// Fails if it is there already.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>>;
    /// Names in the folder to stable storage.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// What is synced is kept elsewhere, and the folder may be lost (see `mirror`): a sync that failed has lost nothing and
    /// is done again, and only what is synced outlives the process.
    fn elsewhere(&self) -> bool {
        false
    }
}

impl fmt::Debug for dyn Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Medium")
    }
}

/// The file system itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsMedium;

impl Medium for OsMedium {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        // Audit records name people: nobody but the owner reads them.
        Ok(Arc::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(OpenOptions::new().write(true).open(path)?))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl SegmentFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<bool> {
        match fallocate(self, FallocateFlags::KEEP_SIZE, offset, length) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let own = self.metadata()?;
        match std::fs::metadata(path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Name of a temporary file system under `dir`, where nothing is ever on stable storage.
pub fn volatile_file_system(dir: &Path) -> io::Result<Option<&'static str>> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let kind = rustix::fs::statfs(dir)?.f_type;
    // The field's width and sign differ by architecture; the magic numbers have 32 bits.
    Ok(match u64::try_from(kind & 0xffff_ffff).unwrap_or_default() {
        TMPFS => Some("tmpfs"),
        RAMFS => Some("ramfs"),
        _ => None,
    })
}
