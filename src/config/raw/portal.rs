//! The raw mirror of the sections of the consolidated API; see `raw`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::raw;
use crate::config::scalar::{DurationText, SizeText};

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
        /// Paths under which `/customers` and `/customers/{id}` answer in the shape that older browser clients expect.
        compatibility_base_paths: Vec<String> = Vec::new(),
        /// Longest time for one consolidated read; what has not come by then is missing from the answer.
        deadline: DurationText = DurationText::of("5s"),
        /// Longest time for one tenant's part of it, waiting included; at most `deadline`.
        source_timeout: DurationText = DurationText::of("3s"),
        /// Tenants asked at once for one request.
        concurrency: u32 = 256,
        /// Questions to one upstream under way at once, over all requests.
        concurrency_per_upstream: u32 = 500,
        /// Questions under way at once, over all upstreams and requests.
        concurrency_total: u32 = 1024,
        /// Second tries for the slowest reads, in per cent of all reads; 0: none.
        hedge_percent: u32 = 5,
        /// Failures in a row after which a tenant is not asked for a kind of data, by each partner; 0: always asked.
        breaker_failures: u32 = 5,
        /// How long it is not asked then; after it one question at a time tries.
        breaker_pause: DurationText = DurationText::of("10s"),
        /// A cached slice is shown without asking again for so long; 0s: never.
        slice_fresh: DurationText = DurationText::of("15s"),
        /// A cached slice is `ok` for so long, and asked for again in the background.
        max_slice_age: DurationText = DurationText::of("60s"),
        /// A cached slice stands in, as `stale`, for a source that fails, for so long.
        max_stale_age: DurationText = DurationText::of("10m"),
        /// Memory for cached slices.
        slice_cache: SizeText = SizeText::of("256MiB"),
    }

    /// Alerts: when a link's sources are looked at.
    struct RawAlerts {
        /// Off, or without a connector: links are looked at only when somebody asks.
        background: bool = true,
        /// How often each link is looked at in the background.
        interval: DurationText = DurationText::of("5m"),
        /// Links looked at at once, by this process.
        concurrency: u32 = 8,
        /// Longest wait for the sources of one link, in the background.
        timeout: DurationText = DurationText::of("15s"),
        /// A request looks again at links that were not looked at for this long.
        fresh_for: DurationText = DurationText::of("1m"),
        /// How long resolved alerts are kept.
        keep_resolved: DurationText = DurationText::of("90d"),
    }

    /// Webhooks: telling partners what happens.
    struct RawWebhooks {
        /// Off: events are kept and sent once it is on.
        enabled: bool = true,
        /// Longest wait for one answer, connecting included.
        timeout: DurationText = DurationText::of("10s"),
        /// Tries of one delivery before it is dead.
        attempts: u32 = 8,
        /// Wait after the first failed try; each further wait is four times as long.
        first_retry: DurationText = DurationText::of("15s"),
        /// Deliveries under way at once, by this process.
        concurrency: u32 = 16,
        /// Deliveries under way at once to one subscription.
        concurrency_per_subscription: u32 = 4,
        /// Plain http addresses are taken too.
        allow_http: bool = false,
        /// Private and loopback addresses are taken too; link-local ones never.
        allow_private: bool = false,
        /// Days before the end of a link on which its partner is told.
        expiry_notice_days: Vec<u32> = vec![30, 7, 1],
        /// How long deliveries that were sent or dropped are kept.
        keep_delivered: DurationText = DurationText::of("7d"),
        /// How long dead letters are kept.
        keep_dead: DurationText = DurationText::of("30d"),
        /// Keys by which the secrets of subscriptions are encrypted in the database: the first encrypts, all decrypt.
        secret_keys: Vec<RawSecretKey> = Vec::new(),
    }

    /// One key for secrets at rest.
    struct RawSecretKey {
        /// Key id; stands beside what the key encrypted, so it never names another key.
        kid: String = String::new(),
        /// File that holds the key: at least 32 bytes that nobody can guess, the same for all replicas and the CLI.
        key_file: Option<String> = None,
        /// Environment variable that holds it.
        key_env: Option<String> = None,
        /// The key itself: only as an environment override, never in the file.
        key: Option<String> = None,
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
        /// Exports that this process works on at once. Of several the last one is kept for partners that have none under way.
        concurrency: u32 = 2,
        /// Most exports of one partner that wait or run.
        queue_per_partner: u32 = 20,
        /// An export of a process that died is taken over after this.
        lease: DurationText = DurationText::of("30s"),
        /// The longest that one export may take; then it fails. A tenant that hangs takes up to 45 minutes by itself.
        max_duration: DurationText = DurationText::of("1h"),
        /// Most invoices of one PDF; a CSV has no such bound.
        pdf_rows: u32 = 50_000,
    }
}
