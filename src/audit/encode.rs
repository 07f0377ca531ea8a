//! Which field of a record is visible to a managed tenant and which is private, and the bytes of both.
//!
//! A body is the part of a line that does not depend on its place in the chain: `"pub":{..},"priv":{..},"slices":[..]`.
//! It is written and hashed before the journal's lock is taken. *Visible* are exactly the fields of the contract's access
//! log; everything else is private and salted. `line` reads what this file writes.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{
    asked::write_asked,
    chain::{ChainId, Hash, Unplaced, private_digest_within, slice_digest},
    json::{self, Object, key},
    record::{ChangeRecord, Completion, Opening, USER_AGENT_MAX_BYTES},
    redact::redact_each,
};
use crate::domain::{DecisionId, Millis};

/// What a line is. The word is part of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineType {
    Open,
    Complete,
    Change,
    /// First line of a segment.
    Segment,
    /// What a start found and repaired.
    Recovery,
}

impl LineType {
    pub const ALL: [Self; 5] = [Self::Open, Self::Complete, Self::Change, Self::Segment, Self::Recovery];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Change => "change",
            Self::Segment => "segment",
            Self::Recovery => "recovery",
        }
    }
}

/// Fields of a change that a managed tenant may see; the rest is private.
pub(super) const VISIBLE_OF_CHANGE: [&str; 16] = [
    "id",
    "time",
    "kind",
    "partner_id",
    "partner_name",
    "user_id",
    "username",
    "action",
    "resource_type",
    "resource_id",
    "managed_tenant_id",
    "decision",
    "reason",
    "request_id",
    "client_ip",
    "user_agent",
];

/// The visible part of a `segment` line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentHeader {
    pub chain_id: ChainId,
    /// Number of the file, counted from 1.
    pub segment: u64,
    pub time: Millis,
    /// Of the lines that follow.
    pub format: u32,
    /// The outbox rows chained last, oldest first: enough of them to know after a crash which claimed rows are in.
    pub outbox: Vec<i64>,
    /// Records opened in earlier segments and not yet completed.
    pub open: Vec<DecisionId>,
}

/// Version of the line format that this build writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// The visible part of a `recovery` line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryNote {
    pub time: Millis,
    /// Where the torn tail began.
    pub cut_at: u64,
    pub cut_bytes: u64,
    /// Records that were open when the process ended; their `aborted` completions follow.
    pub aborted: u64,
}

type Slices = SmallVec<[Hash; 4]>;

/// Appends the body of an opening.
pub(super) fn opening(out: &mut Vec<u8>, from: &Opening<'_>) -> Unplaced {
    let visible = part(out, b"\"pub\":", |object| opening_visible(object, from));
    let private = part(out, b",\"priv\":", |object| opening_private(object, from));
    let private = match from.standing {
        Some(standing) => standing.private_digest(out.get(private).unwrap_or_default()),
        None => private_digest_within(out, private),
    };
    let mut slices = Slices::new();
    for slice in from.slices {
        let start = begin_slice(out, slices.is_empty());
        let mut object = Object::new(out);
        object.text(key!("managed_tenant_id"), &slice.managed_tenant_id);
        if let Some(link) = slice.link_id {
            object.uuid(key!("link_id"), link.0);
        }
        if let Some(version) = slice.link_version {
            object.signed(key!("link_version"), version.0);
        }
        object.word(key!("decision"), slice.decision.as_str());
        object.maybe_text(key!("reason"), slice.reason.as_deref());
        object.maybe_text(key!("status"), slice.status.as_deref());
        if let Some(link) = &slice.link {
            link.write(object.key(key!("link")));
        }
        object.salt();
        object.end();
        slices.push(slice_digest(out.get(start..).unwrap_or_default()));
    }
    seal(out, LineType::Open, visible, private, &slices)
}

fn opening_visible(object: &mut Object<'_>, from: &Opening<'_>) {
    object.uuid(key!("id"), from.id.0);
    object.time(key!("time"), from.time);
    // What is not said is `access`.
    if !from.kind.is_access() {
        object.word(key!("kind"), from.kind.as_str());
    }
    match from.standing {
        Some(standing) => object.members(standing.who()),
        None => opening_who(object, from),
    }
    object.maybe_text(key!("action"), from.action);
    object.text(key!("method"), from.method);
    let out = object.key(key!("path"));
    out.push(b'"');
    redact_each(from.path, |piece| json::pieces(out, piece));
    out.push(b'"');
    object.maybe_text(key!("resource_type"), from.resource_type);
    object.maybe_text(key!("resource_id"), from.resource_id);
    object.maybe_text(key!("managed_tenant_id"), from.managed_tenant_id);
    object.word(key!("decision"), from.decision.as_str());
    object.maybe_text(key!("reason"), from.reason);
    object.text(key!("request_id"), from.request_id);
    if let Some(ip) = from.client_ip {
        object.address(key!("client_ip"), ip);
    }
    object.maybe_text(key!("user_agent"), from.user_agent.map(bounded));
}

/// Who acts: visible, and the same in many records.
pub(super) fn opening_who(object: &mut Object<'_>, from: &Opening<'_>) {
    if let Some(partner) = from.partner_id {
        object.uuid(key!("partner_id"), partner.0);
    }
    object.maybe_text(key!("partner_name"), from.partner_name);
    object.maybe_text(key!("user_id"), from.user_id);
    object.maybe_text(key!("username"), from.username);
}

fn opening_private(object: &mut Object<'_>, from: &Opening<'_>) {
    match from.standing {
        Some(standing) => object.members(standing.private()),
        None => opening_terms(object, from),
    }
    if !from.near_misses.is_empty() {
        object.texts(key!("near_misses"), from.near_misses.iter().copied());
    }
    object.maybe_text(key!("trace_id"), from.trace_id);
    if let Some(shadow) = from.shadow {
        json::value(object.key(key!("shadow")), shadow);
    }
    if !from.waived.is_empty() {
        json::value(object.key(key!("waived")), &from.waived);
    }
    object.salt();
}

/// By what it was decided: private, and the same for requests of one caller under one link.
pub(super) fn opening_terms(object: &mut Object<'_>, from: &Opening<'_>) {
    object.maybe_text(key!("partner_tenant_id"), from.partner_tenant_id);
    object.maybe_text(key!("session_id"), from.session_id);
    object.maybe_text(key!("issuer"), from.issuer);
    if let Some(link) = from.link_id {
        object.uuid(key!("link_id"), link.0);
    }
    if let Some(version) = from.link_version {
        object.signed(key!("link_version"), version.0);
    }
    if !from.policies.is_empty() {
        object.texts(key!("policies"), from.policies.iter().map(AsRef::as_ref));
    }
    if !from.policy_version.is_empty() {
        object.text(key!("policy_version"), from.policy_version);
    }
    object.flag(key!("mfa"), from.mfa);
    if let Some(asked) = &from.asked {
        write_asked(object, asked, from.decision);
    }
}

/// Appends the body of a completion.
pub(super) fn completion(out: &mut Vec<u8>, id: DecisionId, from: &Completion) -> Unplaced {
    let visible = part(out, b"\"pub\":", |object| {
        object.uuid(key!("id"), id.0);
        if let Some(status) = from.status {
            object.number(key!("status"), u64::from(status));
        }
        if let Some(decision) = from.decision {
            object.word(key!("decision"), decision.as_str());
        }
        object.maybe_text(key!("reason"), from.reason.as_deref());
    });
    let private = part(out, b",\"priv\":", |object| {
        object.number(key!("bytes"), from.bytes);
        object.number(key!("duration_us"), from.duration_us);
        object.maybe_text(key!("upstream"), from.upstream.as_deref());
        object.flag(key!("aborted"), from.aborted);
        object.salt();
    });
    let mut slices = Slices::new();
    for slice in &from.slices {
        let start = begin_slice(out, slices.is_empty());
        let mut object = Object::new(out);
        object.text(key!("managed_tenant_id"), &slice.managed_tenant_id);
        object.text(key!("status"), &slice.status);
        object.salt();
        object.end();
        slices.push(slice_digest(out.get(start..).unwrap_or_default()));
    }
    let private = private_digest_within(out, private);
    seal(out, LineType::Complete, visible, private, &slices)
}

/// Appends the body of a change. `outbox` is the row that it comes from.
pub(super) fn change(
    out: &mut Vec<u8>,
    from: &ChangeRecord,
    outbox: Option<i64>,
) -> Result<Unplaced, serde_json::Error> {
    let serde_json::Value::Object(fields) = serde_json::to_value(from)? else { return Err(not_an_object()) };
    let (visible, private): (Vec<_>, Vec<_>) =
        fields.into_iter().partition(|(name, _)| VISIBLE_OF_CHANGE.contains(&name.as_str()));
    let mut failed = None;
    let mut write = |object: &mut Object<'_>, fields: Vec<(String, serde_json::Value)>| {
        for (name, mut value) in fields {
            if let ("user_agent", serde_json::Value::String(text)) = (name.as_str(), &mut value) {
                text.truncate(bounded(text).len());
            }
            failed = serde_json::to_writer(object.named(&name), &value).err().or(failed.take());
        }
    };
    let visible = part(out, b"\"pub\":", |object| write(object, visible));
    let private = part(out, b",\"priv\":", |object| {
        write(object, private);
        if let Some(seq) = outbox {
            object.signed(key!("outbox_seq"), seq);
        }
        object.salt();
    });
    match failed {
        None => {
            let private = private_digest_within(out, private);
            Ok(seal(out, LineType::Change, visible, private, &[]))
        }
        Some(error) => Err(error),
    }
}

/// Appends the body of a line that is all visible: a segment's header, a recovery note.
pub(super) fn plain(
    out: &mut Vec<u8>,
    line_type: LineType,
    from: &impl Serialize,
) -> Result<Unplaced, serde_json::Error> {
    out.extend_from_slice(b"\"pub\":");
    let start = out.len();
    serde_json::to_writer(&mut *out, from)?;
    let visible = start..out.len();
    let private = part(out, b",\"priv\":", |_| ());
    let private = private_digest_within(out, private);
    Ok(seal(out, line_type, visible, private, &[]))
}

fn not_an_object() -> serde_json::Error {
    serde::de::Error::custom("a change record is an object")
}

type Range = std::ops::Range<usize>;

fn part(out: &mut Vec<u8>, name: &[u8], fill: impl FnOnce(&mut Object<'_>)) -> Range {
    out.extend_from_slice(name);
    let start = out.len();
    let mut object = Object::new(out);
    fill(&mut object);
    object.end();
    start..out.len()
}

/// Opens the list or goes on with it; gives where the slice's own bytes begin.
fn begin_slice(out: &mut Vec<u8>, first: bool) -> usize {
    out.extend_from_slice(if first { b",\"slices\":[" } else { b"," });
    out.len()
}

fn seal(out: &mut Vec<u8>, line_type: LineType, visible: Range, private: Hash, slices: &[Hash]) -> Unplaced {
    if !slices.is_empty() {
        out.push(b']');
    }
    Unplaced::new(line_type.as_str(), out.get(visible).unwrap_or_default(), private, slices)
}

/// The longest prefix of whole characters that fits.
fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(USER_AGENT_MAX_BYTES)).unwrap_or_default()
}
