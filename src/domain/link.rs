//! A link as decisions see it: the compact, immutable part of one row of `partner_tenant_links`.
//!
//! Notes, metadata and alert settings stay in the database; a million links must not fill the memory.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{LinkId, LinkRole, LinkVersion, Millis, PartnerId, PermissionSet, TenantId};

/// Only `approved` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    Pending,
    Approved,
    Rejected,
}

impl Approval {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }
}

/// The business relationship behind a link; informative, it grants nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RelationshipType {
    MspManaged,
    EnterpriseSubsidiary,
    ResellerChannel,
    AuditOnly,
}

impl RelationshipType {
    pub const ALL: [Self; 4] = [Self::MspManaged, Self::EnterpriseSubsidiary, Self::ResellerChannel, Self::AuditOnly];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::MspManaged => "msp_managed",
            Self::EnterpriseSubsidiary => "enterprise_subsidiary",
            Self::ResellerChannel => "reseller_channel",
            Self::AuditOnly => "audit_only",
        }
    }
}

/// The text names none of the values of this field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{text}`: one of {known}")]
pub struct UnknownWord {
    pub what: &'static str,
    pub text: String,
    pub known: &'static str,
}

impl FromStr for Approval {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Pending, Self::Approved, Self::Rejected].into_iter().find(|word| word.as_str() == text).ok_or_else(
            || UnknownWord { what: "approval", text: text.to_owned(), known: "pending, approved, rejected" },
        )
    }
}

impl FromStr for RelationshipType {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|word| word.as_str() == text).ok_or_else(|| UnknownWord {
            what: "relationship type",
            text: text.to_owned(),
            known: "msp_managed, enterprise_subsidiary, reseller_channel, audit_only",
        })
    }
}

impl fmt::Display for RelationshipType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The decision's part of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub id: LinkId,
    pub partner_id: PartnerId,
    pub tenant_id: TenantId,
    pub role: LinkRole,
    /// Overrides set to true, expanded to leaves. Read for `delegate` only.
    pub granted: PermissionSet,
    /// Overrides set to false, expanded to leaves. Deny beats allow.
    pub denied: PermissionSet,
    pub approval: Approval,
    pub is_active: bool,
    pub start: Millis,
    /// `None`: ongoing.
    pub end: Option<Millis>,
    /// Empty: any address.
    pub allowed_cidrs: Box<[IpNet]>,
    pub require_mfa: bool,
    pub version: LinkVersion,
}

impl Link {
    /// Whether the address list, if there is one, lets this caller in. Mapped IPv4 is compared as IPv4.
    pub fn admits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.allowed_cidrs.is_empty() || self.allowed_cidrs.iter().any(|net| net.contains(&ip))
    }
}
