//! The local quotas against governor as an oracle, their bounds, and which quota binds whom.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "helpers of tests may panic like the tests themselves"
)]

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{RateLimiter, clock::FakeRelativeClock};
use linkgate::{
    domain::{LinkId, Millis, PartnerId, TenantId},
    limit::{
        BucketKey, Class, Limits, LocalQuotas, Moment, QuotaStore, RateHeaders, Taken,
        settings::{LimitSettings, Quota},
    },
};
use proptest::prelude::*;
use uuid::Uuid;

const WALL: i64 = 1_800_000_000_000;

fn partner(number: u128) -> PartnerId {
    PartnerId(Uuid::from_u128(number))
}

fn link(number: u128) -> LinkId {
    LinkId(Uuid::from_u128(number))
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// A clock that stands still until told.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now() + Duration::from_secs(1))
    }

    fn at(self, after: Duration) -> Moment {
        Moment { at: self.0 + after, wall: Millis(WALL + after.as_millis() as i64) }
    }
}

const KEY: BucketKey = BucketKey::Listing(PartnerId(Uuid::nil()));

fn quota(requests: u32, per_seconds: u32) -> Quota {
    Quota { requests, per_seconds }
}

proptest! {
    /// governor allows and refuses exactly the same requests, whatever the rhythm.
    #[test]
    fn decides_like_governor(
        requests in 1u32..40,
        per_seconds in 1u32..100,
        steps in prop::collection::vec(prop_oneof![Just(0u64), 0u64..2_000_000_000, 0u64..60_000_000_000], 1..300),
    ) {
        let store = LocalQuotas::new(1000);
        let clock = Clock::start();
        let interval = Duration::from_nanos(u64::from(per_seconds) * 1_000_000_000 / u64::from(requests));
        let fake = FakeRelativeClock::default();
        let oracle = RateLimiter::direct_with_clock(
            governor::Quota::with_period(interval).unwrap().allow_burst(NonZeroU32::new(requests).unwrap()),
            fake.clone(),
        );
        let mut elapsed = Duration::ZERO;
        for step in steps {
            let step = Duration::from_nanos(step);
            elapsed += step;
            fake.advance(step);
            let moment = clock.at(elapsed);
            let peeked = store.peek(&KEY, quota(requests, per_seconds), moment);
            let taken = store.take(&KEY, quota(requests, per_seconds), moment);
            prop_assert_eq!(taken.allowed, oracle.check().is_ok());
            prop_assert_eq!(peeked.allowed, taken.allowed);
            prop_assert_eq!(peeked.remaining, taken.remaining + u32::from(taken.allowed));
            prop_assert_eq!(taken.allowed, taken.retry_after_seconds == 0);
        }
    }

    /// `remaining` requests pass at this instant and the next does not; after `Retry-After` one passes.
    #[test]
    fn the_numbers_shown_are_true(requests in 1u32..50, per_seconds in 1u32..4000, spent in 0u32..60, pause in 0u64..60_000) {
        let store = LocalQuotas::new(1000);
        let clock = Clock::start();
        let quota = quota(requests, per_seconds);
        for _ in 0..spent {
            store.take(&KEY, quota, clock.at(Duration::ZERO));
        }
        let later = Duration::from_millis(pause);
        let left = store.peek(&KEY, quota, clock.at(later)).remaining;
        for at in 0..left {
            let taken = store.take(&KEY, quota, clock.at(later));
            prop_assert!(taken.allowed && taken.remaining == left - at - 1 && taken.limit == requests);
        }
        let refused = store.take(&KEY, quota, clock.at(later));
        prop_assert!(!refused.allowed && refused.remaining == 0 && refused.retry_after_seconds >= 1);
        let wait = later + Duration::from_secs(refused.retry_after_seconds.into());
        prop_assert!(store.peek(&KEY, quota, clock.at(wait)).allowed);
        if refused.retry_after_seconds > 1 {
            prop_assert!(!store.peek(&KEY, quota, clock.at(wait - Duration::from_secs(1))).allowed);
        }
        // At the reset the whole limit is back, and not two seconds earlier unless it is but a moment away.
        let reset = Duration::from_millis((refused.reset_unix * 1000 - WALL) as u64);
        prop_assert_eq!(store.peek(&KEY, quota, clock.at(reset)).remaining, requests);
    }
}

#[test]
fn a_shrunk_quota_does_not_lock_out_for_longer_than_its_own_period() {
    let store = LocalQuotas::new(100);
    let clock = Clock::start();
    for _ in 0..10 {
        store.take(&KEY, quota(10, 36_000), clock.at(Duration::ZERO));
    }
    let refused = store.take(&KEY, quota(10, 10), clock.at(Duration::ZERO));
    assert!(!refused.allowed);
    assert!(store.take(&KEY, quota(10, 10), clock.at(Duration::from_secs(1))).allowed);
}

#[test]
fn extreme_quotas_do_not_overflow() {
    let store = LocalQuotas::new(100);
    let clock = Clock::start();
    for extreme in [quota(u32::MAX, 1), quota(1, u32::MAX), quota(u32::MAX, u32::MAX)] {
        let key = BucketKey::Write(partner(u128::from(extreme.requests) << 32 | u128::from(extreme.per_seconds)));
        let taken = store.take(&key, extreme, clock.at(Duration::ZERO));
        assert!(taken.allowed && taken.limit == extreme.requests && taken.remaining == extreme.requests - 1);
        let again = store.take(&key, extreme, clock.at(Duration::ZERO));
        assert_eq!(again.allowed, extreme.requests > 1);
        assert!(again.reset_unix > WALL / 1000);
    }
}

#[test]
fn memory_is_bounded_and_a_flood_of_addresses_forgives_no_partner() {
    let store = LocalQuotas::new(6400);
    let clock = Clock::start();
    let one = quota(2, 60);
    let spent: Vec<BucketKey> = (0..100).map(|at| BucketKey::Refusal(partner(at))).collect();
    for key in &spent {
        store.take(key, one, clock.at(Duration::ZERO));
        store.take(key, one, clock.at(Duration::ZERO));
    }
    for at in 0..50_000u32 {
        // Later and emptier than the partners' buckets: by age alone those would go first.
        let later = clock.at(Duration::from_secs(1));
        let home = BucketKey::Home("i".into(), at.to_string().into());
        for key in [BucketKey::address(IpAddr::from(at.to_be_bytes())), home] {
            store.take(&key, one, later);
            store.take(&key, one, later);
        }
    }
    assert!(store.len() <= 6400, "{}", store.len());
    assert!(store.len() > 2000, "the bound is used: {}", store.len());
    for key in &spent {
        assert!(!store.take(key, one, clock.at(Duration::ZERO)).allowed, "{key:?}");
    }
}

#[test]
fn buckets_that_are_full_again_go_first() {
    // Eight keys a shard and kind.
    let store = LocalQuotas::new(64 * 8);
    let clock = Clock::start();
    let slow = quota(1, 3600);
    let in_use: Vec<BucketKey> = (0..20).map(|at| BucketKey::Export(partner(at))).collect();
    for key in &in_use {
        assert!(store.take(key, slow, clock.at(Duration::ZERO)).allowed);
    }
    // Idle ones come and go by the thousand, those in use stay.
    for at in 1..5000u64 {
        let now = clock.at(Duration::from_millis(at * 100));
        store.take(&BucketKey::Listing(partner(u128::from(at))), quota(1000, 1), now);
    }
    for key in &in_use {
        assert!(!store.peek(key, slow, clock.at(Duration::from_secs(500))).allowed, "{key:?}");
    }
}

#[test]
fn threads_never_let_more_through_than_the_limit() {
    let store = LocalQuotas::new(1000);
    let clock = Clock::start();
    let allowed: usize = std::thread::scope(|scope| {
        let count = || (0..1000).filter(|_| store.take(&KEY, quota(500, 60), clock.at(Duration::ZERO)).allowed).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(allowed, 500);
}

#[test]
fn each_kind_has_its_own_bucket_and_quota() {
    let limits = Limits::new(LimitSettings {
        listing: quota(1, 60),
        detail: quota(2, 60),
        write: quota(3, 60),
        export: quota(4, 60),
        ..LimitSettings::default()
    });
    let now = Clock::start().at(Duration::ZERO);
    for (class, limit) in [(Class::Listing, 1), (Class::Detail, 2), (Class::Write, 3), (Class::Export, 4)] {
        let takes = (0..6).filter(|_| limits.class(class, partner(1), now).unwrap().allowed).count();
        assert_eq!(takes, limit);
        assert!(limits.class(class, partner(2), now).unwrap().allowed, "another partner has its own");
    }
}

#[test]
fn the_contracts_numbers_are_the_default() {
    let limits = Limits::new(LimitSettings::default());
    let now = Clock::start().at(Duration::ZERO);
    let limit = |taken: Option<Taken>| taken.unwrap().limit;
    assert_eq!(limit(limits.class(Class::Listing, partner(1), now)), 100);
    assert_eq!(limit(limits.class(Class::Detail, partner(1), now)), 200);
    assert_eq!(limit(limits.class(Class::Write, partner(1), now)), 50);
    assert_eq!(limit(limits.class(Class::Export, partner(1), now)), 10);
    assert_eq!(limit(limits.tenant(partner(1), &tenant("t"), link(1), now)), 500);
    assert_eq!(limit(limits.refusal(partner(1), now)), 1000);
    assert!(limits.home(&"i".into(), &"u".into(), now).is_none(), "home requests are not limited unless configured");
    assert_eq!(limit(limits.tenant_admin(&"i".into(), &"u".into(), now)), 100);
}

#[test]
fn overrides_of_link_and_partner() {
    let mut settings = LimitSettings { tenant: quota(5, 60), ..LimitSettings::default() };
    settings.partners.insert(partner(1), quota(7, 60));
    settings.links.insert(link(1), quota(9, 60));
    settings.links.insert(link(2), quota(0, 60));
    let limits = Limits::new(settings);
    let now = Clock::start().at(Duration::ZERO);
    let limit = |who, id| limits.tenant(partner(who), &tenant("t"), link(id), now).map(|taken| taken.limit);
    assert_eq!(limit(2, 9), Some(5));
    assert_eq!(limit(1, 9), Some(7));
    assert_eq!(limit(1, 1), Some(9));
    assert_eq!(limit(1, 2), None, "0 turns a limit off");
    // One tenant's flood leaves the partner's other tenants alone.
    while limits.tenant(partner(2), &tenant("a"), link(9), now).unwrap().allowed {}
    assert!(limits.tenant(partner(2), &tenant("b"), link(9), now).unwrap().allowed);
    assert!(limits.tenant(partner(3), &tenant("a"), link(9), now).unwrap().allowed);
}

#[test]
fn a_refusal_is_a_429_only_when_the_bucket_is_empty() {
    let limits = Limits::new(LimitSettings { refusal: quota(3, 60), ..LimitSettings::default() });
    let now = Clock::start().at(Duration::ZERO);
    let answers: Vec<bool> = (0..5).map(|_| limits.refusal(partner(1), now).unwrap().allowed).collect();
    assert_eq!(answers, [true, true, true, false, false]);
    let off = Limits::new(LimitSettings { refusal: quota(0, 60), ..LimitSettings::default() });
    assert!(off.refusal(partner(1), now).is_none());
}

#[test]
fn addresses_are_counted_by_network() {
    let limits = Limits::new(LimitSettings { unauthenticated: quota(1, 60), ..LimitSettings::default() });
    let now = Clock::start().at(Duration::ZERO);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let take = |text: &str| limits.unauthenticated(ip(text), now).unwrap().allowed;
    assert!(limits.unauthenticated_peek(ip("192.0.2.1"), now).unwrap().allowed);
    assert!(take("192.0.2.1") && !take("192.0.2.1") && !take("::ffff:192.0.2.1") && take("192.0.2.2"));
    assert!(!limits.unauthenticated_peek(ip("192.0.2.1"), now).unwrap().allowed);
    assert!(take("2001:db8::1") && !take("2001:db8::2") && take("2001:db8:0:1::1"));
}

#[test]
fn a_new_configuration_over_the_same_store_forgives_nobody() {
    let settings = LimitSettings { listing: quota(1, 60), ..LimitSettings::default() };
    let before = Limits::new(settings.clone());
    let now = Clock::start().at(Duration::ZERO);
    assert!(before.class(Class::Listing, partner(1), now).unwrap().allowed);
    let after = Limits::with_store(settings, before.store());
    assert!(!after.class(Class::Listing, partner(1), now).unwrap().allowed);
    let _shared: Arc<dyn QuotaStore> = after.store();
}

#[test]
fn headers_and_the_tightest_bucket() {
    let wide = Taken { allowed: true, limit: 500, remaining: 400, reset_unix: 100, retry_after_seconds: 0 };
    let narrow = Taken { allowed: true, limit: 50, remaining: 3, reset_unix: 90, retry_after_seconds: 0 };
    let empty = Taken { allowed: false, limit: 10, remaining: 0, reset_unix: 200, retry_after_seconds: 7 };
    let emptier = Taken { retry_after_seconds: 9, ..empty };
    for (one, two, tightest) in [(wide, narrow, narrow), (narrow, empty, empty), (empty, emptier, emptier)] {
        assert_eq!(one.tightest(two), tightest);
        assert_eq!(two.tightest(one), tightest);
    }
    let mut headers = http::HeaderMap::new();
    headers.append("x-ratelimit-limit", http::HeaderValue::from_static("upstream"));
    headers.append("x-ratelimit-limit", http::HeaderValue::from_static("upstream"));
    RateHeaders::set(&narrow, &mut headers);
    assert_eq!(headers.get_all("x-ratelimit-limit").iter().collect::<Vec<_>>(), ["50"]);
    assert_eq!(headers["x-ratelimit-remaining"], "3");
    assert_eq!(headers["x-ratelimit-reset"], "90");
    assert!(!headers.contains_key("retry-after"));
    RateHeaders::set(&empty, &mut headers);
    assert_eq!(headers["retry-after"], "7");
}
