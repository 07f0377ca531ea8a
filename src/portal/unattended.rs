//! Decisions on work that no user asks for: looking for alerts, sending webhooks.
//!
//! Every gate and every policy is asked, guardrails included, as if a user of the partner asked who holds everything:
//! only then may the partner have the data at all (I5, I7). Who subscribes a webhook is an operator, so MFA counts as
//! shown; the address is one that the link admits, if it has a list, else this machine's own.

use std::sync::Arc;

use super::Granted;
use crate::{
    domain::{Facts, LinkFacts, Millis, Permission, PermissionSet, Trace, UserFacts},
    policy::{self, Policies, Refusal, TenantPermit},
};

/// A policy failed: nothing can be said, so nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a policy failed to evaluate")]
pub(super) struct Undecided;

/// The slice, if the link grants this permission to anybody now.
pub(super) fn decide(
    policies: &Policies,
    link: &Arc<LinkFacts>,
    permission: &str,
    now: Millis,
    trace: &Arc<Trace>,
) -> Result<Option<Granted>, Undecided> {
    let permit = permit(policies, link, permission, now)?;
    Ok(permit.map(|permit| Granted::new(Arc::clone(link), permit, PermissionSet::EMPTY, Arc::clone(trace))))
}

/// The permit alone, where nothing is fetched with it.
pub(super) fn permit(
    policies: &Policies,
    link: &LinkFacts,
    permission: &str,
    now: Millis,
) -> Result<Option<TenantPermit>, Undecided> {
    let Some(permission) = Permission::parse(permission) else { return Ok(None) };
    let user = UserFacts {
        issuer: "".into(),
        sub: "linkgate".into(),
        partner_id: link.link.partner_id,
        holds: PermissionSet::ALL,
        suspended: false,
    };
    let facts = Facts {
        user: &user,
        link: Some(link),
        permission,
        switch_context: false,
        now,
        ip: link.some_address(),
        mfa: true,
        method: "",
        route_class: "read",
    };
    match policy::decide(&policies.current(), None, &facts).verdict {
        Ok(permit) => Ok(Some(permit)),
        Err(Refusal::Denied(_)) => Ok(None),
        Err(Refusal::Unavailable) => {
            tracing::error!(link = %link.link.id, %permission, "a policy failed to evaluate; nothing is done in the background");
            Err(Undecided)
        }
    }
}
