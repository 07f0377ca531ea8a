//! Life of a request: one function that reads like the list in the architecture page.
//!
//! Each stage consumes one type and gives the next. What is refused on the way is answered, rate-limited and audited by
//! `refuse`, with whatever the trail holds by then.

use std::rc::Rc;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;

use super::{
    account, active_tenant, authorize,
    body::ResponseBody,
    confirm, consolidated, cors, fields, forward, identify, ids,
    inbound::Inbound,
    intake,
    measured::Measured,
    peer::Peer,
    quota,
    respond::{self, Failure},
    route, tenant,
    trail::Trail,
    unread::ClientBody,
    worker::Worker,
};
use crate::domain::TenantId;

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
    let checked = confirm::again(worker, trail, checked).await?;
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
    headers.insert(ids::REQUEST_ID, trail.request_id_value.clone());
    match trail.decision_id {
        Some(id) => {
            headers.insert(ids::DECISION_ID, ids::id_header(id.0));
        }
        None => {
            headers.remove(ids::DECISION_ID);
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
    headers.remove(active_tenant::ACTIVE_TENANT);
    headers.remove(forward::CROSS_TENANT);
    if trail.cross
        && let Some(tenant) = &trail.managed_tenant
        && let Some(value) = super::session::text_header(tenant.as_str())
    {
        headers.insert(active_tenant::ACTIVE_TENANT, value);
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
