//! The stage that finds out who is calling (contract, section 2).
//!
//! No credential, a good one and a bad one are three answers. A bad bearer token never falls through to another
//! credential.

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, header};

use super::{
    active_tenant::{self, Named},
    forwarded, resolve,
    respond::Failure,
    route::Routed,
    session::{self, Session},
    trail::Trail,
    worker::Worker,
};
use crate::{
    config::settings::Access,
    domain::{Denial, ErrorCode, Millis, Reason},
    identity::{self, Caller, Presented, Source},
};

/// A request with its caller; `None` only on public routes.
#[derive(Debug)]
pub struct Identified {
    pub routed: Box<Routed>,
    pub session: Option<Rc<Session>>,
    /// Where the token stood, to send it on in a home request.
    pub source: Option<Source>,
}

/// Verifies the token and looks its bearer up. The tenant header is read in between, so that a malformed one is
/// told before anything about the account is.
pub async fn caller(worker: &Worker, trail: &mut Trail, routed: Box<Routed>) -> Result<(Identified, Named), Failure> {
    if routed.route.settings.access == Access::Public {
        return Ok((Identified { routed, session: None, source: None }, Named::Nothing));
    }
    let (session, source, named) = bearer(worker, trail, &routed.parts).await?;
    Ok((Identified { routed, session: Some(session), source: Some(source) }, named))
}

/// The bearer of the request's one good token, with the tenant that is named.
pub async fn bearer(
    worker: &Worker,
    trail: &mut Trail,
    parts: &http::request::Parts,
) -> Result<(Rc<Session>, Source, Named), Failure> {
    let settings = &worker.gateway.settings;
    let (token, source) = match identity::bearer(&parts.headers, settings.identity.cookie.as_deref()) {
        Presented::Token(token, source) => (Some(token), source),
        Presented::None if trail.peer.certificate.is_some() => (None, Source::Certificate),
        Presented::None => return Err(Failure::new(ErrorCode::Unauthorized, "no_credential")),
        Presented::Bad => return Err(Failure::new(ErrorCode::Unauthorized, "bad_credential")),
    };
    check_origin(worker, trail, parts, source)?;
    let session = match token {
        Some(token) => known(worker, trail, &parts.headers, token).await?,
        // Boxed: the rare way, see `flow::handle`.
        None => Box::pin(by_certificate(worker, trail, &parts.headers)).await?,
    };
    // Told before anything about the account is, but recorded as the account's.
    let named = active_tenant::named(&parts.headers)?;
    let certified = trail.peer.certificate.as_ref().and_then(|certificate| certificate.user());
    if certified.is_some_and(|user| !user.is(&session.caller)) {
        return Err(Failure::from(Denial::new(ErrorCode::Forbidden, Reason::IdentityConflict)));
    }
    // Where the certificate is the caller, its session says so too, and the link decides which gate is told.
    if source != Source::Certificate && worker.suspends(trail.peer.certificate.as_deref()) {
        return Err(Denial::new(ErrorCode::TenantAccessDenied, Reason::AccessSuspended).into());
    }
    Ok((session, source, named))
}

/// A browser sends a cookie by itself, and shows a certificate, whoever's page asks; for a WebSocket even with GET. Who
/// shows a certificate is mostly no browser, and says nothing of any page.
fn check_origin(worker: &Worker, trail: &Trail, parts: &http::request::Parts, source: Source) -> Result<(), Failure> {
    let unsafe_act = || !parts.method.is_safe() || trail.upgrade_asked || opens_websocket(&parts.headers);
    let from_a_page = || parts.headers.contains_key(header::ORIGIN) || parts.headers.contains_key("sec-fetch-site");
    let asked = match source {
        Source::Header => false,
        Source::Cookie => unsafe_act(),
        Source::Certificate => unsafe_act() && from_a_page(),
    };
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let scheme = || forwarded::client_scheme(worker, &trail.peer, &parts.headers);
    if !asked || identity::same_origin(&parts.headers, authority, scheme()) {
        return Ok(());
    }
    Err(match source {
        Source::Certificate => Failure::new(ErrorCode::Unauthorized, "cross_origin_certificate")
            .saying("a certificate alone is not accepted from another origin"),
        Source::Header | Source::Cookie => Failure::new(ErrorCode::Unauthorized, "cross_origin_cookie")
            .saying("a cookie is not accepted from another origin"),
    })
}

/// Whether a browser opens a WebSocket with it. These fields are end to end: they are there as well where a proxy in
/// front keeps `Upgrade` to itself, and no page can write them.
fn opens_websocket(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("sec-websocket-"))
}

/// The user of the connection's certificate, where the configuration says that it is enough.
async fn by_certificate(worker: &Worker, trail: &mut Trail, headers: &HeaderMap) -> Result<Rc<Session>, Failure> {
    let missing = || Failure::new(ErrorCode::Unauthorized, "no_credential");
    let certificate = trail.peer.certificate.clone().ok_or_else(missing)?;
    let session = match worker.certified_session(&certificate) {
        Some(session) => session,
        None => {
            let caller = certificate.caller().ok_or_else(missing)?;
            let keys = worker.gateway.verifier.generation();
            let (session, fresh) = resolved(worker, trail, headers, caller, keys).await?;
            if fresh {
                certificate.keep_session(&session);
            }
            session
        }
    };
    trail.session = Some(Rc::clone(&session));
    Ok(session)
}

/// The bearer of a good token, from memory or looked up. Left on the trail, so that whatever is refused from here on is
/// recorded as theirs.
async fn known(worker: &Worker, trail: &mut Trail, headers: &HeaderMap, token: &str) -> Result<Rc<Session>, Failure> {
    let now = trail.now;
    let session = match worker.known_session(token, now) {
        Some(session) => session,
        // Boxed: the rare and long way, see `flow::handle`.
        None => Box::pin(looked_up(worker, trail, headers, token)).await?,
    };
    trail.session = Some(Rc::clone(&session));
    Ok(session)
}

/// Verifies the token where it is new, and resolves its bearer by the facts of now.
async fn looked_up(
    worker: &Worker,
    trail: &mut Trail,
    headers: &HeaderMap,
    token: &str,
) -> Result<Rc<Session>, Failure> {
    let now = trail.now;
    let keys = worker.gateway.verifier.generation();
    let caller = match worker.verified_caller(token, keys, now) {
        Some(caller) => caller,
        None => verify(worker, token, now).await?,
    };
    let (session, fresh) = resolved(worker, trail, headers, caller, keys).await?;
    if fresh {
        worker.keep_session(token, &session);
    }
    Ok(session)
}

/// The account behind a credential that is good, and whether it may be kept: it was looked up in fresh data.
async fn resolved(
    worker: &Worker,
    trail: &mut Trail,
    headers: &HeaderMap,
    caller: Arc<Caller>,
    keys: u64,
) -> Result<(Rc<Session>, bool), Failure> {
    let named = active_tenant::named(headers);
    let home = named.as_ref().is_ok_and(|named| stays_home(&caller, named));
    if let Ok(session) = resolve::session(worker, Arc::clone(&caller), keys).await {
        return Ok((session, true));
    }
    let named = named?;
    let known_last = if home {
        resolve::session_for_home(worker, Arc::clone(&caller), keys).await
    } else {
        Err(session::Unresolved)
    };
    known_last.map(|session| (session, false)).map_err(|session::Unresolved| {
        // Who asked for which tenant is known all the same, and recorded.
        trail.stranger = Some(caller);
        trail.cross = !home;
        trail.managed_tenant = match named {
            Named::Tenant(tenant) if !home => Some(tenant),
            _ => None,
        };
        Failure::new(ErrorCode::LinksStale, "account_unknown")
    })
}

fn stays_home(caller: &Caller, named: &Named) -> bool {
    match named {
        Named::Nothing => true,
        Named::Tenant(tenant) => caller.home_tenant.as_ref() == Some(tenant),
        Named::Impossible => false,
    }
}

/// Verifies; an unknown key is fetched for once, at the verifier's bounded rate.
async fn verify(worker: &Worker, token: &str, now: Millis) -> Result<Arc<Caller>, Failure> {
    let verifier = &worker.gateway.verifier;
    let refused = |error: &identity::AuthError| {
        tracing::debug!(%error, "token refused");
        Failure::new(ErrorCode::Unauthorized, error.label())
    };
    match verifier.verify(token, now) {
        Ok(caller) => Ok(caller),
        Err(error @ (identity::AuthError::UnknownKid { .. } | identity::AuthError::KeysUnavailable { .. })) => {
            let again = Arc::clone(verifier);
            let asked = error.clone();
            // The fetch belongs to the service runtime: sockets belong to the runtime that opened them.
            let fetched = worker.gateway.service.spawn(async move { again.refetch(&asked).await }).await;
            if !matches!(fetched, Ok(true)) {
                return Err(refused(&error));
            }
            verifier.verify(token, now).map_err(|error| refused(&error))
        }
        Err(error) => Err(refused(&error)),
    }
}

/// The token as it stands in the request, for sending it on as `Authorization` where it came as a cookie.
pub fn presented_token<'h>(headers: &'h HeaderMap, cookie: Option<&str>) -> Option<&'h str> {
    match identity::bearer(headers, cookie) {
        Presented::Token(token, _) => Some(token),
        Presented::None | Presented::Bad => None,
    }
}
