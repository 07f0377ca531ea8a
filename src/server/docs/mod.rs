//! The API's description and a page to read it with, on the health listener; off unless the configuration asks for it.
//!
//! The viewer (RapiDoc, MIT; see `LICENSE.txt`) is part of the binary: the page loads nothing from anywhere else.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

const PAGE: &str = include_str!("index.html");
/// Compressed as it was published.
const VIEWER: &[u8] = include_bytes!("rapidoc-min.js.gz");
/// The viewer's own styles are inline; everything else comes from this listener only.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; \
     connect-src 'self'; img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the docs pages show.
#[derive(Clone, Debug)]
pub struct Docs {
    openapi: Bytes,
}

impl Docs {
    pub fn new(openapi: &serde_json::Value) -> Self {
        // A JSON value can always be written.
        Self { openapi: serde_json::to_vec_pretty(openapi).unwrap_or_default().into() }
    }

    /// The page of this path, if it is one of these.
    pub(super) fn page(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        let (kind, content) = match path {
            "/openapi.json" => ("application/json", self.openapi.clone()),
            "/docs" => ("text/html; charset=utf-8", Bytes::from_static(PAGE.as_bytes())),
            "/docs/rapidoc-min.js" => ("text/javascript; charset=utf-8", Bytes::from_static(VIEWER)),
            _ => return None,
        };
        let mut response = Response::new(Full::new(content));
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
        if path == "/docs/rapidoc-min.js" {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Some(response)
    }
}
