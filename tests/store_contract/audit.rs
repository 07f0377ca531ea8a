//! The audit index and the outbox, as the audit room's traits promise them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use linkgate::{
    audit::{
        AuditSettings, ChainHead, ChainHeads, ChainId, ChangeRecord, Completion, Decision, Durability, Hash,
        IndexBatch, IndexSink, IndexUnavailable, Journal, Kind, Opening, OutboxSource, Record, RecordFilter,
        RecordSearch, RecordSource, Slice, SliceOutcome,
        batch::read_batch,
        gather::{Keep, Search, TooMuch},
        indexer::Indexer,
        journal::Known,
        reader::segments,
        scan,
        sweep::{Progress, Wanted, sweep},
        usage::Usage,
    },
    domain::{DecisionId, LinkId, LinkVersion, Millis, PartnerId, Permission},
    store::AuditStore,
};
use uuid::Uuid;

use crate::fixture::{Fixture, Kind as Server};

fn partner(n: u128) -> PartnerId {
    PartnerId(Uuid::from_u128(n))
}

fn chain() -> ChainId {
    ChainId(Uuid::now_v7())
}

/// A journal in the fixture's folder, and the index of it.
struct House {
    journal: Journal,
    store: Arc<AuditStore>,
    dir: PathBuf,
}

impl House {
    fn new(f: &Fixture, name: &str) -> Self {
        Self::with_segments(f, name, 1 << 30)
    }

    fn with_segments(f: &Fixture, name: &str, segment_bytes: u64) -> Self {
        let dir = f.dir.path().join(name);
        let settings = AuditSettings {
            dir: dir.clone(),
            segment_bytes,
            segment_age: None,
            writes: Durability::Os,
            reads: Durability::Os,
            commit_timeout: Duration::from_secs(20),
            flush_interval: Duration::from_millis(2),
        };
        let journal = Journal::open(settings).unwrap().0;
        Self { journal, store: Arc::new(AuditStore::new(&f.db, &dir)), dir }
    }

    fn chain(&self) -> ChainId {
        self.journal.chain_id()
    }

    /// Writes these records; each is different.
    async fn write(&self, numbers: impl IntoIterator<Item = u64>) {
        for n in numbers {
            write(&self.journal, n).await;
        }
    }

    /// One batch, or as many as it takes.
    async fn index(&self) {
        Indexer::new(self.journal.clone(), Arc::clone(&self.store), Duration::from_secs(1)).catch_up().await.unwrap();
    }

    /// What the next batch is.
    async fn batch(&self) -> IndexBatch {
        let until = self.journal.settle().await.unwrap();
        let after = self.store.position(self.chain()).await.unwrap();
        read_batch(&self.dir, self.chain(), after, until, &Known::nothing(), self.store.keeps_lines()).unwrap()
    }

    /// All records of the journal, newest first.
    fn records(&self) -> Vec<Record> {
        records(&self.dir)
    }

    async fn query(&self, filter: &RecordFilter) -> Vec<Record> {
        self.store.query(filter).await.unwrap()
    }
}

fn records(dir: &Path) -> Vec<Record> {
    let mut all = Vec::new();
    scan::export(dir, None, &RecordFilter::default(), |record| {
        all.push(record);
        Ok(())
    })
    .unwrap();
    all.sort_by_key(|record| std::cmp::Reverse((record.time, record.opening.seq)));
    all
}

/// The record number `n`: a request, or every ninth time a change.
async fn write(journal: &Journal, n: u64) {
    let (time, user) = (Millis(1_000 + i64::try_from(n).unwrap() * 10), format!("user-{}", n % 3));
    let action = if n.is_multiple_of(2) { "partner.billing.read" } else { "partner.tenants.list" };
    let decision = if n.is_multiple_of(3) { Decision::Deny } else { Decision::Allow };
    let (tenant, request) = (format!("t{}", n % 5), format!("req_{}", n / 2));
    if n % 9 == 8 {
        let change = ChangeRecord {
            time,
            user_id: Some(user),
            partner_id: Some(partner(1)),
            managed_tenant_id: Some(tenant),
            request_id: Some(request),
            decision,
            before: Some(serde_json::json!({"z": 1, "a": [1.50, null]})),
            ..ChangeRecord::new(Kind::Link, action)
        };
        journal.append_change(&change).await.unwrap();
        return;
    }
    let slices = if n % 5 == 4 {
        ["s0", "s1"].map(|tenant| Slice { managed_tenant_id: tenant.into(), ..Slice::default() }).into()
    } else {
        Vec::new()
    };
    let opening = Opening {
        user_id: Some(&user),
        username: Some("\u{dc}n\u{ef} \"q\""),
        partner_id: (n % 4 != 3).then(|| partner(u128::from(n % 4))),
        session_id: Some("s"),
        action: Some(action),
        managed_tenant_id: (n % 5 != 4).then_some(&*tenant),
        link_id: Some(LinkId(Uuid::from_u128(9))),
        link_version: Some(LinkVersion(3)),
        decision,
        near_misses: &["mfa_required"],
        client_ip: Some("2001:db8::1".parse().unwrap()),
        user_agent: Some("curl\u{1F980}"),
        slices: &slices,
        ..Opening::new(DecisionId::generate(), time, "GET", "/x?y=\u{2026}", &request)
    };
    let outcome =
        |slice: &Slice| SliceOutcome { managed_tenant_id: slice.managed_tenant_id.clone(), status: "ok".into() };
    let completion = Completion {
        status: Some(200),
        bytes: u64::from(u32::MAX) + n,
        // Now and then the outcome overturns the decision.
        decision: (n % 11 == 7).then_some(Decision::Deny),
        slices: slices.iter().map(outcome).collect(),
        ..Completion::default()
    };
    journal.admit(&opening, Durability::Os).await.unwrap().complete(completion);
}

pub(crate) async fn a_batch_is_stored_once_with_its_position(f: Arc<Fixture>) {
    let house = House::new(&f, "journal");
    let (store, chain) = (&house.store, house.chain());
    assert_eq!(store.position(chain).await.unwrap(), None);
    assert_eq!(store.head(chain).await.unwrap(), None);
    house.write(0..150).await;
    let first = house.batch().await;
    store.store(first.clone()).await.unwrap();
    assert_eq!(store.position(chain).await.unwrap(), Some(first.position));
    assert_eq!(store.head(chain).await.unwrap(), Some(first.position.head));
    // The same again, as after a crash between commit and answer; and one that starts elsewhere.
    assert!(store.store(first.clone()).await.is_err());
    house.write([150]).await;
    let second = house.batch().await;
    let mut elsewhere = second.after.unwrap();
    elsewhere.offset -= 1;
    let refused = store.store(IndexBatch { after: Some(elsewhere), ..second.clone() }).await.unwrap_err();
    assert!(std::error::Error::source(&refused).unwrap().to_string().contains("do two servers"), "{refused:?}");
    store.store(second.clone()).await.unwrap();
    // Every field comes back as the journal has it, newest first.
    let all = house.query(&RecordFilter::default()).await;
    assert_eq!(all, house.records());
    assert_eq!(all.len(), 151);
    assert_eq!(store.chains().await.unwrap(), [chain]);
    // Read by another process.
    let elsewhere = AuditStore::new(&f.another().await, &house.dir);
    assert_eq!(elsewhere.head(chain).await.unwrap(), Some(second.position.head));
    assert_eq!(elsewhere.query(&RecordFilter::default()).await.unwrap(), all);
}

pub(crate) async fn only_one_of_two_indexers_advances_a_chain(f: Arc<Fixture>) {
    let house = House::new(&f, "journal");
    house.write(0..10).await;
    house.index().await;
    house.write(10..30).await;
    let batch = house.batch().await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (store, batch) = (AuditStore::new(&f.another().await, &house.dir), batch.clone());
        tasks.push(tokio::spawn(async move { store.store(batch).await.is_ok() }));
    }
    let mut stored = 0;
    for task in tasks {
        stored += usize::from(task.await.unwrap());
    }
    assert_eq!(stored, 1);
    assert_eq!(house.query(&RecordFilter::default()).await, house.records());
}

/// Where the completion is in a later chunk, whatever it overturns or adds is found all the same.
pub(crate) async fn a_completion_of_an_earlier_batch_is_joined(f: Arc<Fixture>) {
    let house = House::new(&f, "journal");
    let slices = [Slice { managed_tenant_id: "s0".into(), ..Slice::default() }];
    let opening = Opening {
        decision: Decision::Allow,
        slices: &slices,
        ..Opening::new(DecisionId::generate(), Millis(5_000), "GET", "/", "req_held")
    };
    let held = house.journal.admit(&opening, Durability::Os).await.unwrap();
    // Sealed chunks and open ones lie between the two.
    house.write((0..5_000).filter(|n| n % 9 != 8)).await;
    house.index().await;
    house.write((5_000..5_020).filter(|n| n % 3 != 0 && n % 11 != 7)).await;
    house.index().await;
    let by_id = RecordFilter { id: Some(opening.id), ..RecordFilter::default() };
    let open = house.query(&by_id).await;
    assert_eq!((open.len(), open[0].completion), (1, None));
    held.complete(Completion {
        status: Some(503),
        aborted: true,
        decision: Some(Decision::Deny),
        reason: Some("audit_unavailable".into()),
        slices: vec![SliceOutcome { managed_tenant_id: "late".into(), status: "timeout".into() }],
        ..Completion::default()
    });
    house.index().await;
    let all = house.records();
    let expected = all.iter().find(|record| record.id == opening.id).unwrap();
    assert_eq!((expected.status, expected.slices.len()), (Some(503), 2));
    let any = RecordFilter::default;
    for filter in [
        by_id,
        RecordFilter { request_id: Some("req_held".into()), decision: Some(Decision::Deny), ..any() },
        RecordFilter { managed_tenant_id: Some("late".into()), ..any() },
    ] {
        assert_eq!(house.query(&filter).await, std::slice::from_ref(expected), "{filter:?}");
    }
    let allowed = RecordFilter { request_id: Some("req_held".into()), decision: Some(Decision::Allow), ..any() };
    assert!(house.query(&allowed).await.is_empty());
}

/// Against `RecordFilter::matches`, the rule that the journal itself is searched by.
pub(crate) async fn every_filter_finds_what_it_should(f: Arc<Fixture>) {
    let house = House::new(&f, "journal");
    house.write(0..60).await;
    house.index().await;
    house.write(60..120).await;
    house.index().await;
    let records = house.records();
    assert_eq!(records.len(), 120);
    let any = RecordFilter::default;
    let filters = [
        any(),
        RecordFilter { id: Some(records[17].id), ..any() },
        RecordFilter { id: Some(DecisionId::generate()), ..any() },
        RecordFilter { request_id: Some("req_8".into()), ..any() },
        RecordFilter { partner_id: Some(partner(2)), ..any() },
        RecordFilter { managed_tenant_id: Some("t1".into()), ..any() },
        RecordFilter { managed_tenant_id: Some("s1".into()), ..any() },
        RecordFilter { managed_tenant_id: Some("nowhere' OR 1=1 --".into()), ..any() },
        RecordFilter { user_id: Some("user-2".into()), ..any() },
        RecordFilter { action: Some("partner.tenants.list".into()), ..any() },
        RecordFilter { decision: Some(Decision::Allow), ..any() },
        RecordFilter { decision: Some(Decision::Deny), ..any() },
        RecordFilter { kind: Some(Kind::Access), ..any() },
        RecordFilter { kind: Some(Kind::Link), ..any() },
        RecordFilter { from: Some(Millis(1_200)), to: Some(Millis(1_210)), ..any() },
        RecordFilter {
            from: Some(Millis(1_500)),
            decision: Some(Decision::Deny),
            partner_id: Some(partner(1)),
            ..any()
        },
        RecordFilter {
            managed_tenant_id: Some("s0".into()),
            user_id: Some("user-1".into()),
            kind: Some(Kind::Access),
            to: Some(Millis(2_000)),
            action: Some("partner.billing.read".into()),
            ..any()
        },
    ];
    for filter in filters {
        let found = house.query(&filter).await;
        let expected: Vec<Record> = records.iter().filter(|one| filter.matches(one)).cloned().collect();
        assert_eq!(found, expected, "{filter:?}");
        // The same, a page at a time.
        let mut paged = Vec::new();
        for offset in (0..expected.len() + 7).step_by(7) {
            let page = RecordFilter { limit: Some(7), offset, ..filter.clone() };
            paged.extend(house.query(&page).await);
        }
        assert_eq!(paged, expected, "{filter:?} in pages");
    }
}

/// Batches of every size over several segments, on Postgres of two replicas of which one is gone with its journal.
pub(crate) async fn records_of_many_chunks_are_found_newest_first(f: Arc<Fixture>) {
    let names: &[&str] = if f.kind == Server::Postgres { &["one", "other"] } else { &["one"] };
    let mut records = Vec::new();
    let mut first = None;
    for name in names {
        let house = House::with_segments(&f, name, 3_000_000);
        for (size, begin) in [1, 700, 0, 3_000, 40].into_iter().cycle().zip(0..).scan(0, |next, (size, _)| {
            let begin = *next;
            *next += size;
            (begin < 12_000).then_some((size, begin))
        }) {
            // Few changes: each waits for the disk.
            house.write((begin..begin + size).filter(|n| n % 9 != 8 || n % 60 == 8)).await;
            house.index().await;
        }
        assert!(segments(&house.dir).unwrap().len() >= 3);
        records.extend(house.records());
        match first {
            None => first = Some(house),
            Some(_) => {
                let dir = house.dir.clone();
                drop(house);
                std::fs::remove_dir_all(dir).unwrap();
            }
        }
    }
    let house = first.unwrap();
    records.sort_by_key(|record| std::cmp::Reverse((record.time, record.chain_id.0, record.opening.seq)));
    let chunks = f.audit_count("SELECT count(*) FROM audit_chunks").await;
    let share = i64::try_from(names.len()).unwrap();
    assert!((4 * share..20 * share).contains(&chunks), "{chunks} chunks");
    let any = RecordFilter::default;
    let middle = records[records.len() / 2].request_id.clone();
    for filter in [
        RecordFilter { limit: Some(5), ..any() },
        RecordFilter { limit: Some(3_000), offset: 5_000, ..any() },
        RecordFilter { request_id: middle, ..any() },
        RecordFilter { request_id: Some("req_17".into()), ..any() },
        RecordFilter { id: Some(records[3_333].id), ..any() },
        RecordFilter { request_id: Some("nobody's".into()), ..any() },
        RecordFilter { from: Some(Millis(40_000)), to: Some(Millis(41_000)), ..any() },
        RecordFilter { managed_tenant_id: Some("s0".into()), limit: Some(700), offset: 900, ..any() },
        RecordFilter { user_id: Some("user-1".into()), decision: Some(Decision::Deny), ..any() },
        RecordFilter { partner_id: Some(partner(1)), kind: Some(Kind::Link), limit: Some(10), offset: 40, ..any() },
        RecordFilter { limit: Some(0), ..any() },
    ] {
        let found = house.query(&filter).await;
        let all = records.iter().filter(|one| filter.matches(one)).cloned();
        let expected: Vec<Record> = all.skip(filter.offset).take(filter.limit.unwrap_or(10_000)).collect();
        assert!(found == expected, "{filter:?}: {} found, {} expected", found.len(), expected.len());
    }
    // What falls away while it is read costs no second walk, and the same page comes of it.
    let (seen, wanted) = (Arc::new(AtomicUsize::new(0)), Decision::Deny);
    let counted = Arc::clone(&seen);
    let keep: Keep<DecisionId> = Arc::new(move |record| {
        counted.fetch_add(1, Ordering::Relaxed);
        (record.decision == wanted).then_some(record.id)
    });
    let filter = RecordFilter { limit: Some(20), offset: 300, ..any() };
    let search = Search { filter, keep: Arc::clone(&keep), most_bytes: 1 << 20, most_looked_at: None };
    let found = house.store.search(&search).await.unwrap();
    let denied: Vec<DecisionId> = records.iter().filter(|one| one.decision == wanted).map(|one| one.id).collect();
    assert_eq!((found.items.as_slice(), found.cut), (&denied[300..320], false));
    let looked = seen.swap(0, Ordering::Relaxed);
    assert!((320..=records.len()).contains(&looked), "{looked} looked at");
    // Where not all may be looked at, what is told has no gaps and says that it ends.
    let filter = RecordFilter { limit: Some(10_000), ..any() };
    let search = Search { filter, keep, most_bytes: 1 << 20, most_looked_at: Some(100) };
    let found = house.store.search(&search).await.unwrap();
    assert!(found.cut && denied.starts_with(&found.items) && found.items.len() < denied.len());
    let filter = RecordFilter { limit: Some(1_000), ..any() };
    let search = Search { filter, keep: Arc::new(Some), most_bytes: 100_000, most_looked_at: None };
    assert!(matches!(house.store.search(&search).await, Err(IndexUnavailable::TooMuch(TooMuch(100_000)))));
    let too_deep = RecordFilter { offset: 1_000_000, ..any() };
    assert!(house.store.query(&too_deep).await.is_err());
}

/// With little traffic a batch is a record or two: rows come together, and nothing is lost on the way.
pub(crate) async fn small_chunks_become_large_ones(f: Arc<Fixture>) {
    let house = House::new(&f, "journal");
    for n in 0..600 {
        if n % 9 != 8 {
            house.write([n]).await;
            house.index().await;
        }
    }
    let (all, open) = ("SELECT count(*) FROM audit_chunks", "SELECT count(*) FROM audit_chunks WHERE NOT sealed");
    let (all, open) = (f.audit_count(all).await, f.audit_count(open).await);
    assert!(all - open >= 2 && open <= 256, "{all} chunks, {open} of them open");
    assert_eq!(house.query(&RecordFilter::default()).await, house.records());
    let some = RecordFilter { request_id: Some("req_20".into()), ..RecordFilter::default() };
    assert_eq!(house.query(&some).await.len(), 2);
}

/// On SQLite the index points into the journal: what cannot be read there is told, and a segment that was moved away on
/// purpose hides nothing but itself. On Postgres the index has what it needs.
pub(crate) async fn a_journal_that_is_not_there_is_told(f: Arc<Fixture>) {
    let house = House::with_segments(&f, "journal", 100_000);
    for begin in (0..900).step_by(300) {
        house.write((begin..begin + 300).filter(|n| n % 9 != 8)).await;
        house.index().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = house.records();
    let any = RecordFilter::default();
    assert_eq!(house.query(&any).await, all);
    let numbers = segments(&house.dir).unwrap();
    assert!(numbers.len() > 3);
    let moved = house.dir.join("segment-0000000001.jsonl");
    let in_first = std::fs::read_to_string(&moved).unwrap();
    std::fs::rename(&moved, f.dir.path().join("elsewhere")).unwrap();
    let (there, gone): (Vec<Record>, Vec<Record>) =
        all.iter().cloned().partition(|record| !in_first.contains(&record.id.to_string()));
    assert!(!gone.is_empty() && !there.is_empty());
    // One in the middle is missing, or the folder is another one: no operator does that on purpose.
    let strange = AuditStore::new(&f.db, &f.dir.path().join("wrong-folder"));
    let hole = house.dir.join("segment-0000000003.jsonl");
    if f.kind == Server::Postgres {
        assert_eq!(house.query(&any).await, all);
        assert_eq!(strange.query(&any).await.unwrap(), all);
        return;
    }
    assert!(house.store.moved_segments().is_empty());
    assert_eq!(house.query(&any).await, there);
    assert_eq!(house.store.moved_segments(), [1], "and it is told");
    let by_id = RecordFilter { id: Some(gone[0].id), ..RecordFilter::default() };
    assert!(house.query(&by_id).await.is_empty());
    let error = strange.query(&any).await.unwrap_err();
    assert!(matches!(&error, IndexUnavailable::Journal { dir, .. } if dir.ends_with("wrong-folder")), "{error}");
    assert!(error.to_string().contains("wrong-folder"), "{error}");
    std::fs::remove_file(hole).unwrap();
    assert!(matches!(house.store.query(&any).await, Err(IndexUnavailable::Journal { .. })));
}

/// An answer never passes on a line that was altered after it was indexed.
/// How often each permission is used by the records of these numbers, as `write` makes them.
fn uses(numbers: impl IntoIterator<Item = u64>, tenant: Option<&str>) -> [u64; 3] {
    let mut found = [0; 3];
    for n in numbers.into_iter().filter(|n| n % 9 != 8 && !n.is_multiple_of(3)) {
        let named = (n % 5 != 4).then(|| format!("t{}", n % 5));
        if tenant.is_none_or(|tenant| named.as_deref() == Some(tenant)) {
            found[if n.is_multiple_of(2) { 0 } else { 1 }] += 1;
            found[2] += u64::from(named.is_some());
        }
    }
    found
}

fn found(usage: &Usage) -> [u64; 3] {
    let uses = usage.links.get(&LinkId(Uuid::from_u128(9))).cloned().unwrap_or_default();
    ["partner.billing.read", "partner.tenants.list", "partner.tenants.switch_context"]
        .map(|name| uses.of(Permission::parse(name).unwrap()).count)
}

pub(crate) async fn use_of_rights_is_added_up_over_all_that_is_indexed(f: Arc<Fixture>) {
    let house = House::with_segments(&f, "audit", 8_192);
    for batch in [0..20, 20..45, 45..70] {
        house.write(batch).await;
        house.index().await;
    }
    let wanted = |tenant: Option<&str>| Wanted {
        since: Some(Millis(1_100)),
        tenant: tenant.map(str::to_owned),
        ..Wanted::default()
    };
    for tenant in [None, Some("t1"), Some("t-nobody")] {
        let told = house.store.usage(&wanted(tenant), u64::MAX).await.unwrap();
        assert_eq!(found(&told.usage), uses(10..70, tenant), "{tenant:?}");
        assert_eq!((told.knows_from, told.knows_until), (Some(Millis(1_000)), Some(Millis(1_690))));
        // The journal says the same.
        let swept = sweep(&house.dir, &wanted(tenant), vec![Usage::default()], &Quiet, |usage: &mut Usage, opened| {
            usage.see(opened);
        });
        assert_eq!(swept.unwrap().workers[0].links, told.usage.links);
    }
    // Where no more is looked at, what is older is not called known.
    let some = house.store.usage(&wanted(None), 5).await.unwrap();
    assert!(some.records < 50 && some.knows_from > Some(Millis(1_100)), "{some:?}");
    assert!(found(&some.usage)[0] < uses(10..70, None)[0]);
    if f.kind == Server::Postgres {
        // Another replica's journal, of which this machine has no file.
        let other = House::new(&f, "other");
        other.write(20..30).await;
        other.index().await;
        let both = house.store.usage(&wanted(None), u64::MAX).await.unwrap();
        assert_eq!(found(&both.usage), uses((10..70).chain(20..30), None));
    }
}

/// Tells nobody.
struct Quiet;

impl Progress for Quiet {
    fn total(&self, _: u64) {}
    fn advance(&self, _: u64) {}
}

pub(crate) async fn an_altered_line_is_no_answer(f: Arc<Fixture>) {
    let house = House::new(&f, "journal");
    house.write(0..20).await;
    house.index().await;
    if f.kind == Server::Postgres {
        let sql =
            "UPDATE audit_chunks SET lines = decode(replace(encode(lines, 'escape'), 'user-1', 'user-2'), 'escape')";
        f.raw(sql).await.unwrap();
    } else {
        let path = house.dir.join("segment-0000000001.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("user-1", "user-2")).unwrap();
    }
    let by_user = |user: &str| RecordFilter { user_id: Some(user.into()), ..RecordFilter::default() };
    assert!(house.store.query(&by_user("user-2")).await.is_err());
    assert_eq!(house.query(&by_user("user-0")).await.len(), 7, "the others are as they were");
}

/// A head from before the index was made anew still counts.
pub(crate) async fn the_head_outlives_the_index(f: Arc<Fixture>) {
    let house = House::new(&f, "journal");
    house.write(0..5).await;
    let seen = ChainHead { seq: 1_000, hash: Hash([7; 32]) };
    let insert = format!("INSERT INTO audit_chains VALUES ('{}', 1, 0, 1000, '{}', NULL)", house.chain(), seen.hash);
    f.audit_raw(&insert).await;
    assert_eq!(house.store.head(house.chain()).await.unwrap(), Some(seen));
    assert_eq!(house.store.position(house.chain()).await.unwrap(), None, "indexed again from the start");
    house.index().await;
    assert_eq!(house.store.head(house.chain()).await.unwrap(), Some(seen));
    assert!(house.journal.check_head(seen).is_err(), "the journal was cut off");
}

pub(crate) async fn each_change_is_chained_by_one_server(f: Arc<Fixture>) {
    let owner = f.partner("p").await;
    let mut changes = 2;
    for n in 0..10 {
        let tenant = f.tenant(&format!("t{n}")).await;
        f.granted(owner, &tenant, "auditor").await;
        changes += 2;
    }
    let store = AuditStore::new(&f.db, f.dir.path());
    assert_eq!(store.outbox_waiting().await.unwrap(), changes);
    let (one, other) = (chain(), chain());
    let first = store.claim(one, 4).await.unwrap();
    assert_eq!(first.len(), 4);
    assert!(first.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    // Claimed for good: given again to the same chain, after a crash too, and to no other.
    assert_eq!(AuditStore::new(&f.another().await, f.dir.path()).claim(one, 4).await.unwrap(), first);
    let rest = store.claim(other, 1000).await.unwrap();
    assert_eq!(rest.len() as u64, changes - 4);
    let seqs: BTreeSet<i64> = first.iter().chain(&rest).map(|row| row.seq).collect();
    assert_eq!(seqs.len() as u64, changes);
    // Marking is for the chain that claimed.
    let marked: Vec<i64> = first.iter().map(|row| row.seq).collect();
    store.mark_chained(other, &marked).await.unwrap();
    assert_eq!(store.claim(one, 4).await.unwrap(), first);
    store.mark_chained(one, &marked[..1]).await.unwrap();
    assert_eq!(store.claim(one, 4).await.unwrap(), first[1..]);
    store.mark_chained(one, &marked).await.unwrap();
    assert_eq!(store.claim(one, 4).await.unwrap(), []);
    assert_eq!(store.outbox_waiting().await.unwrap(), changes - 4);

    let granted = rest.iter().find(|row| row.change.action == "link.create").unwrap();
    assert_eq!(granted.change.kind, Kind::Link);
    assert_eq!(granted.change.user_id.as_deref(), Some("cli:tester"));
    assert_eq!(granted.change.partner_id, Some(owner));
    assert_eq!(granted.change.link_version, Some(LinkVersion(1)));
    let id = granted.change.link_id.unwrap();
    let after = serde_json::to_value(f.admin.link(id).await.unwrap()).unwrap();
    assert_eq!(granted.change.after.as_ref(), Some(&after));
    assert_eq!(granted.change.managed_tenant_id.as_deref(), after["managed_tenant_id"].as_str());

    // Servers that claim at the same time share what there is.
    let later = f.tenant("later").await;
    f.granted(owner, &later, "auditor").await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let store = AuditStore::new(&f.another().await, f.dir.path());
        tasks.push(tokio::spawn(async move { store.claim(chain(), 1).await.unwrap() }));
    }
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.extend(task.await.unwrap().into_iter().map(|row| row.seq));
    }
    assert_eq!(seqs.len(), 2);
    assert_eq!(seqs.iter().collect::<BTreeSet<_>>().len(), 2);
}

/// A server that claimed and ended: what it had chained is marked, the rest is given to another, each exactly once.
pub(crate) async fn changes_of_a_server_that_is_gone_are_freed_once(f: Arc<Fixture>) {
    let owner = f.partner("p").await;
    let tenant = f.tenant("t").await;
    let link = f.granted(owner, &tenant, "auditor").await.id;
    let store = AuditStore::new(&f.db, f.dir.path());
    let (gone, here) = (chain(), chain());
    let claimed = store.claim(gone, 3).await.unwrap();
    assert_eq!(claimed.len(), 3);
    let waiting = f.admin.outbox_waiting().await.unwrap();
    let by = |claimant| waiting.iter().find(|one| one.claimant == claimant).map(|one| one.changes);
    assert_eq!((by(Some(gone.0)), by(None)), (Some(3), Some(1)));
    assert!(waiting.iter().all(|one| (Millis::now().0 - one.oldest.0) < 60_000));

    let mut rows = f.admin.outbox_claimed(gone).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| row.seq).collect::<Vec<_>>(),
        claimed.iter().map(|row| row.seq).collect::<Vec<_>>()
    );
    assert_eq!(rows[0].id, claimed[0].change.id);
    rows[0].chained = true;
    // Whoever it is still works: nothing is touched.
    store.mark_chained(gone, &[rows[2].seq]).await.unwrap();
    let refused = f.admin.free_outbox(&f.actor, gone, &rows).await.unwrap_err();
    assert_eq!(refused.code().as_str(), "CONFLICT");
    assert_eq!(f.admin.outbox_claimed(gone).await.unwrap().len(), 2);
    let refused = f.admin.free_outbox(&f.actor, gone, &rows[..1]).await.unwrap_err();
    assert_eq!(refused.code().as_str(), "CONFLICT", "all or nothing");

    let freed = f.admin.free_outbox(&f.actor, gone, &rows[..2]).await.unwrap().value;
    assert_eq!((freed.released, freed.marked), (1, 1));
    assert!(f.admin.free_outbox(&f.actor, gone, &rows[..2]).await.is_err(), "done once");
    assert_eq!(
        store.claim(gone, 1_000).await.unwrap().iter().filter(|row| row.seq <= rows[2].seq).count(),
        1,
        "like any other"
    );
    let taken = store.claim(here, 1_000).await.unwrap();
    assert!(taken.is_empty(), "{taken:?}");

    // The act is a change like any other.
    let all = store.claim(gone, 1_000).await.unwrap();
    let act = all.iter().find(|row| row.change.action == "audit.outbox_release").unwrap();
    assert_eq!(act.change.resource_id.as_deref(), Some(&*gone.0.to_string()));
    assert_eq!(act.change.user_id.as_deref(), Some("cli:tester"));

    // Chained rows are forgotten at their age, and nothing that waits.
    let before = f.count("SELECT count(*) FROM audit_outbox").await;
    assert_eq!(store.prune_outbox(Millis(Millis::now().0 - 60_000)).await.unwrap(), 0);
    assert_eq!(store.prune_outbox(Millis(Millis::now().0 + 1)).await.unwrap(), 2);
    assert_eq!(f.count("SELECT count(*) FROM audit_outbox").await, before - 2);
    assert_eq!(store.claim(gone, 1_000).await.unwrap(), all);
    f.revoke(link).await;
    let newest = store.claim(gone, 1_000).await.unwrap().pop().unwrap();
    assert!(newest.seq > rows[2].seq, "numbers are never given again");
}
