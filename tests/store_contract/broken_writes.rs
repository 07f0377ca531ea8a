//! Files of SQLite that fail: a write that failed stops no later one, and each failure is told with its file.

use std::{path::Path, sync::Arc, time::Duration};

use linkgate::{
    audit::{ChainId, Hash, IndexBatch, IndexPosition, IndexSink, RecordFilter, RecordSource},
    config::settings::DatabaseSettings,
    domain::Millis,
    store::{AuditStore, Claimed, Database, IdempotencyKeys, StoreError, admin::TenantInput},
};
use sqlx::{Connection, Executor, SqliteConnection};
use uuid::Uuid;

use crate::fixture::{Fixture, eventually};

const HOUR: i64 = 3_600_000;

async fn claim(keys: &IdempotencyKeys, scope: u8) -> Result<Claimed, StoreError> {
    keys.claim([scope; 32], [0; 32], Millis(0), HOUR, HOUR).await
}

/// Ends the transaction within a statement, as SQLite does by itself on a full disk or one that fails.
fn ends_transactions(table: &str) -> String {
    format!("CREATE TRIGGER ends BEFORE INSERT ON {table} BEGIN SELECT RAISE(ROLLBACK, 'ended'); END")
}

pub(crate) async fn a_transaction_that_sqlite_ended_itself_stops_no_later_write(f: Arc<Fixture>) {
    let keys = IdempotencyKeys::new(&f.db);
    f.raw(ends_transactions("idempotency_keys")).await.unwrap();
    for scope in 0..3 {
        let error = claim(&keys, scope).await.unwrap_err();
        let StoreError::Unavailable(cause) = &error else { panic!("{error}") };
        assert!(cause.to_string().contains("ended"), "each meets the trigger, none an old transaction: {cause}");
    }
    assert_eq!(f.count("SELECT count(*) FROM idempotency_keys").await, 0);
    // Another table takes writes meanwhile.
    f.tenant("meanwhile").await;
    f.raw("DROP TRIGGER ends").await.unwrap();
    for scope in 0..3 {
        assert!(matches!(claim(&keys, scope).await.unwrap(), Claimed::Mine(_)));
    }
    f.tenant("after").await;
    assert_eq!(f.db.write_trouble(), None, "the file was never the matter");
}

fn batch(chain: ChainId, after: Option<IndexPosition>) -> IndexBatch {
    let mut position = after.unwrap_or(IndexPosition {
        segment: 1,
        offset: 0,
        head: linkgate::audit::ChainHead { seq: 0, hash: Hash([0; 32]) },
    });
    position.head.seq += 1;
    IndexBatch { chain_id: chain, after, position, chunks: Vec::new(), late: Vec::new() }
}

pub(crate) async fn the_audit_index_goes_on_likewise(f: Arc<Fixture>) {
    let (store, chain) = (AuditStore::new(&f.db, &f.dir.path().join("audit")), ChainId(Uuid::now_v7()));
    f.audit_raw(&ends_transactions("audit_positions")).await;
    // More than the pool has connections.
    for _ in 0..6 {
        store.store(batch(chain, None)).await.unwrap_err();
    }
    f.audit_raw("DROP TRIGGER ends").await;
    store.store(batch(chain, None)).await.unwrap();
    // Every connection sees what was committed: none reads an old snapshot.
    let first = store.position(chain).await.unwrap();
    store.store(batch(chain, first)).await.unwrap();
    let readers = (0..8).map(|_| async { store.position(chain).await.unwrap().unwrap().head.seq });
    assert_eq!(futures_util::future::join_all(readers).await, vec![2; 8]);
}

pub(crate) async fn a_lock_held_by_another_process_is_told_and_is_over_by_itself(f: Arc<Fixture>) {
    let keys = IdempotencyKeys::new(&f.db);
    let watch = tokio::spawn(f.db.clone().try_writes_while_they_fail());
    let mut other = SqliteConnection::connect(&f.url()).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let error = claim(&keys, 1).await.unwrap_err();
    let path = f.dir.path().join("linkgate.db");
    assert!(error.to_string().contains(&format!("`{}` is locked", path.display())), "{error}");
    let trouble = f.db.write_trouble().unwrap();
    assert!(trouble.contains("`linkgate.db` is locked"), "{trouble}");
    assert!(!trouble.contains(f.dir.path().to_str().unwrap()), "whoever may ask for the readiness sees no path");
    // It is tried meanwhile, and does not seem over.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(f.db.write_trouble().is_some());
    lock.rollback().await.unwrap();
    // Nobody writes but the watch.
    eventually("writes work", || f.db.write_trouble().is_none()).await;
    watch.abort();
    assert!(matches!(claim(&keys, 1).await.unwrap(), Claimed::Mine(_)));
    assert_eq!(f.count("PRAGMA user_version").await, 0, "trying changes nothing");
}

pub(crate) async fn a_refused_change_is_no_trouble_of_the_file(f: Arc<Fixture>) {
    f.tenant("t").await;
    let input = TenantInput { tenant_id: Some("t".to_owned()), ..TenantInput::default() };
    assert!(matches!(f.admin.create_tenant(&f.actor, &input).await, Err(StoreError::Refused(_))));
    assert_eq!(f.db.write_trouble(), None);
}

async fn opened(path: &Path) -> Result<(), StoreError> {
    let db = Database::open(&DatabaseSettings::Sqlite { path: path.to_owned() }).await?;
    let opened = match db.check_migrated().await {
        Ok(_) => db.migrate().await,
        Err(error) => Err(error),
    };
    db.close().await;
    opened
}

/// Told by whatever opens it, with the file's name and a way out.
pub(crate) async fn a_file_that_is_no_database_is_told_by_name(f: Arc<Fixture>) {
    let path = f.dir.path().join("linkgate.db");
    let index = f.dir.path().join("audit-index.db");
    let shelf = f.dir.path().join("shelf");
    f.db.close().await;
    for (file, says) in [(&path, "restore it from the backup"), (&index, "rebuilt from the audit journal")] {
        std::fs::rename(file, &shelf).unwrap();
        std::fs::write(file, [b'x'; 8192]).unwrap();
        let checked = opened(&path).await.unwrap_err().to_string();
        let db = Database::open(&f.settings).await.unwrap();
        let migrated = db.migrate().await.unwrap_err().to_string();
        for told in [checked, migrated] {
            let names = told.contains(&format!("`{}` is damaged or no SQLite database", file.display()));
            assert!(names && told.contains(says), "{told}");
        }
        std::fs::remove_file(file).unwrap();
        if file == &index {
            db.migrate().await.unwrap();
            opened(&path).await.unwrap();
            let store = AuditStore::new(&db, &f.dir.path().join("audit"));
            assert_eq!(store.query(&RecordFilter::default()).await.unwrap(), [], "an empty index, ready to be filled");
            db.close().await;
        }
        std::fs::rename(&shelf, file).unwrap();
    }
}

pub(crate) async fn a_file_that_may_not_be_opened_is_told_by_name(f: Arc<Fixture>) {
    let mut conn = SqliteConnection::connect(&f.url()).await.unwrap();
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    conn.close().await.unwrap();
    f.db.close().await;
    let path = f.dir.path().join("linkgate.db");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let told = opened(&path).await.unwrap_err().to_string();
    assert!(told.contains(&format!("`{}` cannot be opened", path.display())), "{told}");
}
