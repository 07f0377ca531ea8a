//! When a slow read deserves a second try: after the 95th percentile of its kind's recent latencies, and only for so
//! many per cent of all reads.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::kind::Kind;

/// Latencies remembered for each kind.
const WINDOW: usize = 512;
/// Fewer say nothing about the slowest few per cent.
const ENOUGH: usize = 128;
/// The percentile is computed anew after so many latencies.
const EVERY: u64 = 64;
/// One second try, in the budget's unit: a hundredth.
const ONE: i64 = 100;
/// Second tries that may be saved up.
const SAVED: i64 = 10 * ONE;
/// Below this a second try costs more than it saves.
const LEAST: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Hedges {
    percent: u32,
    /// Hundredths of second tries that may be made.
    budget: AtomicI64,
    kinds: [Latencies; Kind::COUNT],
}

#[derive(Debug, Default)]
struct Latencies {
    ring: Mutex<Ring>,
    /// Microseconds; 0: not known.
    p95: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    micros: Vec<u64>,
    count: u64,
}

impl Hedges {
    pub(super) fn new(percent: u32) -> Self {
        Self { percent, budget: AtomicI64::new(0), kinds: std::array::from_fn(|_| Latencies::default()) }
    }

    /// How long a read may take before a second one is tried; counts the read. `None`: never.
    pub(super) fn patience(&self, kind: Kind) -> Option<Duration> {
        if self.percent == 0 {
            return None;
        }
        let earned = i64::from(self.percent);
        let _ =
            self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| Some((saved + earned).min(SAVED)));
        let p95 = self.of(kind)?.p95.load(Ordering::Relaxed);
        (p95 > 0).then(|| Duration::from_micros(p95).max(LEAST))
    }

    /// Takes one second try out of the budget.
    pub(super) fn take(&self) -> bool {
        let taken = |saved: i64| (saved >= ONE).then_some(saved - ONE);
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// A read that succeeded.
    pub(super) fn record(&self, kind: Kind, took: Duration) {
        let Some(latencies) = self.of(kind).filter(|_| self.percent > 0) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut ring = latencies.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let at = usize::try_from(ring.count % WINDOW as u64).unwrap_or(0);
        match ring.micros.get_mut(at) {
            Some(slot) => *slot = micros,
            None => ring.micros.push(micros),
        }
        ring.count += 1;
        if ring.micros.len() >= ENOUGH && ring.count.is_multiple_of(EVERY) {
            let mut sorted = ring.micros.clone();
            let (_, p95, _) = {
                let at = sorted.len() * 95 / 100;
                sorted.select_nth_unstable(at)
            };
            latencies.p95.store((*p95).max(1), Ordering::Relaxed);
        }
    }

    fn of(&self, kind: Kind) -> Option<&Latencies> {
        self.kinds.get(kind as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_percentile_and_stays_within_the_budget() {
        let hedges = Hedges::new(5);
        assert_eq!(hedges.patience(Kind::Tickets), None, "nothing is known yet");
        for at in 0..200 {
            hedges.record(Kind::Tickets, Duration::from_millis(if at % 10 == 0 { 90 } else { 20 }));
        }
        assert_eq!(hedges.patience(Kind::Tickets), Some(Duration::from_millis(90)));
        assert_eq!(hedges.patience(Kind::Invoices), None, "each kind by itself");
        // 203 reads at 5 % earn ten at most, and only what was counted.
        while hedges.take() {}
        for _ in 0..100 {
            hedges.patience(Kind::Tickets);
        }
        assert_eq!((0..20).filter(|_| hedges.take()).count(), 5);
        for _ in 0..10_000 {
            hedges.patience(Kind::Tickets);
        }
        assert_eq!((0..20).filter(|_| hedges.take()).count(), 10);
    }

    #[test]
    fn zero_per_cent_is_off() {
        let hedges = Hedges::new(0);
        for _ in 0..500 {
            hedges.record(Kind::Usage, Duration::from_millis(20));
        }
        assert_eq!(hedges.patience(Kind::Usage), None);
        assert!(!hedges.take());
    }
}
