//! Opening a database, bringing its schema up, and the transactions that everything else runs in.
//!
//! Invariants: a reading transaction is one snapshot; a writing one on SQLite takes the write lock at its begin, so no
//! change is computed from rows that another writer is changing; every wait here is bounded, so that a database that
//! hangs shows as unavailable instead of holding callers. Opening makes no connection: that is the first use's task.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, PgPool, SqliteConnection, SqlitePool,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    StoreError, migrations,
    sql::{Conn, Tx},
};
use crate::config::settings::DatabaseSettings;

/// Longest wait for a free connection, and for making one.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for another writer on SQLite.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Readers of the SQLite file at once; portfolio loads are short.
const SQLITE_READERS: u32 = 4;

/// The audit index of an SQLite store, beside its main file.
const AUDIT_FILE: &str = "audit-index.db";

/// A handle on the configured database; cheap to clone.
#[derive(Clone)]
pub struct Database {
    pub(crate) backend: Arc<Backend>,
}

pub(crate) enum Backend {
    Sqlite(Box<SqliteFiles>),
    Postgres { pool: PgPool, options: Box<PgConnectOptions> },
}

pub(crate) struct SqliteFiles {
    pub(crate) path: PathBuf,
    options: SqliteConnectOptions,
    writer: SqlitePool,
    readers: SqlitePool,
    audit_options: SqliteConnectOptions,
    audit: SqlitePool,
    /// Pooled connections made before this may be of a file that is no longer there.
    renewed: Arc<Mutex<Instant>>,
}

impl fmt::Debug for Database {
    /// Never the address: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self.backend {
            Backend::Sqlite(_) => "Database(sqlite)",
            Backend::Postgres { .. } => "Database(postgres)",
        })
    }
}

impl Database {
    /// Prepares a handle; must be called on the runtime whose tasks will own the connections.
    pub async fn open(settings: &DatabaseSettings) -> Result<Self, StoreError> {
        let backend = match settings {
            DatabaseSettings::Sqlite { path } => Backend::Sqlite(Box::new(SqliteFiles::new(path)?)),
            DatabaseSettings::Postgres { url, max_connections } => {
                let url =
                    std::str::from_utf8(url.expose()).map_err(|_| StoreError::Address("it is not UTF-8".to_owned()))?;
                let options = PgConnectOptions::from_str(url.trim())
                    .map_err(|_| StoreError::Address("write postgres://user@host:port/database".to_owned()))?
                    .application_name("linkgate")
                    // A server that accepts and then hangs must not hold a request longer than this.
                    .options([
                        ("statement_timeout", "10000"),
                        ("lock_timeout", "5000"),
                        ("idle_in_transaction_session_timeout", "30000"),
                    ])
                    .disable_statement_logging();
                let pool = PgPoolOptions::new()
                    .max_connections((*max_connections).max(1))
                    .acquire_timeout(ACQUIRE_TIMEOUT)
                    .connect_lazy_with(options.clone());
                Backend::Postgres { pool, options: Box::new(options) }
            }
        };
        Ok(Self { backend: Arc::new(backend) })
    }

    /// Applies the migrations that are missing; does nothing where all are there.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match &*self.backend {
            Backend::Sqlite(files) => {
                for (options, migrator) in
                    [(&files.options, migrations::sqlite()), (&files.audit_options, migrations::sqlite_audit())]
                {
                    // Under the write lock as a whole: SQLite has no lock for migrators, and two may start at once.
                    let mut conn = connect_to_migrate(options.clone().create_if_missing(true)).await?;
                    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
                    migrations::apply(migrator, Conn::Sqlite(&mut tx)).await?;
                    tx.commit().await?;
                    conn.close().await?;
                }
                Ok(())
            }
            Backend::Postgres { options, .. } => {
                // Building an index over a big table may take longer than any request may, also where another does it.
                let options =
                    PgConnectOptions::clone(options).options([("statement_timeout", "0"), ("lock_timeout", "600000")]);
                let mut conn = options.connect().await?;
                let applied = migrations::apply_beside_servers(&mut conn).await;
                conn.close().await?;
                applied
            }
        }
    }

    /// Fails unless this binary's migrations are applied, and beyond them only such as add; gives the numbers of these.
    /// Changes nothing.
    pub async fn check_migrated(&self) -> Result<Vec<i64>, StoreError> {
        match &*self.backend {
            Backend::Sqlite(files) => {
                if !files.path.exists() {
                    return Err(StoreError::NotMigrated(format!("there is no file {}", files.path.display())));
                }
                let mut conn = files.readers.acquire().await?;
                let mut newer = migrations::check(&migrations::sqlite(), Conn::Sqlite(&mut conn)).await?;
                let mut conn = files.audit.acquire().await?;
                newer.extend(migrations::check(&migrations::sqlite_audit(), Conn::Sqlite(&mut conn)).await?);
                Ok(newer)
            }
            Backend::Postgres { pool, .. } => {
                migrations::check(&migrations::postgres(), Conn::Postgres(&mut *pool.acquire().await?)).await
            }
        }
    }

    pub fn is_postgres(&self) -> bool {
        matches!(*self.backend, Backend::Postgres { .. })
    }

    /// Closes all connections; later use fails.
    pub async fn close(&self) {
        match &*self.backend {
            Backend::Sqlite(files) => {
                files.readers.close().await;
                files.writer.close().await;
                files.audit.close().await;
            }
            Backend::Postgres { pool, .. } => pool.close().await,
        }
    }

    /// One snapshot, read only.
    pub(crate) async fn begin_read(&self) -> Result<Tx, StoreError> {
        Ok(match &*self.backend {
            Backend::Sqlite(files) => Tx::Sqlite(files.readers.begin().await?),
            Backend::Postgres { pool, .. } => {
                Tx::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?)
            }
        })
    }

    /// A writing transaction. On Postgres writers are put in line by the change counter, which each raises first.
    pub(crate) async fn begin_write(&self) -> Result<Tx, StoreError> {
        Ok(match &*self.backend {
            Backend::Sqlite(files) => Tx::Sqlite(files.writer.begin_with("BEGIN IMMEDIATE").await?),
            Backend::Postgres { pool, .. } => {
                Tx::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE").await?)
            }
        })
    }
}

impl Database {
    /// One snapshot of the audit index.
    pub(crate) async fn begin_audit_read(&self) -> Result<Tx, StoreError> {
        match &*self.backend {
            Backend::Sqlite(files) => Ok(Tx::Sqlite(files.audit.begin().await?)),
            Backend::Postgres { .. } => self.begin_read().await,
        }
    }

    pub(crate) async fn begin_audit_write(&self) -> Result<Tx, StoreError> {
        match &*self.backend {
            Backend::Sqlite(files) => Ok(Tx::Sqlite(files.audit.begin_with("BEGIN IMMEDIATE").await?)),
            Backend::Postgres { .. } => self.begin_write().await,
        }
    }
}

/// The first connection turns a new file to write-ahead logging, under a lock that SQLite lets nobody wait for.
async fn connect_to_migrate(options: SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let since = Instant::now();
    loop {
        match options.connect().await {
            Err(error) if is_busy(&error) && since.elapsed() < BUSY_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            connected => return connected,
        }
    }
}

/// `SQLITE_BUSY`, the low byte of all its kinds.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == 5)
}

impl SqliteFiles {
    fn new(path: &Path) -> Result<Self, StoreError> {
        if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
            return Err(StoreError::Address("an SQLite database needs the path of a file".to_owned()));
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            // Only a migration makes a database: one that was moved away must not come back empty.
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let renewed = Arc::new(Mutex::new(Instant::now()));
        let pool = |connections| {
            let renewed = Arc::clone(&renewed);
            SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT).before_acquire(
                move |_, meta| {
                    let since = renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
                    let keep = meta.age <= since;
                    Box::pin(async move { Ok(keep) })
                },
            )
        };
        // One writer: in the process they wait in line here, which is fairer and cheaper than on SQLite's lock.
        let writer = pool(1).acquire_timeout(BUSY_TIMEOUT * 2).connect_lazy_with(options.clone());
        let readers = pool(SQLITE_READERS).connect_lazy_with(options.clone().pragma("query_only", "ON"));
        // An index of the journal: what a crash takes from it is indexed again.
        let audit_options = options
            .clone()
            .filename(path.with_file_name(AUDIT_FILE))
            .synchronous(SqliteSynchronous::Normal)
            // Appends only: fewer checkpoints write fewer pages twice.
            .pragma("wal_autocheckpoint", "4000");
        let audit = pool(SQLITE_READERS).connect_lazy_with(audit_options.clone());
        Ok(Self { path: path.to_owned(), options, writer, readers, audit_options, audit, renewed })
    }

    /// Pooled connections made so far are not used again: the file may have been replaced under them.
    pub(crate) fn renew_pools(&self) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// A connection of its own, outside the pools, that only reads.
    pub(crate) async fn connect_reader(&self) -> Result<SqliteConnection, StoreError> {
        Ok(self.options.clone().pragma("query_only", "ON").connect().await?)
    }
}
