//! Floor 4: what operators ask and do, made once for the command line and the admin API: rows to import, reviews of access,
//! decisions explained, what a policy set amounts to, whether the journal is whole.
//!
//! Nothing here knows a terminal, an exit code or a socket: each question takes what it reads from, and gives a report that
//! can be written as JSON, as text, and where it is a table as CSV. `Trouble` says why there is none.

pub mod import;

pub mod access;
pub mod explain;
pub mod policy;

pub mod journal;
pub mod standing;

pub use crate::domain::plain::plain;
use crate::{
    audit::{IndexUnavailable, JournalError, scan::ScanError},
    store::StoreError,
};

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be asked like this.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    /// The journal cannot be read, or is not as it was written.
    #[error(transparent)]
    Journal(#[from] ScanError),
    #[error(transparent)]
    Index(#[from] IndexUnavailable),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        Self::Journal(error.into())
    }
}

/// Long work beside what must answer at once.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Trouble::Internal(format!("a thread ended early: {error}")))?
}

/// Which rows of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub offset: usize,
    pub limit: usize,
}

impl Window {
    pub const ALL: Self = Self { offset: 0, limit: usize::MAX };

    pub fn of<'a, T>(&self, rows: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        rows.iter().skip(self.offset).take(self.limit)
    }
}
