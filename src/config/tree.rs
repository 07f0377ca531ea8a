//! The values of a configuration with the place each comes from: a line of the file or an environment variable.
//!
//! TOML is parsed with recovery, so that several syntax errors are told at once. Environment overrides are laid over
//! the tree here; which names exist is the business of `shape`.

use std::{collections::BTreeMap, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::errors::{ConfigError, FieldPath, Origin, Step};

/// One value and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Kept only to say that it is not wanted.
    Datetime,
    Array(Vec<Node>),
    Table(BTreeMap<String, Entry>),
}

/// A value in a table; the key has a place of its own.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Origin,
    pub(super) node: Node,
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(number) if number.is_nan() => "a number that is no integer of 64 bits",
            Self::Float(number) if number.is_infinite() => "infinity",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date or time",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    pub(super) fn empty_table(origin: Origin) -> Self {
        Self { origin, value: Value::Table(BTreeMap::new()) }
    }

    pub(super) fn entries(&self) -> Option<&BTreeMap<String, Entry>> {
        match &self.value {
            Value::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// Puts a value at the end of a way of keys; what is no table on the way becomes one.
    pub(super) fn place(&mut self, keys: &[String], value: Self, origin: &Origin) {
        let Some((key, below)) = keys.split_first() else {
            *self = value;
            return;
        };
        if self.entries().is_none() {
            self.value = Value::Table(BTreeMap::new());
        }
        let Value::Table(entries) = &mut self.value else { return };
        let fresh = || Entry { key: origin.clone(), node: Self::empty_table(origin.clone()) };
        let entry = entries.entry(key.clone()).or_insert_with(fresh);
        if below.is_empty() {
            entry.key = origin.clone();
        }
        entry.node.place(below, value, origin);
    }

    /// Where the value at `path` stands, or the nearest table or list around it.
    pub(super) fn origin_of(&self, path: &FieldPath) -> Origin {
        let mut node = self;
        let mut origin = &self.origin;
        for step in path.steps() {
            let next = match (step, &node.value) {
                (Step::Key(name), Value::Table(entries)) => entries.get(name).map(|entry| (&entry.key, &entry.node)),
                (Step::Index(at), Value::Array(items)) => items.get(*at).map(|item| (&item.origin, item)),
                _ => None,
            };
            let Some((found, below)) = next else { break };
            origin = found;
            node = below;
        }
        origin.clone()
    }

    /// For serde: numbers, strings and tables as they are, dates as null.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::String(text) => text.clone().into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Boolean(flag) => (*flag).into(),
            Value::Datetime => serde_json::Value::Null,
            Value::Array(items) => items.iter().map(Self::to_json).collect(),
            Value::Table(entries) => entries
                .iter()
                .map(|(name, entry)| (name.clone(), entry.node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

/// Parses a file. The tree holds what could be read; errors are told with their lines.
pub(super) fn parse(text: &str, file: Option<&Arc<str>>) -> (Node, Vec<ConfigError>) {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let errors = errors
        .into_iter()
        .map(|error| ConfigError {
            origin: error.span().map_or(Origin::Line(0), |span| lines.origin(span.start)),
            field: FieldPath::default(),
            message: error.message().replace('\n', ", "),
            file: file.cloned(),
        })
        .collect();
    // The root stands for the file as a whole: what is missing there has no line.
    (Node { origin: Origin::Line(0), value: table_value(table.get_ref(), &lines) }, errors)
}

/// The text is no value in TOML's syntax. No details: they might show a secret.
#[derive(Debug)]
pub(super) struct NotToml;

/// Parses one value in TOML's own syntax, such as `5`, `true`, `"text"` or `["a", "b"]`.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Result<Node, NotToml> {
    let parsed = DeValue::parse(text).map_err(|_| NotToml)?;
    let lines = Lines { starts: Vec::new(), fixed: Some(origin.clone()) };
    Ok(node(&parsed, &lines))
}

/// Byte offsets at which lines begin; or, for an override, one origin for everything.
struct Lines {
    starts: Vec<usize>,
    fixed: Option<Origin>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { starts, fixed: None }
    }

    fn origin(&self, offset: usize) -> Origin {
        self.fixed.clone().unwrap_or_else(|| Origin::Line(self.starts.partition_point(|newline| *newline < offset) + 1))
    }
}

fn node(value: &Spanned<DeValue<'_>>, lines: &Lines) -> Node {
    let origin = lines.origin(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        // An integer beyond 64 bits is shown as what it is not: an integer that fits.
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Float(f64::NAN), Value::Integer)
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => Value::Array(items.iter().map(|item| node(item, lines)).collect()),
        DeValue::Table(table) => table_value(table, lines),
    };
    Node { origin, value }
}

fn table_value(table: &DeTable<'_>, lines: &Lines) -> Value {
    let entries = table.iter().map(|(key, value)| {
        let entry = Entry { key: lines.origin(key.span().start), node: node(value, lines) };
        (key.get_ref().to_string(), entry)
    });
    Value::Table(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let text = "a = 1\n\n[b]\nc = \"x\"\n[[d]]\ne = true\n[[d]]\ne = [\n 1,\n 2]\n";
        let (root, errors) = parse(text, None);
        assert!(errors.is_empty());
        let at = |path: FieldPath| root.origin_of(&path);
        let top = FieldPath::default();
        assert_eq!(at(top.key("a")), Origin::Line(1));
        assert_eq!(at(top.key("b").key("c")), Origin::Line(4));
        assert_eq!(at(top.key("b").key("missing")), Origin::Line(3));
        assert_eq!(at(top.key("d").index(1).key("e")), Origin::Line(8));
        assert_eq!(at(top.key("d").index(1).key("e").index(1)), Origin::Line(10));
        assert_eq!(at(top.key("missing")), Origin::Line(0));
    }

    #[test]
    fn several_syntax_errors_are_told_at_once() {
        let (_, errors) = parse("a = \nb = 1\nc = \"x\nd = 2\nb = 3\n", None);
        let lines: Vec<_> = errors.iter().map(|error| error.origin.clone()).collect();
        assert!(
            lines.contains(&Origin::Line(1)) && lines.contains(&Origin::Line(3)) && lines.contains(&Origin::Line(5)),
            "{errors:?}"
        );
    }
}
