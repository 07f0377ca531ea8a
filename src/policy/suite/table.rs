//! The matrix form: one row a permission (or group), one column a role, as a person would write it on paper.
//!
//! ```text
//!                     msp_full  auditor
//! billing.read        yes       yes
//! billing.write       yes       permission
//! ```
//!
//! A cell is `yes`, `no` (denied for any reason), the reason that a refusal tells, or a code where there is no reason
//! (`TENANT_LINK_EXPIRED`). `.` is short for `permission`, the refusal that says "neither user nor role has it".

use std::ops::Range;

use serde_json::Value as Json;

use super::{super::what_if::known_names, case::Expected, given::Given, reader::Reader};
use crate::domain::{ErrorCode, PermissionSet, Reason};

/// The fact that differs from column to column.
pub(super) struct Column(Vec<String>);

/// Facts that are lists: a head stands for a list of one.
const LISTS: [&str; 3] = ["user.roles", "user.permissions", "link.allowed_cidrs"];

impl Column {
    pub(super) fn of(name: &str) -> Option<Self> {
        Self::known().iter().any(|known| known == name).then(|| Self(name.split('.').map(str::to_owned).collect()))
    }

    pub(super) fn known() -> Vec<String> {
        let [question, user, link] = known_names();
        let own = question.iter().filter(|name| !["permission", "user", "link"].contains(*name));
        own.map(|name| (*name).to_owned())
            .chain(user.iter().map(|name| format!("user.{name}")))
            .chain(link.iter().map(|name| format!("link.{name}")))
            .collect()
    }

    pub(super) fn set(&self, facts: &mut Given, head: &str, span: Range<usize>) {
        let path: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let value = match head {
            _ if LISTS.contains(&path.join(".").as_str()) => Json::Array(vec![head.into()]),
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            text => text.into(),
        };
        facts.set(&path, value, span);
    }
}

/// A row's permissions, the cell's place, and what the cell says.
pub(super) type Cell = (PermissionSet, Range<usize>, Expected);

/// A column: its head, the head's place, its cells from top to bottom.
pub(super) type Filled = (String, Range<usize>, Vec<Cell>);

/// Every column of the table. Problems go to the reader.
pub(super) fn read(reader: &mut Reader<'_>, literal: Range<usize>) -> Vec<Filled> {
    let raw = reader.source.text.get(literal.clone()).unwrap_or_default().to_owned();
    // Places are counted in the file itself, so the text must be what it looks like.
    let body = ["\"\"\"", "'''"].into_iter().find_map(|quote| raw.strip_prefix(quote)?.strip_suffix(quote));
    let Some(body) = body.filter(|body| !body.contains('\\')) else {
        reader.report(literal, "write the table between `\"\"\"` and `\"\"\"`, without backslashes");
        return Vec::new();
    };
    let mut at = literal.start + 3;
    let mut columns: Option<Vec<Filled>> = None;
    let mut seen: Vec<String> = Vec::new();
    for line in body.split_inclusive('\n') {
        let words = words(line, at);
        at += line.len();
        if words.is_empty() || words.first().is_some_and(|(word, _)| word.starts_with('#')) {
            continue;
        }
        let Some(columns) = &mut columns else {
            // The first line: over the names of the rows stands nothing, or `permission`.
            let heads = words.into_iter().filter(|(word, _)| *word != "permission");
            columns = Some(heads.map(|(word, span)| (word.to_owned(), span, Vec::new())).collect());
            continue;
        };
        row(reader, &words, columns, &mut seen);
    }
    match columns {
        Some(columns) if columns.iter().all(|(_, _, cells)| !cells.is_empty()) && !columns.is_empty() => columns,
        _ => {
            reader.report(literal, "the table needs a line of heads and at least one row");
            Vec::new()
        }
    }
}

fn row(reader: &mut Reader<'_>, words: &[(&str, Range<usize>)], columns: &mut [Filled], seen: &mut Vec<String>) {
    let Some(((name, place), cells)) = words.split_first() else { return };
    let permissions = reader.permissions(name, place);
    for permission in permissions.iter() {
        if seen.iter().any(|known| known == permission.name()) {
            reader.report(place.clone(), &format!("`{permission}` has a row already"));
        }
        seen.push(permission.name().to_owned());
    }
    if cells.len() != columns.len() {
        let message = format!("the row has {} cells, and the table {} columns", cells.len(), columns.len());
        return reader.report(place.clone(), &message);
    }
    for ((word, span), (_, _, into)) in cells.iter().zip(columns) {
        if let Some(expected) = cell(reader, word, span) {
            into.push((permissions, span.clone(), expected));
        }
    }
}

fn cell(reader: &mut Reader<'_>, word: &str, span: &Range<usize>) -> Option<Expected> {
    let denied = Expected::default();
    let codes = || ErrorCode::ALL.iter().map(|code| code.as_str());
    let reasons = || Reason::ALL.iter().map(|reason| reason.as_str());
    match word {
        "yes" => Some(Expected { allowed: true, ..denied }),
        "no" => Some(denied),
        "." => Some(Expected { reason: Some(Reason::Permission.as_str().to_owned()), ..denied }),
        word if reasons().any(|reason| reason == word) => Some(Expected { reason: Some(word.to_owned()), ..denied }),
        word if codes().any(|code| code == word) => Some(Expected { code: Some(word.to_owned()), ..denied }),
        other => {
            let known: Vec<&str> = ["yes", "no", "."].into_iter().chain(reasons()).chain(codes()).collect();
            reader.unknown("cell", other, &known, span.clone());
            None
        }
    }
}

/// The words of a line with their places in the file.
fn words(line: &str, start: usize) -> Vec<(&str, Range<usize>)> {
    let mut found = Vec::new();
    let mut from = 0;
    for piece in line.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        if !word.is_empty() {
            found.push((word, start + from..start + from + word.len()));
        }
        from += piece.len();
    }
    found
}
