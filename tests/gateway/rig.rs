//! A gateway with a seeded database, started in this process on free ports.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use linkgate::{
    app::{self, ConfigSource, Surroundings},
    audit::medium::{Medium, OsMedium},
    config,
    config::settings::DatabaseSettings,
    domain::{LinkId, Millis, RoleTable, link_rules::LinkInput},
    identity::mint::{DevAlgorithm, DevKey, mint},
    policy::Bundle,
    store::{
        Actor, Admin, Database,
        admin::{PartnerInput, TenantInput, UserInput},
    },
    upstream::{Resolve, SystemResolver},
};
use serde_json::{Map, Value, json};

use super::{
    client::{Answer, Request},
    policies::policies,
    upstream::Upstream,
};

pub const ISSUER: &str = "https://issuer.test";
pub const P1: &str = "11111111-1111-4111-8111-111111111111";
pub const P2: &str = "22222222-2222-4222-8222-222222222222";
/// Home of partner 1 and of partner 2.
pub const HOME1: &str = "home-1";
pub const HOME2: &str = "home-2";

/// A running gateway. Its folder is removed with it; its threads end with the test process.
pub struct Rig {
    pub public: SocketAddr,
    pub health: SocketAddr,
    /// Where others ask for decisions, where the setup has a section for it.
    pub decision: Option<SocketAddr>,
    pub admin_api: Option<SocketAddr>,
    pub upstream: Upstream,
    pub dir: tempfile::TempDir,
    pub key: DevKey,
    pub links: BTreeMap<&'static str, LinkId>,
    runtime: tokio::runtime::Runtime,
    pub database: Database,
    roles: Arc<RoleTable>,
}

/// What a test changes before the start.
pub struct Setup {
    /// Top of the configuration, before tables.
    pub extra: String,
    pub listen: String,
    pub upstream: String,
    pub routes: String,
    pub identity: String,
    pub issuer: String,
    pub trusts: &'static str,
    pub limits: String,
    pub audit: String,
    pub guardrails: Vec<(&'static str, String)>,
    /// The URL of an empty Postgres database; else it is SQLite.
    pub postgres: Option<String>,
    /// Guardrails of a shadow set.
    pub shadow: Vec<(&'static str, String)>,
    /// Of the section `policy`.
    pub policy: String,
    /// Looks up the host names of upstreams; the system's, unless a test brings its own.
    pub resolver: Arc<dyn Resolve>,
    /// Of the audit journal.
    pub medium: Arc<dyn Medium>,
}

/// The variable that names Postgres in the configuration.
pub const POSTGRES: &str = "TEST_DATABASE_URL";

/// Callers of the decision listener: the variables in which their secrets stand.
pub const CALLERS: [(&str, &str); 2] = [
    ("TEST_EDGE_SECRET", "edge-0123456789abcdef0123456789abcdef"),
    ("TEST_PDP_SECRET", "pdp-0123456789abcdef0123456789abcdef0"),
];

impl Default for Setup {
    fn default() -> Self {
        Self {
            extra: String::new(),
            listen: String::new(),
            upstream: "credential = \"replace\"\nassertion = \"session\"\n".into(),
            routes: String::new(),
            identity: String::new(),
            issuer: String::new(),
            trusts: r#""roles", "permissions""#,
            limits: "tenant = 0\nrefusal = 0\nunauthenticated = 0\n".into(),
            audit: "writes = \"os\"\nreads = \"os\"\n".into(),
            guardrails: Vec::new(),
            postgres: None,
            shadow: Vec::new(),
            policy: String::new(),
            resolver: Arc::new(SystemResolver),
            medium: Arc::new(OsMedium),
        }
    }
}

/// Routes that every test may use.
const ROUTES: &str = r#"
[[routes]]
methods = ["GET"]
path = "/api/invoices"
permission = "partner.billing.invoices.read"
upstream = "up"
[[routes]]
methods = ["POST"]
path = "/api/invoices"
permission = "partner.billing.invoices.write"
upstream = "up"
[[routes]]
methods = ["GET"]
path = "/api/tickets/{ticket_id}"
permission = "partner.support.tickets.read"
upstream = "up"
[[routes]]
methods = ["POST"]
path = "/api/tickets"
permission = "partner.support.tickets.create"
upstream = "up"
refuse_body_fields = ["/tenant_id", "/metadata/tenant_id"]
[[routes]]
methods = ["GET"]
path = "/api/tenants/{tenant_id}/stats"
permission = "partner.tenants.list"
upstream = "up"
[[routes]]
methods = ["*"]
path = "/t/{*rest}"
permission = "partner.tenants.list"
upstream = "up"
max_body = "3GiB"
[[routes]]
methods = ["POST"]
path = "/small"
permission = "partner.tenants.list"
upstream = "up"
max_body = "1KiB"
[[routes]]
methods = ["GET"]
path = "/own"
access = "home"
upstream = "up"
[[routes]]
methods = ["*"]
path = "/public/{*rest}"
access = "public"
upstream = "up"
[[routes]]
methods = ["*"]
path = "/closed"
access = "deny"
[[routes]]
methods = ["GET"]
path = "/impatient/{*rest}"
permission = "partner.tenants.list"
upstream = "up"
response_timeout = "300ms"
[[routes]]
methods = ["GET"]
path = "/colon/{id}"
permission = "partner.tenants.list"
upstream = "up"
[[routes]]
methods = ["*"]
path = "/colon/me:act"
access = "deny"
[[routes]]
methods = ["GET"]
path = "/dead"
permission = "partner.tenants.list"
upstream = "dead"
[[routes]]
methods = ["GET"]
path = "/full"
permission = "partner.tenants.list"
upstream = "full"
"#;

impl Rig {
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start();
        let key = DevKey::generate(DevAlgorithm::Es256).unwrap();
        key.write_jwks(&dir.path().join("jwks.json")).unwrap();
        let signing = DevKey::generate(DevAlgorithm::EdDsa).unwrap();
        signing.write_pem(&dir.path().join("signing.pem")).unwrap();
        let text = configuration(&setup, &upstream);
        let path = dir.path().join("linkgate.toml");
        std::fs::write(&path, text).unwrap();
        if !setup.guardrails.is_empty() {
            policies(&dir.path().join("policies"), &setup.guardrails);
        }
        if !setup.shadow.is_empty() {
            policies(&dir.path().join("shadow"), &setup.shadow);
        }
        let callers = CALLERS.map(|(variable, secret)| (variable.to_owned(), secret.to_owned()));
        let postgres = setup.postgres.iter().map(|url| (POSTGRES.to_owned(), url.clone()));
        let variables: Vec<_> = postgres.chain(callers).collect();
        let file = path.clone();
        let source = ConfigSource::new(Some(&path), move || {
            let mut config = config::load(Some(&file), variables.iter().cloned())?;
            config.listen.address = "127.0.0.1:0".parse().unwrap();
            config.health = Some("127.0.0.1:0".parse().unwrap());
            config.log.filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "error".into());
            Ok(config)
        });
        let config = source.read().unwrap_or_else(|errors| panic!("{errors}"));
        let roles = Arc::new(Bundle::load(config.policy.dir.as_deref()).unwrap().roles().clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (database, links) = runtime.block_on(seed(&config.database, &roles));
        let (tell, told) = mpsc::channel();
        let (resolver, medium) = (Arc::clone(&setup.resolver), Arc::clone(&setup.medium));
        thread::spawn(move || {
            let surroundings = Surroundings { resolver, medium, ..Surroundings::default() };
            let ended = app::run_on(config, source, surroundings, |listening| tell.send(listening).unwrap());
            if let Err(error) = ended {
                eprintln!("the gateway ended: {error}");
            }
        });
        let listening = told.recv_timeout(Duration::from_secs(20)).expect("the gateway did not start");
        let health = listening.health.unwrap();
        let (public, decision, admin_api) = (listening.public, listening.decision, listening.admin);
        Self { public, health, decision, admin_api, upstream, dir, key, links, runtime, database, roles }
    }

    pub fn journal_dir(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    pub fn admin(&self) -> Admin {
        Admin::new(&self.database, Arc::clone(&self.roles), false)
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn revoke(&self, tenant: &str) {
        let id = self.links[tenant];
        self.block_on(self.admin().revoke_link(&actor(), id, None)).unwrap();
    }

    pub fn update(&self, tenant: &str, input: &LinkInput) {
        let id = self.links[tenant];
        self.block_on(self.admin().update_link(&actor(), id, None, input)).unwrap();
    }

    /// A token with these claims over the usual ones; `null` removes a claim.
    pub fn token_with(&self, sub: &str, home: &str, claims: Value) -> String {
        let now = Millis::now().0 / 1000;
        let mut all = json!({
            "iss": ISSUER, "aud": "gateway", "sub": sub, "tenant_id": home, "iat": now, "exp": now + 600,
            "type": "access", "username": format!("{sub}@test"), "session_id": "s-1", "jti": uuid::Uuid::new_v4().to_string(),
        });
        let all = all.as_object_mut().unwrap();
        for (name, value) in claims.as_object().unwrap() {
            if value.is_null() {
                all.remove(name);
            } else {
                all.insert(name.clone(), value.clone());
            }
        }
        mint(&self.key, &all.clone().into_iter().collect::<Map<_, _>>()).unwrap()
    }

    /// A user of partner 1 who holds everything.
    pub fn token(&self) -> String {
        self.token_with("user-1", HOME1, json!({"roles": ["partner_msp_full"]}))
    }

    /// Sends with partner 1's full token.
    pub fn ask(&self, request: Request) -> Answer {
        request.bearer(&self.token()).send(self.public)
    }

    /// Moves the database file away, as a failed volume would.
    pub fn take_database_away(&self) -> Away {
        let away = Away(self.dir.path().to_owned());
        away.rename("linkgate.db", "linkgate.away");
        away
    }

    /// Revokes in the database that was taken away, as another replica would that still reaches it.
    pub fn revoke_in(&self, away: &Away, tenant: &str) {
        let settings = DatabaseSettings::Sqlite { path: away.0.join("linkgate.away") };
        self.block_on(async {
            let database = Database::open(&settings).await.unwrap();
            let admin = Admin::new(&database, Arc::clone(&self.roles), false);
            admin.revoke_link(&actor(), self.links[tenant], None).await.unwrap();
            database.close().await;
        });
    }

    pub fn health(&self, path: &str) -> Answer {
        Request::get(path).send(self.health)
    }

    /// All lines of the journal.
    pub fn lines(&self) -> Vec<Value> {
        super::flow::lines(&self.journal_dir())
    }

    /// Joined audit records, oldest first, by the exported journal.
    pub fn records(&self) -> Vec<Value> {
        super::flow::exported(&self.journal_dir())
    }
}

/// A database that was taken away.
pub struct Away(PathBuf);

impl Away {
    pub fn bring_back(self) {
        self.rename("linkgate.away", "linkgate.db");
    }

    /// The file and what SQLite keeps beside it; the file itself last, so that it never stands there without its log.
    fn rename(&self, from: &str, to: &str) {
        for ending in ["-wal", "-shm", ""] {
            let (from, to) = (self.0.join(format!("{from}{ending}")), self.0.join(format!("{to}{ending}")));
            if from.exists() {
                std::fs::rename(from, to).unwrap();
            }
        }
    }
}

pub fn actor() -> Actor {
    Actor::new("test")
}

fn configuration(setup: &Setup, upstream: &Upstream) -> String {
    let Setup { extra, listen, routes, identity, issuer, trusts, limits, audit, upstream: up, .. } = setup;
    let database = match setup.postgres {
        Some(_) => format!("postgres_url_env = \"{POSTGRES}\""),
        None => "sqlite = \"linkgate.db\"".to_owned(),
    };
    let own = if setup.guardrails.is_empty() { "" } else { "dir = \"policies\"\n" };
    let shadow = if setup.shadow.is_empty() { "" } else { "shadow = \"shadow\"\n" };
    let policy = format!("{own}{shadow}{}", setup.policy);
    let address = upstream.address;
    let workers = if listen.contains("workers = ") { "" } else { "workers = 2\n" };
    format!(
        r#"{extra}
[listen]
{workers}{listen}
[database]
{database}
[identity]
{identity}
[issuers.main]
issuer = "{ISSUER}"
audiences = ["gateway"]
algorithms = ["ES256"]
jwks_file = "jwks.json"
trusts = [{trusts}]
{issuer}
[signing]
issuer = "https://gateway.test"
keys = [{{ kid = "k1", file = "signing.pem" }}]
[policy]
{policy}
[audit]
dir = "audit"
{audit}
[limits]
{limits}
[upstreams.up]
origin = "http://{address}"
{up}
[upstreams.dead]
origin = "http://127.0.0.1:9"
credential = "drop"
[upstreams.full]
origin = "http://{address}"
credential = "drop"
max_in_flight = 1
{ROUTES}
{routes}
"#
    )
}

/// Two partners, their homes and users, and one link of partner 1 for each state.
async fn seed(settings: &DatabaseSettings, roles: &Arc<RoleTable>) -> (Database, BTreeMap<&'static str, LinkId>) {
    let database = Database::open(settings).await.unwrap();
    database.migrate().await.unwrap();
    let admin = Admin::new(&database, Arc::clone(roles), false);
    let tenants = [
        HOME1,
        HOME2,
        "t-full",
        "t-billing",
        "t-support",
        "t-auditor",
        "t-expired",
        "t-revoked",
        "t-future",
        "t-pending",
        "t-override",
        "t-mfa",
        "t-cidr",
        "t-other",
        "t-unlinked",
        "t-space é",
    ];
    for tenant in tenants {
        let input = TenantInput { tenant_id: Some(tenant.into()), name: Some(tenant.into()), ..TenantInput::default() };
        admin.create_tenant(&actor(), &input).await.unwrap();
    }
    for (id, home, user) in [(P1, HOME1, "user-1"), (P2, HOME2, "user-2")] {
        let input = PartnerInput {
            partner_id: Some(id.into()),
            name: Some(format!("Partner {home}")),
            home_tenant_id: Some(home.into()),
            is_active: Some(true),
        };
        admin.create_partner(&actor(), &input).await.unwrap();
        for sub in [user.to_owned(), format!("{user}-b")] {
            let input = UserInput {
                issuer: Some(ISSUER.into()),
                sub: Some(sub),
                partner_id: Some(id.into()),
                ..UserInput::default()
            };
            admin.create_user(&actor(), &input).await.unwrap();
        }
    }
    let mut links = BTreeMap::new();
    for (tenant, partner, input) in seeded_links() {
        let input = LinkInput {
            partner_id: Some(partner.into()),
            managed_tenant_id: Some(tenant.into()),
            relationship_type: Some("msp_managed".into()),
            ..input
        };
        let link = admin.create_link(&actor(), &input).await.unwrap_or_else(|error| panic!("{tenant}: {error}")).value;
        links.insert(tenant, link.id);
    }
    admin.revoke_link(&actor(), links["t-revoked"], None).await.unwrap();
    (database, links)
}

fn seeded_links() -> Vec<(&'static str, &'static str, LinkInput)> {
    let role = |role: &str| LinkInput {
        access_role: Some(role.into()),
        start_date: Some("2024-01-01T00:00:00Z".into()),
        ..LinkInput::default()
    };
    let later = Millis(Millis::now().0 + 86_400_000).to_string();
    let overrides = BTreeMap::from([("billing.read".to_owned(), false)]);
    vec![
        ("t-full", P1, role("msp_full")),
        ("t-space é", P1, role("msp_full")),
        ("t-billing", P1, role("msp_billing")),
        ("t-support", P1, role("msp_support")),
        ("t-auditor", P1, role("auditor")),
        ("t-expired", P1, LinkInput { end_date: Some(Some("2024-02-01T00:00:00Z".into())), ..role("msp_full") }),
        ("t-revoked", P1, role("msp_full")),
        ("t-future", P1, LinkInput { start_date: Some(later), ..role("msp_full") }),
        ("t-pending", P1, LinkInput { approval: Some("pending".into()), ..role("msp_full") }),
        ("t-override", P1, LinkInput { custom_permissions: Some(overrides), ..role("msp_full") }),
        ("t-mfa", P1, LinkInput { require_mfa: Some(true), ..role("msp_full") }),
        ("t-cidr", P1, LinkInput { allowed_cidrs: Some(vec!["10.0.0.0/8".into()]), ..role("msp_full") }),
        ("t-other", P2, role("msp_full")),
    ]
}
