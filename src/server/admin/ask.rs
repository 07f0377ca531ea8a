//! What comes with a call: path parameter, query, `If-Match` and body. Every mistake is told, one entry a field, and
//! nothing is ignored.

use http::{HeaderMap, header};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::table::{IfMatch, Spec};
use crate::{
    domain::{ErrorCode, LinkId, PartnerId, link_rules::FieldError},
    portal::{
        Problem,
        body::Fields,
        query::{Paging, Params},
    },
    proxy::headers::{Single, single},
    store::admin::Page,
};

/// One call, read and not yet understood.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) spec: &'static Spec,
    /// The path's parameter, decoded once; empty where there is none.
    pub(super) param: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: bytes::Bytes,
    /// Held to the end of the act.
    #[expect(dead_code, reason = "it is held, not read")]
    pub(super) turn: Option<OwnedSemaphorePermit>,
}

/// One mistake of a query or body.
pub(super) fn invalid(field: &str, message: impl Into<String>) -> Problem {
    Problem::invalid(vec![FieldError { field: field.into(), message: message.into() }])
}

/// The version that a change is made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Version(i64),
    Any,
}

impl Expected {
    pub(super) fn version(self) -> Option<i64> {
        match self {
            Self::Version(version) => Some(version),
            Self::Any => None,
        }
    }
}

impl Ask {
    /// Parameters of the query; `finish` them.
    pub(super) fn params(&self) -> Params<'_> {
        Params::new(&self.query)
    }

    /// For calls without any.
    pub(super) fn no_query(&self) -> Result<(), Problem> {
        self.params().finish()
    }

    /// The path's parameter as an id. One that is none names nothing.
    pub(super) fn id(&self) -> Result<Uuid, Problem> {
        self.param.parse().map_err(|_| self.unknown())
    }

    pub(super) fn link(&self) -> Result<LinkId, Problem> {
        self.id().map(LinkId)
    }

    pub(super) fn partner(&self) -> Result<PartnerId, Problem> {
        self.id().map(PartnerId)
    }

    /// There is no such object.
    pub(super) fn unknown(&self) -> Problem {
        let code = match self.spec.resource {
            "tenant" => ErrorCode::TenantNotFound,
            _ => ErrorCode::RouteNotFound,
        };
        let shown: String = self.param.chars().filter(|c| !c.is_control()).take(64).collect();
        Problem::new(code, format!("there is no {} `{shown}`", self.spec.resource.replace('_', " ")))
    }

    /// What `If-Match` says: the version as it was read, as `ETag` gives it.
    pub(super) fn expected(&self) -> Result<Expected, Problem> {
        let wrong =
            |message: &str| Problem::invalid(vec![FieldError { field: "If-Match".into(), message: message.into() }]);
        let value = match single(&self.headers, header::IF_MATCH) {
            Single::One(value) => value.to_str().unwrap_or_default(),
            Single::Repeated => return Err(wrong("stands more than once")),
            Single::Absent => {
                return Err(Problem::new(
                    ErrorCode::Conflict,
                    "send `If-Match` with the version that you have read (its `ETag`): a change over an unread one is refused",
                ));
            }
        };
        if value == "*" {
            return match self.spec.if_match {
                IfMatch::VersionOrAny => Ok(Expected::Any),
                _ => Err(wrong("must name the version that was read: `*` is for revocations")),
            };
        }
        let digits = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        let number = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
        number.map(Expected::Version).ok_or_else(|| wrong("must be the version that was read, such as \"3\""))
    }

    /// The body as this input.
    pub(super) fn input<T: Input>(&self) -> Result<T, Problem> {
        read(&self.body)
    }
}

/// The page that is asked for, with one row more: whether it comes says whether there are more.
pub(super) fn page(paging: Paging) -> Page {
    let limit = u32::try_from(paging.limit.saturating_add(1)).unwrap_or(u32::MAX);
    Page { limit, offset: u32::try_from(paging.offset).unwrap_or(u32::MAX) }
}

/// A body: a struct whose fields may all be left out, with a schema that names them.
pub(super) trait Input: DeserializeOwned + JsonSchema {
    /// Fields that `null` clears; elsewhere it is an error.
    const CLEARABLE: &'static [&'static str] = &[];
}

/// Reads each field by itself, so that every mistake is told at once.
fn read<T: Input>(body: &[u8]) -> Result<T, Problem> {
    let given = Fields::read(body)?.whole();
    let schema = schemars::schema_for!(T);
    let known = schema.get("properties").and_then(Value::as_object);
    let mut errors = Vec::new();
    let mut fail = |field: &str, message: String| {
        errors.push(FieldError { field: field.chars().take(64).collect(), message });
    };
    for (field, value) in &given {
        if !known.is_some_and(|known| known.contains_key(field)) {
            fail(field, "is no field of this request".into());
        } else if value.is_null() && !T::CLEARABLE.contains(&field.as_str()) {
            fail(field, "is null: leave the field out instead".into());
        } else {
            let alone = Value::Object(Map::from_iter([(field.clone(), value.clone())]));
            if let Err(error) = serde_json::from_value::<T>(alone) {
                fail(field, error.to_string().chars().take(256).collect());
            }
        }
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    serde_json::from_value(Value::Object(given)).map_err(|error| {
        tracing::error!(%error, "a body whose fields are good one by one cannot be read as a whole");
        Problem::new(ErrorCode::InternalError, "")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::link_rules::LinkInput;

    #[test]
    fn every_mistake_of_a_body_has_its_entry() {
        let body = br#"{"access_role": 1, "is_active": "yes", "end_date": null, "notes": 7, "require_mfa": null, "colour": "red"}"#;
        let problem = read::<LinkInput>(body).unwrap_err();
        let mut fields: Vec<_> = problem.fields.iter().map(|error| error.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["access_role", "colour", "is_active", "notes", "require_mfa"]);
        let read = read::<LinkInput>(br#"{"end_date": null, "custom_permissions": {"billing.read": true}}"#).unwrap();
        assert_eq!(read.end_date, Some(None));
    }
}
