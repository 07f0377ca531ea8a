//! What of one request goes into the counters, and its one log line.

use std::{rc::Rc, time::Instant};

use http::StatusCode;
use prometheus::IntGauge;

use super::{
    metrics::Metrics,
    respond::Failure,
    trail::Trail,
    worker::{Gateway, Worker},
};
use crate::domain::ErrorCode;

impl Metrics {
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
