//! The joined record: opening and completion as one, the form that queries, exports and `explain` show.
//!
//! Read from journal lines by `line`; stored in the index by the store room through `traits::IndexSink`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    asked::{Other, Question, Shadow},
    chain::{ChainId, Stamp},
    decision::Decision,
    record::{ChangeRecord, Completion, Kind, Slice},
};
use crate::domain::{DecisionId, LinkId, LinkVersion, Millis, PartnerId};

/// One audit record, with every field of the contract's section 10. A field that is not known is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Record {
    pub id: DecisionId,
    pub time: Millis,
    pub kind: Kind,
    pub user_id: Option<String>,
    pub username: Option<String>,
    pub partner_id: Option<PartnerId>,
    pub partner_name: Option<String>,
    pub partner_tenant_id: Option<String>,
    pub session_id: Option<String>,
    pub issuer: Option<String>,
    pub action: Option<String>,
    pub method: Option<String>,
    pub path: Option<String>,
    pub resource_type: Option<String>,
    pub resource_id: Option<String>,
    pub managed_tenant_id: Option<String>,
    pub link_id: Option<LinkId>,
    #[schemars(with = "Option<i64>")]
    pub link_version: Option<LinkVersion>,
    pub decision: Decision,
    pub reason: Option<String>,
    pub policies: Vec<String>,
    pub policy_version: Option<String>,
    pub near_misses: Vec<String>,
    pub status: Option<u16>,
    pub bytes: Option<u64>,
    pub duration_us: Option<u64>,
    pub upstream: Option<String>,
    /// `None` while the request is still open.
    pub aborted: Option<bool>,
    pub request_id: Option<String>,
    pub trace_id: Option<String>,
    pub client_ip: Option<IpAddr>,
    pub user_agent: Option<String>,
    pub mfa: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<serde_json::Value>")]
    pub slices: Vec<Slice>,
    /// What the policies were asked with: what a replay needs beside the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub asked: Option<Question>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub shadow: Option<Shadow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<serde_json::Value>")]
    pub waived: Vec<Other>,
    /// Changes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
    #[schemars(with = "String")]
    pub chain_id: ChainId,
    /// Where the opening (or the change) stands in the chain.
    #[schemars(with = "serde_json::Value")]
    pub opening: Stamp,
    /// `None` while the request is open, and for changes.
    #[schemars(with = "Option<serde_json::Value>")]
    pub completion: Option<Stamp>,
}

/// A completion read back from the journal, to be joined to the record with this id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    pub id: DecisionId,
    pub completion: Completion,
    pub stamp: Stamp,
}

impl Record {
    /// Whether nothing more will come: completed, or a change.
    pub fn is_whole(&self) -> bool {
        // Openings have a method; changes are one line.
        self.completion.is_some() || self.method.is_none()
    }

    /// Joins a completion. The caller has matched the ids.
    pub fn complete(&mut self, with: Completed) {
        let Completed { completion, stamp, id: _ } = with;
        self.status = completion.status;
        self.bytes = Some(completion.bytes);
        self.duration_us = Some(completion.duration_us);
        self.upstream = completion.upstream.as_deref().map(str::to_owned);
        self.aborted = Some(completion.aborted);
        if let Some(decision) = completion.decision {
            self.decision = decision;
        }
        if let Some(reason) = completion.reason {
            self.reason = Some(reason.into_owned());
        }
        join_slices(&mut self.slices, completion.slices);
        self.completion = Some(stamp);
    }

    /// A change as a record.
    pub fn from_change(change: ChangeRecord, chain_id: ChainId, stamp: Stamp) -> Self {
        Self {
            id: change.id,
            time: change.time,
            kind: change.kind,
            user_id: change.user_id,
            username: change.username,
            partner_id: change.partner_id,
            partner_name: change.partner_name,
            partner_tenant_id: change.partner_tenant_id,
            session_id: change.session_id,
            issuer: None,
            action: Some(change.action),
            method: None,
            path: None,
            resource_type: change.resource_type,
            resource_id: change.resource_id,
            managed_tenant_id: change.managed_tenant_id,
            link_id: change.link_id,
            link_version: change.link_version,
            decision: change.decision,
            reason: change.reason,
            policies: Vec::new(),
            policy_version: change.policy_version,
            near_misses: Vec::new(),
            status: None,
            bytes: None,
            duration_us: None,
            upstream: None,
            aborted: None,
            request_id: change.request_id,
            trace_id: change.trace_id,
            client_ip: change.client_ip,
            user_agent: change.user_agent,
            mfa: None,
            slices: Vec::new(),
            asked: None,
            shadow: None,
            waived: Vec::new(),
            before: change.before,
            after: change.after,
            chain_id,
            opening: stamp,
            completion: None,
        }
    }
}

/// A slice that only the completion names is added as a denial without a link, rather than lost.
fn join_slices(slices: &mut Vec<Slice>, outcomes: Vec<super::record::SliceOutcome>) {
    if outcomes.is_empty() {
        return;
    }
    let mut places: std::collections::HashMap<String, usize, ahash::RandomState> =
        slices.iter().enumerate().map(|(at, slice)| (slice.managed_tenant_id.clone(), at)).collect();
    for outcome in outcomes {
        let status = Some(outcome.status.into_owned());
        match places.get(&outcome.managed_tenant_id).and_then(|at| slices.get_mut(*at)) {
            Some(slice) => slice.status = status,
            None => {
                places.insert(outcome.managed_tenant_id.clone(), slices.len());
                slices.push(Slice { managed_tenant_id: outcome.managed_tenant_id, status, ..Slice::default() });
            }
        }
    }
}

/// What `audit query`, `audit export` and the tenant's access log ask for. An empty filter matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    pub id: Option<DecisionId>,
    pub request_id: Option<String>,
    pub partner_id: Option<PartnerId>,
    /// The managed tenant itself, or any slice's.
    pub managed_tenant_id: Option<String>,
    pub user_id: Option<String>,
    /// Exact.
    pub action: Option<String>,
    pub decision: Option<Decision>,
    pub kind: Option<Kind>,
    /// `from <= time`.
    pub from: Option<Millis>,
    /// `time < to`.
    pub to: Option<Millis>,
    /// The most records to answer with; `None`: no bound (export only; a query source must set one of its own).
    pub limit: Option<usize>,
    pub offset: usize,
}

impl RecordFilter {
    /// The same rule that an index applies in SQL, `limit` and `offset` aside.
    pub fn matches(&self, record: &Record) -> bool {
        fn fits<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none_or(|wanted| found == Some(wanted))
        }
        let tenant = |wanted: &String| {
            record.managed_tenant_id.as_ref() == Some(wanted)
                || record.slices.iter().any(|slice| slice.managed_tenant_id == *wanted)
        };
        fits(self.id.as_ref(), Some(&record.id))
            && fits(self.request_id.as_ref(), record.request_id.as_ref())
            && fits(self.partner_id.as_ref(), record.partner_id.as_ref())
            && self.managed_tenant_id.as_ref().is_none_or(tenant)
            && fits(self.user_id.as_ref(), record.user_id.as_ref())
            && fits(self.action.as_ref(), record.action.as_ref())
            && fits(self.decision.as_ref(), Some(&record.decision))
            && fits(self.kind.as_ref(), Some(&record.kind))
            && self.from.is_none_or(|from| from <= record.time)
            && self.to.is_none_or(|to| record.time < to)
    }
}
