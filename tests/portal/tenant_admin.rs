//! A managed tenant's own administrators: the links to their tenant, their word on them, and who did what.

use linkgate::limit::settings::Quota;
use serde_json::{Value, json};

use super::{
    client::{Answer, Request},
    rig::{BASE, Rig, names},
};

fn ask(rig: &Rig, home: &str, request: Request) -> Answer {
    request.bearer(&rig.token("admin-1", home, "tenant_admin")).send(rig.public)
}

fn log(rig: &Rig, home: &str, query: &str) -> Value {
    let answer = ask(rig, home, Request::get(&format!("/api/v1/tenant/access-log?{query}")));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_tenant_sees_its_links_and_decides_on_them() {
    let rig = Rig::start();
    let list = ask(&rig, "t-billing", Request::get("/api/v1/tenant/links")).json();
    assert_eq!((&list["total"], &list["has_more"]), (&json!(1), &json!(false)));
    let link = &list["items"][0];
    assert_eq!((&link["access_role"], &link["approval"]), (&json!("msp_billing"), &json!("approved")));
    assert!(link.get("notes").is_none() && link.get("metadata").is_none());
    let path = format!("/api/v1/tenant/links/{}", link["link_id"].as_str().unwrap());
    let patch = |home, body: &str| ask(&rig, home, Request::new("PATCH", &path).json(body));
    assert_eq!(patch("t-full", r#"{"approval":"rejected"}"#).status, 404, "another tenant's");
    assert_eq!(patch("t-billing", r#"{"approval":"maybe","role":"x"}"#).status, 422);
    let stale = Request::new("PATCH", &path).json(r#"{"approval":"rejected"}"#).header("If-Match", "\"99\"");
    assert_eq!(ask(&rig, "t-billing", stale).status, 409);
    let done = patch("t-billing", r#"{"approval":"rejected"}"#);
    assert_eq!((done.status, &done.json()["approval"]), (200, &json!("rejected")));
    // In force at once in this process.
    let refused = rig.ask(Request::get(&format!("{BASE}/billing/invoices?tenant_ids=t-billing")));
    assert_eq!(refused.error(), "TENANT_ACCESS_DENIED/link_pending");
    let plain = Request::get("/api/v1/tenant/links").bearer(&rig.token("x", "t-billing", "viewer")).send(rig.public);
    assert_eq!(plain.error(), "FORBIDDEN/permission");
}

#[test]
fn the_access_log_shows_the_own_part_only() {
    let rig = Rig::start();
    let asked = Request::get(&format!("{BASE}/billing/invoices?search=secret-word")).header("X-Request-ID", "mine-1");
    assert_eq!(rig.ask(asked).status, 200);
    let began = std::time::Instant::now();
    let entry = loop {
        let page = log(&rig, "t-override", "limit=10");
        if let Some(entry) = page["items"].as_array().unwrap().iter().find(|entry| entry["request_id"] == "mine-1") {
            break entry.clone();
        }
        assert!(began.elapsed().as_secs() < 15, "{page}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    assert_eq!(names(&entry).len(), 17);
    // Allowed as a whole, and refused for this tenant by its override.
    assert_eq!(
        (&entry["decision"], &entry["reason"], &entry["user_id"]),
        (&json!("deny"), &json!("override"), &json!("user-1"))
    );
    let text = entry.to_string();
    assert!(!text.contains("t-full") && !text.contains("secret-word"), "{text}");
    assert_eq!(log(&rig, "t-full", "decision=deny")["total"], 0);
    assert_eq!(log(&rig, "t-full", "decision=allow&user_id=user-1")["total"], 1);
    assert_eq!(log(&rig, "t-unknown", "")["total"], 0);
    let bad = ask(&rig, "t-full", Request::get("/api/v1/tenant/access-log?decision=x&colour=y&limit=0"));
    assert_eq!(bad.status, 422);
}

/// The limit of a tenant's administrators is each one's own.
#[test]
fn a_tenants_administrators_are_limited() {
    let rig = Rig::with_tenant_admins_limited(Quota { requests: 3, per_seconds: 60 });
    let ask = |user: &str| {
        let request = Request::get("/api/v1/tenant/access-log?limit=1");
        request.bearer(&rig.token(user, "t-full", "tenant_admin")).send(rig.public)
    };
    let first = ask("admin-1");
    assert_eq!(
        (first.status, first.header("x-ratelimit-limit"), first.header("x-ratelimit-remaining")),
        (200, "3", "2")
    );
    let links = Request::get("/api/v1/tenant/links").bearer(&rig.token("admin-1", "t-full", "tenant_admin"));
    assert_eq!(links.send(rig.public).header("x-ratelimit-remaining"), "1");
    assert_eq!(ask("admin-1").status, 200);
    let refused = ask("admin-1");
    assert_eq!((refused.status, refused.error().as_str()), (429, "RATE_LIMIT_EXCEEDED"));
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0, "{}", refused.text());
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    assert_eq!(ask("admin-2").status, 200);
}
