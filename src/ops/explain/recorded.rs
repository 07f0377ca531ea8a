//! A record's decisions, ready to be made again: by `policy replay` for all of them, by `explain` for one.
//!
//! The facts are the record's own, never looked up: what a link or a user has become since must not change what was
//! decided. What an older version did not record, or a later one wrote in a form that this one does not know, is told as
//! missing and never guessed.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::{
    audit::{
        Decision, Record, Slice,
        asked::{Claims, Other, Question},
        sweep::Opened,
    },
    domain::{Case, LinkId, LinkVersion, Millis, PartnerId, Permission, Reason, TenantId, UserFacts, words},
    policy::{Bundle, Memo, Verdict, judge},
};

/// What a decision is made again from, borrowed from a record or an opening.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    pub time: Millis,
    pub user_id: &'a str,
    pub issuer: &'a str,
    pub partner_id: Option<PartnerId>,
    pub action: &'a str,
    pub method: &'a str,
    pub tenant: Option<&'a str>,
    pub link: Option<(LinkId, LinkVersion)>,
    pub ip: Option<IpAddr>,
    pub mfa: bool,
    pub decision: Decision,
    pub reason: Option<&'a str>,
    pub asked: Option<&'a Question>,
    pub slices: &'a [Slice],
    pub waived: &'a [Other],
}

impl<'a> Recorded<'a> {
    /// `None` for a change, and for a call of the admin API: no policy decides them.
    pub fn of_record(record: &'a Record) -> Option<Self> {
        if !record.kind.is_access() {
            return None;
        }
        Some(Self {
            time: record.time,
            user_id: record.user_id.as_deref().unwrap_or_default(),
            issuer: record.issuer.as_deref().unwrap_or_default(),
            partner_id: record.partner_id,
            action: record.action.as_deref().unwrap_or_default(),
            method: record.method.as_deref()?,
            tenant: record.managed_tenant_id.as_deref(),
            link: record.link_id.zip(record.link_version),
            ip: record.client_ip,
            mfa: record.mfa.unwrap_or_default(),
            decision: record.decision,
            reason: record.reason.as_deref(),
            asked: record.asked.as_ref(),
            slices: &record.slices,
            waived: &record.waived,
        })
    }

    pub fn of_opening(opened: &'a Opened<'_>) -> Self {
        let (visible, private) = (&opened.visible, &opened.private);
        Self {
            time: visible.time,
            user_id: visible.user_id.as_deref().unwrap_or_default(),
            issuer: private.issuer.as_deref().unwrap_or_default(),
            partner_id: visible.partner_id,
            action: visible.action.as_deref().unwrap_or_default(),
            method: &visible.method,
            tenant: visible.managed_tenant_id.as_deref(),
            link: private.link_id.zip(private.link_version),
            ip: visible.client_ip,
            mfa: private.mfa,
            decision: visible.decision,
            reason: visible.reason.as_deref(),
            asked: private.asked.as_ref(),
            slices: &opened.slices,
            waived: &private.waived,
        }
    }
}

/// What a record has to decide again.
#[derive(Debug)]
pub enum Again<'a> {
    Decisions(SmallVec<[One<'a>; 1]>),
    /// Refused by a gate outside the policies: no set can change it.
    Fixed,
    /// The policies were not asked: at home, public, or refused before.
    NotAsked,
    /// The policies were asked, and the record does not say with what.
    Missing,
}

/// One decision of a record.
#[derive(Debug)]
pub struct One<'a> {
    pub tenant: Option<&'a str>,
    pub what: What<'a>,
    /// What the set said then, whether or not it was enforced.
    pub allowed: bool,
    pub reason: Option<&'a str>,
    /// Those of a refusal that was not enforced.
    pub waived: Option<&'a Other>,
}

/// What was asked.
#[derive(Debug)]
pub enum What<'a> {
    Decide(Box<Case>),
    /// Whether the user holds the permission at all, before any tenant was looked at.
    Holds(&'a Claims, Permission),
}

impl What<'_> {
    /// The answer of a set; see [`judge`].
    pub fn decide(&self, bundle: &Bundle, memo: Option<&mut Memo>) -> Verdict {
        use crate::{domain::Gate, policy::Refusal};
        match self {
            Self::Decide(case) => judge(bundle, memo, &case.facts()),
            Self::Holds(claims, permission) => {
                let holds = claims.held(bundle.roles()).contains(*permission);
                let result = if holds { Ok(()) } else { Err(Refusal::Denied(Gate::User.into())) };
                Verdict { result, policies: std::sync::Arc::from([]) }
            }
        }
    }
}

/// Refusals that the gates outside the policies give, and that no set can turn into anything else.
const OUTSIDE: [Reason; 8] = [
    Reason::NoLink,
    Reason::AccessSuspended,
    Reason::PartnerInactive,
    Reason::LinkPending,
    Reason::LinkInactive,
    Reason::LinkNotStarted,
    Reason::IpNotAllowed,
    Reason::MfaRequired,
];
const ENDED: &str = "TENANT_LINK_EXPIRED";
/// Refusals that come after the policies: a record of an older version that carries one was decided before it.
const AFTER: [&str; 5] =
    ["RATE_LIMIT_EXCEEDED", "BAD_REQUEST", "PAYLOAD_TOO_LARGE", "VALIDATION_ERROR", "audit_unavailable"];

/// What the record has to decide again, by the role table of `bundle`.
pub fn again<'a>(record: &Recorded<'a>, bundle: &Bundle) -> Again<'a> {
    let Some(permission) = Permission::parse(record.action) else { return Again::NotAsked };
    let Some(asked) = record.asked else { return unasked(record) };
    let Some(claims) = &asked.holds else { return Again::Missing };
    let (Some(partner_id), Some(ip)) = (record.partner_id, record.ip) else { return Again::Missing };
    let user = UserFacts {
        issuer: record.issuer.into(),
        sub: record.user_id.into(),
        partner_id,
        holds: claims.held(bundle.roles()),
        suspended: asked.user_suspended,
    };
    let case = |user, link| Case {
        user,
        link,
        permission,
        switch_context: asked.switch_context,
        now: record.time,
        ip,
        mfa: record.mfa,
        method: record.method.into(),
        route_class: asked.class.as_str().into(),
    };
    let link = |recorded: &crate::audit::RecordedLink, ids: Option<(LinkId, LinkVersion)>, tenant: Option<&str>| {
        let ((id, version), tenant) = (ids?, TenantId::new(tenant?).ok()?);
        Some(recorded.facts(id, version, partner_id, tenant))
    };
    let waived = |tenant: Option<&str>| record.waived.iter().find(|other| other.managed_tenant_id.as_deref() == tenant);
    let allowed = asked.allowed || record.decision == Decision::Allow;
    if asked.switch_context {
        let found = match &asked.link {
            // Without a link the decision was that there is none.
            None if record.link.is_some() => return Again::Missing,
            None => None,
            Some(recorded) => match link(recorded, record.link, record.tenant) {
                None => return Again::Missing,
                found => found,
            },
        };
        let waived = waived(None);
        return Again::Decisions(SmallVec::from_iter([One {
            tenant: record.tenant,
            what: What::Decide(Box::new(case(user, found))),
            allowed: allowed && waived.is_none(),
            reason: waived.map_or(record.reason, |other| other.reason.as_deref()),
            waived,
        }]));
    }
    if asked.caller_only {
        let what = What::Holds(claims, permission);
        let one = One { tenant: None, what, allowed: false, reason: record.reason, waived: None };
        return Again::Decisions(SmallVec::from_iter([one]));
    }
    // Refused after the policies and before its slices were recorded, or a partner without links.
    if record.slices.is_empty() {
        return Again::NotAsked;
    }
    let slices = record.slices.iter().map(|slice| {
        let tenant = Some(slice.managed_tenant_id.as_str());
        let facts = link(slice.link.as_ref()?, slice.link_id.zip(slice.link_version), tenant)?;
        let waived = waived(tenant);
        Some(One {
            tenant,
            what: What::Decide(Box::new(case(user.clone(), Some(facts)))),
            allowed: slice.decision == Decision::Allow && waived.is_none(),
            reason: waived.map_or(slice.reason.as_deref(), |other| other.reason.as_deref()),
            waived,
        })
    });
    slices.collect::<Option<_>>().map_or(Again::Missing, Again::Decisions)
}

/// A record that does not say what was asked: of an older version, or of a request that came to no decision.
fn unasked<'a>(record: &Recorded<'_>) -> Again<'a> {
    let judged = record.slices.iter().any(|slice| slice.link_id.is_some()) || record.tenant.is_some();
    match record.reason {
        Some(ENDED) => Again::Fixed,
        Some(reason) if OUTSIDE.iter().any(|known| known.as_str() == reason) => Again::Fixed,
        Some("permission" | "override" | "guardrail" | words::POLICY_ERROR) => Again::Missing,
        Some(reason) if AFTER.contains(&reason) && judged => Again::Missing,
        _ if record.decision == Decision::Allow && judged => Again::Missing,
        _ => Again::NotAsked,
    }
}
