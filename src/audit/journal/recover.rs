//! What happens at a start: the folder is locked, the journal's end is checked and repaired, and what was open is aborted.
//!
//! Only what a crash can leave behind is repaired: a torn tail (see `tail`), and a last segment without its header. What is
//! cut is kept beside the journal, and a `recovery` line says so. Any other break means that someone touched the journal,
//! and the start is refused. Nothing is changed before all of that is known: the end is held against what the database has
//! seen, and against the last checkpoint beside the journal.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
};

use uuid::Uuid;

use super::{
    JournalError,
    chained::Chained,
    io_error,
    lock::take_lock,
    seam,
    shared::Shared,
    tail::{has_header, walk},
    writer::{Body, Writer, bytes},
};
use crate::{
    audit::{
        chain::{ChainHead, ChainId, Hash},
        check::{Checker, Fault},
        decision::reason,
        encode::{self, FORMAT, LineType, RecoveryNote, SegmentHeader},
        evidence::shelf,
        line::Line,
        medium::{Medium, SegmentFile, volatile_file_system},
        reader::{CHAIN_FILE, ChainFile, Lines, Step, chain_file, segment_path, segments},
        record::Completion,
        settings::{AuditSettings, Durability},
    },
    domain::{DecisionId, Millis},
};

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    pub chain_id: ChainId,
    /// The journal was begun just now.
    pub fresh: bool,
    /// Bytes of a torn tail that were cut off.
    pub cut_bytes: u64,
    /// Records that were open when the last process ended; they are completed as `aborted`.
    pub aborted: Vec<DecisionId>,
    /// The last record that the last process left whole.
    pub head: ChainHead,
}

/// What a journal ends with.
struct Found {
    /// `None`: there is no line.
    end: Option<End>,
    /// Segments behind it that are put aside: they hold nothing, or nothing that was promised and follows it.
    aside: Vec<u64>,
}

/// The journal's end, checked.
struct End {
    segment: u64,
    /// Behind the last whole line.
    offset: u64,
    /// What stands behind it.
    torn: u64,
    /// Bytes of a segment behind it that is put aside.
    behind: u64,
    checker: Checker,
}

pub(super) fn open(
    settings: AuditSettings,
    stored: Option<ChainHead>,
    medium: Arc<dyn Medium>,
) -> Result<(Shared, Recovery), JournalError> {
    let dir = settings.dir.as_path();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
    let lock = take_lock(dir)?;
    let volatile = volatile_file_system(dir).map_err(io_error("look at the file system of", dir))?;
    // Where it is kept elsewhere, the folder may be what it likes.
    let volatile = volatile.filter(|_| !medium.elsewhere());
    if let Some(kind) = volatile
        && (settings.reads == Durability::Disk || settings.writes == Durability::Disk)
    {
        return Err(JournalError::Unstable { dir: dir.to_owned(), kind });
    }
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt)
        .map_err(|_| io_error("draw random bytes for", dir)(std::io::Error::other("no randomness")))?;
    let chain_id = chain(dir, medium.as_ref())?;
    let Found { end, aside } = find_end(dir, chain_id)?;
    // Before anything is repaired: what is left of a journal that was cut off is evidence.
    let head = end.as_ref().map_or(ChainHead { seq: 0, hash: Hash::GENESIS }, |end| end.checker.head());
    if let Some(stored) = stored {
        check_head(dir, head, stored)?;
    }
    check_signed(dir, chain_id, head)?;
    aside.into_iter().try_for_each(|number| set_aside(dir, number))?;
    if let Some(end) = &end {
        seam::close(dir, end.segment).map_err(io_error("sync", dir))?;
    }
    let (mut writer, recovery) = match end {
        Some(end) => resume(dir, chain_id, medium.as_ref(), end)?,
        None => begin(dir, chain_id, medium.as_ref())?,
    };
    // What a start has to say is owed like any completion: a full disk delays it and refuses openings meanwhile.
    let _ = writer.set_aside(0);
    writer.settle();
    if writer.trouble.is_none() {
        writer.file.sync().map_err(io_error("sync", dir))?;
    }
    let shared = Shared {
        chain_id,
        stable: volatile.is_none(),
        medium,
        written_seq: Arc::clone(&writer.written_seq),
        writer: Mutex::new(writer),
        wake: Condvar::new(),
        lock_file: lock,
        settings,
    };
    Ok((shared, recovery))
}

/// The chain's id, made and stored at the first start.
fn chain(dir: &Path, medium: &dyn Medium) -> Result<ChainId, JournalError> {
    let path = dir.join(CHAIN_FILE);
    if let Some(found) = chain_file(dir).map_err(io_error("read", &path))? {
        return if found.format == FORMAT { Ok(found.chain_id) } else { Err(JournalError::Format(found.format)) };
    }
    if !segments(dir).map_err(io_error("list", dir))?.is_empty() {
        return Err(JournalError::NoChain(dir.to_owned()));
    }
    let chain = ChainFile { chain_id: ChainId(Uuid::new_v4()), format: FORMAT };
    let made = dir.join("chain.json.new");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&made)?;
        serde_json::to_writer(&mut file, &chain)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&made, &path)?;
        medium.sync_dir(dir)
    };
    write().map_err(io_error("write", &path))?;
    Ok(chain.chain_id)
}

/// Checks the last two segments, so that the seam between them is checked too.
fn find_end(dir: &Path, chain_id: ChainId) -> Result<Found, JournalError> {
    let mut numbers = segments(dir).map_err(io_error("list", dir))?;
    let mut aside = Vec::new();
    // A crash while a segment was begun leaves it without a whole header: it holds nothing.
    while let Some(last) = numbers.last().copied() {
        if has_header(dir, last)? {
            break;
        }
        aside.push(last);
        numbers.pop();
    }
    let Some(last) = numbers.last().copied() else { return Ok(Found { end: None, aside }) };
    let mut checker = Checker::from_any(chain_id);
    match numbers.iter().rev().nth(1).copied() {
        Some(before) if before + 1 == last => {
            let (offset, torn) = walk(dir, before, &mut checker)?;
            if torn > 0 || follows_later(dir, last, &checker)? {
                let path = segment_path(dir, last);
                if seam::is_marked(dir, last).map_err(io_error("look at", &path))? {
                    aside.push(last);
                    let behind = fs::metadata(&path).map_err(io_error("read", &path))?.len();
                    return Ok(Found { end: Some(End { segment: before, offset, torn, behind, checker }), aside });
                }
            }
            if torn > 0 {
                let torn = Fault::Unreadable(crate::audit::line::NotALine("its last line is torn".to_owned()));
                return Err(JournalError::Broken { file: segment_path(dir, before), line: 0, fault: torn });
            }
        }
        Some(before) => {
            let fault = Fault::Header { what: "segment", found: last.to_string(), expected: (before + 1).to_string() };
            return Err(JournalError::Broken { file: segment_path(dir, last), line: 1, fault });
        }
        None if last == 1 => checker = Checker::from_genesis(chain_id),
        // Older segments were moved away.
        None => {}
    }
    let (offset, torn) = walk(dir, last, &mut checker)?;
    Ok(Found { end: Some(End { segment: last, offset, torn, behind: 0, checker }), aside })
}

/// Whether lines are missing between the end of the walk and this segment.
fn follows_later(dir: &Path, number: u64, checker: &Checker) -> Result<bool, JournalError> {
    let first = seam::first_seq(dir, number).map_err(io_error("read", &segment_path(dir, number)))?;
    Ok(first.is_some_and(|first| first > checker.head().seq.saturating_add(1)))
}

/// Out of the way, but not lost.
fn set_aside(dir: &Path, number: u64) -> Result<(), JournalError> {
    let path = segment_path(dir, number);
    let length = fs::metadata(&path).map_err(io_error("read", &path))?.len();
    if length == 0 {
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
    } else {
        let kept = spare(dir, number, 0);
        tracing::warn!(segment = %path.display(), kept = %kept.display(),
            "the last segment of the audit journal holds nothing that goes on from there, as a crash leaves it; it is put \
             aside");
        fs::rename(&path, kept).map_err(io_error("rename", &path))?;
    }
    seam::unmark(dir, number).map_err(io_error("remove the mark of", &path))
}

/// A name for what was cut out of a segment that is not taken yet.
fn spare(dir: &Path, number: u64, offset: u64) -> PathBuf {
    let name = |copy: u32| dir.join(format!("cut-{number:010}-{offset}.{copy}"));
    (0..u32::MAX).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(u32::MAX))
}

/// The rows of the outbox that the journal chained last, more than may be claimed and not marked. The caller holds the
/// lock; nothing is repaired. `one_database`: see [`Chained`].
pub(in crate::audit) fn chained_last(
    dir: &Path,
    chain_id: ChainId,
    one_database: bool,
) -> Result<Chained, JournalError> {
    let numbers = segments(dir).map_err(io_error("list", dir))?;
    let mut checker = Checker::from_any(chain_id);
    // Each header carries the rows chained last before it; a segment without a whole header holds nothing.
    for number in numbers.iter().skip(numbers.len().saturating_sub(2)) {
        let path = segment_path(dir, *number);
        // What is told of here will be relied upon, and its server may have ended before it was on stable storage.
        File::open(&path).and_then(|file| file.sync_all()).map_err(io_error("sync", &path))?;
        walk(dir, *number, &mut checker)?;
    }
    Ok(Chained::seen(&checker, one_database))
}

/// Goes on behind the last whole line.
fn resume(dir: &Path, chain_id: ChainId, medium: &dyn Medium, end: End) -> Result<(Writer, Recovery), JournalError> {
    let path = segment_path(dir, end.segment);
    let file = medium.open(&path).map_err(io_error("open", &path))?;
    if end.torn > 0 {
        cut(dir, &path, &end, file.as_ref())?;
    }
    let head = end.checker.head();
    let mut writer = Writer::new(file, end.segment, end.offset, head);
    writer.chained = Chained::seen(&end.checker, medium.elsewhere());
    writer.begun = end.checker.begun.unwrap_or(writer.begun);
    // UUIDv7 order is the order of opening.
    let mut aborted: Vec<DecisionId> = end.checker.open.iter().copied().collect();
    aborted.sort_unstable();
    let cut_bytes = end.torn.saturating_add(end.behind);
    if cut_bytes > 0 || !aborted.is_empty() {
        let note = RecoveryNote { time: Millis::now(), cut_at: end.offset, cut_bytes, aborted: bytes(aborted.len()) };
        push_plain(&mut writer, LineType::Recovery, &note, dir)?;
        let completion =
            Completion { aborted: true, reason: Some(reason::PROCESS_ENDED.into()), ..Completion::default() };
        writer.abort_open(aborted.iter().copied(), &completion);
    }
    Ok((writer, Recovery { chain_id, fresh: false, cut_bytes, aborted, head }))
}

/// Keeps the torn tail beside the journal and cuts it off.
fn cut(dir: &Path, path: &Path, end: &End, file: &dyn SegmentFile) -> Result<(), JournalError> {
    tracing::warn!(segment = %path.display(), offset = end.offset, bytes = end.torn,
        "the audit journal has a torn tail, as a crash leaves it; it is cut off and kept beside the journal");
    let keep = || -> std::io::Result<()> {
        let mut from = File::open(path)?;
        std::io::Seek::seek(&mut from, std::io::SeekFrom::Start(end.offset))?;
        let kept = spare(dir, end.segment, end.offset);
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(kept)?;
        std::io::copy(&mut from, &mut to)?;
        to.sync_all()
    };
    if let Err(error) = keep() {
        // A full disk must not keep a torn tail in the way.
        tracing::warn!(%error, "the torn tail of the audit journal could not be kept");
    }
    file.truncate(end.offset).map_err(io_error("truncate", path))?;
    file.sync().map_err(io_error("sync", path))
}

/// The first segment of a new chain.
fn begin(dir: &Path, chain_id: ChainId, medium: &dyn Medium) -> Result<(Writer, Recovery), JournalError> {
    let path = segment_path(dir, 1);
    let file = medium.create(&path).map_err(io_error("create", &path))?;
    medium.sync_dir(dir).map_err(io_error("sync", dir))?;
    let head = Checker::from_genesis(chain_id).head();
    let mut writer = Writer::new(file, 1, 0, head);
    let header = SegmentHeader {
        chain_id,
        segment: 1,
        time: Millis::now(),
        format: FORMAT,
        outbox: Vec::new(),
        open: Vec::new(),
    };
    push_plain(&mut writer, LineType::Segment, &header, dir)?;
    Ok((writer, Recovery { chain_id, fresh: true, cut_bytes: 0, aborted: Vec::new(), head }))
}

fn push_plain(
    writer: &mut Writer,
    line_type: LineType,
    content: &impl serde::Serialize,
    dir: &Path,
) -> Result<(), JournalError> {
    let mut text = Vec::new();
    let unplaced = encode::plain(&mut text, line_type, content)
        .map_err(|error| io_error("write a line of the journal in", dir)(error.into()))?;
    writer.push(Body { line_type, text: &text, unplaced });
    Ok(())
}

/// The line that the database saw last must be in the journal, unchanged.
pub(super) fn check_head(dir: &Path, last: ChainHead, stored: ChainHead) -> Result<(), JournalError> {
    if stored.seq > last.seq {
        return Err(JournalError::CutOff { stored: stored.seq, found: last.seq });
    }
    let found = if stored.seq == last.seq { Some(last.hash) } else { hash_at(dir, stored.seq)? };
    match found {
        Some(hash) if hash != stored.hash => Err(JournalError::Diverged(stored.seq)),
        // A record of a segment that was moved away cannot be compared.
        _ => Ok(()),
    }
}

/// The same for the last checkpoint beside the journal. It is believed without its signature: who can write there could
/// also take it away, and what it is held against here is only whether to go on.
fn check_signed(dir: &Path, chain_id: ChainId, last: ChainHead) -> Result<(), JournalError> {
    let path = shelf::path(dir);
    let signed = shelf::last_head(dir, chain_id).map_err(io_error("read", &path))?;
    let Some(signed) = signed else { return Ok(()) };
    check_head(dir, last, signed).map_err(|error| match error {
        JournalError::CutOff { stored: signed, found } => JournalError::BelowCheckpoint { signed, found },
        JournalError::Diverged(seq) => JournalError::NotAsSigned(seq),
        other => other,
    })
}

/// Hash of the record with this number; `None` where its segment is not there any more.
fn hash_at(dir: &Path, seq: u64) -> Result<Option<crate::audit::chain::Hash>, JournalError> {
    for number in segments(dir).map_err(io_error("list", dir))?.into_iter().rev() {
        let path = segment_path(dir, number);
        let mut lines = Lines::open(&path, 0).map_err(io_error("read", &path))?;
        while lines.step().map_err(io_error("read", &path))? == Step::Line {
            let line = Line::parse(lines.bytes()).map_err(|fault| JournalError::Broken {
                file: path.clone(),
                line: lines.number(),
                fault: fault.into(),
            })?;
            if line.seq == seq {
                return Ok(Some(line.hash));
            }
            if line.seq > seq {
                break;
            }
        }
    }
    Ok(None)
}
