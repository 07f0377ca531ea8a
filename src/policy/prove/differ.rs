//! Where the two analyses of "can fail" differ: `check` reads a rule by itself, the solver looks at all requests.
//!
//! The solver takes every entity that a rule names to be known, while the gateway gives Cedar those of the question and no
//! others. A rule that reads an attribute of another one fails there, and the solver sees nothing of it: so it is asked
//! for among ordinary requests, and what is not found there is undecided. The other way round `check` does not follow
//! conditions that stand before a calculation; what the solver proves then stands, and is said beside the warning.
//!
//! Only permits come here: a set with a `forbid` of which `check` says that it can fail is never loaded.

use cedar_policy::PolicyId;

use super::{
    super::{faults::Fault, written::Written},
    State, Verdict,
    draft::{ordinary, ordinary_link},
    example::{Claim, Confirmed, Counterexample},
    plan::Subject,
};
use crate::domain::{LinkRole, Permission, PermissionSet};

/// The answer on "no policy can fail", with what `check` knows of the set.
pub(super) fn with_check(mut verdict: Verdict, set: &Subject) -> Verdict {
    for policy in set.bundle.policies.iter().filter(|policy| !policy.faults.is_empty()) {
        match unknown_entity(policy) {
            Some(fault) => {
                verdict.why.push(unseen(policy, fault));
                verdict = match failing(policy, set) {
                    Some(example) => broken(verdict, example),
                    None => undecided(verdict),
                };
            }
            None if verdict.state == State::Proved => verdict.why.push(format!(
                "`policy check` warns that `{}` can fail, because it does not follow the conditions before a \
                 calculation: for no request does it",
                policy.id
            )),
            None => {}
        }
    }
    verdict
}

/// The answer on "no wider than `old`": where a policy of the older set failed, the gateway refused.
pub(super) fn with_check_of_old(mut verdict: Verdict, old: &Subject) -> Verdict {
    for policy in &old.bundle.policies {
        if let Some(fault) = unknown_entity(policy) {
            verdict.why.push(format!("in the older set: {}", unseen(policy, fault)));
            verdict = undecided(verdict);
        }
    }
    verdict
}

fn unknown_entity(policy: &Written) -> Option<&Fault> {
    policy.faults.iter().find(|fault| fault.is_of_an_unknown_entity())
}

fn unseen(policy: &Written, fault: &Fault) -> String {
    format!("`{}` ({}) can fail: {}; the solver takes every entity to be known", policy.id, policy.place(), fault.what)
}

fn undecided(verdict: Verdict) -> Verdict {
    let state = if verdict.state == State::Broken { State::Broken } else { State::Undecided };
    Verdict { state, ..verdict }
}

fn broken(mut verdict: Verdict, example: Counterexample) -> Verdict {
    verdict.state = State::Broken;
    if verdict.counterexample.as_ref().is_none_or(|known| known.confirmed < Confirmed::BySet) {
        verdict.counterexample = Some(example);
    }
    verdict
}

/// An ordinary request, through a link of each role, for which it fails.
fn failing(policy: &Written, set: &Subject) -> Option<Counterexample> {
    let id = PolicyId::new(&policy.id);
    let claim = Claim::Fails(&id);
    let links = LinkRole::ALL.into_iter().filter_map(ordinary_link);
    let mut requests = links.flat_map(|link| {
        Permission::all().map(move |permission| ordinary(permission, PermissionSet::ALL, Some(link.clone())))
    });
    let draft = requests.find(|draft| claim.of_draft(set, draft).is_some())?;
    Some(Counterexample::of_draft(&claim, set, &draft))
}
