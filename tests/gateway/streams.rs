//! Streams that outlive their link are cut within a second, and their record says so (contract, section 5).

use std::time::{Duration, Instant};

use linkgate::domain::{Millis, link_rules::LinkInput};
use serde_json::json;

use super::{
    client::{Connection, Request},
    endpoints::metric,
    reload::until,
    rig::{HOME1, Rig, Setup},
};

const BOUND: Duration = Duration::from_millis(1100);

fn open(rig: &Rig, request: Request, id: &str) -> Connection {
    let mut connection = Connection::open(rig.public);
    connection.write(&request.bearer(&rig.token()).header("X-Request-ID", id).bytes());
    connection
}

/// Reads until the stream ends; fails if that takes longer than the bound.
fn ends_in_time(connection: &mut Connection, since: Instant) {
    connection.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    connection.drain();
    assert!(since.elapsed() < BOUND, "the stream went on for {:?}", since.elapsed());
}

fn reason(rig: &Rig, id: &str) -> (serde_json::Value, serde_json::Value) {
    for _ in 0..50 {
        let record = rig.records().into_iter().find(|record| record["request_id"] == id).unwrap();
        if record["lines"] == 2 {
            return (record["aborted"].clone(), record["reason"].clone());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the record of {id} was never completed");
}

#[test]
fn events_of_a_revoked_link_are_cut() {
    let rig = Rig::start();
    let mut connection = open(&rig, Request::get("/t/sse").tenant("t-full"), "sse");
    assert_eq!(connection.head().status, 200);
    assert!(!connection.read_some().is_empty());
    let revoked = Instant::now();
    rig.revoke("t-full");
    ends_in_time(&mut connection, revoked);
    assert_eq!(reason(&rig, "sse"), (json!(true), json!("link_revoked")));
    let again = rig.ask(Request::get("/api/invoices").tenant("t-full"));
    assert_eq!(again.error(), "TENANT_ACCESS_DENIED/link_inactive");
}

#[test]
fn streams_of_other_links_and_of_home_go_on() {
    let rig = Rig::start();
    let mut other = open(&rig, Request::get("/t/sse").tenant("t-auditor"), "other");
    let mut home = open(&rig, Request::get("/t/sse"), "home");
    assert_eq!((other.head().status, home.head().status), (200, 200));
    rig.revoke("t-full");
    std::thread::sleep(Duration::from_millis(1500));
    other.read_some();
    home.read_some();
    assert!(!other.read_some().is_empty() && !home.read_some().is_empty());
}

#[test]
fn a_link_that_expires_cuts_its_streams() {
    let rig = Rig::start();
    let end = Millis(Millis::now().0 + 1500);
    rig.update("t-full", &LinkInput { end_date: Some(Some(end.to_string())), ..LinkInput::default() });
    std::thread::sleep(Duration::from_millis(400));
    let mut connection = open(&rig, Request::get("/t/sse").tenant("t-full"), "expires");
    assert_eq!(connection.head().status, 200);
    let left = u64::try_from(end.0 - Millis::now().0).unwrap_or(0);
    ends_in_time(&mut connection, Instant::now() + Duration::from_millis(left));
    assert!(Millis::now() >= end, "cut before its end");
    assert_eq!(reason(&rig, "expires"), (json!(true), json!("link_expired")));
}

#[test]
fn a_websocket_carries_bytes_both_ways_and_is_cut() {
    let rig = Rig::start();
    let ask = || {
        Request::get("/t/ws")
            .tenant("t-full")
            .header("Connection", "keep-alive, Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Key", "abc")
    };
    let mut connection = open(&rig, ask(), "ws");
    let head = connection.head();
    assert_eq!((head.status, head.header("upgrade"), head.header("sec-websocket-accept")), (101, "websocket", "x"));
    assert_eq!(head.header("x-decision-id").len(), 36);
    assert_eq!(rig.upstream.last().one("sec-websocket-key"), "abc");
    for text in ["GET / HTTP/1.1\n", "\u{0}\u{1}binary"] {
        connection.write(text.as_bytes());
        assert_eq!(connection.read_some(), text.as_bytes());
    }
    let revoked = Instant::now();
    rig.revoke("t-full");
    ends_in_time(&mut connection, revoked);
    assert_eq!(reason(&rig, "ws"), (json!(true), json!("link_revoked")));
    // Refused: an answer, and the connection closes, so that nothing hides behind the upgrade.
    let mut refused = open(&rig, ask(), "ws-2");
    let answer = refused.answer();
    assert_eq!((answer.status, answer.header("connection")), (403, "close"));
    assert_eq!(refused.answer().status, 0);
}

/// An inactive row refuses home requests too, and so ends what is open there.
#[test]
fn a_websocket_at_home_ends_with_its_users_account() {
    let rig = Rig::start();
    let mut sockets = ["user-1-b", "user-1"].map(|user| {
        let token = rig.token_with(user, HOME1, json!({"roles": ["partner_msp_full"]}));
        let request = Request::get("/t/ws").header("Connection", "Upgrade").header("Upgrade", "websocket");
        let request = request.header("Sec-WebSocket-Key", "abc").header("X-Request-ID", user).bearer(&token);
        let mut connection = Connection::open(rig.public);
        connection.write(&request.bytes());
        assert_eq!(connection.head().status, 101, "{user}");
        connection
    });
    let user = rig.block_on(rig.admin().user_by_subject(super::rig::ISSUER, "user-1-b")).unwrap().unwrap();
    let off = linkgate::store::admin::UserInput { is_active: Some(false), ..Default::default() };
    let since = Instant::now();
    rig.block_on(rig.admin().update_user(&super::rig::actor(), user.id, None, &off)).unwrap();
    let [ended, other] = &mut sockets;
    ends_in_time(ended, since);
    assert_eq!(reason(&rig, "user-1-b"), (json!(true), json!("not_a_partner")));
    other.write(b"still there");
    assert_eq!(other.read_some(), b"still there");
}

#[test]
fn another_upgrade_is_answered_as_the_plain_request_it_is() {
    let rig = Rig::start();
    let mut connection = open(
        &rig,
        Request::get("/t/a")
            .tenant("t-full")
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("Upgrade", "h2c")
            .header("HTTP2-Settings", "AAA"),
        "h2c",
    );
    assert_eq!(connection.answer().status, 200);
    let seen = rig.upstream.last();
    assert!(
        seen.all("upgrade").is_empty() && seen.all("http2-settings").is_empty() && seen.all("connection").is_empty()
    );
}

/// A client that reads nothing leaves the body unpolled; its connection goes all the same.
#[test]
fn a_download_that_nobody_reads_is_cut_too() {
    let rig = Rig::start();
    let mut connection = open(&rig, Request::get("/t/download/4000000000").tenant("t-full"), "stalled");
    assert_eq!(connection.head().status, 200);
    std::thread::sleep(Duration::from_millis(500));
    rig.revoke("t-full");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(reason(&rig, "stalled"), (json!(true), json!("link_revoked")));
    assert!(rig.upstream.broken.load(std::sync::atomic::Ordering::SeqCst) > 0, "the upstream call goes on");
}

#[test]
fn an_upload_of_a_revoked_link_is_cut() {
    let rig = Rig::start();
    let mut connection = Connection::open(rig.public);
    let token = rig.token();
    connection.write(format!("POST /t/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nX-Active-Tenant-Id: t-full\r\nX-Request-ID: upload\r\nContent-Length: 1000000\r\n\r\n").as_bytes());
    connection.write(b"some");
    std::thread::sleep(Duration::from_millis(300));
    rig.revoke("t-full");
    std::thread::sleep(BOUND);
    assert_eq!(reason(&rig, "upload").1, json!("link_revoked"));
    assert_eq!(rig.upstream.count(), 0);
}

#[test]
fn a_total_timeout_ends_a_stream() {
    let rig = Rig::with(Setup {
        routes: "[[routes]]\nmethods = [\"GET\"]\npath = \"/t/sse\"\npermission = \"partner.tenants.list\"\nupstream = \"up\"\ntotal_timeout = \"500ms\"\n".into(),
        ..Setup::default()
    });
    let started = Instant::now();
    let mut connection = open(&rig, Request::get("/t/sse").tenant("t-full"), "total");
    assert_eq!(connection.head().status, 200);
    connection.drain();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(reason(&rig, "total"), (json!(true), json!("total_timeout")));
    assert_eq!(rig.ask(Request::get("/own")).status, 200, "{HOME1}");
}

/// Its own timer is asked only while the upstream is awaited: a client that reads nothing, and an upstream that always has
/// more, would keep the stream and its place for ever.
#[test]
fn a_total_timeout_binds_whoever_reads_nothing_and_whatever_never_waits() {
    let routes: String = [
        ("/t/download/{bytes}", "permission = \"partner.tenants.list\""),
        ("/public/download/{bytes}", "access = \"public\""),
    ]
    .map(|(path, access)| {
        format!(
            "[[routes]]\nmethods = [\"GET\"]\npath = \"{path}\"\n{access}\nupstream = \"up\"\ntotal_timeout = \"2s\"\n"
        )
    })
    .concat();
    let rig = Rig::with(Setup { routes, ..Setup::default() });
    let in_flight = || metric(&rig, "linkgate_upstream_requests_in_flight{upstream=\"up\"}");
    let started = Instant::now();
    let mut stalled = open(&rig, Request::get("/t/download/4000000000").tenant("t-full"), "stalled");
    let mut public = Connection::open(rig.public);
    public.write(&Request::get("/public/download/4000000000").bytes());
    let mut reader = open(&rig, Request::get("/t/download/400000000000").tenant("t-full"), "reader");
    assert_eq!([&mut stalled, &mut public, &mut reader].map(|one| one.head().status), [200, 200, 200]);
    reader.drain();
    until("their places are free", || in_flight() == 0.0);
    let lasted = started.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(5)).contains(&lasted), "{lasted:?}");
    for id in ["stalled", "reader"] {
        assert_eq!(reason(&rig, id), (json!(true), json!("total_timeout")), "{id}");
    }
    assert_eq!(rig.ask(Request::get("/api/invoices").tenant("t-full")).status, 200);
}
