//! Every gate of a consolidated request: the caller's own, then each tenant's slice by itself.

use std::{cell::RefCell, net::IpAddr, rc::Rc, sync::Arc};

use http::Method;

use super::{
    refusal::{Told, stale},
    target::Target,
};
use crate::{
    domain::{
        Denial, ErrorCode, Facts, Gate, LinkFacts, Millis, Permission, PermissionSet, Portfolio, Reason, RequestId,
        TenantId, Trace, words,
    },
    policy::{Refusal, TenantPermit},
    portal::{Asker, AskingPartner, Audience, Granted, Slice, Spec, TenantHeader},
    proxy::{
        active_tenant::Named,
        respond::Failure,
        said::{self, Said},
        session::{PartnerUser, Session, Who},
        trail::Trail,
        worker::Worker,
    },
};

/// What the gates let through.
pub(super) struct Decided {
    pub(super) asker: Asker,
    pub(super) portfolio: Option<Arc<Portfolio>>,
    pub(super) slices: Vec<Slice>,
    /// The tenant that the header names, where the endpoint heeds it.
    pub(super) named: Option<TenantId>,
}

/// Every gate of the caller, and of each tenant's slice.
pub(super) fn decide(
    worker: &Worker,
    trail: &mut Trail,
    target: &Target,
    session: &Rc<Session>,
    named: &Named,
) -> Result<Decided, Failure> {
    // What an earlier question said (before the body was read) is no longer the record's.
    trail.said = Said::default();
    let spec = target.spec;
    let home = session.caller.home_tenant.as_ref();
    let heeded = match named {
        Named::Nothing => None,
        Named::Tenant(tenant) if home == Some(tenant) => None,
        Named::Tenant(tenant) => Some(Some(tenant)),
        Named::Impossible => Some(None),
    };
    let heeded = heeded.filter(|_| spec.header != TenantHeader::Ignored);
    trail.managed_tenant = heeded.flatten().cloned();
    // A refusal is recorded as one of the tenant that was named, whoever asked.
    trail.cross = heeded.is_some();
    match &session.who {
        Who::Refused(denial) => return Err((*denial).into()),
        Who::Plain if spec.audience == Audience::Partner => {
            return Err(Denial::new(ErrorCode::Forbidden, Reason::NotAPartner).into());
        }
        Who::Plain | Who::Partner(_) => {}
    }
    if session.suspended {
        return Err(Gate::Suspension.denial());
    }
    if spec.audience == Audience::TenantAdmin {
        return tenant_admin(trail, target, session, heeded.is_some());
    }
    if session.caller.too_old(trail.now) {
        return Err(Failure::new(ErrorCode::Unauthorized, "token_too_old")
            .saying("this token is too old for work in other tenants; log in again"));
    }
    if !worker.gateway.directory.is_fresh() {
        return Err(stale());
    }
    let Some(partner) = session.partner() else {
        return Err(Failure::new(ErrorCode::InternalError, "no_partner"));
    };
    let linked = heeded.map(|tenant| tenant.and_then(|tenant| partner.portfolio.link(tenant.as_str())));
    // Before every other gate, so that nothing is told of a tenant that the caller has nothing to do with.
    if matches!(linked, Some(None)) {
        return Err(Gate::Link.denial());
    }
    if partner.portfolio.partner.suspended {
        return Err(Gate::Suspension.denial());
    }
    if !partner.portfolio.partner.active {
        return Err(Gate::Partner.denial());
    }
    let manner = Manner::of(trail);
    let acts_there = matches!(spec.header, TenantHeader::Required | TenantHeader::Optional);
    let (slices, named) = match linked.flatten() {
        Some(link) if acts_there => {
            trail.link = Some(Arc::clone(link));
            let judge = Judge::new(worker, (&manner, trail.now), session, partner, spec);
            let (policies, slice) = judge.one(link, trail.trace());
            trail.said = judge.said.into_inner();
            trail.policies = policies;
            (vec![slice?], Some(link.link.tenant_id.clone()))
        }
        None if spec.header == TenantHeader::Required => {
            return Err(Failure::new(ErrorCode::TenantContextRequired, "no_active_tenant"));
        }
        link => {
            if let Some(gate) = link.and_then(|link| link.closed_gate(trail.now)) {
                return Err(gate.denial());
            }
            // The header was found good; it does not make a read over all tenants one of this tenant.
            trail.cross = false;
            let judge = Judge::new(worker, (&manner, trail.now), session, partner, spec);
            let slices = judge.all(&trail.trace());
            trail.said = judge.said.into_inner();
            (slices?, None)
        }
    };
    let portfolio = Some(Arc::clone(&partner.portfolio));
    Ok(Decided { asker: asker(trail, session, partner), portfolio, slices, named })
}

/// An administrator of a managed tenant works at home, by a role of the token.
fn tenant_admin(trail: &mut Trail, target: &Target, session: &Rc<Session>, abroad: bool) -> Result<Decided, Failure> {
    if abroad {
        return Err(Denial::new(ErrorCode::Forbidden, Reason::HomeOnly).into());
    }
    let roles = &target.portal.settings.tenant_admin_roles;
    let is_admin = session.caller.roles.iter().any(|role| roles.iter().any(|known| **known == **role));
    if !is_admin || session.caller.home_tenant.is_none() {
        return Err(Denial::new(ErrorCode::Forbidden, Reason::Permission).into());
    }
    let asker = Asker {
        user_id: Arc::clone(&session.caller.sub),
        issuer: Arc::clone(&session.caller.issuer),
        home_tenant: session.caller.home_tenant.clone(),
        username: session.caller.username.clone(),
        partner: None,
        expires_at: session.caller.expires_at,
        ip: trail.client_ip,
        mfa: session.caller.mfa,
    };
    Ok(Decided { asker, portfolio: None, slices: Vec::new(), named: None })
}

fn asker(trail: &Trail, session: &Session, partner: &PartnerUser) -> Asker {
    Asker {
        user_id: Arc::clone(&session.caller.sub),
        issuer: Arc::clone(&session.caller.issuer),
        home_tenant: session.caller.home_tenant.clone(),
        username: session.caller.username.clone(),
        partner: Some(AskingPartner { user: partner.facts.clone(), portfolio: Arc::clone(&partner.portfolio) }),
        expires_at: session.caller.expires_at,
        ip: trail.client_ip,
        mfa: session.caller.mfa,
    }
}

/// Ids of determining policies.
type Policies = Arc<[Arc<str>]>;

/// How a request came, as far as policies ask; kept for questions that come later.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) ip: IpAddr,
    pub(super) method: Method,
    pub(super) request_id: RequestId,
}

impl Manner {
    pub(super) fn of(trail: &Trail) -> Self {
        let (ip, method, request_id) = (trail.client_ip, trail.method.clone(), trail.request_id.clone());
        Self { ip, method, request_id }
    }
}

/// Asks the policies about slices.
pub(super) struct Judge<'a> {
    pub(super) worker: &'a Worker,
    pub(super) manner: &'a Manner,
    /// The instant that is decided about.
    pub(super) now: Millis,
    pub(super) session: &'a Session,
    pub(super) partner: &'a PartnerUser,
    pub(super) spec: &'static Spec,
    /// What was said, for the record; the question before showing what was read is put by a judge of its own.
    said: RefCell<Said>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        (manner, now): (&'a Manner, Millis),
        session: &'a Session,
        partner: &'a PartnerUser,
        spec: &'static Spec,
    ) -> Self {
        Self { worker, manner, now, session, partner, spec, said: RefCell::default() }
    }

    /// The slice that is acted in: a refusal of it is the refusal of the whole.
    fn one(&self, link: &Arc<LinkFacts>, trace: Arc<Trace>) -> (Policies, Result<Slice, Failure>) {
        let none = || Arc::clone(&self.worker.gateway.no_policies);
        let Some(permission) = self.spec.permission() else {
            return (none(), Err(Failure::new(ErrorCode::InternalError, "no_permission")));
        };
        match self.put(link, permission, true, Some(&mut self.said.borrow_mut())) {
            Err(failure) => (none(), Err(failure)),
            Ok((Err(denial), policies)) => (policies, Err(denial.into())),
            Ok((Ok(permit), policies)) => {
                let also = self.also(link, true);
                (policies, also.map(|also| Slice::Granted(Granted::new(Arc::clone(link), permit, also, trace))))
            }
        }
    }

    /// Every live link, ascending by tenant; 403 for a user who lacks the permission everywhere.
    fn all(&self, trace: &Arc<Trace>) -> Result<Vec<Slice>, Failure> {
        let permission = self.spec.permission();
        if permission.is_some_and(|permission| !self.partner.facts.holds.contains(permission)) {
            *self.said.borrow_mut() =
                Said::of_caller(&self.worker.gateway.policies.current(), self.spec.class.as_str());
            return Err(Gate::User.denial());
        }
        let links = self.partner.portfolio.links.values();
        let mut live: Vec<_> = links.filter(|link| link.closed_gate(self.now).is_none()).collect();
        live.sort_unstable_by(|one, other| one.link.tenant_id.cmp(&other.link.tenant_id));
        live.into_iter()
            .map(|link| {
                let Some(permission) = permission else { return Ok(Slice::Live(Arc::clone(link))) };
                let (verdict, _) = self.put(link, permission, false, Some(&mut self.said.borrow_mut()))?;
                Ok(match verdict {
                    Ok(permit) => {
                        let also = self.also(link, false)?;
                        Slice::Granted(Granted::new(Arc::clone(link), permit, also, Arc::clone(trace)))
                    }
                    Err(denial) => Slice::Forbidden { link: Arc::clone(link), denial },
                })
            })
            .collect()
    }

    /// Which of the endpoint's further permissions hold on this link.
    fn also(&self, link: &Arc<LinkFacts>, switch_context: bool) -> Result<PermissionSet, Failure> {
        let mut also = PermissionSet::EMPTY;
        for permission in self.spec.also.iter().filter_map(|name| Permission::parse(name)) {
            if self.ask(link, permission, switch_context)?.is_ok() {
                also = also.union(PermissionSet::of(permission));
            }
        }
        Ok(also)
    }

    pub(super) fn ask(
        &self,
        link: &LinkFacts,
        permission: Permission,
        switch_context: bool,
    ) -> Result<Result<TenantPermit, Denial>, Failure> {
        self.put(link, permission, switch_context, None).map(|(verdict, _)| verdict)
    }

    /// The verdict with the policies that determined it. `said`: it is the record's.
    fn put(
        &self,
        link: &LinkFacts,
        permission: Permission,
        switch_context: bool,
        said: Option<&mut Said>,
    ) -> Result<(Result<TenantPermit, Denial>, Policies), Failure> {
        let gateway = &self.worker.gateway;
        let bundle = gateway.policies.current();
        if bundle.generation() != self.session.policies {
            // The session was resolved under another role table; the next request is resolved anew.
            return Err(Failure::new(ErrorCode::PolicyUnavailable, "policies_changed"));
        }
        let facts = Facts {
            user: &self.partner.facts,
            link: Some(link),
            permission,
            switch_context,
            now: self.now,
            ip: self.manner.ip,
            mfa: self.session.caller.mfa,
            method: self.manner.method.as_str(),
            route_class: self.spec.class.as_str(),
        };
        let outcome = said::put(self.worker, &bundle, self.session, (&facts, self.spec.class.as_str()), said);
        match outcome.verdict {
            Ok(permit) => Ok((Ok(permit), outcome.policies)),
            Err(Refusal::Denied(denial)) => Ok((Err(denial), outcome.policies)),
            Err(Refusal::Unavailable) => {
                gateway.metrics.policy_errors.inc();
                tracing::error!(request_id = %self.manner.request_id, permission = %permission, "a policy failed to evaluate; the request is refused");
                Err(Failure::new(ErrorCode::PolicyUnavailable, words::POLICY_ERROR))
            }
        }
    }
}
