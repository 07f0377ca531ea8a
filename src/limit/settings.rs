//! Rate limits of section 9, per class and with overrides. A limit of 0 turns it off.

use std::{collections::HashMap, time::Duration};

use crate::domain::{LinkId, PartnerId, Secret};

/// So many requests in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// 0: not limited.
    pub requests: u32,
    pub per_seconds: u32,
}

/// All limits.
#[derive(Clone, Debug)]
pub struct LimitSettings {
    pub listing: Quota,
    pub detail: Quota,
    pub write: Quota,
    pub export: Quota,
    /// Each (partner, tenant) pair, requests with `X-Active-Tenant-Id`.
    pub tenant: Quota,
    /// Refusals of one partner.
    pub refusal: Quota,
    /// Requests without a valid token, per address.
    pub unauthenticated: Quota,
    /// Home requests, per user; off by default.
    pub home: Quota,
    /// Calls of tenants' administrators, per user.
    pub tenant_admin: Quota,
    /// Overrides of the (partner, tenant) quota.
    pub partners: HashMap<PartnerId, Quota>,
    pub links: HashMap<LinkId, Quota>,
    /// Most keys kept in memory; beyond it idle ones go first.
    pub max_keys: usize,
    /// Counted together with other replicas; `None`: each process counts for itself.
    pub shared: Option<SharedSettings>,
}

/// Where replicas count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSettings {
    /// `redis://` or `rediss://`; may hold a password: never print it.
    pub url: Secret,
    /// Before the names of all buckets: replicas that count together have the same.
    pub prefix: String,
    /// Between two exchanges, while there is something to tell.
    pub interval: Duration,
}

impl Default for LimitSettings {
    fn default() -> Self {
        let per_minute = |requests| Quota { requests, per_seconds: 60 };
        Self {
            listing: per_minute(100),
            detail: per_minute(200),
            write: per_minute(50),
            export: Quota { requests: 10, per_seconds: 3600 },
            tenant: per_minute(500),
            refusal: per_minute(1000),
            unauthenticated: per_minute(6000),
            home: per_minute(0),
            tenant_admin: per_minute(100),
            partners: HashMap::new(),
            links: HashMap::new(),
            max_keys: 200_000,
            shared: None,
        }
    }
}
