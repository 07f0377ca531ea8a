//! Link roles and the table that says what each grants.
//!
//! The table itself is data (`policies/roles.toml`, read by the policy room); this type is what it resolves to.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::permission::PermissionSet;

/// What a link lets the partner be in the managed tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkRole {
    MspFull,
    MspBilling,
    MspSupport,
    EnterpriseHq,
    Auditor,
    Reseller,
    Delegate,
}

impl LinkRole {
    pub const ALL: [Self; 7] = [
        Self::MspFull,
        Self::MspBilling,
        Self::MspSupport,
        Self::EnterpriseHq,
        Self::Auditor,
        Self::Reseller,
        Self::Delegate,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::MspFull => "msp_full",
            Self::MspBilling => "msp_billing",
            Self::MspSupport => "msp_support",
            Self::EnterpriseHq => "enterprise_hq",
            Self::Auditor => "auditor",
            Self::Reseller => "reseller",
            Self::Delegate => "delegate",
        }
    }

    /// At most one active link of such a role may stand on a tenant.
    pub fn is_full(self) -> bool {
        matches!(self, Self::MspFull | Self::EnterpriseHq)
    }
}

impl fmt::Display for LinkRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no link role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown link role `{0}`: one of msp_full, msp_billing, msp_support, enterprise_hq, auditor, reseller, delegate"
)]
pub struct UnknownRole(pub String);

impl FromStr for LinkRole {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// What each link role and each user role (claims `roles`) grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleTable {
    link: [PermissionSet; 7],
    user: BTreeMap<String, PermissionSet>,
}

impl RoleTable {
    /// A role missing from `link` grants nothing.
    pub fn new(
        link: impl IntoIterator<Item = (LinkRole, PermissionSet)>,
        user: BTreeMap<String, PermissionSet>,
    ) -> Self {
        let mut table = Self { link: [PermissionSet::EMPTY; 7], user };
        for (role, set) in link {
            if let Some(slot) = table.link.get_mut(role as usize) {
                *slot = set;
            }
        }
        table
    }

    pub fn link_role(&self, role: LinkRole) -> PermissionSet {
        self.link.get(role as usize).copied().unwrap_or_default()
    }

    /// Unknown user roles grant nothing.
    pub fn user_role(&self, name: &str) -> PermissionSet {
        self.user.get(name).copied().unwrap_or_default()
    }

    pub fn user_roles(&self) -> impl Iterator<Item = (&str, PermissionSet)> {
        self.user.iter().map(|(name, set)| (name.as_str(), *set))
    }

    /// The union of a token's roles and permissions: what a partner user holds.
    pub fn holds<'a>(
        &self,
        roles: impl IntoIterator<Item = &'a str>,
        permissions: impl IntoIterator<Item = &'a str>,
    ) -> PermissionSet {
        let by_role = roles.into_iter().fold(PermissionSet::EMPTY, |set, role| set.union(self.user_role(role)));
        permissions.into_iter().fold(by_role, |set, name| set.union(PermissionSet::from_claim(name)))
    }
}
