//! Retention of journals that are kept in Postgres: what goes, what holds it up, that no server takes anything from the
//! chain of another, and what becomes of journals whose servers are gone.

use std::{path::Path, sync::Arc, time::Duration};

use linkgate::{
    app::gone::Orphans,
    audit::{
        ChainId, Durability, Journal, Opening, RecordFilter, RecordSource, RetainedIndex,
        evidence::{Keys, prune::PruneError, witness::Witness},
        reader::segments,
        retention::{RetainedJournal, Retention, RetentionProgress, RetentionSettings},
        ship::{FileSettings, ShipSettings, Shipper},
        verify::{Verification, VerifyOptions, verify_against},
    },
    domain::{DecisionId, Millis},
    store::{AuditStore, Extent, KeptJournal, emptied},
};

use crate::{
    evidence::House,
    fixture::Fixture,
    retention::{NOWHERE, days_from_now},
};

const DAY: Duration = Duration::from_secs(86_400);

/// Writes until the journal has this many segments.
async fn until(house: &House, wanted: u64) {
    while house.journal.status().written.segment < wanted {
        house.write(5).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    house.write(1).await;
}

async fn sealed(house: &House) {
    house.index().await;
    house.sign().await;
}

fn kept(house: &House, epoch: i64, ship: ShipSettings) -> KeptJournal {
    let scratch = house.dir.join("retention");
    KeptJournal::new(Arc::clone(&house.store), (house.journal.chain_id(), epoch), scratch, house.keys(), ship)
}

/// Of a day.
fn retention(house: &House, kept: KeptJournal) -> Retention<AuditStore, KeptJournal> {
    Retention::of(house.journal.clone(), kept, Arc::clone(&house.store), DAY)
}

/// As `audit verify` does it: all that the database has, and nothing else.
async fn verified(store: &AuditStore, chain: ChainId, keys: &Keys, out: &Path) -> Verification {
    emptied(out).unwrap();
    assert_eq!(store.rebuild(chain, out, Extent::Whole).await.unwrap(), None);
    let mut witness = Witness::new(chain);
    witness.recall_shelf(out, keys).unwrap();
    let result = verify_against(out, VerifyOptions::default(), Some(&mut witness)).unwrap();
    assert!(result.is_sound(), "{:?}", result.findings);
    result
}

/// A server ends: its connection, and with it its hold on the chain.
async fn end(house: House) {
    tokio::task::spawn_blocking(move || {
        house.journal.close();
        drop(house);
    })
    .await
    .unwrap();
}

pub(crate) async fn a_journal_in_the_database_ages_like_one_on_disk(f: Arc<Fixture>) {
    let (house, epoch) = House::kept(&f, "here", 66_000, None).await;
    let (chain, keys, out) = (house.journal.chain_id(), house.keys(), f.dir.path().join("out"));
    until(&house, 4).await;
    sealed(&house).await;
    let last = house.journal.status().written.segment;
    // Piece by piece: two segments are looked at at once.
    let mut ages = retention(&house, kept(&house, epoch, NOWHERE).looking_at(1));
    let round = ages.round(Millis::now()).await.unwrap();
    assert!(round.segments.is_none() && round.held.is_none(), "all of it is young");
    let overdue = ages.progress();
    let round = ages.round(days_from_now(2)).await.unwrap();
    assert_eq!((round.segments, round.held.is_none()), (Some((1, last - 1)), true), "{:?}", round.held);
    assert_eq!(overdue.overdue_seconds(), 0);
    let result = verified(&house.store, chain, &keys, &out).await;
    assert_eq!(segments(&out).unwrap()[0], last, "those before are no part of it any more");
    let told = result.pruned.unwrap();
    assert_eq!(
        (told.segment, told.by.as_deref(), told.reason.as_deref()),
        (last - 1, Some("linkgate"), Some("retention"))
    );
    assert_eq!(result.from_checkpoint.unwrap().seq + 1, result.head.seq + 1 - result.lines);
    // Until their month goes, its records can be asked for.
    let oldest = house.store.query(&RecordFilter::default()).await.unwrap().pop().unwrap();
    assert!(oldest.opening.seq < 10, "{}", oldest.opening.seq);
    let month = format!("audit_chunks_{}", f.count("SELECT audit_month_of(now())").await);
    let month = if f.count(&format!("SELECT count(*) FROM audit_chunk_months WHERE name = '{month}'")).await == 0 {
        "audit_chunks_first".to_owned()
    } else {
        month
    };
    let stays = async |cutoff: Millis| f.count(&format!("SELECT audit_month_kept('{month}', {})", cutoff.0)).await;
    let floor = f.count("SELECT last_seq FROM audit_floors").await;
    assert_eq!(
        stays(days_from_now(2)).await,
        f.count(&format!("SELECT count(*) FROM audit_chunks WHERE last_seq > {floor}")).await,
        "of what was given up nothing stays for ever"
    );

    // The folder is lost, and another server goes on behind what was pruned.
    let (before, signer, dir) = (house.journal.status().last_seq, house.signer(), house.dir.clone());
    drop(ages);
    end(house).await;
    std::fs::remove_dir_all(dir).unwrap();
    let (again, epoch) = House::kept(&f, "here", 66_000, Some(&signer)).await;
    assert_eq!(again.journal.chain_id(), chain);
    until(&again, last + 2).await;
    sealed(&again).await;
    let result = verified(&again.store, chain, &keys, &out).await;
    assert!(result.head.seq > before && result.pruned.is_some());
    let round = retention(&again, kept(&again, epoch, NOWHERE)).round(days_from_now(2)).await.unwrap();
    let now = again.journal.status().written.segment;
    assert_eq!(round.segments, Some((last, now - 1)), "{:?}", round.held);
    verified(&again.store, chain, &keys, &out).await;
    end(again).await;
}

pub(crate) async fn what_is_held_up_stays_and_what_lies_before_it_goes(f: Arc<Fixture>) {
    let (house, epoch) = House::kept(&f, "here", 66_000, None).await;
    let file = FileSettings { path: f.dir.path().join("shipped.jsonl"), size: 1 << 30 };
    let ship = ShipSettings { file: Some(file), ..NOWHERE };
    let chain = house.journal.chain_id();
    // What the server's tidying notes.
    let note = async || {
        Shipper::new(house.journal.clone(), ship.targets().remove(0), ship.form).catch_up().await.unwrap();
        let position = std::fs::read_to_string(house.dir.join("ship-file.json")).unwrap();
        house.store.tidy_journal(chain, epoch, &[("file".to_owned(), position)]).await.unwrap();
    };
    until(&house, 3).await;
    note().await;
    let shipped = house.journal.status().written.segment;
    until(&house, shipped + 2).await;
    house.index().await;
    let mut ages = retention(&house, kept(&house, epoch, ship.clone()).looking_at(1));
    let held = ages.round(days_from_now(3)).await.unwrap().held;
    assert!(matches!(held, Some(PruneError::NoCheckpoint(_))), "{held:?}");
    house.sign().await;
    let round = ages.round(days_from_now(3)).await.unwrap();
    assert_eq!(round.segments, Some((1, shipped - 1)), "{:?}", round.held);
    assert!(matches!(round.held, Some(PruneError::NotShipped { target: "file", .. })), "{:?}", round.held);
    let overdue = ages.progress().overdue_seconds();
    // A day old may they get, and three have passed.
    assert!((172_700..172_900).contains(&overdue), "{overdue}");

    // A record that is open for long: its completion lies far behind the segments that are looked at.
    let long = Opening::new(DecisionId::generate(), Millis::now(), "GET", "/stream", "long");
    let record = house.journal.admit(&long, Durability::Os).await.unwrap();
    let opened = house.journal.status().written.segment;
    until(&house, opened + 3).await;
    sealed(&house).await;
    note().await;
    let round = ages.round(days_from_now(3)).await.unwrap();
    assert!(matches!(round.held, Some(PruneError::StillOpen(id)) if id == long.id), "{:?}", round.held);
    assert_eq!(round.segments.map(|(_, last)| last), Some(opened - 1));
    record.complete(linkgate::audit::Completion { status: Some(200), ..Default::default() });
    let last = house.journal.status().written.segment;
    until(&house, last + 1).await;
    sealed(&house).await;
    note().await;
    let round = ages.round(days_from_now(3)).await.unwrap();
    let last = house.journal.status().written.segment;
    assert_eq!((round.segments, round.held.is_none()), (Some((opened, last - 1)), true), "{:?}", round.held);
    verified(&house.store, chain, &house.keys(), &f.dir.path().join("out")).await;
    drop(ages);
    end(house).await;
}

/// It goes by one statement, so a kill finds it before that or behind it: told in the chain at most.
pub(crate) async fn a_server_that_died_within_a_pruning_leaves_all_or_nothing(f: Arc<Fixture>) {
    let (house, epoch) = House::kept(&f, "here", 66_000, None).await;
    let (chain, keys, out) = (house.journal.chain_id(), house.keys(), f.dir.path().join("out"));
    until(&house, 3).await;
    sealed(&house).await;
    let found = kept(&house, epoch, NOWHERE).furthest(days_from_now(2)).await.unwrap();
    let plan = found.plan.unwrap();
    house.journal.append_change(&plan.record()).await.unwrap();
    // Here it dies, and the folder is lost.
    let (signer, store) = (house.signer(), Arc::clone(&house.store));
    end(house).await;
    let result = verified(&store, chain, &keys, &out).await;
    assert_eq!((segments(&out).unwrap()[0], result.pruned), (1, None), "nothing went");
    let (again, epoch) = House::kept(&f, "here", 66_000, Some(&signer)).await;
    let round = retention(&again, kept(&again, epoch, NOWHERE)).round(Millis::now()).await.unwrap();
    assert!(round.segments.is_none(), "it is not old enough by this clock");
    let round = retention(&again, kept(&again, epoch, NOWHERE)).round(days_from_now(2)).await.unwrap();
    assert_eq!(round.segments.map(|(first, _)| first), Some(1), "{:?}", round.held);
    assert!(verified(&again.store, chain, &keys, &out).await.pruned.is_some());
    end(again).await;
}

pub(crate) async fn whoever_lost_the_chain_takes_nothing_from_it(f: Arc<Fixture>) {
    let (house, epoch) = House::kept(&f, "here", 66_000, None).await;
    let chain = house.journal.chain_id();
    until(&house, 3).await;
    sealed(&house).await;
    let before = kept(&house, epoch, NOWHERE);
    let plan = before.furthest(days_from_now(2)).await.unwrap().plan.unwrap();
    let (signer, store) = (house.signer(), Arc::clone(&house.store));
    end(house).await;
    let (again, _) = House::kept(&f, "here", 66_000, Some(&signer)).await;
    assert_eq!(again.journal.chain_id(), chain);
    before.remove(&plan).await.unwrap_err();
    let runs = f.count("SELECT count(*) FROM audit_journal_runs").await;
    let stale = [("file".to_owned(), "{\"segment\": 99}".to_owned())];
    store.tidy_journal(chain, epoch, &stale).await.unwrap_err();
    let left = "SELECT (SELECT count(*) FROM audit_floors) + (SELECT count(*) FROM audit_journal_targets)";
    assert_eq!(f.count(left).await, 0);
    assert_eq!(f.count("SELECT count(*) FROM audit_journal_runs").await, runs);
    end(again).await;
}

fn orphans(f: &Fixture, house: &House) -> Orphans {
    Orphans {
        database: f.db.clone(),
        store: Arc::clone(&house.store),
        journal: house.journal.clone(),
        settings: RetentionSettings { age: DAY, keys: house.keys(), ship: NOWHERE },
        signer: Some(house.signer()),
        progress: Arc::new(RetentionProgress::default()),
    }
}

fn text(journal: &Journal) -> String {
    let numbers = segments(journal.dir()).unwrap().into_iter();
    numbers
        .map(|number| std::fs::read_to_string(linkgate::audit::reader::segment_path(journal.dir(), number)).unwrap())
        .collect()
}

pub(crate) async fn journals_of_servers_that_are_gone_age_like_all_others(f: Arc<Fixture>) {
    let (gone, epoch) = House::kept(&f, "scaled-away", 66_000, None).await;
    let (chain, keys, out) = (gone.journal.chain_id(), gone.keys(), f.dir.path().join("out"));
    until(&gone, 3).await;
    sealed(&gone).await;
    // Its last records are in no index, and one is open.
    gone.write(2).await;
    let open = Opening::new(DecisionId::generate(), Millis::now(), "GET", "/open", "left-open");
    std::mem::forget(gone.journal.admit(&open, Durability::Os).await.unwrap());
    let signer = gone.signer();
    end(gone).await;
    // The record that was never completed holds on to the connection; a server that dies has none.
    f.raw(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await
    .unwrap();

    let (house, own_epoch) = House::kept(&f, "here", 66_000, Some(&signer)).await;
    let own = house.journal.chain_id();
    assert_ne!(own, chain, "its server was heard of just now");
    let others = orphans(&f, &house);
    let silence = async |days: i64| {
        let sql =
            format!("UPDATE audit_journals SET taken_at = taken_at - {days} * 86400000 WHERE chain_id = '{chain}'");
        f.raw(sql).await.unwrap();
    };
    let taken = format!("SELECT epoch FROM audit_journals WHERE chain_id = '{chain}'");
    assert_eq!(others.round(days_from_now(9)).await.unwrap(), None);
    assert_eq!(f.count(&taken).await, epoch, "it may come back: nobody touches it");

    // First what it left is ended.
    silence(2).await;
    assert_eq!(others.round(Millis::now()).await.unwrap(), None);
    let result = verified(&house.store, chain, &keys, &out).await;
    assert_eq!((result.open_records, result.pruned), (0, None));
    let filter = RecordFilter { id: Some(open.id), ..RecordFilter::default() };
    let found = house.store.query(&filter).await.unwrap();
    assert_eq!(found[0].aborted, Some(true));
    let unindexed = format!("SELECT count(*) FROM audit_journal_runs WHERE chain_id = '{chain}'");
    assert_eq!(f.count(&unindexed).await, 0);
    let ended = f.count(&format!("SELECT ended_seq FROM audit_journals WHERE chain_id = '{chain}'")).await;
    assert!(ended > 0 && f.count(&taken).await > epoch, "who held it before adds nothing any more");

    // What a target does not have is not given up, and is told.
    silence(2).await;
    let epoch = f.count(&taken).await;
    let file = FileSettings { path: f.dir.path().join("shipped.jsonl"), size: 1 << 30 };
    let mut unshipped = orphans(&f, &house);
    unshipped.settings.ship = ShipSettings { file: Some(file), ..NOWHERE };
    let told = unshipped.round(days_from_now(2)).await.unwrap().unwrap();
    assert!(told.contains("the target `file`") && told.contains(&chain.to_string()), "{told}");
    assert!(unshipped.progress.overdue_seconds() > 80_000);
    assert_eq!(f.count(&taken).await, epoch, "it is not even taken");
    drop(unshipped);

    // Its records go with their age, told in its own chain; the own journal loses nothing by it.
    assert_eq!(others.round(days_from_now(2)).await.unwrap(), None);
    let result = verified(&house.store, chain, &keys, &out).await;
    assert_eq!(result.pruned.unwrap().reason.as_deref(), Some("retention"));
    assert_eq!(f.count(&format!("SELECT last_seq FROM audit_floors WHERE chain_id = '{chain}'")).await, ended);
    assert!(house.store.kept_chains().await.unwrap().contains(&chain));

    // Then the rest, told in the own chain. Whoever takes it first keeps it.
    silence(2).await;
    let (back, _) = House::kept(&f, "scaled-away", 66_000, Some(&signer)).await;
    assert_eq!(back.journal.chain_id(), chain);
    assert!(!house.store.drop_journal(chain).await.unwrap(), "it is written again");
    back.write(1).await;
    end(back).await;
    for days in [0, 2, 2] {
        silence(2).await;
        assert_eq!(others.round(days_from_now(days)).await.unwrap(), None);
    }
    assert_eq!(house.store.kept_chains().await.unwrap(), [own]);
    assert_eq!(others.progress.overdue_seconds(), 0);
    let told = text(&house.journal);
    assert!(told.contains("audit.drop_journal") && told.contains(&chain.to_string()));
    sealed(&house).await;
    assert!(verified(&house.store, own, &keys, &out).await.pruned.is_none());
    assert_eq!(f.count(&format!("SELECT epoch FROM audit_journals WHERE chain_id = '{own}'")).await, own_epoch);
    drop(others);
    end(house).await;
}

pub(crate) async fn a_server_that_is_idle_loses_nothing_of_the_index(f: Arc<Fixture>) {
    let house = House::new(&f, 66_000);
    let chain = house.journal.chain_id();
    house.write(3).await;
    house.index().await;
    let kept =
        async |cutoff: Millis| f.count(&format!("SELECT audit_month_kept('audit_chunks_first', {})", cutoff.0)).await;
    assert_eq!(kept(days_from_now(40)).await, 0, "nobody knows of its server: it may be gone");
    // It is there, and keeps its journal.
    house.store.note_alive(chain).await.unwrap();
    f.raw(format!("UPDATE audit_floors SET set_at = {}", days_from_now(40).0)).await.unwrap();
    assert!(kept(days_from_now(40)).await > 0);
    // What it has given up goes.
    house.store.give_up(chain, 1, house.journal.status().last_seq).await.unwrap();
    house.store.note_alive(chain).await.unwrap();
    assert_eq!(kept(days_from_now(40)).await, 0);
}
