//! One GET for a key set, bounded in every way.
//!
//! HTTPS against the system's roots, or plain HTTP to this machine only. No redirects, no pooled connections, no more
//! than 256 KiB, no longer than 5 s from connect to the last byte.

use std::{error::Error as _, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls_platform_verifier::BuilderVerifierExt;

use super::error::IdentityError;

/// From connect to the last byte of the body.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BODY_BYTES: usize = 256 * 1024;

/// Fetches one address.
pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    uri: Uri,
}

/// Why a fetch gave no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no complete answer within 5 s")]
    Timeout,
    #[error("the server cannot be reached or does not speak HTTP: {0}")]
    Connect(String),
    #[error("the server answered with status {0}; redirects are not followed")]
    Status(StatusCode),
    #[error("the answer is longer than 256 KiB")]
    TooLarge,
    #[error("the answer broke off")]
    Body,
}

impl Fetcher {
    pub(super) fn new(issuer: &Arc<str>, url: &str) -> Result<Self, IdentityError> {
        let wrong = |problem| IdentityError::Url { issuer: issuer.clone(), url: without_user(url), problem };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("it carries a user name"));
        }
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_loopback(host) => false,
            Some("http") => return Err(wrong("plain http is for loopback addresses only; use https")),
            _ => return Err(wrong("use https")),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(FETCH_TIMEOUT));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls(https)?);
        let builder = if https { builder.https_only() } else { builder.https_or_http() };
        let connector = builder.enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, uri })
    }

    pub(super) async fn fetch(&self) -> Result<Bytes, FetchError> {
        tokio::time::timeout(FETCH_TIMEOUT, self.get()).await.map_err(|_| FetchError::Timeout)?
    }

    async fn get(&self) -> Result<Bytes, FetchError> {
        let request = Request::get(self.uri.clone())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, concat!("linkgate/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| FetchError::Connect(error.to_string()))?;
        let response = self.client.request(request).await.map_err(|error| FetchError::Connect(causes(&error)))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        match Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
            Err(_) => Err(FetchError::Body),
        }
    }
}

fn tls(platform_roots: bool) -> Result<rustls::ClientConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(IdentityError::Tls)?;
    if platform_roots {
        Ok(builder.with_platform_verifier().map_err(IdentityError::Tls)?.with_no_client_auth())
    } else {
        Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// For messages: what stands before `@` may be a password.
fn without_user(url: &str) -> String {
    url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, rest)| format!("…@{rest}"))
}

/// The innermost causes are the useful ones (refused, unknown host, bad certificate), and hyper hides them.
fn causes(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        let new = |url: &str| Fetcher::new(&"idp".into(), url);
        for good in ["http://127.0.0.1:8080/jwks", "http://127.1.2.3/", "http://[::1]:80/jwks", "http://localhost/jwks"]
        {
            assert!(new(good).is_ok(), "{good}");
        }
        for bad in [
            "http://idp.example/jwks",
            "http://10.0.0.1/jwks",
            "http://localhost.example/jwks",
            "http://127.0.0.1.example/jwks",
            "ftp://127.0.0.1/jwks",
            "file:///etc/jwks",
            "/jwks",
            "",
            "http://user:pass@127.0.0.1/jwks",
        ] {
            let Err(error) = new(bad) else { panic!("`{bad}` was accepted") };
            assert!(!error.to_string().contains("pass@"), "{error}");
        }
    }
}
