//! The gates of a cross-tenant decision, in the order in which the first one closed gives the reason (section 4).

use serde::Serialize;

use super::error::ErrorCode;

/// Ordered: a smaller gate is tested earlier, and its refusal is the one that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    /// There is a link of the caller's partner.
    Link,
    /// No emergency suspension covers them.
    Suspension,
    Partner,
    Approval,
    Active,
    Started,
    Ended,
    Address,
    Mfa,
    /// The user holds the permission.
    User,
    /// The link's role or, for `delegate`, an override grants it.
    Role,
    /// No override denies it.
    Override,
    /// No security policy forbids it.
    Guardrail,
}

impl Gate {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Suspension => "suspension",
            Self::Partner => "partner",
            Self::Approval => "approval",
            Self::Active => "active",
            Self::Started => "started",
            Self::Ended => "ended",
            Self::Address => "address",
            Self::Mfa => "mfa",
            Self::User => "user",
            Self::Role => "role",
            Self::Override => "override",
            Self::Guardrail => "guardrail",
        }
    }
}

/// The word in `details.reason` and in the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    NoLink,
    AccessSuspended,
    PartnerInactive,
    LinkPending,
    LinkInactive,
    LinkNotStarted,
    IpNotAllowed,
    MfaRequired,
    Permission,
    Override,
    Guardrail,
    HomeOnly,
    RouteDenied,
    NotAPartner,
    IdentityConflict,
}

impl Reason {
    pub const ALL: [Self; 15] = [
        Self::NoLink,
        Self::AccessSuspended,
        Self::PartnerInactive,
        Self::LinkPending,
        Self::LinkInactive,
        Self::LinkNotStarted,
        Self::IpNotAllowed,
        Self::MfaRequired,
        Self::Permission,
        Self::Override,
        Self::Guardrail,
        Self::HomeOnly,
        Self::RouteDenied,
        Self::NotAPartner,
        Self::IdentityConflict,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoLink => "no_link",
            Self::AccessSuspended => "access_suspended",
            Self::PartnerInactive => "partner_inactive",
            Self::LinkPending => "link_pending",
            Self::LinkInactive => "link_inactive",
            Self::LinkNotStarted => "link_not_started",
            Self::IpNotAllowed => "ip_not_allowed",
            Self::MfaRequired => "mfa_required",
            Self::Permission => "permission",
            Self::Override => "override",
            Self::Guardrail => "guardrail",
            Self::HomeOnly => "home_only",
            Self::RouteDenied => "route_denied",
            Self::NotAPartner => "not_a_partner",
            Self::IdentityConflict => "identity_conflict",
        }
    }
}

/// A refusal as the caller may see it: a code and, for most, a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Denial {
    pub code: ErrorCode,
    pub reason: Option<Reason>,
}

impl Denial {
    pub const fn new(code: ErrorCode, reason: Reason) -> Self {
        Self { code, reason: Some(reason) }
    }

    /// The reason's word, or the code's own where the code says it all (`TENANT_LINK_EXPIRED`).
    pub fn word(self) -> &'static str {
        self.reason.map_or(self.code.as_str(), Reason::as_str)
    }
}

impl From<Gate> for Denial {
    fn from(gate: Gate) -> Self {
        use ErrorCode::{Forbidden, TenantAccessDenied};
        match gate {
            Gate::Link => Self::new(TenantAccessDenied, Reason::NoLink),
            Gate::Suspension => Self::new(TenantAccessDenied, Reason::AccessSuspended),
            Gate::Partner => Self::new(TenantAccessDenied, Reason::PartnerInactive),
            Gate::Approval => Self::new(TenantAccessDenied, Reason::LinkPending),
            Gate::Active => Self::new(TenantAccessDenied, Reason::LinkInactive),
            Gate::Started => Self::new(TenantAccessDenied, Reason::LinkNotStarted),
            Gate::Ended => Self { code: ErrorCode::TenantLinkExpired, reason: None },
            Gate::Address => Self::new(Forbidden, Reason::IpNotAllowed),
            Gate::Mfa => Self::new(Forbidden, Reason::MfaRequired),
            Gate::User | Gate::Role => Self::new(Forbidden, Reason::Permission),
            Gate::Override => Self::new(Forbidden, Reason::Override),
            Gate::Guardrail => Self::new(Forbidden, Reason::Guardrail),
        }
    }
}
