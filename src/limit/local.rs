//! Quotas counted in this process: GCRA, one number a bucket.
//!
//! A bucket is the instant at which it would be full again (the theoretical arrival time, TAT). Each request moves it
//! on by the emission interval `per_seconds / requests`; a request is allowed while the TAT is no further away than
//! `requests` intervals. So a burst of `requests` passes, and over any period no more than the rate and one burst.
//!
//! Memory is bounded: a shard that is full lets go of buckets that are full again (they say nothing), then of those
//! nearest to it. Open-ended keys (addresses, home users) live in maps of their own, so that a flood of them
//! cannot make a partner's bucket forget.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    quota::{BucketKey, Moment, QuotaStore, Taken},
    settings::Quota,
};

/// Fewer locks would be waited for, more would waste memory; a power of two.
const SHARDS: usize = 32;
const NANOS: u64 = 1_000_000_000;

type Shard = Mutex<HashMap<BucketKey, u64, ahash::RandomState>>;

/// The local store.
pub struct LocalQuotas {
    /// TATs are nanoseconds after this.
    origin: Instant,
    hasher: ahash::RandomState,
    /// Buckets of partners.
    named: Box<[Shard]>,
    /// Buckets of addresses and home users.
    open_ended: Box<[Shard]>,
    keys_per_shard: usize,
    /// How many bursts the TAT may lie ahead: more than one where others count too.
    bursts: u64,
}

/// One quota in nanoseconds.
#[derive(Clone, Copy)]
struct Pace {
    /// Between two requests at the full rate.
    interval: u64,
    /// How far ahead the TAT may lie after a request: `limit` intervals, so that exactly `limit` requests burst.
    burst: u64,
    limit: u32,
}

impl Pace {
    fn of(quota: Quota) -> Self {
        let period = u64::from(quota.per_seconds.max(1)).saturating_mul(NANOS);
        let limit = quota.requests.max(1);
        let interval = (period / u64::from(limit)).max(1);
        Self { interval, burst: interval.saturating_mul(u64::from(limit)), limit }
    }

    /// The bucket as it stands: `tat` the instant at which it is full again.
    fn taken(self, allowed: bool, tat: u64, now: u64, wall_ms: i64) -> Taken {
        let ahead = tat.saturating_sub(now);
        let remaining = self.burst.saturating_sub(ahead) / self.interval;
        let short = ahead.saturating_add(self.interval).saturating_sub(self.burst);
        let retry = if allowed { 0 } else { short.div_ceil(NANOS).max(1) };
        let reset_ms = wall_ms.saturating_add(i64::try_from(ahead.div_ceil(1_000_000)).unwrap_or(i64::MAX));
        Taken {
            allowed,
            limit: self.limit,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset_unix: reset_ms.div_euclid(1000).saturating_add(i64::from(reset_ms.rem_euclid(1000) > 0)),
            retry_after_seconds: u32::try_from(retry).unwrap_or(u32::MAX),
        }
    }
}

impl LocalQuotas {
    /// `max_keys` over all buckets: half for partners, half for open-ended keys.
    pub fn new(max_keys: usize) -> Self {
        let shards = || (0..SHARDS).map(|_| Mutex::new(HashMap::default())).collect();
        Self {
            origin: Instant::now(),
            hasher: ahash::RandomState::new(),
            named: shards(),
            open_ended: shards(),
            keys_per_shard: (max_keys / (2 * SHARDS)).max(1),
            bursts: 1,
        }
    }

    /// Buckets may owe a second burst: what others took before it was known here.
    pub(super) fn owing(self) -> Self {
        Self { bursts: 2, ..self }
    }

    /// What a bucket that is counted elsewhere too has come to: full again in so long, and `since` requests more that
    /// were allowed here and are not counted there yet. Never gives anything back.
    pub(super) fn learn(&self, key: &BucketKey, quota: Quota, full_in: Duration, since: u32, now: Moment) {
        let pace = Pace::of(quota);
        let Some(shard) = self.shard(key) else { return };
        let mut buckets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was let go of to make room is made again when it is asked for.
        let Some(tat) = buckets.get_mut(key) else { return };
        let full_in = u64::try_from(full_in.as_nanos()).unwrap_or(u64::MAX);
        let ahead = full_in.saturating_add(pace.interval.saturating_mul(u64::from(since)));
        *tat = (*tat).max(self.nanos(now.at).saturating_add(ahead));
    }

    /// Where the bucket stands: not before now, and no further ahead than it may owe.
    fn held(&self, tat: u64, at: u64, pace: Pace) -> u64 {
        tat.clamp(at, at.saturating_add(pace.burst.saturating_mul(self.bursts)))
    }

    /// Buckets in memory.
    pub fn len(&self) -> usize {
        let count = |shard: &Shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.named.iter().chain(&self.open_ended).map(count).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &BucketKey) -> Option<&Shard> {
        let shards = if key.is_open_ended() { &self.open_ended } else { &self.named };
        // SHARDS is a power of two and the remainder fits.
        shards.get((self.hasher.hash_one(key) % SHARDS as u64) as usize)
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl QuotaStore for LocalQuotas {
    fn take(&self, key: &BucketKey, quota: Quota, now: Moment) -> Taken {
        let pace = Pace::of(quota);
        let at = self.nanos(now.at);
        let Some(shard) = self.shard(key) else { return pace.taken(false, pace.burst, 0, now.wall.0) };
        let mut buckets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tat) = buckets.get_mut(key) {
            // A quota that shrank since must not leave a bucket empty for longer than its own burst.
            let held = self.held(*tat, at, pace);
            let next = held.saturating_add(pace.interval);
            let allowed = next - at <= pace.burst;
            *tat = if allowed { next } else { held };
            return pace.taken(allowed, *tat, at, now.wall.0);
        }
        if buckets.len() >= self.keys_per_shard {
            make_room(&mut buckets);
        }
        let tat = at.saturating_add(pace.interval);
        buckets.insert(key.clone(), tat);
        pace.taken(true, tat, at, now.wall.0)
    }

    fn peek(&self, key: &BucketKey, quota: Quota, now: Moment) -> Taken {
        let pace = Pace::of(quota);
        let at = self.nanos(now.at);
        let held =
            self.shard(key).and_then(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied());
        let held = self.held(held.unwrap_or(at), at, pace);
        let allowed = held.saturating_add(pace.interval) - at <= pace.burst;
        pace.taken(allowed, held, at, now.wall.0)
    }
}

/// Frees an eighth of a full shard, so that the scan is paid once for many new keys: the buckets that are full soonest.
/// Those that are full already come first among them; they say no more than a missing one.
fn make_room(buckets: &mut HashMap<BucketKey, u64, ahash::RandomState>) {
    let mut missing = buckets.len() / 8 + 1;
    let mut tats: Vec<u64> = buckets.values().copied().collect();
    if tats.is_empty() {
        return;
    }
    let last = missing.min(tats.len()) - 1;
    let (_, soonest, _) = tats.select_nth_unstable(last);
    let soonest = *soonest;
    buckets.retain(|_, tat| {
        let goes = missing > 0 && *tat <= soonest;
        missing -= usize::from(goes);
        !goes
    });
}
