//! Bodies: streamed, bounded, counted, refused by field.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{
    client::{Connection, Request},
    reload::until,
    rig::{Rig, Setup},
};

#[test]
fn refused_fields_are_found_in_every_spelling() {
    let rig = Rig::start();
    let post = |body: &str| rig.ask(Request::new("POST", "/api/tickets").tenant("t-full").json(body));
    for bad in [
        r#"{"subject":"x","tenant_id":"t-other"}"#,
        r#"{"tenant\u005fid":"t-other"}"#,
        r#"{"metadata":{"tenant_id":1}}"#,
        r#"{"tenant_id":null}"#,
        r#"{"Tenant_Id":"t-other"}"#,
        r#"{"METADATA":{"tenant_ID":1}}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"metadata":{"b":1,"b":2}}"#,
        r#"{"a":1"#,
        "tenant_id=t-other",
        "\u{feff}{\"tenant_id\":1}",
    ] {
        let answer = post(bad);
        assert_eq!((answer.status, answer.error().as_str()), (400, "BAD_REQUEST"), "{bad}");
    }
    assert_eq!(rig.upstream.count(), 0);
    let good = r#"{"subject":"x","metadata":{"other":"tenant_id"}}"#;
    assert_eq!(post(good).status, 200);
    assert_eq!(rig.upstream.last().body, good.as_bytes());
    for kind in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json; charset=utf-16",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded, application/x+json",
        "application/x-www-form-urlencoded x+json",
        "application/x-www-form-urlencoded,+json",
        "application/x-www-form-urlencoded+json",
        "application/+json",
    ] {
        let form = rig.ask(
            Request::new("POST", "/api/tickets")
                .tenant("t-full")
                .header("Content-Type", kind)
                .body(r#"{"a":"&tenant_id=evil&"}"#),
        );
        assert_eq!(form.error(), "BAD_REQUEST", "{kind}");
    }
    let packed =
        rig.ask(Request::new("POST", "/api/tickets").tenant("t-full").header("Content-Encoding", "gzip").json("{}"));
    assert_eq!(packed.error(), "BAD_REQUEST");
    let twice = Request::new("POST", "/api/tickets").tenant("t-full").header("Content-Encoding", "identity");
    assert_eq!(rig.ask(twice.header("Content-Encoding", "br").json("{}")).error(), "BAD_REQUEST");
    // Neither may the declared type get lost on its way, or stand there twice.
    let nominated = Request::new("POST", "/api/tickets").tenant("t-full").header("Connection", "content-type");
    assert_eq!(rig.ask(nominated.json("{}")).error(), "BAD_REQUEST");
    let look = Request::new("POST", "/api/tickets").tenant("t-full");
    let look = look.header("Content_Type", "application/x-www-form-urlencoded");
    assert_eq!(rig.ask(look.json("{}")).error(), "BAD_REQUEST");
    let large = format!(r#"{{"subject":"{}"}}"#, "x".repeat(1024 * 1024));
    assert_eq!(post(&large).error(), "PAYLOAD_TOO_LARGE");
}

#[test]
fn bodies_larger_than_the_route_allows_are_413_whether_told_or_not() {
    let rig = Rig::start();
    let told = rig.ask(Request::new("POST", "/small").tenant("t-full").json(&"x".repeat(2000)));
    assert_eq!(told.error(), "PAYLOAD_TOO_LARGE");
    assert_eq!(rig.upstream.count(), 0);
    let mut connection = Connection::open(rig.public);
    let auth = format!("Authorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n", rig.token());
    connection.write(format!("POST /small HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
    for _ in 0..4 {
        connection.write(format!("190\r\n{}\r\n", "x".repeat(400)).as_bytes());
        thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(connection.answer().error(), "PAYLOAD_TOO_LARGE");
    assert_eq!(rig.upstream.count(), 0, "the upstream saw no whole body");
    let fits = rig.ask(Request::new("POST", "/small").tenant("t-full").json(&"x".repeat(1000)));
    assert_eq!(fits.status, 200);
}

#[test]
fn a_client_is_asked_to_continue_only_if_it_is_allowed() {
    let rig = Rig::start();
    let head = |tenant: &str| {
        format!(
            "POST /t/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nX-Active-Tenant-Id: {tenant}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
            rig.token()
        )
    };
    let mut connection = Connection::open(rig.public);
    connection.write(head("t-full").as_bytes());
    assert_eq!(connection.head().status, 100);
    connection.write(b"hi");
    assert_eq!(connection.answer().status, 200);
    assert_eq!(rig.upstream.last().body, b"hi");
    assert!(rig.upstream.last().all("expect").is_empty());
    let mut refused = Connection::open(rig.public);
    refused.write(head("t-unlinked").as_bytes());
    assert_eq!(refused.head().status, 403, "no 100 before the refusal");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

const TWO_GIB: u64 = 2 << 30;

#[test]
fn two_gib_go_up_and_down_with_flat_memory() {
    let rig = Rig::start();
    let token = rig.token();
    let mut warm = Connection::open(rig.public);
    warm.write(&Request::get("/t/download/1000000").bearer(&token).tenant("t-full").bytes());
    assert_eq!(warm.answer().body.len(), 1_000_000);
    let before = resident_kib();

    let mut down = Connection::open(rig.public);
    down.write(&Request::get(&format!("/t/download/{TWO_GIB}")).bearer(&token).tenant("t-full").bytes());
    assert_eq!(down.head().status, 200);
    let mut peak = 0u64;
    let mut total = 0u64;
    let mut pieces = 0u64;
    while total < TWO_GIB {
        let piece = down.read_some();
        assert!(!piece.is_empty(), "ended after {total} bytes");
        total += piece.len() as u64;
        pieces += 1;
        if pieces.is_multiple_of(4096) {
            peak = peak.max(resident_kib());
        }
    }
    assert_eq!(total, TWO_GIB);

    let mut up = Connection::open(rig.public);
    up.write(
        format!("POST /t/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nX-Active-Tenant-Id: t-full\r\nContent-Length: {TWO_GIB}\r\n\r\n")
            .as_bytes(),
    );
    let piece = vec![b'x'; 1 << 20];
    for at in 0..(TWO_GIB >> 20) {
        up.write(&piece);
        if at % 64 == 0 {
            peak = peak.max(resident_kib());
        }
    }
    assert_eq!(up.answer().status, 200);
    assert_eq!(rig.upstream.last().body, TWO_GIB.to_string().as_bytes());
    assert!(peak < before + 48 * 1024, "resident memory went from {before} to {peak} KiB");
}

#[test]
fn a_client_that_leaves_cancels_the_upstream_call() {
    let rig = Rig::start();
    let mut connection = Connection::open(rig.public);
    connection
        .write(&Request::get("/t/sse").bearer(&rig.token()).tenant("t-full").header("X-Request-ID", "gone").bytes());
    assert_eq!(connection.head().status, 200);
    drop(connection);
    until("the upstream call ends", || rig.upstream.broken.load(Ordering::SeqCst) > 0);
    let record = || rig.records().into_iter().find(|record| record["request_id"] == "gone").unwrap();
    until("the record is complete", || record()["lines"] == 2);
    let record = record();
    assert_eq!((&record["aborted"], &record["reason"]), (&true.into(), &"client_disconnected".into()));
}

#[test]
fn trailers_come_back() {
    let rig = Rig::start();
    let answer = rig.ask(Request::get("/t/trailers").tenant("t-full").header("TE", "trailers"));
    assert_eq!((answer.text().as_str(), answer.header("trailer x-sum")), ("ok", "7"));
}

#[test]
fn an_upload_that_stands_still_ends() {
    let rig = Rig::with(Setup { listen: "body_idle_timeout = \"400ms\"\n".into(), ..Setup::default() });
    // Streamed, and read beforehand.
    for path in ["/t/a", "/api/tickets"] {
        let mut connection = Connection::open(rig.public);
        let head = Request::new("POST", path).tenant("t-full").bearer(&rig.token());
        let head = head.header("Content-Type", "application/json").header("Content-Length", "10");
        connection.write(&head.bytes());
        connection.write(b"{}");
        let started = Instant::now();
        assert_eq!(connection.answer().error(), "BAD_REQUEST", "{path}");
        assert!(started.elapsed() < Duration::from_secs(3), "{path}");
    }
}

/// The decision is made before the body is read; a sender who takes their time must not act after a revocation.
#[test]
fn what_is_revoked_while_its_body_is_read_is_refused() {
    let rig = Rig::start();
    let body = r#"{"subject":"x"}"#;
    let head = format!(
        "POST /api/tickets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        rig.token(),
        body.len()
    );
    let send = |pause: &dyn Fn()| {
        let mut connection = Connection::open(rig.public);
        connection.write(head.as_bytes());
        connection.write(&body.as_bytes()[..5]);
        pause();
        connection.write(&body.as_bytes()[5..]);
        connection.answer()
    };
    assert_eq!(send(&|| thread::sleep(Duration::from_millis(200))).status, 200);
    let before = rig.upstream.count();
    let answer = send(&|| {
        thread::sleep(Duration::from_millis(200));
        rig.revoke("t-full");
        thread::sleep(Duration::from_millis(1000));
    });
    assert_eq!(answer.error(), "TENANT_ACCESS_DENIED/link_inactive");
    assert_eq!(rig.upstream.count(), before);
}
