//! What of a service's answer its client gets: nothing of this hop, nothing that is the gateway's to say, and one end.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use super::headers::{Single, is_cookie, is_hop_by_hop, nominated, single};
use crate::upstream::settings::Origin;

/// What a service may tell a proxy of its own, or nobody, and no client.
const NOT_FOR_CLIENTS: &[&str] = &["authorization", "x-linkgate-assertion", "x-accel-redirect", "x-sendfile"];

/// What caches put above `Cache-Control`, beside the fields that end in its name (RFC 9213).
const FOR_CACHES: &[&str] = &["surrogate-control", "x-accel-expires"];

/// What a browser takes as said for the gateway's whole origin, and so for every other tenant too.
const FOR_THE_ORIGIN: &[&str] = &[
    "clear-site-data",
    "strict-transport-security",
    "public-key-pins",
    "alt-svc",
    "service-worker-allowed",
    "nel",
    "report-to",
    "reporting-endpoints",
    "set-login",
    "set-cookie2",
];

/// The usual forms of what is found by its beginning or ending, for proxies that have to be told each name.
const USUAL_FORMS: &[&str] = &[
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
    "cdn-cache-control",
    "cloudflare-cdn-cache-control",
    "vercel-cdn-cache-control",
];

/// What another proxy has to take from a service's answer where linkgate only decides.
pub fn not_for_clients() -> impl Iterator<Item = &'static str> {
    [NOT_FOR_CLIENTS, FOR_CACHES, FOR_THE_ORIGIN, USUAL_FORMS].into_iter().flatten().copied()
}

/// Removes from the answer of a managed tenant's service what would reach beyond that tenant: cookies that are credentials at
/// this door (it could put another user in the place of its partner's, or end his session), and words for the whole origin.
pub fn keep_to_its_tenant(headers: &mut HeaderMap, credentials: &[String]) {
    remove_where(headers, |name| FOR_THE_ORIGIN.contains(&name));
    if !headers.get_all(header::SET_COOKIE).iter().any(|value| sets(value, credentials)) {
        return;
    }
    let kept: Vec<HeaderValue> =
        headers.get_all(header::SET_COOKIE).iter().filter(|value| !sets(value, credentials)).cloned().collect();
    headers.remove(header::SET_COOKIE);
    for value in kept {
        headers.append(header::SET_COOKIE, value);
    }
}

/// Whether any client could read it as setting one of these cookies: some split at commas.
fn sets(value: &HeaderValue, cookies: &[String]) -> bool {
    value.as_bytes().split(|byte| matches!(byte, b';' | b',')).any(|piece| is_cookie(piece, cookies))
}

/// Makes a redirect to the service's own address one to the same path here. The service sees its own name in `Host`, so that is
/// what it writes; clients cannot reach it, and need not know it.
pub fn redirect_here(headers: &mut HeaderMap, origin: &Origin) {
    let Single::One(location) = single(headers, header::LOCATION) else { return };
    let Some(rest) = location.to_str().ok().and_then(|location| behind(location, &origin.authority)) else { return };
    let here = match rest.as_bytes() {
        // Another host to whoever reads it: left as it is, it leads to a service that nobody reaches.
        [b'/', b'/' | b'\\', ..] => return,
        [b'/', ..] => HeaderValue::from_str(rest),
        [] | [b'?' | b'#', ..] => HeaderValue::try_from(format!("/{rest}")),
        _ => return,
    };
    if let Ok(here) = here {
        headers.insert(header::LOCATION, here);
    }
}

/// What stands behind scheme and authority, if they are these.
fn behind<'a>(location: &'a str, authority: &str) -> Option<&'a str> {
    let (scheme, rest) = location.split_once("://")?;
    // Behind TLS services often take themselves to be asked in clear.
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let (host, path) = rest.split_at_checked(authority.len())?;
    host.eq_ignore_ascii_case(authority).then_some(path)
}

/// Removes from an upstream's response hop-by-hop fields and what `Connection` nominates, what it tells proxies only, and what
/// is the gateway's to say: who may read the answer (CORS) and, unless `keeps_cache`, who may keep it.
pub fn clean(headers: &mut HeaderMap, keeps_cache: bool) {
    if headers.contains_key(header::CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
    }
    remove_where(headers, |name| {
        is_hop_by_hop(name)
            || NOT_FOR_CLIENTS.contains(&name)
            || name.starts_with("access-control-")
            || (!keeps_cache && (FOR_CACHES.contains(&name) || name.ends_with("-cache-control")))
    });
}

/// What stands there is compared with a list, not the list looked for: a response has few fields and mostly none of these.
fn remove_where(headers: &mut HeaderMap, unfit: impl Fn(&str) -> bool) {
    let doomed: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| unfit(name.as_str())).cloned().collect();
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
    fn a_service_sets_no_credential_and_speaks_for_no_other_tenant() {
        let credentials = ["access_token".to_owned(), "sid".to_owned()];
        for cookie in [
            "access_token=x; Path=/",
            " sid =x",
            "SID=x",
            "=access_token=x",
            "\t= =sid=x",
            "\"sid\"=x",
            "a=1; Path=/, sid=x",
            "sid",
            "sid=; Max-Age=0",
        ] {
            let mut headers = map(&[("set-cookie", "theme=sid"), ("set-cookie", cookie), ("set-cookie", "side=b")]);
            keep_to_its_tenant(&mut headers, &credentials);
            let kept: Vec<&[u8]> = headers.get_all("set-cookie").iter().map(HeaderValue::as_bytes).collect();
            assert_eq!(kept, [&b"theme=sid"[..], b"side=b"], "{cookie}");
        }
        let mut headers = map(&[
            ("clear-site-data", "\"cookies\""),
            ("strict-transport-security", "max-age=0"),
            ("alt-svc", "h2=\"evil:443\""),
            ("etag", "\"1\""),
        ]);
        keep_to_its_tenant(&mut headers, &credentials);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
    }

    #[test]
    fn a_redirect_to_the_services_own_address_leads_here() {
        let origin = Origin { https: false, authority: "isp-backend:8000".to_owned() };
        for (said, told) in [
            ("http://isp-backend:8000/tickets/?x=1#y", "/tickets/?x=1#y"),
            ("HTTPS://ISP-Backend:8000/a", "/a"),
            ("http://isp-backend:8000", "/"),
            ("http://isp-backend:8000?x", "/?x"),
            // Not its own, or not to be read in one way.
            ("http://isp-backend:80001/a", "http://isp-backend:80001/a"),
            ("http://isp-backend:8000@evil.test/a", "http://isp-backend:8000@evil.test/a"),
            ("http://isp-backend:8000//evil.test", "http://isp-backend:8000//evil.test"),
            ("http://isp-backend:8000/\\evil.test", "http://isp-backend:8000/\\evil.test"),
            ("ftp://isp-backend:8000/a", "ftp://isp-backend:8000/a"),
            ("/a", "/a"),
            ("https://pay.test/", "https://pay.test/"),
        ] {
            let mut headers = map(&[("location", said)]);
            redirect_here(&mut headers, &origin);
            assert_eq!(headers["location"], told);
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
