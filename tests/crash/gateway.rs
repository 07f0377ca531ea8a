//! A gateway in a process of its own (`linkgate serve`), and the folder that it dies over and starts on again.

use std::{
    cell::RefCell,
    ffi::OsString,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use linkgate::{
    audit::{ChainHead, ChainHeads, ChainId, Record, RecordFilter, RecordSource},
    config::settings::DatabaseSettings,
    domain::{LinkId, Millis, RoleTable, link_rules::LinkInput},
    identity::mint::{DevAlgorithm, DevKey, mint},
    policy::Bundle,
    store::{
        Actor, Admin, AuditStore, Database,
        admin::{PartnerInput, TenantInput, UserInput},
    },
};
use serde_json::{Map, Value, json};

use crate::{
    client::{Answer, Request},
    upstream::Upstream,
};

/// The URL of the gateway's Postgres.
pub const POSTGRES: &str = "LINKGATE_CRASH_POSTGRES";
/// What the log says once it listens.
const SERVES: &str = "linkgate serves";

pub const ISSUER: &str = "https://issuer.test";
pub const P1: &str = "11111111-1111-4111-8111-111111111111";
const P2: &str = "22222222-2222-4222-8222-222222222222";
const HOME1: &str = "home-1";
const HOME2: &str = "home-2";

/// How long anything here is waited for before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until it holds; fails with `what` where it never does.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a start is configured with beyond the usual.
#[derive(Clone)]
pub struct Setup {
    pub listen: String,
    pub audit: String,
    /// Folder of the journal: each of several gateways has its own.
    pub journal: &'static str,
    /// The `[log]` section.
    pub log: &'static str,
    /// Within the `[limits]` section; nothing is limited but what stands here.
    pub limits: String,
    /// Further sections.
    pub more: String,
    pub environment: Vec<(&'static str, OsString)>,
    /// What standard output is appended to; nowhere if not set.
    pub stdout: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            listen: String::new(),
            audit: "writes = \"os\"\nreads = \"os\"\n".into(),
            journal: "audit",
            log: "format = \"json\"\nrequests = false\nfilter = \"info\"\n",
            limits: String::new(),
            more: String::new(),
            environment: Vec::new(),
            stdout: None,
        }
    }
}

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
methods = ["*"]
path = "/t/{*rest}"
permission = "partner.tenants.list"
upstream = "up"
[[routes]]
methods = ["GET"]
path = "/own"
access = "home"
upstream = "up"
[[routes]]
methods = ["GET"]
path = "/dead"
permission = "partner.tenants.list"
upstream = "dead"
"#;

/// What outlives a gateway: its folder, its database, the upstream behind it.
pub struct House {
    pub dir: tempfile::TempDir,
    pub upstream: Upstream,
    pub database: Database,
    /// The link of partner 1 to `t-full`.
    pub link: LinkId,
    key: DevKey,
    /// The `[database]` section of the gateway.
    section: String,
    environment: Vec<(&'static str, OsString)>,
    roles: Arc<RoleTable>,
    runtime: tokio::runtime::Runtime,
}

impl House {
    pub fn new() -> Self {
        let dir = folder();
        let settings = DatabaseSettings::Sqlite { path: dir.path().join("linkgate.db") };
        Self::over(dir, &settings, "sqlite = \"linkgate.db\"", Vec::new())
    }

    /// `settings`: how the test reaches the database; `section`: how the gateway does.
    pub fn over(
        dir: tempfile::TempDir,
        settings: &DatabaseSettings,
        section: &str,
        environment: Vec<(&'static str, OsString)>,
    ) -> Self {
        let key = DevKey::generate(DevAlgorithm::Es256).unwrap();
        key.write_jwks(&dir.path().join("jwks.json")).unwrap();
        let signing = DevKey::generate(DevAlgorithm::EdDsa).unwrap();
        signing.write_pem(&dir.path().join("signing.pem")).unwrap();
        let roles = Arc::new(Bundle::load(None).unwrap().roles().clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (database, link) = runtime.block_on(seed(settings, &roles));
        let section = section.to_owned();
        Self { dir, upstream: Upstream::start(), database, link, key, section, environment, roles, runtime }
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    pub fn admin(&self) -> Admin {
        Admin::new(&self.database, Arc::clone(&self.roles), false)
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// A further tenant, linked to partner 1 with everything.
    pub fn add_tenant(&self, tenant: &str) -> LinkId {
        let input = TenantInput { tenant_id: Some(tenant.into()), name: Some(tenant.into()), ..TenantInput::default() };
        self.block_on(self.admin().create_tenant(&actor(), &input)).unwrap();
        self.grant(tenant)
    }

    /// Links partner 1 to the tenant with everything; a link that was revoked is in force again.
    pub fn grant(&self, tenant: &str) -> LinkId {
        self.block_on(self.admin().create_link(&actor(), &link_input(P1, tenant, "msp_full"))).unwrap().value.id
    }

    pub fn revoke(&self, link: LinkId) {
        self.block_on(self.admin().revoke_link(&actor(), link, None)).unwrap();
    }

    pub fn start(&self, setup: &Setup) -> Gateway {
        let before = self.log_text().len();
        let mut child = self.command(setup).spawn().unwrap();
        let since = Instant::now();
        loop {
            let log = self.log_text();
            // Whole lines only: the last one may still be written.
            let whole = log[before..].rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().find(|line| line.contains(SERVES)) {
                let (public, health) = (address(line, "public"), address(line, "health"));
                return Gateway { public, health, child: RefCell::new(child) };
            }
            if child.try_wait().unwrap().is_some() || since.elapsed() > PATIENCE {
                child.kill().ok();
                child.wait().ok();
                panic!("the gateway did not start:\n{}", &log[before..]);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A command of the same binary, with the same configuration.
    pub fn linkgate(&self, setup: &Setup, arguments: &[&str]) -> std::process::Output {
        // Writes the configuration.
        drop(self.command(setup));
        let path = self.dir.path().join("linkgate.toml");
        Command::new(env!("CARGO_BIN_EXE_linkgate"))
            .args(arguments)
            .args(["--config".as_ref(), path.as_os_str()])
            .envs(self.environment.iter().cloned())
            .output()
            .unwrap()
    }

    /// Starts one and kills it in the middle of starting.
    pub fn start_and_kill(&self, setup: &Setup, after: Duration) {
        let mut child = self.command(setup).spawn().unwrap();
        thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts one that ends by itself; gives how, and what it logged.
    pub fn refused_start(&self, setup: &Setup) -> (ExitStatus, String) {
        let before = self.log_text().len();
        let mut child = self.command(setup).spawn().unwrap();
        let status = within(&mut child, PATIENCE).expect("a start that has to fail goes on");
        (status, self.log_text()[before..].to_owned())
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("gateway.log")
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn command(&self, setup: &Setup) -> Command {
        // Each of several gateways watches a file of its own.
        let name = if setup.journal == "audit" { "linkgate" } else { setup.journal };
        let path = self.dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, self.configuration(setup)).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let stdout = setup.stdout.as_ref().map_or_else(Stdio::null, |path| {
            std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap().into()
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_linkgate"));
        command
            .args(["serve".as_ref(), "--config".as_ref(), path.as_os_str()])
            .envs(self.environment.iter().chain(&setup.environment).cloned())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log);
        command
    }

    fn configuration(&self, setup: &Setup) -> String {
        let (Setup { listen, audit, journal, log, limits, more, .. }, database) = (setup, &self.section);
        let up = self.upstream.address;
        format!(
            r#"
[listen]
address = "127.0.0.1:0"
workers = 2
{listen}
[health]
address = "127.0.0.1:0"
[database]
{database}
[issuers.main]
issuer = "{ISSUER}"
audiences = ["gateway"]
algorithms = ["ES256"]
jwks_file = "jwks.json"
trusts = ["roles", "permissions"]
[signing]
issuer = "https://gateway.test"
keys = [{{ kid = "k1", file = "signing.pem" }}]
[audit]
dir = "{journal}"
{audit}
[limits]
listing = 0
detail = 0
write = 0
export = 0
tenant = 0
refusal = 0
unauthenticated = 0
{limits}
[log]
{log}
[upstreams.up]
origin = "http://{up}"
[upstreams.dead]
origin = "http://127.0.0.1:9"
credential = "drop"
{more}
{ROUTES}
"#
        )
    }

    pub fn token(&self, sub: &str, home: &str) -> String {
        let now = Millis::now().0 / 1000;
        let claims = json!({
            "iss": ISSUER, "aud": "gateway", "sub": sub, "tenant_id": home, "iat": now, "exp": now + 3600,
            "type": "access", "roles": ["partner_msp_full"], "session_id": "s-1",
        });
        mint(&self.key, &claims.as_object().unwrap().clone().into_iter().collect::<Map<_, _>>()).unwrap()
    }

    /// A user of partner 1 who holds everything.
    pub fn token1(&self) -> String {
        self.token("user-1", HOME1)
    }

    pub fn token2(&self) -> String {
        self.token("user-2", HOME2)
    }

    pub fn audit_store(&self) -> AuditStore {
        AuditStore::new(&self.database, &self.journal())
    }

    /// The head that the index has seen.
    pub fn indexed(&self, chain: ChainId) -> Option<ChainHead> {
        self.block_on(self.audit_store().head(chain)).unwrap()
    }

    /// Everything in the index from this time on.
    pub fn indexed_since(&self, from: Millis) -> Vec<Record> {
        let mut all = Vec::new();
        loop {
            let filter = RecordFilter { from: Some(from), offset: all.len(), ..RecordFilter::default() };
            let page = self.block_on(self.audit_store().query(&filter)).unwrap();
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    pub public: SocketAddr,
    pub health: SocketAddr,
    child: RefCell<Child>,
}

impl Gateway {
    /// Dies as by a power switch for the process: no handler runs, nothing is flushed.
    pub fn kill(self) {
        let mut child = self.child.borrow_mut();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.borrow().id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child.borrow())
    }

    /// The exit code, once it ended by itself.
    pub fn ended(self, patience: Duration) -> Option<i32> {
        let status = within(&mut self.child.borrow_mut(), patience);
        assert!(status.is_some(), "the gateway still runs after {patience:?}");
        status.and_then(|status| status.code())
    }

    /// The value of a metric, by its whole name with its labels; `None` where it is not shown.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = Request::get("/metrics").send(self.health).text();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// What a probe of life is answered.
    pub fn alive(&self) -> u16 {
        Request::get("/healthz").send(self.health).status
    }

    /// Status and checks that are not well.
    pub fn ready(&self) -> (u16, Vec<(String, String)>) {
        let answer = Request::get("/readyz").send(self.health);
        let wrong = |check: &Value| {
            let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
            (check["ok"] == false).then(|| (text("name"), text("message")))
        };
        let checks = answer.json()["checks"].as_array().unwrap().iter().filter_map(wrong).collect();
        (answer.status, checks)
    }

    pub fn ask(&self, request: &Request) -> Answer {
        request.send(self.public)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        child.kill().ok();
        child.wait().ok();
    }
}

fn within(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let since = Instant::now();
    while since.elapsed() < patience {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().ok();
    None
}

/// Of the line that says where it listens, in either format: `"public":"127.0.0.1:1"` or `public=127.0.0.1:1`.
fn address(line: &str, name: &str) -> SocketAddr {
    let at = line.find(&format!("{name}\":")).or_else(|| line.find(&format!("{name}="))).unwrap();
    let from = line[at..].find(|c: char| c.is_ascii_digit()).unwrap() + at;
    let to = line[from..].find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(line.len() - from);
    line[from..from + to].parse().unwrap()
}

/// On stable storage, unlike many a `/tmp`.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn actor() -> Actor {
    Actor::new("cli:test")
}

async fn seed(settings: &DatabaseSettings, roles: &Arc<RoleTable>) -> (Database, LinkId) {
    let database = Database::open(settings).await.unwrap();
    database.migrate().await.unwrap();
    let admin = Admin::new(&database, Arc::clone(roles), false);
    for tenant in [HOME1, HOME2, "t-full", "t-auditor", "t-other", "t-changes", "t-unlinked"] {
        let input = TenantInput { tenant_id: Some(tenant.into()), name: Some(tenant.into()), ..TenantInput::default() };
        admin.create_tenant(&actor(), &input).await.unwrap();
    }
    for (id, home, sub) in [(P1, HOME1, "user-1"), (P2, HOME2, "user-2")] {
        let input = PartnerInput {
            partner_id: Some(id.into()),
            name: Some(format!("Partner {home}")),
            home_tenant_id: Some(home.into()),
            is_active: Some(true),
        };
        admin.create_partner(&actor(), &input).await.unwrap();
        let input = UserInput {
            issuer: Some(ISSUER.into()),
            sub: Some(sub.into()),
            partner_id: Some(id.into()),
            ..UserInput::default()
        };
        admin.create_user(&actor(), &input).await.unwrap();
    }
    let mut links = Vec::new();
    for (partner, tenant, role) in [
        (P1, "t-full", "msp_full"),
        (P1, "t-auditor", "auditor"),
        (P2, "t-other", "msp_full"),
        (P2, "t-changes", "msp_billing"),
    ] {
        links.push(admin.create_link(&actor(), &link_input(partner, tenant, role)).await.unwrap().value.id);
    }
    (database, links[0])
}

fn link_input(partner: &str, tenant: &str, role: &str) -> LinkInput {
    LinkInput {
        partner_id: Some(partner.into()),
        managed_tenant_id: Some(tenant.into()),
        access_role: Some(role.into()),
        relationship_type: Some("msp_managed".into()),
        start_date: Some("2024-01-01T00:00:00Z".into()),
        ..LinkInput::default()
    }
}
