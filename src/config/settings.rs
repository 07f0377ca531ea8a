//! The valid configuration: what `raw` resolves into and everything above reads.

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
    limit::settings::{LimitSettings, Quota},
    policy::settings::PolicySettings,
    spans::settings::TracingSettings,
    tls::settings::ServerSettings,
    upstream::settings::UpstreamSettings,
};

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
}

/// The admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    pub address: SocketAddr,
    /// At least one.
    pub tokens: Vec<AdminToken>,
    /// Requests of one address without a valid token; `requests` of 0: no limit.
    pub unauthenticated: Quota,
    /// `None`: cleartext.
    pub tls: Option<ServerSettings>,
}

/// Who may call the admin API. The token itself is not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    pub name: String,
    pub role: AdminRole,
    /// SHA-256 of the token.
    pub digest: [u8; 32],
    /// By which four eyes know its holder too, such as `cli:ann`.
    pub account: Option<String>,
}

impl std::fmt::Debug for AdminToken {
    /// Never the digest.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminToken").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// What a token of the admin API may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdminRole {
    /// Reads.
    Viewer,
    /// Reads and changes.
    Operator,
    /// Reads, suspends, restores and revokes.
    Security,
}

impl AdminRole {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Security];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Security => "security",
        }
    }
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

/// The consolidated API.
#[derive(Clone, Debug)]
pub struct PortalSettings {
    /// Without a slash at the end.
    pub base_paths: Vec<String>,
    pub tenant_base_path: String,
    /// Token roles of a tenant's own administrators.
    pub tenant_admin_roles: Vec<String>,
    /// Most rows read of one list of one tenant.
    pub max_rows_per_source: u64,
    /// Without a slash at the end; here customers are shown as older browser clients expect them.
    pub compatibility_base_paths: Vec<String>,
    pub reads: ReadSettings,
    pub alerts: AlertSettings,
}

/// How the consolidated API asks many tenants at once.
#[derive(Clone, Debug)]
pub struct ReadSettings {
    /// For one request.
    pub deadline: Duration,
    /// For one tenant's part of it; at most `deadline`.
    pub source_timeout: Duration,
    /// Tenants asked at once for one request.
    pub concurrency: usize,
    /// Questions to one upstream under way at once.
    pub concurrency_per_upstream: usize,
    /// Questions under way at once.
    pub concurrency_total: usize,
    /// Per cent of all reads; 0: no second tries.
    pub hedge_percent: u32,
    /// Failures in a row; 0: no breaker.
    pub breaker_failures: u32,
    pub breaker_pause: Duration,
    /// Ascending: `slice_fresh`, `max_slice_age`, `max_stale_age`.
    pub slice_fresh: Duration,
    pub max_slice_age: Duration,
    pub max_stale_age: Duration,
    pub slice_cache_bytes: u64,
}

/// When a link's sources are looked at for alerts.
#[derive(Clone, Debug)]
pub struct AlertSettings {
    pub background: bool,
    pub interval: Duration,
    /// Links looked at at once.
    pub concurrency: usize,
    /// For the sources of one link, in the background.
    pub timeout: Duration,
    pub fresh_for: Duration,
    pub keep_resolved: Duration,
}

/// How partners are told what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSettings {
    pub enabled: bool,
    pub timeout: Duration,
    pub attempts: u32,
    pub first_retry: Duration,
    pub concurrency: usize,
    pub concurrency_per_subscription: usize,
    pub allow_http: bool,
    pub allow_private: bool,
    /// Ascending, each once.
    pub expiry_notice_days: Vec<u32>,
    pub keep_delivered: Duration,
    pub keep_dead: Duration,
    /// For secrets in the database; the first seals. Empty: they stand there as they are.
    pub secret_keys: Vec<crate::identity::VaultKey>,
}

/// Exports made in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSettings {
    /// Folder of the files; shared by replicas.
    pub dir: PathBuf,
    /// Of download links; `None`: made from the signing keys.
    pub secret: Option<crate::domain::Secret>,
    /// Worked on at once by this process.
    pub concurrency: usize,
    /// Most of one partner that wait or run.
    pub queue_per_partner: u64,
    /// A job that was not heard of for so long is given to another worker.
    pub lease: Duration,
    /// Most invoices of one PDF.
    pub pdf_rows: usize,
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
    /// Cookies that are credentials; dropped in cross-tenant requests.
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
    /// JSON pointers that a request body must not hold, such as `/tenant_id`.
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

/// Shortest token: 32 bytes in base64 without padding.
const ADMIN_TOKEN_MIN_CHARS: usize = 43;
/// The same in hex.
const ADMIN_TOKEN_MIN_HEX: usize = 64;
/// Fewer different characters in so long a random text would be no chance.
const ADMIN_TOKEN_MIN_VARIETY: usize = 10;

/// Whether a token of the admin API can hold 32 random bytes. Asked of what is configured and of what is shown, so that
/// the digest of a short password opens nothing either.
pub fn is_strong_admin_token(token: &[u8]) -> bool {
    let plain = token.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'/' | b'='));
    let least = if token.iter().all(u8::is_ascii_hexdigit) { ADMIN_TOKEN_MIN_HEX } else { ADMIN_TOKEN_MIN_CHARS };
    let variety = token.iter().collect::<std::collections::HashSet<_>>().len();
    plain && (least..=1024).contains(&token.len()) && variety >= ADMIN_TOKEN_MIN_VARIETY
}
