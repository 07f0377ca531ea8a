//! The decision point: the proxy's own stages for a request that another proxy carries out (Envoy, nginx, Caddy, Traefik).
//!
//! Nothing is decided here. The stages are called in the proxy's order, and the headers are made by the code that makes
//! them for an upstream; what the other proxy must set and remove is the difference. The record is opened as durably as the
//! route asks, and completed with `decided`: status, bytes and end of the exchange are the other proxy's.
//!
//! What linkgate cannot do here: bound and inspect a body that it is not given, and cut a stream whose link ends.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};

use super::{
    account, authorize, body::ResponseBody, confirm, consolidated, decision_metrics::Face, fields, flow, headers,
    identify, inbound::Inbound, intake, outgoing, peer::Peer, query, quota, respond::Failure, route, target::Target,
    tenant, trail::Trail, watch, worker::Worker,
};
use crate::{
    audit::Decision,
    domain::{DecisionId, ErrorCode, LinkId, PartnerId, RemoteParent, TenantId},
    upstream::settings::AssertionForm,
};

/// What the other proxy can do with a request before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Removes any header and any query parameter that it is told to (Envoy).
    Anything,
    /// Removes the built-in list, as its ready configuration says, and puts our target in the place of the client's (nginx).
    ListAndTarget,
    /// Removes the built-in list; the target goes on as it came (Caddy, Traefik).
    List,
}

/// What is asked: the original request, from a caller that was authenticated.
#[derive(Debug)]
pub struct Asked {
    pub request: Request<Inbound>,
    /// The client, as the other proxy sees it.
    pub peer: Peer,
    pub means: Means,
    pub asker: Asker,
    /// The other proxy asks with `Upgrade`, which is of its own connection and no longer among the request's fields.
    pub upgrade_asked: bool,
}

/// Whoever asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub face: Face,
    /// Its own span, by a field that no client can write.
    pub parent: Option<RemoteParent>,
}

/// What the other proxy does.
#[derive(Debug)]
pub enum Decided {
    Allowed(Box<Allowed>),
    /// The answer that the proxy would give.
    Refused(Box<Refused>),
}

/// The request may go on, so changed.
#[derive(Debug)]
pub struct Allowed {
    /// All fields as an upstream of linkgate's own would get them.
    pub after: HeaderMap,
    /// Set by the gateway, or changed: each takes the place of all values of its name.
    pub set: HeaderMap,
    /// What must not go on: the whole list, and of the request's own fields whatever else is dropped. Unconditionally, because
    /// a proxy may have fields that it does not tell of.
    pub remove: Vec<HeaderName>,
    /// Path and query as they go on.
    pub target: String,
    /// The query parameters that are missing in it, as they were spelled.
    pub dropped_parameters: Vec<String>,
    /// For the answer to the client.
    pub answer: HeaderMap,
    pub told: Told,
}

#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub told: Told,
}

/// What the other proxy may log or route by.
#[derive(Debug, Default)]
pub struct Told {
    pub decision_id: Option<DecisionId>,
    pub partner: Option<PartnerId>,
    /// The effective tenant of what is allowed; the managed tenant of what is refused.
    pub tenant: Option<TenantId>,
    pub link: Option<LinkId>,
    /// Name of the upstream that the route leads to.
    pub upstream: Option<Arc<str>>,
    pub code: Option<ErrorCode>,
    pub reason: &'static str,
}

/// Decides one request. Never fails: whatever goes wrong is a refusal.
pub async fn decide(worker: &Rc<Worker>, asked: Asked) -> Decided {
    let Asked { request, peer, means, asker, upgrade_asked } = asked;
    let mut trail = intake::begin(worker, peer, &request, asker.parent);
    trail.face = Some(asker.face);
    trail.upgrade_asked = upgrade_asked || request.headers().contains_key(header::UPGRADE);
    match judged(worker, &mut trail, request, means).await {
        Ok(allowed) => {
            trail.traced(None, None);
            Decided::Allowed(allowed)
        }
        Err(failure) => Decided::Refused(Box::new(refused(worker, &mut trail, &failure).await)),
    }
}

/// Refuses a request of which the other proxy told what cannot be one.
pub async fn unreadable(worker: &Rc<Worker>, peer: Peer, asker: Asker, failure: Failure) -> Decided {
    let mut trail = intake::begin(worker, peer, &Request::new(()), asker.parent);
    trail.face = Some(asker.face);
    Decided::Refused(Box::new(refused(worker, &mut trail, &failure).await))
}

async fn judged(
    worker: &Rc<Worker>,
    trail: &mut Trail,
    request: Request<Inbound>,
    means: Means,
) -> Result<Box<Allowed>, Failure> {
    intake::check(worker, trail, &request)?;
    if intake::header_bytes(request.headers()) > worker.gateway.settings.listen.max_header_bytes {
        return Err(Failure::new(ErrorCode::BadRequest, "header_bytes").saying("header section too large"));
    }
    check_means(worker, &request, means)?;
    if consolidated::find(worker, trail, &request)?.is_some() {
        return Err(Failure::new(ErrorCode::RouteNotFound, "own_endpoint").saying(
            "linkgate answers this path itself: pass it to its public listener, without asking for a decision",
        ));
    }
    let routed = route::find(worker, trail, request)?;
    let before = routed.parts.headers.clone();
    let (identified, named) = identify::caller(worker, trail, routed).await?;
    let placed = tenant::place(trail, identified, named)?;
    let authorized = authorize::decide(worker, trail, placed)?;
    let admitted = quota::admit(worker, trail, authorized)?;
    let checked = fields::check(trail, admitted, worker.gateway.settings.listen.body_idle_timeout).await?;
    let checked = confirm::again(worker, trail, checked).await?;
    check_binding(trail, &checked, means)?;
    // Before the answer: the other proxy acts on it at once (I3).
    let account::Opened { checked, mut ledger } = account::open(worker, trail, checked).await?;
    // The record may have waited for its disk: asked once more before the other proxy hears of it.
    let confirmed = watch::confirm(worker, trail, &trail.method).await;
    if confirmed.is_err() {
        ledger.overturned = Some(Decision::Deny);
    }
    match confirmed.and_then(|()| dressed(worker, trail, checked, before)) {
        Ok(allowed) => {
            ledger.decided();
            Ok(allowed)
        }
        Err(failure) => {
            ledger.fail(&failure);
            Err(failure)
        }
    }
}

/// What an upstream would be sent, as changes to what the client sent.
fn dressed(
    worker: &Rc<Worker>,
    trail: &Trail,
    checked: fields::Checked,
    before: HeaderMap,
) -> Result<Box<Allowed>, Failure> {
    let mut authorized = checked.admitted.0;
    let tenant = outgoing::effective_tenant(&authorized)?.cloned();
    let target = Target::of(&trail.uri)?;
    let route = Arc::clone(&authorized.placed.identified.routed.route);
    let upstream = route.upstream.as_ref().ok_or_else(|| Failure::new(ErrorCode::InternalError, "no_upstream"))?;
    let mut after = std::mem::take(&mut authorized.placed.identified.routed.parts.headers);
    outgoing::join_cookies(&mut after);
    outgoing::dress(worker, trail, &authorized, upstream, &target, &mut after)?;

    let mut set = HeaderMap::new();
    for name in after.keys() {
        let same = before.get_all(name).iter().eq(after.get_all(name));
        // Ours are told even where the client guessed their value: it may stand in another spelling too.
        if !same || worker.gateway.strip.holds(name.as_str()) {
            for value in after.get_all(name) {
                set.append(name.clone(), value.clone());
            }
        }
    }
    // Framing and host are the other proxy's.
    let kept = |name: &HeaderName| {
        let word = name.as_str();
        matches!(word, "host" | "content-length") || (headers::is_hop_by_hop(word) && word != "proxy-authorization")
    };
    let listed = worker.gateway.strip.listed();
    let others = before.keys().filter(|name| !listed.contains(name) && !kept(name));
    let remove = listed.iter().chain(others).filter(|name| !after.contains_key(*name)).cloned().collect();
    let dropped = query::dropped_names(trail.uri.query().unwrap_or_default()).unwrap_or_default();
    let mut answer = Response::new(());
    flow::finish_head(trail, &mut answer);
    let mut answer = std::mem::take(answer.headers_mut());
    answer.remove(header::CONNECTION);
    if route.settings.keep_cache_control {
        answer.remove(header::CACHE_CONTROL);
    }
    Ok(Box::new(Allowed {
        after,
        set,
        remove,
        target: target.into_uri().to_string(),
        dropped_parameters: dropped.into_iter().map(str::to_owned).collect(),
        answer,
        told: Told { tenant, upstream: Some(Arc::clone(&upstream.name)), ..told(trail) },
    }))
}

/// Refuses what the other proxy could not carry out as it is decided.
fn check_means(worker: &Worker, request: &Request<Inbound>, means: Means) -> Result<(), Failure> {
    let asked = request.uri().query().unwrap_or_default();
    let bad = |detail, message: &str| Err(Failure::new(ErrorCode::BadRequest, detail).saying(message));
    match (means, query::dropped_names(asked)) {
        (Means::ListAndTarget, _) => {}
        (Means::Anything, Some(_)) => {}
        (Means::List, Some(names)) if names.is_empty() => {}
        (Means::Anything | Means::List, _) => {
            return bad("query_tenant", "the query names a tenant or partner; leave that parameter out");
        }
    }
    if means == Means::Anything {
        return Ok(());
    }
    let unremovable = |name: &HeaderName| {
        let word = name.as_str();
        let known = headers::protected().contains(&word) || headers::is_hop_by_hop(word) || word == "x-api-key";
        !known && (worker.gateway.strip.holds(word) || headers::is_api_key(name))
    };
    if request.headers().keys().any(unremovable) {
        return bad("unremovable_header", "a header field is spelled so that it could be taken for a protected one");
    }
    Ok(())
}

/// An assertion that binds the query's bytes needs a proxy that keeps them: Envoy writes those that are left anew, in an order
/// of its own, where it takes parameters out.
fn check_binding(trail: &Trail, checked: &fields::Checked, means: Means) -> Result<(), Failure> {
    let routed = &checked.admitted.0.placed.identified.routed;
    let bound = routed
        .route
        .upstream
        .as_ref()
        .is_some_and(|upstream| matches!(upstream.settings.assertion, AssertionForm::Request { .. }));
    let asked = trail.uri.query().unwrap_or_default();
    let dropped = query::dropped_names(asked).is_none_or(|names| !names.is_empty());
    if means == Means::Anything && bound && dropped {
        return Err(Failure::new(ErrorCode::BadRequest, "query_tenant")
            .saying("the query names a tenant or partner; leave that parameter out"));
    }
    Ok(())
}

async fn refused(worker: &Rc<Worker>, trail: &mut Trail, failure: &Failure) -> Refused {
    let (mut response, failure) = flow::refuse(worker, trail, failure).await;
    flow::finish_head(trail, &mut response);
    response.headers_mut().remove(header::CONNECTION);
    let status = response.status();
    trail.traced(Some(status), Some((failure.code.as_str(), failure.word())));
    let (parts, body) = response.into_parts();
    let body = match body {
        ResponseBody::Full(bytes) => bytes.unwrap_or_default(),
        // A refusal is always ready as a whole.
        _ => Bytes::new(),
    };
    let tenant = trail.managed_tenant.clone().filter(|_| trail.cross);
    let told = Told { tenant, code: Some(failure.code), reason: failure.word(), ..told(trail) };
    Refused { status, headers: parts.headers, body, told }
}

fn told(trail: &Trail) -> Told {
    Told {
        decision_id: trail.decision_id,
        partner: trail.session.as_ref().and_then(|session| session.partner()).map(|partner| partner.facts.partner_id),
        tenant: None,
        link: trail.link.as_ref().map(|link| link.link.id),
        upstream: None,
        code: None,
        reason: "",
    }
}
