//! Which quota binds which request.
//!
//! Every method answers `None` where the limit is off (0). The decision comes before the limit: a refused request
//! counts in its partner's refusal bucket, and only an empty bucket turns the 403 into a 429, so that a limit tells
//! nobody what they may reach.

use std::{net::IpAddr, sync::Arc};

use super::{
    local::LocalQuotas,
    quota::{BucketKey, Moment, QuotaStore, Taken},
    settings::{LimitSettings, Quota},
};
use crate::domain::{LinkId, PartnerId, TenantId};

/// The classes of section 8 calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    Listing,
    Detail,
    Write,
    Export,
}

/// Quotas with their overrides, over a store.
pub struct Limits {
    settings: LimitSettings,
    store: Arc<dyn QuotaStore>,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

impl Limits {
    /// Counts in this process.
    pub fn new(settings: LimitSettings) -> Self {
        let store = Arc::new(LocalQuotas::new(settings.max_keys));
        Self::with_store(settings, store)
    }

    /// Counts in a shared store, or in the one of an older configuration, so that a reload forgives nobody.
    pub fn with_store(settings: LimitSettings, store: Arc<dyn QuotaStore>) -> Self {
        Self { settings, store }
    }

    pub fn store(&self) -> Arc<dyn QuotaStore> {
        self.store.clone()
    }

    /// A consolidated (section 8) call of this partner.
    pub fn class(&self, class: Class, partner: PartnerId, now: Moment) -> Option<Taken> {
        let (key, quota) = match class {
            Class::Listing => (BucketKey::Listing(partner), self.settings.listing),
            Class::Detail => (BucketKey::Detail(partner), self.settings.detail),
            Class::Write => (BucketKey::Write(partner), self.settings.write),
            Class::Export => (BucketKey::Export(partner), self.settings.export),
        };
        self.take(&key, quota, now)
    }

    /// A request that names an active tenant. An override of the link wins over one of the partner.
    pub fn tenant(&self, partner: PartnerId, tenant: &TenantId, link: LinkId, now: Moment) -> Option<Taken> {
        let quota = self
            .settings
            .links
            .get(&link)
            .or_else(|| self.settings.partners.get(&partner))
            .copied()
            .unwrap_or(self.settings.tenant);
        self.take(&BucketKey::Tenant(partner, tenant.clone()), quota, now)
    }

    /// A refusal (403): counts it. `allowed` false: answer 429 instead.
    pub fn refusal(&self, partner: PartnerId, now: Moment) -> Option<Taken> {
        self.take(&BucketKey::Refusal(partner), self.settings.refusal, now)
    }

    /// A request without a valid token (401): counts it.
    pub fn unauthenticated(&self, ip: IpAddr, now: Moment) -> Option<Taken> {
        self.take(&BucketKey::address(ip), self.settings.unauthenticated, now)
    }

    /// Where this address stands, without counting: an empty bucket spares the work of verifying a token.
    pub fn unauthenticated_peek(&self, ip: IpAddr, now: Moment) -> Option<Taken> {
        let quota = self.settings.unauthenticated;
        limits(quota).then(|| self.store.peek(&BucketKey::address(ip), quota, now))
    }

    /// A home request of this user.
    pub fn home(&self, issuer: &Arc<str>, sub: &Arc<str>, now: Moment) -> Option<Taken> {
        let quota = self.settings.home;
        limits(quota).then(|| self.store.take(&BucketKey::Home(issuer.clone(), sub.clone()), quota, now))
    }

    /// A call of this user as the administrator of a tenant.
    pub fn tenant_admin(&self, issuer: &Arc<str>, sub: &Arc<str>, now: Moment) -> Option<Taken> {
        let quota = self.settings.tenant_admin;
        limits(quota).then(|| self.store.take(&BucketKey::TenantAdmin(issuer.clone(), sub.clone()), quota, now))
    }

    fn take(&self, key: &BucketKey, quota: Quota, now: Moment) -> Option<Taken> {
        limits(quota).then(|| self.store.take(key, quota, now))
    }
}

fn limits(quota: Quota) -> bool {
    quota.requests > 0 && quota.per_seconds > 0
}
