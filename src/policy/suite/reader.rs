//! What a test file is read with: plain values and names, each with its place, and each problem told at that place.

use std::ops::Range;

use toml::{Spanned, de::DeValue};

use crate::{
    domain::PermissionSet,
    policy::{problem::Problem, roles::nearest, source_file::SourceFile},
};

pub(super) struct Reader<'a> {
    pub(super) source: &'a SourceFile,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    pub(super) fn report(&mut self, span: Range<usize>, message: &str) {
        self.problems.push(Problem::at(self.source, span, message));
    }

    pub(super) fn unknown(&mut self, what: &str, name: &str, known: &[&str], span: Range<usize>) {
        let near = nearest(name, known.iter().copied()).unwrap_or_default();
        let problem = Problem::at(self.source, span, format!("unknown {what} `{name}`"));
        self.problems.push(problem.help(format!("the nearest known {what} is `{near}`")));
    }

    /// A text, or a list of texts, each with its place.
    pub(super) fn texts(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<(String, Range<usize>)> {
        match value.get_ref() {
            DeValue::String(text) => vec![(text.to_string(), value.span())],
            DeValue::Array(items) => items
                .iter()
                .flat_map(|item| match item.get_ref() {
                    DeValue::String(text) => vec![(text.to_string(), item.span())],
                    _ => {
                        self.report(item.span(), "must be a name in quotes");
                        Vec::new()
                    }
                })
                .collect(),
            _ => {
                self.report(value.span(), "must be a name in quotes, or a list of such");
                Vec::new()
            }
        }
    }

    pub(super) fn text(&mut self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) if !text.trim().is_empty() => Some(text.to_string()),
            _ => {
                self.report(value.span(), "must be a text in quotes");
                None
            }
        }
    }

    /// A permission, wildcard or scope.
    pub(super) fn permissions(&mut self, name: &str, span: &Range<usize>) -> PermissionSet {
        PermissionSet::from_name(name).unwrap_or_else(|unknown| {
            let problem = Problem::at(self.source, span.clone(), format!("unknown permission `{name}`"));
            self.problems.push(problem.help(format!("the nearest known name is `{}`", unknown.nearest)));
            PermissionSet::EMPTY
        })
    }
}
