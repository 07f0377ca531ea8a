//! The headers that tell a client where it stands.

use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};

use super::quota::Taken;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// `X-RateLimit-*`, and `Retry-After` on a refusal.
pub struct RateHeaders;

impl RateHeaders {
    /// Sets them over whatever stands there: an upstream's own limits are not ours.
    pub fn set(taken: &Taken, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(taken.limit));
        headers.insert(REMAINING, HeaderValue::from(taken.remaining));
        headers.insert(RESET, HeaderValue::from(taken.reset_unix));
        if !taken.allowed {
            headers.insert(RETRY_AFTER, HeaderValue::from(taken.retry_after_seconds.max(1)));
        }
    }
}
