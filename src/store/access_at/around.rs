//! What a link's gates read at a time, put together from its row and everything around it.

use std::{collections::HashMap, sync::Arc};

use uuid::Uuid;

use super::states::{State, TermsThen};
use crate::{
    domain::{
        Link, LinkFacts, LinkId, LinkVersion, Millis, PartnerId, TenantId,
        facts::Ancestor,
        link_rules::{MAX_PARENTS, expand_overrides},
    },
    store::{
        StoreError,
        records::{PartnerRecord, Stamps, SuspensionRecord, SuspensionScope, TenantRecord},
    },
};

/// Where a fact comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "KnownAsOf")]
pub enum Known {
    /// So it was then.
    Then,
    /// The row was written since: so it is now.
    Now,
}

impl Known {
    /// Of a row without a history.
    pub fn of(stamps: &Stamps, at: Millis) -> Self {
        if stamps.updated_at <= at { Self::Then } else { Self::Now }
    }
}

/// One link at the time.
#[derive(Clone, Debug)]
pub struct LinkThen {
    pub terms: TermsThen,
    /// What its gates read.
    pub facts: LinkFacts,
    /// The suspension in force, of the link itself or one above it.
    pub suspended_by: Option<Uuid>,
    pub version_now: i64,
}

/// What a link's facts are put together from.
pub(super) struct Around<'a> {
    pub(super) above: &'a HashMap<LinkId, State>,
    pub(super) own: &'a [State],
    pub(super) tenants: &'a HashMap<TenantId, TenantRecord>,
    pub(super) partners: &'a HashMap<PartnerId, PartnerRecord>,
    pub(super) overlay: &'a [SuspensionRecord],
    pub(super) at: Millis,
}

impl Around<'_> {
    pub(super) fn link(&self, state: &State) -> Result<LinkThen, StoreError> {
        let terms = &state.terms;
        let mut ancestors = Vec::new();
        let mut suspended_by = self.suspension(terms);
        let suspended = suspended_by.is_some();
        let (mut next, mut broken) = (terms.parent_link_id, false);
        while let Some(id) = next {
            let parent = self.above.get(&id).or_else(|| self.own.iter().find(|one| one.terms.id == id));
            // As where decisions are made: parents that cannot be followed leave the link closed.
            let Some(parent) = parent.filter(|_| ancestors.len() < MAX_PARENTS) else {
                broken = true;
                break;
            };
            let covered = self.suspension(&parent.terms);
            ancestors.push(Ancestor {
                link: link(&parent.terms),
                partner_active: self.partner_active(parent.terms.partner_id)?,
                suspended: covered.is_some(),
            });
            suspended_by = suspended_by.or(covered);
            next = parent.terms.parent_link_id;
        }
        let tenant = self.tenants.get(&terms.managed_tenant_id).ok_or_else(|| missing("tenants"))?;
        let facts = LinkFacts {
            link: link(terms),
            partner_active: self.partner_active(terms.partner_id)?,
            suspended: suspended || broken,
            tenant_status: Arc::from(tenant.status.as_str()),
            ancestors: ancestors.into_boxed_slice(),
        };
        Ok(LinkThen { terms: terms.clone(), facts, suspended_by, version_now: state.version_now })
    }

    fn partner_active(&self, id: PartnerId) -> Result<bool, StoreError> {
        let partner = self.partners.get(&id).ok_or_else(|| missing("partners"))?;
        Ok(partner.is_active || Known::of(&partner.stamps, self.at) == Known::Now)
    }

    fn suspension(&self, terms: &TermsThen) -> Option<Uuid> {
        let covers = |one: &&SuspensionRecord| match one.scope {
            SuspensionScope::All => true,
            SuspensionScope::Partner => one.subject == terms.partner_id.to_string(),
            SuspensionScope::Tenant => one.subject == terms.managed_tenant_id.as_str(),
            SuspensionScope::Link => one.subject == terms.id.to_string(),
            SuspensionScope::User | SuspensionScope::Session | SuspensionScope::Jti => false,
        };
        self.overlay.iter().find(covers).map(|one| one.id)
    }
}

fn missing(table: &'static str) -> StoreError {
    StoreError::Damaged { table, what: "a row that a link names is not there".to_owned() }
}

fn link(terms: &TermsThen) -> Link {
    let (granted, denied) =
        expand_overrides(terms.custom_permissions.iter().map(|(name, allow)| (name.as_str(), *allow)));
    Link {
        id: terms.id,
        partner_id: terms.partner_id,
        tenant_id: terms.managed_tenant_id.clone(),
        role: terms.access_role,
        granted,
        denied,
        approval: terms.approval,
        is_active: terms.is_active,
        start: terms.start_date,
        end: terms.end_date,
        allowed_cidrs: terms.allowed_cidrs.clone().into_boxed_slice(),
        require_mfa: terms.require_mfa,
        version: LinkVersion(terms.version),
    }
}
