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

use super::{
    headers::{Single, nominates, single},
    inbound::Inbound,
    quota::Admitted,
    respond::Failure,
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
    if let Some(pointer) = pointers.iter().find(|pointer| value.pointer(pointer).is_some()) {
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
