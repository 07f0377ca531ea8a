//! What SQLite says when it fails, told with the file that it concerns and with what to do about it.
//!
//! SQLite's own errors name no file, and a store has two. [`SqliteFile`] is one of them; it puts its name to every error
//! on its way up, as a [`SqliteFault`] within the `sqlx::Error`, so that statements need not know where they run. It also
//! remembers whether writing to it works: a failure counts until a write succeeds.

use std::{
    borrow::Cow,
    error::Error as StdError,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::error::{DatabaseError, ErrorKind};

/// What a file of an SQLite store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    Store,
    /// Nothing that the audit journal does not hold too.
    AuditIndex,
}

/// One file of an SQLite store; cheap to clone.
#[derive(Clone)]
pub(crate) struct SqliteFile(Arc<Inner>);

struct Inner {
    path: PathBuf,
    holds: Holds,
    /// Why the last write failed; none has succeeded since.
    trouble: Mutex<Option<String>>,
}

impl SqliteFile {
    pub(crate) fn new(path: PathBuf, holds: Holds) -> Self {
        Self(Arc::new(Inner { path, holds, trouble: Mutex::default() }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// The error with this file's name; what was read and does not fit the code is no error of the file.
    pub(crate) fn fault(&self, error: sqlx::Error) -> sqlx::Error {
        use sqlx::Error as E;
        match error {
            E::RowNotFound | E::ColumnNotFound(_) | E::ColumnDecode { .. } | E::Decode(_) | E::Encode(_) => error,
            error if SqliteFault::of(&error).is_some() => error,
            error => E::Database(Box::new(SqliteFault { file: self.clone(), error })),
        }
    }

    /// The same of an error that a write met.
    pub(crate) fn failed_write(&self, error: sqlx::Error) -> sqlx::Error {
        let error = self.fault(error);
        if let Some(fault) = SqliteFault::of(&error).filter(|fault| fault.stops_writes()) {
            let name = self.path().file_name().unwrap_or_default().to_string_lossy();
            let before = self.trouble_cell().replace(fault.told(&name));
            if before.is_none() {
                tracing::error!(%error, "{}", fault.told(&self.path().display()));
            }
        }
        error
    }

    pub(crate) fn wrote(&self) {
        if self.trouble_cell().take().is_some() {
            tracing::info!(file = %self.path().display(), "the database takes writes again");
        }
    }

    /// Why writes fail, with the file's name and no path.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble_cell().clone()
    }

    fn trouble_cell(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SqliteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().fmt(f)
    }
}

/// An error of SQLite, or of a connection to it, and the file.
#[derive(Debug)]
pub(crate) struct SqliteFault {
    file: SqliteFile,
    error: sqlx::Error,
}

/// What an operator can do something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Full,
    Locked,
    ReadOnly,
    /// Another file stands under its name, or none.
    Replaced,
    NoDatabase,
    CannotOpen,
    Disk,
    /// The connections of this process were all in use.
    InUse,
    /// The connection is not what it should be; it is replaced.
    Connection,
    /// The statement: a constraint, a mistake.
    Statement,
}

impl Cause {
    fn of(error: &sqlx::Error) -> Self {
        if let Some(fault) = SqliteFault::of(error) {
            return fault.cause();
        }
        let Some(inner) = error.as_database_error() else {
            return if matches!(error, sqlx::Error::PoolTimedOut) { Self::InUse } else { Self::Connection };
        };
        // The extended result code, and the primary one in its low byte (<https://www.sqlite.org/rescode.html>).
        let code = inner.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default();
        match (code & 0xff, code) {
            (5 | 6, _) => Self::Locked,
            (8, 1032) => Self::Replaced,
            (8, _) => Self::ReadOnly,
            // SQLITE_IOERR_SHMSIZE: the shared memory could not be made larger, which takes room and nothing else.
            (10, 4874) | (13, _) => Self::Full,
            (10, _) => Self::Disk,
            (11 | 26, _) => Self::NoDatabase,
            (14, _) => Self::CannotOpen,
            _ => Self::Statement,
        }
    }
}

/// Another connection has the lock that was wanted.
pub(crate) fn is_locked(error: &sqlx::Error) -> bool {
    Cause::of(error) == Cause::Locked
}

/// Whether it is about the file of SQLite or the way to it, and not about what was asked of it.
pub(crate) fn concerns_the_file(error: &sqlx::Error) -> bool {
    Cause::of(error) != Cause::Statement
}

impl SqliteFault {
    pub(crate) fn of(error: &sqlx::Error) -> Option<&Self> {
        error.as_database_error().and_then(|error| error.try_downcast_ref())
    }

    fn cause(&self) -> Cause {
        Cause::of(&self.error)
    }

    /// Whether the next write will meet the same, whatever it writes.
    fn stops_writes(&self) -> bool {
        self.cause() != Cause::Statement && !matches!(self.error, sqlx::Error::PoolClosed)
    }

    /// What is wrong and what to do.
    pub(crate) fn advice(&self) -> String {
        self.told(&self.file.path().display())
    }

    fn told(&self, name: &dyn fmt::Display) -> String {
        let index = self.file.0.holds == Holds::AuditIndex;
        let what = if index { "audit index" } else { "database" };
        match self.cause() {
            Cause::Full => {
                format!("the disk of the {what} `{name}` is full: free space on it, and writes go on by themselves")
            }
            Cause::Locked => format!(
                "the {what} `{name}` is locked by another process: see which one has it open (`fuser -v {name}`), and let \
                 it end or end it"
            ),
            Cause::ReadOnly => format!(
                "the {what} `{name}` is read-only: is its file system mounted read-only, and may linkgate's user write \
                 the file and its folder?"
            ),
            Cause::Replaced => format!("the {what} `{name}` was moved away or replaced while it was open: put it back"),
            Cause::NoDatabase if index => format!(
                "the audit index `{name}` is damaged or no SQLite database: stop linkgate, move the file away with its \
                 `-wal` and `-shm`, and start again: the index is rebuilt from the audit journal"
            ),
            Cause::NoDatabase => format!(
                "the database `{name}` is damaged or no SQLite database: is this the right file? If it is, stop linkgate, \
                 keep the file with its `-wal` and `-shm` aside, and restore it from the backup"
            ),
            Cause::CannotOpen => format!(
                "the {what} `{name}` cannot be opened: is it there, and may linkgate's user read and write it and its \
                 folder?"
            ),
            Cause::Disk => {
                format!("the {what} `{name}` cannot be read or written: look at its disk, and at the kernel's log")
            }
            Cause::InUse => format!(
                "the {what} `{name}` was not free in time: something holds it for long, a disk that hangs or another \
                 process"
            ),
            Cause::Connection => format!("a connection to the {what} `{name}` failed and is replaced: try again"),
            Cause::Statement => format!("the {what} `{name}` refused a statement"),
        }
    }
}

/// As the error itself: whoever shows a cause has told the file before.
impl fmt::Display for SqliteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error.as_database_error() {
            Some(inner) => fmt::Display::fmt(inner, f),
            None => fmt::Display::fmt(&self.error, f),
        }
    }
}

impl StdError for SqliteFault {}

/// Transparent: who asks for a code or a constraint is answered as without the file's name.
impl DatabaseError for SqliteFault {
    fn message(&self) -> &str {
        self.error.as_database_error().map_or("the connection failed", DatabaseError::message)
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.error.as_database_error().and_then(DatabaseError::code)
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        self.error.as_database_error().map_or(ErrorKind::Other, DatabaseError::kind)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

    use super::*;

    /// What SQLite says of a disk that has no room for `-shm`, and of one that fails.
    #[derive(Debug)]
    struct Said(&'static str);

    impl fmt::Display for Said {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("disk I/O error")
        }
    }

    impl StdError for Said {}

    impl DatabaseError for Said {
        fn message(&self) -> &str {
            "disk I/O error"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    #[test]
    fn no_room_for_the_shared_memory_is_a_full_disk() {
        let cause = |code| Cause::of(&sqlx::Error::Database(Box::new(Said(code))));
        assert_eq!(
            ["4874", "13", "10", "266", "778"].map(cause),
            [Cause::Full, Cause::Full, Cause::Disk, Cause::Disk, Cause::Disk]
        );
    }

    /// What SQLite really says, not codes that were read somewhere.
    #[tokio::test]
    async fn causes_are_told_apart_by_what_sqlite_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("linkgate.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut conn = options.connect().await.unwrap();
        conn.execute("CREATE TABLE t (x PRIMARY KEY); INSERT INTO t VALUES ('a')").await.unwrap();
        let small = "PRAGMA max_page_count = 8; INSERT INTO t VALUES (zeroblob(100000))";
        let full = conn.execute(small).await.unwrap_err();
        let refused = conn.execute("INSERT INTO t VALUES ('a')").await.unwrap_err();
        let lock = conn.begin_with("BEGIN EXCLUSIVE").await.unwrap();
        let write = async |options: SqliteConnectOptions| {
            let mut conn = options.connect().await?;
            conn.execute("INSERT INTO t VALUES ('b')").await
        };
        let here = SqliteConnectOptions::new().filename(&path);
        let locked = write(here.clone().busy_timeout(std::time::Duration::ZERO)).await.unwrap_err();
        lock.rollback().await.unwrap();
        let read_only = write(here.read_only(true)).await.unwrap_err();
        let none = write(SqliteConnectOptions::new().filename(dir.path().join("none.db"))).await.unwrap_err();
        let junk = dir.path().join("junk.db");
        std::fs::write(&junk, [b'x'; 4096]).unwrap();
        let junk = write(SqliteConnectOptions::new().filename(&junk)).await.unwrap_err();
        for (error, cause, word) in [
            (full, Cause::Full, "full"),
            (refused, Cause::Statement, "refused a statement"),
            (locked, Cause::Locked, "locked by another process"),
            (read_only, Cause::ReadOnly, "read-only"),
            (none, Cause::CannotOpen, "cannot be opened"),
            (junk, Cause::NoDatabase, "restore it"),
            (sqlx::Error::PoolTimedOut, Cause::InUse, "not free in time"),
            (sqlx::Error::InvalidSavePointStatement, Cause::Connection, "is replaced"),
        ] {
            assert_eq!(Cause::of(&error), cause, "{error}");
            let said = error.to_string();
            let file = SqliteFile::new(path.clone(), Holds::Store);
            let named = file.failed_write(error);
            assert_eq!(Cause::of(&named), cause);
            assert!(named.to_string().ends_with(said.trim_start_matches("error returned from database: ")), "{named}");
            let advice = SqliteFault::of(&named).unwrap().advice();
            assert!(advice.contains(word) && advice.contains(path.to_str().unwrap()), "{advice}");
            let trouble = file.trouble();
            assert_eq!(trouble.is_some(), cause != Cause::Statement, "{trouble:?}");
            assert!(trouble.is_none_or(|told| told.contains(word) && told.contains("`linkgate.db`")));
            file.wrote();
            assert_eq!(file.trouble(), None);
        }
        drop::<SqliteConnection>(conn);
    }
}
