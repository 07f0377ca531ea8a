//! The raw mirror of `[upstreams]`: where services are, how many requests they get, and what those carry.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    form::{raw, words},
    tls::{RawClientTls, RawHttp2},
};
use crate::config::scalar::DurationText;

raw! {
    /// One service behind the gateway.
    struct RawUpstream {
        /// Shared address, such as `http://isp:8000`; not set where every tenant has its own, or with `endpoints`.
        origin: Option<String> = None,
        /// Several shared addresses instead of one `origin`: requests are balanced over them.
        endpoints: Vec<String> = Vec::new(),
        /// Addresses of single tenants, by tenant id; they win over the shared one.
        tenants: BTreeMap<String, String> = BTreeMap::new(),
        /// How often host names are looked up anew. All addresses of a name are endpoints.
        dns_refresh: DurationText = DurationText::of("30s"),
        /// Longest wait for a connection.
        connect_timeout: DurationText = DurationText::of("5s"),
        /// From request sent to response head.
        response_timeout: DurationText = DurationText::of("30s"),
        /// Idle connections kept, per worker and address.
        pool_idle: u32 = 64,
        /// Keep it below the upstream's own keep-alive.
        pool_idle_timeout: DurationText = DurationText::of("30s"),
        /// Requests under way at once to the shared address or endpoints, open streams included; above it the queue, or 503.
        max_in_flight: u32 = 1_000,
        /// The same to each address among `tenants`: it has places and a queue of its own, so that one that hangs takes nobody else's.
        tenant_max_in_flight: u32 = 250,
        /// How many of these places one organisation (a partner, or a tenant's own users) may have, so that none takes them all from the others; above it 503. Not set: half of them, rounded up. 0: all. A tenant at its own address may have all.
        organisation_max_in_flight: Option<u32> = None,
        /// Requests that wait for a place, in each queue; above it 503. 0: nothing waits.
        max_pending: u32 = 0,
        /// Longest wait in that queue; then 503.
        queue_timeout: DurationText = DurationText::of("1s"),
        /// Passive health: when an endpoint that fails requests is left alone. Only where there are several.
        outlier_detection: RawOutlier = RawOutlier::default(),
        /// How many requests may be tried at another endpoint.
        retry_budget: RawBudget = RawBudget::default(),
        /// Active health checks. Not set: none.
        health_check: Option<RawHealthCheck> = None,
        /// TLS to addresses with `https`.
        tls: RawClientTls = RawClientTls::default(),
        /// When HTTP/2 is spoken.
        http2: RawHttp2 = RawHttp2::Auto,
        /// HTTP/2 streams open at once on one connection; above it, or above what the service allows, another is opened.
        http2_streams: u32 = 100,
        /// What becomes of the client's credential in cross-tenant requests.
        credential: RawCredential = RawCredential::Replace,
        /// The upstream takes the tenant from X-Tenant-ID; needed for `credential = "pass"`.
        takes_tenant_from_header: bool = false,
        /// How the replacement token is signed and what it says.
        replacement: RawReplacement = RawReplacement::default(),
        /// The form of X-Linkgate-Assertion.
        assertion: RawAssertion = RawAssertion::Session,
        /// File with the key by which `request` assertions are signed by HMAC.
        assertion_hmac_file: Option<String> = None,
        /// Environment variable with that key.
        assertion_hmac_env: Option<String> = None,
        /// That key itself: only as an environment override, never in the file.
        assertion_hmac: Option<String> = None,
        /// `aud` of assertions and replacement tokens. Not set: the upstream's name.
        audience: Option<String> = None,
    }

    /// How a replacement token is signed and what it says.
    struct RawReplacement {
        /// File with the upstream's HS256 secret. None of the three set: the gateway's own key signs.
        hs256_secret_file: Option<String> = None,
        /// Environment variable with the upstream's HS256 secret.
        hs256_secret_env: Option<String> = None,
        /// The secret itself: only as an environment override, never in the file.
        hs256_secret: Option<String> = None,
        /// `iss` of the token. Not set: the gateway's own.
        issuer: Option<String> = None,
        /// Our permission names to the upstream's.
        permission_names: BTreeMap<String, Vec<String>> = BTreeMap::new(),
        /// Link roles to the upstream's role names.
        role_names: BTreeMap<String, Vec<String>> = BTreeMap::new(),
    }

    /// Passive health: when an endpoint that fails requests is left alone.
    struct RawOutlier {
        /// Failures in a row that eject it (no connection, broken off, no answer in time, 502, 503, 504); late answers and statuses only if not one tenant or organisation alone met them. 0: off.
        consecutive_failures: u32 = 5,
        /// How long it is left alone the first time; the n-th time in a row n times as long. Also how long late answers and statuses that one alone meets must last to count.
        base_ejection_time: DurationText = DurationText::of("30s"),
        /// Never longer than this.
        max_ejection_time: DurationText = DurationText::of("5m"),
        /// Share of the endpoints that may be ejected at once, in percent.
        max_ejection_percent: u32 = 50,
        /// Below this share of healthy endpoints, in percent, all are used as if they were healthy (panic). 0: only where none is.
        panic_threshold: u32 = 0,
    }

    /// How many requests may be tried at another endpoint, over the last ten seconds.
    struct RawBudget {
        /// Retries for each hundred requests.
        ratio_percent: u32 = 20,
        /// Retries a second that are granted in any case.
        min_per_second: u32 = 10,
    }

    /// Active health checks.
    struct RawHealthCheck {
        /// Path and query that are asked for, without credentials, such as `/healthz`.
        path: String = String::new(),
        /// From one check to the next, give or take a tenth.
        interval: DurationText = DurationText::of("10s"),
        /// For connection, request and answer together.
        timeout: DurationText = DurationText::of("2s"),
        /// Good checks in a row that make an unhealthy endpoint healthy.
        healthy_threshold: u32 = 2,
        /// Bad checks in a row that make a healthy endpoint unhealthy.
        unhealthy_threshold: u32 = 3,
        /// Statuses of a good check.
        expected_statuses: Vec<u16> = vec![200],
    }
}

words! {
    /// What becomes of the client's credential.
    enum RawCredential {
        /// Goes on as it came; needs `takes_tenant_from_header`.
        Pass = "pass",
        /// Is dropped.
        Drop = "drop",
        /// Is replaced by a token of the gateway's.
        Replace = "replace",
    }

    /// The form of X-Linkgate-Assertion.
    enum RawAssertion {
        /// None is sent.
        Off = "off",
        /// Signed once for many requests, at most 60 s old.
        Session = "session",
        /// Signed for each request, bound to method, path, query and decision.
        Request = "request",
    }
}
