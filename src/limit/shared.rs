//! Quotas that several replicas count together, by way of Redis or Valkey.
//!
//! No request waits for the network: each is counted by this process's own buckets, and what was allowed is told to the
//! shared ones a moment later, several at a time; the answer says how full they are by what everybody told, and the own
//! buckets learn it. So replicas may together allow more than the limit only within one interval of theirs
//! (`sync_interval`, 50 ms by default) and the time that Redis takes: at most one burst each. What was too much is owed
//! (up to a second burst), so that over time the rate is the one that is configured, whatever the number of replicas.
//!
//! Redis away: each replica counts for itself, which lets through at most the limit times the replicas; it is an alarm
//! ([`SharedQuotas::is_shared`]), not a refusal, because quotas protect services and are no access control. What was
//! counted meanwhile is told when Redis is back; where it is not known whether it was heard, it is told again.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    local::LocalQuotas,
    quota::{BucketKey, Moment, QuotaStore, Taken},
    settings::Quota,
};

/// Buckets told at once; one call of the script keeps Redis busy for well below a millisecond.
const AT_ONCE: usize = 200;
/// Locks of what is to be told.
const SHARDS: usize = 16;
/// Between two tries while Redis is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Requests that were allowed and that the shared bucket does not know of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    pub key: BucketKey,
    pub quota: Quota,
    pub requests: u32,
}

/// The shared buckets.
pub trait SharedBuckets: Send + Sync + 'static {
    type Error: fmt::Display + Send;

    /// Counts, and answers for each how long until it is full again.
    fn count(&self, untold: &[Untold]) -> impl Future<Output = Result<Vec<Duration>, Self::Error>> + Send;
}

type Shard = Mutex<HashMap<BucketKey, (Quota, u32), ahash::RandomState>>;

/// Counts here and tells there.
pub struct SharedQuotas {
    local: LocalQuotas,
    hasher: ahash::RandomState,
    untold: Box<[Shard]>,
    keys_per_shard: usize,
    shared: AtomicBool,
    failures: AtomicU64,
}

impl SharedQuotas {
    /// `max_keys`: most buckets kept, and most that wait to be told.
    pub fn new(max_keys: usize) -> Arc<Self> {
        Arc::new(Self {
            local: LocalQuotas::new(max_keys).owing(),
            hasher: ahash::RandomState::new(),
            untold: (0..SHARDS).map(|_| Mutex::default()).collect(),
            keys_per_shard: (max_keys / SHARDS).max(1),
            shared: AtomicBool::new(false),
            failures: AtomicU64::new(0),
        })
    }

    /// Whether the last exchange with the shared buckets went well.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Exchanges that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Tells and learns until dropped.
    pub async fn keep_in_step(self: Arc<Self>, buckets: impl SharedBuckets, interval: Duration) {
        let mut told_of_it = false;
        loop {
            match self.exchange(&buckets).await {
                Ok(()) if told_of_it || !self.is_shared() => {
                    told_of_it = false;
                    self.shared.store(true, Ordering::Relaxed);
                    tracing::info!("rate limits are counted with the other replicas");
                }
                Ok(()) => {}
                Err(error) => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    self.shared.store(false, Ordering::Relaxed);
                    if !told_of_it {
                        told_of_it = true;
                        tracing::error!(%error, "rate limits cannot be shared: until Redis answers, each replica counts for itself");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// One round; with nothing to tell it only asks whether anybody is there.
    pub async fn exchange<B: SharedBuckets>(&self, buckets: &B) -> Result<(), B::Error> {
        let untold = self.drain();
        if untold.is_empty() {
            return buckets.count(&[]).await.map(|_| ());
        }
        let mut rest = untold.chunks(AT_ONCE);
        while let Some(part) = rest.next() {
            match buckets.count(part).await {
                Ok(fulls) => {
                    let now = Moment::now();
                    for (one, full_in) in part.iter().zip(fulls) {
                        let since = self.waiting(&one.key);
                        self.local.learn(&one.key, one.quota, full_in, since, now);
                    }
                }
                Err(error) => {
                    part.iter().chain(rest.flatten()).for_each(|one| self.note(&one.key, one.quota, one.requests));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn shard(&self, key: &BucketKey) -> Option<&Shard> {
        self.untold.get((self.hasher.hash_one(key) % SHARDS as u64) as usize)
    }

    fn note(&self, key: &BucketKey, quota: Quota, requests: u32) {
        let Some(shard) = self.shard(key) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, count)) = shard.get_mut(key) {
            *known = quota;
            *count = count.saturating_add(requests);
        } else if shard.len() < self.keys_per_shard {
            // Beyond it, which is after a long time without Redis, buckets are this replica's own.
            shard.insert(key.clone(), (quota, requests));
        }
    }

    fn waiting(&self, key: &BucketKey) -> u32 {
        let shard = self.shard(key).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        shard.and_then(|shard| shard.get(key).map(|(_, count)| *count)).unwrap_or_default()
    }

    fn drain(&self) -> Vec<Untold> {
        let mut all = Vec::new();
        for shard in &self.untold {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.drain().map(|(key, (quota, requests))| Untold { key, quota, requests }));
        }
        all
    }
}

impl QuotaStore for SharedQuotas {
    fn take(&self, key: &BucketKey, quota: Quota, now: Moment) -> Taken {
        let taken = self.local.take(key, quota, now);
        if taken.allowed {
            self.note(key, quota, 1);
        }
        taken
    }

    fn peek(&self, key: &BucketKey, quota: Quota, now: Moment) -> Taken {
        self.local.peek(key, quota, now)
    }
}
