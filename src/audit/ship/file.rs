//! A file that lines are appended to, and that another one takes the place of at a size.
//!
//! The old one is renamed to `NAME.SEQ`, by the number of its first line; none is ever removed here: whoever collects them
//! does. A torn last line is what a crash leaves, and is cut off: it comes again.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::settings::FileSettings;
use crate::audit::medium::SegmentFile;

/// Read at once, backwards, for the last newline.
const TAIL_BYTES: u64 = 64 << 10;

pub(super) struct Rotated {
    settings: FileSettings,
    open: Option<Open>,
}

/// The file of now, locked.
struct Open {
    file: File,
    length: u64,
}

impl Rotated {
    pub(super) fn new(settings: FileSettings) -> Self {
        Self { settings, open: None }
    }

    /// On stable storage when it returns. After an error the file is opened anew, and what was torn is cut off.
    pub(super) fn take(&mut self, lines: &[u8]) -> io::Result<()> {
        let taken = self.append(lines);
        if taken.is_err() {
            self.open = None;
        }
        taken.map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", self.settings.path.display())))
    }

    fn append(&mut self, mut lines: &[u8]) -> io::Result<()> {
        let path = self.settings.path.clone();
        // Somebody else may have moved it away meanwhile.
        if let Some(open) = &self.open
            && !SegmentFile::is_at(&open.file, &path)?
        {
            self.open = None;
        }
        while !lines.is_empty() {
            let open = match &mut self.open {
                Some(open) => open,
                none => none.insert(Open::at(&path)?),
            };
            let fits = fitting(lines, self.settings.size.saturating_sub(open.length), open.length == 0);
            let (now, later) = lines.split_at_checked(fits).unwrap_or((lines, &[]));
            open.file.write_all(now)?;
            open.file.sync_data()?;
            open.length += u64::try_from(now.len()).unwrap_or(u64::MAX);
            lines = later;
            if !lines.is_empty() {
                put_aside(&path)?;
                self.open = None;
            }
        }
        Ok(())
    }
}

/// Bytes of the whole lines that fit into `room`; into an empty file one fits always.
fn fitting(lines: &[u8], room: u64, empty: bool) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    let end = lines.get(..room).and_then(|fit| fit.iter().rposition(|byte| *byte == b'\n')).map(|at| at + 1);
    let first = || lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1);
    end.unwrap_or_else(|| if empty { first() } else { 0 })
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another server ships to it: give each its own `audit.ship.file`";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let found = file.metadata()?.len();
        if found > 0 {
            first_seq(path)?;
        }
        let length = whole(&mut file, found)?;
        if length < found {
            file.set_len(length)?;
        }
        file.sync_all()?;
        sync_folder(path)?;
        Ok(Self { file, length })
    }
}

/// Where the last whole line ends.
fn whole(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(TAIL_BYTES);
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or_default()];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + u64::try_from(at).unwrap_or_default() + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Number of the first line. Anything else than shipped lines is not written to.
fn first_seq(path: &Path) -> io::Result<u64> {
    const BEGIN: &str = "{\"seq\":";
    let mut begin = Vec::new();
    BufReader::new(File::open(path)?).take(64).read_until(b',', &mut begin)?;
    let text = std::str::from_utf8(&begin).unwrap_or_default();
    // A torn first line is the only one, and is cut off.
    if BEGIN.starts_with(text) || text.strip_prefix(BEGIN).is_some_and(|seq| seq.parse::<u64>().is_ok()) {
        return Ok(0);
    }
    text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(',')?.parse().ok()).ok_or_else(|| {
        let what = "it holds something else than shipped lines: name another file as `audit.ship.file`";
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// Renames the full file; never onto one that is there.
fn put_aside(path: &Path) -> io::Result<()> {
    let seq = first_seq(path)?;
    let named = |times: u32| -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{seq:012}"));
        if times > 0 {
            name.push(format!("-{times}"));
        }
        name.into()
    };
    let mut times = 0;
    // A crash may have made two that begin with the same line.
    while named(times).try_exists()? {
        times += 1;
    }
    std::fs::rename(path, named(times))?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
