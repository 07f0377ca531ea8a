//! How full the gateway's queues are, and how long changes take to be known: read when somebody looks.
//!
//! Labels are words of this code and names of the configuration. What the database holds for all replicas (exports,
//! deliveries) stands in `portal::metrics`.

use prometheus::{Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry};

use crate::{audit::JournalStatus, proxy::worker::Gateway, server::workers::Workers};

/// Gauges that are set at each look.
pub struct Saturation {
    /// Waiting now, and the bound.
    handover: [IntGauge; 2],
    spans: [IntGauge; 2],
    journal_waiting: IntGauge,
}

impl Saturation {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let length = vec("linkgate_queue_length", "What waits in a queue of this process", "queue")?;
        let bound = vec("linkgate_queue_bound", "Most that may wait in a queue of this process", "queue")?;
        let of = |queue: &str| [length.with_label_values(&[queue]), bound.with_label_values(&[queue])];
        let journal = "linkgate_audit_waiting_requests";
        let journal_waiting = IntGauge::new(journal, "Requests that wait for their audit record to be written")?;
        registry.register(Box::new(journal_waiting.clone()))?;
        Ok(Self { handover: of("handover"), spans: of("spans"), journal_waiting })
    }

    pub fn refresh(&self, gateway: &Gateway, journal: &JournalStatus, workers: Option<&Workers>) {
        set(&self.handover, workers.map_or((0, 0), Workers::handed_over));
        set(&self.spans, gateway.spans.as_ref().map_or((0, 0), |spans| spans.queued()));
        self.journal_waiting.set(number(journal.waiting));
    }
}

/// Revocations, grants, suspensions: from the change to this process knowing it.
pub fn change_latency(registry: &Registry) -> Result<Histogram, prometheus::Error> {
    let opts = HistogramOpts::new(
        "linkgate_change_latency_seconds",
        "Time from a change of links, members or suspensions to the change feed of this process having applied it",
    );
    let histogram =
        Histogram::with_opts(opts.buckets(vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0]))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

fn set([length, bound]: &[IntGauge; 2], (waiting, most): (usize, usize)) {
    length.set(number(waiting));
    bound.set(number(most));
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
