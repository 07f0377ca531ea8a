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
    crew::{Crew, INDEX_INTERVAL},
    gauges::Progress,
    kept::{self, Tidying},
};
use crate::{
    audit::{
        ChainHeads, Journal, JournalError,
        evidence::{Checkpointer, KeyError, Signer},
        indexer::Indexer,
        medium::Medium,
        reader::chain_file,
        retention::RetentionSettings,
    },
    config::settings::Config,
    portal::{Watcher, exports::Shift},
    proxy::{
        vitals::never,
        worker::{Gateway, Live},
    },
    store::{AuditStore, Database, IdempotencyKeys},
    upstream::Upkeep,
};

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
    upstreams: Watched,
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
        let alerts = alerts.then(|| {
            let (portal, directory) = (Arc::clone(portal), Arc::clone(&gateway.directory));
            let begin = move || Watcher::new(&portal, &directory).run();
            tokio::spawn(gateway.vitals.clone().keep("alerts", begin, never))
        });
        let (shift, told) = watch::channel(Shift::Working);
        let (portal, asked) = (Arc::clone(portal), told.clone());
        let begin = move || Arc::new(portal.export_worker()).run(told.clone());
        let exports = gateway.vitals.clone().keep("exports", begin, move || *asked.borrow() != Shift::Working);
        Some(Self { alerts, exports: (shift, tokio::spawn(exports)) })
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
    let gateway = live.current();
    let settings = &gateway.settings.checkpoints;
    let checkpoints = settings.signer()?.map(|signer| (Arc::new(signer), settings.interval));
    let retention = settings_of_retention(&gateway)?;
    let mut crew = Crew::new(&gateway, lasting);
    let indexed = crew.index();
    crew.serve_the_database(live);
    let signed = checkpoints.as_ref().map(|(signer, interval)| crew.sign(signer, *interval));
    if signed.is_none() {
        tracing::info!("no key signs checkpoints of the audit chain: set `audit.checkpoint_key_file`");
    }
    let retention = retention.map(|settings| crew.age(settings, checkpoints.as_ref().map(|(signer, _)| signer)));
    let tidying = crew.tidy(&indexed);
    crew.deliver();
    crew.count();
    let shipping = crew.ship();
    let kept = tidying.as_ref().map(|tidying| Arc::clone(&tidying.progress));
    let Crew { tasks, journal, store, .. } = crew;
    Ok(Background {
        tasks,
        progress: Progress { indexed, signed, shipped: shipping.progress, retention, kept },
        journal,
        store,
        portal: PortalWork::start(&gateway),
        keys: lasting.keys.clone(),
        upstreams: Watched(tokio::spawn(look_after_upstreams(&gateway))),
        leaving: Vec::new(),
        checkpoints,
        shippers: shipping.shippers,
        stop_shipping: shipping.stop,
        tidying,
    })
}

/// Look-ups and checks of the upstreams of this configuration.
fn look_after_upstreams(gateway: &Gateway) -> impl Future<Output = ()> + use<> {
    // At once, not when the task first runs: their configuration comes into force.
    let mut first = Some(Upkeep::start(&gateway.upstreams));
    let upstreams = gateway.upstreams.clone();
    let begin = move || first.take().unwrap_or_else(|| Upkeep::start(&upstreams)).one_ended();
    gateway.vitals.clone().keep("upstreams", begin, never)
}

/// `None`: nothing goes by itself.
fn settings_of_retention(gateway: &Gateway) -> Result<Option<RetentionSettings>, KeyError> {
    let settings = &gateway.settings;
    let Some(age) = settings.retention else { return Ok(None) };
    Ok(Some(RetentionSettings { age, keys: settings.checkpoints.keys()?, ship: settings.ship.clone() }))
}

/// A task that ends with what it is for.
struct Watched(JoinHandle<()>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Background {
    /// The work of the consolidated API goes on under another configuration; exports under way are finished under the one
    /// that they were begun with.
    pub fn change_over(&mut self, gateway: &Gateway) {
        self.leaving.retain(|(_, ended)| !ended.is_finished());
        self.leaving.extend(self.portal.take().map(|work| work.end(Shift::Last)));
        self.portal = PortalWork::start(gateway);
        self.upstreams = Watched(tokio::spawn(look_after_upstreams(gateway)));
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
    kept::told(&opened.1, "audit journal open");
    if opened.1.fresh && store.chains().await.is_ok_and(|chains| !chains.is_empty()) {
        tracing::warn!(dir = %settings.dir.display(),
            "a new audit chain begins, and the database knows others: if this is no new replica, find the old `audit.dir`");
    }
    Ok((opened.0, None))
}
