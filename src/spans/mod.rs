//! Floor 1: spans of requests and of questions to upstreams, for a collector that speaks OTLP.
//!
//! A span is made only where its request is sampled; switched off, a request's way has one `None` more. Ended spans go into
//! a bounded queue and from there, in batches, to the collector (`export`). Nothing waits for it: what has no room, or what
//! the collector does not take, is dropped and counted.
//!
//! Spans end with the head of the answer, as `linkgate_response_head_seconds` does: a stream may last for hours. They hold
//! patterns, codes and ids, never a path, a query, a header, a tenant, a partner or a user: the decision id leads to the
//! audit record, which is better guarded than a collector.

pub mod settings;

mod export;

mod span;

pub use export::{Spans, SpansError};
pub use span::{ClientSpan, ServerSpan};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Counters of what became of spans; they last longer than a configuration.
#[derive(Clone, Debug)]
pub struct SpanMetrics {
    exported: IntCounter,
    /// The queue is full.
    overflowed: IntCounter,
    /// The collector did not take them.
    refused: IntCounter,
}

impl SpanMetrics {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let exported = IntCounter::new("linkgate_spans_exported_total", "Spans that the collector took")?;
        let opts = Opts::new("linkgate_spans_dropped_total", "Spans lost: the queue was full, or the collector away");
        let dropped = IntCounterVec::new(opts, &["reason"])?;
        registry.register(Box::new(exported.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(Self {
            exported,
            overflowed: dropped.with_label_values(&["queue_full"]),
            refused: dropped.with_label_values(&["collector"]),
        })
    }
}
