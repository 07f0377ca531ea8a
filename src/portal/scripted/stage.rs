//! A portal over scripted services, and the requests that tests make of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rust_decimal::Decimal;

use super::{
    Held, Scripted,
    decided::{Asked, decided, full_link, trace},
};
use crate::portal::{
    Asker, AskingPartner, Bases, Call, Foundations, ManagedTenant, Portal, Problem, Question, ReplyBody, Slice,
    endpoint::{Found, TABLE},
    fanout::{Fanout, Upstreams},
    managed::{ManagedTenants, Tenants},
    metrics::Metrics,
    sources::Sources,
};
use crate::{
    config::settings::{AlertSettings, DatabaseSettings, ExportSettings, LinkSettings, PortalSettings, ReadSettings},
    domain::{
        DecisionId, Denial, ErrorCode, Gate, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, Partner, PartnerId,
        PermissionSet, Portfolio, SignOff, TenantId, UserFacts, link_rules::LinkTerms,
    },
    policy::{Policies, settings::PolicySettings},
    store::{Database, Directory, IdempotencyKeys, LinkRecord, Stamps, TenantRecord},
};

/// A portal over scripted services, with partners and links that exist in memory only.
pub(in crate::portal) struct Stage {
    pub(in crate::portal) portal: Arc<Portal>,
    pub(in crate::portal) services: Arc<Scripted>,
    pub(in crate::portal) now: Timestamp,
    partner: PartnerId,
    links: BTreeMap<String, (LinkId, i64)>,
    forbidden: Vec<String>,
    _dir: tempfile::TempDir,
}

pub(in crate::portal) fn settings() -> ReadSettings {
    ReadSettings {
        deadline: Duration::from_secs(5),
        source_timeout: Duration::from_secs(3),
        concurrency: 256,
        concurrency_per_upstream: 512,
        concurrency_total: 1024,
        hedge_percent: 0,
        breaker_failures: 0,
        breaker_pause: Duration::from_secs(10),
        slice_fresh: Duration::from_secs(15),
        max_slice_age: Duration::from_secs(60),
        max_stale_age: Duration::from_secs(600),
        slice_cache_bytes: 64 * 1024 * 1024,
    }
}

impl Stage {
    pub(in crate::portal) async fn new(tenants: &[&str], reads: ReadSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = DatabaseSettings::Sqlite { path: dir.path().join("none.db") };
        let database = Database::open(&database).await.unwrap();
        let policies =
            Arc::new(Policies::new(PolicySettings { memo_entries: 16, ..PolicySettings::default() }).unwrap());
        let services = Arc::new(Scripted::default());
        let base = "/api/v1/partner".to_owned();
        let upstreams: Arc<dyn Upstreams> = Arc::<Scripted>::clone(&services);
        let settings = PortalSettings {
            base_paths: vec![base.clone()],
            tenant_base_path: "/api/v1/tenant".into(),
            tenant_admin_roles: Vec::new(),
            compatibility_base_paths: vec!["/old".into()],
            max_rows_per_source: 10_000,
            reads,
            alerts: AlertSettings {
                background: false,
                interval: Duration::from_secs(300),
                concurrency: 8,
                timeout: Duration::from_secs(15),
                fresh_for: Duration::from_secs(60),
                keep_resolved: Duration::from_secs(90 * 86_400),
            },
        };
        let none = Sources::new(&[], &[], None, &policies, &settings, None);
        let links = LinkSettings {
            max_staleness: Duration::from_secs(1),
            heartbeat: Duration::from_millis(250),
            cached_partners: 10,
            approvals: false.into(),
        };
        let exports = ExportSettings {
            dir: dir.path().join("exports"),
            secret: None,
            concurrency: 1,
            queue_per_partner: 1,
            lease: Duration::from_secs(30),
            max_duration: Duration::from_secs(3600),
            pdf_rows: 10,
        };
        let metrics = Metrics::unseen();
        let on = Foundations {
            database: &database,
            keys: &IdempotencyKeys::new(&database),
            policies: &policies,
            directory: &Directory::start(&database, &links),
            approvals: false.into(),
            exports: &exports,
            keyring: None,
            journal: dir.path(),
            metrics: &metrics,
        };
        let usual = Portal::new(&settings, &on, none);
        let portal = Portal {
            bases: Bases { partner: vec![base], compatible: vec!["/old".into()], tenant: "/api/v1/tenant".into() },
            managed: ManagedTenants::new(&database),
            fanout: Fanout::new(&settings.reads, upstreams, &metrics),
            ..usual
        };
        let links = tenants.iter().map(|tenant| ((*tenant).to_owned(), (LinkId(uuid::Uuid::new_v4()), 1))).collect();
        Self {
            portal: Arc::new(portal),
            services,
            now: "2026-04-01T12:00:00Z".parse().unwrap(),
            partner: PartnerId(uuid::Uuid::new_v4()),
            links,
            forbidden: Vec::new(),
            _dir: dir,
        }
    }

    pub(in crate::portal) fn hold(&self, tenant: &str, held: Held) {
        self.services.held.lock().unwrap().insert(tenant.to_owned(), held);
    }

    pub(in crate::portal) fn forbid(&mut self, tenant: &str) {
        self.forbidden.push(tenant.to_owned());
    }

    /// As any change of the link would.
    pub(in crate::portal) fn change_link(&mut self, tenant: &str) {
        self.links.get_mut(tenant).unwrap().1 += 1;
    }

    /// Another partner with links to the same tenants.
    pub(in crate::portal) fn other_partner(&mut self) {
        self.partner = PartnerId(uuid::Uuid::new_v4());
        for link in self.links.values_mut() {
            link.0 = LinkId(uuid::Uuid::new_v4());
        }
    }

    fn link(&self, tenant: &str) -> LinkFacts {
        let (id, version) = self.links[tenant];
        let mut facts = full_link(tenant);
        facts.link.id = id;
        facts.link.partner_id = self.partner;
        facts.link.version = LinkVersion(version);
        facts
    }

    fn managed(&self) -> Tenants {
        let stamps = Stamps {
            version: 1,
            created_at: Millis(0),
            updated_at: Millis(0),
            created_by: "test".into(),
            updated_by: "test".into(),
        };
        let one = |tenant: &String| {
            let tenant_id = TenantId::new(tenant).unwrap();
            let row = TenantRecord {
                tenant_id: tenant_id.clone(),
                name: format!("Own {tenant}"),
                slug: None,
                domain: None,
                status: "active".into(),
                stamps: stamps.clone(),
            };
            let mut terms = LinkTerms::new(LinkRole::MspFull, Millis(0));
            terms.notes = Some("a secret note".into());
            terms.sla_uptime_target = (tenant == "t-strict").then(|| Decimal::new(9999, 2));
            let link = LinkRecord {
                id: self.links[tenant].0,
                partner_id: self.partner,
                managed_tenant_id: tenant_id.clone(),
                partner_tenant_id: TenantId::new("home").unwrap(),
                terms,
                sign_off: SignOff::default(),
                stamps: stamps.clone(),
            };
            (tenant_id, Arc::new(ManagedTenant { tenant: row, link }))
        };
        self.links.keys().map(one).collect()
    }

    fn call(&self, path: &str, headers: http::HeaderMap) -> (Call, bool) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let Found::Endpoint { index, param, compatible, .. } = self.portal.bases.find("GET", path) else {
            panic!("no endpoint: {path}")
        };
        let spec = &TABLE[index];
        let slices = self.links.keys().map(|tenant| {
            let link = self.link(tenant);
            if self.forbidden.contains(tenant) {
                return Slice::Forbidden { link: Arc::new(link), denial: Denial::from(Gate::Role) };
            }
            match spec.permission() {
                Some(permission) => Slice::Granted(decided(link, permission.name(), spec.also)),
                None => Slice::Live(Arc::new(link)),
            }
        });
        let partner = Partner {
            id: self.partner,
            name: "Partner".into(),
            home_tenant_id: TenantId::new("home").unwrap(),
            active: true,
            suspended: false,
        };
        let user = UserFacts {
            issuer: "i".into(),
            sub: "u".into(),
            partner_id: self.partner,
            holds: PermissionSet::ALL,
            suspended: false,
        };
        let portfolio = Arc::new(Portfolio { partner, links: HashMap::default(), as_of: 1 });
        self.portal.managed.put(&portfolio, self.managed());
        let call = Call {
            spec,
            param: param.map(str::to_owned),
            query: query.to_owned(),
            headers,
            body: bytes::Bytes::new(),
            asker: Asker {
                user_id: "u".into(),
                issuer: "i".into(),
                home_tenant: None,
                username: None,
                partner: Some(AskingPartner { user, portfolio }),
                expires_at: Millis(i64::MAX),
                ip: [127, 0, 0, 1].into(),
                mfa: false,
            },
            slices: slices.collect(),
            active: None,
            now: Millis::from_timestamp(self.now),
            trace: trace(),
            decision_id: DecisionId::generate(),
            standing: Asked::with([]),
        };
        (call, compatible)
    }

    pub(in crate::portal) async fn try_get(&self, path: &str) -> Result<serde_json::Value, Problem> {
        self.try_get_with(path, http::HeaderMap::new()).await
    }

    pub(in crate::portal) async fn try_get_with(
        &self,
        path: &str,
        headers: http::HeaderMap,
    ) -> Result<serde_json::Value, Problem> {
        let (mut call, compatible) = self.call(path, headers);
        let question = Question {
            spec: call.spec,
            param: call.param.as_deref(),
            query: &call.query,
            headers: &call.headers,
            body: &[],
            now: self.now,
            compatible,
        };
        let prepared = Portal::prepare(&question)?;
        let wanted: Option<Vec<TenantId>> = match prepared.narrow() {
            crate::portal::Narrow::All => None,
            crate::portal::Narrow::To(tenants) => Some(tenants.to_vec()),
            crate::portal::Narrow::One(tenant) => Some(vec![tenant.clone()]),
        };
        if let Some(wanted) = wanted {
            call.slices.retain(|slice| wanted.contains(&slice.link().link.tenant_id));
        }
        let reply = prepared.answer(Arc::clone(&self.portal), call).await?;
        assert_eq!(reply.status, 200);
        let ReplyBody::Bytes(bytes) = reply.body else { panic!("a stream") };
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    pub(in crate::portal) async fn get(&self, path: &str) -> serde_json::Value {
        self.try_get(path).await.unwrap_or_else(|problem| panic!("{path}: {problem:?}"))
    }

    pub(in crate::portal) async fn get_fresh(&self, path: &str) -> serde_json::Value {
        let headers = [(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache"))];
        self.try_get_with(path, headers.into_iter().collect()).await.unwrap()
    }
}

/// `status` of one source, or `ok` where it is not named.
pub(in crate::portal) fn status_of(answer: &serde_json::Value, tenant: &str) -> String {
    let sources = answer["sources"].as_array().unwrap();
    let found = sources.iter().find(|source| source["tenant_id"] == tenant);
    found.map_or("ok".to_owned(), |source| source["status"].as_str().unwrap().to_owned())
}

/// The code of a problem.
pub(in crate::portal) fn code(problem: &Problem) -> ErrorCode {
    problem.code
}
