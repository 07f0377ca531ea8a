//! What the database says of a partner's tenants and links beyond what decisions read: names, terms, alert settings.
//!
//! One cache entry a partner, good for exactly one portfolio: a change of any link or tenant of the partner gives it a
//! new one, and the entry of the old one is never used again.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

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
/// From this age on it is read again in the background, so that nobody waits for a thousand rows again and again.
const FRESH: Duration = Duration::from_secs(5);

/// One managed tenant with the link to it.
#[derive(Clone, Debug)]
pub struct ManagedTenant {
    pub tenant: TenantRecord,
    pub link: LinkRecord,
}

pub(super) type Tenants = HashMap<TenantId, Arc<ManagedTenant>, ahash::RandomState>;

/// Partner, and the change that its portfolio is as of.
type Key = (PartnerId, u64);

#[derive(Debug)]
pub(super) struct ManagedTenants {
    database: Database,
    cache: Cache<Key, Arc<Read>>,
}

/// All of one partner, as they were read.
#[derive(Debug)]
struct Read {
    tenants: Arc<Tenants>,
    at: Instant,
    /// Somebody reads them again.
    renewing: AtomicBool,
}

impl Read {
    fn new(tenants: Tenants) -> Arc<Self> {
        Arc::new(Self { tenants: Arc::new(tenants), at: Instant::now(), renewing: AtomicBool::new(false) })
    }
}

impl ManagedTenants {
    pub(super) fn new(database: &Database) -> Self {
        let cache = Cache::builder()
            .max_capacity(MAX_TENANTS)
            .weigher(|_, read: &Arc<Read>| u32::try_from(read.tenants.len()).unwrap_or(u32::MAX).max(1))
            .time_to_live(MAX_AGE)
            .build();
        Self { database: database.clone(), cache }
    }

    /// As if it had been read.
    #[cfg(test)]
    pub(super) fn put(&self, portfolio: &Portfolio, tenants: Tenants) {
        let key = (portfolio.partner.id, portfolio.as_of);
        futures_util::FutureExt::now_or_never(self.cache.insert(key, Read::new(tenants))).unwrap();
    }

    /// All tenants of the partner by id, whether their links are live or not.
    pub(super) async fn of(&self, portfolio: &Portfolio) -> Result<Arc<Tenants>, Problem> {
        let key = (portfolio.partner.id, portfolio.as_of);
        let read = self.cache.try_get_with(key, read(self.database.clone(), key.0)).await.map_err(|error| {
            tracing::error!(%error, "a partner's tenants cannot be read");
            Problem::new(ErrorCode::LinksStale, "")
        })?;
        if read.at.elapsed() >= FRESH && !read.renewing.swap(true, Ordering::Relaxed) {
            self.renew(key, Arc::clone(&read));
        }
        Ok(Arc::clone(&read.tenants))
    }

    /// Reads them again in the background; what is known stays good until it is too old.
    fn renew(&self, key: Key, old: Arc<Read>) {
        let (database, cache) = (self.database.clone(), self.cache.clone());
        tokio::spawn(async move {
            match read(database, key.0).await {
                Ok(new) => cache.insert(key, new).await,
                Err(error) => {
                    tracing::warn!(%error, "a partner's tenants cannot be read again yet");
                    old.renewing.store(false, Ordering::Relaxed);
                }
            }
        });
    }
}

async fn read(database: Database, partner: PartnerId) -> Result<Arc<Read>, StoreError> {
    let rows = managed_tenants(&database, partner).await?;
    let tenants = rows
        .into_iter()
        .map(|(tenant, link)| (tenant.tenant_id.clone(), Arc::new(ManagedTenant { tenant, link })))
        .collect();
    Ok(Read::new(tenants))
}
