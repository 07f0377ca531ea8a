//! Floor 6: the composition root. Opens everything in order, runs until told to stop, and drains.

pub mod background;
mod compose;
pub mod configuration;
mod crew;
mod error;
pub mod expiry;
mod gauges;
pub mod gone;
pub mod housekeeping;
pub mod kept;
mod listeners;
pub mod manager;
mod observed;
pub mod reload;
pub mod saturation;
mod signals;
pub mod telemetry;
pub mod tls;
pub mod upstreams;
mod watch;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    audit::medium::{Medium, OsMedium},
    config::settings::{Config, DatabaseSettings},
    proxy::{vitals::never, worker::Live},
    server::{
        admin::{AdminApi, Listener as AdminListener},
        decision::Door,
        descriptors::Descriptors,
        health,
        inherited::Inherited,
        workers::{self, Workers},
    },
    store::{Database, small_blocks},
    tls::ServerTls,
    upstream::{Resolve, SystemResolver},
};

use {background::Background, compose::Lasting, listeners::Listeners, reload::Reloader, signals::Signals};
pub use {configuration::ConfigSource, error::AppError, listeners::Listening};

/// Threads of the service runtime: database, key fetching, journal helpers, watchers.
const SERVICE_THREADS: usize = 2;

/// How long a stop waits for the collector to take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// How long a stop waits for the database to take leave of its connections.
const LAST_CONNECTIONS: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT, then drains. `source` is where the configuration came from and is read again; `started`
/// is called once everything listens.
pub fn run(config: Config, source: ConfigSource, started: impl FnOnce(Listening)) -> Result<(), AppError> {
    run_on(config, source, Surroundings::default(), started)
}

/// What the gateway finds rather than makes.
#[derive(Debug)]
pub struct Surroundings {
    /// Sockets that were handed over; what was not is opened.
    pub sockets: Inherited,
    /// Looks up the host names of upstreams.
    pub resolver: Arc<dyn Resolve>,
    /// Where the audit journal is written, if it is not kept in the database.
    pub medium: Arc<dyn Medium>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { sockets: Inherited::default(), resolver: Arc::new(SystemResolver), medium: Arc::new(OsMedium) }
    }
}

/// The same in surroundings of the caller's.
pub fn run_on(
    config: Config,
    source: ConfigSource,
    surroundings: Surroundings,
    started: impl FnOnce(Listening),
) -> Result<(), AppError> {
    telemetry::init(&config.log)?;
    if let Err(error) = Descriptors::raise() {
        tracing::warn!(%error, "the soft limit of open files cannot be raised to the hard one");
    }
    if let Some(warning) = Descriptors::of_this_process().warning(&config) {
        tracing::warn!("{warning}");
    }
    let service = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SERVICE_THREADS)
        .thread_name("service")
        .enable_all()
        .build()
        .map_err(AppError::Runtime)?;
    let ended = service.block_on(serve(config, source, surroundings, started));
    // Background work is safe to end anywhere: the journal is closed, the database commits or does not.
    service.shutdown_timeout(Duration::from_secs(2));
    ended
}

async fn serve(
    config: Config,
    source: ConfigSource,
    Surroundings { sockets, resolver, medium }: Surroundings,
    started: impl FnOnce(Listening),
) -> Result<(), AppError> {
    let signals = Signals::new().map_err(AppError::Runtime)?;
    let listeners = Listeners::open(&config, sockets).await?;
    let listening = listeners.addresses()?;
    let registry = observed::registry()?;
    let database = open_database(&config.database).await?;
    let lasting = Arc::new(Lasting::open(&config, &database, (resolver, medium), &registry).await?);
    let live = Arc::new(Live::new(lasting.compose(config, &[])?));
    let workers = Arc::new(workers::start(&live).map_err(AppError::Runtime)?);
    let background = background::start(&live, &lasting)?;
    let progress = background.progress.clone();
    let reloader = Reloader::new(&lasting, &live, source, background, &registry)?;
    // Here, where there is a journal: a shadow set that is refused is told and recorded, and stops nothing.
    reloader.reload_shadow("start").await;
    let gateway = live.current();
    let policy = &gateway.settings.policy;
    let watchers = reload::watch_all(policy.dir.iter().chain(&policy.shadow), &reloader)?;
    reloader.watch_certificates()?;
    // Its counters are there where it is off too, so that an alarm on them means something.
    let admin_api = AdminApi::new(&live, &database, &registry)?;
    let admin = listeners.admin.map(|listener| start_admin(admin_api, listener, gateway.admin_tls.clone()));
    if let Some(listener) = listeners.health {
        let health = observed::observe(&live, &lasting, &workers, progress, registry)?;
        tokio::spawn(lasting.vitals.clone().watch("health_listener", health::serve(listener, health), never));
    }
    let accept = |name, listener, door| {
        let (workers, live) = (Arc::clone(&workers), Arc::clone(&live));
        let work = async move { workers.accept(&live, listener, door).await };
        tokio::spawn(lasting.vitals.clone().watch(name, work, never))
    };
    let accepting = [accept("listener", listeners.public, Door::Public)]
        .into_iter()
        .chain(listeners.decision.map(|listener| accept("decision_listener", listener, Door::Decisions)))
        .collect();
    tracing::info!(
        public = %listening.public,
        health = listening.health.map(display),
        decision = listening.decision.map(display),
        admin = listening.admin.map(display),
        policies = gateway.policies.current().version(),
        "linkgate serves"
    );
    drop(gateway);
    started(listening);
    manager::ready();

    signals.until_stop(&reloader).await;
    manager::stopping();
    lasting.vitals.stopping();
    // From here on nothing changes any more.
    drop(watchers);
    let background = reloader.end().await;
    Serving { live, workers, accepting, admin, background }.drain().await;
    // All that is kept is written by now. A database that hangs must not keep the process: what is not told to it ends as by a crash.
    let closed = async {
        // Outside the pools: while it is open, SQLite does not take its log into the file.
        lasting.directory.end().await;
        database.close().await;
    };
    if tokio::time::timeout(LAST_CONNECTIONS, closed).await.is_err() {
        tracing::warn!(waited = ?LAST_CONNECTIONS, "the database does not answer: its connections end with the process");
    }
    tracing::info!("stopped");
    Ok(())
}

fn start_admin(api: Arc<AdminApi>, listener: TcpListener, tls: Option<Arc<ServerTls>>) -> AdminListener {
    let elsewhere = listener.local_addr().is_ok_and(|address| !address.ip().is_loopback());
    if tls.is_none() && elsewhere {
        tracing::warn!(
            "the admin API is reached from other machines, and its tokens travel as they are: set [admin.tls], or \
             put TLS before it"
        );
    }
    AdminListener::start(api, listener, tls)
}

/// What is to be ended, in the order that loses nothing.
struct Serving {
    live: Arc<Live>,
    workers: Arc<Workers>,
    accepting: Vec<JoinHandle<()>>,
    admin: Option<AdminListener>,
    background: Option<Background>,
}

impl Serving {
    /// Open requests may finish within `listen.drain_timeout`; the journal is closed after the last of them.
    async fn drain(self) {
        let gateway = self.live.current();
        let drain_timeout = gateway.settings.listen.drain_timeout;
        let admin_ended = self.admin.map(|admin| tokio::spawn(admin.stop(drain_timeout)));
        tracing::info!(timeout = ?drain_timeout, "stopping: no new connections, open requests may finish");
        let left = self.workers.drain(drain_timeout).await;
        if left > 0 {
            tracing::warn!(connections = left, "the drain deadline passed; what is still open is closed");
        }
        if let Some(ended) = admin_ended
            && let Err(error) = ended.await
        {
            tracing::error!(%error, "the admin listener ended by a panic");
        }
        for accepting in self.accepting {
            if let Err(error) = accepting.await {
                tracing::error!(%error, "the acceptor ended by a panic");
            }
        }
        gateway.stopping.store(true, Ordering::Relaxed);
        let workers = self.workers;
        let stopped = tokio::task::spawn_blocking(move || alone(workers).stop()).await;
        if let Err(error) = stopped {
            tracing::error!(%error, "stopping the workers failed");
        }
        if let Some(background) = self.background {
            background.stop().await;
        }
        if let Some(spans) = &gateway.spans {
            spans.flush(LAST_SPANS).await;
        }
        gateway.journal.close();
    }
}

/// Waits for whoever looks at it just now: a readiness probe.
fn alone<T>(mut shared: Arc<T>) -> T {
    loop {
        match Arc::try_unwrap(shared) {
            Ok(value) => return value,
            Err(still) => shared = still,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// SQLite is brought up to date by the server itself; a shared Postgres only by `linkgate migrate`.
async fn open_database(settings: &DatabaseSettings) -> Result<Database, AppError> {
    if let Some(warning) = small_blocks(settings) {
        tracing::warn!("{warning}");
    }
    let database = Database::open(settings).await?;
    if matches!(settings, DatabaseSettings::Sqlite { .. }) {
        database.migrate().await?;
    }
    let newer = database.check_migrated().await?;
    if !newer.is_empty() {
        tracing::warn!(?newer, "the database has migrations of a newer linkgate, which only add: finish the upgrade");
    }
    Ok(database)
}
