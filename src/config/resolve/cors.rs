//! CORS: exact origins only, and no wildcard beside credentials.

use http::{HeaderName, HeaderValue};

use super::{DAY, FieldPath, Resolver, scalar, seconds};
use crate::config::{raw::cors::RawCors, settings::CorsSettings};

/// Headers of requests that the gateway knows what to do with.
const KNOWN: &str =
    "Authorization, Content-Type, X-Active-Tenant-Id, X-Tenant-ID, X-Request-ID, X-API-Version, Idempotency-Key";

/// Answers that a page may read besides those that every page may: the gateway's own, and what a download or a part of one needs.
const READABLE: &str = "X-Request-ID, X-Decision-Id, X-Active-Tenant-Id, X-Cross-Tenant-Access, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, Content-Disposition, Content-Range, ETag, Location";

impl Resolver<'_> {
    pub(super) fn cors(&mut self, raw: &RawCors) -> CorsSettings {
        let at = FieldPath::default().key("cors");
        let listed = at.key("allowed_origins");
        let any_origin = raw.allowed_origins.iter().any(|origin| origin == "*");
        if any_origin && raw.allowed_origins.len() > 1 {
            self.fail(&listed, "`*` stands alone: it names every origin");
        }
        if any_origin && raw.allow_credentials {
            self.fail(
                &at.key("allow_credentials"),
                "stands beside the origin `*`: name the origins whose pages may act for their users",
            );
        }
        for (place, origin) in raw.allowed_origins.iter().enumerate().filter(|(_, origin)| *origin != "*") {
            if !is_origin(origin) {
                let message = format!(
                    "`{origin}` is no origin as a browser sends it: write scheme and host in lower case, and the port if it is not the usual one, such as `https://portal.example`"
                );
                self.fail(&listed.index(place), message);
            }
        }
        let headers = self.header_list(&at.key("allowed_headers"), KNOWN, &raw.allowed_headers);
        let exposed = self.header_list(&at.key("exposed_headers"), READABLE, &raw.exposed_headers);
        CorsSettings {
            any_origin,
            origins: raw.allowed_origins.iter().filter(|origin| *origin != "*").cloned().collect(),
            credentials: raw.allow_credentials,
            headers,
            exposed,
            max_age: self.duration(&at.key("max_age"), &raw.max_age, seconds(0)..=DAY),
        }
    }

    /// The built-in names and the configured ones behind them, as one field.
    fn header_list(&mut self, at: &FieldPath, built_in: &'static str, configured: &[String]) -> HeaderValue {
        let mut list = built_in.to_owned();
        for (place, name) in configured.iter().enumerate() {
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                self.fail(&at.index(place), format!("`{name}` is no header name"));
            }
            list.push_str(", ");
            list.push_str(name);
        }
        HeaderValue::from_str(&list).unwrap_or(HeaderValue::from_static(built_in))
    }
}

/// Whether a browser could send exactly this text.
fn is_origin(text: &str) -> bool {
    let usual_port = match text.split_once("://") {
        Some(("https", _)) => ":443",
        Some(("http", _)) => ":80",
        _ => return false,
    };
    let plain = !text.contains('*') && !text.ends_with(usual_port) && text.to_ascii_lowercase() == *text;
    plain && scalar::parse_origin(text).is_ok()
}
