//! The role tables of two sets against each other, without a solver.
//!
//! What a user holds and what a chain of links allows at most come to Cedar as facts, made from the role table; the solver
//! takes any such facts for both sets alike. So a wider table is found here: every role against the same role, exactly.

use super::{
    draft::{self, set_ceiling},
    example::{Claim, Confirmed, Counterexample},
    plan::Subject,
};
use crate::domain::{Case, LinkRole, Permission, PermissionSet};

/// A role that grants more than it did.
#[derive(Clone, Debug)]
pub(super) struct Wider {
    pub(super) what: String,
    /// A request that the new set allows for it and the old one refuses; without one it may be closed by a guardrail.
    pub(super) example: Option<Counterexample>,
}

pub(super) fn wider(new: &Subject, old: &Subject) -> Vec<Wider> {
    let mut found = Vec::new();
    let (ours, theirs) = (new.bundle.roles(), old.bundle.roles());
    for (name, now) in ours.user_roles() {
        let before = theirs.user_role(name);
        let examples = |asked| of_user(new, old, asked, now, before);
        found.extend(compare(format!("the user role `{name}`"), now, before, examples));
    }
    for role in LinkRole::ALL {
        let (now, before) = (ours.link_role(role), theirs.link_role(role));
        let examples = |asked| of_chain(new, old, asked, now, before);
        found.extend(compare(format!("the link role `{role}`"), now, before, examples));
    }
    found
}

fn compare(
    who: String,
    now: PermissionSet,
    before: PermissionSet,
    example: impl Fn(Permission) -> Option<Counterexample>,
) -> Option<Wider> {
    let more = now.without(before);
    if more.is_empty() {
        return None;
    }
    let names: Vec<_> = more.iter().map(Permission::name).collect();
    Some(Wider { what: format!("{who} grants more: {}", names.join(", ")), example: more.iter().find_map(example) })
}

/// A link that grants the permission to whoever holds it.
fn granting(asked: Permission) -> Option<crate::domain::LinkFacts> {
    let mut link = draft::ordinary_link(LinkRole::Delegate)?;
    link.link.granted = PermissionSet::of(asked);
    Some(link)
}

fn of_user(
    new: &Subject,
    old: &Subject,
    asked: Permission,
    now: PermissionSet,
    before: PermissionSet,
) -> Option<Counterexample> {
    let draft = draft::ordinary(asked, now, Some(granting(asked)?));
    let then = draft::ordinary(asked, before, draft.link.clone());
    differs(new, old, &draft, &then)
}

/// A link delegated onward from one of the role: what the role grants is what the chain allows at most.
fn of_chain(
    new: &Subject,
    old: &Subject,
    asked: Permission,
    now: PermissionSet,
    before: PermissionSet,
) -> Option<Counterexample> {
    let below = |ceiling| {
        let mut link = granting(asked)?;
        set_ceiling(&mut link, ceiling);
        Some(draft::ordinary(asked, PermissionSet::ALL, Some(link)))
    };
    differs(new, old, &below(now)?, &below(before)?)
}

/// The first draft as a counterexample, if the new set allows it and the old one refuses the second.
fn differs(new: &Subject, old: &Subject, now: &Case, then: &Case) -> Option<Counterexample> {
    let allowed = Claim::Open.of_draft(new, now).is_some();
    let refused = Claim::Open.of_draft(old, then).is_none();
    let example = Counterexample::of_draft(&Claim::Open, new, now);
    (allowed && refused && example.confirmed == Confirmed::BySet).then_some(example)
}
