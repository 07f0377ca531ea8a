//! A database of its own for each test, on either server, and the small things that tests say often.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use linkgate::{
    config::settings::{DatabaseSettings, LinkSettings},
    domain::{LinkId, LinkRole, PartnerId, PermissionSet, RoleTable, Secret, TenantId, link_rules::LinkInput},
    store::{
        Actor, Admin, Database, Directory, LinkRecord, StoreError, Written,
        admin::{PartnerInput, TenantInput, UserInput},
    },
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// One test's database.
pub(crate) struct Fixture {
    pub(crate) kind: Kind,
    pub(crate) settings: DatabaseSettings,
    /// The handle of "this process"; `another` makes those of others.
    pub(crate) db: Database,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) admin: Admin,
    pub(crate) actor: Actor,
}

/// The URL of the test server.
fn server() -> String {
    std::env::var("LINKGATE_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "LINKGATE_TEST_POSTGRES is not set: run the tests with `tests/run`, which starts a Postgres for them, \
             or start one with `tests/postgres.sh start DIR` and put the URL that it prints there"
        )
    })
}

/// Runs one test on one database.
pub(crate) fn run<F: Future<Output = ()>>(kind: Kind, test: impl FnOnce(Arc<Fixture>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (settings, name) = match kind {
            Kind::Sqlite => (DatabaseSettings::Sqlite { path: dir.path().join("linkgate.db") }, None),
            Kind::Postgres => {
                let (url, name) = create_database().await;
                (DatabaseSettings::Postgres { url: Secret::new(url.into_bytes()), max_connections: 8 }, Some(name))
            }
        };
        let db = Database::open(&settings).await.unwrap();
        db.migrate().await.unwrap();
        let admin = Admin::new(&db, roles(), false);
        let fixture = Arc::new(Fixture { kind, settings, db, dir, admin, actor: Actor::new("cli:tester") });
        test(Arc::clone(&fixture)).await;
        fixture.db.close().await;
        if let Some(name) = name {
            let mut conn = PgConnection::connect(&server()).await.unwrap();
            conn.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
        }
    });
}

async fn create_database() -> (String, String) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let server = server();
    let mut conn = PgConnection::connect(&server).await.unwrap();
    conn.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let base = server.rsplit_once('/').unwrap().0;
    (format!("{base}/{name}"), name)
}

impl Fixture {
    /// A handle as another process would have it.
    pub(crate) async fn another(&self) -> Database {
        Database::open(&self.settings).await.unwrap()
    }

    pub(crate) fn url(&self) -> String {
        match &self.settings {
            DatabaseSettings::Postgres { url, .. } => String::from_utf8(url.expose().to_vec()).unwrap(),
            DatabaseSettings::Sqlite { path } => format!("sqlite://{}", path.display()),
        }
    }

    /// Statements past the store, as somebody with a shell would run them.
    pub(crate) async fn raw(&self, sql: impl Into<String>) -> Result<u64, sqlx::Error> {
        let sql = AssertSqlSafe(sql.into());
        match self.kind {
            Kind::Sqlite => {
                let mut conn = SqliteConnection::connect(&self.url()).await?;
                let done = conn.execute(sqlx::raw_sql(sql)).await.map(|done| done.rows_affected());
                conn.close().await?;
                done
            }
            Kind::Postgres => {
                let mut conn = PgConnection::connect(&self.url()).await?;
                let done = conn.execute(sqlx::raw_sql(sql)).await.map(|done| done.rows_affected());
                conn.close().await?;
                done
            }
        }
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.kind {
            Kind::Sqlite => {
                let mut conn = SqliteConnection::connect(&self.url()).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
            }
            Kind::Postgres => {
                let mut conn = PgConnection::connect(&self.url()).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
            }
        }
    }

    /// The same on the audit index.
    pub(crate) async fn audit_raw(&self, sql: &str) {
        match self.kind {
            Kind::Sqlite => {
                let url = format!("sqlite://{}", self.dir.path().join("audit-index.db").display());
                let mut conn = SqliteConnection::connect(&url).await.unwrap();
                conn.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
                conn.close().await.unwrap();
            }
            Kind::Postgres => drop(self.raw(sql).await.unwrap()),
        }
    }

    /// Counts in the audit index, which on SQLite is another file.
    pub(crate) async fn audit_count(&self, sql: &str) -> i64 {
        match self.kind {
            Kind::Sqlite => {
                let url = format!("sqlite://{}", self.dir.path().join("audit-index.db").display());
                let mut conn = SqliteConnection::connect(&url).await.unwrap();
                sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut conn).await.unwrap()
            }
            Kind::Postgres => self.count(sql).await,
        }
    }

    pub(crate) async fn tenant(&self, id: &str) -> TenantId {
        let input = TenantInput { tenant_id: Some(id.to_owned()), ..TenantInput::default() };
        self.admin.create_tenant(&self.actor, &input).await.unwrap().value.tenant_id
    }

    /// A partner with a home tenant `home-<name>`.
    pub(crate) async fn partner(&self, name: &str) -> PartnerId {
        let home = self.tenant(&format!("home-{name}")).await;
        let input = PartnerInput {
            name: Some(name.to_owned()),
            home_tenant_id: Some(home.to_string()),
            ..PartnerInput::default()
        };
        self.admin.create_partner(&self.actor, &input).await.unwrap().value.partner_id
    }

    pub(crate) async fn user(&self, issuer: &str, sub: &str, partner: PartnerId) -> linkgate::store::UserRecord {
        let input = UserInput {
            issuer: Some(issuer.to_owned()),
            sub: Some(sub.to_owned()),
            partner_id: Some(partner.to_string()),
            ..UserInput::default()
        };
        self.admin.create_user(&self.actor, &input).await.unwrap().value
    }

    pub(crate) async fn grant(&self, input: &LinkInput) -> Result<Written<LinkRecord>, StoreError> {
        self.admin.create_link(&self.actor, input).await
    }

    pub(crate) async fn granted(&self, partner: PartnerId, tenant: &TenantId, role: &str) -> LinkRecord {
        self.grant(&link(partner, tenant, role)).await.unwrap().value
    }

    pub(crate) async fn revoke(&self, link: LinkId) -> Written<LinkRecord> {
        self.admin.revoke_link(&self.actor, link, None).await.unwrap()
    }

    pub(crate) fn directory(&self) -> Arc<Directory> {
        Directory::start(&self.db, &link_settings())
    }

    /// A directory that has polled once.
    pub(crate) async fn fresh_directory(&self) -> Arc<Directory> {
        let directory = self.directory();
        eventually("the directory is fresh", || directory.is_fresh()).await;
        directory
    }
}

pub(crate) fn link_settings() -> LinkSettings {
    LinkSettings {
        max_staleness: Duration::from_secs(1),
        heartbeat: Duration::from_millis(250),
        cached_partners: 1_000,
        approvals: false.into(),
    }
}

/// What an operator writes for the simplest link.
pub(crate) fn link(partner: PartnerId, tenant: &TenantId, role: &str) -> LinkInput {
    LinkInput {
        partner_id: Some(partner.to_string()),
        managed_tenant_id: Some(tenant.to_string()),
        access_role: Some(role.to_owned()),
        ..LinkInput::default()
    }
}

/// A change of some fields, as JSON.
pub(crate) fn change(fields: serde_json::Value) -> LinkInput {
    serde_json::from_value(fields).unwrap()
}

/// The roles of the contract, as far as these tests tell them apart.
pub(crate) fn roles() -> Arc<RoleTable> {
    let set = |names: &[&str]| {
        names.iter().fold(PermissionSet::of(linkgate::domain::Permission::SWITCH_CONTEXT), |set, name| {
            set.union(PermissionSet::from_name(name).unwrap())
        })
    };
    Arc::new(RoleTable::new(
        [
            (LinkRole::MspFull, PermissionSet::ALL),
            (LinkRole::EnterpriseHq, PermissionSet::ALL),
            (LinkRole::MspBilling, set(&["billing.read", "billing.export", "billing.write", "reports.sla"])),
            (LinkRole::MspSupport, set(&["billing.read", "support.read", "support.write", "reports.sla"])),
            (LinkRole::Auditor, set(&["billing.read", "support.read", "reports.sla"])),
            (LinkRole::Reseller, set(&["billing.read", "provisioning.limited"])),
            (LinkRole::Delegate, set(&["partner.tenants.*"])),
        ],
        std::collections::BTreeMap::new(),
    ))
}

/// Waits until something becomes true; fails after ten seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The refusal that was expected, as (code, fields or message).
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (&'static str, String) {
    let error = result.expect_err("was not refused");
    (error.code().as_str(), error.to_string())
}
