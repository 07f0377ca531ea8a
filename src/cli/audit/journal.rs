//! The commands over a journal and its index, wherever they are kept.

use clap::Subcommand;

use super::{
    evidence::{self, CheckpointArgs, Known},
    records::{self, ExportArgs, QueryArgs},
    verify::{self, VerifyArgs},
};
use crate::{
    audit::{AuditSettings, ChainHeads, RecordSource},
    cli::outcome::{Console, Failure},
};

/// The commands over the journal and its index.
#[derive(Clone, Debug, Subcommand)]
pub enum JournalCommand {
    /// Show records, newest first.
    Query(QueryArgs),
    /// Check the chain of hashes; exit code 6 if a record was altered, removed, inserted or cut off.
    Verify(VerifyArgs),
    /// Print signed checkpoints of the chain, to be kept elsewhere.
    Checkpoint(CheckpointArgs),
    /// Print one JSON line a record, opening and completion joined, straight from the journal.
    Export(ExportArgs),
}

impl JournalCommand {
    /// The same for a further chain.
    pub(super) fn for_further(mut self) -> Self {
        if let Self::Export(args) = &mut self {
            args.goes_on = true;
        }
        self
    }

    pub(super) fn is_query(&self) -> bool {
        matches!(self, Self::Query(_))
    }

    /// Whether the index answers it, and no journal is read.
    pub(super) fn asks_index(&self) -> bool {
        matches!(self, Self::Query(args) if !args.journal)
    }
}

/// Runs the command. `source` is `None` where no database is configured or reachable.
pub async fn run<S: RecordSource + ChainHeads>(
    command: JournalCommand,
    audit: &AuditSettings,
    known: &Known,
    source: Option<&S>,
    console: &Console,
) -> Result<(), Failure> {
    match command {
        JournalCommand::Query(args) => records::query(args, audit, source, console).await,
        JournalCommand::Verify(args) => verify::verify(&args, audit, known, source, console).await,
        JournalCommand::Export(args) => records::export(args, audit),
        JournalCommand::Checkpoint(args) => evidence::checkpoint(&args, audit, console),
    }
}
