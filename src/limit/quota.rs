//! What is counted, and what a count answers.

use std::{net::IpAddr, sync::Arc, time::Instant};

use super::settings::Quota;
use crate::domain::{Millis, PartnerId, TenantId};

/// Whose requests of which kind share a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BucketKey {
    Listing(PartnerId),
    Detail(PartnerId),
    Write(PartnerId),
    Export(PartnerId),
    /// Requests with `X-Active-Tenant-Id`.
    Tenant(PartnerId, TenantId),
    Refusal(PartnerId),
    /// Requests without a valid token. Made by `BucketKey::address`.
    Address(IpAddr),
    /// Issuer and subject.
    Home(Arc<str>, Arc<str>),
    /// Issuer and subject.
    TenantAdmin(Arc<str>, Arc<str>),
}

impl BucketKey {
    /// A caller holds a whole /64 of IPv6 addresses, so it is counted as one; mapped IPv4 is unmapped.
    pub fn address(ip: IpAddr) -> Self {
        Self::Address(match ip.to_canonical() {
            IpAddr::V4(four) => IpAddr::V4(four),
            IpAddr::V6(six) => IpAddr::V6((six.to_bits() >> 64 << 64).into()),
        })
    }

    /// Callers without a partner can have as many of these as they like.
    pub(super) fn is_open_ended(&self) -> bool {
        matches!(self, Self::Address(_) | Self::Home(..) | Self::TenantAdmin(..))
    }
}

/// Now, by the clock that counts (monotonic) and by the one that is shown (wall).
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub at: Instant,
    pub wall: Millis,
}

impl Moment {
    pub fn now() -> Self {
        Self { at: Instant::now(), wall: Millis::now() }
    }
}

/// One bucket after a request was counted, or looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub allowed: bool,
    pub limit: u32,
    /// Requests that would be allowed at this same instant.
    pub remaining: u32,
    /// When the whole limit is back, in Unix seconds, rounded up.
    pub reset_unix: i64,
    /// How long to wait for the next allowed request: 0 if one is allowed now, else at least 1.
    pub retry_after_seconds: u32,
}

impl Taken {
    /// Of two buckets the one to show: a refusing one, else the one with less left.
    #[must_use]
    pub fn tightest(self, other: Self) -> Self {
        let key = |taken: Self| (taken.allowed, taken.remaining);
        match (self.allowed, other.allowed) {
            (false, false) if other.retry_after_seconds > self.retry_after_seconds => other,
            _ if key(other) < key(self) => other,
            _ => self,
        }
    }
}

/// Counts requests. Never blocks on the network: a shared store must answer from what it knows.
pub trait QuotaStore: Send + Sync {
    /// Counts one request if the bucket has room. `quota` must limit (`requests` and `per_seconds` above 0).
    fn take(&self, key: &BucketKey, quota: Quota, now: Moment) -> Taken;

    /// What `take` would find, without counting: `remaining` is what is left before it.
    fn peek(&self, key: &BucketKey, quota: Quota, now: Moment) -> Taken;
}
