//! What the decisions of a suite have looked at, and what not: roles, permissions, gates and rules.
//!
//! A cell of a role counts when the decision came as far as that role; a rule counts when it was *decisive*: a permit that
//! allowed, a forbid that alone closed the gate which was told.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value as Json;

use super::{super::bundle::Bundle, read::GATES};
use crate::domain::{Facts, Gate, LinkRole, Permission};

/// How much of each kind was looked at.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "PolicyTestCoverage")]
pub struct Coverage {
    pub kinds: Vec<CoverageKind>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "PolicyTestCoverageOf")]
pub struct CoverageKind {
    pub name: &'static str,
    pub covered: usize,
    pub total: usize,
    /// What was not, by group (a role, say).
    pub missing: BTreeMap<String, Vec<String>>,
}

impl CoverageKind {
    /// Whole percents, rounded down: 100 means everything.
    pub fn percent(&self) -> usize {
        (self.covered * 100).checked_div(self.total).unwrap_or(100)
    }
}

impl Coverage {
    /// The smallest percentage of all kinds.
    pub fn least(&self) -> usize {
        self.kinds.iter().map(CoverageKind::percent).min().unwrap_or(100)
    }
}

pub(super) struct Seen {
    link_roles: BTreeSet<(LinkRole, Permission)>,
    user_roles: BTreeSet<(String, Permission)>,
    known_user_roles: Vec<String>,
    allowed: BTreeSet<Permission>,
    denied: BTreeSet<Permission>,
    gates: BTreeSet<&'static str>,
    decisive: BTreeSet<String>,
    /// Id, and whether it is generated.
    rules: BTreeMap<String, bool>,
}

impl Seen {
    pub(super) fn new(bundle: &Bundle) -> Self {
        let mut seen = Self {
            link_roles: BTreeSet::new(),
            user_roles: BTreeSet::new(),
            known_user_roles: bundle.roles().user_roles().map(|(name, _)| name.to_owned()).collect(),
            allowed: BTreeSet::new(),
            denied: BTreeSet::new(),
            gates: BTreeSet::new(),
            decisive: BTreeSet::new(),
            rules: BTreeMap::new(),
        };
        seen.rules_of(bundle);
        seen
    }

    pub(super) fn rules_of(&mut self, bundle: &Bundle) {
        self.rules.extend(bundle.policies().map(|policy| (policy.id.to_owned(), policy.generated)));
    }

    /// Takes note of one decision.
    pub(super) fn note(
        &mut self,
        bundle: &Bundle,
        question: &[u8],
        facts: &Facts<'_>,
        allowed: bool,
        gate: Option<&'static str>,
        policies: &[String],
    ) {
        let told = gate.and_then(|name| GATES.into_iter().find(|gate| gate.as_str() == name));
        if let Some(link) = facts.link
            && (allowed || told >= Some(Gate::Role))
        {
            self.link_roles.insert((link.link.role, facts.permission));
        }
        if let Some(role) = only_role(question)
            && (allowed || told >= Some(Gate::User))
        {
            self.user_roles.insert((role, facts.permission));
        }
        if allowed { &mut self.allowed } else { &mut self.denied }.insert(facts.permission);
        self.gates.extend(gate);
        let permit = |id: &String| bundle.policies().any(|policy| policy.id == id && !policy.forbids);
        if allowed {
            self.decisive.extend(policies.iter().filter(|id| permit(id)).cloned());
        } else if let Some(told) = told {
            let mut closing = policies.iter().filter(|id| bundle.gate_of(id) == told);
            if let (Some(id), None) = (closing.next(), closing.next()) {
                self.decisive.insert(id.clone());
            }
        }
    }

    pub(super) fn coverage(&self) -> Coverage {
        let roles = LinkRole::ALL.into_iter().flat_map(|role| {
            Permission::all().map(move |permission| {
                let seen = self.link_roles.contains(&(role, permission));
                (role.to_string(), permission.to_string(), seen)
            })
        });
        let users = self.known_user_roles.iter().flat_map(|role| {
            Permission::all().map(move |permission| {
                let seen = self.user_roles.contains(&(role.clone(), permission));
                (role.clone(), permission.to_string(), seen)
            })
        });
        let permissions = Permission::all().flat_map(|permission| {
            let of = |what: &str, set: &BTreeSet<Permission>| {
                (format!("never {what}"), permission.to_string(), set.contains(&permission))
            };
            [of("allowed", &self.allowed), of("denied", &self.denied)]
        });
        let gates = GATES
            .into_iter()
            .map(|gate| ("never told".to_owned(), gate.as_str().to_owned(), self.gates.contains(gate.as_str())));
        let rules = self.rules.iter().map(|(id, generated)| {
            let kind = if *generated { "generated, never decisive" } else { "never decisive" };
            (kind.to_owned(), id.clone(), self.decisive.contains(id))
        });
        let kinds = vec![
            kind("link roles × permissions", roles),
            kind("user roles × permissions", users),
            kind("permissions, allowed and denied", permissions),
            // Only a set with hand-written rules can close the last gate.
            kind("gates", gates.filter(|(_, gate, _)| gate != Gate::Guardrail.as_str() || self.has_guardrails())),
            kind("rules", rules),
        ];
        Coverage { kinds }
    }

    fn has_guardrails(&self) -> bool {
        self.rules.values().any(|generated| !generated)
    }
}

fn kind(name: &'static str, cells: impl Iterator<Item = (String, String, bool)>) -> CoverageKind {
    let mut found = CoverageKind { name, covered: 0, total: 0, missing: BTreeMap::new() };
    for (group, what, seen) in cells {
        found.total += 1;
        if seen {
            found.covered += 1;
        } else {
            found.missing.entry(group).or_default().push(what);
        }
    }
    found
}

/// The user's role, where the question gives exactly one and no permission besides: then the answer speaks of that role.
fn only_role(question: &[u8]) -> Option<String> {
    let question: Json = serde_json::from_slice(question).ok()?;
    let user = question.get("user")?;
    let empty = |list: Option<&Json>| list.and_then(Json::as_array).is_none_or(Vec::is_empty);
    match user.get("roles")?.as_array()?.as_slice() {
        [Json::String(role)] if empty(user.get("permissions")) => Some(role.clone()),
        _ => None,
    }
}
