//! The stage that finds out who is calling (contract, section 2).
//!
//! No credential, a good one and a bad one are three answers. A bad bearer token never falls through to another
//! credential.

use std::{rc::Rc, sync::Arc};

use http::HeaderMap;

use super::{
    flow::Trail,
    intake,
    respond::Failure,
    route::Routed,
    session::{self, Session},
    tenant::{self, Named},
    worker::Worker,
};
use crate::{
    config::settings::Access,
    domain::{ErrorCode, Millis},
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
        Presented::Token(token, source) => (token, source),
        Presented::None => return Err(Failure::new(ErrorCode::Unauthorized, "no_credential")),
        Presented::Bad => return Err(Failure::new(ErrorCode::Unauthorized, "bad_credential")),
    };
    // A browser sends a cookie by itself, whoever's page asks; for a WebSocket even with GET.
    let unsafe_act = !parts.method.is_safe() || trail.upgrade_asked;
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let scheme = || intake::client_scheme(worker, trail.peer.ip, &parts.headers);
    if source == Source::Cookie && unsafe_act && !identity::same_origin(&parts.headers, authority, scheme()) {
        return Err(Failure::new(ErrorCode::Unauthorized, "cross_origin_cookie")
            .saying("a cookie is not accepted from another origin"));
    }
    let session = known(worker, trail, &parts.headers, token).await?;
    // Told before anything about the account is, but recorded as the account's.
    let named = tenant::named(&parts.headers)?;
    Ok((session, source, named))
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
    let named = tenant::named(headers);
    let home = named.as_ref().is_ok_and(|named| stays_home(&caller, named));
    if let Ok(session) = session::resolve(worker, Arc::clone(&caller), keys).await {
        worker.keep_session(token, &session);
        return Ok(session);
    }
    let named = named?;
    let known_last = if home {
        session::resolve_for_home(worker, Arc::clone(&caller), keys).await
    } else {
        Err(session::Unresolved)
    };
    known_last.map_err(|session::Unresolved| {
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
