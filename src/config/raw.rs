//! The raw mirror of the configuration file: what stands in it, before it means anything.
//!
//! The doc comments are the descriptions of the JSON Schema, and the schema is what the structure of a file is checked
//! against (`shape`), so a key is declared here once. Defaults stand in the `Default` implementations. `resolve` turns
//! this into [`super::settings::Config`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    raw_admin::RawAdmin,
    raw_audit::{RawAudit, RawDurability},
    raw_connectors::RawConnector,
    raw_cors::RawCors,
    raw_decision::RawDecision,
    raw_log::RawLog,
    raw_portal::{RawAlerts, RawExports, RawPortal, RawWebhooks},
    raw_tls::RawTls,
    raw_tracing::RawTracing,
    raw_upstream::RawUpstream,
    scalar::{DurationText, QuotaText, SizeText},
};

macro_rules! raw {
    ($($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name { $($(#[$field_doc])* pub(super) $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    )+};
}

pub(super) use raw;

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

    /// The public listener and its limits.
    struct RawListen {
        /// Address and port.
        address: String = "127.0.0.1:8080".to_owned(),
        /// Worker threads, each with a runtime of its own; 0: one a core.
        workers: u16 = 0,
        /// Most connections open at once; further ones are closed at once.
        max_connections: u32 = 10_000,
        /// Most headers of one request.
        max_header_count: u16 = 100,
        /// Longest request head.
        max_header_size: SizeText = SizeText::of("32KiB"),
        /// Longest path and query.
        max_uri_size: SizeText = SizeText::of("8KiB"),
        /// Longest wait for a complete request head, idle keep-alive included.
        header_timeout: DurationText = DurationText::of("30s"),
        /// Longest gap between two pieces of a request body.
        body_idle_timeout: DurationText = DurationText::of("30s"),
        /// HTTP/2 streams open at once in one connection.
        max_concurrent_streams: u32 = 100,
        /// How long open requests may go on after SIGTERM.
        drain_timeout: DurationText = DurationText::of("30s"),
        /// Networks of proxies whose X-Forwarded-* headers are believed.
        trusted_proxies: Vec<String> = Vec::new(),
        /// Scheme that clients use, where no trusted proxy says otherwise: told upstream, and what the origin of a page must
        /// have whose browser sends a cookie.
        public_scheme: RawScheme = RawScheme::Http,
        /// Networks of load balancers whose connections begin with a PROXY header (version 2). With any, connections from elsewhere are closed.
        proxy_protocol_from: Vec<String> = Vec::new(),
        /// TLS on this listener, HTTP/2 by ALPN. Not set: cleartext. With it `public_scheme` is always `https`.
        tls: Option<RawTls> = None,
    }

    /// The listener for health, readiness and metrics.
    struct RawHealth {
        /// Off: no such listener.
        enabled: bool = true,
        /// Address and port; keep it off public networks.
        address: String = "127.0.0.1:8081".to_owned(),
        /// Show the description of the consolidated API: /openapi.json, and /docs to read it.
        api_docs: bool = false,
    }

    /// Where partners, tenants, users and links are kept: SQLite, unless a Postgres URL is given.
    struct RawDatabase {
        /// SQLite file. Not set, and no Postgres URL either: `linkgate.db`.
        sqlite: Option<String> = None,
        /// File that holds the Postgres URL.
        postgres_url_file: Option<String> = None,
        /// Environment variable that holds the Postgres URL.
        postgres_url_env: Option<String> = None,
        /// The Postgres URL itself: only as an environment override, never in the file.
        postgres_url: Option<String> = None,
        /// Most Postgres connections.
        max_connections: u32 = 16,
    }

    /// Freshness and caching of links.
    struct RawLinks {
        /// Older link data refuses cross-tenant requests with LINKS_STALE.
        max_staleness: DurationText = DurationText::of("1s"),
        /// Beat of the change feed; at most half of max_staleness.
        heartbeat: DurationText = DurationText::of("250ms"),
        /// Most partners whose links are cached.
        cached_partners: u64 = 100_000,
        /// New, widened and re-activated links wait for approval.
        require_approval: bool = false,
        /// Who created or last widened a link may not approve it. Needs require_approval.
        four_eyes: bool = false,
    }

    /// How tokens travel and are cached.
    struct RawIdentity {
        /// A cookie that may carry the token; unsafe methods must then pass a same-origin check. Not set: header only.
        cookie: Option<String> = None,
        /// Verified tokens cached, per worker.
        cache_tokens: u32 = 20_000,
    }

    /// One token issuer. Its keys come from exactly one place.
    struct RawIssuer {
        /// Expected `iss`.
        issuer: Option<String> = None,
        /// Takes only tokens without `iss`. At most one issuer may be so, and it has no `issuer`.
        legacy: bool = false,
        /// Accepted `aud` values; may be empty only for the legacy issuer.
        audiences: Vec<String> = Vec::new(),
        /// Pinned algorithms. HS256 stands alone and needs a secret.
        algorithms: Vec<RawAlgorithm> = Vec::new(),
        /// JWKS file.
        jwks_file: Option<String> = None,
        /// JWKS URL: https, or http on a loopback address.
        jwks_url: Option<String> = None,
        /// How often the URL is fetched anew.
        jwks_refresh: DurationText = DurationText::of("5m"),
        /// Shortest time between fetches caused by an unknown `kid`.
        jwks_min_refetch: DurationText = DurationText::of("10s"),
        /// How long the last good keys are kept through an outage.
        jwks_max_age: DurationText = DurationText::of("24h"),
        /// File that holds the HS256 secret, at least 32 bytes.
        hs256_secret_file: Option<String> = None,
        /// Environment variable that holds the HS256 secret.
        hs256_secret_env: Option<String> = None,
        /// The HS256 secret itself: only as an environment override, never in the file.
        hs256_secret: Option<String> = None,
        /// Claims that this issuer is believed for.
        trusts: Vec<RawTrust> = Vec::new(),
        /// Home tenants that it may speak for. Not set: any.
        home_tenants: Option<Vec<String>> = None,
        /// Longest age by `iat` for cross-tenant requests. Not set: off.
        max_token_age: Option<DurationText> = None,
        /// Clock leeway, at most 60 s.
        leeway: DurationText = DurationText::of("0s"),
        /// `acr` values that show MFA, beside `amr` containing `mfa`.
        mfa_acr: Vec<String> = Vec::new(),
        /// Names of claims.
        claims: RawClaims = RawClaims::default(),
        /// Private key by which `linkgate token` mints for this issuer; only where all listeners that take tokens are loopback ones, and `algorithms` lists what it signs by. No other keys named: its public part is the key set.
        development_key: Option<String> = None,
    }

    /// Names of claims.
    struct RawClaims {
        /// Home tenant.
        tenant_id: String = "tenant_id".to_owned(),
        /// Partner.
        partner_id: String = "partner_id".to_owned(),
        /// User roles.
        roles: String = "roles".to_owned(),
        /// Permissions.
        permissions: String = "permissions".to_owned(),
        /// Session.
        session_id: String = "session_id".to_owned(),
        /// Platform administrator.
        is_platform_admin: String = "is_platform_admin".to_owned(),
        /// User name, for the audit record.
        username: String = "username".to_owned(),
        /// Mail address.
        email: String = "email".to_owned(),
        /// Tells an access token from a refresh token.
        token_type: String = "type".to_owned(),
    }

    /// Keys by which the gateway signs assertions and replacement tokens.
    struct RawSigning {
        /// The gateway's own `iss`; a token that carries it is refused at the door.
        issuer: String = String::new(),
        /// The first key signs; all are published at /.well-known/linkgate/jwks.json.
        keys: Vec<RawSigningKey> = Vec::new(),
    }

    /// One signing key.
    struct RawSigningKey {
        /// Key id.
        kid: String = String::new(),
        /// PKCS#8 PEM file, Ed25519 or P-256.
        file: String = String::new(),
    }

    /// The policy set.
    struct RawPolicy {
        /// Folder with schema.cedarschema, roles.toml and guardrails/*.cedar. Not set: the set built in.
        dir: Option<String> = None,
        /// Decisions remembered, per worker.
        memo_entries: u32 = 65_536,
        /// `false`: guardrails and role rules refuse nothing, they only note what they would refuse (log-only rollout).
        enforce: bool = true,
        /// Folder of a second policy set that is asked beside the one in force and never enforced (shadow mode).
        shadow: Option<String> = None,
    }

    /// Rate limits, such as `100/min`; 0 turns a limit off.
    struct RawLimits {
        /// Lists of the partner API, per partner.
        listing: QuotaText = QuotaText::of("100/min"),
        /// Single objects of the partner API, per partner.
        detail: QuotaText = QuotaText::of("200/min"),
        /// Writes of the partner API, per partner.
        write: QuotaText = QuotaText::of("50/min"),
        /// Exports, per partner.
        export: QuotaText = QuotaText::of("10/h"),
        /// Requests that name an active tenant, per partner and tenant.
        tenant: QuotaText = QuotaText::of("500/min"),
        /// Refusals, per partner.
        refusal: QuotaText = QuotaText::of("1000/min"),
        /// Requests without a valid token, per address.
        unauthenticated: QuotaText = QuotaText::of("6000/min"),
        /// Home requests, per user.
        home: QuotaText = QuotaText::Number(0),
        /// Other `tenant` limits for single partners, by partner id.
        partners: BTreeMap<String, QuotaText> = BTreeMap::new(),
        /// Other `tenant` limits for single links, by link id.
        links: BTreeMap<String, QuotaText> = BTreeMap::new(),
        /// Most counters kept in memory.
        max_keys: u32 = 200_000,
        /// Redis or Valkey by which replicas count together, such as `redis://10.0.0.7:6379/0` (`rediss://`: by TLS).
        /// Without it each replica counts for itself.
        redis_url: Option<String> = None,
        /// File that holds it.
        redis_url_file: Option<String> = None,
        /// Environment variable that holds it.
        redis_url_env: Option<String> = None,
        /// Before the names of all counters there. The same for all replicas that count together.
        redis_prefix: String = "linkgate".to_owned(),
        /// How often replicas tell each other what they counted.
        sync_interval: DurationText = DurationText::of("50ms"),
    }

    /// Headers beyond the built-in list.
    struct RawHeaders {
        /// Further client headers to strip.
        strip: Vec<String> = Vec::new(),
        /// Cookies that are credentials; dropped in cross-tenant requests.
        session_cookies: Vec<String> = vec!["access_token".to_owned(), "refresh_token".to_owned()],
        /// A verified platform admin may keep X-Target-Tenant-ID.
        platform_admin_target: bool = false,
    }

    /// One rule of the route table.
    struct RawRoute {
        /// Upper-case methods, or `["*"]` for any but TRACE and CONNECT.
        methods: Vec<String> = Vec::new(),
        /// Such as `/tickets/{ticket_id}`; `{tenant_id}` names the tenant; `{*rest}` takes all that follows.
        path: String = String::new(),
        /// The permission it needs; or else `access`.
        permission: Option<String> = None,
        /// Who may use it where no permission is named.
        access: Option<RawAccess> = None,
        /// Name of the upstream; none for `deny`.
        upstream: Option<String> = None,
        /// Not set: from the permission's kind, else from the methods.
        class: Option<RawClass> = None,
        /// Not set: `audit.reads` or `audit.writes` by class.
        durability: Option<RawDurability> = None,
        /// Longest request body.
        max_body: SizeText = SizeText::of("10MiB"),
        /// From the request's head to the response's head. Not set: the upstream's.
        response_timeout: Option<DurationText> = None,
        /// From the request's head to the end of the response. Not set: as long as it lasts.
        total_timeout: Option<DurationText> = None,
        /// JSON pointers that a request body must not hold, such as `/tenant_id`.
        refuse_body_fields: Vec<String> = Vec::new(),
        /// Keep the upstream's Cache-Control.
        keep_cache_control: bool = false,
    }
}

/// The word as it stands in the file.
pub(super) fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

macro_rules! words {
    ($($(#[$doc:meta])* enum $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub(super) enum $name { $($(#[$word_doc])* #[serde(rename = $text)] $word,)+ }
    )+};
}

pub(super) use words;

words! {
    /// Scheme of the public address.
    enum RawScheme { Http = "http", Https = "https", }

    /// JWA names.
    enum RawAlgorithm {
        Hs256 = "HS256", Rs256 = "RS256", Rs384 = "RS384", Rs512 = "RS512", Ps256 = "PS256", Ps384 = "PS384",
        Ps512 = "PS512", Es256 = "ES256", Es384 = "ES384", EdDsa = "EdDSA",
    }

    /// Claims that an issuer can be believed for.
    enum RawTrust {
        PartnerId = "partner_id", Roles = "roles", Permissions = "permissions", IsPlatformAdmin = "is_platform_admin",
    }

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

    /// Who may use a route that names no permission.
    enum RawAccess {
        /// The own tenant only.
        Home = "home",
        /// Anyone; neither token nor tenant is read.
        Public = "public",
        /// Nobody.
        Deny = "deny",
    }

    /// Class of a route.
    enum RawClass { Read = "read", Write = "write", Export = "export", }
}
