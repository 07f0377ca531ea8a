//! A journal that is kept in the database: how a start takes one and makes its working copy, and how that is kept small.
//!
//! One that cannot be put together is set aside for people to look at, and a server begins another: what was done to the
//! journal of a server that is gone must not stop those that are there.

use std::{
    error::Error,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::AppError;
use crate::{
    audit::{
        AuditSettings, ChainHeads, EvidenceStore, IndexSink, Journal, JournalError, Recovery,
        indexer::IndexProgress,
        mirror::Mirror,
        reader::{CHAIN_FILE, segment_path, segments},
        ship::ShipSettings,
    },
    config::settings::Config,
    store::{AuditStore, Database, DepotError, Extent, PostgresDepot, StoreError},
};

/// In a folder that is a working copy, and may be emptied.
const MARK: &str = "working-copy";
/// Folders in it where parts of journals are looked at for a moment: of the own one, and of those whose servers are gone.
pub(super) const PART: &str = "retention";
pub(super) const GONE: &str = "gone";
pub(super) const GONE_PART: &str = "gone-part";
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
/// Pause between two rounds of tidying.
const TIDY: Duration = Duration::from_secs(1);
/// How often it is counted which journals were set aside.
const COUNT: Duration = Duration::from_secs(60);

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AppError {
    move |source| AppError::Journal(JournalError::Io { act, path: path.to_owned(), source })
}

/// A chain that was taken.
pub struct Opened {
    pub journal: Journal,
    pub recovery: Recovery,
    pub epoch: i64,
}

/// Takes a chain, writes as much of it into the folder as is needed to go on, and opens it.
pub(super) async fn open(config: &Config, database: &Database) -> Result<Opened, AppError> {
    let settings = config.audit.clone();
    let dir = settings.dir.as_path();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
    // A pod of a stateful set comes back under its name.
    let holder = holder(fs::read_to_string(HOSTNAME));
    let store = AuditStore::new(database, dir);
    loop {
        let lock = Journal::lock(dir)?;
        empty(dir)?;
        let depot = PostgresDepot::claim(database, &holder).await.map_err(AppError::Kept)?;
        // A target that has nothing yet gets all of it.
        let shipped = store.kept_targets(depot.chain()).await?;
        let whole = config.ship.targets().iter().any(|target| !shipped.iter().any(|name| name == target.name()));
        let extent = if whole { Extent::Whole } else { Extent::ToGoOn };
        drop(lock);
        // Each that is not taken is set aside, so this ends.
        if let Some(opened) = go_on(&store, depot, settings.clone(), extent).await? {
            told(&opened.recovery, "audit journal in the database open");
            return Ok(opened);
        }
    }
}

/// Under which name a chain is held: whoever has the same takes it without waiting until its server is silent. So a host that
/// has no name gets one that nobody else has.
fn holder(hostname: io::Result<String>) -> String {
    let why = match hostname.as_deref().map(str::trim) {
        Ok("") => "it is empty".to_owned(),
        Ok(name) => return name.to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(
        file = HOSTNAME,
        why,
        "this host has no name: after a restart its audit chain is taken only when it was silent for a while"
    );
    Uuid::new_v4().to_string()
}

/// What a start found, for people.
pub(super) fn told(recovery: &Recovery, what: &str) {
    let Recovery { chain_id, fresh, cut_bytes, aborted, head } = recovery;
    tracing::info!(chain = %chain_id, fresh, last_seq = head.seq, cut_bytes, aborted = aborted.len(), "{what}");
}

/// Puts a chain that was taken together in a folder without a journal, and opens it. `None`: that cannot be done, and it was set
/// aside.
pub async fn go_on(
    store: &AuditStore,
    depot: PostgresDepot,
    settings: AuditSettings,
    extent: Extent,
) -> Result<Option<Opened>, AppError> {
    let (chain, epoch) = (depot.chain(), depot.epoch());
    let error = match put_together(store, depot, settings, extent).await {
        Ok((journal, recovery)) => return Ok(Some(Opened { journal, recovery, epoch })),
        Err(error) => error,
    };
    let Some(why) = damage(&error) else { return Err(error) };
    tracing::error!(%chain, %why,
        "the audit journal of a server that ended cannot be put together: it is set aside and kept as it is, and another \
         chain is used; look into it with `linkgate audit verify`");
    store.set_journal_aside(chain, epoch, &why).await?;
    Ok(None)
}

async fn put_together(
    store: &AuditStore,
    depot: PostgresDepot,
    settings: AuditSettings,
    extent: Extent,
) -> Result<(Journal, Recovery), AppError> {
    let chain = depot.chain();
    let head = store.head(chain).await.map_err(AppError::Head)?;
    let signed = store.last(chain).await.map_err(AppError::Head)?;
    let hole = store.rebuild(chain, &settings.dir, extent).await.map_err(AppError::Kept)?;
    if let Some(what) = hole {
        let damaged = StoreError::Damaged { table: "audit_chunks", what };
        return Err(AppError::Kept(DepotError::Store(damaged)));
    }
    let medium = Arc::new(Mirror::new(Arc::new(depot)));
    // Its first lines are kept before it is open: that waits for the database on a thread that may.
    let open = move || {
        let (journal, recovery) = Journal::open_kept(settings, head, medium)?;
        let signed = signed.and_then(|(kept, _)| kept.checkpoint().ok()).map(|said| said.head);
        signed.map_or(Ok(()), |head| journal.check_head(head))?;
        Ok::<_, JournalError>((journal, recovery))
    };
    Ok(tokio::task::spawn_blocking(open).await.map_err(|_| AppError::Cancelled)??)
}

/// What is wrong with a journal, where that is why it cannot be gone on with; a database that is away is no such thing.
fn damage(error: &AppError) -> Option<String> {
    let row = |error: &StoreError| matches!(error, StoreError::Damaged { .. }).then(|| error.to_string());
    match error {
        AppError::Journal(
            error @ (JournalError::Broken { .. }
            | JournalError::Hole { .. }
            | JournalError::CutOff { .. }
            | JournalError::Diverged(_)
            | JournalError::BelowCheckpoint { .. }
            | JournalError::NotAsSigned(_)),
        ) => Some(error.to_string()),
        AppError::Kept(DepotError::Store(error)) => row(error),
        // Of whatever the index said.
        AppError::Head(error) => error.source().and_then(|inner| inner.downcast_ref()).and_then(row),
        _ => None,
    }
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
        // `ship-stdout.writing` stays: it is about standard output, where the last process may have left half a line,
        // whatever becomes of the journal.
        let position = name.starts_with("ship-") && !name.ends_with(".writing");
        let copied = ["segment-", "cut-", "chain.json", "checkpoints.log"];
        if [PART, GONE, GONE_PART].contains(&name) {
            // A process that was killed had no time for it.
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        } else if position || copied.iter().any(|begin| name.starts_with(begin)) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// For metrics.
#[derive(Debug, Default)]
pub(super) struct KeptProgress {
    set_aside: AtomicU64,
}

impl KeptProgress {
    /// Journals that were set aside, of all servers.
    pub(super) fn set_aside(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }
}

/// Notes in the database how far targets are, and drops there and in the folder what nobody needs any more.
#[derive(Clone)]
pub(super) struct Tidying {
    pub(super) journal: Journal,
    pub(super) epoch: i64,
    pub(super) store: Arc<AuditStore>,
    pub(super) ship: ShipSettings,
    pub(super) indexed: Arc<IndexProgress>,
    pub(super) progress: Arc<KeptProgress>,
}

/// What a round depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    last_seq: u64,
    indexed: u64,
    targets: Vec<(String, Option<String>)>,
}

impl Tidying {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let (mut before, mut counted) = (None, None::<Instant>);
        loop {
            if counted.is_none_or(|at| at.elapsed() >= COUNT) {
                counted = Some(Instant::now());
                match self.store.faulty_journals().await {
                    Ok(found) => {
                        let count = u64::try_from(found.len()).unwrap_or(u64::MAX);
                        self.progress.set_aside.store(count, Ordering::Relaxed);
                    }
                    Err(error) => tracing::warn!(%error, "it is not known which audit journals were set aside"),
                }
            }
            tokio::time::sleep(TIDY).await;
            match self.round(before.as_ref()).await {
                Ok(seen) => before = Some(seen),
                Err(error) => tracing::warn!(%error, "the working copy of the audit journal is not tidied"),
            }
        }
    }

    /// Nothing is done where nothing moved since `before`.
    async fn round(&self, before: Option<&Seen>) -> Result<Seen, TidyError> {
        let seen = self.look()?;
        if before != Some(&seen) {
            self.tidy(&seen).await?;
        }
        Ok(seen)
    }

    /// At a stop, when targets, index and checkpoints are as far as they get: the next server begins there.
    pub(super) async fn last(&self) -> Result<(), TidyError> {
        self.round(None).await.map(drop)
    }

    fn look(&self) -> Result<Seen, TidyError> {
        let mut targets = Vec::new();
        for target in self.ship.targets() {
            let name = target.name();
            let position = match fs::read_to_string(self.journal.dir().join(format!("ship-{name}.json"))) {
                Ok(position) => Some(position),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            };
            targets.push((name.to_owned(), position));
        }
        Ok(Seen { last_seq: self.journal.status().last_seq, indexed: self.indexed.indexed_seq(), targets })
    }

    async fn tidy(&self, seen: &Seen) -> Result<(), TidyError> {
        let (dir, chain) = (self.journal.dir(), self.journal.chain_id());
        let Some(indexed) = self.store.position(chain).await? else { return Ok(()) };
        // The last two are what the next start checks.
        let mut needed = indexed.segment.min(self.journal.status().written.segment.saturating_sub(1));
        if seen.targets.iter().any(|(_, position)| position.is_none()) {
            needed = 0;
        }
        for behind in crate::audit::ship::needed(dir, chain, &self.ship)? {
            needed = needed.min(behind);
        }
        if let Some(signed) = crate::audit::evidence::shelf::last(dir)? {
            needed = needed.min(signed.segment);
        }
        let noted = seen.targets.iter().filter_map(|(name, position)| Some((name.clone(), position.clone()?)));
        self.store.tidy_journal(chain, self.epoch, &noted.collect::<Vec<_>>()).await?;
        for number in segments(dir)?.into_iter().filter(|number| *number < needed) {
            fs::remove_file(segment_path(dir, number))?;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TidyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Index(#[from] crate::audit::IndexUnavailable),
    #[error("`audit.dir`: {0}")]
    Folder(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two replicas that cannot read their names would otherwise take each other's chains at once.
    #[test]
    fn hosts_without_a_name_are_not_the_same_host() {
        assert_eq!(holder(Ok("gateway-0\n".to_owned())), "gateway-0");
        let nameless = [Ok(String::new()), Ok("\n".to_owned()), Err(io::ErrorKind::PermissionDenied.into())];
        let names: std::collections::BTreeSet<_> = nameless.into_iter().map(holder).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(!names.contains(""));
    }
}
