//! What the upstream room is configured with: valid by construction, made by `config`.

use std::{collections::HashMap, time::Duration};

use crate::{
    domain::{Secret, TenantId},
    tls::settings::ClientSettings,
};

/// One upstream service.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    pub name: String,
    /// Shared endpoints; none where every tenant has its own.
    pub endpoints: Vec<Origin>,
    /// Endpoints of single tenants; they win over the shared ones and are never mixed with them.
    pub tenants: HashMap<TenantId, Origin>,
    /// How often host names are resolved anew.
    pub dns_refresh: Duration,
    pub connect_timeout: Duration,
    /// From request sent to response head.
    pub response_timeout: Duration,
    /// Idle pooled connections kept per worker and address.
    pub pool_idle: usize,
    pub pool_idle_timeout: Duration,
    /// Requests under way at once to the shared endpoints, over all workers, open streams included; above it: the queue.
    pub max_in_flight: usize,
    /// The same to each tenant's own address, whose places nobody else uses.
    pub tenant_max_in_flight: usize,
    /// How many of these places one organisation may have, its requests in the queue included; 0: all, `None`: half. At its
    /// own address a tenant may have all.
    pub organisation_max_in_flight: Option<usize>,
    /// Requests that wait for a place, in each of these queues; above it: 503 `UPSTREAM_UNAVAILABLE`.
    pub max_pending: usize,
    /// Longest wait in that queue; after it: the same 503.
    pub queue_timeout: Duration,
    pub outlier: OutlierSettings,
    pub budget: BudgetSettings,
    /// `None`: no active checks.
    pub health_check: Option<HealthCheck>,
    /// For addresses with `https`.
    pub tls: ClientSettings,
    pub http2: Http2,
    /// Streams open at once on one HTTP/2 connection; above it another is opened.
    pub http2_streams: usize,
    /// What becomes of the client's `Authorization` in cross-tenant requests.
    pub credential: Credential,
    pub assertion: AssertionForm,
    /// `aud` of assertions and replacement tokens.
    pub audience: String,
}

/// Passive health: when an endpoint that fails requests is left alone (outlier detection).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierSettings {
    /// Failures in a row; 0: nothing is ever ejected.
    pub consecutive_failures: u32,
    /// Of the first ejection; the n-th in a row lasts n times as long.
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    /// Share of the endpoints that may be ejected at once, in percent.
    pub max_ejection_percent: u32,
    /// Where fewer than this share is healthy, in percent, or none is, all are used as if they were (panic).
    pub panic_threshold: u32,
}

impl Default for OutlierSettings {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 50,
            panic_threshold: 0,
        }
    }
}

/// How many requests may be tried at another endpoint (retry budget, over the last ten seconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetSettings {
    /// Retries for each hundred requests.
    pub ratio_percent: u32,
    /// Retries a second that are always granted.
    pub min_per_second: u32,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self { ratio_percent: 20, min_per_second: 10 }
    }
}

/// Active checks: a request of the gateway's own to each endpoint, now and then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path and query.
    pub path: String,
    /// From one check's start to the next one's, give or take a tenth.
    pub interval: Duration,
    /// For connection, request and answer's head together.
    pub timeout: Duration,
    /// Good checks in a row that make an unhealthy endpoint healthy.
    pub healthy_threshold: u32,
    /// Bad checks in a row that make a healthy endpoint unhealthy.
    pub unhealthy_threshold: u32,
    pub expected_statuses: Vec<u16>,
}

/// When HTTP/2 is spoken. WebSockets stay on HTTP/1.1 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2 {
    Off,
    /// Over TLS, where the service chooses it (ALPN).
    Auto,
    /// In cleartext too, by prior knowledge; over TLS nothing else is taken.
    Always,
}

/// Scheme, host and port; no path, so that the decided path is forwarded byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub https: bool,
    /// `host:port`, as it stands in `Host`.
    pub authority: String,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

impl Origin {
    /// Without port, and without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.split().0;
        host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
    }

    /// The usual one where none is named.
    pub fn port(&self) -> u16 {
        let usual = if self.https { 443 } else { 80 };
        self.split().1.and_then(|port| port.parse().ok()).unwrap_or(usual)
    }

    fn split(&self) -> (&str, Option<&str>) {
        match self.authority.rsplit_once(':') {
            // A colon inside brackets is the address's own.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (&self.authority, None),
        }
    }
}

/// The credential that a cross-tenant request carries upstream.
#[derive(Clone, Debug)]
pub enum Credential {
    /// As it came; only for an upstream that declares that it takes the tenant from the header.
    Pass,
    Drop,
    /// A token of the gateway's (contract, section 6: token enrichment).
    Replace(Replacement),
}

/// How a replacement token is signed and what it says.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// HS256 with the upstream's secret; `None`: the gateway's own asymmetric key.
    pub hs256: Option<Secret>,
    /// `iss` of the token, where the upstream checks one; the gateway's own otherwise.
    pub issuer: Option<String>,
    /// Our permission names to the upstream's own; names without an entry go as they are.
    pub permission_names: HashMap<String, Vec<String>>,
    /// Link role to the upstream's role names.
    pub role_names: HashMap<String, Vec<String>>,
}

/// The form of `X-Linkgate-Assertion`.
#[derive(Clone, Debug)]
pub enum AssertionForm {
    Off,
    /// Signed once for many requests, at most 60 s old.
    Session,
    /// Signed for each request, bound to method, path, query and decision; HMAC with a shared key where one is given.
    Request {
        hmac: Option<Secret>,
    },
}
