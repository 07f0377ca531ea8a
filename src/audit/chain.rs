//! The chain of hashes: what a link of it covers, and where its head stands.
//!
//! `hash = SHA-256(domain, type, pub, digest of priv, digests of the slices, prev, seq)`, every variable part with its
//! length before it. `prev` and `seq` come last: all that is long is hashed before the journal's lock is taken, and only
//! forty bytes under it. Private parts enter by digest, and each holds a random salt, so that a tenant who is shown the
//! visible part, its own slice and the other digests can check its part without guessing at the rest.

use std::{fmt, ops::Range, str::FromStr};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use uuid::Uuid;

/// Names one journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Uuid);

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A SHA-256 digest; text form is 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What stands in `prev` of the first record of a chain.
    pub const GENESIS: Self = Self([0; 32]);

    /// Reads 64 lower-case hex digits. Upper case is refused: one hash has one text.
    pub fn from_hex(text: &[u8]) -> Result<Self, InvalidHash> {
        if text.len() != 64 {
            return Err(InvalidHash);
        }
        let (mut hash, mut wrong) = ([0; 32], 0);
        for (byte, pair) in hash.iter_mut().zip(text.as_chunks::<2>().0) {
            let [high, low] = pair.map(nibble);
            // Without a branch for each digit: nearly all hashes are good.
            wrong |= high | low;
            *byte = high << 4 | low & 15;
        }
        if wrong > 15 {
            return Err(InvalidHash);
        }
        Ok(Self(hash))
    }

    pub fn to_hex(self) -> [u8; 64] {
        let mut hex = [0; 64];
        hex_into(&self.0, &mut hex);
        hex
    }
}

/// Lower-case hex of `bytes` into `out`, as far as both reach.
pub(super) fn hex_into(bytes: &[u8], out: &mut [u8]) {
    const fn digit(nibble: u8) -> u8 {
        if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }
    }
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        if let [high, low] = pair {
            *high = digit(byte >> 4);
            *low = digit(byte & 15);
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_hex()).unwrap_or_default())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Value of a lower-case hex digit; above 15 for anything else.
fn nibble(digit: u8) -> u8 {
    match (digit.wrapping_sub(b'0'), digit.wrapping_sub(b'a')) {
        (decimal @ 0..=9, _) => decimal,
        (_, letter @ 0..=5) => letter + 10,
        _ => 0xf0,
    }
}

/// The text is not 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 lower-case hex digits")]
pub struct InvalidHash;

impl FromStr for Hash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        Self::from_hex(text.as_bytes())
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Place of one line in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub seq: u64,
    pub prev_hash: Hash,
    pub hash: Hash,
}

/// The last line of a chain, or of as much of it as was indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ChainHead {
    pub seq: u64,
    #[schemars(with = "String")]
    pub hash: Hash,
}

const RECORD: &[u8] = b"linkgate audit record 1\n";
const PRIVATE: &[u8] = b"linkgate audit private 1\n";
const SLICE: &[u8] = b"linkgate audit slice 1\n";

fn sealed(domain: &[u8], bytes: &[u8]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(domain);
    context.update(bytes);
    finish(context)
}

fn finish(context: digest::Context) -> Hash {
    to_hash(context.finish())
}

fn to_hash(digest: digest::Digest) -> Hash {
    // SHA-256 has no other length.
    Hash(<[u8; 32]>::try_from(digest.as_ref()).unwrap_or_default())
}

/// Digest of a private part, exactly as written, salt included.
pub fn private_digest(bytes: &[u8]) -> Hash {
    sealed(PRIVATE, bytes)
}

/// The same of a part that stands in `buffer`, which is as before afterwards. For the request path: to bring domain and
/// part together costs less than a hash in pieces, which needs a context of its own.
pub(super) fn private_digest_within(buffer: &mut Vec<u8>, part: Range<usize>) -> Hash {
    let end = buffer.len();
    buffer.extend_from_slice(PRIVATE);
    buffer.extend_from_within(part);
    let hash = to_hash(digest::digest(&digest::SHA256, buffer.get(end..).unwrap_or_default()));
    buffer.truncate(end);
    hash
}

/// The digest of private parts that begin alike, as far as they do.
#[derive(Clone)]
pub(super) struct BegunPrivate(digest::Context);

impl BegunPrivate {
    pub(super) fn new(beginning: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(PRIVATE);
        context.update(beginning);
        Self(context)
    }

    /// Of the part that goes on with `rest`.
    pub(super) fn ended(&self, rest: &[u8]) -> Hash {
        let mut context = self.0.clone();
        context.update(rest);
        finish(context)
    }
}

/// Digest of one slice, exactly as written, salt included.
pub fn slice_digest(bytes: &[u8]) -> Hash {
    sealed(SLICE, bytes)
}

/// The hash of a record, all but its place in the chain.
#[derive(Clone)]
pub struct Unplaced(digest::Context);

impl Unplaced {
    /// `slices` are the digests in the order in which the line holds them.
    pub fn new(line_type: &str, visible: &[u8], private: Hash, slices: &[Hash]) -> Self {
        // In few pieces: each costs about as much as thirty bytes more.
        let mut before: SmallVec<[u8; 64]> = SmallVec::new();
        before.extend_from_slice(RECORD);
        before.extend_from_slice(&length(line_type.len()));
        before.extend_from_slice(line_type.as_bytes());
        before.extend_from_slice(&length(visible.len()));
        let mut behind: SmallVec<[u8; 64]> = SmallVec::new();
        behind.extend_from_slice(&private.0);
        behind.extend_from_slice(&length(slices.len()));
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&before);
        context.update(visible);
        context.update(&behind);
        for slice in slices {
            context.update(&slice.0);
        }
        Self(context)
    }

    /// The record's hash as `seq` after `prev`.
    pub fn place(mut self, seq: u64, prev: Hash) -> Hash {
        let mut place = [0; 40];
        let (before, own) = place.split_at_mut(32);
        before.copy_from_slice(&prev.0);
        own.copy_from_slice(&seq.to_be_bytes());
        self.0.update(&place);
        finish(self.0)
    }
}

fn length(of: usize) -> [u8; 8] {
    u64::try_from(of).unwrap_or(u64::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_one_text() {
        let hash = private_digest(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse::<Hash>(), Err(InvalidHash));
        assert_eq!("00".parse::<Hash>(), Err(InvalidHash));
    }

    #[test]
    fn a_part_has_the_same_digest_wherever_it_stands() {
        let mut buffer = b"before {part} behind".to_vec();
        assert_eq!(private_digest_within(&mut buffer, 7..13), private_digest(b"{part}"));
        assert_eq!(buffer, b"before {part} behind");
        let begun = BegunPrivate::new(b"{pa");
        assert_eq!([begun.ended(b"rt}"), begun.ended(b"ry}")], [private_digest(b"{part}"), private_digest(b"{pary}")]);
    }

    #[test]
    fn every_part_of_a_record_changes_its_hash() {
        let hash = |line_type: &str, visible: &[u8], private: &[u8], slices: &[&[u8]], seq, prev: &[u8]| {
            let slices: Vec<Hash> = slices.iter().map(|slice| slice_digest(slice)).collect();
            Unplaced::new(line_type, visible, private_digest(private), &slices).place(seq, private_digest(prev))
        };
        let all = [
            hash("open", b"v", b"p", &[b"s"], 7, b"h"),
            hash("openv", b"", b"p", &[b"s"], 7, b"h"),
            hash("open", b"w", b"p", &[b"s"], 7, b"h"),
            hash("open", b"v", b"q", &[b"s"], 7, b"h"),
            hash("open", b"v", b"p", &[b"t"], 7, b"h"),
            hash("open", b"v", b"p", &[], 7, b"h"),
            hash("open", b"v", b"p", &[b"s"], 8, b"h"),
            hash("open", b"v", b"p", &[b"s"], 7, b"i"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one), "{at}");
        }
        assert_ne!(private_digest(b"s"), slice_digest(b"s"));
    }
}
