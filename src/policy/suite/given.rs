//! The facts of a case, gathered from defaults, the case and a column, on their way to a question of `linkgate decide`.

use std::ops::Range;

use serde_json::{Map, Value as Json};
use toml::de::DeValue;

use crate::domain::Permission;

/// What "now" is where a test says nothing: a fixed day, so that no test passes today and fails tomorrow.
const NOW: &str = "2026-06-01T12:00:00Z";

/// Facts as JSON, and where each came from.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    values: Map<String, Json>,
    pub(super) spans: Vec<(Vec<String>, Range<usize>)>,
}

impl Given {
    /// `user.roles` and the like; a table is made where there is none.
    pub(super) fn set(&mut self, path: &[&str], value: Json, span: Range<usize>) {
        self.spans.retain(|(known, _)| known != path);
        self.spans.push((path.iter().map(|part| (*part).to_owned()).collect(), span));
        match path {
            [name] => {
                self.values.insert((*name).to_owned(), value);
            }
            [table, name] => {
                let inner = self.values.entry((*table).to_owned()).or_insert_with(|| Json::Object(Map::new()));
                if !inner.is_object() {
                    *inner = Json::Object(Map::new());
                }
                if let Json::Object(map) = inner {
                    map.insert((*name).to_owned(), value);
                }
            }
            _ => {}
        }
    }

    /// As a line of `linkgate decide`.
    pub(super) fn question(&self, permission: Permission) -> Vec<u8> {
        let mut line = self.values.clone();
        line.insert("permission".to_owned(), permission.name().into());
        line.entry("now").or_insert_with(|| NOW.into());
        Json::Object(line).to_string().into_bytes()
    }

    pub(super) fn at(&self, path: &[String]) -> Option<&Json> {
        match path {
            [name] => self.values.get(name),
            [table, name] => self.values.get(table)?.get(name),
            _ => None,
        }
    }
}

/// A TOML value as JSON; a time becomes its text.
pub(super) fn json(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => Json::String(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| number.to_string().into(), Json::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or_else(|_| number.to_string().into(), Json::from),
        DeValue::Boolean(flag) => Json::Bool(*flag),
        DeValue::Datetime(time) => Json::String(time.to_string()),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            Json::Object(table.iter().map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref()))).collect())
        }
    }
}
