//! Whose data an answer holds: roles, revocation, other partners, and what is cached for whom.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    client::{Connection, Request},
    rig::{BASE, P1, P2, Rig, status_of},
};

const INVOICES: &str = "/billing/invoices?from_date=2020-01-01";

fn tenants(answer: &Value) -> Vec<&str> {
    let mut found: Vec<_> =
        answer["items"].as_array().unwrap().iter().map(|item| item["tenant_id"].as_str().unwrap()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_revoked_links_slices_are_gone_at_once() {
    let rig = Rig::start();
    let before = rig.get(&format!("{INVOICES}&limit=100"));
    assert!(tenants(&before).contains(&"t-full"));
    rig.revoke("t-full");
    let after = rig.get(&format!("{INVOICES}&limit=100&sources=all"));
    assert!(!tenants(&after).contains(&"t-full"));
    assert_eq!(after["total"], before["total"].as_u64().unwrap() - rig.world["t-full"].invoices.len() as u64);
    assert!(
        after["sources"].as_array().unwrap().iter().all(|source| source["tenant_id"] != "t-full"),
        "no source at all"
    );
    let named = rig.ask(Request::get(&format!("{BASE}{INVOICES}&tenant_ids=t-full")));
    assert_eq!((named.status, &*named.error()), (403, "TENANT_ACCESS_DENIED/link_inactive"));
    let detail = rig.ask(Request::get(&format!("{BASE}/customers/t-full")));
    assert_eq!((detail.status, &*detail.error()), (403, "TENANT_ACCESS_DENIED/link_inactive"));
    // The link comes back under another version: nothing of the old one is found.
    let asked = rig.service.asked("t-full", "invoices");
    rig.link(super::rig::P1, "t-full", "msp_full");
    let again = rig.get(&format!("{INVOICES}&limit=100"));
    assert_eq!(again["total"], before["total"]);
    assert_eq!(rig.service.asked("t-full", "invoices"), asked + 1);
}

/// A body that comes slowly, be it empty, must not carry an old decision past a revocation.
#[test]
fn what_waited_for_its_body_is_decided_again() {
    let rig = Rig::start();
    let alert = "/alerts/billing/00000000-0000-4000-8000-000000000000/acknowledge";
    let head = format!(
        "POST {BASE}{alert} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nX-Active-Tenant-Id: t-full\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        rig.token("user-1", "home-1", "partner_msp_full")
    );
    let mut quick = Connection::open(rig.public);
    quick.write(format!("{head}0\r\n\r\n").as_bytes());
    assert_eq!(quick.answer().error(), "ALERT_NOT_FOUND");
    let mut slow = Connection::open(rig.public);
    slow.write(head.as_bytes());
    thread::sleep(Duration::from_millis(300));
    rig.revoke("t-full");
    slow.write(b"0\r\n\r\n");
    let answer = slow.answer();
    assert_eq!((answer.status, &*answer.error()), (403, "TENANT_ACCESS_DENIED/link_inactive"));
}

#[test]
fn partners_never_see_each_others_tenants_or_slices() {
    let rig = Rig::start();
    let mine = rig.get(&format!("{INVOICES}&limit=100"));
    let theirs = rig.ask_other_partner(Request::get(&format!("{BASE}{INVOICES}&limit=100"))).json();
    assert_eq!((&theirs["total"], &theirs["items"]), (&0.into(), &Value::Array(Vec::new())), "no links, no tenants");
    assert_eq!((&theirs["partial"], theirs["aggregates"]["total_amount"].as_f64()), (&false.into(), Some(0.0)));
    let foreign = rig.ask_other_partner(Request::get(&format!("{BASE}{INVOICES}&tenant_ids=t-full")));
    assert_eq!((foreign.status, &*foreign.error()), (403, "TENANT_ACCESS_DENIED/no_link"));
    let unknown = rig.ask_other_partner(Request::get(&format!("{BASE}/customers/t-full")));
    assert_eq!((unknown.status, &*unknown.error()), (404, "TENANT_NOT_FOUND"));

    // An auditor's link to one tenant gives that tenant, by questions of its own.
    let asked = rig.service.asked("t-full", "invoices");
    rig.link(P2, "t-full", "auditor");
    let theirs = rig.ask_other_partner(Request::get(&format!("{BASE}{INVOICES}&limit=100"))).json();
    assert_eq!(tenants(&theirs), ["t-full"]);
    assert_eq!(rig.service.asked("t-full", "invoices"), asked + 1, "nothing cached for another partner is used");
    assert!(mine["total"].as_u64() > theirs["total"].as_u64());
}

#[test]
fn a_user_without_the_permission_gets_403_and_a_link_without_it_is_forbidden() {
    let rig = Rig::start();
    let support = |path: &str| rig.ask_as("partner_msp_support", Request::get(&format!("{BASE}{path}")));
    assert_eq!(support("/support/tickets").status, 200);
    let billing = rig.ask_as("partner_msp_billing", Request::get(&format!("{BASE}/support/tickets")));
    assert_eq!((billing.status, &*billing.error()), (403, "FORBIDDEN/permission"));
    assert_eq!(status_of(&rig.get("/support/tickets"), "t-billing"), "forbidden");
    assert_eq!(status_of(&rig.get("/reports/usage"), "t-reseller"), "forbidden");
    assert_eq!(status_of(&rig.get("/billing/summary"), "t-override"), "forbidden");
    let strict = rig.get("/billing/summary?strict=true");
    assert_eq!(strict["partial"], false, "what is forbidden is not missing");
    assert_eq!(rig.service.asked("t-override", "invoices"), 0, "and is never fetched");
}

#[test]
fn warm_answers_ask_nobody_and_no_cache_asks_again() {
    let rig = Rig::start();
    let first = rig.get(&format!("{INVOICES}&sources=all"));
    let asked = rig.service.asked_in_all();
    assert_eq!(rig.get(&format!("{INVOICES}&sources=all")), first);
    assert_eq!(rig.service.asked_in_all(), asked);
    let fresh =
        rig.ask(Request::get(&format!("{BASE}{INVOICES}&sources=all")).header("Cache-Control", "no-cache")).json();
    assert_eq!(rig.service.asked_in_all(), asked + 5);
    assert_eq!(fresh["items"], first["items"]);
    assert!(fresh["sources"][0]["as_of"].as_str() > first["sources"][0]["as_of"].as_str());
}

#[test]
fn a_switched_client_reads_all_tenants_all_the_same() {
    let rig = Rig::start();
    let path = format!("{BASE}{INVOICES}");
    let switched = rig.ask(Request::get(&path).tenant("t-full").header("X-Tenant-ID", "home-1")).json();
    assert_eq!(switched["total"], rig.get(INVOICES)["total"]);
    let stale = rig.ask(Request::get(&path).tenant("t-unknown"));
    assert_eq!((stale.status, &*stale.error()), (403, "TENANT_ACCESS_DENIED/no_link"));
    let selector = rig.ask(Request::get(&format!("{BASE}/customers")).tenant("t-unknown"));
    assert_eq!(selector.status, 200, "a selector recovers from a stale choice");
}

#[test]
fn the_record_says_how_each_slice_was_decided_and_how_it_ended() {
    let rig = Rig::start();
    rig.service.misbehave("t-full", "invoices", Some(super::service::Chaos::Status(500)));
    rig.get("/billing/summary");
    rig.get("/billing/summary");
    let lines = rig.journal(2);
    let of_type = |wanted: &str| lines.iter().filter(|line| line["type"] == wanted).collect::<Vec<_>>();
    let (opened, completed) = (of_type("open"), of_type("complete"));
    assert_eq!((opened.len(), completed.len()), (2, 2), "one record a request, cached slices included");
    let of = |line: &Value, tenant: &str| {
        let slices = line["slices"].as_array().unwrap();
        assert_eq!(slices.len(), 6);
        slices.iter().find(|slice| slice["managed_tenant_id"] == tenant).unwrap().clone()
    };
    for line in opened {
        assert_eq!(of(line, "t-full")["decision"], "allow");
        assert_eq!(of(line, "t-full")["link_id"], rig.links["t-full"].to_string());
        let refused = of(line, "t-override");
        assert_eq!((&refused["decision"], &refused["reason"]), (&"deny".into(), &"override".into()));
    }
    for line in completed {
        let statuses = ["t-full", "t-billing", "t-override"].map(|tenant| of(line, tenant)["status"].clone());
        assert_eq!(statuses, ["error", "ok", "forbidden"]);
    }
}

#[test]
fn a_customer_that_the_link_does_not_show_is_refused_by_name_and_left_out_of_lists() {
    let rig = Rig::start();
    rig.link_without(P2, "t-support", "auditor", "partner.tenants.list");
    let theirs = |path: &str| rig.ask_other_partner(Request::get(&format!("{BASE}{path}")));
    let list = theirs("/customers?strict=true").json();
    assert_eq!((&list["total"], &list["items"]), (&0.into(), &Value::Array(Vec::new())));
    assert_eq!(status_of(&list, "t-support"), "forbidden");
    let detail = theirs("/customers/t-support");
    assert_eq!((detail.status, &*detail.error()), (403, "FORBIDDEN/override"));
    assert_eq!(tenants(&theirs(&format!("{INVOICES}&limit=100")).json()), ["t-support"], "what it does show is there");
}

#[test]
fn each_endpoint_asks_once_for_what_it_needs_cached_or_not() {
    let rig = Rig::start();
    for round in 1..=2 {
        let path = format!("{BASE}/customers?sort_by=outstanding_balance");
        let answer = rig.ask(Request::get(&path).header("Cache-Control", "no-cache"));
        assert_eq!(answer.status, 200);
        for kind in ["registry", "metrics", "invoices", "tickets", "breaches"] {
            assert_eq!(rig.service.asked("t-full", kind), round, "{kind}");
        }
    }
    rig.get("/customers?sort_by=outstanding_balance");
    assert_eq!(rig.service.asked("t-full", "invoices"), 2, "and what came fresh is kept");
}

/// One call can be found in every upstream's log: by the client's own id, as one trace, and for whom it was.
#[test]
fn services_are_asked_under_the_clients_request_id() {
    let rig = Rig::start();
    let ask = |id: &str| {
        let path = format!("{BASE}{INVOICES}");
        let request = Request::get(&path).header("X-Request-ID", id).header("Cache-Control", "no-cache");
        let answer = rig.ask(request.header("X-User-Id", "evil").header("X-Decision-Id", "evil"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer, rig.service.take_heads())
    };
    let (answer, heads) = ask("one-call.7");
    assert_eq!(
        (answer.header("x-request-id"), heads.len()),
        ("one-call.7", 5),
        "one question for each tenant that may be read"
    );
    let parts: Vec<Vec<&str>> = heads.iter().map(|head| head["traceparent"].split('-').collect()).collect();
    for (name, value) in [
        ("x-request-id", "one-call.7"),
        ("x-user-id", "user-1"),
        ("x-partner-id", P1),
        ("x-partner-tenant-id", "home-1"),
        ("x-cross-tenant-access", "true"),
        ("x-decision-id", answer.header("x-decision-id")),
    ] {
        assert!(heads.iter().all(|head| head[name] == value), "{name}: {heads:?}");
    }
    assert!(heads.iter().all(|head| head["x-tenant-id"] == head["x-active-tenant-id"]), "{heads:?}");
    assert!(parts.iter().all(|part| part[1] == parts[0][1] && part[1].len() == 32), "one trace: {heads:?}");
    let mut parents: Vec<&str> = parts.iter().map(|part| part[2]).collect();
    parents.sort_unstable();
    parents.dedup();
    assert_eq!(parents.len(), 5, "each question has a place of its own in it");
    let record = rig.journal(1).into_iter().find(|line| line["type"] == "open").unwrap();
    assert_eq!(record["priv"]["trace_id"], parts[0][1], "the trace of the audit record");
    // What is not of the accepted form reaches nobody.
    let (answer, heads) = ask("no good");
    let told = answer.header("x-request-id");
    assert!(told.starts_with("req_") && told.len() == 36, "{told}");
    assert!(heads.len() == 5 && heads.iter().all(|head| head["x-request-id"] == told), "{heads:?}");
}

/// What is decided beside the endpoint's own permission is shown no longer either.
#[test]
fn a_further_permission_that_ends_meanwhile_stops_the_answer() {
    let rig = Rig::with("source_timeout = \"8s\"\ndeadline = \"9s\"\n");
    let path = format!("{BASE}/billing/summary?tenant_ids=t-full");
    let request = Request::get(&path).bearer(&rig.token("user-1", "home-1", "partner_msp_full"));
    rig.service.latency.store(2_500, Ordering::SeqCst);
    let under_way = Arc::clone(&rig.service.most_under_way);
    under_way.store(0, Ordering::SeqCst);
    let public = rig.public;
    let asking = thread::spawn(move || request.send(public));
    while under_way.load(Ordering::SeqCst) == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    rig.deny("t-full", "partner.reports.revenue.read");
    let answer = asking.join().unwrap();
    assert_eq!((answer.status, &*answer.error()), (503, "LINKS_STALE"), "{}", answer.text());
    let lines = rig.journal(1);
    let done = lines.iter().find(|line| line["type"] == "complete").unwrap();
    assert_eq!((&done["pub"]["decision"], &done["pub"]["reason"]), (&"deny".into(), &"links_changed".into()), "{done}");
    rig.service.latency.store(0, Ordering::SeqCst);
    let again = rig.get("/billing/summary?tenant_ids=t-full");
    assert!(again["by_tenant"][0]["total_revenue"].is_null(), "{again}");
}
