//! What a command ends with when a journal, its index or an operator's question fails: the exit code, and the cause.

use super::{
    context::chain,
    outcome::{Exit, Failure},
};
use crate::{
    audit::{IndexUnavailable, JournalError, scan::ScanError},
    ops::Trouble,
};

/// With every cause: where the index points to a journal that cannot be read, it names the folder and says why.
pub(super) fn unanswered(error: IndexUnavailable) -> Failure {
    let exit = match &error {
        IndexUnavailable::Database(_) => Exit::Database,
        IndexUnavailable::Altered(_) | IndexUnavailable::Journal { source: JournalError::Broken { .. }, .. } => {
            Exit::Verification
        }
        IndexUnavailable::Journal { .. } => Exit::Failed,
        IndexUnavailable::TooMuch(_) => Exit::Invalid,
    };
    Failure::new(exit, chain(&error))
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Store(error) => error.into(),
            Trouble::Invalid(message) => Self::new(Exit::Invalid, message),
            Trouble::NotFound(message) => Self::new(Exit::NotFound, message),
            Trouble::Journal(error) => unreadable(error),
            Trouble::Index(error) => unanswered(error),
            Trouble::Internal(message) => Self::failed(message),
        }
    }
}

/// A journal that was tampered with is a finding, not a failure to read.
pub(super) fn unreadable(error: ScanError) -> Failure {
    let exit = match &error {
        ScanError::Journal(JournalError::Broken { .. }) => Exit::Verification,
        ScanError::TooMuch(_) => Exit::Invalid,
        _ => Exit::Failed,
    };
    let cause = match &error {
        ScanError::Journal(JournalError::Io { source, .. }) | ScanError::Output(source) => format!(": {source}"),
        ScanError::Journal(_) | ScanError::TooMuch(_) => String::new(),
    };
    Failure::new(exit, format_args!("{error}{cause}"))
}
