//! The first stage: what a request must be before anything is looked up. Bounds, exact framing, an unambiguous path.

use std::{rc::Rc, time::Instant};

use http::{HeaderMap, HeaderValue, Request, Uri, Version, header};

use super::{
    certificate, cors,
    forwarded::client_address,
    headers::{Single, lookalike, single},
    path,
    peer::Peer,
    respond::Failure,
    said::Said,
    target::has_path,
    trace_context::{self, TraceContext},
    trail::Trail,
    worker::Worker,
};
use crate::domain::{ErrorCode, Millis, RemoteParent, RequestId};

/// Begins the trail: request id, trace, client address, the moment that all stages decide by. `asker`: the trace of whoever
/// asks for a decision.
pub fn begin<B>(worker: &Rc<Worker>, peer: Peer, request: &Request<B>, asker: Option<RemoteParent>) -> Trail {
    let headers = request.headers();
    let given = match single(headers, super::ids::REQUEST_ID) {
        Single::One(value) => {
            value.to_str().ok().and_then(RequestId::from_client).map(|request_id| (request_id, value.clone()))
        }
        Single::Absent | Single::Repeated => None,
    };
    let (request_id, request_id_value) = given.unwrap_or_else(|| {
        let request_id = RequestId::generate();
        // Its characters fit into a header.
        let value = HeaderValue::from_str(request_id.as_str()).unwrap_or(HeaderValue::from_static(""));
        (request_id, value)
    });
    let TraceContext { id: trace_id, span, recorded, believed } =
        trace_context::begin(worker, &peer, headers, request.method(), asker);
    Trail {
        started: Instant::now(),
        now: Millis::now(),
        request_id,
        request_id_value,
        trace_id,
        client_ip: client_address(worker, &peer, headers),
        peer,
        method: request.method().clone(),
        uri: request.uri().clone(),
        user_agent: headers.get(header::USER_AGENT).cloned(),
        upgrade_asked: request.version() <= Version::HTTP_11 && headers.contains_key(header::UPGRADE),
        closes: false,
        by_cookie: worker.gateway.settings.identity.cookie.is_some(),
        route: None,
        endpoint: None,
        compatible: false,
        slices: Box::default(),
        resource_id: None,
        session: None,
        stranger: None,
        managed_tenant: None,
        cross: false,
        link: None,
        policies: worker.gateway.no_policies.clone(),
        near_misses: Box::default(),
        said: Said::default(),
        decision_id: None,
        accounted: false,
        bucket: None,
        page: cors::allowed(&worker.gateway.settings.cors, headers).map(Box::new),
        preflight: false,
        span,
        recorded,
        believed,
        face: None,
    }
}

/// Refuses what is not exact. What hyper's parsers guarantee is not tested again.
pub fn check<B>(worker: &Worker, trail: &mut Trail, request: &Request<B>) -> Result<(), Failure> {
    check_certificate(worker, trail)?;
    let limits = &worker.gateway.settings.listen;
    let headers = request.headers();
    let uri = request.uri();
    if let Some(why) = (worker.stand_in)(uri.path(), uri.query()) {
        let code = if why.starts_with("ambiguous") { ErrorCode::AmbiguousPath } else { ErrorCode::BadRequest };
        return Err(Failure::new(code, "inexact_request").saying(format!("the request is not exact HTTP: {why}")));
    }
    let bad = |detail, message: &str| Err(Failure::new(ErrorCode::BadRequest, detail).saying(message));
    if !is_method(request.method()) {
        return bad("method", "a method is spelled in upper-case letters");
    }
    if headers.len() > limits.max_header_count {
        return bad("header_count", "too many header fields");
    }
    if request.version() == Version::HTTP_2 {
        if header_bytes(headers) > limits.max_header_bytes {
            return bad("header_bytes", "header section too large");
        }
        // RFC 9113, section 8.2.1. On the way to an HTTP/1 service it would be lost, and the value be another one.
        if headers.values().any(|value| value.as_bytes().trim_ascii().len() != value.len()) {
            return bad("header_edges", "a header field's value begins or ends with white space");
        }
    }
    let Some(target) = uri.path_and_query() else {
        return bad("target", "the request target has no path: this gateway forwards to its own routes only");
    };
    if target.as_str().len() > limits.max_uri_bytes {
        return bad("uri_bytes", "the request target is too long");
    }
    if !has_path(target) && target.as_str() != "*" {
        let message = "ambiguous path: the request target has none";
        return Err(Failure::new(ErrorCode::AmbiguousPath, "path").saying(message));
    }
    // Over HTTP/1 the guard has looked at the whole target.
    if target.query().is_some_and(|query| query.bytes().any(|byte| byte >= 0x80 || byte == b'\\')) {
        let message = "ambiguous query: a backslash or a character beyond ASCII must be percent-encoded";
        return Err(Failure::new(ErrorCode::AmbiguousPath, "query").saying(message));
    }
    if let Err(ambiguous) = path::check(uri.path()) {
        return Err(Failure::new(ErrorCode::AmbiguousPath, "path").saying(ambiguous.to_string()));
    }
    if lookalike(headers).is_some() {
        trail.closes = request.version() <= Version::HTTP_11;
        return bad("lookalike_header", "a header field is spelled so that it could be taken for another one");
    }
    check_host(uri, headers, request.version())
}

/// A connection may outlive the certificate that it was opened with.
fn check_certificate(worker: &Worker, trail: &Trail) -> Result<(), Failure> {
    let good = worker.certificate_counts(trail.peer.certificate.as_deref(), trail.now);
    if good { Ok(()) } else { Err(certificate::counts_no_more()) }
}

/// One host, and the same one wherever it is named.
fn check_host(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<(), Failure> {
    let bad = |message: &str| Err(Failure::new(ErrorCode::BadRequest, "host").saying(message));
    let host = match single(headers, header::HOST) {
        Single::Repeated => return bad("the host is named more than once"),
        Single::One(value) => Some(value.as_bytes()),
        Single::Absent => None,
    };
    if host.is_none() && uri.authority().is_none() && version > Version::HTTP_10 {
        return bad("the request names no host");
    }
    let named = host.into_iter().chain(uri.authority().map(|authority| authority.as_str().as_bytes()));
    if named.into_iter().any(|host| !is_host(host)) {
        return bad("what the request names is no host");
    }
    if let (Some(host), Some(authority)) = (host, uri.authority())
        && !host.eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return bad("the request names two different hosts");
    }
    Ok(())
}

/// A name or an address, with a port or without: no user, no second host, nothing that a reader would take apart another
/// way. Services build links and decide about origins with it. Empty where a target has no host (RFC 9112, section 3.2).
pub fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(byte))
}

/// Methods have their case. Policies, routes and services would differ on what `delete` is, so it is none.
pub fn is_method(method: &http::Method) -> bool {
    !method.as_str().bytes().any(|byte| byte.is_ascii_lowercase())
}

/// As HTTP/2 counts them.
pub fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for good in
            ["a", "isp.example:8443", "127.0.0.1:1", "[2001:db8::1]:80", "under_score", "xn--bcher-kva.example", ""]
        {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in ["a b", "u@a", "u:p@a", "a, b", "a/b", "a\"b", "a\\b", "a;b", "<a>", "\u{e4}"] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn one_host_is_named_once() {
        let uri: Uri = "http://a/x".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "A".parse().unwrap());
        assert!(check_host(&uri, &headers, Version::HTTP_11).is_ok());
        headers.insert(header::HOST, "b".parse().unwrap());
        assert!(check_host(&uri, &headers, Version::HTTP_11).is_err());
        headers.append(header::HOST, "b".parse().unwrap());
        assert!(check_host(&"/x".parse().unwrap(), &headers, Version::HTTP_11).is_err());
        assert!(check_host(&"/x".parse().unwrap(), &HeaderMap::new(), Version::HTTP_11).is_err());
        assert!(check_host(&"/x".parse().unwrap(), &HeaderMap::new(), Version::HTTP_10).is_ok());
    }
}
