//! Opening a database, bringing its schema up, and the transactions that everything else runs in.
//!
//! Invariants: a reading transaction is one snapshot; a writing one on SQLite takes the write lock at its begin, so no
//! change is computed from rows that another writer is changing; every wait here is bounded, so that a database that
//! hangs shows as unavailable instead of holding callers. Opening makes no connection: that is the first use's task.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    StoreError,
    audit_turns::Turns,
    migrations,
    sql::{Conn, Tx},
    sqlite::SqliteFiles,
};
use crate::config::settings::DatabaseSettings;

/// Longest wait for a free connection, and for making one.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two tries whether a database that failed a write takes one again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// A handle on the configured database; cheap to clone.
#[derive(Clone)]
pub struct Database {
    pub(crate) backend: Arc<Backend>,
    pub(crate) turns: Arc<Turns>,
}

pub(crate) enum Backend {
    Sqlite(Box<SqliteFiles>),
    Postgres { pool: PgPool, options: Box<PgConnectOptions> },
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
            DatabaseSettings::Sqlite { path } => Backend::Sqlite(Box::new(SqliteFiles::new(path, ACQUIRE_TIMEOUT)?)),
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
        Ok(Self { backend: Arc::new(backend), turns: Arc::default() })
    }

    /// Applies the migrations that are missing; does nothing where all are there.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match &*self.backend {
            Backend::Sqlite(files) => files.migrate().await,
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
            Backend::Sqlite(files) => files.check_migrated().await,
            Backend::Postgres { pool, .. } => {
                migrations::check(&migrations::postgres(), Conn::Postgres(&mut *pool.acquire().await?)).await
            }
        }
    }

    /// Why the database takes no writes: the last one failed, and none has succeeded since. Of Postgres nothing is known
    /// here: a server that is away shows in the freshness of what is read.
    pub fn write_trouble(&self) -> Option<String> {
        match &*self.backend {
            Backend::Sqlite(files) => files.store.trouble(),
            Backend::Postgres { .. } => None,
        }
    }

    /// Writes now and then while writes fail, so that [`Self::write_trouble`] ends where nobody else writes: whoever is not
    /// ready gets no requests. Runs until it is aborted.
    pub async fn try_writes_while_they_fail(self) {
        let Backend::Sqlite(files) = &*self.backend else { return };
        loop {
            tokio::time::sleep(BETWEEN_TRIES).await;
            if files.store.trouble().is_some()
                && let Err(error) = files.try_a_write().await
            {
                tracing::debug!(%error, "the database does not take writes yet");
            }
        }
    }

    pub fn is_postgres(&self) -> bool {
        matches!(*self.backend, Backend::Postgres { .. })
    }

    /// Closes all connections; later use fails.
    pub async fn close(&self) {
        match &*self.backend {
            Backend::Sqlite(files) => files.close().await,
            Backend::Postgres { pool, .. } => pool.close().await,
        }
    }

    /// One snapshot, read only.
    pub(crate) async fn begin_read(&self) -> Result<Tx, StoreError> {
        Ok(match &*self.backend {
            Backend::Sqlite(files) => files.begin_read().await?,
            Backend::Postgres { pool, .. } => {
                Tx::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?)
            }
        })
    }

    /// A writing transaction. On Postgres writers are put in line by the change counter, which each raises first.
    pub(crate) async fn begin_write(&self) -> Result<Tx, StoreError> {
        Ok(match &*self.backend {
            Backend::Sqlite(files) => files.begin_write().await?,
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
            Backend::Sqlite(files) => Ok(files.begin_audit_read().await?),
            Backend::Postgres { .. } => self.begin_read().await,
        }
    }

    pub(crate) async fn begin_audit_write(&self) -> Result<Tx, StoreError> {
        match &*self.backend {
            Backend::Sqlite(files) => Ok(files.begin_audit_write().await?),
            Backend::Postgres { .. } => self.begin_write().await,
        }
    }
}
