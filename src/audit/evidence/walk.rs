//! From lines to leaves: reads on in the journal and grows the tree by every line that was written.
//!
//! It reads files only and holds no lock. That each line follows the one before it is checked; that its hash is that of its
//! content is not, because the index finds that out for the same lines and `audit verify` for all of them.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    checkpoint::Kept,
    parts::Sighted,
    tree::{Frontier, HASH_BYTES, TILE, Tile, TileAt, edge},
};
use crate::audit::{
    batch::broken,
    chain::{ChainHead, ChainId, Hash},
    check::Fault,
    journal::{JournalError, Written, io_error},
    line::NotALine,
    reader::{Lines, Step, segment_path, segments},
};

/// A position in the journal, and the tree up to it.
#[derive(Clone, Debug)]
pub(super) struct Walker {
    dir: PathBuf,
    pub(super) chain_id: ChainId,
    /// The first line of the tree; `None` before any was read.
    pub(super) first: Option<u64>,
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) head: ChainHead,
    pub(super) frontier: Frontier,
    /// Tiles that grew, and those that are not full yet.
    pub(super) tiles: BTreeMap<TileAt, Vec<u8>>,
}

impl Walker {
    /// From the beginning of what there is.
    pub(super) fn new(dir: PathBuf, chain_id: ChainId) -> Self {
        let head = ChainHead { seq: 0, hash: Hash::GENESIS };
        Self {
            dir,
            chain_id,
            first: None,
            segment: 0,
            offset: 0,
            head,
            frontier: Frontier::default(),
            tiles: BTreeMap::new(),
        }
    }

    /// From a checkpoint on, given the tiles that were not full there. A tile that is missing is never completed: what it
    /// would lead to has no proofs. `None`: peaks and root do not belong together.
    pub(super) fn behind(dir: PathBuf, kept: &Kept, tiles: Vec<Tile>) -> Option<Self> {
        let said = kept.checkpoint().ok()?;
        let frontier = kept.frontier(&said)?;
        let mut known: BTreeMap<TileAt, Vec<u8>> = tiles.into_iter().collect();
        let mut partial = BTreeMap::new();
        for (level, number) in edge(frontier.size()) {
            let filled = usize::try_from((frontier.size() >> (8 * level)) % TILE).ok()? * HASH_BYTES;
            if let Some(mut tile) = known.remove(&(level, number)).filter(|tile| filled > 0 && tile.len() >= filled) {
                tile.truncate(filled);
                partial.insert((level, number), tile);
            }
        }
        Some(Self {
            dir,
            chain_id: said.chain_id,
            first: Some(said.first),
            segment: kept.segment,
            offset: kept.offset,
            head: said.head,
            frontier,
            tiles: partial,
        })
    }

    /// Reads up to `until`, or until there are `tiles_max` tiles. Where a segment ends on the way, `sealed` is told: all up
    /// to there is on stable storage.
    pub(super) fn walk(
        &mut self,
        until: Written,
        tiles_max: usize,
        mut sealed: impl FnMut(&Self),
    ) -> Result<(), JournalError> {
        if self.first.is_none() && self.segment == 0 {
            let first = segments(&self.dir).map_err(io_error("list", &self.dir))?.into_iter().next();
            self.segment = first.unwrap_or(1);
        }
        while self.head.seq < until.head.seq {
            let path = segment_path(&self.dir, self.segment);
            let mut lines = Lines::open(&path, self.offset).map_err(io_error("read", &path))?;
            while self.head.seq < until.head.seq
                && self.tiles.len() < tiles_max
                && lines.step().map_err(io_error("read", &path))? == Step::Line
            {
                self.take(lines.bytes()).map_err(|fault| broken(&self.dir, self.segment, lines.start(), fault))?;
                self.offset = lines.next_offset();
            }
            if self.head.seq >= until.head.seq || self.tiles.len() >= tiles_max {
                break;
            }
            if self.segment >= until.segment {
                // The journal said that this much is written, and it is not there.
                return Err(JournalError::CutOff { stored: until.head.seq, found: self.head.seq });
            }
            (self.segment, self.offset) = (self.segment + 1, 0);
            sealed(self);
        }
        if self.head.seq == until.head.seq && self.head.hash != until.head.hash {
            return Err(JournalError::Diverged(self.head.seq));
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Fault> {
        let seen = Sighted::of(line)?;
        match self.first {
            None if seen.seq == 0 => return Err(NotALine("its `seq` is no number".to_owned()).into()),
            // The journal's first line, or the first that is left of it.
            None => self.first = Some(seen.seq),
            Some(_) => {
                let expected = self.head.seq + 1;
                if seen.seq > expected {
                    return Err(Fault::Missing { from: expected, to: seen.seq - 1 });
                }
                if seen.seq < expected {
                    return Err(Fault::Misplaced { expected });
                }
                if seen.prev != self.head.hash {
                    return Err(Fault::Unchained);
                }
            }
        }
        let tiles = &mut self.tiles;
        self.frontier.push(seen.leaf, |level, index, hash| {
            let at = (level, index / TILE);
            if index.is_multiple_of(TILE) {
                tiles.insert(at, hash.0.to_vec());
            } else if let Some(tile) = tiles.get_mut(&at) {
                tile.extend_from_slice(&hash.0);
            }
        });
        self.head = ChainHead { seq: seen.seq, hash: seen.hash };
        Ok(())
    }

    /// Forgets tiles that were stored and cannot grow any more.
    pub(super) fn stored(&mut self, tiles: &[Tile]) {
        for (at, bytes) in tiles {
            if bytes.len() == full() {
                self.tiles.remove(at);
            }
        }
    }
}

/// Bytes of a full tile.
pub(super) fn full() -> usize {
    usize::try_from(TILE).unwrap_or(usize::MAX) * HASH_BYTES
}
