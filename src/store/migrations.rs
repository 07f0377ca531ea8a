//! The schema of both databases, built into the binary, and what of it a database has.
//!
//! Migrations are append-only files under `migrations/`; a new one is one line here for each database. On SQLite the
//! audit index lives in a file of its own, so that its steady writes never touch the change counter of the links.
//!
//! During a rolling upgrade an older binary meets a schema that it does not know. It goes on, and starts, as long as all
//! that it does not know only adds; the name of a migration says so (`expand ...`). What takes away or changes meaning
//! (`contract ...`) comes in a later release, when no binary is left that needs it; an older one then refuses to start.

use std::time::{Duration, Instant};

use sqlx::{
    Executor, PgConnection, SqlSafeStr,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::{
    StoreError,
    sql::{Conn, Row, SqliteConn},
    sqlite_fault::concerns_the_file,
};

const SQLITE: &[(i64, &str, &str)] = &[
    (1, "store", include_str!("../../migrations/sqlite/0001_store.sql")),
    (4, "portal alerts", include_str!("../../migrations/sqlite/0004_portal_alerts.sql")),
    (5, "portal writes", include_str!("../../migrations/sqlite/0005_portal_writes.sql")),
    (7, "governance", include_str!("../../migrations/sqlite/0007_governance.sql")),
];
const SQLITE_AUDIT: &[(i64, &str, &str)] = &[
    (1, "audit index", include_str!("../../migrations/sqlite/0001_audit_index.sql")),
    (2, "audit chunks", include_str!("../../migrations/sqlite/0002_audit_chunks.sql")),
    (8, "audit evidence", include_str!("../../migrations/sqlite/0008_audit_evidence.sql")),
];
const POSTGRES: &[(i64, &str, &str)] = &[
    (1, "store", include_str!("../../migrations/postgres/0001_store.sql")),
    (2, "audit index", include_str!("../../migrations/postgres/0002_audit_index.sql")),
    (3, "audit chunks", include_str!("../../migrations/postgres/0003_audit_chunks.sql")),
    (4, "portal alerts", include_str!("../../migrations/postgres/0004_portal_alerts.sql")),
    (5, "portal writes", include_str!("../../migrations/postgres/0005_portal_writes.sql")),
    (7, "governance", include_str!("../../migrations/postgres/0007_governance.sql")),
    (8, "audit evidence", include_str!("../../migrations/postgres/0008_audit_evidence.sql")),
    (9, "expand audit months", include_str!("../../migrations/postgres/0009_audit_months.sql")),
    (10, "expand audit journals", include_str!("../../migrations/postgres/0010_audit_journals.sql")),
    (11, "expand audit journal retention", include_str!("../../migrations/postgres/0011_audit_journal_retention.sql")),
];

fn migrator(files: &[(i64, &'static str, &'static str)]) -> Migrator {
    Migrator::with_migrations(
        files
            .iter()
            .map(|(version, name, sql)| {
                Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
            })
            .collect(),
    )
}

pub(crate) fn sqlite() -> Migrator {
    migrator(SQLITE)
}

/// Of the file that holds the audit index.
pub(crate) fn sqlite_audit() -> Migrator {
    migrator(SQLITE_AUDIT)
}

pub(crate) fn postgres() -> Migrator {
    migrator(POSTGRES)
}

/// Begins the name of a migration that only adds: binaries that do not know it go on working on the database.
const EXPANDS: &str = "expand ";
/// Waits for a table that somebody uses. Behind one that waits to change a table, everybody else who wants to read it
/// waits too, the change feed among them; so it is short, and tried again.
const TABLE_WAIT: &str = "SET lock_timeout = '400ms'";
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
/// How long it is tried: somebody who holds a table longer has to end first.
const PATIENCE: Duration = Duration::from_secs(60);

struct Applied {
    version: i64,
    name: String,
    checksum: Vec<u8>,
}

/// What a database has; nothing, where it has no table of migrations yet.
async fn applied(conn: &mut Conn<'_>) -> Result<Vec<Applied>, StoreError> {
    let sql = "SELECT version, description, checksum FROM _sqlx_migrations ORDER BY version";
    let rows = match conn.rows(sql, &[]).await {
        Ok(rows) => rows,
        // The one failure of a reachable Postgres; a file of SQLite fails in other ways too, and then is not empty.
        Err(error @ sqlx::Error::Database(_)) if conn.is_postgres() || !concerns_the_file(&error) => Vec::new(),
        Err(error) => return Err(StoreError::Unavailable(error)),
    };
    let read = |row: &Row| Ok(Applied { version: row.int(0)?, name: row.text(1)?, checksum: row.bytes(2)? });
    Ok(rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?)
}

/// Those that only a newer binary knows; refused, unless all of them only add.
fn newer(migrator: &Migrator, applied: &[Applied]) -> Result<Vec<i64>, StoreError> {
    let mut unknown = applied.iter().filter(|one| !migrator.version_exists(one.version));
    match unknown.clone().find(|one| !one.name.starts_with(EXPANDS)) {
        Some(one) => Err(StoreError::Newer(one.version)),
        None => Ok(unknown.by_ref().map(|one| one.version).collect()),
    }
}

/// Applies what is missing, each migration as a whole or not at all.
pub(crate) async fn apply(mut migrator: Migrator, mut conn: Conn<'_>) -> Result<(), StoreError> {
    let newer = newer(&migrator, &applied(&mut conn).await?)?;
    migrator.set_ignore_missing(!newer.is_empty());
    let applied = match conn {
        Conn::Sqlite(sqlite) => {
            let run = migrator.run_direct(None, &mut *sqlite.conn, false).await;
            return run.map_err(|error| failed_on(&sqlite, error));
        }
        Conn::Postgres(conn) => migrator.run_direct(None, conn, false).await,
    };
    applied.map_err(failed)
}

fn failed(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(version) => StoreError::Newer(version),
        other => StoreError::Migration(other),
    }
}

/// A full disk, a lock, a file that is no database: told as everywhere, not as a migration that is wrong.
fn failed_on(sqlite: &SqliteConn<'_>, error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) if concerns_the_file(&error) => {
            sqlite.fault(error).into()
        }
        other => failed(other),
    }
}

/// As [`apply`], beside servers that use the tables and beside others who migrate: these wait in line (as long as the
/// connection's `lock_timeout` lets them). The connection is closed by the caller, which ends its place in the line.
pub(crate) async fn apply_beside_servers(conn: &mut PgConnection) -> Result<(), StoreError> {
    conn.lock().await.map_err(StoreError::Migration)?;
    conn.execute(TABLE_WAIT).await?;
    let since = Instant::now();
    loop {
        let mut migrator = postgres();
        migrator.set_locking(false);
        match apply(migrator, Conn::Postgres(conn)).await {
            Err(StoreError::Migration(error)) if is_in_use(&error) && since.elapsed() < PATIENCE => {
                tracing::warn!("a table that a migration changes is in use: trying again");
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            ended => return ended,
        }
    }
}

/// Whether the wait for a table was too long.
fn is_in_use(error: &MigrateError) -> bool {
    let (MigrateError::ExecuteMigration(error, _) | MigrateError::Execute(error)) = error else { return false };
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("55P03")
}

/// Fails unless the migrations of this binary are applied, unaltered, and beyond them only such as add; gives the numbers
/// of these. Changes nothing.
pub(crate) async fn check(migrator: &Migrator, mut conn: Conn<'_>) -> Result<Vec<i64>, StoreError> {
    let applied = applied(&mut conn).await?;
    for known in migrator.iter() {
        match applied.iter().find(|one| one.version == known.version) {
            None => return Err(StoreError::NotMigrated(format!("migration {} is missing", known.version))),
            Some(one) if one.checksum != *known.checksum => {
                return Err(StoreError::NotMigrated(format!("migration {} was altered", known.version)));
            }
            Some(_) => {}
        }
    }
    newer(migrator, &applied)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An older binary believes this word, and refuses a database that was changed by a migration without it.
    #[test]
    fn a_migration_says_whether_older_binaries_go_on_working() {
        for (version, name, _) in SQLITE.iter().chain(SQLITE_AUDIT).chain(POSTGRES) {
            let says = name.starts_with(EXPANDS) || name.starts_with("contract ");
            assert!(*version <= 8 || says, "name migration {version} `expand {name}` or `contract {name}`");
        }
    }
}
