//! The outbox: changes that were committed with the rows they describe, handed to a server's chain exactly once.
//!
//! A row belongs to the chain that claimed it, for good (but for `admin::outbox`); it is given again until it is marked, and
//! forgotten some time after. It lives in the main
//! database, because it is written in the transactions of `admin`.

use super::{
    AuditStore, StoreError,
    audit_index::unavailable,
    sql::{Value, composed},
};
use crate::{
    audit::{ChainId, IndexUnavailable, OutboxRow, OutboxSource},
    domain::Millis,
};

/// Rows forgotten in one transaction, so that nobody waits long for it.
const PRUNED_AT_ONCE: i64 = 1_000;

impl OutboxSource for AuditStore {
    async fn claim(&self, chain: ChainId, limit: usize) -> Result<Vec<OutboxRow>, IndexUnavailable> {
        self.claim_rows(chain, limit).await.map_err(unavailable)
    }

    async fn mark_chained(&self, chain: ChainId, seqs: &[i64]) -> Result<(), IndexUnavailable> {
        self.mark_rows(chain, seqs).await.map_err(unavailable)
    }
}

impl AuditStore {
    async fn claim_rows(&self, chain: ChainId, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        let own = chain.0.to_string();
        // Asked all the time and nearly always for nothing: looked at without a write.
        let waiting = "SELECT seq FROM audit_outbox WHERE claimed_by IS NULL \
             UNION ALL SELECT seq FROM audit_outbox WHERE claimed_by = $1 AND chained_at IS NULL LIMIT 1";
        if self.db.begin_read().await?.row(waiting, &[own.as_str().into()]).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut tx = self.db.begin_write().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let held = "SELECT count(*) FROM audit_outbox WHERE claimed_by = $1 AND chained_at IS NULL";
        let held = tx.row(held, &[own.as_str().into()]).await?.map_or(Ok(0), |row| row.int(0))?;
        if held < limit {
            // Another server may be claiming at the same time: it gets the next ones.
            let lock = if tx.conn().is_postgres() { "FOR UPDATE SKIP LOCKED" } else { "" };
            let sql = format!(
                "UPDATE audit_outbox SET claimed_by = $1 WHERE seq IN \
                 (SELECT seq FROM audit_outbox WHERE claimed_by IS NULL ORDER BY seq LIMIT $2 {lock})"
            );
            tx.execute(composed(sql), &[own.as_str().into(), Value::Int(limit - held)]).await?;
        }
        let sql =
            "SELECT seq, body FROM audit_outbox WHERE claimed_by = $1 AND chained_at IS NULL ORDER BY seq LIMIT $2";
        let rows = tx.rows(sql, &[own.as_str().into(), Value::Int(limit)]).await?;
        let claimed = rows
            .iter()
            .map(|row| Ok(OutboxRow { seq: row.int(0)?, change: row.json(1)? }))
            .collect::<Result<Vec<_>, sqlx::Error>>()?;
        tx.commit().await?;
        Ok(claimed)
    }

    async fn mark_rows(&self, chain: ChainId, seqs: &[i64]) -> Result<(), StoreError> {
        let (own, now) = (chain.0.to_string(), Millis::now().0);
        let mut tx = self.db.begin_write().await?;
        for seq in seqs {
            let sql =
                "UPDATE audit_outbox SET chained_at = $3 WHERE seq = $1 AND claimed_by = $2 AND chained_at IS NULL";
            tx.execute(sql, &[Value::Int(*seq), own.as_str().into(), Value::Int(now)]).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Forgets rows that were chained before this time: the chain has them, and nothing asks for them again. How many.
    pub async fn prune_outbox(&self, before: Millis) -> Result<u64, StoreError> {
        let mut gone = 0;
        loop {
            let sql = "DELETE FROM audit_outbox WHERE seq IN \
                 (SELECT seq FROM audit_outbox WHERE chained_at < $1 ORDER BY seq LIMIT $2)";
            let mut tx = self.db.begin_write().await?;
            let one = tx.execute(sql, &[before.0.into(), PRUNED_AT_ONCE.into()]).await?;
            tx.commit().await?;
            gone += one;
            if one < PRUNED_AT_ONCE.unsigned_abs() {
                return Ok(gone);
            }
        }
    }

    /// How many changes wait to be chained, by any server.
    pub async fn outbox_waiting(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM audit_outbox WHERE chained_at IS NULL";
        let row = self.db.begin_read().await?.row(sql, &[]).await?;
        Ok(row.map_or(Ok(0), |row| row.int(0)).map(|count| u64::try_from(count).unwrap_or_default())?)
    }
}
