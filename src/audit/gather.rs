//! What a question holds while it walks from newer records to older ones: the page that was asked for, and little more.
//!
//! A record that is skipped is only counted, as soon as nothing newer can come. Of the others that is kept which is shown:
//! `keep` makes it of each record while that is read. What is held has a bound in bytes; a page beyond it is refused,
//! never cut without a word.

use std::{io, sync::Arc};

use serde::Serialize;

use super::{
    chain::ChainId,
    joined::{Record, RecordFilter},
};
use crate::domain::Millis;

/// What is shown of a record; `None`: it is none of those that were asked for.
pub type Keep<T> = Arc<dyn Fn(Record) -> Option<T> + Send + Sync>;

/// Most bytes that one question holds.
pub const MOST_BYTES: usize = 64 << 20;

/// A question whose answer shows a part of each record, or all of it.
pub struct Search<T> {
    pub filter: RecordFilter,
    pub keep: Keep<T>,
    pub most_bytes: usize,
    /// Matching records that are looked at, about; the answer tells where it ended for this.
    pub most_looked_at: Option<usize>,
}

impl<T> std::fmt::Debug for Search<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// What was found, newest first.
#[derive(Debug, PartialEq, Eq)]
pub struct Gathered<T> {
    pub items: Vec<T>,
    /// There may be more: as many records were looked at as may be.
    pub cut: bool,
}

/// The page would be larger than what may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these records are more than {0} bytes: ask for fewer at once, or for a shorter time")]
pub struct TooMuch(pub usize);

/// What is shown of one record, and its place among the others.
#[derive(Debug)]
pub struct Kept<T> {
    time: Millis,
    chain: ChainId,
    seq: u64,
    bytes: usize,
    shown: T,
}

impl<T: Serialize> Kept<T> {
    pub fn of(record: Record, keep: &Keep<T>) -> Option<Self> {
        let (time, chain, seq) = (record.time, record.chain_id, record.opening.seq);
        let shown = keep(record)?;
        let bytes = held(&shown);
        Some(Self { time, chain, seq, bytes, shown })
    }
}

/// About the bytes that this takes. What cannot be measured is too much.
pub(super) fn held<T: Serialize>(shown: &T) -> usize {
    let mut size = Size(size_of::<Kept<T>>());
    serde_json::to_writer(&mut size, shown).map_or(usize::MAX, |()| size.0)
}

/// How long a text would be.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is held between two chunks.
#[derive(Debug)]
pub struct Gathering<T> {
    offset: usize,
    limit: usize,
    most_bytes: usize,
    /// Skipped for good.
    skipped: usize,
    /// Newest first.
    held: Vec<Kept<T>>,
}

impl<T> Gathering<T> {
    pub fn new(offset: usize, limit: usize, most_bytes: usize) -> Self {
        Self { offset, limit, most_bytes, skipped: 0, held: Vec::new() }
    }

    /// Most records of what comes that can still be of use.
    pub fn room(&self) -> usize {
        self.offset.saturating_add(self.limit).saturating_sub(self.skipped)
    }

    /// More records, none of them newer than the last that was announced.
    pub fn add(&mut self, more: Vec<Kept<T>>) -> Result<(), TooMuch> {
        self.held.extend(more);
        self.held.sort_by_key(|kept| std::cmp::Reverse((kept.time, kept.chain.0, kept.seq)));
        self.held.truncate(self.room());
        if self.bytes() > self.most_bytes { Err(TooMuch(self.most_bytes)) } else { Ok(()) }
    }

    /// From now on nothing newer than `next` comes: what is newer has its place, and what is skipped of it goes.
    /// `true`: nothing that comes can be of use.
    pub fn announce(&mut self, next: Millis) -> bool {
        let settled = self.settled(next);
        if settled >= self.room() {
            return true;
        }
        let gone = settled.min(self.offset - self.skipped);
        self.held.drain(..gone);
        self.skipped += gone;
        false
    }

    /// Ends where older records, from `next` on, were not looked at: what may have gaps before it is left out.
    pub fn cut_before(&mut self, next: Millis) {
        self.held.truncate(self.settled(next));
    }

    pub fn finish(self) -> Vec<T> {
        let skip = self.offset - self.skipped;
        self.held.into_iter().skip(skip).take(self.limit).map(|kept| kept.shown).collect()
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.held.iter().fold(0, |bytes, kept| bytes.saturating_add(kept.bytes))
    }

    fn settled(&self, next: Millis) -> usize {
        self.held.partition_point(|kept| kept.time > next)
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
