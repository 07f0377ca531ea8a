//! The words of a chunk, as they are stored: a sorted list while the chunk may still be merged with others, then a Bloom
//! filter.
//!
//! A filter says "certainly not here" or "look". It costs a record a few bit operations, where an index over random keys
//! costs a page of the file each.

/// First byte of what is stored.
const LIST: u8 = 1;
const FILTER: u8 = 2;
/// Bits for each word at least; between this and twice as many, one wrong "look" in about 300 to 2,000 words asked for.
const BITS_PER_WORD: usize = 12;
const PROBES: u64 = 5;
/// Bytes of the smallest and the largest filter.
const BYTES: std::ops::RangeInclusive<usize> = 64..=1 << 20;

/// The words of one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Terms {
    /// Sorted, each once.
    List(Vec<u64>),
    /// Its length is a power of two.
    Filter(Vec<u8>),
    /// Stored by a later version in another form: look.
    Unknown(Vec<u8>),
}

impl Terms {
    /// Exact, and can be merged.
    pub(super) fn list(mut words: Vec<u64>) -> Self {
        words.sort_unstable();
        words.dedup();
        Self::List(words)
    }

    /// Whichever is smaller. `words`: most of them once.
    pub(super) fn sealed(words: Vec<u64>) -> Self {
        let size = (words.len() * BITS_PER_WORD / 8).next_power_of_two().clamp(*BYTES.start(), *BYTES.end());
        if words.len() * 8 <= size {
            return Self::list(words);
        }
        let mut filter = Self::Filter(vec![0; size]);
        filter.add(&words);
        filter
    }

    pub(super) fn stored(bytes: Vec<u8>) -> Self {
        match bytes.split_first() {
            Some((&LIST, rest)) if rest.len().is_multiple_of(8) => {
                Self::List(rest.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
            }
            Some((&FILTER, rest)) if rest.len().is_power_of_two() => Self::Filter(rest.to_vec()),
            _ => Self::Unknown(bytes),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::List(words) => [LIST].into_iter().chain(words.iter().flat_map(|word| word.to_le_bytes())).collect(),
            Self::Filter(bits) => [&[FILTER], bits.as_slice()].concat(),
            Self::Unknown(bytes) => bytes.clone(),
        }
    }

    /// The words themselves, where they are known.
    pub(super) fn into_words(self) -> Option<Vec<u64>> {
        if let Self::List(words) = self { Some(words) } else { None }
    }

    /// Whether more is known now than before.
    pub(super) fn add(&mut self, words: &[u64]) -> bool {
        match self {
            Self::List(known) => {
                let before = known.len();
                known.extend_from_slice(words);
                known.sort_unstable();
                known.dedup();
                known.len() > before
            }
            Self::Filter(bits) => {
                let (mut changed, size) = (false, bits.len());
                for place in words.iter().flat_map(|word| places(*word, size)) {
                    if let Some(byte) = bits.get_mut(place / 8) {
                        changed |= *byte & (1 << (place % 8)) == 0;
                        *byte |= 1 << (place % 8);
                    }
                }
                changed
            }
            Self::Unknown(_) => false,
        }
    }

    /// Whether a record with all these words may be here.
    pub(super) fn may_have(&self, words: &[u64]) -> bool {
        words.iter().all(|word| match self {
            Self::List(known) => known.binary_search(word).is_ok(),
            Self::Filter(bits) => places(*word, bits.len())
                .all(|place| bits.get(place / 8).is_some_and(|byte| byte & (1 << (place % 8)) != 0)),
            Self::Unknown(_) => true,
        })
    }
}

/// Places of a word's bits in a filter of so many bytes, a power of two: double hashing with both halves.
fn places(word: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let mask = (bytes as u64 * 8) - 1;
    let (first, step) = (word & 0xffff_ffff, (word >> 32) | 1);
    (0..PROBES).map(move |probe| usize::try_from((first + probe * step) & mask).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::words::{Field, word};

    fn requests(name: &str, count: usize) -> Vec<u64> {
        (0..count).map(|n| word(Field::Request, format!("{name}_{n}").as_bytes())).collect()
    }

    #[test]
    fn a_word_that_was_added_is_always_found_and_others_seldom() {
        for count in [3, 100, 10_000, 30_000] {
            let words = requests("req", count);
            for terms in [Terms::list(words.clone()), Terms::sealed(words.clone())] {
                let terms = Terms::stored(terms.to_bytes());
                assert!(words.iter().all(|word| terms.may_have(&[*word])));
                assert!(terms.may_have(&[]) && terms.may_have(&words));
                let wrong = requests("other", 20_000).iter().filter(|word| terms.may_have(&[**word])).count();
                assert!(wrong < 140, "{wrong} of 20,000 in {count}");
            }
        }
    }

    #[test]
    fn what_is_added_later_is_found_too() {
        for mut terms in [Terms::list(requests("a", 10)), Terms::sealed(requests("a", 10_000))] {
            let late = requests("late", 3);
            assert!(!terms.may_have(&late));
            assert!(terms.add(&late));
            assert!(!terms.add(&late), "known by now");
            assert!(terms.may_have(&late));
        }
    }

    /// A stored filter must mean the same to every later binary.
    #[test]
    fn the_places_never_change() {
        assert_eq!(places(0x0123_4567_89ab_cdef, 1024).collect::<Vec<_>>(), EXPECTED);
        let strange = Terms::stored(vec![9, 1, 2]);
        assert!(strange.may_have(&[1]), "an unknown form says look");
        assert_eq!(strange.to_bytes(), [9, 1, 2]);
        assert!(Terms::stored(Vec::new()).may_have(&[1]));
    }

    const EXPECTED: [usize; 5] = [3567, 4950, 6333, 7716, 907];
}
