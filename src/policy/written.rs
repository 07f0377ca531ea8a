//! Reads Cedar text: hand-written guardrails, and the generated policies by the same way.
//!
//! Each policy becomes known by its `@id`, because that is what audit records and refusals are told by. Templates are
//! refused: their cost grows with every link, and links are data here.

use std::{collections::HashMap, ops::Range};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, ValidationWarning, Validator};

use super::{
    faults::{self, Fault},
    generate::PREFIX,
    problem::Problem,
    source_file::SourceFile,
};

/// Longest `@id`; it travels in audit records.
const MAX_ID_CHARS: usize = 128;

/// One policy under its own id, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) id: String,
    pub(super) policy: Policy,
    /// Made from the role table and the gates, not by hand.
    pub(super) generated: bool,
    /// What in its condition can fail although it is valid.
    pub(super) faults: Vec<Fault>,
    pub(super) source: SourceFile,
    span: Range<usize>,
}

impl Written {
    /// As it stands in its file, from its `@id` on.
    pub(super) fn text(&self) -> &str {
        self.source.text.get(self.span.clone()).unwrap_or_default()
    }

    /// `file:line:column`.
    pub(super) fn place(&self) -> String {
        Problem::at(&self.source, self.first_line(), "").place()
    }

    pub(super) fn first_line(&self) -> Range<usize> {
        first_line(&self.source, self.span.clone())
    }
}

/// The good policies of one file, in the order of the text; what is wrong with the others goes to `problems`.
pub(super) fn parse(source: &SourceFile, generated: bool, problems: &mut Vec<Problem>) -> Vec<Written> {
    let set: PolicySet = match source.text.parse() {
        Ok(set) => set,
        Err(errors) => {
            let errors: cedar_policy::ParseErrors = errors;
            problems.extend(errors.iter().map(|error| Problem::from_cedar(source, error, Some(0..0))));
            return Vec::new();
        }
    };
    for template in set.templates() {
        let span = template.as_ref().loc().map_or(0..0, |at| at.start()..at.end());
        let problem = Problem::at(source, first_line(source, span), "templates are not accepted");
        problems
            .push(problem.help("write the policy without `?principal` and `?resource`; links are data, not policies"));
    }
    let mut found = Vec::new();
    for policy in set.policies() {
        let span = policy.as_ref().loc().map_or(0..0, |at| at.start()..at.end());
        match policy.annotation("id") {
            Some(id) if is_good(id) => {
                let faults = policy.as_ref().non_scope_constraints().map(faults::faults).unwrap_or_default();
                let policy = policy.new_id(PolicyId::new(id));
                found.push(Written { id: id.to_owned(), policy, generated, faults, source: source.clone(), span });
            }
            Some(_) => {
                let message = format!("an `@id` has 1 to {MAX_ID_CHARS} characters, none of them a control character");
                problems.push(Problem::at(source, first_line(source, span), message));
            }
            None => {
                let problem = Problem::at(source, first_line(source, span), "the policy has no `@id`");
                problems
                    .push(problem.help("write @id(\"a-name-of-its-own\") before it: refusals are told by that name"));
            }
        }
    }
    found.sort_by_key(|written| written.span.start);
    found
}

fn is_good(id: &str) -> bool {
    (1..=MAX_ID_CHARS).contains(&id.chars().count()) && !id.chars().any(char::is_control)
}

/// A caret under one line says more than one under twenty.
pub(super) fn first_line(source: &SourceFile, span: Range<usize>) -> Range<usize> {
    let length = source.text.get(span.clone()).and_then(|text| text.find('\n')).unwrap_or(span.len());
    span.start..span.start + length
}

/// Ids are unique over all files, and none looks generated.
pub(super) fn check_ids(files: &[(&SourceFile, Vec<Written>)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for (source, policies) in files {
        for written in policies {
            let span = first_line(source, written.span.clone());
            if written.id.starts_with(PREFIX) {
                let problem = Problem::at(source, span, format!("the id `{}` is taken", written.id));
                problems.push(problem.help(format!("ids that start with `{PREFIX}` belong to generated policies")));
            } else if let Some(first) = seen.insert(&written.id, &source.name) {
                let problem = Problem::at(source, span, format!("the id `{}` is used twice", written.id));
                problems
                    .push(problem.help(format!("it is used before in {first}; give each policy a name of its own")));
            }
        }
    }
    problems
}

/// What a valid file gives beside its policies.
#[derive(Debug, Default)]
pub(super) struct Validated {
    pub(super) warnings: Vec<Problem>,
    /// Ids of policies that Cedar calls impossible: they never match anything.
    pub(super) idle: Vec<String>,
}

/// Strict validation, and the refusal of what strict validation lets pass and Cedar would skip when it fails.
pub(super) fn validate(schema: &Schema, source: &SourceFile, policies: &[Written]) -> Result<Validated, Vec<Problem>> {
    let mut set = PolicySet::new();
    for written in policies {
        // Fails only for an id that is used twice, which `check_ids` tells.
        let _ = set.add(written.policy.clone());
    }
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    let place = |id: &PolicyId| {
        let id: &str = id.as_ref();
        policies.iter().find(|written| written.id == id).map(Written::first_line)
    };
    let errors = result.validation_errors();
    let mut problems =
        Problem::by_action(errors.map(|error| Problem::from_cedar(source, error, place(error.policy_id()))).collect());
    let mut found = Validated::default();
    for warning in result.validation_warnings() {
        if matches!(warning, ValidationWarning::ImpossiblePolicy(_)) {
            found.idle.push(warning.policy_id().to_string());
        }
        found.warnings.push(Problem::from_cedar(source, warning, place(warning.policy_id())));
    }
    found.warnings = Problem::by_action(found.warnings);
    // A condition of the wrong types has its own message; what could fail in it is no news.
    if problems.is_empty() {
        for written in policies {
            failing(written, &mut problems, &mut found.warnings);
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for written in policies.iter().filter(|written| written.policy.effect() == Effect::Permit) {
        let message = format!("`{}` is a permit: it adds to what the roles of links grant", written.id);
        found.warnings.push(Problem::at(source, written.first_line(), message));
    }
    Ok(found)
}

/// A `forbid` that can fail is refused: the prohibition would vanish with it. A `permit` that can fail opens nothing.
fn failing(written: &Written, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    for fault in &written.faults {
        let span = fault.span.clone().unwrap_or_else(|| written.first_line());
        let problem =
            |what: &str| Problem::at(&written.source, span, format!("{what}: {}", fault.what)).help(fault.help);
        if written.policy.effect() == Effect::Forbid || fault.is_unbounded() {
            problems.push(problem(&format!("`{}` can fail, and Cedar skips a `forbid` that fails", written.id)));
        } else {
            warnings.push(problem(&format!("`{}` can fail, and then the request is refused (503)", written.id)));
        }
    }
}
