//! What the gateway costs beside a bare hyper passthrough of the same stack, in one run on one machine.
//!
//! `cargo bench --bench proxy [-- --rounds N --seconds S --only TEXT]`. Upstream, passthrough, gateway and load are
//! processes of their own (this program started again in another role). The figure to read is CPU seconds (user and
//! system) of the proxy's process per 100,000 requests, because load and upstream share the cores with it. Gateway and
//! passthrough get the same requests in many short rounds in turn, and the ratio is the median of the rounds' ratios, so
//! that a machine whose speed changes does not decide it. Tokens and paths vary: 1, 100 and 10,000 of each, the first
//! pass over all tokens apart (cold). The gateway runs with everything on: token, link, Cedar, limits, assertion, audit
//! at `os`, request log lines off and on.
//!
//! `-- --count` counts system calls (needs strace) and instructions in user space (needs valgrind) of one request
//! instead; `-- --tls` sets the gateway behind TLS beside the gateway in cleartext; `-- --workers` sets ways to feed the workers beside each other, even and uneven connections.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench may stop"
)]

mod load;
mod process;
mod roles;
mod secure;
mod workers;

use std::{io::Write, path::Path, time::Duration};

use linkgate::{
    config::settings::DatabaseSettings,
    domain::{LinkRole, Millis},
    identity::mint::{DevAlgorithm, DevKey, mint},
    store::{Database, bulk},
};
use serde_json::json;

use self::{
    load::{Load, drive, heads},
    process::{Machine, Role},
    roles::{WORKERS, load_config},
};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROLE: &str = "LINKGATE_BENCH_ROLE";
const ARG: &str = "LINKGATE_BENCH_ARG";

fn main() {
    match std::env::var(ROLE) {
        Ok(role) => roles::run(&role),
        Err(_) => conduct(),
    }
}

struct World {
    dir: tempfile::TempDir,
    key: DevKey,
    upstream: Role,
    rounds: usize,
    round: Duration,
    only: String,
}

fn conduct() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    // `cargo test --benches` starts this without `--bench`: one short pass shows that it runs.
    let full = given("--bench");
    let value = |name: &str| {
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)).cloned()
    };
    let number = |name: &str, usual: f64| value(name).map_or(usual, |text| text.parse().expect("a number"));
    let key = DevKey::generate(DevAlgorithm::Es256).unwrap();
    let dir = tempfile::tempdir().unwrap();
    key.write_jwks(&dir.path().join("jwks.json")).unwrap();
    DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&dir.path().join("signing.pem")).unwrap();
    let world = World {
        dir,
        key,
        upstream: Role::start("upstream", ""),
        rounds: number("--rounds", if full { 21.0 } else { 1.0 }) as usize,
        round: Duration::from_secs_f64(number("--seconds", if full { 0.7 } else { 0.2 })),
        only: value("--only").unwrap_or_default(),
    };
    if given("--count") {
        return world.count();
    }
    if given("--tls") {
        return secure::compare(&world);
    }
    if given("--workers") {
        return workers::compare(&world);
    }
    println!("{:<58}{:>8}{:>21}{:>21}{:>21}{:>8}", "", "req/s", "CPU-s/100k", "bare", "ratio", "RSS MiB");
    let before = Machine::now();
    world.shared();
    let partners = if full { 10_000 } else { 100 };
    for (links, log) in if full { vec![(1, false), (100, false), (1, true)] } else { vec![(1, false)] } {
        world.gateway(partners, links, log);
    }
    if full {
        world.idle();
    }
    let after = Machine::now();
    let all = (after.all - before.all) as f64;
    let share = |from: u64, to: u64| (to - from) as f64 / all * 100.0;
    println!(
        "machine meanwhile: {:.1} % idle, {:.1} % stolen by its host; rounds of {:?}, {} of each",
        share(before.idle, after.idle),
        share(before.stolen, after.stolen),
        world.round,
        world.rounds
    );
}

/// Median and quartiles.
#[derive(Clone, Copy)]
struct Spread {
    low: f64,
    middle: f64,
    high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| values[(values.len() - 1) * quarter / 4];
        Self { low: at(1), middle: at(2), high: at(3) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:.2} ({:.2}-{:.2})", self.middle, self.low, self.high))
    }
}

impl World {
    fn wanted(&self, name: &str) -> bool {
        self.only.is_empty() || name.contains(&self.only)
    }

    fn peer(&self, role: &str) -> Role {
        Role::start(role, &self.upstream.address.to_string())
    }

    fn shared(&self) {
        let name = "bare hyper passthrough, one shared runtime";
        if self.wanted(name) {
            let heads = heads(&["x".repeat(500)], &["t".to_owned()], 1);
            self.row(name, &self.peer("shared"), &heads, "shared");
        }
    }

    /// One contestant and the passthrough in turn.
    fn row(&self, name: &str, role: &Role, heads: &[Vec<u8>], split: &str) {
        let bare = self.peer("reuseport");
        drive(bare.address, heads, Load::of(2_000));
        let (mut own, mut bares, mut ratios, mut rates, mut rest) = (vec![], vec![], vec![], vec![], vec![]);
        for round in 0..self.rounds {
            let own_first = round % 2 == 0;
            let first = self.cost(if own_first { role } else { &bare }, heads, split);
            let second = self.cost(if own_first { &bare } else { role }, heads, split);
            let (mine, theirs) = if own_first { (first, second) } else { (second, first) };
            own.push(mine.cpu);
            bares.push(theirs.cpu);
            ratios.push(mine.cpu / theirs.cpu);
            rates.push(mine.rate);
            rest.push(mine.rest);
        }
        println!(
            "{name:<58}{:>8.0}{:>21}{:>21}{:>21}{:>8.1}  beside the workers {:.2}",
            Spread::of(rates).middle,
            Spread::of(own),
            Spread::of(bares),
            Spread::of(ratios),
            role.resident_mib(),
            Spread::of(rest).middle
        );
        std::io::stdout().flush().unwrap();
    }

    /// One round.
    fn cost(&self, role: &Role, heads: &[Vec<u8>], workers: &str) -> Cost {
        let before = role.threads();
        let driven = drive(role.address, heads, Load::lasting(self.round));
        let after = role.threads();
        let each = |time: Duration| time.as_secs_f64() / driven.requests as f64 * 100_000.0;
        let rest = after.since(&before).filter(|(name, _)| !name.starts_with(workers)).map(|(_, time)| time).sum();
        Cost { cpu: each(after.total_since(&before)), rest: each(rest), rate: driven.per_second() }
    }

    /// A folder with configuration and a filled database; gives the configuration's path.
    fn prepare(&self, name: &str, partners: u32, links: u32, log: bool) -> std::path::PathBuf {
        let folder = self.dir.path().join(name.replace([' ', ','], "-"));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("linkgate.toml");
        std::fs::write(&path, self.configuration(log)).unwrap();
        self.fill(&path, partners, links);
        path
    }

    fn requests(&self, tokens: usize, partners: u32) -> Vec<Vec<u8>> {
        let tokens: Vec<String> = (0..partners.min(u32::try_from(tokens).unwrap())).map(|n| self.token(n)).collect();
        let tenants: Vec<String> = (0..tokens.len()).map(|n| format!("tenant-{n}")).collect();
        heads(&tokens, &tenants, tokens.len())
    }

    fn gateway(&self, partners: u32, links: u32, log: bool) {
        let name = format!("linkgate, {} links{}", partners * links, if log { ", log lines" } else { "" });
        if !self.wanted(&name) {
            return;
        }
        let path = self.prepare(&name, partners, links, log);
        let gateway = Role::start("gateway", path.to_str().unwrap());
        for tokens in if log { vec![1] } else { vec![1, 100, 10_000] } {
            let heads = self.requests(tokens, partners);
            let before = gateway.threads();
            let cold = drive(gateway.address, &heads, Load::of(heads.len()));
            let cpu = gateway.threads().total_since(&before).as_secs_f64() / cold.requests as f64 * 100_000.0;
            println!("{:<58}{:>8}{cpu:>21.2}", format!("{name}: {} tokens, first seen", heads.len()), "");
            // Each worker has caches of its own: further passes let both have seen each token.
            drive(gateway.address, &heads, Load::of((heads.len() * 4).max(2_000)));
            self.row(&format!("{name}: {} tokens and paths", heads.len()), &gateway, &heads, "worker");
        }
    }

    /// What one request is made of, apart from time.
    fn count(&self) {
        const REQUESTS: usize = 20_000;
        let path = self.prepare("counted", 100, 1, false);
        let config = path.to_str().unwrap();
        let upstream = self.upstream.address.to_string();
        let heads = self.requests(1, 100);
        let contestants = [("reuseport", upstream.as_str(), "bare"), ("gateway", config, "linkgate")];
        for (role, argument, name) in contestants {
            let role = Role::start(role, argument);
            drive(role.address, &heads, Load::of(2_000));
            let calls = role.system_calls(&self.dir.path().join("strace"), || {
                drive(role.address, &heads, Load::of(REQUESTS));
            });
            let total: u64 = calls.values().sum();
            println!("{name}: {:.2} system calls a request", total as f64 / REQUESTS as f64);
            for (call, count) in calls.iter().filter(|(_, count)| **count * 500 >= total) {
                println!("    {call:<20}{:>8.3}", *count as f64 / REQUESTS as f64);
            }
        }
        for (role, argument, name) in contestants {
            let out = std::env::temp_dir().join(format!("linkgate-bench-{name}.callgrind"));
            let role = Role::under_valgrind(role, argument, &out);
            drive(role.address, &heads, Load::of(2_000));
            let each = role.instructions(&out, || {
                drive(role.address, &heads, Load::of(REQUESTS));
            }) / REQUESTS as u64;
            println!("{name}: {each} instructions in user space a request; by function: {}.1", out.display());
        }
    }

    fn idle(&self) {
        let path = self.prepare("idle", 1, 1, false);
        let gateway = Role::start("gateway", path.to_str().unwrap());
        std::thread::sleep(Duration::from_secs(1));
        println!("{:<58}{:>79.1}", "linkgate, idle", gateway.resident_mib());
        let open: Vec<_> = (0..10_000).map_while(|_| std::net::TcpStream::connect(gateway.address).ok()).collect();
        std::thread::sleep(Duration::from_secs(2));
        println!("{:<58}{:>79.1}", format!("linkgate, {} idle connections", open.len()), gateway.resident_mib());
    }

    fn configuration(&self, log: bool) -> String {
        let dir = self.dir.path().display();
        format!(
            r#"
[listen]
workers = {WORKERS}
max_connections = 20000
header_timeout = "60s"
[database]
sqlite = "linkgate.db"
[issuers.bench]
issuer = "bench"
audiences = ["linkgate"]
algorithms = ["ES256"]
jwks_file = "{dir}/jwks.json"
trusts = ["roles", "permissions"]
[signing]
issuer = "gateway"
keys = [{{ kid = "k", file = "{dir}/signing.pem" }}]
[audit]
dir = "audit"
reads = "os"
[limits]
tenant = "1000000000/min"
[upstreams.up]
origin = "http://{}"
credential = "replace"
assertion = "session"
[[routes]]
methods = ["GET"]
path = "/api/items/{{id}}"
permission = "partner.billing.invoices.read"
upstream = "up"
[log]
requests = {log}
"#,
            self.upstream.address
        )
    }

    fn fill(&self, path: &Path, partners: u32, links_per_partner: u32) {
        let config = load_config(path);
        let DatabaseSettings::Sqlite { .. } = config.database else { panic!("SQLite is configured") };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let database = Database::open(&config.database).await.unwrap();
            database.migrate().await.unwrap();
            let tenants = partners.max(links_per_partner);
            let fill =
                bulk::Fill { partners, links_per_partner, tenants, issuer: "bench".into(), role: LinkRole::MspBilling };
            bulk::fill(&database, &fill).await.unwrap();
            database.close().await;
        });
    }

    fn token(&self, n: u32) -> String {
        let now = Millis::now().0 / 1000;
        let claims = json!({
            "iss": "bench", "aud": "linkgate", "sub": format!("user-{n}"), "tenant_id": format!("home-{n}"), "type": "access",
            "roles": ["partner_msp_billing"], "iat": now, "exp": now + 36_000, "username": format!("user-{n}@example"),
            "session_id": format!("session-{n}"), "jti": format!("{n}"),
        });
        mint(&self.key, &claims.as_object().unwrap().clone().into_iter().collect()).unwrap()
    }
}

/// What a request cost in one round.
struct Cost {
    /// CPU seconds for 100,000 requests.
    cpu: f64,
    /// The part of threads that are no workers.
    rest: f64,
    rate: f64,
}
