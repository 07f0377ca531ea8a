//! The audit index and the outbox, as the audit room's traits promise them.

use std::{collections::BTreeSet, sync::Arc};

use linkgate::{
    audit::{
        ChainHead, ChainHeads, ChainId, Completed, Completion, Decision, Hash, IndexBatch, IndexPosition, IndexSink,
        Kind, OutboxSource, Record, RecordFilter, RecordSource, Slice, SliceOutcome, Stamp,
    },
    domain::{DecisionId, LinkId, LinkVersion, Millis, PartnerId},
    store::AuditStore,
};
use uuid::Uuid;

use crate::fixture::Fixture;

fn partner(n: u128) -> PartnerId {
    PartnerId(Uuid::from_u128(n))
}

fn stamp(seq: u64) -> Stamp {
    Stamp { seq, prev_hash: Hash::GENESIS, hash: hash(seq) }
}

fn hash(seq: u64) -> Hash {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seq.to_be_bytes());
    Hash(bytes)
}

/// A record with every field set, different for each `n`.
fn record(chain: ChainId, n: u64) -> Record {
    Record {
        id: DecisionId::generate(),
        time: Millis(1_000 + i64::try_from(n).unwrap() * 10),
        kind: if n % 9 == 8 { Kind::Link } else { Kind::Access },
        user_id: Some(format!("user-{}", n % 3)),
        username: Some("Ünï".into()),
        partner_id: (n % 4 != 3).then(|| partner(u128::from(n % 4))),
        partner_name: Some("P".into()),
        partner_tenant_id: Some("home".into()),
        session_id: Some("s".into()),
        issuer: Some("https://idp".into()),
        action: Some(if n.is_multiple_of(2) { "partner.billing.read" } else { "partner.tenants.list" }.into()),
        method: Some("GET".into()),
        path: Some("/x?y=…".into()),
        resource_type: Some("invoice".into()),
        resource_id: Some("i".into()),
        managed_tenant_id: (n % 5 != 4).then(|| format!("t{}", n % 5)),
        link_id: Some(LinkId(Uuid::from_u128(9))),
        link_version: Some(LinkVersion(3)),
        decision: if n.is_multiple_of(3) { Decision::Deny } else { Decision::Allow },
        reason: Some("no_link".into()),
        policies: vec!["a".into(), "b".into()],
        policy_version: Some("v".into()),
        near_misses: vec!["mfa_required".into()],
        status: Some(200),
        bytes: Some(u64::from(u32::MAX) + n),
        duration_us: Some(n),
        upstream: Some("billing".into()),
        aborted: Some(false),
        request_id: Some(format!("req_{}", n / 2)),
        trace_id: Some("trace".into()),
        client_ip: Some("2001:db8::1".parse().unwrap()),
        user_agent: Some("curl\u{1F980}".into()),
        mfa: Some(true),
        slices: if n % 5 == 4 {
            ["s0", "s1"].map(|tenant| Slice { managed_tenant_id: tenant.into(), ..Slice::default() }).into()
        } else {
            Vec::new()
        },
        before: Some(serde_json::json!({"z": 1, "a": [1.50, null]})),
        after: None,
        chain_id: chain,
        opening: stamp(n),
        completion: Some(stamp(n + 1)),
    }
}

fn position(seq: u64) -> IndexPosition {
    IndexPosition { segment: 1, offset: seq * 100, head: ChainHead { seq, hash: hash(seq) } }
}

fn batch(chain: ChainId, after: Option<u64>, to: u64, records: Vec<Record>) -> IndexBatch {
    IndexBatch { chain_id: chain, after: after.map(position), records, completions: Vec::new(), position: position(to) }
}

fn chain() -> ChainId {
    ChainId(Uuid::now_v7())
}

pub(crate) async fn a_batch_is_stored_once_with_its_position(f: Arc<Fixture>) {
    let (store, chain) = (AuditStore::new(&f.db), chain());
    assert_eq!(store.position(chain).await.unwrap(), None);
    assert_eq!(store.head(chain).await.unwrap(), None);
    let records: Vec<Record> = (0..150).map(|n| record(chain, n)).collect();
    let first = batch(chain, None, 150, records.clone());
    store.store(first.clone()).await.unwrap();
    assert_eq!(store.position(chain).await.unwrap(), Some(position(150)));
    assert_eq!(store.head(chain).await.unwrap(), Some(position(150).head));
    // The same again, as after a crash between commit and answer; and one that starts elsewhere.
    assert!(store.store(first).await.is_err());
    assert!(store.store(batch(chain, Some(149), 151, vec![record(chain, 151)])).await.is_err());
    store.store(batch(chain, Some(150), 151, vec![record(chain, 151)])).await.unwrap();
    let all = store.query(&RecordFilter::default()).await.unwrap();
    assert_eq!(all.len(), 151);
    // Every field came back as it went in, newest first.
    let back: Vec<Record> = all.into_iter().skip(1).rev().collect();
    assert_eq!(back, records);
    assert_eq!(store.chains().await.unwrap(), [chain]);
    // Read by another process.
    let elsewhere = AuditStore::new(&f.another().await);
    assert_eq!(elsewhere.head(chain).await.unwrap(), Some(position(151).head));
}

pub(crate) async fn only_one_of_two_indexers_advances_a_chain(f: Arc<Fixture>) {
    let chain = chain();
    AuditStore::new(&f.db).store(batch(chain, None, 10, Vec::new())).await.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let store = AuditStore::new(&f.another().await);
        tasks.push(tokio::spawn(async move {
            let records = (0..20).map(|n| record(chain, n)).collect();
            store.store(batch(chain, Some(10), 30, records)).await.is_ok()
        }));
    }
    let mut stored = 0;
    for task in tasks {
        stored += usize::from(task.await.unwrap());
    }
    assert_eq!(stored, 1);
    let all = AuditStore::new(&f.db).query(&RecordFilter::default()).await.unwrap();
    assert_eq!(all.len(), 20);
}

pub(crate) async fn a_completion_of_an_earlier_batch_is_joined(f: Arc<Fixture>) {
    let (store, chain) = (AuditStore::new(&f.db), chain());
    let open = Record {
        status: None,
        aborted: None,
        completion: None,
        decision: Decision::Allow,
        slices: vec![Slice { managed_tenant_id: "s0".into(), ..Slice::default() }],
        ..record(chain, 4)
    };
    store.store(batch(chain, None, 1, vec![open.clone()])).await.unwrap();
    let completed = Completed {
        id: open.id,
        completion: Completion {
            status: Some(503),
            aborted: true,
            decision: Some(Decision::Deny),
            reason: Some("audit_unavailable".into()),
            slices: vec![SliceOutcome { managed_tenant_id: "late".into(), status: "timeout".into() }],
            ..Completion::default()
        },
        stamp: stamp(2),
    };
    let second = IndexBatch { completions: vec![completed.clone()], ..batch(chain, Some(1), 2, Vec::new()) };
    store.store(second).await.unwrap();
    let mut expected = open;
    expected.complete(completed);
    for filter in [
        RecordFilter { id: Some(expected.id), ..RecordFilter::default() },
        RecordFilter { decision: Some(Decision::Deny), ..RecordFilter::default() },
        RecordFilter { managed_tenant_id: Some("late".into()), ..RecordFilter::default() },
    ] {
        assert_eq!(store.query(&filter).await.unwrap(), std::slice::from_ref(&expected), "{filter:?}");
    }
    let allowed = RecordFilter { decision: Some(Decision::Allow), ..RecordFilter::default() };
    assert!(store.query(&allowed).await.unwrap().is_empty());
    // One that is not here (its opening was archived before this index began) does not stop the others.
    let strange = Completed { id: DecisionId::generate(), completion: Completion::default(), stamp: stamp(3) };
    let third = IndexBatch { completions: vec![strange], ..batch(chain, Some(2), 3, Vec::new()) };
    store.store(third).await.unwrap();
}

/// Against `RecordFilter::matches`, the rule that the journal itself is searched by.
pub(crate) async fn every_filter_finds_what_it_should(f: Arc<Fixture>) {
    let (store, chain) = (AuditStore::new(&f.db), chain());
    let records: Vec<Record> = (0..120).map(|n| record(chain, n)).collect();
    store.store(batch(chain, None, 120, records.clone())).await.unwrap();
    let any = RecordFilter::default;
    let filters = [
        any(),
        RecordFilter { id: Some(records[17].id), ..any() },
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
        let found = store.query(&filter).await.unwrap();
        let expected: Vec<Record> = records.iter().rev().filter(|one| filter.matches(one)).cloned().collect();
        assert_eq!(found, expected, "{filter:?}");
        // The same, a page at a time.
        let mut paged = Vec::new();
        for offset in (0..expected.len() + 7).step_by(7) {
            let page = RecordFilter { limit: Some(7), offset, ..filter.clone() };
            paged.extend(store.query(&page).await.unwrap());
        }
        assert_eq!(paged, expected, "{filter:?} in pages");
    }
}

/// Two chains side by side, as of two replicas, over several lots: times interleave, places do not.
pub(crate) async fn records_of_many_lots_are_found_newest_first(f: Arc<Fixture>) {
    const EACH: u64 = 6_000;
    let store = AuditStore::new(&f.db);
    let chains = [chain(), chain()];
    let mut records = Vec::new();
    for (which, chain) in (0..).zip(chains) {
        let mut done: Option<u64> = None;
        for begin in (0..EACH).step_by(700) {
            let end = (begin + 700).min(EACH);
            let batch_records: Vec<Record> = (begin..end)
                .map(|n| Record {
                    time: Millis(i64::try_from(n * 2 + which).unwrap()),
                    request_id: Some(format!("req_{which}_{n}")),
                    ..record(chain, n)
                })
                .collect();
            records.extend(batch_records.clone());
            store.store(batch(chain, done, end, batch_records)).await.unwrap();
            done = Some(end);
        }
    }
    records.sort_by_key(|record| std::cmp::Reverse(record.time));
    assert!(f.audit_count("SELECT count(*) FROM audit_lots").await >= 4);
    let any = RecordFilter::default;
    for filter in [
        RecordFilter { limit: Some(5), ..any() },
        RecordFilter { limit: Some(3_000), offset: 5_000, ..any() },
        RecordFilter { request_id: Some("req_1_17".into()), ..any() },
        RecordFilter { request_id: Some("req_0_5999".into()), ..any() },
        RecordFilter { request_id: Some("nobody's".into()), ..any() },
        RecordFilter { from: Some(Millis(4_000)), to: Some(Millis(4_100)), ..any() },
        RecordFilter { managed_tenant_id: Some("s0".into()), limit: Some(700), offset: 900, ..any() },
        RecordFilter { user_id: Some("user-1".into()), decision: Some(Decision::Deny), ..any() },
        RecordFilter { partner_id: Some(partner(1)), kind: Some(Kind::Link), limit: Some(10), offset: 40, ..any() },
        RecordFilter { limit: Some(0), ..any() },
    ] {
        let found = store.query(&filter).await.unwrap();
        let all = records.iter().filter(|one| filter.matches(one)).cloned();
        let expected: Vec<Record> = all.skip(filter.offset).take(filter.limit.unwrap_or(10_000)).collect();
        assert!(found == expected, "{filter:?}: {} found, {} expected", found.len(), expected.len());
    }
    let too_deep = RecordFilter { offset: 1_000_000, ..any() };
    assert!(store.query(&too_deep).await.is_err());
}

pub(crate) async fn each_change_is_chained_by_one_server(f: Arc<Fixture>) {
    let owner = f.partner("p").await;
    let mut changes = 2;
    for n in 0..10 {
        let tenant = f.tenant(&format!("t{n}")).await;
        f.granted(owner, &tenant, "auditor").await;
        changes += 2;
    }
    let store = AuditStore::new(&f.db);
    assert_eq!(store.outbox_waiting().await.unwrap(), changes);
    let (one, other) = (chain(), chain());
    let first = store.claim(one, 4).await.unwrap();
    assert_eq!(first.len(), 4);
    assert!(first.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    // Claimed for good: given again to the same chain, after a crash too, and to no other.
    assert_eq!(AuditStore::new(&f.another().await).claim(one, 4).await.unwrap(), first);
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
        let store = AuditStore::new(&f.another().await);
        tasks.push(tokio::spawn(async move { store.claim(chain(), 1).await.unwrap() }));
    }
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.extend(task.await.unwrap().into_iter().map(|row| row.seq));
    }
    assert_eq!(seqs.len(), 2);
    assert_eq!(seqs.iter().collect::<BTreeSet<_>>().len(), 2);
}
