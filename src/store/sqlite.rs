//! The two files of an SQLite store, and the connections to them.
//!
//! Invariants: one connection of this process writes to the main file, and writers wait in line for it; a connection
//! whose transaction did not end as the pool was told is never given out again; only a migration makes a file.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, Executor, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    StoreError, migrations,
    sql::{Conn, SqliteConn, SqliteTx, Tx, composed},
    sqlite_fault::{Holds, SqliteFile, is_locked},
};
use crate::domain::secret::is_open_to_others;

/// Longest wait for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Readers of the file at once; portfolio loads are short.
const READERS: u32 = 4;
/// How long the look whether a lock is free may wait for it.
const LOOK: Duration = Duration::from_millis(200);
/// The audit index, beside the main file.
const AUDIT_FILE: &str = "audit-index.db";

pub(crate) struct SqliteFiles {
    pub(crate) store: SqliteFile,
    options: SqliteConnectOptions,
    writer: SqlitePool,
    readers: SqlitePool,
    index: SqliteFile,
    audit_options: SqliteConnectOptions,
    audit: SqlitePool,
    /// Pooled connections made before this may be of a file that is no longer there.
    renewed: Arc<Mutex<Instant>>,
}

impl SqliteFiles {
    /// `patience`: longest wait for a free connection.
    pub(crate) fn new(path: &Path, patience: Duration) -> Result<Self, StoreError> {
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
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(patience)
                .before_acquire(move |_, meta| {
                    let since = renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
                    let keep = meta.age <= since;
                    Box::pin(async move { Ok(keep) })
                })
                .after_release(|conn, _| Box::pin(ended_its_transaction(conn)))
        };
        // One writer: in the process they wait in line here, which is fairer and cheaper than on SQLite's lock.
        let writer = pool(1).acquire_timeout(BUSY_TIMEOUT * 2).connect_lazy_with(options.clone());
        let readers = pool(READERS).connect_lazy_with(options.clone().pragma("query_only", "ON"));
        // An index of the journal: what a crash takes from it is indexed again.
        let index = path.with_file_name(AUDIT_FILE);
        let audit_options = options
            .clone()
            .filename(&index)
            .synchronous(SqliteSynchronous::Normal)
            // Appends only: fewer checkpoints write fewer pages twice.
            .pragma("wal_autocheckpoint", "4000");
        let audit = pool(READERS).connect_lazy_with(audit_options.clone());
        let (store, index) =
            (SqliteFile::new(path.to_owned(), Holds::Store), SqliteFile::new(index, Holds::AuditIndex));
        Ok(Self { store, options, writer, readers, index, audit_options, audit, renewed })
    }

    pub(crate) async fn migrate(&self) -> Result<(), StoreError> {
        for (file, options, migrator) in [
            (&self.store, &self.options, migrations::sqlite()),
            (&self.index, &self.audit_options, migrations::sqlite_audit()),
        ] {
            let shown = file.path().to_owned();
            let created = tokio::task::spawn_blocking(move || create_private(&shown)).await;
            created.map_err(|_| sqlx::Error::WorkerCrashed)?.map_err(|error| file.fault(sqlx::Error::Io(error)))?;
            // Under the write lock as a whole: SQLite has no lock for migrators, and two may start at once.
            let mut conn = connect_to_migrate(file, options.clone().create_if_missing(true)).await?;
            let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(|error| file.fault(error))?;
            migrations::apply(migrator, Conn::Sqlite(SqliteConn::new(&mut tx, file))).await?;
            tx.commit().await.map_err(|error| file.fault(error))?;
            conn.close().await.map_err(|error| file.fault(error))?;
        }
        Ok(())
    }

    pub(crate) async fn check_migrated(&self) -> Result<Vec<i64>, StoreError> {
        if !self.store.path().exists() {
            return Err(StoreError::NotMigrated(format!("there is no file {}", self.store.path().display())));
        }
        let mut newer = Vec::new();
        for (file, pool, migrator) in
            [(&self.store, &self.readers, migrations::sqlite()), (&self.index, &self.audit, migrations::sqlite_audit())]
        {
            let mut conn = pool.acquire().await.map_err(|error| file.fault(error))?;
            newer.extend(migrations::check(&migrator, Conn::Sqlite(SqliteConn::new(&mut conn, file))).await?);
        }
        Ok(newer)
    }

    pub(crate) async fn begin_read(&self) -> Result<Tx, sqlx::Error> {
        self.begin(&self.readers, &self.store).await
    }

    pub(crate) async fn begin_audit_read(&self) -> Result<Tx, sqlx::Error> {
        self.begin(&self.audit, &self.index).await
    }

    async fn begin(&self, pool: &SqlitePool, file: &SqliteFile) -> Result<Tx, sqlx::Error> {
        let tx = pool.begin().await.map_err(|error| file.fault(error))?;
        Ok(Tx::Sqlite(SqliteTx::new(tx, file, false)))
    }

    pub(crate) async fn begin_write(&self) -> Result<Tx, sqlx::Error> {
        self.begin_immediate(&self.writer, &self.store).await
    }

    pub(crate) async fn begin_audit_write(&self) -> Result<Tx, sqlx::Error> {
        self.begin_immediate(&self.audit, &self.index).await
    }

    async fn begin_immediate(&self, pool: &SqlitePool, file: &SqliteFile) -> Result<Tx, sqlx::Error> {
        let tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(|error| file.failed_write(error))?;
        Ok(Tx::Sqlite(SqliteTx::new(tx, file, true)))
    }

    /// Tries whether the main file takes writes, after one that failed: nobody else may write just now.
    pub(crate) async fn try_a_write(&self) -> Result<(), sqlx::Error> {
        // First beside the writer, so that those who wait in line for it do not wait for this.
        let looked = async {
            let mut conn = self.options.clone().busy_timeout(LOOK).connect().await?;
            conn.begin_with("BEGIN IMMEDIATE").await?.rollback().await?;
            conn.close().await
        };
        looked.await.map_err(|error| self.store.failed_write(error))?;
        // A page is written, synced and committed; what stands in it stays the same. An `UPDATE` that changes nothing
        // would not write.
        let mut tx = self.begin_write().await?;
        let row = tx.row("PRAGMA user_version", &[]).await?.ok_or(sqlx::Error::RowNotFound)?;
        tx.execute(composed(format!("PRAGMA user_version = {}", row.int(0)?)), &[]).await?;
        tx.commit().await
    }

    /// Pooled connections made so far are not used again: the file may have been replaced under them.
    pub(crate) fn renew_pools(&self) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// A connection of its own, outside the pools, that only reads.
    pub(crate) async fn connect_reader(&self) -> Result<SqliteConnection, StoreError> {
        let connected = self.options.clone().pragma("query_only", "ON").connect().await;
        Ok(connected.map_err(|error| self.store.fault(error))?)
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        self.audit.close().await;
    }
}

/// Whether a connection may be given out again.
///
/// After some errors (a full disk, one that fails) SQLite rolls back by itself; sqlx's own rollback then fails, and it
/// takes the connection to be in a transaction ever after: a writer could begin nothing, and a reader would nest all that
/// it reads into one old snapshot. On Postgres a rollback without a transaction is no error, and sqlx counts it before it
/// is answered.
///
/// The two are brought to agree; a connection that cannot be is closed, and the pool makes another. Closing is the second
/// choice: with its last connection SQLite removes the shared memory of a file, and making that anew on a full disk can
/// end the process (SIGBUS, where blocks are smaller than pages).
async fn ended_its_transaction(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // Behind the rollback that a dropped transaction has sent.
    conn.ping().await?;
    if conn.is_in_transaction() {
        // A transaction that sqlx knows nothing of, and a beginning that it refuses (it believes in another) and rolls
        // back: that ends the one, and its belief in the other.
        if conn.execute("BEGIN").await.is_ok() {
            drop(conn.begin_with("BEGIN").await);
        }
        conn.ping().await?;
    }
    let ended = !conn.is_in_transaction();
    if !ended {
        tracing::warn!("a connection to an SQLite file cannot end its transaction: it is closed");
    }
    Ok(ended)
}

/// Makes a file that is not there yet for its owner alone: secrets of webhooks may stand in it. SQLite gives the files beside
/// it the same mode. One that is there is left as it is.
fn create_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    if is_open_to_others(mode) {
        tracing::warn!(file = %path.display(), mode = %format_args!("{mode:04o}"),
            "a file of the database is open to everybody on this machine: chmod 600 it, and those with -wal and -shm beside it");
    }
    Ok(())
}

/// The first connection turns a new file to write-ahead logging, under a lock that SQLite lets nobody wait for.
async fn connect_to_migrate(file: &SqliteFile, options: SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let since = Instant::now();
    loop {
        let error = match options.connect().await {
            Ok(connected) => return Ok(connected),
            Err(error) => file.fault(error),
        };
        if !is_locked(&error) || since.elapsed() >= BUSY_TIMEOUT {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_made_for_their_owner_alone_and_those_that_are_there_keep_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).map(|file| file.permissions().mode() & 0o777).ok();
        // Whose mode was set by somebody on purpose.
        fs::write(dir.path().join(AUDIT_FILE), "").unwrap();
        fs::set_permissions(dir.path().join(AUDIT_FILE), fs::Permissions::from_mode(0o644)).unwrap();
        let files = SqliteFiles::new(&dir.path().join("t.db"), BUSY_TIMEOUT).unwrap();
        files.migrate().await.unwrap();
        // Open, so that the files beside it are there.
        let tx = files.begin_write().await.unwrap();
        let found = ["t.db", "t.db-wal", "t.db-shm", AUDIT_FILE].map(mode);
        assert_eq!(found, [Some(0o600), Some(0o600), Some(0o600), Some(0o644)]);
        drop(tx);
        files.close().await;
    }

    /// On a full file SQLite rolls back by itself. The connection is mended, not closed: with the last one of a file its
    /// shared memory goes.
    #[tokio::test]
    async fn a_connection_that_sqlite_rolled_back_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(dir.path().join("t.db")).create_if_missing(true);
        let mut conn = options.connect().await.unwrap();
        conn.execute("CREATE TABLE t (x); PRAGMA max_page_count = 8").await.unwrap();
        for begin in ["BEGIN IMMEDIATE", "BEGIN"] {
            let mut tx = conn.begin_with(begin).await.unwrap();
            // Too much for the cache: pages are written before the commit.
            let full = tx.execute("INSERT INTO t VALUES (zeroblob(50000000))").await.unwrap_err();
            assert!(full.to_string().contains("full"), "{full}");
            drop(tx);
            conn.ping().await.unwrap();
            assert!(conn.is_in_transaction(), "sqlx counts rightly by now: there is nothing left to mend");
            assert!(ended_its_transaction(&mut conn).await.unwrap());
        }
        conn.execute("PRAGMA max_page_count = 100").await.unwrap();
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.unwrap();
        tx.execute("INSERT INTO t VALUES (1)").await.unwrap();
        tx.commit().await.unwrap();
        assert!(ended_its_transaction(&mut conn).await.unwrap());
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut conn).await.unwrap();
        assert_eq!(rows, 1);
    }
}
