//! The original request, put together from what a proxy tells of it. Nothing is repaired: what cannot stand in a request is
//! refused, and so is what is told twice or not at all.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header, uri::PathAndQuery};

use crate::{
    domain::ErrorCode,
    proxy::{forwarded, headers::is_hop_by_hop, inbound::Inbound, peer::Peer, respond::Failure},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a proxy tells.
pub(super) struct Original<'a> {
    pub(super) method: &'a [u8],
    /// Path and query, byte for byte as the proxy sends them on.
    pub(super) target: &'a [u8],
    pub(super) host: Option<HeaderValue>,
    pub(super) headers: HeaderMap,
    pub(super) body: Inbound,
}

impl Original<'_> {
    /// As the stages take it; `client` is the peer of the asking proxy.
    pub(super) fn request(self, client: IpAddr) -> Result<Request<Inbound>, Failure> {
        let Self { method, target, host, mut headers, body } = self;
        let bad = |message: &str| Failure::new(ErrorCode::BadRequest, "original").saying(message);
        let method = Method::from_bytes(method).map_err(|_| bad("the method cannot be one"))?;
        let ambiguous =
            || Failure::new(ErrorCode::AmbiguousPath, "path").saying("ambiguous path: its bytes cannot stand in one");
        let exact = PathAndQuery::try_from(target).map_err(|_| ambiguous())?;
        // The parser cuts off what it takes for a fragment.
        let plain = target.iter().all(|byte| matches!(byte, 0x21..=0x7e));
        if !plain || exact.as_str().as_bytes() != target || !target.starts_with(b"/") || target.contains(&b'\\') {
            return Err(ambiguous());
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let length = lengths.next();
        if lengths.next().is_some() || (length.is_some() && headers.contains_key(header::TRANSFER_ENCODING)) {
            let twice = "where the request's body ends is told in more than one way";
            return Err(Failure::new(ErrorCode::BadRequest, "original").saying(twice));
        }
        if let Some(host) = host {
            if headers.get_all(header::HOST).iter().any(|known| known != host) {
                return Err(Failure::new(ErrorCode::BadRequest, "host").saying("the request names two different hosts"));
            }
            headers.insert(header::HOST, host);
        }
        before(client, &mut headers);
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(exact);
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Removes what belongs to the connection on which is asked.
pub(super) fn drop_own_hop(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned().collect();
    for name in own {
        headers.remove(name);
    }
    headers.remove(header::CONTENT_LENGTH);
}

/// Leaves in `X-Forwarded-For` what stood there before the asking proxy added its own peer.
fn before(client: IpAddr, headers: &mut HeaderMap) {
    let joined = headers.get_all(&FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b","[..]);
    headers.remove(&FORWARDED_FOR);
    let mut entries: Vec<&[u8]> = joined.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
    if entries.last().is_some_and(|last| ip(last) == Some(client.to_canonical())) {
        entries.pop();
    }
    if let Ok(value) = HeaderValue::from_bytes(&entries.join(&b", "[..]))
        && !value.is_empty()
    {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// An address as proxies write it.
pub(super) fn ip(text: &[u8]) -> Option<IpAddr> {
    forwarded::address_in(std::str::from_utf8(text).ok()?.trim())
}

/// The client in the place of the connection's own peer.
pub(super) fn client(connection: &Peer, ip: IpAddr) -> Result<Peer, Failure> {
    let ip = ip.to_canonical();
    let value = HeaderValue::try_from(ip.to_string());
    let forwarded_for = value.map_err(|_| Failure::new(ErrorCode::InternalError, "client_address"))?;
    Ok(Peer { ip, forwarded_for, switch: connection.switch.clone(), certificate: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, target: &str, fields: &[(&str, &str)]) -> Result<Request<Inbound>, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let host = Some(HeaderValue::from_static("a"));
        let original =
            Original { method: method.as_bytes(), target: target.as_bytes(), host, headers, body: Inbound::Unseen };
        original.request("10.0.0.1".parse().unwrap())
    }

    #[test]
    fn a_target_keeps_its_bytes_or_is_refused() {
        for good in ["/", "/a?b=c&d=%20", "/a//b", "/%2e"] {
            assert_eq!(asked("GET", good, &[]).unwrap().uri().to_string(), good);
        }
        for bad in ["", "*", "a", "http://a/b", "/a#b", "/a b", "/a\\b", "/ü?", "/a\u{7f}"] {
            let failure = asked("GET", bad, &[]).unwrap_err();
            assert_eq!(failure.code, ErrorCode::AmbiguousPath, "{bad:?}");
        }
        assert_eq!(asked("G T", "/", &[]).unwrap_err().code, ErrorCode::BadRequest);
        assert_eq!(asked("GET", "/", &[("host", "b")]).unwrap_err().code, ErrorCode::BadRequest);
        assert_eq!(asked("GET", "/", &[("host", "a"), ("host", "b")]).unwrap_err().code, ErrorCode::BadRequest);
    }

    #[test]
    fn where_a_body_ends_is_told_once() {
        let length = ("content-length", "7");
        assert!(
            asked("POST", "/", &[length]).is_ok() && asked("POST", "/", &[("transfer-encoding", "chunked")]).is_ok()
        );
        for more in [length, ("content-length", "17"), ("transfer-encoding", "chunked")] {
            assert_eq!(asked("POST", "/", &[length, more]).unwrap_err().code, ErrorCode::BadRequest, "{more:?}");
        }
    }

    #[test]
    fn only_what_stood_before_the_asking_proxy_is_left() {
        for (given, left) in [
            (&["10.0.0.1"][..], ""),
            (&["1.1.1.1, 10.0.0.1"], "1.1.1.1"),
            (&["1.1.1.1", "10.0.0.1"], "1.1.1.1"),
            (&["10.0.0.1, 1.1.1.1"], "10.0.0.1, 1.1.1.1"),
        ] {
            let fields: Vec<_> = given.iter().map(|value| ("x-forwarded-for", *value)).collect();
            let request = asked("GET", "/", &fields).unwrap();
            let found = request.headers().get("x-forwarded-for").map_or("", |value| value.to_str().unwrap());
            assert_eq!(found, left);
        }
    }
}
