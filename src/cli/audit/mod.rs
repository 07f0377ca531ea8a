//! `linkgate audit`: one file a subcommand; this one names them and finds what they are asked about.
//!
//! `verify` and `export` read the journal itself, take no lock, and may run beside a server. `query` asks the database's
//! index and reads the journal where there is none. Journals that are kept in the database are each written into a
//! `folder` first (`kept`).

pub mod evidence;
pub mod records;
pub mod verify;

pub mod journal;

mod folder;
mod kept;
pub mod outbox;
mod prune;

use clap::{Args, Subcommand};

pub use self::journal::{JournalCommand, run};
use self::{
    evidence::{Known, ProveCheckArgs},
    outbox::OutboxArgs,
    prune::PruneArgs,
};
use super::{
    context::Context,
    outcome::{Failure, tell},
};
use crate::store::AuditStore;

/// Query, verify and export the audit record.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    #[command(flatten)]
    Journal(JournalCommand),
    /// Check a saved access log and its proofs; needs neither configuration nor database.
    ProveCheck(ProveCheckArgs),
    /// Remove old segments, so that the rest can still be verified.
    Prune(PruneArgs),
    Outbox(OutboxArgs),
}

/// The command with the configuration in force, or without any where it needs none.
pub(super) fn dispatch(args: AuditArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        AuditCommand::ProveCheck(args) => evidence::prove_check(&args, &context.console),
        AuditCommand::Prune(args) => {
            context.evidence(async |config, index| prune::prune(&args, config, index, &context.console).await)
        }
        AuditCommand::Outbox(args) => outbox::run(args, context),
        AuditCommand::Journal(command) => context.evidence(async |config, index| {
            let in_index = command.asks_index();
            if config.kept_in_database && !in_index {
                return kept::run_on_each(&command, config, index, &context.console).await;
            }
            let known = Known::of(config, index).await?;
            let query = command.is_query();
            run(command, &config.audit, &known, index, &context.console).await?;
            match index.filter(|_| query) {
                Some(index) => tell_waiting(index).await,
                None => Ok(()),
            }
        }),
    }
}

/// Changes that no server has chained yet are in no answer.
async fn tell_waiting(index: &AuditStore) -> Result<(), Failure> {
    match index.outbox_waiting().await? {
        0 => {}
        1 => tell("1 change waits to be chained: `linkgate audit outbox`"),
        many => tell(format_args!("{many} changes wait to be chained: `linkgate audit outbox`")),
    }
    Ok(())
}

impl AuditArgs {
    /// What is asked of the journal and its index, if that is what is asked.
    pub fn journal(self) -> Option<JournalCommand> {
        match self.command {
            AuditCommand::Journal(command) => Some(command),
            _ => None,
        }
    }
}
