//! Asking the audit index: newest first, chunk by chunk.
//!
//! Chunks are taken by their latest time. One whose words say "certainly not" is skipped; of the others the lines are
//! read, and `RecordFilter::matches` has the last word, so that index and journal answer by one rule. The walk ends when
//! no chunk that is left can hold anything newer than what was found; `audit::gather` says what is held until then.

use std::sync::Arc;

use serde::Serialize;

use super::{
    AuditStore,
    audit_index::unavailable,
    audit_lines::{CHUNKS_AT_ONCE, Ids, PLACE, Place, read_places},
    sql::{Tx, composed},
};
use crate::{
    audit::{
        IndexUnavailable, Record, RecordFilter, RecordSearch, RecordSource,
        gather::{Gathered, Gathering, Keep, Kept, MOST_BYTES, Search},
        run,
    },
    domain::{DecisionId, Millis},
};

/// Most records of one answer, whatever is asked for.
const MOST_RECORDS: usize = 10_000;
/// Most records that a page may lie behind the newest one.
const MOST_DEPTH: usize = 100_000;
/// A record's time is that of its id, but for what lies between making the one and the other.
const ID_SLACK_MS: i64 = 60_000;

/// A page so deep is a walk through everything: a time range finds it at once.
#[derive(Debug, thiserror::Error)]
#[error("at most {MOST_DEPTH} records can be skipped: narrow the question by time instead")]
struct TooDeep;

impl RecordSource for AuditStore {
    async fn query(&self, filter: &RecordFilter) -> Result<Vec<Record>, IndexUnavailable> {
        let keep: Keep<Record> = Arc::new(Some);
        let search = Search { filter: filter.clone(), keep, most_bytes: MOST_BYTES, most_looked_at: None };
        Ok(self.search(&search).await?.items)
    }
}

impl RecordSearch for AuditStore {
    async fn search<T: Serialize + Send + 'static>(&self, search: &Search<T>) -> Result<Gathered<T>, IndexUnavailable> {
        let filter = &search.filter;
        if filter.offset > MOST_DEPTH {
            return Err(IndexUnavailable::new(TooDeep));
        }
        let mut tx = self.db.begin_audit_read().await.map_err(unavailable)?;
        if let Some(at) = filter.id.and_then(DecisionId::made) {
            // Nearly always there; a Bloom filter of every chunk need not be read.
            let near = (Millis(at.0 - ID_SLACK_MS), Millis(at.0 + ID_SLACK_MS));
            let found = self.walk(&mut tx, search, near).await?;
            if !found.items.is_empty() {
                return Ok(found);
            }
        }
        let all = (filter.from.unwrap_or(Millis(i64::MIN)), filter.to.unwrap_or(Millis(i64::MAX)));
        self.walk(&mut tx, search, all).await
    }
}

impl AuditStore {
    /// The page of what is asked for, of chunks with records of this range of time.
    async fn walk<T: Serialize + Send + 'static>(
        &self,
        tx: &mut Tx,
        search: &Search<T>,
        range: (Millis, Millis),
    ) -> Result<Gathered<T>, IndexUnavailable> {
        let filter = &search.filter;
        let limit = filter.limit.unwrap_or(MOST_RECORDS).min(MOST_RECORDS);
        if limit == 0 {
            return Ok(Gathered { items: Vec::new(), cut: false });
        }
        let words = filter.words();
        let mut gathering = Gathering::new(filter.offset, limit, search.most_bytes);
        let (mut looked_at, mut last) = (0, None);
        loop {
            let places = candidates(tx, range, last).await?;
            let Some(end) = places.last() else { break };
            last = Some((end.last_time, end.chunk));
            for place in &places {
                // Nothing in this chunk or behind it is newer than what there is.
                let next = Millis(place.last_time);
                if gathering.announce(next) {
                    return Ok(Gathered { items: gathering.finish(), cut: false });
                }
                if search.most_looked_at.is_some_and(|most| looked_at >= most) {
                    gathering.cut_before(next);
                    return Ok(Gathered { items: gathering.finish(), cut: true });
                }
                if place.terms.may_have(&words) {
                    let (more, matching) = self.matching(tx, search, place, gathering.room()).await?;
                    looked_at += matching;
                    gathering.add(more)?;
                }
            }
        }
        Ok(Gathered { items: gathering.finish(), cut: false })
    }

    /// What is kept of the newest `wanted` records of one chunk at least, and how many match.
    async fn matching<T: Serialize + Send + 'static>(
        &self,
        tx: &mut Tx,
        search: &Search<T>,
        place: &Place,
        wanted: usize,
    ) -> Result<(Vec<Kept<T>>, usize), IndexUnavailable> {
        let (asked, chain, keep) = (search.filter.clone(), place.chain, Arc::clone(&search.keep));
        let kept = move |record| Kept::of(record, &keep);
        let picked = self.look(tx, place, move |lines| run::pick(lines, chain, &asked, wanted, kept)).await?;
        let run::Picked { mut whole, mut looked_at, mut open } = picked.unwrap_or_default();
        if !open.is_empty() {
            let ids: Ids = open.iter().map(|record| record.id).collect();
            for completed in self.completions(tx, place, ids).await? {
                if let Some(record) = open.iter_mut().find(|record| record.id == completed.id) {
                    record.complete(completed);
                }
            }
            for record in open.into_iter().filter(|record| search.filter.matches(record)) {
                looked_at += 1;
                whole.extend(Kept::of(record, &search.keep));
            }
        }
        Ok((whole, looked_at))
    }
}

/// The next chunks behind `last`, latest first.
pub(super) async fn candidates(
    tx: &mut Tx,
    (from, to): (Millis, Millis),
    last: Option<(i64, i64)>,
) -> Result<Vec<Place>, IndexUnavailable> {
    let (last_time, last_chunk) = last.unwrap_or((i64::MAX, i64::MAX));
    let sql = composed(format!(
        "SELECT {PLACE} FROM audit_chunks \
         WHERE last_time <= $1 AND (last_time < $1 OR chunk < $2) AND last_time >= $3 AND first_time < $4 \
         ORDER BY last_time DESC, chunk DESC LIMIT $5"
    ));
    let values = [last_time.into(), last_chunk.into(), from.0.into(), to.0.into(), CHUNKS_AT_ONCE.into()];
    read_places(tx, sql, &values).await
}
