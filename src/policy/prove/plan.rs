//! What is asked: the set, the invariants as questions, and the older set to hold it against.
//!
//! Both sets are compiled under one schema, because the symbolic compiler compares requests of one vocabulary only. A
//! schema may differ from the shipped one by groups of actions, so that of the two which knows all groups is taken; where
//! a group of one name has other members in each, no comparison is made.

use std::sync::Arc;

use cedar_policy::{Authorizer, Entities, EntityUid, Policy, PolicySet, Request, RequestEnv, Schema, ValidationMode, Validator};

use super::{
    super::bundle::Bundle,
    invariants::{Invariant, Rule},
};
use crate::domain::Permission;

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
        let response = Authorizer::new().is_authorized(request, &self.set, entities);
        let mut policies: Vec<_> = response.diagnostics().reason().map(ToString::to_string).collect();
        policies.sort();
        let failed = response.diagnostics().errors().map(|error| {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            (error.policy_id().to_string(), error.inner().to_string())
        });
        let failed: Vec<_> = failed.collect();
        Said { allowed: response.decision() == cedar_policy::Decision::Allow && failed.is_empty(), policies, failed }
    }
}

/// One thing to prove in every environment.
#[derive(Clone, Debug)]
pub(super) enum Question {
    /// No request that this policy matches is allowed.
    Never(Policy),
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
}

impl Plan {
    /// The error says why the two sets cannot be compared.
    pub(super) fn new(new: Subject, invariants: &[Invariant], old: Option<Subject>) -> Result<Self, String> {
        let mut questions: Vec<_> = invariants
            .iter()
            .map(|invariant| match &invariant.rule {
                Rule::Never(policy) => Question::Never(policy.clone()),
                Rule::PoliciesNeverFail => Question::NoPolicyFails,
            })
            .collect();
        let mut schema = new.bundle.words.schema.clone();
        if let Some(old) = &old {
            questions.push(Question::NotWider);
            schema = common_schema(&new, old)?;
        }
        Ok(Self { schema, new, old, questions })
    }

    /// Every combination of principal, action and resource that the schema knows, in a stable order.
    pub(super) fn environments(&self) -> Vec<RequestEnv> {
        let mut found: Vec<_> = self.schema.request_envs().collect();
        found.sort_by_key(label);
        found
    }
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
        Err("neither schema has all groups that the two sets use: add those of the older schema to the new one".to_owned())
    }
}

fn name(uid: &EntityUid) -> &str {
    uid.id().unescaped()
}
