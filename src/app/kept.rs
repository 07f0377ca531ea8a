//! A journal that is kept in the database: how a start takes one and makes its working copy, and how that is kept small.

use std::{fs, io, os::unix::fs::DirBuilderExt, path::Path, sync::Arc, time::Duration};

use super::AppError;
use crate::{
    audit::{
        ChainHeads, IndexSink, Journal, JournalError, Recovery,
        mirror::Mirror,
        reader::{CHAIN_FILE, segment_path, segments},
        ship::ShipSettings,
    },
    config::settings::Config,
    store::{AuditStore, Database, PostgresDepot},
};

/// In a folder that is a working copy, and may be emptied.
const MARK: &str = "working-copy";
/// Pause between two rounds of tidying.
const TIDY: Duration = Duration::from_secs(1);

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AppError {
    move |source| AppError::Journal(JournalError::Io { act, path: path.to_owned(), source })
}

/// Takes a chain, writes as much of it into the folder as is needed to go on, and opens it.
pub(super) async fn open(config: &Config, database: &Database) -> Result<(Journal, Recovery), AppError> {
    let settings = config.audit.clone();
    let dir = settings.dir.as_path();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
    let lock = Journal::lock(dir)?;
    empty(dir)?;
    // A pod of a stateful set comes back under its name.
    let holder = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let depot = PostgresDepot::claim(database, &holder).await.map_err(AppError::Kept)?;
    let (chain, store) = (depot.chain(), AuditStore::new(database, dir));
    let head = store.head(chain).await.map_err(AppError::Head)?;
    // A target that has nothing yet gets all of it.
    let shipped = store.kept_targets(chain).await?;
    let whole = config.ship.targets().iter().any(|target| !shipped.iter().any(|name| name == target.name()));
    store.rebuild(chain, dir, whole).await.map_err(AppError::Kept)?;
    drop(lock);
    let medium = Arc::new(Mirror::new(Arc::new(depot)));
    // Its first lines are kept before it is open: that waits for the database on a thread that may.
    let opened = tokio::task::spawn_blocking(move || Journal::open_kept(settings, head, medium));
    let opened = opened.await.map_err(|_| AppError::Cancelled)??;
    tracing::info!(recovery = ?opened.1, holder, "audit journal in the database open");
    Ok(opened)
}

/// Makes room for the working copy. A folder that was never one is left as it is.
fn empty(dir: &Path) -> Result<(), AppError> {
    let mark = dir.join(MARK);
    if !mark.try_exists().map_err(failed("look at", &mark))? {
        let own = dir.join(CHAIN_FILE).exists() || !segments(dir).map_err(failed("list", dir))?.is_empty();
        if own {
            return Err(AppError::OwnJournal(dir.to_owned()));
        }
        fs::write(&mark, "").map_err(failed("write", &mark))?;
    }
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let path = entry.map_err(failed("list", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let copied = ["segment-", "cut-", "ship-", "chain.json", "checkpoints.log"];
        if copied.iter().any(|begin| name.starts_with(begin)) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Runs until it is dropped: notes in the database how far targets are, and drops there and in the folder what nobody needs
/// any more.
pub(super) async fn tidy(journal: Journal, store: Arc<AuditStore>, ship: ShipSettings) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(TIDY).await;
        let last = journal.status().last_seq;
        if last == seen {
            continue;
        }
        match round(&journal, &store, &ship).await {
            Ok(()) => seen = last,
            Err(error) => tracing::warn!(%error, "the working copy of the audit journal is not tidied"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum TidyError {
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Index(#[from] crate::audit::IndexUnavailable),
    #[error("`audit.dir`: {0}")]
    Folder(#[from] io::Error),
}

async fn round(journal: &Journal, store: &AuditStore, ship: &ShipSettings) -> Result<(), TidyError> {
    let (dir, chain) = (journal.dir(), journal.chain_id());
    let Some(indexed) = store.position(chain).await? else { return Ok(()) };
    // The last two are what the next start checks.
    let mut needed = indexed.segment.min(journal.status().written.segment.saturating_sub(1));
    let mut targets = Vec::new();
    for target in ship.targets() {
        let name = target.name();
        match fs::read_to_string(dir.join(format!("ship-{name}.json"))) {
            Ok(position) => targets.push((name.to_owned(), position)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => needed = 0,
            Err(error) => return Err(error.into()),
        }
    }
    for behind in crate::audit::ship::needed(dir, chain, ship)? {
        needed = needed.min(behind);
    }
    if let Some(signed) = crate::audit::evidence::shelf::last(dir)? {
        needed = needed.min(signed.segment);
    }
    store.tidy_journal(chain, &targets).await?;
    for number in segments(dir)?.into_iter().filter(|number| *number < needed) {
        fs::remove_file(segment_path(dir, number))?;
    }
    Ok(())
}
