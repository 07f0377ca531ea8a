//! Reads `invariants.toml`: what a security person wants proved, as conditions in Cedar.
//!
//! Strict, as the role table is: an unknown key, name or value is an error at its line, and all are told at once. A
//! condition is held against the schema like a policy. One that no request can ever meet is an error too: it would be
//! "proved" by saying nothing. What one entry becomes is in `entry`.

use std::{collections::HashSet, ops::Range, path::Path};

use toml::de::{DeTable, DeValue};

use super::{
    super::{
        bundle::Bundle,
        problem::{PolicyErrors, Problem},
        schema::Vocabulary,
        source,
        source_file::SourceFile,
    },
    entry::{Invariant, Reader},
};

/// The file's name within a policy set's folder.
const FILE: &str = "invariants.toml";
const BUILT_IN: &str = source::INVARIANTS;

/// Each costs a part of every question to the solver.
const MAX_INVARIANTS: usize = 256;

/// A file of invariants, valid against the schema of one policy set. Never empty.
#[derive(Clone, Debug)]
pub struct Invariants {
    /// As the operator knows it: a path, or `built-in/...`.
    pub file: String,
    pub list: Vec<Invariant>,
    /// Shipped invariants that the file does not name: they are not proved.
    pub missing: Vec<String>,
}

impl Invariants {
    /// The named file; else `invariants.toml` of the set's folder; else the one built into the binary.
    ///
    /// That a folder has none is no error, but never unsaid: `file` names what was proved instead.
    pub fn load(bundle: &Bundle, dir: Option<&Path>, named: Option<&Path>) -> Result<Self, PolicyErrors> {
        let beside = dir.map(|dir| dir.join(FILE)).filter(|path| path.exists());
        let source = match named.or(beside.as_deref()) {
            Some(path) => {
                let mut problems = Vec::new();
                let read = source::read_file(path, &mut problems);
                read.ok_or_else(|| PolicyErrors::new(problems))?
            }
            None => SourceFile { name: built_in_name(), text: BUILT_IN.into() },
        };
        Self::parse(&bundle.words, &source).map_err(PolicyErrors::new)
    }

    /// Whether these are the ones built into the binary.
    pub fn is_built_in(&self) -> bool {
        self.file == built_in_name()
    }

    pub(super) fn parse(words: &Vocabulary, source: &SourceFile) -> Result<Self, Vec<Problem>> {
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        // Only the first: after a syntax error the parser reports its consequences too.
        if let Some(error) = errors.first() {
            return Err(vec![Problem::at(source, error.span().unwrap_or(0..0), error.message())]);
        }
        let mut reader = Reader { source, words, problems: Vec::new() };
        let mut list = Vec::new();
        for (key, value) in document.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("invariant", DeValue::Array(entries)) => {
                    list.extend(entries.iter().filter_map(|entry| reader.entry(entry)));
                }
                ("invariant", _) => reader.report(value.span(), "must be a list: write `[[invariant]]` for each", None),
                (other, _) => reader.unknown("table", other, &["invariant"], key.span()),
            }
        }
        whole(&mut reader, &list);
        if !reader.problems.is_empty() {
            return Err(reader.problems);
        }
        let list: Vec<Invariant> = list.into_iter().map(|(invariant, _)| invariant).collect();
        let missing = shipped().into_iter().filter(|name| list.iter().all(|one| one.name != *name)).collect();
        Ok(Self { file: source.name.clone(), list, missing })
    }
}

fn built_in_name() -> String {
    format!("built-in/{FILE}")
}

/// Names of the built-in invariants.
fn shipped() -> Vec<String> {
    let (document, _) = DeTable::parse_recoverable(BUILT_IN);
    let entries = document.get_ref().get("invariant").and_then(|value| value.get_ref().as_array());
    let names = entries.into_iter().flatten().filter_map(|entry| entry.get_ref().get("name")?.get_ref().as_str());
    names.map(str::to_owned).collect()
}

/// What can be wrong only with all of them together.
fn whole(reader: &mut Reader<'_>, list: &[(Invariant, Range<usize>)]) {
    if list.is_empty() && reader.problems.is_empty() {
        reader.report(0..0, "there is no `[[invariant]]`: nothing would be proved", None);
    }
    if list.len() > MAX_INVARIANTS {
        reader.report(0..0, &format!("holds {} invariants; at most {MAX_INVARIANTS} are proved", list.len()), None);
    }
    let mut seen = HashSet::new();
    for (invariant, span) in list {
        if !seen.insert(&invariant.name) {
            reader.report(span.clone(), &format!("the name `{}` is used twice", invariant.name), None);
        }
    }
}
