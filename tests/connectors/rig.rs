//! Both generations of the sample services, and the gateway's sources before them, configured as an operator would.

use std::{path::Path, sync::Arc, time::Duration};

use linkgate::{
    config::{self, Config},
    domain::{Approval, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, PermissionSet, TenantId},
    identity::{
        Keyring,
        mint::{DevAlgorithm, DevKey},
    },
    policy::Policies,
    portal::sources::{Site, Sources},
    sample::{self, Handle, Kind},
    upstream::Upstream,
};
use tokio::{net::TcpListener, time::Instant};
use uuid::Uuid;

use crate::decided::decided;

pub struct Rig {
    pub isp: Handle,
    pub platform: Handle,
    pub gen2: Handle,
    pub config: Config,
    pub sources: Sources,
    _dir: tempfile::TempDir,
}

pub const PARTNER: u128 = 0x0a11;

/// Tenants beginning with `g2-` live on the newer generation.
pub const NEW_TENANTS: [&str; 4] = ["g2-a", "g2-b", "g2-tokyo", "g2-empty"];

pub async fn start(kind: Kind) -> Handle {
    sample::start(kind, TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap()
}

impl Rig {
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// `more`: further lines of the configuration.
    pub async fn with(more: &str) -> Self {
        let (isp, platform, gen2) = (start(Kind::Isp).await, start(Kind::Platform).await, start(Kind::Gen2).await);
        let dir = tempfile::tempdir().unwrap();
        DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&dir.path().join("signing.pem")).unwrap();
        let tenants = NEW_TENANTS.map(|tenant| format!("\"{tenant}\"")).join(", ");
        let text = format!(
            r#"
[database]
sqlite = "x.db"
[issuers.main]
issuer = "https://login.example"
audiences = ["linkgate"]
algorithms = ["ES256"]
jwks_url = "https://login.example/jwks.json"
[signing]
issuer = "https://gateway.example"
keys = [{{ kid = "k1", file = "signing.pem" }}]

[upstreams.isp]
origin = "{}"
connect_timeout = "500ms"
[upstreams.isp.replacement]
hs256_secret_env = "SECRET"
[upstreams.platform]
origin = "{}"
credential = "drop"
[upstreams.gen2]
origin = "{}"
[upstreams.gen2.replacement]
hs256_secret_env = "SECRET"

[connectors.old]
preset = "gen1"
upstream = "isp"
tenant = {{ upstream = "platform" }}

[connectors.new]
preset = "gen2"
upstream = "gen2"
tenants = [{tenants}]

{more}
"#,
            isp.origin(),
            platform.origin(),
            gen2.origin()
        );
        let config = load(&text, dir.path());
        let sources = sources(&config);
        Self { isp, platform, gen2, config, sources, _dir: dir }
    }
}

pub fn load(text: &str, dir: &Path) -> Config {
    let env = [("SECRET".to_owned(), "0123456789abcdef0123456789abcdef".to_owned())];
    config::load_text(text, Some("test.toml"), dir, env).unwrap_or_else(|errors| panic!("{errors}"))
}

pub fn sources(config: &Config) -> Sources {
    let upstreams: Vec<Arc<Upstream>> =
        config.upstreams.iter().cloned().map(|settings| Upstream::new(settings).unwrap()).collect();
    let keyring = config.signing.as_ref().map(|settings| Arc::new(Keyring::load(settings).unwrap()));
    let policies = Arc::new(Policies::new(config.policy.clone()).unwrap());
    let portal = config.portal.as_ref().unwrap();
    Sources::new(&config.connectors, &upstreams, keyring.as_ref(), &policies, portal)
}

/// A link of one partner to the tenant, decided for its auditor.
pub fn site(tenant: &str) -> Site {
    let link = Link {
        id: LinkId(Uuid::from_u128(tenant.bytes().fold(7, |id, byte| id * 257 + u128::from(byte)))),
        partner_id: PartnerId(Uuid::from_u128(PARTNER)),
        tenant_id: TenantId::new(tenant).unwrap(),
        role: LinkRole::Auditor,
        granted: PermissionSet::EMPTY,
        denied: PermissionSet::EMPTY,
        approval: Approval::Approved,
        is_active: true,
        start: Millis(0),
        end: None,
        allowed_cidrs: Box::default(),
        require_mfa: false,
        version: LinkVersion(1),
    };
    let facts = LinkFacts {
        link,
        partner_active: true,
        suspended: false,
        tenant_status: "active".into(),
        ancestors: Box::default(),
    };
    Site::from(&decided(facts, "partner.tenants.list"))
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}
