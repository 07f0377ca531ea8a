//! Every gate of one decision, open or closed, and which policies say so: for people who ask why.
//!
//! Asked of Cedar with all facts, like a decision, but without stopping at the first closed gate. Not for the request
//! path.

use std::sync::Arc;

use serde::Serialize;

use super::{
    bundle::Bundle,
    decide::{Outcome, Said, Trouble, decide, put},
    facts::{Question, asked},
    generate::gate_of,
};
use crate::domain::{Facts, Gate};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    Open,
    Closed,
    /// Nothing can be said of it: there is no link, or the policies failed.
    Unknown,
}

/// One gate, in the order in which gates are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct GateReport {
    /// `link`, `suspension`, ... as in the contract's list.
    pub gate: &'static str,
    pub state: GateState,
    /// For a closed gate the policies that close it; for the open role gate those that grant.
    pub policies: Vec<Arc<str>>,
    /// This is the gate that the refusal tells.
    pub told: bool,
}

/// A decision with all its gates.
#[derive(Debug)]
pub struct Explanation {
    pub outcome: Outcome,
    pub gates: Vec<GateReport>,
    /// What went wrong, where no decision could be made.
    pub trouble: Option<String>,
}

const GATES: [(Gate, &str); 13] = [
    (Gate::Link, "link"),
    (Gate::Suspension, "suspension"),
    (Gate::Partner, "partner"),
    (Gate::Approval, "approval"),
    (Gate::Active, "active"),
    (Gate::Started, "started"),
    (Gate::Ended, "ended"),
    (Gate::Address, "address"),
    (Gate::Mfa, "mfa"),
    (Gate::User, "user"),
    (Gate::Role, "role"),
    (Gate::Override, "override"),
    (Gate::Guardrail, "guardrail"),
];

/// Decides, and lists every gate.
pub fn explain(bundle: &Bundle, facts: &Facts<'_>) -> Explanation {
    let outcome = decide(bundle, None, facts);
    let (said, trouble) = match examine(bundle, facts) {
        Ok(said) => (Some(said), None),
        Err(trouble) => (None, Some(trouble.to_string())),
    };
    let no_link = facts.link.is_none_or(|link| link.link.partner_id != facts.user.partner_id);
    let mut told = false;
    let gates = GATES.into_iter().map(|(gate, name)| {
        let (state, policies) = match &said {
            Some(said) if gate == Gate::Link || !no_link => said.state(gate),
            _ => (GateState::Unknown, Vec::new()),
        };
        let first = state == GateState::Closed && !told;
        told |= first;
        GateReport { gate: name, state, policies, told: first }
    });
    Explanation { gates: gates.collect(), outcome, trouble }
}

/// What the whole set says of each asked action, and what its permits alone say.
struct Examined {
    forbids: Vec<Arc<str>>,
    permits: Vec<Arc<str>>,
    granted: bool,
}

impl Examined {
    fn state(&self, gate: Gate) -> (GateState, Vec<Arc<str>>) {
        let closing: Vec<_> = self.forbids.iter().filter(|id| gate_of(id) == gate).cloned().collect();
        if !closing.is_empty() || (gate == Gate::Role && !self.granted) {
            return (GateState::Closed, closing);
        }
        (GateState::Open, if gate == Gate::Role { self.permits.clone() } else { Vec::new() })
    }
}

fn examine(bundle: &Bundle, facts: &Facts<'_>) -> Result<Examined, Trouble> {
    let question = Question::new(&bundle.words, bundle.roles(), facts, None)?;
    let mut found = Examined { forbids: Vec::new(), permits: Vec::new(), granted: true };
    for permission in asked(facts).iter() {
        let request = question.request(&bundle.words, permission, None)?;
        let whole = put(bundle, &request, &bundle.full.set, &question.entities)?;
        if !whole.allowed {
            found.forbids.extend(whole.policies);
        }
        let Said { allowed, policies } = put(bundle, &request, &bundle.full.permits, &question.entities)?;
        found.granted &= allowed;
        found.permits.extend(policies);
    }
    for ids in [&mut found.forbids, &mut found.permits] {
        ids.sort();
        ids.dedup();
    }
    Ok(found)
}
