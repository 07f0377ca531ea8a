//! The commands over journals that are kept in the database: each is written into a folder of its own, asked, and removed.

use std::sync::{Arc, PoisonError};

use serde_json::json;

use super::{
    evidence::Known,
    folder::Folder,
    journal::{JournalCommand, run},
};
use crate::{
    audit::{
        AuditSettings, ChainHead, ChainHeads, ChainId, EvidenceStore, IndexUnavailable, Record, RecordFilter,
        RecordSource, reader::segments,
    },
    cli::{
        context::chain,
        outcome::{Console, Exit, Failure, tell},
    },
    config::Config,
    store::{AuditStore, Extent},
};

/// The index, and the head that it had before the journal was written out: a server that runs only moves on from it.
struct Before<'i> {
    index: &'i AuditStore,
    head: Option<ChainHead>,
}

impl RecordSource for Before<'_> {
    async fn query(&self, filter: &RecordFilter) -> Result<Vec<Record>, IndexUnavailable> {
        self.index.query(filter).await
    }
}

impl ChainHeads for Before<'_> {
    async fn head(&self, _: ChainId) -> Result<Option<ChainHead>, IndexUnavailable> {
        Ok(self.head)
    }
}

/// Runs the command over every chain. The first failure is told when all were looked at.
pub(super) async fn run_on_each(
    command: &JournalCommand,
    config: &Config,
    index: Option<&AuditStore>,
    console: &Console,
) -> Result<(), Failure> {
    let database = |error: &dyn std::error::Error| Failure::new(Exit::Database, chain(error));
    let index = index.ok_or_else(|| Failure::new(Exit::Database, "the journals are in the database"))?;
    let keys = config.checkpoints.keys().map_err(|error| Failure::failed(chain(&error)))?;
    let mut failed = None;
    let chains = index.kept_chains().await.map_err(|error| database(&error))?;
    if chains.is_empty() {
        let known = index.chains().await.map_err(|error| database(&error))?.len();
        return Err(if known == 0 {
            Failure::new(Exit::NotFound, "no audit journal is kept in the database yet")
        } else {
            let text = format_args!(
                "no audit journal is kept in the database, though its index knows of {known}: they were removed, or are on \
                 the disks of other servers"
            );
            Failure::new(Exit::Verification, text)
        });
    }
    let faulty = index.faulty_journals().await.map_err(|error| database(&error))?;
    let mut command = command.clone();
    // One document, however many there are. An export is lines anyway.
    let parts = (console.json && chains.len() > 1 && !matches!(command, JournalCommand::Export(_))).then(Arc::default);
    let each = Console { parts: parts.clone(), ..console.clone() };
    let mut shown = Vec::new();
    for kept in chains {
        if !console.json {
            tell(format_args!("chain {kept}:"));
        }
        if let Some(found) = faulty.iter().find(|found| found.chain == kept) {
            let text =
                format!("the audit journal {kept} was set aside when a server wanted to go on with it: {}", found.why);
            tell(&text);
            if matches!(command, JournalCommand::Verify(_)) {
                failed = failed.or(Some(Failure::new(Exit::Verification, text)));
            }
        }
        let folder = Folder::make().map_err(|error| Failure::failed(format_args!("no temporary folder: {error}")))?;
        let head = index.head(kept).await.map_err(|error| database(&error))?;
        let stored = index.last(kept).await.map_err(|error| database(&error))?.map(|(stored, _)| stored);
        index.rebuild(kept, folder.path(), Extent::Whole).await.map_err(|error| database(&error))?;
        // The first line is there before a chain is used.
        if segments(folder.path()).map_err(|error| Failure::failed(chain(&error)))?.is_empty() {
            let text = format_args!(
                "nothing is there of the audit journal {kept}: its lines were removed, or a server ended before it wrote the first (then the \
                 next start goes on with it)"
            );
            tell(text);
            shown.push(json!({"chain_id": kept, "error": text.to_string()}));
            failed = failed.or(Some(Failure::new(Exit::Verification, text)));
            continue;
        }
        let audit = AuditSettings { dir: folder.path().to_owned(), ..config.audit.clone() };
        let known = Known { keys: keys.clone(), stored };
        let done = run(command.clone(), &audit, &known, Some(&Before { index, head }), &each).await;
        let part = parts.as_ref().and_then(|parts| parts.lock().unwrap_or_else(PoisonError::into_inner).pop());
        shown.push(match (&done, part) {
            (Err(error), None) => json!({"chain_id": kept, "error": error.message}),
            (_, part) => json!({"chain_id": kept, "result": part}),
        });
        match done {
            // Only behind a file that this very command has made.
            Ok(()) => command = command.for_further(),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if parts.is_some() {
        console.show(&shown, "")?;
    }
    failed.map_or(Ok(()), Err)
}
