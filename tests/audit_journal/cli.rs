//! The commands over a journal and an index.

use std::path::Path;

use clap::Parser;
use linkgate::{
    audit::{
        ChainHead, ChainHeads, ChainId, Durability, IndexUnavailable, JournalError, Record, RecordFilter, RecordSource,
        scan, verify,
    },
    cli::{
        audit::{self, AuditArgs},
        explain::{self, ExplainArgs},
        outcome::{Console, Exit, Failure},
    },
    domain::DecisionId,
};

use crate::support::*;

const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

#[derive(Parser)]
enum Command {
    Audit(AuditArgs),
    Explain(ExplainArgs),
}

/// An index that knows a head, or is away.
struct Index {
    head: Option<ChainHead>,
    away: bool,
}

impl RecordSource for Index {
    async fn query(&self, _: &RecordFilter) -> Result<Vec<Record>, IndexUnavailable> {
        if self.away { Err(IndexUnavailable::new("away")) } else { Ok(Vec::new()) }
    }
}

impl ChainHeads for Index {
    async fn head(&self, _: ChainId) -> Result<Option<ChainHead>, IndexUnavailable> {
        if self.away { Err(IndexUnavailable::new("away")) } else { Ok(self.head) }
    }
}

async fn run(dir: &Path, index: Option<&Index>, words: &[&str]) -> Result<(), Failure> {
    let console = Console { json: true, ..Console::default() };
    match Command::try_parse_from([&["linkgate"], words].concat()).unwrap() {
        Command::Audit(args) => {
            audit::run(args.journal().unwrap(), &settings(dir), &Default::default(), index, &console).await
        }
        Command::Explain(args) => explain::run(args, &settings(dir), index, &console).await,
    }
}

fn exit(result: Result<(), Failure>) -> Option<Exit> {
    result.err().map(|failure| failure.exit)
}

#[tokio::test]
async fn verify_has_an_exit_code_for_what_it_finds() {
    let dir = folder();
    assert_eq!(exit(run(dir.path(), None, &["audit", "verify"]).await), Some(Exit::NotFound));
    let journal = open(dir.path());
    write(&journal, 3).await;
    let head = journal.settle().await.unwrap().head;
    let index = Index { head: Some(head), away: false };
    assert_eq!(exit(run(dir.path(), Some(&index), &["audit", "verify"]).await), None, "beside a server");
    assert_eq!(exit(run(dir.path(), None, &["audit", "verify"]).await), None);
    let away = Index { head: None, away: true };
    assert_eq!(exit(run(dir.path(), Some(&away), &["audit", "verify"]).await), Some(Exit::Database));
    assert_eq!(exit(run(dir.path(), Some(&away), &["audit", "verify", "--without-database"]).await), None);
    drop(journal);
    let path = last_segment(dir.path());
    let all = lines(&path);
    write_lines(&path, &all[..all.len() - 1]);
    assert_eq!(exit(run(dir.path(), Some(&index), &["audit", "verify"]).await), Some(Exit::Verification));
    let mut altered = all.clone();
    altered[2] = altered[2].replace("200", "201");
    write_lines(&path, &altered);
    assert_eq!(exit(run(dir.path(), None, &["audit", "verify"]).await), Some(Exit::Verification));
    assert_eq!(exit(run(dir.path(), None, &["audit", "export"]).await), Some(Exit::Verification));
}

#[tokio::test]
async fn what_is_not_there_is_no_finding_of_the_journal() {
    let dir = folder();
    let journal = open(dir.path());
    write(&journal, 3).await;
    drop(journal);
    let beyond = run(dir.path(), None, &["audit", "verify", "--from-segment", "77"]).await.unwrap_err();
    assert_eq!((beyond.exit, beyond.message.as_str()), (Exit::NotFound, "there is no segment 77, the last is 1"));
    assert_eq!(exit(run(dir.path(), None, &["audit", "verify", "--from-segment", "1"]).await), None);
    let known = Command::try_parse_from(["linkgate", "audit", "verify", "--from-segment", "0"]);
    assert!(known.is_err(), "segments are counted from 1");

    let key = dir.path().join("key.pem");
    std::fs::write(&key, PUBLIC_KEY).unwrap();
    let words = ["audit", "verify", "--checkpoint", "/etc/passwd", "--key", key.to_str().unwrap()];
    let other = run(dir.path(), None, &words).await.unwrap_err();
    assert_eq!(other.exit, Exit::Invalid, "{}", other.message);
    assert!(other.message.starts_with("`/etc/passwd` is no checkpoint: "), "{}", other.message);
}

#[test]
fn a_finding_names_a_line_where_there_is_one() {
    let at = |line| {
        let what = verify::Problem::CutOff { stored: 9, found: 3 };
        verify::Finding { file: "segment-1.jsonl".into(), line, seq: None, what }.to_string()
    };
    assert!(at(0).starts_with("segment-1.jsonl: cut off"), "{}", at(0));
    assert!(at(4).starts_with("segment-1.jsonl:4: cut off"), "{}", at(4));
}

#[tokio::test]
async fn a_last_line_is_being_written_or_was_cut_off() {
    let dir = folder();
    let journal = open(dir.path());
    write(&journal, 3).await;
    journal.settle().await.unwrap();
    let path = last_segment(dir.path());
    let tail = |bytes: &[u8]| {
        use std::io::Write;
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes).unwrap();
    };
    let found = || verify::verify(dir.path(), Default::default()).unwrap();
    tail(b"{\"type\":");
    assert!(found().being_written && found().is_sound(), "a server runs");
    assert_eq!(exit(run(dir.path(), None, &["audit", "verify"]).await), None);
    drop(journal);
    // What the server wrote at its end stands behind the torn part; as a crash leaves it, nothing does.
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, whole.split_inclusive('\n').filter(|line| line.ends_with("}\n")).collect::<String>())
        .unwrap();
    let sound = found();
    assert!(sound.is_sound() && !sound.being_written, "{:?}", sound.findings);
    tail(b"{\"type\":");
    let cut = found();
    assert!(!cut.being_written && !cut.is_sound());
    let told = cut.findings[0].to_string();
    assert!(told.contains("cut off") && told.contains("no server runs") && told.contains("next start"), "{told}");
    assert_eq!(exit(run(dir.path(), None, &["audit", "verify"]).await), Some(Exit::Verification));
    // The start puts it aside, as the message says.
    drop(open(dir.path()));
    assert!(found().is_sound() && !found().being_written);
    // A copy without the lock has no server.
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    tail(b"{\"type\":");
    assert!(!found().is_sound());
}

#[tokio::test]
async fn export_filters_and_writes_one_line_a_record() {
    let dir = folder();
    let journal = open(dir.path());
    let ids = write(&journal, 5).await;
    let denied = DecisionId::generate();
    let other = linkgate::audit::Opening {
        decision: linkgate::audit::Decision::Deny,
        managed_tenant_id: Some("t-9"),
        ..opening(denied)
    };
    journal.record(&other, &done(403), Durability::Os).await.unwrap();
    journal.settle().await.unwrap();
    let export = async |words: &[&str]| {
        let file = dir.path().join("out.jsonl");
        let path = file.to_str().unwrap();
        let words = [&["audit", "export", "--output", path], words].concat();
        assert_eq!(exit(run(dir.path(), None, &words).await), None);
        let found: Vec<Record> = lines(&file).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        std::fs::remove_file(file).unwrap();
        found.into_iter().map(|record| record.id).collect::<Vec<_>>()
    };
    assert_eq!(export(&[]).await.len(), 6);
    assert_eq!(export(&["--decision", "deny"]).await, [denied]);
    assert_eq!(export(&["--tenant", "t-9", "--user", "u-1", "--action", "partner.billing.read"]).await, [denied]);
    assert_eq!(export(&["--tenant", "t-1", "--limit", "2"]).await, ids[..2]);
    assert!(export(&["--kind", "link"]).await.is_empty());
    assert!(export(&["--to", "2020-01-01"]).await.is_empty());
    assert_eq!(export(&["--from", "2020-01-01", "--request-id", "req_1"]).await.len(), 6);
    assert!(export(&["--partner", "00000000-0000-0000-0000-000000000001"]).await.is_empty());
    let newest = scan::newest(dir.path(), &RecordFilter { offset: 1, ..RecordFilter::default() }, 2).unwrap();
    assert_eq!(newest.iter().map(|record| record.id).collect::<Vec<_>>(), [ids[4], ids[3]]);
}

/// An index whose journal is somewhere else.
struct Lost;

impl RecordSource for Lost {
    async fn query(&self, _: &RecordFilter) -> Result<Vec<Record>, IndexUnavailable> {
        let (path, source) = ("/lost/segment".into(), std::io::Error::other("no such disk"));
        let source = JournalError::Io { act: "read", path, source };
        Err(IndexUnavailable::Journal { dir: "/lost".into(), source })
    }
}

impl ChainHeads for Lost {
    async fn head(&self, _: ChainId) -> Result<Option<ChainHead>, IndexUnavailable> {
        Ok(None)
    }
}

#[tokio::test]
async fn a_query_names_the_folder_that_it_cannot_read() {
    let dir = folder();
    let Command::Audit(args) = Command::try_parse_from(["linkgate", "audit", "query"]).unwrap() else { panic!() };
    let console = Console { json: true, ..Console::default() };
    let command = args.journal().unwrap();
    let failure =
        audit::run(command, &settings(dir.path()), &Default::default(), Some(&Lost), &console).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Failed);
    for part in ["`/lost`", "audit.dir", "/lost/segment", "no such disk"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
}

#[tokio::test]
async fn explain_finds_by_either_id_and_falls_back_to_the_journal() {
    let dir = folder();
    let journal = open(dir.path());
    let id = write(&journal, 1).await[0].to_string();
    journal.settle().await.unwrap();
    for index in [None, Some(&Index { head: None, away: false }), Some(&Index { head: None, away: true })] {
        assert_eq!(exit(run(dir.path(), index, &["explain", &id]).await), None);
        assert_eq!(exit(run(dir.path(), index, &["explain", "req_1"]).await), None);
        assert_eq!(exit(run(dir.path(), index, &["explain", "req_2"]).await), Some(Exit::NotFound));
    }
    assert_eq!(exit(run(dir.path(), None, &["audit", "query", "--limit", "5"]).await), None);
    let away = Index { head: None, away: true };
    assert_eq!(exit(run(dir.path(), Some(&away), &["audit", "query"]).await), Some(Exit::Database));
    assert_eq!(exit(run(dir.path(), Some(&away), &["audit", "query", "--journal"]).await), None);
}
