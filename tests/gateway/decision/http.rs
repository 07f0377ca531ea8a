//! The check over HTTP, without the real proxies: what they are told, in each dialect.

use super::{EDGE, listener, metric, record, rig, rig_with};
use crate::{
    client::{Answer, Connection, Request},
    rig::{HOME1, Rig, Setup},
};

/// A check as nginx makes it.
pub fn nginx(rig: &Rig, method: &str, target: &str) -> Request {
    nginx_by(Request::get("/check/nginx"), method, target).bearer(&rig.token())
}

fn nginx_by(request: Request, method: &str, target: &str) -> Request {
    request
        .header("X-Linkgate-Caller", EDGE)
        .header("X-Original-Method", method)
        .header("X-Original-URI", target)
        .header("X-Original-Client", "192.0.2.7")
        .header("X-Original-Host", "api.test")
}

/// A check as Caddy and Traefik make it.
pub fn forwarded(rig: &Rig, dialect: &str, method: &str, target: &str) -> Request {
    forwarded_by(Request::get(&format!("/check/{dialect}")), method, target).bearer(&rig.token())
}

fn forwarded_by(request: Request, method: &str, target: &str) -> Request {
    request
        .header("X-Linkgate-Caller", EDGE)
        .header("X-Forwarded-Method", method)
        .header("X-Forwarded-Uri", target)
        .header("X-Forwarded-For", "203.0.113.9, 192.0.2.7")
        .header("X-Forwarded-Host", "api.test")
        .header("X-Forwarded-Proto", "http")
}

fn assert_dressed(rig: &Rig, answer: &Answer, what: &str) {
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    for (name, value) in [
        ("x-tenant-id", "t-full"),
        ("x-active-tenant-id", "t-full"),
        ("x-partner-tenant-id", HOME1),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "api.test"),
        ("x-linkgate-upstream", "up"),
        ("cookie", "a=1"),
        // Not there, so that whoever copies it removes the client's.
        ("x-api-key", ""),
        ("x-target-tenant-id", ""),
    ] {
        assert_eq!(answer.header(name), value, "{what}: {name}");
    }
    assert_ne!(answer.header("authorization"), format!("Bearer {}", rig.token()), "{what}");
    let record = record(rig, answer.header("x-decision-id"));
    assert_eq!((&record["decision"], &record["reason"]), (&"allow".into(), &"decided".into()), "{what}");
    assert_eq!((&record["method"], &record["client_ip"]), (&"GET".into(), &"192.0.2.7".into()), "{what}");
}

#[test]
fn each_dialect_tells_all_that_the_service_is_to_see() {
    let rig = rig();
    let checks = [
        ("nginx", nginx(&rig, "GET", "/api/invoices?a=%20")),
        ("caddy", forwarded(&rig, "caddy", "GET", "/api/invoices?a=%20")),
        ("traefik", forwarded(&rig, "traefik", "GET", "/api/invoices?a=%20")),
    ];
    for (dialect, check) in checks {
        let check = check
            .tenant("t-full")
            .header("X-Tenant-ID", "evil")
            .header("X-Target-Tenant-ID", "evil")
            .header("X-API-Key", "evil")
            .header("Cookie", "a=1; access_token=evil");
        let answer = check.send(listener(&rig));
        assert_dressed(&rig, &answer, dialect);
        assert_eq!(answer.header("x-linkgate-uri"), "/api/invoices?a=%20");
        assert_eq!(metric(&rig, &format!(r#"linkgate_decisions_total{{face="{dialect}",outcome="allow"}}"#)), 1);
    }
    assert_eq!(rig.upstream.count(), 0);
}

#[test]
fn refusals_are_the_proxys_own_and_nginx_reads_the_true_status_beside() {
    let rig = rig();
    for (method, target, tenant, status, error) in [
        ("GET", "/api/invoices", "t-unlinked", 403, "TENANT_ACCESS_DENIED/no_link"),
        ("GET", "/api/invoices", "t-expired", 403, "TENANT_LINK_EXPIRED"),
        ("GET", "/nowhere", "t-full", 404, "ROUTE_NOT_FOUND"),
        ("DELETE", "/api/invoices", "t-full", 405, "METHOD_NOT_ALLOWED"),
        ("delete", "/t/a", "t-full", 400, "BAD_REQUEST"),
        ("Trace", "/t/a", "t-full", 400, "BAD_REQUEST"),
        ("GET", "/api//invoices", "t-full", 400, "AMBIGUOUS_PATH"),
        ("POST", "/api/tickets", "t-full", 400, "BAD_REQUEST"),
        ("GET", "/api/v1/partner/me", "t-full", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/api/invoices", "", 400, "TENANT_CONTEXT_CONFLICT"),
    ] {
        for dialect in ["caddy", "traefik"] {
            let answer = forwarded(&rig, dialect, method, target).tenant(tenant).send(listener(&rig));
            assert_eq!((answer.status, answer.error().as_str()), (status, error), "{dialect} {target}");
        }
        let answer = nginx(&rig, method, target).tenant(tenant).send(listener(&rig));
        assert_eq!((answer.status, answer.header("x-linkgate-status")), (403, status.to_string().as_str()), "{target}");
        assert_eq!(answer.error(), error);
        assert_eq!(answer.header("x-linkgate-body").as_bytes(), answer.body);
    }
    let bare = Request::get("/check/nginx")
        .header("X-Linkgate-Caller", EDGE)
        .header("X-Original-Method", "GET")
        .header("X-Original-URI", "/api/invoices")
        .header("X-Original-Client", "192.0.2.7")
        .header("X-Original-Host", "api.test");
    let answer = bare.send(listener(&rig));
    assert_eq!((answer.status, answer.header("x-linkgate-status")), (401, "401"));
    assert_eq!(answer.header("www-authenticate"), "Bearer");
}

/// `Upgrade` is of the asking connection, and some proxies do not tell it; the fields of a WebSocket come through.
#[test]
fn a_websocket_by_cookie_needs_a_page_of_the_same_origin() {
    let rig = rig_with(Setup { identity: "cookie = \"access_token\"\n".into(), ..Setup::default() });
    let cookie = format!("access_token={}", rig.token());
    let asked = |dialect: &str, site: &str, fields: &[(&str, &str)]| {
        let request = match dialect {
            "nginx" => nginx_by(Request::get("/check/nginx"), "GET", "/t/ws"),
            _ => forwarded_by(Request::get(&format!("/check/{dialect}")), "GET", "/t/ws"),
        };
        let request = request.tenant("t-full").header("Cookie", &cookie).header("Sec-Fetch-Site", site);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        request.send(listener(&rig))
    };
    for dialect in ["nginx", "caddy", "traefik"] {
        for fields in [
            &[("Upgrade", "websocket"), ("Connection", "Upgrade")][..],
            &[("Upgrade", "websocket")],
            &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")],
            &[("Sec-WebSocket-Version", "13")],
            &[("Sec-WebSocket-Protocol", "x")],
            &[("Sec-WebSocket-Extensions", "permessage-deflate")],
        ] {
            let answer = asked(dialect, "cross-site", fields);
            assert_eq!((answer.status, answer.error().as_str()), (401, "UNAUTHORIZED"), "{dialect} {fields:?}");
            assert_eq!(asked(dialect, "same-origin", fields).status, 200, "{dialect} {fields:?}");
        }
        // Nothing but a read: as with the proxy itself.
        assert_eq!(asked(dialect, "cross-site", &[]).status, 200, "{dialect}");
    }
    let direct = Request::get("/t/ws").tenant("t-full").header("Cookie", &cookie);
    let direct = direct.header("Sec-Fetch-Site", "cross-site").header("Sec-WebSocket-Version", "13");
    assert_eq!(direct.send(rig.public).status, 401, "the public listener does not wait for `Upgrade` either");
}

/// What follows an upgrade is framed by nobody: none is made, and nothing behind the check is read.
#[test]
fn a_check_that_carries_an_upgrade_ends_its_connection() {
    let rig = rig();
    let inexact = "GET /check/caddy HTTP/1.1\nHost: a\n\n";
    for upgrade in ["websocket", "h2c"] {
        for check in [nginx(&rig, "GET", "/t/a"), forwarded(&rig, "caddy", "GET", "/t/a"), Request::get("/check/x")] {
            let check = check.tenant("t-full").header("Connection", "Upgrade").header("Upgrade", upgrade);
            let mut connection = Connection::open(listener(&rig));
            connection.write(&[check.bytes(), inexact.into()].concat());
            let answer = connection.answer();
            assert_eq!(answer.header("connection"), "close", "{upgrade} {}", answer.status);
            assert_eq!(connection.answer().status, 0, "the connection ended");
        }
    }
    let mut connection = Connection::open(listener(&rig));
    for _ in 0..2 {
        connection.write(&nginx(&rig, "GET", "/t/a").tenant("t-full").bytes());
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("connection")), (200, ""), "others share a connection");
    }
}

#[test]
fn what_a_proxy_cannot_take_out_is_refused() {
    let rig = rig();
    for dialect in ["caddy", "traefik"] {
        let answer = forwarded(&rig, dialect, "GET", "/api/invoices?tenant_id=x").tenant("t-full").send(listener(&rig));
        assert_eq!((answer.status, answer.error().as_str()), (400, "BAD_REQUEST"), "{dialect}");
    }
    let answer =
        nginx(&rig, "GET", "/api/invoices?tenant.id=x&tenant_id[%]=y&a=1").tenant("t-full").send(listener(&rig));
    assert_eq!(answer.header("x-linkgate-uri"), "/api/invoices?a=1");
    let answer = nginx(&rig, "GET", "/api/invoices?tenant_id=x&a=1").tenant("t-full").send(listener(&rig));
    assert_eq!(answer.header("x-linkgate-uri"), "/api/invoices?a=1");
    for name in ["X_Tenant_Id", "x-tenant_id", "X_API_KEY", "x-api_key", "X_Linkgate_Assertion"] {
        for check in [nginx(&rig, "GET", "/api/invoices"), forwarded(&rig, "caddy", "GET", "/api/invoices")] {
            let answer = check.tenant("t-full").header(name, "evil").send(listener(&rig));
            assert_eq!((answer.error().as_str(), answer.status >= 400), ("BAD_REQUEST", true), "{name}");
        }
    }
}

#[test]
fn only_known_proxies_are_believed_and_only_where_they_tell_all() {
    let rig = rig();
    let without = |name: &str| {
        let fields = [
            ("X-Linkgate-Caller", EDGE),
            ("X-Original-Method", "GET"),
            ("X-Original-URI", "/api/invoices"),
            ("X-Original-Client", "192.0.2.7"),
            ("X-Original-Host", "api.test"),
        ];
        let request = Request::get("/check/nginx").bearer(&rig.token()).tenant("t-full");
        fields
            .iter()
            .filter(|(known, _)| *known != name)
            .fold(request, |request, (name, value)| request.header(name, value))
    };
    assert_eq!(without("").send(listener(&rig)).status, 200);
    for name in ["X-Linkgate-Caller", "X-Original-Method", "X-Original-URI", "X-Original-Client", "X-Original-Host"] {
        assert_eq!(without(name).send(listener(&rig)).status, 500, "without {name}");
        assert_eq!(without("").header(name, "x").send(listener(&rig)).status, 500, "{name} twice");
    }
    assert_eq!(without("X-Original-Client").header("X-Original-Client", "unknown").send(listener(&rig)).status, 500);
    assert_eq!(without("X-Linkgate-Caller").header("X-Linkgate-Caller", "x").send(listener(&rig)).status, 500);
    // Nobody but a caller is told apart from another one, and no other path or method is answered.
    for (request, status) in [
        (Request::get("/check/other").header("X-Linkgate-Caller", EDGE), 404),
        (Request::new("POST", "/check/nginx").header("X-Linkgate-Caller", EDGE).body(""), 405),
        (Request::get("/api/invoices").bearer(&rig.token()), 404),
    ] {
        assert_eq!(request.send(listener(&rig)).status, status);
    }
    let answer = without("").send(rig.public);
    assert_eq!(answer.error(), "ROUTE_NOT_FOUND", "never on the public listener");
    assert_eq!(rig.upstream.count(), 0);
}

#[test]
fn a_full_public_listener_keeps_no_proxy_from_asking() {
    let setup = crate::rig::Setup { listen: "max_connections = 1\n".into(), ..crate::rig::Setup::default() };
    let rig = super::rig_with(setup);
    let mut held = crate::client::Connection::open(rig.public);
    held.write(&Request::get("/own").bearer(&rig.token()).bytes());
    assert_eq!(held.answer().status, 200);
    let refused = crate::client::Connection::open(rig.public).answer();
    assert_eq!(refused.status, 0, "the public listener is full");
    for _ in 0..3 {
        assert_eq!(nginx(&rig, "GET", "/api/invoices").tenant("t-full").send(listener(&rig)).status, 200);
    }
}

#[test]
fn the_client_before_a_trusted_proxy_is_found_as_in_the_proxy() {
    let setup =
        crate::rig::Setup { listen: "trusted_proxies = [\"192.0.2.0/24\"]\n".into(), ..crate::rig::Setup::default() };
    let rig = super::rig_with(setup);
    let answer = forwarded(&rig, "caddy", "GET", "/api/invoices").tenant("t-full").send(listener(&rig));
    assert_eq!(answer.status, 200);
    assert_eq!(record(&rig, answer.header("x-decision-id"))["client_ip"], "203.0.113.9");
    assert_eq!(answer.header("x-forwarded-for"), "203.0.113.9, 192.0.2.7");
}
