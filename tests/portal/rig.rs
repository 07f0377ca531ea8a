//! A gateway with partners, links and connectors, started in this process on free ports.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use linkgate::{
    app::{self, ConfigSource},
    config,
    config::settings::DatabaseSettings,
    domain::{ApprovalRules, LinkId, Millis, RoleTable, link_rules::LinkInput},
    identity::mint::{DevAlgorithm, DevKey, mint},
    limit::settings::Quota,
    policy::Bundle,
    store::{
        Actor, Admin, Database,
        admin::{PartnerInput, TenantInput, UserInput},
    },
};
use serde_json::{Map, Value, json};

use super::{
    client::{Answer, Request},
    service::Service,
    world::{World, held},
};

pub const ISSUER: &str = "https://issuer.test";
pub const P1: &str = "11111111-1111-4111-8111-111111111111";
pub const P2: &str = "22222222-2222-4222-8222-222222222222";
pub const BASE: &str = "/api/v1/partner";

/// Tenants of partner 1: id, role. `t-override` lacks `billing.read`; partner 2 audits `t-full` too.
pub const TENANTS: [(&str, &str); 6] = [
    ("t-auditor", "auditor"),
    ("t-billing", "msp_billing"),
    ("t-full", "msp_full"),
    ("t-override", "msp_full"),
    ("t-reseller", "reseller"),
    ("t-support", "msp_support"),
];

pub struct Rig {
    pub public: SocketAddr,
    pub health: SocketAddr,
    pub service: Service,
    pub world: World,
    pub links: BTreeMap<String, LinkId>,
    pub dir: tempfile::TempDir,
    key: DevKey,
    runtime: tokio::runtime::Runtime,
    database: Database,
    roles: Arc<RoleTable>,
}

impl Rig {
    pub fn start() -> Self {
        Self::with("")
    }

    /// `portal`: further lines of `[portal]`.
    pub fn with(portal: &str) -> Self {
        // Only t-auditor has invoices in two currencies.
        let world = TENANTS.iter().map(|(tenant, _)| {
            let currencies: &[&str] = if *tenant == "t-auditor" { &["USD", "USD", "EUR"] } else { &["USD"] };
            ((*tenant).to_owned(), held(tenant, currencies))
        });
        let links = TENANTS.iter().map(|(tenant, role)| (P1, (*tenant).to_owned(), *role)).collect();
        Self::of(world.collect(), links, portal)
    }

    /// With this pause between two checkpoints of the audit chain.
    pub fn with_checkpoints_every(interval: Duration) -> Self {
        let world: World = [("t-full".to_owned(), held("t-full", &["USD"]))].into_iter().collect();
        let service = Service::start(world.clone());
        let connectors = connectors(service.address);
        let links = vec![(P1, "t-full".to_owned(), "msp_full")];
        Self::configured(service, world, links, (&connectors, ""), |config| config.checkpoints.interval = interval)
    }

    /// With this limit for each of a tenant's administrators.
    pub fn with_tenant_admins_limited(limit: Quota) -> Self {
        let world: World = [("t-full".to_owned(), held("t-full", &["USD"]))].into_iter().collect();
        let service = Service::start(world.clone());
        let connectors = connectors(service.address);
        let links = vec![(P1, "t-full".to_owned(), "msp_full")];
        Self::configured(service, world, links, (&connectors, ""), |config| config.limits.tenant_admin = limit)
    }

    pub fn of(world: World, links: Vec<(&'static str, String, &'static str)>, portal: &str) -> Self {
        let service = Service::start(world.clone());
        let connectors = connectors(service.address);
        Self::over(service, world, links, &connectors, portal)
    }

    /// `connectors`: they and their upstreams, where `service` is not all.
    pub fn over(
        service: Service,
        world: World,
        links: Vec<(&'static str, String, &'static str)>,
        connectors: &str,
        portal: &str,
    ) -> Self {
        Self::configured(service, world, links, (connectors, portal), |_| ())
    }

    fn configured(
        service: Service,
        world: World,
        links: Vec<(&'static str, String, &'static str)>,
        (connectors, portal): (&str, &str),
        adjust: impl FnOnce(&mut config::Config),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = DevKey::generate(DevAlgorithm::Es256).unwrap();
        key.write_jwks(&dir.path().join("jwks.json")).unwrap();
        DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&dir.path().join("signing.pem")).unwrap();
        let path = dir.path().join("linkgate.toml");
        std::fs::write(&path, configuration(connectors, portal)).unwrap();
        let env = [("SECRET".to_owned(), "0123456789abcdef0123456789abcdef".to_owned())];
        let mut config = config::load(Some(&path), env).unwrap_or_else(|errors| panic!("{errors}"));
        config.listen.address = "127.0.0.1:0".parse().unwrap();
        config.health = Some("127.0.0.1:0".parse().unwrap());
        adjust(&mut config);
        config.log.filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "off".into());
        let roles = Arc::new(Bundle::load(None).unwrap().roles().clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (database, links) = runtime.block_on(seed(&config.database, &roles, links));
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let source = ConfigSource::unchanging(&config);
            if let Err(error) = app::run(config, source, |listening| tell.send(listening).unwrap()) {
                eprintln!("the gateway ended: {error}");
            }
        });
        let listening = told.recv_timeout(Duration::from_secs(30)).expect("the gateway did not start");
        let health = listening.health.unwrap();
        Self { public: listening.public, health, service, world, links, dir, key, runtime, database, roles }
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn admin(&self) -> Admin {
        self.admin_under(false.into())
    }

    pub fn admin_under(&self, rules: ApprovalRules) -> Admin {
        Admin::new(&self.database, Arc::clone(&self.roles), rules)
    }

    /// As another replica would; this one knows it after the promised second.
    pub fn revoke(&self, tenant: &str) {
        self.block_on(self.admin().revoke_link(&actor(), self.links[tenant], None)).unwrap();
        thread::sleep(Duration::from_secs(1));
    }

    /// Takes one permission from a link, known after the promised second.
    pub fn deny(&self, tenant: &str, permission: &str) {
        let overrides = BTreeMap::from([(permission.to_owned(), false)]);
        let input = LinkInput { custom_permissions: Some(overrides), ..LinkInput::default() };
        self.block_on(self.admin().update_link(&actor(), self.links[tenant], None, &input)).unwrap();
        thread::sleep(Duration::from_secs(1));
    }

    pub fn link(&self, partner: &str, tenant: &str, role: &str) -> LinkId {
        let id = self.block_on(create_link(&self.admin(), partner, tenant, role, None));
        thread::sleep(Duration::from_secs(1));
        id
    }

    /// A link from which one permission is taken.
    pub fn link_without(&self, partner: &str, tenant: &str, role: &str, denied: &str) -> LinkId {
        let id = self.block_on(create_link(&self.admin(), partner, tenant, role, Some(denied)));
        thread::sleep(Duration::from_secs(1));
        id
    }

    pub fn token(&self, user: &str, home: &str, role: &str) -> String {
        let now = Millis::now().0 / 1000;
        let claims = json!({
            "iss": ISSUER, "aud": "gateway", "sub": user, "tenant_id": home, "iat": now, "exp": now + 600, "type": "access",
            "username": format!("{user}@test"), "session_id": "s-1", "jti": uuid::Uuid::new_v4().to_string(), "roles": [role],
        });
        mint(&self.key, &claims.as_object().unwrap().clone().into_iter().collect::<Map<_, _>>()).unwrap()
    }

    /// As the user of partner 1 who holds everything.
    pub fn ask(&self, request: Request) -> Answer {
        request.bearer(&self.token("user-1", "home-1", "partner_msp_full")).send(self.public)
    }

    pub fn ask_as(&self, role: &str, request: Request) -> Answer {
        request.bearer(&self.token("user-1", "home-1", role)).send(self.public)
    }

    pub fn ask_other_partner(&self, request: Request) -> Answer {
        request.bearer(&self.token("user-2", "home-2", "partner_msp_full")).send(self.public)
    }

    /// Lines of the journal, once so many requests are complete.
    pub fn journal(&self, completed: usize) -> Vec<Value> {
        for _ in 0..200 {
            let lines = self.lines();
            if lines.iter().filter(|line| line["type"] == "complete").count() >= completed {
                return lines;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the journal stays incomplete: {:?}", self.lines())
    }

    fn lines(&self) -> Vec<Value> {
        let mut files: Vec<_> =
            std::fs::read_dir(self.dir.path().join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
        files.sort();
        let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
        let parsed = |text: String| text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<_>>();
        texts.flat_map(parsed).collect()
    }

    /// A good answer under the base path.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask(Request::get(&format!("{BASE}{path}")));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// The same, and the body's own digits.
    pub fn get_text(&self, path: &str) -> String {
        let answer = self.ask(Request::get(&format!("{BASE}{path}")));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    }

    /// Code, and the fields that are told.
    pub fn refused(&self, path: &str) -> (u16, String, Vec<String>) {
        let answer = self.ask(Request::get(&format!("{BASE}{path}")));
        let details = answer.json()["error"]["details"].as_object().unwrap().keys().cloned().collect();
        (answer.status, answer.error(), details)
    }
}

pub fn actor() -> Actor {
    Actor::new("test")
}

/// How a tenant stands in `sources`; `ok` where it is not named.
pub fn status_of(answer: &Value, tenant: &str) -> String {
    let sources = answer["sources"].as_array().unwrap();
    let found = sources.iter().find(|source| source["tenant_id"] == tenant);
    found.map_or("ok".to_owned(), |source| source["status"].as_str().unwrap().to_owned())
}

/// The names of an object's fields, in their order.
pub fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

pub fn connectors(service: SocketAddr) -> String {
    format!(
        r#"
[upstreams.isp]
origin = "http://{service}"
assertion = "off"
[upstreams.isp.replacement]
hs256_secret_env = "SECRET"
[connectors.main]
preset = "gen1"
upstream = "isp"
"#
    )
}

fn configuration(connectors: &str, portal: &str) -> String {
    format!(
        r#"
[listen]
workers = 2
[database]
sqlite = "linkgate.db"
[issuers.main]
issuer = "{ISSUER}"
audiences = ["gateway"]
algorithms = ["ES256"]
jwks_file = "jwks.json"
trusts = ["roles"]
[signing]
issuer = "https://gateway.test"
keys = [{{ kid = "k1", file = "signing.pem" }}]
[audit]
dir = "audit"
writes = "os"
reads = "os"
checkpoint_interval = "1s"
[limits]
listing = 0
detail = 0
tenant = 0
tenant_admin = 0
refusal = 0
unauthenticated = 0
{connectors}
# Only the request asks: tests count the questions.
[alerts]
background = false
[portal]
{portal}
"#
    )
}

async fn create_link(admin: &Admin, partner: &str, tenant: &str, role: &str, denied: Option<&str>) -> LinkId {
    let denied = denied.or((tenant == "t-override").then_some("billing.read"));
    let overrides = denied.map(|name| BTreeMap::from([(name.to_owned(), false)]));
    let target = (tenant == "t-full").then(|| Some(json!("99.70")));
    let input = LinkInput {
        partner_id: Some(partner.into()),
        managed_tenant_id: Some(tenant.into()),
        relationship_type: Some("msp_managed".into()),
        access_role: Some(role.into()),
        start_date: Some("2024-01-01T00:00:00Z".into()),
        custom_permissions: overrides,
        sla_uptime_target: target,
        billing_alert_threshold: Some(Some(json!("1500.50"))),
        notes: Some(Some("secret-note".into())),
        ..LinkInput::default()
    };
    admin.create_link(&actor(), &input).await.unwrap_or_else(|error| panic!("{tenant}: {error}")).value.id
}

async fn seed(
    settings: &DatabaseSettings,
    roles: &Arc<RoleTable>,
    wanted: Vec<(&'static str, String, &'static str)>,
) -> (Database, BTreeMap<String, LinkId>) {
    let database = Database::open(settings).await.unwrap();
    database.migrate().await.unwrap();
    let admin = Admin::new(&database, Arc::clone(roles), false);
    let tenant = |id: &str| TenantInput {
        tenant_id: Some(id.into()),
        name: Some(format!("Own {id}")),
        ..TenantInput::default()
    };
    for id in ["home-1", "home-2"].into_iter().chain(wanted.iter().map(|(_, tenant, _)| &**tenant)) {
        admin.create_tenant(&actor(), &tenant(id)).await.unwrap();
    }
    for (id, home, user) in [(P1, "home-1", "user-1"), (P2, "home-2", "user-2")] {
        let input = PartnerInput {
            partner_id: Some(id.into()),
            name: Some(format!("Partner {home}")),
            home_tenant_id: Some(home.into()),
            is_active: Some(true),
        };
        admin.create_partner(&actor(), &input).await.unwrap();
        let input = UserInput {
            issuer: Some(ISSUER.into()),
            sub: Some(user.into()),
            partner_id: Some(id.into()),
            ..UserInput::default()
        };
        admin.create_user(&actor(), &input).await.unwrap();
    }
    let mut links = BTreeMap::new();
    for (partner, tenant, role) in wanted {
        let id = create_link(&admin, partner, &tenant, role, None).await;
        links.insert(tenant, id);
    }
    (database, links)
}
