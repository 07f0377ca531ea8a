//! What of a service's answer its client gets: nothing of this hop, nothing that is the gateway's to say, and one end.

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

use super::headers::{Single, is_hop_by_hop, nominated, single};

/// What a service may tell a proxy of its own, or nobody, and no client.
const NOT_FOR_CLIENTS: &[&str] = &["authorization", "x-linkgate-assertion", "x-accel-redirect", "x-sendfile"];

/// What caches put above `Cache-Control`, beside the fields that end in its name (RFC 9213).
const FOR_CACHES: &[&str] = &["surrogate-control", "x-accel-expires"];

/// Removes from an upstream's response hop-by-hop fields and what `Connection` nominates, what it tells proxies only, and what
/// is the gateway's to say: who may read the answer (CORS) and, unless `keeps_cache`, who may keep it.
pub fn clean(headers: &mut HeaderMap, keeps_cache: bool) {
    if headers.contains_key(header::CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
    }
    // What stands there is compared with the list, not the list looked for: a response has few fields and none of these.
    let unfit = |name: &&HeaderName| {
        let name = name.as_str();
        is_hop_by_hop(name)
            || NOT_FOR_CLIENTS.contains(&name)
            || name.starts_with("access-control-")
            || (!keeps_cache && (FOR_CACHES.contains(&name) || name.ends_with("-cache-control")))
    };
    let doomed: SmallVec<[HeaderName; 4]> = headers.keys().filter(unfit).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

/// Whether a response says in one way only where its body ends. Two ways are two answers for two readers (RFC 9112,
/// section 6.3).
pub fn is_framed_once(headers: &HeaderMap) -> bool {
    let length = single(headers, header::CONTENT_LENGTH);
    match (single(headers, header::TRANSFER_ENCODING), length) {
        (Single::Absent, Single::Absent) => true,
        (Single::Absent, Single::One(length)) => !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit),
        (Single::One(coding), Single::Absent) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn a_response_loses_what_is_not_for_its_client() {
        let said = [
            ("access-control-allow-origin", "*"),
            ("cdn-cache-control", "public"),
            ("surrogate-control", "max-age=60"),
            ("x-linkgate-assertion", "x"),
            ("x-accel-redirect", "/secret"),
            ("keep-alive", "timeout=5"),
            ("cache-control", "public"),
            ("x-user-id", "for whoever logs in"),
        ];
        for (keeps_cache, kept) in [
            (false, vec!["cache-control", "x-user-id"]),
            (true, vec!["cache-control", "cdn-cache-control", "surrogate-control", "x-user-id"]),
        ] {
            let mut headers = map(&said);
            clean(&mut headers, keeps_cache);
            let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, kept);
        }
    }

    #[test]
    fn a_response_says_once_where_it_ends() {
        let framed = |pairs: &[(&str, &str)]| is_framed_once(&map(pairs));
        assert!(framed(&[]) && framed(&[("content-length", "12")]) && framed(&[("transfer-encoding", "Chunked")]));
        for bad in [
            &[("content-length", "2, 2")][..],
            &[("content-length", "+2")],
            &[("content-length", "")],
            &[("content-length", "2"), ("content-length", "2")],
            &[("content-length", "2"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")],
        ] {
            assert!(!framed(bad), "{bad:?}");
        }
    }
}
