//! The raw mirror of the public and the health listener and of what clients send.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    form::{raw, words},
    tls::RawTls,
};
use crate::config::scalar::{DurationText, SizeText};

raw! {
    /// The public listener and its limits.
    struct RawListen {
        /// Address and port.
        address: String = "127.0.0.1:8080".to_owned(),
        /// Worker threads, each with a runtime of its own; 0: one a core.
        workers: u16 = 0,
        /// Most connections open at once; further ones are closed at once. Fewer where this process may not open two files for each.
        max_connections: u32 = 10_000,
        /// Most headers of one request.
        max_header_count: u16 = 100,
        /// Longest request head.
        max_header_size: SizeText = SizeText::of("32KiB"),
        /// Longest path and query.
        max_uri_size: SizeText = SizeText::of("8KiB"),
        /// Longest wait for a complete request head, idle keep-alive included.
        header_timeout: DurationText = DurationText::of("30s"),
        /// Longest gap between two pieces of a request body.
        body_idle_timeout: DurationText = DurationText::of("30s"),
        /// HTTP/2 streams open at once in one connection.
        max_concurrent_streams: u32 = 100,
        /// How long open requests may go on after SIGTERM.
        drain_timeout: DurationText = DurationText::of("30s"),
        /// Networks of proxies whose X-Forwarded-* headers are believed.
        trusted_proxies: Vec<String> = Vec::new(),
        /// Scheme that clients use, where no trusted proxy says otherwise: told upstream, and what the origin of a page must
        /// have whose browser sends a cookie.
        public_scheme: RawScheme = RawScheme::Http,
        /// Networks of load balancers whose connections begin with a PROXY header (version 2). With any, connections from elsewhere are closed.
        proxy_protocol_from: Vec<String> = Vec::new(),
        /// TLS on this listener, HTTP/2 by ALPN. Not set: cleartext. With it `public_scheme` is always `https`.
        tls: Option<RawTls> = None,
    }

    /// The listener for health, readiness and metrics.
    struct RawHealth {
        /// Off: no such listener.
        enabled: bool = true,
        /// Address and port; keep it off public networks.
        address: String = "127.0.0.1:8081".to_owned(),
        /// Show the description of the consolidated API: /openapi.json, and /docs to read it.
        api_docs: bool = false,
    }

    /// Headers beyond the built-in list.
    struct RawHeaders {
        /// Further client headers to strip.
        strip: Vec<String> = Vec::new(),
        /// Cookies that are credentials, beside the one of `identity.cookie`: dropped in cross-tenant requests, and not set by their answers.
        session_cookies: Vec<String> = vec!["access_token".to_owned(), "refresh_token".to_owned()],
        /// A verified platform admin may keep X-Target-Tenant-ID.
        platform_admin_target: bool = false,
    }
}

words! {
    /// Scheme of the public address.
    enum RawScheme { Http = "http", Https = "https", }
}
