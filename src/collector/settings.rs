//! What a collector is reached by: valid by construction, made by `config`.

use std::time::Duration;

use http::{HeaderMap, Uri};

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorSettings {
    /// With its path: `https://collector:4318/v1/traces`.
    pub endpoint: Uri,
    /// Sent with each post; values are secrets.
    pub headers: HeaderMap,
    /// From connect to the last byte of the collector's answer.
    pub timeout: Duration,
}
