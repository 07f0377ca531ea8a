//! The raw mirror of the policy set and of rate limits.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::raw;
use crate::config::scalar::{DurationText, QuotaText};

raw! {
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
        /// Calls of tenants' administrators (`/api/v1/tenant`), per user; counted beside `home`.
        tenant_admin: QuotaText = QuotaText::of("100/min"),
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
}
