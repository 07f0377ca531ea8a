//! Spans while their work goes on. Dropped, they end; what was not told by then is missing in them.

use std::{
    cell::Cell,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{Method, StatusCode};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, Status, span::SpanKind, status::StatusCode as Outcome},
};

use super::export::Spans;
use crate::domain::{RemoteParent, Sampling, SpanId, Trace, TraceId, words};

/// The parent of a span was told by another process, and that is known (`SpanFlags` of OTLP), beside `sampled`.
const REMOTE: u32 = 0x301;
/// The parent, if any, is of this process.
const LOCAL: u32 = 0x101;

/// A request that was received and is sampled.
#[derive(Debug)]
pub struct ServerSpan {
    open: Open,
    trace_id: TraceId,
    id: SpanId,
    /// Whom upstreams are told as their parent: the last call, or the request itself where another proxy makes it.
    told: Cell<SpanId>,
}

/// A call of an upstream.
#[derive(Debug)]
pub struct ClientSpan {
    open: Open,
    id: SpanId,
}

impl Spans {
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
}

/// A span that is sent when it is dropped.
#[derive(Debug)]
struct Open {
    spans: Arc<Spans>,
    span: Span,
}

impl Open {
    fn new(spans: &Arc<Spans>, kind: SpanKind, trace: TraceId, id: SpanId) -> Self {
        let span = Span {
            trace_id: trace.bytes().to_vec(),
            span_id: id.bytes().to_vec(),
            flags: LOCAL,
            kind: kind.into(),
            start_time_unix_nano: now(),
            ..Span::default()
        };
        Self { spans: Arc::clone(spans), span }
    }

    fn text(&mut self, key: &str, value: &str) {
        self.set(key, Value::StringValue(value.to_owned()));
    }

    fn status(&mut self, status: u16) {
        self.set("http.response.status_code", Value::IntValue(i64::from(status)));
    }

    fn failed(&mut self, why: &str) {
        self.text("error.type", why);
        self.span.status = Some(Status { message: String::new(), code: Outcome::Error.into() });
    }

    fn set(&mut self, key: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.span.attributes.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.span.end_time_unix_nano = now();
        self.spans.send(std::mem::take(&mut self.span));
    }
}

impl ServerSpan {
    pub(super) fn begin(spans: &Arc<Spans>, trace_id: TraceId, parent: Option<RemoteParent>, method: &Method) -> Self {
        let id = SpanId::generate();
        let mut open = Open::new(spans, SpanKind::Server, trace_id, id);
        if let Some(parent) = parent {
            open.span.parent_span_id = parent.span.bytes().to_vec();
            open.span.flags = REMOTE;
        }
        let method = word(method);
        open.span.name = method.to_owned();
        open.text("http.request.method", method);
        Self { open, trace_id, id, told: Cell::new(id) }
    }

    pub fn id(&self) -> SpanId {
        self.id
    }

    /// The parent that upstreams are told.
    pub fn told(&self) -> SpanId {
        self.told.get()
    }

    /// A call that is made for this request; its upstream is told it as the parent.
    pub fn call(&self, upstream: &str, method: &Method) -> ClientSpan {
        let span = ClientSpan::begin(&self.open.spans, self.trace_id, self.id, upstream, method);
        self.told.set(span.id);
        span
    }

    /// The pattern that the path led to.
    pub fn route(&mut self, pattern: &str) {
        self.open.span.name = format!("{} {pattern}", self.open.span.name);
        self.open.text("http.route", pattern);
    }

    /// How a decision was asked for.
    pub fn face(&mut self, face: &str) {
        self.open.text("linkgate.face", face);
    }

    pub fn names(&mut self, request_id: &str, decision_id: Option<&str>) {
        self.open.text("linkgate.request_id", request_id);
        if let Some(id) = decision_id {
            self.open.text("linkgate.decision_id", id);
        }
    }

    /// Refused with this code for this reason. `None`: let through.
    pub fn decided(&mut self, refusal: Option<(&str, &str)>) {
        self.open.text("linkgate.decision", if refusal.is_some() { "deny" } else { "allow" });
        if let Some((code, reason)) = refusal {
            self.open.text("linkgate.code", code);
            self.open.text("linkgate.reason", reason);
        }
    }

    /// What the client got. A refusal is no error of ours; what is our fault or an upstream's is.
    pub fn answered(&mut self, status: StatusCode) {
        self.open.status(status.as_u16());
        if status.is_server_error() {
            self.open.failed(status.as_str());
        }
    }

    /// Nobody is there any more to be answered.
    pub fn left(&mut self) {
        self.open.failed(words::CLIENT_LEFT);
    }
}

impl ClientSpan {
    pub(super) fn begin(spans: &Arc<Spans>, trace: TraceId, parent: SpanId, upstream: &str, method: &Method) -> Self {
        let id = SpanId::generate();
        let mut open = Open::new(spans, SpanKind::Client, trace, id);
        open.span.parent_span_id = parent.bytes().to_vec();
        open.span.name = format!("{} {upstream}", word(method));
        open.text("http.request.method", word(method));
        open.text("linkgate.upstream", upstream);
        Self { open, id }
    }

    pub fn id(&self) -> SpanId {
        self.id
    }

    /// The head came.
    pub fn answered(mut self, status: StatusCode) {
        self.open.status(status.as_u16());
        if status.is_client_error() || status.is_server_error() {
            self.open.failed(status.as_str());
        }
    }

    /// No head came; `why` is a word of this code.
    pub fn failed(mut self, why: &'static str) {
        self.open.failed(why);
    }
}

/// A client may invent methods; they are none of our words.
fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        "TRACE" => "TRACE",
        _ => "_OTHER",
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
