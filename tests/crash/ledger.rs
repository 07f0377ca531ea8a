//! The journal as it stands in its files, read without the library that wrote it, and what must agree with it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use linkgate::{
    audit::{
        ChainId, Decision, Record,
        verify::{Verification, VerifyOptions, verify},
    },
    domain::Millis,
};
use serde_json::Value;

use crate::gateway::{House, eventually};

/// One opening, with its completion.
#[derive(Clone, Debug)]
pub struct Entry {
    pub seq: u64,
    pub request_id: String,
    pub decision: String,
    pub reason: String,
    pub completion: Option<Completion>,
}

#[derive(Clone, Debug)]
pub struct Completion {
    pub aborted: bool,
    pub status: Option<u64>,
    pub reason: String,
    /// Where it overturns the opening's.
    pub decision: Option<String>,
}

/// Everything in the chain so far; grows with each [`Ledger::read`].
pub struct Ledger {
    dir: PathBuf,
    read: BTreeMap<PathBuf, u64>,
    pub last_seq: u64,
    pub records: HashMap<String, Entry>,
    /// Ids of changes, in the order of the chain.
    pub changes: Vec<String>,
    pub recoveries: usize,
}

impl Ledger {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, read: BTreeMap::new(), last_seq: 0, records: HashMap::new(), changes: Vec::new(), recoveries: 0 }
    }

    /// Several, as one: no record and no change may stand in two.
    pub fn union<'l>(ledgers: impl IntoIterator<Item = &'l Self>) -> Self {
        let mut union = Self::new(PathBuf::new());
        for ledger in ledgers {
            for (id, entry) in &ledger.records {
                assert!(union.records.insert(id.clone(), entry.clone()).is_none(), "in two journals: {id}");
            }
            union.changes.extend(ledger.changes.iter().cloned());
            union.recoveries += ledger.recoveries;
        }
        let once: HashSet<_> = union.changes.iter().collect();
        assert_eq!(once.len(), union.changes.len(), "a change stands twice");
        union
    }

    /// All that stands there now.
    pub fn fresh(dir: PathBuf) -> Self {
        let mut ledger = Self::new(dir);
        ledger.read();
        ledger
    }

    pub fn chain(&self) -> ChainId {
        let text = std::fs::read_to_string(self.dir.join("chain.json")).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(value["chain_id"].clone()).unwrap()
    }

    /// Reads on. Fails the test where a number is missing, or where a record is opened or completed twice.
    pub fn read(&mut self) {
        let mut files: Vec<_> = std::fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
        files.sort();
        for path in files {
            let offset = self.read.get(&path).copied().unwrap_or(0);
            let text = whole_lines(&path, offset);
            for line in text.lines() {
                self.line(&serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")));
            }
            self.read.insert(path, offset + text.len() as u64);
        }
    }

    fn line(&mut self, line: &Value) {
        let seq = line["seq"].as_u64().unwrap();
        assert_eq!(seq, self.last_seq + 1, "a line is missing or doubled: {line}");
        self.last_seq = seq;
        let field = |name: &str| [&line["pub"][name], &line["priv"][name]].into_iter().find(|value| !value.is_null());
        let text = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        match line["type"].as_str().unwrap() {
            "open" => {
                let entry = Entry {
                    seq,
                    request_id: text("request_id"),
                    decision: text("decision"),
                    reason: text("reason"),
                    completion: None,
                };
                let before = self.records.insert(text("id"), entry);
                assert!(before.is_none(), "opened twice: {line}");
            }
            "complete" => {
                let completion = Completion {
                    aborted: field("aborted").is_some_and(|value| value == true),
                    status: field("status").and_then(Value::as_u64),
                    reason: text("reason"),
                    decision: field("decision").and_then(Value::as_str).map(str::to_owned),
                };
                let entry = self.records.get_mut(&text("id")).unwrap_or_else(|| panic!("never opened: {line}"));
                assert!(entry.completion.is_none(), "completed twice: {line}");
                entry.completion = Some(completion);
            }
            "change" => self.changes.push(text("id")),
            "recovery" => self.recoveries += 1,
            "segment" => {}
            other => panic!("a line of type {other}"),
        }
    }

    pub fn by_request(&self, request_id: &str) -> Vec<(&String, &Entry)> {
        self.records.iter().filter(|(_, entry)| entry.request_id == request_id).collect()
    }

    /// Walks the chain as `linkgate audit verify` does, with the head that the index has seen.
    pub fn verify(&self, house: &House) -> Verification {
        let stored_head = house.indexed(self.chain());
        let found = verify(&self.dir, VerifyOptions { stored_head, ..VerifyOptions::default() }).unwrap();
        assert!(found.is_sound(), "{:#?}", found.findings);
        found
    }

    /// Waits until the index has seen all that was read here, and holds it against what the index has of this chain: the
    /// same records, with the same outcome, each once.
    pub fn agrees_with_index(&self, house: &House, since: Millis, after_seq: u64) {
        let chain = self.chain();
        eventually("the index catches up", || house.indexed(chain).is_some_and(|head| head.seq >= self.last_seq));
        let found = house.indexed_since(since);
        let mut seen = HashSet::new();
        for record in found.iter().filter(|record| record.chain_id == chain && record.opening.seq <= self.last_seq) {
            let id = record.id.to_string();
            assert!(seen.insert(id.clone()), "indexed twice: {id}");
            match self.records.get(&id) {
                Some(entry) => same(&id, entry, record),
                None => assert!(self.changes.contains(&id), "indexed and not in the journal: {id}"),
            }
        }
        for (id, _) in self.records.iter().filter(|(_, entry)| entry.seq > after_seq) {
            assert!(seen.contains(id), "in the journal and not indexed: {id}");
        }
    }

    /// Every change is in the index, once.
    pub fn changes_are_indexed(&self, house: &House) {
        let found = house.indexed_since(Millis(0));
        for id in &self.changes {
            assert_eq!(found.iter().filter(|record| record.id.to_string() == *id).count(), 1, "change {id}");
        }
    }
}

fn same(id: &str, entry: &Entry, record: &Record) {
    let completion = entry.completion.as_ref();
    let decision = completion.and_then(|completion| completion.decision.as_deref()).unwrap_or(&entry.decision);
    let word = if record.decision == Decision::Allow { "allow" } else { "deny" };
    assert_eq!((record.request_id.as_deref(), word), (Some(&*entry.request_id), decision), "{id}");
    assert_eq!(record.opening.seq, entry.seq, "{id}");
    assert_eq!(record.completion.is_some(), completion.is_some(), "{id}");
    if let Some(completion) = completion {
        assert_eq!(record.aborted, Some(completion.aborted), "{id}");
        assert_eq!(record.status.map(u64::from), completion.status, "{id}");
    }
}

/// From `offset` to the last line end.
fn whole_lines(path: &Path, offset: u64) -> String {
    let mut file = std::fs::File::open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.truncate(end);
    String::from_utf8(bytes).unwrap()
}
