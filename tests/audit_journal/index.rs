//! The indexer: exactly once, behind a database that comes and goes.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use linkgate::{
    audit::{
        ChainId, ChangeRecord, Chunk, Completion, Decision, Durability, IndexBatch, IndexPosition, IndexSink,
        IndexUnavailable, Journal, JournalError, Kind, Late, Opening, Record, RecordFilter, Slice, SliceOutcome,
        indexer::{Indexer, IndexerError},
        reader::{read_run, segment_path, segments},
        run,
        words::{Field, word},
    },
    domain::{DecisionId, Millis, PartnerId},
};

use crate::support::*;

/// A database of one table. Fails before or after storing, as asked.
#[derive(Default)]
struct Sink {
    state: Mutex<State>,
    fail_before: AtomicU32,
    fail_after: AtomicU32,
    batches: AtomicU32,
}

#[derive(Default)]
struct State {
    chunks: Vec<Chunk>,
    late: Vec<Late>,
    position: Option<IndexPosition>,
}

fn due(counter: &AtomicU32) -> bool {
    counter.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl IndexSink for Sink {
    fn keeps_lines(&self) -> bool {
        true
    }

    async fn position(&self, _: ChainId) -> Result<Option<IndexPosition>, IndexUnavailable> {
        if due(&self.fail_before) {
            return Err(IndexUnavailable::new("away"));
        }
        Ok(self.state.lock().unwrap().position)
    }

    async fn store(&self, batch: IndexBatch) -> Result<(), IndexUnavailable> {
        if due(&self.fail_before) {
            return Err(IndexUnavailable::new("away"));
        }
        {
            let mut state = self.state.lock().unwrap();
            assert_eq!(state.position, batch.after, "one batch follows the other");
            state.chunks.extend(batch.chunks);
            state.late.extend(batch.late);
            state.position = Some(batch.position);
        }
        self.batches.fetch_add(1, SeqCst);
        if due(&self.fail_after) { Err(IndexUnavailable::new("connection lost after commit")) } else { Ok(()) }
    }
}

/// The records of one chunk, each with the completion that it has anywhere.
fn records_of(state: &State, at: usize, chain: ChainId) -> Vec<Record> {
    let any = RecordFilter::default();
    let run::Picked { whole, mut open, .. } =
        run::pick(&state.chunks[at].lines, chain, &any, usize::MAX, Some).unwrap();
    let mut ids = open.iter().map(|record| record.id).collect();
    for later in &state.chunks[at + 1..] {
        for completed in run::completions(&later.lines, chain, &mut ids).unwrap() {
            assert!(later.words.contains(&word(Field::Id, completed.id.to_string().as_bytes())), "found by its id");
            open.iter_mut().find(|record| record.id == completed.id).unwrap().complete(completed);
        }
    }
    whole.into_iter().chain(open).collect()
}

fn indexer(journal: &Journal, sink: &Arc<Sink>) -> Indexer<Sink> {
    Indexer::new(journal.clone(), Arc::clone(sink), Duration::from_millis(5))
}

/// The index holds what the journal does, byte for byte, each line once, and finds every record by each of its words.
fn same(journal: &Journal, sink: &Sink) {
    let state = sink.state.lock().unwrap();
    let files = segments(journal.dir()).unwrap();
    for number in files {
        let of_segment: Vec<&Chunk> = state.chunks.iter().filter(|chunk| chunk.segment == number).collect();
        let kept: Vec<u8> = of_segment.iter().flat_map(|chunk| chunk.lines.clone()).collect();
        let file = std::fs::read(segment_path(journal.dir(), number)).unwrap();
        // What comes behind is only written at the close.
        assert!(file.starts_with(&kept) && file.len() - kept.len() < 4096, "segment {number}");
        let mut end = 0;
        for chunk in of_segment {
            assert_eq!((chunk.start, chunk.end), (end, end + chunk.lines.len() as u64));
            assert_eq!(read_run(journal.dir(), number, chunk.start, chunk.end).unwrap(), chunk.lines);
            end = chunk.end;
        }
    }
    let mut next = 1;
    let exported = records(journal.dir());
    let mut seen = 0;
    for (at, chunk) in state.chunks.iter().enumerate() {
        assert_eq!(chunk.first_seq, next);
        next = chunk.last_seq + 1;
        let found = records_of(&state, at, journal.chain_id());
        assert_eq!(found.len() as u64, chunk.records);
        let times = found.iter().map(|record| record.time);
        assert_eq!(chunk.times, times.clone().min().zip(times.max()));
        for record in found {
            seen += 1;
            assert_eq!(exported[&record.id], record);
            let late = state.late.iter().filter(|late| late.id == record.id).flat_map(|late| &late.words);
            let words: Vec<u64> = chunk.words.iter().chain(late).copied().collect();
            let missing: Vec<u64> = words_of(&record).into_iter().filter(|word| !words.contains(word)).collect();
            assert!(missing.is_empty(), "{missing:?} of {record:?}");
        }
    }
    assert_eq!(seen, exported.len());
    assert_eq!(state.position.unwrap().head.seq, next - 1);
}

/// The words of every question that this record is an answer to.
fn words_of(record: &Record) -> Vec<u64> {
    let any = RecordFilter::default;
    let whole = RecordFilter {
        id: Some(record.id),
        request_id: record.request_id.clone(),
        partner_id: record.partner_id,
        managed_tenant_id: record.managed_tenant_id.clone(),
        user_id: record.user_id.clone(),
        action: record.action.clone(),
        decision: Some(record.decision),
        kind: Some(record.kind),
        ..any()
    };
    let slices = record.slices.iter().map(|slice| slice.managed_tenant_id.clone());
    let slices = slices.map(|tenant| RecordFilter { managed_tenant_id: Some(tenant), ..any() });
    slices.chain([whole]).inspect(|filter| assert!(filter.matches(record))).flat_map(|filter| filter.words()).collect()
}

/// What a quick look at a line could get wrong.
fn strange_openings() -> Vec<Opening<'static>> {
    let slices =
        ["t1", "a \"b\\", "ü{}[],:"].map(|tenant| Slice { managed_tenant_id: tenant.into(), ..Slice::default() });
    vec![
        Opening {
            user_id: Some("quote \" comma , brace } back \\"),
            managed_tenant_id: Some("\",\"user_id\":\"other\""),
            partner_id: Some(PartnerId(uuid::Uuid::now_v7())),
            action: Some("ends with \\"),
            user_agent: Some("}]}"),
            time: Millis(-1),
            ..opening(DecisionId::generate())
        },
        Opening { slices: Box::leak(Box::new(slices)), managed_tenant_id: None, ..opening(DecisionId::generate()) },
        Opening { slices: &[], trace_id: Some("[]}"), time: Millis(0), ..opening(DecisionId::generate()) },
        Opening {
            session_id: Some("]}}"),
            user_id: Some(""),
            request_id: "\u{1}\t",
            ..opening(DecisionId::generate())
        },
        Opening::new(DecisionId::generate(), Millis::now(), "GET", "/", "bare"),
    ]
}

#[tokio::test]
async fn the_index_equals_the_journal() {
    let (dir, sink) = (folder(), Arc::new(Sink::default()));
    let mut small = settings(dir.path());
    small.segment_bytes = 3_000_000;
    let journal = Journal::open(small).unwrap().0;
    let mut indexer = indexer(&journal, &sink);
    let held = journal.admit(&opening(DecisionId::generate()), Durability::Os).await.unwrap();
    write(&journal, 10_000).await;
    for strange in strange_openings() {
        journal.admit(&strange, Durability::Os).await.unwrap().complete(done(200));
    }
    journal.append_change(&ChangeRecord::new(Kind::Link, "link.create")).await.unwrap();
    let lines = indexer.catch_up().await.unwrap();
    assert!(lines >= 20_003, "{lines}");
    assert!(sink.batches.load(SeqCst) >= 3, "in bounded batches");
    let held_id = held.id();
    let first = || records_of(&sink.state.lock().unwrap(), 0, journal.chain_id());
    let find = |records: Vec<Record>| records.into_iter().find(|record| record.id == held_id).unwrap();
    assert_eq!(find(first()).completion, None, "an open record is shown as open");
    same(&journal, &sink);
    // Completed in a later batch, overturned, with a tenant that the opening did not know.
    let late = SliceOutcome { managed_tenant_id: "late \"t\"".to_owned(), status: "timeout".into() };
    held.complete(Completion { decision: Some(Decision::Deny), slices: vec![late], ..done(503) });
    write(&journal, 10).await;
    indexer.catch_up().await.unwrap();
    assert_eq!(find(first()).status, Some(503));
    assert_eq!(sink.state.lock().unwrap().late.len(), 1);
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
    assert!(sink.state.lock().unwrap().position.is_none());
}
