//! Slices in memory: one tenant's answer to one question, for one partner, under one version of its link.
//!
//! The key holds everything that the authorisation came from. A link that changed, was revoked or granted anew has
//! another version, so that what was kept for the old one is never found again; it leaves by age. Equal questions that
//! come while the first is on its way share its answer.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use jiff::Timestamp;
use moka::sync::Cache;
use tokio::time::Instant;

use super::kind::Kind;
use crate::{
    domain::{LinkFacts, LinkId, LinkVersion, PartnerId},
    portal::{Endpoint, sources::SourceError},
};

/// What an entry costs beside its value, in bytes.
const ENTRY_BYTES: usize = 400;

/// Whose answer to which question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) partner: PartnerId,
    pub(super) link: LinkId,
    pub(super) version: LinkVersion,
    /// The policy set that the slice was granted under.
    pub(super) policies: u64,
    /// One endpoint has one permission.
    pub(super) endpoint: Endpoint,
    pub(super) kind: Kind,
    /// The whole of filter, order and depth.
    pub(super) question: Arc<str>,
}

impl Key {
    pub(super) fn new(link: &LinkFacts, policies: u64, endpoint: Endpoint, kind: Kind, question: &Arc<str>) -> Self {
        Self {
            partner: link.link.partner_id,
            link: link.link.id,
            version: link.link.version,
            policies,
            endpoint,
            kind,
            question: Arc::clone(question),
        }
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: Arc<dyn Any + Send + Sync>,
    pub(super) truncated: bool,
    pub(super) bytes: usize,
    /// When it was asked for: nothing in it is older.
    pub(super) as_of: Timestamp,
    pub(super) asked: Instant,
}

/// A question on its way; dropped by all who wait for it, it is given up.
pub(super) type Flight = Shared<BoxFuture<'static, Result<Entry, SourceError>>>;
type WeakFlight = WeakShared<BoxFuture<'static, Result<Entry, SourceError>>>;

#[derive(Debug)]
pub(super) struct Slices {
    entries: Cache<Key, Entry, ahash::RandomState>,
    flights: Mutex<Flights>,
}

#[derive(Debug, Default)]
struct Flights {
    under_way: HashMap<Key, (u64, WeakFlight), ahash::RandomState>,
    last: u64,
}

/// Takes the question off the list, however it ends.
struct Landing {
    slices: Weak<Slices>,
    key: Key,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let Some(slices) = self.slices.upgrade() else { return };
        let mut flights = slices.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.under_way.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            flights.under_way.remove(&self.key);
        }
    }
}

impl Slices {
    pub(super) fn new(bytes: u64, max_age: Duration) -> Self {
        let entries = Cache::builder()
            .max_capacity(bytes)
            .weigher(|key: &Key, entry: &Entry| {
                u32::try_from(entry.bytes + key.question.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
            })
            .time_to_live(max_age.max(Duration::from_millis(1)))
            .build_with_hasher(ahash::RandomState::new());
        Self { entries, flights: Mutex::default() }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key)
    }

    /// Joins the flight of an equal question, or starts one. `fresh`: never joins one that began before.
    pub(super) fn fly(
        self: &Arc<Self>,
        key: &Key,
        fresh: bool,
        ask: impl FnOnce() -> BoxFuture<'static, Result<Entry, SourceError>>,
    ) -> Flight {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, weak)) = flights.under_way.get(key).filter(|_| !fresh)
            && let Some(flight) = weak.upgrade()
        {
            return flight;
        }
        flights.last += 1;
        let number = flights.last;
        let landing = Landing { slices: Arc::downgrade(self), key: key.clone(), number };
        let (asking, slices) = (ask(), Arc::downgrade(self));
        let flight = async move {
            let answer = asking.await;
            if let (Ok(entry), Some(slices)) = (&answer, slices.upgrade()) {
                slices.entries.insert(landing.key.clone(), entry.clone());
            }
            drop(landing);
            answer
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.under_way.insert(key.clone(), (number, weak));
        }
        flight
    }

    /// Whether an equal question is on its way.
    pub(super) fn is_flying(&self, key: &Key) -> bool {
        let flight = {
            let flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            flights.under_way.get(key).and_then(|(_, weak)| weak.upgrade())
        };
        // Dropped outside of the lock: it may be the last to wait, and giving a question up takes the lock again.
        flight.is_some()
    }

    /// What all values occupy, roughly.
    #[cfg(test)]
    pub(super) fn rows_bytes(&self) -> usize {
        self.entries.iter().map(|(_, entry)| entry.bytes).sum()
    }

    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.flights.lock().unwrap().under_way.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key(number: u8) -> Key {
        Key {
            partner: PartnerId(uuid::Uuid::nil()),
            link: LinkId(uuid::Uuid::nil()),
            version: LinkVersion(1),
            policies: 1,
            endpoint: Endpoint::Invoices,
            kind: Kind::Invoices,
            question: format!("{number}").into(),
        }
    }

    fn entry() -> Entry {
        Entry { value: Arc::new(()), truncated: false, bytes: 0, as_of: Timestamp::now(), asked: Instant::now() }
    }

    #[tokio::test]
    async fn equal_questions_are_asked_once_and_kept() {
        let slices = Arc::new(Slices::new(1 << 20, Duration::from_secs(60)));
        let asked = Arc::new(AtomicUsize::new(0));
        let fly = |fresh| {
            let asked = Arc::clone(&asked);
            slices.fly(&key(0), fresh, || {
                asked.fetch_add(1, Ordering::SeqCst);
                async { Ok(entry()) }.boxed()
            })
        };
        let (one, other, fresh) = (fly(false), fly(false), fly(true));
        assert!(slices.is_flying(&key(0)) && !slices.is_flying(&key(1)));
        let answers = tokio::join!(one, other, fresh);
        assert!(answers.0.is_ok() && answers.1.is_ok() && answers.2.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 2, "who wants it fresh asks by itself");
        assert!(slices.get(&key(0)).is_some());
        drop(fly(false));
        assert_eq!(slices.under_way(), 0, "given up by all, it is off the list");
    }

    /// Whoever holds the last handle gives the question up, and that takes the lock: also one who only looked.
    #[test]
    fn looking_at_a_question_that_is_just_given_up_waits_for_nobody() {
        let slices = Arc::new(Slices::new(1 << 20, Duration::from_secs(60)));
        let (tell, told) = std::sync::mpsc::channel();
        for worker in 0..4 {
            let (slices, tell) = (Arc::clone(&slices), tell.clone());
            std::thread::spawn(move || {
                let until = std::time::Instant::now() + Duration::from_millis(700);
                while std::time::Instant::now() < until {
                    if worker == 0 {
                        drop(slices.fly(&key(0), true, || async { Ok(entry()) }.boxed()));
                    } else {
                        slices.is_flying(&key(0));
                    }
                }
                tell.send(()).unwrap();
            });
        }
        for _ in 0..4 {
            told.recv_timeout(Duration::from_secs(20)).expect("a lock is held for ever");
        }
    }
}
