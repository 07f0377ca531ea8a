//! The stage that counts (contract, section 9). The decision comes first.

use std::rc::Rc;

use super::{authorize::Authorized, respond::Failure, tenant::Scope, trail::Trail, worker::Worker};
use crate::{
    domain::{ErrorCode, TenantId},
    limit::{Moment, Taken},
    portal::{Audience, Spec},
};

/// A request that was decided and counted.
#[derive(Debug)]
pub struct Admitted(pub Authorized);

/// Counts an allowed request: per (partner, tenant) where it names one, per user at home where configured.
pub fn admit(worker: &Rc<Worker>, trail: &mut Trail, authorized: Authorized) -> Result<Admitted, Failure> {
    let limits = &worker.gateway.limits;
    let now = moment(trail);
    let taken = match &authorized.placed.scope {
        Scope::Public => limits.unauthenticated(trail.client_ip, now),
        Scope::Home(session, _) => limits.home(&session.caller.issuer, &session.caller.sub, now),
        Scope::Cross(..) => authorized
            .link
            .as_ref()
            .and_then(|link| limits.tenant(link.link.partner_id, &link.link.tenant_id, link.link.id, now)),
    };
    if let Some(taken) = taken {
        trail.bucket = Some(taken);
        if !taken.allowed {
            return Err(exceeded(&taken));
        }
    }
    Ok(Admitted(authorized))
}

/// Counts a call of the consolidated API: by its class, and per (partner, tenant) where it acts in a tenant. What a tenant's
/// administrator asks is counted per user, and at home too.
pub fn consolidated(
    worker: &Rc<Worker>,
    trail: &mut Trail,
    spec: &Spec,
    named: Option<&TenantId>,
) -> Result<(), Failure> {
    let limits = &worker.gateway.limits;
    let now = moment(trail);
    let Some(session) = &trail.session else { return Ok(()) };
    let caller = &session.caller;
    let admin = (spec.audience == Audience::TenantAdmin).then(|| limits.tenant_admin(&caller.issuer, &caller.sub, now));
    let admin = admin.flatten();
    let Some(partner) = session.partner() else {
        // A tenant's administrator works at home.
        return bind(trail, [admin, limits.home(&caller.issuer, &caller.sub, now), None]);
    };
    let by_tenant = named.and_then(|tenant| {
        let link = partner.portfolio.link(tenant.as_str())?;
        limits.tenant(link.link.partner_id, &link.link.tenant_id, link.link.id, now)
    });
    bind(trail, [admin, limits.class(spec.limit, partner.facts.partner_id, now), by_tenant])
}

/// The tightest bucket is shown; an empty one refuses.
fn bind(trail: &mut Trail, taken: [Option<Taken>; 3]) -> Result<(), Failure> {
    let tightest = taken.into_iter().flatten().min_by_key(|taken| (taken.allowed, taken.remaining));
    if let Some(taken) = tightest {
        trail.bucket = Some(taken);
        if !taken.allowed {
            return Err(exceeded(&taken));
        }
    }
    Ok(())
}

/// Counts a refusal; when the bucket is empty, 429 takes the place of the refusal.
pub fn refused(worker: &Rc<Worker>, trail: &mut Trail, failure: Failure) -> Failure {
    let limits = &worker.gateway.limits;
    let now = moment(trail);
    let taken = match failure.code {
        // Whatever is refused before a token was verified: bad requests and unknown paths too.
        code if trail.session.is_none() && (400..=405).contains(&code.status()) => {
            limits.unauthenticated(trail.client_ip, now)
        }
        ErrorCode::Unauthorized => limits.unauthenticated(trail.client_ip, now),
        ErrorCode::Forbidden | ErrorCode::TenantAccessDenied | ErrorCode::TenantLinkExpired => {
            let partner = trail.session.as_ref().and_then(|session| session.partner());
            match partner {
                Some(partner) => limits.refusal(partner.facts.partner_id, now),
                None => limits.unauthenticated(trail.client_ip, now),
            }
        }
        _ => None,
    };
    match taken {
        Some(taken) => {
            trail.bucket = Some(taken);
            if taken.allowed { failure } else { exceeded(&taken) }
        }
        None => failure,
    }
}

fn moment(trail: &Trail) -> Moment {
    Moment { at: trail.started, wall: trail.now }
}

fn exceeded(taken: &Taken) -> Failure {
    let mut failure = Failure::new(ErrorCode::RateLimitExceeded, "rate_limit");
    failure.retry_after = Some(taken.retry_after_seconds);
    failure
}
