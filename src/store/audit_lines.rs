//! The lines of a chunk: from the journal on SQLite, from the row itself on Postgres. And what is found out by them: the
//! completions of records whose chunk does not hold them.

use std::{collections::HashSet, io, sync::PoisonError};

use super::{
    AuditStore, StoreError,
    audit_index::unavailable,
    audit_terms::Terms,
    sql::{Row, Tx, Value, signed, unsigned},
};
use crate::{
    audit::{
        ChainId, Completed, IndexUnavailable, JournalError, Late,
        check::Fault,
        reader::{chain_file, read_run, segment_path, segments},
        run,
        words::{Field, word},
    },
    domain::DecisionId,
};

/// Chunks whose words are read at once: about a mebibyte.
pub(super) const CHUNKS_AT_ONCE: i64 = 64;

/// A chunk, where its lines stand and what is known of them.
pub(super) struct Place {
    pub(super) chunk: i64,
    pub(super) chain: ChainId,
    segment: u64,
    start: u64,
    end: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) last_time: i64,
    pub(super) terms: Terms,
}

/// Columns of a [`Place`], in its order.
pub(super) const PLACE: &str =
    "chunk, chain_id, segment, segment_start, segment_end, first_seq, last_seq, last_time, terms";

impl Place {
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let number = |column: usize| Ok::<_, StoreError>(unsigned(row.int(column)?));
        Ok(Self {
            chunk: row.int(0)?,
            chain: ChainId(row.id(1)?),
            segment: number(2)?,
            start: number(3)?,
            end: number(4)?,
            first_seq: number(5)?,
            last_seq: number(6)?,
            last_time: row.int(7)?,
            terms: Terms::stored(row.bytes(8)?),
        })
    }
}

pub(super) type Ids = HashSet<DecisionId, ahash::RandomState>;

impl AuditStore {
    /// What `look` finds in the lines of a chunk. `None` where they were moved elsewhere together with their segment.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        tx: &mut Tx,
        place: &Place,
        look: impl FnOnce(&[u8]) -> Result<T, Fault> + Send + 'static,
    ) -> Result<Option<T>, IndexUnavailable> {
        if self.db.is_postgres() {
            let sql = "SELECT lines FROM audit_chunks WHERE chunk = $1";
            let row = tx.row(sql, &[place.chunk.into()]).await.map_err(unavailable)?;
            let lines = row.ok_or(sqlx::Error::RowNotFound).and_then(|row| row.bytes(0)).map_err(unavailable)?;
            let looked = tokio::task::spawn_blocking(move || look(&lines)).await.map_err(IndexUnavailable::new)?;
            return looked.map(Some).map_err(IndexUnavailable::Altered);
        }
        let (dir, chain, segment, start, end) =
            (self.journal.clone(), place.chain, place.segment, place.start, place.end);
        let looked = tokio::task::spawn_blocking(move || {
            let path = segment_path(&dir, segment);
            match read_run(&dir, segment, start, end) {
                Ok(lines) => {
                    look(&lines).map(Some).map_err(|fault| JournalError::Broken { file: path, line: 0, fault })
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && was_moved(&dir, chain, segment) => Ok(None),
                Err(source) => Err(JournalError::Io { act: "read", path, source }),
            }
        });
        let looked = looked.await.map_err(IndexUnavailable::new)?;
        if let Ok(None) = looked
            && self.moved.lock().unwrap_or_else(PoisonError::into_inner).insert(segment)
        {
            tracing::warn!(dir = %self.journal.display(), segment, chain = %chain,
                "records of a segment that was moved out of the audit journal are left out of the answer");
        }
        looked.map_err(|source| IndexUnavailable::Journal { dir: self.journal.clone(), source })
    }

    /// Completions that stand behind this chunk of the chain, as far as they are indexed.
    pub(super) async fn completions(
        &self,
        tx: &mut Tx,
        behind: &Place,
        mut wanted: Ids,
    ) -> Result<Vec<Completed>, IndexUnavailable> {
        let chain = behind.chain;
        let (mut found, mut after) = (Vec::new(), behind.last_seq);
        while !wanted.is_empty() {
            let sql = sqlx::AssertSqlSafe(format!(
                "SELECT {PLACE} FROM audit_chunks WHERE chain_id = $1 AND first_seq > $2 ORDER BY first_seq LIMIT $3"
            ));
            let places = read_places(tx, sql, &[chain.0.into(), signed(after), CHUNKS_AT_ONCE.into()]).await?;
            let Some(last) = places.last() else { break };
            after = last.first_seq;
            for place in &places {
                if may_hold(&place.terms, &wanted) {
                    let mut left = wanted.clone();
                    let look = move |lines: &[u8]| {
                        let found = run::completions(lines, chain, &mut left)?;
                        Ok((found, left))
                    };
                    if let Some((more, left)) = self.look(tx, place, look).await? {
                        found.extend(more);
                        wanted = left;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Adds words to the chunks in which these records were opened, newest first.
    pub(super) async fn learn(&self, tx: &mut Tx, chain: ChainId, late: Vec<Late>) -> Result<(), IndexUnavailable> {
        let mut wanted: Ids = late.iter().map(|one| one.id).collect();
        let mut before = u64::MAX;
        while !wanted.is_empty() {
            let sql = sqlx::AssertSqlSafe(format!(
                "SELECT {PLACE} FROM audit_chunks WHERE chain_id = $1 AND first_seq < $2 ORDER BY first_seq DESC LIMIT $3"
            ));
            let places = read_places(tx, sql, &[chain.0.into(), signed(before), CHUNKS_AT_ONCE.into()]).await?;
            let Some(last) = places.last() else { break };
            before = last.first_seq;
            for mut place in places {
                if !may_hold(&place.terms, &wanted) {
                    continue;
                }
                let ids = wanted.clone();
                let opened = self.look(tx, &place, move |lines| run::opened(lines, &ids)).await?.unwrap_or_default();
                let words: Vec<u64> =
                    late.iter().filter(|one| opened.contains(&one.id)).flat_map(|one| one.words.clone()).collect();
                if place.terms.add(&words) {
                    let terms = place.terms.to_bytes();
                    let values = [place.chunk.into(), Value::Bytes(&terms)];
                    let sql = "UPDATE audit_chunks SET terms = $2 WHERE chunk = $1";
                    tx.execute(sql, &values).await.map_err(unavailable)?;
                }
                wanted.retain(|id| !opened.contains(id));
            }
        }
        for id in wanted {
            // Only where the index was begun after the opening was archived away; the journal still has both.
            tracing::warn!(%id, "a completion in the audit journal belongs to no indexed record");
        }
        Ok(())
    }
}

pub(super) async fn read_places(
    tx: &mut Tx,
    sql: impl sqlx::SqlSafeStr,
    values: &[Value<'_>],
) -> Result<Vec<Place>, IndexUnavailable> {
    let rows = tx.rows(sql, values).await.map_err(unavailable)?;
    rows.iter().map(|row| Place::read(row).map_err(unavailable)).collect()
}

fn may_hold(terms: &Terms, ids: &Ids) -> bool {
    ids.iter().any(|id| terms.may_have(&[word(Field::Id, id.to_string().as_bytes())]))
}

/// Whether the segment is older than all in the folder, or the folder has another chain: then operators moved it away.
/// A folder that is no journal at all is a mistake in the configuration.
fn was_moved(dir: &std::path::Path, chain: ChainId, segment: u64) -> bool {
    let Ok(Some(found)) = chain_file(dir) else { return false };
    found.chain_id != chain || segments(dir).is_ok_and(|all| all.first().is_some_and(|first| segment < *first))
}
