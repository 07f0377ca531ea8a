//! Circuit breakers, one for each partner, tenant and kind of data: who failed several times in a row is left alone for a
//! while, then tried by one question at a time.
//!
//! Nobody may take a tenant's data away from others by what he asks. So each partner counts for itself: late answers, too
//! long or unreadable ones, 5xx, a credential that is made for its link, all of these a question or a link can bring
//! about. And what a service answers about the question itself ([`SourceError::Refused`]) counts for nobody: it proves that
//! the service is there. It closes an open breaker on probation, so that the next failure opens it again, and it leaves a
//! row of failures as it is: who asks amiss can neither open a breaker nor keep one from opening.
//!
//! Only what fails is remembered, so that memory is bounded by trouble, and by [`MAX_FAILING`].

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moka::sync::Cache;
use tokio::time::Instant;

use super::kind::Kind;
use crate::{
    domain::{PartnerId, TenantId},
    portal::sources::SourceError,
};

/// Most rows of failures remembered; beyond it some are forgotten, which only means that the service is asked again.
const MAX_FAILING: u64 = 100_000;
/// What nobody asks about is forgotten after this.
const FORGET: Duration = Duration::from_secs(900);

#[derive(Debug)]
pub(super) struct Breakers {
    /// Failures in a row; 0: never opens.
    failures: u32,
    pause: Duration,
    failing: Cache<Key, Arc<Mutex<Failing>>>,
}

/// What is asked for, of whom, by whom.
type Key = (Kind, TenantId, PartnerId);

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
    key: Key,
    /// The key's entry where this question is its probe.
    probe: Option<Arc<Mutex<Failing>>>,
}

impl Breakers {
    pub(super) fn new(failures: u32, pause: Duration) -> Self {
        let failing = Cache::builder().max_capacity(MAX_FAILING).time_to_idle(FORGET.max(pause * 2)).build();
        Self { failures, pause, failing }
    }

    /// Whether the tenant may be asked now on behalf of this partner.
    pub(super) fn enter(&self, kind: Kind, tenant: &TenantId, partner: PartnerId) -> Result<Pass<'_>, SourceError> {
        let key = (kind, tenant.clone(), partner);
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
    /// How many tenants are left alone now, by kind, for however many partners. Walks over what fails only.
    pub(super) fn open(&self) -> HashMap<Kind, usize> {
        let mut tenants: HashMap<Kind, HashSet<TenantId>> = HashMap::new();
        for (key, entry) in &self.failing {
            if lock(&entry).since.is_some() {
                let (kind, tenant, _) = &*key;
                tenants.entry(*kind).or_default().insert(tenant.clone());
            }
        }
        tenants.into_iter().map(|(kind, tenants)| (kind, tenants.len())).collect()
    }
}

impl Pass<'_> {
    pub(super) fn succeeded(self) {
        self.breakers.failing.invalidate(&self.key);
    }

    pub(super) fn failed(self, error: &SourceError) {
        match error {
            SourceError::Timeout | SourceError::Unavailable(_) | SourceError::Answer(_) => self.count(error),
            SourceError::Refused(_) => self.answered(),
            // What is our own affair is no failure of a service.
            SourceError::NoConnector(_) | SourceError::Unasked(_) | SourceError::Barred(_) => {}
        }
    }

    /// The service judged the question, and nothing is known of how it takes better ones. A probe that stayed undecided
    /// would keep all others out while it is under way; one question after the other could do so for long.
    fn answered(self) {
        if let Some(entry) = &self.probe {
            lock(entry).since = None;
        }
    }

    fn count(self, error: &SourceError) {
        if self.breakers.failures == 0 {
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

    const ONE: PartnerId = PartnerId(uuid::Uuid::from_u128(1));
    const OTHER: PartnerId = PartnerId(uuid::Uuid::from_u128(2));

    fn enter<'b>(breakers: &'b Breakers, id: &str) -> Result<Pass<'b>, SourceError> {
        breakers.enter(Kind::Invoices, &tenant(id), ONE)
    }

    fn fail(breakers: &Breakers, id: &str) {
        enter(breakers, id).unwrap().failed(&SourceError::Timeout);
    }

    fn refused() -> SourceError {
        SourceError::Refused("status 422".into())
    }

    #[tokio::test]
    async fn opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let breakers = Breakers::new(3, PAUSE);
        fail(&breakers, "a");
        fail(&breakers, "a");
        enter(&breakers, "a").unwrap().succeeded();
        for _ in 0..3 {
            fail(&breakers, "a");
        }
        let refused = enter(&breakers, "a").unwrap_err();
        assert!(refused.to_string().contains("no answer in time"), "{refused}");
        assert!(breakers.enter(Kind::Tickets, &tenant("a"), ONE).is_ok(), "another kind of data");
        assert!(enter(&breakers, "b").is_ok(), "another tenant");
        assert_eq!(breakers.open(), HashMap::from([(Kind::Invoices, 1)]));

        tokio::time::sleep(PAUSE).await;
        let probe = enter(&breakers, "a").unwrap();
        assert!(enter(&breakers, "a").is_err(), "one probe at a time");
        drop(probe);
        let probe = enter(&breakers, "a").unwrap();
        probe.failed(&SourceError::Timeout);
        assert!(enter(&breakers, "a").is_err(), "one failed probe keeps it open");

        tokio::time::sleep(PAUSE).await;
        enter(&breakers, "a").unwrap().succeeded();
        assert!(breakers.open().is_empty());
        fail(&breakers, "a");
        assert!(breakers.open().is_empty(), "one failure opens none");
        assert!(enter(&breakers, "a").is_ok(), "counted from the beginning");
    }

    #[tokio::test]
    async fn what_is_not_configured_is_no_failure_and_zero_switches_it_off() {
        let breakers = Breakers::new(1, Duration::from_secs(10));
        let pass = breakers.enter(Kind::Usage, &tenant("a"), ONE).unwrap();
        pass.failed(&SourceError::NoConnector("usage"));
        assert!(breakers.enter(Kind::Usage, &tenant("a"), ONE).is_ok());
        let off = Breakers::new(0, Duration::from_secs(10));
        for _ in 0..10 {
            fail(&off, "a");
        }
        assert!(enter(&off, "a").is_ok());
    }

    #[tokio::test]
    async fn one_partners_failures_are_no_others() {
        let breakers = Breakers::new(2, Duration::from_secs(10));
        for error in [SourceError::Timeout, SourceError::Answer("status 500".into())] {
            enter(&breakers, "a").unwrap().failed(&error);
        }
        assert!(enter(&breakers, "a").is_err());
        let other = || breakers.enter(Kind::Invoices, &tenant("a"), OTHER);
        other().unwrap().succeeded();
        assert!(enter(&breakers, "a").is_err(), "nor are another's successes its own");
        for _ in 0..2 {
            other().unwrap().failed(&SourceError::Timeout);
        }
        assert!(other().is_err());
        assert_eq!(breakers.open(), HashMap::from([(Kind::Invoices, 1)]), "one tenant, for two partners");
    }

    #[tokio::test]
    async fn what_a_service_refuses_neither_opens_a_breaker_nor_ends_a_row() {
        let breakers = Breakers::new(3, Duration::from_secs(10));
        for _ in 0..10 {
            enter(&breakers, "a").unwrap().failed(&refused());
            enter(&breakers, "a").unwrap().failed(&SourceError::Unasked("too many".into()));
        }
        for _ in 0..2 {
            fail(&breakers, "a");
            enter(&breakers, "a").unwrap().failed(&refused());
        }
        assert!(breakers.open().is_empty());
        fail(&breakers, "a");
        assert!(enter(&breakers, "a").is_err(), "three failures, whatever was refused between them");
    }

    #[tokio::test]
    async fn a_probe_that_is_refused_closes_on_probation() {
        let breakers = Breakers::new(3, PAUSE);
        let before = enter(&breakers, "a").unwrap();
        for _ in 0..3 {
            fail(&breakers, "a");
        }
        before.failed(&refused());
        assert_eq!(breakers.open().len(), 1, "it was asked before the breaker opened");
        tokio::time::sleep(PAUSE).await;
        enter(&breakers, "a").unwrap().failed(&refused());
        assert!(breakers.open().is_empty());
        let all: Vec<_> = (0..5).map(|_| enter(&breakers, "a").expect("open to all")).collect();
        drop(all);
        fail(&breakers, "a");
        assert_eq!(breakers.open().len(), 1, "one failure opens it again");
    }
}
