//! What services answer, and what of it their clients get: whole answers counted as whole, nothing that is the gateway's to say,
//! nothing that two readers could take for two answers.

use serde_json::json;

use super::{
    client::{Answer, Connection, Request},
    rig::{Rig, Setup},
    upstream::raw,
};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";

fn ask(rig: &Rig, answer: &str) -> Answer {
    rig.ask(Request::get(&raw("t", answer)).tenant("t-full"))
}

/// The completed record of an answer: `aborted` and `reason`.
fn outcome(rig: &Rig, answer: &Answer) -> (serde_json::Value, serde_json::Value) {
    for _ in 0..100 {
        let records = rig.records();
        let record = records.iter().find(|record| record["id"] == answer.header("x-decision-id"));
        if let Some(record) = record.filter(|record| record["lines"] == 2) {
            return (record["aborted"].clone(), record["reason"].clone());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("no whole record of {}", answer.header("x-decision-id"));
}

/// A body without a length says by its end that it was whole.
#[test]
fn an_answer_without_a_length_is_whole_and_keeps_its_connection() {
    let rig = Rig::start();
    let mut connection = Connection::open(rig.public);
    let mut answers = Vec::new();
    for _ in 0..5 {
        let request = Request::get(&raw("t", CHUNKED)).tenant("t-full").bearer(&rig.token());
        connection.write(&request.bytes());
        answers.push(connection.answer());
    }
    assert!(answers.iter().all(|answer| (answer.status, answer.text().as_str()) == (200, "ok")));
    assert_eq!(rig.upstream.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    answers.push(ask(&rig, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"));
    answers.push(ask(&rig, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"));
    for answer in &answers {
        assert_eq!(outcome(&rig, answer), (json!(false), json!(null)));
    }
    let cut = ask(&rig, "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n5\r\nhe");
    assert_eq!(cut.header("cut"), "true");
    assert_eq!(outcome(&rig, &cut), (json!(true), json!("upstream_aborted")));
}

#[test]
fn an_answer_that_ends_in_two_places_is_not_passed_on() {
    let rig = Rig::start();
    for framing in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Content-Length: abc\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Content-Length: 2, 2\r\n\r\nok",
        "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip\r\nConnection: close\r\n\r\nok",
    ] {
        let answer = ask(&rig, &format!("HTTP/1.1 200 OK\r\n{framing}"));
        assert_eq!((answer.status, answer.error().as_str()), (502, "UPSTREAM_ERROR"), "{framing:?}");
        assert_eq!(outcome(&rig, &answer).0, json!(false), "{framing:?}");
    }
    assert_eq!(ask(&rig, CHUNKED).text(), "ok");
}

#[test]
fn trailers_of_a_service_carry_nothing_of_the_gateways() {
    let rig = Rig::start();
    let names = "x-sum, x-decision-id, x-request-id, x-active-tenant-id, set-cookie, cache-control, content-length";
    let fields: String = names.split(", ").map(|name| format!("{name}: 7\r\n")).collect();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nTrailer: {names}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{fields}\r\n"
    );
    let answer = rig.ask(Request::get(&raw("t", &answer)).tenant("t-full").header("TE", "trailers"));
    let trailers: Vec<&str> =
        answer.headers.keys().map(String::as_str).filter(|name| name.starts_with("trailer ")).collect();
    assert_eq!((answer.text().as_str(), trailers), ("ok", vec!["trailer x-sum"]));
}

#[test]
fn who_may_read_or_keep_an_answer_is_the_gateways_to_say() {
    let kept = "[[routes]]\nmethods = [\"GET\"]\npath = \"/kept/{*rest}\"\npermission = \"partner.tenants.list\"\nupstream = \"up\"\nkeep_cache_control = true\n";
    let rig = Rig::with(Setup { routes: kept.into(), ..Setup::default() });
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: public, max-age=60\r\nCDN-Cache-Control: public\r\n\
        Surrogate-Control: max-age=60\r\nX-Accel-Expires: 60\r\nVary: Accept\r\nAccess-Control-Allow-Origin: *\r\n\
        Access-Control-Allow-Credentials: true\r\nAccess-Control-Allow-Private-Network: true\r\n\
        X-Linkgate-Assertion: echoed\r\nX-Accel-Redirect: /secret\r\nX-User-ID: u\r\n\r\nok";
    let answer = ask(&rig, said);
    assert_eq!(answer.header("cache-control"), "private, no-store");
    assert_eq!(answer.header("vary"), "Accept, Authorization, X-Active-Tenant-Id");
    let told =
        |answer: &Answer, names: &[&str]| names.iter().filter(|name| answer.headers.contains_key(**name)).count();
    let caches = ["cdn-cache-control", "surrogate-control", "x-accel-expires"];
    assert_eq!(told(&answer, &caches), 0);
    let open = rig.ask(Request::get(&raw("kept", said)).tenant("t-full"));
    assert_eq!(open.header("cache-control"), "public, max-age=60");
    assert_eq!(
        open.header("vary"),
        "Accept, Authorization, X-Active-Tenant-Id",
        "else one tenant's answer serves another"
    );
    assert_eq!(told(&open, &caches), 3);
    for answer in [answer, open] {
        let pages = ["access-control-allow-origin", "access-control-allow-credentials", "x-linkgate-assertion"];
        assert_eq!(told(&answer, &pages), 0);
        assert_eq!(told(&answer, &["access-control-allow-private-network", "x-accel-redirect"]), 0);
        assert_eq!(answer.header("x-user-id"), "u", "a log-in service tells its client so");
    }
}

/// At home a service logs its users in and out; in other tenants it must not do so with a partner's user.
#[test]
fn a_managed_tenants_service_touches_no_session_of_the_partners_user() {
    let routes = "[[routes]]\nmethods = [\"GET\"]\npath = \"/home/{*rest}\"\naccess = \"home\"\nupstream = \"up\"\n";
    let identity = "cookie = \"sid\"\n".to_owned();
    let rig = Rig::with(Setup { routes: routes.into(), identity, ..Setup::default() });
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: sid=other; Path=/\r\nSet-Cookie: access_token=other\r\n\
        Set-Cookie: theme=dark\r\nClear-Site-Data: \"cookies\"\r\nStrict-Transport-Security: max-age=0\r\nAlt-Svc: clear\r\n\r\nok";
    let reaching = ["clear-site-data", "strict-transport-security", "alt-svc"];
    let foreign = ask(&rig, said);
    assert_eq!((foreign.status, foreign.header("set-cookie")), (200, "theme=dark"));
    assert!(reaching.iter().all(|name| !foreign.headers.contains_key(*name)), "{:?}", foreign.headers);
    for own in [rig.ask(Request::get(&raw("home", said))), Request::get(&raw("public", said)).send(rig.public)] {
        assert_eq!((own.status, own.header("set-cookie")), (200, "sid=other; Path=/, access_token=other, theme=dark"));
        assert!(reaching.iter().all(|name| own.headers.contains_key(*name)), "{:?}", own.headers);
    }
}

#[test]
fn a_redirect_to_the_service_itself_leads_through_the_gateway() {
    let rig = Rig::start();
    let moved = |to: &str| format!("HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nLocation: {to}\r\n\r\n");
    let own = ask(&rig, &moved(&format!("http://{}/t/tickets/?status=open", rig.upstream.address)));
    assert_eq!((own.status, own.header("location")), (307, "/t/tickets/?status=open"));
    let elsewhere = ask(&rig, &moved("https://pay.test/t"));
    assert_eq!((elsewhere.status, elsewhere.header("location")), (307, "https://pay.test/t"));
}

/// Both sides must agree that another protocol begins, and on which one.
#[test]
fn an_upgrade_is_made_only_where_all_say_so() {
    let rig = Rig::start();
    for connection in ["keep-alive", "close", "x"] {
        let request = Request::get("/t/a").tenant("t-full").header("Upgrade", "websocket");
        let answer = rig.ask(request.header("Connection", connection));
        assert_eq!(answer.status, 200, "{connection}");
        assert!(rig.upstream.last().all("upgrade").is_empty(), "{connection}");
    }
    for upgrade in ["", "Upgrade: h2c\r\n", "Upgrade: websocket\r\nUpgrade: h2c\r\n"] {
        let agreed = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{upgrade}\r\n");
        let request = Request::get(&raw("t", &agreed)).tenant("t-full");
        let answer = rig.ask(request.header("Upgrade", "websocket").header("Connection", "Upgrade"));
        assert_eq!((answer.status, answer.error().as_str()), (502, "UPSTREAM_ERROR"), "{upgrade:?}");
    }
}

/// hyper takes it for granted that such a request has no body.
#[test]
fn a_get_with_a_body_of_unknown_length_arrives_with_it() {
    let rig = Rig::start();
    let mut connection = Connection::open(rig.public);
    let head = Request::get("/t/a").tenant("t-full").bearer(&rig.token()).header("Transfer-Encoding", "chunked");
    connection.write(&head.bytes());
    connection.write(b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(connection.answer().status, 200);
    let seen = rig.upstream.last();
    assert_eq!((seen.one("transfer-encoding"), seen.body.as_slice()), ("chunked", &b"hello"[..]));
}
