//! The first stage: what a request must be before anything is looked up. Bounds, exact framing, an unambiguous path.

use std::{net::IpAddr, rc::Rc, time::Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header};

use super::{
    certificate, cors,
    flow::{Peer, Trail},
    headers::{Single, lookalike, single},
    path,
    respond::Failure,
    said::Said,
    trace_context::{self, TraceContext},
    worker::Worker,
};
use crate::domain::{ErrorCode, Millis, RemoteParent, RequestId};

/// As the proxy before us names the client's scheme.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Begins the trail: request id, trace, client address, the moment that all stages decide by. `asker`: the trace of whoever
/// asks for a decision.
pub fn begin<B>(worker: &Rc<Worker>, peer: Peer, request: &Request<B>, asker: Option<RemoteParent>) -> Trail {
    let headers = request.headers();
    let given = match single(headers, super::account::REQUEST_ID) {
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
    let good = certificate::counts(worker, trail.peer.certificate.as_deref(), trail.now);
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

/// As HTTP/2 counts them.
pub fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// The peer's address or, behind trusted proxies, the rightmost untrusted entry of `X-Forwarded-For`.
fn client_address(worker: &Worker, peer: &Peer, headers: &HeaderMap) -> IpAddr {
    let address = peer.ip.to_canonical();
    let trusted = |ip: &IpAddr| worker.gateway.settings.listen.trusted_proxies.iter().any(|net| net.contains(ip));
    if !trusts(worker, peer) {
        return address;
    }
    let mut last = address;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for entry in value.as_bytes().rsplit(|byte| *byte == b',') {
            let parsed = std::str::from_utf8(entry).ok().and_then(|text| address_in(text.trim()));
            // An entry that is no address cannot be walked past: whoever wrote it is the one we know last.
            let Some(ip) = parsed else { return last };
            last = ip;
            if !trusted(&ip) {
                return ip;
            }
        }
    }
    last
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
pub fn address_in(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<std::net::SocketAddr>().map(|address| address.ip()))
        .ok()
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
        .map(|ip: IpAddr| ip.to_canonical())
}

/// Whether this peer's `X-Forwarded-*` are believed.
pub fn trusts(worker: &Worker, peer: &Peer) -> bool {
    let address = peer.ip.to_canonical();
    let by_address = || worker.gateway.settings.listen.trusted_proxies.iter().any(|net| net.contains(&address));
    peer.certificate.as_ref().is_some_and(|certificate| certificate.is_trusted_proxy()) || by_address()
}

/// The scheme that clients use: as a trusted proxy says, else as configured. `None` where a trusted proxy says it twice or
/// in no form that is known: then nothing may rest on it.
pub fn client_scheme<'h>(worker: &'h Worker, peer: &Peer, headers: &'h HeaderMap) -> Option<&'h str> {
    let configured = Some(worker.gateway.settings.listen.public_scheme.as_str());
    if !trusts(worker, peer) {
        return configured;
    }
    match single(headers, FORWARDED_PROTO) {
        Single::Absent => configured,
        Single::One(value) => {
            ["https", "http"].into_iter().find(|known| value.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
        }
        Single::Repeated => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_usual_spelling() {
        for (text, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4:80", "1.2.3.4"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
        ] {
            assert_eq!(address_in(text), Some(expected.parse().unwrap()), "{text}");
        }
        assert_eq!(address_in("unknown"), None);
    }

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
