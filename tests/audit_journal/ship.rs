//! Shipping: every line gets to its target, in order, and what is behind or broken is told and waited for.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use linkgate::audit::{
    Hash, Journal,
    chain::{Unplaced, private_digest},
    line::Line,
    reader::{segment_path, segments},
    ship::{FileSettings, Form, ShipError, ShipSettings, Shipper, TargetSettings, unshipped},
};
use serde_json::Value;
use tokio::sync::watch;

use crate::support::*;

fn to_file(path: &Path, size: u64) -> TargetSettings {
    TargetSettings::File(FileSettings { path: path.to_owned(), size })
}

fn shipper(journal: &Journal, path: &Path) -> Shipper {
    Shipper::new(journal.clone(), to_file(path, 1 << 30), Form::Full)
}

/// All lines of the journal's files.
fn journal_bytes(dir: &Path) -> Vec<u8> {
    segments(dir).unwrap().into_iter().flat_map(|number| fs::read(segment_path(dir, number)).unwrap()).collect()
}

/// The files that a target was before, oldest first, and the one that it is.
fn files(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut found: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{name}.")));
    found.sort();
    found.push(path.to_owned());
    found
}

fn shipped_bytes(path: &Path) -> Vec<u8> {
    files(path).iter().flat_map(|path| fs::read(path).unwrap()).collect()
}

#[tokio::test]
async fn every_line_is_shipped_once_across_segments_files_and_starts() {
    let (dir, out) = (folder(), folder());
    let path = out.path().join("audit.jsonl");
    let rotating = || to_file(&path, 10_000);
    for _ in 0..3 {
        let journal = Journal::open(linkgate::audit::AuditSettings { segment_bytes: 16_000, ..settings(dir.path()) });
        let journal = journal.unwrap().0;
        let mut shipper = Shipper::new(journal.clone(), rotating(), Form::Full);
        for _ in 0..4 {
            write(&journal, 10).await;
            journal.settle().await.unwrap();
            assert!(shipper.catch_up().await.unwrap() >= 20);
            // A segment may have been begun meanwhile: that is a line too.
            while shipper.progress().lag(&journal) > 0 {
                shipper.catch_up().await.unwrap();
            }
            assert_eq!(shipper.catch_up().await.unwrap(), 0, "nothing new");
        }
        journal.close();
    }
    assert!(segments(dir.path()).unwrap().len() > 2, "of several segments");
    let all = files(&path);
    assert!(all.len() > 5, "{all:?}");
    for file in &all {
        assert!(fs::metadata(file).unwrap().size() <= 10_000, "{file:?}");
        let first: Value = serde_json::from_str(&lines(file)[0]).unwrap();
        let named = file.extension().and_then(|seq| seq.to_str()?.parse::<u64>().ok());
        assert!(named.is_none_or(|named| first["seq"] == named), "{file:?}");
    }
    assert_eq!(shipped_bytes(&path), journal_bytes(dir.path()));
}

#[tokio::test]
async fn after_a_crash_before_the_position_moved_lines_come_again_and_a_torn_one_is_cut_off() {
    let (dir, out) = (folder(), folder());
    let (path, position) = (out.path().join("audit.jsonl"), dir.path().join("ship-file.json"));
    let journal = open(dir.path());
    write(&journal, 5).await;
    shipper(&journal, &path).catch_up().await.unwrap();
    let (before, had) = (fs::read(&position).unwrap(), shipped_bytes(&path));
    write(&journal, 5).await;
    shipper(&journal, &path).catch_up().await.unwrap();
    // As a crash leaves it: the target has more than the position says, the last line in part.
    fs::write(&position, before).unwrap();
    let whole = shipped_bytes(&path);
    fs::write(&path, &whole[..whole.len() - 40]).unwrap();
    shipper(&journal, &path).catch_up().await.unwrap();
    let all = journal_bytes(dir.path());
    let kept = whole[..whole.len() - 40].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    assert_eq!(shipped_bytes(&path), [&all[..kept], &all[had.len()..]].concat());
    let seqs = lines(&path).into_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap()["seq"].clone());
    assert_eq!(seqs.map(|seq| seq.to_string()).collect::<std::collections::HashSet<_>>().len(), lines_of(&all));
}

fn lines_of(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[tokio::test]
async fn a_broken_target_makes_a_lag_and_gets_everything_once_it_is_well() {
    let (dir, out) = (folder(), folder());
    let path = out.path().join("away").join("audit.jsonl");
    let journal = open(dir.path());
    write(&journal, 3).await;
    let made = shipper(&journal, &path);
    let progress = made.progress();
    let (stop, told) = watch::channel(false);
    let running = tokio::spawn(made.run(told));
    eventually("it is told", || progress.is_stuck()).await;
    write(&journal, 3).await;
    assert_eq!(progress.lag(&journal), journal.status().last_seq, "all of it waits");
    assert!(journal.healthy(), "the journal goes on");
    fs::create_dir(path.parent().unwrap()).unwrap();
    eventually("it is shipped", || progress.lag(&journal) == 0).await;
    eventually("it is told", || !progress.is_stuck()).await;
    // The last lines are shipped at a stop.
    write(&journal, 3).await;
    stop.send_replace(true);
    running.await.unwrap();
    assert_eq!(shipped_bytes(&path), journal_bytes(dir.path()));
}

#[tokio::test]
async fn a_public_line_has_nothing_private_and_its_hash_can_be_worked_out() {
    let (dir, out) = (folder(), folder());
    let path = out.path().join("audit.jsonl");
    let journal = open(dir.path());
    write(&journal, 3).await;
    Shipper::new(journal.clone(), to_file(&path, 1 << 30), Form::Public).catch_up().await.unwrap();
    let (shipped, written) = (lines(&path), lines(&last_segment(dir.path())));
    assert_eq!(shipped.len(), written.len());
    assert!(written.iter().any(|line| line.contains("a-session")));
    for (shipped, written) in shipped.iter().zip(&written) {
        assert!(!shipped.contains("a-session") && !shipped.contains("\"priv\""), "{shipped}");
        let line = Line::parse(written.as_bytes()).unwrap();
        let said: Value = serde_json::from_str(shipped).unwrap();
        let hash = |name: &str| said[name].as_str().unwrap().parse::<Hash>().unwrap();
        assert_eq!(hash("priv_digest"), private_digest(line.private.as_bytes()));
        let (kind, seq) = (said["type"].as_str().unwrap(), said["seq"].as_u64().unwrap());
        let (_, rest) = shipped.split_once("\"pub\":").unwrap();
        let (visible, _) = rest.rsplit_once(",\"priv_digest\"").unwrap();
        let whole = Unplaced::new(kind, visible.as_bytes(), hash("priv_digest"), &[]);
        assert_eq!(whole.place(seq, hash("prev")), hash("hash"));
    }
}

#[tokio::test]
async fn a_file_of_something_else_or_of_another_server_is_not_written_to() {
    let (dir, other, out) = (folder(), folder(), folder());
    let path = out.path().join("audit.jsonl");
    let (journal, second) = (open(dir.path()), open(other.path()));
    fs::write(&path, "a note of somebody\nwithout an end").unwrap();
    let refused = shipper(&journal, &path).catch_up().await.unwrap_err();
    assert!(matches!(&refused, ShipError::Target(error) if error.to_string().contains("something else")), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "a note of somebody\nwithout an end");
    fs::remove_file(&path).unwrap();
    write(&journal, 1).await;
    let mut first = shipper(&journal, &path);
    first.catch_up().await.unwrap();
    let refused = shipper(&second, &path).catch_up().await.unwrap_err();
    assert!(matches!(&refused, ShipError::Target(error) if error.to_string().contains("another server")), "{refused}");
    assert_eq!(shipped_bytes(&path), journal_bytes(dir.path()));
    // One that somebody moved away is begun anew.
    fs::rename(&path, out.path().join("audit.jsonl.0")).unwrap();
    write(&journal, 1).await;
    first.catch_up().await.unwrap();
    assert_eq!(files(&path).len(), 2);
    assert_eq!(shipped_bytes(&path), journal_bytes(dir.path()));
}

#[tokio::test]
async fn an_altered_line_and_a_position_of_another_journal_are_not_shipped() {
    let (dir, out) = (folder(), folder());
    let path = out.path().join("audit.jsonl");
    let journal = open(dir.path());
    write(&journal, 5).await;
    journal.settle().await.unwrap();
    let segment = last_segment(dir.path());
    let whole = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, whole.replacen("\"u-1\"", "\"u-2\"", 1)).unwrap();
    assert!(matches!(shipper(&journal, &path).catch_up().await, Err(ShipError::Journal(_))));
    assert!(!path.exists());
    fs::write(&segment, whole).unwrap();
    shipper(&journal, &path).catch_up().await.unwrap();
    let (dir, position) = (folder(), fs::read(dir.path().join("ship-file.json")).unwrap());
    let journal = open(dir.path());
    fs::write(dir.path().join("ship-file.json"), position).unwrap();
    assert!(matches!(shipper(&journal, &path).catch_up().await, Err(ShipError::Position { .. })));
    let ship = ShipSettings { form: Form::Full, stdout: false, file: None, otlp: None };
    let stdout = ShipSettings { stdout: true, ..ship.clone() };
    let chain = journal.chain_id();
    assert!(unshipped(dir.path(), chain, &ship, 1).unwrap().is_empty(), "nothing is configured");
    let behind = unshipped(dir.path(), chain, &stdout, 1).unwrap();
    assert_eq!((behind.len(), behind[0].target, behind[0].taken), (1, "stdout", 0));
}
