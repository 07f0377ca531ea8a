//! The journal kept in Postgres, for replicas without a volume: `kill -9` under load, and the folder lost each time; the
//! database away; a chain that another server has taken.

use std::{collections::HashSet, fs, time::Duration};

use linkgate::store::{Extent, PostgresDepot};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{
    client::Request,
    database::on_postgres,
    gateway::{House, PATIENCE, Setup, eventually, folder},
    ledger::Ledger,
    load::{Load, Mix, reconcile},
    log_collector::Collector,
    postgres_support::PostgresDatabase,
};

pub fn setup() -> Setup {
    Setup {
        audit: "store = \"postgres\"\nwrites = \"disk\"\nreads = \"os\"\nsegment_size = \"128KiB\"\n".into(),
        ..Setup::default()
    }
}

/// Every chain as the database has it, written out, verified and read.
pub fn ledgers(house: &House) -> (tempfile::TempDir, Vec<Ledger>) {
    let out = folder();
    let store = house.audit_store();
    let chains = house.block_on(store.kept_chains()).unwrap();
    let ledgers = chains.into_iter().map(|chain| {
        let dir = out.path().join(chain.to_string());
        fs::create_dir(&dir).unwrap();
        // The head is read first: a gateway only moves on from it.
        let stored = house.indexed(chain);
        house.block_on(store.rebuild(chain, &dir, Extent::Whole)).unwrap();
        let ledger = Ledger::fresh(dir);
        assert!(stored.is_none_or(|stored| stored.seq <= ledger.last_seq), "{stored:?}");
        ledger.verify(house);
        ledger
    });
    let ledgers = ledgers.collect();
    (out, ledgers)
}

/// Past the gateway, as somebody with a shell would do it.
pub fn raw(house: &House, made: &PostgresDatabase, sql: impl Into<String>) {
    house.block_on(async {
        let mut conn = PgConnection::connect(&made.url).await.unwrap();
        conn.execute(sqlx::raw_sql(AssertSqlSafe(sql.into()))).await.unwrap();
        conn.close().await.unwrap();
    });
}

pub fn number(house: &House, made: &PostgresDatabase, sql: &'static str) -> i64 {
    house.block_on(async {
        let mut conn = PgConnection::connect(&made.url).await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
    })
}

fn lose_the_folder(house: &House) {
    fs::remove_dir_all(house.journal()).unwrap();
}

#[test]
fn every_answer_has_exactly_one_record_though_the_folder_is_lost_each_time() {
    let (house, _relay, _made) = on_postgres();
    let (mix, mut setup, collector) = (Mix::of(&house), setup(), Collector::start());
    let endpoint = collector.url();
    setup.audit.push_str(&format!("[audit.ship]\nlines = \"full\"\notlp = {{ endpoint = \"{endpoint}\" }}\n"));
    let mut gateway = house.start(&setup);
    let rounds = 5;
    let (mut answered, mut aborted) = (0, 0);
    for round in 0..rounds {
        let seen = house.upstream.count();
        let load = Load::start(&mix, gateway.public, 8);
        load.until(50 + round * 37 % 120);
        gateway.kill();
        let told = load.stop();
        lose_the_folder(&house);
        if round % 2 == 1 {
            // Also while it puts the journal together again.
            house.start_and_kill(&setup, Duration::from_millis(round as u64 * 71 % 400));
        }
        gateway = house.start(&setup);
        let (_out, ledgers) = ledgers(&house);
        let all = Ledger::union(&ledgers);
        reconcile(&house, &all, &told, seen);
        let open: Vec<_> = all.records.iter().filter(|(_, entry)| entry.completion.is_none()).collect();
        assert!(open.is_empty(), "round {round}: left open: {open:?}");
        answered += told.iter().filter(|one| one.status != 0).count();
        aborted = all.records.values().filter(|entry| entry.completion.as_ref().unwrap().aborted).count();
    }
    assert!(answered >= 50 * rounds && aborted > 0, "{answered} {aborted}");
    let own = Ledger::new(house.journal()).chain();
    eventually("all is shipped", || gateway.metric("linkgate_audit_ship_lag_lines{target=\"otlp\"}") == Some(0.0));
    let first = house.journal().join("segment-0000000001.jsonl");
    eventually("the working copy is kept small", || !first.exists());
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    let (out, ledgers) = ledgers(&house);
    assert!(ledgers.len() <= 2, "a chain is gone on with: {}", ledgers.len());
    for ledger in &ledgers {
        ledger.agrees_with_index(&house, linkgate::domain::Millis(0), 0);
    }
    // How far a target is outlives the folder too: no line is left out, whatever was lost.
    let told: HashSet<String> = collector.lines().into_iter().collect();
    let segments = fs::read_dir(out.path().join(own.to_string())).unwrap().map(|entry| entry.unwrap().path());
    let segments = segments.filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    let lines: Vec<String> = segments
        .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let missing: Vec<_> = lines.iter().filter(|line| !told.contains(*line)).collect();
    assert!(lines.len() > 100 && missing.is_empty(), "{} of {}: {:?}", missing.len(), lines.len(), missing.first());
    let verified = house.linkgate(&setup, &["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
    assert!(String::from_utf8_lossy(&verified.stdout).contains("lines in"), "{verified:?}");
}

#[test]
fn without_the_database_nothing_is_done_that_must_be_recorded() {
    let (house, relay, _made) = on_postgres();
    let gateway = house.start(&setup());
    assert_eq!(gateway.ready(), (200, Vec::new()));
    let load = Load::start(&Mix::of(&house), gateway.public, 6);
    load.until(60);
    relay.away(true);
    let ask = || {
        let request = Request::get("/api/invoices").bearer(&house.token1()).tenant("t-full");
        gateway.ask(&request).error()
    };
    eventually("the journal refuses", || ask() == "AUDIT_UNAVAILABLE");
    eventually("it says so", || gateway.metric("linkgate_audit_healthy") == Some(0.0));
    let before = load.answers.load(std::sync::atomic::Ordering::SeqCst);
    load.until(before + 50);
    relay.away(false);
    eventually("it goes on by itself", || gateway.metric("linkgate_audit_healthy") == Some(1.0));
    let after = load.answers.load(std::sync::atomic::Ordering::SeqCst);
    load.until(after + 60);
    let told = load.stop();
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    let (_out, ledgers) = ledgers(&house);
    let all = Ledger::union(&ledgers);
    reconcile(&house, &all, &told, 0);
    assert!(all.records.values().all(|entry| entry.completion.is_some()));
    assert_eq!(ledgers.len(), 1);
}

#[test]
fn a_chain_has_one_writer_and_whoever_lost_it_records_nothing_more() {
    let (house, _relay, made) = on_postgres();
    let gateway = house.start(&setup());
    let ask = || gateway.ask(&Request::get("/api/invoices").bearer(&house.token1()).tenant("t-full"));
    assert_eq!(ask().status, 200, "{}", house.log_text());
    // A folder with a journal of its own is left as it is.
    let on_disk = Setup { journal: "second", ..Setup::default() };
    house.start(&on_disk).kill();
    let before = Ledger::fresh(house.dir.path().join("second")).last_seq;
    let (refused, log) = house.refused_start(&Setup { journal: "second", ..setup() });
    assert!(!refused.success() && log.contains("holds a journal of its own"), "{log}");
    assert_eq!(Ledger::fresh(house.dir.path().join("second")).last_seq, before);
    // One that starts beside it gets another chain.
    let other = house.block_on(PostgresDepot::claim(&house.database, "another")).ok().unwrap();
    let store = house.audit_store();
    let chains = house.block_on(store.kept_chains()).unwrap();
    assert_eq!((chains.len(), chains.contains(&other.chain())), (2, true));
    // That a connection broke does not mean that its server is gone: nobody else takes the chain so soon.
    let lost = other.chain();
    drop(other);
    let third = house.block_on(PostgresDepot::claim(&house.database, "third")).ok().unwrap();
    assert_ne!(third.chain(), lost);
    let again = house.block_on(PostgresDepot::claim(&house.database, "another")).ok().unwrap();
    assert_eq!(again.chain(), lost, "but itself");
    assert_eq!(gateway.alive(), 200);
    house.block_on(async {
        let mut conn = PgConnection::connect(&made.url).await.unwrap();
        conn.execute("UPDATE audit_journals SET epoch = epoch + 1").await.unwrap();
    });
    assert_eq!((ask().status, ask().error()), (503, "AUDIT_UNAVAILABLE".to_owned()));
    let (status, wrong) = gateway.ready();
    assert_eq!((status, wrong.iter().any(|(name, _)| name == "audit")), (503, true), "{wrong:?}");
    assert_eq!(gateway.alive(), 503, "only a restart helps");
    gateway.kill();
    lose_the_folder(&house);
    let gateway = house.start(&setup());
    let answer = gateway.ask(&Request::get("/api/invoices").bearer(&house.token1()).tenant("t-full"));
    assert_eq!(answer.status, 200, "{}", house.log_text());
}

pub fn invoices(house: &House) -> Request {
    Request::get("/api/invoices").bearer(&house.token1()).tenant("t-full")
}
