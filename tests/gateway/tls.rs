//! TLS in front of the gateway: names, versions, ALPN, rotation, and clients that mean no good.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use linkgate::tls::{
    ServerTls,
    settings::{CertificateFiles, ClientAuth, ServerSettings},
};

use super::{
    cli_support,
    client::{Answer, Connection, Request},
    reload::until,
    rig::{Rig, Setup},
    tls_support::{Authority, Client, Leaf, connect, expired, put, shown},
};

/// A gateway with certificates for `gateway.test` and `*.wild.test`, in this order.
pub struct House {
    pub rig: Rig,
    pub ca: Authority,
    pub files: tempfile::TempDir,
}

impl House {
    pub fn start(more: &str) -> Self {
        Self::with(more, Setup::default())
    }

    /// `more`: lines of `[listen.tls]`; the setup's own lines of `[listen]` stand before them.
    pub fn with(more: &str, setup: Setup) -> Self {
        let (ca, files) = (Authority::new("servers"), tempfile::tempdir().unwrap());
        let first = ca.server(&["gateway.test", "127.0.0.1"]).put(files.path(), "first");
        let second = ca.server(&["*.wild.test"]).put(files.path(), "second");
        let listen = format!("{}\n[listen.tls]\ncertificates = [{first}, {second}]\n{more}\n", setup.listen);
        Self { rig: Rig::with(Setup { listen, ..setup }), ca, files }
    }

    pub fn connect(&self, name: &str) -> Connection<rustls::StreamOwned<rustls::ClientConnection, TcpStream>> {
        Connection::on(Client::trusting(&self.ca).connect(self.rig.public, name).unwrap())
    }

    pub fn request(&self) -> Request {
        Request::get("/api/invoices").tenant("t-full").bearer(&self.rig.token())
    }

    pub fn ask(&self, request: &Request) -> Answer {
        let mut connection = self.connect("gateway.test");
        connection.write(&request.bytes());
        connection.answer()
    }

    /// Handshakes counted by this result.
    pub fn handshakes(&self, result: &str) -> u64 {
        metric(&self.rig, &format!("linkgate_tls_handshakes_total{{result=\"{result}\"}}")) as u64
    }
}

pub fn metric(rig: &Rig, name: &str) -> f64 {
    let text = rig.health("/metrics").text();
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0.0, |value| value.trim().parse().unwrap())
}

/// Whether the other side ends the connection, without a word of HTTP.
fn ended(stream: &mut impl Read) -> bool {
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut all);
    !String::from_utf8_lossy(&all).contains("HTTP/")
}

#[test]
fn requests_come_over_both_versions_and_are_told_upstream_as_https() {
    let house = House::start("");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Client { versions: &[version], ..Client::trusting(&house.ca) };
        let stream = client.connect(house.rig.public, "gateway.test").unwrap();
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
        let mut connection = Connection::on(stream);
        for _ in 0..3 {
            connection.write(&house.request().bytes());
            assert_eq!(connection.answer().status, 200, "{version:?}");
        }
    }
    assert_eq!(house.rig.upstream.last().one("x-forwarded-proto"), "https");
    assert_eq!(house.handshakes("ok"), 2);
}

#[test]
fn the_certificate_is_chosen_by_name_and_the_first_serves_all_others() {
    let house = House::start("");
    let names = |name: &str| shown(&house.connect(name).stream);
    assert_eq!(names("gateway.test"), ["gateway.test"]);
    assert_eq!(names("a.wild.test"), ["*.wild.test"]);
    // An address is no name: the first certificate holds it too.
    assert_eq!(names("127.0.0.1"), ["gateway.test"]);
    let mismatch = Client::trusting(&house.ca).connect(house.rig.public, "elsewhere.test").unwrap_err();
    assert!(mismatch.to_string().contains("not valid for name"), "{mismatch}");
    until("the client's refusal is counted", || house.handshakes("client_refused") == 1);

    let strict = House::start("strict_sni = true");
    assert_eq!(shown(&strict.connect("a.wild.test").stream), ["*.wild.test"]);
    for name in ["a.b.wild.test", "wild.test", "127.0.0.1"] {
        let refused = Client::trusting(&strict.ca).connect(strict.rig.public, name).unwrap_err();
        assert!(refused.to_string().contains("AccessDenied"), "{name}: {refused}");
    }
}

#[test]
fn the_oldest_version_can_be_1_3() {
    let house = House::start("min_version = \"1.3\"");
    assert_eq!(house.ask(&house.request()).status, 200);
    let old = Client { versions: &[&rustls::version::TLS12], ..Client::trusting(&house.ca) };
    let refused = old.connect(house.rig.public, "gateway.test").unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    until("the refusal is counted", || house.handshakes("incompatible") == 1);
}

#[test]
fn cleartext_on_the_port_is_closed_without_harm() {
    let house = House::start("");
    let mut stripped = TcpStream::connect(house.rig.public).unwrap();
    stripped.write_all(&house.request().bytes()).unwrap();
    assert!(ended(&mut stripped));
    let mut preface = TcpStream::connect(house.rig.public).unwrap();
    preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert!(ended(&mut preface));
    until("both are counted", || house.handshakes("not_tls") == 2);
    assert_eq!(house.rig.upstream.count(), 0);
    assert_eq!(house.ask(&house.request()).status, 200);
}

#[test]
fn what_alpn_agreed_upon_is_what_is_spoken() {
    let house = House::start("");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    let (h1, request): (&[&[u8]], _) = (&[b"http/1.1"], house.request().bytes());
    let both: &[&[u8]] = &[b"http/1.1", b"h2"];
    // HTTP/2 without ALPN, HTTP/2 after agreeing on HTTP/1, HTTP/1 after agreeing on HTTP/2: none is answered.
    for (alpn, said) in [(&[][..], preface), (h1, preface), (both, &request)] {
        let mut stream =
            Client { alpn, ..Client::trusting(&house.ca) }.connect(house.rig.public, "gateway.test").unwrap();
        let agreed = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(agreed.as_deref(), alpn.last().copied(), "the gateway prefers HTTP/2");
        stream.write_all(said).unwrap();
        assert!(ended(&mut stream), "{agreed:?}");
    }
    let none = Client { alpn: &[b"spdy/3"], ..Client::trusting(&house.ca) };
    let refused = none.connect(house.rig.public, "gateway.test").unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    assert_eq!(house.rig.upstream.count(), 0);
}

#[test]
fn a_handshake_that_drips_ends_in_time_and_holds_up_nobody() {
    let house = House::start("handshake_timeout = \"1s\"\nmax_handshakes = 8");
    let started = Instant::now();
    let drip: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(house.rig.public).unwrap();
            // The beginning of a record, and of the first message in it.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).unwrap();
            stream
        })
        .collect();
    // All places are taken: one more is closed at once. Retried, because the eight have to be accepted first.
    until("the bound holds", || {
        let _ = Client::trusting(&house.ca).connect(house.rig.public, "gateway.test");
        house.handshakes("limit") > 0
    });
    for mut stream in drip {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(ended(&mut stream));
    }
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    // Which of them took the places is up to the acceptor.
    until("all are counted", || {
        let timeouts = house.handshakes("timeout");
        timeouts > 0 && timeouts + house.handshakes("limit") >= 8
    });
    until("others are served", || Client::trusting(&house.ca).connect(house.rig.public, "gateway.test").is_ok());
    assert_eq!(house.ask(&house.request()).status, 200);
}

#[test]
fn framing_and_bounds_hold_behind_the_handshake() {
    let house =
        House::with("", Setup { listen: "header_timeout = \"1s\"\nmax_connections = 4".into(), ..Setup::default() });
    let mut smuggler = house.connect("gateway.test");
    let head = "POST /public/a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    smuggler.write(head.as_bytes());
    assert_eq!(smuggler.answer().status, 400);
    drop(smuggler);
    let started = Instant::now();
    let mut slow = house.connect("gateway.test");
    slow.write(b"GET /public/a HTTP/1.1\r\nHost:");
    slow.drain();
    let mut silent = house.connect("gateway.test");
    silent.drain();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(house.rig.upstream.count(), 0);
    until("the ended ones are gone", || metric(&house.rig, "linkgate_connections ") == 0.0);
    let held: Vec<_> = (0..4).map(|_| TcpStream::connect(house.rig.public).unwrap()).collect();
    until("one too many is closed", || {
        let mut more = TcpStream::connect(house.rig.public).unwrap();
        ended(&mut more) && metric(&house.rig, "linkgate_connections_refused_total ") > 0.0
    });
    drop(held);
    until("there is room again", || Client::trusting(&house.ca).connect(house.rig.public, "gateway.test").is_ok());
}

pub fn loads(rig: &Rig) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let lines = rig.lines().into_iter().filter(|line| line["pub"]["action"] == "tls.load");
    lines.map(|line| (text(&line["pub"]["decision"]), line["pub"]["reason"].to_string())).collect()
}

/// I6 for certificates.
#[test]
fn i6_new_files_are_shown_to_new_connections_and_bad_ones_change_nothing() {
    let house = House::start("");
    let dir = house.files.path();
    let mut open = house.connect("gateway.test");
    open.write(&house.request().bytes());
    assert_eq!(open.answer().status, 200);
    let serves = |name: &str| shown(&house.connect("gateway.test").stream).contains(&name.to_owned());
    let ends = format!("linkgate_tls_certificate_not_after_seconds{{file=\"{}\"}}", dir.join("first.pem").display());
    let before = metric(&house.rig, &ends);
    assert!(before > 1.7e9, "{before}");

    let renewed = house.ca.leaf(&["gateway.test", "renewed.test"], |params| {
        params.not_after = rcgen::date_time_ymd(2090, 1, 1);
    });
    renewed.put(dir, "first");
    until("the new certificate is shown", || serves("renewed.test"));
    until("the load is recorded", || loads(&house.rig).iter().any(|(decision, _)| decision == "allow"));
    assert!(metric(&house.rig, &ends) > before + 1e9);

    let ended = house.ca.leaf(&["gateway.test"], expired);
    let foreign = house.ca.server(&["gateway.test"]);
    let bad = [
        (ended, "ended on"),
        (Leaf { cert: foreign.cert, key: renewed.key.clone() }, "does not belong to"),
        (
            Leaf {
                cert: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
                key: renewed.key.clone(),
            },
            "damaged",
        ),
        (Leaf { cert: String::new(), key: renewed.key.clone() }, "holds no certificate"),
    ];
    for (leaf, why) in bad {
        leaf.put(dir, "first");
        until(why, || loads(&house.rig).iter().any(|(decision, reason)| decision == "deny" && reason.contains(why)));
        assert!(serves("renewed.test"), "{why}");
    }
    // The connection from before all this goes on.
    open.write(&house.request().bytes());
    assert_eq!(open.answer().status, 200);
}

#[test]
fn sessions_are_resumed_until_the_files_change() {
    let house = House::start("");
    let config = Client::trusting(&house.ca).config();
    let handshake = || {
        let mut connection = Connection::on(connect(config.clone(), house.rig.public, "gateway.test").unwrap());
        // Tickets come behind the handshake, so something has to be read.
        connection.write(&house.request().bytes());
        assert_eq!(connection.answer().status, 200);
        connection.stream.conn.handshake_kind().unwrap()
    };
    assert_eq!(handshake(), rustls::HandshakeKind::Full);
    assert_eq!(handshake(), rustls::HandshakeKind::Resumed);
    house.ca.server(&["gateway.test", "renewed.test"]).put(house.files.path(), "first");
    until("the new certificate is shown", || shown(&house.connect("gateway.test").stream).len() == 2);
    assert_eq!(handshake(), rustls::HandshakeKind::Full, "tickets of the old files are worth nothing");
}

fn settings(files: CertificateFiles) -> ServerSettings {
    ServerSettings {
        certificates: vec![files],
        tls13_only: false,
        strict_sni: false,
        handshake_timeout: Duration::from_secs(1),
        max_handshakes: 1,
        client_auth: ClientAuth::None,
        client_ca: Vec::new(),
        client_crl: Vec::new(),
    }
}

#[test]
fn files_that_cannot_serve_are_told_in_words() {
    let (ca, dir) = (Authority::new("servers"), tempfile::tempdir().unwrap());
    let (good, other) = (ca.server(&["a.test"]), ca.server(&["a.test"]));
    let early = ca.leaf(&["a.test"], |params| params.not_before = rcgen::date_time_ymd(2080, 1, 1));
    let late = ca.leaf(&["a.test"], expired);
    for (cert, key, expected) in [
        (&good.cert, &good.key, ""),
        (&late.cert, &late.key, "put a renewed one in its place"),
        (&early.cert, &early.key, "is the clock right?"),
        (&good.cert, &other.key, "put both files of one pair in place"),
        (&good.cert, &good.cert, "holds no private key in PEM form"),
        (&good.key, &good.key, "holds no certificate in PEM form"),
        (&"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned(), &good.key, "is damaged"),
    ] {
        let files = CertificateFiles { chain: dir.path().join("a.pem"), key: dir.path().join("a.key") };
        put(&files.chain, cert);
        put(&files.key, key);
        let said = ServerTls::load(settings(files), &[]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{expected}: {said}");
    }
    let missing = CertificateFiles { chain: dir.path().join("none.pem"), key: dir.path().join("a.key") };
    let said = ServerTls::load(settings(missing), &[]).unwrap_err().to_string();
    assert!(said.contains("none.pem` cannot be read"), "{said}");
}

#[test]
fn check_and_serve_tell_bad_files_before_anything_listens() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("servers");
    let pair = ca.leaf(&["a.test"], expired).put(dir.path(), "tls");
    let printed = cli_support::run(&mut cli_support::linkgate(&["config", "print-default"])).out;
    let text = printed.replace("#[listen.tls]   # example", &format!("[listen.tls]\ncertificates = [{pair}]"));
    std::fs::write(dir.path().join("linkgate.toml"), text).unwrap();
    let ran = |command: &str| {
        let mut told = cli_support::linkgate(&[command]);
        told.current_dir(dir.path())
            .env("LINKGATE__AUDIT__WRITES", "os")
            .env("LINKGATE__LISTEN__ADDRESS", "127.0.0.1:0");
        cli_support::run(told.env("LINKGATE__HEALTH__ADDRESS", "127.0.0.1:0"))
    };
    for command in ["check", "serve"] {
        let told = ran(command);
        assert_ne!(told.code, 0);
        let said = format!("{}{}", told.out, told.err);
        assert!(said.contains("`listen.tls`") && said.contains("tls.pem` ended on"), "{command}: {said}");
    }
    ca.server(&["a.test"]).put(dir.path(), "tls");
    assert_eq!(ran("check").code, 0);
}

/// The strict settings of HTTP/2 and the list of protected headers know nothing of what carries them.
#[test]
fn http_2_by_alpn_is_as_strict_as_http_2_by_prior_knowledge() {
    let house = House::start("");
    let config = Client { alpn: &[b"h2", b"http/1.1"], ..Client::trusting(&house.ca) }.config();
    house.rig.block_on(async {
        let tcp = tokio::net::TcpStream::connect(house.rig.public).await.unwrap();
        let name = "gateway.test".try_into().unwrap();
        let stream = tokio_rustls::TlsConnector::from(config.clone()).connect(name, tcp).await.unwrap();
        let mut sender = super::http2::handshake(stream).await;
        let spoof = super::http2::request(&house.rig, "/t/a?tenant_id=evil")
            .header("x-tenant-id", "evil")
            .header("x_user_id", "evil")
            .header("x-forwarded-proto", "http")
            .header("cookie", "a=1")
            .header("cookie", "access_token=stolen")
            .body(super::http2::empty())
            .unwrap();
        assert_eq!(sender.send_request(spoof).await.unwrap().status(), 200);
        for path in ["/t/%2e%2e/own", "/t//a", "/t/a%2fb"] {
            let answer =
                sender.send_request(super::http2::request(&house.rig, path).body(super::http2::empty()).unwrap());
            assert_eq!(answer.await.unwrap().status(), 400, "{path}");
        }
    });
    let seen = house.rig.upstream.last();
    assert_eq!((seen.line.as_str(), seen.one("cookie")), ("GET /t/a HTTP/1.1", "a=1"));
    assert_eq!(seen.one("x-forwarded-proto"), "https");
    assert!(!seen.headers.iter().any(|(_, value)| value.contains("evil") || value.contains("stolen")));

    let client = Client { alpn: &[b"h2"], ..Client::trusting(&house.ca) };
    let mut flood = client.connect(house.rig.public, "gateway.test").unwrap();
    flood.write_all(&super::http2::opening()).unwrap();
    let started = Instant::now();
    let mut at = 0;
    while flood.write_all(&super::http2::rapid_reset(at)).is_ok() {
        at += 1;
        // Alerts and what closes the connection are seen by reading only.
        if at % 64 == 0 && flood.conn.process_new_packets().is_err() {
            break;
        }
        assert!(at < 200_000 && started.elapsed() < Duration::from_secs(20), "{at} streams were reset");
    }
    assert_eq!(house.ask(&house.request()).status, 200, "others are served");
}

/// A drain ends what waits and lets what is open finish, behind TLS too.
#[test]
fn a_drain_lets_open_answers_finish() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("servers");
    let pair = ca.server(&["a.test"]).put(dir.path(), "tls");
    let printed = cli_support::run(&mut cli_support::linkgate(&["config", "print-default"])).out;
    let text = printed.replace("#[listen.tls]   # example", &format!("[listen.tls]\ncertificates = [{pair}]"));
    std::fs::write(dir.path().join("linkgate.toml"), text).unwrap();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "exec \"$0\" serve 2>&1", env!("CARGO_BIN_EXE_linkgate")]).current_dir(dir.path());
    for (name, value) in [
        ("LISTEN__ADDRESS", "127.0.0.1:0"),
        ("HEALTH__ADDRESS", "127.0.0.1:0"),
        ("AUDIT__WRITES", "os"),
        ("LOG__FORMAT", "json"),
    ] {
        command.env(format!("LINKGATE__{name}"), value);
    }
    let mut running = cli_support::Running::start(&mut command);
    let public = loop {
        let line: serde_json::Value = serde_json::from_str(&running.line()).unwrap();
        if let Some(public) = line["public"].as_str() {
            break public.parse().unwrap();
        }
    };
    let mut idle = Connection::on(Client::trusting(&ca).connect(public, "a.test").unwrap());
    let waiting = TcpStream::connect(public).unwrap();
    idle.write(b"GET /nowhere HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(idle.answer().status, 404);
    let started = Instant::now();
    assert_eq!(running.stop(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(15), "idle connections do not hold up a drain");
    drop((idle, waiting));
}
