//! JSON bodies of the consolidated API: every mistake is told, one entry a field, and nothing is ignored.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::call::Problem;
use crate::domain::{ErrorCode, Moment, TenantId, link_rules::FieldError, strict_json::StrictJson};

/// The fields of one object. Each is taken once by its reader; what nobody took is an error of its own.
#[derive(Debug)]
pub struct Fields {
    fields: Map<String, Value>,
    /// What stands before a field's name in an error: `comment.`.
    prefix: String,
    errors: Vec<FieldError>,
}

/// How long a text may be, and what it may hold.
#[derive(Clone, Copy, Debug)]
pub struct TextRule {
    /// In characters.
    most: usize,
    lines: bool,
}

impl TextRule {
    /// One line, without control characters.
    pub const fn line(most: usize) -> Self {
        Self { most, lines: false }
    }

    /// Several lines.
    pub const fn lines(most: usize) -> Self {
        Self { most, lines: true }
    }

    fn check(self, text: &str) -> Result<(), String> {
        if text.trim().is_empty() {
            return Err("must not be empty".into());
        }
        if text.chars().count() > self.most {
            return Err(format!("must have at most {} characters", self.most));
        }
        let allowed = |c: char| !c.is_control() || (self.lines && matches!(c, '\n' | '\r' | '\t'));
        if text.chars().all(allowed) { Ok(()) } else { Err("must hold no control characters".into()) }
    }
}

impl Fields {
    /// Reads the whole body: one JSON object in which no key stands twice.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let bad = |message: Cow<'static, str>| Problem::new(ErrorCode::BadRequest, message);
        if body.is_empty() {
            return Err(bad("a JSON object is needed as the body".into()));
        }
        match serde_json::from_slice(body) {
            Ok(StrictJson(Value::Object(fields))) => Ok(Self { fields, prefix: String::new(), errors: Vec::new() }),
            Ok(_) => Err(bad("the body must be a JSON object".into())),
            // The parser's message may quote the body: the place says enough.
            Err(error) if error.is_data() => Err(bad("the body names a key more than once".into())),
            Err(error) => {
                Err(bad(format!("the body is no valid JSON: line {}, column {}", error.line(), error.column()).into()))
            }
        }
    }

    /// All of them, unread: for a reader of its own.
    pub fn whole(self) -> Map<String, Value> {
        self.fields
    }

    pub fn fail(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(FieldError { field: format!("{}{field}", self.prefix), message: message.into() });
    }

    fn required<T>(&mut self, name: &str, value: Option<T>, stands: bool) -> Option<T> {
        if !stands {
            self.fail(name, "is required");
        }
        value
    }

    pub fn text(&mut self, name: &str, rule: TextRule) -> Option<String> {
        match self.fields.remove(name)? {
            Value::String(text) => match rule.check(&text) {
                Ok(()) => Some(text),
                Err(message) => {
                    self.fail(name, message);
                    None
                }
            },
            other => self.wrong(name, "a string", &other),
        }
    }

    pub fn required_text(&mut self, name: &str, rule: TextRule) -> Option<String> {
        let stands = self.fields.contains_key(name);
        let value = self.text(name, rule);
        self.required(name, value, stands)
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        match self.fields.remove(name)? {
            Value::Bool(flag) => Some(flag),
            other => self.wrong(name, "true or false", &other),
        }
    }

    /// One of some words.
    pub fn word<T: Copy>(&mut self, name: &str, words: &[(&'static str, T)]) -> Option<T> {
        match self.fields.remove(name)? {
            Value::String(text) => self.known(name, &text, words),
            other => self.wrong(name, "a string", &other),
        }
    }

    pub fn required_word<T: Copy>(&mut self, name: &str, words: &[(&'static str, T)]) -> Option<T> {
        let stands = self.fields.contains_key(name);
        let value = self.word(name, words);
        self.required(name, value, stands)
    }

    /// A list of words, each once, in the order given.
    pub fn words<T: Copy + PartialEq>(&mut self, name: &str, words: &[(&'static str, T)]) -> Option<Vec<T>> {
        let texts = self.texts(name, words.len(), TextRule::line(64))?;
        Some(texts.iter().filter_map(|text| self.known(name, text, words)).collect())
    }

    fn known<T: Copy>(&mut self, name: &str, text: &str, words: &[(&'static str, T)]) -> Option<T> {
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let shown: String = text.chars().take(64).collect();
            self.fail(name, format!("`{shown}` is none of {}", known.join(", ")));
        }
        found
    }

    /// A list of texts, none twice; an empty list is an error.
    pub fn texts(&mut self, name: &str, most: usize, rule: TextRule) -> Option<Vec<String>> {
        let items = match self.fields.remove(name)? {
            Value::Array(items) => items,
            other => return self.wrong(name, "an array of strings", &other),
        };
        if items.is_empty() {
            self.fail(name, "must not be empty: leave it out");
            return None;
        }
        if items.len() > most {
            self.fail(name, format!("must have at most {most} entries"));
            return None;
        }
        let mut texts: Vec<String> = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let Value::String(text) = item else {
                self.fail(&format!("{name}[{at}]"), "must be a string");
                continue;
            };
            if let Err(message) = rule.check(&text) {
                self.fail(&format!("{name}[{at}]"), message);
            } else if texts.contains(&text) {
                self.fail(&format!("{name}[{at}]"), "stands twice");
            } else {
                texts.push(text);
            }
        }
        Some(texts)
    }

    /// `tenant_ids`, ascending.
    pub fn tenant_ids(&mut self, most: usize) -> Option<Vec<TenantId>> {
        let texts = self.texts("tenant_ids", most, TextRule::line(255))?;
        let mut ids: Vec<_> = texts.iter().filter_map(|id| TenantId::new(id).ok()).collect();
        if ids.len() < texts.len() {
            self.fail("tenant_ids", "a tenant id has 1 to 255 characters");
        }
        ids.sort_unstable();
        Some(ids)
    }

    /// A date, or an instant with its offset.
    pub fn moment(&mut self, name: &str) -> Option<Moment> {
        let text = match self.fields.remove(name)? {
            Value::String(text) => text,
            other => return self.wrong(name, "a string", &other),
        };
        match Moment::parse(&text) {
            Ok(moment) => Some(moment),
            Err(error) => {
                self.fail(name, error.to_string());
                None
            }
        }
    }

    /// An object within; give it back by [`Self::close`].
    pub fn object(&mut self, name: &str) -> Option<Self> {
        match self.fields.remove(name)? {
            Value::Object(fields) => {
                Some(Self { fields, prefix: format!("{}{name}.", self.prefix), errors: Vec::new() })
            }
            other => self.wrong(name, "an object", &other),
        }
    }

    /// The mistakes of an object within are mistakes of the whole.
    pub fn close(&mut self, inner: Self) {
        self.errors.extend(inner.all_errors());
    }

    fn wrong<T>(&mut self, name: &str, wanted: &str, found: &Value) -> Option<T> {
        let found = match found {
            Value::Null => "null: leave the field out instead",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        self.fail(name, format!("must be {wanted}, and is {found}"));
        None
    }

    fn all_errors(mut self) -> Vec<FieldError> {
        let unknown: Vec<String> = self.fields.keys().map(|name| name.chars().take(64).collect()).collect();
        for name in unknown {
            self.fail(&name, "is no field of this request");
        }
        self.errors
    }

    /// All mistakes at once.
    pub fn finish(self) -> Result<(), Problem> {
        let errors = self.all_errors();
        if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(problem: Problem) -> Vec<String> {
        problem.fields.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let body = br#"{"a": 1, "b": " ", "c": "x\u0000", "d": ["x", 1, "x"], "e": {"f": "no", "g": 1}, "h": null,
            "when": "2026-13-01", "tenant_ids": ["b", "a"], "tenant_id": "t"}"#;
        let mut fields = Fields::read(body).unwrap();
        for name in ["a", "b", "c"] {
            assert_eq!(fields.text(name, TextRule::lines(10)), None);
        }
        assert_eq!(fields.texts("d", 5, TextRule::line(10)), Some(vec!["x".to_owned()]));
        let mut inner = fields.object("e").unwrap();
        assert_eq!(inner.flag("f"), None);
        fields.close(inner);
        assert_eq!(fields.flag("h"), None);
        assert_eq!(fields.required_word("needed", &[("x", 1)]), None);
        assert_eq!(fields.moment("when"), None);
        assert_eq!(fields.tenant_ids(5).unwrap().first().unwrap().as_str(), "a");
        assert_eq!(
            told(fields.finish().unwrap_err()),
            ["a", "b", "c", "d[1]", "d[2]", "e.f", "e.g", "h", "needed", "when", "tenant_id"]
        );
    }

    #[test]
    fn what_is_no_object_is_a_bad_request() {
        for body in ["", "[]", "{", "null", r#"{"a":1,"a":2}"#, r#"{"a":1} x"#, "\u{feff}{}"] {
            let problem = Fields::read(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code, ErrorCode::BadRequest, "{body}");
            assert!(!problem.message.contains('x') || problem.message.contains("object"), "{}", problem.message);
        }
        Fields::read(b"{}").unwrap().finish().unwrap();
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let body =
            serde_json::json!({"a": "é".repeat(255), "b": "é".repeat(256), "c": "a\nb", "d": "a\nb"}).to_string();
        let mut fields = Fields::read(body.as_bytes()).unwrap();
        assert!(fields.text("a", TextRule::line(255)).is_some() && fields.text("b", TextRule::line(255)).is_none());
        assert!(fields.text("c", TextRule::line(9)).is_none() && fields.text("d", TextRule::lines(9)).is_some());
        assert_eq!(told(fields.finish().unwrap_err()), ["b", "c"]);
    }
}
