//! The tasks of a running server that last from start to stop, by what they are for, each under its name (`vitals`).
//!
//! What a promise hangs on (every change is chained, evidence is complete) makes the process not ready when it ends; what
//! can be begun anew at any time is.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    compose::Lasting,
    expiry,
    gone::Orphans,
    housekeeping,
    kept::{self, KeptProgress, Tidying},
};
use crate::{
    audit::{
        Journal, RetainedIndex,
        evidence::{Checkpointer, Signer, signer::CheckpointProgress},
        indexer::{IndexProgress, Indexer},
        outbox::OutboxRelay,
        retention::{RetainedJournal, Retention, RetentionProgress, RetentionSettings},
        ship::{ShipProgress, Shipper},
    },
    portal::{Counting, webhooks::Deliverer},
    proxy::{
        vitals::{Vitals, never},
        worker::{Gateway, Live},
    },
    store::{AuditStore, Database, IdempotencyKeys, KeptJournal},
};

/// How often the journal is looked at for records to index, and the outbox for changes to chain.
pub(super) const INDEX_INTERVAL: Duration = Duration::from_millis(200);
const OUTBOX_INTERVAL: Duration = Duration::from_millis(500);

/// Those that were started, and what they work on.
pub(super) struct Crew {
    vitals: Vitals,
    pub(super) tasks: JoinSet<()>,
    gateway: Arc<Gateway>,
    database: Database,
    keys: IdempotencyKeys,
    pub(super) journal: Journal,
    pub(super) store: Arc<AuditStore>,
    epoch: Option<i64>,
}

/// Shippers of the journal, and what stops them.
pub(super) struct Shipping {
    pub(super) shippers: Vec<JoinHandle<()>>,
    pub(super) progress: Vec<Arc<ShipProgress>>,
    pub(super) stop: watch::Sender<bool>,
}

impl Crew {
    /// With those that nothing is known of later: the change feed, which the directory started, and the outbox.
    pub(super) fn new(gateway: &Arc<Gateway>, lasting: &Lasting) -> Self {
        let journal = Journal::clone(&gateway.journal);
        let store = Arc::new(AuditStore::new(&lasting.database, journal.dir()));
        let mut crew = Self {
            vitals: gateway.vitals.clone(),
            tasks: JoinSet::new(),
            gateway: Arc::clone(gateway),
            database: lasting.database.clone(),
            keys: lasting.keys.clone(),
            journal,
            store,
            epoch: lasting.epoch,
        };
        let directory = Arc::clone(&gateway.directory);
        crew.watch("change_feed", async move { directory.feed_over().await });
        let relay = OutboxRelay::new(crew.journal.clone(), Arc::clone(&crew.store), OUTBOX_INTERVAL);
        crew.watch("outbox_relay", relay.run());
        crew
    }

    fn watch(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.vitals.clone().watch(name, work, never));
    }

    fn keep<W: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        begin: impl FnMut() -> W + Send + 'static,
    ) {
        self.tasks.spawn(self.vitals.clone().keep(name, begin, never));
    }

    pub(super) fn index(&mut self) -> Arc<IndexProgress> {
        let indexer = Indexer::new(self.journal.clone(), Arc::clone(&self.store), INDEX_INTERVAL);
        let (indexed, judged) = (indexer.progress(), self.journal.clone());
        // Ends only where the journal was altered or cut off under our hands.
        self.watch("audit_index", async move { judged.distrust(indexer.run().await) });
        indexed
    }

    /// Brings late outcomes, looks for links that end, and forgets what is old.
    pub(super) fn serve_the_database(&mut self, live: &Arc<Live>) {
        // Of Postgres there is nothing to try.
        if !self.database.is_postgres() {
            let database = self.database.clone();
            self.keep("database_writes", move || database.clone().try_writes_while_they_fail());
        }
        let keys = self.keys.clone();
        self.keep("write_outcomes", move || keys.clone().bring());
        let (database, gauge) = (self.database.clone(), self.gateway.metrics.links_ending.clone());
        self.keep("links_ending", move || expiry::watch(database.clone(), gauge.clone()));
        let (live, database, store) = (Arc::clone(live), self.database.clone(), Arc::clone(&self.store));
        let begin = move || housekeeping::run(Arc::clone(&live), database.clone(), Arc::clone(&store));
        self.keep("housekeeping", begin);
    }

    pub(super) fn sign(&mut self, signer: &Arc<Signer>, interval: Duration) -> Arc<CheckpointProgress> {
        let made = Checkpointer::new(self.journal.clone(), Arc::clone(&self.store), Arc::clone(signer), interval);
        let (progress, judged) = (made.progress(), self.journal.clone());
        // Ends only where the journal is not what was signed.
        self.watch("checkpoints", async move { judged.distrust(made.run().await) });
        progress
    }

    /// Lets old records go, in a journal that is kept in the database also those of servers that are gone.
    pub(super) fn age(&mut self, settings: RetentionSettings, signer: Option<&Arc<Signer>>) -> Arc<RetentionProgress> {
        let (journal, store) = (self.journal.clone(), Arc::clone(&self.store));
        let Some(epoch) = self.epoch else { return self.let_go(Retention::new(journal, store, settings)) };
        let RetentionSettings { age, keys, ship } = settings.clone();
        let scratch = journal.dir().join(kept::PART);
        let kept = KeptJournal::new(Arc::clone(&store), (journal.chain_id(), epoch), scratch, keys, ship);
        let progress = self.let_go(Retention::of(journal.clone(), kept, Arc::clone(&store), age));
        let orphans = Orphans {
            database: self.database.clone(),
            store,
            journal,
            settings,
            signer: signer.map(Arc::clone),
            progress: Arc::clone(&progress),
        };
        self.keep("retention_of_gone", move || orphans.clone().run());
        progress
    }

    fn let_go<S, J>(&mut self, retention: Retention<S, J>) -> Arc<RetentionProgress>
    where
        S: RetainedIndex + 'static,
        J: RetainedJournal + 'static,
    {
        let progress = retention.progress();
        // What it remembers is kept when it is begun again: its progress is shown.
        let retention = Arc::new(Mutex::new(retention));
        self.keep("retention", move || {
            let retention = Arc::clone(&retention);
            async move { retention.lock().await.run().await }
        });
        progress
    }

    /// `None`: the journal is not kept in the database.
    pub(super) fn tidy(&mut self, indexed: &Arc<IndexProgress>) -> Option<Tidying> {
        let tidying = Tidying {
            journal: self.journal.clone(),
            epoch: self.epoch?,
            store: Arc::clone(&self.store),
            ship: self.gateway.settings.ship.clone(),
            indexed: Arc::clone(indexed),
            progress: Arc::new(KeptProgress::default()),
        };
        let made = tidying.clone();
        self.keep("journal_tidying", move || made.clone().run());
        Some(tidying)
    }

    /// Webhooks, where there are any.
    pub(super) fn deliver(&mut self) {
        let gateway = &self.gateway;
        let webhooks = &gateway.settings.webhooks;
        if !webhooks.enabled {
            return;
        }
        let (directory, policies) = (&gateway.directory, &gateway.policies);
        let deliverer =
            Arc::new(Deliverer::new(webhooks, &self.database, directory, policies, &gateway.portal_metrics));
        let announcer = Arc::clone(&deliverer);
        self.keep("webhook_notices", move || Arc::clone(&announcer).keep());
        self.keep("webhooks", move || Arc::clone(&deliverer).run());
    }

    /// What is shown by the health listener, and to nobody else.
    pub(super) fn count(&mut self) {
        if self.gateway.settings.health.is_some() {
            let (database, metrics) = (self.database.clone(), Arc::clone(&self.gateway.portal_metrics));
            self.keep("counts", move || Counting::new(&database, &metrics).run());
        }
    }

    pub(super) fn ship(&self) -> Shipping {
        let ship = &self.gateway.settings.ship;
        let targets = ship.targets().into_iter();
        let made: Vec<_> = targets.map(|target| Shipper::new(self.journal.clone(), target, ship.form)).collect();
        let progress = made.iter().map(Shipper::progress).collect();
        let (stop, stopped) = watch::channel(false);
        let shippers = made.into_iter().map(|shipper| {
            let asked = stopped.clone();
            let run = shipper.run(stopped.clone());
            tokio::spawn(self.vitals.clone().watch("audit_ship", run, move || *asked.borrow()))
        });
        Shipping { shippers: shippers.collect(), progress, stop }
    }
}
