//! Sums of the lines that were written lately, kept in memory.
//!
//! The index reads every line once more, a moment after it was written. That it is the same line still is found out by a
//! keyed sum, at a tenth of the cost of its SHA-256: whoever altered it in the file does not know the key, which is made
//! at random by each process. Lines from before the start, and those that the index is too far behind of, have no sum
//! here; for them the hash itself is worked out.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher},
};

/// Lines remembered: two megabytes.
const KEPT: usize = 1 << 18;

/// The writer's side.
pub(super) struct Sums {
    known: Known,
}

/// Sums of lines that follow one another.
#[derive(Clone)]
pub struct Known {
    key: ahash::RandomState,
    /// Place of the first in the chain.
    first: u64,
    sums: VecDeque<u64>,
}

impl std::fmt::Debug for Known {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Known({} from {})", self.sums.len(), self.first)
    }
}

impl Sums {
    pub(super) fn new() -> Self {
        Self { known: Known::nothing() }
    }

    /// Remembers the line written as `seq`, without its newline. Lines behind it were taken back.
    pub(super) fn note(&mut self, seq: u64, line: &[u8]) {
        let sum = self.known.sum(line);
        let Known { first, sums, .. } = &mut self.known;
        let place = seq.checked_sub(*first).and_then(|place| usize::try_from(place).ok());
        match place.filter(|place| *place <= sums.len()) {
            Some(place) => sums.truncate(place),
            None => {
                sums.clear();
                *first = seq;
            }
        }
        if sums.len() >= KEPT && sums.pop_front().is_some() {
            *first += 1;
        }
        sums.push_back(sum);
    }

    /// The sums of at most `most` lines behind `seq`; those up to `seq` are forgotten.
    pub(super) fn behind(&mut self, seq: u64, most: usize) -> Known {
        let Known { key, first, sums } = &mut self.known;
        while *first <= seq && sums.pop_front().is_some() {
            *first += 1;
        }
        Known { key: key.clone(), first: *first, sums: sums.iter().take(most).copied().collect() }
    }
}

impl Known {
    /// Every line is checked by its hash.
    pub fn nothing() -> Self {
        Self { key: ahash::RandomState::new(), first: 1, sums: VecDeque::new() }
    }

    /// Whether the line is as it was written; `None`: not known.
    pub(in crate::audit) fn vouches(&self, seq: u64, line: &[u8]) -> Option<bool> {
        let place = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.sums.get(place).map(|sum| *sum == self.sum(line))
    }

    fn sum(&self, line: &[u8]) -> u64 {
        let mut hasher = self.key.build_hasher();
        hasher.write(line);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_vouched_for_until_it_is_forgotten_or_taken_back() {
        let mut sums = Sums::new();
        for seq in 40..50_u64 {
            sums.note(seq, &seq.to_be_bytes());
        }
        // The last two were taken back, and another came.
        sums.note(48, b"other");
        let known = sums.behind(44, 100);
        let vouches = |seq: u64| known.vouches(seq, &seq.to_be_bytes());
        assert_eq!([44, 45, 47, 48, 49].map(vouches), [None, Some(true), Some(true), Some(false), None]);
        assert_eq!(known.vouches(48, b"other"), Some(true));
        assert_eq!(sums.behind(44, 2).vouches(47, b""), None, "no more than asked for");
        assert_eq!(Known::nothing().vouches(1, b""), None);
    }

    #[test]
    fn no_more_is_kept_than_fits() {
        let mut sums = Sums::new();
        let last = KEPT as u64 + 10;
        (1..=last).for_each(|seq| sums.note(seq, b""));
        let known = sums.behind(0, usize::MAX);
        assert_eq!(
            (known.vouches(10, b""), known.vouches(11, b""), known.vouches(last, b"")),
            (None, Some(true), Some(true))
        );
    }
}
