//! The commands over journals that are kept in Postgres, beside servers that run and after those that are gone.

use std::{fs, time::Duration};

use linkgate::{
    app::kept::go_on,
    audit::{AuditSettings, Durability, OutboxSource},
    store::{Extent, PostgresDepot, emptied},
};
use sqlx::{Connection, Executor, PgConnection};

use crate::{
    client::Request,
    database::on_postgres,
    gateway::{PATIENCE, Setup, eventually},
    kept::{invoices, ledgers, number, raw, setup},
    ledger::Ledger,
};

#[test]
fn the_commands_go_over_every_chain_and_find_one_that_was_emptied() {
    let (house, _relay, made) = on_postgres();
    let request = || Request::get("/api/invoices").bearer(&house.token1()).tenant("t-full");
    let gateways = ["first", "second"].map(|journal| house.start(&Setup { journal, ..setup() }));
    for (number, gateway) in gateways.into_iter().enumerate() {
        assert_eq!(gateway.ask(&request().header("X-Request-ID", &format!("rq-{number}"))).status, 200);
        gateway.terminate();
        assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    }
    let file = house.dir.path().join("records.jsonl");
    let export = || house.linkgate(&setup(), &["audit", "export", "-o", file.to_str().unwrap()]);
    let done = export();
    assert!(done.status.success(), "{done:?}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("rq-0") && text.contains("rq-1"), "of both chains");
    assert!(!export().status.success(), "a file that is there is not written over");
    assert!(fs::read_to_string(&file).unwrap() == text, "it was added to");

    let run = |sql: &'static str| {
        house.block_on(async { PgConnection::connect(&made.url).await.unwrap().execute(sql).await.unwrap() });
    };
    for table in [
        "DELETE FROM audit_chunks WHERE chain_id = (SELECT min(chain_id::text)::uuid FROM audit_journals)",
        "DELETE FROM audit_journal_runs WHERE chain_id = (SELECT min(chain_id::text)::uuid FROM audit_journals)",
        "DELETE FROM audit_positions WHERE chain_id = (SELECT min(chain_id::text)::uuid FROM audit_journals)",
    ] {
        run(table);
    }
    let verified = house.linkgate(&setup(), &["audit", "verify"]);
    assert_eq!(verified.status.code(), Some(6), "{verified:?}");
    run("DELETE FROM audit_journal_targets");
    run("DELETE FROM audit_journal_runs");
    run("DELETE FROM audit_journals");
    let verified = house.linkgate(&setup(), &["audit", "verify"]);
    assert_eq!(verified.status.code(), Some(6), "{verified:?}");
}

#[test]
fn what_a_lost_server_had_claimed_is_released_as_its_chain_says() {
    let (house, _relay, made) = on_postgres();
    let store = house.audit_store();
    let dir = house.dir.path().join("gone");
    emptied(&dir).unwrap();
    let settings = AuditSettings {
        dir,
        segment_bytes: 1 << 20,
        segment_age: None,
        writes: Durability::Os,
        reads: Durability::Os,
        commit_timeout: PATIENCE,
        flush_interval: Duration::from_millis(1),
    };
    let (chain, journal) = house.block_on(async {
        let depot = PostgresDepot::claim(&house.database, "gone").await.unwrap();
        let chain = depot.chain();
        let opened = go_on(&store, depot, settings, Extent::ToGoOn).await.unwrap().unwrap();
        let claimed = store.claim(chain, 3).await.unwrap();
        assert_eq!(claimed.len(), 3);
        // Chained, and not marked: so it died.
        opened.journal.append_outbox(&claimed[..1]).await.unwrap();
        (chain.0.to_string(), opened.journal)
    });
    let release = |words: &[&str]| {
        let words = [&["--json", "audit", "outbox", "release", "--claimant", &chain], words].concat();
        let ran = house.linkgate(&setup(), &words);
        (ran.status.code().unwrap(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    };
    let (code, told) = release(&["--yes"]);
    assert!(code == 5 && told.contains("a server has the chain"), "{code} {told}");
    // Its connection ends with it.
    house.block_on(async { tokio::task::spawn_blocking(move || drop(journal)).await }).unwrap();
    let (code, told) = release(&["--yes"]);
    assert!(
        code == 5 && told.contains("a server has the chain"),
        "it may only have lost its connection: {code} {told}"
    );
    raw(&house, &made, "UPDATE audit_journals SET taken_at = 0");
    let (code, told) = release(&["--yes", "--journal", house.dir.path().to_str().unwrap()]);
    assert!(code == 3 && told.contains("leave `--journal` out"), "{code} {told}");
    let (code, told) = release(&["--yes", "--journal-lost"]);
    assert!(code == 3 && told.contains("leave `--journal-lost` out"), "{code} {told}");
    // Where lines of it are missing nobody knows what it had chained.
    raw(&house, &made, "CREATE TABLE aside AS SELECT * FROM audit_journal_runs; DELETE FROM audit_journal_runs");
    let (code, told) = release(&["--yes"]);
    assert!(code == 6 && told.contains("nobody knows what it had chained"), "{code} {told}");
    raw(&house, &made, "INSERT INTO audit_journal_runs SELECT * FROM aside WHERE segment_start > 0");
    let (code, told) = release(&["--yes"]);
    assert!(code == 6 && told.contains("nobody knows what it had chained"), "{code} {told}");
    raw(&house, &made, "DELETE FROM audit_journal_runs; INSERT INTO audit_journal_runs SELECT * FROM aside");
    let (code, told) = release(&[]);
    assert!(code == 8 && told.contains("gives 2 changes") && told.contains("marks 1"), "{code} {told}");
    let (code, told) = release(&["--yes"]);
    assert!(code == 0 && told.contains("\"released\": 2") && told.contains("\"marked\": 1"), "{code} {told}");
    let (code, told) = release(&["--yes"]);
    assert_eq!(code, 4, "{told}");
    // Each is chained once, whoever does it.
    let gateway = house.start(&setup());
    let waiting = "SELECT count(*) FROM audit_outbox WHERE chained_at IS NULL";
    eventually("the others chain it", || number(&house, &made, waiting) == 0);
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    let (_out, ledgers) = ledgers(&house);
    let changes = Ledger::union(&ledgers).changes.len();
    assert_eq!(i64::try_from(changes).unwrap(), number(&house, &made, "SELECT count(*) FROM audit_outbox"));
}

#[test]
fn the_command_prunes_journals_of_running_servers_and_of_others() {
    let (house, _relay, made) = on_postgres();
    let setup = Setup { audit: setup().audit.replace("128KiB", "64KiB"), ..setup() };
    let gateways = ["first", "second"].map(|journal| house.start(&Setup { journal, ..setup.clone() }));
    for gateway in &gateways {
        let finished = || number(&house, &made, "SELECT CAST(min(segment) AS BIGINT) FROM audit_positions") > 2;
        eventually("segments are closed", || {
            (0..20).for_each(|_| assert_eq!(gateway.ask(&invoices(&house)).status, 200));
            finished() || number(&house, &made, "SELECT CAST(max(segment) AS BIGINT) FROM audit_positions") > 2
        });
    }
    let [first, second] = gateways;
    eventually("both have closed some", || {
        (0..20).for_each(|_| assert_eq!(second.ask(&invoices(&house)).status, 200));
        number(&house, &made, "SELECT CAST(min(segment) AS BIGINT) FROM audit_positions") > 2
    });
    first.kill();
    let gone = Ledger::new(house.dir.path().join("first")).chain();
    raw(&house, &made, format!("UPDATE audit_journals SET taken_at = 0 WHERE chain_id = '{gone}'"));
    let prune = |words: &[&str]| {
        let words = [&["audit", "prune", "--before", "2999-01-01"], words].concat();
        let ran = house.linkgate(&setup, &words);
        (ran.status.code().unwrap(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    };
    let both = |told: &str| told.matches("go for good").count() == 2;
    eventually("ends of segments are signed", || both(&prune(&["--dry-run"]).1));
    let rows = number(&house, &made, "SELECT count(*) FROM audit_chunks");
    let (code, told) = prune(&[]);
    assert!(code == 8 && both(&told), "{code} {told}");
    assert_eq!(number(&house, &made, "SELECT count(*) FROM audit_floors WHERE last_seq > 0"), 0, "nothing was done");
    let (code, told) = prune(&["--yes"]);
    assert!(code == 0 && told.matches("segments are gone").count() == 2, "{code} {told}");
    assert!(number(&house, &made, "SELECT count(*) FROM audit_chunks") < rows, "by hand they go at once");
    assert_eq!(second.ask(&invoices(&house)).status, 200, "whoever runs goes on");
    let verified = house.linkgate(&setup, &["audit", "verify"]);
    let told = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success() && told.matches("was pruned").count() == 2, "{verified:?}");
    for command in ["verify", "checkpoint"] {
        let said = house.linkgate(&setup, &["--json", "audit", command]);
        let both: Vec<serde_json::Value> = serde_json::from_slice(&said.stdout).unwrap();
        assert!(said.status.success() && said.stderr.is_empty() && both.len() == 2, "{said:?}");
        assert!(both.iter().all(|one| one["chain_id"].is_string() && one["result"].is_object()), "{both:?}");
    }
    // Who still runs may end one more segment here: it is refused until its end is signed, and goes then. Nothing is left behind it.
    eventually("nothing is left to prune", || {
        let (code, told) = prune(&["--yes"]);
        assert!(code == 4 || code == 0 || (code == 5 && told.contains("no signed checkpoint")), "{code} {told}");
        code == 4
    });
    second.terminate();
    assert_eq!(second.ended(PATIENCE), Some(0), "{}", house.log_text());
    let gateway = house.start(&setup);
    assert_eq!(gateway.ask(&invoices(&house)).status, 200, "a start goes on behind what was pruned");
}
