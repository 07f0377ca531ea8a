//! HTTP/1 on the wire: exact or refused. Each row would pass a bare hyper proxy or be answered without our body.

use std::time::{Duration, Instant};

use super::{
    client::{Connection, Request},
    rig::{Rig, Setup},
};

fn raw(rig: &Rig, bytes: &[u8]) -> super::client::Answer {
    let mut connection = Connection::open(rig.public);
    connection.write(bytes);
    connection.answer()
}

#[test]
fn inexact_requests_are_refused_in_our_own_words_and_reach_no_upstream() {
    let rig = Rig::start();
    let token = rig.token();
    let auth = format!("Authorization: Bearer {token}\r\nX-Active-Tenant-Id: t-full\r\n");
    let bad = "BAD_REQUEST";
    let rows: &[(&str, String, &str)] = &[
        (
            "TE identity, chunked",
            format!("POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
            bad,
        ),
        (
            "TE twice",
            format!(
                "POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            bad,
        ),
        (
            "TE beside CL",
            format!(
                "POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            bad,
        ),
        (
            "CL beside TE",
            format!(
                "POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
            ),
            bad,
        ),
        (
            "Transfer_Encoding beside CL",
            format!("POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: 2\r\nTransfer_Encoding: chunked\r\n\r\nhi"),
            bad,
        ),
        ("Content_Length", format!("POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Content_Length: 2\r\n\r\n"), bad),
        (
            "CL twice",
            format!("POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"),
            bad,
        ),
        ("target without a path", format!("GET ?x HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), bad),
        ("target without a host", format!("GET http:///t/a HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), bad),
        ("query with quotes", format!("GET /t/a?a=\"<> HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), bad),
        ("host of two words", format!("GET /t/a HTTP/1.1\r\nHost: a b\r\n{auth}\r\n"), bad),
        ("host with a user", format!("GET /t/a HTTP/1.1\r\nHost: u@a\r\n{auth}\r\n"), bad),
        ("host with a path", format!("GET /t/a HTTP/1.1\r\nHost: evil/../\"\r\n{auth}\r\n"), bad),
        ("target with a user", format!("GET http://u:p@a/t/a HTTP/1.1\r\nHost: u:p@a\r\n{auth}\r\n"), bad),
        ("CL signed", format!("POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: +2\r\n\r\nhi"), bad),
        ("lone LF", format!("GET /t/a HTTP/1.1\nHost: a\n{}\n", auth.replace("\r\n", "\n")), bad),
        ("lone LF before a field", format!("GET /t/a HTTP/1.1\r\nHost: a\nX: y\r\n{auth}\r\n"), bad),
        ("folded line", format!("GET /t/a HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n{auth}\r\n"), bad),
        ("space before colon", format!("GET /t/a HTTP/1.1\r\nHost : a\r\n{auth}\r\n"), bad),
        ("no host", format!("GET /t/a HTTP/1.1\r\n{auth}\r\n"), bad),
        ("two hosts", format!("GET /t/a HTTP/1.1\r\nHost: a\r\nHost: a\r\n{auth}\r\n"), bad),
        ("two different hosts", format!("GET http://b/t/a HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), bad),
        ("NUL in a value", format!("GET /t/a HTTP/1.1\r\nHost: a\r\nX: a\u{0}b\r\n{auth}\r\n"), bad),
        ("fragment", format!("GET /t/a#b HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("backslash", format!("GET /t/a\\b HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("outside ASCII", format!("GET /t/\u{fc} HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("encoded slash", format!("GET /t/a%2fb HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("dot segment", format!("GET /t/../own HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("encoded dot", format!("GET /t/%2e%2e/own HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("double slash", format!("GET /t//a HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("path parameter", format!("GET /t/a;b=c HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("encoded letter", format!("GET /t/%61 HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("encoded percent", format!("GET /t/%2561 HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("encoded literal", format!("GET /colon/me%3Aact HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("asterisk", format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "AMBIGUOUS_PATH"),
        ("trace", format!("trace /t/a HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "BAD_REQUEST"),
        ("a method in another case", format!("dElete /t/a HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "BAD_REQUEST"),
        ("TRACE", format!("TRACE /t/a HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), "METHOD_NOT_ALLOWED"),
    ];
    for (what, bytes, expected) in rows {
        let answer = raw(&rig, bytes.as_bytes());
        assert_eq!(answer.error(), *expected, "{what}");
        assert!(!answer.header("x-request-id").is_empty(), "{what}");
    }
    assert_eq!(rig.upstream.count(), 0);
    // The same request, exact: so that the rows above fail for what they say.
    let good = format!("POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    assert_eq!(raw(&rig, good.as_bytes()).status, 200);
    assert_eq!(rig.upstream.last().body, b"hi");
}

#[test]
fn a_second_request_hidden_in_a_body_stays_in_the_body() {
    let rig = Rig::start();
    let auth = format!("Authorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n", rig.token());
    let hidden = "GET /t/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut connection = Connection::open(rig.public);
    let length = hidden.len();
    connection
        .write(format!("POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: {length}\r\n\r\n{hidden}").as_bytes());
    assert_eq!(connection.answer().status, 200);
    assert_eq!(rig.upstream.count(), 1);
    assert_eq!(rig.upstream.last().body, hidden.as_bytes());
}

/// Pipelined requests are answered in order; the inexact one among them ends the connection after its own answer.
#[test]
fn what_is_inexact_behind_a_good_request_is_answered_behind_it() {
    let rig = Rig::start();
    let auth = format!("Authorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n", rig.token());
    let good = format!("GET /t/slow/50 HTTP/1.1\r\nHost: a\r\n{auth}\r\n");
    let bad = format!("GET /t/b HTTP/1.1\r\nHost: a\r\nHost: b\r\n{auth}\r\n");
    let mut connection = Connection::open(rig.public);
    connection.write(format!("{good}{good}{bad}{good}").as_bytes());
    assert_eq!(connection.answer().status, 200);
    assert_eq!(connection.answer().status, 200);
    assert_eq!(connection.answer().error(), "BAD_REQUEST");
    assert_eq!(connection.answer().status, 0, "nothing behind it is served");
    assert_eq!(rig.upstream.count(), 2);
}

/// A broken HTTP/2 preface, or another protocol: there is nobody who would understand an answer.
#[test]
fn what_is_no_http_at_all_is_closed_without_an_answer() {
    let rig = Rig::start();
    for first in ["INVALID CONNECTION PREFACE\r\n\r\n", "PRI * HTTX/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut connection = Connection::open(rig.public);
        connection.write(first.as_bytes());
        assert_eq!(connection.answer().status, 0, "{first:?}");
    }
    let auth = format!("Authorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n", rig.token());
    let mut connection = Connection::open(rig.public);
    connection.write(format!("GET /t/slow/50 HTTP/1.1\r\nHost: a\r\n{auth}\r\nNOT AN HTTPREQUEST\r\n\r\n").as_bytes());
    assert_eq!(connection.answer().status, 200, "what was owed before is answered");
    assert_eq!(connection.answer().error(), "BAD_REQUEST");
}

#[test]
fn inexact_chunks_end_the_exchange_and_cancel_the_upstream_call() {
    let rig = Rig::start();
    let auth = format!("Authorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n", rig.token());
    for body in [
        "2\nhi\r\n0\r\n\r\n",
        "0x2\r\nhi\r\n0\r\n\r\n",
        "2\r\nhi!\r\n0\r\n\r\n",
        "2;\nx\r\nhi\r\n0\r\n\r\n",
        "-2\r\nhi\r\n0\r\n\r\n",
    ] {
        let mut connection = Connection::open(rig.public);
        connection.write(
            format!("POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: chunked\r\n\r\n{body}").as_bytes(),
        );
        let answer = connection.answer();
        assert!(matches!(answer.status, 0 | 400), "{body:?}: {}", answer.status);
    }
    assert_eq!(rig.upstream.count(), 0, "no inexact body arrived whole");
}

/// What is exact is answered, however much of the rest came with it.
#[test]
fn an_inexact_body_takes_no_good_request_with_it() {
    let rig = Rig::start();
    let auth = format!("Authorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n", rig.token());
    for body in ["zz\r\n", "2\r\nhi\r\n0x5\r\n", "2\r\nhi!\r\n0\r\n\r\n"] {
        let mut connection = Connection::open(rig.public);
        let first = format!("GET /t/first HTTP/1.1\r\nHost: a\r\n{auth}\r\n");
        let second = format!("POST /t/a HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: chunked\r\n\r\n{body}");
        connection.write(format!("{first}{second}").as_bytes());
        assert_eq!(connection.answer().status, 200, "{body:?}");
        let refused = connection.answer();
        assert_eq!((refused.error().as_str(), refused.header("connection")), ("BAD_REQUEST", "close"), "{body:?}");
        assert!(refused.header("x-request-id").starts_with("req_"));
        assert_eq!(connection.answer().status, 0, "the connection ends");
    }
    assert!(rig.upstream.seen().iter().all(|seen| seen.target() == "/t/first"));
}

/// A socket that is closed with something unread makes the kernel take back the answer that is on its way.
#[test]
fn who_is_refused_while_sending_hears_why() {
    let rig = Rig::start();
    for size in [100, 100_000, 8_000_000] {
        for at in 0..5 {
            let mut connection = Connection::open(rig.public);
            let head = format!("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
            connection.write(head.as_bytes());
            connection.try_write(&vec![b'x'; size]).unwrap_or_else(|error| panic!("{size}, {at}: {error}"));
            let answer = connection.answer();
            assert_eq!(answer.error(), "ROUTE_NOT_FOUND", "{size}, {at}");
            let short = size == 100;
            assert_eq!(answer.header("connection"), if short { "" } else { "close" });
            // What was read to its end stands in nobody's way.
            if short {
                connection.write(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
                assert_eq!(connection.answer().error(), "ROUTE_NOT_FOUND");
            }
        }
    }
    // Who waits to be asked for the body is not waited for.
    let mut connection = Connection::open(rig.public);
    connection.write(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.head().status, 404);
    // One reader's body is another one's request.
    let mut connection = Connection::open(rig.public);
    connection.write(b"POST /t/a HTTP/1.1\r\nHost: a\r\nContent_Length: 9\r\n\r\nGET /own HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = connection.answer();
    assert_eq!((answer.error().as_str(), answer.header("connection")), ("BAD_REQUEST", "close"));
    assert_eq!(connection.answer().status, 0);
}

#[test]
fn heads_are_bounded_in_bytes_and_in_number() {
    let rig = Rig::with(Setup {
        listen: "max_header_size = \"8KiB\"\nmax_header_count = 20\nmax_uri_size = \"1KiB\"\n".into(),
        ..Setup::default()
    });
    let many = (0..30).fold(Request::get("/t/a"), |request, at| request.header(&format!("x-{at}"), "1"));
    assert_eq!(rig.ask(many).error(), "BAD_REQUEST");
    assert_eq!(rig.ask(Request::get("/t/a").header("x-long", &"x".repeat(9000))).error(), "BAD_REQUEST");
    assert_eq!(rig.ask(Request::get(&format!("/t/{}", "a".repeat(2000)))).error(), "BAD_REQUEST");
    assert_eq!(rig.ask(Request::get("/t/a").tenant("t-full")).status, 200);
}

/// At, below and above the bound that hyper has of its own.
#[test]
fn as_many_fields_as_are_allowed_pass_and_one_more_is_refused() {
    for most in [20, 100, 150] {
        let rig = Rig::with(Setup { listen: format!("max_header_count = {most}\n"), ..Setup::default() });
        let auth = format!("Host: a\r\nAuthorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n", rig.token());
        let ask = |count: usize| {
            let more: String = (3..count).map(|at| format!("X-{at}: 1\r\n")).collect();
            let mut connection = Connection::open(rig.public);
            connection.write(format!("GET /t/a HTTP/1.1\r\n{auth}{more}\r\n").as_bytes());
            connection.answer()
        };
        assert_eq!(ask(most).status, 200, "{most}");
        assert_eq!(ask(most + 1).error(), "BAD_REQUEST", "{most}");
    }
}

/// hyper's header timeout does nothing without a timer, and the choice of protocol comes before it.
#[test]
fn connections_that_drip_or_say_nothing_are_closed() {
    let rig = Rig::with(Setup { listen: "header_timeout = \"600ms\"\n".into(), ..Setup::default() });
    for first in ["", "P", "PRI * HTTP/2", "GET /t/a HT", "GET /t/a HTTP/1.1\r\nHost: a\r\nX"] {
        let started = Instant::now();
        let mut connection = Connection::open(rig.public);
        connection.write(first.as_bytes());
        let mut dripped = 0;
        while connection.try_write(if first.is_empty() { b"" } else { b"x" }).is_ok()
            && started.elapsed() < Duration::from_secs(5)
        {
            std::thread::sleep(Duration::from_millis(100));
            dripped += 1;
            connection.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let mut space = [0u8; 512];
            match std::io::Read::read(&mut connection.stream, &mut space) {
                Ok(0) => break,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
        assert!(started.elapsed() < Duration::from_secs(3), "{first:?} was still open after {dripped} drips");
    }
}

#[test]
fn a_connection_serves_many_requests_and_upstream_connections_are_kept() {
    let rig = Rig::start();
    let request = Request::get("/t/a").bearer(&rig.token()).tenant("t-full").bytes();
    let mut connection = Connection::open(rig.public);
    for _ in 0..20 {
        connection.write(&request);
        assert_eq!(connection.answer().status, 200);
    }
    assert_eq!(rig.upstream.count(), 20);
    assert_eq!(rig.upstream.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let rig = Rig::start();
    let auth = format!("Authorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n", rig.token());
    let answer = raw(&rig, format!("GET /t/a HTTP/1.0\r\n{auth}\r\n").as_bytes());
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    let refused =
        raw(&rig, format!("POST /t/a HTTP/1.0\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").as_bytes());
    assert_eq!(refused.error(), "BAD_REQUEST");
}
