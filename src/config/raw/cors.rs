//! The raw mirror of the section `cors`; see `raw`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::raw;
use crate::config::scalar::DurationText;

raw! {
    /// Pages of other origins (CORS). The gateway speaks for all upstreams: what they say of it is removed. With any origin named, it answers preflights itself.
    struct RawCors {
        /// Exact origins whose pages may read answers, such as `https://portal.example`; or `*` alone. None: no page of another origin.
        allowed_origins: Vec<String> = Vec::new(),
        /// Pages may send cookies and certificates along; never with `*`. Unsafe requests by cookie stay bound to the gateway's own origin.
        allow_credentials: bool = false,
        /// Request headers that pages may set, beside those that the gateway knows.
        allowed_headers: Vec<String> = Vec::new(),
        /// Response headers that pages may read, beside the gateway's own and those of downloads.
        exposed_headers: Vec<String> = Vec::new(),
        /// How long a browser may keep the answer to a preflight.
        max_age: DurationText = DurationText::of("10m"),
    }
}
