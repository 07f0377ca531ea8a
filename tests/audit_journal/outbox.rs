//! Changes of the command line reach the chain exactly once, wherever the process ends.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use linkgate::{
    audit::{
        ChainId, ChangeRecord, IndexUnavailable, Journal, JournalError, Kind, OutboxRow, OutboxSource,
        outbox::{CLAIM_MAX, OutboxRelay},
        outlived::Outlived,
        reader::{segment_path, segments},
    },
    domain::DecisionId,
};

use crate::support::*;

/// Rows with the chain that claimed them; marked rows are gone.
#[derive(Default)]
struct Outbox {
    rows: Mutex<BTreeMap<i64, (ChangeRecord, Option<ChainId>)>>,
    mark_fails: AtomicBool,
}

impl Outbox {
    fn add(&self, seqs: std::ops::Range<i64>) {
        let mut rows = self.rows.lock().unwrap();
        rows.extend(seqs.map(|seq| (seq, (ChangeRecord::new(Kind::Link, format!("row.{seq}")), None))));
    }
}

impl OutboxSource for Outbox {
    async fn claim(&self, chain: ChainId, limit: usize) -> Result<Vec<OutboxRow>, IndexUnavailable> {
        let mut rows = self.rows.lock().unwrap();
        let mut given = Vec::new();
        // First what this chain claimed before, then new rows.
        for fresh in [false, true] {
            for (seq, (change, claimed)) in rows.iter_mut() {
                let fits = if fresh { claimed.is_none() } else { *claimed == Some(chain) };
                if fits && given.len() < limit {
                    *claimed = Some(chain);
                    given.push(OutboxRow { seq: *seq, change: change.clone() });
                }
            }
        }
        given.sort_by_key(|row| row.seq);
        Ok(given)
    }

    async fn mark_chained(&self, _: ChainId, seqs: &[i64]) -> Result<(), IndexUnavailable> {
        if self.mark_fails.load(SeqCst) {
            return Err(IndexUnavailable::new("away"));
        }
        self.rows.lock().unwrap().retain(|seq, _| !seqs.contains(seq));
        Ok(())
    }
}

fn relay(journal: &Journal, outbox: &Arc<Outbox>) -> OutboxRelay<Outbox> {
    OutboxRelay::new(journal.clone(), Arc::clone(outbox), Duration::from_millis(5))
}

/// Names of the changes in the chain, in its order.
fn chained(journal: &Journal) -> Vec<String> {
    let mut all: Vec<_> = records(journal.dir()).into_values().filter(|record| record.kind == Kind::Link).collect();
    all.sort_by_key(|record| record.opening.seq);
    all.into_iter().map(|record| record.action.unwrap()).collect()
}

#[tokio::test]
async fn a_crash_between_append_and_mark_doubles_nothing() {
    let (dir, outbox) = (folder(), Arc::new(Outbox::default()));
    outbox.add(1..301);
    // A row committed late, with a number below those that were chained already, must not be taken for one of them.
    outbox.rows.lock().unwrap().remove(&7);
    let mut small = settings(dir.path());
    (small.segment_bytes, small.flush_interval) = (30_000, Duration::from_millis(1));
    for round in 0..8 {
        let journal = Journal::open(small.clone()).unwrap().0;
        let relay = relay(&journal, &outbox);
        outbox.mark_fails.store(true, SeqCst);
        let appended = relay.relay().await;
        assert!(appended.is_err() || outbox.rows.lock().unwrap().is_empty());
        // The same process tries again, or a new one does.
        if round % 2 == 0 {
            assert!(relay.relay().await.is_err() || outbox.rows.lock().unwrap().is_empty());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop((relay, journal));
        let journal = Journal::open(small.clone()).unwrap().0;
        outbox.mark_fails.store(false, SeqCst);
        let relay = self::relay(&journal, &outbox);
        let marked = relay.relay().await.unwrap();
        assert!(marked <= CLAIM_MAX);
        if round == 3 {
            outbox.add(7..8);
        }
        drop((relay, journal));
    }
    let journal = Journal::open(small).unwrap().0;
    let mut expected: Vec<String> = (1..301).filter(|seq| *seq != 7).map(|seq| format!("row.{seq}")).collect();
    expected.push("row.7".to_owned());
    assert_eq!(chained(&journal), expected);
    assert!(segments(dir.path()).unwrap().len() > 2, "across segments");
    drop(journal);
    sound(dir.path());
}

/// A server that does not come back, killed between append and mark: its journal says which rows it had chained.
#[tokio::test]
async fn a_journal_that_outlived_its_server_tells_what_it_had_chained() {
    let (dir, outbox) = (folder(), Arc::new(Outbox::default()));
    let mut small = settings(dir.path());
    small.segment_bytes = 30_000;
    let journal = Journal::open(small).unwrap().0;
    let relay = relay(&journal, &outbox);
    outbox.add(1..301);
    for _ in 0..2 {
        assert_eq!(relay.relay().await.unwrap(), CLAIM_MAX);
    }
    // These are appended and not marked, and then it claims more, which it never appends.
    outbox.mark_fails.store(true, SeqCst);
    assert!(relay.relay().await.is_err());
    outbox.add(301..311);
    let claimed = outbox.claim(journal.chain_id(), CLAIM_MAX).await.unwrap();
    assert_eq!(claimed.len(), 300 - 2 * CLAIM_MAX + 10);
    assert!(matches!(Outlived::open(dir.path()), Err(JournalError::Locked(_))), "its server runs");
    let chain = journal.chain_id();
    drop((relay, journal));

    // The last line was being written.
    let path = last_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"type\":\"change\"");
    std::fs::write(&path, &bytes).unwrap();
    let mut outlived = Outlived::open(dir.path()).unwrap();
    assert_eq!(outlived.chain_id, chain);
    for row in &claimed {
        assert_eq!(outlived.holds(row.seq, row.change.id).unwrap(), row.seq <= 300, "{}", row.seq);
        let other = DecisionId::generate();
        assert!(!outlived.holds(row.seq, other).unwrap(), "a number that was handed out again");
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is repaired");
    assert!(matches!(Journal::open(settings(dir.path())), Err(JournalError::Locked(_))), "nobody begins meanwhile");
    drop(outlived);

    // Where the last batch filled a segment, the one after it holds nothing yet.
    let all = segments(dir.path()).unwrap().into_iter().map(|first| segment_path(dir.path(), first));
    let mut holding = all.filter(|path| std::fs::read_to_string(path).unwrap().contains("row.300"));
    let path = holding.next().expect("the row is in the journal");
    let altered = std::fs::read_to_string(&path).unwrap().replacen("row.300", "row.999", 1);
    std::fs::write(&path, altered).unwrap();
    assert!(matches!(Outlived::open(dir.path()), Err(JournalError::Broken { .. })));
    assert!(matches!(Outlived::open(&dir.path().join("none")), Err(JournalError::Io { .. })));
}

fn rows(seqs: std::ops::RangeInclusive<i64>) -> Vec<OutboxRow> {
    seqs.map(|seq| OutboxRow { seq, change: ChangeRecord::new(Kind::Link, format!("row.{seq}")) }).collect()
}

/// The database was restored from a backup: numbers of changes that were chained since stand for others now.
#[tokio::test]
async fn numbers_that_are_handed_out_again_are_other_changes() {
    let dir = folder();
    let mut small = settings(dir.path());
    small.segment_bytes = 30_000;
    let mut given = Vec::new();
    // Within one process, over a start, and after other numbers went by; each change is given twice, as after a crash.
    for seqs in [1..=20, 11..=30, 1..=300, 5..=260, 290..=301] {
        let rows = rows(seqs);
        for _ in 0..2 {
            let journal = Journal::open(small.clone()).unwrap().0;
            for some in rows.chunks(CLAIM_MAX) {
                journal.append_outbox(some).await.unwrap();
                journal.append_outbox(some).await.unwrap();
            }
            eventually("what is full is closed", || journal.status().written.offset < 30_000).await;
        }
        given.extend(rows);
        // Further ones while it runs.
        let journal = Journal::open(small.clone()).unwrap().0;
        for _ in 0..2 {
            let again = self::rows(3..=6);
            journal.append_outbox(&again).await.unwrap();
            given.extend(again);
        }
    }
    assert!(segments(dir.path()).unwrap().len() > 2, "over segments");
    let found = records(dir.path());
    assert!(given.iter().all(|row| found.contains_key(&row.change.id)), "none is missing");
    assert_eq!(found.len(), given.len(), "none is there twice");
    sound(dir.path());
}

/// The counterpart: a change that waits in the backup was chained since, and so many others that its number is forgotten.
#[tokio::test]
async fn a_change_that_waits_again_is_not_chained_again() {
    for restarted in [false, true] {
        let (dir, early) = (folder(), rows(1..=3));
        let mut small = settings(dir.path());
        (small.segment_bytes, small.flush_interval) = (30_000, Duration::from_millis(1));
        let mut journal = Journal::open(small.clone()).unwrap().0;
        journal.append_outbox(&early).await.unwrap();
        for some in rows(4..=600).chunks(100) {
            let before = journal.status().written.segment;
            journal.append_outbox(some).await.unwrap();
            eventually("a new segment", || journal.status().written.segment > before).await;
        }
        if restarted {
            drop(journal);
            journal = Journal::open(small.clone()).unwrap().0;
        }
        // Beside one that was never chained.
        let fresh = rows(4..=4);
        journal.append_outbox(&[&early[..], &fresh[..]].concat()).await.unwrap();
        drop(journal);
        let mut outlived = Outlived::open(dir.path()).unwrap();
        assert!(
            early.iter().all(|row| outlived.holds(row.seq, row.change.id).unwrap()),
            "an operator is told the same"
        );
        drop(outlived);
        let found = records(dir.path());
        assert!(found.contains_key(&fresh[0].change.id));
        assert_eq!(found.len(), 601, "restarted: {restarted}");
        sound(dir.path());
    }
}

#[tokio::test]
async fn two_servers_share_the_rows() {
    let (one, two, outbox) = (folder(), folder(), Arc::new(Outbox::default()));
    let (first, second) = (open(one.path()), open(two.path()));
    let running = [&first, &second].map(|journal| tokio::spawn(relay(journal, &outbox).run()));
    for start in 0..10 {
        outbox.add(start * 50..start * 50 + 50);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    eventually("all chained", || outbox.rows.lock().unwrap().is_empty()).await;
    running.iter().for_each(|task| task.abort());
    let mut all = [chained(&first), chained(&second)].concat();
    all.sort();
    let mut expected: Vec<String> = (0..500).map(|seq| format!("row.{seq}")).collect();
    expected.sort();
    assert_eq!(all, expected);
}

/// What is claimed for a journal that takes nothing is kept from those that would chain it.
#[tokio::test]
async fn a_journal_that_takes_nothing_claims_nothing() {
    let (dir, outbox) = (folder(), Arc::new(Outbox::default()));
    outbox.add(1..4);
    let journal = Journal::open(settings(dir.path())).unwrap().0;
    journal.close();
    assert_eq!(relay(&journal, &outbox).relay().await.unwrap(), 0);
    assert!(outbox.rows.lock().unwrap().values().all(|(_, claimed)| claimed.is_none()));
}
