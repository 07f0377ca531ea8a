//! Counters of the request path; `measured` counts a request with them. Label values are bounded: patterns, codes, never
//! paths.

use std::sync::Arc;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{
    counts::{CacheMetrics, RefusedSwitches},
    decision_metrics::DecisionMetrics,
    routes::{Route, Routes},
    shadow_metrics::ShadowMetrics,
};
use crate::portal::endpoint;

/// All metrics of the request path, with handles ready for every route.
#[derive(Clone, Debug)]
pub struct Metrics {
    families: (IntCounterVec, HistogramVec),
    /// By place in the route table, as in `seconds`.
    pub(super) requests: Vec<[IntCounter; 5]>,
    pub(super) unrouted: [IntCounter; 5],
    pub(super) seconds: Vec<Histogram>,
    /// By place in the table of the consolidated API.
    pub(super) endpoints: Vec<([IntCounter; 5], Histogram)>,
    pub(super) refusals: IntCounterVec,
    pub in_flight: IntGauge,
    pub connections: IntGauge,
    pub connections_refused: IntCounter,
    pub streams_cut: IntCounter,
    pub links_ending: IntGauge,
    pub policy_errors: IntCounter,
    pub audit_refused: IntCounter,
    pub bytes_sent: IntCounter,
    /// By result: the words of `server::handshake`.
    pub handshakes: IntCounterVec,
    pub shadow: Arc<ShadowMetrics>,
    pub caches: Arc<CacheMetrics>,
    pub decisions: Arc<DecisionMetrics>,
    pub(super) switches: Arc<RefusedSwitches>,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    /// Registers everything, with handles for no route yet.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("linkgate_requests_total", "Requests answered, by route pattern, its upstream and status class"),
            &["route", "upstream", "class"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "linkgate_response_head_seconds",
                "Time to the head of the answer, by route pattern and its upstream",
            )
            .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            &["route", "upstream"],
        )?;
        let refusals = IntCounterVec::new(
            Opts::new("linkgate_refusals_total", "Requests refused, by code and reason"),
            &["code", "reason"],
        )?;
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        let in_flight = gauge("linkgate_requests_in_flight", "Requests whose answer's head is awaited")?;
        let connections = gauge("linkgate_connections", "Open client connections")?;
        let connections_refused = counter("linkgate_connections_refused_total", "Connections closed at the limit")?;
        let streams_cut = counter(
            "linkgate_streams_cut_total",
            "Open streams cut because their link, or their client's certificate, ended",
        )?;
        let policy_errors = counter("linkgate_policy_errors_total", "Decisions refused because a policy failed")?;
        let audit_refused =
            counter("linkgate_audit_refused_total", "Requests refused because they could not be recorded")?;
        let bytes_sent = counter("linkgate_response_body_bytes_total", "Response body bytes sent to clients")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(refusals.clone()))?;
        let handshakes = IntCounterVec::new(
            Opts::new("linkgate_tls_handshakes_total", "TLS handshakes of clients, by result"),
            &["result"],
        )?;
        registry.register(Box::new(handshakes.clone()))?;
        let links_ending = gauge("linkgate_links_ending_soon", "Links that end within 7 days")?;
        for gauge in [&in_flight, &connections, &links_ending] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [&connections_refused, &streams_cut, &policy_errors, &audit_refused, &bytes_sent] {
            registry.register(Box::new(counter.clone()))?;
        }
        let handles =
            |route: &str, upstream: &str| CLASSES.map(|class| requests.with_label_values(&[route, upstream, class]));
        Ok(Self {
            requests: Vec::new(),
            unrouted: handles("", ""),
            endpoints: endpoint::TABLE
                .iter()
                .map(|spec| {
                    let label = spec.label();
                    (handles(&label, ""), seconds.with_label_values(&[label.as_str(), ""]))
                })
                .collect(),
            seconds: Vec::new(),
            families: (requests, seconds),
            refusals,
            in_flight,
            connections,
            connections_refused,
            streams_cut,
            links_ending,
            policy_errors,
            audit_refused,
            bytes_sent,
            handshakes,
            shadow: Arc::new(ShadowMetrics::register(registry)?),
            caches: Arc::new(CacheMetrics::register(registry)?),
            decisions: Arc::new(DecisionMetrics::register(registry)?),
            switches: Arc::new(RefusedSwitches::register(registry)?),
        })
    }

    /// The same counters, with handles for these routes; each is labelled by its pattern and its upstream.
    pub fn for_routes(&self, routes: &Routes) -> Self {
        let (requests, seconds) = &self.families;
        let labels = |route: &'_ Route| (route.settings.path.clone(), upstream_of(route).to_owned());
        let labels: Vec<_> = routes.iter().map(|route| labels(route)).collect();
        let counters = |(route, upstream): &(String, String)| {
            CLASSES.map(|class| requests.with_label_values(&[route.as_str(), upstream.as_str(), class]))
        };
        let times =
            |(route, upstream): &(String, String)| seconds.with_label_values(&[route.as_str(), upstream.as_str()]);
        Self {
            requests: labels.iter().map(counters).collect(),
            seconds: labels.iter().map(times).collect(),
            ..self.clone()
        }
    }
}

/// The upstream's name as a label; empty where none is asked.
fn upstream_of(route: &Route) -> &str {
    route.upstream.as_ref().map_or("", |upstream| upstream.settings.name.as_ref())
}
