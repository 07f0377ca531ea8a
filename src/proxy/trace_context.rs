//! Whose trace a request is a part of (W3C Trace Context).
//!
//! A `traceparent` is believed from whoever asks for a decision and was authenticated, and from trusted proxies; from anybody
//! else it is ignored, as all that clients say of themselves, and a trace of our own begins. So does one where the field
//! stands twice or is none. Nothing goes on as it came: `outgoing` writes both fields anew, from what was read here.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{
    flow::{Peer, Trail},
    headers::{Single, single},
    intake,
    worker::Worker,
};
use crate::{
    domain::{RemoteParent, Sampling, TraceId, TraceState},
    spans::ServerSpan,
};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A request's place in traces.
#[derive(Debug)]
pub struct TraceContext {
    pub trace_id: TraceId,
    /// `None`: not sampled, or no spans are made.
    pub span: Option<Box<ServerSpan>>,
    pub sampling: Sampling,
    /// Only with the trace that it came with.
    pub state: Option<TraceState>,
}

/// `asker`: of whoever asks for a decision, by a field that no client can write.
pub fn begin(
    worker: &Worker,
    peer: &Peer,
    headers: &HeaderMap,
    method: &Method,
    asker: Option<RemoteParent>,
) -> TraceContext {
    let told = || if intake::trusts(worker, peer) { read(headers) } else { None };
    let (parent, state) = match asker {
        Some(parent) => (Some(parent), None),
        None => match told() {
            Some(parent) => (Some(parent), state(headers)),
            None => (None, None),
        },
    };
    let trace_id = parent.map_or_else(TraceId::generate, |parent| parent.trace_id);
    let Some(spans) = &worker.gateway.spans else {
        // Passed on: under the caller's own span, because there is none here.
        let sampling = match parent {
            None => Sampling::Unasked,
            Some(parent) if parent.sampled => Sampling::Under(parent.span),
            Some(_) => Sampling::Out,
        };
        return TraceContext { trace_id, span: None, sampling, state };
    };
    let span = spans.request(trace_id, parent, method);
    let sampling = span.as_ref().map_or(Sampling::Out, |span| Sampling::Under(span.id()));
    TraceContext { trace_id, span, sampling, state }
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

/// Tells a service both fields.
pub fn tell(trail: &Trail, headers: &mut HeaderMap) {
    let above = || trail.sampling.parent().unwrap_or_else(|| trail.trace_id.nobody());
    let parent = trail.span.as_ref().map_or_else(above, |span| span.told());
    if let Ok(value) = HeaderValue::from_bytes(&trail.trace_id.traceparent(parent, trail.sampling.flag())) {
        headers.insert(TRACEPARENT, value);
    }
    if let Some(value) = trail.trace_state.as_ref().and_then(|state| HeaderValue::from_str(state.as_str()).ok()) {
        headers.insert(TRACESTATE, value);
    }
}
