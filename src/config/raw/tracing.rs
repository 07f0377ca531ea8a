//! The raw mirror of `[tracing]`; see `raw`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{collector::RawCollectorHeader, form::raw, tls::RawClientTls};
use crate::config::scalar::DurationText;

raw! {
    /// Traces to a collector that speaks OpenTelemetry's OTLP over HTTP.
    struct RawTracing {
        /// Where spans are posted, with the path, such as `https://collector:4318/v1/traces`. Not set: no spans are made.
        endpoint: Option<String> = None,
        /// The part of requests that is traced, from 0.0 to 1.0, where no trusted proxy has decided it in its `traceparent`.
        sample_ratio: f64 = 0.1,
        /// Headers of each export, by name: what the collector asks for.
        headers: BTreeMap<String, RawCollectorHeader> = BTreeMap::new(),
        /// TLS to an `https` address.
        tls: RawClientTls = RawClientTls::default(),
        /// Longest wait for the collector's answer.
        timeout: DurationText = DurationText::of("5s"),
        /// Most spans that wait to be sent; further ones are dropped and counted.
        queue: u32 = 8_192,
    }
}
