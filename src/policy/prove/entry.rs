//! One entry of `invariants.toml`, and the invariant that it becomes.
//!
//! Both forms become the same thing: a policy that matches the requests that must not be allowed.

use std::{ops::Range, str::FromStr};

use cedar_policy::{Expression, Policy, PolicyId, PolicySet, ValidationMode, ValidationWarning, Validator};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    super::{
        problem::Problem,
        roles::{as_actions, nearest},
        schema::Vocabulary,
        source_file::SourceFile,
        written::first_line,
    },
    place::Place,
};
use crate::domain::{Permission, PermissionSet, permission::Kind};

/// What has to hold for every request.
#[derive(Clone, Debug)]
pub struct Invariant {
    pub name: String,
    pub says: String,
    pub(super) rule: Rule,
}

#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// No request that this policy matches is allowed. A permit, for the only sake of having a scope and a condition.
    Never(Box<Policy>),
    PoliciesNeverFail,
}

/// Reads the entries of one file, and keeps what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) source: &'a SourceFile,
    pub(super) words: &'a Vocabulary,
    pub(super) problems: Vec<Problem>,
}

const KEYS: [&str; 8] =
    ["name", "says", "resource", "kinds", "actions", "never_allowed", "allowed_only_if", "policies_never_fail"];
const RESOURCES: [&str; 2] = ["Link", "Tenant"];
const KINDS: [(&str, Kind); 4] =
    [("read", Kind::Read), ("write", Kind::Write), ("export", Kind::Export), ("context", Kind::Context)];

/// A text of the file and where it stands.
type Text<'a> = (&'a str, Range<usize>);

/// One entry, as it is written.
#[derive(Default)]
struct Raw<'a> {
    name: Option<Text<'a>>,
    says: Option<Text<'a>>,
    resource: Option<Text<'a>>,
    kinds: Option<(Vec<Text<'a>>, Range<usize>)>,
    actions: Option<(Vec<Text<'a>>, Range<usize>)>,
    /// `true` for `never_allowed`, `false` for `allowed_only_if`.
    conditions: Vec<(bool, Text<'a>)>,
    never_fail: Option<Range<usize>>,
}

impl<'a> Reader<'a> {
    pub(super) fn report(&mut self, span: Range<usize>, message: &str, help: Option<String>) {
        let problem = Problem::at(self.source, span, message);
        self.problems.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    pub(super) fn unknown(&mut self, what: &str, name: &str, known: &[&str], span: Range<usize>) {
        let nearest = nearest(name, known.iter().copied()).unwrap_or_default();
        self.report(
            span,
            &format!("unknown {what} `{name}`"),
            Some(format!("the nearest known {what} is `{nearest}`")),
        );
    }

    pub(super) fn entry<'t>(&mut self, entry: &'t Spanned<DeValue<'a>>) -> Option<(Invariant, Range<usize>)> {
        let DeValue::Table(table) = entry.get_ref() else {
            self.report(entry.span(), "must be a table", None);
            return None;
        };
        let before = self.problems.len();
        let raw = self.raw(table);
        let (Some((name, span)), Some((says, _))) = (&raw.name, &raw.says) else {
            for (key, given) in [("name", raw.name.is_some()), ("says", raw.says.is_some())] {
                if !given && self.problems.len() == before {
                    self.report(first_line(self.source, entry.span()), &format!("the invariant has no `{key}`"), None);
                }
            }
            return None;
        };
        if name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        {
            self.report(span.clone(), "a name has lower-case letters, digits and hyphens", None);
        }
        if says.trim().is_empty() {
            self.report(span.clone(), "`says` is empty: say what holds, in a sentence", None);
        }
        let rule = self.rule(&raw, span)?;
        let invariant = Invariant { name: (*name).to_owned(), says: says.trim().to_owned(), rule };
        (self.problems.len() == before).then(|| (invariant, span.clone()))
    }

    fn raw<'t>(&mut self, table: &'t DeTable<'a>) -> Raw<'t> {
        let mut raw = Raw::default();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => raw.name = self.text(value),
                "says" => raw.says = self.text(value),
                "resource" => raw.resource = self.text(value),
                "kinds" => raw.kinds = self.texts(value),
                "actions" => raw.actions = self.texts(value),
                "never_allowed" => raw.conditions.extend(self.text(value).map(|text| (true, text))),
                "allowed_only_if" => raw.conditions.extend(self.text(value).map(|text| (false, text))),
                "policies_never_fail" if matches!(value.get_ref(), DeValue::Boolean(true)) => {
                    raw.never_fail = Some(key.span());
                }
                "policies_never_fail" => self.report(value.span(), "must be `true`, or be left out", None),
                other => self.unknown("key", other, &KEYS, key.span()),
            }
        }
        raw
    }

    fn text<'t>(&mut self, value: &'t Spanned<DeValue<'a>>) -> Option<Text<'t>> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.report(value.span(), "must be a text in quotes", None);
        }
        text.map(|text| (text, value.span()))
    }

    fn texts<'t>(&mut self, value: &'t Spanned<DeValue<'a>>) -> Option<(Vec<Text<'t>>, Range<usize>)> {
        let DeValue::Array(items) = value.get_ref() else {
            self.report(value.span(), "must be a list of names", None);
            return None;
        };
        if items.is_empty() {
            self.report(value.span(), "is empty: leave it out to mean every permission", None);
        }
        Some((items.iter().filter_map(|item| self.text(item)).collect(), value.span()))
    }

    fn rule(&mut self, raw: &Raw<'_>, at: &Range<usize>) -> Option<Rule> {
        match (raw.conditions.as_slice(), &raw.never_fail) {
            ([], Some(_)) => {
                for span in [
                    raw.resource.as_ref().map(|(_, span)| span.clone()),
                    raw.kinds.as_ref().map(|(_, span)| span.clone()),
                    raw.actions.as_ref().map(|(_, span)| span.clone()),
                ]
                .into_iter()
                .flatten()
                {
                    self.report(span, "`policies_never_fail` is about all requests", None);
                }
                Some(Rule::PoliciesNeverFail)
            }
            ([(never, condition)], None) => self.condition(raw, *never, condition),
            _ => {
                let help = "give one of `never_allowed`, `allowed_only_if` and `policies_never_fail`".to_owned();
                self.report(at.clone(), "the invariant must say exactly one thing", Some(help));
                None
            }
        }
    }

    fn condition(&mut self, raw: &Raw<'_>, never: bool, (text, span): &Text<'_>) -> Option<Rule> {
        let place = Place::of(self.source, text, span.clone());
        // By itself first, so that no bracket in it can end the policy that is made of it.
        if let Err(errors) = Expression::from_str(text) {
            for error in errors.iter() {
                self.problems.push(Problem::from_cedar(self.source, error, Some(0..0)).moved(|at| place.from(at, 0)));
            }
            return None;
        }
        let before = self.problems.len();
        let scope = self.scope(raw)?;
        if self.problems.len() > before {
            return None;
        }
        let word = if never { "when" } else { "unless" };
        let head = format!("{scope}\n{word} {{\n");
        let id = PolicyId::new(raw.name.as_ref().map_or("invariant", |(name, _)| name));
        let policy = match Policy::parse(Some(id), format!("{head}{text}\n}};")) {
            Ok(policy) => policy,
            Err(errors) => {
                self.report(place.whole(), &errors.to_string(), None);
                return None;
            }
        };
        self.validate(&policy, &place, head.len()).then_some(Rule::Never(Box::new(policy)))
    }

    /// The head of a policy for the requests that the entry is about.
    fn scope(&mut self, raw: &Raw<'_>) -> Option<String> {
        let resource = match &raw.resource {
            None => "resource".to_owned(),
            Some((name, _)) if RESOURCES.contains(name) => format!("resource is {name}"),
            Some((name, span)) => {
                self.unknown("resource", name, &RESOURCES, span.clone());
                return None;
            }
        };
        let names = match (&raw.kinds, &raw.actions) {
            (None, None) => None,
            (Some((kinds, _)), None) => Some(self.of_kinds(kinds)),
            (None, Some((names, _))) => Some(self.actions(names)),
            (Some(_), Some((_, span))) => {
                self.report(span.clone(), "`kinds` and `actions` do not go together", None);
                return None;
            }
        };
        let action = match names {
            None => "action".to_owned(),
            Some(names) => {
                let list: Vec<_> = names.iter().map(|name| format!("Action::\"{name}\"")).collect();
                format!("action in [{}]", list.join(", "))
            }
        };
        Some(format!("permit (principal, {action}, {resource})"))
    }

    fn of_kinds(&mut self, kinds: &[Text<'_>]) -> Vec<String> {
        let mut found = Vec::new();
        for (name, span) in kinds {
            match KINDS.into_iter().find(|(known, _)| known == name) {
                Some((_, kind)) => {
                    found.extend(Permission::all().filter(|one| one.kind() == kind).map(|one| one.name().to_owned()));
                }
                None => self.unknown("kind", name, &KINDS.map(|(known, _)| known), span.clone()),
            }
        }
        found
    }

    fn actions(&mut self, names: &[Text<'_>]) -> Vec<String> {
        let mut found = Vec::new();
        for (name, span) in names {
            match PermissionSet::from_name(name) {
                Ok(_) => found.extend(as_actions(name)),
                // A group that the set's own schema adds.
                Err(_) if self.words.schema.action_groups().any(|group| group.id().unescaped() == *name) => {
                    found.push((*name).to_owned());
                }
                Err(unknown) => {
                    let help = format!("the nearest known name is `{}`", unknown.nearest);
                    self.report(span.clone(), &format!("unknown permission `{name}`"), Some(help));
                }
            }
        }
        found
    }

    fn validate(&mut self, policy: &Policy, place: &Place, head: usize) -> bool {
        let before = self.problems.len();
        let mut set = PolicySet::new();
        if let Err(error) = set.add(policy.clone()) {
            self.report(place.whole(), &error.to_string(), None);
            return false;
        }
        let result = Validator::new(self.words.schema.clone()).validate(&set, ValidationMode::Strict);
        for error in result.validation_errors() {
            let problem = Problem::from_cedar(self.source, error, Some(0..0));
            self.problems.push(problem.moved(|at| place.from(at, head)));
        }
        let warnings = || result.validation_warnings();
        if warnings().any(|warning| matches!(warning, ValidationWarning::ImpossiblePolicy(_))) {
            let help = "a condition that no request can break is proved by saying nothing".to_owned();
            self.report(place.whole(), "no request could ever break this invariant", Some(help));
        }
        self.problems.len() == before
    }
}
