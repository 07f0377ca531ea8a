//! The lock of a journal's folder: one server at a time writes there.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{JournalError, io_error};

/// Locked by the server that writes, for as long as it runs.
pub(super) const LOCK_FILE: &str = "lock";

/// The journal's lock, until it is dropped. Refused where a server runs.
pub(in crate::audit) fn take_lock(dir: &Path) -> Result<File, JournalError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

/// What is known of who writes to a journal.
pub(in crate::audit) enum Writers {
    /// A server holds the lock.
    Server,
    /// Nobody, and nobody can begin while this is held.
    Nobody(Option<File>),
}

/// Looks whether a server runs. A start at the very moment in which the answer is held would be refused: drop it soon.
pub(in crate::audit) fn writers(dir: &Path) -> Result<Writers, JournalError> {
    let path = dir.join(LOCK_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        // No server ever ran on it: a copy, without the lock.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Writers::Nobody(None)),
        Err(error) => return Err(io_error("open", &path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Writers::Nobody(Some(file))),
        Err(TryLockError::WouldBlock) => Ok(Writers::Server),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}
