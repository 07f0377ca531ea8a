//! What is known of a request so far, and what others hear of it: its record, its trace, its span.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Instant};

use http::{HeaderMap, HeaderValue};

use super::{
    decision_metrics::Face,
    peer::Peer,
    routes::Route,
    said::Said,
    session::Session,
    trace_context::{Believed, TRACEPARENT, TRACESTATE},
};
use crate::{
    domain::{DecisionId, LinkFacts, Millis, RequestId, Sampling, TenantId, Trace, TraceId, TraceState},
    identity::Caller,
    portal::Spec,
    spans::ServerSpan,
};

/// What is known of a request so far, for its audit record, its log line and its answer's headers. It grants nothing:
/// what a stage needs from an earlier one travels in the stage's own type.
#[derive(Debug)]
pub struct Trail {
    pub started: Instant,
    pub now: Millis,
    pub request_id: RequestId,
    /// The same as a header value.
    pub request_id_value: HeaderValue,
    pub trace_id: TraceId,
    pub client_ip: IpAddr,
    pub peer: Peer,
    pub method: http::Method,
    pub uri: http::Uri,
    pub user_agent: Option<HeaderValue>,
    /// An HTTP/1 upgrade was asked for: if it is not made, the connection closes.
    pub upgrade_asked: bool,
    /// What follows on an HTTP/1 connection cannot be told for certain: it closes.
    pub closes: bool,
    /// Credentials are taken from a cookie as well.
    pub by_cookie: bool,
    pub route: Option<Arc<Route>>,
    /// The endpoint of the consolidated API, with its place in the table, instead of a route.
    pub endpoint: Option<(&'static Spec, usize)>,
    /// Errors carry what older clients read, beside the envelope.
    pub compatible: bool,
    /// Each tenant's part of a consolidated request, for the record.
    pub slices: Box<[crate::audit::Slice]>,
    pub resource_id: Option<Box<str>>,
    pub session: Option<Rc<Session>>,
    /// Verified, where the account behind the token could not be looked up.
    pub stranger: Option<Arc<Caller>>,
    pub managed_tenant: Option<TenantId>,
    pub cross: bool,
    pub link: Option<Arc<LinkFacts>>,
    pub policies: Arc<[Arc<str>]>,
    /// Further gates that were closed too, in a refusal.
    pub near_misses: Box<[&'static str]>,
    /// What the policies were asked and said.
    pub said: Said,
    pub decision_id: Option<DecisionId>,
    /// There is a ledger: whatever comes of the request, its record and its log line are that one's to complete.
    pub accounted: bool,
    pub bucket: Option<crate::limit::Taken>,
    /// The request in traces; `None`: not sampled, or no spans are made.
    pub span: Option<Box<ServerSpan>>,
    /// Whether spans are made here.
    pub recorded: bool,
    pub believed: Option<Box<Believed>>,
    /// How a decision is asked for that another proxy or service carries out.
    pub face: Option<Face>,
    /// Whose page may read the answer (CORS).
    pub page: Option<Box<HeaderValue>>,
    pub preflight: bool,
}

impl Trail {
    /// What upstreams that are asked on the request's behalf hear of it.
    pub fn trace(&self) -> Arc<Trace> {
        let mut trace = Trace::new(self.request_id.clone(), self.trace_id);
        if let Some(session) = &self.session {
            trace.user = Some(Arc::clone(&session.caller.sub));
            trace.partner_tenant = session.partner().map(|partner| partner.portfolio.partner.home_tenant_id.clone());
        }
        trace.decision_id = self.decision_id;
        trace.sampling = self.sampling();
        trace.state = self.trace_state().cloned();
        Arc::new(trace)
    }

    /// Before the span is ended.
    pub fn sampling(&self) -> Sampling {
        match (&self.span, &self.believed) {
            (Some(span), _) => Sampling::Under(span.id()),
            (None, _) if self.recorded => Sampling::Out,
            // Passed on: under the caller's own span, because there is none here.
            (None, Some(told)) if told.parent.sampled => Sampling::Under(told.parent.span),
            (None, Some(_)) => Sampling::Out,
            (None, None) => Sampling::Unasked,
        }
    }

    pub fn trace_state(&self) -> Option<&TraceState> {
        self.believed.as_ref().and_then(|told| told.state.as_ref())
    }

    /// Tells a service whose trace this is a part of.
    pub fn tell_trace(&self, headers: &mut HeaderMap) {
        let sampling = self.sampling();
        let above = || sampling.parent().unwrap_or_else(|| self.trace_id.nobody());
        let parent = self.span.as_ref().map_or_else(above, |span| span.told());
        if let Ok(value) = HeaderValue::from_bytes(&self.trace_id.traceparent(parent, sampling.flag())) {
            headers.insert(TRACEPARENT, value);
        }
        if let Some(value) = self.trace_state().and_then(|state| HeaderValue::from_str(state.as_str()).ok()) {
            headers.insert(TRACESTATE, value);
        }
    }

    /// Ends the request's span: what came of it, and under which names its record is found. Status: `None` where the answer
    /// is given by others.
    pub fn traced(&mut self, status: Option<http::StatusCode>, refusal: Option<(&str, &str)>) {
        let Some(mut span) = self.span.take() else { return };
        let endpoint = self.endpoint.map(|(spec, _)| spec.label());
        if let Some(pattern) = self.route.as_ref().map(|route| route.settings.path.as_str()).or(endpoint.as_deref()) {
            span.route(pattern);
        }
        if let Some(face) = self.face {
            span.face(face.as_str());
        }
        let decision = self.decision_id.map(|id| id.to_string());
        span.names(self.request_id.as_str(), decision.as_deref());
        span.decided(refusal);
        if let Some(status) = status {
            span.answered(status);
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if let Some(span) = &mut self.span {
            span.left();
        }
    }
}
