//! The way of a request: who, which tenant, allowed or not, what the upstream gets, what is recorded.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use super::{
    client::Request,
    reload::until,
    rig::{HOME1, HOME2, P1, Rig, Setup},
};

/// All lines of the journal's segments.
pub fn lines(dir: &Path) -> Vec<Value> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    files.sort();
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    // The last line may be half written just now.
    texts.flat_map(|text| text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<_>>()).collect()
}

/// Joins openings with completions, in order of opening.
pub fn exported(dir: &Path) -> Vec<Value> {
    let mut order = Vec::new();
    let mut records: BTreeMap<String, Value> = BTreeMap::new();
    for line in lines(dir) {
        let mut fields = line["pub"].as_object().unwrap().clone();
        fields.extend(line["priv"].as_object().unwrap().clone());
        let Some(id) = fields.get("id").and_then(Value::as_str).map(str::to_owned) else { continue };
        if line["type"] == "open" {
            order.push(id.clone());
        }
        let record = records.entry(id).or_insert_with(|| json!({"lines": 0}));
        record["lines"] = json!(record["lines"].as_u64().unwrap() + 1);
        record.as_object_mut().unwrap().extend(fields);
    }
    order.into_iter().map(|id| records[&id].clone()).collect()
}

/// Waits until the journal holds a completed record of this request.
fn record_of(rig: &Rig, request_id: &str) -> Value {
    for _ in 0..100 {
        let found = rig.records().into_iter().find(|record| record["request_id"] == request_id);
        if let Some(record) = found.filter(|record| record["lines"] == 2) {
            return record;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("no completed record of {request_id}: {:#?}", rig.records());
}

#[test]
fn an_allowed_cross_tenant_request_reaches_the_tenant_and_is_recorded() {
    let rig = Rig::start();
    let answer =
        rig.ask(Request::get("/api/invoices?limit=5&tenant_id=evil").tenant("t-full").header("X-Request-ID", "rq-1"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.header("x-request-id"), "rq-1");
    assert_eq!(answer.header("x-active-tenant-id"), "t-full");
    assert_eq!(answer.header("x-cross-tenant-access"), "true");
    assert_eq!(answer.header("cache-control"), "private, no-store");
    assert_eq!(answer.header("vary"), "Authorization, X-Active-Tenant-Id");
    let decision = answer.header("x-decision-id").to_owned();
    assert_eq!(decision.len(), 36);

    let seen = rig.upstream.last();
    assert_eq!(seen.line, "GET /api/invoices?limit=5 HTTP/1.1");
    let link = rig.links["t-full"].to_string();
    for (name, value) in [
        ("x-tenant-id", "t-full"),
        ("x-active-tenant-id", "t-full"),
        ("x-cross-tenant-access", "true"),
        ("x-user-id", "user-1"),
        ("x-partner-id", P1),
        ("x-partner-tenant-id", HOME1),
        ("x-partner-role", "msp_full"),
        ("x-link-id", link.as_str()),
        ("x-decision-id", decision.as_str()),
        ("x-request-id", "rq-1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "gateway.test"),
    ] {
        assert_eq!(seen.one(name), value, "{name}");
    }
    assert_eq!(seen.one("traceparent").len(), 55);

    let record = record_of(&rig, "rq-1");
    assert_eq!(record["id"], decision.as_str());
    for (name, value) in [
        ("user_id", json!("user-1")),
        ("partner_id", json!(P1)),
        ("partner_tenant_id", json!(HOME1)),
        ("session_id", json!("s-1")),
        ("action", json!("partner.billing.invoices.read")),
        ("method", json!("GET")),
        ("managed_tenant_id", json!("t-full")),
        ("link_id", json!(link)),
        ("link_version", json!(1)),
        ("decision", json!("allow")),
        ("status", json!(200)),
        ("bytes", json!(2)),
        ("upstream", json!("up")),
        ("client_ip", json!("127.0.0.1")),
    ] {
        assert_eq!(record[name], value, "{name} in {record:#}");
    }
    assert!(!record["path"].as_str().unwrap().contains("evil"), "query values are redacted");
}

/// The replaced credential and the assertion name the effective tenant and nothing more.
#[test]
fn the_upstream_gets_a_token_for_this_link_and_a_signed_assertion() {
    let rig = Rig::start();
    let token = rig.token();
    rig.ask(Request::get("/api/invoices").tenant("t-auditor"));
    let seen = rig.upstream.last();
    let bearer = seen.one("authorization").strip_prefix("Bearer ").unwrap();
    assert_ne!(bearer, token);
    let claims = claims(bearer);
    assert_eq!(claims["tenant_id"], "t-auditor");
    assert_eq!(claims["managed_tenant_ids"], json!(["t-auditor"]));
    assert_eq!(claims["active_managed_tenant_id"], "t-auditor");
    assert_eq!(claims["linkgate"], true);
    assert_eq!(claims["partner_id"], P1);
    assert!(claims.get("is_platform_admin").is_none());
    assert!(!claims["permissions"].as_array().unwrap().iter().any(|name| name.as_str().unwrap().ends_with(".write")));
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 60);
    let assertion = self::claims(seen.one("x-linkgate-assertion"));
    assert_eq!(assertion["aud"], "up");
    assert_eq!(assertion["tenant_id"], "t-auditor");
    assert_eq!(assertion["link_id"], rig.links["t-auditor"].to_string());

    // The gateway takes back neither of its own.
    for own in [bearer, seen.one("x-linkgate-assertion")] {
        let answer = Request::get("/api/invoices").bearer(own).tenant("t-full").send(rig.public);
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    let keys = Request::get("/.well-known/linkgate/jwks.json").send(rig.public);
    assert_eq!(keys.json()["keys"][0]["kid"], "k1");
}

pub fn claims(token: &str) -> Value {
    use base64::Engine;
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[test]
fn every_gate_tells_its_own_reason() {
    let rig = Rig::start();
    for (tenant, target, expected) in [
        ("t-unlinked", "/api/invoices", "TENANT_ACCESS_DENIED/no_link"),
        ("t-nonexistent", "/api/invoices", "TENANT_ACCESS_DENIED/no_link"),
        ("t-other", "/api/invoices", "TENANT_ACCESS_DENIED/no_link"),
        ("t-pending", "/api/invoices", "TENANT_ACCESS_DENIED/link_pending"),
        ("t-revoked", "/api/invoices", "TENANT_ACCESS_DENIED/link_inactive"),
        ("t-future", "/api/invoices", "TENANT_ACCESS_DENIED/link_not_started"),
        ("t-expired", "/api/invoices", "TENANT_LINK_EXPIRED"),
        ("t-cidr", "/api/invoices", "FORBIDDEN/ip_not_allowed"),
        ("t-mfa", "/api/invoices", "FORBIDDEN/mfa_required"),
        ("t-support", "/api/invoices", ""),
        ("t-billing", "/api/tickets/1", "FORBIDDEN/permission"),
        ("t-override", "/api/invoices", "FORBIDDEN/override"),
        ("t-full", "/own", "FORBIDDEN/home_only"),
        ("t-full", "/closed", "FORBIDDEN/route_denied"),
    ] {
        let before = rig.upstream.count();
        let id = format!("gate-{tenant}-{}", target.replace('/', "."));
        let answer = rig.ask(Request::get(target).tenant(tenant).header("X-Request-ID", &id));
        if expected.is_empty() {
            assert_eq!(answer.status, 200, "{tenant} {target}");
            continue;
        }
        assert_eq!(answer.error(), expected, "{tenant} {target}");
        assert_eq!(rig.upstream.count(), before, "a refused request reached the upstream");
        assert_eq!(answer.header("x-active-tenant-id"), tenant);
        assert_eq!(answer.json()["error"]["request_id"], id.as_str());
        let record = record_of(&rig, &id);
        assert_eq!((&record["decision"], &record["status"]), (&json!("deny"), &json!(answer.status)));
        assert_eq!(record["managed_tenant_id"], tenant);
        assert_eq!(record["id"], answer.header("x-decision-id"));
    }
    let nobody = rig.token_with("user-1", HOME1, json!({}));
    Request::get("/api/tickets/1").bearer(&nobody).tenant("t-mfa").header("X-Request-ID", "near").send(rig.public);
    assert_eq!(record_of(&rig, "near")["near_misses"], json!(["user"]));
    let mfa = rig.token_with("user-1", HOME1, json!({"roles": ["partner_msp_full"], "amr": ["pwd", "mfa"]}));
    assert_eq!(Request::get("/api/invoices").bearer(&mfa).tenant("t-mfa").send(rig.public).status, 200);
    let auditor =
        rig.token_with("user-1", HOME1, json!({"permissions": ["partner.reports.*", "partner.billing.invoices.read"]}));
    let answer = Request::get("/api/invoices").bearer(&auditor).tenant("t-full").send(rig.public);
    assert_eq!(answer.error(), "FORBIDDEN/permission", "without switch_context no tenant can be named");
}

#[test]
fn home_requests_go_on_as_before_and_name_no_link() {
    let rig = Rig::start();
    let token = rig.token();
    for request in [Request::get("/api/invoices"), Request::get("/api/invoices").tenant(HOME1), Request::get("/own")] {
        let answer = request.bearer(&token).header("X-Tenant-ID", "t-full").header("X-API-Key", "k").send(rig.public);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-cross-tenant-access"), "");
        let seen = rig.upstream.last();
        assert_eq!(seen.one("x-tenant-id"), HOME1);
        assert_eq!(seen.one("x-cross-tenant-access"), "false");
        assert_eq!(seen.one("authorization"), format!("Bearer {token}"));
        for absent in ["x-active-tenant-id", "x-link-id", "x-partner-role", "x-api-key"] {
            assert!(seen.all(absent).is_empty(), "{absent}");
        }
    }
    let plain = rig.token_with("somebody", HOME2, json!({}));
    let answer = Request::get("/api/invoices").bearer(&plain).send(rig.public);
    assert_eq!((answer.status, answer.header("x-decision-id")), (200, ""));
    let answer = Request::get("/api/invoices").bearer(&plain).tenant("t-full").send(rig.public);
    assert_eq!(answer.error(), "FORBIDDEN/not_a_partner");
}

#[test]
fn accounts_and_tokens_that_contradict_each_other_are_refused() {
    let rig = Rig::start();
    // A partner user whose token names another home.
    let foreign = rig.token_with("user-1", HOME2, json!({"roles": ["partner_msp_full"]}));
    for request in [Request::get("/api/invoices"), Request::get("/api/invoices").tenant("t-full")] {
        assert_eq!(request.bearer(&foreign).send(rig.public).error(), "FORBIDDEN/identity_conflict");
    }
    // A claim for which the issuer is not trusted changes nothing.
    let claimed = rig.token_with("somebody", HOME1, json!({"partner_id": P1, "roles": ["partner_msp_full"]}));
    let answer = Request::get("/api/invoices").bearer(&claimed).tenant("t-full").send(rig.public);
    assert_eq!(answer.error(), "FORBIDDEN/not_a_partner");
    // An inactive row refuses at home too.
    let users = rig.block_on(rig.admin().user_by_subject(super::rig::ISSUER, "user-1-b")).unwrap().unwrap();
    let off = linkgate::store::admin::UserInput { is_active: Some(false), ..Default::default() };
    rig.block_on(rig.admin().update_user(&super::rig::actor(), users.id, None, &off)).unwrap();
    let token = rig.token_with("user-1-b", HOME1, json!({"roles": ["partner_msp_full"]}));
    for request in [Request::get("/api/invoices"), Request::get("/api/invoices").tenant("t-full")] {
        until("the row counts", || {
            request.clone().bearer(&token).send(rig.public).error() == "FORBIDDEN/not_a_partner"
        });
    }
}

#[test]
fn a_trusted_partner_claim_must_agree_with_the_row() {
    let rig = Rig::with(Setup { trusts: r#""roles", "permissions", "partner_id""#, ..Setup::default() });
    let of = |sub: &str, partner: &str| {
        rig.token_with(sub, HOME1, json!({"partner_id": partner, "roles": ["partner_msp_full"]}))
    };
    let ask = |token: String| Request::get("/api/invoices").bearer(&token).tenant("t-full").send(rig.public);
    assert_eq!(ask(of("user-1", P1)).status, 200);
    assert_eq!(ask(of("nobody-knows", P1)).status, 200, "the claim alone names the partner");
    assert_eq!(ask(of("user-1", super::rig::P2)).error(), "FORBIDDEN/identity_conflict");
    assert_eq!(
        ask(of("nobody-knows", super::rig::P2)).error(),
        "FORBIDDEN/identity_conflict",
        "home is another partner's"
    );
    assert_eq!(ask(of("nobody-knows", "99999999-9999-4999-8999-999999999999")).error(), "FORBIDDEN/identity_conflict");
}

/// One user, two tokens: the one says less than the other, and ends sooner.
#[test]
fn no_token_gets_the_signature_of_another_one() {
    let rig = Rig::with(Setup { trusts: r#""roles", "permissions", "partner_id""#, ..Setup::default() });
    let soon = linkgate::domain::Millis::now().0 / 1000 + 12;
    let ask = |token: &str, request: Request| {
        assert_eq!(request.bearer(token).send(rig.public).status, 200);
        rig.upstream.last()
    };
    let named = rig.token_with("nobody-knows", HOME1, json!({"partner_id": P1, "roles": ["partner_msp_full"]}));
    let short = rig.token_with("nobody-knows", HOME1, json!({"exp": soon}));
    let short_and_linked = rig.token_with("user-1", HOME1, json!({"exp": soon, "roles": ["partner_msp_full"]}));
    // Each worker has its own signatures, and connections are spread over them.
    for _ in 0..8 {
        assert_eq!(claims(ask(&named, Request::get("/own")).one("x-linkgate-assertion"))["partner_id"], P1);
        ask(&rig.token(), Request::get("/api/invoices").tenant("t-full"));
    }
    for _ in 0..8 {
        let seen = ask(&short, Request::get("/own"));
        assert_eq!(seen.one("x-partner-id"), "");
        let assertion = claims(seen.one("x-linkgate-assertion"));
        assert_eq!(assertion.get("partner_id"), None);
        assert!(assertion["exp"].as_i64().unwrap() <= soon);
        let seen = ask(&short_and_linked, Request::get("/api/invoices").tenant("t-full"));
        for token in [seen.one("x-linkgate-assertion"), seen.one("authorization").strip_prefix("Bearer ").unwrap()] {
            assert!(claims(token)["exp"].as_i64().unwrap() <= soon, "no signature outlives the caller's token");
        }
    }
}

#[test]
fn the_tenant_header_must_be_one_plain_value() {
    let rig = Rig::start();
    for bad in ["", " ", "t-full,t-auditor", "t-full,", ","] {
        assert_eq!(rig.ask(Request::get("/api/invoices").tenant(bad)).error(), "TENANT_CONTEXT_CONFLICT", "{bad:?}");
    }
    rig.ask(Request::get("/api/invoices").tenant("a,b").header("X-Request-ID", "conflict"));
    assert_eq!(record_of(&rig, "conflict")["reason"], "active_tenant_header");
    let twice = rig.ask(Request::get("/api/invoices").tenant("t-full").tenant("t-full"));
    assert_eq!(twice.error(), "TENANT_CONTEXT_CONFLICT");
    let long = rig.ask(Request::get("/api/invoices").tenant(&"x".repeat(300)));
    assert_eq!(long.error(), "TENANT_ACCESS_DENIED/no_link");
    for other in ["T-FULL", "t-full\u{a0}", "\u{3000}t-full"] {
        assert_eq!(
            rig.ask(Request::get("/api/invoices").tenant(other)).error(),
            "TENANT_ACCESS_DENIED/no_link",
            "{other}"
        );
    }
    assert_eq!(rig.ask(Request::get("/api/invoices").tenant("t-space é")).status, 200);
    assert_eq!(rig.upstream.last().one("x-tenant-id"), "t-space é");
    assert_eq!(rig.upstream.count(), 1);
}

#[test]
fn a_tenant_in_the_path_must_be_the_effective_one() {
    let rig = Rig::start();
    let ask = |tenant: &str, path: &str| rig.ask(Request::get(path).tenant(tenant));
    assert_eq!(ask("t-full", "/api/tenants/t-full/stats").status, 200);
    assert_eq!(ask("t-space é", "/api/tenants/t-space%20%C3%A9/stats").status, 200);
    assert_eq!(rig.upstream.last().line, "GET /api/tenants/t-space%20%C3%A9/stats HTTP/1.1", "byte for byte");
    assert_eq!(ask("t-full", "/api/tenants/t-auditor/stats").error(), "TENANT_CONTEXT_CONFLICT");
    assert_eq!(rig.ask(Request::get("/api/tenants/t-full/stats")).error(), "TENANT_CONTEXT_CONFLICT", "at home too");
    assert_eq!(rig.ask(Request::get(&format!("/api/tenants/{HOME1}/stats"))).status, 200);
}

#[test]
fn public_routes_read_neither_token_nor_tenant() {
    let rig = Rig::start();
    let answer = Request::get("/public/login")
        .bearer("garbage")
        .tenant("t-full")
        .header("X-API-Key", "k")
        .header("X-Tenant-ID", "evil")
        .send(rig.public);
    assert_eq!((answer.status, answer.header("x-decision-id")), (200, ""));
    let seen = rig.upstream.last();
    assert_eq!(seen.one("authorization"), "Bearer garbage");
    assert_eq!(seen.one("x-api-key"), "k");
    assert!(seen.all("x-tenant-id").is_empty() && seen.all("x-active-tenant-id").is_empty());
}
