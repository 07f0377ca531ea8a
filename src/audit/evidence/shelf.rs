//! The checkpoints beside the journal: one JSON line each in `checkpoints.log`, oldest first.
//!
//! The file is a convenience, not evidence: who can rewrite the journal can rewrite it too. What counts are copies elsewhere
//! and, for a start, the one in the database. A torn last line is what a crash leaves and is cut off by the next server.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::checkpoint::{Cause, Kept};
use crate::audit::chain::{ChainHead, ChainId};

/// Name of the file in the journal's folder.
pub const SHELF_FILE: &str = "checkpoints.log";
/// Longer than any line.
const TAIL_BYTES: u64 = 64 << 10;

pub fn path(dir: &Path) -> PathBuf {
    dir.join(SHELF_FILE)
}

/// The file, open for the one server that appends to it.
#[derive(Debug)]
pub struct Shelf(File);

impl Shelf {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(path(dir))?;
        let (start, tail) = tail(&mut file)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < tail.len() {
            file.set_len(start + u64::try_from(whole).unwrap_or_default())?;
        }
        Ok(Self(file))
    }

    /// On stable storage when it returns.
    pub fn add(&mut self, kept: &[Kept]) -> io::Result<()> {
        if kept.is_empty() {
            return Ok(());
        }
        self.0.write_all(&lines(kept)?)?;
        self.0.sync_data()
    }
}

fn lines(kept: &[Kept]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for one in kept {
        // The tree is needed only where older segments may be pruned.
        let peaks = if one.cause == Cause::Segment { one.peaks.clone() } else { Vec::new() };
        serde_json::to_writer(&mut lines, &Kept { peaks, ..one.clone() })?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// The end of the file, and where that begins.
fn tail(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let length = file.seek(SeekFrom::End(0))?;
    let start = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((start, bytes))
}

/// Every checkpoint in the file, oldest first; nothing where there is no file.
pub fn each<E: From<io::Error>>(dir: &Path, mut take: impl FnMut(Kept) -> Result<(), E>) -> Result<(), E> {
    let file = match File::open(path(dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        // Without a newline it is being written, or was torn.
        if line.pop() != Some(b'\n') {
            return Ok(());
        }
        take(serde_json::from_slice(&line).map_err(io::Error::from)?)?;
    }
}

/// The newest one.
pub fn last(dir: &Path) -> io::Result<Option<Kept>> {
    let mut file = match File::open(path(dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (_, tail) = tail(&mut file)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = tail.get(..whole).unwrap_or_default().trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    line.filter(|line| !line.is_empty()).map(serde_json::from_slice).transpose().map_err(io::Error::from)
}

/// The last line of this chain that the newest one covers. What cannot be read says nothing and is passed over here: a
/// start does not depend on it, and `audit verify` tells of it.
pub fn last_head(dir: &Path, chain: ChainId) -> io::Result<Option<ChainHead>> {
    let mut file = match File::open(path(dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (_, tail) = tail(&mut file)?;
    let said = |line: &[u8]| serde_json::from_slice::<Kept>(line).ok()?.checkpoint().ok();
    let mut newest = tail.rsplit(|byte| *byte == b'\n').filter_map(said);
    Ok(newest.find(|said| said.chain_id == chain).map(|said| said.head))
}

/// Writes the file anew with those that `keep` says. No server may be running.
pub fn retain(dir: &Path, keep: impl Fn(&Kept) -> bool) -> io::Result<()> {
    let mut left = Vec::new();
    each::<io::Error>(dir, |kept| {
        if keep(&kept) {
            left.push(kept);
        }
        Ok(())
    })?;
    let new = dir.join(format!("{SHELF_FILE}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&lines(&left)?)?;
    file.sync_all()?;
    std::fs::rename(&new, path(dir))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(n: u64, cause: Cause) -> Kept {
        Kept { note: format!("note {n}\n"), cause, segment: n, offset: 0, peaks: vec![Default::default()] }
    }

    fn all(dir: &Path) -> Vec<u64> {
        let mut found = Vec::new();
        each::<io::Error>(dir, |kept| {
            found.push(kept.segment);
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn a_shelf_is_read_back_and_a_torn_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!((last(dir.path()).unwrap(), all(dir.path())), (None, vec![]));
        let mut shelf = Shelf::open(dir.path()).unwrap();
        assert_eq!(last(dir.path()).unwrap(), None);
        shelf.add(&[kept(1, Cause::Interval), kept(2, Cause::Segment)]).unwrap();
        let found = last(dir.path()).unwrap().unwrap();
        assert_eq!((found.segment, found.peaks.len()), (2, 1));
        std::fs::OpenOptions::new().append(true).open(path(dir.path())).unwrap().write_all(b"{\"note").unwrap();
        assert_eq!((last(dir.path()).unwrap().unwrap().segment, all(dir.path())), (2, vec![1, 2]));
        Shelf::open(dir.path()).unwrap().add(&[kept(3, Cause::Stop)]).unwrap();
        assert_eq!(all(dir.path()), [1, 2, 3]);
        assert!(last(dir.path()).unwrap().unwrap().peaks.is_empty(), "only a segment's end needs its tree");
        retain(dir.path(), |kept| kept.cause == Cause::Segment).unwrap();
        assert_eq!(all(dir.path()), [2]);
        std::fs::write(path(dir.path()), "nonsense\n{}\n").unwrap();
        assert!(each::<io::Error>(dir.path(), |_| Ok(())).is_err());
    }
}
