//! The decision on one cross-tenant request.
//!
//! First the gates that no policy may open, natively and in the contract's order; then Cedar, or the memo of what Cedar
//! said. The first closed gate is the one that is told. Whatever cannot be decided is a refusal.

use std::{borrow::Cow, sync::Arc};

use cedar_policy::{AuthorizationError, Decision, Entities, PolicyId, PolicySet, Request};

use super::{
    bundle::{Answer, Bundle, PolicyIds},
    facts::{Question, Unfit, asked},
    generate::gate_of,
    memo::{Memo, Probe},
    reads::Reads,
};
use crate::domain::{Denial, ErrorCode, Facts, Gate, LinkFacts, Permission, Reason, words};

/// Proof of a decision over a live link, and the only one that opens a tenant's slice. Made by `decide` alone.
#[derive(Debug, PartialEq, Eq)]
pub struct TenantPermit(());

/// Proof that a request may be forwarded: a [`TenantPermit`], or made by one of the two named constructors for requests
/// that links do not judge; nothing outside this room can make one otherwise.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    kind: PermitKind,
}

/// What a permit rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitKind {
    /// A decision over a live link.
    CrossTenant,
    /// The caller works in their own tenant; the upstream's own authorisation applies.
    Home,
    /// A route that reads neither token nor tenant.
    Public,
}

impl Permit {
    /// For a verified caller in their own tenant, once identity and suspension have been checked.
    pub fn home_request() -> Self {
        Self { kind: PermitKind::Home }
    }

    /// For a route that the configuration names public.
    pub fn public_route() -> Self {
        Self { kind: PermitKind::Public }
    }

    pub fn kind(&self) -> PermitKind {
        self.kind
    }
}

impl From<TenantPermit> for Permit {
    fn from(_: TenantPermit) -> Self {
        Self { kind: PermitKind::CrossTenant }
    }
}

/// Why a request is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    Denied(Denial),
    /// A policy failed while it was evaluated: 503 `POLICY_UNAVAILABLE`, audit reason `policy_error`.
    Unavailable,
}

/// The verdict and the policies that determined it (for `Unavailable`: those that failed).
#[derive(Debug)]
pub struct Outcome {
    pub verdict: Result<TenantPermit, Refusal>,
    pub policies: Arc<[Arc<str>]>,
    /// The set refused this, and is not enforced (`policy.enforce = false`): `policies` are those that refused.
    pub waived: Option<Denial>,
}

/// What a set says of a request: a verdict that forwards nothing. For shadow sets, replays and explanations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub result: Result<(), Refusal>,
    pub policies: Arc<[Arc<str>]>,
}

impl Verdict {
    pub fn is_allow(&self) -> bool {
        self.result.is_ok()
    }

    /// The word of a refusal, as records have it.
    pub fn word(&self) -> Option<&'static str> {
        match self.result {
            Ok(()) => None,
            Err(Refusal::Denied(denial)) => Some(denial.word()),
            Err(Refusal::Unavailable) => Some(words::POLICY_ERROR),
        }
    }
}

/// Decides one request. With a memo the answer is Cedar's own for the same facts, remembered.
pub fn decide(bundle: &Bundle, memo: Option<&mut Memo>, facts: &Facts<'_>) -> Outcome {
    let weighed = weigh(bundle, memo, facts);
    if let Err(trouble) = &weighed {
        tracing::error!(policy_version = bundle.version(), %trouble, "no decision could be made: request refused");
    }
    let Verdict { result, policies } = verdict(weighed);
    match result {
        Err(Refusal::Denied(denial)) if !bundle.enforced() && may_waive(bundle, facts, denial) => {
            Outcome { verdict: Ok(TenantPermit(())), policies, waived: Some(denial) }
        }
        result => Outcome { verdict: result.map(TenantPermit), policies, waived: None },
    }
}

/// The same decision without its permit, and without an alarm where none can be made: for what is not enforced.
pub fn judge(bundle: &Bundle, memo: Option<&mut Memo>, facts: &Facts<'_>) -> Verdict {
    verdict(weigh(bundle, memo, facts))
}

/// The decision as if the policy with this id were not in the set.
pub(super) fn judge_without(bundle: &Bundle, facts: &Facts<'_>, id: &str) -> Verdict {
    verdict(match native(facts) {
        Ok(link) => ask(bundle, facts, link, Some(id)),
        Err(gate) => Ok(closed(bundle, gate)),
    })
}

fn verdict(weighed: Result<Answer, Trouble>) -> Verdict {
    match weighed {
        Ok(answer) => Verdict { result: answer.verdict.map_err(Refusal::Denied), policies: answer.policies },
        Err(Trouble::Failed(ids)) => Verdict { result: Err(Refusal::Unavailable), policies: ids.into() },
        Err(_) => Verdict { result: Err(Refusal::Unavailable), policies: PolicyIds::from([]) },
    }
}

fn closed(bundle: &Bundle, gate: Gate) -> Answer {
    Answer { verdict: Err(gate.into()), policies: bundle.native(gate) }
}

fn weigh(bundle: &Bundle, memo: Option<&mut Memo>, facts: &Facts<'_>) -> Result<Answer, Trouble> {
    let link = match native(facts) {
        Ok(link) => link,
        Err(gate) => return Ok(closed(bundle, gate)),
    };
    let Some(memo) = memo else { return ask(bundle, facts, link, None) };
    let reads = reads(bundle, facts, link);
    let probe = reads.and_then(|reads| Probe::new(bundle.generation(), bundle.roles(), reads, facts, link));
    let Some(probe) = probe else { return ask(bundle, facts, link, None) };
    if let Some(answer) = memo.get(&probe) {
        return Ok(answer.clone());
    }
    let asked = ask(bundle, facts, link, None);
    if let Ok(answer) = &asked {
        memo.put(&probe, answer.clone());
    }
    asked
}

/// What a set that is not enforced may let through: a refusal by a guardrail or by the table of roles, and nothing else.
/// Link, window, approval, suspension, address, MFA, the user's own permissions, overrides and the ceiling of parents
/// are asked again without Cedar.
fn may_waive(bundle: &Bundle, facts: &Facts<'_>, denial: Denial) -> bool {
    let of_policy =
        denial.code == ErrorCode::Forbidden && matches!(denial.reason, Some(Reason::Permission | Reason::Guardrail));
    of_policy && native(facts).is_ok_and(|link| within_bounds(bundle, facts, link))
}

/// What the hand-written policies that apply to the question can read.
fn reads(bundle: &Bundle, facts: &Facts<'_>, link: &LinkFacts) -> Option<Reads> {
    let role = link.link.role;
    let route = bundle.slice(facts.permission, role)?.reads;
    if !facts.switch_context {
        return Some(route);
    }
    Some(route.and(bundle.slice(Permission::SWITCH_CONTEXT, role)?.reads))
}

/// What Cedar alone says, over the whole set, without native gates, slices or memo: for tests and proofs.
///
/// `Err` where a policy failed.
pub fn decide_in_full(bundle: &Bundle, facts: &Facts<'_>) -> Result<bool, Refusal> {
    let schema = Some(&bundle.words.schema);
    let question = Question::new(&bundle.words, bundle.roles(), facts, schema).map_err(|_| Refusal::Unavailable)?;
    let mut allowed = true;
    for permission in asked(facts).iter() {
        let request = question.request(&bundle.words, permission, schema).map_err(|_| Refusal::Unavailable)?;
        let response = bundle.authorizer.is_authorized(&request, &bundle.full.set, &question.entities);
        if response.diagnostics().errors().next().is_some() {
            return Err(Refusal::Unavailable);
        }
        allowed &= response.decision() == Decision::Allow;
    }
    Ok(allowed)
}

/// The gates that stand outside hand-written policy, up to MFA, in the contract's order.
fn native<'a>(facts: &Facts<'a>) -> Result<&'a LinkFacts, Gate> {
    // A link of another partner is no link of the caller's: never let it through on the word of a lookup.
    let link = facts.link.filter(|link| link.link.partner_id == facts.user.partner_id).ok_or(Gate::Link)?;
    if facts.user.suspended {
        return Err(Gate::Suspension);
    }
    if let Some(gate) = link.closed_gate(facts.now) {
        return Err(gate);
    }
    if !link.admits(facts.ip) {
        return Err(Gate::Address);
    }
    if link.requires_mfa() && !facts.mfa {
        return Err(Gate::Mfa);
    }
    Ok(link)
}

/// Why Cedar gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("policies failed while they were evaluated: {0:?}")]
    Failed(Vec<Arc<str>>),
    #[error("no slice of policies for the permission and role asked")]
    NoSlice,
    #[error("Cedar allowed what a gate outside policy denies")]
    Disagreement,
}

/// Asks Cedar, for every action that has to be allowed; all of them are asked, because the earliest closed gate of any
/// is the one that is told. `without`: as if this policy were not there.
fn ask(bundle: &Bundle, facts: &Facts<'_>, link: &LinkFacts, without: Option<&str>) -> Result<Answer, Trouble> {
    let question = Question::new(&bundle.words, bundle.roles(), facts, None)?;
    let mut closed: Option<Gate> = None;
    let mut policies = Vec::new();
    for permission in asked(facts).iter() {
        let slice = bundle.slice(permission, link.link.role).ok_or(Trouble::NoSlice)?;
        let request = question.request(&bundle.words, permission, None)?;
        let said = put(bundle, &request, &leave_out(&slice.set, without), &question.entities)?;
        if !said.allowed {
            let mut gate = said.policies.iter().map(|id| gate_of(id)).min().unwrap_or(Gate::Role);
            // Forbids hide whether any permit matched, and the role's gate is told before those that come after it.
            if gate > Gate::Role
                && !put(bundle, &request, &leave_out(&slice.permits, without), &question.entities)?.allowed
            {
                gate = Gate::Role;
            }
            closed = Some(closed.map_or(gate, |other| other.min(gate)));
        }
        policies.push((said.allowed, said.policies));
    }
    let allowed = closed.is_none();
    if allowed && !within_bounds(bundle, facts, link) {
        return Err(Trouble::Disagreement);
    }
    let mut ids: Vec<_> = policies.into_iter().filter(|(one, _)| *one == allowed).flat_map(|(_, ids)| ids).collect();
    ids.sort();
    ids.dedup();
    Ok(Answer { verdict: closed.map_or(Ok(()), |gate| Err(gate.into())), policies: ids.into() })
}

fn leave_out<'s>(set: &'s PolicySet, id: Option<&str>) -> Cow<'s, PolicySet> {
    let Some(id) = id else { return Cow::Borrowed(set) };
    let mut set = set.clone();
    // Fails only where it is not in this slice.
    let _ = set.remove_static(PolicyId::new(id));
    Cow::Owned(set)
}

/// The gates that generated forbids state, once more without Cedar: an allow that breaks one of them is a fault.
fn within_bounds(bundle: &Bundle, facts: &Facts<'_>, link: &LinkFacts) -> bool {
    let asked = asked(facts);
    facts.user.holds.contains_all(asked)
        && link.link.denied.intersection(asked).is_empty()
        && link.ceiling(bundle.roles()).contains_all(asked)
}

pub(super) struct Said {
    pub(super) allowed: bool,
    pub(super) policies: Vec<Arc<str>>,
}

/// One call to Cedar. Cedar skips a policy that errs, so an erring `forbid` would open the door: any error is trouble.
pub(super) fn put(
    bundle: &Bundle,
    request: &Request,
    policies: &PolicySet,
    entities: &Entities,
) -> Result<Said, Trouble> {
    let response = bundle.authorizer.is_authorized(request, policies, entities);
    let mut failed: Vec<_> = response
        .diagnostics()
        .errors()
        .map(|AuthorizationError::PolicyEvaluationError(error)| bundle.id(error.policy_id().as_ref()))
        .collect();
    if !failed.is_empty() {
        failed.sort();
        return Err(Trouble::Failed(failed));
    }
    let policies = response.diagnostics().reason().map(|id| bundle.id(id.as_ref())).collect();
    Ok(Said { allowed: response.decision() == Decision::Allow, policies })
}
