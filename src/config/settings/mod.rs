//! The valid configuration: what `raw` resolves into and everything above reads.

mod admin;
mod portal;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    audit::{
        evidence::CheckpointSettings,
        settings::{AuditSettings, Durability},
        ship::settings::ShipSettings,
    },
    connector::ConnectorSettings,
    domain::{ApprovalRules, Permission},
    identity::{
        CertificateUser,
        settings::{IdentitySettings, SigningSettings},
    },
    limit::settings::LimitSettings,
    policy::settings::PolicySettings,
    spans::settings::TracingSettings,
    tls::settings::ServerSettings,
    upstream::settings::UpstreamSettings,
};

pub use admin::{AdminRole, AdminSettings, AdminToken, is_strong_admin_token};
pub use portal::{AlertSettings, ExportSettings, PortalSettings, ReadSettings, WebhookSettings};

/// One valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: ListenSettings,
    /// Health, readiness and metrics; a listener of its own.
    pub health: Option<SocketAddr>,
    /// The health listener shows the description of the consolidated API.
    pub api_docs: bool,
    /// Where other proxies ask; `None`: nowhere.
    pub decision: Option<DecisionSettings>,
    /// `None`: switched off.
    pub admin: Option<AdminSettings>,
    pub database: DatabaseSettings,
    pub links: LinkSettings,
    pub identity: IdentitySettings,
    pub signing: Option<SigningSettings>,
    pub policy: PolicySettings,
    pub audit: AuditSettings,
    /// Signed checkpoints of the audit chain.
    pub checkpoints: CheckpointSettings,
    /// Where the journal's lines go.
    pub ship: ShipSettings,
    /// How old audit records get; `None`: nothing goes by itself.
    pub retention: Option<Duration>,
    /// The journal is kept in the database (`audit.store = "postgres"`); its folder may be lost.
    pub kept_in_database: bool,
    pub limits: LimitSettings,
    pub headers: HeaderSettings,
    pub cors: CorsSettings,
    pub upstreams: Vec<UpstreamSettings>,
    pub routes: Vec<RouteSettings>,
    /// `None`: switched off.
    pub portal: Option<PortalSettings>,
    pub exports: ExportSettings,
    pub webhooks: WebhookSettings,
    /// How services are asked about tenants.
    pub connectors: Vec<ConnectorSettings>,
    pub log: LogSettings,
    /// Spans go to a collector; `None`: none are made.
    pub tracing: Option<TracingSettings>,
    /// Files that secrets were read from.
    pub secret_files: Vec<PathBuf>,
}

/// The public listener and its limits.
#[derive(Clone, Debug)]
pub struct ListenSettings {
    pub address: SocketAddr,
    /// Worker threads, each with a runtime of its own; 0: one a core.
    pub workers: usize,
    pub max_connections: usize,
    pub max_header_count: usize,
    pub max_header_bytes: usize,
    /// Longest request path and query, in bytes.
    pub max_uri_bytes: usize,
    /// Longest wait for a complete request head, idle keep-alive included.
    pub header_timeout: Duration,
    /// Longest gap between two pieces of a request body.
    pub body_idle_timeout: Duration,
    pub max_concurrent_streams: u32,
    /// How long open requests may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// `X-Forwarded-*` is believed only from these.
    pub trusted_proxies: Vec<IpNet>,
    /// Scheme told upstream in `X-Forwarded-Proto` where no trusted proxy says otherwise.
    pub public_scheme: String,
    /// `None`: cleartext.
    pub tls: Option<ServerSettings>,
    /// Whom client certificates stand for; the first that fits counts.
    pub clients: Vec<ClientRule>,
    /// Connections begin with a PROXY header, and come from these only. Empty: no PROXY protocol.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// Whom one client certificate stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRule {
    pub name: CertificateName,
    pub grant: CertificateGrant,
}

/// A name that a certificate must have, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    Spiffe(String),
    /// Lower case.
    Dns(String),
    CommonName(String),
    Subject(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateGrant {
    /// As if its address were in `trusted_proxies`.
    TrustedProxy,
    User(CertificateUser),
}

/// The listener for decisions. There is at least one caller.
#[derive(Clone, Debug)]
pub struct DecisionSettings {
    pub address: SocketAddr,
    pub max_connections: usize,
    /// Without a slash at the end. `None`: as callers name it.
    pub public_url: Option<String>,
    pub callers: Vec<DecisionCaller>,
}

/// A proxy or service that may ask for decisions.
#[derive(Clone, Debug)]
pub struct DecisionCaller {
    /// For logs and records.
    pub name: String,
    pub secret: crate::domain::Secret,
    /// Believed who the user is, without a token.
    pub authzen: bool,
    /// The `traceparent` of its checks over HTTP is no client's.
    pub own_traceparent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseSettings {
    Sqlite {
        path: PathBuf,
    },
    /// The URL may hold a password: never print it.
    Postgres {
        url: crate::domain::Secret,
        max_connections: u32,
    },
}

/// Freshness and caching of links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    pub max_staleness: Duration,
    pub heartbeat: Duration,
    /// Most partners cached.
    pub cached_partners: u64,
    pub approvals: ApprovalRules,
}

/// Pages of other origins.
#[derive(Clone, Debug)]
pub struct CorsSettings {
    /// `*`; then there are no `origins` and no `credentials`.
    pub any_origin: bool,
    /// Byte for byte as browsers send them.
    pub origins: Vec<String>,
    pub credentials: bool,
    /// Request headers that pages may set, as the answer has them.
    pub headers: http::HeaderValue,
    /// Response headers that pages may read, as the answer has them.
    pub exposed: http::HeaderValue,
    pub max_age: Duration,
}

impl CorsSettings {
    /// Whether any origin is named: only then the gateway speaks of it at all.
    pub fn is_on(&self) -> bool {
        self.any_origin || !self.origins.is_empty()
    }
}

/// Headers beyond the contract's own list.
#[derive(Clone, Debug)]
pub struct HeaderSettings {
    /// Further client headers to strip, lower case.
    pub strip: Vec<String>,
    /// Cookies that are credentials, the one of `identity.cookie` included: a cross-tenant request loses them, and an answer to one
    /// sets none of them.
    pub session_cookies: Vec<String>,
    /// A verified platform admin may keep `X-Target-Tenant-ID`.
    pub platform_admin_target: bool,
}

/// One line of the route table: first all exact segments, then parameters; overlaps are reported at start.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// Upper-case methods; `["*"]` any method that is not TRACE or CONNECT.
    pub methods: Vec<String>,
    /// `/api/v1/tickets/{ticket_id}`; `{tenant_id}` names the tenant; a last segment `{*rest}` takes all that follows.
    pub path: String,
    pub access: Access,
    /// Name of the upstream; `None` only for `deny`.
    pub upstream: Option<String>,
    /// `read`, `write` or `export`; by default from the permission's kind, else from the method.
    pub class: RouteClass,
    pub durability: Durability,
    /// Longest request body in bytes.
    pub max_body_bytes: u64,
    /// From the request's head to the response's head; the upstream's own where `None`.
    pub response_timeout: Option<Duration>,
    /// From the request's head to the end of the response's body; `None`: as long as it lasts.
    pub total_timeout: Option<Duration>,
    /// JSON pointers that a request body must not hold, such as `/tenant_id`; names in any case.
    pub refuse_body_fields: Vec<String>,
    /// `Cache-Control` from the upstream is kept instead of `private, no-store`.
    pub keep_cache_control: bool,
    /// For messages: where in the file the rule stands.
    pub line: usize,
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Permission(Permission),
    /// Own tenant only.
    Home,
    /// Neither token nor tenant is read.
    Public,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteClass {
    Read,
    Write,
    Export,
}

impl RouteClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Export => "export",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub json: bool,
    /// `tracing` filter, such as `info,linkgate=debug`.
    pub filter: String,
    /// One line a request at level info.
    pub requests: bool,
}
