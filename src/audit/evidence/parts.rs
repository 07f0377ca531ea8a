//! What a line stands for as a leaf, and how a line over several tenants is shown to one of them.
//!
//! The leaf of a line is its hash in the chain. A line with slices is about several tenants, and its visible part can name
//! what belongs to another one (a ticket, the tenant that was named). Such a line is therefore taken apart as well:
//!
//! - `whole`: the visible part as written, for who may see all of it;
//! - `common`: the visible part without what may be another tenant's, for everyone in the record;
//! - each `slice` as written, for its own tenant.
//!
//! Each part enters by a digest with a salt of its own, which is made from the line's private part and tells nothing of
//! it; the digests are the leaves of a small tree, and the line's leaf is its hash followed by that tree's root. The nodes of
//! the small tree do not say which child is left, and all ways in it are equally long (ten hashes for up to 1,022 tenants),
//! filled with salted hashes of nothing: who is shown a part learns neither its place nor how many others there are.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::tree::{HASH_BYTES, leaf, sha256};
use crate::audit::{
    chain::{Hash, private_digest},
    encode::LineType,
    line::{Line, NotALine},
};

const SALT: &[u8] = b"linkgate audit salt 1\n";
const PART: &[u8] = b"linkgate audit part 1\n";
const EMPTY: &[u8] = b"linkgate audit empty 1\n";
/// Begins a node of the small tree; those of the large one begin with 1.
const NODE: &[u8] = &[2];
/// Levels of the small tree at least.
const LEVELS: usize = 10;

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Whole,
    Common,
    Slice,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Whole, Self::Common, Self::Slice];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Common => "common",
            Self::Slice => "slice",
        }
    }
}

/// A part as it can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub kind: Kind,
    pub salt: Hash,
    pub text: String,
}

impl Part {
    pub fn digest(&self) -> Hash {
        sha256(&[PART, self.kind.as_str().as_bytes(), b"\n", &self.salt.0, self.text.as_bytes()])
    }
}

/// The parts of a line, and the small tree over them.
#[derive(Debug)]
pub struct Parts {
    parts: Vec<Part>,
    /// From the digests up; each level but the last has an even number of nodes.
    levels: Vec<Vec<Hash>>,
}

impl Parts {
    /// `None` where the line has no slices: it is about one tenant at most, and needs no taking apart.
    pub fn of(line: &Line<'_>) -> Result<Option<Self>, NotALine> {
        if line.slices.is_empty() {
            return Ok(None);
        }
        let private = private_digest(line.private.as_bytes());
        let mut parts: Vec<Part> = Vec::with_capacity(line.slices.len() + 2);
        let mut add = |kind: Kind, text: String| {
            let number = u64::try_from(parts.len()).unwrap_or(u64::MAX).to_be_bytes();
            parts.push(Part { kind, salt: sha256(&[SALT, &private.0, &number]), text });
        };
        add(Kind::Whole, line.visible.to_owned());
        if line.line_type == LineType::Open {
            add(Kind::Common, common(line.visible)?);
        }
        line.slices.iter().for_each(|slice| add(Kind::Slice, (*slice).to_owned()));
        let digests = parts.iter().map(Part::digest).collect();
        Ok(Some(Self { parts, levels: levels(digests, private) }))
    }

    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|top| top.first()).copied().unwrap_or_default()
    }

    /// The parts that `wanted` takes, each with its way to the root.
    pub fn shown(&self, wanted: impl Fn(&Part) -> bool) -> Vec<(Part, Vec<Hash>)> {
        let taken = self.parts.iter().enumerate().filter(|(_, part)| wanted(part));
        taken.map(|(at, part)| (part.clone(), self.way(at))).collect()
    }

    fn way(&self, mut at: usize) -> Vec<Hash> {
        let mut way = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            way.extend(level.get(at ^ 1));
            at >>= 1;
        }
        way
    }
}

/// A parent says nothing of which child is which.
fn parent(a: &Hash, b: &Hash) -> Hash {
    let (low, high) = if a.0 <= b.0 { (a, b) } else { (b, a) };
    sha256(&[NODE, &low.0, &high.0])
}

/// Where a part and its way lead.
pub fn climb(digest: Hash, way: &[Hash]) -> Hash {
    way.iter().fold(digest, |hash, beside| parent(&hash, beside))
}

fn levels(digests: Vec<Hash>, private: Hash) -> Vec<Vec<Hash>> {
    let mut levels = Vec::with_capacity(LEVELS + 1);
    let mut level = digests;
    while level.len() > 1 || levels.len() < LEVELS {
        if level.len() % 2 == 1 {
            let number = u64::try_from(levels.len()).unwrap_or(u64::MAX).to_be_bytes();
            level.push(sha256(&[EMPTY, &private.0, &number]));
        }
        let above = level.as_chunks::<2>().0.iter().map(|[a, b]| parent(a, b)).collect();
        levels.push(std::mem::replace(&mut level, above));
    }
    levels.push(level);
    levels
}

/// What the leaf of a line is made from: its hash, and the root over its parts if it has any.
pub fn leaf_of(hash: Hash, parts: Option<Hash>) -> Hash {
    match parts {
        None => leaf(&hash.0),
        Some(root) => {
            let mut entry = [0; 2 * HASH_BYTES];
            entry.iter_mut().zip(hash.0.iter().chain(&root.0)).for_each(|(to, from)| *to = *from);
            leaf(&entry)
        }
    }
}

/// What a reader needs to know of a line to go on along the chain.
#[derive(Clone, Copy, Debug)]
pub struct Sighted {
    pub seq: u64,
    pub prev: Hash,
    pub hash: Hash,
    pub leaf: Hash,
}

impl Sighted {
    /// Takes the line's own word for its hash; only lines with slices are read further. `line` without its newline.
    pub fn of(line: &[u8]) -> Result<Self, NotALine> {
        let place = place(line).ok_or_else(|| NotALine("it has not the form of one".to_owned()))?;
        let parts = match line.ends_with(b"]}") {
            true => Parts::of(&Line::parse(line)?)?.map(|parts| parts.root()),
            false => None,
        };
        let (seq, prev, hash) = place;
        Ok(Self { seq, prev, hash, leaf: leaf_of(hash, parts) })
    }
}

/// Place and hashes, which stand at the beginning of a line.
fn place(line: &[u8]) -> Option<(u64, Hash, Hash)> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (seq, rest) = rest.split_at_checked(digits)?;
    let rest = rest.strip_prefix(b",\"type\":\"")?;
    let word = rest.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    let rest = rest.get(word..)?.strip_prefix(b"\",\"prev\":\"")?;
    let (prev, rest) = rest.split_at_checked(2 * HASH_BYTES)?;
    let rest = rest.strip_prefix(b"\",\"hash\":\"")?;
    let (hash, rest) = rest.split_at_checked(2 * HASH_BYTES)?;
    rest.starts_with(b"\",\"pub\":").then_some(())?;
    let seq = std::str::from_utf8(seq).ok()?.parse().ok()?;
    Some((seq, Hash::from_hex(prev).ok()?, Hash::from_hex(hash).ok()?))
}

/// Fields of an opening that everyone in the record may see as they are.
const COMMON: [&str; 13] = [
    "id",
    "time",
    "partner_id",
    "partner_name",
    "user_id",
    "username",
    "action",
    "method",
    "resource_type",
    "decision",
    "request_id",
    "client_ip",
    "user_agent",
];

/// The members of a JSON object, in their order, as written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Each)
    }
}

/// The visible part of an opening without what may be another tenant's: the resource, in the path too, the tenant that was
/// named, and the reason of an answer that is not the same for all.
fn common(visible: &str) -> Result<String, NotALine> {
    let unreadable = |error: serde_json::Error| NotALine(format!("a part cannot be read: {error}"));
    let Members(members) = serde_json::from_str(visible).map_err(unreadable)?;
    let raw = |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, value)| value.get());
    let text = |name: &str| raw(name).map(serde_json::from_str::<String>).transpose().map_err(unreadable);
    let denied = text("decision")?.as_deref() == Some("deny");
    let resource = text("resource_id")?;
    let mut shown: Vec<String> = Vec::new();
    for (name, value) in &members {
        let value = match name.as_str() {
            "path" => {
                let path = text("path")?.unwrap_or_default();
                serde_json::to_string(&without(&path, resource.as_deref())).map_err(unreadable)?
            }
            "reason" if denied => value.get().to_owned(),
            name if COMMON.contains(&name) => value.get().to_owned(),
            _ => continue,
        };
        shown.push(format!("\"{name}\":{value}"));
    }
    Ok(format!("{{{}}}", shown.join(",")))
}

/// The path with `_` for each segment that names the resource.
pub fn without(path: &str, resource: Option<&str>) -> String {
    let Some(resource) = resource else { return path.to_owned() };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let names = |segment: &str| segment == resource || decoded(segment.as_bytes()) == resource.as_bytes();
    let segments: Vec<&str> = path.split('/').map(|segment| if names(segment) { "_" } else { segment }).collect();
    let path = segments.join("/");
    query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"))
}

/// Percent-decoded once; what is no encoding stays as it is.
fn decoded(mut text: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    while let [first, rest @ ..] = text {
        let (byte, rest) = match rest {
            [high, low, rest @ ..] if *first == b'%' => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => (high << 4 | low, rest),
                _ => (*first, text.get(1..).unwrap_or_default()),
            },
            _ => (*first, rest),
        };
        out.push(byte);
        text = rest;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{
            decision::Decision,
            encode,
            line::frame,
            record::{Completion, Opening, Slice, SliceOutcome},
        },
        domain::{DecisionId, Millis},
    };

    fn slices(count: usize) -> Vec<Slice> {
        let slice = |n| Slice { managed_tenant_id: format!("tenant-{n}"), ..Slice::default() };
        (0..count).map(slice).collect()
    }

    fn opening(slices: &[Slice], named: Option<&str>) -> Vec<u8> {
        let opening = Opening {
            session_id: Some("secret-session"),
            resource_type: Some("tickets"),
            resource_id: Some("theirs 1"),
            managed_tenant_id: named,
            decision: Decision::Allow,
            reason: Some("secret-reason"),
            slices,
            ..Opening::new(DecisionId::generate(), Millis(0), "PATCH", "/api/tickets/theirs%201/x?q=1", "req_1")
        };
        framed(LineType::Open, |out| encode::opening(out, &opening))
    }

    fn framed(line_type: LineType, body: impl FnOnce(&mut Vec<u8>) -> crate::audit::chain::Unplaced) -> Vec<u8> {
        let (mut bytes, mut out, mut hex) = (Vec::new(), Vec::new(), Hash::GENESIS.to_hex());
        let unplaced = body(&mut bytes);
        frame(&mut out, 3, line_type, Hash::GENESIS, &mut hex, &bytes, unplaced);
        assert_eq!(out.pop(), Some(b'\n'));
        out
    }

    #[test]
    fn a_line_of_one_tenant_stands_for_its_hash() {
        let bytes = opening(&[], Some("t"));
        let line = Line::parse(&bytes).unwrap();
        assert!(Parts::of(&line).unwrap().is_none());
        let seen = Sighted::of(&bytes).unwrap();
        assert_eq!((seen.seq, seen.prev, seen.hash), (3, Hash::GENESIS, line.hash));
        assert_eq!(seen.leaf, leaf(&line.hash.0));
        assert!(Sighted::of(b"{}").is_err());
    }

    #[test]
    fn every_part_leads_to_the_root_by_an_equally_long_way() {
        for count in [1, 2, 3, 7, 300, 1_022] {
            let all = slices(count);
            let bytes = opening(&all, None);
            let line = Line::parse(&bytes).unwrap();
            let parts = Parts::of(&line).unwrap().unwrap();
            let shown = parts.shown(|_| true);
            assert_eq!(shown.len(), count + 2);
            for (part, way) in &shown {
                assert_eq!((climb(part.digest(), way), way.len()), (parts.root(), LEVELS), "{count}");
                let other = Part { text: part.text.replacen("tenant", "Tenant", 1) + " ", ..part.clone() };
                assert_ne!(climb(other.digest(), way), parts.root());
                let other = Part { kind: Kind::ALL[(part.kind as usize + 1) % 3], ..part.clone() };
                assert_ne!(climb(other.digest(), way), parts.root(), "a part of another kind");
            }
            assert_eq!(Sighted::of(&bytes).unwrap().leaf, leaf_of(line.hash, Some(parts.root())));
        }
        let bytes = opening(&slices(1_023), None);
        let more = Parts::of(&Line::parse(&bytes).unwrap()).unwrap().unwrap();
        assert!(more.shown(|_| true).iter().all(|(_, way)| way.len() == LEVELS + 1));
    }

    #[test]
    fn what_everyone_sees_names_nothing_of_others() {
        let bytes = opening(&slices(2), Some("tenant-0"));
        let parts = Parts::of(&Line::parse(&bytes).unwrap()).unwrap().unwrap();
        let common = &parts.shown(|part| part.kind == Kind::Common)[0].0.text;
        for secret in ["theirs", "tenant-", "secret", "salt"] {
            assert!(!common.contains(secret), "{common}");
        }
        assert!(common.contains("\"path\":\"/api/tickets/_/x?q=_\"") && common.contains("\"request_id\":\"req_1\""));
        let whole = &parts.shown(|part| part.kind == Kind::Whole)[0].0.text;
        assert!(whole.contains("theirs 1") && whole.contains("\"managed_tenant_id\":\"tenant-0\""));
        let salts: std::collections::HashSet<_> = parts.shown(|_| true).iter().map(|(part, _)| part.salt).collect();
        assert_eq!(salts.len(), 4);
    }

    #[test]
    fn a_completion_shows_the_same_to_all() {
        let slices = vec![SliceOutcome { managed_tenant_id: "t".to_owned(), status: "ok".into() }];
        let completion = Completion { status: Some(200), slices, ..Completion::default() };
        let bytes = framed(LineType::Complete, |out| encode::completion(out, DecisionId::generate(), &completion));
        let parts = Parts::of(&Line::parse(&bytes).unwrap()).unwrap().unwrap();
        let kinds: Vec<Kind> = parts.shown(|_| true).iter().map(|(part, _)| part.kind).collect();
        assert_eq!(kinds, [Kind::Whole, Kind::Slice]);
    }

    #[test]
    fn a_denied_records_reason_is_the_same_for_all() {
        let denied = r#"{"decision":"deny","reason":"access_suspended","new_field":1}"#;
        assert_eq!(common(denied).unwrap(), r#"{"decision":"deny","reason":"access_suspended"}"#);
        assert!(common("[]").is_err());
        assert_eq!(without("/a/b%20c/d", None), "/a/b%20c/d");
        assert_eq!(without("/a/%7a%2/z%2/z", Some("z%2")), "/a/_/_/z", "what is no encoding is compared as it is");
    }
}
