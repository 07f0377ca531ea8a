//! `linkgate audit checkpoint | prove-check`, and what `audit verify` needs to know of checkpoints.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    audit::{
        AuditSettings, ChainId, EvidenceStore,
        evidence::{
            Checkpoint, Kept, Keys, shelf,
            verdict::{self, Verdict},
            witness::Witness,
        },
        reader::chain_file,
    },
    cli::{
        context::chain,
        outcome::{Console, Exit, Failure, count, tell},
    },
    config::Config,
    ops::{journal::ShownCheckpoint, plain},
    store::AuditStore,
};

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
        let journal = chain_file(&config.audit.dir).ok().flatten();
        let stored = match (index, journal) {
            (Some(index), Some(found)) => match index.last(found.chain_id).await {
                Ok(last) => last.map(|(kept, _)| kept),
                Err(error) => {
                    tell(format_args!("warning: {}; its checkpoints are not compared", chain(&error)));
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
            let note = read(file)?;
            // Not the journal's fault, unlike a note that nobody signed.
            Checkpoint::unverified(&note).map_err(|error| {
                Failure::new(Exit::Invalid, format!("`{}` is no checkpoint: {error}", file.display()))
            })?;
            witness.present(&note, &keys, &format!("`{}`", file.display()));
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

pub(super) fn invalid(error: impl std::error::Error) -> Failure {
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
    if !audit.dir.is_dir() {
        let what = format_args!("there is no folder `{}` (`audit.dir`)", audit.dir.display());
        return Err(Failure::new(Exit::NotFound, what));
    }
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
    let tenant = verdict.tenant.as_deref().map(|tenant| format!(" about `{}`", plain(tenant))).unwrap_or_default();
    let are = if verdict.proven == 1 { "is" } else { "are" };
    let mut lines = vec![format!("{}{tenant} {are} proven", count(verdict.proven, "record"))];
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
