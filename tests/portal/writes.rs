//! Tickets opened and changed through the gateway, in the sample services of both generations.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use linkgate::store::{SuspensionScope, admin::SuspensionInput};
use serde_json::{Value, json};

use super::{
    client::{Answer, Connection, Request},
    rig::{BASE, actor, names},
    samples::Samples,
};

const NEW: &str = r#"{"subject":"A line is down","description":"since noon","priority":"high"}"#;

fn create(samples: &Samples, tenant: &str, key: &str, body: &str) -> Answer {
    let request = Request::new("POST", &format!("{BASE}/support/tickets")).tenant(tenant);
    samples.rig.ask(request.header("Idempotency-Key", key).json(body))
}

fn patch(samples: &Samples, id: &str, body: &str) -> Answer {
    samples.rig.ask(Request::new("PATCH", &format!("{BASE}/support/tickets/{id}")).json(body))
}

fn count(samples: &Samples) -> u64 {
    samples.rig.get("/support/tickets")["total"].as_u64().unwrap()
}

#[test]
fn a_ticket_is_opened_once_however_often_it_is_asked_for() {
    let samples = Samples::start("slice_fresh = \"0s\"\nmax_slice_age = \"0s\"\n");
    let before = count(&samples);
    for (at, tenant) in ["g1-a", "g2-a"].into_iter().enumerate() {
        let key = format!("key-{at}");
        let first = create(&samples, tenant, &key, NEW);
        assert_eq!(first.status, 201, "{tenant}: {}", first.text());
        let answer = first.json();
        assert_eq!(
            names(&answer),
            [
                "ticket_id",
                "ticket_number",
                "tenant_id",
                "status",
                "priority",
                "created_by_partner",
                "created_by_partner_id",
                "created_by_partner_name",
                "created_at",
                "sla_breach_at"
            ]
        );
        assert_eq!((&answer["tenant_id"], &answer["created_by_partner"]), (&json!(tenant), &json!(true)));
        let again = create(&samples, tenant, &key, NEW);
        assert_eq!((again.status, &again.body), (201, &first.body), "byte for byte");
        assert_eq!(again.header("idempotent-replayed"), "true");
        let other = create(&samples, tenant, &key, r#"{"subject":"Another","description":"x"}"#);
        assert_eq!((other.status, other.error()), (422, "VALIDATION_ERROR".to_owned()));
    }
    assert_eq!(count(&samples), before + 2);
}

#[test]
fn bad_tickets_are_told_field_by_field() {
    let samples = Samples::start("");
    let body = r#"{"subject":"","tenant_id":"g1-b","priority":"asap"}"#;
    let answer = create(&samples, "g1-a", "k", body);
    assert_eq!(answer.status, 422);
    let told = answer.json()["error"]["details"].clone();
    for field in ["subject", "description", "priority", "tenant_id"] {
        assert!(told.get(field).is_some(), "{field}: {told}");
    }
    let unnamed = samples.rig.ask(Request::new("POST", &format!("{BASE}/support/tickets")).json(NEW));
    assert_eq!((unnamed.status, unnamed.error()), (400, "TENANT_CONTEXT_REQUIRED".to_owned()));
    assert_eq!(create(&samples, "stranger", "k", NEW).error(), "TENANT_ACCESS_DENIED/no_link");
    assert_eq!(create(&samples, "g1-a", "two words", NEW).status, 422);
    assert_eq!(create(&samples, "g1-a", "k", r#"{"subject":"a","subject":"b"}"#).status, 400);
}

#[test]
fn a_ticket_is_changed_where_it_is_and_nowhere_else() {
    let samples = Samples::start("");
    for tenant in ["g1-a", "g2-a"] {
        let ticket: Value = create(&samples, tenant, tenant, NEW).json();
        let id = ticket["ticket_id"].as_str().unwrap();
        let answer = patch(&samples, id, r#"{"status":"pending","comment":{"content":"We look into it"}}"#);
        assert_eq!(answer.status, 200, "{tenant}: {}", answer.text());
        assert_eq!(names(&answer.json()), ["ticket_id", "ticket_number", "status", "updated_at", "comment_id"]);
        assert_eq!(answer.json()["status"], "pending");
    }
    let unknown = patch(&samples, "00000000-0000-4000-8000-000000000000", r#"{"status":"closed"}"#);
    assert_eq!((unknown.status, unknown.error()), (404, "TICKET_NOT_FOUND".to_owned()));
    assert_eq!(patch(&samples, "x", "{}").status, 422);
}

/// The services answer `/tickets/stats` with 200, and that is no ticket.
#[test]
fn a_word_of_the_services_own_is_no_ticket() {
    let samples = Samples::start("");
    let bodies = [r#"{"status":"closed"}"#, r#"{"comment":{"content":"hi"}}"#];
    for (id, body) in ["stats", "STATS", "no-such-ticket"].into_iter().flat_map(|id| bodies.map(|body| (id, body))) {
        let unnamed = patch(&samples, id, body);
        assert_eq!((unnamed.status, unnamed.error()), (404, "TICKET_NOT_FOUND".to_owned()), "{}", unnamed.text());
        for tenant in ["g1-a", "g2-a"] {
            let request = Request::new("PATCH", &format!("{BASE}/support/tickets/{id}")).tenant(tenant);
            let named = samples.rig.ask(request.json(body));
            assert_eq!((named.status, named.error()), (404, "TICKET_NOT_FOUND".to_owned()), "{}", named.text());
        }
    }
}

/// What is written goes on without its client, and the record says how it ended.
#[test]
fn a_client_that_leaves_hides_no_outcome() {
    let samples = Samples::start("");
    samples.slow("g1-a", Duration::from_millis(600));
    for (at, key) in [Some("k"), None].into_iter().enumerate() {
        let request = Request::new("POST", &format!("{BASE}/support/tickets")).tenant("g1-a").json(NEW);
        let request = request.bearer(&samples.rig.token("user-1", "home-1", "partner_msp_full"));
        let request = key.map_or_else(|| request.clone(), |key| request.clone().header("Idempotency-Key", key));
        let mut connection = Connection::open(samples.rig.public);
        connection.write(&request.bytes());
        let opened = || samples.rig.journal(0).iter().filter(|line| line["type"] == "open").count();
        while opened() <= at {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(connection);
    }
    let lines = samples.rig.journal(2);
    for line in lines.iter().filter(|line| line["type"] == "complete") {
        let said = (&line["pub"]["status"], &line["pub"]["reason"], &line["priv"]["aborted"]);
        assert_eq!(said, (&json!(201), &json!("client_disconnected"), &json!(true)), "{line}");
        assert_eq!(line["slices"][0]["status"], "acted", "{line}");
    }
    assert_eq!(create(&samples, "g1-a", "k", NEW).header("idempotent-replayed"), "true");
}

/// How long a slow service takes for each call.
const SLOW: Duration = Duration::from_millis(2_500);

/// A change with a comment, sent from a thread of its own, once its record is opened.
fn changing(samples: &Samples, tenant: &str) -> JoinHandle<Answer> {
    let opened = |lines: &[Value]| lines.iter().filter(|line| line["type"] == "open").count();
    let before = opened(&samples.rig.journal(0));
    let id = samples.truth(tenant).tickets[0]["id"].as_str().unwrap().to_owned();
    let request = Request::new("PATCH", &format!("{BASE}/support/tickets/{id}")).tenant(tenant);
    let request = request.json(r#"{"priority":"urgent","comment":{"content":"after the end"}}"#);
    let request = request.header("Idempotency-Key", tenant);
    let request = request.bearer(&samples.rig.token("user-1", "home-1", "partner_msp_full"));
    let public = samples.rig.public;
    let asking = thread::spawn(move || request.send(public));
    while opened(&samples.rig.journal(0)) == before {
        thread::sleep(Duration::from_millis(5));
    }
    asking
}

/// How the last completed record ended: status, decision, reason, and what its slice says.
fn ended(samples: &Samples, completed: usize) -> [Value; 4] {
    let lines = samples.rig.journal(completed);
    let line = lines.iter().rfind(|line| line["type"] == "complete").unwrap();
    let said = &line["pub"];
    [&said["status"], &said["decision"], &said["reason"], &line["slices"][0]["status"]].map(Value::clone)
}

fn messages(samples: &Samples, tenant: &str) -> usize {
    samples.truth(tenant).tickets[0]["messages"].as_array().unwrap().len()
}

/// A service that takes its time must not carry an old decision past a revocation.
#[test]
fn what_waited_for_its_look_up_is_decided_again() {
    type Ends = fn(&Samples);
    let revoked: Ends = |samples| samples.rig.revoke("g1-a");
    let muted: Ends = |samples| samples.rig.deny("g1-a", "partner.support.tickets.comment");
    for (end, error, reason) in
        [(revoked, "TENANT_ACCESS_DENIED/link_inactive", "link_inactive"), (muted, "FORBIDDEN/override", "override")]
    {
        let samples = Samples::start("");
        let before = samples.truth("g1-a").tickets[0].clone();
        samples.slow("g1-a", SLOW);
        let asking = changing(&samples, "g1-a");
        end(&samples);
        let answer = asking.join().unwrap();
        assert_eq!((answer.status, &*answer.error()), (403, error), "{}", answer.text());
        assert_eq!(samples.truth("g1-a").tickets[0], before, "nothing arrived");
        assert_eq!(ended(&samples, 1), [json!(403), json!("deny"), json!(reason), json!("forbidden")]);
    }
}

/// The change was made while it was allowed; the comment would come after the end.
#[test]
fn a_user_who_is_suspended_after_the_change_sends_no_comment() {
    let samples = Samples::start("");
    let before = messages(&samples, "g1-a");
    samples.slow("g1-a", SLOW);
    let asking = changing(&samples, "g1-a");
    // The look-up is answered, and the change is on its way.
    thread::sleep(SLOW + Duration::from_millis(700));
    let input = SuspensionInput {
        scope: SuspensionScope::User,
        issuer: None,
        subject: "user-1".into(),
        reason: "incident".into(),
    };
    let id = samples.rig.block_on(samples.rig.admin().suspend(&actor(), &input)).unwrap().value.id;
    let answer = asking.join().unwrap();
    assert_eq!((answer.status, &*answer.error()), (403, "TENANT_ACCESS_DENIED/access_suspended"), "{}", answer.text());
    assert!(answer.text().contains("the ticket was changed, but not all was done"), "{}", answer.text());
    assert_eq!(samples.truth("g1-a").tickets[0]["priority"], "urgent");
    assert_eq!(messages(&samples, "g1-a"), before, "no comment arrived");
    // The decision by which the ticket was changed stands.
    assert_eq!(ended(&samples, 1), [json!(403), Value::Null, json!("access_suspended"), json!("acted")]);
    samples.rig.block_on(samples.rig.admin().restore(&actor(), id)).unwrap();
    thread::sleep(Duration::from_secs(1));
    let again = changing(&samples, "g1-a").join().unwrap();
    assert_eq!((again.status, again.error(), messages(&samples, "g1-a")), (403, answer.error(), before), "told again");
}

/// Nobody hears the answer, and the record tells all the same why nothing was done.
#[test]
fn a_client_that_leaves_takes_no_refusal_with_it() {
    let samples = Samples::start("");
    samples.slow("g1-a", SLOW);
    let before = samples.truth("g1-a").tickets[0].clone();
    let id = before["id"].as_str().unwrap();
    let request = Request::new("PATCH", &format!("{BASE}/support/tickets/{id}")).tenant("g1-a");
    let request = request.json(r#"{"priority":"urgent"}"#);
    let request = request.bearer(&samples.rig.token("user-1", "home-1", "partner_msp_full"));
    let mut connection = Connection::open(samples.rig.public);
    connection.write(&request.bytes());
    while !samples.rig.journal(0).iter().any(|line| line["type"] == "open") {
        thread::sleep(Duration::from_millis(5));
    }
    drop(connection);
    samples.rig.revoke("g1-a");
    assert_eq!(ended(&samples, 1), [json!(403), json!("deny"), json!("link_inactive"), json!("forbidden")]);
    assert_eq!(samples.truth("g1-a").tickets[0], before, "nothing arrived");
}
