//! What the gateway costs beside a bare hyper passthrough of the same stack, in one run on one machine.
//!
//! `cargo bench --bench proxy [-- --seconds N --only TEXT]`. Upstream, passthrough, gateway and load are processes of
//! their own (this program started again in another role); the figure to read is CPU seconds (user and system) of the
//! proxy's process per 100,000 requests, because load and upstream share the cores with it. Tokens and paths vary: 1,
//! 100 and 10,000 of each, the first pass over all tokens apart (cold). The gateway runs with everything on: token,
//! link, Cedar, limits, assertion, audit at `os`, request log lines off and on.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench may stop"
)]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use linkgate::{
    app, config,
    config::settings::{Config, DatabaseSettings},
    domain::{LinkRole, Millis},
    identity::mint::{DevAlgorithm, DevKey, mint},
    store::{Database, bulk},
    upstream::{
        Pool,
        settings::{AssertionForm, Credential, Origin, UpstreamSettings},
    },
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROLE: &str = "LINKGATE_BENCH_ROLE";
const ARG: &str = "LINKGATE_BENCH_ARG";
const CONNECTIONS: usize = 64;
const WORKERS: usize = 2;

fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok("upstream") => percore(upstream),
        Ok("passthrough") => passthrough(),
        Ok("shared") => shared(),
        Ok("gateway") => gateway(),
        Ok("idle") => gateway(),
        Ok(other) => panic!("unknown role {other}"),
        Err(_) => conduct(),
    }
}

// ---- roles -------------------------------------------------------------------------------------------------

/// One runtime a thread, all on one port.
fn percore<F: Future<Output = ()>>(serve: impl Fn(TcpListener) -> F + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    let address = bind("127.0.0.1:0".parse().unwrap()).local_addr().unwrap();
    let ready = Arc::new(std::sync::Barrier::new(WORKERS + 1));
    let threads: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (serve, ready) = (Arc::clone(&serve), Arc::clone(&ready));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                LocalSet::new().block_on(&runtime, async {
                    let listener = tokio_listener(address);
                    ready.wait();
                    serve(listener).await;
                });
            })
        })
        .collect();
    ready.wait();
    println!("{address}");
    for thread in threads {
        thread.join().unwrap();
    }
}

fn bind(address: SocketAddr) -> std::net::TcpListener {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio_listener(address).into_std().unwrap() })
}

fn tokio_listener(address: SocketAddr) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1024).unwrap()
}

async fn upstream(listener: TcpListener) {
    let body = bytes::Bytes::from(vec![b'x'; 1024]);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let body = body.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |_: Request<Incoming>| {
                let mut response = Response::new(Full::new(body.clone()));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn upstream_settings(authority: &str) -> UpstreamSettings {
    UpstreamSettings {
        name: "up".into(),
        origin: None,
        tenants: std::collections::HashMap::new(),
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(30),
        pool_idle: 512,
        pool_idle_timeout: Duration::from_secs(30),
        max_in_flight: 10_000,
        credential: Credential::Drop,
        assertion: AssertionForm::Off,
        audience: authority.into(),
    }
}

/// The limit: the same server, pool and runtime shape, and not one check.
fn passthrough() {
    let authority = std::env::var(ARG).unwrap();
    percore(move |listener| {
        let authority = authority.clone();
        async move {
            let pool: Pool<Incoming> = Pool::default();
            let origin = Arc::new(Origin { https: false, authority: authority.clone() });
            let settings = Arc::new(upstream_settings(&authority));
            let host = HeaderValue::from_str(&authority).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (pool, origin, settings, host) = (pool.clone(), origin.clone(), settings.clone(), host.clone());
                tokio::task::spawn_local(async move {
                    let service = service_fn(|mut request: Request<Incoming>| {
                        let (pool, origin, settings, host) = (&pool, &origin, &settings, &host);
                        async move {
                            request.headers_mut().remove(header::CONNECTION);
                            request.headers_mut().insert(header::HOST, host.clone());
                            let (mut response, lease) =
                                pool.send(origin, settings, Box::new(request), true).await.unwrap();
                            response.headers_mut().remove(header::CONNECTION);
                            Ok::<_, Infallible>(response.map(|inner| Leased { inner, lease: Some(lease) }))
                        }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }
    });
}

/// Gives the connection back at the end of the body.
struct Leased {
    inner: Incoming,
    lease: Option<linkgate::upstream::Lease<Incoming>>,
}

impl http_body::Body for Leased {
    type Data = bytes::Bytes;
    type Error = hyper::Error;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, hyper::Error>>> {
        std::pin::Pin::new(&mut self.inner).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if self.inner.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

/// What one would write first: one multi-thread runtime and hyper-util's pooled client.
fn shared() {
    let authority = std::env::var(ARG).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().unwrap();
    runtime.block_on(async move {
        let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
        connector.set_nodelay(true);
        let client: hyper_util::client::legacy::Client<_, Incoming> =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .pool_max_idle_per_host(512)
                .build(connector);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (client, authority) = (client.clone(), authority.clone());
            tokio::spawn(async move {
                let service = service_fn(move |mut request: Request<Incoming>| {
                    let (client, authority) = (client.clone(), authority.clone());
                    async move {
                        let target = request.uri().path_and_query().unwrap().as_str();
                        *request.uri_mut() = format!("http://{authority}{target}").parse().unwrap();
                        request.headers_mut().remove(header::CONNECTION);
                        Ok::<_, Infallible>(client.request(request).await.unwrap())
                    }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

fn gateway() {
    let path = std::env::var(ARG).unwrap();
    let config = load_config(Path::new(&path));
    app::run(config, |listening| println!("{}", listening.public)).unwrap();
}

fn load_config(path: &Path) -> Config {
    let mut config = config::load(Some(path), std::iter::empty()).unwrap_or_else(|errors| panic!("{errors}"));
    config.listen.address = "127.0.0.1:0".parse().unwrap();
    config.health = None;
    config
}

// ---- the conductor -----------------------------------------------------------------------------------------

/// A process of ours, ended with this value.
struct Role {
    child: Child,
    address: SocketAddr,
}

impl Role {
    fn start(role: &str, argument: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .env(ARG, argument)
            .stdout(Stdio::piped())
            .stderr(if role == "gateway" { Stdio::null() } else { Stdio::inherit() })
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap_or_else(|_| panic!("{role} did not start: {line}"));
        Self { child, address }
    }

    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// CPU ticks of each kind of thread (`worker-0` and `worker-1` are `worker`).
    fn threads(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap() {
            let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
            let (name, rest) = (stat.split(['(', ')']).nth(1).unwrap(), stat.rsplit(')').next().unwrap());
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let name = name.split('-').next().unwrap().to_owned();
            let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
            *sums.entry(name).or_default() += ticks;
        }
        sums
    }

    fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel counts CPU time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

struct World {
    dir: tempfile::TempDir,
    key: DevKey,
    upstream: Role,
    seconds: u64,
    only: String,
}

fn conduct() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` starts this without `--bench`: one short pass shows that it runs.
    let full = arguments.iter().any(|argument| argument == "--bench");
    let value = |name: &str| {
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)).cloned()
    };
    let key = DevKey::generate(DevAlgorithm::Es256).unwrap();
    let dir = tempfile::tempdir().unwrap();
    key.write_jwks(&dir.path().join("jwks.json")).unwrap();
    DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&dir.path().join("signing.pem")).unwrap();
    let world = World {
        dir,
        key,
        upstream: Role::start("upstream", ""),
        seconds: value("--seconds").and_then(|text| text.parse().ok()).unwrap_or(if full { 5 } else { 1 }),
        only: value("--only").unwrap_or_default(),
    };
    println!("{:<46}{:>10}{:>14}{:>10}{:>10}", "", "req/s", "CPU-s/100k", "ratio", "RSS MiB");
    let bare = world.peer("passthrough", "bare hyper passthrough, a runtime a core");
    world.peer("shared", "bare hyper passthrough, one shared runtime");
    let partners = if full { 10_000 } else { 100 };
    for (links, log) in if full { vec![(1, false), (100, false), (1, true)] } else { vec![(1, false)] } {
        world.gateway(partners, links, log, bare);
    }
    if full {
        world.idle();
    }
}

impl World {
    fn wanted(&self, name: &str) -> bool {
        self.only.is_empty() || name.contains(&self.only)
    }

    fn peer(&self, role: &str, name: &str) -> f64 {
        let peer = Role::start(role, &self.upstream.address.to_string());
        let heads = heads(&["x".repeat(500)], &["t".to_owned()], 1);
        drive(peer.address, &heads, Some(1000), self.seconds);
        self.row(name, &peer, &heads, 0.0)
    }

    fn row(&self, name: &str, role: &Role, heads: &[Vec<u8>], bare: f64) -> f64 {
        let (before, threads) = (role.ticks(), role.threads());
        let (requests, elapsed) = drive(role.address, heads, None, self.seconds);
        let cpu = (role.ticks() - before) as f64 / TICKS_PER_SECOND / requests as f64 * 100_000.0;
        let ratio = if bare > 0.0 { format!("{:.2}", cpu / bare) } else { "1.00".into() };
        let rate = requests as f64 / elapsed.as_secs_f64();
        let mut split = String::new();
        for (thread, ticks) in role.threads() {
            let ticks = ticks - threads.get(&thread).copied().unwrap_or(0);
            let share = ticks as f64 / TICKS_PER_SECOND / requests as f64 * 100_000.0;
            if share >= 0.05 {
                split.push_str(&format!("  {thread} {share:.2}"));
            }
        }
        println!("{name:<46}{rate:>10.0}{cpu:>14.2}{ratio:>10}{:>10.1}{split}", role.resident_mib());
        std::io::stdout().flush().unwrap();
        cpu
    }

    fn gateway(&self, partners: u32, links: u32, log: bool, bare: f64) {
        let name = format!("linkgate, {} links{}", partners * links, if log { ", log lines" } else { "" });
        if !self.wanted(&name) {
            return;
        }
        let folder = self.dir.path().join(name.replace([' ', ','], "-"));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("linkgate.toml");
        std::fs::write(&path, self.configuration(log)).unwrap();
        self.fill(&path, partners, links);
        let gateway = Role::start("gateway", path.to_str().unwrap());
        let tokens: Vec<String> = (0..partners).map(|n| self.token(n)).collect();
        for (tokens_used, paths) in [(1, 1), (100, 100), (10_000, 10_000)] {
            let used = &tokens[..tokens_used.min(tokens.len())];
            let tenants: Vec<String> = (0..used.len()).map(|n| format!("tenant-{n}")).collect();
            let heads = heads(used, &tenants, paths.min(used.len()));
            let before = gateway.ticks();
            let (cold, _) = drive(gateway.address, &heads, Some(heads.len()), 60);
            let cpu = (gateway.ticks() - before) as f64 / TICKS_PER_SECOND / cold as f64 * 100_000.0;
            println!("{:<46}{:>10}{cpu:>14.2}", format!("{name}: {} tokens, first seen", used.len()), "");
            // Each worker has caches of its own: a second pass lets both have seen each token.
            drive(gateway.address, &heads, Some(heads.len() * 4), 60);
            self.row(&format!("{name}: {} tokens and paths", used.len()), &gateway, &heads, bare);
        }
    }

    fn idle(&self) {
        let path = self.dir.path().join("idle.toml");
        std::fs::write(&path, self.configuration(false)).unwrap();
        self.fill(&path, 1, 1);
        let gateway = Role::start("gateway", path.to_str().unwrap());
        std::thread::sleep(Duration::from_secs(1));
        println!("{:<46}{:>44.1}", "linkgate, idle", gateway.resident_mib());
        let open: Vec<_> = (0..10_000).map_while(|_| std::net::TcpStream::connect(gateway.address).ok()).collect();
        std::thread::sleep(Duration::from_secs(2));
        println!("{:<46}{:>44.1}", format!("linkgate, {} idle connections", open.len()), gateway.resident_mib());
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

// ---- load --------------------------------------------------------------------------------------------------

/// Ready request bytes, one for each token.
fn heads(tokens: &[String], tenants: &[String], paths: usize) -> Vec<Vec<u8>> {
    tokens
        .iter()
        .enumerate()
        .map(|(at, token)| {
            format!(
                "GET /api/items/{} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\nX-Active-Tenant-Id: {}\r\n\
                 User-Agent: bench/1\r\nAccept: application/json\r\n\r\n",
                at % paths,
                tenants[at % tenants.len()]
            )
            .into_bytes()
        })
        .collect()
}

/// 64 connections in turn over all heads, until `most` requests were answered or the time is over. Any answer but 200
/// stops the bench.
fn drive(address: SocketAddr, heads: &[Vec<u8>], most: Option<usize>, seconds: u64) -> (usize, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let next = std::rc::Rc::new(std::cell::Cell::new(0usize));
    let heads: std::rc::Rc<[Vec<u8>]> = heads.into();
    let started = Instant::now();
    let until = started + Duration::from_secs(seconds);
    LocalSet::new().block_on(&runtime, async {
        let tasks: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let next = next.clone();
                let heads = heads.clone();
                tokio::task::spawn_local(async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let mut space = vec![0u8; 16 * 1024];
                    while Instant::now() < until {
                        let at = next.get();
                        if most.is_some_and(|most| at >= most) {
                            return;
                        }
                        next.set(at + 1);
                        stream.write_all(&heads[at % heads.len()]).await.unwrap();
                        answer(&mut stream, &mut space).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    (next.get(), started.elapsed())
}

async fn answer(stream: &mut TcpStream, space: &mut [u8]) {
    let mut filled = 0;
    loop {
        let count = stream.read(&mut space[filled..]).await.unwrap();
        assert!(count > 0, "the connection ended");
        filled += count;
        let Some(end) = space[..filled].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&space[..end]).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&space[..filled]));
        let length: usize = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:").map(|text| text.trim().parse().unwrap())
            })
            .expect("a length");
        if filled >= end + 4 + length {
            return;
        }
    }
}
