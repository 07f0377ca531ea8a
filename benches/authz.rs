//! What one `ext_authz` decision takes over gRPC on loopback: from the call to its answer, decided, signed and recorded.
//!
//! `cargo bench --bench authz [-- --calls N]`. The gateway runs in this process with two workers and everything on:
//! token, link, Cedar, limits, assertion, audit at `os`. One connection, as one worker of Envoy's holds it, with one call
//! at a time and with 32; percentiles of single calls. Client and gateway share the cores: read p50 and p99 rather than
//! calls per second.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench may stop"
)]

use std::{
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use linkgate::{
    app, config,
    domain::{Millis, link_rules::LinkInput},
    identity::mint::{DevAlgorithm, DevKey, mint},
    policy::Bundle,
    server::decision::{
        ext_authz::PATH,
        proto::{
            Address, AttributeContext, AttributeRequest, CheckRequest, CheckResponse, HeaderMap, HeaderValue,
            HttpRequest, Peer, SocketAddress,
        },
    },
    store::{
        Actor, Admin, Database,
        admin::{PartnerInput, TenantInput, UserInput},
    },
};
use serde_json::json;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &str = "bench-0123456789abcdef0123456789abcdef";
const PARTNER: &str = "11111111-1111-4111-8111-111111111111";

const CONFIGURATION: &str = r#"
[listen]
address = "127.0.0.1:0"
workers = 2
[health]
enabled = false
[decision]
address = "127.0.0.1:0"
[decision.callers.bench]
secret_env = "BENCH_SECRET"
[database]
sqlite = "linkgate.db"
[audit]
dir = "audit"
writes = "os"
[limits]
tenant = "1000000000/min"
[log]
requests = false
filter = "error"
[issuers.main]
issuer = "https://issuer.test"
audiences = ["gateway"]
algorithms = ["ES256"]
jwks_file = "jwks.json"
trusts = ["roles"]
[signing]
issuer = "https://gateway.test"
keys = [{ kid = "k1", file = "signing.pem" }]
[upstreams.up]
origin = "http://127.0.0.1:9"
credential = "replace"
[[routes]]
methods = ["GET"]
path = "/api/invoices/{invoice_id}"
permission = "partner.billing.invoices.read"
upstream = "up"
"#;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` starts this without `--bench`: one short pass shows that it runs.
    let full = arguments.iter().any(|argument| argument == "--bench");
    let named = arguments.iter().position(|argument| argument == "--calls").and_then(|at| arguments.get(at + 1));
    let calls = named.map_or(if full { 50_000 } else { 200 }, |text| text.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let (address, token) = gateway(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{:<34}{:>10}{:>10}{:>10}{:>12}", "ext_authz over loopback gRPC", "p50 µs", "p99 µs", "max µs", "calls/s");
    for at_once in [1, 32] {
        runtime.block_on(async {
            measure(address, &token, calls / 10 + 1, at_once).await;
            let begun = Instant::now();
            let mut times = measure(address, &token, calls, at_once).await;
            let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
            times.sort_unstable();
            let at = |share: usize| times[(times.len() - 1) * share / 1_000].as_secs_f64() * 1e6;
            let name = format!("{at_once} at a time");
            println!("{name:<34}{:>10.0}{:>10.0}{:>10.0}{rate:>12.0}", at(500), at(990), at(1_000));
        });
    }
}

async fn measure(address: SocketAddr, token: &str, calls: usize, at_once: usize) -> Vec<Duration> {
    // As Envoy: without it each call waits for the acknowledgement of its own head.
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build::<_, tonic::body::Body>(connector);
    let question = question(token);
    let callers = (0..at_once).map(|_| {
        let (client, question) = (client.clone(), question.clone());
        async move {
            let mut grpc = tonic::client::Grpc::with_origin(client, format!("http://{address}").parse().unwrap());
            let mut times = Vec::with_capacity(calls / at_once + 1);
            for _ in 0..calls.div_ceil(at_once) {
                let mut request = tonic::Request::new(question.clone());
                request.metadata_mut().insert("authorization", format!("Bearer {SECRET}").parse().unwrap());
                let codec = tonic_prost::ProstCodec::<CheckRequest, CheckResponse>::default();
                let begun = Instant::now();
                grpc.ready().await.unwrap();
                let answer = grpc.unary(request, http::uri::PathAndQuery::from_static(PATH), codec).await.unwrap();
                times.push(begun.elapsed());
                assert_eq!(answer.into_inner().status.unwrap().code, 0);
            }
            times
        }
    });
    futures_util::future::join_all(callers).await.concat()
}

/// A browser's request as Envoy tells it.
fn question(token: &str) -> CheckRequest {
    let header = |key: &str, value: &str| HeaderValue {
        key: key.into(),
        value: String::new(),
        raw_value: bytes::Bytes::copy_from_slice(value.as_bytes()),
    };
    let headers = vec![
        header(":method", "GET"),
        header(":path", "/api/invoices/42?page=1"),
        header(":authority", "api.test"),
        header("authorization", &format!("Bearer {token}")),
        header("x-active-tenant-id", "managed"),
        header("accept", "application/json"),
        header("accept-language", "en-GB,en;q=0.9"),
        header("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"),
        header("x-forwarded-for", "192.0.2.7"),
        header("x-forwarded-proto", "https"),
        header("x-request-id", "5f2c6a0e-8a0f-4f43-9c0e-0d3f5ad0a001"),
    ];
    let http = HttpRequest {
        method: "GET".into(),
        path: "/api/invoices/42?page=1".into(),
        host: "api.test".into(),
        header_map: Some(HeaderMap { headers }),
        ..HttpRequest::default()
    };
    let socket_address = Some(SocketAddress { address: "192.0.2.7".into(), port_value: 4711 });
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address: Some(Address { socket_address }) }),
            request: Some(AttributeRequest { http: Some(http) }),
        }),
    }
}

/// Starts a gateway with one partner and one link; its listener for decisions and a user's token.
fn gateway(dir: &std::path::Path) -> (SocketAddr, String) {
    let key = DevKey::generate(DevAlgorithm::Es256).unwrap();
    key.write_jwks(&dir.join("jwks.json")).unwrap();
    DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&dir.join("signing.pem")).unwrap();
    let env = [("BENCH_SECRET".to_owned(), SECRET.to_owned())];
    let config =
        config::load_text(CONFIGURATION, Some("bench.toml"), dir, env).unwrap_or_else(|errors| panic!("{errors}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let database = Database::open(&config.database).await.unwrap();
        database.migrate().await.unwrap();
        let roles = Arc::new(Bundle::load(None).unwrap().roles().clone());
        let (admin, actor) = (Admin::new(&database, roles, false), Actor::new("bench"));
        for tenant in ["home", "managed"] {
            let input =
                TenantInput { tenant_id: Some(tenant.into()), name: Some(tenant.into()), ..TenantInput::default() };
            admin.create_tenant(&actor, &input).await.unwrap();
        }
        let partner = PartnerInput {
            partner_id: Some(PARTNER.into()),
            name: Some("Partner".into()),
            home_tenant_id: Some("home".into()),
            is_active: Some(true),
        };
        admin.create_partner(&actor, &partner).await.unwrap();
        let user = UserInput {
            issuer: Some("https://issuer.test".into()),
            sub: Some("user".into()),
            partner_id: Some(PARTNER.into()),
            ..UserInput::default()
        };
        admin.create_user(&actor, &user).await.unwrap();
        let link = LinkInput {
            partner_id: Some(PARTNER.into()),
            managed_tenant_id: Some("managed".into()),
            relationship_type: Some("msp_managed".into()),
            access_role: Some("msp_full".into()),
            start_date: Some("2024-01-01T00:00:00Z".into()),
            ..LinkInput::default()
        };
        admin.create_link(&actor, &link).await.unwrap();
        database.close().await;
    });
    let (tell, told) = mpsc::channel();
    let source = app::ConfigSource::unchanging(&config);
    std::thread::spawn(move || app::run(config, source, |listening| tell.send(listening).unwrap()).unwrap());
    let listening = told.recv_timeout(Duration::from_secs(30)).expect("the gateway did not start");
    let now = Millis::now().0 / 1000;
    let claims = json!({
        "iss": "https://issuer.test", "aud": "gateway", "sub": "user", "tenant_id": "home", "iat": now, "exp": now + 36_000,
        "type": "access", "roles": ["partner_msp_full"],
    });
    let token = mint(&key, &claims.as_object().unwrap().clone().into_iter().collect()).unwrap();
    (listening.decision.expect("it listens for decisions"), token)
}
