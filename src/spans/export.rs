//! From ended spans to the collector: a bounded queue, batches, one HTTP request at a time (OTLP over HTTP, protobuf).
//!
//! A batch that fails is dropped: while a collector is away its spans are worth less than the memory to keep them.

use std::{error::Error as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{ClientSpan, ServerSpan, SpanMetrics, settings::TracingSettings};
use crate::domain::{RemoteParent, Sampling, Trace, TraceId};

/// Most spans of one export: some 300 bytes each.
const BATCH: usize = 512;
/// How long a batch waits for more.
const LINGER: Duration = Duration::from_millis(500);
/// A collector has little to say.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The exporter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SpansError {
    #[error("TLS to the collector of `tracing.endpoint` cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the collector does not answer within `tracing.timeout`")]
    Timeout,
    #[error("the collector cannot be reached or broke off: {0}")]
    Exchange(String),
    #[error("the collector answered with status {0}")]
    Status(StatusCode),
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

    /// The span of a request, if it is sampled: as a believed caller has decided, else by the trace id.
    pub fn request(
        self: &Arc<Self>,
        trace: TraceId,
        parent: Option<RemoteParent>,
        method: &Method,
    ) -> Option<Box<ServerSpan>> {
        let sampled = parent.map_or_else(|| self.samples(trace), |parent| parent.sampled);
        sampled.then(|| Box::new(ServerSpan::begin(self, trace, parent, method)))
    }

    /// The span of a question that is asked on a request's behalf, if the request has one.
    pub fn question(self: &Arc<Self>, trace: &Trace, upstream: &str, method: &Method) -> Option<ClientSpan> {
        match trace.sampling {
            Sampling::Under(parent) => Some(ClientSpan::begin(self, trace.trace_id, parent, upstream, method)),
            Sampling::Out | Sampling::Unasked => None,
        }
    }

    fn samples(&self, trace: TraceId) -> bool {
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
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    settings: TracingSettings,
    metrics: SpanMetrics,
    resource: Resource,
    /// Told once each time that it changes.
    away: bool,
}

impl Exporter {
    fn new(settings: &TracingSettings, metrics: &SpanMetrics) -> Result<Self, SpansError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(settings.timeout));
        let https = settings.endpoint.scheme_str() == Some("https");
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls(https).map_err(SpansError::Tls)?);
        let builder = if https { builder.https_only() } else { builder.https_or_http() };
        let connector = builder.enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        let resource = Resource {
            attributes: vec![text("service.name", "linkgate"), text("service.version", env!("CARGO_PKG_VERSION"))],
            ..Resource::default()
        };
        Ok(Self { client, settings: settings.clone(), metrics: metrics.clone(), resource, away: false })
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
        let sent = timeout(self.settings.timeout, self.post(body)).await.unwrap_or(Err(Lost::Timeout));
        match sent {
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
            }
        }
    }

    fn body(&self, spans: Vec<Span>) -> Vec<u8> {
        let scope = InstrumentationScope { name: "linkgate".to_owned(), ..InstrumentationScope::default() };
        let spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
        let resource = Some(self.resource.clone());
        let spans = ResourceSpans { resource, scope_spans: vec![spans], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec()
    }

    /// How many of them the collector refused.
    async fn post(&self, body: Vec<u8>) -> Result<u64, Lost> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::clone(&self.settings.endpoint);
        *request.headers_mut() = self.settings.headers.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let agent = HeaderValue::from_static(concat!("linkgate/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let answer = self.client.request(request).await.map_err(|error| {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            Lost::Exchange(format!("{error}{cause}"))
        })?;
        if !answer.status().is_success() {
            return Err(Lost::Status(answer.status()));
        }
        let told = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let told = told.map_err(|error| Lost::Exchange(error.to_string()))?.to_bytes();
        // Taken, whatever the answer's body is: one that cannot be read refuses nothing.
        let partial = ExportTraceServiceResponse::decode(told).ok().and_then(|told| told.partial_success);
        Ok(partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)))
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn tls(platform_roots: bool) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    if platform_roots {
        Ok(builder.with_platform_verifier()?.with_no_client_auth())
    } else {
        Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
    }
}
