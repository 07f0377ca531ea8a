//! What many records say alike, written and hashed once: who acts, and by what terms it was decided.
//!
//! One caller's requests under one link differ in time, path and ids. The rest is some eight hundred bytes a record, of which
//! most are private and stand at the beginning of their part, so that their digest goes on where this one ended. Whoever
//! keeps a `Standing` has to make a new one when anything of it changes: `encode` takes its word for all that it holds.

use std::fmt;

use super::{
    chain::{BegunPrivate, Hash},
    encode::{opening_terms, opening_who},
    json::Object,
    record::Opening,
};

/// Made from the opening of an allowed request, for others with the same caller, link, policies and question.
pub struct Standing {
    /// Members of objects, without braces: who acts, and behind it the terms.
    members: Box<[u8]>,
    who: usize,
    begun: BegunPrivate,
}

impl Standing {
    pub fn of(opening: &Opening<'_>) -> Self {
        let mut members = written(opening, opening_who);
        let who = members.len();
        let terms = written(opening, opening_terms);
        let begun = BegunPrivate::new(&[b"{", &*terms].concat());
        members.extend_from_slice(&terms);
        Self { members: members.into(), who, begun }
    }

    pub(super) fn who(&self) -> &[u8] {
        self.members.get(..self.who).unwrap_or_default()
    }

    pub(super) fn private(&self) -> &[u8] {
        self.members.get(self.who..).unwrap_or_default()
    }

    /// Of a whole private part that begins with this one's members.
    pub(super) fn private_digest(&self, part: &[u8]) -> Hash {
        self.begun.ended(part.get(1 + self.private().len()..).unwrap_or_default())
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("bytes", &self.members.len()).finish_non_exhaustive()
    }
}

fn written(opening: &Opening<'_>, fill: fn(&mut Object<'_>, &Opening<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::new(&mut out);
    fill(&mut object, opening);
    out.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{
            decision::Decision,
            encode::{self, LineType},
            line::{Line, frame},
            record::Slice,
        },
        domain::{DecisionId, LinkId, LinkVersion, Millis, PartnerId},
    };

    fn line(opening: &Opening<'_>) -> Vec<u8> {
        let (mut body, mut out, mut hex) = (Vec::new(), Vec::new(), Hash::GENESIS.to_hex());
        let unplaced = encode::opening(&mut body, opening);
        frame(&mut out, 1, LineType::Open, Hash::GENESIS, &mut hex, &body, unplaced);
        assert_eq!(out.pop(), Some(b'\n'));
        out
    }

    /// All but the salts, which differ from record to record.
    fn said(line: &Line<'_>) -> Vec<String> {
        let parts = [line.visible, line.private].into_iter().chain(line.slices.iter().copied());
        parts.map(|part| part.split("\"salt\":").next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_record_is_the_same_with_and_without() {
        let id = DecisionId::generate();
        let bare = Opening::new(id, Millis(1), "GET", "/a", "req_1");
        let slices = [Slice { managed_tenant_id: "t".into(), ..Slice::default() }];
        let full = Opening {
            partner_id: Some(PartnerId(id.0)),
            partner_name: Some("A \"B\""),
            user_id: Some("u"),
            username: Some("n"),
            session_id: Some("s"),
            issuer: Some("i"),
            partner_tenant_id: Some("home"),
            link_id: Some(LinkId(id.0)),
            link_version: Some(LinkVersion(3)),
            policy_version: "v",
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            near_misses: &["expired"],
            mfa: true,
            decision: Decision::Allow,
            ..bare
        };
        for opening in [bare, full, Opening { slices: &slices, ..full }] {
            let standing = Standing::of(&opening);
            let (plain, short) = (line(&opening), line(&Opening { standing: Some(&standing), ..opening }));
            let (plain, short) = (Line::parse(&plain).unwrap(), Line::parse(&short).unwrap());
            assert_eq!(said(&plain), said(&short));
            assert_eq!([plain.hash, short.hash], [plain.computed_hash(), short.computed_hash()]);
            assert_ne!(plain.hash, short.hash, "each record has a salt of its own");
        }
    }
}
