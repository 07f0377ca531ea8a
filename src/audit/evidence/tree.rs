//! The Merkle tree over all lines of a chain, as RFC 6962 has it: leaves, roots, and the way from a leaf to a root.
//!
//! The leaf with index `i` is the line `first + i`, where `first` is the first line that the tree has (1, but for journals
//! whose beginning was moved away before checkpoints existed). Nothing but [`Frontier`] is needed to go on: one hash for
//! each complete subtree. Ways are worked out from tiles of 256 hashes: level 0 holds leaves, level 1 the roots of 256
//! leaves, and so on.

use std::collections::{BTreeSet, HashMap};

use aws_lc_rs::digest;
use smallvec::{SmallVec, smallvec};

use crate::audit::chain::Hash;

/// Hashes of one tile.
pub const TILE: u64 = 256;
/// Height of one level of tiles.
const TILE_HEIGHT: u32 = 8;
/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// SHA-256 of the pieces, one behind the other.
pub(super) fn sha256(pieces: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    pieces.iter().for_each(|piece| context.update(piece));
    to_hash(context.finish().as_ref())
}

pub(super) fn to_hash(bytes: &[u8]) -> Hash {
    // SHA-256 has no other length.
    Hash(<[u8; HASH_BYTES]>::try_from(bytes).unwrap_or_default())
}

/// The leaf of an entry.
pub fn leaf(entry: &[u8]) -> Hash {
    // In one piece: a hash in pieces costs several times as much as these few bytes.
    let mut bytes: SmallVec<[u8; 1 + 2 * HASH_BYTES]> = smallvec![0];
    bytes.extend_from_slice(entry);
    to_hash(digest::digest(&digest::SHA256, &bytes).as_ref())
}

/// The parent of two nodes.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 1 + 2 * HASH_BYTES];
    let (_, children) = bytes.split_at_mut(1);
    let (first, second) = children.split_at_mut(HASH_BYTES);
    first.copy_from_slice(&left.0);
    second.copy_from_slice(&right.0);
    to_hash(digest::digest(&digest::SHA256, &bytes).as_ref())
}

/// The right edge of a tree: the root of each complete subtree, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// `None`: so many peaks do not belong to a tree of this size.
    pub fn of(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (usize::try_from(size.count_ones()) == Ok(peaks.len())).then_some(Self { size, peaks })
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf; `complete` is told of every hash that a tile holds: its level, its index there, and the hash.
    pub fn push(&mut self, leaf: Hash, mut complete: impl FnMut(u32, u64, Hash)) {
        let (mut hash, mut height) = (leaf, 0);
        complete(0, self.size, hash);
        while self.size >> height & 1 == 1
            && let Some(left) = self.peaks.pop()
        {
            hash = node(&left, &hash);
            height += 1;
            if height % TILE_HEIGHT == 0 {
                complete(height / TILE_HEIGHT, self.size >> height, hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            Some(last) => peaks.fold(*last, |right, left| node(left, &right)),
            None => sha256(&[]),
        }
    }
}

/// The root that a leaf and its way lead to; `None` where the way has not the length that the place asks for.
pub fn climb(index: u64, size: u64, leaf: Hash, way: &[Hash]) -> Option<Hash> {
    let mut last = size.checked_sub(1).filter(|last| index <= *last)?;
    let (mut at, mut hash) = (index, leaf);
    let mut way = way.iter();
    while last > 0 {
        if at & 1 == 1 {
            hash = node(way.next()?, &hash);
        } else if at < last {
            hash = node(&hash, way.next()?);
        }
        // A last node without a neighbour goes up as it is.
        at >>= 1;
        last >>= 1;
    }
    way.next().is_none().then_some(hash)
}

/// Which tile, by level and number.
pub type TileAt = (u32, u64);
/// A tile: up to 256 hashes, one behind the other.
pub type Tile = (TileAt, Vec<u8>);

/// The last tile of each level of a tree of this size, full or not.
pub fn edge(size: u64) -> Vec<TileAt> {
    let levels = (0..8_u32).map(|level| (level, size >> (TILE_HEIGHT * level)));
    levels.take_while(|(_, count)| *count > 0).map(|(level, count)| (level, count / TILE)).collect()
}

/// Tiles at hand: the hashes of each, one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Tiles(pub HashMap<TileAt, Vec<u8>, ahash::RandomState>);

impl Tiles {
    /// Tiles that the way of this leaf is worked out from.
    pub fn needed(index: u64, size: u64) -> BTreeSet<TileAt> {
        let mut tiles = BTreeSet::new();
        way(index, 0, size, &mut |height, at| {
            tiles.insert((height / TILE_HEIGHT, (at << (height % TILE_HEIGHT)) / TILE));
            Some(Hash::GENESIS)
        });
        tiles
    }

    /// The way from a leaf to the root of a tree of `size` leaves; `None` where a tile is missing.
    pub fn way(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size {
            return None;
        }
        way(index, 0, size, &mut |height, at| self.node(height, at))
    }

    /// The root of the complete subtree number `at` of this height.
    fn node(&self, height: u32, at: u64) -> Option<Hash> {
        let below = height % TILE_HEIGHT;
        let (first, count) = (at << below, 1_u64 << below);
        let tile = self.0.get(&(height / TILE_HEIGHT, first / TILE))?;
        let mut top = Frontier::default();
        for place in first % TILE..first % TILE + count {
            let start = usize::try_from(place).ok()? * HASH_BYTES;
            top.push(to_hash(tile.get(start..start + HASH_BYTES)?), |_, _, _| ());
        }
        Some(top.root())
    }
}

/// RFC 6962, 2.1.1, for the tree over the leaves `start` to `end`: neighbours from the leaf up.
fn way(index: u64, start: u64, end: u64, complete: &mut impl FnMut(u32, u64) -> Option<Hash>) -> Option<Vec<Hash>> {
    if end - start <= 1 {
        return Some(Vec::new());
    }
    let middle = start + left_size(end - start);
    let (mut below, beside) = if index < middle {
        (way(index, start, middle, complete)?, range(middle, end, complete)?)
    } else {
        (way(index, middle, end, complete)?, range(start, middle, complete)?)
    };
    below.push(beside);
    Some(below)
}

/// The root over a range that is one side of a split: it begins at a multiple of its own size rounded up.
fn range(start: u64, end: u64, complete: &mut impl FnMut(u32, u64) -> Option<Hash>) -> Option<Hash> {
    let size = end - start;
    if size.is_power_of_two() {
        let height = size.trailing_zeros();
        return complete(height, start >> height);
    }
    let middle = start + left_size(size);
    let left = range(start, middle, complete)?;
    Some(node(&left, &range(middle, end, complete)?))
}

/// The largest power of two below `size`, which is above one.
fn left_size(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|n| leaf(&n.to_be_bytes())).collect()
    }

    /// The definition of RFC 6962, word for word.
    fn defined(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [one] => *one,
            many => {
                let (left, right) = many.split_at(usize::try_from(left_size(many.len() as u64)).unwrap());
                node(&defined(left), &defined(right))
            }
        }
    }

    fn grown(leaves: &[Hash]) -> (Frontier, Tiles) {
        let (mut frontier, mut tiles) = (Frontier::default(), Tiles::default());
        for one in leaves {
            frontier.push(*one, |level, index, hash| {
                let tile = tiles.0.entry((level, index / TILE)).or_default();
                assert_eq!(tile.len() as u64, index % TILE * 32);
                tile.extend_from_slice(&hash.0);
            });
        }
        (frontier, tiles)
    }

    #[test]
    fn known_answers_of_other_logs() {
        // The test vectors of Certificate Transparency.
        let entries: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let (frontier, _) = grown(&entries.map(leaf));
        assert_eq!(frontier.root().to_string(), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
        assert_eq!(
            Frontier::default().root().to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn a_root_is_that_of_the_definition_and_every_way_leads_to_it() {
        let all = leaves(70);
        for size in 0..=70_usize {
            let (frontier, tiles) = grown(&all[..size]);
            let root = defined(&all[..size]);
            assert_eq!(frontier.root(), root, "{size}");
            assert_eq!(Frontier::of(size as u64, frontier.peaks().to_vec()).unwrap(), frontier);
            for (index, leaf) in (0..).zip(&all[..size]) {
                let size = size as u64;
                let way = tiles.way(index, size).unwrap();
                assert_eq!(climb(index, size, *leaf, &way), Some(root), "{index} of {size}");
                let mut longer = way.clone();
                longer.push(root);
                assert_eq!(climb(index, size, *leaf, &longer), None);
                if let Some((_, shorter)) = way.split_last() {
                    assert_ne!(climb(index, size, *leaf, shorter), Some(root));
                    assert_ne!(climb((index + 1) % size, size, *leaf, &way), Some(root), "another place");
                }
            }
            assert_eq!(tiles.way(size as u64, size as u64), None);
        }
    }

    #[test]
    fn large_trees_are_climbed_from_few_tiles() {
        let all = leaves(70_000);
        let (frontier, tiles) = grown(&all);
        for index in [0, 1, 255, 256, 65_535, 65_536, 69_887, 69_999] {
            let needed = Tiles::needed(index, 70_000);
            assert!(needed.len() <= 5, "{index}: {needed:?}");
            let few = Tiles(needed.iter().map(|at| (*at, tiles.0[at].clone())).collect());
            let way = few.way(index, 70_000).unwrap();
            assert!(way.len() <= 17);
            let leaf = all[usize::try_from(index).unwrap()];
            assert_eq!(climb(index, 70_000, leaf, &way), Some(frontier.root()));
            // The same leaf in the tree as it was earlier.
            if index < 66_000 {
                let few = Tiles(Tiles::needed(index, 66_000).iter().map(|at| (*at, tiles.0[at].clone())).collect());
                let root = grown(&all[..66_000]).0.root();
                assert_eq!(climb(index, 66_000, leaf, &few.way(index, 66_000).unwrap()), Some(root));
            }
        }
        assert_eq!(Tiles::default().way(3, 10), None);
        assert_eq!(Frontier::of(3, vec![Hash::GENESIS]), None);
    }
}
