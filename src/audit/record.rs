//! What one audit record says: the opening written before the act, the completion after it, and changes.
//!
//! Names are those of the contract's section 10. The request path builds an [`Opening`] that only borrows, so writing a
//! record costs no allocation; what is read back ([`super::joined::Record`]) owns its text. A field is either *visible*
//! (a managed tenant sees it in its access log) or *private*; `encode` decides which, and the chain covers private
//! fields and slices by salted digests.
//!
//! This file does not write or read anything.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    asked::{Asked, Other, RecordedLink, Shadow, if_known},
    decision::Decision,
    standing::Standing,
};
use crate::domain::{DecisionId, LinkId, LinkVersion, Millis, PartnerId};

/// What a record is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A request.
    #[default]
    Access,
    /// A link, partner or partner user was changed.
    Link,
    /// A policy set was loaded or refused.
    Policy,
    /// A configuration was loaded or refused.
    Config,
    /// An act of an operator, such as an emergency suspension.
    Admin,
}

impl Kind {
    pub fn is_access(&self) -> bool {
        *self == Self::Access
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Link => "link",
            Self::Policy => "policy",
            Self::Config => "config",
            Self::Admin => "admin",
        }
    }
}

/// Longest `user_agent` kept, in bytes.
pub const USER_AGENT_MAX_BYTES: usize = 256;

/// A request's record as it is known before the act.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Opening<'a> {
    /// What `X-Decision-Id` carries.
    pub id: DecisionId,
    pub time: Millis,
    /// `access`, or `admin` for a call of the admin API.
    #[serde(skip_serializing_if = "Kind::is_access")]
    pub kind: Kind,
    /// The token's `sub`.
    pub user_id: Option<&'a str>,
    pub username: Option<&'a str>,
    pub partner_id: Option<PartnerId>,
    pub partner_name: Option<&'a str>,
    pub partner_tenant_id: Option<&'a str>,
    pub session_id: Option<&'a str>,
    /// The token's `iss`: `user_id` is unique only within it.
    pub issuer: Option<&'a str>,
    /// The permission's name; `home` or `public` where a route has none.
    pub action: Option<&'a str>,
    pub method: &'a str,
    /// Path and query as received; query values are redacted when the record is written.
    pub path: &'a str,
    pub resource_type: Option<&'a str>,
    pub resource_id: Option<&'a str>,
    /// `None` for home and consolidated requests.
    pub managed_tenant_id: Option<&'a str>,
    pub link_id: Option<LinkId>,
    pub link_version: Option<LinkVersion>,
    pub decision: Decision,
    pub reason: Option<&'a str>,
    /// Ids of the determining policies.
    pub policies: &'a [Arc<str>],
    pub policy_version: &'a str,
    /// Further gates that were closed too, for `linkgate explain`.
    pub near_misses: &'a [&'a str],
    pub request_id: &'a str,
    pub trace_id: Option<&'a str>,
    pub client_ip: Option<IpAddr>,
    /// Cut to [`USER_AGENT_MAX_BYTES`] when the record is written.
    pub user_agent: Option<&'a str>,
    pub mfa: bool,
    /// One for each tenant of a consolidated request, cached ones included.
    pub slices: &'a [Slice],
    /// What the policies were asked with; `None` where they were not asked.
    #[serde(skip)]
    pub asked: Option<Asked<'a>>,
    /// What the shadow set said, where there is one.
    pub shadow: Option<&'a Shadow>,
    /// What the policies refused and was let through because they are not enforced.
    #[serde(skip_serializing_if = "<[Other]>::is_empty")]
    pub waived: &'a [Other],
    /// What of it was written before, for a record that says the same.
    #[serde(skip)]
    pub standing: Option<&'a Standing>,
}

impl<'a> Opening<'a> {
    /// A denial of which nothing else is known yet; fill the rest by struct update.
    pub fn new(id: DecisionId, time: Millis, method: &'a str, path: &'a str, request_id: &'a str) -> Self {
        Self {
            id,
            time,
            kind: Kind::Access,
            user_id: None,
            username: None,
            partner_id: None,
            partner_name: None,
            partner_tenant_id: None,
            session_id: None,
            issuer: None,
            action: None,
            method,
            path,
            resource_type: None,
            resource_id: None,
            managed_tenant_id: None,
            link_id: None,
            link_version: None,
            decision: Decision::Deny,
            reason: None,
            policies: &[],
            policy_version: "",
            near_misses: &[],
            request_id,
            trace_id: None,
            client_ip: None,
            user_agent: None,
            mfa: false,
            slices: &[],
            asked: None,
            shadow: None,
            waived: &[],
            standing: None,
        }
    }
}

/// One tenant's part of a consolidated request. Another tenant sees no more of it than a salted digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    pub managed_tenant_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_id: Option<LinkId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_version: Option<LinkVersion>,
    pub decision: Decision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `ok`, `stale`, `timeout`, `error`, `forbidden`, `truncated`; unknown before the completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The link's terms, where the policies were asked about them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "if_known")]
    pub link: Option<RecordedLink>,
}

/// How one slice ended; joined to its [`Slice`] by tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceOutcome {
    pub managed_tenant_id: String,
    pub status: Cow<'static, str>,
}

/// What became of an opened record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The HTTP status that the client got; `None` where no answer was sent.
    pub status: Option<u16>,
    /// Response body bytes sent to the client.
    pub bytes: u64,
    pub duration_us: u64,
    /// Name of the upstream that was called.
    pub upstream: Option<Arc<str>>,
    /// The request or its answer ended before its end.
    pub aborted: bool,
    /// Set only where the outcome overturns the opening's decision (a refusal after it was opened).
    pub decision: Option<Decision>,
    /// Set only where the outcome adds or overturns a reason (`access_suspended` for a stream that was cut).
    pub reason: Option<Cow<'static, str>>,
    pub slices: Vec<SliceOutcome>,
}

/// A change of links, policies, configuration or by an operator. One line in the chain, always at `disk` level.
///
/// Serialisable, because the outbox stores it until a server chains it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    pub id: DecisionId,
    pub time: Millis,
    pub kind: Kind,
    /// Who: a token's `sub`, or the operating system's user name for the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner_id: Option<PartnerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner_tenant_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// What was done: `link.create`, `link.revoke`, `policy.load`.
    pub action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_tenant_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_id: Option<LinkId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_version: Option<LinkVersion>,
    /// `deny` for an attempt that was refused (a bad policy set).
    pub decision: Decision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The row before; private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// The row after; private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

impl ChangeRecord {
    /// A change that was made, now, with nothing but its name; fill the rest by struct update.
    pub fn new(kind: Kind, action: impl Into<String>) -> Self {
        Self {
            id: DecisionId::generate(),
            time: Millis::now(),
            kind,
            user_id: None,
            username: None,
            partner_id: None,
            partner_name: None,
            partner_tenant_id: None,
            session_id: None,
            action: action.into(),
            resource_type: None,
            resource_id: None,
            managed_tenant_id: None,
            link_id: None,
            link_version: None,
            decision: Decision::Allow,
            reason: None,
            policy_version: None,
            request_id: None,
            trace_id: None,
            client_ip: None,
            user_agent: None,
            before: None,
            after: None,
        }
    }
}

/// One change waiting to be chained.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    /// The outbox's own sequence number; unique in the database.
    pub seq: i64,
    pub change: ChangeRecord,
}
