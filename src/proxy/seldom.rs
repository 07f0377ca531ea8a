//! Log lines for what comes with every request while something is broken: the first at once, then one in a while that
//! says how many there were. So the log stays readable, and its disk does not fill up too.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Least time between two lines.
const PAUSE: Duration = Duration::from_secs(5);

/// One kind of line.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    /// Not told yet.
    kept_back: u64,
}

impl Seldom {
    pub const fn new() -> Self {
        Self(Mutex::new(Told { last: None, kept_back: 0 }))
    }

    /// Of how many to tell now, this one among them; `None`: later.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.kept_back += 1;
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let due = |after_ms: u64| seldom.due(start + Duration::from_millis(after_ms));
        assert_eq!([0, 1, 4_999, 5_000, 5_001].map(due), [Some(1), None, None, Some(3), None]);
        assert_eq!(due(60_000), Some(2));
    }
}
