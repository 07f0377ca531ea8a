//! Envoy, nginx and Caddy, really started with the configurations that ship, carry requests to a service.
//!
//! Traefik's program is not at hand: its configuration is held against what it must list (`shipped`), and its dialect is asked in
//! `http`.

use std::collections::BTreeSet;

use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkgate::proxy::{answer_headers::not_for_clients, headers::protected};

use super::{
    listener, metric,
    process::{Front, eventually},
    record, rig, rig_with, rig_without_edge,
};
use crate::{
    client::{Connection, Request},
    rig::{HOME1, P1, Rig, Setup},
    upstream::raw,
};

const EVIL: &str = "evil!value";

/// How a proxy is started, and where it falls short of Envoy.
#[derive(Clone, Copy)]
struct Kind {
    start: fn(&Rig) -> Front,
    /// It can put another target in the place of the client's.
    cleans_queries: bool,
    /// It sends the body along.
    sends_bodies: bool,
}

const ENVOY: Kind = Kind { start: Front::envoy, cleans_queries: true, sends_bodies: true };
const NGINX: Kind = Kind { start: Front::nginx, cleans_queries: true, sends_bodies: false };
const CADDY: Kind = Kind { start: Front::caddy, cleans_queries: false, sends_bodies: false };

fn ask(rig: &Rig, method: &str, target: &str, tenant: &str) -> Request {
    Request::new(method, target).bearer(&rig.token()).tenant(tenant)
}

fn carries_what_is_allowed(kind: Kind) {
    let rig = rig();
    let front = (kind.start)(&rig);
    let token = rig.token();
    let request = Request::get("/api/invoices?a=%20&b=c").bearer(&token).tenant("t-full");
    let request = request.header("X-API-Key", "evil").header("Cookie", "a=1; access_token=evil").header("X-Kept", "1");
    let answer = request.send(front.address);
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{}", front.log());
    let seen = rig.upstream.last();
    assert_eq!(seen.target(), "/api/invoices?a=%20&b=c");
    for (name, value) in [
        ("x-tenant-id", "t-full"),
        ("x-active-tenant-id", "t-full"),
        ("x-cross-tenant-access", "true"),
        ("x-user-id", "user-1"),
        ("x-partner-id", P1),
        ("x-partner-tenant-id", HOME1),
        ("x-partner-role", "msp_full"),
        ("x-forwarded-for", "127.0.0.1"),
        ("cookie", "a=1"),
        ("x-api-key", ""),
        ("x-kept", "1"),
        ("x-linkgate-caller", ""),
    ] {
        assert_eq!(seen.one(name), value, "{name}: {:?}", seen.headers);
    }
    let replaced = seen.one("authorization").strip_prefix("Bearer ").unwrap();
    assert_eq!(crate::flow::claims(replaced)["tenant_id"], "t-full");
    assert_eq!(crate::flow::claims(seen.one("x-linkgate-assertion"))["aud"], "up");
    let id = seen.one("x-decision-id");
    assert_eq!(answer.header("x-decision-id"), id);
    assert_eq!(answer.header("x-request-id"), seen.one("x-request-id"));
    assert!(answer.header("vary").contains("X-Active-Tenant-Id"));
    assert_eq!(answer.header("cache-control"), "private, no-store");
    let record = record(&rig, id);
    assert_eq!((&record["decision"], &record["reason"]), (&"allow".into(), &"decided".into()));
    assert_eq!((&record["client_ip"], &record["path"]), (&"127.0.0.1".into(), &"/api/invoices?a=_&b=_".into()));

    // At home the user's own token goes on, and nothing of a link is said.
    let answer = Request::get("/api/invoices").bearer(&token).header("X-Tenant-ID", "evil").send(front.address);
    assert_eq!(answer.status, 200);
    let seen = rig.upstream.last();
    assert_eq!(seen.one("authorization"), format!("Bearer {token}"));
    for (name, value) in [("x-tenant-id", HOME1), ("x-cross-tenant-access", "false"), ("x-active-tenant-id", "")] {
        assert_eq!(seen.all(name), [value].into_iter().filter(|value| !value.is_empty()).collect::<Vec<_>>(), "{name}");
    }
    assert!(seen.all("x-partner-role").is_empty() && seen.all("x-link-id").is_empty());
    // What a busy browser sends: the check's answer repeats it.
    let cookie = format!("a={}; access_token=evil", "x".repeat(6_000));
    let request = Request::get("/api/invoices").bearer(&token).tenant("t-full").header("Cookie", &cookie);
    assert_eq!(request.send(front.address).status, 200, "{}", front.log());
    assert_eq!(rig.upstream.last().one("cookie").len(), 6_002);
    // A tenant whose name needs more than ASCII.
    let answer = ask(&rig, "GET", "/api/invoices", "t-space é").send(front.address);
    assert_eq!((answer.status, rig.upstream.last().one("x-tenant-id")), (200, "t-space é"));
    // A body is carried by the proxy.
    let answer = ask(&rig, "POST", "/api/invoices", "t-full").json(r#"{"a":1}"#).send(front.address);
    assert_eq!((answer.status, rig.upstream.last().body.as_slice()), (200, &br#"{"a":1}"#[..]));
    // What was decided is, byte for byte, what goes on.
    let exact = "/t/a%20b:c,d/%C3%BC/%40?x=%2F%2e&y=a+b&z=%zz&tenant_ids=1";
    assert_eq!(ask(&rig, "GET", exact, "t-full").send(front.address).status, 200);
    assert_eq!(rig.upstream.last().target(), exact);
    // A WebSocket passes; that it cannot be cut stands in the README.
    let mut connection = Connection::open(front.address);
    let upgrade = ask(&rig, "GET", "/t/ws", "t-full")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    connection.write(&upgrade.bytes());
    assert_eq!(connection.head().status, 101, "{}", front.log());
    connection.write(b"echo");
    assert_eq!(connection.read_some(), b"echo");
    assert_eq!(rig.upstream.last().one("x-tenant-id"), "t-full");
    // What linkgate answers itself is not asked about, and answered.
    let answer = Request::get("/api/v1/partner/me").bearer(&token).send(front.address);
    assert_eq!((answer.status, answer.json()["user_id"].as_str()), (200, Some("user-1")), "{}", answer.text());
}

fn refuses_as_linkgate_would(kind: Kind) {
    let rig = rig();
    let front = (kind.start)(&rig);
    let refused = |request: Request, what: &str| {
        let before = rig.upstream.count();
        let (own, through) = (request.send(rig.public), request.send(front.address));
        assert!(own.status >= 400, "{what}: linkgate itself answers {}", own.status);
        assert_eq!((through.status, through.error()), (own.status, own.error()), "{what}: {}", through.text());
        for name in ["www-authenticate", "allow"] {
            assert_eq!(through.header(name), own.header(name), "{what}: {name}");
        }
        assert!(through.header("content-type").starts_with("application/json"), "{what}");
        assert!(!through.header("x-request-id").is_empty(), "{what}");
        assert_eq!(through.header("x-decision-id").is_empty(), own.header("x-decision-id").is_empty(), "{what}");
        assert_eq!(rig.upstream.count(), before, "{what}: nothing reaches the service");
    };
    for tenant in
        ["t-unlinked", "t-other", "t-expired", "t-revoked", "t-future", "t-pending", "t-override", "t-mfa", "t-cidr"]
    {
        refused(ask(&rig, "GET", "/api/invoices", tenant), tenant);
    }
    for (method, target, tenant) in [
        ("POST", "/api/invoices", "t-auditor"),
        ("GET", "/own", "t-full"),
        ("GET", "/closed", "t-full"),
        ("GET", "/nowhere", "t-full"),
        ("DELETE", "/api/invoices", "t-full"),
        ("GET", "/api/tenants/t-other/stats", "t-full"),
        ("GET", "/api/invoices;a=b", "t-full"),
        ("GET", "/api/invoices%3ba", "t-full"),
        ("GET", "/api//invoices", "t-full"),
        ("GET", "/api/%69nvoices", "t-full"),
        ("GET", "/api/tickets/%2e%2e", "t-full"),
    ] {
        refused(ask(&rig, method, target, tenant), &format!("{method} {target}"));
    }
    refused(Request::get("/api/invoices"), "no credential");
    refused(Request::get("/api/invoices").bearer("x.y.z"), "a bad credential");
    refused(ask(&rig, "GET", "/api/invoices", "t-full,t-other"), "two tenants in one field");
    refused(ask(&rig, "GET", "/api/invoices", "t-full").tenant("t-full"), "the tenant stands twice");

    // What the proxy itself may refuse first, in words of its own.
    let before = rig.upstream.count();
    let twice = ask(&rig, "GET", "/api/invoices", "t-full").bearer(&rig.token());
    for (request, what) in [
        (twice, "two credentials"),
        (ask(&rig, "GET", "/api/../own", "t-full"), "a dot segment"),
        (ask(&rig, "GET", "/api/tickets/a%2Fb", "t-full"), "an encoded slash"),
        (ask(&rig, "GET", "/api\\invoices", "t-full"), "a backslash"),
        (ask(&rig, "GET", "/api/invoices#a", "t-full"), "a fragment"),
    ] {
        let answer = request.send(front.address);
        assert!((400..500).contains(&answer.status), "{what}: {}", answer.status);
    }
    assert_eq!(rig.upstream.count(), before);

    // Parameters by which services would take another tenant.
    let answer = ask(&rig, "GET", "/api/invoices?a=%20b&tenant_id=x&Partner%5FID=y", "t-full").send(front.address);
    if kind.cleans_queries {
        assert_eq!((answer.status, rig.upstream.last().target()), (200, "/api/invoices?a=%20b"));
        let answer = ask(&rig, "GET", "/api/invoices?z=%7E+1&tenant_id=x&b&a=2", "t-full").send(front.address);
        let target = rig.upstream.last().target().to_owned();
        let query: BTreeSet<&str> = target.split_once('?').unwrap().1.split('&').collect();
        // Envoy sorts what is left, and knows no parameter without a value.
        let plain = query.iter().map(|pair| pair.trim_end_matches('=')).collect::<BTreeSet<_>>();
        assert_eq!((answer.status, plain), (200, BTreeSet::from(["z=%7E+1", "b", "a=2"])), "{target}");
    } else {
        assert_eq!((answer.status, answer.error().as_str()), (400, "BAD_REQUEST"));
    }
    // A route that refuses fields of the body.
    let before = rig.upstream.count();
    let bad = ask(&rig, "POST", "/api/tickets", "t-full").json(r#"{"tenant_id":"t-other"}"#).send(front.address);
    assert_eq!((bad.status, bad.error().as_str(), rig.upstream.count()), (400, "BAD_REQUEST", before));
    let good = ask(&rig, "POST", "/api/tickets", "t-full").json(r#"{"subject":"x"}"#).send(front.address);
    let expected = if kind.sends_bodies { (200, before + 1) } else { (400, before) };
    assert_eq!((good.status, rig.upstream.count()), expected);
}

fn lets_no_spelling_of_a_protected_field_pass(kind: Kind) {
    let rig = rig();
    let front = (kind.start)(&rig);
    let token = rig.token();
    let mut passed = 0;
    let mut try_one = |name: &str, value: &str, what: &str| {
        let before = rig.upstream.count();
        let request = Request::get("/api/invoices").bearer(&token).tenant("t-full").header(name, value);
        let answer = request.send(front.address);
        if answer.status != 200 {
            // 401 where the proxy itself removed the credential that was nominated.
            assert!(matches!(answer.status, 400 | 401), "{what}: {}", answer.text());
            assert_eq!(rig.upstream.count(), before, "{what}");
            return;
        }
        passed += 1;
        let seen = rig.upstream.last();
        for (name, value) in &seen.headers {
            let plain = name.to_lowercase().replace(['_', '.', '~'], "-");
            assert!(!(protected().contains(&plain.as_str()) && value.contains("evil")), "{what}: {name}: {value}");
        }
        for name in protected() {
            assert!(seen.all(name).len() <= 1, "{what}: {name} stands twice");
        }
        assert_eq!((seen.one("x-tenant-id"), seen.one("x-partner-id")), ("t-full", P1), "{what}");
        assert!(!seen.one("x-linkgate-assertion").is_empty(), "{what}");
    };
    for name in protected() {
        let signs =
            [name.replace('-', "_"), name.replacen('-', "_", 1), name.replace('-', "."), name.replace('-', "~")];
        let spellings = [name.to_uppercase(), (*name).to_owned()].into_iter().chain(signs).collect::<Vec<_>>();
        for spelled in spellings.iter().collect::<BTreeSet<_>>() {
            if !spelled.eq_ignore_ascii_case("x-active-tenant-id") {
                try_one(spelled, EVIL, spelled);
            }
        }
    }
    for nominated in ["X-Tenant-Id", "close, X-Tenant-Id, X-Linkgate-Assertion", "X-Partner-Id, Authorization"] {
        try_one("Connection", nominated, nominated);
    }
    assert!(passed > protected().len(), "only {passed} passed: nothing was tried");
}

/// A browser sends the cookie whoever's page opens the WebSocket.
fn opens_no_websocket_by_a_cookie_for_another_page(kind: Kind) {
    let rig = rig_with(Setup { identity: "cookie = \"access_token\"\n".into(), ..Setup::default() });
    let front = (kind.start)(&rig);
    let cookie = format!("access_token={}", rig.token());
    let asked = |site: &str, fields: &[(&str, &str)]| {
        let request = Request::get("/t/ws").tenant("t-full").header("Cookie", &cookie);
        let request = request.header("Sec-Fetch-Site", site).header("Connection", "Upgrade");
        let request = request.header("Upgrade", "websocket");
        let request = fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        let mut connection = Connection::open(front.address);
        connection.write(&request.bytes());
        connection.answer()
    };
    let browser = [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")];
    for fields in [&browser[..], &[("Origin", "https://evil.example")]] {
        let answer = asked("cross-site", fields);
        assert_eq!((answer.status, answer.error().as_str()), (401, "UNAUTHORIZED"), "{fields:?}: {}", front.log());
        assert!(answer.text().contains("another origin"), "{}", answer.text());
    }
    assert_eq!(rig.upstream.count(), 0);
    assert_eq!(asked("same-origin", &browser).status, 101, "{}", front.log());
}

/// A service steers neither the proxy nor what stands beside it.
fn takes_from_an_answer_what_is_not_for_its_client(kind: Kind) {
    let rig = rig();
    let front = (kind.start)(&rig);
    let fields: String = not_for_clients()
        .chain(["x-active-tenant-id"])
        .filter(|name| *name != "x-accel-redirect")
        .map(|name| format!("{name}: evil\r\n"))
        .collect();
    for steered in ["", "X-Accel-Redirect: /linkgate/check\r\n", "X-Accel-Redirect: @linkgate_refused\r\n"] {
        let said = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Kept: 1\r\n{steered}{fields}\r\nplain");
        let request = Request::get(&raw("t", &said)).bearer(&rig.token()).tenant("t-full");
        let answer = request.send(front.address);
        assert_eq!((answer.status, answer.text().as_str()), (200, "plain"), "{answer:?} {}", front.log());
        assert_eq!((answer.header("x-kept"), answer.header("x-active-tenant-id")), ("1", "t-full"));
        let passed: Vec<&str> = not_for_clients().filter(|name| answer.headers.contains_key(*name)).collect();
        assert!(passed.is_empty(), "{passed:?}");
    }
}

fn obeys_a_revocation_a_limit_and_an_absence(kind: Kind) {
    let limits = "tenant = \"5/min\"\nrefusal = 0\nunauthenticated = 0\n";
    let mut rig = rig_with(Setup { limits: limits.into(), ..Setup::default() });
    let front = (kind.start)(&rig);
    assert_eq!(ask(&rig, "GET", "/api/invoices", "t-full").send(front.address).status, 200);
    rig.revoke("t-full");
    eventually("the revocation is obeyed", || {
        let answer = ask(&rig, "GET", "/api/invoices", "t-full").send(front.address);
        answer.status == 403 && answer.error() == "TENANT_ACCESS_DENIED/link_inactive"
    });
    let before = rig.upstream.count();
    assert_eq!(ask(&rig, "GET", "/api/invoices", "t-full").send(front.address).status, 403);
    assert_eq!(rig.upstream.count(), before);

    let answers: Vec<_> = (0..6).map(|_| ask(&rig, "GET", "/api/invoices", "t-billing").send(front.address)).collect();
    assert!(answers[..5].iter().all(|answer| answer.status == 200));
    let last = &answers[5];
    assert_eq!((last.status, last.error().as_str()), (429, "RATE_LIMIT_EXCEEDED"));
    assert!(last.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{last:?}");
    assert_eq!(last.header("x-ratelimit-remaining"), "0");
    drop(front);

    // Nobody answers where it asks: nothing passes.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    rig.decision = Some(gone);
    let front = (kind.start)(&rig);
    let before = rig.upstream.count();
    let answer = ask(&rig, "GET", "/api/invoices", "t-support").send(front.address);
    assert!(answer.status >= 500, "{}", answer.status);
    assert_eq!(rig.upstream.count(), before);
    drop(front);

    // It shows a secret that nobody knows.
    let rig = rig_without_edge();
    let front = (kind.start)(&rig);
    let answer = ask(&rig, "GET", "/api/invoices", "t-full").send(front.address);
    assert!(answer.status >= 500, "{}", answer.status);
    assert_eq!((rig.upstream.count(), rig.records().len()), (0, 0));
    assert!(metric(&rig, "linkgate_decision_strangers_total") >= 1);
}

macro_rules! fronts {
    ($($name:ident $kind:expr;)+) => {$(
        mod $name {
            #[test]
            fn carries_what_is_allowed() {
                super::carries_what_is_allowed($kind);
            }

            #[test]
            fn refuses_as_linkgate_would() {
                super::refuses_as_linkgate_would($kind);
            }

            #[test]
            fn lets_no_spelling_of_a_protected_field_pass() {
                super::lets_no_spelling_of_a_protected_field_pass($kind);
            }

            #[test]
            fn takes_from_an_answer_what_is_not_for_its_client() {
                super::takes_from_an_answer_what_is_not_for_its_client($kind);
            }

            #[test]
            fn opens_no_websocket_by_a_cookie_for_another_page() {
                super::opens_no_websocket_by_a_cookie_for_another_page($kind);
            }

            #[test]
            fn obeys_a_revocation_a_limit_and_an_absence() {
                super::obeys_a_revocation_a_limit_and_an_absence($kind);
            }
        }
    )+};
}

fronts! {
    envoy super::ENVOY;
    nginx super::NGINX;
    caddy super::CADDY;
}

#[test]
fn envoy_speaks_http_2_and_logs_what_was_decided() {
    let rig = rig();
    let front = Front::envoy(&rig);
    let statuses = rig.block_on(async {
        let stream = tokio::net::TcpStream::connect(front.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut statuses = Vec::new();
        for (path, tenants) in [
            ("/api/invoices", &["t-full"][..]),
            ("/api/invoices", &["t-revoked"]),
            ("/api/invoices", &["t-full", "t-full"]),
            ("/api//invoices", &["t-full"]),
        ] {
            let mut request = http::Request::builder()
                .uri(format!("http://gateway.test{path}"))
                .header("authorization", format!("Bearer {}", rig.token()))
                .header("cookie", "a=1")
                .header("cookie", "access_token=evil")
                .header("x-tenant-id", "evil");
            for tenant in tenants {
                request = request.header("x-active-tenant-id", *tenant);
            }
            let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
            statuses.push(sender.send_request(request).await.unwrap().status().as_u16());
        }
        statuses
    });
    assert_eq!(statuses, [200, 403, 400, 400]);
    assert_eq!(rig.upstream.count(), 1);
    let seen = rig.upstream.last();
    assert_eq!((seen.one("x-tenant-id"), seen.one("cookie")), ("t-full", "a=1"));
    let id = seen.one("x-decision-id").to_owned();
    eventually("the access log tells the decisions", || {
        let log = front.log();
        [id.as_str(), r#""decision":"allow""#, r#""reason":"link_inactive""#, P1].iter().all(|part| log.contains(part))
    });
    assert!(listener(&rig).port() > 0);
}
