//! Whether a job may read a tenant now: links, suspensions and policies as they are at this moment, the user's own
//! permissions as they were when they asked.

use std::sync::Arc;

use super::request::Rights;
use crate::{
    domain::{Denial, Facts, Gate, Millis, Permission, PermissionSet, Portfolio, TenantId, Trace, UserFacts},
    policy::{self, Policies, Refusal},
    portal::call::Granted,
    store::{Directory, Owner, Reading},
};

/// What an export needs in each tenant.
pub(super) const PERMISSION: &str = "partner.billing.invoices.export";

/// Judges a job's slices.
#[derive(Debug)]
pub struct Desk {
    pub policies: Arc<Policies>,
    pub directory: Arc<Directory>,
}

/// Why a tenant is not read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    Denied(Denial),
    /// It cannot be said now.
    Unsure(&'static str),
}

impl Desk {
    /// Decides one tenant's slice; with the portfolio that it was decided by.
    pub async fn decide(
        &self,
        owner: &Owner,
        rights: &Rights,
        tenant: &TenantId,
        trace: &Arc<Trace>,
    ) -> Result<(Granted, Arc<Portfolio>), Barred> {
        let denied = |gate: Gate| Barred::Denied(gate.into());
        let unsure = |_| Barred::Unsure("links cannot be read now");
        let member = self.directory.member(&owner.issuer, &owner.sub, Reading::Fresh).await.map_err(unsure)?;
        // Nobody by that name: a partner by the claims of a trusted issuer.
        if member.is_some_and(|member| !member.active || member.partner_id != owner.partner_id) {
            return Err(denied(Gate::Partner));
        }
        let portfolio = self.directory.portfolio(owner.partner_id, Reading::Fresh).await.map_err(unsure)?;
        let portfolio = portfolio.ok_or_else(|| denied(Gate::Partner))?;
        if portfolio.partner.suspended {
            return Err(denied(Gate::Suspension));
        }
        if !portfolio.partner.active {
            return Err(denied(Gate::Partner));
        }
        let user = UserFacts {
            issuer: owner.issuer.as_str().into(),
            sub: owner.sub.as_str().into(),
            partner_id: owner.partner_id,
            holds: held(rights),
            suspended: self.directory.suspended_subject(&owner.issuer, &owner.sub, None, None),
        };
        let permission = Permission::parse(PERMISSION).ok_or(Barred::Unsure("the permission is not known"))?;
        let link = portfolio.link(tenant.as_str()).ok_or_else(|| denied(Gate::Link))?;
        let facts = Facts {
            user: &user,
            link: Some(link),
            permission,
            switch_context: false,
            now: Millis::now(),
            ip: rights.ip,
            mfa: rights.mfa,
            method: "POST",
            route_class: "export",
        };
        match policy::decide(&self.policies.current(), None, &facts).verdict {
            Ok(permit) => {
                let mut trace = Trace::clone(trace);
                trace.user = Some(owner.sub.as_str().into());
                trace.partner_tenant = Some(portfolio.partner.home_tenant_id.clone());
                let granted = Granted::new(Arc::clone(link), permit, PermissionSet::EMPTY, Arc::new(trace));
                Ok((granted, Arc::clone(&portfolio)))
            }
            Err(Refusal::Denied(denial)) => Err(Barred::Denied(denial)),
            Err(Refusal::Unavailable) => Err(Barred::Unsure("a policy failed to evaluate")),
        }
    }
}

/// Names that a later version does not know grant nothing.
fn held(rights: &Rights) -> PermissionSet {
    let known = rights.holds.iter().filter_map(|name| Permission::parse(name));
    known.fold(PermissionSet::EMPTY, |set, permission| set.union(PermissionSet::of(permission)))
}
