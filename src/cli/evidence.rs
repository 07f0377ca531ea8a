//! `linkgate audit checkpoint | prove-check | prune`, and what `audit verify` needs to know of checkpoints.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{
    context::chain,
    outcome::{Console, Exit, Failure},
    store_context::ActorArgs,
};
use crate::{
    audit::{
        AuditSettings, ChainHeads, ChainId, ChangeRecord, EvidenceStore, Journal, JournalError, RetainedIndex,
        evidence::{
            Cause, Checkpoint, Kept, Keys, prune as pruning, shelf,
            verdict::{self, Verdict},
            witness::Witness,
        },
        reader::chain_file,
    },
    config::Config,
    domain::Millis,
    ops::journal::ShownCheckpoint,
    store::AuditStore,
};

/// How long a pruning waits until a running server has it in its chain.
const CHAINED_WITHIN: Duration = Duration::from_secs(30);

/// Print signed checkpoints of the chain.
#[derive(Clone, Debug, Args)]
pub struct CheckpointArgs {
    /// The newest one (the default).
    #[arg(long, conflicts_with_all = ["at", "list"])]
    latest: bool,
    /// The first one that covers this record.
    #[arg(long, value_name = "SEQ", conflicts_with = "list")]
    at: Option<u64>,
    /// All of them, one a line.
    #[arg(long)]
    list: bool,
}

/// Check a saved access log.
#[derive(Debug, Args)]
pub struct ProveCheckArgs {
    /// The answer of `/access-log?proof=true`, as it was saved; `-` reads standard input.
    file: PathBuf,
    /// The published keys (`/.well-known/linkgate/audit-keys.json`), or a public key in PEM. May be repeated.
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// The tenant that all records must be about [default: any, but the same for all]
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Records that have no proof yet are no failure.
    #[arg(long)]
    allow_pending: bool,
}

/// Remove old segments.
#[derive(Debug, Args)]
pub struct PruneArgs {
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

/// What is known of checkpoints before a journal is verified.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Those of the configuration.
    pub keys: Keys,
    /// The last checkpoint in the database.
    pub stored: Option<Kept>,
}

impl Known {
    pub(super) async fn of(config: &Config, index: Option<&AuditStore>) -> Result<Self, Failure> {
        let keys = config.checkpoints.keys().map_err(invalid)?;
        let chain = chain_file(&config.audit.dir).ok().flatten();
        let stored = match (index, chain) {
            (Some(index), Some(found)) => match index.last(found.chain_id).await {
                Ok(last) => last.map(|(kept, _)| kept),
                Err(error) => {
                    eprintln!("warning: {}; its checkpoints are not compared", super::context::chain(&error));
                    None
                }
            },
            _ => None,
        };
        Ok(Self { keys, stored })
    }

    /// Checkpoints from outside, from beside the journal and, if asked for, from the database.
    pub(super) fn witness(
        &self,
        chain_id: ChainId,
        audit: &AuditSettings,
        files: &[PathBuf],
        key_files: &[PathBuf],
        database: bool,
    ) -> Result<Witness, Failure> {
        let keys = if key_files.is_empty() { self.keys.clone() } else { keys(key_files)? };
        if !files.is_empty() && keys.is_empty() {
            let what = "a checkpoint can be checked with the keys that signed it only: name them with `--key`";
            return Err(Failure::new(Exit::Invalid, what));
        }
        let mut witness = Witness::new(chain_id);
        for file in files {
            witness.present(&read(file)?, &keys, &format!("`{}`", file.display()));
        }
        witness.recall_shelf(&audit.dir, &keys).map_err(|error| {
            Failure::failed(format_args!("cannot read `{}`: {error}", shelf::path(&audit.dir).display()))
        })?;
        if let Some(kept) = self.stored.as_ref().filter(|_| database) {
            witness.recall(kept, &keys, "the database");
        }
        Ok(witness)
    }
}

fn invalid(error: impl std::error::Error) -> Failure {
    Failure::new(Exit::Invalid, chain(&error))
}

fn keys(files: &[PathBuf]) -> Result<Keys, Failure> {
    let mut all = Keys::default();
    for file in files {
        all.extend(Keys::load(file).map_err(invalid)?.iter().cloned());
    }
    Ok(all)
}

fn read(file: &Path) -> Result<String, Failure> {
    let unread = |error| Failure::new(Exit::Invalid, format_args!("cannot read `{}`: {error}", file.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map_err(unread)?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(unread)
}

/// `linkgate audit checkpoint`
pub(super) fn checkpoint(args: &CheckpointArgs, audit: &AuditSettings, console: &Console) -> Result<(), Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::failed(format_args!("cannot read `{}`: {error}", shelf::path(&audit.dir).display()))
    };
    let mut found: Vec<ShownCheckpoint> = Vec::new();
    shelf::each::<std::io::Error>(&audit.dir, |kept| {
        let shown = ShownCheckpoint::of(kept)?;
        if args.at.is_some_and(|seq| shown.said.head.seq < seq || !found.is_empty()) {
            return Ok(());
        }
        if !args.list && args.at.is_none() {
            found.clear();
        }
        found.push(shown);
        Ok(())
    })
    .map_err(|error| broken(&error))?;
    if args.list {
        return console.list(&found, &["records", "time", "cause", "head", "key"], |shown| {
            let Checkpoint { first, head, time, kid, .. } = &shown.said;
            let head_hash = head.hash.to_string().chars().take(16).collect();
            vec![format!("{first}-{}", head.seq), time.to_string(), shown.cause.to_string(), head_hash, kid.clone()]
        });
    }
    let Some(shown) = found.first() else {
        let what = match args.at {
            Some(seq) => format!("no checkpoint covers record {seq} yet"),
            None => {
                "no checkpoint was signed yet: is `audit.checkpoint_key_file` set, and does the server run?".to_owned()
            }
        };
        return Err(Failure::new(Exit::NotFound, what));
    };
    // The note ends with a newline of its own.
    console.show(shown, shown.note.trim_end())
}

/// `linkgate audit prove-check`
pub(super) fn prove_check(args: &ProveCheckArgs, console: &Console) -> Result<(), Failure> {
    let keys = keys(&args.key)?;
    let saved = read(&args.file)?;
    let verdict = verdict::check(saved.as_bytes(), &keys, args.tenant.as_deref()).map_err(|error| match error {
        verdict::NotALog::Checkpoint { .. } => Failure::new(Exit::Verification, error),
        _ => Failure::new(Exit::Invalid, error),
    })?;
    console.show(&verdict, told(&verdict))?;
    let unproven = if args.allow_pending { 0 } else { verdict.pending.len() };
    match verdict.wrong.len() + unproven {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Verification, "1 record is not proven")),
        many => Err(Failure::new(Exit::Verification, format_args!("{many} records are not proven"))),
    }
}

fn told(verdict: &Verdict) -> String {
    let plain = super::audit::plain;
    let tenant = verdict.tenant.as_deref().map(|tenant| format!(" about `{}`", plain(tenant))).unwrap_or_default();
    let mut lines = vec![format!("{} records{tenant} are proven", verdict.proven)];
    for said in &verdict.checkpoints {
        lines.push(format!(
            "chain {}: records {}-{}, signed {} by key {}",
            said.chain_id, said.first, said.head.seq, said.time, said.kid
        ));
    }
    for (what, list) in [("not proven yet", &verdict.pending), ("WRONG", &verdict.wrong)] {
        for one in list {
            let id = one.id.as_deref().unwrap_or("without an id");
            lines.push(format!("record {} ({}): {what}: {}", one.item, plain(id), plain(&one.why)));
        }
    }
    lines.join("\n")
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
    if config.kept_in_database {
        return Err(Failure::new(Exit::Conflict, "journals that are kept in the database are not pruned"));
    }
    let dir = &config.audit.dir;
    let index = index.ok_or_else(|| Failure::new(Exit::Database, "pruning needs the database of the server"))?;
    let keys = config.checkpoints.keys().map_err(invalid)?;
    let found =
        chain_file(dir).map_err(|error| Failure::failed(format_args!("cannot read `{}`: {error}", dir.display())))?;
    let chain_id = found
        .ok_or_else(|| Failure::new(Exit::NotFound, format_args!("there is no audit journal in `{}`", dir.display())))?
        .chain_id;
    let indexed = index.indexed_segment(chain_id).await.map_err(|error| Failure::new(Exit::Database, chain(&error)))?;
    let plan = pruning::plan(dir, chain_id, args.before, indexed, &keys)
        .and_then(|plan| plan.held_for(dir, &config.ship, args.unshipped));
    let plan = plan.map_err(|error| {
        let exit = match &error {
            pruning::PruneError::Unsound(_) => Exit::Verification,
            pruning::PruneError::Nothing(_) => Exit::NotFound,
            pruning::PruneError::Journal(_) => Exit::Failed,
            _ => Exit::Conflict,
        };
        Failure::new(exit, chain(&error))
    })?;
    let mut what = format!(
        "records {} to {} go for good: segments {} to {} in `{}`, {} bytes, closed until {}",
        plan.records.0,
        plan.records.1,
        plan.segments.0,
        plan.segments.1,
        dir.display(),
        plan.bytes,
        plan.closed
    );
    for behind in &plan.unshipped {
        what.push_str(&format!("; the target `{}` has them up to {} only", behind.target, behind.taken));
    }
    if args.dry_run {
        return console.show(&Pruned { plan, removed: false }, format!("{what} (nothing was changed)"));
    }
    console.confirm(&what)?;
    let actor = args.actor.actor();
    let record = ChangeRecord { user_id: Some(actor.name), username: actor.username, ..plan.record() };
    // The chain tells of it before anything goes.
    chained(&record, &plan, config, index).await?;
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
