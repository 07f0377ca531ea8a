//! Paths, parameters and bodies with places for what is asked: `{tenant_id}`, `{from_day}`, `{limit}`.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::rows::words;

words! {
    /// What may be filled in. Times are UTC.
    Placeholder {
        TenantId "tenant_id", Id "id",
        From "from", To "to", FromNaive "from_naive", ToNaive "to_naive", FromDay "from_day", ToDay "to_day",
        NextDay "next_day",
        Status "status", Priority "priority", Target "target", Limit "limit", Offset "offset", Page "page",
        Subject "subject", Description "description", Category "category", CustomerId "customer_id", Tags "tags",
        NotifyCustomer "notify_customer", PartnerId "partner_id", UserId "user_id", AssignedTo "assigned_to",
        Content "content", IsInternal "is_internal",
    }
}

impl Placeholder {
    /// Narrows a list: where it has no value the parameter is left out, and the answer holds more.
    pub fn is_filter(self) -> bool {
        matches!(
            self,
            Self::From
                | Self::To
                | Self::FromNaive
                | Self::ToNaive
                | Self::FromDay
                | Self::ToDay
                | Self::NextDay
                | Self::Status
                | Self::Priority
        )
    }
}

/// What is asked, by placeholder.
#[derive(Clone, Debug, Default)]
pub struct Values(Vec<(Placeholder, Value)>);

impl Values {
    #[must_use]
    pub fn with(mut self, name: Placeholder, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    pub fn set(&mut self, name: Placeholder, value: impl Into<Value>) {
        let value = value.into();
        self.0.retain(|(known, _)| *known != name);
        if !value.is_null() {
            self.0.push((name, value));
        }
    }

    pub fn get(&self, name: Placeholder) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// What is given, by name.
    pub fn names(&self) -> impl Iterator<Item = Placeholder> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// Without what narrows a list.
    #[must_use]
    pub fn unfiltered(&self) -> Self {
        Self(self.0.iter().filter(|(name, _)| !name.is_filter()).cloned().collect())
    }

    fn text(&self, name: Placeholder) -> Option<String> {
        self.get(name).map(|value| match value {
            Value::String(text) => text.clone(),
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        })
    }
}

/// Why a template is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    #[error("unknown placeholder `{{{0}}}`")]
    Unknown(String),
    #[error("a path begins with `/` and holds no space, `?` or `#`")]
    Path,
    #[error("a parameter is one placeholder or plain text, not a mixture")]
    Mixture,
}

/// A path: text and placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Placeholder),
}

/// The value cannot stand in a path: services of this family decode a slash before they look for the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfitForPath;

impl PathTemplate {
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        if !text.starts_with('/') || text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#'))
        {
            return Err(InvalidTemplate::Path);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or_else(|| InvalidTemplate::Unknown(after.to_owned()))?;
            let place = Placeholder::parse(name).ok_or_else(|| InvalidTemplate::Unknown(name.to_owned()))?;
            pieces.extend([Piece::Text(before.to_owned()), Piece::Place(place)]);
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    pub fn places(&self) -> impl Iterator<Item = Placeholder> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Place(name) => Some(*name),
            Piece::Text(_) => None,
        })
    }

    /// The path with the values in it, percent-encoded.
    pub fn fill(&self, values: &Values) -> Result<String, UnfitForPath> {
        let mut path = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Place(name) => path.push_str(&segment(&values.text(*name).unwrap_or_default())?),
            }
        }
        Ok(path)
    }
}

/// One segment, encoded. What a server could take apart after decoding is refused.
fn segment(text: &str) -> Result<String, UnfitForPath> {
    if text.is_empty() || text.chars().all(|c| c == '.') || text.contains(['/', '\\', '%', '?', '#', ';']) {
        return Err(UnfitForPath);
    }
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else if byte.is_ascii_control() {
            return Err(UnfitForPath);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Ok(encoded)
}

/// The value of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    Fixed(String),
    /// Left out where there is no value.
    Place(Placeholder),
}

impl Argument {
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => {
                let place = Placeholder::parse(name).map(Self::Place);
                place.ok_or_else(|| InvalidTemplate::Unknown(name.to_owned()))
            }
            None if text.contains(['{', '}']) => Err(InvalidTemplate::Mixture),
            None => Ok(Self::Fixed(text.to_owned())),
        }
    }
}

/// A query string, with its question mark; empty where there is none.
pub(super) fn query(arguments: &[(String, Argument)], values: &Values) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let mut any = false;
    for (name, argument) in arguments {
        let value = match argument {
            Argument::Fixed(text) => Some(text.clone()),
            Argument::Place(place) => values.text(*place),
        };
        if let Some(value) = value {
            any = true;
            query.append_pair(name, &value);
        }
    }
    if any { format!("?{}", query.finish()) } else { String::new() }
}

/// A JSON body: text that is one placeholder becomes its value, with its type; without a value the key is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct BodyTemplate(Value);

impl BodyTemplate {
    pub fn parse(body: Map<String, Value>) -> Result<Self, InvalidTemplate> {
        let body = Value::Object(body);
        check(&body)?;
        Ok(Self(body))
    }

    pub fn names(&self, place: Placeholder) -> bool {
        names(&self.0, place)
    }

    pub(super) fn fill(&self, values: &Values) -> Value {
        filled(&self.0, values).unwrap_or_default()
    }
}

fn place_of(text: &str) -> Option<Placeholder> {
    Placeholder::parse(text.strip_prefix('{')?.strip_suffix('}')?)
}

fn check(value: &Value) -> Result<(), InvalidTemplate> {
    match value {
        Value::String(text) => Argument::parse(text).map(|_| ()),
        Value::Array(list) => list.iter().try_for_each(check),
        Value::Object(table) => table.values().try_for_each(check),
        _ => Ok(()),
    }
}

fn names(value: &Value, place: Placeholder) -> bool {
    match value {
        Value::String(text) => place_of(text) == Some(place),
        Value::Array(list) => list.iter().any(|one| names(one, place)),
        Value::Object(table) => table.values().any(|one| names(one, place)),
        _ => false,
    }
}

fn filled(value: &Value, values: &Values) -> Option<Value> {
    match value {
        Value::String(text) => match place_of(text) {
            Some(place) => values.get(place).cloned(),
            None => Some(value.clone()),
        },
        Value::Array(list) => Some(list.iter().filter_map(|one| filled(one, values)).collect()),
        Value::Object(table) => {
            let entries = table.iter().filter_map(|(key, one)| Some((key.clone(), filled(one, values)?)));
            Some(Value::Object(entries.collect()))
        }
        other => Some(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(template: &str, values: &Values) -> Result<String, UnfitForPath> {
        PathTemplate::parse(template).unwrap().fill(values)
    }

    #[test]
    fn values_cannot_leave_their_segment() {
        let with = |id: &str| Values::default().with(Placeholder::Id, id);
        assert_eq!(path("/tickets/{id}/messages", &with("a b:ü")).unwrap(), "/tickets/a%20b%3A%C3%BC/messages");
        for unfit in ["", ".", "..", "a/b", "a\\b", "%2e", "a?b", "a#b", "a;b", "a\nb"] {
            assert_eq!(path("/tickets/{id}", &with(unfit)), Err(UnfitForPath), "{unfit:?}");
        }
        assert_eq!(path("/tickets/{id}", &Values::default()), Err(UnfitForPath), "nothing is no id");
        for wrong in ["tickets", "/a b", "/a?b", "/a#b", "/{nothing}", "/{id"] {
            assert!(PathTemplate::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_parameter_without_a_value_is_left_out() {
        let argument = |name: &str, text: &str| (name.to_owned(), Argument::parse(text).unwrap());
        let arguments = [argument("fixed", "a&b"), argument("status", "{status}"), argument("limit", "{limit}")];
        let values = Values::default().with(Placeholder::Limit, 50);
        assert_eq!(query(&arguments, &values), "?fixed=a%26b&limit=50");
        assert_eq!(query(&arguments, &values.with(Placeholder::Status, "x y")), "?fixed=a%26b&status=x+y&limit=50");
        assert_eq!(query(&[], &Values::default()), "");
        assert_eq!(Argument::parse("x{status}"), Err(InvalidTemplate::Mixture));
        assert_eq!(Argument::parse("{statuss}"), Err(InvalidTemplate::Unknown("statuss".into())));
    }

    #[test]
    fn a_body_keeps_types_and_leaves_out_what_is_not_given() {
        let template =
            json!({"subject": "{subject}", "kind": "partner", "n": 1, "meta": {"tags": "{tags}", "c": "{category}"}});
        let template = BodyTemplate::parse(template.as_object().unwrap().clone()).unwrap();
        let values = Values::default()
            .with(Placeholder::Subject, "{\"x\"}")
            .with(Placeholder::Tags, vec!["a".to_owned()])
            .with(Placeholder::Category, None::<String>);
        let filled = json!({"subject": "{\"x\"}", "kind": "partner", "n": 1, "meta": {"tags": ["a"]}});
        assert_eq!(template.fill(&values), filled);
        assert!(template.names(Placeholder::Tags) && !template.names(Placeholder::IsInternal));
    }
}
