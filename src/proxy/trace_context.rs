//! Whose trace a request is a part of (W3C Trace Context).
//!
//! A `traceparent` is believed from whoever asks for a decision and was authenticated, and from trusted proxies; from anybody
//! else it is ignored, as all that clients say of themselves, and a trace of our own begins. So does one where the field
//! stands twice or is none. Nothing goes on as it came: `outgoing` writes both fields anew, from what was read here.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{
    forwarded,
    headers::{Single, single},
    peer::Peer,
    worker::Worker,
};
use crate::{
    domain::{RemoteParent, TraceId, TraceState},
    spans::ServerSpan,
};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A request's place in traces, as its trail has it. Where nobody traces it is an id and nothing else.
#[derive(Debug)]
pub struct TraceContext {
    pub id: TraceId,
    pub span: Option<Box<ServerSpan>>,
    pub recorded: bool,
    pub believed: Option<Box<Believed>>,
}

/// What a caller who is believed told of its trace.
#[derive(Debug)]
pub struct Believed {
    pub(super) parent: RemoteParent,
    /// Only of a trusted proxy: it goes on with the trace that it came with.
    pub(super) state: Option<TraceState>,
}

/// `asker`: of whoever asks for a decision, by a field that no client can write.
pub fn begin(
    worker: &Worker,
    peer: &Peer,
    headers: &HeaderMap,
    method: &Method,
    asker: Option<RemoteParent>,
) -> TraceContext {
    let proxys = || if forwarded::trusts(worker, peer) { read(headers) } else { None };
    let believed = match asker {
        Some(parent) => Some(Box::new(Believed { parent, state: None })),
        None => proxys().map(|parent| Box::new(Believed { parent, state: state(headers) })),
    };
    let parent = believed.as_ref().map(|told| told.parent);
    let id = parent.map_or_else(TraceId::generate, |parent| parent.trace_id);
    let spans = worker.gateway.spans.as_ref();
    let span = spans.and_then(|spans| spans.request(id, parent, method));
    TraceContext { id, span, recorded: spans.is_some(), believed }
}

/// The one `traceparent`, if it is one.
pub fn read(headers: &HeaderMap) -> Option<RemoteParent> {
    match single(headers, TRACEPARENT) {
        Single::One(value) => RemoteParent::parse(value.as_bytes()),
        Single::Absent | Single::Repeated => None,
    }
}

fn state(headers: &HeaderMap) -> Option<TraceState> {
    TraceState::parse(headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes))
}
