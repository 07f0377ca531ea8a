//! The warm decision with a database behind it: token cached, links cached, as a worker does it.
//!
//! The same work over databases of 1,000, 100,000 and 1,000,000 links, in short rounds in turn: each round decides for
//! ten partners of a hundred links, with tokens, tenants and links picked at random. Then the same with as many partners
//! as there are, which shows what it costs that links do not fit the processor's caches; and a partner of ten links
//! beside one of a thousand.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use linkgate::{
    config::{self, settings::Config},
    domain::{Facts, LinkRole, Millis, Permission, Portfolio, TenantId, UserFacts},
    identity::{
        Caller, Remembered, TokenCache, Verifier,
        mint::{DevAlgorithm, DevKey, mint},
    },
    policy::{Memo, Policies, decide},
    store::{
        Database, Directory, Reading,
        bulk::{self, Fill},
    },
};
use serde_json::json;

use super::next;

/// What a worker keeps of a token.
#[derive(Clone)]
struct Hot(Arc<Session>);

struct Session {
    caller: Arc<Caller>,
    user: UserFacts,
    portfolio: Arc<Portfolio>,
    epoch: u64,
    policies: u64,
}

impl Remembered for Hot {
    fn caller(&self) -> &Caller {
        &self.0.caller
    }
}

/// One database with its caches filled.
struct Loaded {
    name: String,
    directory: Arc<Directory>,
    tokens: Vec<String>,
    tenants: Vec<TenantId>,
    asked: usize,
    cache: TokenCache<Hot>,
    memo: Memo,
    at: usize,
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
    key: DevKey,
    policies: Policies,
    verifier: Verifier,
    permission: Permission,
}

/// How large, and how much of it is asked about.
#[derive(Clone, Copy)]
struct Size {
    partners: u32,
    links_each: u32,
    /// Partners with a token.
    active: u32,
    /// Tenants that are asked for, of each partner's.
    asked: u32,
}

impl Size {
    fn links(self) -> u32 {
        self.partners * self.links_each
    }
}

/// Prints percentiles of single calls: the median over all rounds, and the range of the rounds' medians.
pub(crate) fn figures(full: bool) {
    let scale = if full { 1 } else { 100 };
    let bench = Bench::new();
    let hot = |partners: u32| Size { partners: (partners / scale).max(10), links_each: 100, active: 10, asked: 100 };
    let all = |partners: u32| {
        let partners = (partners / scale).max(10);
        Size { partners, links_each: 100, active: partners, asked: 100 }
    };
    let one = |links_each, asked| Size { partners: 10, links_each, active: 1, asked };
    let calls = 20_000 / scale as usize;
    let rounds = if full { 25 } else { 2 };
    println!("decision with a database (token cached, link cached), ns");
    bench.compare("1,000 links asked about", &[hot(10), hot(1_000), hot(10_000)], rounds, calls);
    bench.compare("one partner", &[one(10, 10), one(1_000, 10), one(1_000, 1_000)], rounds, calls);
    bench.compare("all partners active", &[all(10), all(1_000), all(10_000)], rounds, calls);
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = DevKey::generate(DevAlgorithm::Es256).unwrap();
        key.write_jwks(&dir.path().join("jwks.json")).unwrap();
        let config = configuration(dir.path(), "unused.db");
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            policies: Policies::new(config.policy.clone()).unwrap(),
            verifier: Verifier::new(&config.identity, None).unwrap(),
            permission: Permission::parse("partner.billing.invoices.read").unwrap(),
            dir,
            key,
        }
    }

    fn compare(&self, what: &str, sizes: &[Size], rounds: usize, calls: usize) {
        let mut loaded: Vec<Loaded> = sizes
            .iter()
            .enumerate()
            .map(|(at, size)| self.load(&format!("{}-{at}.db", what.replace([' ', ','], "-")), *size))
            .collect();
        let mut seen: Vec<Vec<[u64; 2]>> = vec![Vec::new(); loaded.len()];
        let mut times = Vec::with_capacity(calls);
        for round in 0..=rounds {
            for (loaded, seen) in loaded.iter_mut().zip(&mut seen) {
                let clock = clock(calls);
                times.clear();
                for _ in 0..calls {
                    let start = Instant::now();
                    black_box(self.one(loaded));
                    times.push(start.elapsed());
                }
                times.sort_unstable();
                let at =
                    |share: usize| u64::try_from(times[calls * share / 1000].saturating_sub(clock).as_nanos()).unwrap();
                // The first round warms.
                if round > 0 {
                    seen.push([at(500), at(990)]);
                }
            }
        }
        for (loaded, seen) in loaded.iter().zip(&seen) {
            let of = |which: usize| {
                let mut values: Vec<u64> = seen.iter().map(|round| round[which]).collect();
                values.sort_unstable();
                format!("{} ({}-{})", values[values.len() / 2], values[0], values[values.len() - 1])
            };
            println!("{what:24} {:48} p50 {:>18}   p99 {:>18}", loaded.name, of(0), of(1));
        }
    }

    fn load(&self, file: &str, size: Size) -> Loaded {
        let config = configuration(self.dir.path(), file);
        let fill = Fill {
            partners: size.partners,
            links_per_partner: size.links_each,
            tenants: size.partners.max(size.links_each),
            issuer: "bench".into(),
            role: LinkRole::MspBilling,
        };
        let (directory, sessions) = self.runtime.block_on(async {
            let database = Database::open(&config.database).await.unwrap();
            database.migrate().await.unwrap();
            bulk::fill(&database, &fill).await.unwrap();
            let directory = Directory::start(&database, &config.links);
            while !directory.is_fresh() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut sessions = Vec::new();
            for n in 0..size.active {
                sessions.push(self.session(&directory, n).await);
            }
            (directory, sessions)
        });
        let mut loaded = Loaded {
            name: format!("{} links, {} partners, {} asked of each", size.links(), size.active, size.asked),
            directory,
            tokens: Vec::new(),
            tenants: (0..fill.tenants).map(|n| bulk::tenant_id(n).unwrap()).collect(),
            asked: size.asked as usize,
            cache: TokenCache::new(100_000),
            memo: Memo::new(10_000),
            at: 1,
        };
        for (token, session) in sessions {
            loaded.cache.put(&token, self.verifier.generation(), Hot(Arc::new(session)));
            loaded.tokens.push(token);
        }
        loaded
    }

    /// What a worker keeps after the first request of this token.
    async fn session(&self, directory: &Arc<Directory>, n: u32) -> (String, Session) {
        let token = self.token(n);
        let caller = self.verifier.verify(&token, Millis::now()).unwrap();
        let epoch = directory.epoch();
        let partner = bulk::partner_id(n);
        // On a busy machine the change feed may be late for a moment.
        let portfolio = loop {
            match directory.portfolio(partner, Reading::Fresh).await {
                Ok(found) => break found.unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let policies = self.policies.current();
        let holds = policies
            .roles()
            .holds(caller.roles.iter().map(|role| &**role), caller.permissions.iter().map(|name| &**name));
        let user = UserFacts {
            issuer: Arc::clone(&caller.issuer),
            sub: Arc::clone(&caller.sub),
            partner_id: partner,
            holds,
            suspended: false,
        };
        (token, Session { caller, user, portfolio, epoch, policies: policies.generation() })
    }

    fn token(&self, n: u32) -> String {
        let now = Millis::now().0 / 1000;
        let claims = json!({
            "iss": "bench", "aud": "linkgate", "sub": format!("user-{n}"), "tenant_id": format!("home-{n}"),
            "type": "access", "roles": ["partner_msp_billing"], "iat": now, "exp": now + 36_000,
            "username": format!("user-{n}@example"), "session_id": format!("session-{n}"), "jti": format!("{n}"),
        });
        mint(&self.key, &claims.as_object().unwrap().clone().into_iter().collect()).unwrap()
    }

    /// One decision as the stages of a request make it.
    fn one(&self, loaded: &mut Loaded) -> bool {
        let now = Millis::now();
        let active = next(&mut loaded.at, loaded.tokens.len());
        // Of partner `p`, the links are to the tenants from `p` on.
        let tenant = (active + next(&mut loaded.at, loaded.asked)) % loaded.tenants.len();
        let hot = loaded.cache.get(&loaded.tokens[active], self.verifier.generation(), now).unwrap();
        let session = &*hot.0;
        let bundle = self.policies.load();
        assert!(session.epoch == loaded.directory.epoch() && session.policies == bundle.generation());
        black_box(loaded.directory.is_fresh());
        let facts = Facts {
            user: &session.user,
            link: session.portfolio.link(loaded.tenants[tenant].as_str()).map(|link| &**link),
            permission: self.permission,
            switch_context: true,
            now,
            ip: [192, 0, 2, 1].into(),
            mfa: session.caller.mfa,
            method: "GET",
            route_class: "read",
        };
        let outcome = decide(&bundle, Some(&mut loaded.memo), &facts);
        assert!(outcome.verdict.is_ok());
        true
    }
}

/// What reading the clock takes, to be taken off.
fn clock(calls: usize) -> Duration {
    let mut times: Vec<_> = (0..calls).map(|_| Instant::now().elapsed()).collect();
    times.sort_unstable();
    times[calls / 2]
}

fn configuration(dir: &std::path::Path, database: &str) -> Config {
    let path = dir.join("linkgate.toml");
    let keys = dir.join("jwks.json");
    let text = format!(
        r#"
[database]
sqlite = "{database}"
[issuers.bench]
issuer = "bench"
audiences = ["linkgate"]
algorithms = ["ES256"]
jwks_file = "{}"
trusts = ["roles", "permissions"]
[upstreams.up]
origin = "http://127.0.0.1:9"
credential = "drop"
assertion = "off"
[[routes]]
methods = ["GET"]
path = "/items"
permission = "partner.billing.invoices.read"
upstream = "up"
"#,
        keys.display()
    );
    std::fs::write(&path, text).unwrap();
    config::load(Some(&path), std::iter::empty()).unwrap_or_else(|errors| panic!("{errors}"))
}
