//! `linkgate audit outbox` as an operator runs it: a replica is gone, with changes that it had claimed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod cli_support;

use std::{path::PathBuf, time::Duration};

use cli_support::{Ran, linkgate, run};
use linkgate::{
    audit::{AuditSettings, ChainId, Durability, Journal, OutboxSource},
    config::settings::DatabaseSettings,
    store::{AuditStore, Database},
};
use serde_json::Value;

struct Shell {
    dir: tempfile::TempDir,
}

impl Shell {
    /// A database with four changes, of which the journal in `old` claimed three and chained the first.
    fn new() -> (Self, ChainId, Journal) {
        let shell = Self { dir: tempfile::tempdir().unwrap() };
        let text = "[database]\nsqlite = \"linkgate.db\"\n[audit]\nreads = \"os\"\nwrites = \"os\"\n\
             [issuers.main]\nissuer = \"https://login.example\"\naudiences = [\"linkgate\"]\nalgorithms = [\"ES256\"]\n\
             jwks_url = \"https://login.example/jwks.json\"\n";
        std::fs::write(shell.path("linkgate.toml"), text).unwrap();
        assert_eq!(shell.run(&["migrate"]).code, 0);
        for tenant in ["a", "b", "c", "d"] {
            assert_eq!(shell.run(&["tenant", "create", tenant]).code, 0);
        }
        let journal = Journal::open(settings(shell.path("old"))).unwrap().0;
        let chain = journal.chain_id();
        runtime().block_on(async {
            let store = shell.store().await;
            let claimed = store.claim(chain, 3).await.unwrap();
            journal.append_outbox(&claimed[..1]).await.unwrap();
        });
        (shell, chain, journal)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn store(&self) -> AuditStore {
        let settings = DatabaseSettings::Sqlite { path: self.path("linkgate.db") };
        AuditStore::new(&Database::open(&settings).await.unwrap(), &self.path("audit"))
    }

    fn run(&self, words: &[&str]) -> Ran {
        let config = self.path("linkgate.toml");
        run(&mut linkgate(&[&["--json", "--config", config.to_str().unwrap()], words].concat()))
    }

    fn release(&self, words: &[&str]) -> Ran {
        self.run(&[&["audit", "outbox", "release"], words].concat())
    }

    /// Claimants with their counts.
    fn waiting(&self) -> Vec<(Option<String>, u64)> {
        let ran = self.run(&["audit", "outbox"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let rows: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
        rows.iter().map(|row| (row["claimant"].as_str().map(str::to_owned), row["changes"].as_u64().unwrap())).collect()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn settings(dir: PathBuf) -> AuditSettings {
    AuditSettings {
        dir,
        reads: Durability::Os,
        writes: Durability::Os,
        segment_bytes: 1 << 20,
        segment_age: None,
        flush_interval: Duration::from_millis(1),
        commit_timeout: Duration::from_secs(20),
    }
}

#[test]
fn changes_of_a_replica_that_is_gone_are_given_to_the_others_once() {
    let (shell, chain, journal) = Shell::new();
    let claimant = chain.0.to_string();
    assert_eq!(shell.waiting(), [(Some(claimant.clone()), 3), (None, 1)]);
    let old = shell.path("old");
    let by_journal = ["--claimant", &claimant, "--journal", old.to_str().unwrap()];
    let running = shell.release(&by_journal);
    assert_eq!(running.code, 5, "{}", running.err);
    assert!(running.err.contains("a server runs on"), "{}", running.err);
    drop(journal);

    let other = "018f0000-0000-7000-8000-000000000001";
    assert_eq!(shell.release(&["--claimant", other, "--journal", old.to_str().unwrap()]).code, 3, "another chain");
    assert_eq!(shell.release(&["--claimant", other, "--journal-lost"]).code, 4, "claims nothing");
    assert_eq!(shell.release(&["--claimant", &claimant]).code, 2, "with the journal or without: to be said");
    let asked = shell.release(&by_journal);
    assert_eq!(asked.code, 8, "{}", asked.err);
    assert!(asked.err.contains("gives 2 changes") && asked.err.contains("marks 1"), "{}", asked.err);
    assert_eq!(shell.waiting()[0].1, 3, "nothing was done");

    let done = shell.release(&[&by_journal[..], &["--yes"]].concat());
    assert_eq!(done.code, 0, "{}", done.err);
    let done: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((done["released"].as_u64(), done["marked"].as_u64()), (Some(2), Some(1)));
    // With the record of the act itself.
    assert_eq!(shell.waiting(), [(None, 4)]);

    // The old server comes back after all, and takes its turn like any other: the marked one is not given again.
    let (journal, _) = Journal::open(settings(old)).unwrap();
    let taken = runtime().block_on(async { shell.store().await.claim(journal.chain_id(), 100).await.unwrap() });
    let names: Vec<_> = taken.iter().filter_map(|row| row.change.resource_id.as_deref()).collect();
    assert_eq!(names, ["b", "c", "d", &claimant]);
}

#[test]
fn a_journal_that_is_lost_is_to_be_said() {
    let (shell, chain, journal) = Shell::new();
    drop(journal);
    let claimant = chain.0.to_string();
    let lost = ["--claimant", &claimant, "--journal-lost"];
    let asked = shell.release(&lost);
    assert_eq!(asked.code, 8, "{}", asked.err);
    assert!(asked.err.contains("would be chained twice"), "{}", asked.err);
    let done = shell.release(&[&lost[..], &["--yes"]].concat());
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(shell.waiting(), [(None, 5)]);
}
