//! A tighter override for a link: it keeps what is needed of what the link grants, denies the rest, and is held against the
//! policies before anybody is told of it.
//!
//! Of a role, what is not needed is denied beside the overrides that are there. A `delegate` has no more than its overrides
//! grant, so its grants are written anew: only what is needed. Names are as wide as they can be without touching a needed
//! permission.
//!
//! Invariant: what is proposed lets nobody do anything that the link did not allow, takes nothing that is needed, and is no
//! widening that would wait for approval. Where that cannot be shown, nothing is proposed.

use std::collections::BTreeMap;

use super::{
    bundle::Bundle,
    decide::judge,
    effective::{Answer, Effective, effective},
};
use crate::domain::{
    Facts, LinkFacts, LinkRole, Millis, Permission, PermissionSet, UserFacts,
    link_rules::expand_overrides,
    permission::{Kind, cover},
};

/// Overrides that can be written to the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tightened {
    /// `custom_permissions` as they are afterwards.
    pub overrides: BTreeMap<String, bool>,
    /// Those that have to be given.
    pub given: BTreeMap<String, bool>,
    /// The overrides that are there are cleared first.
    pub anew: bool,
    /// What nobody can do any more.
    pub dropped: PermissionSet,
}

/// Why there is nothing to propose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTightened {
    #[error("everything that the link grants is needed")]
    AllNeeded,
    #[error("the link is not live: it grants nothing now")]
    NotLive,
    /// Such as a hand-written rule that reads the overrides in a way of its own.
    #[error("no override was found that the policies bear out: it would change `{0}`")]
    NotBorneOut(Permission),
}

/// The tightest overrides of the link that still allow `needed`. `overrides` are those that are there.
pub fn tighten(
    bundle: &Bundle,
    link: &LinkFacts,
    overrides: &BTreeMap<String, bool>,
    needed: PermissionSet,
    now: Millis,
) -> Result<Tightened, NotTightened> {
    if link.closed_gate(now).is_some() {
        return Err(NotTightened::NotLive);
    }
    let before = effective(bundle, link, now);
    let granted: PermissionSet = granted(&before).collect();
    let needed = needed.intersection(granted);
    let dropped = granted.without(needed);
    if dropped.is_empty() {
        return Err(NotTightened::AllNeeded);
    }
    let tightened = proposal(bundle, link, overrides, needed, dropped);
    let mut after = link.clone();
    (after.link.granted, after.link.denied) = sets(&tightened.overrides);
    match broken(bundle, link, &after, &before, (needed, dropped), now) {
        Some(permission) => Err(NotTightened::NotBorneOut(permission)),
        None => Ok(tightened),
    }
}

/// What the link grants, to somebody at some time.
pub fn granted(rows: &[Effective]) -> impl Iterator<Item = Permission> {
    rows.iter().filter(|row| row.answer != Answer::No).map(|row| row.permission)
}

fn sets(overrides: &BTreeMap<String, bool>) -> (PermissionSet, PermissionSet) {
    expand_overrides(overrides.iter().map(|(name, allow)| (name.as_str(), *allow)))
}

fn proposal(
    bundle: &Bundle,
    link: &LinkFacts,
    overrides: &BTreeMap<String, bool>,
    needed: PermissionSet,
    dropped: PermissionSet,
) -> Tightened {
    let deny = |dropped: PermissionSet| {
        cover(dropped, PermissionSet::ALL.without(needed)).into_iter().map(|name| (name, false))
    };
    if link.link.role != LinkRole::Delegate {
        let given: BTreeMap<String, bool> = deny(dropped).collect();
        let mut all = overrides.clone();
        all.extend(given.clone());
        return Tightened { overrides: all, given, anew: false, dropped };
    }
    // Nothing is granted anew that was not granted before: else the link would wait for approval.
    let role = bundle.roles().link_role(LinkRole::Delegate);
    let wanted = needed.without(role).intersection(link.link.granted);
    let grants = cover(wanted, needed.intersection(link.link.granted)).into_iter().map(|name| (name, true));
    let denials = overrides.iter().filter(|(_, allow)| !**allow).map(|(name, allow)| (name.clone(), *allow));
    let beyond_grants = dropped.intersection(role);
    let given: BTreeMap<String, bool> = grants.chain(denials).chain(deny(beyond_grants)).collect();
    Tightened { overrides: given.clone(), given, anew: true, dropped }
}

/// The first permission of which the policies do not say what was meant.
fn broken(
    bundle: &Bundle,
    link: &LinkFacts,
    after: &LinkFacts,
    before: &[Effective],
    (needed, dropped): (PermissionSet, PermissionSet),
    now: Millis,
) -> Option<Permission> {
    // As `link_rules::widens` asks: wider overrides would wait for approval.
    let wider = link.link.denied.without(after.link.denied).union(after.link.granted.without(link.link.granted));
    if let Some(permission) = wider.iter().next() {
        return Some(permission);
    }
    let rows = effective(bundle, after, now);
    for (was, is) in before.iter().zip(&rows) {
        let permission = was.permission;
        let as_meant = if needed.contains(permission) { was == is } else { is.answer == Answer::No };
        let allowed = allowed(bundle, after, permission, now);
        let must = needed.contains(permission) && was.answer == Answer::Yes;
        let must_not = dropped.contains(permission) || was.answer == Answer::No;
        if !as_meant || (must && !allowed) || (must_not && allowed) {
            return Some(permission);
        }
    }
    None
}

/// What Cedar says of a user who holds everything, shows MFA and comes from an address that the link admits.
fn allowed(bundle: &Bundle, link: &LinkFacts, permission: Permission, now: Millis) -> bool {
    let user = UserFacts {
        issuer: "".into(),
        sub: "linkgate".into(),
        partner_id: link.link.partner_id,
        holds: PermissionSet::ALL,
        suspended: false,
    };
    let route_class = match permission.kind() {
        Kind::Read | Kind::Context => "read",
        Kind::Write => "write",
        Kind::Export => "export",
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
        route_class,
    };
    judge(bundle, None, &facts).is_allow()
}

#[cfg(test)]
#[path = "tighten_tests.rs"]
mod tests;
