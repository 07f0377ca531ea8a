//! HTTP/2 by prior knowledge: the same rules, its own tricks, and floods.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::rig::{Rig, Setup};

pub type Body = http_body_util::combinators::BoxBody<bytes::Bytes, std::convert::Infallible>;

async fn connect(rig: &Rig) -> http2::SendRequest<Body> {
    handshake(tokio::net::TcpStream::connect(rig.public).await.unwrap()).await
}

pub async fn handshake<S>(stream: S) -> http2::SendRequest<Body>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub fn empty() -> Body {
    Empty::new().boxed()
}

pub fn request(rig: &Rig, path: &str) -> http::request::Builder {
    Request::builder()
        .uri(format!("http://gateway.test{path}"))
        .header("authorization", format!("Bearer {}", rig.token()))
        .header("x-active-tenant-id", "t-full")
}

#[test]
fn requests_are_multiplexed_and_judged_like_any_other() {
    let rig = Rig::start();
    rig.block_on(async {
        let mut sender = connect(&rig).await;
        let many: Vec<_> =
            (0..20).map(|at| sender.send_request(request(&rig, &format!("/t/{at}")).body(empty()).unwrap())).collect();
        for answer in futures_util::future::join_all(many).await {
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
        let body = Full::from("hello").boxed();
        let post = request(&rig, "/t/post").method("POST").body(body).unwrap();
        assert_eq!(sender.send_request(post).await.unwrap().status(), StatusCode::OK);
        let refused = request(&rig, "/api/invoices").header("x-active-tenant-id", "t-auditor").body(empty()).unwrap();
        assert_eq!(sender.send_request(refused).await.unwrap().status(), StatusCode::BAD_REQUEST);
        for method in ["delete", "Trace"] {
            let cased = request(&rig, "/t/a").method(method).body(empty()).unwrap();
            assert_eq!(sender.send_request(cased).await.unwrap().status(), StatusCode::BAD_REQUEST, "{method}");
        }
    });
    let seen = rig.upstream.last();
    assert_eq!((seen.line.as_str(), seen.body.as_slice()), ("POST /t/post HTTP/1.1", &b"hello"[..]));
    assert_eq!(seen.one("x-forwarded-host"), "gateway.test");
    assert_eq!(seen.one("host"), rig.upstream.address.to_string());
}

#[test]
fn protected_headers_split_cookies_and_ambiguous_paths_are_treated_as_in_http_1() {
    let rig = Rig::start();
    rig.block_on(async {
        let mut sender = connect(&rig).await;
        let spoof = request(&rig, "/t/a?tenant_id=evil")
            .header("x-tenant-id", "evil")
            .header("x_user_id", "evil")
            .header("cookie", "a=1")
            .header("cookie", "access_token=stolen")
            .header("cookie", "b=2")
            .body(empty())
            .unwrap();
        assert_eq!(sender.send_request(spoof).await.unwrap().status(), StatusCode::OK);
        for path in ["/t/%2e%2e/own", "/t//a", "/t/a%2fb", "/t/a;b"] {
            let answer = sender.send_request(request(&rig, path).body(empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{path}");
        }
        // What HTTP/1 would lose on the way to the service makes one tenant of two.
        for (name, value) in [("x-active-tenant-id", "t-full "), ("x-active-tenant-id", "\tt-full"), ("x-other", " a")]
        {
            let mut edged = request(&rig, "/t/a").body(empty()).unwrap();
            edged.headers_mut().insert(name, value.parse().unwrap());
            assert_eq!(
                sender.send_request(edged).await.unwrap().status(),
                StatusCode::BAD_REQUEST,
                "{name}: {value:?}"
            );
        }
        for target in ["/t/a?x=\\", "/t/a?x=\u{fc}"] {
            let mut raw = request(&rig, "/t/a").body(empty()).unwrap();
            *raw.uri_mut() = http::Uri::from_maybe_shared(format!("http://gateway.test{target}").into_bytes()).unwrap();
            let answer = sender.send_request(raw).await.unwrap();
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{target}");
        }
        let long = request(&rig, "/t/a").header("x-long", "x".repeat(40_000)).body(empty()).unwrap();
        let answer = sender.send_request(long).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert!(answer.headers().contains_key("x-request-id"), "the refusal is the gateway's own");
        let user = Request::builder().uri("http://u:p@gateway.test/t/a").body(empty()).unwrap();
        assert_eq!(sender.send_request(user).await.unwrap().status(), StatusCode::BAD_REQUEST);
        let other_host = request(&rig, "/t/a").header("host", "other").body(empty()).unwrap();
        assert_eq!(sender.send_request(other_host).await.unwrap().status(), StatusCode::BAD_REQUEST);
    });
    let seen = rig.upstream.last();
    assert_eq!(seen.line, "GET /t/a HTTP/1.1");
    assert_eq!(seen.one("cookie"), "a=1; b=2");
    assert!(!seen.headers.iter().any(|(_, value)| value.contains("evil") || value.contains("stolen")));
}

/// One frame: 24 bits of length, type, flags, stream, payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a client says first.
pub fn opening() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A stream that is opened and reset at once.
pub fn rapid_reset(at: usize) -> Vec<u8> {
    let id = u32::try_from(at * 2 + 1).unwrap();
    [frame(HEADERS, END_STREAM | END_HEADERS, id, &block(PLAIN)), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
}

fn raw(rig: &Rig) -> TcpStream {
    let mut stream = TcpStream::connect(rig.public).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&opening()).unwrap();
    stream
}

/// Literal header fields without indexing; no Huffman coding.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            out.push(u8::try_from(text.len()).unwrap());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

const PLAIN: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/public/a")];

/// Frames until the connection ends or `wanted` says enough; `None` on a connection that ended.
fn read_until(stream: &mut TcpStream, mut wanted: impl FnMut(u8, u32, &[u8]) -> bool) -> Option<()> {
    loop {
        let mut head = [0u8; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).ok()?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if wanted(head[3], id, &payload) {
            return Some(());
        }
    }
}

/// The stream must be reset or answered 400, and nothing may reach the upstream.
fn refused(rig: &Rig, fields: &[(&str, &str)], what: &str) {
    let before = rig.upstream.count();
    let mut stream = raw(rig);
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(fields))).unwrap();
    let mut kinds = Vec::new();
    read_until(&mut stream, |kind, id, _| {
        kinds.push((kind, id));
        (id == 1 && (kind == RST_STREAM || kind == HEADERS)) || kind == GOAWAY
    });
    assert_eq!(rig.upstream.count(), before, "{what} reached the upstream: {kinds:?}");
    assert!(kinds.iter().any(|(kind, _)| matches!(*kind, RST_STREAM | GOAWAY | HEADERS)), "{what}: {kinds:?}");
}

#[test]
fn pseudo_header_tricks_are_refused() {
    let rig = Rig::start();
    let with = |extra: &[(&'static str, &'static str)]| [PLAIN, extra].concat();
    let mut stream = raw(&rig);
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(PLAIN))).unwrap();
    assert!(read_until(&mut stream, |kind, id, _| id == 1 && kind == HEADERS).is_some());
    assert_eq!(rig.upstream.count(), 1, "the plain sibling of the rows below passes");
    refused(&rig, &with(&[(":path", "/closed")]), "a second :path");
    refused(&rig, &with(&[("x", "1"), (":authority", "b")]), "a pseudo-header behind a field");
    refused(&rig, &with(&[(":unknown", "1")]), "an unknown pseudo-header");
    refused(&rig, &with(&[(":status", "200")]), "a response pseudo-header");
    refused(&rig, &with(&[("X-Upper", "1")]), "an upper-case name");
    refused(&rig, &with(&[("connection", "close")]), "a connection field");
    refused(&rig, &with(&[("transfer-encoding", "chunked")]), "transfer-encoding");
    refused(&rig, &with(&[("te", "gzip")]), "te other than trailers");
    refused(&rig, &with(&[("host", "b")]), "another host");
    refused(&rig, &[(":method", "GET"), (":scheme", "http"), (":authority", "a")], "no :path");
    refused(&rig, &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "")], "an empty :path");
    refused(&rig, &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "*")], "an asterisk");
    refused(
        &rig,
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/public/../closed")],
        "a dot segment",
    );
    refused(&rig, &[(":method", "CONNECT"), (":authority", "a:1")], "CONNECT");
    refused(&rig, &with(&[("content-length", "5")]), "a length without a body");
}

/// An empty path would be written to an HTTP/1 service as no target at all.
#[test]
fn a_path_that_is_none_reaches_nobody() {
    let routes = "[[routes]]\nmethods = [\"GET\"]\npath = \"/\"\naccess = \"public\"\nupstream = \"up\"\n\
                  [[routes]]\nmethods = [\"GET\"]\npath = \"/{*rest}\"\naccess = \"public\"\nupstream = \"up\"\n";
    let rig = Rig::with(Setup { routes: routes.into(), ..Setup::default() });
    let asked = |path: &'static str| [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    let mut stream = raw(&rig);
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&asked("/")))).unwrap();
    assert!(read_until(&mut stream, |kind, id, _| id == 1 && kind == HEADERS).is_some());
    assert_eq!(rig.upstream.count(), 1);
    for path in ["", "#", "#x", "#x?a=1", "?", "?a=1", "x", "*"] {
        refused(&rig, &asked(path), path);
    }
}

/// A refusal is ready while its client still sends. What comes then is part of the request all the same: its fault is told, and
/// a body of ordinary size is taken before the answer ends the stream.
#[test]
fn what_follows_an_early_refusal_is_still_looked_at() {
    let rig = Rig::start();
    let nowhere = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/nowhere")];
    // How its stream ended: each kind of frame that was seen on it, and the code of a reset.
    let ended = |parts: [Vec<u8>; 2]| {
        let mut stream = raw(&rig);
        for part in parts {
            stream.write_all(&part).unwrap();
            // Long for a refusal, short for who waits for the rest.
            std::thread::sleep(Duration::from_millis(30));
        }
        let (mut kinds, mut code) = (Vec::new(), None);
        read_until(&mut stream, |kind, id, payload| {
            if id == 1 && matches!(kind, HEADERS | DATA | RST_STREAM) {
                kinds.push(kind);
                code = (kind == RST_STREAM).then(|| payload.to_vec()).or(code.take());
            }
            id == 1 && matches!(kind, DATA | RST_STREAM)
        });
        (kinds, code)
    };
    let head = || frame(HEADERS, END_HEADERS, 1, &block(&nowhere));
    // On a machine that stands still for a moment the answer is the earlier one.
    let faulty =
        (0..10).map(|_| ended([head(), frame(HEADERS, END_HEADERS, 1, &block(&[("x", "trailers end a stream")]))]));
    let told = faulty.into_iter().find(|(kinds, _)| kinds == &[RST_STREAM]);
    assert_eq!(told.expect("the fault was passed over").1, Some(vec![0, 0, 0, 1]), "PROTOCOL_ERROR");
    let (kinds, _) = ended([head(), frame(DATA, END_STREAM, 1, &[b'x'; 10_000])]);
    assert_eq!(kinds, [HEADERS, DATA]);
    // Who sends no more is answered as well.
    let (kinds, _) = ended([head(), Vec::new()]);
    assert_eq!(kinds, [HEADERS, DATA]);
}

/// The connection must end before `most` rounds are through.
fn floods(rig: &Rig, what: &str, most: usize, mut round: impl FnMut(usize) -> Vec<u8>) {
    let mut stream = raw(rig);
    let mut reader = stream.try_clone().unwrap();
    let sink = std::thread::spawn(move || {
        let mut space = [0u8; 65536];
        while reader.read(&mut space).is_ok_and(|count| count > 0) {}
    });
    let started = Instant::now();
    for at in 0..most {
        if stream.write_all(&round(at)).is_err() {
            break;
        }
        assert!(at + 1 < most, "{what}: the connection took {most} rounds");
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
    }
    drop(stream);
    sink.join().unwrap();
    assert_eq!(rig.ask(super::client::Request::get("/own")).status, 200, "{what}: others are served");
}

#[test]
fn rapid_reset_and_continuation_floods_end_the_connection() {
    let rig = Rig::with(Setup { listen: "max_header_size = \"16KiB\"\n".into(), ..Setup::default() });
    floods(&rig, "rapid reset", 200_000, rapid_reset);
    floods(&rig, "continuation", 100_000, |at| {
        if at == 0 {
            frame(HEADERS, END_STREAM, 1, &block(PLAIN))
        } else {
            frame(CONTINUATION, 0, 1, &block(&[("x", "y")]))
        }
    });
    floods(&rig, "data on an idle stream", 1_000_000, |_| frame(DATA, 0, 1, b"x"));
}

/// Floods that must be answered one by one cost the sender as much; memory stays bounded because hyper stops reading
/// while its answers are not taken.
#[test]
fn settings_and_ping_floods_do_not_pile_up() {
    let rig = Rig::start();
    for (what, one) in [("settings", frame(SETTINGS, 0, 0, &[])), ("ping", frame(PING, 0, 0, &[0; 8]))] {
        let mut stream = raw(&rig);
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let many = one.repeat(1000);
        let mut sent = 0usize;
        // We never read: what is not acknowledged must stop being taken.
        while sent < 64 << 20 && stream.write_all(&many).is_ok() {
            sent += many.len();
        }
        assert!(sent < 64 << 20, "{what}: {sent} bytes were taken without an answer being read");
        assert_eq!(rig.ask(super::client::Request::get("/own")).status, 200);
    }
}

/// A preface and then silence, or a head that never ends: both leave our pings unanswered.
#[test]
fn connections_that_answer_no_ping_are_closed() {
    let rig = Rig::start();
    let started = Instant::now();
    let silent = raw(&rig);
    let mut unfinished = raw(&rig);
    unfinished.write_all(&frame(HEADERS, END_STREAM, 1, &block(PLAIN))).unwrap();
    for mut stream in [silent, unfinished] {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        assert!(read_until(&mut stream, |_, _, _| false).is_none());
        assert!(started.elapsed() < Duration::from_secs(25), "open for {:?}", started.elapsed());
    }
}
