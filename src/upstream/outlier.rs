//! Passive health of one endpoint (outlier detection): failures in a row lead to an ejection that grows with each one.
//!
//! A failure is a connection that cannot be had, one that breaks off before an answer, no answer in time, or 502, 503 or
//! 504. An ejected endpoint comes back by itself, on probation: the next failure ejects it again, for longer; a success
//! ends the probation. For each base ejection time without an ejection one of the earlier ones is forgiven.
//! What share may be ejected at once is the cluster's to say. Everything here is a relaxed atomic; time is told by the
//! caller.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::settings::OutlierSettings;

#[derive(Debug, Default)]
pub(super) struct Outlier {
    in_a_row: AtomicU32,
    /// 0: never ejected, or given back.
    until: AtomicU64,
    /// Ejections that are not forgiven yet.
    times: AtomicU32,
}

impl Outlier {
    pub(super) fn is_ejected(&self, now: u64) -> bool {
        let until = self.until.load(Relaxed);
        until != 0 && now < until
    }

    /// When an ejection ends or ended; 0: there was none.
    pub(super) fn until(&self) -> u64 {
        self.until.load(Relaxed)
    }

    pub(super) fn succeeded(&self, now: impl FnOnce() -> u64) {
        // An answer to a request from before says nothing of now.
        if self.in_a_row.load(Relaxed) != 0 && (self.until() == 0 || !self.is_ejected(now())) {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// Whether it is to be ejected.
    pub(super) fn failed(&self, settings: &OutlierSettings, now: u64) -> bool {
        if settings.consecutive_failures == 0 || self.is_ejected(now) {
            return false;
        }
        self.in_a_row.fetch_add(1, Relaxed).saturating_add(1) >= settings.consecutive_failures
    }

    /// Ejects it. One caller at a time. Returns for how long.
    pub(super) fn eject(&self, settings: &OutlierSettings, now: u64) -> Duration {
        let base = millis(settings.base_ejection_time).max(1);
        let forgiven = u32::try_from(now.saturating_sub(self.until()) / base).unwrap_or(u32::MAX);
        let times = self.times.load(Relaxed).saturating_sub(forgiven).saturating_add(1);
        let time = base.saturating_mul(u64::from(times)).min(millis(settings.max_ejection_time).max(base));
        self.times.store(times, Relaxed);
        self.until.store(now.saturating_add(time), Relaxed);
        // On probation when it comes back.
        self.in_a_row.store(settings.consecutive_failures.saturating_sub(1), Relaxed);
        Duration::from_millis(time)
    }

    /// Back at once.
    pub(super) fn give_back(&self) {
        self.until.store(0, Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: OutlierSettings = OutlierSettings {
        consecutive_failures: 3,
        base_ejection_time: Duration::from_millis(100),
        max_ejection_time: Duration::from_millis(250),
        max_ejection_percent: 100,
        panic_threshold: 0,
    };

    /// Fails until it is to be ejected; how often that took.
    fn fail(outlier: &Outlier, now: u64) -> u32 {
        (1..).find(|_| outlier.failed(&SETTINGS, now)).unwrap()
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let outlier = Outlier::default();
        assert!(!outlier.failed(&SETTINGS, 1));
        assert!(!outlier.failed(&SETTINGS, 1));
        outlier.succeeded(|| 1);
        assert_eq!(fail(&outlier, 1), 3);
        assert_eq!(outlier.eject(&SETTINGS, 1), Duration::from_millis(100));
        assert!(outlier.is_ejected(100) && !outlier.is_ejected(101));
    }

    #[test]
    fn ejections_grow_up_to_the_longest_and_are_forgiven_in_time() {
        let outlier = Outlier::default();
        let mut now = 1;
        let mut times = Vec::new();
        for _ in 0..4 {
            let time = outlier.eject(&SETTINGS, now).as_millis();
            now += u64::try_from(time).unwrap();
            times.push(time);
            assert_eq!(fail(&outlier, now), 1, "on probation");
        }
        assert_eq!(times, [100, 200, 250, 250]);
        outlier.succeeded(|| now);
        assert_eq!(fail(&outlier, now), 3, "a success ends the probation");
        assert_eq!(outlier.eject(&SETTINGS, now + 299).as_millis(), 250, "four less two and one more");
        now += 299 + 250;
        assert_eq!(outlier.eject(&SETTINGS, now + 1_000).as_millis(), 100, "all are forgiven");
    }

    #[test]
    fn what_comes_late_from_before_an_ejection_changes_nothing() {
        let outlier = Outlier::default();
        outlier.eject(&SETTINGS, 1);
        assert!(!outlier.failed(&SETTINGS, 50));
        outlier.succeeded(|| 50);
        assert!(outlier.is_ejected(50));
        assert_eq!(fail(&outlier, 101), 1, "the probation stands");
    }

    #[test]
    fn zero_switches_it_off() {
        let off = OutlierSettings { consecutive_failures: 0, ..SETTINGS };
        let outlier = Outlier::default();
        assert!((0..100).all(|_| !outlier.failed(&off, 1)));
    }
}
