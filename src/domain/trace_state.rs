//! `tracestate`: what other tracing systems add to a `traceparent` (W3C Trace Context, section 3.3).
//!
//! Not ours, and passed on only with the `traceparent` that it came with. What is passed on was read member by member and
//! written anew: what is no list of members is nothing at all.

use std::sync::Arc;

/// Most members (W3C).
const MOST_MEMBERS: usize = 32;
/// Longest list that is passed on; W3C asks for as much at least.
const MOST_BYTES: usize = 512;
/// Longest key, and longest value.
const MOST_LETTERS: usize = 256;

/// At least one member, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceState(Arc<str>);

impl TraceState {
    /// Of the values of all its header fields, in their order. `None` where there is nothing, or any member is none.
    pub fn parse<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut members: Vec<(&str, &str)> = Vec::new();
        let mut bytes = 0;
        for member in fields.into_iter().flat_map(|field| field.split(|byte| *byte == b',')) {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            let (key, value) = std::str::from_utf8(member).ok()?.split_once('=')?;
            bytes += member.len() + 1;
            let known = members.iter().any(|(other, _)| *other == key);
            if !is_key(key) || !is_value(value) || known || members.len() == MOST_MEMBERS || bytes > MOST_BYTES + 1 {
                return None;
            }
            members.push((key, value));
        }
        let text = members.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// Printable ASCII: it fits into a header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `system`, or `tenant@system`.
fn is_key(key: &str) -> bool {
    let letters = |part: &str| {
        part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'))
            && part.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
    };
    key.len() <= MOST_LETTERS && key.splitn(2, '@').all(letters)
}

fn is_value(value: &str) -> bool {
    value.len() <= MOST_LETTERS && value.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[&str]) -> Option<String> {
        let fields = fields.iter().map(|field| field.as_bytes());
        TraceState::parse(fields).map(|state| state.as_str().to_owned())
    }

    #[test]
    fn members_keep_their_order_and_are_written_anew() {
        assert_eq!(
            read(&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"]).unwrap(),
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
        );
        assert_eq!(read(&["a=1 ,\t, b=2", "fw529a3039@dt=FfAxSJ2/x y"]).unwrap(), "a=1,b=2,fw529a3039@dt=FfAxSJ2/x y");
        let most: Vec<String> = (0..MOST_MEMBERS).map(|n| format!("k{n}=v")).collect();
        assert_eq!(read(&[&most.join(",")]).unwrap(), most.join(","));
        let full = format!("a={},b={}", "x".repeat(256), "y".repeat(251));
        assert_eq!((full.len(), read(&[&full]).unwrap()), (MOST_BYTES, full));
    }

    #[test]
    fn what_is_no_list_of_members_is_nothing() {
        let many = (0..=MOST_MEMBERS).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let long = format!("a={},b={}", "x".repeat(256), "y".repeat(252));
        let value = format!("a={}", "x".repeat(257));
        for wrong in [
            "",
            " , ",
            "a",
            "=1",
            "A=1",
            "a=1,a=2",
            "a=b=c",
            "a=\u{e9}",
            "a=1\r\nx: y",
            "a b=1",
            "@a=1",
            "a@=1",
            "a@b@c=1",
        ] {
            assert_eq!(read(&[wrong]), None, "{wrong:?}");
        }
        assert_eq!((read(&[&many]), read(&[&long]), read(&[&value])), (None, None, None));
        assert_eq!(read(&["a=1", "a=2"]), None);
    }
}
