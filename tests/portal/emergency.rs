//! Suspension and approval as the consolidated API shows them: slices, exports, downloads, alerts, webhooks, and the
//! tenant's own word.

use std::time::{Duration, Instant};

use linkgate::{
    domain::{Approval, ApprovalRules, link_rules::LinkInput},
    store::{Actor, SuspensionScope, admin::SuspensionInput},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    client::{Answer, Connection, Request},
    rig::{BASE, P1, Rig, TENANTS, actor, status_of},
    service::Service,
    world::held,
};

const INVOICES: &str = "/billing/invoices?from_date=2020-01-01&limit=100&sources=all";
const SUSPENDED: &str = "TENANT_ACCESS_DENIED/access_suspended";
const BOUND: Duration = Duration::from_secs(1);

/// As another replica would; known here after the promised second.
fn suspend(rig: &Rig, scope: SuspensionScope, subject: &str) -> Uuid {
    let input = SuspensionInput { scope, issuer: None, subject: subject.to_owned(), reason: "incident".into() };
    let id = rig.block_on(rig.admin().suspend(&actor(), &input)).unwrap().value.id;
    std::thread::sleep(BOUND);
    id
}

fn restore(rig: &Rig, id: Uuid) {
    rig.block_on(rig.admin().restore(&actor(), id)).unwrap();
    std::thread::sleep(BOUND);
}

fn error(rig: &Rig, path: &str) -> String {
    let answer = rig.ask(Request::get(&format!("{BASE}{path}")));
    assert_eq!(answer.status, 403, "{path}: {}", answer.text());
    answer.error()
}

/// A finished export of all tenants; where it can be downloaded.
fn exported(rig: &Rig) -> String {
    let body = r#"{"format":"csv","from_date":"2015-01-01"}"#;
    let queued = rig.ask(Request::new("POST", &format!("{BASE}/billing/invoices/export")).json(body));
    let path = format!("/billing/exports/{}", queued.json()["export_id"].as_str().unwrap());
    let began = Instant::now();
    loop {
        let state = rig.get(&path);
        if state["status"] == "completed" {
            return state["download_url"].as_str().unwrap().to_owned();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{state}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_suspended_tenant_or_link_has_no_slice_anywhere_and_comes_back_as_it_was() {
    let rig = Rig::start();
    let download = exported(&rig);
    let before = rig.get(INVOICES);
    assert_eq!(status_of(&before, "t-full"), "ok");
    let link = rig.links["t-full"].to_string();
    for (scope, subject) in [(SuspensionScope::Tenant, "t-full"), (SuspensionScope::Link, link.as_str())] {
        let id = suspend(&rig, scope, subject);
        let during = rig.get(INVOICES);
        let text = during.to_string();
        assert!(!text.contains("t-full"), "neither rows nor source: {text}");
        assert_eq!(during["total"], before["total"].as_u64().unwrap() - rig.world["t-full"].invoices.len() as u64);
        for path in ["/customers", "/me", "/billing/summary", "/support/tickets", "/alerts/billing", "/reports/sla"] {
            assert!(!rig.get(path).to_string().contains("\"t-full\""), "{path}");
        }
        assert_eq!(error(&rig, &format!("{INVOICES}&tenant_ids=t-full")), SUSPENDED);
        assert_eq!(error(&rig, "/customers/t-full"), SUSPENDED);
        let switched = rig.ask(Request::get(&format!("{BASE}{INVOICES}")).tenant("t-full"));
        assert_eq!(switched.error(), SUSPENDED);
        let ticket = r#"{"subject":"s","description":"d"}"#;
        let write = Request::new("POST", &format!("{BASE}/support/tickets")).tenant("t-full").json(ticket);
        assert_eq!(rig.ask(write).error(), SUSPENDED);
        let only = r#"{"format":"csv","tenant_ids":["t-full"]}"#;
        let export = Request::new("POST", &format!("{BASE}/billing/invoices/export")).json(only);
        assert_eq!(rig.ask(export).error(), SUSPENDED);
        assert_eq!(rig.ask(Request::get(&download)).error(), SUSPENDED, "a file that holds the tenant");
        restore(&rig, id);
        assert_eq!(rig.get(INVOICES)["total"], before["total"]);
        assert_eq!(rig.ask(Request::get(&download)).status, 200);
    }
}

#[test]
fn a_suspended_partner_or_user_is_refused_the_whole_call() {
    let rig = Rig::start();
    let download = exported(&rig);
    for (scope, subject) in [
        (SuspensionScope::Partner, P1),
        (SuspensionScope::All, ""),
        (SuspensionScope::User, "user-1"),
        (SuspensionScope::Session, "s-1"),
    ] {
        let id = suspend(&rig, scope, subject);
        for path in [INVOICES, "/customers", "/customers/t-full", "/me", "/alerts/sla", "/customers/t-unknown"] {
            assert_eq!(error(&rig, path), SUSPENDED, "{scope:?} {path}");
        }
        assert_eq!(rig.ask(Request::get(&download)).error(), SUSPENDED, "{scope:?}");
        // A tenant's own administrator works at home; the session is the one of every token here.
        let expected = if scope == SuspensionScope::Session { 403 } else { 200 };
        assert_eq!(at_home(&rig).status, expected, "{scope:?}");
        restore(&rig, id);
        rig.get(INVOICES);
    }
    let id = suspend(&rig, SuspensionScope::User, "admin-1");
    assert_eq!(at_home(&rig).error(), SUSPENDED);
    rig.get(INVOICES);
    restore(&rig, id);
    assert_eq!(at_home(&rig).status, 200);
}

fn at_home(rig: &Rig) -> Answer {
    Request::get("/api/v1/tenant/links").bearer(&rig.token("admin-1", "t-full", "tenant_admin")).send(rig.public)
}

#[test]
fn a_download_of_a_suspended_tenant_is_cut_within_a_second() {
    use std::io::Read;
    let rig = Rig::start();
    let download = exported(&rig);
    let file = std::fs::read_dir(rig.dir.path().join("exports")).unwrap().next().unwrap().unwrap().path();
    // As long as a download takes that the client reads slowly.
    let length = 256 * 1024 * 1024;
    std::fs::File::options().write(true).open(&file).unwrap().set_len(length).unwrap();
    let token = rig.token("user-1", "home-1", "partner_msp_full");
    let mut connection = Connection::open(rig.public);
    connection.write(&Request::get(&download).bearer(&token).bytes());
    let mut some = [0; 65_536];
    connection.stream.read_exact(&mut some).unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200"));
    suspend(&rig, SuspensionScope::Tenant, "t-full");
    // The suspension is a second old: what comes now was on its way.
    let (mut rest, began) = (0, Instant::now());
    while let Ok(bytes @ 1..) = connection.stream.read(&mut some) {
        rest += bytes as u64;
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    assert!(rest < length / 4, "{rest} bytes came after it");
}

/// A link waits for the tenant's administrator, who may not be the one who asked for it.
#[test]
fn a_pending_link_works_once_somebody_else_approved_it() {
    let world = TENANTS.iter().map(|(tenant, _)| ((*tenant).to_owned(), held(tenant, &["USD"]))).collect();
    let service = Service::start(std::clone::Clone::clone(&world));
    let links = TENANTS.iter().map(|(tenant, role)| (P1, (*tenant).to_owned(), *role)).collect();
    let connectors =
        format!("{}\n[links]\nrequire_approval = true\nfour_eyes = true\n", super::rig::connectors(service.address));
    let rig = Rig::over(service, world, links, &connectors, "");
    let rules = ApprovalRules { required: true, four_eyes: true };
    let wider = LinkInput { access_role: Some("msp_support".into()), ..LinkInput::default() };
    let (admin, asker) = (rig.admin_under(rules), Actor::new("admin-1"));
    let waiting = rig.block_on(admin.update_link(&asker, rig.links["t-auditor"], None, &wider)).unwrap().value;
    assert_eq!(waiting.terms.approval, Approval::Pending);
    std::thread::sleep(BOUND);
    let named = "/billing/invoices?tenant_ids=t-auditor";
    assert_eq!(error(&rig, named), "TENANT_ACCESS_DENIED/link_pending");
    assert!(!rig.get("/me").to_string().contains("t-auditor"));

    let path = format!("/api/v1/tenant/links/{}", waiting.id);
    let says = |user: &str, word: &str, version: i64| {
        let body = json!({"approval": word}).to_string();
        let request = Request::new("PATCH", &path).json(&body).header("If-Match", &version.to_string());
        request.bearer(&rig.token(user, "t-auditor", "tenant_admin")).send(rig.public)
    };
    let own = says("admin-1", "approved", 2);
    assert_eq!((own.status, &*own.error()), (422, "VALIDATION_ERROR"), "{}", own.text());
    assert!(own.text().contains("four eyes") && !own.text().contains("admin-2"), "{}", own.text());
    assert_eq!(says("admin-2", "approved", 1).status, 409, "other terms than those that were read");
    let done = says("admin-2", "approved", 2);
    assert_eq!(done.status, 200, "{}", done.text());
    let done: Value = done.json();
    assert_eq!((&done["approval"], &done["approved_by"]), (&json!("approved"), &json!("admin-2")));
    assert!(done["approved_at"].is_string());
    // In this process at once.
    rig.get(named);
    assert_eq!(says("admin-1", "rejected", 3).status, 200, "closing needs nobody else");
    assert_eq!(error(&rig, named), "TENANT_ACCESS_DENIED/link_pending");
}
