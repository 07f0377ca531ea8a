//! A database that takes no writes, seen from outside: what is answered, what readiness says, and how it is over.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

use super::{
    client::{Answer, Request},
    rig::BASE,
    samples::Samples,
};

const NEW: &str = r#"{"subject":"A line is down","description":"since noon","priority":"high"}"#;

fn create(samples: &Samples, key: &str) -> Answer {
    let request = Request::new("POST", &format!("{BASE}/support/tickets")).tenant("g1-a");
    samples.rig.ask(request.header("Idempotency-Key", key).json(NEW))
}

/// Somebody else's connection to the gateway's database.
fn other(samples: &Samples) -> SqliteConnection {
    let url = format!("sqlite://{}", samples.rig.dir.path().join("linkgate.db").display());
    samples.rig.block_on(SqliteConnection::connect(&url)).unwrap()
}

fn run(samples: &Samples, conn: &mut SqliteConnection, sql: &str) {
    samples.rig.block_on(conn.execute(AssertSqlSafe(sql.to_owned()))).unwrap();
}

fn writes(samples: &Samples) -> (u16, Value, bool) {
    let ready = Request::get("/readyz").send(samples.rig.health);
    let checks = ready.json()["checks"].as_array().unwrap().clone();
    let check = checks.into_iter().find(|check| check["name"] == "database_writes").unwrap();
    let metrics = Request::get("/metrics").send(samples.rig.health).text();
    (ready.status, check, metrics.lines().any(|line| line == "linkgate_database_writable 1"))
}

/// As after a disk that was full for a moment: SQLite ends the transaction, and the gateway's own rollback fails.
#[test]
fn a_write_that_failed_stops_no_later_one() {
    let samples = Samples::start("");
    let mut conn = other(&samples);
    let ends = "BEGIN SELECT RAISE(ROLLBACK, 'ended'); END";
    run(&samples, &mut conn, &format!("CREATE TRIGGER ends BEFORE INSERT ON idempotency_keys {ends}"));
    for key in ["a", "b"] {
        let refused = create(&samples, key);
        assert_eq!((refused.status, &*refused.error()), (503, "UPSTREAM_UNAVAILABLE"), "{}", refused.text());
    }
    run(&samples, &mut conn, "DROP TRIGGER ends");
    for key in ["a", "b"] {
        let created = create(&samples, key);
        assert_eq!(created.status, 201, "{}", created.text());
    }
}

#[test]
fn a_locked_database_takes_the_readiness_away_until_it_is_free() {
    let samples = Samples::start("");
    assert_eq!(create(&samples, "before").status, 201);
    let (status, check, writable) = writes(&samples);
    assert_eq!((status, &check["ok"], writable), (200, &true.into(), true));
    let mut conn = other(&samples);
    run(&samples, &mut conn, "BEGIN IMMEDIATE");
    let refused = create(&samples, "locked");
    assert_eq!((refused.status, &*refused.error()), (503, "UPSTREAM_UNAVAILABLE"), "{}", refused.text());
    let (status, check, writable) = writes(&samples);
    assert_eq!((status, &check["ok"], writable), (503, &false.into(), false));
    let message = check["message"].as_str().unwrap();
    assert!(message.contains("`linkgate.db` is locked by another process"), "{message}");
    assert!(!message.contains(samples.rig.dir.path().to_str().unwrap()), "{message}");
    run(&samples, &mut conn, "ROLLBACK");
    // Who is not ready gets no requests: the gateway finds out by itself.
    let freed = Instant::now();
    while writes(&samples).0 != 200 {
        assert!(freed.elapsed() < Duration::from_secs(30), "{:?}", writes(&samples));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(writes(&samples).2);
    assert_eq!(create(&samples, "locked").status, 201, "nothing was done under this key");
}

#[test]
fn alerts_that_cannot_be_read_are_not_taken_for_stale_links() {
    let samples = Samples::start("");
    let mut conn = other(&samples);
    run(&samples, &mut conn, "ALTER TABLE alert_evaluations RENAME TO aside");
    for list in ["/alerts/sla", "/alerts/billing"] {
        let answer = samples.rig.ask(Request::get(&format!("{BASE}{list}")));
        assert_eq!((answer.status, &*answer.error()), (503, "UPSTREAM_UNAVAILABLE"), "{list}: {}", answer.text());
    }
    run(&samples, &mut conn, "ALTER TABLE aside RENAME TO alert_evaluations");
    samples.rig.get("/alerts/sla");
}
