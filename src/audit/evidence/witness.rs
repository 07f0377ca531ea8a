//! Checkpoints against a journal: what `audit verify` finds out by them that the chain alone cannot tell.
//!
//! A chain can be written anew from any record on, and its head in the database with it; a signed checkpoint kept elsewhere
//! cannot. The walk calls [`Witness::line`] for every line; where a checkpoint ends, hash and root must be those that were
//! signed. Checkpoints in hand are compared in their order, so the first that differs says after which record the journal
//! was still the signed one.

use std::{collections::VecDeque, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    checkpoint::{Cause, Checkpoint, CheckpointError, Kept},
    note::{Keys, NoteError},
    parts::Sighted,
    shelf,
    tree::Frontier,
};
use crate::{
    audit::{
        chain::{ChainHead, ChainId, Hash},
        line::Line,
    },
    domain::Millis,
};

/// What a pruning is recorded as.
pub const PRUNE_ACTION: &str = "audit.prune";

/// A checkpoint to hold against the journal.
#[derive(Clone, Copy, Debug)]
struct Point {
    first: u64,
    head: ChainHead,
    root: Hash,
    time: Millis,
    /// Place in [`Witness::sources`].
    source: usize,
}

/// The end of a segment from which on the rest can be verified by itself.
#[derive(Clone, Debug)]
struct Boundary {
    said: Checkpoint,
    frontier: Frontier,
}

/// From where on a journal without its beginning was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct VerifiedFrom {
    /// The last record before it.
    pub seq: u64,
    pub time: Millis,
    pub kid: String,
}

/// What the chain itself says of a pruning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ToldPruning {
    /// The last segment that went.
    pub segment: u64,
    pub time: Millis,
    /// Who removed it.
    pub by: Option<String>,
    /// `retention`, where it was the age of the records.
    pub reason: Option<String>,
}

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The record is another one, or one before it is: the last record up to which the journal is as it was signed.
    Rewritten {
        good: u64,
        time: Millis,
        source: String,
    },
    /// The checkpoint covers more than there is.
    CutOff {
        signed: u64,
        time: Millis,
        source: String,
    },
    /// It is of another chain.
    OtherChain {
        chain: ChainId,
        source: String,
    },
    Forged {
        source: String,
        why: CheckpointError,
    },
}

/// Checkpoints held against one walk.
#[derive(Debug)]
pub struct Witness {
    chain: ChainId,
    points: VecDeque<Point>,
    sources: Vec<String>,
    boundaries: Vec<Boundary>,
    /// Found before the walk.
    early: Vec<Mismatch>,
    /// The tree so far; `None` where its beginning is not known.
    tree: Option<(u64, Frontier)>,
    begun: bool,
    /// Something is wrong with the lines already: roots are not compared any more.
    broken: bool,
    rewritten: bool,
    good: u64,
    /// Compared and found right.
    pub held: usize,
    /// Not compared: signed by a key that is not given.
    pub unknown: usize,
    pub from: Option<VerifiedFrom>,
    /// The last pruning that the chain tells of itself.
    pruned: Option<ToldPruning>,
}

impl Witness {
    pub fn new(chain: ChainId) -> Self {
        Self {
            chain,
            points: VecDeque::new(),
            sources: Vec::new(),
            boundaries: Vec::new(),
            early: Vec::new(),
            tree: None,
            begun: false,
            broken: false,
            rewritten: false,
            good: 0,
            held: 0,
            unknown: 0,
            from: None,
            pruned: None,
        }
    }

    /// A checkpoint from outside, such as a file that an auditor kept: its signature must hold.
    pub fn present(&mut self, note: &str, keys: &Keys, source: &str) {
        let place = self.source(source);
        match Checkpoint::open(note, keys) {
            Ok(said) => self.point(&said, place),
            Err(why) => self.early.push(Mismatch::Forged { source: source.to_owned(), why }),
        }
    }

    /// A checkpoint that lies beside the journal or in the database. One of an unknown key is counted and not compared:
    /// it says nothing, and the key may have gone out of use.
    pub fn recall(&mut self, kept: &Kept, keys: &Keys, source: &str) {
        let place = self.source(source);
        // A signature takes a while; of those that no tree depends on the last ones are enough, and `settle` checks them.
        if kept.cause != Cause::Segment {
            match kept.checkpoint() {
                Ok(said) => self.point(&said, place),
                Err(why) => self.early.push(Mismatch::Forged { source: source.to_owned(), why }),
            }
            return;
        }
        match Checkpoint::open(&kept.note, keys) {
            Ok(said) => {
                self.point(&said, place);
                if let Some(frontier) = kept.frontier(&said) {
                    self.boundaries.push(Boundary { said, frontier });
                }
            }
            Err(CheckpointError::Note(NoteError::UnknownKey)) => self.unknown += 1,
            Err(why) => self.early.push(Mismatch::Forged { source: source.to_owned(), why }),
        }
    }

    /// All that lie beside the journal. Read before the walk, so that none covers more than the walk sees.
    pub fn recall_shelf(&mut self, dir: &Path, keys: &Keys) -> io::Result<()> {
        let mut last: Option<Kept> = None;
        shelf::each::<io::Error>(dir, |kept| {
            self.recall(&kept, keys, shelf::SHELF_FILE);
            last = Some(kept);
            Ok(())
        })?;
        if let Some(last) = last {
            match Checkpoint::open(&last.note, keys) {
                Ok(_) => {}
                // Without any key nothing can be said; with keys the last one must be of one of them, or somebody else
                // may have signed all of them.
                Err(CheckpointError::Note(NoteError::UnknownKey)) if keys.is_empty() => self.unknown += 1,
                Err(why) => self.early.push(Mismatch::Forged { source: shelf::SHELF_FILE.to_owned(), why }),
            }
        }
        Ok(())
    }

    fn source(&mut self, name: &str) -> usize {
        self.sources.iter().position(|known| known == name).unwrap_or_else(|| {
            self.sources.push(name.to_owned());
            self.sources.len() - 1
        })
    }

    fn name(&self, place: usize) -> String {
        self.sources.get(place).cloned().unwrap_or_default()
    }

    fn point(&mut self, said: &Checkpoint, source: usize) {
        if said.chain_id != self.chain {
            self.early.push(Mismatch::OtherChain { chain: said.chain_id, source: self.name(source) });
            return;
        }
        self.points.push_back(Point { first: said.first, head: said.head, root: said.root, time: said.time, source });
    }

    /// Before the walk: what was wrong with the checkpoints themselves.
    pub fn settle(&mut self) -> Vec<Mismatch> {
        self.points.make_contiguous().sort_by_key(|point| (point.head.seq, point.time));
        std::mem::take(&mut self.early)
    }

    /// Whether a journal may begin with this line, because a signed checkpoint ends before it.
    pub fn vouches_for(&self, line: &Line<'_>) -> bool {
        self.boundary(line.seq, line.prev).is_some()
    }

    fn boundary(&self, seq: u64, prev: Hash) -> Option<&Boundary> {
        let ends = |boundary: &&Boundary| {
            boundary.said.chain_id == self.chain
                && boundary.said.head.seq.checked_add(1) == Some(seq)
                && boundary.said.head.hash == prev
        };
        self.boundaries.iter().find(ends)
    }

    /// Takes the next line of the walk; `faulty` says that something is wrong with it or its place.
    pub fn line(&mut self, bytes: &[u8], faulty: bool) -> Option<Mismatch> {
        self.broken |= faulty;
        let Ok(seen) = Sighted::of(bytes) else {
            self.broken = true;
            return None;
        };
        if !std::mem::replace(&mut self.begun, true) {
            self.begin(&seen);
        }
        if let Some((_, frontier)) = &mut self.tree {
            frontier.push(seen.leaf, |_, _, _| ());
        }
        if bytes.get(..64).is_some_and(|head| memchr::memmem::find(head, b"\"type\":\"change\"").is_some()) {
            self.change(bytes);
        }
        let mut mismatch = None;
        while let Some(point) = self.points.front().copied().filter(|point| point.head.seq <= seen.seq) {
            self.points.pop_front();
            // One that ends before the journal begins says nothing about it.
            if point.head.seq == seen.seq && !self.rewritten {
                mismatch = mismatch.or(self.compare(&point, &seen));
            }
        }
        mismatch
    }

    fn begin(&mut self, seen: &Sighted) {
        let pruned = self.boundary(seen.seq, seen.prev).cloned();
        // From the very beginning on the tree is known; of one that began later the checkpoints say where.
        let since = self.points.front().map_or(seen.seq, |point| if seen.seq == 1 { 1 } else { point.first });
        self.tree = match pruned {
            Some(Boundary { said, frontier }) => {
                self.good = said.head.seq;
                self.from = Some(VerifiedFrom { seq: said.head.seq, time: said.time, kid: said.kid });
                Some((said.first, frontier))
            }
            None => (since == seen.seq).then(|| (seen.seq, Frontier::default())),
        };
    }

    fn compare(&mut self, point: &Point, seen: &Sighted) -> Option<Mismatch> {
        let same_root = match &self.tree {
            Some((first, frontier)) if !self.broken => *first == point.first && frontier.root() == point.root,
            _ => true,
        };
        if point.head.hash == seen.hash && same_root {
            self.held += 1;
            self.good = seen.seq;
            return None;
        }
        self.rewritten = true;
        Some(Mismatch::Rewritten { good: self.good, time: point.time, source: self.name(point.source) })
    }

    /// A pruning that the chain tells of itself.
    fn change(&mut self, bytes: &[u8]) {
        #[derive(Deserialize)]
        struct Pruning {
            action: String,
            time: Millis,
            user_id: Option<String>,
            reason: Option<String>,
            resource_id: Option<String>,
        }
        let said = Line::parse(bytes).ok().and_then(|line| line.visible_as::<Pruning>().ok());
        let Some(said) = said.filter(|said| said.action == PRUNE_ACTION) else { return };
        let Some(segment) = said.resource_id.and_then(|number| number.parse().ok()) else { return };
        if self.pruned.as_ref().is_none_or(|before| before.segment < segment) {
            self.pruned = Some(ToldPruning { segment, time: said.time, by: said.user_id, reason: said.reason });
        }
    }

    /// What the chain says of the pruning of segments up to this one.
    pub fn tells_of_pruning(&self, segment: u64) -> Option<&ToldPruning> {
        self.pruned.as_ref().filter(|pruned| segment <= pruned.segment)
    }

    /// At the end of the walk: checkpoints that cover more than there is. The one that covers most is told.
    pub fn finish(&mut self) -> Option<Mismatch> {
        let most = self.points.back().copied()?;
        self.points.clear();
        Some(Mismatch::CutOff { signed: most.head.seq, time: most.time, source: self.name(most.source) })
    }
}
