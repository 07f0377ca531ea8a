//! The retry budget: how many requests may be tried at another endpoint, so that retries never become a storm.
//!
//! As finagle and linkerd have it: over the last ten seconds a share of the requests, and a few a second in any case.
//! Requests are counted with relaxed atomics; retries are rare and take a lock.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::settings::BudgetSettings;

/// How far back it looks, in seconds.
const WINDOW: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Budget {
    /// One second each: the second in the upper half, requests in the lower.
    requests: [AtomicU64; WINDOW],
    /// Second and retries.
    retries: Mutex<[(u64, u64); WINDOW]>,
}

impl Budget {
    /// A request that might have to be tried again.
    pub(super) fn deposit(&self, now: u64) {
        let second = now / 1_000;
        let Some(slot) = self.requests.get(place(second)) else { return };
        let seen = slot.load(Relaxed);
        if seen >> 32 == second {
            slot.fetch_add(1, Relaxed);
        } else if slot.compare_exchange(seen, second << 32 | 1, Relaxed, Relaxed).is_err() {
            // Another worker has begun the second.
            slot.fetch_add(1, Relaxed);
        }
    }

    /// Whether one more retry is allowed; it is counted if so.
    pub(super) fn withdraw(&self, settings: &BudgetSettings, now: u64) -> bool {
        let second = now / 1_000;
        let recent = |then: u64| then <= second && then + WINDOW as u64 > second;
        let slots = self.requests.iter().map(|slot| slot.load(Relaxed)).filter(|seen| recent(seen >> 32));
        let requests: u64 = slots.map(|seen| seen & u64::from(u32::MAX)).sum();
        let always = u64::from(settings.min_per_second) * WINDOW as u64;
        let allowed = requests * u64::from(settings.ratio_percent) / 100 + always;
        // A panic elsewhere leaves it whole: each change is one assignment.
        let mut retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: u64 = retries.iter().filter(|(then, _)| recent(*then)).map(|(_, count)| count).sum();
        let Some(slot) = retries.get_mut(place(second)).filter(|_| taken < allowed) else { return false };
        *slot = if slot.0 == second { (second, slot.1 + 1) } else { (second, 1) };
        true
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % WINDOW as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUDGET: BudgetSettings = BudgetSettings { ratio_percent: 20, min_per_second: 1 };

    #[test]
    fn a_share_of_the_requests_and_a_few_in_any_case() {
        let budget = Budget::default();
        let granted = |now: u64| (0..1_000).filter(|_| budget.withdraw(&BUDGET, now)).count();
        assert_eq!(granted(1_000), 10, "without any request");
        for at in 0..100 {
            budget.deposit(1_000 + at);
        }
        assert_eq!(granted(1_500), 20);
        assert_eq!(granted(10_999), 0, "the window is not over");
        assert_eq!(granted(11_000), 10, "what is older counts no more");
        let none = BudgetSettings { ratio_percent: 0, min_per_second: 0 };
        assert!(!Budget::default().withdraw(&none, 1_000));
    }

    proptest! {
        #[test]
        fn never_more_than_the_window_allows(
            steps in prop::collection::vec((0_u64..700, any::<bool>()), 1..400),
            ratio_percent in 0_u32..=100,
            min_per_second in 0_u32..3,
        ) {
            let settings = BudgetSettings { ratio_percent, min_per_second };
            let budget = Budget::default();
            let (mut now, mut deposits, mut grants) = (1_000_u64, Vec::new(), Vec::new());
            for (pause, retry) in steps {
                now += pause;
                let second = now / 1_000;
                let within = |times: &[u64]| times.iter().filter(|then| **then + 10 > second).count() as u64;
                if !retry {
                    budget.deposit(now);
                    deposits.push(second);
                    continue;
                }
                let allowed = within(&deposits) * u64::from(ratio_percent) / 100 + u64::from(min_per_second) * 10;
                let granted = budget.withdraw(&settings, now);
                prop_assert_eq!(granted, within(&grants) < allowed);
                if granted {
                    grants.push(second);
                }
            }
        }
    }
}
