//! What the database itself holds up.

use std::{sync::Arc, time::Duration};

use linkgate::{
    config::settings::DatabaseSettings,
    store::{Database, StoreError},
};
use sqlx::{Connection, Executor, PgConnection};

use crate::fixture::{Fixture, Kind, link};

pub(crate) async fn an_unmigrated_database_is_told_and_migrating_twice_is_harmless(f: Arc<Fixture>) {
    f.db.check_migrated().await.unwrap();
    f.db.migrate().await.unwrap();
    let undo = match f.kind {
        Kind::Sqlite => "DELETE FROM _sqlx_migrations WHERE version = 1",
        Kind::Postgres => "DELETE FROM _sqlx_migrations WHERE version = 1",
    };
    f.raw(undo).await.unwrap();
    let error = f.db.check_migrated().await.unwrap_err();
    assert!(matches!(error, StoreError::NotMigrated(_)), "{error}");
    assert!(error.to_string().contains("linkgate migrate"), "{error}");
    if f.kind == Kind::Sqlite {
        let nowhere = DatabaseSettings::Sqlite { path: f.dir.path().join("none.db") };
        let error = Database::open(&nowhere).await.unwrap().check_migrated().await.unwrap_err();
        assert!(matches!(error, StoreError::NotMigrated(_)), "{error}");
        assert!(!f.dir.path().join("none.db").exists(), "checking makes no file");
    }
}

/// Servers and commands that start together on a new database.
pub(crate) async fn many_may_migrate_at_once(f: Arc<Fixture>) {
    let again = match &f.settings {
        DatabaseSettings::Sqlite { .. } => DatabaseSettings::Sqlite { path: f.dir.path().join("sub").join("new.db") },
        postgres @ DatabaseSettings::Postgres { .. } => {
            f.raw("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
            postgres.clone()
        }
    };
    std::fs::create_dir(f.dir.path().join("sub")).unwrap();
    let barrier = Arc::new(tokio::sync::Barrier::new(4));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (settings, barrier) = (again.clone(), Arc::clone(&barrier));
        tasks.push(tokio::spawn(async move {
            let db = Database::open(&settings).await.unwrap();
            barrier.wait().await;
            db.migrate().await.unwrap();
            db.check_migrated().await.unwrap();
            db.close().await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

pub(crate) async fn a_newer_database_is_told(f: Arc<Fixture>) {
    let row = match f.kind {
        Kind::Sqlite => "INSERT INTO _sqlx_migrations VALUES (999, 'later', '2030-01-01', 1, x'00', 1)",
        Kind::Postgres => "INSERT INTO _sqlx_migrations VALUES (999, 'later', now(), true, '\\x00', 1)",
    };
    f.raw(row).await.unwrap();
    assert!(matches!(f.db.check_migrated().await, Err(StoreError::Newer(999))));
    assert!(matches!(f.db.migrate().await, Err(StoreError::Newer(999))));
}

/// A binary that is older than the schema starts, works and migrates, as long as what it does not know only adds.
pub(crate) async fn a_database_that_a_newer_binary_expanded_is_good(f: Arc<Fixture>) {
    let row = match f.kind {
        Kind::Sqlite => "INSERT INTO _sqlx_migrations VALUES (998, 'expand later', '2030-01-01', 1, x'00', 1)",
        Kind::Postgres => "INSERT INTO _sqlx_migrations VALUES (998, 'expand later', now(), true, '\\x00', 1)",
    };
    f.raw(row).await.unwrap();
    f.raw("ALTER TABLE partner_tenant_links ADD COLUMN later TEXT").await.unwrap();
    f.raw("ALTER TABLE tenants ADD COLUMN later INTEGER NOT NULL DEFAULT 7").await.unwrap();
    assert_eq!(f.db.check_migrated().await.unwrap(), [998]);
    f.db.migrate().await.unwrap();
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    f.granted(partner, &tenant, "auditor").await;
    a_newer_database_is_told(f).await;
}

/// As the database was before the migration that approvals came with.
async fn before_governance(f: &Fixture) {
    f.raw("DROP INDEX links_by_end").await.unwrap();
    for column in ["approved_at", "approved_by", "widened_by"] {
        f.raw(format!("ALTER TABLE partner_tenant_links DROP COLUMN {column}")).await.unwrap();
    }
    f.raw("DELETE FROM _sqlx_migrations WHERE version = 7").await.unwrap();
}

const LINKS: &str = "SELECT count(*) FROM partner_tenant_links";

pub(crate) async fn a_migration_that_fails_leaves_nothing_half_done(f: Arc<Fixture>) {
    before_governance(&f).await;
    // Its last statement fails, behind those that added columns.
    f.raw("CREATE INDEX links_by_end ON tenants (id)").await.unwrap();
    for _ in 0..2 {
        let error = f.another().await.migrate().await.unwrap_err();
        assert!(matches!(error, StoreError::Migration(_)), "{error}");
        assert!(f.raw("SELECT approved_by FROM partner_tenant_links").await.is_err(), "a column stayed");
        assert!(matches!(f.db.check_migrated().await, Err(StoreError::NotMigrated(_))));
    }
    f.raw("DROP INDEX links_by_end").await.unwrap();
    f.db.migrate().await.unwrap();
    f.db.check_migrated().await.unwrap();
    f.raw("SELECT approved_by FROM partner_tenant_links").await.unwrap();
}

/// A backup holds the table; behind a migration that waited for it, every reader would wait too, and links go stale.
pub(crate) async fn a_migration_that_waits_for_a_table_holds_up_nobody(f: Arc<Fixture>) {
    if f.kind == Kind::Sqlite {
        // One writer at a time, and readers never wait for it.
        return;
    }
    before_governance(&f).await;
    let mut backup = PgConnection::connect(&f.url()).await.unwrap();
    backup.execute("BEGIN; LOCK TABLE partner_tenant_links IN ACCESS SHARE MODE").await.unwrap();
    let migrator = f.another().await;
    let migrating = tokio::spawn(async move { migrator.migrate().await });
    let mut reader = PgConnection::connect(&f.url()).await.unwrap();
    reader.execute("SET lock_timeout = '10s'").await.unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    for _ in 0..3 {
        while f.count(waits).await == 0 {
            assert!(!migrating.is_finished(), "it did not wait for the table");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The migration gives way long before this would be refused.
        reader.execute(LINKS).await.unwrap();
    }
    assert!(matches!(f.db.check_migrated().await, Err(StoreError::NotMigrated(_))));
    backup.execute("COMMIT").await.unwrap();
    migrating.await.unwrap().unwrap();
    f.db.check_migrated().await.unwrap();
}

pub(crate) async fn rows_of_links_and_history_are_never_deleted(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    f.granted(partner, &tenant, "auditor").await;
    for sql in [
        "DELETE FROM partner_tenant_links",
        "DELETE FROM link_history",
        "UPDATE link_history SET changed_by = 'nobody'",
        "UPDATE partner_tenant_links SET access_role = 'msp_full'",
    ] {
        assert!(f.raw(sql).await.is_err(), "{sql}");
    }
    assert_eq!(f.count("SELECT count(*) FROM partner_tenant_links WHERE access_role = 'auditor'").await, 1);
    assert_eq!(f.count("SELECT count(*) FROM link_history WHERE changed_by = 'cli:tester'").await, 1);
}

/// Past the store, with a shell: what the constraints still refuse, and how the store would tell it.
pub(crate) async fn the_database_upholds_the_rules_itself(f: Arc<Fixture>) {
    let (one, other) = (f.partner("one").await, f.partner("other").await);
    let tenant = f.tenant("t").await;
    f.granted(one, &tenant, "msp_full").await;
    f.grant(&link(other, &tenant, "auditor")).await.unwrap();
    let cases = [
        ("access_role = 'enterprise_hq'", "CONFLICT", "active link of a full role"),
        ("end_date = start_date - 1", "VALIDATION_ERROR", "before the start"),
        ("managed_tenant_id = partner_tenant_id", "VALIDATION_ERROR", "own tenant"),
        ("parent_link_id = (SELECT min(CAST(id AS TEXT)) FROM partner_tenant_links)", "VALIDATION_ERROR", "delegate"),
        ("access_role = 'superuser'", "VALIDATION_ERROR", "out of range"),
        ("approval = 'maybe'", "VALIDATION_ERROR", "out of range"),
        ("sla_uptime_target = 10001", "VALIDATION_ERROR", "out of range"),
        ("managed_tenant_id = 'nowhere'", "VALIDATION_ERROR", "does not exist"),
    ];
    for (set, code, message) in cases {
        let set = if f.kind == Kind::Postgres {
            set.replace("min(CAST(id AS TEXT))", "CAST(min(CAST(id AS TEXT)) AS UUID)")
        } else {
            set.to_owned()
        };
        let on = if f.kind == Kind::Sqlite { "PRAGMA foreign_keys = ON; " } else { "" };
        let sql =
            format!("{on}UPDATE partner_tenant_links SET version = version + 1, {set} WHERE access_role = 'auditor'");
        let error = StoreError::from(f.raw(sql).await.expect_err(&set));
        assert_eq!(error.code().as_str(), code, "{set}: {error:?}");
        assert!(error.to_string().contains(message), "{set}: {error}");
    }
}
