//! The bounds of a cluster (circuit breaking): requests under way at once, and a bounded queue before them. The shared
//! endpoints have theirs and each tenant's own address has its own, so that one that hangs takes no place from another.
//!
//! Of these places no organisation has more than its share (`share`). Without a queue a request costs one relaxed
//! addition here. With one, who finds all places taken waits until one comes free, in the order of coming as far as
//! workers can tell, and at most for the queue's time. The counts outlast reloads: a stream that was opened under the
//! configuration of before still holds its place.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    budget::Budget,
    share::{Held, Shares},
};

/// How many are let in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_in_flight: usize,
    /// How many of them, and of the places in the queue, one organisation may have.
    pub(super) share: usize,
    pub(super) max_pending: usize,
    /// Longest wait in the queue.
    pub(super) queue_timeout: Duration,
}

/// How busy a cluster is.
#[derive(Debug, Default)]
pub(super) struct Load {
    in_flight: AtomicUsize,
    pending: AtomicUsize,
    freed: Notify,
    pub(super) budget: Budget,
    pub(super) shares: Shares,
}

/// Why a request has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The asker's organisation has its share already.
    Share,
    /// All are taken, and nothing queues.
    Full,
    QueueFull,
    QueueTimeout,
}

/// One request under way; its drop frees the place.
#[derive(Debug)]
pub struct InFlight {
    load: Arc<Load>,
    _share: Option<Held>,
}

impl InFlight {
    fn of(load: &Arc<Load>) -> Self {
        Self { load: Arc::clone(load), _share: None }
    }

    /// The same place, as part of this share.
    pub(super) fn within(self, share: Option<Held>) -> Self {
        let mut place = self;
        place._share = share;
        place
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // First the place, then the look at the queue; who queues does both the other way round. One of the two sees the
        // other.
        self.load.in_flight.fetch_sub(1, SeqCst);
        if self.load.pending.load(SeqCst) > 0 {
            self.load.freed.notify_one();
        }
    }
}

/// One request in the queue.
struct Pending<'l>(&'l Load);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, SeqCst);
    }
}

impl Load {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    /// A place at once, or none.
    pub(super) fn enter(self: &Arc<Self>, most: usize) -> Option<InFlight> {
        let before = self.in_flight.fetch_add(1, Relaxed);
        let place = InFlight::of(self);
        (before < most).then_some(place)
    }

    /// A place at once, if nobody waits for one.
    pub(super) fn enter_unless_queued(self: &Arc<Self>, most: usize) -> Option<InFlight> {
        let pending = self.pending.load(SeqCst);
        if pending > 0 && !self.has_room_for(pending, most) { None } else { self.take(most) }
    }

    /// Whether there is a place for all who wait and for one more: nobody is overtaken then. So it is where a reload has
    /// raised the bound, which those who waited before it do not know of.
    fn has_room_for(&self, pending: usize, most: usize) -> bool {
        self.in_flight.load(SeqCst).saturating_add(pending) < most
    }

    /// As [`Self::enter`], but never above the bound, not even for a moment: who waits would take that for a full house.
    fn take(self: &Arc<Self>, most: usize) -> Option<InFlight> {
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        self.in_flight.fetch_update(SeqCst, SeqCst, more).ok().map(|_| InFlight::of(self))
    }

    /// Waits for a place.
    pub(super) async fn queue(
        self: &Arc<Self>,
        most: usize,
        max_pending: usize,
        until: Instant,
    ) -> Result<InFlight, Refused> {
        let before = self.pending.fetch_add(1, SeqCst);
        let pending = Pending(self);
        if before >= max_pending {
            return Err(Refused::QueueFull);
        }
        // Who comes behind others tries only when a place was freed for it.
        let mut turn = before == 0 || self.has_room_for(before, most);
        let place = loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            turn |= freed.as_mut().enable();
            if turn && let Some(place) = self.take(most) {
                break place;
            }
            tokio::time::timeout_at(until, freed).await.map_err(|_| Refused::QueueTimeout)?;
            turn = true;
        };
        drop(pending);
        // Several may have come free before anybody queued; the next in the queue did not look.
        if self.pending.load(SeqCst) > 0 && self.in_flight.load(SeqCst) < most {
            self.freed.notify_one();
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let load = Arc::new(Load::default());
        let first = load.enter(2).unwrap();
        let _second = load.enter(2).unwrap();
        assert!(load.enter(2).is_none() && load.enter_unless_queued(2).is_none());
        drop(first);
        assert!(load.enter(2).is_some());
        assert_eq!(load.in_flight(), 1);
    }

    #[tokio::test]
    async fn who_waits_gets_the_next_place_and_a_full_queue_says_so() {
        let load = Arc::new(Load::default());
        let held = load.enter(1).unwrap();
        let queued = Arc::clone(&load);
        let queued = tokio::spawn(async move { queued.queue(1, 1, later()).await });
        while load.pending() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(load.queue(1, 1, later()).await.unwrap_err(), Refused::QueueFull);
        drop(held);
        assert!(load.enter_unless_queued(1).is_none(), "nobody comes before who waits");
        let place = queued.await.unwrap().unwrap();
        assert_eq!((load.in_flight(), load.pending()), (1, 0));
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(load.queue(1, 1, soon).await.unwrap_err(), Refused::QueueTimeout);
        drop(place);
        assert_eq!((load.in_flight(), load.pending()), (0, 0));
    }

    /// A reload raised it while requests waited.
    #[tokio::test]
    async fn a_higher_bound_is_in_force_at_once() {
        let load = Arc::new(Load::default());
        let _held = [load.enter(2).unwrap(), load.enter(2).unwrap()];
        let queued = Arc::clone(&load);
        let queued = tokio::spawn(async move { queued.queue(2, 8, later()).await });
        while load.pending() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(load.enter_unless_queued(3).is_none(), "the one place more is for who waits");
        assert!(load.enter_unless_queued(4).is_some());
        assert!(load.queue(4, 8, later()).await.is_ok());
        queued.abort();
    }

    #[tokio::test]
    async fn who_leaves_the_queue_passes_its_place_on() {
        let load = Arc::new(Load::default());
        let held = load.enter(1).unwrap();
        let waiting = |load: &Arc<Load>| {
            let load = Arc::clone(load);
            tokio::spawn(async move { load.queue(1, 8, later()).await })
        };
        let (first, second) = (waiting(&load), waiting(&load));
        while load.pending() < 2 {
            tokio::task::yield_now().await;
        }
        drop(held);
        // It was told of the place and never comes to take it.
        first.abort();
        assert!(second.await.unwrap().is_ok());
    }

    /// No wake-up is lost: with many more requests than places all get one, and never more than the bound at once.
    #[test]
    fn all_who_wait_are_served() {
        let load = Arc::new(Load::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        let asked = (0..2_000).map(|number: u32| {
            let load = Arc::clone(&load);
            runtime.spawn(async move {
                let place = match load.enter_unless_queued(3) {
                    Some(place) => place,
                    None => load.queue(3, 2_000, later()).await.unwrap(),
                };
                assert!(load.in_flight() <= 3);
                if number.is_multiple_of(7) {
                    tokio::task::yield_now().await;
                }
                drop(place);
            })
        });
        let asked: Vec<_> = asked.collect();
        for one in asked {
            runtime.block_on(one).unwrap();
        }
        assert_eq!((load.in_flight(), load.pending()), (0, 0));
    }
}
