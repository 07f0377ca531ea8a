//! Life of a request: one function that reads like the list in the architecture page.
//!
//! Each stage consumes one type and gives the next. What is refused on the way is answered, rate-limited and audited by
//! `refuse`, with whatever the trail holds by then.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Instant};

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;

use super::{
    account, authorize,
    body::ResponseBody,
    certificate::ClientCertificate,
    consolidated, cors,
    decision_metrics::Face,
    fields, forward, identify,
    inbound::Inbound,
    intake,
    metrics::Measured,
    quota,
    respond::{self, Failure},
    route::{self, Route},
    said::Said,
    session::Session,
    tenant,
    trace_context::Believed,
    unread::ClientBody,
    watch::ConnectionSwitch,
    worker::Worker,
};
use crate::{
    domain::{DecisionId, LinkFacts, Millis, RequestId, TenantId, Trace, TraceId},
    identity::Caller,
    portal::Spec,
    spans::ServerSpan,
};

/// The connection that a request came on.
#[derive(Clone, Debug)]
pub struct Peer {
    pub ip: IpAddr,
    /// The address as `X-Forwarded-For` has it.
    pub forwarded_for: HeaderValue,
    pub switch: Rc<ConnectionSwitch>,
    /// What the client showed, where TLS ends here.
    pub certificate: Option<Rc<ClientCertificate>>,
}

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

/// Answers one request. Never fails: whatever goes wrong becomes a response here.
///
/// What seldom runs is boxed where it is called: a future is moved as a whole before it starts, and room for the longest
/// way would be moved with every request.
pub async fn handle(worker: Rc<Worker>, peer: Peer, request: Request<Incoming>) -> Response<ResponseBody> {
    let mut trail = intake::begin(&worker, peer, &request, None);
    let measured = Measured::begin(&worker.gateway);
    let (request, unread) = ClientBody::of(request);
    let outcome = serve(&worker, &mut trail, request).await;
    let (mut response, refusal) = match outcome {
        Ok(response) => (response, None),
        Err(failure) => {
            let (response, failure) = Box::pin(refuse(&worker, &mut trail, &failure)).await;
            (response, Some((failure.code.as_str(), failure.word())))
        }
    };
    finish_head(&trail, &mut response);
    let settings = &worker.gateway.settings.cors;
    cors::say(settings, trail.page.as_deref(), trail.preflight, response.headers_mut());
    measured.head(&worker, &trail, response.status());
    trail.traced(Some(response.status()), refusal);
    if let Some(unread) = unread {
        trail.closes |= !Box::pin(unread.pass()).await;
    }
    if trail.closes {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn serve(
    worker: &Rc<Worker>,
    trail: &mut Trail,
    request: Request<ClientBody>,
) -> Result<Response<ResponseBody>, Failure> {
    intake::check(worker, trail, &request)?;
    if let Some(answer) = cors::preflight(&worker.gateway.settings.cors, &request) {
        trail.preflight = true;
        return Ok(answer);
    }
    if let Some(own) = forward::own_document(worker, &request) {
        return Ok(own);
    }
    // The path first: an unknown route says nothing about who may call it.
    if let Some(endpoint) = consolidated::find(worker, trail, &request)? {
        return Box::pin(consolidated::serve(worker, trail, request, endpoint)).await;
    }
    let routed = route::find(worker, trail, request.map(Inbound::Streamed))?;
    let (identified, named) = identify::caller(worker, trail, routed).await?;
    let placed = tenant::place(trail, identified, named)?;
    let authorized = authorize::decide(worker, trail, placed)?;
    // After the decision: a refusal counts in the partner's refusal bucket, not in the tenant's.
    let admitted = quota::admit(worker, trail, authorized)?;
    // Before the record is opened: a refused body is a refusal, not an aborted act.
    let checked = fields::check(trail, admitted, worker.gateway.settings.listen.body_idle_timeout).await?;
    // Reading a body takes as long as its sender likes: what was revoked meanwhile must not be acted upon.
    let checked = authorize::confirm(worker, trail, checked).await?;
    // Before the act: no upstream is called for what is not recorded (I3).
    let opened = account::open(worker, trail, checked).await?;
    forward::send(worker, trail, opened).await
}

/// Answers, records and counts a refusal. Returns with the answer what it became: too many of them, or one that could not
/// be recorded.
pub async fn refuse(worker: &Rc<Worker>, trail: &mut Trail, failure: &Failure) -> (Response<ResponseBody>, Failure) {
    let failure = quota::refused(worker, trail, failure.clone());
    let failure = match account::refusal(worker, trail, &failure).await {
        Ok(()) => failure,
        Err(unrecorded) => unrecorded,
    };
    worker.gateway.metrics.refused(trail, &failure);
    let named = trail.managed_tenant.as_ref().filter(|_| trail.cross).map(TenantId::as_str);
    let answer = respond::failure(&failure, &trail.request_id, named, trail.compatible);
    (answer, failure)
}

/// Headers that every answer carries.
pub fn finish_head<B>(trail: &Trail, response: &mut Response<B>) {
    let upgraded = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
    let keeps_cache = trail.route.as_ref().is_some_and(|route| route.settings.keep_cache_control);
    let headers = response.headers_mut();
    headers.insert(account::REQUEST_ID, trail.request_id_value.clone());
    match trail.decision_id {
        Some(id) => {
            headers.insert(account::DECISION_ID, account::id_header(id.0));
        }
        None => {
            headers.remove(account::DECISION_ID);
        }
    }
    if !keeps_cache || !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
    // Beside what a service says itself: a cache must not give one tenant's answer to another, whoever sets its times.
    headers.append(header::VARY, HeaderValue::from_static("Authorization, X-Active-Tenant-Id"));
    if trail.by_cookie {
        headers.append(header::VARY, HeaderValue::from_static("Cookie"));
    }
    headers.remove(tenant::ACTIVE_TENANT);
    headers.remove(forward::CROSS_TENANT);
    if trail.cross
        && let Some(tenant) = &trail.managed_tenant
        && let Some(value) = super::session::text_header(tenant.as_str())
    {
        headers.insert(tenant::ACTIVE_TENANT, value);
        headers.insert(forward::CROSS_TENANT, HeaderValue::from_static("true"));
    }
    if let Some(bucket) = &trail.bucket {
        crate::limit::RateHeaders::set(bucket, headers);
    }
    if trail.upgrade_asked && !upgraded {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// It is moved as a whole with every request: what seldom runs belongs into a box of its own.
    #[test]
    fn the_way_of_a_request_takes_little_room() {
        assert!(size(handle) <= 3_264, "{} bytes", size(handle));
    }
}
