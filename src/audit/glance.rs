//! A first look at a line: its place and what the record can be asked by, without reading the rest.
//!
//! A tenth of the cost of reading a line as values, and nothing is allocated. The texts are as they stand in the line;
//! [`plain`] takes the escapes out. `line` and `entry` have the last word on whether a line is well formed.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::{
    chain::{Hash, Unplaced, private_digest},
    encode::LineType,
    line::{Line, NotALine},
};

/// What was seen of a line.
#[derive(Clone, Debug)]
pub(super) struct Glance<'a> {
    pub(super) seq: u64,
    pub(super) line_type: LineType,
    /// 64 hex digits each.
    pub(super) prev: &'a [u8],
    pub(super) hash: &'a [u8],
    pub(super) said: Said<'a>,
    line: &'a [u8],
    visible: &'a [u8],
    /// Behind the visible part.
    rest: &'a [u8],
}

/// Fields of the visible part: the inside of JSON strings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) id: Option<&'a [u8]>,
    pub(super) time: Option<&'a [u8]>,
    pub(super) kind: Option<&'a [u8]>,
    pub(super) partner: Option<&'a [u8]>,
    pub(super) user: Option<&'a [u8]>,
    pub(super) action: Option<&'a [u8]>,
    pub(super) tenant: Option<&'a [u8]>,
    pub(super) decision: Option<&'a [u8]>,
    pub(super) request: Option<&'a [u8]>,
}

/// The text that a JSON string stands for.
pub(super) fn plain(inside: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', inside).is_none() {
        return Cow::Borrowed(inside);
    }
    let quoted = [b"\"", inside, b"\""].concat();
    match serde_json::from_slice::<String>(&quoted) {
        Ok(text) => Cow::Owned(text.into_bytes()),
        Err(_) => Cow::Borrowed(inside),
    }
}

impl<'a> Glance<'a> {
    /// `line` without its newline.
    pub(super) fn at(line: &'a [u8]) -> Result<Self, NotALine> {
        Self::seen(line).ok_or_else(|| match std::str::from_utf8(line).map(|_| Line::parse(line)) {
            Ok(Err(fault)) => fault,
            _ => NotALine("it has not the form of one".to_owned()),
        })
    }

    fn seen(line: &'a [u8]) -> Option<Self> {
        let mut scan = Scan(line);
        scan.exact(b"{\"seq\":")?;
        let seq = scan.number()?;
        scan.exact(b",\"type\":\"")?;
        let word = scan.string()?;
        let line_type = LineType::ALL.into_iter().find(|known| known.as_str().as_bytes() == word)?;
        scan.exact(b",\"prev\":\"")?;
        let prev = scan.hash()?;
        scan.exact(b",\"hash\":\"")?;
        let hash = scan.hash()?;
        scan.exact(b",\"pub\":")?;
        let from = scan.0;
        let said = scan.object()?;
        let (visible, rest) = (from.get(..from.len() - scan.0.len())?, scan.0);
        let whole = rest.starts_with(b",\"priv\":{") && (rest.ends_with(b"}}") || rest.ends_with(b"}]}"));
        whole.then_some(Self { seq, line_type, prev, hash, said, line, visible, rest })
    }

    /// Whether there is a slice for each of several tenants.
    pub(super) fn has_slices(&self) -> bool {
        self.rest.ends_with(b"]}")
    }

    /// The tenants that the slices name.
    pub(super) fn slice_tenants(&self) -> Result<Vec<&'a [u8]>, NotALine> {
        if !self.has_slices() {
            return Ok(Vec::new());
        }
        let tenant = |slice: &&'a str| Scan(slice.as_bytes()).object().and_then(|said| said.tenant);
        Ok(Line::parse(self.line)?.slices.iter().filter_map(tenant).collect())
    }

    /// Whether the hash in the line is that of its content.
    pub(super) fn holds(&self) -> bool {
        if self.has_slices() {
            return Line::parse(self.line).is_ok_and(|line| line.computed_hash() == line.hash);
        }
        let private = self.rest.strip_prefix(b",\"priv\":").and_then(|rest| rest.strip_suffix(b"}"));
        let (Some(private), Some(prev), Some(hash)) = (private, hash_of(self.prev), hash_of(self.hash)) else {
            return false;
        };
        let whole = Unplaced::new(self.line_type.as_str(), self.visible, private_digest(private), &[]);
        whole.place(self.seq, prev) == hash
    }
}

/// The hash that 64 hex digits stand for.
pub(super) fn hash_of(hex: &[u8]) -> Option<Hash> {
    Hash::from_hex(hex).ok()
}

/// What is left to look at.
struct Scan<'a>(&'a [u8]);

impl<'a> Scan<'a> {
    fn exact(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        let mut digits = 0;
        while let Some((digit @ b'0'..=b'9', rest)) = self.0.split_first() {
            number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            digits += 1;
            self.0 = rest;
        }
        (digits > 0).then_some(number)
    }

    fn hash(&mut self) -> Option<&'a [u8]> {
        let (hash, rest) = self.0.split_at_checked(64)?;
        self.0 = rest.strip_prefix(b"\"")?;
        Some(hash)
    }

    /// The rest of a string whose opening quote was taken.
    fn string(&mut self) -> Option<&'a [u8]> {
        let mut at = 0;
        loop {
            at += memchr2(b'"', b'\\', self.0.get(at..)?)?;
            if self.0.get(at) == Some(&b'"') {
                break;
            }
            at += 2;
        }
        let (inside, rest) = self.0.split_at_checked(at)?;
        self.0 = rest.get(1..)?;
        Some(inside)
    }

    /// Takes any value; gives the inside of a string.
    fn value(&mut self) -> Option<Option<&'a [u8]>> {
        if let Some(rest) = self.0.strip_prefix(b"\"") {
            self.0 = rest;
            return self.string().map(Some);
        }
        let mut depth = 0_usize;
        loop {
            match self.0.first()? {
                b'"' => {
                    self.exact(b"\"")?;
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' | b',' if depth == 0 => return Some(None),
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.0 = self.0.get(1..)?;
        }
    }

    fn object(&mut self) -> Option<Said<'a>> {
        let mut said = Said::default();
        self.exact(b"{")?;
        if self.exact(b"}").is_some() {
            return Some(said);
        }
        loop {
            self.exact(b"\"")?;
            let key = self.string()?;
            self.exact(b":")?;
            let value = self.value()?;
            let place = match key {
                b"id" => Some(&mut said.id),
                b"time" => Some(&mut said.time),
                b"kind" => Some(&mut said.kind),
                b"partner_id" => Some(&mut said.partner),
                b"user_id" => Some(&mut said.user),
                b"action" => Some(&mut said.action),
                b"managed_tenant_id" => Some(&mut said.tenant),
                b"decision" => Some(&mut said.decision),
                b"request_id" => Some(&mut said.request),
                _ => None,
            };
            if let Some(place) = place {
                *place = value;
            }
            match self.0.split_first()? {
                (b',', rest) => self.0 = rest,
                (b'}', rest) => {
                    self.0 = rest;
                    return Some(said);
                }
                _ => return None,
            }
        }
    }
}
