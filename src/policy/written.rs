//! Reads Cedar text: hand-written guardrails, and the generated policies by the same way.
//!
//! Each policy becomes known by its `@id`, because that is what audit records and refusals are told by. Templates are
//! refused: their cost grows with every link, and links are data here.

use std::{collections::HashMap, ops::Range};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};

use super::{generate::PREFIX, problem::Problem, source::SourceFile};

/// Longest `@id`; it travels in audit records.
const MAX_ID_CHARS: usize = 128;

/// One policy under its own id, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) id: String,
    pub(super) policy: Policy,
    span: Range<usize>,
}

/// The good policies of one file, in the order of the text; what is wrong with the others goes to `problems`.
pub(super) fn parse(source: &SourceFile, problems: &mut Vec<Problem>) -> Vec<Written> {
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
                found.push(Written { id: id.to_owned(), policy: policy.new_id(PolicyId::new(id)), span });
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

/// Strict validation: problems, and warnings as text.
pub(super) fn validate(
    schema: &Schema,
    source: &SourceFile,
    policies: &[Written],
) -> Result<Vec<String>, Vec<Problem>> {
    let mut set = PolicySet::new();
    for written in policies {
        // Fails only for an id that is used twice, which `check_ids` tells.
        let _ = set.add(written.policy.clone());
    }
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    let place = |id: &PolicyId| {
        let id: &str = id.as_ref();
        policies.iter().find(|written| written.id == id).map(|written| first_line(source, written.span.clone()))
    };
    let problems: Vec<_> =
        result.validation_errors().map(|error| Problem::from_cedar(source, error, place(error.policy_id()))).collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut warnings: Vec<_> = result
        .validation_warnings()
        .map(|warning| Problem::from_cedar(source, warning, place(warning.policy_id())).to_string())
        .collect();
    for written in policies.iter().filter(|written| written.policy.effect() == Effect::Permit) {
        let span = first_line(source, written.span.clone());
        let message = format!("`{}` is a permit: it adds to what the roles of links grant", written.id);
        warnings.push(Problem::at(source, span, message).to_string());
    }
    Ok(warnings)
}
