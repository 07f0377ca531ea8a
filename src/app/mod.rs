//! Floor 6: the composition root. Opens everything in order, runs until told to stop, and drains.

pub mod background;
mod compose;
pub mod configuration;
pub mod expiry;
mod gauges;
pub mod gone;
pub mod housekeeping;
pub mod kept;
pub mod manager;
pub mod reload;
pub mod saturation;
pub mod telemetry;
pub mod tls;
pub mod upstreams;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use prometheus::{IntCounter, IntGauge, Registry};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    audit::{JournalError, evidence::KeyError},
    config::settings::{Config, DatabaseSettings},
    identity::{IdentityError, SigningError},
    limit::{SharedError, SharedQuotas},
    policy::PolicyErrors,
    portal::openapi,
    proxy::{
        route::InvalidRoutes,
        worker::{Gateway, Live},
    },
    server::{
        admin::{AdminApi, Listener as AdminListener},
        decision::Door,
        docs::Docs,
        health::{self, Check, Health},
        inherited::{InheritError, Inherited},
        workers::{self, Workers},
    },
    spans::SpansError,
    store::{Database, StoreError},
    tls::TlsError,
    upstream::{Resolve, SystemResolver},
};

pub use configuration::ConfigSource;
use {
    compose::Lasting,
    gauges::{AuditGauges, Progress},
    reload::Reloader,
    saturation::Saturation,
};

/// Threads of the service runtime: database, key fetching, journal helpers, watchers.
const SERVICE_THREADS: usize = 2;

/// How long a stop waits for the collector to take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// Why the gateway does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Filter(#[from] telemetry::InvalidFilter),
    #[error("cannot listen on `{address}`: is another program on this port?")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Inherit(#[from] InheritError),
    #[error("the runtime cannot start")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Policies(#[from] PolicyErrors),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error(transparent)]
    CheckpointKey(#[from] KeyError),
    #[error(transparent)]
    Limits(#[from] SharedError),
    #[error(transparent)]
    Spans(#[from] SpansError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Routes(#[from] InvalidRoutes),
    #[error("the database cannot say how far it has seen the audit journal")]
    Head(#[source] crate::audit::IndexUnavailable),
    #[error("the database did not say in time how far it has seen the audit journal")]
    HeadTimeout,
    #[error("the audit journal in the database cannot be taken: {0}")]
    Kept(#[source] crate::store::DepotError),
    #[error("`{0}` holds a journal of its own, and `audit.store` is `postgres`: name another `audit.dir`")]
    OwnJournal(std::path::PathBuf),
    #[error("a thread that opens the audit journal ended by a panic")]
    Cancelled,
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error("the files of `{section}` cannot be used")]
    Tls { section: &'static str, source: Box<TlsError> },
    #[error("the certificates of the upstream `{name}` cannot be used")]
    UpstreamTls { name: String, source: Box<TlsError> },
    #[error("the folder of policies or certificates cannot be watched")]
    Watch(#[from] notify::Error),
}

/// Where the running gateway listens.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    pub public: SocketAddr,
    pub health: Option<SocketAddr>,
    pub decision: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

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
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { sockets: Inherited::default(), resolver: Arc::new(SystemResolver) }
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
    Surroundings { sockets, resolver }: Surroundings,
    started: impl FnOnce(Listening),
) -> Result<(), AppError> {
    let signals = Signals::new().map_err(AppError::Runtime)?;
    let Listeners { public, health: health_listener, decision, admin: admin_listener } =
        listen(&config, sockets).await?;
    let registry = registry()?;
    let database = open_database(&config.database).await?;
    let lasting = Arc::new(Lasting::open(&config, &database, resolver, &registry).await?);
    let live = Arc::new(Live::new(lasting.compose(config, &[])?));
    let workers = Arc::new(workers::start(&live).map_err(AppError::Runtime)?);
    let background = background::start(&live, &database, lasting.epoch)?;
    let observed = background.progress.clone();
    let reloader = Reloader::new(&lasting, &live, source, background, &registry)?;
    // Here, where there is a journal: a shadow set that is refused is told and recorded, and stops nothing.
    reloader.reload_shadow("start").await;
    let gateway = live.current();
    let policy = &gateway.settings.policy;
    let watchers = reload::watch_all(policy.dir.iter().chain(&policy.shadow), &reloader)?;
    reloader.watch_certificates()?;
    let listening = Listening {
        public: public.local_addr().map_err(AppError::Runtime)?,
        health: health_listener.as_ref().and_then(|listener| listener.local_addr().ok()),
        decision: decision.as_ref().and_then(|listener| listener.local_addr().ok()),
        admin: admin_listener.as_ref().and_then(|listener| listener.local_addr().ok()),
    };
    // Its counters are there where it is off too, so that an alarm on them means something.
    let admin_api = AdminApi::new(&live, &database, &registry)?;
    let admin = match admin_listener {
        Some(listener) => {
            let tls = gateway.admin_tls.clone();
            if tls.is_none() && listening.admin.is_some_and(|address| !address.ip().is_loopback()) {
                tracing::warn!(
                    "the admin API is reached from other machines, and its tokens travel as they are: set [admin.tls], or \
                     put TLS before it"
                );
            }
            Some(AdminListener::start(admin_api, listener, tls))
        }
        None => None,
    };
    if let Some(listener) = health_listener {
        let health = observe(&live, &workers, observed, lasting.shared_quotas.clone(), registry)?;
        tokio::spawn(health::serve(listener, health));
    }
    let accept = |listener, door| {
        let (workers, live) = (Arc::clone(&workers), Arc::clone(&live));
        tokio::spawn(async move { workers.accept(&live, listener, door).await })
    };
    let accepting: Vec<_> = [accept(public, Door::Public)]
        .into_iter()
        .chain(decision.map(|listener| accept(listener, Door::Decisions)))
        .collect();
    tracing::info!(public = %listening.public, health = ?listening.health, decision = ?listening.decision, admin = ?listening.admin, policies = gateway.policies.current().version(), "linkgate serves");
    drop(gateway);
    started(listening);
    manager::ready();

    signals.until_stop(&reloader).await;
    manager::stopping();
    // From here on nothing changes any more.
    drop(watchers);
    let background = reloader.end().await;
    let gateway = live.current();
    let drain_timeout = gateway.settings.listen.drain_timeout;
    let admin_ended = admin.map(|admin| tokio::spawn(admin.stop(drain_timeout)));
    tracing::info!(timeout = ?drain_timeout, "stopping: no new connections, open requests may finish");
    let left = workers.drain(drain_timeout).await;
    if left > 0 {
        tracing::warn!(connections = left, "the drain deadline passed; what is still open is closed");
    }
    if let Some(ended) = admin_ended
        && let Err(error) = ended.await
    {
        tracing::error!(%error, "the admin listener ended by a panic");
    }
    for accepting in accepting {
        if let Err(error) = accepting.await {
            tracing::error!(%error, "the acceptor ended by a panic");
        }
    }
    gateway.stopping.store(true, Ordering::Relaxed);
    let stopped = tokio::task::spawn_blocking(move || alone(workers).stop()).await;
    if let Err(error) = stopped {
        tracing::error!(%error, "stopping the workers failed");
    }
    if let Some(background) = background {
        background.stop().await;
    }
    if let Some(spans) = &gateway.spans {
        spans.flush(LAST_SPANS).await;
    }
    gateway.journal.close();
    database.close().await;
    tracing::info!("stopped");
    Ok(())
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

/// What is listened at.
struct Listeners {
    public: TcpListener,
    health: Option<TcpListener>,
    decision: Option<TcpListener>,
    admin: Option<TcpListener>,
}

async fn listen(config: &Config, mut sockets: Inherited) -> Result<Listeners, AppError> {
    let open = async |handed: Option<std::net::TcpListener>, address: SocketAddr| {
        let listener = match handed {
            Some(handed) => TcpListener::from_std(handed),
            None => TcpListener::bind(address).await,
        };
        listener.map_err(|source| AppError::Listen { address, source })
    };
    let address = config.listen.address;
    let public = open(sockets.public(address)?, address).await?;
    let handed = sockets.health(config.health)?;
    let health = match config.health {
        Some(address) => Some(open(handed, address).await?),
        None => None,
    };
    let decision = match &config.decision {
        Some(settings) => Some(open(None, settings.address).await?),
        None => None,
    };
    let admin = match &config.admin {
        Some(settings) => Some(open(None, settings.address).await?),
        None => None,
    };
    Ok(Listeners { public, health, decision, admin })
}

/// SQLite is brought up to date by the server itself; a shared Postgres only by `linkgate migrate`.
async fn open_database(settings: &DatabaseSettings) -> Result<Database, AppError> {
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

fn registry() -> Result<Registry, AppError> {
    let registry = Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}

/// Readiness and the gauges that are set when somebody looks.
fn observe(
    live: &Arc<Live>,
    workers: &Arc<Workers>,
    audit: Progress,
    shared_quotas: Option<Arc<SharedQuotas>>,
    registry: Registry,
) -> Result<Health, AppError> {
    let gauge = |name: &str, help: &str| -> Result<IntGauge, AppError> {
        let gauge = IntGauge::new(name, help)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let fresh = gauge("linkgate_links_fresh", "1 while link data is within max_staleness")?;
    let checkpoints = audit.signed.clone();
    let audit = AuditGauges::register(audit, &registry)?;
    let gateway = live.current();
    let shared = "1 while rate limits are counted as configured: 0 while replicas cannot count together and should";
    let shared = gauge("linkgate_limits_shared", shared)?;
    shared.set(1);
    let failures = "linkgate_limits_exchange_failures_total";
    let failures = IntCounter::new(failures, "Exchanges with the shared counters that failed")?;
    registry.register(Box::new(failures.clone()))?;
    let ends = tls::Ends::register(&registry)?;
    let upstreams = upstreams::UpstreamMetrics::register(&registry)?;
    let enforced = gauge("linkgate_policy_enforced", "0 while guardrails and role rules are only noted")?;
    enforced.set(i64::from(gateway.settings.policy.enforce));
    let shadowed = gauge("linkgate_shadow_loaded", "1 while a shadow policy set is asked")?;
    let (seen, ready) = (Arc::clone(live), Arc::clone(live));
    let (saturation, busy) = (Saturation::register(&registry)?, Arc::downgrade(workers));
    let refresh = move || {
        let seen = seen.current();
        fresh.set(i64::from(seen.directory.is_fresh()));
        audit.refresh(&seen.journal);
        if let Some(quotas) = &shared_quotas {
            shared.set(i64::from(quotas.is_shared()));
            failures.inc_by(quotas.failures().saturating_sub(failures.get()));
        }
        shadowed.set(i64::from(seen.shadow.as_ref().is_some_and(|shadow| shadow.current().is_some())));
        saturation.refresh(&seen, &seen.journal.status(), busy.upgrade().as_deref());
        ends.refresh(&tls::Certificates::of(&seen));
        upstreams.refresh(&seen.upstreams);
        seen.portal_metrics.refresh();
        if let Some(portal) = &seen.portal {
            portal.refresh_metrics();
        }
    };
    let workers = Arc::downgrade(workers);
    let readiness = move || {
        let ready = ready.current();
        let check = |name, ok: bool, message: &str| Check {
            name,
            ok,
            message: if ok { String::new() } else { message.to_owned() },
        };
        let missing: Vec<_> = ready.verifier.missing().iter().map(ToString::to_string).collect();
        let trouble = ready.journal.status().trouble.map(|trouble| trouble.to_string()).unwrap_or_default();
        let (alive, open) = workers.upgrade().map_or((false, false), |workers| (workers.alive(), !workers.draining()));
        vec![
            Check { name: "policies", ok: true, message: rollout(&ready).to_owned() },
            check(
                "database",
                ready.directory.is_fresh(),
                "link data is older than links.max_staleness: is the database reachable?",
            ),
            check("keys", missing.is_empty(), &format!("no usable keys for: {}", missing.join(", "))),
            check("audit", trouble.is_empty(), &trouble),
            check("workers", alive, "a worker thread has ended: restart linkgate"),
            check("listener", open, "the gateway is stopping"),
        ]
    };
    let portal = gateway.portal.as_ref().filter(|_| gateway.settings.api_docs);
    let docs = portal.map(|portal| Docs::new(&openapi::document(&portal.bases)));
    let checkpoint = Arc::new(move || checkpoints.as_ref().and_then(|progress| progress.last()));
    let journal = crate::audit::Journal::clone(&gateway.journal);
    // Elsewhere an operator has to look first; here a restart is all there is to do.
    let lost = Arc::new(move || {
        let trouble =
            journal.status().trouble.filter(|trouble| matches!(trouble, crate::audit::AuditUnavailable::TakenOver));
        trouble.map(|trouble| trouble.to_string())
    });
    Ok(Health { lost, readiness: Arc::new(readiness), refresh: Arc::new(refresh), registry, checkpoint, docs })
}

/// What whoever looks at the readiness should know of the policies; it takes no traffic away.
fn rollout(gateway: &Gateway) -> &'static str {
    let shadow = gateway.shadow.as_ref().map(|shadow| shadow.current().is_some());
    match (gateway.settings.policy.enforce, shadow) {
        (false, _) => "policy.enforce is false: guardrails and role rules are NOT ENFORCED",
        (true, Some(false)) => "the shadow set could not be loaded; the set in force is not affected",
        (true, _) => "",
    }
}

/// The signals that a server obeys.
struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Reloads on SIGHUP; returns on SIGTERM or SIGINT.
    async fn until_stop(mut self, reloader: &Reloader) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    manager::reloading();
                    reloader.reload("sighup").await;
                    manager::ready();
                }
            }
        }
    }
}
