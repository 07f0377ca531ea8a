//! What retention takes from the audit index.
//!
//! On SQLite rows go with the segment that they point into. On Postgres, where they hold the lines of all replicas, they lie
//! in partitions by month: a chain gives up what it has pruned (`audit_floors`), and a month goes as a whole once nothing of
//! it must stay. The rule is the database's own (`audit_month_kept`), so that it is looked at under the lock.

use super::{
    AuditStore, StoreError, audit_evidence::forget_proofs, audit_index::unavailable, audit_kept::set_floor,
    sql::unsigned,
};
use crate::{
    audit::{ChainId, IndexSink, IndexUnavailable, RetainedIndex},
    domain::Millis,
};

/// Partitions of months to come that are always there, so that no gateway needs to be up when a month begins.
const MONTHS_AHEAD: i64 = 6;
/// Everybody who asks the index waits behind one who waits to change it.
const TABLE_WAIT: &str = "SET LOCAL lock_timeout = '400ms'";

impl RetainedIndex for AuditStore {
    async fn indexed_segment(&self, chain: ChainId) -> Result<Option<u64>, IndexUnavailable> {
        Ok(self.position(chain).await?.map(|position| position.segment))
    }

    async fn give_up(&self, chain: ChainId, segment: u64, last: u64) -> Result<(), IndexUnavailable> {
        if !self.db.is_postgres() {
            return self.forget(chain, segment, last).await;
        }
        let mut tx = self.db.begin_audit_write().await.map_err(unavailable)?;
        set_floor(&mut tx, chain, segment, last).await.map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    async fn months_over(&self, cutoff: Millis) -> Result<Vec<String>, IndexUnavailable> {
        self.read_months_over(cutoff).await.map_err(unavailable)
    }

    async fn drop_month(&self, month: &str, cutoff: Millis) -> Result<bool, IndexUnavailable> {
        self.drop_whole(month, cutoff).await.map_err(unavailable)
    }
}

impl AuditStore {
    async fn read_months_over(&self, cutoff: Millis) -> Result<Vec<String>, StoreError> {
        if !self.db.is_postgres() {
            return Ok(Vec::new());
        }
        // In this order: only months that are over are looked through.
        let sql = "SELECT name FROM audit_chunk_months \
             WHERE CASE WHEN until <= audit_month_of(to_timestamp(CAST($1 AS BIGINT) / 1000.0)) \
             THEN audit_month_kept(name, $1) = 0 ELSE false END ORDER BY until";
        let rows = self.db.begin_audit_read().await?.rows(sql, &[cutoff.0.into()]).await?;
        Ok(rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>()?)
    }

    async fn drop_whole(&self, month: &str, cutoff: Millis) -> Result<bool, StoreError> {
        let mut tx = self.db.begin_audit_write().await?;
        tx.conn().batch(TABLE_WAIT).await?;
        let row = tx.row("SELECT audit_month_drop($1, $2)", &[month.into(), cutoff.0.into()]).await?;
        let gone = row.ok_or(sqlx::Error::RowNotFound)?.flag(0)?;
        if gone {
            // Proofs of what is left stay; those of a chain that is gone go up to its last checkpoint.
            let sql = "SELECT chain_id, coalesce((SELECT min(first_seq) - 1 FROM audit_chunks \
                 WHERE audit_chunks.chain_id = audit_positions.chain_id), head_seq) FROM audit_positions";
            for row in tx.rows(sql, &[]).await? {
                forget_proofs(&mut tx, ChainId(row.id(0)?), unsigned(row.int(1)?)).await?;
            }
        }
        tx.commit().await?;
        Ok(gone)
    }

    /// Makes partitions for the months to come; how many were missing.
    pub async fn make_months(&self) -> Result<u64, StoreError> {
        if !self.db.is_postgres() {
            return Ok(0);
        }
        let mut tx = self.db.begin_audit_write().await?;
        tx.conn().batch(TABLE_WAIT).await?;
        let row = tx.row("SELECT audit_months_make($1)", &[MONTHS_AHEAD.into()]).await?;
        let made = row.ok_or(sqlx::Error::RowNotFound)?.int(0)?;
        tx.commit().await?;
        Ok(made.unsigned_abs())
    }
}
