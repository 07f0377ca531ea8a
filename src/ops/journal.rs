//! The journal itself, for those who are not at its machine: whether it is whole, its records page by page, its signed
//! checkpoints.
//!
//! Reads the files beside a running server and takes no lock, as `linkgate audit` does.

use std::{collections::VecDeque, io, path::Path};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Trouble, Window, aside};
use crate::{
    audit::{
        ChainHeads, EvidenceStore, Record, RecordFilter,
        evidence::{Cause, Checkpoint, Kept, shelf, witness::Witness},
        journal::io_error,
        reader::{chain_file, extent},
        scan::{self, ScanError},
        verify::{Verification, VerifyOptions, verify_against},
    },
    config::Config,
    store::AuditStore,
};

/// Walks the chain, against the head and the checkpoint that the database has and the checkpoints beside the journal.
pub async fn verify(config: &Config, index: &AuditStore, from_segment: Option<u64>) -> Result<Verification, Trouble> {
    on_disk(config)?;
    let dir = config.audit.dir.clone();
    let found = chain_file(&dir).map_err(io_error("read the audit journal in", &dir))?;
    let chain_id =
        found.ok_or_else(|| Trouble::NotFound(format!("there is no audit journal in `{}`", dir.display())))?.chain_id;
    let keys = config.checkpoints.keys().map_err(|error| Trouble::Internal(error.to_string()))?;
    // Both are read before the walk: a running server only moves on from them.
    let (stored_head, last) = (index.head(chain_id).await?, index.last(chain_id).await?);
    aside(move || {
        segment_is_there(&dir, from_segment)?;
        let mut witness = Witness::new(chain_id);
        witness.recall_shelf(&dir, &keys).map_err(io_error("read", &shelf::path(&dir)))?;
        if let Some((kept, _)) = &last {
            witness.recall(kept, &keys, "the database");
        }
        Ok(verify_against(&dir, VerifyOptions { from_segment, stored_head }, Some(&mut witness))?)
    })
    .await
}

/// A walk that is to begin behind the last segment would find nothing, and could not tell that from a journal cut off.
pub fn segment_is_there(dir: &Path, from_segment: Option<u64>) -> Result<(), Trouble> {
    let Some(asked) = from_segment else { return Ok(()) };
    let last = extent(dir).map_err(io_error("list", dir))?.map_or(0, |(number, _)| number);
    if asked > last {
        return Err(Trouble::NotFound(format!("there is no segment {asked}, the last is {last}")));
    }
    Ok(())
}

/// What stands in files. A journal in the database has to be written out first, which the command line does.
fn on_disk(config: &Config) -> Result<(), Trouble> {
    if config.kept_in_database {
        let message = "the journals are kept in the database and have to be written out first: ask `linkgate audit`";
        return Err(Trouble::Invalid(message.to_owned()));
    }
    Ok(())
}

/// Some records, as far as they fit.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RecordExport")]
pub struct Export {
    /// In the order in which they were completed, those still open last.
    #[schemars(with = "Vec<Record>")]
    pub items: Vec<Box<RawValue>>,
    /// Where the next call goes on (`offset`); `null`: these were the last.
    pub next_offset: Option<u64>,
}

/// One page of an export, of at most so many records and about so many bytes.
pub async fn export(
    config: &Config,
    from_segment: Option<u64>,
    filter: RecordFilter,
    window: Window,
    most_bytes: usize,
) -> Result<Export, Trouble> {
    on_disk(config)?;
    let dir = config.audit.dir.clone();
    aside(move || page(&dir, from_segment, filter, window, most_bytes)).await
}

fn page(
    dir: &Path,
    from_segment: Option<u64>,
    filter: RecordFilter,
    window: Window,
    most_bytes: usize,
) -> Result<Export, Trouble> {
    let filter = RecordFilter { limit: Some(window.limit.saturating_add(1)), offset: window.offset, ..filter };
    let (mut items, mut bytes, mut full) = (Vec::new(), 0, false);
    let done = scan::export(dir, from_segment, &filter, |record| {
        let item = to_raw_value(&record)?;
        let more = bytes + item.get().len();
        if items.len() >= window.limit || (more > most_bytes && !items.is_empty()) {
            full = true;
            return Err(io::Error::other("the page is full"));
        }
        bytes = more;
        items.push(item);
        Ok(())
    });
    match done {
        Err(ScanError::Output(_)) if full => {}
        done => drop(done?),
    }
    let next = full.then(|| window.offset.saturating_add(items.len()) as u64);
    Ok(Export { items, next_offset: next })
}

/// What is shown of a checkpoint.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SignedCheckpoint")]
pub struct ShownCheckpoint {
    #[serde(flatten)]
    pub said: Checkpoint,
    pub cause: Cause,
    /// What was signed, with its signature, as it is kept elsewhere.
    pub note: String,
}

impl ShownCheckpoint {
    pub fn of(kept: Kept) -> io::Result<Self> {
        let said = kept.checkpoint().map_err(io::Error::other)?;
        Ok(Self { said, cause: kept.cause, note: kept.note })
    }
}

/// Checkpoints beside the journal, newest first; with `covering` only the first one that covers this record.
pub async fn checkpoints(
    config: &Config,
    covering: Option<u64>,
    window: Window,
) -> Result<Vec<ShownCheckpoint>, Trouble> {
    on_disk(config)?;
    let dir = config.audit.dir.clone();
    aside(move || {
        let most = window.offset.saturating_add(window.limit);
        let mut newest: VecDeque<ShownCheckpoint> = VecDeque::new();
        shelf::each::<io::Error>(&dir, |kept| {
            let shown = ShownCheckpoint::of(kept)?;
            match covering {
                Some(seq) if shown.said.head.seq < seq || !newest.is_empty() => {}
                _ => newest.push_front(shown),
            }
            newest.truncate(most);
            Ok(())
        })
        .map_err(io_error("read", &shelf::path(&dir)))?;
        Ok(newest.into_iter().skip(window.offset).collect())
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::audit::{AuditSettings, ChangeRecord, Durability, Journal, Kind};

    #[tokio::test]
    async fn pages_follow_each_other_however_little_fits_on_one() {
        let dir = tempfile::tempdir().unwrap();
        let settings = AuditSettings {
            dir: dir.path().join("audit"),
            segment_bytes: 1 << 20,
            segment_age: None,
            writes: Durability::Os,
            reads: Durability::Os,
            commit_timeout: Duration::from_secs(5),
            flush_interval: Duration::from_millis(5),
        };
        let (journal, _) = Journal::open(settings.clone()).unwrap();
        for n in 0..5 {
            journal.append_change(&ChangeRecord::new(Kind::Admin, format!("change-{n}"))).await.unwrap();
        }
        let filter = RecordFilter { kind: Some(Kind::Admin), ..RecordFilter::default() };
        for (limit, most_bytes, calls) in [(2, usize::MAX, 3), (100, 1, 5), (5, usize::MAX, 1)] {
            let (mut told, mut offset, mut made) = (Vec::new(), Some(0), 0);
            while let Some(from) = offset {
                made += 1;
                let window = Window { offset: usize::try_from(from).unwrap(), limit };
                let found = page(&settings.dir, None, filter.clone(), window, most_bytes).unwrap();
                told.extend(found.items.iter().map(|item| {
                    let record: Record = serde_json::from_str(item.get()).unwrap();
                    record.action.unwrap()
                }));
                offset = found.next_offset;
            }
            assert_eq!(told, ["change-0", "change-1", "change-2", "change-3", "change-4"]);
            assert_eq!(made, calls, "{limit} {most_bytes}");
        }
    }
}
