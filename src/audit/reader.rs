//! Segment files from the reader's side: their names, their lines, and the last line that is still being written.
//!
//! Readers take no lock and never block the writer: a segment only ever grows, and a line counts once its newline is
//! there. Used by recovery, verification, export and the indexer.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use memchr::memchr;
use serde::{Deserialize, Serialize};

use super::chain::ChainId;

/// Longest line that a reader takes. The longest that is written is a consolidated record over thousands of tenants.
const LINE_MAX_BYTES: usize = 64 << 20;

/// File that names the chain.
pub const CHAIN_FILE: &str = "chain.json";

/// What [`CHAIN_FILE`] holds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainFile {
    pub chain_id: ChainId,
    pub format: u32,
}

/// The chain of the journal in `dir`; `None` where no journal was begun.
pub fn chain_file(dir: &Path) -> io::Result<Option<ChainFile>> {
    match std::fs::read(dir.join(CHAIN_FILE)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Path of the segment with this number.
pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:010}.jsonl"))
}

/// Numbers of the segments in `dir`, ascending. Other files are left alone.
pub fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".jsonl"))
            .filter(|digits| digits.len() == 10)
            .and_then(|digits| digits.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

/// The last segment and its length: where a walk that began now may end, however fast a server writes on.
pub fn extent(dir: &Path) -> io::Result<Option<(u64, u64)>> {
    // A segment that was begun and withdrawn between listing and looking holds nothing.
    for number in segments(dir)?.into_iter().rev() {
        match std::fs::metadata(segment_path(dir, number)) {
            Ok(found) => return Ok(Some((number, found.len()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What stands next in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole line; [`Lines::bytes`] has it without its newline.
    Line,
    /// The file ends within a line: it is being written, or was torn.
    Incomplete,
    End,
}

/// The lines of one segment.
pub struct Lines {
    input: BufReader<File>,
    bytes: Vec<u8>,
    /// Where the current line begins.
    start: u64,
    /// Where the next one begins.
    next: u64,
    number: u64,
}

impl Lines {
    /// `offset` must be the start of a line.
    pub fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let input = BufReader::with_capacity(256 << 10, file);
        Ok(Self { input, bytes: Vec::new(), start: offset, next: offset, number: 0 })
    }

    /// Reads on. After `Incomplete` or `End` it may be called again: the same line is then read anew.
    pub fn step(&mut self) -> io::Result<Step> {
        self.bytes.clear();
        self.start = self.next;
        while self.bytes.len() < LINE_MAX_BYTES {
            let ahead = self.input.fill_buf()?;
            if ahead.is_empty() {
                let nothing = self.bytes.is_empty();
                self.input.seek(SeekFrom::Start(self.start))?;
                return Ok(if nothing { Step::End } else { Step::Incomplete });
            }
            // Not `read_until`: it looks at a few bytes at a time, and every line of a journal comes through here.
            let end = memchr(b'\n', ahead);
            let taken = ahead.get(..end.unwrap_or(ahead.len())).unwrap_or_default();
            self.bytes.extend_from_slice(taken);
            let read = taken.len() + usize::from(end.is_some());
            self.input.consume(read);
            if end.is_some() {
                let length = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
                self.next = self.start.saturating_add(length).saturating_add(1);
                self.number += 1;
                return Ok(Step::Line);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than any that is written"))
    }

    /// The current line, or what there is of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Offset of the current line.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the current line.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    /// Number of the current line, from 1, counted from where reading began.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// Bytes `start` to `end` of a segment: lines that an index points to.
pub fn read_run(dir: &Path, number: u64, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(segment_path(dir, number))?;
    file.seek(SeekFrom::Start(start))?;
    let mut run = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX)];
    io::Read::read_exact(&mut file, &mut run)?;
    Ok(run)
}
