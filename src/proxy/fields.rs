//! The stage that reads a body for fields which its route refuses (contract, section 6).
//!
//! An upstream of this family takes `tenant_id` from a ticket's body without a check. Where a route declares such
//! fields, the body is read first, up to 1 MiB, and must be JSON that every parser reads alike: UTF-8, no repeated key,
//! no compression.

use bytes::Bytes;
use http::header;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{
    flow::Trail,
    headers::{Single, single},
    quota::Admitted,
    respond::Failure,
};
use crate::domain::ErrorCode;

/// Longest body that is read beforehand, in bytes.
pub const MAX_READ_BYTES: usize = 1024 * 1024;

/// How long the whole of such a body may take.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// A request whose body may go on; `read` holds it where it was read.
#[derive(Debug)]
pub struct Checked {
    pub admitted: Admitted,
    pub read: Option<Bytes>,
}

/// Reads and checks the body where the route asks for it.
pub async fn check(trail: &Trail, mut admitted: Admitted) -> Result<Checked, Failure> {
    let routed = &mut admitted.0.placed.identified.routed;
    let pointers = &routed.route.settings.refuse_body_fields;
    let limit = routed.route.settings.max_body_bytes;
    if let Some(length) = content_length(&routed.parts.headers)
        && length > limit
    {
        return Err(too_large());
    }
    if pointers.is_empty() {
        return Ok(Checked { admitted, read: None });
    }
    let bad = |detail, message: &str| Failure::new(ErrorCode::BadRequest, detail).saying(message);
    if routed.parts.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(bad("body_encoding", "this route takes no compressed body"));
    }
    // As a form, `{"a":"&tenant_id=x&"}` holds the field too; only a body that is declared JSON is read as nothing else.
    if content_length(&routed.parts.headers) != Some(0)
        && !is_json(&routed.parts.headers)
        && !routed.body.is_end_stream()
    {
        return Err(bad("body_type", "this route takes a body of content type application/json only"));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_READ_BYTES);
    let reading = Limited::new(&mut routed.body, limit).collect();
    let bytes = match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Err(_) => return Err(bad("body_timeout", "the request body took too long")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => return Err(bad("body_broken", "the request body broke off")),
        Ok(Ok(body)) => body.to_bytes(),
    };
    if bytes.is_empty() {
        return Ok(Checked { admitted, read: Some(bytes) });
    }
    let value = serde_json::from_slice::<Strict>(&bytes).map_err(|error| {
        tracing::debug!(request_id = %trail.request_id, %error, "body refused");
        bad("body_json", "the request body must be JSON without repeated keys")
    })?;
    if let Some(pointer) = pointers.iter().find(|pointer| value.0.pointer(pointer).is_some()) {
        return Err(bad("body_field", &format!("the request body must not hold `{pointer}`")));
    }
    Ok(Checked { admitted, read: Some(bytes) })
}

/// One `Content-Type`, `application/json` or `…+json`, in UTF-8.
fn is_json(headers: &http::HeaderMap) -> bool {
    let Single::One(value) = single(headers, header::CONTENT_TYPE) else { return false };
    let Ok(text) = value.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let json = kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    json && parts.all(|parameter| {
        let parameter = parameter.to_ascii_lowercase();
        !parameter.starts_with("charset") || matches!(parameter.as_str(), "charset=utf-8" | "charset=\"utf-8\"")
    })
}

fn too_large() -> Failure {
    Failure::new(ErrorCode::PayloadTooLarge, "body_bytes")
}

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Any JSON value in which no object repeats a key.
struct Strict(serde_json::Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = serde_json::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON without repeated keys")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(serde_json::Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut all = serde_json::Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Strict(value) = entries.next_value()?;
            if all.contains_key(&key) {
                return Err(A::Error::custom(format!("repeated key `{key}`")));
            }
            all.insert(key, value);
        }
        Ok(all.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_are_refused_at_every_depth_and_in_every_spelling() {
        for bad in [r#"{"a":1,"a":2}"#, r#"{"x":[{"a":1,"\u0061":2}]}"#, r#"{"a":1"#, "\u{feff}{}", "{} {}"] {
            assert!(serde_json::from_slice::<Strict>(bad.as_bytes()).is_err(), "{bad}");
        }
        let good = r#"{"a":[1,-2,3.5,true,null,"x"],"b":{"a":1}}"#;
        let value = serde_json::from_slice::<Strict>(good.as_bytes()).unwrap().0;
        assert_eq!(value.pointer("/b/a").unwrap(), 1);
    }

    #[test]
    fn an_escaped_name_is_the_same_name() {
        let value = serde_json::from_slice::<Strict>(br#"{"tenant\u005fid":"x"}"#).unwrap().0;
        assert!(value.pointer("/tenant_id").is_some());
    }
}
