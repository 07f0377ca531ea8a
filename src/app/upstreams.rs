//! Metrics of upstreams: how their endpoints are, how busy they are, and what they counted. Told when somebody looks.
//!
//! Labels are bounded by the configuration: upstreams by name, shared endpoints as they are configured, never by address;
//! those of tenants are counted together, so that no metric names one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::upstream::{
    Upstream,
    tally::{Count, Tally},
};

/// What stands for the endpoints of tenants.
const OF_TENANTS: &str = "tenants";

type Read = fn(&Tally) -> &Count;

/// Name, help, and where the number stands.
const COUNTS: [(&str, &str, Read); 6] = [
    ("linkgate_upstream_ejections_total", "Endpoints left alone for a while by outlier detection", |tally| {
        &tally.ejections
    }),
    ("linkgate_upstream_panics_total", "Requests sent to any endpoint because too few were healthy", |tally| {
        &tally.panics
    }),
    ("linkgate_upstream_retries_total", "Requests tried at another endpoint", |tally| &tally.retries),
    ("linkgate_upstream_retry_budget_exhausted_total", "Requests not tried at another endpoint: no budget", |tally| {
        &tally.budget_exhausted
    }),
    ("linkgate_upstream_resolution_failures_total", "Look-ups of host names that failed", |tally| {
        &tally.resolution_failures
    }),
    ("linkgate_upstream_health_check_failures_total", "Active checks that were not as expected", |tally| {
        &tally.checks_bad
    }),
];

/// The same by reason.
const REFUSALS: [(&str, Read); 4] = [
    ("share", |tally| &tally.refused_share),
    ("full", |tally| &tally.refused_full),
    ("queue_full", |tally| &tally.refused_queue_full),
    ("queue_timeout", |tally| &tally.refused_queue_timeout),
];

#[derive(Debug)]
pub struct UpstreamMetrics {
    endpoints: IntGaugeVec,
    in_flight: IntGaugeVec,
    bound: IntGaugeVec,
    fullness: GaugeVec,
    pending: IntGaugeVec,
    counts: Vec<(IntCounterVec, Read)>,
    refused: IntCounterVec,
    /// Labels told last. One refresh at a time.
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    endpoints: BTreeSet<[String; 3]>,
    upstreams: BTreeSet<String>,
}

impl UpstreamMetrics {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let fullness = Opts::new(
            "linkgate_upstream_fullness_ratio",
            "Requests under way as a share of their places, of the shared endpoints or the one tenant's address where it is highest",
        );
        let fullness = GaugeVec::new(fullness, &["upstream"])?;
        registry.register(Box::new(fullness.clone()))?;
        let counts = COUNTS.iter().map(|(name, help, read)| Ok((counter(name, help, &["upstream"])?, *read)));
        Ok(Self {
            endpoints: gauge(
                "linkgate_upstream_endpoints",
                "Addresses behind a configured endpoint, by state: healthy, ejected, unhealthy",
                &["upstream", "endpoint", "state"],
            )?,
            in_flight: gauge(
                "linkgate_upstream_requests_in_flight",
                "Requests under way, open streams included",
                &["upstream"],
            )?,
            bound: gauge(
                "linkgate_upstream_requests_bound",
                "Most of them: the places of the shared endpoints and of each tenant's own address together",
                &["upstream"],
            )?,
            fullness,
            pending: gauge("linkgate_upstream_requests_pending", "Requests that wait for a place", &["upstream"])?,
            counts: counts.collect::<Result<_, prometheus::Error>>()?,
            refused: counter(
                "linkgate_upstream_refused_total",
                "Requests that found no place",
                &["upstream", "reason"],
            )?,
            told: Mutex::default(),
        })
    }

    /// Tells how things are. What is no longer configured is told no more.
    pub fn refresh(&self, upstreams: &[Arc<Upstream>]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = Told::default();
        for upstream in upstreams {
            let name = &*upstream.name;
            for standing in upstream.standing() {
                let endpoint = if standing.endpoint.is_empty() { OF_TENANTS } else { &standing.endpoint };
                let states =
                    [("healthy", standing.healthy), ("ejected", standing.ejected), ("unhealthy", standing.unhealthy)];
                for (state, count) in states {
                    self.endpoints.with_label_values(&[name, endpoint, state]).set(whole(count));
                    now.endpoints.insert([name, endpoint, state].map(str::to_owned));
                }
            }
            self.in_flight.with_label_values(&[name]).set(whole(upstream.in_flight()));
            self.bound.with_label_values(&[name]).set(whole(upstream.places()));
            self.fullness.with_label_values(&[name]).set(upstream.fullness());
            self.pending.with_label_values(&[name]).set(whole(upstream.pending()));
            now.upstreams.insert(name.to_owned());
            let tally = upstream.tally();
            for (counter, read) in &self.counts {
                let counter = counter.with_label_values(&[name]);
                counter.inc_by(read(tally).get().saturating_sub(counter.get()));
            }
            for (reason, read) in REFUSALS {
                let counter = self.refused.with_label_values(&[name, reason]);
                counter.inc_by(read(tally).get().saturating_sub(counter.get()));
            }
        }
        for labels in told.endpoints.difference(&now.endpoints) {
            remove(self.endpoints.remove_label_values(&labels.each_ref().map(String::as_str)));
        }
        for name in told.upstreams.difference(&now.upstreams) {
            remove(self.in_flight.remove_label_values(&[name]));
            remove(self.bound.remove_label_values(&[name]));
            remove(self.fullness.remove_label_values(&[name]));
            remove(self.pending.remove_label_values(&[name]));
        }
        *told = now;
    }
}

/// Fails only where it is gone already.
fn remove(removed: Result<(), prometheus::Error>) {
    if let Err(error) = removed {
        tracing::debug!(%error, "a metric was taken out before");
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
