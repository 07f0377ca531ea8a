//! What the spans room is configured with: valid by construction, made by `config`.

use crate::{collector::settings::CollectorSettings, tls::settings::ClientSettings};

/// Where spans go, and how many.
#[derive(Clone, Debug)]
pub struct TracingSettings {
    pub collector: CollectorSettings,
    pub tls: ClientSettings,
    /// Of requests that no believed caller has decided about: 0 none, 1 all.
    pub sample_ratio: f64,
    /// Spans that wait to be sent; further ones are dropped and counted.
    pub queue: usize,
}
