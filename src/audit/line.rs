//! One line of the journal: how a body is framed by its place in the chain, and how a line is read back.
//!
//! The reader takes the exact form that the writer produces and nothing else: no other order, no white space, no further
//! member. So every byte of a line is either hashed or fixed, and nothing can be slipped in beside the hash.

use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::{
    chain::{Hash, Stamp, Unplaced, private_digest, slice_digest},
    encode::LineType,
    json::decimal,
};
use crate::domain::DecisionId;

/// Appends a whole line, newline included, and gives its hash. `prev_hex` is the text of `prev`; the new head's text is
/// left in it.
pub(super) fn frame(
    out: &mut Vec<u8>,
    seq: u64,
    line_type: LineType,
    prev: Hash,
    prev_hex: &mut [u8; 64],
    body: &[u8],
    unplaced: Unplaced,
) -> Hash {
    let hash = unplaced.place(seq, prev);
    out.reserve(body.len() + 256);
    out.extend_from_slice(b"{\"seq\":");
    decimal(out, seq);
    out.extend_from_slice(b",\"type\":\"");
    out.extend_from_slice(line_type.as_str().as_bytes());
    out.extend_from_slice(b"\",\"prev\":\"");
    out.extend_from_slice(prev_hex);
    out.extend_from_slice(b"\",\"hash\":\"");
    *prev_hex = hash.to_hex();
    out.extend_from_slice(prev_hex);
    out.extend_from_slice(b"\",");
    out.extend_from_slice(body);
    out.extend_from_slice(b"}\n");
    hash
}

/// The bytes are no line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a journal line: {0}")]
pub struct NotALine(pub String);

/// A line as read: its place and its exact parts. The hash is not checked yet.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    pub seq: u64,
    pub line_type: LineType,
    pub prev: Hash,
    pub hash: Hash,
    /// JSON objects, byte for byte.
    pub visible: &'a str,
    pub private: &'a str,
    pub slices: SmallVec<[&'a str; 4]>,
}

impl<'a> Line<'a> {
    /// `bytes` without the newline.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NotALine> {
        let text = std::str::from_utf8(bytes).map_err(|_| NotALine("it is not UTF-8".to_owned()))?;
        let mut rest = Rest(text);
        rest.exact("{\"seq\":")?;
        let seq = rest.number()?;
        rest.exact(",\"type\":\"")?;
        let word = rest.until("\"")?;
        let line_type = LineType::ALL
            .into_iter()
            .find(|known| known.as_str() == word)
            .ok_or_else(|| NotALine("its `type` is unknown".to_owned()))?;
        rest.exact(",\"prev\":\"")?;
        let prev = rest.hash()?;
        rest.exact(",\"hash\":\"")?;
        let hash = rest.hash()?;
        rest.exact(",\"pub\":")?;
        let visible = rest.object()?;
        rest.exact(",\"priv\":")?;
        let private = rest.object()?;
        let mut slices = SmallVec::new();
        if rest.exact(",\"slices\":[").is_ok() {
            slices.push(rest.object()?);
            while rest.exact(",").is_ok() {
                slices.push(rest.object()?);
            }
            rest.exact("]")?;
        }
        rest.exact("}")?;
        if !rest.0.is_empty() {
            return Err(NotALine("something follows its end".to_owned()));
        }
        Ok(Self { seq, line_type, prev, hash, visible, private, slices })
    }

    /// What the hash must be for these bytes at this place.
    pub fn computed_hash(&self) -> Hash {
        let slices: SmallVec<[Hash; 4]> = self.slices.iter().map(|slice| slice_digest(slice.as_bytes())).collect();
        let private = private_digest(self.private.as_bytes());
        Unplaced::new(self.line_type.as_str(), self.visible.as_bytes(), private, &slices).place(self.seq, self.prev)
    }

    pub fn stamp(&self) -> Stamp {
        Stamp { seq: self.seq, prev_hash: self.prev, hash: self.hash }
    }

    /// Id of the record that the line is part of; `None` for `segment` and `recovery`.
    pub fn record_id(&self) -> Result<Option<DecisionId>, NotALine> {
        #[derive(Deserialize)]
        struct Id {
            id: DecisionId,
        }
        if matches!(self.line_type, LineType::Segment | LineType::Recovery) {
            return Ok(None);
        }
        read::<Id>(self.visible).map(|found| Some(found.id))
    }

    /// The outbox row that a `change` comes from.
    pub fn outbox_seq(&self) -> Result<Option<i64>, NotALine> {
        #[derive(Deserialize)]
        struct Origin {
            outbox_seq: Option<i64>,
        }
        if self.line_type != LineType::Change {
            return Ok(None);
        }
        read::<Origin>(self.private).map(|found| found.outbox_seq)
    }

    /// A part as a typed value.
    pub fn visible_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, NotALine> {
        read(self.visible)
    }
}

pub(super) fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, NotALine> {
    serde_json::from_str(json).map_err(unreadable)
}

pub(super) fn unreadable(error: serde_json::Error) -> NotALine {
    NotALine(format!("a part cannot be read: {error}"))
}

/// What is left of the line.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn exact(&mut self, expected: &str) -> Result<(), NotALine> {
        self.0 = self.0.strip_prefix(expected).ok_or_else(|| NotALine(format!("`{expected}` is missing")))?;
        Ok(())
    }

    fn until(&mut self, end: &str) -> Result<&'a str, NotALine> {
        let (head, tail) = self.0.split_once(end).ok_or_else(|| NotALine(format!("`{end}` is missing")))?;
        self.0 = tail;
        Ok(head)
    }

    /// A decimal number in its one form: no sign, no leading zero.
    fn number(&mut self) -> Result<u64, NotALine> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = self.0.split_at_checked(digits).unwrap_or_default();
        self.0 = tail;
        number
            .parse()
            .ok()
            .filter(|_| number == "0" || !number.starts_with('0'))
            .ok_or_else(|| NotALine("its `seq` is no number".to_owned()))
    }

    fn hash(&mut self) -> Result<Hash, NotALine> {
        self.until("\"")?.parse().map_err(|_| NotALine("a hash is not 64 lower-case hex digits".to_owned()))
    }

    /// One JSON object, exactly as written.
    fn object(&mut self) -> Result<&'a str, NotALine> {
        if !self.0.starts_with('{') {
            return Err(NotALine("an object is missing".to_owned()));
        }
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter::<&'a RawValue>();
        let value = values.next().ok_or_else(|| NotALine("an object is missing".to_owned()))?.map_err(unreadable)?;
        self.0 = self.0.get(values.byte_offset()..).unwrap_or_default();
        Ok(value.get())
    }
}
