//! TLS and HTTP/2 behind the gateway.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    client::{Connection, Request},
    reload::until,
    rig::{Rig, Setup},
    tls_support::{Authority, Leaf, expired},
};

/// One request as the service got it.
#[derive(Clone, Debug)]
struct Seen {
    version: Version,
    uri: String,
    headers: BTreeMap<String, String>,
    body: Bytes,
    /// DNS names of the gateway's certificate.
    shown: Vec<String>,
}

/// A service that speaks what its client chooses.
#[derive(Clone)]
struct Service {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    /// Most requests that were open at once on one connection.
    widest: Arc<AtomicUsize>,
}

impl Service {
    /// `None`: cleartext HTTP/2.
    fn start(tls: Option<rustls::ServerConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let service = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
            widest: Arc::default(),
        };
        let this = service.clone();
        std::thread::spawn(move || runtime.block_on(this.accept(listener, tls.map(Arc::new))));
        service
    }

    async fn accept(self, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (this, tls) = (self.clone(), tls.clone());
            tokio::spawn(async move {
                let Some(tls) = tls else { return this.serve(stream, true, Vec::new()).await };
                let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await else { return };
                let session = stream.get_ref().1;
                let http2 = session.alpn_protocol() == Some(b"h2");
                let leaf = session.peer_certificates().and_then(|chain| chain.first());
                let shown = leaf.map(|leaf| linkgate::tls::CertificateNames::read(leaf).unwrap().dns);
                this.serve(stream, http2, shown.unwrap_or_default()).await;
            });
        }
    }

    async fn serve<S>(self, stream: S, http2: bool, shown: Vec<String>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let open = Arc::new(AtomicUsize::new(0));
        let service = service_fn(|request: http::Request<Incoming>| {
            let (this, shown, open) = (self.clone(), shown.clone(), Arc::clone(&open));
            async move {
                this.widest.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let answer = this.answer(request, shown).await;
                open.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Infallible>(answer)
            }
        });
        let io = TokioIo::new(stream);
        let _ = if http2 {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
        } else {
            hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await
        };
    }

    async fn answer(&self, mut request: http::Request<Incoming>, shown: Vec<String>) -> Response<Full<Bytes>> {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in request.headers() {
            let value = value.to_str().unwrap();
            headers.entry(name.to_string()).and_modify(|known| *known += &format!(", {value}")).or_insert(value.into());
        }
        let (version, uri) = (request.version(), request.uri().to_string());
        if headers.contains_key("upgrade") {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut space = [0; 4];
                io.read_exact(&mut space).await.unwrap();
                io.write_all(&space).await.unwrap();
            });
            self.seen.lock().unwrap().push(Seen { version, uri, headers, body: Bytes::new(), shown });
            let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            return answer
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .body(Full::default())
                .unwrap();
        }
        if uri.contains("/slow") {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        self.seen.lock().unwrap().push(Seen { version, uri, headers, body, shown });
        Response::new(Full::from("answer"))
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().expect("nothing reached the service")
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn config(leaf: &Leaf, clients: Option<&Authority>) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = match clients {
        None => builder.unwrap().with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.root.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.unwrap().with_client_cert_verifier(verifier)
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(leaf.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// A gateway before the service; `more`: lines of its section, then of `[upstreams.secure.tls]`.
fn gateway(scheme: &str, address: SocketAddr, more: &str, tls: &str) -> Rig {
    let routes = format!(
        "[[routes]]\nmethods = [\"*\"]\npath = \"/secure/{{*rest}}\"\npermission = \"partner.tenants.list\"\nupstream = \"secure\"\n\
         [upstreams.secure]\norigin = \"{scheme}://localhost:{}\"\ncredential = \"drop\"\n{more}\n[upstreams.secure.tls]\n{tls}\n",
        address.port()
    );
    Rig::with(Setup { routes, ..Setup::default() })
}

fn ca(authority: &Authority, dir: &Path) -> String {
    format!("ca = [\"{}\"]\n", authority.put(dir, "ca.pem").display())
}

fn ask(rig: &Rig, path: &str) -> super::client::Answer {
    rig.ask(Request::get(path).tenant("t-full"))
}

#[test]
fn many_requests_share_http_2_connections_and_carry_what_http_1_would() {
    let (services, dir) = (Authority::new("services"), tempfile::tempdir().unwrap());
    let service = Service::start(Some(config(&services.server(&["localhost"]), None)));
    let rig = gateway("https", service.address, "", &ca(&services, dir.path()));
    for _ in 0..10 {
        let answer = ask(&rig, "/secure/%C3%BC?x=%20&tenant_id=evil");
        assert_eq!((answer.status, answer.text().as_str()), (200, "answer"));
    }
    let seen = service.last();
    assert_eq!(seen.version, Version::HTTP_2);
    assert_eq!(seen.uri, format!("https://localhost:{}/secure/%C3%BC?x=%20", service.address.port()));
    assert!(service.connections.load(Ordering::SeqCst) <= 2, "one for each worker");
    let spoof = Request::new("POST", "/secure/a")
        .tenant("t-full")
        .header("X-Tenant-ID", "evil")
        .header("Connection", "keep-alive, X-Named")
        .header("X-Named", "evil")
        .header("TE", "gzip")
        .header("Keep-Alive", "timeout=5")
        .body("hello");
    assert_eq!(rig.ask(spoof).status, 200);
    let seen = service.last();
    assert_eq!((&seen.body[..], seen.headers["x-tenant-id"].as_str()), (&b"hello"[..], "t-full"));
    for name in ["connection", "keep-alive", "te", "host", "transfer-encoding", "x-named"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
    assert!(!seen.headers.values().any(|value| value.contains("evil")));
}

#[test]
fn http_2_can_be_off_or_spoken_in_cleartext() {
    let (services, dir) = (Authority::new("services"), tempfile::tempdir().unwrap());
    let secure = Service::start(Some(config(&services.server(&["localhost"]), None)));
    let rig = gateway("https", secure.address, "http2 = \"off\"", &ca(&services, dir.path()));
    assert_eq!(ask(&rig, "/secure/a").status, 200);
    assert_eq!((secure.last().version, secure.last().uri.as_str()), (Version::HTTP_11, "/secure/a"));
    let clear = Service::start(None);
    let rig = gateway("http", clear.address, "http2 = \"always\"", "");
    assert_eq!(ask(&rig, "/secure/a").status, 200);
    assert_eq!(clear.last().version, Version::HTTP_2);
    assert_eq!(clear.last().uri, format!("http://localhost:{}/secure/a", clear.address.port()));
}

#[test]
fn streams_of_one_connection_are_bounded() {
    let (services, dir) = (Authority::new("services"), tempfile::tempdir().unwrap());
    let service = Service::start(Some(config(&services.server(&["localhost"]), None)));
    let rig = gateway("https", service.address, "http2_streams = 2", &ca(&services, dir.path()));
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| assert_eq!(ask(&rig, "/secure/slow").status, 200));
        }
    });
    assert_eq!(service.count(), 12);
    assert!(service.widest.load(Ordering::SeqCst) <= 2, "{}", service.widest.load(Ordering::SeqCst));
}

#[test]
fn websockets_stay_on_http_1() {
    let (services, dir) = (Authority::new("services"), tempfile::tempdir().unwrap());
    let service = Service::start(Some(config(&services.server(&["localhost"]), None)));
    let rig = gateway("https", service.address, "", &ca(&services, dir.path()));
    assert_eq!(ask(&rig, "/secure/a").status, 200);
    let request = Request::get("/secure/ws")
        .tenant("t-full")
        .bearer(&rig.token())
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13");
    let mut connection = Connection::open(rig.public);
    connection.write(&request.bytes());
    assert_eq!(connection.answer().status, 101);
    connection.write(b"ping");
    assert_eq!(connection.read_some(), b"ping");
    assert_eq!(service.last().version, Version::HTTP_11);
}

#[test]
fn a_service_that_cannot_prove_its_name_is_not_asked() {
    let (services, dir) = (Authority::new("services"), tempfile::tempdir().unwrap());
    let trusted = ca(&services, dir.path());
    let foreign = Authority::new("services").server(&["localhost"]);
    for (leaf, tls, status) in [
        (services.server(&["localhost"]), trusted.clone(), 200),
        (foreign, trusted.clone(), 503),
        (services.leaf(&["localhost"], expired), trusted.clone(), 503),
        (services.server(&["isp.test"]), trusted.clone(), 503),
        (services.server(&["isp.test"]), format!("{trusted}server_name = \"isp.test\""), 200),
        (services.server(&["localhost"]), format!("{trusted}server_name = \"isp.test\""), 503),
    ] {
        let service = Service::start(Some(config(&leaf, None)));
        let rig = gateway("https", service.address, "", &tls);
        let answer = ask(&rig, "/secure/a");
        assert_eq!(answer.status, status, "{tls}");
        assert_eq!(service.count(), usize::from(status == 200));
        if status == 503 {
            assert_eq!(answer.error(), "UPSTREAM_UNAVAILABLE");
        }
    }
}

#[test]
fn the_gateway_shows_its_certificate_and_the_renewed_one_after_a_change() {
    let (services, gateways, dir) =
        (Authority::new("services"), Authority::new("gateways"), tempfile::tempdir().unwrap());
    let service = Service::start(Some(config(&services.server(&["localhost"]), Some(&gateways))));
    let trusted = ca(&services, dir.path());
    let bare = gateway("https", service.address, "", &trusted);
    assert!(matches!(ask(&bare, "/secure/a").status, 502 | 503));
    assert_eq!(service.count(), 0);
    let pair = gateways.server(&["old.test"]).put(dir.path(), "client");
    let rig = gateway("https", service.address, "", &format!("{trusted}client_certificate = {pair}"));
    assert_eq!(ask(&rig, "/secure/a").status, 200);
    assert_eq!(service.last().shown, ["old.test"]);
    gateways.server(&["new.test"]).put(dir.path(), "client");
    // Connections that were made with the old one serve no new request.
    until("the renewed one is shown", || ask(&rig, "/secure/a").status == 200 && service.last().shown == ["new.test"]);
    let not_after = dir.path().join("client.pem").display().to_string();
    assert!(rig.health("/metrics").text().contains(&not_after), "its end is watched too");
}

/// Refuses the first stream of each connection, or says goodbye instead of answering it; answers the others.
fn refusing(goodbye: bool) -> (SocketAddr, Arc<Mutex<Vec<Method>>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let (address, answered) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let (met, kept) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&answered));
    std::thread::spawn(move || {
        runtime.block_on(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (met, kept) = (Arc::clone(&met), Arc::clone(&kept));
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        // Every odd request is turned away.
                        if met.fetch_add(1, Ordering::SeqCst) % 2 == 0 {
                            respond.send_reset(h2::Reason::REFUSED_STREAM);
                            if goodbye {
                                connection.graceful_shutdown();
                            }
                            continue;
                        }
                        kept.lock().unwrap().push(request.method().clone());
                        respond.send_response(Response::new(()), true).unwrap();
                    }
                });
            }
        });
    });
    (address, answered)
}

#[test]
fn a_refused_stream_is_tried_again_only_if_that_is_safe() {
    for goodbye in [false, true] {
        let (address, answered) = refusing(goodbye);
        let rig = gateway("http", address, "http2 = \"always\"", "");
        assert_eq!(ask(&rig, "/secure/a").status, 200, "goodbye: {goodbye}");
        assert_eq!(*answered.lock().unwrap(), [Method::GET]);
        let post = || Request::new("POST", "/secure/a").tenant("t-full").body("once");
        assert_eq!(rig.ask(post()).error(), "UPSTREAM_ERROR", "goodbye: {goodbye}");
        assert_eq!(*answered.lock().unwrap(), [Method::GET], "a write is never sent twice");
    }
}
