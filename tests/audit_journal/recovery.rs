//! What a start finds after a crash, and what it refuses.

use std::{fs, path::Path};

use linkgate::{
    audit::{AuditSettings, Durability, Journal, JournalError, OutboxRow, reader::segment_path, reader::segments},
    domain::DecisionId,
};

use crate::support::*;

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// As `kill -9` leaves it: a journal with one record open, nothing closed.
async fn abandoned(dir: &Path) -> (Vec<DecisionId>, DecisionId) {
    let source = folder();
    let journal = open(source.path());
    let ids = write(&journal, 3).await;
    let open = DecisionId::generate();
    let record = journal.admit(&opening(open), Durability::Os).await.unwrap();
    copy(source.path(), dir);
    record.complete(done(200));
    (ids, open)
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_and_told() {
    let whole = folder();
    let (ids, open) = abandoned(whole.path()).await;
    let bytes = fs::read(last_segment(whole.path())).unwrap();
    let last_line = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for end in last_line..=bytes.len() {
        // In memory, for speed: what is tested is what is found, not what survives.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        copy(whole.path(), dir.path());
        fs::write(last_segment(dir.path()), &bytes[..end]).unwrap();
        let levels = AuditSettings { writes: Durability::Os, ..settings(dir.path()) };
        let (journal, recovery) = Journal::open(levels).unwrap();
        let torn = if end == bytes.len() { 0 } else { end - last_line };
        assert_eq!(recovery.cut_bytes, torn as u64, "at {end}");
        assert_eq!(recovery.aborted, if end == bytes.len() { vec![open] } else { vec![] });
        let more = write(&journal, 1).await;
        drop(journal);
        let found = records(dir.path());
        assert!(ids.iter().chain(&more).all(|id| found[id].status == Some(200)));
        assert_eq!(found.contains_key(&open), end == bytes.len(), "at {end}");
        let text = fs::read_to_string(last_segment(dir.path())).unwrap();
        assert_eq!(text.contains("\"type\":\"recovery\""), torn > 0 || end == bytes.len(), "at {end}");
        assert_eq!(text.contains(&format!("\"cut_bytes\":{torn},")), torn > 0 || end == bytes.len());
        let kept = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let kept: Vec<_> = kept.filter(|path| path.to_str().unwrap().contains("/cut-")).collect();
        assert_eq!(kept.len(), usize::from(torn > 0), "what is cut is kept");
        if let [kept] = kept.as_slice() {
            assert_eq!(fs::read(kept).unwrap(), &bytes[last_line..end]);
        }
        sound(dir.path());
    }
}

#[tokio::test]
async fn open_records_are_aborted_even_from_earlier_segments() {
    let (source, dir) = (folder(), folder());
    let mut small = settings(source.path());
    small.segment_bytes = 5_000;
    let journal = Journal::open(small.clone()).unwrap().0;
    let held = [DecisionId::generate(), DecisionId::generate()];
    let first = journal.admit(&opening(held[0]), Durability::Os).await.unwrap();
    write(&journal, 10).await;
    eventually("the second segment", || journal.status().written.segment >= 2).await;
    let second = journal.admit(&opening(held[1]), Durability::Os).await.unwrap();
    write(&journal, 10).await;
    eventually("the third segment", || journal.status().written.segment >= 3).await;
    journal.settle().await.unwrap();
    copy(source.path(), dir.path());
    drop((first, second));

    small.dir = dir.path().to_owned();
    let (journal, recovery) = Journal::open(small.clone()).unwrap();
    assert_eq!(recovery.aborted, held);
    drop(journal);
    let found = records(dir.path());
    for id in held {
        assert_eq!(found[&id].aborted, Some(true));
        assert_eq!(found[&id].reason.as_deref(), Some("process_ended"));
    }
    assert_eq!(sound(dir.path()).open_records, 0);
    let (_, again) = Journal::open(small).unwrap();
    assert!(again.aborted.is_empty() && again.cut_bytes == 0, "a second start finds nothing to do");
}

#[tokio::test]
async fn a_segment_without_its_header_holds_nothing() {
    for content in ["", "{\"seq\":9,\"type\":\"segm"] {
        let dir = folder();
        let journal = open(dir.path());
        let ids = write(&journal, 2).await;
        drop(journal);
        fs::write(segment_path(dir.path(), 2), content).unwrap();
        let journal = open(dir.path());
        let more = write(&journal, 1).await;
        drop(journal);
        assert_eq!(segments(dir.path()).unwrap(), [1]);
        let found = records(dir.path());
        assert!(ids.iter().chain(&more).all(|id| found.contains_key(id)));
        sound(dir.path());
    }
}

#[tokio::test]
async fn a_touched_journal_refuses_to_start() {
    let dir = folder();
    let journal = open(dir.path());
    write(&journal, 3).await;
    drop(journal);
    let path = last_segment(dir.path());
    let mut all = lines(&path);
    all[2] = all[2].replace("\"status\":200", "\"status\":500");
    write_lines(&path, &all);
    let error = Journal::open(settings(dir.path())).map(drop).unwrap_err();
    assert!(matches!(&error, JournalError::Broken { line: 3, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("segment-0000000001.jsonl") && text.contains("linkgate audit verify"), "{text}");

    // The seam to the segment before is checked as well, and a torn line is forgiven only at the very end.
    let dir = folder();
    let mut small = settings(dir.path());
    small.segment_bytes = 3_000;
    let journal = Journal::open(small.clone()).unwrap().0;
    write(&journal, 5).await;
    eventually("a second segment", || journal.status().written.segment == 2).await;
    drop(journal);
    let first = segment_path(dir.path(), 1);
    let bytes = fs::read(&first).unwrap();
    fs::write(&first, &bytes[..bytes.len() - 5]).unwrap();
    assert!(matches!(Journal::open(small.clone()).map(drop), Err(JournalError::Broken { .. })));
    let mut all: Vec<String> = String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect();
    all.pop();
    write_lines(&first, &all);
    assert!(matches!(Journal::open(small).map(drop), Err(JournalError::Broken { line: 1, .. })));
}

#[tokio::test]
async fn one_server_at_a_time() {
    let dir = folder();
    let journal = open(dir.path());
    let record = journal.admit(&opening(DecisionId::generate()), Durability::Os).await.unwrap();
    assert!(matches!(Journal::open(settings(dir.path())).map(drop), Err(JournalError::Locked(_))));
    drop(journal);
    assert!(
        matches!(Journal::open(settings(dir.path())).map(drop), Err(JournalError::Locked(_))),
        "a guard still writes"
    );
    drop(record);
    open(dir.path());
}

#[tokio::test]
async fn the_head_that_the_database_saw_must_be_there() {
    let dir = folder();
    let journal = open(dir.path());
    write(&journal, 5).await;
    let seen = journal.settle().await.unwrap().head;
    write(&journal, 5).await;
    journal.settle().await.unwrap();
    journal.check_head(seen).unwrap();
    let mut other = seen;
    other.hash.0[0] ^= 1;
    assert!(matches!(journal.check_head(other), Err(JournalError::Diverged(seq)) if seq == seen.seq));
    let chain = journal.chain_id();
    drop(journal);
    // Cut at a line's end: the chain that is left is perfect.
    let path = last_segment(dir.path());
    let all = lines(&path);
    write_lines(&path, &all[..5]);
    let journal = open(dir.path());
    assert_eq!(journal.chain_id(), chain);
    let error = journal.check_head(seen).unwrap_err();
    assert!(matches!(error, JournalError::CutOff { stored: 11, found: 5 }), "{error}");
}

#[tokio::test]
async fn segments_without_a_chain_are_refused() {
    let dir = folder();
    drop(open(dir.path()));
    fs::remove_file(dir.path().join("chain.json")).unwrap();
    assert!(matches!(Journal::open(settings(dir.path())).map(drop), Err(JournalError::NoChain(_))));
}

/// The rows chained last are known across starts and segments.
#[tokio::test]
async fn outbox_rows_are_remembered() {
    let dir = folder();
    let mut small = settings(dir.path());
    small.segment_bytes = 2_000;
    let change = || linkgate::audit::ChangeRecord::new(linkgate::audit::Kind::Link, "link.create");
    let rows: Vec<OutboxRow> = (1..=20).map(|seq| OutboxRow { seq, change: change() }).collect();
    for round in 0..3 {
        let journal = Journal::open(small.clone()).unwrap().0;
        journal.append_outbox(&rows).await.unwrap();
        eventually("a new segment", || journal.status().written.segment >= 2).await;
        if round == 1 {
            write(&journal, 5).await;
        }
        drop(journal);
    }
    let all: String = segments(dir.path())
        .unwrap()
        .into_iter()
        .map(|number| fs::read_to_string(segment_path(dir.path(), number)).unwrap())
        .collect();
    assert_eq!(all.matches("\"type\":\"change\"").count(), 20);
    sound(dir.path());
}
