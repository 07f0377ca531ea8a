//! The valid configuration of the consolidated API: reads, alerts, webhooks, exports.

use std::{path::PathBuf, time::Duration};

use crate::{domain::Secret, identity::VaultKey};

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
    pub secret_keys: Vec<VaultKey>,
}

/// Exports made in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSettings {
    /// Folder of the files; shared by replicas.
    pub dir: PathBuf,
    /// Of download links; `None`: made from the signing keys.
    pub secret: Option<Secret>,
    /// Worked on at once by this process.
    pub concurrency: usize,
    /// Most of one partner that wait or run.
    pub queue_per_partner: u64,
    /// A job that was not heard of for so long is given to another worker.
    pub lease: Duration,
    /// The longest that one file may take.
    pub max_duration: Duration,
    /// Most invoices of one PDF.
    pub pdf_rows: usize,
}
