//! What audit costs: `os` and `memory` per record in CPU time, `disk` with 64 that wait at once, the index behind the
//! journal on SQLite, and how long questions to it take.
//!
//! A plain harness, because the figures wanted are CPU time and the share of waiting, which criterion does not give.
//! `cargo bench --bench audit [-- DIR]`; DIR must be on the kind of disk that is to be measured (default: a temporary
//! folder under `target/`).

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use linkgate::{
    audit::{
        Asked, AuditSettings, AuditUnavailable, Completion, Decision, Durability, Holds, Journal, Opening,
        RecordFilter, RecordSource, indexer::Indexer,
    },
    config::settings::DatabaseSettings,
    domain::{
        Approval, DecisionId, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, PermissionSet,
        TenantId,
    },
    store::{AuditStore, Database},
};
use uuid::Uuid;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    // `cargo bench` passes `--bench`; `cargo test --benches` must not take minutes.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.iter().any(|argument| argument == "--bench");
    let dir = arguments
        .iter()
        .find(|argument| !argument.starts_with('-'))
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench-audit"), PathBuf::from);
    let records: u64 = if full { 400_000 } else { 200 };
    println!("folder {}, {records} records a run", dir.display());
    input(records)?;
    for (name, level, threads, tasks) in [
        ("memory, 1 thread", Durability::Memory, 1, 1),
        ("os, 1 thread", Durability::Os, 1, 1),
        ("os, 2 threads", Durability::Os, 2, 1),
        ("os, 1 thread of 4", Durability::Os, 1, 4),
        ("os, 2 threads of 4", Durability::Os, 2, 4),
        ("os, 2 threads of 32", Durability::Os, 2, 32),
    ] {
        per_record(&dir, name, level, (threads, tasks), records)?;
    }
    let (indexed, questions) = if full { (200_000, 1_000_000) } else { (200, 400) };
    indexing(&dir, indexed, questions)?;
    for waiting in [1, 64] {
        group_commit(&dir, waiting, if full { Duration::from_secs(5) } else { Duration::from_millis(50) })?;
    }
    Ok(())
}

fn settings(dir: &Path) -> Result<AuditSettings, Failed> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(AuditSettings {
        dir: dir.to_owned(),
        segment_bytes: 64 << 20,
        segment_age: None,
        writes: Durability::Disk,
        reads: Durability::Os,
        commit_timeout: Duration::from_secs(10),
        flush_interval: Duration::from_millis(50),
    })
}

const TENANT: &str = "c1a3b6de-0a46-4c43-9f70-0b1f5f4a9c55";

/// A record as a proxied request has it.
struct Sample {
    policies: [Arc<str>; 2],
    upstream: Arc<str>,
    partner: PartnerId,
    link: LinkId,
    holds: Holds,
    facts: LinkFacts,
}

impl Sample {
    fn new() -> Self {
        let (partner, link) = (PartnerId(Uuid::from_u128(0x1234_5678_9abc)), LinkId(Uuid::from_u128(0xfeed_beef_0001)));
        let roles: [Arc<str>; 1] = ["partner_msp_full".into()];
        Self {
            holds: Holds::of(&roles, &[]),
            facts: usual(partner, link),
            policies: ["role/msp_full".into(), "ceiling".into()],
            upstream: "billing".into(),
            partner,
            link,
        }
    }

    fn opening(&self) -> Opening<'_> {
        Opening {
            user_id: Some("7d0f6d6e-6d9a-4a5f-9f44-2f6b6a0d2f11"),
            username: Some("jane.doe"),
            partner_id: Some(self.partner),
            partner_name: Some("Acme Managed Services"),
            partner_tenant_id: Some("0b9b9f0e-6f0e-4a53-b0b1-4d1c3c1d5f00"),
            session_id: Some("9f1c0c60-0c7a-4a49-8d9d-1ad7f7f3a2a1"),
            issuer: Some("https://id.example.net/"),
            action: Some("partner.billing.invoices.read"),
            resource_type: Some("invoice"),
            resource_id: Some("inv-000017"),
            managed_tenant_id: Some(TENANT),
            link_id: Some(self.link),
            link_version: Some(LinkVersion(7)),
            decision: Decision::Allow,
            policies: &self.policies,
            policy_version: "4be0643f1d98573b97cdca98a65347dd",
            client_ip: Some([203, 0, 113, 77].into()),
            user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
            mfa: true,
            asked: Some(Asked {
                holds: &self.holds,
                user_suspended: false,
                switch_context: true,
                caller_only: false,
                class: "read",
                allowed: true,
                link: Some(&self.facts),
            }),
            ..Opening::new(
                DecisionId::generate(),
                Millis::now(),
                "GET",
                "/api/v1/billing/invoices?status=open&limit=50",
                "req_0af7651916cd43dd8448eb211c80319c",
            )
        }
    }

    fn completion(&self) -> Completion {
        Completion {
            status: Some(200),
            bytes: 4096,
            duration_us: 1834,
            upstream: Some(Arc::clone(&self.upstream)),
            ..Completion::default()
        }
    }
}

/// A link as most are.
fn usual(partner_id: PartnerId, id: LinkId) -> LinkFacts {
    let nowhere = TenantId::new(TENANT);
    LinkFacts {
        link: Link {
            id,
            partner_id,
            tenant_id: nowhere.unwrap_or_else(|_| unreachable!("the constant is a tenant id")),
            role: LinkRole::MspFull,
            granted: PermissionSet::EMPTY,
            denied: PermissionSet::EMPTY,
            approval: Approval::Approved,
            is_active: true,
            start: Millis(1_762_516_800_123),
            end: None,
            allowed_cidrs: Box::default(),
            require_mfa: false,
            version: LinkVersion(7),
        },
        partner_active: true,
        suspended: false,
        tenant_status: "active".into(),
        ancestors: Box::default(),
    }
}

/// CPU time of the calling process, user and system, from `/proc/self/stat`.
fn cpu() -> Result<(f64, f64), Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let seconds =
        |at: usize| -> Result<f64, Failed> { Ok(fields.get(at).ok_or("short stat")?.parse::<f64>()? / 100.0) };
    Ok((seconds(11)?, seconds(12)?))
}

/// What the caller of the journal pays for: an id, the time, a filled-in opening and completion.
fn input(records: u64) -> Result<(), Failed> {
    let sample = Sample::new();
    let (user, _) = cpu()?;
    for _ in 0..records {
        std::hint::black_box((sample.opening(), sample.completion()));
    }
    let each = (cpu()?.0 - user) * 1e6 / records as f64;
    println!("input alone        {each:5.2} µs user CPU a record (contained in the figures below)");
    Ok(())
}

async fn one(journal: Journal, level: Durability, records: u64) -> Result<(), AuditUnavailable> {
    let sample = Sample::new();
    for _ in 0..records {
        journal.admit(&sample.opening(), level).await?.complete(sample.completion());
    }
    Ok(())
}

/// On so many threads, each with so many requests that are ready at the same time.
fn per_record(
    dir: &Path,
    name: &str,
    level: Durability,
    (threads, tasks): (u64, u64),
    records: u64,
) -> Result<(), Failed> {
    let (journal, _) = Journal::open(settings(dir)?)?;
    let (user, system) = cpu()?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let work: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<(), String> {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| e.to_string())?;
                    tokio::task::LocalSet::new().block_on(&runtime, async {
                        let each = records / threads / tasks;
                        let work: Vec<_> =
                            (0..tasks).map(|_| tokio::task::spawn_local(one(journal.clone(), level, each))).collect();
                        for task in work {
                            task.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
                        }
                        Ok(())
                    })
                })
            })
            .collect();
        work.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    let wall = start.elapsed().as_secs_f64();
    journal.close();
    let (user_after, system_after) = cpu()?;
    let each = 1e6 / records as f64;
    println!(
        "{name:19} {:6.2} µs wall, {:5.2} µs user + {:5.2} µs system CPU a record (opening and completion)",
        wall * each,
        (user_after - user) * each,
        (system_after - system) * each
    );
    drop(journal);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

/// CPU time of the index for `records` records, read by the batch as behind a busy server, and then the time of questions
/// once there are `questions` records.
fn indexing(dir: &Path, records: u64, questions: u64) -> Result<(), Failed> {
    let (journal, _) = Journal::open(settings(dir)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let database = Database::open(&DatabaseSettings::Sqlite { path: dir.join("linkgate.db") }).await?;
        database.migrate().await?;
        let store = Arc::new(AuditStore::new(&database, dir));
        let mut indexer = Indexer::new(journal.clone(), Arc::clone(&store), Duration::from_secs(1));
        write(&journal, records).await?;
        journal.settle().await?;
        let (user, system) = cpu()?;
        indexer.catch_up().await?;
        let (user_after, system_after) = cpu()?;
        let each = 1e6 / records as f64;
        println!(
            "index on SQLite    {:5.2} µs user + {:5.2} µs system CPU a record",
            (user_after - user) * each,
            (system_after - system) * each
        );
        while journal.status().last_seq < questions * 2 {
            // Indexed on the way, as behind a server.
            write(&journal, records.min(20_000)).await?;
            indexer.catch_up().await?;
        }
        let oldest = store
            .query(&RecordFilter {
                offset: 100_000.min(records as usize / 2),
                limit: Some(1),
                ..RecordFilter::default()
            })
            .await?;
        let id = oldest.first().ok_or("nothing is indexed")?.id;
        let any = RecordFilter::default;
        for (name, filter) in [
            ("the newest 50", RecordFilter { limit: Some(50), ..any() }),
            ("a decision id", RecordFilter { id: Some(id), ..any() }),
            ("an id that nobody has", RecordFilter { id: Some(DecisionId::generate()), ..any() }),
            ("an unknown request id", RecordFilter { request_id: Some("req_none".to_owned()), ..any() }),
            ("50 of a tenant", RecordFilter { managed_tenant_id: Some(TENANT.to_owned()), limit: Some(50), ..any() }),
            ("denials, none there", RecordFilter { decision: Some(Decision::Deny), limit: Some(50), ..any() }),
        ] {
            let start = Instant::now();
            let found = store.query(&filter).await?.len();
            let took = start.elapsed().as_secs_f64() * 1e3;
            println!("query, {name:22} {took:7.2} ms, {found} found of {questions}");
        }
        database.close().await;
        Ok::<(), Failed>(())
    })?;
    drop(journal);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

async fn write(journal: &Journal, records: u64) -> Result<(), Failed> {
    let sample = Sample::new();
    for n in 0..records {
        let request = format!("req_{n}");
        let opening = Opening { request_id: &request, ..sample.opening() };
        journal.admit(&opening, Durability::Os).await?.complete(sample.completion());
    }
    Ok(())
}

/// `waiting` requests at a time, each waiting for stable storage.
fn group_commit(dir: &Path, waiting: u64, time: Duration) -> Result<(), Failed> {
    let (journal, _) = Journal::open(settings(dir)?)?;
    let (done, waited_ns) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (user, system) = cpu()?;
    let start = Instant::now();
    let mut waits: Vec<u64> = runtime.block_on(async {
        let tasks: Vec<_> = (0..waiting)
            .map(|_| {
                let (journal, done, waited_ns) = (journal.clone(), Arc::clone(&done), Arc::clone(&waited_ns));
                tokio::spawn(async move {
                    let sample = Sample::new();
                    let mut waits = Vec::new();
                    while start.elapsed() < time {
                        let before = Instant::now();
                        let Ok(open) = journal.admit(&sample.opening(), Durability::Disk).await else { break };
                        let waited = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
                        waited_ns.fetch_add(waited, Ordering::Relaxed);
                        waits.push(waited);
                        open.complete(sample.completion());
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    waits
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap_or_default());
        }
        all
    });
    let wall = start.elapsed().as_secs_f64();
    let (user_after, system_after) = cpu()?;
    waits.sort_unstable();
    let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).map_or(0.0, |ns| *ns as f64 / 1e6);
    let records = done.load(Ordering::Relaxed) as f64;
    let waited = waited_ns.load(Ordering::Relaxed) as f64 / 1e9;
    println!(
        "disk, {waiting:3} waiting  {:8.0} records/s, wait p50 {:.3} ms p99 {:.3} ms, {:.1} % of the time spent waiting, \
         {:.2} µs CPU a record",
        records / wall,
        at(0.5),
        at(0.99),
        waited / (wall * waiting as f64) * 100.0,
        (user_after - user + system_after - system) * 1e6 / records
    );
    drop(journal);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
