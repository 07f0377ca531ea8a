//! Everything that can be done to a journal behind its back, and what `verify` says to it.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use linkgate::{
    audit::{
        ChainHead, ChangeRecord, Durability, Journal, Kind, Slice,
        line::Line,
        reader::{segment_path, segments},
        verify::{Problem, VerifyOptions, verify},
    },
    domain::DecisionId,
};

use crate::support::*;

/// Three segments with openings, completions, slices and changes; gives the head.
pub(crate) async fn journal(dir: &Path) -> ChainHead {
    let mut small = settings(dir);
    small.segment_bytes = 8_000;
    let journal = Journal::open(small).unwrap().0;
    let slices = ["t-1", "t-2"].map(|tenant| Slice { managed_tenant_id: tenant.to_owned(), ..Slice::default() });
    for segment in 1..=3 {
        write(&journal, 4).await;
        let id = DecisionId::generate();
        let consolidated = linkgate::audit::Opening { slices: &slices, ..opening(id) };
        journal.admit(&consolidated, Durability::Os).await.unwrap().complete(done(200));
        journal.append_change(&ChangeRecord::new(Kind::Link, "link.create")).await.unwrap();
        if segment < 3 {
            while journal.status().written.segment == segment {
                write(&journal, 1).await;
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        }
    }
    let head = journal.settle().await.unwrap().head;
    drop(journal);
    head
}

fn findings(dir: &Path, stored: Option<ChainHead>) -> Vec<(String, u64, String)> {
    let result = verify(dir, VerifyOptions { from_segment: None, stored_head: stored }).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    result.findings.iter().map(|found| (name(&found.file), found.line, found.what.to_string())).collect()
}

/// What is done to the lines of segment 2, and the first finding expected: line and words.
type Act = fn(&mut Vec<String>);
const ACTS: [(&str, Act, u64, &str); 15] = [
    ("altered visible", |l| l[4] = l[4].replacen("\"id\":\"0", "\"id\":\"1", 1), 5, "altered: its hash"),
    ("altered path", |l| l[1] = l[1].replace("invoices", "invoicez"), 2, "altered: its hash"),
    ("altered private", |l| l[1] = l[1].replace("a-session", "b-session"), 2, "altered: its hash"),
    ("altered bytes sent", |l| l[2] = l[2].replace("\"bytes\":10", "\"bytes\":11"), 3, "altered: its hash"),
    ("altered slice", |l| swap_text(l, "t-2", "t-3"), 0, "altered: its hash"),
    ("altered salt", |l| l[3] = l[3].replacen("\"salt\":\"", "\"salt\":\"0", 1), 4, "altered: its hash"),
    ("altered change", |l| swap_text(l, "link.create", "link.creata"), 0, "altered: its hash"),
    ("altered header", |l| l[0] = l[0].replace("\"format\":1", "\"format\":2"), 1, "altered: its hash"),
    ("added space", |l| l[5] = l[5].replacen(":{", ": {", 1), 6, "altered: not a journal line"),
    ("removed", |l| drop(l.remove(6)), 7, "removed: records"),
    ("doubled", |l| l.insert(6, l[5].clone()), 7, "inserted or moved"),
    ("moved forward", |l| l.swap(5, 6), 6, "removed: records"),
    (
        "moved far",
        |l| {
            let line = l.remove(2);
            l.insert(8, line)
        },
        3,
        "removed: records",
    ),
    (
        "forged line",
        |l| {
            let forged = forge(&l[5]);
            l.insert(6, forged)
        },
        7,
        "altered or exchanged",
    ),
    ("garbage", |l| l.insert(3, "{}".to_owned()), 4, "altered: not a journal line"),
];

fn swap_text(lines: &mut [String], from: &str, to: &str) {
    let line = lines.iter_mut().find(|line| line.contains(from)).unwrap();
    *line = line.replacen(from, to, 1);
}

/// A line whose own hash is right, as the successor of the one given, but chained to nothing.
fn forge(line: &str) -> String {
    let parsed = Line::parse(line.as_bytes()).unwrap();
    let mut forged = parsed.clone();
    forged.seq += 1;
    let hash = forged.computed_hash();
    line.replacen(&format!("\"seq\":{}", parsed.seq), &format!("\"seq\":{}", forged.seq), 1).replacen(
        &parsed.hash.to_string(),
        &hash.to_string(),
        1,
    )
}

#[tokio::test]
async fn every_act_of_tampering_is_found() {
    let whole = folder();
    let head = journal(whole.path()).await;
    assert!(findings(whole.path(), Some(head)).is_empty());
    let path = segment_path(whole.path(), 2);
    let original = lines(&path);
    for (what, act, line, words) in ACTS {
        let mut changed = original.clone();
        act(&mut changed);
        assert_ne!(changed, original, "{what} does nothing");
        write_lines(&path, &changed);
        let found = findings(whole.path(), Some(head));
        let (file, at, text) = found.first().unwrap_or_else(|| panic!("{what} is not found"));
        assert_eq!(file, "segment-0000000002.jsonl", "{what}: {text}");
        assert!(text.contains(words), "{what}: {text}");
        assert!(line == 0 || *at == line, "{what}: line {at}, expected {line}");
        assert!(found.len() <= 3, "{what} is told once, not for every line behind it: {found:?}");
    }
}

/// Each single line changed, dropped or doubled, anywhere in the journal.
#[tokio::test]
async fn no_line_can_be_touched() {
    let whole = folder();
    let head = journal(whole.path()).await;
    for number in 1..=3 {
        let path = segment_path(whole.path(), number);
        let original = lines(&path);
        for at in 0..original.len() {
            for act in 0..3 {
                let mut changed = original.clone();
                match act {
                    0 => {
                        changed[at] =
                            changed[at].replacen("\"salt\":\"", "\"salt\":\"f", 1).replace("ment\":", "ment\":1")
                    }
                    1 => drop(changed.remove(at)),
                    _ => changed.insert(at, original[at].clone()),
                }
                write_lines(&path, &changed);
                assert!(!findings(whole.path(), Some(head)).is_empty(), "segment {number} line {at} act {act}");
            }
        }
        write_lines(&path, &original);
    }
    assert!(findings(whole.path(), Some(head)).is_empty());
}

#[tokio::test]
async fn cut_and_missing_segments_are_found() {
    let whole = folder();
    let head = journal(whole.path()).await;
    let dir = whole.path();
    let keep: Vec<_> = (1..=3).map(|number| fs::read(segment_path(dir, number)).unwrap()).collect();
    let restore = || (1..).zip(&keep).for_each(|(number, bytes)| fs::write(segment_path(dir, number), bytes).unwrap());

    // A tail cut at a line's end: only the head stored elsewhere tells.
    let last = segment_path(dir, 3);
    let all = lines(&last);
    write_lines(&last, &all[..all.len() - 1]);
    assert!(findings(dir, None).is_empty());
    assert!(findings(dir, Some(head))[0].2.contains("cut off: the database has seen record"));
    fs::remove_file(&last).unwrap();
    assert!(findings(dir, Some(head))[0].2.contains("cut off"));
    restore();

    // Cut, and written on as if nothing were: the record is another one.
    let mut other = head;
    other.hash.0[31] ^= 1;
    assert!(findings(dir, Some(other))[0].2.contains("the database has seen this record with hash"));

    fs::remove_file(segment_path(dir, 2)).unwrap();
    let found = findings(dir, Some(head));
    assert!(found[0].0.contains("0000000002") && found[0].2.contains("the segment is missing"), "{found:?}");
    restore();

    fs::remove_file(segment_path(dir, 1)).unwrap();
    assert!(findings(dir, Some(head))[0].2.contains("--from-segment 2"));
    let options = VerifyOptions { from_segment: Some(2), stored_head: Some(head) };
    assert!(verify(dir, options).unwrap().is_sound(), "archived segments are no fault when they are named");
    restore();

    // Sealed segments end with a whole line.
    fs::write(segment_path(dir, 2), &keep[1][..keep[1].len() - 3]).unwrap();
    let result = verify(dir, VerifyOptions::default()).unwrap();
    assert!(result.findings.iter().any(|found| found.what == Problem::TornLine), "{:?}", result.findings);
    restore();

    // Two segments exchanged.
    fs::write(segment_path(dir, 1), &keep[1]).unwrap();
    fs::write(segment_path(dir, 2), &keep[0]).unwrap();
    assert!(!findings(dir, None).is_empty());
    restore();

    // A segment of another journal.
    let foreign = folder();
    journal_of(foreign.path()).await;
    fs::copy(segment_path(foreign.path(), 1), segment_path(dir, 1)).unwrap();
    assert!(findings(dir, None).iter().any(|found| found.2.contains("names chain")));
    restore();
    assert!(findings(dir, Some(head)).is_empty());
}

async fn journal_of(dir: &Path) {
    let journal = open(dir);
    write(&journal, 2).await;
}

/// Records completed that were never opened, or twice, by someone who can compute hashes.
#[tokio::test]
async fn a_rehashed_journal_still_has_to_make_sense() {
    let dir = folder();
    let journal = open(dir.path());
    write(&journal, 3).await;
    let head = journal.settle().await.unwrap().head;
    drop(journal);
    let path = last_segment(dir.path());
    let mut all = lines(&path);
    drop(all.remove(1));
    // Renumber and rehash all behind it, as an attacker would.
    let mut prev = Line::parse(all[0].as_bytes()).unwrap().hash;
    for (at, text) in all.iter_mut().enumerate().skip(1) {
        let original = text.clone();
        let line = Line::parse(original.as_bytes()).unwrap();
        let mut moved = line.clone();
        (moved.seq, moved.prev) = (at as u64 + 1, prev);
        moved.hash = moved.computed_hash();
        *text = text
            .replacen(&format!("\"seq\":{}", line.seq), &format!("\"seq\":{}", moved.seq), 1)
            .replacen(&line.prev.to_string(), &moved.prev.to_string(), 1)
            .replacen(&line.hash.to_string(), &moved.hash.to_string(), 1);
        prev = moved.hash;
    }
    write_lines(&path, &all);
    assert!(findings(dir.path(), None)[0].2.contains("never opened"));
    assert!(findings(dir.path(), Some(head)).iter().any(|found| found.2.contains("cut off")));
}

/// Verification and export beside a server that writes and rotates: never a false alarm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_runs_beside_a_server() {
    let dir = folder();
    let mut small = settings(dir.path());
    small.segment_bytes = 30_000;
    small.flush_interval = std::time::Duration::from_millis(1);
    let journal = Journal::open(small).unwrap().0;
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (journal, stop) = (journal.clone(), std::sync::Arc::clone(&stop));
        async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                count += write(&journal, 5).await.len();
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            }
            count
        }
    });
    let mut most = 0;
    let mut rounds = 0;
    while rounds < 25 || journal.status().written.segment < 4 {
        rounds += 1;
        let result = sound(dir.path());
        assert!(result.lines >= most);
        most = result.lines;
        let seen = records(dir.path()).len() as u64;
        assert!(seen * 3 + 2 * result.segments + 2 >= most, "{seen} records after {most} lines");
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    drop(journal);
    assert_eq!(records(dir.path()).len(), written);
    assert!(segments(dir.path()).unwrap().len() > 2);
}
