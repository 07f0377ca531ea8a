//! The consolidated API over many tenants: time to the answer cold and warm, a stuck upstream, CPU a row, an export.
//!
//! `cargo bench --bench portal [-- --rounds N --only TEXT --gateway PROGRAM]`. Sample services (with a set latency) and
//! the gateway are processes of their own (this program started again in another role); the requests are sent from here,
//! one at a time. Cold means `Cache-Control: no-cache`: every slice is fetched. PROGRAM is this bench as it was built
//! before a change: its gateway is measured with everything else the same.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a bench may stop")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use linkgate::{
    app::{self, ConfigSource},
    config,
    config::settings::Config,
    domain::{LinkRole, Millis},
    identity::mint::{DevAlgorithm, DevKey, mint},
    sample,
    store::{Database, bulk},
};
use serde_json::{Value, json};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROLE: &str = "LINKGATE_BENCH_ROLE";
const ARG: &str = "LINKGATE_BENCH_ARG";
const TICKS_PER_SECOND: f64 = 100.0;
/// Longest wait for a part of an answer; longer than any deadline that is configured here.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok("services") => services(),
        Ok("gateway") => gateway(),
        _ => conduct(),
    }
}

// ---- roles -------------------------------------------------------------------------------------------------

/// Both sample services; the argument is `latency in ms,invoices a tenant,tenant that is stuck`.
fn services() {
    let argument = std::env::var(ARG).unwrap();
    let parts: Vec<&str> = argument.split(',').collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut started = Vec::new();
        for kind in [sample::Kind::Isp, sample::Kind::Platform] {
            let handle = sample::start(kind, tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
            handle.set_latency(Duration::from_millis(parts[0].parse().unwrap()));
            handle.set_invoices_per_tenant(parts[1].parse::<u64>().unwrap());
            if !parts[2].is_empty() {
                handle.misbehave(parts[2], sample::Misbehave::Slow(Duration::from_secs(10)));
            }
            started.push(handle);
        }
        tell(&format!("{} {}", started[0].address(), started[1].address()));
        std::future::pending::<()>().await;
    });
}

fn gateway() {
    let config = load(Path::new(&std::env::var(ARG).unwrap()));
    let source = ConfigSource::unchanging(&config);
    app::run(config, source, |listening| tell(&format!("{} {}", listening.public, listening.public))).unwrap();
}

fn tell(line: &str) {
    println!("ready {line}");
    std::io::stdout().flush().unwrap();
}

fn load(path: &Path) -> Config {
    let loaded = config::load(Some(path), std::iter::empty());
    loaded.unwrap_or_else(|errors| panic!("{errors}"))
}

/// A process of this program in another role; it ends with the value.
struct Role {
    child: Child,
    addresses: [SocketAddr; 2],
}

impl Role {
    fn start(role: &str, argument: &str) -> Self {
        let other = option("--gateway").filter(|_| role == "gateway");
        let program = other.map_or_else(|| std::env::current_exe().unwrap(), Into::into);
        // What it logs is seen: a process that ends without a word explains nothing.
        let mut child =
            Command::new(program).env(ROLE, role).env(ARG, argument).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix("ready ").map(str::to_owned));
        let line = line.unwrap_or_else(|| panic!("the process for {role} ended before it was ready"));
        std::thread::spawn(move || lines.for_each(drop));
        let mut words = line.split(' ').map(|word| word.parse().unwrap());
        Self { child, addresses: [words.next().unwrap(), words.next().unwrap()] }
    }

    /// CPU seconds of the process so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS_PER_SECOND
    }

    fn status_mib(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---- measuring ---------------------------------------------------------------------------------------------

const ENDPOINTS: [&str; 4] = ["customers", "billing/summary", "billing/invoices", "support/tickets"];

/// What follows an option of this name.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn conduct() {
    let full = std::env::args().any(|argument| argument == "--bench");
    let rounds = option("--rounds").and_then(|text| text.parse().ok()).unwrap_or(if full { 40 } else { 1 });
    let only = option("--only").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || name.contains(&only);
    println!("{:<52}{:>10}{:>10}{:>10}{:>12}", "", "p50 ms", "p95 ms", "max ms", "CPU ms");
    if wanted("50 tenants") {
        latency("50 tenants, 20 ms", 50, "20,10,", rounds, "");
    }
    if full && wanted("stuck") {
        latency("50 tenants, 20 ms, one stuck for 10 s", 50, "20,10,tenant-7", rounds.min(5), "");
    }
    if full && wanted("1,000 tenants") {
        latency("1,000 tenants, 20 ms", 1_000, "20,10,", rounds.min(20), "");
    }
    if full && wanted("steady 1,000 tenants") {
        steady("1,000 tenants, 20 ms, warm for 20 s", 1_000, "20,10,");
    }
    if full && wanted("memory") {
        memory();
    }
    if full && wanted("export") {
        export();
    }
}

fn latency(name: &str, tenants: u32, services: &str, rounds: usize, portal: &str) {
    let world = World::start(tenants, services, portal);
    for endpoint in ENDPOINTS {
        let path = format!("/api/v1/partner/{endpoint}");
        // Connections, sessions and decisions are warm; the slices are not.
        world.get(&path, true);
        for (word, cold) in [("cold", true), ("warm", false)] {
            if !cold {
                world.get(&path, false);
            }
            let before = world.gateway.cpu();
            let mut times: Vec<f64> = (0..rounds).map(|_| world.get(&path, cold).0.as_secs_f64() * 1000.0).collect();
            let cpu = (world.gateway.cpu() - before) * 1000.0 / rounds as f64;
            row(&format!("{name}: {endpoint}, {word}"), &mut times, cpu);
        }
    }
}

fn row(what: &str, times: &mut [f64], cpu: f64) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    println!("{what:<52}{:>10.1}{:>10.1}{:>10.1}{cpu:>12.1}", at(0.5), at(0.95), at(1.0));
}

/// A call each 50 ms, for longer than slices stay fresh and the partner's tenants are remembered: what is done again
/// behind warm answers is in the figures.
fn steady(name: &str, tenants: u32, services: &str) {
    let world = World::start(tenants, services, "");
    for endpoint in ENDPOINTS {
        let path = format!("/api/v1/partner/{endpoint}");
        world.get(&path, true);
        let (before, began) = (world.gateway.cpu(), Instant::now());
        let mut times = Vec::new();
        while began.elapsed() < Duration::from_secs(20) {
            times.push(world.get(&path, false).0.as_secs_f64() * 1000.0);
            std::thread::sleep(Duration::from_millis(50));
        }
        let cpu = (world.gateway.cpu() - before) * 1000.0 / times.len() as f64;
        row(&format!("{name}: {endpoint}"), &mut times, cpu);
    }
}

/// 1,000 tenants with 10,000 invoices each, read in full: minutes, of which most are the services' own work.
fn memory() {
    let portal = "[portal]\nconcurrency = 64\ndeadline = \"10m\"\nsource_timeout = \"10m\"\n";
    let world = World::start(1_000, "0,10000,", portal);
    world.get("/api/v1/partner/me", true);
    let (resident, cpu) = (world.gateway.status_mib("VmRSS"), world.gateway.cpu());
    let (elapsed, answer) = world.get("/api/v1/partner/billing/invoices?limit=50&from_date=2000-01-01", true);
    let rows = answer["total"].as_f64().unwrap();
    let cpu = (world.gateway.cpu() - cpu) * 1e6 / rows;
    let peak = world.gateway.status_mib("VmHWM");
    println!(
        "1,000 tenants x 10,000 invoices: {rows} rows in {:.1} s, {cpu:.1} µs of CPU a row, resident {resident:.0} -> peak {peak:.0} MiB, partial {}",
        elapsed.as_secs_f64(),
        answer["partial"]
    );
}

/// 100 tenants with 10,000 invoices each, as CSV.
fn export() {
    let world = World::start(100, "0,10000,", "");
    world.get("/api/v1/partner/me", true);
    let resident = world.gateway.status_mib("VmRSS");
    let started = Instant::now();
    let body = json!({"format": "csv", "from_date": "2000-01-01"}).to_string();
    let (_, job) = world.send("POST", "/api/v1/partner/billing/invoices/export", false, &body);
    let path = format!("/api/v1/partner/billing/exports/{}", job["export_id"].as_str().unwrap());
    let done = loop {
        let (_, state) = world.get(&path, false);
        match state["status"].as_str().unwrap() {
            "processing" => std::thread::sleep(Duration::from_millis(500)),
            _ => break state,
        }
    };
    let elapsed = started.elapsed().as_secs_f64();
    let rows = done["row_count"].as_f64().unwrap_or_default();
    println!(
        "export: {rows} rows, {} in {elapsed:.1} s, {:.0} rows/s, {} bytes, resident {resident:.0} -> peak {:.0} MiB",
        done["status"],
        rows / elapsed,
        done["file_size_bytes"],
        world.gateway.status_mib("VmHWM")
    );
}

struct World {
    _services: Role,
    gateway: Role,
    token: String,
    _dir: tempfile::TempDir,
}

impl World {
    fn start(tenants: u32, services: &str, portal: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = DevKey::generate(DevAlgorithm::Es256).unwrap();
        key.write_jwks(&dir.path().join("jwks.json")).unwrap();
        DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&dir.path().join("signing.pem")).unwrap();
        let services = Role::start("services", services);
        let path = dir.path().join("linkgate.toml");
        std::fs::write(&path, configuration(&services, portal)).unwrap();
        let settings = load(&path);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let database = Database::open(&settings.database).await.unwrap();
            database.migrate().await.unwrap();
            // One partner alone may hold full links to all.
            let role = LinkRole::MspFull;
            let fill = bulk::Fill { partners: 1, links_per_partner: tenants, tenants, issuer: "bench".into(), role };
            bulk::fill(&database, &fill).await.unwrap();
            database.close().await;
        });
        let gateway = Role::start("gateway", path.to_str().unwrap());
        let now = Millis::now().0 / 1000;
        let claims = json!({
            "iss": "bench", "aud": "linkgate", "sub": "user-0", "tenant_id": "home-0", "type": "access",
            "roles": ["partner_msp_full"], "iat": now, "exp": now + 36_000,
        });
        let token = mint(&key, &claims.as_object().unwrap().clone().into_iter().collect()).unwrap();
        Self { _services: services, gateway, token, _dir: dir }
    }

    fn get(&self, path: &str, cold: bool) -> (Duration, Value) {
        self.send("GET", path, cold, "")
    }

    /// One request on a connection of its own; the time from the first byte sent to the last received.
    fn send(&self, method: &str, path: &str, cold: bool, body: &str) -> (Duration, Value) {
        let mut stream = TcpStream::connect(self.gateway.addresses[0]).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let cache = if cold { "Cache-Control: no-cache\r\n" } else { "" };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: Bearer {}\r\n{cache}{kind}Content-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let started = Instant::now();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let elapsed = started.elapsed();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 20"), "{path}: {text}");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        (elapsed, serde_json::from_str(body).unwrap())
    }
}

fn configuration(services: &Role, portal: &str) -> String {
    let [isp, platform] = services.addresses;
    format!(
        r#"
{portal}
[listen]
address = "127.0.0.1:0"
workers = 2
[health]
enabled = false
[database]
sqlite = "linkgate.db"
[issuers.bench]
issuer = "bench"
audiences = ["linkgate"]
algorithms = ["ES256"]
jwks_file = "jwks.json"
trusts = ["roles", "permissions"]
[signing]
issuer = "gateway"
keys = [{{ kid = "k", file = "signing.pem" }}]
[audit]
dir = "audit"
reads = "os"
writes = "os"
[limits]
listing = 0
detail = 0
write = 0
export = 0
[upstreams.isp]
origin = "http://{isp}"
credential = "replace"
max_in_flight = 4096
[upstreams.platform]
origin = "http://{platform}"
credential = "replace"
max_in_flight = 4096
[connectors.main]
preset = "gen1"
upstream = "isp"
tenant = {{ upstream = "platform" }}
[log]
requests = false
filter = "warn"
"#
    )
}
