//! The raw mirror of the sections of the consolidated API; see `raw`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{raw::raw, scalar::DurationText};

raw! {
    /// The consolidated API for partners: one answer over all their tenants.
    struct RawPortal {
        /// Off: its paths are routes like any other.
        enabled: bool = true,
        /// Paths that the partners' endpoints stand under.
        base_paths: Vec<String> = vec!["/api/v1/partner".to_owned()],
        /// Path that the endpoints of tenants' own administrators stand under.
        tenant_base_path: String = "/api/v1/tenant".to_owned(),
        /// Token roles that make a user an administrator of their own tenant.
        tenant_admin_roles: Vec<String> = vec!["tenant_admin".to_owned(), "admin".to_owned()],
    }

    /// Exports: files made in the background, for download.
    struct RawExports {
        /// Folder of the files; replicas share one. Not set: `exports` beside the SQLite file.
        dir: Option<String> = None,
        /// File that holds the secret of download links, the same for all replicas. Not set: made from the signing keys.
        secret_file: Option<String> = None,
        /// Environment variable that holds it.
        secret_env: Option<String> = None,
        /// The secret itself: only as an environment override, never in the file.
        secret: Option<String> = None,
        /// Exports that this process works on at once.
        concurrency: u32 = 2,
        /// Most exports of one partner that wait or run.
        queue_per_partner: u32 = 20,
        /// An export of a process that died is taken over after this.
        lease: DurationText = DurationText::of("30s"),
        /// Most invoices of one PDF; a CSV has no such bound.
        pdf_rows: u32 = 50_000,
    }
}
