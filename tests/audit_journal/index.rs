//! The indexer: exactly once, behind a database that comes and goes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use linkgate::{
    audit::{
        ChainId, ChangeRecord, Durability, IndexBatch, IndexPosition, IndexSink, IndexUnavailable, Journal,
        JournalError, Kind, Record,
        indexer::{Indexer, IndexerError},
    },
    domain::DecisionId,
};

use crate::support::*;

/// A database of one table. Fails before or after storing, as asked.
#[derive(Default)]
struct Sink {
    state: Mutex<(BTreeMap<u64, Record>, Option<IndexPosition>)>,
    fail_before: AtomicU32,
    fail_after: AtomicU32,
    batches: AtomicU32,
}

fn due(counter: &AtomicU32) -> bool {
    counter.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl IndexSink for Sink {
    async fn position(&self, _: ChainId) -> Result<Option<IndexPosition>, IndexUnavailable> {
        if due(&self.fail_before) {
            return Err(IndexUnavailable::new("away"));
        }
        Ok(self.state.lock().unwrap().1)
    }

    async fn store(&self, batch: IndexBatch) -> Result<(), IndexUnavailable> {
        if due(&self.fail_before) {
            return Err(IndexUnavailable::new("away"));
        }
        {
            let mut state = self.state.lock().unwrap();
            assert_eq!(state.1, batch.after, "one batch follows the other");
            for record in batch.records {
                assert!(state.0.insert(record.opening.seq, record).is_none(), "inserted twice");
            }
            for completed in batch.completions {
                let record = state.0.values_mut().find(|record| record.id == completed.id).expect("opened before");
                assert!(record.completion.is_none(), "completed twice");
                record.complete(completed);
            }
            state.1 = Some(batch.position);
        }
        self.batches.fetch_add(1, SeqCst);
        if due(&self.fail_after) { Err(IndexUnavailable::new("connection lost after commit")) } else { Ok(()) }
    }
}

fn indexer(journal: &Journal, sink: &Arc<Sink>) -> Indexer<Sink> {
    Indexer::new(journal.clone(), Arc::clone(sink), Duration::from_millis(5))
}

/// The index holds what an export of the journal gives.
fn same(journal: &Journal, sink: &Sink) {
    let indexed = sink.state.lock().unwrap().0.clone();
    let exported = records(journal.dir());
    assert_eq!(indexed.len(), exported.len());
    assert!(indexed.values().all(|record| exported[&record.id] == *record));
}

#[tokio::test]
async fn the_index_equals_the_journal() {
    let (dir, sink) = (folder(), Arc::new(Sink::default()));
    let mut small = settings(dir.path());
    small.segment_bytes = 300_000;
    let journal = Journal::open(small).unwrap().0;
    let mut indexer = indexer(&journal, &sink);
    let held = journal.admit(&opening(DecisionId::generate()), Durability::Os).await.unwrap();
    write(&journal, 1200).await;
    journal.append_change(&ChangeRecord::new(Kind::Link, "link.create")).await.unwrap();
    let lines = indexer.catch_up().await.unwrap();
    assert!(lines >= 2403, "{lines}");
    assert!(sink.batches.load(SeqCst) >= 3, "in bounded batches");
    assert_eq!(sink.state.lock().unwrap().0[&2].completion, None, "an open record is shown as open");
    same(&journal, &sink);
    // Completed in a later batch.
    held.complete(done(200));
    write(&journal, 10).await;
    indexer.catch_up().await.unwrap();
    assert_eq!(sink.state.lock().unwrap().0[&2].status, Some(200));
    same(&journal, &sink);
    assert_eq!(indexer.catch_up().await.unwrap(), 0);
    assert_eq!(indexer.progress().lag(&journal), 0);
}

#[tokio::test]
async fn it_catches_up_after_the_database_was_away() {
    let (dir, sink) = (folder(), Arc::new(Sink::default()));
    let journal = open(dir.path());
    let indexer = indexer(&journal, &sink);
    let progress = indexer.progress();
    sink.fail_before.store(2, SeqCst);
    sink.fail_after.store(1, SeqCst);
    let running = tokio::spawn(indexer.run());
    for _ in 0..20 {
        write(&journal, 20).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually("the index is there", || progress.lag(&journal) == 0).await;
    assert!(progress.failures() >= 3, "{}", progress.failures());
    running.abort();
    same(&journal, &sink);
}

/// Every crash point of a batch: a new process asks the database where it stands and goes on there.
#[tokio::test]
async fn a_restart_repeats_and_skips_nothing() {
    let (dir, sink) = (folder(), Arc::new(Sink::default()));
    for round in 0..6 {
        let journal = open(dir.path());
        let mut indexer = indexer(&journal, &sink);
        let held = journal.admit(&opening(DecisionId::generate()), Durability::Os).await.unwrap();
        write(&journal, 600).await;
        [&sink.fail_before, &sink.fail_after][round % 2].store(1, SeqCst);
        assert!(matches!(indexer.catch_up().await, Err(IndexerError::Index(_))));
        drop(held);
    }
    let journal = open(dir.path());
    indexer(&journal, &sink).catch_up().await.unwrap();
    same(&journal, &sink);
    assert_eq!(records(dir.path()).len(), 6 * 601);
}

#[tokio::test]
async fn an_altered_or_cut_journal_ends_it() {
    let (dir, sink) = (folder(), Arc::new(Sink::default()));
    let journal = open(dir.path());
    write(&journal, 5).await;
    indexer(&journal, &sink).catch_up().await.unwrap();
    write(&journal, 5).await;
    journal.settle().await.unwrap();
    let path = last_segment(dir.path());
    let whole = std::fs::read_to_string(&path).unwrap();
    let mut all = lines(&path);
    all[14] = all[14].replace("200", "201").replace("invoices", "invoicez");
    write_lines(&path, &all);
    let Err(IndexerError::Journal(error)) = indexer(&journal, &sink).catch_up().await else { panic!() };
    assert!(matches!(error, JournalError::Broken { line: 15, .. }), "{error}");
    std::fs::write(&path, whole).unwrap();
    drop(journal);
    // The tail that was indexed is gone.
    let all = lines(&path);
    write_lines(&path, &all[..7]);
    let journal = open(dir.path());
    let error = indexer(&journal, &sink).run().await;
    assert!(matches!(error, JournalError::CutOff { .. }), "{error}");
}

/// The database may only ever have seen what is on stable storage, or a power failure would look like tampering.
#[tokio::test]
async fn nothing_is_indexed_before_it_is_stable() {
    let (dir, sink, faults) = (folder(), Arc::new(Sink::default()), Faults::new());
    let journal = open_faulty(settings(dir.path()), &faults);
    write(&journal, 5).await;
    faults.sync_fails.store(true, SeqCst);
    assert!(matches!(indexer(&journal, &sink).catch_up().await, Err(IndexerError::Audit(_))));
    assert!(sink.state.lock().unwrap().1.is_none());
}
