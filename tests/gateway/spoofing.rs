//! I2: no client-supplied value of a protected header reaches an upstream.

use super::{
    client::{Connection, Request},
    rig::{HOME1, Rig, Setup},
};

/// The contract's list, section 6, written out again so that a name lost from the code is found.
const PROTECTED: &[&str] = &[
    "X-Tenant-ID",
    "X-Active-Tenant-Id",
    "X-Cross-Tenant-Access",
    "X-User-Id",
    "X-Partner-Id",
    "X-Partner-Tenant-Id",
    "X-Partner-Role",
    "X-Link-Id",
    "X-Decision-Id",
    "X-Request-ID",
    "traceparent",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Linkgate-Assertion",
    "X-Target-Tenant-ID",
    "X-Superuser-Mode",
    "X-Roles",
    "X-Permissions",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Original-URL",
    "X-Original-URI",
    "X-Rewrite-URL",
    "X-Override-URL",
    "X-HTTP-DestinationURL",
    "X-Proxy-URL",
    "Base-Url",
    "X-Envoy-Original-Path",
    "X-Forwarded-URI",
    "X-Forwarded-Path",
    "X-Forwarded-Prefix",
    "X-Forwarded-User",
    "X-Forwarded-Client-Cert",
    "X-Sendfile",
    "X-Accel-Redirect",
    "X-WAF-Bypass-URL",
    "X-Real-IP",
    "Forwarded",
    "True-Client-IP",
    "X-Remote-User",
    "X-Client-Cert",
];

const EVIL: &str = "evil!value";

fn assert_clean(rig: &Rig, what: &str) {
    let seen = rig.upstream.last();
    for (name, value) in seen.headers.iter().chain(&seen.trailers) {
        let protected = PROTECTED.iter().any(|known| known.eq_ignore_ascii_case(&name.replace(['_', '.', '~'], "-")));
        assert!(!(protected && value.contains(EVIL)), "{what}: {name}: {value}");
    }
    for name in PROTECTED {
        assert!(seen.all(name).len() <= 1, "{what}: {name} stands {} times", seen.all(name).len());
    }
}

#[test]
fn no_spelling_of_a_protected_header_passes() {
    let rig = Rig::start();
    for name in PROTECTED {
        let mut spellings = vec![
            (*name).to_owned(),
            name.to_lowercase(),
            name.to_uppercase(),
            name.replace('-', "_"),
            name.replacen('-', "_", 1),
            name.replace('-', "."),
            name.replacen('-', "~", 1),
        ];
        if name.eq_ignore_ascii_case("X-Active-Tenant-Id") {
            // This one names the tenant; its other spellings must not.
            spellings.retain(|spelling| spelling.contains(['_', '.', '~']));
        }
        for spelling in spellings {
            for tenant in [Some("t-full"), None] {
                let mut request = Request::get("/t/a").header(&spelling, EVIL).header(&spelling, EVIL);
                if let Some(tenant) = tenant {
                    request = request.tenant(tenant);
                }
                let answer = rig.ask(request);
                assert_eq!(answer.status, 200, "{spelling}: {}", answer.text());
                assert_clean(&rig, &spelling);
                assert_eq!(rig.upstream.last().one("x-tenant-id"), tenant.unwrap_or(HOME1), "{spelling}");
            }
            Request::get("/public/a").header(&spelling, EVIL).send(rig.public);
            assert_clean(&rig, &format!("public {spelling}"));
        }
    }
}

#[test]
fn nominating_a_header_in_connection_removes_none_of_ours() {
    let rig = Rig::start();
    let nominated = PROTECTED.join(", ");
    for name in
        PROTECTED.iter().copied().chain([nominated.as_str(), "Authorization", "Host", "Content-Length", "x-tenant_id"])
    {
        let answer = rig.ask(Request::get("/t/a").tenant("t-full").header("Connection", name));
        assert_eq!(answer.status, 200, "{name}");
        let seen = rig.upstream.last();
        for (ours, value) in [("x-tenant-id", "t-full"), ("x-user-id", "user-1"), ("x-cross-tenant-access", "true")] {
            assert_eq!(seen.one(ours), value, "{name}");
        }
        assert!(!seen.one("x-linkgate-assertion").is_empty() && !seen.one("host").is_empty(), "{name}");
        assert!(seen.all("connection").is_empty(), "{name}");
    }
    rig.ask(
        Request::get("/t/a").tenant("t-full").header("Connection", "x-hop").header("x-hop", "1").header("x-stays", "1"),
    );
    let seen = rig.upstream.last();
    assert!(seen.all("x-hop").is_empty());
    assert_eq!(seen.one("x-stays"), "1");
}

#[test]
fn trailers_carry_no_protected_header() {
    let rig = Rig::start();
    let mut connection = Connection::open(rig.public);
    let head = format!(
        "POST /t/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n\
         Trailer: x-tenant-id, x_user_id, x-api-key, cookie, authorization, content_type, x-sum\r\nTransfer-Encoding: chunked\r\n\r\n",
        rig.token()
    );
    connection.write(
        format!("{head}2\r\nhi\r\n0\r\nx-tenant-id: {EVIL}\r\nx_user_id: {EVIL}\r\nx-api-key: {EVIL}\r\ncookie: access_token={EVIL}\r\nauthorization: Bearer {EVIL}\r\ncontent_type: {EVIL}\r\nx-sum: 7\r\n\r\n").as_bytes(),
    );
    assert_eq!(connection.answer().status, 200);
    let seen = rig.upstream.last();
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn second_credentials_and_session_cookies_stay_behind() {
    let rig = Rig::start();
    let cookies = "a=1; access_token=stolen; Refresh_Token=stolen; b=2";
    let answer = rig.ask(
        Request::get("/t/a")
            .tenant("t-full")
            .header("X-API-Key", "stolen")
            .header("x_api_key", "stolen")
            .header("Cookie", cookies),
    );
    assert_eq!(answer.status, 200);
    let seen = rig.upstream.last();
    assert_eq!(seen.one("cookie"), "a=1; b=2");
    assert!(!seen.headers.iter().any(|(_, value)| value.contains("stolen")));
}

/// Whatever its name: it carries the partner's own token, and other tenants' services are not to have it.
#[test]
fn the_cookie_of_the_token_stays_behind() {
    let rig = Rig::with(Setup { identity: "cookie = \"sid\"\n".into(), ..Setup::default() });
    let cookie = format!("a=1; sid={}; b=2", rig.token());
    let foreign = Request::get("/t/a").tenant("t-full").header("Cookie", &cookie).send(rig.public);
    assert_eq!(foreign.status, 200, "{}", foreign.text());
    assert_eq!(rig.upstream.last().one("cookie"), "a=1; b=2");
}

#[test]
fn a_repeated_or_malformed_credential_is_401_and_never_falls_through() {
    let rig = Rig::with(Setup { identity: "cookie = \"access_token\"\n".into(), ..Setup::default() });
    let token = rig.token();
    let cookie = format!("access_token={token}");
    let bearer = format!("Bearer {token}");
    type Row<'a> = (&'a str, Vec<(&'a str, &'a str)>, u16);
    let rows: Vec<Row<'_>> = vec![
        ("header", vec![("Authorization", &bearer)], 200),
        ("cookie", vec![("Cookie", &cookie)], 200),
        ("nothing", vec![], 401),
        ("twice", vec![("Authorization", &bearer), ("Authorization", &bearer)], 401),
        ("bad beside a good cookie", vec![("Authorization", "Bearer x.y.z"), ("Cookie", &cookie)], 401),
        ("basic beside a good cookie", vec![("Authorization", "Basic abc"), ("Cookie", &cookie)], 401),
        ("empty beside a good cookie", vec![("Authorization", ""), ("Cookie", &cookie)], 401),
        ("cookie twice", vec![("Cookie", &cookie), ("Cookie", &cookie)], 401),
        ("joined", vec![("Authorization", "Bearer a, Bearer b")], 401),
    ];
    for (what, headers, status) in rows {
        let request = headers
            .iter()
            .fold(Request::get("/api/invoices").tenant("t-full"), |request, (name, value)| request.header(name, value));
        let answer = request.send(rig.public);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        if status == 401 {
            assert_eq!(
                (answer.error().as_str(), answer.header("www-authenticate")),
                ("UNAUTHORIZED", "Bearer"),
                "{what}"
            );
        }
    }
    // A cookie goes on as a bearer token at home, and unsafe methods need a page of our own origin.
    let home = Request::get("/api/invoices").header("Cookie", &format!("{cookie}; x=1")).send(rig.public);
    assert_eq!(home.status, 200);
    assert_eq!(rig.upstream.last().one("authorization"), bearer);
    assert_eq!(rig.upstream.last().one("cookie"), "x=1");
    let post = |site: &str| {
        Request::new("POST", "/api/invoices")
            .header("Cookie", &cookie)
            .header("Sec-Fetch-Site", site)
            .send(rig.public)
            .status
    };
    assert_eq!((post("cross-site"), post("same-origin")), (401, 200));
}

#[test]
fn a_page_of_the_same_host_by_another_scheme_is_another_origin() {
    const OWN: &str = "http://gateway.test";
    const SECURE: &str = "https://gateway.test";
    let rig = |listen: &str| {
        Rig::with(Setup { listen: listen.into(), identity: "cookie = \"access_token\"\n".into(), ..Setup::default() })
    };
    let page = |rig: &Rig, origin: &str, proto: &[&str]| {
        let request = Request::new("POST", "/api/invoices")
            .header("Cookie", &format!("access_token={}", rig.token()))
            .header("Origin", origin);
        proto.iter().fold(request, |request, proto| request.header("X-Forwarded-Proto", proto)).send(rig.public).status
    };
    let plain = rig("");
    assert_eq!((page(&plain, OWN, &[]), page(&plain, SECURE, &[])), (200, 401));
    assert_eq!(page(&plain, SECURE, &["https"]), 401, "whoever asks may write that header");
    let secure = rig("public_scheme = \"https\"\n");
    assert_eq!((page(&secure, OWN, &[]), page(&secure, SECURE, &[])), (401, 200));
    let behind = rig("trusted_proxies = [\"127.0.0.0/8\"]\n");
    assert_eq!((page(&behind, SECURE, &["https"]), page(&behind, OWN, &["https"])), (200, 401));
    assert_eq!(page(&behind, OWN, &[]), 200, "the proxy says nothing");
    for unclear in [&["https", "http"][..], &["https, http"], &[""]] {
        assert_eq!((page(&behind, OWN, unclear), page(&behind, SECURE, unclear)), (401, 401), "{unclear:?}");
    }
}

#[test]
fn forwarded_headers_are_believed_only_from_trusted_proxies() {
    let untrusting = Rig::start();
    let sent = || {
        Request::get("/t/a").tenant("t-cidr").header("X-Forwarded-For", "10.1.2.3").header("X-Forwarded-Proto", "https")
    };
    assert_eq!(untrusting.ask(sent()).error(), "FORBIDDEN/ip_not_allowed");
    let trusting = Rig::with(Setup { listen: "trusted_proxies = [\"127.0.0.0/8\"]\n".into(), ..Setup::default() });
    assert_eq!(trusting.ask(sent()).status, 200);
    let seen = trusting.upstream.last();
    assert_eq!(seen.one("x-forwarded-for"), "10.1.2.3, 127.0.0.1");
    assert_eq!(seen.one("x-forwarded-proto"), "https");
    let told = |proto: &str, host: &str| {
        let request = Request::get("/t/a").tenant("t-cidr").header("X-Forwarded-For", "10.1.2.3");
        let request = request.header("X-Forwarded-Proto", proto).header("X-Forwarded-Host", host);
        assert_eq!(trusting.ask(request).status, 200);
        let seen = trusting.upstream.last();
        (seen.one("x-forwarded-proto").to_owned(), seen.one("x-forwarded-host").to_owned())
    };
    let kept = ("https, http".to_owned(), "isp.example, inner:8080".to_owned());
    assert_eq!(told("https, http", "isp.example, inner:8080"), kept);
    let own = told("http", "");
    assert_eq!(own.0, "http");
    for (proto, host) in [("javascript:", "a b, c"), ("ws", "u@evil"), ("", "evil/x"), ("http,,", "a,,b")] {
        assert_eq!(told(proto, host), own, "{proto} {host}");
    }
    // The rightmost untrusted entry counts, not what the client wrote to its left.
    let chain =
        |value: &str| trusting.ask(Request::get("/t/a").tenant("t-cidr").header("X-Forwarded-For", value)).status;
    assert_eq!(chain("10.1.2.3, 8.8.8.8"), 403);
    assert_eq!(chain("8.8.8.8, 10.1.2.3, 127.0.0.9"), 200);
    assert_eq!(chain("10.1.2.3, garbage"), 403);
    assert_eq!(chain("::ffff:10.1.2.3"), 200);
}
