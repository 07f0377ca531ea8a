//! Why a record is not kept, and why a journal is not opened.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::audit::check::Fault;

/// Why a record cannot be kept as promised; the request is refused with 503 `AUDIT_UNAVAILABLE`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuditUnavailable {
    #[error("the audit journal cannot be written: free space on its disk, or repair it")]
    Write(#[source] Arc<io::Error>),
    #[error("the audit journal's buffers are full: its disk is too slow for the load")]
    Full,
    #[error("the audit journal cannot be kept in the database, which is away: bring it back")]
    Away(#[source] Arc<io::Error>),
    #[error("the audit journal was not on stable storage within `audit.commit_timeout`")]
    Timeout,
    #[error("the audit journal's disk failed to sync: check the disk, then restart linkgate")]
    Poisoned(#[source] Arc<io::Error>),
    #[error("level `disk` is promised, but the audit journal is on a temporary file system")]
    Unstable,
    #[error("the audit journal's last segment is gone from its folder: bring `audit.dir` back, or restart linkgate")]
    Gone,
    #[error(
        "the file `lock` of the audit journal is not the one that this server has locked, so another server could write \
         there: restart linkgate, and leave that file alone"
    )]
    Unlocked,
    #[error("the audit journal was altered while linkgate ran: look into it with `linkgate audit verify`")]
    Altered(#[source] Arc<JournalError>),
    #[error("the audit journal cannot be read back: look at the disk of `audit.dir`")]
    Unread(#[source] Arc<JournalError>),
    #[error("another server has taken the audit chain over: restart linkgate")]
    TakenOver,
    #[error(
        "the database has lost audit records that it had confirmed: keep a copy of `audit.dir`, which has them, then \
         restart linkgate"
    )]
    Lost,
    #[error("the audit journal is closed")]
    Closed,
    #[error("the record cannot be written as JSON")]
    Encode,
}

impl AuditUnavailable {
    /// What to do, and why: for an operator.
    pub fn told(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self} ({cause})"),
            None => self.to_string(),
        }
    }

    /// Whether a record that was chained before stays in the chain all the same.
    fn keeps_record(&self) -> bool {
        !matches!(self, Self::TakenOver | Self::Lost)
    }

    /// The error beneath, for a log line.
    pub fn cause(&self) -> String {
        std::error::Error::source(self).map_or_else(|| self.to_string(), ToString::to_string)
    }
}

/// A record that is not as durable as promised.
#[derive(Debug)]
pub struct Unkept {
    pub error: AuditUnavailable,
    /// It stands in the chain all the same, under its id.
    pub recorded: bool,
}

impl Unkept {
    /// It was chained, and the promise failed.
    pub(super) fn chained(error: AuditUnavailable) -> Self {
        Self { recorded: error.keeps_record(), error }
    }
}

/// It never was in the chain, or is out of it again.
impl From<AuditUnavailable> for Unkept {
    fn from(error: AuditUnavailable) -> Self {
        Self { error, recorded: false }
    }
}

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot {act} `{path}`")]
    Io { act: &'static str, path: PathBuf, source: io::Error },
    #[error("the audit journal in `{0}` is in use by another server: give each its own `audit.dir`")]
    Locked(PathBuf),
    #[error("`{dir}` is on {kind}, where nothing is on stable storage: move `audit.dir`, or set levels `os`")]
    Unstable { dir: PathBuf, kind: &'static str },
    #[error("`{0}` holds segments but no `chain.json`: restore it, or move the segments away")]
    NoChain(PathBuf),
    #[error("the audit journal is of format {0}, which this version cannot write")]
    Format(u32),
    #[error("`{file}` line {line}: {fault}; look into it with `linkgate audit verify`")]
    Broken { file: PathBuf, line: u64, fault: Fault },
    #[error(
        "the audit journal ends at record {found}, and record {stored} was written: its tail was cut off, or another copy of its \
         folder stands in its place (keep both); look into it with `linkgate audit verify`"
    )]
    CutOff { stored: u64, found: u64 },
    #[error("record {0} of the audit journal is not the one that the database has seen: `linkgate audit verify`")]
    Diverged(u64),
    #[error(
        "the audit journal ends at record {found}, the last checkpoint in its `checkpoints.log` covers record {signed}: its \
         tail was cut off; look into it with `linkgate audit verify`"
    )]
    BelowCheckpoint { signed: u64, found: u64 },
    #[error(
        "record {0} of the audit journal is not the one that the last checkpoint in its `checkpoints.log` covers: `linkgate \
         audit verify`"
    )]
    NotAsSigned(u64),
    /// `keep`: the length up to which the journal is whole, and one byte more, so that the cut is told.
    #[error(
        "`{file}` line {line}: zeros stand in place of records, and whole records behind them; nothing was changed. If the \
         machine lost power, these were not on stable storage yet: copy the folder, then `truncate -s {keep} {file}` and \
         start, which records the cut. If it did not, they were altered or the disk lost them: look into it with `linkgate \
         audit verify`, and restore the segment from the backup"
    )]
    Hole { file: PathBuf, line: u64, keep: u64 },
}

pub(crate) fn io_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { act, path: path.to_owned(), source }
}
