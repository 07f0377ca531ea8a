//! What a running gateway shows of itself: readiness, and the gauges that are set when somebody looks.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge, Registry};

use super::{
    compose::Lasting,
    error::AppError,
    gauges::{AuditGauges, Progress},
    saturation::Saturation,
    tls::{Certificates, Ends},
    upstreams::UpstreamMetrics,
};
use crate::{
    audit::{AuditUnavailable, Journal},
    limit::SharedQuotas,
    portal::openapi,
    proxy::worker::{Gateway, Live},
    server::{
        docs::Docs,
        health::{Check, Health},
        workers::Workers,
    },
    store::Database,
};

pub(super) fn registry() -> Result<Registry, AppError> {
    let registry = Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}

/// What the health listener tells.
pub(super) fn observe(
    live: &Arc<Live>,
    lasting: &Lasting,
    workers: &Arc<Workers>,
    audit: Progress,
    registry: Registry,
) -> Result<Health, AppError> {
    let gateway = live.current();
    let checkpoints = audit.signed.clone();
    let gauges = Gauges::register(&gateway, lasting, audit, &registry)?;
    let (seen, busy) = (Arc::clone(live), Arc::downgrade(workers));
    let refresh = Arc::new(move || gauges.refresh(&seen.current(), busy.upgrade().as_deref()));
    let (ready, busy) = (Arc::clone(live), Arc::downgrade(workers));
    let database = lasting.database.clone();
    let readiness = Arc::new(move || checks(&ready.current(), &database, busy.upgrade().as_deref()));
    let portal = gateway.portal.as_ref().filter(|_| gateway.settings.api_docs);
    let docs = portal.map(|portal| Docs::new(&openapi::document(&portal.bases)));
    let checkpoint = Arc::new(move || checkpoints.as_ref().and_then(|progress| progress.last()));
    let journal = Journal::clone(&gateway.journal);
    // Elsewhere an operator has to look first; here a restart is all there is to do.
    let lost = Arc::new(move || {
        let trouble = journal.status().trouble.filter(|trouble| matches!(trouble, AuditUnavailable::TakenOver));
        trouble.map(|trouble| trouble.to_string())
    });
    Ok(Health { lost, readiness, refresh, registry, checkpoint, docs })
}

/// Gauges that are set when somebody looks.
struct Gauges {
    database: Database,
    fresh: IntGauge,
    writable: IntGauge,
    audit: AuditGauges,
    shared: IntGauge,
    failures: IntCounter,
    shared_quotas: Option<Arc<SharedQuotas>>,
    shadowed: IntGauge,
    saturation: Saturation,
    ends: Ends,
    upstreams: UpstreamMetrics,
}

impl Gauges {
    fn register(gateway: &Gateway, lasting: &Lasting, audit: Progress, registry: &Registry) -> Result<Self, AppError> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, AppError> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let enforced = gauge("linkgate_policy_enforced", "0 while guardrails and role rules are only noted")?;
        enforced.set(i64::from(gateway.settings.policy.enforce));
        let shared = "1 while rate limits are counted as configured: 0 while replicas cannot count together and should";
        let shared = gauge("linkgate_limits_shared", shared)?;
        shared.set(1);
        let failures = "linkgate_limits_exchange_failures_total";
        let failures = IntCounter::new(failures, "Exchanges with the shared counters that failed")?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self {
            database: lasting.database.clone(),
            fresh: gauge("linkgate_links_fresh", "1 while link data is within max_staleness")?,
            writable: gauge("linkgate_database_writable", "0 while writes to the SQLite database fail")?,
            audit: AuditGauges::register(audit, registry)?,
            shared,
            failures,
            shared_quotas: lasting.shared_quotas.clone(),
            shadowed: gauge("linkgate_shadow_loaded", "1 while a shadow policy set is asked")?,
            saturation: Saturation::register(registry)?,
            ends: Ends::register(registry)?,
            upstreams: UpstreamMetrics::register(registry)?,
        })
    }

    fn refresh(&self, gateway: &Gateway, workers: Option<&Workers>) {
        self.fresh.set(i64::from(gateway.directory.is_fresh()));
        self.writable.set(i64::from(self.database.write_trouble().is_none()));
        self.audit.refresh(&gateway.journal);
        if let Some(quotas) = &self.shared_quotas {
            self.shared.set(i64::from(quotas.is_shared()));
            self.failures.inc_by(quotas.failures().saturating_sub(self.failures.get()));
        }
        self.shadowed.set(i64::from(gateway.shadow.as_ref().is_some_and(|shadow| shadow.current().is_some())));
        self.saturation.refresh(gateway, &gateway.journal.status(), workers);
        self.ends.refresh(&Certificates::of(gateway));
        self.upstreams.refresh(&gateway.upstreams);
        gateway.portal_metrics.refresh();
        if let Some(portal) = &gateway.portal {
            portal.refresh_metrics();
        }
    }
}

/// What readiness hangs on; `workers` are gone once the gateway has ended.
fn checks(gateway: &Gateway, database: &Database, workers: Option<&Workers>) -> Vec<Check> {
    let check = |name, ok: bool, message: &str| Check {
        name,
        ok,
        message: if ok { String::new() } else { message.to_owned() },
    };
    let stale = "link data is older than links.max_staleness: is the database reachable?";
    let missing: Vec<_> = gateway.verifier.missing().iter().map(ToString::to_string).collect();
    let trouble = gateway.journal.status().trouble.map(|trouble| trouble.told()).unwrap_or_default();
    let unwritten = database.write_trouble().unwrap_or_default();
    let lost = gateway.vitals.lost();
    let alive = workers.is_some_and(Workers::alive);
    let open = workers.is_some_and(|workers| !workers.draining());
    vec![
        Check { name: "policies", ok: true, message: rollout(gateway).to_owned() },
        check("database", gateway.directory.is_fresh(), stale),
        check("database_writes", unwritten.is_empty(), &unwritten),
        check("keys", missing.is_empty(), &format!("no usable keys for: {}", missing.join(", "))),
        check("audit", trouble.is_empty(), &trouble),
        check("tasks", lost.is_empty(), &format!("{} ended: restart linkgate; the log says why", lost.join(", "))),
        check("workers", alive, "a worker thread has ended: restart linkgate"),
        check("listener", open, "the gateway is stopping"),
    ]
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
