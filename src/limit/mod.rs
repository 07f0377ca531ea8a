//! Floor 1: rate limits (contract, section 9).
//!
//! `Limits` knows which quota binds whom; a `QuotaStore` counts. The local store counts for this process alone, a
//! shared one may take its place behind the trait. Home requests and unauthenticated ones have buckets of their own
//! kind, so that a flood of addresses never pushes a partner's bucket out of memory.

mod local;
mod quota;
mod redis;
mod shared;
mod show;

mod limits;
pub mod settings;

pub use limits::{Class, Limits};
pub use local::LocalQuotas;
pub use quota::{BucketKey, Moment, QuotaStore, Taken};
pub use redis::{RedisBuckets, SharedError};
pub use shared::{SharedBuckets, SharedQuotas, Untold};
pub use show::RateHeaders;
