//! Checkpoints, trees and proofs, as both databases keep and make them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use linkgate::{
    app::kept::go_on,
    audit::{
        AuditSettings, ChangeRecord, Completion, Decision, Durability, EvidenceStore, Journal, Kind, Opening, Record,
        RecordFilter, RecordSource, RetainedIndex, Slice, SliceOutcome,
        evidence::{Cause, Checkpointer, Keys, RecordProof, Signer, verdict},
        indexer::Indexer,
        reader::segments,
    },
    domain::{DecisionId, Millis},
    store::{AuditStore, Extent, PostgresDepot, Provable, Unproven, emptied},
};
use serde_json::{Value, json};

use crate::fixture::Fixture;

pub(crate) struct House {
    pub(crate) journal: Journal,
    pub(crate) store: Arc<AuditStore>,
    signer: Arc<Signer>,
    pub(crate) dir: PathBuf,
}

impl House {
    pub(crate) fn new(f: &Fixture, segment_bytes: u64) -> Self {
        let dir = f.dir.path().join("journal");
        let settings = AuditSettings {
            dir: dir.clone(),
            segment_bytes,
            segment_age: None,
            writes: Durability::Os,
            reads: Durability::Os,
            commit_timeout: Duration::from_secs(20),
            flush_interval: Duration::from_millis(2),
        };
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let body = STANDARD.encode(pkcs8.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        Self {
            journal: Journal::open(settings).unwrap().0,
            store: Arc::new(AuditStore::new(&f.db, &dir)),
            signer: Arc::new(Signer::from_pem(pem.as_bytes()).unwrap()),
            dir,
        }
    }

    /// A journal that is kept in the database, and the epoch of its taking. `signer`: of another house.
    pub(crate) async fn kept(
        f: &Fixture,
        holder: &str,
        segment_bytes: u64,
        signer: Option<&Arc<Signer>>,
    ) -> (Self, i64) {
        let one = Self::new(f, segment_bytes);
        let dir = f.dir.path().join(holder);
        emptied(&dir).unwrap();
        let store = Arc::new(AuditStore::new(&f.db, &dir));
        let depot = PostgresDepot::claim(&f.db, holder).await.unwrap();
        let settings = AuditSettings { dir: dir.clone(), ..one.journal.settings().clone() };
        let opened = go_on(&store, depot, settings, Extent::ToGoOn).await.unwrap().unwrap();
        let signer = Arc::clone(signer.unwrap_or(&one.signer));
        (Self { journal: opened.journal, store, signer, dir }, opened.epoch)
    }

    pub(crate) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }

    pub(crate) fn keys(&self) -> Keys {
        let mut keys = Keys::default();
        keys.extend([self.signer.public().clone()]);
        keys
    }

    fn checkpointer(&self) -> Checkpointer<AuditStore> {
        let (store, signer) = (Arc::clone(&self.store), Arc::clone(&self.signer));
        Checkpointer::new(self.journal.clone(), store, signer, Duration::from_secs(3600))
    }

    pub(crate) async fn sign(&self) {
        self.checkpointer().sign_now().await.unwrap();
    }

    pub(crate) async fn index(&self) {
        Indexer::new(self.journal.clone(), Arc::clone(&self.store), Duration::from_secs(1)).catch_up().await.unwrap();
    }

    /// A request in one tenant, and one over three, of which `t-1` is refused and `t-2` acted upon.
    pub(crate) async fn write(&self, rounds: usize) {
        for n in 0..rounds {
            let tenant = format!("t-{}", n % 3);
            let alone = Opening {
                user_id: Some("u-1"),
                managed_tenant_id: Some(&tenant),
                session_id: Some("a-session"),
                resource_id: Some("r-9"),
                decision: Decision::Allow,
                action: Some("partner.billing.read"),
                ..Opening::new(DecisionId::generate(), Millis::now(), "GET", "/api/v1/invoices/r-9", "req_1")
            };
            let record = self.journal.admit(&alone, Durability::Os).await.unwrap();
            record.complete(Completion { status: Some(200), ..Completion::default() });
            let slices: Vec<Slice> = (0..3)
                .map(|n| Slice {
                    managed_tenant_id: format!("t-{n}"),
                    decision: if n == 1 { Decision::Deny } else { Decision::Allow },
                    reason: (n == 1).then(|| "override".to_owned()),
                    ..Slice::default()
                })
                .collect();
            let shared = Opening {
                managed_tenant_id: None,
                slices: &slices,
                resource_id: Some("hers 1"),
                ..Opening::new(DecisionId::generate(), Millis::now(), "PATCH", "/api/tickets/hers%201", "req_2")
            };
            let shared = Opening { decision: Decision::Allow, ..shared };
            let record = self.journal.admit(&shared, Durability::Os).await.unwrap();
            let status = |n: usize| if n == 2 { "acted" } else { "ok" };
            let outcome = |n| SliceOutcome { managed_tenant_id: format!("t-{n}"), status: status(n).into() };
            let slices = (0..3).map(outcome).collect();
            record.complete(Completion { status: Some(200), slices, ..Completion::default() });
            self.journal.append_change(&ChangeRecord::new(Kind::Link, "link.update")).await.unwrap();
        }
    }

    /// What the access log would show `tenant`, with proofs.
    async fn log(&self, tenant: &str) -> (Value, Vec<Result<RecordProof, Unproven>>) {
        let filter = RecordFilter {
            managed_tenant_id: Some(tenant.to_owned()),
            kind: Some(Kind::Access),
            ..RecordFilter::default()
        };
        let records = self.store.query(&filter).await.unwrap();
        let is_shared = |record: &Record| {
            let acted = |slice: &Slice| slice.managed_tenant_id == tenant && slice.status.as_deref() == Some("acted");
            record.slices.len() > 1 && !record.slices.iter().any(acted)
        };
        let places: Vec<Provable> = records
            .iter()
            .map(|record| Provable {
                chain_id: record.chain_id,
                opening: record.opening.seq,
                completion: record.completion.map(|stamp| stamp.seq),
                shared: is_shared(record),
            })
            .collect();
        let proofs = self.store.prove(&places, tenant).await.unwrap();
        let items: Vec<Value> = records
            .iter()
            .zip(&proofs.records)
            .map(|(record, proof)| {
                let mut item = serde_json::to_value(record).unwrap();
                if let Some(slice) = record.slices.iter().find(|slice| slice.managed_tenant_id == tenant) {
                    item["decision"] = json!(slice.decision);
                    item["reason"] = json!(slice.reason);
                }
                if is_shared(record) {
                    item["path"] = json!("/api/tickets/_");
                    item["resource_id"] = json!(null);
                }
                item["proof"] = json!(proof.as_ref().ok());
                item["proof_reason"] = json!(proof.as_ref().err().map(|why| why.as_str()));
                item
            })
            .collect();
        (json!({"items": items, "checkpoints": proofs.checkpoints}), proofs.records)
    }

    async fn judged(&self, tenant: &str) -> verdict::Verdict {
        let (log, _) = self.log(tenant).await;
        verdict::check(log.to_string().as_bytes(), &self.keys(), Some(tenant)).unwrap()
    }
}

pub(crate) async fn a_tree_and_its_checkpoints_are_kept_and_gone_on_with(f: Arc<Fixture>) {
    let house = House::new(&f, 20_000);
    let chain = house.journal.chain_id();
    assert!(house.store.last(chain).await.unwrap().is_none());
    for round in 0..3 {
        house.write(60).await;
        // A new one each time: it goes on from what the database holds.
        house.sign().await;
        let (kept, tiles) = house.store.last(chain).await.unwrap().unwrap();
        let said = kept.checkpoint().unwrap();
        assert_eq!((said.chain_id, said.head), (chain, house.journal.status().written.head), "round {round}");
        assert_eq!((kept.cause, kept.frontier(&said).is_some()), (Cause::Interval, true));
        assert!(!tiles.is_empty());
    }
    let (_, tiles) = house.store.last(chain).await.unwrap().unwrap();
    assert!(tiles.iter().any(|((level, _), _)| *level == 1), "more than 256 lines");
}

pub(crate) async fn every_tenant_gets_proofs_of_its_records_and_of_no_others(f: Arc<Fixture>) {
    let house = House::new(&f, 20_000);
    house.write(30).await;
    house.index().await;
    let before = house.judged("t-0").await;
    assert_eq!((before.proven, before.pending.len()), (0, 40), "without a checkpoint there is no proof");
    house.sign().await;
    for tenant in ["t-0", "t-1", "t-2"] {
        let verdict = house.judged(tenant).await;
        assert_eq!((verdict.proven, verdict.wrong, verdict.pending), (40, vec![], vec![]), "{tenant}");
        let (log, proofs) = house.log(tenant).await;
        let proofs = json!(proofs.into_iter().map(Result::unwrap).collect::<Vec<_>>()).to_string();
        for other in ["t-0", "t-1", "t-2"] {
            assert_eq!(proofs.contains(other), other == tenant, "{tenant} and {other}: {log}");
        }
        assert!(!proofs.contains("a-session"));
        // Who was acted for sees what was acted upon, the others do not.
        assert_eq!(proofs.contains("hers"), tenant == "t-2");
    }
    // Whoever asks for records of others gets none of them.
    let filter = RecordFilter { managed_tenant_id: Some("t-0".into()), ..RecordFilter::default() };
    let records = house.store.query(&filter).await.unwrap();
    let places: Vec<Provable> = records
        .iter()
        .map(|record| Provable {
            chain_id: record.chain_id,
            opening: record.opening.seq,
            completion: record.completion.map(|stamp| stamp.seq),
            shared: false,
        })
        .collect();
    let proofs = house.store.prove(&places, "t-stranger").await.unwrap().records;
    assert!(proofs.iter().all(|proof| *proof == Err(Unproven::Unavailable)));
    // Younger ones wait for the next checkpoint.
    house.write(3).await;
    house.index().await;
    let verdict = house.judged("t-0").await;
    assert_eq!((verdict.proven, verdict.pending.len()), (40, 4));
    assert!(verdict.pending.iter().all(|one| one.why == "pending"), "{:?}", verdict.pending);
    house.sign().await;
    assert_eq!(house.judged("t-0").await.proven, 44);
}

pub(crate) async fn what_is_pruned_leaves_proofs_of_the_rest(f: Arc<Fixture>) {
    let house = House::new(&f, 66_000);
    while house.journal.status().written.segment < 3 {
        house.write(5).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    house.write(3).await;
    house.index().await;
    house.sign().await;
    let (chain, keys) = (house.journal.chain_id(), house.keys());
    let proven = house.judged("t-1").await.proven;
    let indexed = house.store.indexed_segment(chain).await.unwrap();
    let soon = Millis(Millis::now().0 + 60_000);
    let plan = linkgate::audit::evidence::prune::plan(&house.dir, chain, soon, indexed, &keys).unwrap();
    let record = plan.record();
    let row = house.store.enqueue_for(chain, &record).await.unwrap();
    assert!(!house.store.is_chained(row).await.unwrap());
    // Only this chain gets it.
    use linkgate::audit::OutboxSource;
    let other = linkgate::audit::ChainId(uuid::Uuid::now_v7());
    assert!(house.store.claim(other, 10).await.unwrap().is_empty());
    let rows = house.store.claim(chain, 10).await.unwrap();
    assert_eq!((rows.len(), &rows[0].change), (1, &record));
    house.journal.append_outbox(&rows).await.unwrap();
    house.store.mark_chained(chain, &[row]).await.unwrap();
    assert!(house.store.is_chained(row).await.unwrap() && !house.store.withdraw(row).await.unwrap());
    house.store.forget(chain, plan.segments.1, plan.records.1).await.unwrap();
    plan.remove(&house.dir).unwrap();
    assert_eq!(segments(&house.dir).unwrap()[0], plan.segments.1 + 1);
    house.write(3).await;
    house.index().await;
    house.sign().await;
    let verdict = house.judged("t-1").await;
    assert!(verdict.proven > 3 && verdict.proven < proven, "{} of {proven}", verdict.proven);
    assert_eq!((verdict.wrong, verdict.pending), (vec![], vec![]));
    let waiting = house.store.enqueue_for(chain, &ChangeRecord::new(Kind::Admin, "audit.prune")).await.unwrap();
    assert!(house.store.withdraw(waiting).await.unwrap(), "what was not chained can be taken back");
}
