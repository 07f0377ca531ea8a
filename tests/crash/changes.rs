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

/// While it is up, no row can be marked as chained: a kill then comes after the append and before the mark.
fn marking(house: &House, possible: bool) {
    let url = format!("sqlite://{}", house.dir.path().join("linkgate.db").display());
    let sql = match possible {
        true => "DROP TRIGGER no_marks",
        false => {
            "CREATE TRIGGER no_marks BEFORE UPDATE OF chained_at ON audit_outbox \
             BEGIN SELECT RAISE(ABORT, 'the test lets no row be marked'); END"
        }
    };
    house.block_on(async {
        let mut conn = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    });
}

#[test]
fn changes_reach_the_chain_exactly_once_across_kill_9() {
    let house = House::new();
    let mut ledger = Ledger::new(house.journal());
    let setup = Setup { audit: "writes = \"os\"\nsegment_size = \"64KiB\"\n".into(), ..Setup::default() };
    for round in 0..12 {
        // While it is down; at last more than are claimed at a time, when rows can be marked again to the end.
        for count in 0..if round == 11 { 150 } else { 2 } {
            change(&house, &format!("down {round}.{count}"));
        }
        let marks = round % 2 != 0;
        if !marks {
            marking(&house, false);
        }
        let gateway = house.start(&setup);
        if !marks {
            // Killed when the line stands in the file, and the row is not marked.
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
        if !marks {
            marking(&house, true);
        }
        ledger.read();
        let (all, waiting) = outbox(&house);
        // Each once and in order, whatever was cut: what is in the chain is the beginning of what was committed.
        assert!(all.starts_with(&ledger.changes), "round {round}: {all:?} {:?}", ledger.changes);
        assert!(marks || ledger.changes.len() > all.len() - waiting, "round {round}: between the append and the mark");
    }
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
