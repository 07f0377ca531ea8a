//! Quotas that replicas count together, by a real Redis: what they let through together, the script against an independent
//! count, and what happens without it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic like the tests themselves"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use linkgate::{
    domain::{PartnerId, TenantId},
    limit::{BucketKey, Moment, QuotaStore, SharedBuckets, SharedQuotas, Untold, settings::Quota},
};
use redis_support::Redis;
use uuid::Uuid;

mod redis_support;

fn key(number: u128) -> BucketKey {
    BucketKey::Tenant(PartnerId(Uuid::from_u128(number)), TenantId::new("t").unwrap())
}

/// So slow that nothing comes back while a test runs.
const HOURLY: Quota = Quota { requests: 100, per_seconds: 3_600 };

fn allowed(quotas: &SharedQuotas, key: &BucketKey, quota: Quota, tries: u32) -> u32 {
    (0..tries).map(|_| u32::from(quotas.take(key, quota, Moment::now()).allowed)).sum()
}

#[tokio::test]
async fn replicas_that_exchange_share_one_bucket() {
    let redis = Redis::start();
    let replicas: Vec<_> = (0..3).map(|_| (SharedQuotas::new(1_000), redis.buckets("share"))).collect();
    let (mut passed, key) = (0, key(1));
    // Each in turn takes a few, and all tell before the next does.
    for round in 0..60 {
        let (quotas, buckets) = &replicas[round % 3];
        passed += allowed(quotas, &key, HOURLY, 5);
        quotas.exchange(buckets).await.unwrap();
    }
    // Every replica may once allow what it did not know of yet: here at most its first five, and one more.
    assert!((100..=115).contains(&passed), "{passed}");
    for (quotas, _) in &replicas {
        let taken = quotas.peek(&key, HOURLY, Moment::now());
        assert!(!taken.allowed && taken.remaining == 0 && taken.retry_after_seconds > 0, "{taken:?}");
    }
    // Another bucket, and another prefix, are others.
    assert_eq!(allowed(&replicas[0].0, &self::key(2), HOURLY, 3), 3);
    let (other, buckets) = (SharedQuotas::new(1_000), redis.buckets("other"));
    assert_eq!(allowed(&other, &key, HOURLY, 7), 7);
    other.exchange(&buckets).await.unwrap();
    assert_eq!(other.peek(&key, HOURLY, Moment::now()).remaining, 93);
}

#[tokio::test]
async fn all_at_once_they_let_through_at_most_a_burst_each_and_owe_the_rest() {
    let redis = Redis::start();
    let replicas: Vec<_> = (0..3).map(|_| (SharedQuotas::new(1_000), redis.buckets("owe"))).collect();
    let (key, quota) = (key(1), Quota { requests: 10, per_seconds: 2 });
    let began = Instant::now();
    let mut passed = 0;
    for (quotas, _) in &replicas {
        passed += allowed(quotas, &key, quota, 50);
    }
    assert!((30..=33).contains(&passed), "nobody knows of the others yet: {passed}");
    for (quotas, buckets) in &replicas {
        quotas.exchange(buckets).await.unwrap();
    }
    // From here on they are told within each round: over any time the rate, and what was too much first.
    while began.elapsed() < Duration::from_secs(8) {
        for (quotas, buckets) in &replicas {
            passed += allowed(quotas, &key, quota, 3);
            quotas.exchange(buckets).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = began.elapsed().as_secs_f64() * 5.0;
    assert!(f64::from(passed) <= 30.0 + rate, "{passed} in {:?}", began.elapsed());
    assert!(passed > 33, "and it does come back: {passed}");
}

/// Against a count of what the buckets must hold, kept by hand.
#[tokio::test]
async fn the_script_counts_what_it_is_told() {
    let redis = Redis::start();
    let buckets = redis.buckets("count");
    let untold = |number, quota, requests| Untold { key: key(number), quota, requests };
    let told =
        |quota: Quota, requests: u32| f64::from(requests) * f64::from(quota.per_seconds) / f64::from(quota.requests);
    let fast = Quota { requests: 7_000, per_seconds: 60 };
    let began = Instant::now();
    let mut sums = [0u32; 3];
    for round in 1..=40u32 {
        let parts = [round % 3, 1 + round % 2, round % 5];
        let all = [untold(1, HOURLY, parts[0]), untold(2, HOURLY, parts[1]), untold(3, fast, parts[2])];
        let answers = buckets.count(&all).await.unwrap();
        assert_eq!(answers.len(), 3);
        for ((sum, part), (quota, answer)) in
            sums.iter_mut().zip(parts).zip([HOURLY, HOURLY, fast].into_iter().zip(&answers))
        {
            *sum += part;
            let (most, passed) = (told(quota, *sum), began.elapsed().as_secs_f64());
            let answer = answer.as_secs_f64();
            assert!(answer <= most + 0.001 && answer >= (most - passed - 0.001).max(0.0), "{answer} {most} {passed}");
        }
    }
    // Never more than two bursts are owed, whatever is told.
    let answer = buckets.count(&[untold(1, HOURLY, 1_000_000)]).await.unwrap()[0];
    assert!((answer.as_secs_f64() - 7_200.0).abs() < 0.01, "{answer:?}");
    // Many at once, and keys of every kind.
    let sub: Arc<str> = "x".repeat(5_000).into();
    let kinds = [
        BucketKey::Listing(PartnerId(Uuid::nil())),
        BucketKey::address("2001:db8::1".parse().unwrap()),
        BucketKey::Home("".into(), sub),
    ];
    let many: Vec<_> = (10..300).map(key).chain(kinds).map(|key| Untold { key, quota: fast, requests: 1 }).collect();
    assert_eq!(buckets.count(&many).await.unwrap().len(), 293);
}

#[tokio::test]
async fn without_redis_each_counts_for_itself_and_tells_afterwards() {
    let mut redis = Redis::start();
    redis.down();
    let (one, two) = (SharedQuotas::new(1_000), SharedQuotas::new(1_000));
    let keeping = [&one, &two]
        .map(|quotas| tokio::spawn(Arc::clone(quotas).keep_in_step(redis.buckets("away"), Duration::from_millis(10))));
    let key = key(1);
    let until = async |what: &str, holds: &dyn Fn() -> bool| {
        let since = Instant::now();
        while !holds() {
            assert!(since.elapsed() < Duration::from_secs(20), "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until("it is noticed", &|| one.failures() > 0 && two.failures() > 0).await;
    assert!(!one.is_shared() && !two.is_shared());
    assert_eq!((allowed(&one, &key, HOURLY, 130), allowed(&two, &key, HOURLY, 30)), (100, 30), "the limit holds here");
    redis.up();
    until("it is shared again", &|| one.is_shared() && two.is_shared()).await;
    // Whoever tells is told: with one request more (refused where they are known already) the other's hundred are known.
    allowed(&two, &key, HOURLY, 1);
    until("the other's requests are known", &|| two.peek(&key, HOURLY, Moment::now()).remaining == 0).await;
    let failures = one.failures();
    redis.down();
    until("it is noticed again", &|| !one.is_shared() && one.failures() > failures).await;
    assert_eq!(allowed(&one, &key, HOURLY, 10), 0, "what was learnt stays");
    keeping.iter().for_each(tokio::task::JoinHandle::abort);
}
