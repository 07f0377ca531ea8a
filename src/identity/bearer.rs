//! The credential of a request: none, one of the right form, or a bad one. Three answers, never two.
//!
//! A bad credential refuses the request; it never falls through to another one. So a request with an `Authorization`
//! header of any kind is never answered by its cookie. What the token says is not looked at here.

use http::{
    HeaderMap,
    header::{AUTHORIZATION, COOKIE, HOST, HeaderValue, ORIGIN},
};

/// Where a token came from. A cookie travels by itself, so unsafe methods with it need `same_origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Header,
    Cookie,
    /// No token: the certificate of the connection.
    Certificate,
}

/// The answer of `bearer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented<'a> {
    None,
    Token(&'a str, Source),
    /// Repeated, of another scheme, empty, or not of a token's characters: 401.
    Bad,
}

/// Finds the bearer token. `cookie_name`: the cookie that the configuration names, if any.
pub fn bearer<'a>(headers: &'a HeaderMap, cookie_name: Option<&str>) -> Presented<'a> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    match (lines.next(), lines.next()) {
        (Some(only), None) => from_header(only),
        (Some(_), Some(_)) => Presented::Bad,
        (None, _) => cookie_name.map_or(Presented::None, |name| from_cookies(headers, name)),
    }
}

fn from_header(value: &HeaderValue) -> Presented<'_> {
    // Nothing outside ASCII is a token's character; told apart there.
    let Ok(text) = std::str::from_utf8(value.as_bytes()) else { return Presented::Bad };
    match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => {
            token(rest.trim_start_matches(' '), Source::Header)
        }
        _ => Presented::Bad,
    }
}

fn from_cookies<'a>(headers: &'a HeaderMap, name: &str) -> Presented<'a> {
    let mut found = None;
    // HTTP/2 may split the cookie header into several lines.
    for line in headers.get_all(COOKIE) {
        let bytes = line.as_bytes();
        for pair in bytes.split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            let Some(at) = pair.iter().position(|byte| *byte == b'=') else { continue };
            let (key, value) = pair.split_at(at);
            if key.trim_ascii() != name.as_bytes() {
                continue;
            }
            if found.is_some() {
                return Presented::Bad;
            }
            found = Some(value.get(1..).unwrap_or_default().trim_ascii());
        }
    }
    match found.map(std::str::from_utf8) {
        None => Presented::None,
        Some(Ok(text)) => {
            // RFC 6265 lets a cookie's value stand in quotes.
            let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
            token(inner, Source::Cookie)
        }
        Some(Err(_)) => Presented::Bad,
    }
}

/// RFC 6750's `b64token`: anything else (a space, a comma of joined headers) is no token.
fn token(text: &str, source: Source) -> Presented<'_> {
    let body = text.trim_end_matches('=');
    if body.is_empty() || !all_of_token(body.as_bytes()) {
        return Presented::Bad;
    }
    Presented::Token(text, source)
}

/// Tested in blocks, many bytes at once: a token is long, and this is done with every request.
fn all_of_token(bytes: &[u8]) -> bool {
    let fits = |byte: u8| {
        byte.is_ascii_digit()
            | (byte | 0x20).is_ascii_lowercase()
            | (byte == b'-')
            | (byte == b'.')
            | (byte == b'_')
            | (byte == b'~')
            | (byte == b'+')
            | (byte == b'/')
    };
    let (blocks, rest) = bytes.as_chunks::<32>();
    blocks.iter().all(|block| block.iter().fold(true, |so_far, byte| so_far & fits(*byte)))
        && rest.iter().all(|byte| fits(*byte))
}

/// Whether an unsafe request that is authenticated by a cookie comes from this origin's own pages.
///
/// `Sec-Fetch-Site`, which pages cannot forge, decides where it is sent; else `Origin` must name the scheme that clients
/// use (`scheme`: `http` or `https`, `None` where it is not known) and the host that was asked (`authority`: the request's
/// own, from the target of HTTP/2 or an absolute URI; else `Host`). A page of the same host over plain http is another
/// origin: whoever sits on the wire can write it. A request that tells neither is refused: every browser that sends
/// cookies across sites sends one of them.
pub fn same_origin(headers: &HeaderMap, authority: Option<&str>, scheme: Option<&str>) -> bool {
    match one(headers, "sec-fetch-site") {
        Given::Twice => return false,
        // `none`: typed by the user or a bookmark, which no other site can cause.
        Given::Once(site) => return site == b"same-origin" || site == b"none",
        Given::Never => {}
    }
    let host = match (authority, one(headers, HOST.as_str())) {
        (Some(authority), _) => authority.as_bytes(),
        (None, Given::Once(host)) => host,
        (None, _) => return false,
    };
    let Given::Once(origin) = one(headers, ORIGIN.as_str()) else { return false };
    let (begin, port): (&[u8], &[u8]) = match scheme {
        Some("https") => (b"https://", b":443"),
        Some("http") => (b"http://", b":80"),
        _ => return false,
    };
    // An origin leaves the usual port out, a host may name it.
    let host = host.strip_suffix(port).unwrap_or(host);
    origin.strip_prefix(begin).is_some_and(|named| !host.is_empty() && named.eq_ignore_ascii_case(host))
}

enum Given<'a> {
    Never,
    Once(&'a [u8]),
    Twice,
}

fn one<'a>(headers: &'a HeaderMap, name: &str) -> Given<'a> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Given::Never,
        (Some(only), None) => Given::Once(only.as_bytes()),
        (Some(_), Some(_)) => Given::Twice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn check(lines: &[(&'static str, &str)], cookie: Option<&str>, expect: Presented<'_>) {
        assert_eq!(bearer(&headers(lines), cookie), expect, "{lines:?} {cookie:?}");
    }

    #[test]
    fn no_credential_a_good_one_and_a_bad_one_are_three_answers() {
        let good = Presented::Token("a.b-_.c", Source::Header);
        check(&[], None, Presented::None);
        check(&[("authorization", "Bearer a.b-_.c")], None, good);
        check(&[("authorization", "bEARER  a.b-_.c")], None, good);
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer =",
            "Basic dTpw",
            "a.b.c",
            "Bearera.b.c",
            "Bearer a b",
            "Bearer a,b",
            "Bearer a.b.c, Bearer a.b.c",
            "Bearer\ta.b.c",
        ] {
            check(&[("authorization", bad)], None, Presented::Bad);
        }
        check(&[("authorization", "Bearer a.b.c"), ("authorization", "Bearer a.b.c")], None, Presented::Bad);
        let mut foreign = HeaderMap::new();
        foreign.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert_eq!(bearer(&foreign, None), Presented::Bad);
    }

    /// At every place of the blocks in which bytes are tested, and every byte.
    #[test]
    fn a_foreign_byte_in_a_token_is_found_wherever_it_stands() {
        for at in 0..80 {
            let foreign = format!("Bearer {}!{}", "x".repeat(at), "y".repeat(80 - at));
            check(&[("authorization", &foreign)], None, Presented::Bad);
        }
        for byte in (0x20..0x7f_u8).map(char::from) {
            let usual = byte.is_ascii_alphanumeric() || "-._~+/=".contains(byte);
            let text = format!("{}{byte}{}", "x".repeat(40), if byte == '=' { "" } else { "x" });
            let header = format!("Bearer {text}");
            let expect = if usual { Presented::Token(&text, Source::Header) } else { Presented::Bad };
            check(&[("authorization", &header)], None, expect);
        }
    }

    #[test]
    fn a_cookie_counts_only_where_configured_and_without_authorization() {
        let both = [("authorization", "Basic dTpw"), ("cookie", "access_token=a.b.c")];
        let cookie = Some("access_token");
        check(&both[1..], None, Presented::None);
        check(&both[1..], cookie, Presented::Token("a.b.c", Source::Cookie));
        check(&both, cookie, Presented::Bad);
        check(&[("cookie", "x=1; access_token=\"a.b.c\" ;y")], cookie, Presented::Token("a.b.c", Source::Cookie));
        check(&[("cookie", "Access_Token=a.b.c; access_token2=d")], cookie, Presented::None);
        check(&[("cookie", "access_token=a.b.c; access_token=a.b.c")], cookie, Presented::Bad);
        check(&[("cookie", "access_token=a.b.c"), ("cookie", "access_token=d.e.f")], cookie, Presented::Bad);
        check(&[("cookie", "access_token=")], cookie, Presented::Bad);
        check(&[("cookie", "access_token=a b")], cookie, Presented::Bad);
    }

    #[test]
    fn an_unsafe_request_with_a_cookie_must_come_from_our_own_pages() {
        let origin = |lines: &[(&'static str, &str)]| same_origin(&headers(lines), None, Some("https"));
        assert!(origin(&[("sec-fetch-site", "same-origin")]));
        assert!(origin(&[("sec-fetch-site", "none")]));
        assert!(!origin(&[("sec-fetch-site", "same-site"), ("host", "a.example"), ("origin", "https://a.example")]));
        assert!(!origin(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]));
        assert!(origin(&[("host", "a.example"), ("origin", "https://A.example")]));
        assert!(!origin(&[("host", "a.example"), ("origin", "https://b.example")]));
        assert!(!origin(&[("host", "a.example"), ("origin", "https://a.example.b.example")]));
        assert!(!origin(&[("host", "a.example"), ("origin", "null")]));
        assert!(!origin(&[("host", "a.example")]));
        assert!(!origin(&[("origin", "https://a.example")]));
        let https = Some("https");
        assert!(same_origin(&headers(&[("origin", "https://a.example:8443")]), Some("a.example:8443"), https));
        let other = headers(&[("host", "b.example"), ("origin", "https://b.example")]);
        assert!(!same_origin(&other, Some("a.example"), https));
    }

    #[test]
    fn a_page_of_the_same_host_by_another_scheme_is_another_origin() {
        for (origin, host, scheme, same) in [
            ("https://a.example", "a.example", Some("https"), true),
            ("http://a.example", "a.example", Some("https"), false),
            ("https://a.example", "a.example", Some("http"), false),
            ("http://a.example", "a.example", Some("http"), true),
            ("https://a.example", "a.example", None, false),
            ("https://a.example", "a.example", Some("https, http"), false),
            ("https://a.example", "a.example:443", Some("https"), true),
            ("https://a.example", "a.example:80", Some("https"), false),
            ("http://a.example", "a.example:80", Some("http"), true),
            ("http://a.example:443", "a.example:443", Some("http"), true),
            ("https://", ":443", Some("https"), false),
        ] {
            let told = same_origin(&headers(&[("host", host), ("origin", origin)]), None, scheme);
            assert_eq!(told, same, "{origin} {host} {scheme:?}");
        }
        // Where the browser says it, that decides.
        let told = headers(&[("sec-fetch-site", "same-origin"), ("host", "a.example"), ("origin", "http://a.example")]);
        assert!(same_origin(&told, None, Some("https")));
    }
}
