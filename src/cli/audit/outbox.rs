//! `linkgate audit outbox`: changes that wait to be chained, and those whose server does not come back.
//!
//! A server claims changes for its own chain, for good, so that none is ever chained twice. One that is gone for ever keeps
//! what it had claimed. `release` gives it to the others: exactly once holds where the claimant's journal says what it
//! had chained, and its lock says that nobody writes there; or where that journal is lost, and its chain with it. A journal
//! that is kept in the database is found there.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::folder::Folder;
use crate::{
    audit::{ChainId, JournalError, RecordFilter, RecordSource, outlived::Outlived, reader::segments},
    cli::{
        context::{Context, chain},
        outcome::{Console, Exit, Failure},
        store_context::{ActorArgs, runtime},
    },
    config::Config,
    domain::RoleTable,
    store::{
        AuditStore, Database, DepotError, Extent, HEARD, PostgresDepot,
        admin::{Admin, ClaimedRow, Freed, Waiting},
    },
};

/// See changes that wait to be chained; free those whose server does not come back
#[derive(Debug, Args)]
pub struct OutboxArgs {
    #[command(subcommand)]
    command: Option<OutboxCommand>,
}

#[derive(Debug, Subcommand)]
enum OutboxCommand {
    /// Count them, by the chain that claimed them (without a subcommand: the same)
    List,
    /// Give what a server claimed that does not come back to the servers that are there
    ///
    /// Example: linkgate audit outbox release --claimant <UUID> --journal /mnt/old-volume/audit
    Release(ReleaseArgs),
}

#[derive(Debug, Args)]
struct ReleaseArgs {
    #[command(flatten)]
    actor: ActorArgs,
    /// The chain, as `list` names it
    #[arg(long, value_name = "UUID")]
    claimant: Uuid,
    /// The claimant's `audit.dir`: what it had chained is marked, the rest is given to others
    #[arg(long, value_name = "DIR", conflicts_with = "journal_lost")]
    journal: Option<PathBuf>,
    /// That folder is lost for good, and its server will never start with it again
    #[arg(long)]
    journal_lost: bool,
}

pub fn run(args: OutboxArgs, context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    runtime()?.block_on(async {
        let db = Database::open(&config.database).await?;
        db.check_migrated().await?;
        let done = match args.command {
            None | Some(OutboxCommand::List) => list(&admin(&db), &context.console).await,
            Some(OutboxCommand::Release(args)) => release(args, &config, &db, &context.console).await,
        };
        db.close().await;
        done
    })
}

/// No link is judged here, so no role table is needed.
fn admin(db: &Database) -> Admin {
    Admin::new(db, std::sync::Arc::new(RoleTable::new([], std::collections::BTreeMap::new())), false)
}

async fn list(admin: &Admin, console: &Console) -> Result<(), Failure> {
    let waiting = admin.outbox_waiting().await?;
    console.list(&waiting, &["claimed by", "changes", "oldest"], |one: &Waiting| {
        let claimant = one.claimant.map_or_else(|| "nobody yet".to_owned(), |id| id.to_string());
        vec![claimant, one.changes.to_string(), one.oldest.to_string()]
    })
}

/// A journal that nobody writes to as long as this is held.
enum Silent {
    /// In a folder.
    OnDisk(Outlived),
    /// In the database, written into a folder.
    Kept { outlived: Outlived, _folder: Folder, _depot: Box<PostgresDepot> },
    /// Nobody knows what it held.
    Lost,
}

impl Silent {
    fn outlived(&mut self) -> Option<&mut Outlived> {
        match self {
            Self::OnDisk(outlived) | Self::Kept { outlived, .. } => Some(outlived),
            Self::Lost => None,
        }
    }
}

async fn silent(args: &ReleaseArgs, config: &Config, db: &Database) -> Result<Silent, Failure> {
    let store = AuditStore::new(db, &config.audit.dir);
    let claimant = ChainId(args.claimant);
    if store.kept_chains().await?.contains(&claimant) {
        return silent_in_database(args, &store, claimant).await;
    }
    match &args.journal {
        Some(dir) => Outlived::open(dir).map(Silent::OnDisk).map_err(|error| unusable(&error)),
        None if args.journal_lost => Ok(Silent::Lost),
        None => {
            let what = "say where its journal is (`--journal DIR`), or that it is lost for good (`--journal-lost`)";
            Err(Failure::new(Exit::Usage, what))
        }
    }
}

async fn silent_in_database(args: &ReleaseArgs, store: &AuditStore, claimant: ChainId) -> Result<Silent, Failure> {
    if args.journal.is_some() {
        let what = format!(
            "the journal of `{}` is kept in the database, not in a folder: leave `--journal` out",
            args.claimant
        );
        return Err(Failure::new(Exit::Invalid, what));
    }
    let faulty = store.faulty_journals().await?.into_iter().find(|found| found.chain == claimant);
    match (&faulty, args.journal_lost) {
        (Some(_), true) => return Ok(Silent::Lost),
        (None, true) => {
            let what = format!("the journal of `{}` is in the database: leave `--journal-lost` out", args.claimant);
            return Err(Failure::new(Exit::Invalid, what));
        }
        (Some(found), false) => return Err(incomplete(&found.why)),
        (None, false) => {}
    }
    let unread = |error: DepotError| Failure::new(Exit::Database, chain(&error));
    // A server that only believes that it still has the chain adds nothing to it from now on.
    let Some(depot) = PostgresDepot::adopt(store.database(), claimant, HEARD).await.map_err(unread)? else {
        let what = format!(
            "a server has the chain `{}`, or had it {} s ago: it will chain what it claimed itself",
            args.claimant,
            HEARD.as_secs()
        );
        return Err(Failure::new(Exit::Conflict, what));
    };
    let folder = Folder::make().map_err(|error| Failure::failed(format_args!("no temporary folder: {error}")))?;
    if let Some(what) = store.rebuild(claimant, folder.path(), Extent::ToGoOn).await.map_err(unread)? {
        return Err(incomplete(&what));
    }
    // A server keeps the first line before it claims anything.
    if segments(folder.path())?.is_empty() {
        return Err(incomplete("nothing of it is there"));
    }
    let outlived = Outlived::open_kept(folder.path()).map_err(|error| unusable(&error))?;
    Ok(Silent::Kept { outlived, _folder: folder, _depot: Box::new(depot) })
}

fn incomplete(why: &str) -> Failure {
    let what = format!(
        "its journal cannot be put together, so nobody knows what it had chained: {why}; look into it with `linkgate audit \
         verify`, and bring it back from a backup of the database"
    );
    Failure::new(Exit::Verification, what)
}

async fn release(args: ReleaseArgs, config: &Config, db: &Database, console: &Console) -> Result<(), Failure> {
    let claimant = ChainId(args.claimant);
    let admin = admin(db);
    // Held until the rows are freed: no server can begin to write there meanwhile.
    let mut silent = silent(&args, config, db).await?;
    let mut outlived = silent.outlived();
    if let Some(found) = outlived.as_ref().filter(|found| found.chain_id != claimant) {
        let text = format!("that folder holds the chain `{}`, not `{}`", found.chain_id, args.claimant);
        return Err(Failure::new(Exit::Invalid, text));
    }
    let mut rows = admin.outbox_claimed(claimant).await?;
    if rows.is_empty() {
        let text = format!("no change that waits is claimed by `{}`: see `linkgate audit outbox`", args.claimant);
        return Err(Failure::new(Exit::NotFound, text));
    }
    match &mut outlived {
        Some(outlived) => {
            for row in &mut rows {
                row.chained = outlived.holds(row.seq, row.id).map_err(|error| unusable(&error))?;
            }
        }
        None => mark_indexed(&mut rows, config, db).await?,
    }
    let chained = rows.iter().filter(|row| row.chained).count();
    let free = rows.len() - chained;
    let sure = match outlived {
        Some(_) => "as its journal says, which no server uses",
        None => {
            "the journal is lost: where its server still runs, or is started with that journal again, they would be chained \
             twice"
        }
    };
    console.confirm(&format!(
        "gives {free} changes to the servers that are there and marks {chained} as chained by `{}` ({sure})",
        args.claimant
    ))?;
    let Freed { released, marked } = admin.free_outbox(&args.actor.actor(), claimant, &rows).await?.value;
    let text = format!("{released} given to the servers that are there, {marked} marked as chained");
    console.show(&Freed { released, marked }, text)
}

/// What the index has seen of the lost chain is chained: on Postgres it holds the lines itself.
async fn mark_indexed(rows: &mut [ClaimedRow], config: &Config, db: &Database) -> Result<(), Failure> {
    if !db.is_postgres() {
        return Ok(());
    }
    let index = AuditStore::new(db, &config.audit.dir);
    for row in rows {
        let filter = RecordFilter { id: Some(row.id), limit: Some(1), ..RecordFilter::default() };
        let found = index.query(&filter).await.map_err(|error| Failure::new(Exit::Database, chain(&error)))?;
        row.chained = !found.is_empty();
    }
    Ok(())
}

fn unusable(error: &JournalError) -> Failure {
    match error {
        JournalError::Locked(dir) => {
            let text = format!("a server runs on `{}`: it will chain what it claimed itself", dir.display());
            Failure::new(Exit::Conflict, text)
        }
        JournalError::Broken { .. } | JournalError::Hole { .. } => Failure::new(Exit::Verification, chain(error)),
        _ => Failure::failed(chain(error)),
    }
}
