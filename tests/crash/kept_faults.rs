//! The journal kept in Postgres where something went wrong: a database that lost what it had confirmed, a chain that somebody
//! took rows from, a process that was killed within a line.

use std::{collections::HashSet, fs};

use crate::{
    database::on_postgres,
    gateway::{PATIENCE, Setup, eventually},
    kept::{invoices, ledgers, number, raw, setup},
    ledger::Ledger,
};

/// As a failover to a standby does that was behind: the newest rows are gone, from all tables alike.
#[test]
fn a_database_that_lost_what_it_confirmed_gets_nothing_more() {
    let (house, _relay, made) = on_postgres();
    let mut setup = setup();
    setup.audit.push_str("checkpoint_interval = \"1h\"\n");
    let gateway = house.start(&setup);
    assert_eq!(gateway.ask(&invoices(&house)).status, 200);
    eventually("all is indexed", || gateway.metric("linkgate_audit_unindexed_lines") == Some(0.0));
    raw(&house, &made, "CREATE TABLE standby AS SELECT * FROM audit_positions");
    for n in 0..5 {
        assert_eq!(gateway.ask(&invoices(&house).header("X-Request-ID", &format!("late-{n}"))).status, 200);
    }
    eventually("all is indexed", || gateway.metric("linkgate_audit_unindexed_lines") == Some(0.0));
    raw(
        &house,
        &made,
        "BEGIN;
         DELETE FROM audit_chunks USING standby WHERE first_seq > head_seq;
         DELETE FROM audit_journal_runs run USING standby
             WHERE (run.segment, run.segment_start) >= (standby.segment, standby.segment_offset);
         DELETE FROM audit_positions;
         INSERT INTO audit_positions SELECT * FROM standby;
         COMMIT",
    );
    // Also where nobody asks for anything.
    eventually("it is noticed", || gateway.metric("linkgate_audit_healthy") == Some(0.0));
    let answer = gateway.ask(&invoices(&house));
    assert_eq!((answer.status, answer.error()), (503, "AUDIT_UNAVAILABLE".to_owned()));
    let (status, wrong) = gateway.ready();
    let told = wrong.iter().find(|(name, _)| name == "audit").map(|(_, why)| why.clone()).unwrap_or_default();
    assert!(status == 503 && told.contains("has lost audit records") && told.contains("keep a copy"), "{wrong:?}");
    assert_eq!(gateway.alive(), 200, "nobody restarts it before the copy was made");
    assert!(house.log_text().contains("the database has lost audit records that it had confirmed"));
    // The folder has what the database lost.
    let kept = Ledger::fresh(house.journal());
    assert!((0..5).all(|n| kept.by_request(&format!("late-{n}")).len() == 1));
    gateway.kill();
    let gateway = house.start(&setup);
    assert_eq!(gateway.ask(&invoices(&house)).status, 200, "{}", house.log_text());
    let (_out, ledgers) = ledgers(&house);
    assert_eq!(ledgers.len(), 1, "it goes on behind what is left");
}

#[test]
fn a_journal_that_cannot_be_put_together_stops_nobody() {
    let (house, _relay, made) = on_postgres();
    let gateway = house.start(&setup());
    for _ in 0..5 {
        assert_eq!(gateway.ask(&invoices(&house)).status, 200);
    }
    let broken = Ledger::fresh(house.journal()).chain();
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    // Of a server of another name, which is gone; and its beginning was removed.
    raw(
        &house,
        &made,
        "UPDATE audit_journals SET holder = 'elsewhere', taken_at = 0;
         DELETE FROM audit_chunks WHERE first_seq = 1; DELETE FROM audit_journal_runs WHERE segment_start = 0",
    );
    let rows = number(&house, &made, "SELECT count(*) FROM audit_chunks");
    let gateway = house.start(&setup());
    assert_eq!(gateway.ask(&invoices(&house)).status, 200);
    let own = Ledger::fresh(house.journal()).chain();
    assert_ne!(own, broken);
    assert!(house.log_text().contains("it is set aside and kept as it is"), "{}", house.log_text());
    eventually("a metric tells", || gateway.metric("linkgate_audit_journals_set_aside") == Some(1.0));
    let left = number(
        &house,
        &made,
        "SELECT count(*) FROM audit_chunks WHERE chain_id = (SELECT chain_id FROM audit_journals WHERE fault IS NOT NULL)",
    );
    assert_eq!(left, rows, "it is evidence");
    let verified = house.linkgate(&setup(), &["audit", "verify"]);
    let told = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.code() == Some(6) && told.contains("was set aside"), "{verified:?}");
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    let gateway = house.start(&setup());
    assert_eq!(gateway.ask(&invoices(&house)).status, 200);
    assert_eq!(Ledger::fresh(house.journal()).chain(), own, "the next start goes on with its own");
}

/// How far targets are is known at a stop, and a line that was torn on standard output is ended, though the working copy is
/// made anew.
#[test]
fn a_stop_notes_how_far_targets_are_and_a_start_ends_a_torn_line() {
    let (house, _relay, made) = on_postgres();
    let out = house.dir.path().join("stdout.jsonl");
    let mut setup = Setup { stdout: Some(out.clone()), ..setup() };
    setup.audit.push_str("[audit.ship]\nstdout = true\nlines = \"full\"\n");
    let gateway = house.start(&setup);
    for _ in 0..5 {
        assert_eq!(gateway.ask(&invoices(&house)).status, 200);
    }
    // Also where nothing more is written: what the index has is dropped here, and positions are noted.
    let runs = "SELECT count(*) FROM audit_journal_runs";
    eventually("it is tidied", || number(&house, &made, runs) == 0);
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    let behind = "SELECT head_seq - CAST(CAST(state AS JSON) -> 'head' ->> 'seq' AS BIGINT) \
         FROM audit_positions JOIN audit_journal_targets USING (chain_id)";
    assert_eq!(number(&house, &made, behind), 0);
    // Killed within a line.
    fs::write(house.journal().join("ship-stdout.writing"), "").unwrap();
    let before = fs::read_to_string(&out).unwrap();
    fs::write(&out, format!("{before}{{\"torn")).unwrap();
    let gateway = house.start(&setup);
    assert_eq!(gateway.ask(&invoices(&house)).status, 200);
    let shipped = || fs::read_to_string(&out).unwrap();
    eventually("the torn line is ended", || shipped()[before.len()..].starts_with("{\"torn\n{"));
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    let text = shipped();
    let lines: HashSet<_> = text.lines().collect();
    assert_eq!(lines.len(), text.lines().count(), "after a stop nothing comes twice");
}
