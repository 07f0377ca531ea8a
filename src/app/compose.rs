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

use super::{AppError, background};
use crate::{
    audit::Journal,
    config::settings::Config,
    identity::{Keyring, Verifier},
    limit::{Limits, LocalQuotas, QuotaStore, RedisBuckets, SharedError, SharedQuotas, settings::LimitSettings},
    policy::{Policies, ShadowSet},
    portal::{Foundations, Portal, metrics::Metrics as PortalMetrics, sources::Sources},
    proxy::{
        headers::StripList,
        metrics::Metrics,
        route::Routes,
        worker::{Gateway, Upkeep},
    },
    store::{Database, Directory},
    tls::{H2, HTTP_1_1, ServerTls},
    upstream::Upstream,
};

/// How long the start waits for the change feed; after it the gateway serves what needs no links, and is not ready.
const FIRST_READING: Duration = Duration::from_secs(5);

/// What ALPN offers on the public listener.
const PUBLIC_PROTOCOLS: &[&[u8]] = &[H2, HTTP_1_1];

/// What no reload makes anew.
pub struct Lasting {
    pub database: Database,
    pub journal: Arc<Journal>,
    pub policies: Arc<Policies>,
    /// Asked beside them, never enforced.
    pub shadow: Option<Arc<ShadowSet>>,
    directory: Arc<Directory>,
    /// Of the public listener; its files are read again, what it is made of is not.
    tls: Option<Arc<ServerTls>>,
    quotas: Arc<dyn QuotaStore>,
    /// Where replicas count together.
    pub shared_quotas: Option<Arc<SharedQuotas>>,
    metrics: Metrics,
    portal_metrics: Arc<PortalMetrics>,
    stopping: Arc<AtomicBool>,
}

impl Lasting {
    pub async fn open(config: &Config, database: &Database, registry: &Registry) -> Result<Self, AppError> {
        let policies = Policies::new(config.policy.clone())?;
        for warning in policies.current().warnings() {
            tracing::warn!("{warning}");
        }
        if !config.policy.enforce {
            tracing::warn!(
                "policy.enforce is false: guardrails and role rules are NOT ENFORCED, what they refuse is let through and noted"
            );
        }
        let tls = config.listen.tls.clone().map(|settings| ServerTls::load(settings, PUBLIC_PROTOCOLS));
        let tls = tls.transpose().map_err(AppError::Tls)?.map(Arc::new);
        let (quotas, shared_quotas) = quotas(&config.limits)?;
        let metrics = Metrics::register(registry)?;
        let portal_metrics = Arc::new(PortalMetrics::register(registry)?);
        let (journal, _) = background::open_journal(config, database).await?;
        let directory = Directory::start(database, &config.links);
        let patience = Instant::now() + FIRST_READING;
        while !directory.is_fresh() && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Self {
            database: database.clone(),
            journal: Arc::new(journal),
            policies: Arc::new(policies),
            shadow: config.policy.shadow.clone().map(|dir| Arc::new(ShadowSet::new(dir))),
            directory,
            tls,
            quotas,
            shared_quotas,
            metrics,
            portal_metrics,
            stopping: Arc::default(),
        })
    }

    /// Everything that this configuration says.
    pub fn compose(&self, config: Config) -> Result<Gateway, AppError> {
        let keyring = config.signing.as_ref().map(Keyring::load).transpose()?.map(Arc::new);
        let audit_keys = config.checkpoints.keys()?;
        let verifier = Arc::new(Verifier::new(&config.identity, keyring.as_deref().map(Keyring::issuer))?);
        let upstreams = config.upstreams.iter().cloned().map(|settings| {
            let name = settings.name.clone();
            Upstream::new(settings).map_err(|source| AppError::UpstreamTls { name, source: Box::new(source) })
        });
        let upstreams = upstreams.collect::<Result<Vec<_>, _>>()?;
        let routes = Routes::compile(&config.routes, &upstreams)?;
        let foundations = Foundations {
            database: &self.database,
            policies: &self.policies,
            directory: &self.directory,
            approvals: config.links.approvals,
            exports: &config.exports,
            keyring: keyring.as_deref(),
            journal: &config.audit.dir,
            metrics: &self.portal_metrics,
        };
        let portal = config.portal.as_ref().map(|settings| {
            let sources = Sources::new(&config.connectors, &upstreams, keyring.as_ref(), &self.policies, settings);
            Arc::new(Portal::new(settings, &foundations, sources))
        });
        Ok(Gateway {
            metrics: self.metrics.for_routes(&routes),
            routes,
            upstreams,
            policies: Arc::clone(&self.policies),
            shadow: self.shadow.clone(),
            tls: self.tls.clone(),
            portal,
            upkeep: Upkeep::of(tokio::spawn(Arc::clone(&verifier).maintain())),
            verifier,
            keyring,
            audit_keys: (!audit_keys.is_empty()).then(|| audit_keys.to_jwks()),
            directory: Arc::clone(&self.directory),
            journal: Arc::clone(&self.journal),
            limits: Limits::with_store(config.limits.clone(), Arc::clone(&self.quotas)),
            portal_metrics: Arc::clone(&self.portal_metrics),
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

/// Counted with other replicas where Redis is named, else by this process alone. Runs until the runtime ends.
fn quotas(settings: &LimitSettings) -> Result<Quotas, SharedError> {
    let Some(shared) = &settings.shared else { return Ok((Arc::new(LocalQuotas::new(settings.max_keys)), None)) };
    let quotas = SharedQuotas::new(settings.max_keys);
    tokio::spawn(Arc::clone(&quotas).keep_in_step(RedisBuckets::new(shared)?, shared.interval));
    Ok((Arc::clone(&quotas) as Arc<dyn QuotaStore>, Some(quotas)))
}
