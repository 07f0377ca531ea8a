//! A policy set cut by permission and link role, once when it is loaded.
//!
//! Cedar tries every policy of a set. A slice leaves out the permits of other roles and what names other actions, and
//! nothing else; hand-written policies are never left out by role.

use cedar_policy::{ActionConstraint, Effect, Policy, PolicySet, PolicySetError};

use super::{
    generate::{grant_id, role_id},
    reads::{self, Reads},
    schema::Vocabulary,
    written::Written,
};
use crate::domain::{LinkRole, Permission};

/// The policies that one question has to be put to.
#[derive(Debug, Default)]
pub(super) struct Slice {
    pub(super) set: PolicySet,
    /// The permits among them: asked alone where it matters whether the role grants it at all.
    pub(super) permits: PolicySet,
    /// What the hand-written ones read.
    pub(super) reads: Reads,
}

/// The whole set uncut, and its slices by permission, then role.
pub(super) fn cut(
    words: &Vocabulary,
    own: &[Written],
    by_hand: &[Written],
) -> Result<(Slice, Vec<Slice>), Box<PolicySetError>> {
    let hand = || by_hand.iter().map(|written| &written.policy);
    let full = Slice::of(own.iter().map(|written| &written.policy).chain(hand()), hand())?;
    let mut slices = Vec::new();
    for permission in Permission::all() {
        for role in LinkRole::ALL {
            let by_hand = hand().filter(|policy| names(words, policy, permission));
            let own =
                own.iter().filter(|written| !is_of_another_role(&written.id, role)).map(|written| &written.policy);
            let own = own.filter(|policy| names(words, policy, permission));
            slices.push(Slice::of(own.chain(by_hand.clone()), by_hand)?);
        }
    }
    Ok((full, slices))
}

/// The slice of one permission and role, of those that `cut` made.
pub(super) fn of(slices: &[Slice], permission: Permission, role: LinkRole) -> Option<&Slice> {
    slices.get(permission.index() * LinkRole::ALL.len() + role as usize)
}

fn is_of_another_role(id: &str, role: LinkRole) -> bool {
    LinkRole::ALL.into_iter().any(|other| other != role && id == role_id(other))
        || (role != LinkRole::Delegate && id == grant_id())
}

impl Slice {
    fn of<'a>(
        policies: impl Iterator<Item = &'a Policy> + Clone,
        by_hand: impl Iterator<Item = &'a Policy>,
    ) -> Result<Self, Box<PolicySetError>> {
        let permits = policies.clone().filter(|policy| policy.effect() == Effect::Permit);
        Ok(Self {
            permits: PolicySet::from_policies(permits.cloned()).map_err(Box::new)?,
            set: PolicySet::from_policies(policies.cloned()).map_err(Box::new)?,
            reads: by_hand.fold(Reads::NOTHING, |reads, policy| reads.and(reads::of(policy))),
        })
    }
}

/// Whether the policy's scope takes this action. Only the scope is looked at: it is what Cedar tests first, and it
/// cannot fail, so a policy that is left out by it could neither match nor err.
pub(super) fn names(words: &Vocabulary, policy: &Policy, permission: Permission) -> bool {
    let Some(action) = words.action(permission) else { return true };
    let asked = action.uid();
    let within = |group| asked == group || words.is_in(permission, &group);
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(groups) => groups.into_iter().any(within),
        ActionConstraint::Eq(one) => asked == one,
    }
}
