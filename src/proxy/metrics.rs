//! Counters of the request path and the one log line a request. Label values are bounded: patterns, codes, never paths.

use std::{rc::Rc, sync::Arc, time::Instant};

use http::StatusCode;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{
    counts::{CacheMetrics, RefusedSwitches},
    decision_metrics::DecisionMetrics,
    flow::Trail,
    respond::Failure,
    route::{Route, Routes},
    said::ShadowMetrics,
    worker::{Gateway, Worker},
};
use crate::{domain::ErrorCode, portal::endpoint};

/// All metrics of the request path, with handles ready for every route.
#[derive(Clone, Debug)]
pub struct Metrics {
    families: (IntCounterVec, HistogramVec),
    /// By place in the route table, as in `seconds`.
    requests: Vec<[IntCounter; 5]>,
    unrouted: [IntCounter; 5],
    seconds: Vec<Histogram>,
    /// By place in the table of the consolidated API.
    endpoints: Vec<([IntCounter; 5], Histogram)>,
    refusals: IntCounterVec,
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
    switches: Arc<RefusedSwitches>,
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

    pub fn refused(&self, trail: &Trail, failure: &Failure) {
        self.refusals.with_label_values(&[failure.code.as_str(), failure.word()]).inc();
        // The tenant that was named stayed closed; what is refused inside an open one is no failed switch.
        let closed = matches!(failure.code, ErrorCode::TenantAccessDenied | ErrorCode::TenantLinkExpired);
        let named = trail.cross || trail.endpoint.is_some();
        if let Some(user) = trail.session.as_ref().and_then(|session| session.partner()).filter(|_| closed && named) {
            self.switches.refused(&user.facts.partner_id.to_string());
        }
    }
}

/// The upstream's name as a label; empty where none is asked.
fn upstream_of(route: &Route) -> &str {
    route.upstream.as_ref().map_or("", |upstream| upstream.settings.name.as_ref())
}

/// Measures the time to the answer's head.
#[derive(Debug)]
pub struct Measured {
    in_flight: IntGauge,
}

impl Measured {
    pub fn begin(gateway: &Gateway) -> Self {
        let in_flight = gateway.metrics.in_flight.clone();
        in_flight.inc();
        Self { in_flight }
    }

    pub fn head(self, worker: &Worker, trail: &Trail, status: StatusCode) {
        let metrics = &worker.gateway.metrics;
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        let endpoint = trail.endpoint.and_then(|(_, index)| metrics.endpoints.get(index));
        let handles = match (&trail.route, endpoint) {
            (Some(route), _) => metrics.requests.get(route.index),
            (None, Some((handles, _))) => Some(handles),
            (None, None) => Some(&metrics.unrouted),
        };
        if let Some(counter) = handles.and_then(|handles| handles.get(class)) {
            counter.inc();
        }
        let routed = trail.route.as_ref().and_then(|route| metrics.seconds.get(route.index));
        if let Some(histogram) = routed.or(endpoint.map(|(_, histogram)| histogram)) {
            histogram.observe(trail.started.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

/// What the log line at the end of an exchange says of its beginning.
#[derive(Debug)]
pub struct LogLine {
    request_id: crate::domain::RequestId,
    trace_id: crate::domain::TraceId,
    method: http::Method,
    uri: http::Uri,
    client_ip: std::net::IpAddr,
    partner: Option<crate::domain::PartnerId>,
    tenant: Option<crate::domain::TenantId>,
    decision_id: Option<crate::domain::DecisionId>,
}

impl LogLine {
    /// `None` where request lines are switched off.
    pub fn of(worker: &Worker, trail: &Trail) -> Option<Self> {
        if !worker.gateway.settings.log.requests
            || !tracing::enabled!(target: "linkgate::request", tracing::Level::INFO)
        {
            return None;
        }
        Some(Self {
            request_id: trail.request_id.clone(),
            trace_id: trail.trace_id,
            method: trail.method.clone(),
            uri: trail.uri.clone(),
            client_ip: trail.client_ip,
            partner: trail.session.as_ref().and_then(|session| session.partner()).map(|user| user.facts.partner_id),
            tenant: trail.managed_tenant.clone(),
            decision_id: trail.decision_id,
        })
    }

    /// The query is left out: it may hold what must not be logged.
    pub fn write(self, status: u16, bytes: u64, duration_us: u64, reason: Option<&str>) {
        tracing::info!(
            target: "linkgate::request",
            request_id = self.request_id.as_str(),
            trace_id = self.trace_id.as_str(),
            method = self.method.as_str(),
            path = self.uri.path(),
            status,
            bytes,
            duration_us,
            client_ip = %self.client_ip,
            partner_id = self.partner.map(tracing::field::display),
            tenant_id = self.tenant.as_ref().map(|tenant| tenant.as_str()),
            decision_id = self.decision_id.map(tracing::field::display),
            reason,
            "request"
        );
    }
}

/// The line of a request that was refused without an exchange.
pub fn log_request(worker: &Rc<Worker>, trail: &Trail, status: u16, bytes: u64, reason: Option<&str>) {
    if let Some(line) = LogLine::of(worker, trail) {
        let duration_us = u64::try_from(Instant::now().duration_since(trail.started).as_micros()).unwrap_or(u64::MAX);
        line.write(status, bytes, duration_us, reason);
    }
}
