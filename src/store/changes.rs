//! What has changed as far as this process knows, and from which change on an entry may be used.
//!
//! An entry read as of change `n` is valid iff nothing newer than `n` touched it. The map is bounded: where it would
//! grow past its bound, it is forgotten and the floor takes its place, below which no entry is valid. Forgetting can
//! only make valid entries invalid, never the other way round.

use std::{
    collections::HashMap,
    sync::{
        RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::admin::Touch;
use crate::domain::PartnerId;

/// Most entries remembered one by one.
const MOST_REMEMBERED: usize = 65_536;

#[derive(Debug, Default)]
struct Seen {
    /// Counts the connections of the feed: behind a new one there may be another database, whose numbers say nothing
    /// about those of the old one.
    era: u64,
    /// Entries older than this are invalid, whatever they are.
    floor: u64,
    last: HashMap<u64, u64, ahash::RandomState>,
}

/// The changes seen; shared by feed, writers of this process and readers.
#[derive(Debug)]
pub(crate) struct Changes {
    seen: RwLock<Seen>,
    hasher: ahash::RandomState,
    /// Raised with every invalidation, after the map knows of it.
    epoch: AtomicU64,
    most: usize,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            seen: RwLock::default(),
            hasher: ahash::RandomState::new(),
            epoch: AtomicU64::new(1),
            most: MOST_REMEMBERED,
        }
    }
}

/// Which entry is meant. Two entries that share a key are only invalidated together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key(u64);

impl Changes {
    pub(crate) fn partner(&self, partner: PartnerId) -> Key {
        Key(self.hasher.hash_one(partner))
    }

    pub(crate) fn member(&self, issuer: &str, sub: &str) -> Key {
        Key(self.hasher.hash_one((issuer, sub)))
    }

    /// Notes what change `seq` touched. Numbers may come in any order and more than once.
    pub(crate) fn note<'a>(&self, seq: u64, touched: impl IntoIterator<Item = &'a Touch>) {
        let mut seen = self.seen.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for touch in touched {
            let key = match touch {
                Touch::Partner(partner) => self.partner(*partner),
                Touch::Member { issuer, sub } => self.member(issuer, sub),
                Touch::All => {
                    seen.floor = seen.floor.max(seq);
                    continue;
                }
                Touch::Suspensions => continue,
            };
            if seen.last.len() >= self.most && !seen.last.contains_key(&key.0) {
                let newest = seen.last.values().copied().max().unwrap_or_default();
                seen.floor = seen.floor.max(newest);
                seen.last.clear();
            }
            let last = seen.last.entry(key.0).or_default();
            *last = seq.max(*last);
        }
        drop(seen);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Starts over with a database that may be another one, now at change `seq`: nothing read before is valid.
    pub(crate) fn restart(&self, seq: u64) {
        let mut seen = self.seen.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.era += 1;
        seen.floor = seq;
        seen.last.clear();
        drop(seen);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// To be asked before an entry is read.
    pub(crate) fn era(&self) -> u64 {
        self.seen.read().unwrap_or_else(std::sync::PoisonError::into_inner).era
    }

    /// Whether an entry that was begun to be read in `era`, and is as of change `as_of`, may be used.
    pub(crate) fn valid(&self, key: Key, era: u64, as_of: u64) -> bool {
        let seen = self.seen.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        era == seen.era && as_of >= seen.last.get(&key.0).copied().unwrap_or_default().max(seen.floor)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn partner(n: u128) -> PartnerId {
        PartnerId(Uuid::from_u128(n))
    }

    /// The oldest change as of which an entry is valid now.
    fn required(changes: &Changes, key: Key) -> u64 {
        (0..1000).find(|as_of| changes.valid(key, changes.era(), *as_of)).unwrap()
    }

    #[test]
    fn an_entry_needs_the_newest_change_that_touched_it() {
        let changes = Changes::default();
        changes.note(5, [&Touch::Partner(partner(1))]);
        changes.note(3, [&Touch::Partner(partner(1)), &Touch::Member { issuer: "i".into(), sub: "s".into() }]);
        assert_eq!(required(&changes, changes.partner(partner(1))), 5);
        assert_eq!(required(&changes, changes.partner(partner(2))), 0);
        assert_eq!(required(&changes, changes.member("i", "s")), 3);
        changes.note(9, [&Touch::All]);
        assert_eq!(required(&changes, changes.partner(partner(1))), 9);
        assert_eq!(required(&changes, changes.member("x", "y")), 9);
    }

    #[test]
    fn forgetting_never_makes_an_old_entry_valid_again() {
        let changes = Changes { most: 8, ..Changes::default() };
        for n in 1..=100 {
            changes.note(n, [&Touch::Partner(partner(u128::from(n)))]);
            for old in 1..=n {
                assert!(required(&changes, changes.partner(partner(u128::from(old)))) >= old);
            }
        }
        assert!(changes.seen.read().unwrap().last.len() <= 8);
    }

    #[test]
    fn nothing_read_before_a_restart_is_valid_after_it_whatever_its_number() {
        let changes = Changes::default();
        let (era, key) = (changes.era(), changes.partner(partner(1)));
        assert!(changes.valid(key, era, 500));
        changes.restart(3);
        assert!(!changes.valid(key, era, 500));
        assert!(changes.valid(key, changes.era(), 3));
        assert!(!changes.valid(key, changes.era(), 2));
    }

    #[test]
    fn every_note_starts_a_new_epoch() {
        let changes = Changes::default();
        let before = changes.epoch();
        changes.note(1, [&Touch::Suspensions]);
        changes.note(2, [&Touch::All]);
        changes.restart(2);
        assert_eq!(changes.epoch(), before + 3);
    }
}
