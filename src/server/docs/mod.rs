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
    /// `None`: it could not be written.
    openapi: Option<Bytes>,
}

impl Docs {
    pub fn new(openapi: &serde_json::Value) -> Self {
        let written = serde_json::to_vec_pretty(openapi);
        let written =
            written.inspect_err(|error| tracing::error!(%error, "the API's description could not be written"));
        Self { openapi: written.ok().map(Bytes::from) }
    }

    /// The page of this path, if it is one of these.
    pub(super) fn page(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        let mut status = StatusCode::OK;
        let (kind, content) = match path {
            "/openapi.json" => {
                let unwritten = || {
                    status = StatusCode::INTERNAL_SERVER_ERROR;
                    Bytes::from_static(b"{}")
                };
                ("application/json", self.openapi.clone().unwrap_or_else(unwritten))
            }
            "/docs" => ("text/html; charset=utf-8", Bytes::from_static(PAGE.as_bytes())),
            "/docs/rapidoc-min.js" => ("text/javascript; charset=utf-8", Bytes::from_static(VIEWER)),
            _ => return None,
        };
        let mut response = Response::new(Full::new(content));
        *response.status_mut() = status;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_that_could_not_be_written_is_told_as_a_fault() {
        let status = |docs: &Docs, path: &str| docs.page(path).map(|page| page.status().as_u16());
        let unwritten = Docs { openapi: None };
        assert_eq!(status(&unwritten, "/openapi.json"), Some(500));
        assert_eq!(status(&unwritten, "/docs"), Some(200));
        assert_eq!(status(&Docs::new(&serde_json::json!({"openapi": "3.1.0"})), "/openapi.json"), Some(200));
    }
}
