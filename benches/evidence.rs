//! What evidence costs: the tree behind the journal per record, a checkpoint, the proofs of a page, checking them, and
//! `audit verify` with and without checkpoints.
//!
//! `cargo bench --bench evidence [-- DIR]`; a plain harness, because CPU time is wanted. Records are those of proxied
//! requests; one in fifty is a consolidated one over 40 tenants.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use linkgate::{
    audit::{
        AuditSettings, Completion, Decision, Durability, EvidenceStore, Journal, Kind, Opening, RecordFilter,
        RecordSource, Slice,
        evidence::{Checkpointer, Keys, Signer, verdict, witness::Witness},
        indexer::Indexer,
        verify::{VerifyOptions, verify, verify_against},
    },
    config::settings::DatabaseSettings,
    domain::{DecisionId, Millis},
    store::{AuditStore, Database, Provable},
};

type Failed = Box<dyn std::error::Error>;

const TENANT: &str = "c1a3b6de-0a46-4c43-9f70-0b1f5f4a9c55";

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.iter().any(|argument| argument == "--bench");
    let dir = arguments
        .iter()
        .find(|argument| !argument.starts_with('-'))
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench-evidence"), PathBuf::from);
    let records: u64 = if full { 1_000_000 } else { 500 };
    println!("folder {}, {records} records", dir.display());
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(&dir, records))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// CPU time of this process, user and system, in seconds.
fn cpu() -> Result<f64, Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let at = |at: usize| -> Result<f64, Failed> { Ok(fields.get(at).ok_or("short stat")?.parse::<f64>()? / 100.0) };
    Ok(at(11)? + at(12)?)
}

/// Runs it and prints what it took.
async fn timed<T>(what: &str, records: u64, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let (before, start) = (cpu()?, Instant::now());
    let done = work.await?;
    let (spent, wall) = (cpu()? - before, start.elapsed().as_secs_f64());
    let each = spent * 1e6 / records as f64;
    println!("{what:44} {:9.1} ms wall, {:9.1} ms CPU, {each:7.2} µs CPU a record", wall * 1e3, spent * 1e3);
    Ok(done)
}

async fn write(journal: &Journal, records: u64) -> Result<(), Failed> {
    let slices: Vec<Slice> = (0..40)
        .map(|n| Slice { managed_tenant_id: format!("{TENANT}-{n}"), decision: Decision::Allow, ..Slice::default() })
        .collect();
    for n in 0..records {
        let opening = Opening {
            user_id: Some("7d0f6d6e-6d9a-4a5f-9f44-2f6b6a0d2f11"),
            username: Some("jane.doe"),
            partner_name: Some("Acme Managed Services"),
            session_id: Some("9f1c0c60-0c7a-4a49-8d9d-1ad7f7f3a2a1"),
            issuer: Some("https://id.example.net/"),
            action: Some("partner.billing.invoices.read"),
            resource_type: Some("invoice"),
            resource_id: Some("inv-000017"),
            decision: Decision::Allow,
            policy_version: "4be0643f1d98573b97cdca98a65347dd",
            client_ip: Some([203, 0, 113, 77].into()),
            user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
            ..Opening::new(DecisionId::generate(), Millis::now(), "GET", "/api/v1/billing/invoices/inv-000017", "req_1")
        };
        let shared = n % 50 == 49;
        let opening = match shared {
            true => Opening { slices: &slices, ..opening },
            false => Opening { managed_tenant_id: Some(TENANT), ..opening },
        };
        let record = journal.admit(&opening, Durability::Memory).await?;
        record.complete(Completion { status: Some(200), bytes: 4096, ..Completion::default() });
    }
    journal.settle().await?;
    Ok(())
}

async fn measure(dir: &Path, records: u64) -> Result<(), Failed> {
    let settings = AuditSettings {
        dir: dir.to_owned(),
        segment_bytes: 64 << 20,
        segment_age: None,
        writes: Durability::Disk,
        reads: Durability::Os,
        commit_timeout: Duration::from_secs(60),
        flush_interval: Duration::from_millis(50),
    };
    let journal = Journal::open(settings)?.0;
    let database = Database::open(&DatabaseSettings::Sqlite { path: dir.join("linkgate.db") }).await?;
    database.migrate().await?;
    let store = Arc::new(AuditStore::new(&database, dir));
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| "no key")?;
    let body = STANDARD.encode(pkcs8.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    let signer = Arc::new(Signer::from_pem(pem.as_bytes()).ok_or("no key")?);
    let mut keys = Keys::default();
    keys.extend([signer.public().clone()]);

    timed("journal, memory level", records, write(&journal, records)).await?;
    let mut indexer = Indexer::new(journal.clone(), Arc::clone(&store), Duration::from_secs(1));
    timed("index on SQLite", records, async { Ok(indexer.catch_up().await?) }).await?;
    let hour = Duration::from_secs(3600);
    let mut checkpointer = Checkpointer::new(journal.clone(), Arc::clone(&store), signer, hour);
    let progress = checkpointer.progress();
    timed("tree and checkpoints over all records", records, async {
        while progress.signed_seq() < journal.status().last_seq {
            checkpointer.sign_now().await?;
        }
        Ok(())
    })
    .await?;
    write(&journal, 1).await?;
    timed("one more checkpoint", 1, async { Ok(checkpointer.sign_now().await?) }).await?;

    let filter = RecordFilter {
        managed_tenant_id: Some(TENANT.to_owned()),
        kind: Some(Kind::Access),
        limit: Some(100),
        ..RecordFilter::default()
    };
    let page = timed("page of 100 records", 100, async { Ok(store.query(&filter).await?) }).await?;
    let places: Vec<Provable> = page
        .iter()
        .map(|record| Provable {
            chain_id: record.chain_id,
            opening: record.opening.seq,
            completion: record.completion.map(|stamp| stamp.seq),
            shared: false,
        })
        .collect();
    let proofs = timed("proofs of that page", 100, async { Ok(store.prove(&places, TENANT).await?) }).await?;
    let items: Vec<serde_json::Value> = page
        .iter()
        .zip(proofs.records)
        .map(|(record, proof)| {
            let mut item = serde_json::to_value(record)?;
            if let Some(fields) = item.as_object_mut() {
                fields.insert("proof".to_owned(), serde_json::to_value(proof.ok())?);
            }
            Ok(item)
        })
        .collect::<Result<_, serde_json::Error>>()?;
    let saved = serde_json::json!({"items": items, "checkpoints": proofs.checkpoints}).to_string();
    println!("{:44} {:9.1} kB", "size of the answer with proofs", saved.len() as f64 / 1e3);
    let judged = async { Ok(verdict::check(saved.as_bytes(), &keys, Some(TENANT))?) };
    let judged = timed("prove-check of that page", 100, judged).await?;
    println!("{:44} {:9}", "proven", judged.proven);
    journal.close();

    timed("audit verify, chain alone", records, async { Ok(verify(dir, VerifyOptions::default())?) }).await?;
    let last = store.last(journal.chain_id()).await?.ok_or("no checkpoint")?.0;
    let witnessed = timed("audit verify with checkpoints", records, async {
        let mut witness = Witness::new(journal.chain_id());
        witness.present(&last.note, &keys, "kept");
        witness.recall_shelf(dir, &keys)?;
        Ok(verify_against(dir, VerifyOptions::default(), Some(&mut witness))?)
    })
    .await?;
    println!("{:44} {:9}", "checkpoints that hold", witnessed.checkpoints);
    database.close().await;
    Ok(())
}
