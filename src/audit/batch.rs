//! Reads on in the journal for the index: which lines there are, and by which words their records can be found.
//!
//! A line is only glanced at: nothing of it is read as values, copied or written again. That it follows the line before it,
//! and that it is as it was written, is checked for every line.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use memchr::memchr;

use super::{
    chain::{ChainHead, ChainId, Hash},
    check::Fault,
    encode::LineType,
    glance::{Glance, hash_of, plain},
    journal::{JournalError, Known, Written, io_error},
    line::NotALine,
    reader::{segment_path, segments},
    run::instant,
    traits::{Chunk, IndexBatch, IndexPosition, Late},
    words::{Field, word},
};
use crate::domain::Millis;

/// Lines of one batch at most.
pub(super) const BATCH_LINES: usize = 8192;
/// Bytes of one batch at most, the last line aside.
const BATCH_BYTES: u64 = 8 << 20;
/// Read at once; fits the processor's second cache.
const READ_BYTES: usize = 256 << 10;
/// Longest line taken.
const LINE_MAX_BYTES: usize = 64 << 20;

/// Reads on behind `after`, up to `until` at most. `known` spares lines that this process wrote their hash; `keep_lines`: chunks
/// carry their lines.
pub fn read_batch(
    dir: &Path,
    chain_id: ChainId,
    after: Option<IndexPosition>,
    until: Written,
    known: &Known,
    keep_lines: bool,
) -> Result<IndexBatch, JournalError> {
    let start = match after {
        Some(after) => after,
        None => {
            let first = segments(dir).map_err(io_error("list", dir))?.into_iter().next().unwrap_or(1);
            IndexPosition { segment: first, offset: 0, head: ChainHead { seq: 0, hash: Hash::GENESIS } }
        }
    };
    let mut batch = IndexBatch { chain_id, after, chunks: Vec::new(), late: Vec::new(), position: start };
    let mut reading = Reading::new(start.head, after.is_some());
    let mut number = start.segment;
    let mut offset = start.offset;
    loop {
        let path = segment_path(dir, number);
        let mut lines = Block::open(&path, offset).map_err(io_error("read", &path))?;
        let mut chunk = Building::new(number, offset, keep_lines);
        while !reading.is_full() && reading.seq < until.head.seq {
            let Some(line) = lines.next_line().map_err(io_error("read", &path))? else { break };
            let taken = reading.follow(line, known).and_then(|seen| chunk.add(line, &seen, &mut batch.late));
            taken.map_err(|fault| broken(dir, number, chunk.chunk.end, fault))?;
        }
        batch.position.segment = number;
        batch.position.offset = chunk.chunk.end;
        batch.chunks.extend(chunk.finish());
        if reading.is_full() || reading.seq >= until.head.seq {
            break;
        }
        if number >= until.segment {
            // The journal said that this much is written, and it is not there.
            return Err(JournalError::CutOff { stored: until.head.seq, found: reading.seq });
        }
        (number, offset) = (number + 1, 0);
    }
    let hash = hash_of(&reading.head).ok_or_else(|| {
        broken(dir, number, batch.position.offset, NotALine("a hash is not 64 lower-case hex digits".to_owned()).into())
    })?;
    batch.position.head = ChainHead { seq: reading.seq, hash };
    Ok(batch)
}

/// Names the line as `verify` would: counted from the segment's start. `offset` is where it begins.
pub(super) fn broken(dir: &Path, number: u64, offset: u64, fault: Fault) -> JournalError {
    let file = segment_path(dir, number);
    let before = std::fs::read(&file)
        .map(|bytes| {
            let read = usize::try_from(offset).unwrap_or(usize::MAX);
            bytes.iter().take(read).filter(|byte| **byte == b'\n').count()
        })
        .unwrap_or_default();
    JournalError::Broken { file, line: u64::try_from(before).unwrap_or_default() + 1, fault }
}

/// Whole lines of a file, without their newlines, out of one buffer.
struct Block {
    file: File,
    buffer: Vec<u8>,
    /// What of the buffer is filled, and what of that was given out.
    filled: usize,
    given: usize,
}

impl Block {
    fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, buffer: vec![0; READ_BYTES], filled: 0, given: 0 })
    }

    /// `None` at the end, or where a line is not whole yet.
    fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        let mut searched = self.given;
        let end = loop {
            let unseen = self.buffer.get(searched..self.filled).unwrap_or_default();
            if let Some(at) = memchr(b'\n', unseen) {
                break searched + at;
            }
            searched -= self.given;
            self.buffer.copy_within(self.given..self.filled, 0);
            (self.filled, self.given) = (self.filled - self.given, 0);
            searched = searched.max(self.filled);
            if self.filled == self.buffer.len() {
                if self.filled >= LINE_MAX_BYTES {
                    let what = "a line is longer than any that is written";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                self.buffer.resize(self.filled * 2, 0);
            }
            let read = self.file.read(self.buffer.get_mut(self.filled..).unwrap_or_default())?;
            if read == 0 {
                return Ok(None);
            }
            self.filled += read;
        };
        let begin = std::mem::replace(&mut self.given, end + 1);
        Ok(self.buffer.get(begin..end))
    }
}

/// The walk along the chain.
struct Reading {
    seq: u64,
    /// Text of the last line's hash.
    head: [u8; 64],
    /// The place of the next line is known.
    begun: bool,
    lines: usize,
    bytes: u64,
}

impl Reading {
    fn new(head: ChainHead, begun: bool) -> Self {
        Self { seq: head.seq, head: head.hash.to_hex(), begun, lines: 0, bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.lines >= BATCH_LINES || self.bytes >= BATCH_BYTES
    }

    /// Takes the line if it is the next one.
    fn follow<'l>(&mut self, line: &'l [u8], known: &Known) -> Result<Glance<'l>, Fault> {
        let seen = Glance::at(line)?;
        let expected = self.seq + 1;
        if self.begun || expected == seen.seq {
            if seen.seq > expected {
                return Err(Fault::Missing { from: expected, to: seen.seq - 1 });
            }
            if seen.seq < expected {
                return Err(Fault::Misplaced { expected });
            }
            if seen.prev != self.head {
                return Err(Fault::Unchained);
            }
        }
        let same = known.vouches(seen.seq, line).unwrap_or_else(|| seen.holds());
        if !same {
            return Err(Fault::Altered);
        }
        self.begun = true;
        self.seq = seen.seq;
        self.head = <[u8; 64]>::try_from(seen.hash).unwrap_or(self.head);
        self.lines += 1;
        self.bytes += u64::try_from(line.len()).unwrap_or(u64::MAX) + 1;
        Ok(seen)
    }
}

/// Words seen lately, so that those which nearly every record has are not listed again and again.
const RECENT: usize = 1024;

/// A chunk in the making.
struct Building {
    chunk: Chunk,
    keep_lines: bool,
    /// Words of the ids of records opened here and not completed.
    open: HashSet<u64, ahash::RandomState>,
    recent: Vec<u64>,
    /// The second of the last record, as written, and what it stands for.
    second: (Vec<u8>, i64),
}

impl Building {
    fn new(segment: u64, start: u64, keep_lines: bool) -> Self {
        let chunk = Chunk {
            segment,
            start,
            end: start,
            first_seq: 0,
            last_seq: 0,
            times: None,
            records: 0,
            words: Vec::new(),
            lines: Vec::new(),
        };
        Self { chunk, keep_lines, open: HashSet::default(), recent: vec![0; RECENT], second: (Vec::new(), 0) }
    }

    /// `None` where there was no line.
    fn finish(self) -> Option<Chunk> {
        (self.chunk.end > self.chunk.start).then_some(self.chunk)
    }

    fn add(&mut self, line: &[u8], seen: &Glance<'_>, late: &mut Vec<Late>) -> Result<(), Fault> {
        match seen.line_type {
            LineType::Open | LineType::Change => self.record(seen)?,
            LineType::Complete => self.completion(seen, late)?,
            LineType::Segment | LineType::Recovery => {}
        }
        let chunk = &mut self.chunk;
        if chunk.end == chunk.start {
            chunk.first_seq = seen.seq;
        }
        chunk.last_seq = seen.seq;
        chunk.end += u64::try_from(line.len()).unwrap_or(u64::MAX) + 1;
        if self.keep_lines {
            chunk.lines.extend_from_slice(line);
            chunk.lines.push(b'\n');
        }
        Ok(())
    }

    fn record(&mut self, seen: &Glance<'_>) -> Result<(), Fault> {
        let said = seen.said;
        let (Some(id), Some(time)) = (said.id, said.time) else {
            return Err(NotALine("a record has no id or no time".to_owned()).into());
        };
        let opening = seen.line_type == LineType::Open;
        let id = self.say(Field::Id, Some(id)).unwrap_or_default();
        if opening {
            self.open.insert(id);
        }
        self.say(Field::Kind, said.kind.or(opening.then_some(b"access")));
        self.say(Field::Request, said.request);
        self.say(Field::Partner, said.partner);
        self.say(Field::User, said.user);
        self.say(Field::Tenant, said.tenant);
        self.say(Field::Action, said.action);
        self.say(Field::Decision, said.decision);
        for tenant in seen.slice_tenants()? {
            self.say(Field::Tenant, Some(tenant));
        }
        let time = self.time(time)?;
        let (first, last) = self.chunk.times.unwrap_or((time, time));
        self.chunk.times = Some((first.min(time), last.max(time)));
        self.chunk.records += 1;
        Ok(())
    }

    fn completion(&mut self, seen: &Glance<'_>, late: &mut Vec<Late>) -> Result<(), Fault> {
        let Some(id) = seen.said.id else {
            return Err(NotALine("a completion has no id".to_owned()).into());
        };
        let known = self.open.remove(&word(Field::Id, id));
        if !known {
            self.say(Field::Id, Some(id));
        }
        if seen.said.decision.is_none() && !seen.has_slices() {
            return Ok(());
        }
        let mut words: Vec<u64> = self.say(Field::Decision, seen.said.decision).into_iter().collect();
        for tenant in seen.slice_tenants()? {
            words.extend(self.say(Field::Tenant, Some(tenant)));
        }
        if !known && let Some(id) = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()) {
            late.push(Late { id, words });
        }
        Ok(())
    }

    /// Adds a word; gives its hash.
    fn say(&mut self, field: Field, inside: Option<&[u8]>) -> Option<u64> {
        let word = word(field, &plain(inside?));
        let slot = usize::try_from(word % RECENT as u64).ok().and_then(|at| self.recent.get_mut(at));
        match slot {
            Some(seen) if *seen == word => {}
            Some(seen) => {
                *seen = word;
                self.chunk.words.push(word);
            }
            None => self.chunk.words.push(word),
        }
        Some(word)
    }

    /// The time as written; its second is read once for all records of that second.
    fn time(&mut self, text: &[u8]) -> Result<Millis, Fault> {
        let (second, rest) = text.split_at_checked(19).unwrap_or_default();
        let [b'.', a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'Z'] = rest else { return instant(text) };
        if self.second.0 != second {
            self.second = (second.to_owned(), instant(&[second, b"Z"].concat())?.0);
        }
        let digit = |of: &u8| i64::from(of - b'0');
        Ok(Millis(self.second.1 + digit(a) * 100 + digit(b) * 10 + digit(c)))
    }
}
