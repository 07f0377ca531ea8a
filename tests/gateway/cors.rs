//! CORS: nothing by default, exact origins, preflights answered by the gateway.

use super::{
    client::Request,
    rig::{Rig, Setup},
};

fn rig(cors: &str) -> Rig {
    Rig::with(Setup { extra: format!("[cors]\n{cors}\n"), ..Setup::default() })
}

fn preflight(origin: &str) -> Request {
    Request::new("OPTIONS", "/t/a").header("Origin", origin).header("Access-Control-Request-Method", "POST")
}

#[test]
fn by_default_nothing_is_said_and_a_preflight_is_a_request_like_any_other() {
    let rig = Rig::start();
    let answer = rig.ask(Request::get("/t/a").tenant("t-full").header("Origin", "https://portal.test"));
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.keys().any(|name| name.starts_with("access-control")), "{:?}", answer.headers);
    assert_eq!(preflight("https://portal.test").send(rig.public).status, 401);
}

#[test]
fn only_pages_of_a_named_origin_may_read_answers() {
    let rig = rig(
        "allowed_origins = [\"https://portal.test\"]\nallow_credentials = true\nallowed_headers = [\"X-Extra\"]\nexposed_headers = [\"X-2FA-Required\"]",
    );
    let answer = preflight("https://portal.test").send(rig.public);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, "https://portal.test"));
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert!(answer.header("access-control-allow-methods").contains("PATCH"));
    let headers = answer.header("access-control-allow-headers").to_lowercase();
    for name in ["authorization", "x-active-tenant-id", "x-extra"] {
        assert!(headers.contains(name), "{name}: {headers}");
    }
    assert!(answer.header("vary").contains("Origin"));
    for other in [
        "https://portal.test.evil.test",
        "http://portal.test",
        "https://PORTAL.test",
        "null",
        "https://portal.test:444",
    ] {
        let answer = preflight(other).send(rig.public);
        assert_eq!(answer.status, 204);
        assert!(!answer.headers.keys().any(|name| name.starts_with("access-control")), "{other}");
    }
    assert_eq!(rig.upstream.count(), 0, "no upstream is asked");

    let read = |origin: &str| rig.ask(Request::get("/t/a").tenant("t-full").header("Origin", origin));
    let answer = read("https://portal.test");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "https://portal.test"));
    for name in ["X-Request-ID", "Content-Disposition", "X-2FA-Required"] {
        assert!(answer.header("access-control-expose-headers").contains(name), "{name}");
    }
    assert!(answer.header("vary").contains("Origin") && answer.header("vary").contains("Authorization"));
    let foreign = read("https://evil.test");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (200, ""));
    assert!(foreign.header("vary").contains("Origin"));
    // Refusals have to be readable too, or nobody could tell why.
    let refused = Request::get("/t/a").header("Origin", "https://portal.test").send(rig.public);
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, "https://portal.test"));
}

#[test]
fn a_wildcard_never_comes_with_credentials() {
    let rig = rig("allowed_origins = [\"*\"]");
    let answer = preflight("https://anyone.test").send(rig.public);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let text = |cors: &str| {
        let issuer = "[issuers.main]\nissuer = \"i\"\naudiences = [\"a\"]\nalgorithms = [\"ES256\"]\njwks_url = \"https://login.test/jwks\"\n";
        let loaded =
            linkgate::config::load_text(&format!("[cors]\n{cors}\n{issuer}"), None, std::path::Path::new("/"), []);
        loaded.err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    assert_eq!(text("allowed_origins = [\"https://a.test\", \"http://localhost:3000\"]"), "");
    assert!(text("allowed_origins = [\"*\"]\nallow_credentials = true").contains("allow_credentials"));
    assert!(text("allowed_origins = [\"*\", \"https://a.test\"]").contains("stands alone"));
    for wrong in
        ["https://a.test/", "a.test", "https://*.a.test", "null", "https://A.test", "ftp://a.test", "https://u@a.test"]
    {
        assert!(text(&format!("allowed_origins = [\"{wrong}\"]")).contains("is no origin"), "{wrong}");
    }
}
