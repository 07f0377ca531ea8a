//! Floor 6: the composition root. Opens everything in order, runs until told to stop, and drains.

pub mod background;
pub mod expiry;
pub mod housekeeping;
pub mod reload;
pub mod telemetry;
pub mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prometheus::{IntGauge, Registry};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    audit::{JournalError, evidence::KeyError},
    config::settings::{Config, DatabaseSettings},
    identity::{IdentityError, Keyring, SigningError, Verifier},
    limit::Limits,
    policy::{Policies, PolicyErrors, ShadowSet},
    portal::{Foundations, Portal, metrics::Metrics as PortalMetrics, openapi, sources::Sources},
    proxy::{
        headers::StripList,
        metrics::Metrics,
        route::{InvalidRoutes, Routes},
        worker::Gateway,
    },
    server::{
        docs::Docs,
        health::{self, Check, Health},
        workers::{self, Workers},
    },
    store::{Database, Directory, StoreError},
    tls::{H2, HTTP_1_1, ServerTls, TlsError},
    upstream::Upstream,
};

/// Threads of the service runtime: database, key fetching, journal helpers, watchers.
const SERVICE_THREADS: usize = 2;

/// How long the start waits for the change feed; after it the gateway serves what needs no links, and is not ready.
const FIRST_READING: Duration = Duration::from_secs(5);

/// What ALPN offers on the public listener.
const PUBLIC_PROTOCOLS: &[&[u8]] = &[H2, HTTP_1_1];

/// Why the gateway does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Filter(#[from] telemetry::InvalidFilter),
    #[error("cannot listen on `{address}`: is another program on this port?")]
    Listen { address: SocketAddr, source: std::io::Error },
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
    Journal(#[from] JournalError),
    #[error(transparent)]
    Routes(#[from] InvalidRoutes),
    #[error("the database cannot say how far it has seen the audit journal")]
    Head(#[source] crate::audit::IndexUnavailable),
    #[error("the database did not say in time how far it has seen the audit journal")]
    HeadTimeout,
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error("the files of `listen.tls` cannot be used")]
    Tls(#[source] TlsError),
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
}

/// Runs until SIGTERM or SIGINT, then drains. `started` is called once everything listens.
pub fn run(config: Config, started: impl FnOnce(Listening)) -> Result<(), AppError> {
    telemetry::init(&config.log)?;
    let service = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SERVICE_THREADS)
        .thread_name("service")
        .enable_all()
        .build()
        .map_err(AppError::Runtime)?;
    let ended = service.block_on(serve(config, started));
    // Background work is safe to end anywhere: the journal is closed, the database commits or does not.
    service.shutdown_timeout(Duration::from_secs(2));
    ended
}

async fn serve(config: Config, started: impl FnOnce(Listening)) -> Result<(), AppError> {
    let signals = Signals::new().map_err(AppError::Runtime)?;
    let (public, health_listener) = listen(&config).await?;
    let drain_timeout = config.listen.drain_timeout;
    let registry = registry()?;
    let database = open_database(&config.database).await?;
    let gateway = Arc::new(compose(config, &database, &registry).await?);
    let workers = Arc::new(workers::start(&gateway).map_err(AppError::Runtime)?);

    let reloader = reload::Reloader {
        policies: Arc::clone(&gateway.policies),
        shadow: gateway.shadow.clone(),
        verifier: Arc::clone(&gateway.verifier),
        certificates: tls::Certificates::of(&gateway),
        journal: Arc::clone(&gateway.journal),
    };
    // Here, where there is a journal: a shadow set that is refused is told and recorded, and stops nothing.
    reloader.reload_shadow("start").await;
    let policy = &gateway.settings.policy;
    let mut watchers: Vec<_> = policy
        .dir
        .iter()
        .chain(&policy.shadow)
        .map(|dir| reload::watch(dir, reloader.clone()))
        .collect::<Result<_, _>>()?;
    watchers.extend(tls::watch(&reloader)?);
    let background = background::start(&gateway, &database)?;
    let listening = Listening {
        public: public.local_addr().map_err(AppError::Runtime)?,
        health: health_listener.as_ref().and_then(|listener| listener.local_addr().ok()),
    };
    if let Some(listener) = health_listener {
        let health = observe(&gateway, &workers, &background, registry)?;
        tokio::spawn(health::serve(listener, health));
    }
    let accepting = {
        let (workers, gateway) = (Arc::clone(&workers), Arc::clone(&gateway));
        tokio::spawn(async move { workers.accept(&gateway, public).await })
    };
    tracing::info!(public = %listening.public, health = ?listening.health, policies = gateway.policies.current().version(), "linkgate serves");
    started(listening);

    signals.until_stop(&reloader).await;
    tracing::info!(timeout = ?drain_timeout, "stopping: no new connections, open requests may finish");
    let left = workers.drain(drain_timeout).await;
    if left > 0 {
        tracing::warn!(connections = left, "the drain deadline passed; what is still open is closed");
    }
    drop(watchers);
    if let Err(error) = accepting.await {
        tracing::error!(%error, "the acceptor ended by a panic");
    }
    gateway.stopping.store(true, Ordering::Relaxed);
    let stopped = tokio::task::spawn_blocking(move || alone(workers).stop()).await;
    if let Err(error) = stopped {
        tracing::error!(%error, "stopping the workers failed");
    }
    background.stop().await;
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

async fn listen(config: &Config) -> Result<(TcpListener, Option<TcpListener>), AppError> {
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.map_err(|source| AppError::Listen { address, source })
    };
    let public = bind(config.listen.address).await?;
    let health = match config.health {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    Ok((public, health))
}

/// SQLite is brought up to date by the server itself; a shared Postgres only by `linkgate migrate`.
async fn open_database(settings: &DatabaseSettings) -> Result<Database, AppError> {
    let database = Database::open(settings).await?;
    match settings {
        DatabaseSettings::Sqlite { .. } => database.migrate().await?,
        DatabaseSettings::Postgres { .. } => database.check_migrated().await?,
    }
    Ok(database)
}

async fn compose(config: Config, database: &Database, registry: &Registry) -> Result<Gateway, AppError> {
    let tls = config.listen.tls.clone().map(|settings| ServerTls::load(settings, PUBLIC_PROTOCOLS));
    let tls = tls.transpose().map_err(AppError::Tls)?.map(Arc::new);
    let keyring = config.signing.as_ref().map(Keyring::load).transpose()?.map(Arc::new);
    let audit_keys = config.checkpoints.keys()?;
    let verifier = Verifier::new(&config.identity, keyring.as_deref().map(Keyring::issuer))?;
    let policies = Policies::new(config.policy.clone())?;
    for warning in policies.current().warnings() {
        tracing::warn!("{warning}");
    }
    if !config.policy.enforce {
        tracing::warn!(
            "policy.enforce is false: guardrails and role rules are NOT ENFORCED, what they refuse is let through and noted"
        );
    }
    let upstreams: Vec<Arc<Upstream>> = config
        .upstreams
        .iter()
        .cloned()
        .map(|settings| {
            let name = settings.name.clone();
            Upstream::new(settings).map_err(|source| AppError::UpstreamTls { name, source: Box::new(source) })
        })
        .collect::<Result<_, _>>()?;
    let routes = Routes::compile(&config.routes, &upstreams)?;
    let metrics = Metrics::register(registry, &routes)?;
    let portal_metrics = Arc::new(PortalMetrics::register(registry)?);
    let policies = Arc::new(policies);
    let (journal, _) = background::open_journal(&config.audit, database).await?;
    let directory = Directory::start(database, &config.links);
    let foundations = Foundations {
        database,
        policies: &policies,
        directory: &directory,
        approvals: config.links.approvals,
        exports: &config.exports,
        keyring: keyring.as_deref(),
        journal: &config.audit.dir,
        metrics: &portal_metrics,
    };
    let portal = config.portal.as_ref().map(|settings| {
        let sources = Sources::new(&config.connectors, &upstreams, keyring.as_ref(), &policies, settings);
        Arc::new(Portal::new(settings, &foundations, sources))
    });
    let patience = tokio::time::Instant::now() + FIRST_READING;
    while !directory.is_fresh() && tokio::time::Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(Gateway {
        routes,
        upstreams,
        policies,
        shadow: config.policy.shadow.clone().map(|dir| Arc::new(ShadowSet::new(dir))),
        tls,
        portal,
        verifier: Arc::new(verifier),
        keyring,
        audit_keys: (!audit_keys.is_empty()).then(|| audit_keys.to_jwks()),
        directory,
        journal: Arc::new(journal),
        limits: Limits::new(config.limits.clone()),
        metrics,
        portal_metrics,
        strip: Arc::new(StripList::new(&config.headers.strip)),
        no_policies: Arc::from(Vec::new()),
        service: tokio::runtime::Handle::current(),
        stopping: AtomicBool::new(false),
        settings: config,
    })
}

fn registry() -> Result<Registry, AppError> {
    let registry = Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}

/// Readiness and the gauges that are set when somebody looks.
fn observe(
    gateway: &Arc<Gateway>,
    workers: &Arc<Workers>,
    background: &background::Background,
    registry: Registry,
) -> Result<Health, AppError> {
    let gauge = |name: &str, help: &str| -> Result<IntGauge, AppError> {
        let gauge = IntGauge::new(name, help)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let fresh = gauge("linkgate_links_fresh", "1 while link data is within max_staleness")?;
    let healthy = gauge("linkgate_audit_healthy", "1 while the audit journal takes records")?;
    let last_seq = gauge("linkgate_audit_last_seq", "Last sequence number of the audit chain")?;
    let owed = gauge("linkgate_audit_owed_bytes", "Bytes of audit records not yet written")?;
    let unindexed = gauge("linkgate_audit_unindexed_lines", "Lines of the audit chain that the index has not seen")?;
    let open = gauge("linkgate_audit_open_records", "Audit records opened and not completed")?;
    let unsigned = gauge("linkgate_audit_unsigned_lines", "Lines of the audit chain that no checkpoint covers yet")?;
    let ends = tls::Ends::register(&registry)?;
    let (indexed, signed) = (Arc::clone(&background.indexed), background.signed.clone());
    let checkpoints = background.signed.clone();
    let enforced = gauge("linkgate_policy_enforced", "0 while guardrails and role rules are only noted")?;
    enforced.set(i64::from(gateway.settings.policy.enforce));
    let shadowed = gauge("linkgate_shadow_loaded", "1 while a shadow policy set is asked")?;
    let (seen, ready) = (Arc::clone(gateway), Arc::clone(gateway));
    let refresh = move || {
        let journal = seen.journal.status();
        fresh.set(i64::from(seen.directory.is_fresh()));
        healthy.set(i64::from(journal.trouble.is_none()));
        last_seq.set(i64::try_from(journal.last_seq).unwrap_or(i64::MAX));
        owed.set(i64::try_from(journal.owed_bytes).unwrap_or(i64::MAX));
        unindexed.set(i64::try_from(indexed.lag(&seen.journal)).unwrap_or(i64::MAX));
        open.set(i64::try_from(journal.open_records).unwrap_or(i64::MAX));
        let covered = signed.as_ref().map_or(0, |signed| signed.signed_seq());
        unsigned.set(i64::try_from(journal.last_seq.saturating_sub(covered)).unwrap_or(i64::MAX));
        shadowed.set(i64::from(seen.shadow.as_ref().is_some_and(|shadow| shadow.current().is_some())));
        ends.refresh(&tls::Certificates::of(&seen));
        seen.portal_metrics.refresh();
        if let Some(portal) = &seen.portal {
            portal.refresh_metrics();
        }
    };
    let workers = Arc::downgrade(workers);
    let readiness = move || {
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
    Ok(Health { readiness: Arc::new(readiness), refresh: Arc::new(refresh), registry, checkpoint, docs })
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
    async fn until_stop(mut self, reloader: &reload::Reloader) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reloader.reload("sighup").await,
            }
        }
    }
}
