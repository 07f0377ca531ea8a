//! A small JSON writer over one reusable buffer: what the request path writes its records with.
//!
//! Half the cost of a generic serialiser on this shape, and it writes exactly the bytes that are hashed. It knows
//! objects of known keys and nothing else; `encode` holds it equal to serde_json by a test.

use std::{cell::RefCell, io::Write, net::IpAddr};

use uuid::Uuid;

use super::chain::hex_into;
use crate::domain::Millis;

/// A key as the methods of [`Object`] take it: with its quotes, and a comma before it.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(super) use key;

/// Appends one JSON object; keys are written as they are and must need no escaping.
pub(super) struct Object<'b> {
    out: &'b mut Vec<u8>,
    empty: bool,
}

impl<'b> Object<'b> {
    pub(super) fn new(out: &'b mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    /// Writes the key, made by [`key!`], and hands out the buffer for its value.
    pub(super) fn key(&mut self, key: &'static str) -> &mut Vec<u8> {
        let comma = usize::from(std::mem::take(&mut self.empty));
        self.out.extend_from_slice(key.as_bytes().get(comma..).unwrap_or_default());
        self.out
    }

    /// The same for a name that is not known beforehand.
    pub(super) fn named(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Members that were written before, as they stood between their braces.
    pub(super) fn members(&mut self, written: &[u8]) {
        if written.is_empty() {
            return;
        }
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(written);
    }

    pub(super) fn text(&mut self, key: &'static str, value: &str) {
        string(self.key(key), value);
    }

    pub(super) fn maybe_text(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// A word of ours that needs no escaping.
    pub(super) fn word(&mut self, key: &'static str, value: &str) {
        let out = self.key(key);
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    }

    pub(super) fn uuid(&mut self, key: &'static str, value: Uuid) {
        let mut text = [0; 36];
        let text = value.hyphenated().encode_lower(&mut text);
        self.word(key, text);
    }

    pub(super) fn number(&mut self, key: &'static str, value: u64) {
        decimal(self.key(key), value);
    }

    pub(super) fn signed(&mut self, key: &'static str, value: i64) {
        let out = self.key(key);
        if value < 0 {
            out.push(b'-');
        }
        decimal(out, value.unsigned_abs());
    }

    pub(super) fn flag(&mut self, key: &'static str, value: bool) {
        self.key(key).extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(super) fn texts<'t>(&mut self, key: &'static str, values: impl Iterator<Item = &'t str>) {
        let out = self.key(key);
        out.push(b'[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                out.push(b',');
            }
            string(out, value);
        }
        out.push(b']');
    }

    pub(super) fn address(&mut self, key: &'static str, value: IpAddr) {
        let out = self.key(key);
        out.push(b'"');
        match value {
            IpAddr::V4(v4) => {
                for (at, octet) in v4.octets().into_iter().enumerate() {
                    if at > 0 {
                        out.push(b'.');
                    }
                    decimal(out, u64::from(octet));
                }
            }
            // Writing into memory cannot fail.
            IpAddr::V6(v6) => drop(write!(out, "{v6}")),
        }
        out.push(b'"');
    }

    /// RFC 3339 in UTC with milliseconds, as `Millis` prints it.
    pub(super) fn time(&mut self, key: &'static str, value: Millis) {
        let out = self.key(key);
        out.push(b'"');
        instant(out, value);
        out.push(b'"');
    }

    /// A fresh random salt, so that the digest of the object tells nothing about what else is in it.
    pub(super) fn salt(&mut self) {
        let mut hex = [b'0'; 32];
        hex_into(&random_salt(), &mut hex);
        let out = self.key(key!("salt"));
        out.push(b'"');
        out.extend_from_slice(&hex);
        out.push(b'"');
    }
}

/// A value that is seldom written and needs no speed. Text and lists only: such a value cannot fail to be written.
pub(super) fn value(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

/// A quoted, escaped JSON string.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    pieces(out, text);
    out.push(b'"');
}

/// The inside of a JSON string. Bytes that need no escaping are copied in runs.
pub(super) fn pieces(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = first_special(rest) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            other => {
                let mut hex = [0; 2];
                hex_into(&[*other], &mut hex);
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&hex);
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
}

/// Place of the first byte that must be escaped. Sixteen bytes are tested at once, without a branch for each.
fn first_special(bytes: &[u8]) -> Option<usize> {
    const STEP: usize = 16;
    let special = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\') | (*byte == 0x7f);
    let plain = bytes
        .chunks_exact(STEP)
        .take_while(|chunk| !chunk.iter().fold(false, |found, byte| found | special(byte)))
        .count()
        * STEP;
    bytes.get(plain..)?.iter().position(special).map(|at| plain + at)
}

pub(super) fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        // The remainder is below ten.
        *slot = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - used..).unwrap_or_default());
}

fn instant(out: &mut Vec<u8>, at: Millis) {
    thread_local! {
        /// The second last written and its text up to the point: the calendar is worked out once a second.
        static SECOND: RefCell<(i64, Vec<u8>)> = const { RefCell::new((i64::MIN, Vec::new())) };
    }
    let (second, ms) = (at.0.div_euclid(1000), at.0.rem_euclid(1000));
    SECOND.with_borrow_mut(|(cached, text)| {
        if *cached != second {
            text.clear();
            match Millis(second.saturating_mul(1000)).timestamp() {
                Some(whole) => drop(write!(text, "{whole:.3}")),
                None => text.extend_from_slice(b"9999-12-31T23:59:59.000Z"),
            }
            text.truncate(text.len().saturating_sub(4));
            *cached = second;
        }
        out.extend_from_slice(text);
    });
    let digit = |of: i64| b'0' + u8::try_from(of % 10).unwrap_or_default();
    out.extend_from_slice(&[digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
}

/// Sixteen bytes from a pool of each thread that the system's generator fills in large pieces.
fn random_salt() -> [u8; 16] {
    const POOL: usize = 4096;
    thread_local! {
        static SALTS: RefCell<(Vec<u8>, usize)> = const { RefCell::new((Vec::new(), POOL)) };
    }
    SALTS.with_borrow_mut(|(pool, used)| {
        if *used + 16 > pool.len() {
            refill(pool, POOL);
            *used = 0;
        }
        let mut salt = [0; 16];
        for (to, from) in salt.iter_mut().zip(pool.iter().skip(*used)) {
            *to = *from;
        }
        *used += 16;
        salt
    })
}

/// A generator that fails once the process runs must not lose a record: salts are then drawn from the old pool by
/// hashing. `Journal::open` has seen the generator work.
fn refill(pool: &mut Vec<u8>, size: usize) {
    use aws_lc_rs::{digest, rand};
    pool.resize(size, 0);
    let mut fresh = vec![0; size];
    if rand::fill(&mut fresh).is_ok() {
        *pool = fresh;
        return;
    }
    let mut seed = digest::digest(&digest::SHA256, pool);
    for chunk in pool.chunks_mut(32) {
        seed = digest::digest(&digest::SHA256, seed.as_ref());
        for (to, from) in chunk.iter_mut().zip(seed.as_ref()) {
            *to ^= *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_a_parser_reads() {
        let nasty: String = (0u8..=0x80).map(char::from).chain("\"\\/ü\u{2028}😀".chars()).collect();
        let mut out = Vec::new();
        let mut object = Object::new(&mut out);
        object.text(key!("nasty"), &nasty);
        // A special byte at every place of the steps in which plain text is copied.
        for at in 0..40 {
            string(object.named(&format!("at{at}")), &format!("{}\n{}", "x".repeat(at), "y".repeat(40 - at)));
        }
        object.number(key!("max"), u64::MAX);
        object.number(key!("zero"), 0);
        object.signed(key!("min"), i64::MIN);
        object.address(key!("v4"), "10.0.200.1".parse().unwrap());
        object.address(key!("v6"), "2001:db8::1".parse().unwrap());
        object.texts(key!("list"), ["a", "\n"].into_iter());
        object.flag(key!("yes"), true);
        object.end();
        let mut value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        for at in 0..40 {
            let text = value.as_object_mut().unwrap().shift_remove(&format!("at{at}")).unwrap();
            assert_eq!(text, format!("{}\n{}", "x".repeat(at), "y".repeat(40 - at)));
        }
        assert_eq!(
            value,
            serde_json::json!({"nasty": nasty, "max": u64::MAX, "zero": 0, "min": i64::MIN, "v4": "10.0.200.1",
                "v6": "2001:db8::1", "list": ["a", "\n"], "yes": true})
        );
        assert!(!out.iter().any(u8::is_ascii_control), "no raw control character");
    }

    #[test]
    fn times_read_as_millis_prints_them() {
        for at in [0, 999, 1_762_516_800_123, 1_762_516_800_124, -1, -62_135_596_800_000, 1_762_516_800_000] {
            let mut out = Vec::new();
            instant(&mut out, Millis(at));
            assert_eq!(String::from_utf8(out).unwrap(), Millis(at).to_string());
        }
    }

    #[test]
    fn salts_do_not_repeat() {
        let salts: std::collections::HashSet<_> = (0..2000).map(|_| random_salt()).collect();
        assert_eq!(salts.len(), 2000);
    }
}
