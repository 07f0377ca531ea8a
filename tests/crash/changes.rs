//! Changes made by other processes (the command line) reach the chain exactly once, whenever the server dies.

use std::time::{Duration, Instant};

use linkgate::domain::{Millis, link_rules::LinkInput};
use sqlx::{Connection, Row, SqliteConnection};

use crate::{
    gateway::{House, Setup, actor, eventually},
    ledger::Ledger,
};

/// One change as `linkgate link update` commits it.
fn change(house: &House, note: &str) {
    let input = LinkInput { notes: Some(Some(note.to_owned())), ..LinkInput::default() };
    house.block_on(house.admin().update_link(&actor(), house.link, None, &input)).unwrap();
}

/// All changes that were ever committed, in their order, and how many are not marked as chained.
fn outbox(house: &House) -> (Vec<String>, usize) {
    let url = format!("sqlite://{}", house.dir.path().join("linkgate.db").display());
    house.block_on(async {
        let mut conn = SqliteConnection::connect(&url).await.unwrap();
        let rows =
            sqlx::query("SELECT id, chained_at FROM audit_outbox ORDER BY seq").fetch_all(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        let waiting = rows.iter().filter(|row| row.get::<Option<i64>, _>(1).is_none()).count();
        (rows.iter().map(|row| row.get(0)).collect(), waiting)
    })
}

#[test]
fn changes_reach_the_chain_exactly_once_across_kill_9() {
    let house = House::new();
    let mut ledger = Ledger::new(house.journal());
    let setup = Setup { audit: "writes = \"os\"\nsegment_size = \"64KiB\"\n".into(), ..Setup::default() };
    let mut between = 0;
    for round in 0..12 {
        // While it is down; once more than are claimed at a time.
        for count in 0..if round == 3 { 150 } else { 2 } {
            change(&house, &format!("down {round}.{count}"));
        }
        let gateway = house.start(&setup);
        if round % 2 == 0 {
            // Killed as soon as the line stands in the file: before the row is marked, if we are quick.
            let before = ledger.changes.len();
            eventually("the changes are chained", || {
                ledger.read();
                ledger.changes.len() > before
            });
        } else {
            change(&house, &format!("up {round}"));
            std::thread::sleep(Duration::from_millis(round * 61 % 500));
        }
        gateway.kill();
        ledger.read();
        let (all, waiting) = outbox(&house);
        // Each once and in order, whatever was cut: what is in the chain is the beginning of what was committed.
        assert!(all.starts_with(&ledger.changes), "round {round}: {all:?} {:?}", ledger.changes);
        between += usize::from(ledger.changes.len() > all.len() - waiting);
    }
    assert!(between > 0, "no kill came between the append and the mark");
    let gateway = house.start(&setup);
    change(&house, "last");
    eventually("every change is chained", || outbox(&house).1 == 0);
    ledger.read();
    assert_eq!(ledger.changes, outbox(&house).0);
    ledger.agrees_with_index(&house, Millis(0), 0);
    ledger.changes_are_indexed(&house);
    gateway.terminate();
    assert_eq!(gateway.ended(Duration::from_secs(10)), Some(0), "{}", house.log_text());
    ledger.verify(&house);
}

#[test]
fn a_change_while_the_server_runs_is_chained_and_indexed_soon() {
    let house = House::new();
    let mut ledger = Ledger::new(house.journal());
    let gateway = house.start(&Setup::default());
    change(&house, "now");
    let since = Instant::now();
    eventually("the change is chained", || {
        ledger.read();
        ledger.changes == outbox(&house).0
    });
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    ledger.agrees_with_index(&house, Millis(0), 0);
    ledger.changes_are_indexed(&house);
    drop(gateway);
}
