//! The schema of both databases, built into the binary, and what of it a database has.
//!
//! Migrations are append-only files under `migrations/`; a new one is one line here for each database. On SQLite the
//! audit index lives in a file of its own, so that its steady writes never touch the change counter of the links.

use std::collections::BTreeMap;

use sqlx::{
    SqlSafeStr,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::StoreError;

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

/// Applies what is missing.
pub(crate) async fn apply<C: Migrate>(migrator: &Migrator, conn: &mut C) -> Result<(), StoreError> {
    migrator.run_direct(None, conn, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::Newer(version),
        other => StoreError::Migration(other),
    })
}

/// Fails unless exactly the migrations of this binary are applied, unaltered. Changes nothing.
pub(crate) async fn check<C: Migrate>(migrator: &Migrator, conn: &mut C) -> Result<(), StoreError> {
    let applied = match conn.list_applied_migrations(&migrator.table_name).await {
        Ok(applied) => applied,
        // The one failure of a reachable database: there is no table of migrations yet.
        Err(MigrateError::Execute(sqlx::Error::Database(_))) => Vec::new(),
        Err(MigrateError::Execute(error)) => return Err(StoreError::Unavailable(error)),
        Err(error) => return Err(StoreError::Migration(error)),
    };
    let mut applied: BTreeMap<i64, _> = applied.into_iter().map(|one| (one.version, one.checksum)).collect();
    for known in migrator.iter() {
        match applied.remove(&known.version) {
            None => return Err(StoreError::NotMigrated(format!("migration {} is missing", known.version))),
            Some(checksum) if checksum != known.checksum => {
                return Err(StoreError::NotMigrated(format!("migration {} was altered", known.version)));
            }
            Some(_) => {}
        }
    }
    applied.keys().next().map_or(Ok(()), |version| Err(StoreError::Newer(*version)))
}
