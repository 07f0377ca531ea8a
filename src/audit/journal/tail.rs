//! The end of a segment: what a crash leaves there, told from what was lost or altered.
//!
//! A process that is killed leaves whole lines and at most part of one behind them. A machine that loses power may leave
//! zeros too, in whole sectors, where data had not reached the disk; never in what a sync had covered. So a tail is torn,
//! and may be cut off, only where no whole line stands behind it. Zeros with whole lines behind them may be such a hole,
//! in lines of which no more was promised than `os`; or a disk that lost what was synced, or somebody's work. Nothing
//! here can tell these apart: it is refused, and nothing is changed.

use std::{fs, path::Path};

use super::{JournalError, io_error};
use crate::audit::{
    check::Checker,
    line::{Line, NotALine},
    reader::{Lines, Step, segment_path},
};

/// The least that a disk writes at once: zeros that a power failure left end where a sector does.
const SECTOR_BYTES: u64 = 512;

/// Checks one segment; gives where its whole lines end and how many bytes of a torn tail follow.
pub(super) fn walk(dir: &Path, number: u64, checker: &mut Checker) -> Result<(u64, u64), JournalError> {
    let path = segment_path(dir, number);
    let mut lines = Lines::open(&path, 0).map_err(io_error("read", &path))?;
    while next_whole(&mut lines, &path)? {
        let (_, faults) = checker.line(lines.bytes(), number, lines.number() == 1);
        if let Some(fault) = faults.into_iter().next() {
            return Err(JournalError::Broken { file: path, line: lines.number(), fault });
        }
    }
    let length = fs::metadata(&path).map_err(io_error("read", &path))?.len();
    Ok((lines.start(), length.saturating_sub(lines.start())))
}

/// Whether a segment begins with a whole line; one that does not holds nothing, as a crash leaves it while it is begun.
pub(super) fn has_header(dir: &Path, number: u64) -> Result<bool, JournalError> {
    let path = segment_path(dir, number);
    let mut lines = Lines::open(&path, 0).map_err(io_error("read", &path))?;
    next_whole(&mut lines, &path)
}

/// Steps to the next line. `false`: the whole lines end before it, and what follows is a torn tail or nothing.
fn next_whole(lines: &mut Lines, path: &Path) -> Result<bool, JournalError> {
    if lines.step().map_err(io_error("read", path))? != Step::Line {
        return Ok(false);
    }
    // No line that is written contains one.
    if !lines.bytes().contains(&0) {
        return Ok(true);
    }
    torn_from(path, lines.start(), lines.number()).map(|()| false)
}

/// Whether all from `start` on, which begins with a line that holds zeros, is what a crash leaves; else why not.
fn torn_from(path: &Path, start: u64, line: u64) -> Result<(), JournalError> {
    let mut lines = Lines::open(path, start).map_err(io_error("read", path))?;
    let altered =
        |what: &str| JournalError::Broken { file: path.to_owned(), line, fault: NotALine(what.to_owned()).into() };
    // What has no newline was never a whole line.
    while lines.step().map_err(io_error("read", path))? == Step::Line {
        let piece = lines.bytes();
        if !ends_with_sectors(piece, lines.start()) {
            return Err(altered("it holds zeros, and not as a crash leaves them"));
        }
        let zero = piece.iter().rposition(|byte| *byte == 0);
        // A hole may also end just where a line begins.
        if zero.is_none_or(|at| Line::parse(piece.get(at + 1..).unwrap_or_default()).is_ok()) {
            return Err(JournalError::Hole { file: path.to_owned(), line, keep: start.saturating_add(1) });
        }
    }
    Ok(())
}

/// Whether each run of zeros ends where a sector does. `start`: of the bytes in the file.
fn ends_with_sectors(bytes: &[u8], start: u64) -> bool {
    // A newline follows the bytes, so every run has an end here.
    let followed = bytes.iter().copied().chain([b'\n']);
    let mut before = 1;
    for (offset, byte) in (start..).zip(followed) {
        if before == 0 && byte != 0 && !offset.is_multiple_of(SECTOR_BYTES) {
            return false;
        }
        before = byte;
    }
    true
}
