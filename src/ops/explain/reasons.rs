//! One decision with all its reasons: the gates in order, the one that decided, the policies, the near misses.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    asked::Asked,
    recorded::{Again, One, Recorded, What, again},
};
use crate::{
    audit::Record,
    domain::{Case, Reason},
    ops::plain,
    policy::{Bundle, GateReport, GateState, NearMiss, Side, Verdict, explain, judge, near_misses},
};

/// One decision, explained.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedDecision")]
pub struct Reasons {
    /// The tenant of a slice; `null` where the request is about one tenant only.
    pub(crate) tenant: Option<String>,
    pub(crate) decision: &'static str,
    pub(crate) reason: Option<String>,
    /// The gate that decided: the first closed one; `null` for an allow.
    pub(crate) decided_by: Option<&'static str>,
    pub(crate) policies: Vec<String>,
    /// In the order in which they are told.
    pub(crate) gates: Vec<GateReport>,
    /// Each alone would have turned the decision round.
    pub(crate) near_misses: Vec<NearMiss>,
    /// Version of the set that the gates and near misses are of.
    pub(crate) policy_version: String,
    /// What a reader should know of it.
    pub(crate) note: Option<String>,
}

const IDENTITY: &str = "identity";
/// Gates before those of the policies, with the refusals that they give.
const BEFORE: [(&str, &[&str]); 3] = [
    ("token", &["UNAUTHORIZED", "token_too_old"]),
    (IDENTITY, &[Reason::NotAPartner.as_str(), Reason::IdentityConflict.as_str()]),
    ("route", &[Reason::HomeOnly.as_str(), Reason::RouteDenied.as_str()]),
];

impl Reasons {
    /// Of a made-up request: it has no token and no route that could be asked.
    pub(crate) fn of_asked(bundle: &Bundle, asked: &Asked) -> Self {
        let verdict = judge(bundle, None, &asked.case.facts());
        let mut reasons = Self::decided(bundle, &asked.case, &verdict);
        if asked.identity == GateState::Closed {
            reasons.refused_before(verdict.is_allow());
        }
        let state = |gate| if gate == IDENTITY { asked.identity } else { GateState::Unknown };
        reasons.gates.splice(0..0, BEFORE.map(|(gate, _)| before(gate, state(gate))));
        reasons
    }

    /// The user's account is inactive: the policies are not asked, whatever they would say.
    fn refused_before(&mut self, else_allowed: bool) {
        let near_misses =
            else_allowed.then(|| NearMiss { side: Side::User, change: "with the user's account active".to_owned() });
        self.decision = "deny";
        self.reason = Some(Reason::NotAPartner.as_str().to_owned());
        self.decided_by = Some(IDENTITY);
        self.policies = Vec::new();
        self.near_misses = near_misses.into_iter().collect();
        self.gates.iter_mut().for_each(|gate| gate.told = false);
    }

    fn decided(bundle: &Bundle, case: &Case, verdict: &Verdict) -> Self {
        let explanation = explain(bundle, &case.facts());
        let told = explanation.gates.iter().find(|gate| gate.told).map(|gate| gate.gate);
        Self {
            tenant: None,
            decision: if verdict.is_allow() { "allow" } else { "deny" },
            reason: verdict.word().map(str::to_owned),
            decided_by: told.filter(|_| !verdict.is_allow()),
            policies: verdict.policies.iter().map(ToString::to_string).collect(),
            gates: explanation.gates,
            near_misses: near_misses(bundle, case),
            policy_version: bundle.version().to_owned(),
            note: explanation.trouble,
        }
    }

    /// A record whose decision cannot be made again: what it says by itself.
    fn told_only(record: &Record, bundle: &Bundle, note: Option<&str>) -> Self {
        let reason = record.reason.as_deref();
        let decided_by = BEFORE.iter().find(|(_, words)| reason.is_some_and(|reason| words.contains(&reason)));
        Self {
            tenant: None,
            decision: record.decision.as_str(),
            reason: record.reason.clone(),
            decided_by: decided_by.map(|(gate, _)| *gate),
            policies: record.policies.clone(),
            gates: gates_before(reason),
            near_misses: Vec::new(),
            policy_version: bundle.version().to_owned(),
            note: note.map(str::to_owned),
        }
    }

    fn again(record: &Record, one: &One<'_>, bundle: &Bundle, many: bool) -> Self {
        let verdict = one.what.decide(bundle, None);
        let mut reasons = match &one.what {
            What::Decide(case) => Self::decided(bundle, case, &verdict),
            What::Holds(_, permission) => Self {
                decided_by: Some("user"),
                near_misses: vec![NearMiss {
                    side: Side::User,
                    change: format!("with the user holding {permission} (each tenant is then asked by itself)"),
                }],
                gates: vec![before("user", GateState::Closed)],
                ..Self::told_only(record, bundle, None)
            },
        };
        reasons.tenant = one.tenant.filter(|_| many).map(str::to_owned);
        reasons.gates.splice(0..0, gates_before(None));
        let same_set = record.policy_version.as_deref() == Some(bundle.version());
        if !same_set && verdict.is_allow() != one.allowed {
            let then = if one.allowed { "allowed" } else { "refused" };
            let by = record.policies.join(", ");
            reasons.note = Some(format!(
                "another policy set {then} it then ({by}); gates and near misses are of the set named here"
            ));
        } else if !same_set {
            reasons.note = Some("the set that decided it was another one; this one says the same".to_owned());
        } else if one.waived.is_some() {
            reasons.note = Some("it was let through: policy.enforce was false".to_owned());
        } else if one.allowed && record.decision == crate::audit::Decision::Deny && !many {
            let reason = record.reason.as_deref().unwrap_or("another gate");
            reasons.note = Some(format!("the policies allowed it; it was refused after them: {reason}"));
        }
        reasons
    }

    pub fn text(&self) -> String {
        let about = self.tenant.as_deref().map(|tenant| format!("{}: ", plain(tenant))).unwrap_or_default();
        let reason = self.reason.as_deref().map(|reason| format!(", {}", plain(reason))).unwrap_or_default();
        let by = self.decided_by.map(|gate| format!(" (gate: {gate})")).unwrap_or_default();
        let mut lines = vec![format!("{about}{}{reason}{by}", self.decision)];
        if !self.policies.is_empty() {
            lines.push(format!("determined by {}", self.policies.join(", ")));
        }
        lines.extend(self.note.as_deref().map(plain));
        lines.push("gates".to_owned());
        lines.extend(gates_text(&self.gates));
        lines.push(match (self.near_misses.is_empty(), self.decision) {
            (false, "allow") => "any one of these would have refused it".to_owned(),
            (false, _) => "any one of these would have allowed it".to_owned(),
            (true, _) => "no single change that was tried would have turned it round".to_owned(),
        });
        lines.extend(self.near_misses.iter().map(|miss| format!("  {}", plain(&miss.change))));
        lines.join("\n")
    }
}

/// One line a gate; the one that decided is marked.
pub(crate) fn gates_text(gates: &[GateReport]) -> Vec<String> {
    let line = |gate: &GateReport| {
        let state = match gate.state {
            GateState::Open => "open",
            GateState::Closed => "CLOSED",
            GateState::Unknown => "not asked",
        };
        let told = if gate.told { " <- decided" } else { "" };
        let policies = if gate.policies.is_empty() { String::new() } else { format!(" {}", gate.policies.join(", ")) };
        format!("  {:<11}{state}{told}{policies}", gate.gate)
    };
    gates.iter().map(line).collect()
}

/// What the gates before the policies said: whoever has a record was let through by them, up to the one that refused.
fn gates_before(reason: Option<&str>) -> Vec<GateReport> {
    let closed = BEFORE.iter().position(|(_, words)| reason.is_some_and(|reason| words.contains(&reason)));
    let state = |at: usize| match closed {
        Some(closed) if at == closed => GateState::Closed,
        Some(closed) if at > closed => GateState::Unknown,
        _ => GateState::Open,
    };
    BEFORE.iter().enumerate().map(|(at, (gate, _))| before(gate, state(at))).collect()
}

fn before(gate: &'static str, state: GateState) -> GateReport {
    GateReport { gate, state, policies: Vec::new(), told: state == GateState::Closed }
}

/// Each decision of a record, made again and explained; of a change none.
pub(crate) fn explained(record: &Record, bundle: &Bundle) -> Vec<Reasons> {
    let Some(recorded) = Recorded::of_record(record) else { return Vec::new() };
    match again(&recorded, bundle) {
        Again::Decisions(decisions) => {
            let many = !record.slices.is_empty() && decisions.first().is_some_and(|one| one.tenant.is_some());
            decisions.iter().map(|one| Reasons::again(record, one, bundle, many)).collect()
        }
        Again::NotAsked => vec![Reasons::told_only(record, bundle, Some("the policies were not asked"))],
        Again::Fixed => {
            vec![Reasons::told_only(
                record,
                bundle,
                Some("refused by a gate outside the policies; the record does not say more"),
            )]
        }
        Again::Missing => {
            let note = "the record does not say what was asked (an older version wrote it): gates and near misses are not known";
            vec![Reasons::told_only(record, bundle, Some(note))]
        }
    }
}
