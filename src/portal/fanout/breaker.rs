//! Circuit breakers, one for each tenant and kind of data: who failed several times in a row is left alone for a while,
//! then tried by one question at a time.
//!
//! Only failing pairs are remembered, so that memory is bounded by trouble, and by [`MAX_PAIRS`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moka::sync::Cache;
use tokio::time::Instant;

use super::kind::Kind;
use crate::{domain::TenantId, portal::sources::SourceError};

/// Most failing pairs remembered; beyond it the oldest are forgotten, which only means that they are asked again.
const MAX_PAIRS: u64 = 100_000;
/// A pair that nobody asks about is forgotten after this.
const FORGET: Duration = Duration::from_secs(900);

#[derive(Debug)]
pub(super) struct Breakers {
    /// Failures in a row; 0: never opens.
    failures: u32,
    pause: Duration,
    failing: Cache<(Kind, TenantId), Arc<Mutex<Failing>>>,
}

#[derive(Debug)]
struct Failing {
    in_a_row: u32,
    last: String,
    /// Set while open.
    since: Option<Instant>,
    /// A question is under way that tries whether it works again.
    probing: bool,
}

/// A question that the breaker let through. Dropped without a word it counts as never asked.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breakers: &'a Breakers,
    key: (Kind, TenantId),
    /// The pair's entry where this question is its probe.
    probe: Option<Arc<Mutex<Failing>>>,
}

impl Breakers {
    pub(super) fn new(failures: u32, pause: Duration) -> Self {
        let failing = Cache::builder().max_capacity(MAX_PAIRS).time_to_idle(FORGET.max(pause * 2)).build();
        Self { failures, pause, failing }
    }

    /// Whether the tenant may be asked now.
    pub(super) fn enter(&self, kind: Kind, tenant: &TenantId) -> Result<Pass<'_>, SourceError> {
        let key = (kind, tenant.clone());
        let mut pass = Pass { breakers: self, key, probe: None };
        let Some(entry) = self.failing.get(&pass.key) else { return Ok(pass) };
        let mut failing = lock(&entry);
        let Some(since) = failing.since else { return Ok(pass) };
        if failing.probing || since.elapsed() < self.pause {
            return Err(SourceError::Unavailable(format!(
                "it failed {} times in a row and is left alone for a moment; the last failure: {}",
                failing.in_a_row, failing.last
            )));
        }
        failing.probing = true;
        drop(failing);
        pass.probe = Some(entry);
        Ok(pass)
    }
}

impl Breakers {
    /// How many tenants are left alone now, by kind. Walks over the failing pairs only.
    pub(super) fn open(&self) -> HashMap<Kind, usize> {
        let mut open = HashMap::new();
        for (key, entry) in &self.failing {
            if lock(&entry).since.is_some() {
                *open.entry(key.0).or_default() += 1;
            }
        }
        open
    }
}

impl Pass<'_> {
    pub(super) fn succeeded(self) {
        self.breakers.failing.invalidate(&self.key);
    }

    pub(super) fn failed(self, error: &SourceError) {
        // That nothing is configured is no failure of a service.
        if self.breakers.failures == 0 || matches!(error, SourceError::NoConnector(_)) {
            return;
        }
        let fresh = || Arc::new(Mutex::new(Failing { in_a_row: 0, last: String::new(), since: None, probing: false }));
        let entry = self.breakers.failing.get_with(self.key.clone(), fresh);
        let mut failing = lock(&entry);
        failing.in_a_row = failing.in_a_row.saturating_add(1);
        failing.last = error.to_string();
        if self.probe.is_some() || failing.in_a_row >= self.breakers.failures {
            failing.since = Some(Instant::now());
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(entry) = &self.probe {
            lock(entry).probing = false;
        }
    }
}

fn lock(entry: &Mutex<Failing>) -> MutexGuard<'_, Failing> {
    entry.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(200);

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id).unwrap()
    }

    fn fail(breakers: &Breakers, id: &str) {
        breakers.enter(Kind::Invoices, &tenant(id)).unwrap().failed(&SourceError::Timeout);
    }

    #[tokio::test]
    async fn opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let breakers = Breakers::new(3, PAUSE);
        fail(&breakers, "a");
        fail(&breakers, "a");
        breakers.enter(Kind::Invoices, &tenant("a")).unwrap().succeeded();
        for _ in 0..3 {
            fail(&breakers, "a");
        }
        let refused = breakers.enter(Kind::Invoices, &tenant("a")).unwrap_err();
        assert!(refused.to_string().contains("no answer in time"), "{refused}");
        assert!(breakers.enter(Kind::Tickets, &tenant("a")).is_ok(), "another kind of data");
        assert!(breakers.enter(Kind::Invoices, &tenant("b")).is_ok(), "another tenant");
        assert_eq!(breakers.open(), HashMap::from([(Kind::Invoices, 1)]));

        tokio::time::sleep(PAUSE).await;
        let probe = breakers.enter(Kind::Invoices, &tenant("a")).unwrap();
        assert!(breakers.enter(Kind::Invoices, &tenant("a")).is_err(), "one probe at a time");
        drop(probe);
        let probe = breakers.enter(Kind::Invoices, &tenant("a")).unwrap();
        probe.failed(&SourceError::Timeout);
        assert!(breakers.enter(Kind::Invoices, &tenant("a")).is_err(), "one failed probe keeps it open");

        tokio::time::sleep(PAUSE).await;
        breakers.enter(Kind::Invoices, &tenant("a")).unwrap().succeeded();
        assert!(breakers.open().is_empty());
        fail(&breakers, "a");
        assert!(breakers.open().is_empty(), "one failure opens none");
        assert!(breakers.enter(Kind::Invoices, &tenant("a")).is_ok(), "counted from the beginning");
    }

    #[tokio::test]
    async fn what_is_not_configured_is_no_failure_and_zero_switches_it_off() {
        let breakers = Breakers::new(1, Duration::from_secs(10));
        let pass = breakers.enter(Kind::Usage, &tenant("a")).unwrap();
        pass.failed(&SourceError::NoConnector("usage"));
        assert!(breakers.enter(Kind::Usage, &tenant("a")).is_ok());
        let off = Breakers::new(0, Duration::from_secs(10));
        for _ in 0..10 {
            fail(&off, "a");
        }
        assert!(off.enter(Kind::Invoices, &tenant("a")).is_ok());
    }
}
