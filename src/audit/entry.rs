//! What one line says about a record: its parts as values.
//!
//! Reads what `encode` writes. The index, the export and `explain` see records only through this file.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use serde::Deserialize;

use super::{
    asked::{Other, Question, Shadow, if_known},
    chain::ChainId,
    decision::Decision,
    encode::LineType,
    joined::{Completed, Record},
    line::{Line, NotALine, read, unreadable},
    record::{ChangeRecord, Completion, Kind, Slice, SliceOutcome},
};
use crate::domain::{DecisionId, LinkId, LinkVersion, Millis, PartnerId};

/// What one line says about a record.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An opening or a change.
    Record(Box<Record>),
    Completed(Completed),
}

#[derive(Deserialize)]
struct OpenVisible {
    id: DecisionId,
    time: Millis,
    /// What is not said is `access`.
    #[serde(default)]
    kind: Kind,
    user_id: Option<String>,
    username: Option<String>,
    partner_id: Option<PartnerId>,
    partner_name: Option<String>,
    action: Option<String>,
    method: String,
    path: String,
    resource_type: Option<String>,
    resource_id: Option<String>,
    managed_tenant_id: Option<String>,
    decision: Decision,
    reason: Option<String>,
    request_id: String,
    client_ip: Option<IpAddr>,
    user_agent: Option<String>,
}

#[derive(Deserialize)]
struct OpenPrivate {
    partner_tenant_id: Option<String>,
    session_id: Option<String>,
    issuer: Option<String>,
    link_id: Option<LinkId>,
    link_version: Option<LinkVersion>,
    #[serde(default)]
    policies: Vec<String>,
    policy_version: Option<String>,
    #[serde(default)]
    near_misses: Vec<String>,
    trace_id: Option<String>,
    mfa: bool,
    #[serde(default, deserialize_with = "if_known")]
    asked: Option<Question>,
    shadow: Option<Shadow>,
    #[serde(default)]
    waived: Vec<Other>,
}

#[derive(Deserialize)]
struct CompleteVisible {
    id: DecisionId,
    status: Option<u16>,
    decision: Option<Decision>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct CompletePrivate {
    bytes: u64,
    duration_us: u64,
    upstream: Option<Arc<str>>,
    aborted: bool,
}

impl Line<'_> {
    /// What the line says about a record; `None` for `segment` and `recovery`.
    pub fn entry(&self, chain_id: ChainId) -> Result<Option<Entry>, NotALine> {
        Ok(match self.line_type {
            LineType::Open => Some(Entry::Record(Box::new(self.opening(chain_id)?))),
            LineType::Change => Some(Entry::Record(Box::new(self.change(chain_id)?))),
            LineType::Complete => Some(Entry::Completed(self.completion()?)),
            LineType::Segment | LineType::Recovery => None,
        })
    }

    fn opening(&self, chain_id: ChainId) -> Result<Record, NotALine> {
        let visible: OpenVisible = read(self.visible)?;
        let private: OpenPrivate = read(self.private)?;
        let slices = self.slices.iter().map(|slice| read::<Slice>(slice)).collect::<Result<_, _>>()?;
        Ok(Record {
            id: visible.id,
            time: visible.time,
            kind: visible.kind,
            user_id: visible.user_id,
            username: visible.username,
            partner_id: visible.partner_id,
            partner_name: visible.partner_name,
            partner_tenant_id: private.partner_tenant_id,
            session_id: private.session_id,
            issuer: private.issuer,
            action: visible.action,
            method: Some(visible.method),
            path: Some(visible.path),
            resource_type: visible.resource_type,
            resource_id: visible.resource_id,
            managed_tenant_id: visible.managed_tenant_id,
            link_id: private.link_id,
            link_version: private.link_version,
            decision: visible.decision,
            reason: visible.reason,
            policies: private.policies,
            policy_version: private.policy_version,
            near_misses: private.near_misses,
            status: None,
            bytes: None,
            duration_us: None,
            upstream: None,
            aborted: None,
            request_id: Some(visible.request_id),
            trace_id: private.trace_id,
            client_ip: visible.client_ip,
            user_agent: visible.user_agent,
            mfa: Some(private.mfa),
            slices,
            asked: private.asked,
            shadow: private.shadow,
            waived: private.waived,
            before: None,
            after: None,
            chain_id,
            opening: self.stamp(),
            completion: None,
        })
    }

    fn completion(&self) -> Result<Completed, NotALine> {
        let visible: CompleteVisible = read(self.visible)?;
        let private: CompletePrivate = read(self.private)?;
        let slices = self.slices.iter().map(|slice| read::<SliceOutcome>(slice)).collect::<Result<_, _>>()?;
        let completion = Completion {
            status: visible.status,
            bytes: private.bytes,
            duration_us: private.duration_us,
            upstream: private.upstream,
            aborted: private.aborted,
            decision: visible.decision,
            reason: visible.reason.map(Cow::Owned),
            slices,
        };
        Ok(Completed { id: visible.id, completion, stamp: self.stamp() })
    }

    fn change(&self, chain_id: ChainId) -> Result<Record, NotALine> {
        let mut fields: serde_json::Map<String, serde_json::Value> = read(self.visible)?;
        fields.extend(read::<serde_json::Map<String, serde_json::Value>>(self.private)?);
        let change: ChangeRecord = serde_json::from_value(fields.into()).map_err(unreadable)?;
        Ok(Record::from_change(change, chain_id, self.stamp()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        asked::{Asked, Holds},
        chain::{Unplaced, private_digest},
        encode,
        line::frame,
        record::Opening,
    };

    fn sample() -> (Vec<Slice>, Vec<Arc<str>>) {
        let slice = Slice {
            managed_tenant_id: "tenant \"é\"".to_owned(),
            link_id: Some(LinkId(uuid::Uuid::from_u128(9))),
            link_version: Some(LinkVersion(-3)),
            decision: Decision::Allow,
            reason: Some("r".to_owned()),
            status: None,
            link: Some(serde_json::from_str(r#"{"role":"auditor","start_ms":-1,"suspended":true}"#).unwrap()),
        };
        let other = Slice { managed_tenant_id: "t2".to_owned(), ..Slice::default() };
        (vec![slice, other], vec!["role/msp_full".into(), "guard \u{1}".into()])
    }

    fn opening<'a>(slices: &'a [Slice], policies: &'a [Arc<str>]) -> Opening<'a> {
        Opening {
            user_id: Some("u-1"),
            username: Some("Zoë \\ \"Q\""),
            partner_id: Some(PartnerId(uuid::Uuid::from_u128(7))),
            partner_name: Some("Acme\n"),
            partner_tenant_id: Some("home"),
            session_id: Some("s"),
            issuer: Some("https://id"),
            action: Some("partner.billing.read"),
            resource_type: Some("invoice"),
            resource_id: Some("inv/1"),
            managed_tenant_id: Some("t"),
            link_id: Some(LinkId(uuid::Uuid::from_u128(8))),
            link_version: Some(LinkVersion(i64::MAX)),
            decision: Decision::Allow,
            reason: Some("because"),
            policies,
            policy_version: "abc",
            near_misses: &["mfa_required"],
            trace_id: Some("0af7"),
            client_ip: Some("2001:db8::7".parse().unwrap()),
            user_agent: Some("curl/8"),
            mfa: true,
            slices,
            ..Opening::new(DecisionId::generate(), Millis(1_762_516_800_123), "GET", "/a?token=secret&x", "req_1")
        }
    }

    fn framed(line_type: LineType, body: impl FnOnce(&mut Vec<u8>) -> Unplaced) -> Vec<u8> {
        let mut bytes = Vec::new();
        let unplaced = body(&mut bytes);
        let prev = private_digest(b"prev");
        let (mut out, mut hex) = (Vec::new(), prev.to_hex());
        frame(&mut out, 42, line_type, prev, &mut hex, &bytes, unplaced);
        assert_eq!(out.pop(), Some(b'\n'));
        out
    }

    /// The hand-written serialiser agrees with serde_json on every field, and only the path differs (redacted).
    #[test]
    fn an_opening_reads_back_equal() {
        let (slices, policies) = sample();
        let opening = opening(&slices, &policies);
        let bytes = framed(LineType::Open, |out| encode::opening(out, &opening));
        let line = Line::parse(&bytes).unwrap();
        assert_eq!(line.computed_hash(), line.hash);
        let Some(Entry::Record(record)) = line.entry(ChainId(uuid::Uuid::nil())).unwrap() else { panic!() };
        let mut expected = serde_json::to_value(opening).unwrap();
        expected["path"] = "/a?token=_&_".into();
        let found = serde_json::to_value(&record).unwrap();
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&found[name], value, "{name}");
        }
        assert_eq!(found["kind"], "access");
        assert!(!std::str::from_utf8(&bytes).unwrap().contains("secret"));
    }

    /// What was asked is there again, and a part that a later version wrote hides only itself.
    #[test]
    fn what_was_asked_reads_back_and_a_later_form_of_it_hides_nothing_else() {
        let (slices, policies) = sample();
        let holds = Holds::of(&["partner_auditor".into()], &["partner.*".into()]);
        let asked = Asked {
            holds: &holds,
            user_suspended: true,
            switch_context: true,
            caller_only: false,
            class: "write",
            allowed: true,
            link: None,
        };
        let differs = Other { decision: Decision::Allow, policies: vec!["p".into()], ..Other::default() };
        let shadow = Shadow { version: "v".to_owned(), differs: vec![differs.clone()] };
        let opening = Opening {
            asked: Some(asked),
            decision: Decision::Deny,
            shadow: Some(&shadow),
            waived: std::slice::from_ref(&differs),
            ..opening(&slices, &policies)
        };
        let bytes = framed(LineType::Open, |out| encode::opening(out, &opening));
        let read = |bytes: &[u8]| {
            let Some(Entry::Record(record)) = Line::parse(bytes).unwrap().entry(ChainId(uuid::Uuid::nil())).unwrap()
            else {
                panic!()
            };
            record
        };
        let record = read(&bytes);
        let question = record.asked.unwrap();
        assert_eq!(question.holds.unwrap().roles, ["partner_auditor"]);
        assert!(question.user_suspended && question.switch_context && question.allowed);
        assert_eq!((question.class.as_str(), question.link), ("write", None));
        assert_eq!((record.shadow.unwrap(), record.waived), (shadow, vec![differs]));
        let later = String::from_utf8(bytes).unwrap().replacen("\"class\":\"write\"", "\"class\":{\"a\":1}", 1);
        let record = read(later.as_bytes());
        assert_eq!((record.asked, record.mfa), (None, Some(true)));
    }

    #[test]
    fn an_opening_without_anything_reads_back_too() {
        let opening = Opening::new(DecisionId::generate(), Millis(0), "GET", "/", "r");
        let bytes = framed(LineType::Open, |out| encode::opening(out, &opening));
        let line = Line::parse(&bytes).unwrap();
        let Some(Entry::Record(record)) = line.entry(ChainId(uuid::Uuid::nil())).unwrap() else { panic!() };
        assert_eq!((record.user_id, record.policies.len(), record.mfa), (None, 0, Some(false)));
        assert_eq!(record.decision, Decision::Deny);
    }

    #[test]
    fn a_completion_reads_back_equal() {
        let id = DecisionId::generate();
        let completion = Completion {
            status: Some(200),
            bytes: u64::MAX,
            duration_us: 0,
            upstream: Some("billing".into()),
            aborted: true,
            decision: Some(Decision::Deny),
            reason: Some("link_inactive".into()),
            slices: vec![SliceOutcome { managed_tenant_id: "t2".to_owned(), status: "ok".into() }],
        };
        let bytes = framed(LineType::Complete, |out| encode::completion(out, id, &completion));
        let line = Line::parse(&bytes).unwrap();
        assert_eq!(line.computed_hash(), line.hash);
        let Some(Entry::Completed(found)) = line.entry(ChainId(uuid::Uuid::nil())).unwrap() else { panic!() };
        assert_eq!(found, Completed { id, completion, stamp: line.stamp() });
    }

    #[test]
    fn a_change_reads_back_equal_and_shows_a_tenant_no_row() {
        let change = ChangeRecord {
            managed_tenant_id: Some("t".to_owned()),
            link_version: Some(LinkVersion(2)),
            user_agent: Some("é".repeat(200)),
            before: Some(serde_json::json!({"notes": "hidden", "billing_alert_threshold": 12.5})),
            ..ChangeRecord::new(Kind::Link, "link.update")
        };
        let bytes = framed(LineType::Change, |out| encode::change(out, &change, Some(17)).unwrap());
        let line = Line::parse(&bytes).unwrap();
        assert_eq!(line.computed_hash(), line.hash);
        assert_eq!(line.outbox_seq(), Ok(Some(17)));
        assert!(!line.visible.contains("hidden") && !line.visible.contains("link_version"));
        let Some(Entry::Record(record)) = line.entry(ChainId(uuid::Uuid::nil())).unwrap() else { panic!() };
        let cut = ChangeRecord { user_agent: Some("é".repeat(128)), ..change };
        assert_eq!(*record, Record::from_change(cut, record.chain_id, line.stamp()));
    }

    /// No byte can be changed, dropped or doubled without the line failing to parse or to hash.
    #[test]
    fn every_byte_counts() {
        let (slices, policies) = sample();
        let bytes = framed(LineType::Open, |out| encode::opening(out, &opening(&slices, &policies)));
        let holds = |bytes: &[u8]| Line::parse(bytes).is_ok_and(|line| line.computed_hash() == line.hash);
        assert!(holds(&bytes));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(!holds(&changed), "changed at {at}");
            let mut without = bytes.clone();
            without.remove(at);
            assert!(!holds(&without), "dropped at {at}");
            let mut more = bytes.clone();
            more.insert(at, b' ');
            assert!(!holds(&more), "space at {at}");
        }
    }
}
