//! The raw mirror of the database and of what is kept of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::raw;
use crate::config::scalar::DurationText;

raw! {
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
}
