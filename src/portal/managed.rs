//! What the database says of a partner's tenants and links beyond what decisions read: names, terms, alert settings.
//!
//! One cache entry a partner, good for exactly one portfolio: a change of any link or tenant of the partner gives it a
//! new one, and the entry of the old one is never used again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use moka::future::Cache;

use super::call::Problem;
use crate::{
    domain::{ErrorCode, PartnerId, Portfolio, TenantId},
    store::{Database, LinkRecord, StoreError, TenantRecord, managed_tenants},
};

/// Tenants over all entries.
const MAX_TENANTS: u64 = 200_000;
/// A change of what is only shown (a tenant's name) is seen after this at the latest.
const MAX_AGE: Duration = Duration::from_secs(10);

/// One managed tenant with the link to it.
#[derive(Clone, Debug)]
pub struct ManagedTenant {
    pub tenant: TenantRecord,
    pub link: LinkRecord,
}

pub(super) type Tenants = HashMap<TenantId, Arc<ManagedTenant>, ahash::RandomState>;

#[derive(Debug)]
pub(super) struct ManagedTenants {
    database: Database,
    cache: Cache<(PartnerId, u64), Arc<Tenants>>,
}

impl ManagedTenants {
    pub(super) fn new(database: &Database) -> Self {
        let cache = Cache::builder()
            .max_capacity(MAX_TENANTS)
            .weigher(|_, tenants: &Arc<Tenants>| u32::try_from(tenants.len()).unwrap_or(u32::MAX).max(1))
            .time_to_live(MAX_AGE)
            .build();
        Self { database: database.clone(), cache }
    }

    /// As if it had been read.
    #[cfg(test)]
    pub(super) fn put(&self, portfolio: &Portfolio, tenants: Tenants) {
        let key = (portfolio.partner.id, portfolio.as_of);
        futures_util::FutureExt::now_or_never(self.cache.insert(key, Arc::new(tenants))).unwrap();
    }

    /// All tenants of the partner by id, whether their links are live or not.
    pub(super) async fn of(&self, portfolio: &Portfolio) -> Result<Arc<Tenants>, Problem> {
        let partner = portfolio.partner.id;
        let load = async {
            let rows = managed_tenants(&self.database, partner).await?;
            let tenants: Tenants = rows
                .into_iter()
                .map(|(tenant, link)| (tenant.tenant_id.clone(), Arc::new(ManagedTenant { tenant, link })))
                .collect();
            Ok::<_, StoreError>(Arc::new(tenants))
        };
        let key = (partner, portfolio.as_of);
        self.cache.try_get_with(key, load).await.map_err(|error| {
            tracing::error!(%error, "a partner's tenants cannot be read");
            Problem::new(ErrorCode::LinksStale, "")
        })
    }
}
