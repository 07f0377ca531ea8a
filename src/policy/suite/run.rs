//! Asks every question of a suite and compares: each mismatch with all that is needed to see why.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    super::{
        bundle::Bundle,
        decide::{Refusal, decide},
        explain::{GateReport, GateState, explain},
        problem::Problem,
        what_if::WhatIf,
    },
    case::{Ask, Case, Expected, Suite},
    coverage::{Coverage, Seen},
};
use crate::domain::{ErrorCode, Permission};

/// What came of all files.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "PolicyTests")]
pub struct SuiteReport {
    /// Version of the set as it stands, without what files switch on.
    pub version: String,
    pub files: Vec<FileReport>,
    pub coverage: Coverage,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "PolicyTestFile")]
pub struct FileReport {
    pub file: String,
    /// Rules that were on for this file only.
    pub switched_on: Vec<String>,
    pub cases: Vec<CaseReport>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "PolicyTestCase")]
pub struct CaseReport {
    pub name: String,
    /// `file:line:column`.
    pub place: String,
    /// How many decisions it asked for.
    pub decisions: usize,
    pub failures: Vec<Mismatch>,
}

/// A decision that is not as expected.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "PolicyTestMismatch")]
pub struct Mismatch {
    /// Where the expectation stands.
    pub place: String,
    pub permission: Permission,
    pub expected: String,
    pub got: String,
    /// The determining policies, each with its place.
    pub policies: Vec<(String, String)>,
    /// Gates that are closed, the told one first.
    pub closed: Vec<GateReport>,
}

impl SuiteReport {
    pub fn cases(&self) -> impl Iterator<Item = &CaseReport> {
        self.files.iter().flat_map(|file| &file.cases)
    }

    pub fn decisions(&self) -> usize {
        self.cases().map(|case| case.decisions).sum()
    }

    pub fn failures(&self) -> usize {
        self.cases().map(|case| case.failures.len()).sum()
    }
}

pub(super) fn all(
    plain: &Bundle,
    variants: &BTreeMap<Vec<String>, Bundle>,
    suites: &[Suite],
    only: Option<&str>,
) -> SuiteReport {
    let mut seen = Seen::new(plain);
    variants.values().for_each(|bundle| seen.rules_of(bundle));
    let mut files = Vec::new();
    for suite in suites {
        let bundle = variants.get(&suite.switched_on).unwrap_or(plain);
        let wanted =
            |case: &&Case| only.is_none_or(|text| case.name.contains(text) || suite.source.name.contains(text));
        let cases: Vec<_> = suite.cases.iter().filter(wanted).map(|case| run(bundle, suite, case, &mut seen)).collect();
        if !cases.is_empty() {
            let switched_on = suite.switched_on.clone();
            files.push(FileReport { file: suite.source.name.clone(), switched_on, cases });
        }
    }
    SuiteReport { version: plain.version().to_owned(), files, coverage: seen.coverage() }
}

fn run(bundle: &Bundle, suite: &Suite, case: &Case, seen: &mut Seen) -> CaseReport {
    let failures: Vec<_> = case.asks.iter().filter_map(|ask| compare(bundle, suite, ask, seen)).collect();
    CaseReport {
        name: case.name.clone(),
        place: Problem::at(&suite.source, case.span.clone(), "").place(),
        decisions: case.asks.len(),
        failures,
    }
}

/// What `decide` said, in words.
struct Got {
    allowed: bool,
    code: Option<ErrorCode>,
    reason: Option<&'static str>,
    gate: Option<&'static str>,
    policies: Vec<String>,
}

fn compare(bundle: &Bundle, suite: &Suite, ask: &Ask, seen: &mut Seen) -> Option<Mismatch> {
    let place = Problem::at(&suite.source, ask.span.clone(), "").place();
    let mismatch = |got: String, policies, closed| Mismatch {
        place: place.clone(),
        permission: ask.permission,
        expected: expected(&ask.expected),
        got,
        policies,
        closed,
    };
    let question = match WhatIf::read(bundle, &ask.question) {
        Ok(question) => question,
        Err(error) => return Some(mismatch(format!("no decision: {error}"), Vec::new(), Vec::new())),
    };
    let facts = question.facts();
    let outcome = decide(bundle, None, &facts);
    let mut got = Got {
        allowed: outcome.verdict.is_ok(),
        code: None,
        reason: None,
        gate: None,
        policies: outcome.policies.iter().map(|id| id.to_string()).collect(),
    };
    match outcome.verdict {
        Ok(_) => {}
        Err(Refusal::Denied(denial)) => (got.code, got.reason) = (Some(denial.code), denial.reason.map(|r| r.as_str())),
        Err(Refusal::Unavailable) => got.code = Some(ErrorCode::PolicyUnavailable),
    }
    let mut closed = Vec::new();
    if !got.allowed {
        let gates = explain(bundle, &facts).gates;
        got.gate = gates.iter().find(|gate| gate.told).map(|gate| gate.gate);
        closed = gates.into_iter().filter(|gate| gate.state == GateState::Closed).collect();
    }
    seen.note(bundle, &ask.question, &facts, got.allowed, got.gate, &got.policies);
    if is_as_expected(&ask.expected, &got) {
        return None;
    }
    let places = got.policies.iter().map(|id| {
        let place = bundle.policies().find(|policy| policy.id == id).map(|policy| policy.place);
        (id.clone(), place.unwrap_or_default())
    });
    Some(mismatch(told(&got), places.collect(), closed))
}

fn is_as_expected(expected: &Expected, got: &Got) -> bool {
    let same = |wanted: &Option<String>, got: Option<&str>| wanted.as_deref().is_none_or(|wanted| got == Some(wanted));
    let policies = expected.policies.as_ref().is_none_or(|wanted| {
        let sorted = |ids: &[String]| {
            let mut ids = ids.to_vec();
            ids.sort();
            ids.dedup();
            ids
        };
        sorted(wanted) == sorted(&got.policies)
    });
    expected.allowed == got.allowed
        && same(&expected.reason, got.reason)
        && same(&expected.code, got.code.map(ErrorCode::as_str))
        && same(&expected.gate, got.gate)
        && policies
}

fn expected(expected: &Expected) -> String {
    let mut text = if expected.allowed { "allow" } else { "deny" }.to_owned();
    for part in [&expected.code, &expected.reason].into_iter().flatten() {
        text.push(' ');
        text.push_str(part);
    }
    if let Some(gate) = &expected.gate {
        text.push_str(&format!(" at the gate `{gate}`"));
    }
    if let Some(policies) = &expected.policies {
        text.push_str(&format!(" by {}", list(policies)));
    }
    text
}

fn told(got: &Got) -> String {
    if got.allowed {
        return format!("allow by {}", list(&got.policies));
    }
    let code = got.code.map(ErrorCode::as_str).unwrap_or_default();
    let reason = got.reason.map(|reason| format!(" {reason}")).unwrap_or_default();
    let gate = got.gate.map(|gate| format!(" at the gate `{gate}`")).unwrap_or_default();
    let by = if got.policies.is_empty() { String::new() } else { format!(" by {}", list(&got.policies)) };
    format!("deny {code}{reason}{gate}{by}")
}

fn list(ids: &[String]) -> String {
    if ids.is_empty() { "no policy".to_owned() } else { ids.join(", ") }
}
