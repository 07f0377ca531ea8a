//! `Idempotency-Key` over the death of the process: what may have been done is never done again.

use std::{sync::atomic::Ordering, thread, time::Duration};

use sqlx::{Connection as _, Executor, SqliteConnection};

use crate::{
    client::{Answer, Connection, Request},
    consolidated::{BASE, Consolidated},
    gateway::{Gateway, House, eventually},
    service::Chaos,
};

const NEW: &str = r#"{"subject":"A line is down","description":"since noon"}"#;
const OTHER: &str = r#"{"subject":"Another line is down","description":"since noon"}"#;
const TENANT: &str = "e-0";

fn new_ticket(portal: &Consolidated, key: &str, body: &str) -> Request {
    let request = Request::new("POST", &format!("{BASE}/support/tickets")).tenant(TENANT);
    request.header("Idempotency-Key", key).json(body).bearer(&portal.house.token1())
}

fn create(portal: &Consolidated, gateway: &Gateway, key: &str, body: &str) -> Answer {
    gateway.ask(&new_ticket(portal, key, body))
}

/// Ticket creations that came to the service.
fn sent(portal: &Consolidated) -> usize {
    portal.service.asked(TENANT, "new_ticket")
}

#[test]
fn a_ticket_that_was_on_its_way_at_kill_9_is_not_opened_again() {
    let portal = Consolidated::over(House::new(), 1, 3);
    let path = portal.house.dir.path().join("linkgate.db");
    not_opened_again(&portal);
    // A minute later nobody can be working on it any more, and what became of it is still not known.
    let gateway = portal.start();
    portal.house.block_on(async {
        let mut conn = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        let sql = "UPDATE idempotency_keys SET created_at = created_at - 61000 WHERE state = 'running'";
        assert_eq!(conn.execute(sql).await.unwrap().rows_affected(), 3);
        conn.close().await.unwrap();
    });
    let again = create(&portal, &gateway, "key-0", NEW);
    assert_eq!((again.status, again.error()), (409, "CONFLICT".to_owned()));
    assert!(again.text().contains("is not known"), "{}", again.text());
    assert_eq!(create(&portal, &gateway, "key-0", OTHER).error(), "VALIDATION_ERROR");
    assert_eq!(sent(&portal), 4);
}

#[test]
fn a_ticket_that_was_on_its_way_at_kill_9_is_not_opened_again_on_postgres() {
    let (house, _relay, _made) = crate::database::on_postgres();
    not_opened_again(&Consolidated::over(house, 1, 3));
}

#[test]
fn a_ticket_whose_outcome_the_database_did_not_take_is_told_when_it_is_back() {
    let portal = Consolidated::over(House::new(), 1, 3);
    let url = format!("sqlite://{}", portal.house.dir.path().join("linkgate.db").display());
    let mut conn = portal.house.block_on(SqliteConnection::connect(&url)).unwrap();
    told_when_it_is_back(&portal, |away| {
        let fails = "CREATE TRIGGER away BEFORE UPDATE ON idempotency_keys BEGIN SELECT RAISE(ROLLBACK, 'away'); END";
        let sql = if away { fails } else { "DROP TRIGGER away" };
        portal.house.block_on(conn.execute(sql)).unwrap();
    });
}

#[test]
fn a_ticket_whose_outcome_the_database_did_not_take_is_told_when_it_is_back_on_postgres() {
    let (house, relay, _made) = crate::database::on_postgres();
    told_when_it_is_back(&Consolidated::over(house, 1, 3), |away| relay.away(away));
}

/// The database is away from the claim of the key until the client has its answer.
fn told_when_it_is_back(portal: &Consolidated, mut away: impl FnMut(bool)) {
    let gateway = portal.start();
    portal.service.latency.store(2_000, Ordering::SeqCst);
    portal.service.most_under_way.store(0, Ordering::SeqCst);
    let mut client = Connection::open(gateway.public);
    client.write(&new_ticket(portal, "key", NEW).bytes());
    eventually("the service has it", || portal.service.most_under_way.load(Ordering::SeqCst) == 1);
    away(true);
    let opened = client.answer();
    assert_eq!(opened.status, 201, "{}", opened.text());
    portal.service.latency.store(0, Ordering::SeqCst);
    away(false);
    // Links may be stale for a moment; nothing else is told but what was done.
    let mut again = create(portal, &gateway, "key", NEW);
    eventually("links are fresh", || {
        let stale = again.status == 503;
        if stale {
            again = create(portal, &gateway, "key", NEW);
        }
        !stale
    });
    assert_eq!((again.status, &again.body), (201, &opened.body), "{}", again.text());
    // As every process tells it: the answer is in the database.
    eventually("the outcome is kept", || portal.house.log_text().contains("the outcome of a write is kept now"));
    gateway.kill();
    let gateway = portal.start();
    let again = create(portal, &gateway, "key", NEW);
    assert_eq!((again.status, again.body), (201, opened.body));
    assert_eq!(sent(portal), 1, "exactly one creation");
}

/// Three times over; ends with one ticket that was opened after them.
fn not_opened_again(portal: &Consolidated) {
    let mut gateway = portal.start();
    for round in 0..3 {
        let key = format!("key-{round}");
        portal.service.misbehave(TENANT, "new_ticket", Some(Chaos::Slow(Duration::from_secs(2))));
        let mut client = Connection::open(gateway.public);
        client.write(&new_ticket(portal, &key, NEW).bytes());
        eventually("the service has it", || sent(portal) == round + 1);
        // Just arrived, or nearly answered.
        thread::sleep(Duration::from_millis(round as u64 * 300));
        gateway.kill();
        assert_eq!(client.answer().status, 0, "the client never hears of it");
        portal.service.misbehave(TENANT, "new_ticket", None);
        gateway = portal.start();
        for _ in 0..2 {
            let again = create(portal, &gateway, &key, NEW);
            assert_eq!((again.status, again.error()), (409, "CONFLICT".to_owned()), "{}", again.text());
            let other = create(portal, &gateway, &key, OTHER);
            assert_eq!((other.status, other.error()), (422, "VALIDATION_ERROR".to_owned()));
        }
        assert_eq!(sent(portal), round + 1, "exactly one creation");
    }
    let opened = create(portal, &gateway, "another-key", NEW);
    assert_eq!((opened.status, sent(portal)), (201, 4), "{}", opened.text());
    let replayed = create(portal, &gateway, "another-key", NEW);
    assert_eq!((replayed.status, replayed.body, sent(portal)), (201, opened.body, 4));
    gateway.terminate();
    assert_eq!(gateway.ended(crate::gateway::PATIENCE), Some(0));
}
