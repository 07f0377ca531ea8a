//! `linkgate audit prune`: old segments go by hand, by the rules of `audit::evidence::prune`.
//!
//! The chain tells of it before anything goes: its server does, through the outbox, or, where none runs, this command
//! itself. Journals that are kept in the database are each written into a folder, where the same rules look at them.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::{evidence::invalid, folder::Folder};
use crate::{
    app::kept,
    audit::{
        AuditSettings, ChainHeads, ChainId, ChangeRecord, Journal, JournalError, RetainedIndex,
        evidence::{
            Cause, Kept, Keys,
            prune::{self as pruning, PruneError},
            shelf,
        },
        reader::chain_file,
    },
    cli::{
        context::chain,
        outcome::{Console, Exit, Failure, tell},
        store_context::ActorArgs,
    },
    config::Config,
    domain::Millis,
    store::{AuditStore, Extent, HEARD, PostgresDepot},
};

/// How long a pruning waits until a running server has it in its chain.
const CHAINED_WITHIN: Duration = Duration::from_secs(30);

/// Remove old segments.
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Segments that were closed before this time: RFC 3339, or a date.
    #[arg(long, value_name = "TIME", value_parser = Millis::parse)]
    before: Millis,
    /// Say what would go, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Remove them even if a target of [audit.ship] does not have them yet: it never gets them then.
    #[arg(long)]
    unshipped: bool,
    #[command(flatten)]
    actor: ActorArgs,
}

/// What a pruning did.
#[derive(Debug, Serialize)]
struct Pruned {
    #[serde(flatten)]
    plan: pruning::Plan,
    removed: bool,
}

/// `linkgate audit prune`
pub(super) async fn prune(
    args: &PruneArgs,
    config: &Config,
    index: Option<&AuditStore>,
    console: &Console,
) -> Result<(), Failure> {
    let dir = &config.audit.dir;
    let index = index.ok_or_else(|| Failure::new(Exit::Database, "pruning needs the database of the server"))?;
    let keys = config.checkpoints.keys().map_err(invalid)?;
    if config.kept_in_database {
        return prune_kept(args, config, index, &keys, console).await;
    }
    let found =
        chain_file(dir).map_err(|error| Failure::failed(format_args!("cannot read `{}`: {error}", dir.display())))?;
    let chain_id = found
        .ok_or_else(|| Failure::new(Exit::NotFound, format_args!("there is no audit journal in `{}`", dir.display())))?
        .chain_id;
    let indexed = index.indexed_segment(chain_id).await.map_err(|error| Failure::new(Exit::Database, chain(&error)))?;
    let plan = pruning::plan(dir, chain_id, args.before, indexed, &keys)
        .and_then(|plan| plan.held_for(dir, &config.ship, args.unshipped));
    let plan = plan.map_err(|error| refused(&error))?;
    let what = told(&plan, &format!(" in `{}`", dir.display()));
    if args.dry_run {
        return console.show(&Pruned { plan, removed: false }, format!("{what} (nothing was changed)"));
    }
    console.confirm(&what)?;
    // The chain tells of it before anything goes.
    chained(&record_of(args, &plan), &plan, config, index).await?;
    index.forget(chain_id, plan.segments.1, plan.records.1).await.map_err(|error| {
        Failure::new(Exit::Database, format_args!("nothing was removed: {}; prune again", chain(&error)))
    })?;
    plan.remove(dir).map_err(|error| Failure::failed(format_args!("{}; prune again", chain(&error))))?;
    let text = format!(
        "{} segments are gone; the rest is verified from record {} on",
        plan.segments.1 + 1 - plan.segments.0,
        plan.records.1 + 1
    );
    console.show(&Pruned { plan, removed: true }, text)
}

fn refused(error: &PruneError) -> Failure {
    let exit = match error {
        PruneError::Unsound(_) => Exit::Verification,
        PruneError::Nothing(_) => Exit::NotFound,
        PruneError::Journal(_) => Exit::Failed,
        PruneError::Index(_) => Exit::Database,
        _ => Exit::Conflict,
    };
    Failure::new(exit, chain(error))
}

/// What would go; `place` says from where.
fn told(plan: &pruning::Plan, place: &str) -> String {
    let pruning::Plan { records, segments, bytes, closed, .. } = plan;
    let mut what = format!(
        "records {} to {} go for good: segments {} to {}{place}, {bytes} bytes, closed until {closed}",
        records.0, records.1, segments.0, segments.1
    );
    for behind in &plan.unshipped {
        what.push_str(&format!("; the target `{}` has them up to {} only", behind.target, behind.taken));
    }
    what
}

fn record_of(args: &PruneArgs, plan: &pruning::Plan) -> ChangeRecord {
    let actor = args.actor.actor();
    ChangeRecord { user_id: Some(actor.name), username: actor.username, ..plan.record() }
}

/// The same of every journal in the database. One that is held up does not hold up the others, and is told at the end.
async fn prune_kept(
    args: &PruneArgs,
    config: &Config,
    index: &AuditStore,
    keys: &Keys,
    console: &Console,
) -> Result<(), Failure> {
    let (mut plans, mut held, mut nothing) = (Vec::new(), None, None);
    for kept in index.kept_chains().await? {
        match plan_kept(args, config, index, keys, kept).await {
            Ok(plan) => plans.push(plan),
            Err(failure) if failure.exit == Exit::NotFound => nothing = Some(failure),
            Err(failure) => {
                tell(format_args!("chain {kept} stays as it is: {}", failure.message));
                held = held.or(Some(failure));
            }
        }
    }
    if plans.is_empty() {
        let none = || Failure::new(Exit::NotFound, "no audit journal is kept in the database yet");
        return Err(held.or(nothing).unwrap_or_else(none));
    }
    let what: Vec<String> = plans.iter().map(|plan| told(plan, &format!(" of chain {}", plan.chain_id))).collect();
    let shown = |removed| plans.iter().cloned().map(|plan| Pruned { plan, removed }).collect::<Vec<_>>();
    if args.dry_run {
        console.show(&shown(false), format!("{} (nothing was changed)", what.join("\n")))?;
        return held.map_or(Ok(()), Err);
    }
    console.confirm(&what.join("; "))?;
    let mut lines = Vec::new();
    for plan in &plans {
        chained_in_database(&record_of(args, plan), plan.chain_id, config, index).await?;
        let (segment, record) = (plan.segments.1, plan.records.1);
        index.give_up_kept(plan.chain_id, None, segment, record).await.map_err(|error| {
            Failure::new(Exit::Database, format_args!("nothing more was removed: {}; prune again", chain(&error)))
        })?;
        lines.push(format!(
            "chain {}: {} segments are gone; the rest is verified from record {} on",
            plan.chain_id,
            segment + 1 - plan.segments.0,
            record + 1
        ));
    }
    console.show(&shown(true), lines.join("\n"))?;
    held.map_or(Ok(()), Err)
}

async fn plan_kept(
    args: &PruneArgs,
    config: &Config,
    index: &AuditStore,
    keys: &Keys,
    kept: ChainId,
) -> Result<pruning::Plan, Failure> {
    let database = |error: &dyn std::error::Error| Failure::new(Exit::Database, chain(error));
    if let Some(found) = index.faulty_journals().await?.into_iter().find(|found| found.chain == kept) {
        return Err(refused(&PruneError::Unsound(found.why)));
    }
    let folder = Folder::make().map_err(|error| Failure::failed(format_args!("no temporary folder: {error}")))?;
    let indexed = index.indexed_segment(kept).await.map_err(|error| database(&error))?;
    index.rebuild(kept, folder.path(), Extent::Whole).await.map_err(|error| database(&error))?;
    pruning::plan(folder.path(), kept, args.before, indexed, keys)
        .and_then(|plan| plan.held_for(folder.path(), &config.ship, args.unshipped))
        .map_err(|error| refused(&error))
}

/// Brings the record into a chain that is kept in the database: directly where its server is gone, else through its outbox.
async fn chained_in_database(
    record: &ChangeRecord,
    kept: ChainId,
    config: &Config,
    index: &AuditStore,
) -> Result<(), Failure> {
    let undone = |error: &dyn std::error::Error| Failure::failed(format_args!("nothing was removed: {}", chain(error)));
    let taken = PostgresDepot::adopt(index.database(), kept, HEARD).await.map_err(|error| undone(&error))?;
    let Some(depot) = taken else { return chained_by_server(record, kept, index).await };
    let folder = Folder::make().map_err(|error| undone(&error))?;
    let settings = AuditSettings { dir: folder.path().to_owned(), ..config.audit.clone() };
    let opened = kept::go_on(index, depot, settings, Extent::ToGoOn).await.map_err(|error| undone(&error))?;
    let Some(opened) = opened else {
        let what = format!("nothing was removed: chain {kept} cannot be put together: `linkgate audit verify`");
        return Err(Failure::new(Exit::Verification, what));
    };
    let done = opened.journal.append_change(record).await;
    // The last lines wait for the database, which this thread has to serve.
    let closed = tokio::task::spawn_blocking(move || opened.journal.close()).await;
    closed.map_err(|error| undone(&error))?;
    done.map(drop).map_err(|error| undone(&error))
}

/// Brings the record into the chain: directly where no server runs, else through its outbox.
async fn chained(
    record: &ChangeRecord,
    plan: &pruning::Plan,
    config: &Config,
    index: &AuditStore,
) -> Result<(), Failure> {
    let chain_id = plan.chain_id;
    let database = |error: &dyn std::error::Error| Failure::new(Exit::Database, chain(error));
    let stored = index.head(chain_id).await.map_err(|error| database(&error))?;
    match Journal::open_behind(config.audit.clone(), stored) {
        Ok((journal, _)) => {
            let done = journal.append_change(record).await;
            // While no server can append to it.
            let behind = |kept: &Kept| kept.checkpoint().is_ok_and(|said| said.head.seq > plan.records.1);
            shelf::retain(&config.audit.dir, |kept| kept.cause == Cause::Segment || behind(kept))?;
            journal.close();
            return done
                .map(drop)
                .map_err(|error| Failure::failed(format_args!("nothing was removed: {}", chain(&error))));
        }
        Err(JournalError::Locked(_)) => {}
        Err(error) => return Err(Failure::failed(format_args!("nothing was removed: {}", chain(&error)))),
    }
    chained_by_server(record, chain_id, index).await
}

/// Waits until its server has the record in the chain.
async fn chained_by_server(record: &ChangeRecord, chain_id: ChainId, index: &AuditStore) -> Result<(), Failure> {
    let database = |error: &dyn std::error::Error| Failure::new(Exit::Database, chain(error));
    let seq = index.enqueue_for(chain_id, record).await.map_err(|error| database(&error))?;
    let since = Instant::now();
    while !index.is_chained(seq).await.map_err(|error| database(&error))? {
        if since.elapsed() > CHAINED_WITHIN && index.withdraw(seq).await.map_err(|error| database(&error))? {
            let what = "nothing was removed: the server did not chain the record of the pruning; look at its log";
            return Err(Failure::failed(what));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
