//! The stage that decides (contract, section 4): link, freshness, Cedar.
//!
//! Only what comes out of here with a [`Permit`] can be forwarded, and only the policy room can make one.

use std::{rc::Rc, sync::Arc};

use super::{
    flow::Trail,
    respond::Failure,
    route::Route,
    session::{self, PartnerUser, Session},
    tenant::{Placed, Scope},
    watch::Watched,
    worker::Worker,
};
use crate::{
    config::settings::Access,
    domain::{Denial, ErrorCode, Facts, Gate, LinkFacts, Millis, Permission, UserFacts},
    policy::{self, Permit, Refusal},
};

/// A request that may go on.
#[derive(Debug)]
pub struct Authorized {
    pub placed: Placed,
    pub permit: Permit,
    /// The link, in cross-tenant requests.
    pub link: Option<Arc<LinkFacts>>,
}

/// Decides one request.
pub fn decide(worker: &Rc<Worker>, trail: &mut Trail, placed: Placed) -> Result<Authorized, Failure> {
    let (session, tenant) = match &placed.scope {
        Scope::Public => return Ok(Authorized { placed, permit: Permit::public_route(), link: None }),
        Scope::Home(..) => return Ok(Authorized { placed, permit: Permit::home_request(), link: None }),
        Scope::Cross(session, tenant) => (Rc::clone(session), tenant.clone()),
    };
    if session.caller.too_old(trail.now) {
        return Err(Failure::new(ErrorCode::Unauthorized, "token_too_old")
            .saying("this token is too old for work in another tenant; log in again"));
    }
    if !worker.gateway.directory.is_fresh() {
        return Err(Failure::new(ErrorCode::LinksStale, "links_stale"));
    }
    let Access::Permission(permission) = placed.identified.routed.route.settings.access else {
        // `home`, `deny` and `public` were answered before.
        return Err(Failure::new(ErrorCode::InternalError, "route_access"));
    };
    let Some(partner) = session.partner() else {
        return Err(Failure::new(ErrorCode::InternalError, "no_partner"));
    };
    let link = tenant.as_ref().and_then(|tenant| partner.portfolio.link(tenant.as_str())).map(Arc::clone);
    trail.link = link.clone();
    let route = Arc::clone(&placed.identified.routed.route);
    let outcome = ask(
        worker,
        &session,
        partner,
        link.as_deref(),
        &route,
        permission,
        &placed.identified.routed.parts.method,
        trail.client_ip,
        trail.now,
    );
    trail.policies = outcome.policies;
    match outcome.verdict {
        Ok(permit) => Ok(Authorized { placed, permit, link }),
        Err(Refusal::Denied(denial)) => Err(denial.into()),
        Err(Refusal::Unavailable) => {
            worker.gateway.metrics.policy_errors.inc();
            tracing::error!(request_id = %trail.request_id, permission = %permission, "a policy failed to evaluate; the request is refused");
            Err(Failure::new(ErrorCode::PolicyUnavailable, "policy_error"))
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the facts of one decision, from two callers")]
fn ask(
    worker: &Worker,
    session: &Session,
    partner: &PartnerUser,
    link: Option<&LinkFacts>,
    route: &Route,
    permission: Permission,
    method: &http::Method,
    ip: std::net::IpAddr,
    now: Millis,
) -> policy::Outcome {
    let bundle = worker.gateway.policies.current();
    // A set that came into force since the session was resolved may have another role table.
    let changed = (bundle.generation() != session.policies)
        .then(|| UserFacts { holds: session::held(&session.caller, bundle.roles()), ..partner.facts.clone() });
    let mut memo = worker.memo.borrow_mut();
    let facts = Facts {
        user: changed.as_ref().unwrap_or(&partner.facts),
        link,
        permission,
        switch_context: true,
        now,
        ip,
        mfa: session.caller.mfa,
        method: method.as_str(),
        route_class: route.settings.class.as_str(),
    };
    policy::decide(&bundle, Some(&mut memo), &facts)
}

/// Whether a stream that was allowed may go on; the word says why not.
pub fn still_allowed(worker: &Worker, session: &Session, watched: &Watched, now: Millis) -> Result<(), &'static str> {
    let Access::Permission(permission) = watched.route.settings.access else { return Ok(()) };
    if session.suspended {
        return Err("access_suspended");
    }
    let partner = session.partner().ok_or("not_a_partner")?;
    let link = partner.portfolio.link(watched.tenant.as_str());
    let outcome = ask(
        worker,
        session,
        partner,
        link.map(|link| &**link),
        &watched.route,
        permission,
        &watched.method,
        watched.ip,
        now,
    );
    match outcome.verdict {
        Ok(_) => Ok(()),
        Err(Refusal::Denied(denial)) if denial == Denial::from(Gate::Ended) => Err("link_expired"),
        Err(Refusal::Denied(denial)) if denial == Denial::from(Gate::Active) => Err("link_revoked"),
        Err(Refusal::Denied(denial)) => Err(denial.word()),
        Err(Refusal::Unavailable) => Err("policy_error"),
    }
}
