//! Who may see what of an explanation.
//!
//! The caller: what the answer on the wire said, a code and a safe reason, and nothing else. A managed tenant's
//! administrator: what the access log shows, the terms of the tenant's own link, the gates that are about them, and
//! near misses that are the tenant's own to decide; no other tenant, no other partner's link, no policy, nothing of what
//! the user holds. The operator sees everything and needs no view.

use std::{fmt::Write as _, net::IpAddr};

use schemars::JsonSchema;
use serde::Serialize;

use super::reasons::{Reasons, gates_text};
use crate::{
    audit::{Decision, Record, RecordedLink, redact},
    domain::{DecisionId, Denial, ErrorCode, Gate, LinkFacts, LinkId, LinkVersion, Millis, PartnerId, Reason, words},
    ops::plain,
    policy::{GateReport, Side},
};

/// Gates that are about the tenant's own link; any other is shown only where it decided, as its reason is then known.
const OF_THE_LINK: [&str; 9] = ["link", "approval", "active", "started", "ended", "address", "mfa", "role", "override"];

/// What the answer said.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedToCaller")]
pub struct Caller {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<DecisionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl Caller {
    pub(crate) fn of_record(record: &Record) -> Self {
        let (code, reason) = record.reason.as_deref().map(on_the_wire).unwrap_or_default();
        Self {
            decision: record.decision.as_str(),
            code,
            reason,
            status: record.status,
            decision_id: Some(record.id),
            request_id: record.request_id.clone(),
        }
    }

    pub(crate) fn of_reasons(reasons: &Reasons) -> Self {
        let (code, reason) = reasons.reason.as_deref().map(on_the_wire).unwrap_or_default();
        Self { decision: reasons.decision, code, reason, status: None, decision_id: None, request_id: None }
    }

    pub fn text(&self) -> String {
        let mut words = vec![self.decision.to_owned()];
        words.extend(self.code.map(str::to_owned));
        words.extend(self.reason.map(str::to_owned));
        words.extend(self.status.map(|status| format!("({status})")));
        words.extend(self.decision_id.map(|id| id.to_string()));
        words.join(" ")
    }
}

/// Code and reason as an answer carries them. A word that no answer carries stays inside.
fn on_the_wire(word: &str) -> (Option<&'static str>, Option<&'static str>) {
    if word == words::POLICY_ERROR {
        return (Some(ErrorCode::PolicyUnavailable.as_str()), None);
    }
    if let Some(code) = ErrorCode::ALL.iter().find(|code| code.as_str() == word) {
        return (Some(code.as_str()), None);
    }
    let Some(reason) = Reason::ALL.into_iter().find(|reason| reason.as_str() == word) else { return (None, None) };
    let gates = [
        Gate::Link,
        Gate::Suspension,
        Gate::Partner,
        Gate::Approval,
        Gate::Active,
        Gate::Started,
        Gate::Address,
        Gate::Mfa,
        Gate::User,
        Gate::Override,
        Gate::Guardrail,
    ];
    let code = gates.into_iter().map(Denial::from).find(|denial| denial.reason == Some(reason));
    let code = code.map_or(ErrorCode::Forbidden, |denial| denial.code);
    (Some(code.as_str()), Some(reason.as_str()))
}

/// What a managed tenant's administrator sees.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedToTenant")]
pub struct TenantView {
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<Access>,
    decision: &'static str,
    reason: Option<String>,
    link: Option<OwnLink>,
    gates: Vec<GateReport>,
    near_misses: Vec<String>,
}

/// The line of the access log.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedAccess")]
struct Access {
    id: DecisionId,
    time: Millis,
    partner_id: Option<PartnerId>,
    partner_name: Option<String>,
    user_id: Option<String>,
    username: Option<String>,
    action: Option<String>,
    method: Option<String>,
    /// Left out where the request was about several tenants: it may name another.
    path: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
    client_ip: Option<IpAddr>,
    user_agent: Option<String>,
}

/// The tenant's own link as the decision saw it; nothing of a link above it, which belongs to another partner.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedLink")]
struct OwnLink {
    link_id: LinkId,
    #[schemars(with = "u64")]
    version: LinkVersion,
    /// As the record keeps them.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    terms: RecordedLink,
}

impl OwnLink {
    fn of(facts: &LinkFacts) -> Self {
        // What else stands around the link is the operator's: partner, suspensions, parents.
        let own = LinkFacts {
            ancestors: Box::default(),
            partner_active: true,
            suspended: false,
            link: facts.link.clone(),
            tenant_status: facts.tenant_status.clone(),
        };
        Self { link_id: facts.link.id, version: facts.link.version, terms: std::sync::Arc::new(own).into() }
    }
}

impl TenantView {
    /// `None` where the record is not about this tenant.
    pub(crate) fn of_record(record: &Record, decisions: &[Reasons], tenant: &str) -> Option<Self> {
        let own = record.slices.iter().find(|slice| slice.managed_tenant_id == tenant);
        let named = record.managed_tenant_id.as_deref() == Some(tenant);
        if own.is_none() && !named {
            return None;
        }
        let shared = !named && record.slices.len() > 1;
        // As in the access log: of a record over several tenants the decision is that of the own slice.
        let (decision, reason) = match own {
            Some(slice) if !named && record.decision == Decision::Allow => (slice.decision, slice.reason.clone()),
            _ => (record.decision, record.reason.clone()),
        };
        let reasons = decisions.iter().find(|reasons| reasons.tenant.as_deref() == Some(tenant));
        let reasons = reasons.or(decisions.first().filter(|reasons| reasons.tenant.is_none() && named));
        let recorded = match own {
            Some(slice) if !named => slice.link.as_ref().zip(slice.link_id.zip(slice.link_version)),
            _ => {
                record.asked.as_ref().and_then(|asked| asked.link.as_ref()).zip(record.link_id.zip(record.link_version))
            }
        };
        let facts = recorded.zip(record.partner_id).and_then(|((link, (id, version)), partner)| {
            Some(link.facts(id, version, partner, crate::domain::TenantId::new(tenant).ok()?))
        });
        let access = Access {
            id: record.id,
            time: record.time,
            partner_id: record.partner_id,
            partner_name: record.partner_name.clone(),
            user_id: record.user_id.clone(),
            username: record.username.clone(),
            action: record.action.clone(),
            method: record.method.clone(),
            path: record.path.as_deref().filter(|_| !shared).map(redact::redact_path_and_query),
            status: record.status,
            request_id: record.request_id.clone(),
            client_ip: record.client_ip,
            user_agent: record.user_agent.clone(),
        };
        Some(Self {
            access: Some(access),
            decision: decision.as_str(),
            reason,
            link: facts.as_ref().map(OwnLink::of),
            gates: reasons.map(gates).unwrap_or_default(),
            near_misses: reasons.map(near_misses).unwrap_or_default(),
        })
    }

    pub(crate) fn of_case(reasons: &Reasons, link: &LinkFacts) -> Self {
        Self {
            access: None,
            decision: reasons.decision,
            reason: reasons.reason.clone(),
            link: Some(OwnLink::of(link)),
            gates: gates(reasons),
            near_misses: near_misses(reasons),
        }
    }

    pub fn text(&self) -> String {
        let reason = self.reason.as_deref().map(|reason| format!(", {}", plain(reason))).unwrap_or_default();
        let mut out = format!("{}{reason}", self.decision);
        if let Some(access) = &self.access {
            out = format!("{} {out}", access.id);
            let fields = [
                ("time", Some(access.time.to_string())),
                ("partner", access.partner_name.clone().or(access.partner_id.map(|id| id.to_string()))),
                ("user", access.username.clone().or(access.user_id.clone())),
                ("action", access.action.clone()),
                (
                    "request",
                    access.method.clone().zip(access.path.clone()).map(|(method, path)| format!("{method} {path}")),
                ),
                ("client", access.client_ip.map(|ip| ip.to_string())),
                ("status", access.status.map(|status| status.to_string())),
            ];
            for (name, value) in fields.into_iter().filter_map(|(name, value)| Some((name, value?))) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\n  {name:<18} {}", plain(&value));
            }
        }
        if let Some(link) = &self.link {
            let terms = serde_json::to_string(&link.terms).unwrap_or_default();
            let _ = write!(out, "\n  {:<18} {} version {}: {}", "link", link.link_id, link.version, plain(&terms));
        }
        if !self.gates.is_empty() {
            let _ = write!(out, "\n  gates\n  {}", gates_text(&self.gates).join("\n  "));
        }
        if !self.near_misses.is_empty() {
            let heading = if self.decision == "allow" { "refused" } else { "allowed" };
            let misses: Vec<String> = self.near_misses.iter().map(|miss| plain(miss)).collect();
            let _ = write!(out, "\n  any one of these would have {heading} it\n    {}", misses.join("\n    "));
        }
        out
    }
}

/// The gates of the tenant's own link, and the one that decided; never the policies.
fn gates(reasons: &Reasons) -> Vec<GateReport> {
    let shown = reasons.gates.iter().filter(|gate| gate.told || OF_THE_LINK.contains(&gate.gate));
    shown.map(|gate| GateReport { policies: Vec::new(), ..gate.clone() }).collect()
}

/// What the tenant itself could change, and MFA where its own link asks for it.
fn near_misses(reasons: &Reasons) -> Vec<String> {
    let may_know = |side: Side| side == Side::Link || (side == Side::Request && reasons.decided_by == Some("mfa"));
    reasons.near_misses.iter().filter(|miss| may_know(miss.side)).map(|miss| miss.change.clone()).collect()
}
