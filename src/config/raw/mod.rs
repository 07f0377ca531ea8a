//! The raw mirror of the configuration file: what stands in it, before it means anything.
//!
//! The doc comments are the descriptions of the JSON Schema, and the schema is what the structure of a file is checked
//! against (`shape`), so a key is declared here once. Defaults stand in the `Default` implementations. `resolve` turns
//! this into [`super::settings::Config`].

pub(super) mod admin;
pub(super) mod audit;
pub(super) mod collector;
pub(super) mod connectors;
pub(super) mod cors;
pub(super) mod decision;
pub(super) mod form;
pub(super) mod identity;
pub(super) mod links;
pub(super) mod listen;
pub(super) mod log;
pub(super) mod policy;
pub(super) mod portal;
pub(super) mod route;
pub(super) mod tls;
pub(super) mod tracing;
pub(super) mod upstream;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    admin::RawAdmin,
    audit::RawAudit,
    connectors::RawConnector,
    cors::RawCors,
    decision::RawDecision,
    form::raw,
    identity::{RawIdentity, RawIssuer, RawSigning},
    links::{RawDatabase, RawLinks},
    listen::{RawHeaders, RawHealth, RawListen},
    log::RawLog,
    policy::{RawLimits, RawPolicy},
    portal::{RawAlerts, RawExports, RawPortal, RawWebhooks},
    route::RawRoute,
    tracing::RawTracing,
    upstream::RawUpstream,
};

raw! {
    /// The configuration of linkgate.
    struct RawConfig {
        /// The public listener and its limits.
        listen: RawListen = RawListen::default(),
        /// The listener for health, readiness and metrics.
        health: RawHealth = RawHealth::default(),
        /// The listener at which other proxies ask for decisions.
        decision: RawDecision = RawDecision::default(),
        /// The admin API: a listener of its own, for the tools of operators.
        admin: RawAdmin = RawAdmin::default(),
        /// Where partners, tenants, users and links are kept.
        database: RawDatabase = RawDatabase::default(),
        /// Freshness and caching of links.
        links: RawLinks = RawLinks::default(),
        /// How tokens travel and are cached.
        identity: RawIdentity = RawIdentity::default(),
        /// The issuers whose tokens are taken, by name. At least one.
        issuers: BTreeMap<String, RawIssuer> = BTreeMap::new(),
        /// Keys by which the gateway signs assertions and replacement tokens.
        signing: Option<RawSigning> = None,
        /// The policy set.
        policy: RawPolicy = RawPolicy::default(),
        /// The audit journal.
        audit: RawAudit = RawAudit::default(),
        /// Rate limits, such as `100/min`; 0 turns a limit off.
        limits: RawLimits = RawLimits::default(),
        /// Headers beyond the built-in list.
        headers: RawHeaders = RawHeaders::default(),
        /// Pages of other origins (CORS).
        cors: RawCors = RawCors::default(),
        /// The services behind the gateway, by name.
        upstreams: BTreeMap<String, RawUpstream> = BTreeMap::new(),
        /// Which request goes where and needs what. What is not named is refused.
        routes: Vec<RawRoute> = Vec::new(),
        /// The consolidated API for partners.
        portal: RawPortal = RawPortal::default(),
        /// Exports: files made in the background, for download.
        exports: RawExports = RawExports::default(),
        /// Alerts: when a link's sources are looked at.
        alerts: RawAlerts = RawAlerts::default(),
        /// Webhooks: telling partners what happens.
        webhooks: RawWebhooks = RawWebhooks::default(),
        /// How services are asked about tenants, by name.
        connectors: BTreeMap<String, RawConnector> = BTreeMap::new(),
        /// Logs on standard error.
        log: RawLog = RawLog::default(),
        /// Traces to a collector that speaks OpenTelemetry's OTLP.
        tracing: RawTracing = RawTracing::default(),
    }
}
