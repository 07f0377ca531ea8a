//! What lasts from start to stop, and what one configuration makes of it.
//!
//! [`Lasting`] is opened once: database, journal, policies, counters. A [`Gateway`] is made of it and of one
//! configuration, at the start and at each reload, as a whole or not at all (I6): requests that began under the one
//! before end under it.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use prometheus::Registry;
use tokio::time::Instant;

use super::{AppError, background, saturation};
use crate::{
    audit::{Journal, medium::Medium},
    config::settings::Config,
    identity::{Keyring, Verifier},
    limit::{Limits, LocalQuotas, QuotaStore, RedisBuckets, SharedError, SharedQuotas, settings::LimitSettings},
    policy::{Policies, ShadowSet},
    portal::{Foundations, Portal, metrics::Metrics as PortalMetrics, sources::Sources},
    proxy::{
        headers::StripList,
        metrics::Metrics,
        routes::Routes,
        vitals::{Vitals, never},
        worker::{Gateway, Upkeep},
    },
    spans::{SpanMetrics, Spans},
    store::{Database, Directory, IdempotencyKeys},
    tls::{H2, HTTP_1_1, ServerTls, settings::ServerSettings},
    upstream::{Resolve, Upstream},
};

/// How long the start waits for the change feed; after it the gateway serves what needs no links, and is not ready.
const FIRST_READING: Duration = Duration::from_secs(5);

/// What ALPN offers on the public listener.
const PUBLIC_PROTOCOLS: &[&[u8]] = &[H2, HTTP_1_1];

/// And on the admin listener.
const ADMIN_PROTOCOLS: &[&[u8]] = &[HTTP_1_1];

/// What no reload makes anew.
pub struct Lasting {
    pub database: Database,
    /// With the outcomes of writes that the database has not taken yet.
    pub keys: IdempotencyKeys,
    pub journal: Arc<Journal>,
    /// Of the chain's taking, where it is kept in the database.
    pub epoch: Option<i64>,
    pub policies: Arc<Policies>,
    /// Asked beside them, never enforced.
    pub shadow: Option<Arc<ShadowSet>>,
    pub directory: Arc<Directory>,
    /// Whether what runs beside the requests still does.
    pub vitals: Vitals,
    /// Of the public listener; its files are read again, what it is made of is not.
    tls: Option<Arc<ServerTls>>,
    /// Of the admin listener.
    admin_tls: Option<Arc<ServerTls>>,
    quotas: Arc<dyn QuotaStore>,
    /// Where replicas count together.
    pub shared_quotas: Option<Arc<SharedQuotas>>,
    metrics: Metrics,
    portal_metrics: Arc<PortalMetrics>,
    span_metrics: SpanMetrics,
    stopping: Arc<AtomicBool>,
    /// Looks up the host names of upstreams.
    resolver: Arc<dyn Resolve>,
}

impl Lasting {
    pub async fn open(
        config: &Config,
        database: &Database,
        (resolver, medium): (Arc<dyn Resolve>, Arc<dyn Medium>),
        registry: &Registry,
    ) -> Result<Self, AppError> {
        let policies = Policies::new(config.policy.clone())?;
        for warning in policies.current().warnings() {
            tracing::warn!("{warning}");
        }
        for warning in config.exposed_files().into_iter().chain(config.unusual_methods()) {
            tracing::warn!("{warning}");
        }
        if !config.policy.enforce {
            tracing::warn!(
                "policy.enforce is false: guardrails and role rules are NOT ENFORCED, what they refuse is let through and noted"
            );
        }
        let tls = secured(config.listen.tls.as_ref(), "listen.tls", PUBLIC_PROTOCOLS)?;
        let admin_tls = config.admin.as_ref().and_then(|admin| admin.tls.as_ref());
        let admin_tls = secured(admin_tls, "admin.tls", ADMIN_PROTOCOLS)?;
        let vitals = Vitals::register(registry)?;
        let (quotas, shared_quotas) = quotas(&config.limits, &vitals)?;
        let metrics = Metrics::register(registry)?;
        let portal_metrics = Arc::new(PortalMetrics::register(registry)?);
        let (journal, epoch) = background::open_journal(config, database, medium).await?;
        let directory = Directory::start(database, &config.links);
        directory.observe_latency(saturation::change_latency(registry)?);
        let patience = Instant::now() + FIRST_READING;
        while !directory.is_fresh() && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Self {
            database: database.clone(),
            keys: IdempotencyKeys::new(database),
            journal: Arc::new(journal),
            epoch,
            policies: Arc::new(policies),
            shadow: config.policy.shadow.clone().map(|dir| Arc::new(ShadowSet::new(dir))),
            directory,
            vitals,
            tls,
            admin_tls,
            quotas,
            shared_quotas,
            metrics,
            portal_metrics,
            span_metrics: SpanMetrics::register(registry)?,
            stopping: Arc::default(),
            resolver,
        })
    }

    /// Everything that this configuration says. `before`: the upstreams of the one before, of whose endpoints is kept what
    /// is known.
    pub fn compose(&self, config: Config, before: &[Arc<Upstream>]) -> Result<Gateway, AppError> {
        let keyring = config.signing.as_ref().map(Keyring::load).transpose()?.map(Arc::new);
        let audit_keys = config.checkpoints.keys()?;
        let verifier = Arc::new(Verifier::new(&config.identity, keyring.as_deref().map(Keyring::issuer))?);
        let upstreams = config.upstreams.iter().cloned().map(|settings| {
            let name = settings.name.clone();
            let before = before.iter().find(|before| *before.name == *name).map(|before| &**before);
            Upstream::succeeding(settings, Arc::clone(&self.resolver), before)
                .map_err(|source| AppError::UpstreamTls { name, source: Box::new(source) })
        });
        let upstreams = upstreams.collect::<Result<Vec<_>, _>>()?;
        let spans = config.tracing.as_ref().map(|settings| Spans::start(settings, &self.span_metrics)).transpose()?;
        let routes = Routes::compile(&config.routes, &upstreams)?;
        let foundations = Foundations {
            database: &self.database,
            keys: &self.keys,
            policies: &self.policies,
            directory: &self.directory,
            approvals: config.links.approvals,
            exports: &config.exports,
            keyring: keyring.as_deref(),
            journal: &config.audit.dir,
            metrics: &self.portal_metrics,
        };
        let portal = config.portal.as_ref().map(|settings| {
            let sources = Sources::new(
                &config.connectors,
                &upstreams,
                keyring.as_ref(),
                &self.policies,
                settings,
                spans.as_ref(),
            );
            Arc::new(Portal::new(settings, &foundations, sources))
        });
        let refreshed = Arc::clone(&verifier);
        // Ends where no issuer has keys to fetch.
        let refresh = move || Arc::clone(&refreshed).maintain();
        Ok(Gateway {
            metrics: self.metrics.for_routes(&routes),
            routes,
            upstreams,
            policies: Arc::clone(&self.policies),
            shadow: self.shadow.clone(),
            tls: self.tls.clone(),
            admin_tls: self.admin_tls.clone(),
            portal,
            upkeep: Upkeep::of(tokio::spawn(self.vitals.clone().keep("key_refresh", refresh, || true))),
            vitals: self.vitals.clone(),
            verifier,
            keyring,
            audit_keys: (!audit_keys.is_empty()).then(|| audit_keys.to_jwks()),
            directory: Arc::clone(&self.directory),
            journal: Arc::clone(&self.journal),
            limits: Limits::with_store(config.limits.clone(), Arc::clone(&self.quotas)),
            portal_metrics: Arc::clone(&self.portal_metrics),
            spans,
            strip: Arc::new(StripList::new(&config.headers.strip)),
            no_policies: Arc::from(Vec::new()),
            service: tokio::runtime::Handle::current(),
            stopping: Arc::clone(&self.stopping),
            settings: config,
        })
    }
}

/// What counts, and the same where it counts with others.
type Quotas = (Arc<dyn QuotaStore>, Option<Arc<SharedQuotas>>);

/// The certificates of a listener, where it speaks TLS.
fn secured(
    settings: Option<&ServerSettings>,
    section: &'static str,
    protocols: &'static [&'static [u8]],
) -> Result<Option<Arc<ServerTls>>, AppError> {
    let loaded = settings.cloned().map(|settings| ServerTls::load(settings, protocols)).transpose();
    Ok(loaded.map_err(|source| AppError::Tls { section, source: Box::new(source) })?.map(Arc::new))
}

/// Counted with other replicas where Redis is named, else by this process alone. Runs until the runtime ends.
fn quotas(settings: &LimitSettings, vitals: &Vitals) -> Result<Quotas, SharedError> {
    let Some(shared) = &settings.shared else { return Ok((Arc::new(LocalQuotas::new(settings.max_keys)), None)) };
    let quotas = SharedQuotas::new(settings.max_keys);
    let exchange = Arc::clone(&quotas).keep_in_step(RedisBuckets::new(shared)?, shared.interval);
    tokio::spawn(vitals.clone().watch("shared_limits", exchange, never));
    Ok((Arc::clone(&quotas) as Arc<dyn QuotaStore>, Some(quotas)))
}
