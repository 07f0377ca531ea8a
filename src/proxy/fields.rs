//! The stage that reads a body for fields which its route refuses (contract, section 6).
//!
//! An upstream of this family takes `tenant_id` from a ticket's body without a check. Where a route declares such
//! fields, the body is read first, up to 1 MiB, and must be JSON that every parser reads alike: UTF-8, no repeated key,
//! no compression.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::{
    headers::{Single, nominates, single},
    inbound::Inbound,
    quota::Admitted,
    respond::Failure,
    spelling::same,
    trail::Trail,
};
use crate::domain::{ErrorCode, strict_json::StrictJson};

/// Longest body that is read beforehand, in bytes.
pub const MAX_READ_BYTES: usize = 1024 * 1024;

/// How long the whole of a body may take that is read before anything is done.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A request whose body may go on; `read` holds it where it was read.
#[derive(Debug)]
pub struct Checked {
    pub admitted: Admitted,
    pub read: Option<Bytes>,
}

/// Reads and checks the body where the route asks for it. `idle`: how long its client may send nothing.
pub async fn check(trail: &Trail, mut admitted: Admitted, idle: Duration) -> Result<Checked, Failure> {
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
    if matches!(routed.body, Inbound::Unseen) {
        return Err(bad(
            "body_unseen",
            "this route is decided with its whole body, and the proxy in front sent none along",
        ));
    }
    if is_encoded(&routed.parts.headers) {
        return Err(bad("body_encoding", "this route takes no compressed body"));
    }
    // As a form, `{"a":"&tenant_id=x&"}` holds the field too; only a body that is declared JSON is read as nothing else.
    if content_length(&routed.parts.headers) != Some(0)
        && !is_json(&routed.parts.headers)
        && !routed.body.is_end_stream()
    {
        return Err(bad("body_type", "this route takes a body of content type application/json only"));
    }
    // Judged as JSON and then forwarded without saying so, it would be read as something else.
    if [header::CONTENT_TYPE, header::CONTENT_ENCODING].iter().any(|name| nominates(&routed.parts.headers, name)) {
        return Err(bad("body_type", "`Connection` must not take the body's type away"));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_READ_BYTES);
    // Boxed: the rare way.
    let bytes = Box::pin(read_whole(&mut routed.body, limit, idle)).await?;
    if bytes.is_empty() {
        return Ok(Checked { admitted, read: Some(bytes) });
    }
    let StrictJson(value) = serde_json::from_slice(&bytes).map_err(|error: serde_json::Error| {
        tracing::debug!(request_id = %trail.request_id, %error, "body refused");
        bad("body_json", &format!("the request body is no JSON that every reader takes alike: {error}"))
    })?;
    if !value.is_object() {
        return Err(bad("body_json", "the request body must be a JSON object"));
    }
    if let Some(pointer) = pointers.iter().find(|pointer| holds(&value, pointer)) {
        return Err(bad("body_field", &format!("the request body must not hold `{pointer}`")));
    }
    Ok(Checked { admitted, read: Some(bytes) })
}

/// The whole body, of at most `most` bytes; its client may send nothing for `idle` at a time.
pub async fn read_whole<B>(body: B, most: usize, idle: Duration) -> Result<Bytes, Failure>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bad = |detail, message: &str| Failure::new(ErrorCode::BadRequest, detail).saying(message);
    let late = || bad("body_timeout", "the request body took too long");
    let mut body = Limited::new(body, most);
    let reading = async {
        let mut whole = BytesMut::new();
        loop {
            match tokio::time::timeout(idle, body.frame()).await {
                Err(_) => return Err(late()),
                Ok(None) => return Ok(whole.freeze()),
                Ok(Some(Ok(frame))) => whole.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Ok(Some(Err(error))) if error.is::<LengthLimitError>() => return Err(too_large()),
                Ok(Some(Err(_))) => return Err(bad("body_broken", "the request body broke off or is not exact HTTP")),
            }
        }
    };
    tokio::time::timeout(READ_TIMEOUT, reading).await.unwrap_or_else(|_| Err(late()))
}

/// JSON as it is, and nothing that another reader could take it for.
pub fn is_plain_json(headers: &http::HeaderMap) -> bool {
    is_json(headers) && !is_encoded(headers)
}

fn is_encoded(headers: &http::HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity")
}

/// Whether the pointer leads to something, its names in any case: some readers take `Tenant_Id` for `tenant_id`.
fn holds(value: &Value, pointer: &str) -> bool {
    let Some(rest) = pointer.strip_prefix('/') else { return pointer.is_empty() };
    let (name, deeper) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let name = name.replace("~1", "/").replace("~0", "~");
    match value {
        Value::Object(fields) => fields.iter().any(|(key, inner)| same(key, &name) && holds(inner, deeper)),
        Value::Array(items) => {
            let item = name.parse().ok().and_then(|at: usize| items.get(at));
            item.is_some_and(|inner| holds(inner, deeper))
        }
        _ => false,
    }
}

/// Words by which readers know another kind of body, wherever in the field they find them.
const OTHER_KINDS: &[&str] = &["urlencoded", "form-data", "multipart/", "xml"];

/// One `Content-Type`, `application/json` or `application/…+json`, in UTF-8, and spelled so that nobody takes it for
/// another one: some readers cut it at a comma or a blank, some only look for a form's name.
fn is_json(headers: &http::HeaderMap) -> bool {
    let Single::One(value) = single(headers, header::CONTENT_TYPE) else { return false };
    let Ok(text) = value.to_str() else { return false };
    let text = text.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let subtype = parts.next().and_then(|kind| kind.strip_prefix("application/")).unwrap_or_default();
    let json = subtype == "json" || subtype.strip_suffix("+json").is_some_and(is_token);
    // One that is left out stands for nothing (RFC 9110, section 5.6.6).
    json && !OTHER_KINDS.iter().any(|other| text.contains(other))
        && parts.all(|parameter| parameter.is_empty() || is_harmless(parameter))
}

/// A name and a value, in lower case, that stand in one piece for every reader; the only charset is UTF-8.
fn is_harmless(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let in_one_piece = match quoted {
        Some(text) => text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\,".contains(&byte)),
        None => is_token(value),
    };
    let charset = !name.starts_with("charset") || (name == "charset" && quoted.unwrap_or(value) == "utf-8");
    is_token(name) && in_one_piece && charset
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn too_large() -> Failure {
    Failure::new(ErrorCode::PayloadTooLarge, "body_bytes")
}

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn only_what_every_reader_takes_for_json_is_json() {
        let json = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
            is_json(&headers)
        };
        for good in [
            "application/json",
            "Application/JSON ; Charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/json;",
            "application/problem+json",
            "application/vnd.acme.v2+json; version=1",
            "application/ld+json; profile=\"https://acme.test/a\"",
        ] {
            assert!(json(good), "{good}");
        }
        for bad in [
            "",
            "text/json",
            "application/+json",
            "application/json, text/plain",
            "application/x-www-form-urlencoded, application/x+json",
            "application/x-www-form-urlencoded x+json",
            "application/x-www-form-urlencoded,+json",
            "application/x-www-form-urlencoded+json",
            "application/a/b+json",
            "application/ json",
            "application/a\tb+json",
            "application/a(b)+json",
            "application/xml+json",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=utf-16",
            "application/json; charset*=utf-8",
            "application/json; charset =utf-8",
            "application/json; charset= utf-8",
            "application/json; a",
            "application/json; a b=c",
            "application/json; a=b, application/x-www-form-urlencoded",
            "application/json; a=b c",
            "application/json; =b",
            "application/json; a=",
            "application/json; a=\"multipart/form-data\"",
            "application/json; a=\"b,c\"",
            "application/json; a=\"b;c\"",
            "application/json; a=\"b\\\"c\"",
            "application/json; a=\"b",
        ] {
            assert!(!json(bad), "{bad}");
        }
    }

    #[test]
    fn a_field_is_found_in_any_case() {
        let body: Value = serde_json::from_str(r#"{"Meta":[{"a":1,"Tenant_ID":2}],"a/b":{"c~d":null}}"#).unwrap();
        for pointer in ["", "/meta", "/META/0/tenant_id", "/A~1B/C~0D"] {
            assert!(holds(&body, pointer), "{pointer}");
        }
        for pointer in ["/tenant_id", "/meta/1", "/meta/tenant_id", "/meta/0/tenant_id/x", "/a/b", "/"] {
            assert!(!holds(&body, pointer), "{pointer}");
        }
    }
}
