//! From ended spans to the collector: a bounded queue, batches, one HTTP request at a time (OTLP over HTTP, protobuf).
//!
//! A batch that fails is dropped: while a collector is away its spans are worth less than the memory to keep them.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{SpanMetrics, settings::TracingSettings};
use crate::{
    collector::{self, Collector, NotTaken},
    domain::TraceId,
    tls::{ClientTls, TlsError},
};

/// Most spans of one export: some 300 bytes each.
const BATCH: usize = 512;
/// How long a batch waits for more.
const LINGER: Duration = Duration::from_millis(500);

/// The exporter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SpansError {
    #[error("`tracing.tls` cannot be used")]
    Files(#[source] TlsError),
    #[error("TLS to the collector of `tracing.endpoint` cannot be set up")]
    Tls(#[source] rustls::Error),
}

#[derive(Debug)]
enum Item {
    Span(Box<Span>),
    /// Whoever waits wants to know that everything before was tried.
    Flush(oneshot::Sender<()>),
}

/// The way to the collector, under one configuration. Its task ends with the last handle, after what is queued.
#[derive(Debug)]
pub struct Spans {
    queue: mpsc::Sender<Item>,
    /// Of 2^56: a trace whose last 56 bits, which are random, are below it is sampled.
    below: u64,
    metrics: SpanMetrics,
}

impl Spans {
    /// Starts the task on this runtime.
    pub fn start(settings: &TracingSettings, metrics: &SpanMetrics) -> Result<Arc<Self>, SpansError> {
        let (queue, ended) = mpsc::channel(settings.queue);
        let exporter = Exporter::new(settings, metrics)?;
        tokio::spawn(exporter.run(ended));
        let below = (settings.sample_ratio.clamp(0.0, 1.0) * (1_u64 << 56) as f64) as u64;
        Ok(Arc::new(Self { queue, below, metrics: metrics.clone() }))
    }

    /// Whether a trace that begins here is sampled.
    pub(super) fn samples(&self, trace: TraceId) -> bool {
        let low = trace.bytes().iter().skip(9).fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
        low < self.below
    }

    pub(super) fn send(&self, span: Span) {
        if self.queue.try_send(Item::Span(Box::new(span))).is_err() {
            self.metrics.overflowed.inc();
        }
    }

    /// Spans that wait, and how many may.
    pub fn queued(&self) -> (usize, usize) {
        let most = self.queue.max_capacity();
        (most - self.queue.capacity(), most)
    }

    /// Waits until everything that was ended by now was sent or lost, at the longest this long.
    pub async fn flush(&self, patience: Duration) {
        let (done, told) = oneshot::channel();
        let flushed = timeout(patience, async {
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                told.await.ok();
            }
        });
        if flushed.await.is_err() {
            tracing::warn!("the last spans did not reach the collector in time");
        }
    }
}

struct Exporter {
    collector: Collector,
    settings: TracingSettings,
    metrics: SpanMetrics,
    resource: Resource,
    /// Told once each time that it changes.
    away: bool,
}

impl Exporter {
    fn new(settings: &TracingSettings, metrics: &SpanMetrics) -> Result<Self, SpansError> {
        let (settings, metrics) = (settings.clone(), metrics.clone());
        Ok(Self {
            collector: connector(&settings)?,
            settings,
            metrics,
            resource: collector::resource(None),
            away: false,
        })
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Item>) {
        let mut open = true;
        while open {
            let mut batch = Vec::new();
            let mut waiting = None;
            let mut until = None;
            while batch.len() < BATCH && waiting.is_none() {
                let next = match until {
                    None => queue.recv().await,
                    Some(until) => match tokio::time::timeout_at(until, queue.recv()).await {
                        Ok(next) => next,
                        Err(_) => break,
                    },
                };
                match next {
                    Some(Item::Span(span)) => batch.push(*span),
                    Some(Item::Flush(done)) => waiting = Some(done),
                    None => {
                        open = false;
                        break;
                    }
                }
                until.get_or_insert_with(|| tokio::time::Instant::now() + LINGER);
            }
            if !batch.is_empty() {
                self.export(batch).await;
            }
            if let Some(done) = waiting {
                // Nobody waits any more: that is theirs to tell.
                done.send(()).ok();
            }
        }
    }

    async fn export(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let body = self.body(batch);
        match self.post(body).await {
            Ok(refused) => {
                let refused = refused.min(count);
                self.metrics.exported.inc_by(count - refused);
                self.metrics.refused.inc_by(refused);
                if std::mem::take(&mut self.away) {
                    tracing::info!("the collector of `tracing.endpoint` takes spans again");
                }
            }
            Err(error) => {
                self.metrics.refused.inc_by(count);
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(%error, "spans are dropped (`linkgate_spans_dropped_total`); requests are not affected");
                }
                // Its certificate may lead to other roots by now.
                match connector(&self.settings) {
                    Ok(collector) => self.collector = collector,
                    Err(error) => {
                        tracing::warn!(%error, source = ?std::error::Error::source(&error), "the old files stay in use")
                    }
                }
            }
        }
    }

    fn body(&self, spans: Vec<Span>) -> Vec<u8> {
        let spans = ScopeSpans { scope: Some(collector::scope("linkgate")), spans, ..ScopeSpans::default() };
        let resource = Some(self.resource.clone());
        let spans = ResourceSpans { resource, scope_spans: vec![spans], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec()
    }

    /// How many of them the collector refused.
    async fn post(&self, body: Vec<u8>) -> Result<u64, NotTaken> {
        let told = self.collector.post(body).await?;
        // Taken, whatever the answer's body is: one that cannot be read refuses nothing.
        let partial = ExportTraceServiceResponse::decode(told).ok().and_then(|told| told.partial_success);
        Ok(partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)))
    }
}

fn connector(settings: &TracingSettings) -> Result<Collector, SpansError> {
    let secure = ClientTls::read(&settings.tls, &settings.collector.endpoint).map_err(SpansError::Files)?;
    Collector::new(settings.collector.clone(), secure).map_err(SpansError::Tls)
}
