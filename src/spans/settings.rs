//! What the spans room is configured with: valid by construction, made by `config`.

use std::time::Duration;

use http::{HeaderMap, Uri};

/// Where spans go, and how many.
#[derive(Clone, Debug)]
pub struct TracingSettings {
    /// With its path: `https://collector:4318/v1/traces`.
    pub endpoint: Uri,
    /// Of requests that no believed caller has decided about: 0 none, 1 all.
    pub sample_ratio: f64,
    /// Sent with each export; values are secrets.
    pub headers: HeaderMap,
    /// From connect to the last byte of the collector's answer.
    pub timeout: Duration,
    /// Spans that wait to be sent; further ones are dropped and counted.
    pub queue: usize,
}
