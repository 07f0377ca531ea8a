//! The share of a cluster's places that one organisation may take, so that none takes them all from the others.
//!
//! Each organisation has a count of its own. A request looks it up in one of several maps, whose lock is held for no more
//! than that, and adds one; nothing is locked when it ends.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::domain::TenantId;

const SHARDS: usize = 16;
/// From so many organisations on, those that have nothing under way are forgotten, for each shard.
const KEPT: usize = 64;

type Shard = Mutex<HashMap<TenantId, Arc<AtomicUsize>, ahash::RandomState>>;

static KEYS: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);

/// What each organisation has under way at one cluster.
#[derive(Debug, Default)]
pub(super) struct Shares(OnceLock<Box<[Shard; SHARDS]>>);

/// One place of an organisation's share; its drop frees it.
#[derive(Debug)]
pub(super) struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Shares {
    /// `None`: the organisation has as many already.
    pub(super) fn take(&self, organisation: &TenantId, most: usize) -> Option<Held> {
        let held = Held(self.count_of(organisation)?);
        let before = held.0.fetch_add(1, Relaxed);
        (before < most).then_some(held)
    }

    fn count_of(&self, organisation: &TenantId) -> Option<Arc<AtomicUsize>> {
        let shards = self.0.get_or_init(Box::default);
        let place = KEYS.hash_one(organisation) as usize % SHARDS;
        // A panic elsewhere leaves it whole: each change is one insertion or removal.
        let mut shard = shards.get(place)?.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = shard.get(organisation) {
            return Some(Arc::clone(count));
        }
        if shard.len() >= KEPT {
            // Who has something under way holds its count, and others get at it only through this lock.
            shard.retain(|_, count| Arc::strong_count(count) > 1);
        }
        Some(Arc::clone(shard.entry(organisation.clone()).or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organisation(number: usize) -> TenantId {
        TenantId::new(&format!("org-{number}")).unwrap()
    }

    #[test]
    fn each_has_its_own_and_gets_it_back() {
        let shares = Shares::default();
        let [one, other] = [1, 2].map(organisation);
        let held = [(); 2].map(|()| shares.take(&one, 2).unwrap());
        assert!(shares.take(&one, 2).is_none() && shares.take(&other, 2).is_some());
        drop(held);
        assert!(shares.take(&one, 1).is_some());
    }

    #[test]
    fn who_has_nothing_under_way_is_forgotten_and_nobody_else() {
        let shares = Shares::default();
        let held: Vec<_> = (0..100).map(|number| shares.take(&organisation(number), 1).unwrap()).collect();
        for number in 100..10_000 {
            assert!(shares.take(&organisation(number), 1).is_some());
        }
        let known: usize = shares.0.get().unwrap().iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!((100..=SHARDS * KEPT).contains(&known), "{known}");
        assert!((0..100).all(|number| shares.take(&organisation(number), 1).is_none()));
        drop(held);
    }
}
