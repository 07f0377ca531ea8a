//! The raw mirror of the sections of the consolidated API; see `raw`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::raw;

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
        /// Most rows read of one list of one tenant; what is beyond is told as `truncated`.
        max_rows_per_source: u32 = 10_000,
    }
}
