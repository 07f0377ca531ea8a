//! Reads a test file: defaults, cases, matrices. Strict: an unknown key is an error at its place, with the nearest known.
//!
//! The facts of a case are a question of `linkgate decide` and go through its reader (`what_if`), key by key where it
//! refuses them, so that the message stands at the key that is wrong.

use std::ops::Range;

use serde_json::Value as Json;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    super::{
        bundle::Bundle,
        problem::Problem,
        source_file::SourceFile,
        what_if::{WhatIf, known_names},
    },
    case::{Ask, Case, Expected, Suite},
    given::{Given, json},
    reader::Reader,
    table,
};
use crate::domain::{ErrorCode, Gate, LinkRole, Reason};

/// Most questions of one file; a matrix of all roles and permissions has 182.
const MAX_ASKS: usize = 20_000;
const TOP: [&str; 4] = ["defaults", "switch_on", "case", "matrix"];
const CASE: [&str; 7] = ["name", "allow", "deny", "reason", "code", "gate", "policies"];
const MATRIX: [&str; 3] = ["name", "columns", "table"];

/// What has to be known before the cases can be read: the set that they are about.
pub(super) struct Header<'a> {
    document: Spanned<DeTable<'a>>,
    pub(super) switch_on: Vec<String>,
}

pub(super) fn header<'a>(source: &'a SourceFile, plain: &Bundle, problems: &mut Vec<Problem>) -> Option<Header<'a>> {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    // Only the first: after a syntax error the parser reports its consequences too.
    if let Some(error) = errors.first() {
        problems.push(Problem::at(source, error.span().unwrap_or(0..0), error.message()));
        return None;
    }
    let mut reader = Reader { source, problems };
    let mut switch_on = Vec::new();
    for (key, value) in document.get_ref() {
        match key.get_ref().as_ref() {
            "switch_on" => switch_on = reader.switch_on(value, plain),
            known if TOP.contains(&known) => {}
            other => reader.unknown("key", other, &TOP, key.span()),
        }
    }
    Some(Header { document, switch_on })
}

/// The questions of a file, over the set that its header asks for.
pub(super) fn suite(source: &SourceFile, header: &Header<'_>, bundle: &Bundle, problems: &mut Vec<Problem>) -> Suite {
    let mut reader = Reader { source, problems };
    let mut defaults = Given::default();
    let mut cases = Vec::new();
    let top = header.document.get_ref();
    if let Some((_, value)) = top.iter().find(|(key, _)| key.get_ref() == "defaults") {
        match value.get_ref() {
            DeValue::Table(table) => reader.facts(table, &[], &mut defaults),
            _ => reader.report(value.span(), "must be a table of facts"),
        }
    }
    for (key, value) in top {
        let kind = key.get_ref().as_ref();
        if !["case", "matrix"].contains(&kind) {
            continue;
        }
        let DeValue::Array(items) = value.get_ref() else {
            reader.report(key.span(), &format!("write `[[{kind}]]`, with two brackets: there may be many"));
            continue;
        };
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) if kind == "case" => {
                    reader.case(table, item.span(), &defaults, bundle, &mut cases);
                }
                DeValue::Table(table) => reader.matrix(table, item.span(), &defaults, bundle, &mut cases),
                _ => reader.report(item.span(), "must be a table"),
            }
        }
    }
    reader.whole(&mut cases);
    Suite { source: source.clone(), switched_on: header.switch_on.clone(), cases }
}

impl Reader<'_> {
    fn switch_on(&mut self, value: &Spanned<DeValue<'_>>, plain: &Bundle) -> Vec<String> {
        let mut found = Vec::new();
        for (id, span) in self.texts(value) {
            let known: Vec<&str> = plain.switched_off().chain(plain.policies().map(|policy| policy.id)).collect();
            if known.contains(&id.as_str()) {
                found.push(id);
            } else {
                self.unknown("rule", &id, &known, span);
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// Everything in the table that is a fact; `own` are keys that mean something else.
    fn facts(&mut self, table: &DeTable<'_>, own: &[&str], into: &mut Given) {
        let [question, user, link] = known_names();
        let question: Vec<&str> = question.iter().copied().filter(|name| *name != "permission").collect();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let inner = match (name, value.get_ref()) {
                (own_key, _) if own.contains(&own_key) => continue,
                ("link", DeValue::Boolean(false)) => {
                    into.set(&["link"], Json::Null, value.span());
                    continue;
                }
                ("user", DeValue::Table(inner)) => (inner, user),
                ("link", DeValue::Table(inner)) => (inner, link),
                ("user", _) => {
                    self.report(value.span(), "must be a table of facts about the user");
                    continue;
                }
                ("link", _) => {
                    self.report(value.span(), "must be a table of facts about the link, or `false`: there is none");
                    continue;
                }
                (fact, _) if question.contains(&fact) => {
                    into.set(&[fact], json(value.get_ref()), value.span());
                    continue;
                }
                (other, _) => {
                    let known: Vec<&str> = question.iter().chain(own).copied().collect();
                    self.unknown("key", other, &known, key.span());
                    continue;
                }
            };
            for (key, value) in inner.0 {
                let fact = key.get_ref().as_ref();
                if inner.1.contains(&fact) {
                    into.set(&[name, fact], json(value.get_ref()), value.span());
                } else {
                    self.unknown("key", fact, inner.1, key.span());
                }
            }
        }
    }

    fn case(
        &mut self,
        table: &DeTable<'_>,
        span: Range<usize>,
        defaults: &Given,
        bundle: &Bundle,
        cases: &mut Vec<Case>,
    ) {
        let mut facts = defaults.clone();
        self.facts(table, &CASE, &mut facts);
        let get = |name: &str| table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value);
        let Some(name) = get("name").and_then(|value| self.text(value)) else {
            return self.report(span.start..span.start, "the case has no `name`");
        };
        let span = get("name").map_or(span.clone(), Spanned::span);
        let refused = self.refusal(table);
        let policies = get("policies").map(|value| {
            let ids = self.texts(value);
            ids.into_iter().filter_map(|(id, span)| self.known_policy(bundle, id, span)).collect::<Vec<_>>()
        });
        let mut asks: Vec<Ask> = Vec::new();
        let denies = get("deny").is_some();
        for (key, allowed) in [("allow", true), ("deny", false)] {
            let Some(value) = get(key) else { continue };
            // What says why speaks of the denials, where the case has any.
            let mut expected = if allowed { Expected::default() } else { refused.clone() };
            expected.allowed = allowed;
            expected.policies = policies.clone().filter(|_| !allowed || !denies);
            for (text, span) in self.texts(value) {
                for permission in self.permissions(&text, &span).iter() {
                    if asks.iter().any(|ask| ask.permission == permission) {
                        self.report(span.clone(), &format!("`{permission}` is asked twice in this case"));
                    }
                    let question = facts.question(permission);
                    asks.push(Ask { permission, question, span: span.clone(), expected: expected.clone() });
                }
            }
        }
        if asks.is_empty() {
            return self.report(span, "the case asks nothing: name permissions in `allow` or `deny`");
        }
        for key in ["reason", "code", "gate"] {
            if let Some(value) = get(key).filter(|_| !denies) {
                let message = format!("`{key}` says why something is denied, and this case denies nothing");
                self.report(value.span(), &message);
            }
        }
        self.probe(&facts, bundle, &asks);
        cases.push(Case { name, span, asks });
    }

    fn refusal(&mut self, table: &DeTable<'_>) -> Expected {
        let mut expected = Expected::default();
        for (key, value) in table {
            let (into, known): (_, Vec<&str>) = match key.get_ref().as_ref() {
                "reason" => (&mut expected.reason, Reason::ALL.iter().map(|one| one.as_str()).collect()),
                "code" => (&mut expected.code, ErrorCode::ALL.iter().map(|one| one.as_str()).collect()),
                "gate" => (&mut expected.gate, GATES.iter().map(|one| one.as_str()).collect()),
                _ => continue,
            };
            let what = key.get_ref().to_string();
            let Some(text) = self.text(value) else { continue };
            if !known.contains(&text.as_str()) {
                self.unknown(&what, &text, &known, value.span());
            }
            *into = Some(text);
        }
        expected
    }

    fn known_policy(&mut self, bundle: &Bundle, id: String, span: Range<usize>) -> Option<String> {
        let known: Vec<&str> = bundle.policies().map(|policy| policy.id).collect();
        if known.contains(&id.as_str()) {
            return Some(id);
        }
        self.unknown("policy", &id, &known, span);
        None
    }

    fn matrix(
        &mut self,
        table: &DeTable<'_>,
        span: Range<usize>,
        defaults: &Given,
        bundle: &Bundle,
        cases: &mut Vec<Case>,
    ) {
        let mut facts = defaults.clone();
        self.facts(table, &MATRIX, &mut facts);
        let get = |name: &str| table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value);
        let named = |reader: &mut Self, name: &str| match get(name) {
            Some(value) => reader.text(value).map(|text| (text, value.span())),
            None => {
                reader.report(span.start..span.start, &format!("the matrix has no `{name}`"));
                None
            }
        };
        let (name, columns, table) = (named(self, "name"), named(self, "columns"), named(self, "table"));
        let (Some((name, _)), Some((columns, place)), Some((_, text))) = (name, columns, table) else { return };
        let Some(column) = table::Column::of(&columns) else {
            let known: Vec<String> = table::Column::known();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            return self.unknown("column", &columns, &known, place);
        };
        for (head, span, cells) in table::read(self, text) {
            let mut facts = facts.clone();
            column.set(&mut facts, &head, span.clone());
            let mut asks: Vec<Ask> = Vec::new();
            for (permissions, span, expected) in cells {
                for permission in permissions.iter() {
                    let question = facts.question(permission);
                    asks.push(Ask { permission, question, span: span.clone(), expected: expected.clone() });
                }
            }
            self.probe(&facts, bundle, &asks);
            cases.push(Case { name: format!("{name}: {head}"), span, asks });
        }
    }

    /// Whether the facts can be read at all; if not, which of them is to blame.
    fn probe(&mut self, facts: &Given, bundle: &Bundle, asks: &[Ask]) {
        let Some(ask) = asks.first() else { return };
        let Err(error) = WhatIf::read(bundle, &ask.question) else { return };
        let before = self.problems.len();
        for (path, span) in &facts.spans {
            let Some(value) = facts.at(path) else { continue };
            let mut alone = Given::default();
            if path.first().is_some_and(|table| table == "link") && path.len() == 2 {
                alone.set(&["link", "access_role"], LinkRole::MspFull.as_str().into(), 0..0);
            }
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            alone.set(&path, value.clone(), span.clone());
            if let Err(error) = WhatIf::read(bundle, &alone.question(ask.permission)) {
                let message = error.split(" at line ").next().unwrap_or(&error);
                self.report(span.clone(), &format!("`{}`: {message}", path.join(".")));
            }
        }
        if self.problems.len() == before {
            self.report(ask.span.clone(), error.split(" at line ").next().unwrap_or(&error));
        }
    }

    /// What only the whole file shows.
    fn whole(&mut self, cases: &mut [Case]) {
        cases.sort_by_key(|case| case.span.start);
        let mut seen: Vec<&str> = Vec::new();
        let mut twice = Vec::new();
        for case in cases.iter() {
            if seen.contains(&case.name.as_str()) {
                twice.push((case.span.clone(), format!("the name `{}` is used twice", case.name)));
            }
            seen.push(&case.name);
        }
        for (span, message) in twice {
            self.report(span, &message);
        }
        if cases.iter().map(|case| case.asks.len()).sum::<usize>() > MAX_ASKS {
            self.report(0..0, &format!("asks more than {MAX_ASKS} questions: make several files of it"));
        }
        if cases.is_empty() && self.problems.is_empty() {
            self.report(0..0, "holds no case: write `[[case]]` or `[[matrix]]`");
        }
    }
}

/// All gates, in the order in which they are told.
pub(super) const GATES: [Gate; 13] = [
    Gate::Link,
    Gate::Suspension,
    Gate::Partner,
    Gate::Approval,
    Gate::Active,
    Gate::Started,
    Gate::Ended,
    Gate::Address,
    Gate::Mfa,
    Gate::User,
    Gate::Role,
    Gate::Override,
    Gate::Guardrail,
];
