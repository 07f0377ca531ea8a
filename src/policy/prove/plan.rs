//! What is asked: the set, the invariants as questions, and the older set to hold it against.
//!
//! Both sets are compiled under one schema, because the symbolic compiler compares requests of one vocabulary only. A
//! schema may differ from the shipped one by groups of actions, so that of the two which knows all groups is taken; where
//! a group of one name has other members in each, no comparison is made.
//!
//! One thing is assumed of the facts, because the gateway keeps it (`facts::clamp`): instants lie within the years 0 to
//! 9999. Without it every policy that adds a week to a date could "overflow".

use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Decision, Entities, EntityUid, Policy, PolicyId, PolicySet, Request, RequestEnv, Schema,
    ValidationMode, Validator,
};

use super::{
    super::{bundle::Bundle, facts, generate::PREFIX},
    entry::{Invariant, Rule},
};
use crate::domain::{Millis, Permission};

/// A policy set as the solver is asked about it.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) bundle: Arc<Bundle>,
    pub(super) set: PolicySet,
}

/// What Cedar says of one request, over the whole set.
pub(super) struct Said {
    pub(super) allowed: bool,
    /// The determining policies, sorted.
    pub(super) policies: Vec<String>,
    /// Policies that failed, each with why; with any of them the gateway refuses.
    pub(super) failed: Vec<(String, String)>,
}

impl Subject {
    pub(super) fn new(bundle: Arc<Bundle>) -> Self {
        let set = bundle.full.set.clone();
        Self { bundle, set }
    }

    pub(super) fn ask(&self, request: &Request, entities: &Entities) -> Said {
        let response = self.bundle.authorizer.is_authorized(request, &self.set, entities);
        let mut policies: Vec<_> = response.diagnostics().reason().map(ToString::to_string).collect();
        policies.sort();
        let failed = response.diagnostics().errors().map(|error| {
            let AuthorizationError::PolicyEvaluationError(error) = error;
            (error.policy_id().to_string(), error.inner().to_string())
        });
        let failed: Vec<_> = failed.collect();
        Said { allowed: response.decision() == Decision::Allow && failed.is_empty(), policies, failed }
    }
}

/// A policy, and the same where it looks at nothing that does not meet the assumption.
///
/// The first is asked about first: what holds without the assumption holds with it, and is found sooner.
#[derive(Clone, Debug)]
pub(super) struct Twice {
    pub(super) bare: Policy,
    pub(super) assuming: Policy,
}

/// One thing to prove in every environment.
#[derive(Clone, Debug)]
pub(super) enum Question {
    /// No request that this policy matches is allowed.
    Never(Box<Twice>),
    NoPolicyFails,
    /// Whatever the set allows the older set allows.
    NotWider,
}

/// All that the environments share.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) schema: Schema,
    pub(super) new: Subject,
    pub(super) old: Option<Subject>,
    pub(super) questions: Vec<Question>,
    /// Every combination of principal, action and resource that the schema knows, in a stable order.
    pub(super) environments: Vec<RequestEnv>,
    /// The set, with a `forbid` of whatever does not meet the assumption.
    pub(super) assumed: PolicySet,
    pub(super) new_policies: Vec<Twice>,
    pub(super) old_policies: Vec<Twice>,
}

/// Why there is nothing that could be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unplanned {
    #[error("{0}")]
    Incomparable(String),
    #[error("the policy `{policy}` cannot be prepared for the proof: {error}")]
    Policy { policy: String, error: String },
}

impl Plan {
    pub(super) fn new(new: Subject, invariants: &[Invariant], old: Option<Subject>) -> Result<Self, Unplanned> {
        let schema = match &old {
            Some(old) => common_schema(&new, old).map_err(Unplanned::Incomparable)?,
            None => new.bundle.words.schema.clone(),
        };
        let mut questions = Vec::with_capacity(invariants.len() + 1);
        for invariant in invariants {
            questions.push(match &invariant.rule {
                Rule::Never(policy) => Question::Never(Box::new(twice(policy)?)),
                Rule::PoliciesNeverFail => Question::NoPolicyFails,
            });
        }
        questions.extend(old.as_ref().map(|_| Question::NotWider));
        let mut environments: Vec<_> = schema.request_envs().collect();
        environments.sort_by_key(label);
        let all = |subject: &Subject| subject.set.policies().map(twice).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            assumed: with_assumption(&new.set)?,
            new_policies: all(&new)?,
            old_policies: old.as_ref().map(all).transpose()?.unwrap_or_default(),
            schema,
            new,
            old,
            questions,
            environments,
        })
    }
}

/// What holds of all facts that the gateway makes, as a condition in Cedar.
fn assumption() -> String {
    let within = |what: &str| {
        let (first, last) = (Millis(facts::FIRST), Millis(facts::LAST));
        format!("{what} >= datetime(\"{first}\") && {what} <= datetime(\"{last}\")")
    };
    format!(
        "{} && (if resource is Link then {} && (if resource has ends then {} else true) else true)",
        within("context.now"),
        within("resource.starts"),
        within("resource.ends")
    )
}

fn assumption_policy(effect: &str, word: &str) -> Result<Policy, Unplanned> {
    let id = PolicyId::new(format!("{PREFIX}assumption"));
    let text = format!("{effect} (principal, action, resource) {word} {{ {} }};", assumption());
    Policy::parse(Some(id.clone()), text).map_err(|error| unplanned(&id, &error))
}

fn unplanned(policy: &PolicyId, error: &dyn std::fmt::Display) -> Unplanned {
    Unplanned::Policy { policy: policy.to_string(), error: error.to_string() }
}

fn with_assumption(set: &PolicySet) -> Result<PolicySet, Unplanned> {
    let forbid = assumption_policy("forbid", "unless")?;
    let mut set = set.clone();
    let id = forbid.id().clone();
    set.add(forbid).map_err(|error| unplanned(&id, &error))?;
    Ok(set)
}

/// The second has the assumption as its first condition: the others are not evaluated where it is not met.
fn twice(policy: &Policy) -> Result<Twice, Unplanned> {
    let said = |error: &dyn std::fmt::Display| unplanned(policy.id(), error);
    let first = assumption_policy("permit", "when")?.to_json().map_err(|error| said(&error))?;
    let first = first.pointer("/conditions/0").cloned();
    let mut json = policy.to_json().map_err(|error| said(&error))?;
    match (json.get_mut("conditions").and_then(|conditions| conditions.as_array_mut()), first) {
        (Some(conditions), Some(first)) => conditions.insert(0, first),
        _ => return Err(said(&"its JSON form has no list of conditions")),
    }
    let assuming = Policy::from_json(Some(policy.id().clone()), json).map_err(|error| said(&error))?;
    Ok(Twice { bare: policy.clone(), assuming })
}

/// The environment in a few words.
pub(super) fn label(env: &RequestEnv) -> String {
    let action: &str = env.action().id().unescaped();
    match (env.principal().to_string().as_str(), env.resource().to_string().as_str()) {
        ("PartnerUser", "Link") => format!("{action} through a link"),
        ("PartnerUser", "Tenant") => format!("{action} without a link"),
        (principal, resource) => format!("{action} by {principal} on {resource}"),
    }
}

fn common_schema(new: &Subject, old: &Subject) -> Result<Schema, String> {
    let (ours, theirs) = (&new.bundle.words, &old.bundle.words);
    for group in ours.schema.action_groups() {
        let known = theirs.schema.action_groups().any(|other| other == group);
        let differs = |one: &Permission| ours.is_in(*one, group) != theirs.is_in(*one, group);
        if let Some(permission) = Permission::all().find(differs).filter(|_| known) {
            return Err(format!(
                "the two schemas mean different things by the group `{}` (`{permission}` is in only one of them): give \
                 the changed group another name",
                name(group)
            ));
        }
    }
    let fits = |schema: &Schema, set: &PolicySet| {
        Validator::new(schema.clone()).validate(set, ValidationMode::Strict).validation_passed()
    };
    if fits(&ours.schema, &old.set) {
        Ok(ours.schema.clone())
    } else if fits(&theirs.schema, &new.set) {
        Ok(theirs.schema.clone())
    } else {
        Err("neither schema has all groups that the two sets use: add those of the older schema to the new one"
            .to_owned())
    }
}

fn name(uid: &EntityUid) -> &str {
    uid.id().unescaped()
}
