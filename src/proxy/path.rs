//! Which request targets are refused as ambiguous (contract, section 6).
//!
//! The path that is decided is, byte for byte, the path that is forwarded. Nothing is normalised or repaired: whatever two
//! readers could take for two different paths is refused. What stays allowed is valid percent-encoding of characters
//! that have no other spelling, compared after one decoding inside named segments only (`config::pattern`).

use std::borrow::Cow;

/// The path can be read in more than one way; the word says why, for logs and `details`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ambiguous path: {0}")]
pub struct Ambiguous(pub &'static str);

/// Tests a raw path (no query). Cost: one pass.
pub fn check(path: &str) -> Result<(), Ambiguous> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Ambiguous("does not begin with a slash"));
    }
    let mut previous = 0u8;
    let mut segment_dots = true;
    let mut segment_length = 0usize;
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'/' => {
                if previous == b'/' {
                    return Err(Ambiguous("empty segment"));
                }
                dots(segment_dots, segment_length)?;
                (segment_dots, segment_length) = (true, 0);
            }
            b'%' => {
                let high = rest.next().and_then(hex);
                let low = rest.next().and_then(hex);
                let (Some(high), Some(low)) = (high, low) else { return Err(Ambiguous("bad percent-encoding")) };
                encoded(high << 4 | low)?;
                (segment_dots, segment_length) = (false, segment_length + 1);
            }
            b'\\' => return Err(Ambiguous("backslash")),
            b';' => return Err(Ambiguous("path parameter")),
            b'#' => return Err(Ambiguous("fragment")),
            0..=0x20 | 0x7f => return Err(Ambiguous("control character or space")),
            0x80.. => return Err(Ambiguous("character outside ASCII")),
            other => {
                segment_dots &= other == b'.';
                segment_length += 1;
            }
        }
        previous = byte;
    }
    dots(segment_dots, segment_length)
}

fn dots(all_dots: bool, length: usize) -> Result<(), Ambiguous> {
    if all_dots && (1..=2).contains(&length) { Err(Ambiguous("dot segment")) } else { Ok(()) }
}

fn encoded(byte: u8) -> Result<(), Ambiguous> {
    match byte {
        b'/' => Err(Ambiguous("encoded slash")),
        b'\\' => Err(Ambiguous("encoded backslash")),
        b'%' => Err(Ambiguous("encoded percent sign")),
        b';' => Err(Ambiguous("encoded path parameter")),
        b'.' => Err(Ambiguous("encoded dot")),
        0..=0x1f | 0x7f => Err(Ambiguous("encoded control character")),
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Err(Ambiguous("encoded unreserved character")),
        _ => Ok(()),
    }
}

pub fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// One percent-decoding. `None` where the encoding is bad or the bytes are not UTF-8.
pub fn decode_once(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = rest.next().and_then(hex)?;
            let low = rest.next().and_then(hex)?;
            out.push(high << 4 | low);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_whatever_two_readers_could_read_differently() {
        for bad in [
            "",
            "a",
            "*",
            "//",
            "/a//b",
            "/a/./b",
            "/a/../b",
            "/..",
            "/.",
            "/a/..",
            "/%2e%2e/a",
            "/a/%2E/b",
            "/a/.%2e",
            "/a%2fb",
            "/a%2Fb",
            "/a\\b",
            "/a%5cb",
            "/a%5Cb",
            "/a%25b",
            "/a%252fb",
            "/a%00",
            "/a%0d%0ab",
            "/a%7f",
            "/a;b=c",
            "/a%3bb",
            "/a#b",
            "/a b",
            "/a\tb",
            "/a\u{7f}",
            "/ü",
            "/a%4",
            "/a%",
            "/a%zz",
            "/%41dmin",
            "/a%2Db",
            "/a%7Eb",
            "/a%5Fb",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lets_plain_and_encoded_reserved_characters_pass() {
        for good in [
            "/",
            "/a",
            "/a/",
            "/a/b.c/...",
            "/a/..b",
            "/a/%20b",
            "/a/%C3%BC",
            "/a:b@c/d,e",
            "/a/%3A",
            "/a/.well-known",
            "/a/%40",
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn decodes_exactly_once() {
        assert_eq!(decode_once("a%20b").unwrap(), "a b");
        assert_eq!(decode_once("a%2520b").unwrap(), "a%20b");
        assert!(decode_once("a%2").is_none());
        assert!(decode_once("%ff").is_none());
    }

    proptest::proptest! {
        /// Whatever passes has one reading: decoding and resolving it changes neither its segments nor their number.
        #[test]
        fn what_passes_has_one_reading(path in "/[ -~]{0,40}") {
            if check(&path).is_ok() {
                let decoded = decode_once(&path);
                if let Some(decoded) = decoded {
                    proptest::prop_assert_eq!(decoded.matches('/').count(), path.matches('/').count());
                    proptest::prop_assert!(!decoded.split('/').any(|s| s == "." || s == ".."));
                    proptest::prop_assert!(!decoded.contains(['\\', ';', '\0']));
                }
            }
        }
    }
}
