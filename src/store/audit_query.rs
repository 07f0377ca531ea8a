//! Asking the audit index: newest first, chunk by chunk.
//!
//! Chunks are taken by their latest time. One whose words say "certainly not" is skipped; of the others the lines are
//! read, and `RecordFilter::matches` has the last word, so that index and journal answer by one rule. The walk ends when
//! no chunk that is left can hold anything newer than what was found.

use super::{
    AuditStore,
    audit_index::unavailable,
    audit_lines::{CHUNKS_AT_ONCE, Ids, PLACE, Place, read_places},
    sql::{Tx, composed},
};
use crate::{
    audit::{IndexUnavailable, Record, RecordFilter, RecordSource, run},
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
        if filter.offset > MOST_DEPTH {
            return Err(IndexUnavailable::new(TooDeep));
        }
        let limit = filter.limit.unwrap_or(MOST_RECORDS).min(MOST_RECORDS);
        let mut tx = self.db.begin_audit_read().await.map_err(unavailable)?;
        let mut found = Vec::new();
        if let Some(at) = filter.id.and_then(DecisionId::made) {
            // Nearly always there; a Bloom filter of every chunk need not be read.
            let near = (Millis(at.0 - ID_SLACK_MS), Millis(at.0 + ID_SLACK_MS));
            found = self.walk(&mut tx, filter, near, filter.offset + limit).await?;
        }
        if found.is_empty() {
            let all = (filter.from.unwrap_or(Millis(i64::MIN)), filter.to.unwrap_or(Millis(i64::MAX)));
            found = self.walk(&mut tx, filter, all, filter.offset + limit).await?;
        }
        Ok(found.into_iter().skip(filter.offset).take(limit).collect())
    }
}

impl AuditStore {
    /// The newest `wanted` records that match, of chunks with records of this range of time.
    async fn walk(
        &self,
        tx: &mut Tx,
        filter: &RecordFilter,
        range: (Millis, Millis),
        wanted: usize,
    ) -> Result<Vec<Record>, IndexUnavailable> {
        let words = filter.words();
        let mut found: Vec<Record> = Vec::new();
        let mut last: Option<(i64, i64)> = None;
        let Some(oldest) = wanted.checked_sub(1) else { return Ok(found) };
        loop {
            let places = candidates(tx, range, last).await?;
            let Some(end) = places.last() else { break };
            last = Some((end.last_time, end.chunk));
            for place in &places {
                // Nothing in this chunk or behind it is newer than what there is.
                if found.get(oldest).is_some_and(|oldest| place.last_time < oldest.time.0) {
                    return Ok(found);
                }
                if place.terms.may_have(&words) {
                    found.extend(self.matching(tx, filter, place, wanted).await?);
                    found.sort_by_key(|record| std::cmp::Reverse((record.time, record.chain_id.0, record.opening.seq)));
                    found.truncate(wanted);
                }
            }
        }
        Ok(found)
    }

    /// The newest `wanted` matching records of one chunk at least.
    async fn matching(
        &self,
        tx: &mut Tx,
        filter: &RecordFilter,
        place: &Place,
        wanted: usize,
    ) -> Result<Vec<Record>, IndexUnavailable> {
        let (asked, chain) = (filter.clone(), place.chain);
        let picked = self.look(tx, place, move |lines| run::pick(lines, chain, &asked, wanted)).await?;
        let run::Picked { mut whole, mut open } = picked.unwrap_or_default();
        if !open.is_empty() {
            let ids: Ids = open.iter().map(|record| record.id).collect();
            for completed in self.completions(tx, place, ids).await? {
                if let Some(record) = open.iter_mut().find(|record| record.id == completed.id) {
                    record.complete(completed);
                }
            }
            whole.extend(open.into_iter().filter(|record| filter.matches(record)));
        }
        Ok(whole)
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
