//! Protected headers: removed from every client request, then set by the gateway (I2). Never "if absent".
//!
//! The comparison is done on the lower-cased name with all that is neither letter nor digit read as `-`: servers behind
//! CGI-like interfaces cannot tell `-` from `_`, some of them neither from `.` or any other sign. What a `Connection`
//! header nominates is removed too, but the gateway's own headers are set after all removals, so nominating them removes
//! nothing.

use std::{borrow::Cow, collections::HashSet};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, AsHeaderName},
};
use smallvec::SmallVec;

use super::spelling::reads_as;

/// What the gateway sets, and what tells upstreams of another method, path, tenant or identity.
const PROTECTED: &[&str] = &[
    "x-tenant-id",
    "x-active-tenant-id",
    "x-cross-tenant-access",
    "x-user-id",
    "x-partner-id",
    "x-partner-tenant-id",
    "x-partner-role",
    "x-link-id",
    "x-decision-id",
    "x-request-id",
    "traceparent",
    "tracestate",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-linkgate-assertion",
    "x-target-tenant-id",
    "x-superuser-mode",
    "x-roles",
    "x-permissions",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-override-url",
    "x-http-destinationurl",
    "x-proxy-url",
    "base-url",
    "x-envoy-original-path",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-user",
    "x-forwarded-client-cert",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-method",
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-sendfile",
    "x-accel-redirect",
    "x-waf-bypass-url",
    "x-real-ip",
    "forwarded",
    "true-client-ip",
    "x-remote-user",
    "remote-user",
    "x-client-cert",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-tenant-slug",
    // Between linkgate and a proxy that asks it.
    "x-linkgate-caller",
    "x-linkgate-uri",
    "x-linkgate-upstream",
    "x-linkgate-status",
    "x-linkgate-body",
    "x-original-method",
    "x-original-client",
    "x-original-host",
    "x-envoy-auth-partial-body",
];

/// Hop-by-hop fields (RFC 9110, section 7.6.1) and what belongs to this connection alone.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "expect",
    "http2-settings",
];

/// Spelled with `_` or `-`, these frame the message or carry a credential: a look-alike is refused, not repaired.
const NO_LOOKALIKE: &[&str] = &[
    "transfer-encoding",
    "content-length",
    "host",
    "authorization",
    "cookie",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "content-type",
    "content-encoding",
];

/// Credentials and fields that would change how the message before them is read.
const NO_TRAILER: &[&str] = &[
    "x-api-key",
    "set-cookie",
    "cache-control",
    "max-forwards",
    "range",
    "age",
    "date",
    "location",
    "retry-after",
    "vary",
];

/// The built-in list of what never passes from a client, hop-by-hop fields aside.
pub fn protected() -> &'static [&'static str] {
    PROTECTED
}

/// Whether this is of one connection alone: each proxy deals with its own.
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

/// The names that never pass from a client, compiled once.
#[derive(Debug)]
pub struct StripList {
    names: HashSet<String, ahash::RandomState>,
    /// The same without hop-by-hop fields, in their usual spelling.
    listed: Box<[HeaderName]>,
}

impl StripList {
    /// The contract's list and what the configuration adds (any case, `-` or `_`).
    pub fn new(extra: &[String]) -> Self {
        let names = PROTECTED
            .iter()
            .chain(HOP_BY_HOP)
            .map(|name| (*name).to_owned())
            .chain(extra.iter().map(|name| plain(&name.to_ascii_lowercase()).into_owned()))
            .collect();
        let listed = PROTECTED
            .iter()
            .map(|name| HeaderName::from_static(name))
            .chain(extra.iter().filter_map(|name| name.parse().ok()))
            .collect();
        Self { names, listed }
    }

    /// What another proxy has to remove in any case, hop-by-hop fields aside.
    pub fn listed(&self) -> &[HeaderName] {
        &self.listed
    }

    /// Whether a field of this name (lower case, as `HeaderName` has it) is removed.
    pub fn holds(&self, name: &str) -> bool {
        self.names.contains(&*plain(name))
    }

    /// Removes all protected and hop-by-hop fields and those that `Connection` nominates.
    pub fn clean(&self, headers: &mut HeaderMap) {
        let nominated = nominated(headers);
        let doomed: SmallVec<[HeaderName; 12]> =
            headers.keys().filter(|name| self.holds(name.as_str())).cloned().collect();
        for name in doomed {
            headers.remove(name);
        }
        for name in nominated {
            headers.remove(name);
        }
    }
}

/// A field whose name only looks like one that frames the message or carries a credential.
pub fn lookalike(headers: &HeaderMap) -> Option<&HeaderName> {
    headers.keys().find(|name| matches!(plain(name.as_str()), Cow::Owned(plain) if NO_LOOKALIKE.contains(&&*plain)))
}

/// A name as the least exact reader takes it: some (lighttpd) make one sign of all that is neither letter nor digit.
fn plain(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect())
}

/// Whether `Connection` names this field or option.
pub fn nominates(headers: &HeaderMap, name: &HeaderName) -> bool {
    nominated(headers).contains(name)
}

/// The end-to-end fields that `Connection` lists; framing stays ours whatever it says.
pub fn nominated(headers: &HeaderMap) -> SmallVec<[HeaderName; 2]> {
    let mut found = SmallVec::new();
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            if let Ok(name) = HeaderName::from_bytes(token.trim_ascii()) {
                found.push(name);
            }
        }
    }
    found
}

/// Cleans trailers: what is protected or a credential as a header is so behind the body too, and fields that frame,
/// route or describe the message do not belong there (RFC 9110, section 6.5.1).
pub fn clean_trailers(list: &StripList, trailers: &mut HeaderMap) {
    list.clean(trailers);
    let doomed: SmallVec<[HeaderName; 4]> = trailers
        .keys()
        .filter(|name| {
            let name = plain(name.as_str());
            NO_LOOKALIKE.contains(&&*name) || NO_TRAILER.contains(&&*name) || name.starts_with("content-")
        })
        .cloned()
        .collect();
    for name in doomed {
        trailers.remove(name);
    }
}

/// `X-API-Key`, however it is spelled.
pub fn is_api_key(name: &HeaderName) -> bool {
    name.as_str().len() == "x-api-key".len() && plain(name.as_str()) == "x-api-key"
}

/// Removes credentials beside the verified one: `X-API-Key` in every spelling and the named cookies.
pub fn drop_second_credentials(headers: &mut HeaderMap, session_cookies: &[String]) {
    let doomed: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| is_api_key(name)).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
    if !headers.contains_key(header::COOKIE) {
        return;
    }
    let mut kept: Vec<u8> = Vec::new();
    for value in headers.get_all(header::COOKIE) {
        for pair in value.as_bytes().split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            // Some parsers split at commas or spaces too.
            let mut parts = pair.split(|byte| matches!(byte, b',' | b' ' | b'\t'));
            let is_session = is_cookie(pair, session_cookies) || parts.any(|part| is_cookie(part, session_cookies));
            if !is_session && !pair.is_empty() {
                if !kept.is_empty() {
                    kept.extend_from_slice(b"; ");
                }
                kept.extend_from_slice(pair);
            }
        }
    }
    headers.remove(header::COOKIE);
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(kept))
        && !value.is_empty()
    {
        headers.insert(header::COOKIE, value);
    }
}

/// Whether a part of a cookie header can be read as one of these cookies. Parsers differ in what they trim from a name
/// (Unicode spaces, quotes, controls), so all that cannot be a part of it is taken off its ends; and some take a cookie
/// without a name (`=access_token=x`) as if it had one.
pub fn is_cookie(part: &[u8], cookies: &[String]) -> bool {
    let of_name = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'');
    let first = part.iter().position(|byte| *byte != b'=' && of_name(byte));
    let Some(named) = first.and_then(|first| part.get(first..)) else { return false };
    let name = named.split(|byte| *byte == b'=').next().unwrap_or(named);
    let last = name.iter().rposition(of_name).unwrap_or_default();
    let name = String::from_utf8_lossy(name.get(..=last).unwrap_or_default());
    cookies.iter().any(|cookie| reads_as(&name, cookie))
}

/// The only value of a field, or why there is none.
pub fn single<N: AsHeaderName>(headers: &HeaderMap, name: N) -> Single<'_> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Single::Absent,
        (Some(value), None) => Single::One(value),
        (Some(_), Some(_)) => Single::Repeated,
    }
}

/// How often a field stands in a request.
#[derive(Debug)]
pub enum Single<'a> {
    Absent,
    One(&'a HeaderValue),
    Repeated,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn every_protected_name_goes_in_every_spelling() {
        let list = StripList::new(&["X_Extra-Name".into()]);
        for name in PROTECTED.iter().chain(HOP_BY_HOP).chain(&["x-extra-name"]) {
            let dotted = [name.replace('-', "."), name.replacen('-', "~", 1), name.replace('-', "!")];
            let usual = [(*name).to_owned(), name.to_uppercase(), name.replace('-', "_"), name.replacen('-', "_", 1)];
            for spelled in usual.into_iter().chain(dotted) {
                let mut headers = map(&[(&spelled, "evil"), (&spelled, "twice"), ("accept", "x")]);
                list.clean(&mut headers);
                assert_eq!(headers.len(), 1, "{spelled}");
            }
        }
    }

    #[test]
    fn nominated_fields_go_and_others_stay() {
        let mut headers = map(&[("connection", "close, X-Hop , ,bad name"), ("x-hop", "1"), ("x-stay", "1")]);
        StripList::new(&[]).clean(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-stay"]);
    }

    #[test]
    fn session_cookies_go_and_others_stay() {
        let cookies = ["access_token".to_owned(), "refresh_token".to_owned()];
        let mut headers =
            map(&[("cookie", "a=1; access_token=x; b=2"), ("cookie", " Refresh_Token=y"), ("x-api.key", "k")]);
        drop_second_credentials(&mut headers, &cookies);
        assert_eq!(headers.get("cookie").unwrap(), "a=1; b=2");
        assert_eq!(headers.len(), 1);
        for spelled in [
            "\u{a0}access_token=x",
            "access_token\u{a0}=x",
            "\"access_token\"=x",
            "a=1, access_token=x",
            "access_token",
            "=access_token=x",
            " == =access_token=x",
            "=\"access_token=x",
            // As PHP folds names.
            "access.token=x",
            "access token=x",
            "access[token=x",
            "access_token[]=x",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_bytes(spelled.as_bytes()).unwrap());
            drop_second_credentials(&mut headers, &cookies);
            assert!(headers.is_empty(), "{spelled}");
        }
        let mut headers = map(&[("cookie", "access_token=x")]);
        drop_second_credentials(&mut headers, &cookies);
        assert!(headers.is_empty());
    }

    #[test]
    fn lookalikes_of_framing_and_credentials_are_found() {
        for name in ["transfer_encoding", "Content_Length", "content.type", "content|encoding", "authorization"] {
            let headers = map(&[(name, "x")]);
            assert_eq!(lookalike(&headers).is_some(), name != "authorization", "{name}");
        }
    }
}
