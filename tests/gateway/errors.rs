//! Every refusal and failure, as a client sees it; readiness, metrics and rate limits.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use linkgate::domain::ErrorCode;
use serde_json::json;

use super::{
    client::{Answer, Connection, Request},
    reload::until,
    rig::{HOME1, Rig, Setup},
};

/// A permit that overflows when the method is PUT: Cedar would skip it. (A `forbid` that can fail is not even loaded.)
const ERRING: &str = r#"
@id("test.overflow")
permit (principal, action, resource)
when { context.method == "PUT" && (context.now.toTime().toMilliseconds() + 9223372036854775807) > 0 };
"#;

#[test]
fn every_code_of_the_proxy_is_reachable_and_has_its_envelope() {
    let rig = Rig::with(Setup {
        guardrails: vec![("erring.cedar", ERRING.to_owned())],
        limits: "tenant = \"30/min\"\nrefusal = 0\nunauthenticated = 0\n[limits.links]\n".into(),
        ..Setup::default()
    });
    let mut seen = BTreeSet::new();
    let mut check = |code: ErrorCode, answer: Answer| {
        let body = answer.json();
        assert_eq!(body["error"]["code"], code.as_str(), "{body:#}");
        assert_eq!(answer.status, code.status(), "{code}");
        for field in ["message", "request_id", "timestamp"] {
            assert!(!body["error"][field].as_str().unwrap().is_empty(), "{code}: {field}");
        }
        assert!(body["error"]["details"].is_object(), "{code}");
        assert_eq!(body["error"]["request_id"], answer.header("x-request-id"));
        assert_eq!(answer.header("cache-control"), "private, no-store", "{code}");
        seen.insert(code.as_str());
    };
    let cross = |target: &str| rig.ask(Request::get(target).tenant("t-full"));
    check(ErrorCode::Unauthorized, Request::get("/api/invoices").send(rig.public));
    check(ErrorCode::Forbidden, cross("/own"));
    check(ErrorCode::TenantAccessDenied, rig.ask(Request::get("/api/invoices").tenant("t-unlinked")));
    check(ErrorCode::TenantLinkExpired, rig.ask(Request::get("/api/invoices").tenant("t-expired")));
    check(ErrorCode::RouteNotFound, cross("/nowhere"));
    check(ErrorCode::TenantContextConflict, rig.ask(Request::get("/api/invoices").tenant("a,b")));
    check(ErrorCode::AmbiguousPath, cross("/t//a"));
    check(ErrorCode::BadRequest, rig.ask(Request::get("/t/a").header("content_length", "1")));
    let not_allowed = rig.ask(Request::new("DELETE", "/api/invoices").tenant("t-full"));
    assert_eq!(not_allowed.header("allow"), "GET, HEAD, POST");
    check(ErrorCode::MethodNotAllowed, not_allowed);
    check(ErrorCode::PayloadTooLarge, rig.ask(Request::new("POST", "/small").tenant("t-full").json(&"x".repeat(5000))));
    check(ErrorCode::PolicyUnavailable, rig.ask(Request::new("PUT", "/t/a").tenant("t-full")));
    check(ErrorCode::UpstreamError, cross("/t/reset"));
    check(ErrorCode::UpstreamUnavailable, cross("/dead"));
    let started = Instant::now();
    check(ErrorCode::UpstreamTimeout, cross("/impatient/x"));
    assert!(started.elapsed() < Duration::from_secs(2));
    let mut limited = cross("/t/a");
    for _ in 0..40 {
        if limited.status == 429 {
            break;
        }
        limited = cross("/t/a");
    }
    assert!(limited.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(limited.header("x-ratelimit-limit"), "30");
    assert_eq!(limited.header("x-ratelimit-remaining"), "0");
    assert!(limited.header("x-ratelimit-reset").parse::<i64>().unwrap() > 1_700_000_000);
    check(ErrorCode::RateLimitExceeded, limited);
    // LINKS_STALE and AUDIT_UNAVAILABLE have tests of their own (`links`, `crash`); the rest belongs to the partner API.
    let elsewhere = ["LINKS_STALE", "AUDIT_UNAVAILABLE"];
    let partner_api = [
        "TENANT_NOT_FOUND",
        "INVOICE_NOT_FOUND",
        "TICKET_NOT_FOUND",
        "EXPORT_NOT_FOUND",
        "ALERT_NOT_FOUND",
        "TENANT_CONTEXT_REQUIRED",
        "CONFLICT",
        "VALIDATION_ERROR",
        "PERMISSION_ESCALATION",
        "INTERNAL_ERROR",
    ];
    for code in ErrorCode::ALL {
        let known =
            seen.contains(code.as_str()) || elsewhere.contains(&code.as_str()) || partner_api.contains(&code.as_str());
        assert!(known, "{code} is reached by no test");
    }
}

#[test]
fn a_refusal_bucket_that_is_empty_turns_403_into_429_and_nothing_else() {
    let rig =
        Rig::with(Setup { limits: "refusal = \"5/min\"\nunauthenticated = \"5/min\"\n".into(), ..Setup::default() });
    let refused = || rig.ask(Request::get("/api/invoices").tenant("t-unlinked")).status;
    assert_eq!((0..5).map(|_| refused()).collect::<Vec<_>>(), [403; 5]);
    assert_eq!(refused(), 429);
    assert_eq!(rig.ask(Request::get("/api/invoices").tenant("t-full")).status, 200, "what is allowed stays allowed");
    let unknown = || Request::get("/own").bearer("x.y.z").send(rig.public).status;
    assert_eq!((0..5).map(|_| unknown()).collect::<Vec<_>>(), [401; 5]);
    assert_eq!(unknown(), 429);
}

#[test]
fn one_tenants_limit_does_not_starve_another() {
    let rig = Rig::with(Setup { limits: "tenant = \"3/min\"\n".into(), ..Setup::default() });
    let ask = |tenant: &str| rig.ask(Request::get("/api/invoices").tenant(tenant));
    let first = ask("t-full");
    assert_eq!((first.header("x-ratelimit-limit"), first.header("x-ratelimit-remaining")), ("3", "2"));
    ask("t-full");
    ask("t-full");
    assert_eq!(ask("t-full").error(), "RATE_LIMIT_EXCEEDED");
    assert_eq!(ask("t-auditor").status, 200);
    assert_eq!(rig.ask(Request::get("/own")).header("x-ratelimit-limit"), "", "home requests are not limited");
}

#[test]
fn an_upstream_at_its_bound_says_so_at_once() {
    let rig = Rig::with(Setup {
        routes: "[[routes]]\nmethods = [\"GET\"]\npath = \"/t/slow/{ms}\"\npermission = \"partner.tenants.list\"\nupstream = \"full\"\n".into(),
        ..Setup::default()
    });
    let mut busy = Connection::open(rig.public);
    busy.write(&Request::get("/t/slow/3000").bearer(&rig.token()).tenant("t-full").bytes());
    let started = Instant::now();
    until("the service is busy", || rig.upstream.count() == 1);
    assert_eq!(rig.ask(Request::get("/full").tenant("t-full")).error(), "UPSTREAM_UNAVAILABLE");
    assert!(started.elapsed() < Duration::from_millis(2_500), "it waited for the other's place");
    assert_eq!(busy.answer().status, 200);
    assert_eq!(rig.ask(Request::get("/full").tenant("t-full")).status, 200);
}

/// A stale pooled connection: an idempotent request is sent again, another one is not.
#[test]
fn only_idempotent_requests_are_sent_again_and_only_if_unsent() {
    let rig = Rig::start();
    for _ in 0..10 {
        assert_eq!(rig.ask(Request::get("/t/close-after").tenant("t-full")).status, 200);
        assert_eq!(rig.ask(Request::get("/t/a").tenant("t-full")).status, 200);
    }
    let before = rig.upstream.count();
    assert_eq!(rig.ask(Request::get("/t/reset").tenant("t-full")).error(), "UPSTREAM_ERROR");
    assert_eq!(rig.upstream.count(), before + 1, "a request that was sent is never sent again");
}

#[test]
fn response_headers_of_the_hop_stay_behind_and_vary_is_joined() {
    let rig = Rig::start();
    let answer = rig.ask(Request::get("/t/status/404").tenant("t-full"));
    assert_eq!((answer.status, answer.text().as_str()), (404, "hi"));
    assert_eq!(answer.header("x-hop"), "");
    assert_eq!(answer.header("vary"), "Accept, Authorization, X-Active-Tenant-Id");
    let head = rig.ask(Request::new("HEAD", "/t/a").tenant("t-full"));
    assert_eq!((head.status, head.header("content-length")), (200, "2"));
}

#[test]
fn health_readiness_and_metrics_tell_no_paths_and_no_tenants() {
    let rig = Rig::start();
    assert_eq!(rig.health("/healthz").text(), "ok\n");
    let ready = rig.health("/readyz");
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    rig.ask(Request::get("/api/tickets/secret-path-77").tenant("t-full"));
    rig.ask(Request::get("/api/invoices").tenant("t-unlinked"));
    let metrics = rig.health("/metrics").text();
    assert!(
        metrics.contains(r#"linkgate_requests_total{class="2xx",route="/api/tickets/{ticket_id}",upstream="up"} 1"#),
        "{metrics}"
    );
    assert!(metrics.contains(r#"linkgate_refusals_total{code="TENANT_ACCESS_DENIED",reason="no_link"} 1"#));
    for secret in ["secret-path-77", "t-full", "t-unlinked", HOME1, "user-1"] {
        assert!(!metrics.contains(secret), "{secret} stands in the metrics");
    }
    assert_eq!(rig.health("/version").json()["name"], "linkgate");
    let other = rig.health("/other");
    assert_eq!(other.status, 404);
    // Each path that it names is there; the checkpoint, once one was signed.
    for path in
        other.text().trim_start_matches("try ").trim_end().split([',', ' ']).filter(|word| word.starts_with('/'))
    {
        assert!(rig.health(path).status == 200 || path == "/audit/checkpoint", "{path}");
    }
    assert!(other.text().contains("/audit/checkpoint"), "{}", other.text());
}
