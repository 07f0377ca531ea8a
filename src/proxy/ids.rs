//! The ids that answers carry, as headers.

use http::{HeaderName, HeaderValue};
use uuid::Uuid;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const DECISION_ID: HeaderName = HeaderName::from_static("x-decision-id");

/// An id as a header value.
pub fn id_header(id: Uuid) -> HeaderValue {
    let mut space = Uuid::encode_buffer();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut space)).unwrap_or(HeaderValue::from_static(""))
}
