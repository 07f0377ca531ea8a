//! Retention by age: what goes, what holds it up, and that the chain tells of it. On Postgres, the months of the index.

use std::{fs, sync::Arc, time::Duration};

use linkgate::{
    audit::{
        RecordFilter, RecordSource, RetainedIndex,
        evidence::{prune::PruneError, witness::Witness},
        reader::segments,
        retention::{OnDisk, Retention, RetentionSettings},
        ship::{FileSettings, Form, ShipSettings, Shipper},
        verify::{Verification, VerifyOptions, verify_against},
    },
    domain::Millis,
    store::AuditStore,
};

use crate::{
    evidence::House,
    fixture::{Fixture, Kind},
};

const DAY: i64 = 86_400_000;
pub(crate) const NOWHERE: ShipSettings = ShipSettings { form: Form::Full, stdout: false, file: None, otlp: None };

/// A journal of this many segments at least, all indexed and signed.
async fn journal_of(f: &Fixture, wanted: u64) -> House {
    let house = House::new(f, 66_000);
    while house.journal.status().written.segment < wanted {
        house.write(5).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    house.write(3).await;
    house.index().await;
    house.sign().await;
    house
}

/// Of a day.
fn retention(house: &House, ship: ShipSettings) -> Retention<AuditStore, OnDisk<AuditStore>> {
    let settings = RetentionSettings { age: Duration::from_secs(86_400), keys: house.keys(), ship };
    Retention::new(house.journal.clone(), Arc::clone(&house.store), settings)
}

pub(crate) fn days_from_now(days: i64) -> Millis {
    Millis(Millis::now().0 + days * DAY)
}

fn verified(house: &House) -> Verification {
    let mut witness = Witness::new(house.journal.chain_id());
    witness.recall_shelf(&house.dir, &house.keys()).unwrap();
    verify_against(&house.dir, VerifyOptions::default(), Some(&mut witness)).unwrap()
}

async fn records(house: &House) -> usize {
    house.store.query(&RecordFilter::default()).await.unwrap().len()
}

pub(crate) async fn old_records_go_and_the_chain_tells_of_it(f: Arc<Fixture>) {
    let house = journal_of(&f, 3).await;
    let (last, all) = (*segments(&house.dir).unwrap().last().unwrap(), records(&house).await);
    let mut retention = retention(&house, NOWHERE);
    let round = retention.round(Millis::now()).await.unwrap();
    assert!(round.segments.is_none() && round.held.is_none() && round.months.is_empty(), "all of it is young");
    let overdue = retention.progress();
    assert_eq!(overdue.overdue_seconds(), 0);

    let round = retention.round(days_from_now(2)).await.unwrap();
    assert_eq!(round.segments, Some((1, last - 1)));
    assert_eq!(segments(&house.dir).unwrap(), [last], "the one that is written stays");
    assert_eq!(overdue.overdue_seconds(), 0);
    house.sign().await;
    let result = verified(&house);
    assert!(result.is_sound(), "{:?}", result.findings);
    let told = result.pruned.unwrap();
    assert_eq!(
        (told.segment, told.by.as_deref(), told.reason.as_deref()),
        (last - 1, Some("linkgate"), Some("retention"))
    );
    assert_eq!(result.from_checkpoint.unwrap().seq + 1, result.head.seq + 1 - result.lines);
    house.index().await;
    if f.kind == Kind::Sqlite {
        let left = records(&house).await;
        assert!(left < all / 2, "{left} of {all}: the index points into segments that are gone");
    }
    let round = retention.round(days_from_now(2)).await.unwrap();
    assert!(round.segments.is_none() && round.held.is_none(), "nothing more");
}

pub(crate) async fn what_is_not_shipped_stays_and_what_lies_before_it_goes(f: Arc<Fixture>) {
    let house = House::new(&f, 66_000);
    let file = FileSettings { path: f.dir.path().join("shipped.jsonl"), size: 1 << 30 };
    let ship = ShipSettings { file: Some(file), ..NOWHERE };
    let shipper = || Shipper::new(house.journal.clone(), ship.targets().remove(0), Form::Full);
    let until = async |segment: u64| {
        while house.journal.status().written.segment < segment {
            house.write(5).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        house.write(1).await;
    };
    until(3).await;
    shipper().catch_up().await.unwrap();
    let shipped = house.journal.status().written.segment;
    until(shipped + 3).await;
    house.index().await;
    // Without a checkpoint nothing goes at all.
    let mut retention = retention(&house, ship.clone());
    let held = retention.round(days_from_now(3)).await.unwrap().held;
    assert!(matches!(held, Some(PruneError::NoCheckpoint(_))), "{held:?}");
    house.sign().await;

    let round = retention.round(days_from_now(3)).await.unwrap();
    assert_eq!(round.segments, Some((1, shipped - 1)), "{:?}", round.held);
    assert!(matches!(round.held, Some(PruneError::NotShipped { target: "file", .. })), "{:?}", round.held);
    let progress = retention.progress();
    // A day old may they get, and three have passed.
    assert!((172_700..172_900).contains(&progress.overdue_seconds()), "{}", progress.overdue_seconds());
    let last = *segments(&house.dir).unwrap().last().unwrap();
    shipper().catch_up().await.unwrap();
    let round = retention.round(days_from_now(3)).await.unwrap();
    assert_eq!((round.segments, round.held.is_none()), (Some((shipped, last - 1)), true), "{:?}", round.held);
    assert_eq!(progress.overdue_seconds(), 0);
    // Every line of before is with the target, and none twice.
    shipper().catch_up().await.unwrap();
    let text = fs::read_to_string(&ship.file.unwrap().path).unwrap();
    let seqs =
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap());
    assert!(seqs.eq(1..=house.journal.status().last_seq));
    assert!(verified(&house).is_sound());
}

/// The name of a partition that is over in seventy days.
const FIRST: &str = "audit_chunks_first";

/// For the database too.
async fn time_passes(f: &Fixture) {
    let clock = "'SELECT CAST(extract(epoch FROM now() + INTERVAL ''500 days'') * 1000 AS BIGINT)'";
    f.raw(format!("CREATE OR REPLACE FUNCTION audit_clock() RETURNS BIGINT LANGUAGE sql STABLE AS {clock}"))
        .await
        .unwrap();
}

pub(crate) async fn months_are_there_and_go_as_a_whole(f: Arc<Fixture>) {
    let house = journal_of(&f, 2).await;
    let chain = house.journal.chain_id();
    if f.kind == Kind::Sqlite {
        assert_eq!(house.store.make_months().await.unwrap(), 0);
        assert!(house.store.months_over(days_from_now(70)).await.unwrap().is_empty(), "SQLite has none");
        return;
    }
    assert_eq!(f.count("SELECT count(*) FROM audit_chunk_months").await, 7, "this month and six");
    f.raw("DROP TABLE audit_chunks_first CASCADE").await.unwrap();
    assert!(house.store.make_months().await.unwrap() == 1, "the one of now was missing");
    assert_eq!(house.store.make_months().await.unwrap(), 0);
    let own = f.count("SELECT audit_month_of(now())").await;
    let month = format!("audit_chunks_{own}");
    house
        .journal
        .append_change(&linkgate::audit::ChangeRecord::new(linkgate::audit::Kind::Admin, "some.change"))
        .await
        .unwrap();
    house.index().await;
    let rows = f.count(&format!("SELECT count(*) FROM {month}")).await;
    assert!(rows > 0, "what is indexed now lies in the month of now");

    // Chunks that are still open when a month ends are not made one with those of the next.
    f.raw("UPDATE audit_chunks SET month = audit_month_of(now() + INTERVAL '40 days')").await.unwrap();
    house.write(1).await;
    house.index().await;
    assert_eq!(f.count("SELECT count(DISTINCT month) FROM audit_chunks").await, 2);
    assert_eq!(
        f.count("SELECT count(*) FROM audit_chunks WHERE NOT sealed").await,
        1,
        "those of the other month are sealed"
    );
    f.raw("UPDATE audit_chunks SET month = audit_month_of(now())").await.unwrap();

    // As long as the chain still writes, it has to give up what is to go.
    let later = days_from_now(70);
    f.raw(format!(
        "INSERT INTO audit_chunks (chain_id, segment, segment_start, segment_end, first_seq, last_seq, first_time, last_time, \
         records, sealed, terms, lines, month) SELECT '{chain}', 99, 0, 0, 1000000, 1000000, {0}, {0}, 1, true, '', '', \
         CAST(right(max(name), 6) AS BIGINT) FROM audit_chunk_months",
        later.0
    ))
    .await
    .unwrap();
    // Empty ones between are over too.
    let over = async || house.store.months_over(later).await.unwrap().contains(&month);
    assert!(!over().await && !house.store.drop_month(&month, later).await.unwrap());
    house.store.give_up(chain, 1, 3).await.unwrap();
    assert!(!over().await, "not all of it");
    house.store.give_up(chain, 1, house.journal.status().last_seq).await.unwrap();
    assert!(over().await);
    // The index is the only copy of a journal that is kept in the database: what was not given up stays, however old.
    let given_up = f.count("SELECT last_seq FROM audit_floors").await;
    f.raw("UPDATE audit_floors SET last_seq = 3").await.unwrap();
    f.raw("UPDATE audit_chunks SET chain_id = gen_random_uuid() WHERE segment = 99").await.unwrap();
    assert!(over().await, "a replica that is gone");
    f.raw(format!("INSERT INTO audit_journals (chain_id, epoch, holder, taken_at) VALUES ('{chain}', 1, 'x', 1)"))
        .await
        .unwrap();
    assert!(!over().await);
    f.raw(format!("UPDATE audit_floors SET last_seq = {given_up}")).await.unwrap();
    assert!(over().await, "what was given up goes there too");
    f.raw("DELETE FROM audit_journals").await.unwrap();
    f.raw(format!("UPDATE audit_chunks SET chain_id = '{chain}' WHERE segment = 99")).await.unwrap();
    assert!(!house.store.drop_month(&month, Millis::now()).await.unwrap(), "it is not over");
    assert!(
        !house.store.drop_month(&month, later).await.unwrap(),
        "one clock that is ahead takes nobody's records away"
    );
    time_passes(&f).await;
    // What is young keeps its month, whoever gave it up.
    f.raw(format!("UPDATE audit_chunks SET last_time = {} WHERE month = {own}", later.0)).await.unwrap();
    assert!(!over().await && !house.store.drop_month(&month, later).await.unwrap());
    f.raw(format!("UPDATE audit_chunks SET last_time = 1 WHERE month = {own}")).await.unwrap();

    let mut retention = retention(&house, NOWHERE);
    let round = retention.round(Millis(later.0 + DAY)).await.unwrap();
    assert!(round.months.contains(&month), "{:?}", round.months);
    assert_eq!(f.count("SELECT count(*) FROM audit_chunks").await, 1, "the young one");
    assert!(!house.store.drop_month(&month, later).await.unwrap(), "it is gone");
    let text: String = segments(&house.dir)
        .unwrap()
        .into_iter()
        .map(|number| fs::read_to_string(linkgate::audit::reader::segment_path(&house.dir, number)).unwrap())
        .collect();
    assert!(text.contains(&format!("\"resource_id\":\"{month}\"")), "the chain tells of it");
    // Of a replica that is gone nobody gives anything up.
    f.raw("UPDATE audit_chunks SET last_time = 1, chain_id = gen_random_uuid()").await.unwrap();
    let young = f.count("SELECT month FROM audit_chunks").await;
    let held = async |at| house.store.months_over(at).await.unwrap().contains(&format!("audit_chunks_{young}"));
    assert!(!held(later).await, "its month is not over");
    assert!(held(days_from_now(400)).await);
}

/// As a binary of before the months wrote it.
const COLUMNS: &str = "chain_id, segment, segment_start, segment_end, first_seq, last_seq, first_time, last_time, records, \
     sealed, terms, lines";

pub(crate) async fn what_was_indexed_before_there_were_months_is_found_and_goes(f: Arc<Fixture>) {
    if f.kind == Kind::Sqlite {
        // The schema of before is that of now.
        let sql = "SELECT count(*) FROM pragma_table_info('audit_chunks') WHERE name = 'month'";
        assert_eq!(f.audit_count(sql).await, 0);
        return;
    }
    let house = journal_of(&f, 2).await;
    let all = records(&house).await;
    f.raw(format!(
        "CREATE SCHEMA before; CREATE TABLE before.chunks AS SELECT {COLUMNS} FROM audit_chunks ORDER BY chunk; \
         DROP VIEW audit_chunk_months; DROP TABLE audit_chunks; DROP SEQUENCE audit_chunk_numbers; DROP TABLE audit_floors; \
         DROP FUNCTION audit_month_of, audit_months_make, audit_month_kept, audit_month_drop, audit_clock"
    ))
    .await
    .unwrap();
    let of_before = include_str!("../../migrations/postgres/0003_audit_chunks.sql");
    let (_, chunks) = of_before.split_once("CREATE TABLE audit_chunks (").unwrap();
    f.raw(format!("CREATE TABLE audit_chunks ({chunks}")).await.unwrap();
    let add = format!("INSERT INTO audit_chunks ({COLUMNS}) SELECT {COLUMNS} FROM before.chunks");
    let rows = f.raw(format!("{add} WHERE first_seq = 1")).await.unwrap();
    assert_eq!(rows, 1);
    f.raw(include_str!("../../migrations/postgres/0009_audit_months.sql")).await.unwrap();
    // And it goes on beside this one.
    f.raw(format!("{add} WHERE first_seq > 1")).await.unwrap();
    assert_eq!(records(&house).await, all);
    assert_eq!(f.count("SELECT count(DISTINCT chunk) - count(*) FROM audit_chunks").await, 0, "numbers go on");
    house.write(2).await;
    house.index().await;
    assert_eq!(records(&house).await, all + 6);
    assert_eq!(
        f.count(&format!("SELECT count(*) FROM {FIRST}")).await,
        f.count("SELECT count(*) FROM audit_chunks").await
    );
    let later = days_from_now(70);
    assert_eq!(house.store.months_over(later).await.unwrap()[0], FIRST);
    time_passes(&f).await;
    assert!(house.store.drop_month(FIRST, later).await.unwrap());
    assert_eq!(records(&house).await, 0);
}
