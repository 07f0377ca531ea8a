//! The request as the upstream gets it: cleaned, then dressed in the gateway's own headers (I2).

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header, request::Parts};
use http_body::Body;
use hyper::upgrade::OnUpgrade;

use super::{
    authorize::Authorized,
    body::{ClientStream, Exchange, RequestBody},
    credential,
    fields::Checked,
    forwarded::{self, FORWARDED_PROTO},
    headers::{self, Single, single},
    ids::{self, id_header},
    inbound::Inbound,
    intake,
    respond::Failure,
    target::Target,
    tenant::Scope,
    trail::Trail,
    worker::Worker,
};
use crate::{
    domain::{ErrorCode, TenantId},
    policy::{Permit, PermitKind},
    upstream::Upstream,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TARGET_TENANT: HeaderName = HeaderName::from_static("x-target-tenant-id");

/// Fields that the gateway sets at most, about.
const OWN_HEADERS: usize = 20;

/// A request ready to be sent.
#[derive(Debug)]
pub struct Outgoing {
    pub request: Box<Request<RequestBody>>,
    /// The client's side of a WebSocket, if the upstream agrees.
    pub client_upgrade: Option<OnUpgrade>,
}

/// Builds the request. Consumes the permit that comes with it. `Host` is set where the endpoint is chosen.
pub fn build(
    worker: &Worker,
    trail: &Trail,
    checked: Checked,
    upstream: &Upstream,
    exchange: &Exchange,
) -> Result<Outgoing, Failure> {
    let Checked { admitted, read } = checked;
    let mut authorized = admitted.0;
    let target = Target::of(&trail.uri)?;
    let parts = &mut authorized.placed.identified.routed.parts;
    let websocket = is_websocket(parts);
    if websocket && !authorized.placed.identified.routed.body.is_end_stream() {
        return Err(Failure::new(ErrorCode::BadRequest, "upgrade_body").saying("an upgrade carries no body"));
    }
    let parts = &mut authorized.placed.identified.routed.parts;
    let client_upgrade = if websocket { parts.extensions.remove::<OnUpgrade>() } else { None };
    let mut headers = std::mem::take(&mut parts.headers);
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut headers);
    }
    dress(worker, trail, &authorized, upstream, &target, &mut headers)?;
    headers.remove(header::CONTENT_LENGTH);
    if client_upgrade.is_some() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }

    let Authorized { placed, permit, .. } = authorized;
    let routed = *placed.identified.routed;
    let limit = routed.route.settings.max_body_bytes;
    let body = body(worker, routed.body, read, limit, exchange);
    if matches!(routed.parts.method, Method::GET | Method::HEAD)
        && matches!(body, RequestBody::Stream(_))
        && body.size_hint().exact().is_none()
    {
        // Unsaid, hyper would take it that there is no body, and drop what comes.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let request = permitted(permit, routed.parts.method, target, headers, body)?;
    Ok(Outgoing { request, client_upgrade })
}

/// Cleans the client's headers and sets the gateway's own: all that an upstream is told beside framing and host (I2).
pub fn dress(
    worker: &Worker,
    trail: &Trail,
    authorized: &Authorized,
    upstream: &Upstream,
    target: &Target,
    headers: &mut HeaderMap,
) -> Result<(), Failure> {
    let forwarded = Forwarded::read(worker, trail, headers);
    let target_tenant = kept_target_tenant(worker, authorized, headers);
    worker.gateway.strip.clean(headers);
    // At once: a map that grows step by step places its fields anew each time.
    headers.reserve(OWN_HEADERS);
    credential::set(worker, trail, authorized, upstream, target, headers)?;
    forwarded.set(headers);
    set_tracing(trail, headers);
    if let Some(value) = target_tenant {
        headers.insert(TARGET_TENANT, value);
    }
    Ok(())
}

/// The last step takes the permit by value: there is no other way to make an upstream request.
fn permitted(
    _permit: Permit,
    method: Method,
    target: Target,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Box<Request<RequestBody>>, Failure> {
    let mut request = Box::new(Request::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = target.into_uri();
    *request.headers_mut() = headers;
    Ok(request)
}

/// The tenant that upstream is told. A permit of another kind than the scope is a fault of ours, and refused.
pub fn effective_tenant(authorized: &Authorized) -> Result<Option<&TenantId>, Failure> {
    match (&authorized.placed.scope, authorized.permit.kind(), &authorized.link) {
        (Scope::Public, PermitKind::Public, None) => Ok(None),
        (Scope::Home(_, tenant), PermitKind::Home, None) => Ok(tenant.as_ref()),
        (Scope::Cross(_, Some(tenant)), PermitKind::CrossTenant, Some(link)) if link.link.tenant_id == *tenant => {
            Ok(Some(tenant))
        }
        _ => Err(Failure::new(ErrorCode::InternalError, "permit_mismatch")),
    }
}

fn body(worker: &Worker, inner: Inbound, read: Option<bytes::Bytes>, limit: u64, exchange: &Exchange) -> RequestBody {
    if let Some(bytes) = read {
        exchange.progress.ended.set(true);
        return RequestBody::Full(Some(bytes).filter(|bytes| !bytes.is_empty()));
    }
    let Inbound::Streamed(inner) = inner else {
        // Only for decisions, which forward nothing.
        exchange.progress.ended.set(true);
        return RequestBody::Empty;
    };
    if inner.is_end_stream() {
        exchange.progress.ended.set(true);
        return RequestBody::Empty;
    }
    RequestBody::Stream(Box::new(ClientStream {
        inner,
        left: limit,
        idle: worker.gateway.settings.listen.body_idle_timeout,
        timer: None,
        strip: Arc::clone(&worker.gateway.strip),
        progress: Rc::clone(&exchange.progress),
        cut: Rc::clone(&exchange.cut),
    }))
}

/// Only WebSocket, only HTTP/1.1 GET, only where `Connection` says so too (RFC 9110, section 7.8); any other upgrade is answered as
/// the plain request that it is.
fn is_websocket(parts: &Parts) -> bool {
    let websocket = matches!(single(&parts.headers, header::UPGRADE), Single::One(value) if value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let asked = || headers::nominates(&parts.headers, &header::UPGRADE);
    websocket && parts.method == Method::GET && parts.version == Version::HTTP_11 && asked()
}

/// HTTP/2 may split the cookie header; HTTP/1 knows one line only (RFC 9113, section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let joined = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(header::COOKIE, value);
    }
}

fn set_tracing(trail: &Trail, headers: &mut HeaderMap) {
    headers.insert(ids::REQUEST_ID, trail.request_id_value.clone());
    if let Some(id) = trail.decision_id {
        headers.insert(ids::DECISION_ID, id_header(id.0));
    }
    trail.tell_trace(headers);
}

/// `X-Target-Tenant-ID` of a verified platform admin, where the configuration lets it pass. Home requests only: in
/// another tenant the link decides, and no header may name a third one.
fn kept_target_tenant(worker: &Worker, authorized: &Authorized, headers: &HeaderMap) -> Option<HeaderValue> {
    if !worker.gateway.settings.headers.platform_admin_target {
        return None;
    }
    match (&authorized.placed.scope, single(headers, TARGET_TENANT)) {
        (Scope::Home(session, _), Single::One(value)) if session.caller.is_platform_admin => Some(value.clone()),
        _ => None,
    }
}

fn own_scheme(worker: &Worker) -> Option<HeaderValue> {
    match worker.gateway.settings.listen.public_scheme.as_str() {
        "https" => Some(HeaderValue::from_static("https")),
        "http" => Some(HeaderValue::from_static("http")),
        other => HeaderValue::from_str(other).ok(),
    }
}

/// Of each proxy on the way, separated by commas.
fn each(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn is_scheme(value: &HeaderValue) -> bool {
    each(value).all(|scheme| [&b"https"[..], b"http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
}

fn are_hosts(value: &HeaderValue) -> bool {
    each(value).all(|host| !host.is_empty() && intake::is_host(host))
}

/// `X-Forwarded-*`: a client's are kept only from a trusted proxy, and what is no scheme or host not even then.
struct Forwarded {
    chain: Option<HeaderValue>,
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
}

impl Forwarded {
    fn read(worker: &Worker, trail: &Trail, headers: &HeaderMap) -> Self {
        let peer = &trail.peer.forwarded_for;
        let trusted = forwarded::trusts(worker, &trail.peer);
        let believed = |name: &HeaderName| if trusted { headers.get(name).cloned() } else { None };
        let before: Vec<u8> = if trusted {
            headers.get_all(&FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..])
        } else {
            Vec::new()
        };
        let chain = if before.is_empty() {
            Some(peer.clone())
        } else {
            HeaderValue::from_bytes(&[&before, &b", "[..], peer.as_bytes()].concat()).ok()
        };
        let own_host = || {
            let authority = trail.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            headers.get(header::HOST).cloned().or(authority)
        };
        Self {
            chain,
            proto: believed(&FORWARDED_PROTO).filter(is_scheme).or_else(|| own_scheme(worker)),
            host: believed(&FORWARDED_HOST).filter(are_hosts).or_else(own_host),
        }
    }

    fn set(self, headers: &mut HeaderMap) {
        let pairs = [(FORWARDED_FOR, self.chain), (FORWARDED_PROTO, self.proto), (FORWARDED_HOST, self.host)];
        for (name, value) in pairs {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }
}
