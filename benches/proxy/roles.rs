//! The processes that stand beside each other: the upstream, the bare passthroughs, and the gateway itself.
//!
//! Each is this program started again with its role in the environment; it prints its address and serves until it is
//! ended.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use linkgate::{
    app::{self, ConfigSource},
    config,
    config::settings::Config,
    tls::settings::ClientSettings,
    upstream::{
        Endpoint, Pool, Upstream,
        settings::{AssertionForm, BudgetSettings, Credential, Http2, Origin, OutlierSettings, UpstreamSettings},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::LocalSet,
};

use super::ARG;

/// Threads of each role that serves.
pub(crate) const WORKERS: usize = 2;

/// Runs a role to its end.
pub(crate) fn run(role: &str) {
    match role {
        "upstream" => percore(upstream),
        "reuseport" => percore(passthrough),
        "acceptor" => acceptor(true),
        "acceptor-fixed" => acceptor(false),
        "shared" => shared(),
        "gateway" => gateway(),
        other => panic!("unknown role {other}"),
    }
}

/// One runtime a thread, each with a listener of its own on one port (SO_REUSEPORT).
fn percore<F: Future<Output = ()>>(serve: impl Fn(TcpListener) -> F + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    let first = listener("127.0.0.1:0".parse().unwrap());
    let address = first.local_addr().unwrap();
    let ready = Arc::new(std::sync::Barrier::new(WORKERS + 1));
    let threads: Vec<_> = (0..WORKERS)
        .map(|index| {
            let (serve, ready) = (Arc::clone(&serve), Arc::clone(&ready));
            let body = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                LocalSet::new().block_on(&runtime, async {
                    let listener = listening(address);
                    ready.wait();
                    serve(listener).await;
                });
            };
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(body).unwrap()
        })
        .collect();
    ready.wait();
    // It held the port until all others had it too.
    drop(first);
    println!("{address}");
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Holds a port without listening on it.
fn listener(address: SocketAddr) -> tokio::net::TcpSocket {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

fn listening(address: SocketAddr) -> TcpListener {
    listener(address).listen(1024).unwrap()
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
        endpoints: Vec::new(),
        tenants: std::collections::HashMap::new(),
        dns_refresh: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(30),
        pool_idle: 512,
        pool_idle_timeout: Duration::from_secs(30),
        max_in_flight: 10_000,
        tenant_max_in_flight: 10_000,
        organisation_max_in_flight: None,
        max_pending: 0,
        queue_timeout: Duration::from_secs(1),
        outlier: OutlierSettings::default(),
        budget: BudgetSettings::default(),
        health_check: None,
        tls: ClientSettings::default(),
        http2: Http2::Off,
        http2_streams: 1,
        credential: Credential::Drop,
        assertion: AssertionForm::Off,
        audience: authority.into(),
    }
}

/// The limit: the same server, pool and runtime shape, and not one check.
async fn passthrough(listener: TcpListener) {
    let bare = Bare::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::task::spawn_local(bare.clone().serve(stream));
    }
}

/// What one worker of the passthrough keeps.
#[derive(Clone)]
struct Bare {
    pool: Pool<Incoming>,
    endpoint: Arc<Endpoint>,
    upstream: Arc<Upstream>,
    host: HeaderValue,
}

impl Bare {
    fn new() -> Self {
        let authority = std::env::var(ARG).unwrap();
        Self {
            pool: Pool::default(),
            upstream: Upstream::new(upstream_settings(&authority)).unwrap(),
            host: HeaderValue::from_str(&authority).unwrap(),
            endpoint: Endpoint::new(&Origin { https: false, authority: authority.clone() }, authority.parse().unwrap()),
        }
    }

    async fn serve(self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let this = &self;
        let service = service_fn(move |mut request: Request<Incoming>| async move {
            request.headers_mut().remove(header::CONNECTION);
            request.headers_mut().insert(header::HOST, this.host.clone());
            let (mut response, lease) =
                this.pool.send(&this.endpoint, &this.upstream, Box::new(request), true, false).await.unwrap();
            response.headers_mut().remove(header::CONNECTION);
            Ok::<_, Infallible>(response.map(|inner| Leased { inner, lease: Some(lease) }))
        });
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

/// The same workers, fed by one acceptor on a runtime of its own that gives each connection to a worker with the
/// fewest. Which of several is left to chance, as in the gateway, or always the first.
fn acceptor(chance: bool) {
    use std::hash::BuildHasher;
    let mut seats = Vec::new();
    for index in 0..WORKERS {
        let (queue, mut intake) = mpsc::channel::<std::net::TcpStream>(1024);
        let open = Arc::new(AtomicUsize::new(0));
        seats.push((queue, Arc::clone(&open)));
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let bare = Bare::new();
                while let Some(stream) = intake.recv().await {
                    let stream = TcpStream::from_std(stream).unwrap();
                    let (bare, open) = (bare.clone(), Arc::clone(&open));
                    tokio::task::spawn_local(async move {
                        bare.serve(stream).await;
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            });
        };
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(body).unwrap();
    }
    let dice = std::hash::RandomState::new();
    multi_thread().block_on(async move {
        let mut number = 0u64;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            number += 1;
            let place = |at| if chance { dice.hash_one((number, at)) } else { 0 };
            let seats = seats.iter().enumerate();
            let (_, (queue, open)) =
                seats.min_by_key(|(at, (_, open))| (open.load(Ordering::Relaxed), place(*at))).unwrap();
            open.fetch_add(1, Ordering::Relaxed);
            queue.try_send(stream.into_std().unwrap()).unwrap();
        }
    });
}

fn multi_thread() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKERS).thread_name("shared").enable_all().build().unwrap()
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
        use http_body::Body;
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
    multi_thread().block_on(async move {
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
    let source = ConfigSource::unchanging(&config);
    app::run(config, source, |listening| println!("{}", listening.public)).unwrap();
}

pub(crate) fn load_config(path: &Path) -> Config {
    let mut config = config::load(Some(path), std::iter::empty()).unwrap_or_else(|errors| panic!("{errors}"));
    config.listen.address = "127.0.0.1:0".parse().unwrap();
    config.health = None;
    config
}
