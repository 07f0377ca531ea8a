//! The structure of a configuration, checked against the JSON Schema of the raw mirror.
//!
//! serde stops at the first error; this walk tells them all: unknown keys (with the nearest known one), wrong types,
//! numbers out of range, unknown words. What is wrong is then cut out of the tree, so that the rest can be resolved and
//! its errors told in the same run. Values are never shown: one of them might be a secret.
//!
//! Environment overrides are placed here too, because only the schema knows which names exist and whether a value is
//! meant as text.

use serde_json::Value as Json;

use super::{
    errors::{ConfigError, FieldPath, Origin, nearest},
    tree::{self, Node, Value},
};

/// Prefix of environment overrides; the double underscore keeps `LINKGATE_CONFIG` and the like out of it.
pub const OVERRIDE_PREFIX: &str = "LINKGATE__";

/// Walks trees along one schema and collects errors.
pub(super) struct Shape<'a> {
    schema: &'a Json,
    pub(super) errors: Vec<ConfigError>,
    /// Fields that an unknown key was probably meant for: that they are missing is no second error.
    pub(super) meant: Vec<FieldPath>,
}

impl<'a> Shape<'a> {
    pub(super) fn new(schema: &'a Json) -> Self {
        Self { schema, errors: Vec::new(), meant: Vec::new() }
    }

    /// Checks a whole tree and cuts out what is wrong.
    pub(super) fn check(&mut self, root: &mut Node) {
        self.node(self.schema, root, &FieldPath::default());
    }

    /// Whether the node may stay.
    fn node(&mut self, schema: &'a Json, node: &mut Node, path: &FieldPath) -> bool {
        let schema = self.concrete(schema);
        if let Some(words) = words(schema) {
            return self.word(&words, node, path);
        }
        if !accepts(schema, &node.value) {
            let message = format!("expected {}, found {}", expected(schema), node.value.kind());
            self.fail(node.origin.clone(), path.clone(), message);
            return false;
        }
        match &mut node.value {
            Value::Integer(number) => match out_of_range(schema, *number) {
                Some(message) => {
                    self.fail(node.origin.clone(), path.clone(), message);
                    false
                }
                None => true,
            },
            Value::Array(items) => {
                let Some(of) = schema.get("items") else { return true };
                let mut good = true;
                for (at, item) in items.iter_mut().enumerate() {
                    good &= self.node(of, item, &path.index(at));
                }
                good
            }
            Value::Table(entries) => {
                let names: Vec<String> = entries.keys().cloned().collect();
                for name in names {
                    let keep = match (child(schema, &name), entries.get_mut(&name)) {
                        (Some(below), Some(entry)) => self.node(below, &mut entry.node, &path.key(&name)),
                        (_, entry) => {
                            let origin = entry.map_or(Origin::Line(0), |entry| entry.key.clone());
                            self.unknown_key(schema, origin, path, &name);
                            false
                        }
                    };
                    if !keep {
                        entries.remove(&name);
                    }
                }
                true
            }
            _ => true,
        }
    }

    fn word(&mut self, words: &[&str], node: &Node, path: &FieldPath) -> bool {
        let message = match &node.value {
            Value::String(text) if words.contains(&text.as_str()) => return true,
            Value::String(text) => {
                let hint = nearest(text, words.iter().copied()).map(|word| format!("; did you mean `{word}`?"));
                format!("unknown word `{text}`{} (one of {})", hint.unwrap_or_default(), words.join(", "))
            }
            other => format!("expected one of {}, found {}", words.join(", "), other.kind()),
        };
        self.fail(node.origin.clone(), path.clone(), message);
        false
    }

    fn unknown_key(&mut self, schema: &'a Json, origin: Origin, path: &FieldPath, name: &str) {
        let known: Vec<&str> = property_names(schema).collect();
        let message = match nearest(name, known.iter().copied()) {
            Some(near) => {
                self.meant.push(path.key(near));
                format!("unknown key; did you mean `{near}`?")
            }
            None => format!("unknown key (known here: {})", known.join(", ")),
        };
        self.fail(origin, path.key(name), message);
    }

    /// Lays `LINKGATE__SECTION__KEY=value` over the tree. A wrong override is reported and changes nothing.
    pub(super) fn overlay(&mut self, root: &mut Node, name: &str, value: &str) {
        let origin = Origin::Env(name.into());
        let Some(keys) = name.strip_prefix(OVERRIDE_PREFIX) else { return };
        let mut schema = self.concrete(self.schema);
        let mut at = Some(&*root);
        let mut path = FieldPath::default();
        let mut names = Vec::new();
        for segment in keys.split("__").map(str::to_ascii_lowercase) {
            if !types(schema).any(|name| name == "object") {
                self.fail(
                    origin,
                    path,
                    "holds no keys: only tables do; a list can be overridden as a whole".to_owned(),
                );
                return;
            }
            let entries = at.and_then(Node::entries);
            // The spelling in the file wins: `my-isp` is overridden by `MY_ISP`.
            let spelled = |known: &&String| known.to_ascii_lowercase().replace('-', "_") == segment;
            let key = entries.and_then(|entries| entries.keys().find(spelled)).cloned().unwrap_or(segment);
            let Some(below) = child(schema, &key) else {
                self.unknown_key(schema, origin, &path, &key);
                return;
            };
            at = entries.and_then(|entries| entries.get(&key)).map(|entry| &entry.node);
            path = path.key(&key);
            schema = self.concrete(below);
            names.push(key);
        }
        let Ok(mut value) = override_value(schema, value, &origin) else {
            // Without the parser's own words: they might show the value.
            self.fail(origin, path, format!("expected {}, written as in TOML", expected(schema)));
            return;
        };
        if self.node(schema, &mut value, &path) {
            root.place(&names, value, &origin);
        }
    }

    fn fail(&mut self, origin: Origin, field: FieldPath, message: String) {
        self.errors.push(ConfigError { origin, field, message, file: None });
    }

    /// Follows references and takes the alternative that is not null.
    fn concrete(&self, schema: &'a Json) -> &'a Json {
        let mut here = schema;
        // References of one schema are no longer than a handful; the bound only keeps a broken one from looping.
        for _ in 0..8 {
            let next = match (here.get("$ref").and_then(Json::as_str), here.get("anyOf").and_then(Json::as_array)) {
                (Some(reference), _) => reference.strip_prefix('#').and_then(|pointer| self.schema.pointer(pointer)),
                (None, Some(choices)) => choices.iter().find(|one| one.get("type") != Some(&Json::from("null"))),
                (None, None) => None,
            };
            match next {
                Some(next) => here = next,
                None => break,
            }
        }
        here
    }
}

/// The words of an enumeration; `None` where the schema is none.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(list) = schema.get("enum").and_then(Json::as_array) {
        return Some(list.iter().filter_map(Json::as_str).collect());
    }
    let choices = schema.get("oneOf").and_then(Json::as_array)?;
    let mut found = Vec::new();
    for choice in choices {
        match choice.get("const").and_then(Json::as_str) {
            Some(word) => found.push(word),
            None => found.extend(choice.get("enum")?.as_array()?.iter().filter_map(Json::as_str)),
        }
    }
    Some(found)
}

fn types(schema: &Json) -> impl Iterator<Item = &str> {
    let one = schema.get("type").and_then(Json::as_str);
    let many = schema.get("type").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    one.into_iter().chain(many).filter(|name| *name != "null")
}

fn accepts(schema: &Json, value: &Value) -> bool {
    types(schema).any(|name| match value {
        Value::String(_) => name == "string",
        Value::Integer(_) => name == "integer" || name == "number",
        Value::Float(number) => name == "number" && number.is_finite(),
        Value::Boolean(_) => name == "boolean",
        Value::Array(_) => name == "array",
        Value::Table(_) => name == "object",
        Value::Datetime => false,
    })
}

fn expected(schema: &Json) -> String {
    if let Some(words) = words(schema) {
        return format!("one of {}", words.join(", "));
    }
    let name = |name: &str| match name {
        "string" => "a string".to_owned(),
        "integer" => "an integer".to_owned(),
        "boolean" => "a boolean".to_owned(),
        "array" => "a list".to_owned(),
        "object" => "a table".to_owned(),
        other => other.to_owned(),
    };
    types(schema).map(name).collect::<Vec<_>>().join(" or ")
}

/// What is wrong with the number, if it does not fit. Formats without a maximum in the schema have that of their type.
fn out_of_range(schema: &Json, number: i64) -> Option<String> {
    let least = schema.get("minimum").and_then(Json::as_i64).unwrap_or(i64::MIN);
    let type_most = match schema.get("format").and_then(Json::as_str) {
        Some("uint32") => i64::from(u32::MAX),
        _ => i64::MAX,
    };
    let most = schema.get("maximum").and_then(Json::as_i64).unwrap_or(type_most);
    // Text is another way to write sizes and rates; their own parser speaks of the number.
    let fits = (least..=most).contains(&number) || types(schema).any(|name| name == "string");
    (!fits).then(|| format!("{number} is out of range: {least} to {most}"))
}

/// The schema of one key; `None` where the key is unknown.
fn child<'a>(schema: &'a Json, name: &str) -> Option<&'a Json> {
    let named = schema.get("properties").and_then(|properties| properties.get(name));
    named.or_else(|| schema.get("additionalProperties").filter(|below| below.is_object()))
}

fn property_names(schema: &Json) -> impl Iterator<Item = &str> {
    schema
        .get("properties")
        .and_then(Json::as_object)
        .into_iter()
        .flat_map(|properties| properties.keys().map(String::as_str))
}

/// Text needs no quotes where text is wanted; everything else is written as in TOML.
fn override_value(schema: &Json, text: &str, origin: &Origin) -> Result<Node, tree::NotToml> {
    let plain = || Node { origin: origin.clone(), value: Value::String(text.to_owned()) };
    let wants_text = words(schema).is_some() || types(schema).any(|name| name == "string");
    let only_text = words(schema).is_some() || types(schema).all(|name| name == "string");
    if only_text && !text.starts_with(['"', '\'']) {
        return Ok(plain());
    }
    match tree::parse_value(text, origin) {
        Ok(node) => Ok(node),
        Err(_) if wants_text && !only_text => Ok(plain()),
        Err(why) => Err(why),
    }
}
