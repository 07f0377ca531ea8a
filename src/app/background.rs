//! Background work of a running server: key refresh, the audit index, the outbox of changes, ends of links, alerts,
//! webhooks, exports, and forgetting what is old.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{
    AppError,
    compose::Lasting,
    expiry,
    gauges::Progress,
    gone::Orphans,
    housekeeping,
    kept::{self, KeptProgress, Tidying},
};
use crate::{
    audit::{
        ChainHeads, Journal, JournalError,
        evidence::{Checkpointer, KeyError, Signer},
        indexer::Indexer,
        medium::Medium,
        outbox::OutboxRelay,
        reader::chain_file,
        retention::{Retention, RetentionSettings},
        ship::Shipper,
    },
    config::settings::Config,
    portal::{Counting, Watcher, exports::Shift, webhooks::Deliverer},
    proxy::worker::{Gateway, Live},
    store::{AuditStore, Database, IdempotencyKeys, KeptJournal},
    upstream::Upkeep,
};

/// How often the journal is looked at for records to index, and the outbox for changes to chain.
const INDEX_INTERVAL: Duration = Duration::from_millis(200);
const OUTBOX_INTERVAL: Duration = Duration::from_millis(500);

/// How long a stop waits for the index to see the last records; the next start goes on where it ended.
const LAST_INDEXING: Duration = Duration::from_secs(3);

/// How long a stop waits for targets to take the last lines; the next start ships the rest.
const LAST_SHIPPING: Duration = Duration::from_secs(3);

/// How long a stop waits for exports under way to be given back.
const LAST_EXPORTS: Duration = Duration::from_secs(2);

/// How long a stop waits for the database to take the last outcomes of writes.
const LAST_OUTCOMES: Duration = Duration::from_secs(2);

/// How long the start waits for the database to say which head it has seen.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Running tasks; all end when stopped.
pub struct Background {
    tasks: JoinSet<()>,
    /// How far those are that read the journal.
    pub(super) progress: Progress,
    journal: Journal,
    store: Arc<AuditStore>,
    portal: Option<PortalWork>,
    keys: IdempotencyKeys,
    /// Look-ups and checks of the upstreams in force.
    upstreams: Upkeep,
    /// Workers of configurations of before, with their last exports.
    leaving: Vec<(watch::Sender<Shift>, JoinHandle<()>)>,
    /// The key of checkpoints, and how far they are; `None`: no key is configured.
    checkpoints: Option<(Arc<Signer>, Duration)>,
    /// Shippers of the journal, and what stops them.
    shippers: Vec<JoinHandle<()>>,
    stop_shipping: watch::Sender<bool>,
    /// `None`: the journal is not kept in the database.
    tidying: Option<Tidying>,
}

/// What the consolidated API does unasked, under one configuration.
struct PortalWork {
    alerts: Option<JoinHandle<()>>,
    exports: (watch::Sender<Shift>, JoinHandle<()>),
}

impl PortalWork {
    fn start(gateway: &Gateway) -> Option<Self> {
        let portal = gateway.portal.as_ref()?;
        let alerts = portal.settings.alerts.background;
        let (shift, told) = watch::channel(Shift::Working);
        Some(Self {
            alerts: alerts.then(|| tokio::spawn(Watcher::new(portal, &gateway.directory).run())),
            exports: (shift, tokio::spawn(Arc::new(portal.export_worker()).run(told))),
        })
    }

    /// The exports that are left.
    fn end(self, shift: Shift) -> (watch::Sender<Shift>, JoinHandle<()>) {
        // What it had leased is looked at again when the lease ends.
        if let Some(alerts) = self.alerts {
            alerts.abort();
        }
        self.exports.0.send_replace(shift);
        self.exports
    }
}

/// Starts everything.
pub fn start(live: &Arc<Live>, lasting: &Lasting) -> Result<Background, KeyError> {
    let (database, epoch) = (&lasting.database, lasting.epoch);
    let gateway = live.current();
    let mut tasks = JoinSet::new();
    let journal = Journal::clone(&gateway.journal);
    let store = Arc::new(AuditStore::new(database, journal.dir()));
    let indexer = Indexer::new(journal.clone(), Arc::clone(&store), INDEX_INTERVAL);
    let (indexed, judged) = (indexer.progress(), journal.clone());
    tasks.spawn(async move {
        // Ends only where the journal was altered or cut off under our hands.
        judged.distrust(indexer.run().await);
    });
    tasks.spawn(database.clone().try_writes_while_they_fail());
    tasks.spawn(lasting.keys.clone().bring());
    tasks.spawn(expiry::watch(database.clone(), gateway.metrics.links_ending.clone()));
    let settings = &gateway.settings.checkpoints;
    let checkpoints = settings.signer()?.map(|signer| (Arc::new(signer), settings.interval));
    let signed = checkpoints.as_ref().map(|(signer, interval)| {
        let made = Checkpointer::new(journal.clone(), Arc::clone(&store), Arc::clone(signer), *interval);
        let (progress, judged) = (made.progress(), journal.clone());
        tasks.spawn(async move {
            // Ends only where the journal is not what was signed.
            judged.distrust(made.run().await);
        });
        progress
    });
    if signed.is_none() {
        tracing::info!("no key signs checkpoints of the audit chain: set `audit.checkpoint_key_file`");
    }
    let retention = settings_of_retention(&gateway)?.map(|settings| match epoch {
        Some(epoch) => {
            let RetentionSettings { age, keys, ship } = settings.clone();
            let scratch = journal.dir().join(kept::PART);
            let kept = KeptJournal::new(Arc::clone(&store), (journal.chain_id(), epoch), scratch, keys, ship);
            let made = Retention::of(journal.clone(), kept, Arc::clone(&store), age);
            let progress = made.progress();
            tasks.spawn(made.run());
            let orphans = Orphans {
                database: database.clone(),
                store: Arc::clone(&store),
                journal: journal.clone(),
                settings,
                signer: checkpoints.as_ref().map(|(signer, _)| Arc::clone(signer)),
                progress: Arc::clone(&progress),
            };
            tasks.spawn(orphans.run());
            progress
        }
        None => {
            let made = Retention::new(journal.clone(), Arc::clone(&store), settings);
            let progress = made.progress();
            tasks.spawn(made.run());
            progress
        }
    });
    let tidying = epoch.map(|epoch| Tidying {
        journal: journal.clone(),
        epoch,
        store: Arc::clone(&store),
        ship: gateway.settings.ship.clone(),
        indexed: Arc::clone(&indexed),
        progress: Arc::new(KeptProgress::default()),
    });
    if let Some(tidying) = tidying.clone() {
        tasks.spawn(tidying.run());
    }
    tasks.spawn(OutboxRelay::new(journal.clone(), Arc::clone(&store), OUTBOX_INTERVAL).run());
    tasks.spawn(housekeeping::run(Arc::clone(live), database.clone(), Arc::clone(&store)));
    let webhooks = &gateway.settings.webhooks;
    if webhooks.enabled {
        let deliverer = Arc::new(Deliverer::new(
            webhooks,
            database,
            &gateway.directory,
            &gateway.policies,
            &gateway.portal_metrics,
        ));
        tasks.spawn(Arc::clone(&deliverer).keep());
        tasks.spawn(deliverer.run());
    }
    // Shown by the health listener, and to nobody else.
    if gateway.settings.health.is_some() {
        tasks.spawn(Counting::new(database, &gateway.portal_metrics).run());
    }
    let ship = &gateway.settings.ship;
    let made: Vec<_> =
        ship.targets().into_iter().map(|target| Shipper::new(journal.clone(), target, ship.form)).collect();
    let shipped = made.iter().map(Shipper::progress).collect();
    let (stop_shipping, stop) = watch::channel(false);
    let shippers = made.into_iter().map(|shipper| tokio::spawn(shipper.run(stop.clone()))).collect();
    let portal = PortalWork::start(&gateway);
    Ok(Background {
        tasks,
        progress: Progress {
            indexed,
            signed,
            shipped,
            retention,
            kept: tidying.as_ref().map(|tidying| Arc::clone(&tidying.progress)),
        },
        journal,
        store,
        portal,
        keys: lasting.keys.clone(),
        upstreams: Upkeep::start(&gateway.upstreams),
        leaving: Vec::new(),
        checkpoints,
        shippers,
        stop_shipping,
        tidying,
    })
}

/// `None`: nothing goes by itself.
fn settings_of_retention(gateway: &Gateway) -> Result<Option<RetentionSettings>, KeyError> {
    let settings = &gateway.settings;
    let Some(age) = settings.retention else { return Ok(None) };
    Ok(Some(RetentionSettings { age, keys: settings.checkpoints.keys()?, ship: settings.ship.clone() }))
}

impl Background {
    /// The work of the consolidated API goes on under another configuration; exports under way are finished under the one
    /// that they were begun with.
    pub fn change_over(&mut self, gateway: &Gateway) {
        self.leaving.retain(|(_, ended)| !ended.is_finished());
        self.leaving.extend(self.portal.take().map(|work| work.end(Shift::Last)));
        self.portal = PortalWork::start(gateway);
        self.upstreams = Upkeep::start(&gateway.upstreams);
    }

    /// Ends the tasks and brings the index up to the journal's end: nobody else does it until the next start.
    pub async fn stop(mut self) {
        // Jobs under way are given back, so that another replica need not wait for their leases to end.
        self.leaving.extend(self.portal.take().map(|work| work.end(Shift::Over)));
        let ended = self.leaving.into_iter().map(|(shift, ended)| {
            shift.send_replace(Shift::Over);
            ended
        });
        if tokio::time::timeout(LAST_EXPORTS, join_all(ended)).await.is_err() {
            tracing::warn!("exports under way did not stop in time; they are begun anew after their leases");
        }
        drop(self.upstreams);
        self.tasks.shutdown().await;
        self.keys.bring_last(LAST_OUTCOMES).await;
        self.stop_shipping.send_replace(true);
        if tokio::time::timeout(LAST_SHIPPING, join_all(self.shippers.iter_mut())).await.is_err() {
            self.shippers.iter().for_each(JoinHandle::abort);
            tracing::warn!("the last records are not shipped; the next start ships them");
        }
        if let Some((signer, interval)) = self.checkpoints {
            let mut last = Checkpointer::new(self.journal.clone(), Arc::clone(&self.store), signer, interval);
            match tokio::time::timeout(LAST_INDEXING, last.finish()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the last records are not signed; the next start signs them"),
                Err(_) => tracing::warn!("the last records are not signed; the next start signs them"),
            }
        }
        let mut indexer = Indexer::new(self.journal, self.store, INDEX_INTERVAL);
        match tokio::time::timeout(LAST_INDEXING, indexer.catch_up()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the audit index ends behind the journal; the next start goes on"),
            Err(_) => tracing::warn!("the audit index ends behind the journal; the next start goes on"),
        }
        if let Some(tidying) = self.tidying {
            match tokio::time::timeout(LAST_INDEXING, tidying.last()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "it is not noted how far targets of the audit journal are"),
                Err(_) => tracing::warn!("it is not noted how far targets of the audit journal are"),
            }
        }
    }
}

/// Opens the journal; where it is kept in the database, with the epoch of its taking. It must not end before what the
/// database has seen of it: then its tail was cut off.
pub async fn open_journal(
    config: &Config,
    database: &Database,
    medium: Arc<dyn Medium>,
) -> Result<(Journal, Option<i64>), AppError> {
    if config.kept_in_database {
        let opened = kept::open(config, database).await?;
        return Ok((opened.journal, Some(opened.epoch)));
    }
    let settings = &config.audit;
    let store = AuditStore::new(database, &settings.dir);
    let known = chain_file(&settings.dir).map_err(|source| JournalError::Io {
        act: "read the audit journal in",
        path: settings.dir.clone(),
        source,
    })?;
    let asked = tokio::time::timeout(HEAD_TIMEOUT, async {
        match known {
            Some(chain) => store.head(chain.chain_id).await,
            None => Ok(None),
        }
    });
    let stored = asked.await.map_err(|_| AppError::HeadTimeout)?.map_err(AppError::Head)?;
    let opened = Journal::open_kept(settings.clone(), stored, medium)?;
    tracing::info!(recovery = ?opened.1, "audit journal open");
    if opened.1.fresh && store.chains().await.is_ok_and(|chains| !chains.is_empty()) {
        tracing::warn!(dir = %settings.dir.display(),
            "a new audit chain begins, and the database knows others: if this is no new replica, find the old `audit.dir`");
    }
    Ok((opened.0, None))
}
