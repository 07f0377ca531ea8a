//! Passive health of one endpoint (outlier detection): failures in a row lead to an ejection that grows with each one.
//!
//! A failure is a connection that cannot be had, one that breaks off before an answer, no answer in time, or 502, 503 or
//! 504. An ejected endpoint comes back by itself, on probation: the next failure ejects it again, for longer; a success
//! ends the probation. For each base ejection time without an ejection one of the earlier ones is forgiven.
//!
//! A row that could be one asker's own doing (late answers, 502, 503, 504) ejects only once somebody else met a failure in
//! it too, or the service itself failed in it, or it has lasted for the base ejection time without a success of anybody's:
//! nobody may take an endpoint away from others by what he asks, and who is alone with a service may be sure of it.
//! What share may be ejected at once is the cluster's to say. Everything here is a relaxed atomic; time is told by the
//! caller.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{
    asker::{Blame, Mark},
    settings::OutlierSettings,
};

#[derive(Debug, Default)]
pub(super) struct Outlier {
    in_a_row: AtomicU32,
    row: Row,
    /// 0: never ejected, or given back.
    until: AtomicU64,
    /// Ejections that are not forgiven yet.
    times: AtomicU32,
}

/// Who met the failures of the present row.
#[derive(Debug, Default)]
struct Row {
    /// When it began; 0: with the next failure. Probation is no part of it.
    since: AtomicU64,
    /// The first asker in it, as a mark.
    first: AtomicU64,
    /// Not one asker's alone.
    witnessed: AtomicBool,
}

impl Row {
    fn saw(&self, blame: Blame, now: u64) {
        if self.since.compare_exchange(0, now, Relaxed, Relaxed).is_ok() {
            self.first.store(0, Relaxed);
            self.witnessed.store(false, Relaxed);
        }
        let witnessed = match blame {
            Blame::Service => true,
            Blame::Asker(mark) if mark.is_nobody() => false,
            Blame::Asker(mark) => match self.first.compare_exchange(0, mark.0, Relaxed, Relaxed) {
                Ok(_) => false,
                Err(first) => mark.has_nothing_in_common_with(Mark(first)),
            },
        };
        if witnessed {
            self.witnessed.store(true, Relaxed);
        }
    }

    fn counts(&self, settings: &OutlierSettings, now: u64) -> bool {
        let lasted = || now.saturating_sub(self.since.load(Relaxed)) >= millis(settings.base_ejection_time);
        self.witnessed.load(Relaxed) || lasted()
    }

    fn end(&self) {
        self.since.store(0, Relaxed);
    }
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
            self.row.end();
        }
    }

    /// Whether it is to be ejected.
    pub(super) fn failed(&self, settings: &OutlierSettings, blame: Blame, now: u64) -> bool {
        if settings.consecutive_failures == 0 || self.is_ejected(now) {
            return false;
        }
        self.row.saw(blame, now);
        let in_a_row = self.in_a_row.fetch_add(1, Relaxed).saturating_add(1);
        in_a_row >= settings.consecutive_failures && self.row.counts(settings, now)
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
        self.row.end();
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
        (1..).find(|_| outlier.failed(&SETTINGS, Blame::Service, now)).unwrap()
    }

    /// Tenant and organisation.
    fn asker(tenant: u64, organisation: u64) -> Blame {
        Blame::Asker(Mark(tenant << 32 | organisation))
    }

    const NOBODY: Blame = Blame::Asker(Mark(0));

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let outlier = Outlier::default();
        assert!(!outlier.failed(&SETTINGS, Blame::Service, 1));
        assert!(!outlier.failed(&SETTINGS, Blame::Service, 1));
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
        assert!(!outlier.failed(&SETTINGS, Blame::Service, 50));
        outlier.succeeded(|| 50);
        assert!(outlier.is_ejected(50));
        assert_eq!(fail(&outlier, 101), 1, "the probation stands");
    }

    #[test]
    fn zero_switches_it_off() {
        let off = OutlierSettings { consecutive_failures: 0, ..SETTINGS };
        let outlier = Outlier::default();
        assert!((0..100).all(|_| !outlier.failed(&off, Blame::Service, 1)));
    }

    /// Neither one tenant, whoever asks for it, nor one organisation, in however many tenants, nor anybody without a name.
    #[test]
    fn a_row_that_one_asker_alone_met_ejects_nothing() {
        let outlier = Outlier::default();
        for blame in [asker(1, 7), asker(2, 7), asker(1, 1), NOBODY, asker(1, 9), asker(7, 7)].repeat(10) {
            assert!(!outlier.failed(&SETTINGS, blame, 1), "{blame:?}");
        }
        assert!(outlier.failed(&SETTINGS, asker(2, 2), 1), "somebody else meets the next one");
    }

    #[test]
    fn a_row_that_the_service_had_a_part_in_ejects() {
        let outlier = Outlier::default();
        assert!(!outlier.failed(&SETTINGS, asker(1, 1), 1));
        assert!(!outlier.failed(&SETTINGS, Blame::Service, 1));
        assert!(outlier.failed(&SETTINGS, asker(1, 1), 1));
    }

    #[test]
    fn a_success_ends_the_row_with_its_witnesses() {
        let outlier = Outlier::default();
        assert!(!outlier.failed(&SETTINGS, asker(1, 1), 1));
        assert!(!outlier.failed(&SETTINGS, asker(2, 2), 1));
        outlier.succeeded(|| 1);
        assert!((0..10).all(|_| !outlier.failed(&SETTINGS, asker(1, 1), 1)));
    }

    #[test]
    fn who_is_alone_with_a_service_ejects_once_the_row_has_lasted() {
        let outlier = Outlier::default();
        for blame in [asker(1, 1), NOBODY] {
            assert!((0..10).all(|_| !outlier.failed(&SETTINGS, blame, 1_000)));
            assert!(!outlier.failed(&SETTINGS, blame, 1_099));
            outlier.succeeded(|| 1_099);
            assert!((0..10).all(|_| !outlier.failed(&SETTINGS, blame, 1_100)), "a row of its own");
            assert!(outlier.failed(&SETTINGS, blame, 1_200));
            outlier.succeeded(|| 1_200);
        }
    }

    /// What ejected it before says nothing of who meets the next failure.
    #[test]
    fn on_probation_the_same_holds() {
        let outlier = Outlier::default();
        assert_eq!(fail(&outlier, 1), 3);
        outlier.eject(&SETTINGS, 1);
        assert!((0..10).all(|_| !outlier.failed(&SETTINGS, asker(1, 1), 200)));
        assert!(outlier.failed(&SETTINGS, asker(2, 2), 200));
    }
}
