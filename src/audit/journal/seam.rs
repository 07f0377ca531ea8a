//! The seam between two segments, while the older one is not on stable storage yet.
//!
//! Nobody waits for a sync to begin a new segment: its first lines are written while the last ones of the segment before
//! are still on their way. Until they have arrived a mark lies beside the new segment (`segment-NUMBER.seam`). It is there
//! before the new segment is, and nothing of that is promised stable storage before it is gone. So after a power failure
//! a marked segment whose predecessor has lost its end holds nothing that was promised; it is put aside with that end.
//! Without a mark no segment but the last one may have lost anything.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::audit::{
    line::Line,
    reader::{Lines, Step, segment_path},
};

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:010}.seam"))
}

/// Before the segment is created; on stable storage with the folder.
pub(super) fn mark(dir: &Path, number: u64) -> io::Result<()> {
    File::create(path(dir, number)).map(drop)
}

pub(super) fn is_marked(dir: &Path, number: u64) -> io::Result<bool> {
    path(dir, number).try_exists()
}

/// The segment before is on stable storage. Should the mark come back after a power failure, it marks nothing: that
/// segment is whole.
pub(super) fn unmark(dir: &Path, number: u64) -> io::Result<()> {
    match fs::remove_file(path(dir, number)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// At a start: the process ended before the sync did.
pub(super) fn close(dir: &Path, number: u64) -> io::Result<()> {
    if is_marked(dir, number)? {
        File::open(segment_path(dir, number.saturating_sub(1)))?.sync_all()?;
        unmark(dir, number)?;
    }
    Ok(())
}

/// Number of a segment's first line in the chain; `None`: there is none that can be read.
pub(super) fn first_seq(dir: &Path, number: u64) -> io::Result<Option<u64>> {
    let mut lines = Lines::open(&segment_path(dir, number), 0)?;
    let whole = lines.step()? == Step::Line;
    Ok(Line::parse(lines.bytes()).ok().filter(|_| whole).map(|line| line.seq))
}
