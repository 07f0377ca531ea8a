//! The stage that decides (contract, section 4): link, freshness, Cedar.
//!
//! Only what comes out of here with a [`Permit`] can be forwarded, and only the policy room can make one.

use std::{rc::Rc, sync::Arc};

use super::{
    cut::CutReason,
    respond::Failure,
    routes::Route,
    said::{self, Said},
    session::{self, PartnerUser, Session},
    streams::Watched,
    tenant::{Placed, Scope},
    trail::Trail,
    worker::Worker,
};
use crate::{
    config::settings::Access,
    domain::{ErrorCode, Facts, Gate, LinkFacts, Millis, Permission, TenantId, UserFacts, words},
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
    let question = Question {
        session: &session,
        partner,
        link: link.as_deref(),
        route: &route,
        permission,
        method: &placed.identified.routed.parts.method,
        ip: trail.client_ip,
        now: trail.now,
    };
    // What an earlier question said (before the body was read) is no longer the record's.
    (trail.said, trail.near_misses) = (Said::default(), Box::default());
    let outcome = question.ask(worker, Some((&mut trail.said, &mut trail.near_misses)));
    trail.policies = outcome.policies;
    match outcome.verdict {
        Ok(permit) => Ok(Authorized { placed, permit: permit.into(), link }),
        Err(Refusal::Denied(denial)) => Err(denial.into()),
        Err(Refusal::Unavailable) => {
            worker.gateway.metrics.policy_errors.inc();
            tracing::error!(request_id = %trail.request_id, permission = %permission, "a policy failed to evaluate; the request is refused");
            Err(Failure::new(ErrorCode::PolicyUnavailable, words::POLICY_ERROR))
        }
    }
}

/// One question to the policies, from a request or from an open stream.
struct Question<'a> {
    session: &'a Session,
    partner: &'a PartnerUser,
    link: Option<&'a LinkFacts>,
    route: &'a Route,
    permission: Permission,
    method: &'a http::Method,
    ip: std::net::IpAddr,
    now: Millis,
}

impl Question<'_> {
    /// For the record: what was said, and in a denial the gates that were closed beside the one that is told.
    fn ask(&self, worker: &Worker, record: Option<(&mut Said, &mut Box<[&'static str]>)>) -> policy::Outcome {
        let bundle = worker.gateway.policies.load();
        // A set that came into force since the session was resolved may have another role table.
        let changed = (bundle.generation() != self.session.policies).then(|| UserFacts {
            holds: session::held(&self.session.caller, bundle.roles()),
            ..self.partner.facts.clone()
        });
        let facts = Facts {
            user: changed.as_ref().unwrap_or(&self.partner.facts),
            link: self.link,
            permission: self.permission,
            switch_context: true,
            now: self.now,
            ip: self.ip,
            mfa: self.session.caller.mfa,
            method: self.method.as_str(),
            route_class: self.route.settings.class.as_str(),
        };
        let (said, near_misses) = record.unzip();
        let asked = (&facts, self.route.settings.class.as_str());
        let outcome = said::put(worker, &bundle, self.session, asked, said);
        if let (Err(Refusal::Denied(_)), Some(near_misses)) = (&outcome.verdict, near_misses) {
            *near_misses = facts.closed_gates(bundle.roles()).into_iter().skip(1).map(Gate::as_str).collect();
        }
        outcome
    }
}

/// Whether a stream that was allowed may go on, or why not.
pub fn still_allowed(
    worker: &Worker,
    session: &Session,
    watched: &Watched,
    (tenant, route): (&TenantId, &Route),
    now: Millis,
) -> Result<(), CutReason> {
    if session.suspended {
        return Err(Gate::Suspension.into());
    }
    let Access::Permission(permission) = route.settings.access else { return Ok(()) };
    let partner = session.partner().ok_or(CutReason::NotAPartner)?;
    let link = partner.portfolio.link(tenant.as_str());
    let question = Question {
        session,
        partner,
        link: link.map(|link| &**link),
        route,
        permission,
        method: &watched.method,
        ip: watched.ip,
        now,
    };
    let outcome = question.ask(worker, None);
    why_not(outcome)
}

/// Why a stream is cut.
pub fn why_not(outcome: policy::Outcome) -> Result<(), CutReason> {
    match outcome.verdict {
        Ok(_) => Ok(()),
        Err(Refusal::Denied(denial)) => Err(denial.into()),
        Err(Refusal::Unavailable) => Err(CutReason::PolicyError),
    }
}
