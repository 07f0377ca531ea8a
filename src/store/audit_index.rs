//! The audit index and the outbox: what the audit room asks of a database.
//!
//! The journal is the truth, this is an index of it. A batch is stored together with the position it reaches, and only
//! if the stored position is the one that the batch starts from: so every record is here exactly once, whatever fails
//! in between. A row is the record as JSON beside the few columns that it can be asked by. On SQLite the index is a
//! file of its own with a relaxed commit: what a crash takes away, position included, is indexed again.

use super::{
    Database, StoreError,
    sql::{Row, Tx, Value, composed},
};
use crate::{
    audit::{
        ChainHead, ChainHeads, ChainId, Completed, Decision, IndexBatch, IndexPosition, IndexSink, IndexUnavailable,
        OutboxRow, OutboxSource, Record, RecordFilter, RecordSource,
    },
    domain::Millis,
};

/// Most records of one answer, whatever is asked for.
const MOST_RECORDS: usize = 10_000;
/// Rows of one insert; a statement is prepared for each of these sizes only.
const CHUNKS: [usize; 3] = [64, 8, 1];
const COLUMNS: usize = 10;

/// The audit side of the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditStore {
    db: Database,
}

impl AuditStore {
    pub fn new(db: &Database) -> Self {
        Self { db: db.clone() }
    }
}

fn unavailable(error: impl Into<StoreError>) -> IndexUnavailable {
    IndexUnavailable::new(error.into())
}

/// The batch does not start where the index ends: another process fills the same chain.
#[derive(Debug, thiserror::Error)]
#[error("the index of chain {0} is not where the batch starts: do two servers use one journal?")]
struct Misplaced(ChainId);

impl IndexSink for AuditStore {
    async fn position(&self, chain: ChainId) -> Result<Option<IndexPosition>, IndexUnavailable> {
        let mut tx = self.db.begin_audit_read().await.map_err(unavailable)?;
        read_position(&mut tx, chain).await.map_err(unavailable)
    }

    async fn store(&self, batch: IndexBatch) -> Result<(), IndexUnavailable> {
        let mut tx = self.db.begin_audit_write().await.map_err(unavailable)?;
        if !advance(&mut tx, &batch).await.map_err(unavailable)? {
            return Err(IndexUnavailable::new(Misplaced(batch.chain_id)));
        }
        insert(&mut tx, &batch.records).await.map_err(unavailable)?;
        for completed in batch.completions {
            complete(&mut tx, completed).await.map_err(unavailable)?;
        }
        tx.commit().await.map_err(unavailable)
    }
}

impl ChainHeads for AuditStore {
    async fn head(&self, chain: ChainId) -> Result<Option<ChainHead>, IndexUnavailable> {
        Ok(self.position(chain).await?.map(|position| position.head))
    }
}

async fn read_position(tx: &mut Tx, chain: ChainId) -> Result<Option<IndexPosition>, StoreError> {
    let sql = "SELECT segment, segment_offset, head_seq, head_hash FROM audit_chains WHERE chain_id = $1";
    let Some(row) = tx.row(sql, &[chain.0.into()]).await? else { return Ok(None) };
    let number = |column: usize| Ok::<_, StoreError>(u64::try_from(row.int(column)?).unwrap_or_default());
    let hash = row
        .str(3)?
        .parse()
        .map_err(|error| StoreError::Damaged { table: "audit_chains", what: format!("head_hash: {error}") })?;
    Ok(Some(IndexPosition { segment: number(0)?, offset: number(1)?, head: ChainHead { seq: number(2)?, hash } }))
}

fn signed(number: u64) -> Value<'static> {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Moves the position, if it is still where the batch starts. The row is locked until the commit.
async fn advance(tx: &mut Tx, batch: &IndexBatch) -> Result<bool, StoreError> {
    let to = batch.position;
    let (chain, hash) = (Value::Id(batch.chain_id.0), to.head.hash.to_string());
    let mut values = vec![chain, signed(to.segment), signed(to.offset), signed(to.head.seq), Value::Text(&hash)];
    let moved = match batch.after {
        None => {
            let sql = "INSERT INTO audit_chains (chain_id, segment, segment_offset, head_seq, head_hash) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (chain_id) DO NOTHING";
            tx.execute(sql, &values).await?
        }
        Some(from) => {
            let sql = "UPDATE audit_chains SET segment = $2, segment_offset = $3, head_seq = $4, head_hash = $5 \
                 WHERE chain_id = $1 AND segment = $6 AND segment_offset = $7 AND head_seq = $8 AND head_hash = $9";
            let from_hash = from.head.hash.to_string();
            values.extend([signed(from.segment), signed(from.offset), signed(from.head.seq), Value::Text(&from_hash)]);
            tx.execute(sql, &values).await?
        }
    };
    Ok(moved == 1)
}

fn body(record: &Record) -> Result<String, StoreError> {
    serde_json::to_string(record)
        .map_err(|error| StoreError::Damaged { table: "audit_records", what: error.to_string() })
}

fn read(row: &Row) -> Result<Record, StoreError> {
    serde_json::from_str(row.str("body")?)
        .map_err(|error| StoreError::Damaged { table: "audit_records", what: error.to_string() })
}

fn insert_sql(rows: usize) -> String {
    let row = |at: usize| {
        let marks: Vec<String> = (1..=COLUMNS).map(|column| format!("${}", at * COLUMNS + column)).collect();
        format!("({})", marks.join(","))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO audit_records (id, time, kind, partner_id, user_id, managed_tenant_id, action, decision, \
         request_id, body) VALUES {}",
        rows.join(",")
    )
}

async fn insert(tx: &mut Tx, records: &[Record]) -> Result<(), StoreError> {
    let mut rest = records;
    while !rest.is_empty() {
        let size = CHUNKS.into_iter().find(|size| *size <= rest.len()).unwrap_or(1);
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        let bodies = chunk.iter().map(body).collect::<Result<Vec<_>, _>>()?;
        let mut values = Vec::with_capacity(size * COLUMNS);
        for (record, body) in chunk.iter().zip(&bodies) {
            values.extend([
                Value::Id(record.id.0),
                Value::Int(record.time.0),
                Value::Text(record.kind.as_str()),
                Value::MaybeId(record.partner_id.map(|id| id.0)),
                Value::MaybeText(record.user_id.as_deref()),
                Value::MaybeText(record.managed_tenant_id.as_deref()),
                Value::MaybeText(record.action.as_deref()),
                Value::Text(record.decision.as_str()),
                Value::MaybeText(record.request_id.as_deref()),
                Value::Text(body),
            ]);
        }
        tx.execute(composed(insert_sql(size)), &values).await?;
        for record in chunk.iter().filter(|record| !record.slices.is_empty()) {
            insert_slices(tx, record).await?;
        }
    }
    Ok(())
}

async fn insert_slices(tx: &mut Tx, record: &Record) -> Result<(), StoreError> {
    for slice in &record.slices {
        tx.execute(
            "INSERT INTO audit_slices (managed_tenant_id, record_n) SELECT $1, n FROM audit_records WHERE id = $2 \
             ON CONFLICT DO NOTHING",
            &[slice.managed_tenant_id.as_str().into(), record.id.0.into()],
        )
        .await?;
    }
    Ok(())
}

/// Joins a completion to a record of an earlier batch.
async fn complete(tx: &mut Tx, completed: Completed) -> Result<(), StoreError> {
    let id = completed.id;
    let row = tx.row("SELECT body FROM audit_records WHERE id = $1", &[id.0.into()]).await?;
    // Only where the index was begun after the opening was archived away; the journal still has both.
    let Some(row) = row else {
        tracing::warn!(id = %id.0, "a completion in the audit journal belongs to no indexed record");
        return Ok(());
    };
    let mut record = read(&row)?;
    let slices = record.slices.len();
    record.complete(completed);
    let body = body(&record)?;
    let sql = "UPDATE audit_records SET decision = $2, body = $3 WHERE id = $1";
    tx.execute(sql, &[id.0.into(), record.decision.as_str().into(), Value::Text(&body)]).await?;
    if record.slices.len() != slices {
        insert_slices(tx, &record).await?;
    }
    Ok(())
}

impl RecordSource for AuditStore {
    async fn query(&self, filter: &RecordFilter) -> Result<Vec<Record>, IndexUnavailable> {
        self.select(filter).await.map_err(unavailable)
    }
}

impl AuditStore {
    async fn select(&self, filter: &RecordFilter) -> Result<Vec<Record>, StoreError> {
        let mut sql = String::from("SELECT body FROM audit_records WHERE 1 = 1");
        let mut values: Vec<Value<'_>> = Vec::new();
        let conditions: [(&str, Option<Value<'_>>); 9] = [
            ("id = $", filter.id.map(|id| id.0.into())),
            ("request_id = $", filter.request_id.as_deref().map(Value::Text)),
            ("partner_id = $", filter.partner_id.map(|id| id.0.into())),
            ("user_id = $", filter.user_id.as_deref().map(Value::Text)),
            ("action = $", filter.action.as_deref().map(Value::Text)),
            // Written out, so that the partial indexes can serve.
            ("decision = $", filter.decision.filter(|word| *word == Decision::Allow).map(|word| word.as_str().into())),
            ("kind = $", filter.kind.map(|kind| kind.as_str().into())),
            ("time >= $", filter.from.map(|at| at.0.into())),
            ("time < $", filter.to.map(|at| at.0.into())),
        ];
        for (condition, value) in conditions {
            if let Some(value) = value {
                values.push(value);
                sql.push_str(&format!(" AND {condition}{}", values.len()));
            }
        }
        if filter.decision == Some(Decision::Deny) {
            sql.push_str(" AND decision = 'deny'");
        }
        if filter.kind.is_some_and(|kind| kind != crate::audit::Kind::Access) {
            sql.push_str(" AND kind <> 'access'");
        }
        if let Some(tenant) = &filter.managed_tenant_id {
            values.push(Value::Text(tenant));
            let n = values.len();
            sql.push_str(&format!(
                " AND (managed_tenant_id = ${n} OR n IN (SELECT record_n FROM audit_slices WHERE managed_tenant_id = ${n}))"
            ));
        }
        let limit = filter.limit.unwrap_or(MOST_RECORDS).min(MOST_RECORDS);
        values.push(Value::Int(i64::try_from(limit).unwrap_or(i64::MAX)));
        values.push(Value::Int(i64::try_from(filter.offset).unwrap_or(i64::MAX)));
        let n = values.len();
        sql.push_str(&format!(" ORDER BY time DESC, n DESC LIMIT ${} OFFSET ${n}", n - 1));
        let mut tx = self.db.begin_audit_read().await?;
        tx.rows(composed(sql), &values).await?.iter().map(read).collect()
    }
}

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

    /// How many changes wait to be chained, by any server.
    pub async fn outbox_waiting(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM audit_outbox WHERE chained_at IS NULL";
        let row = self.db.begin_read().await?.row(sql, &[]).await?;
        Ok(row.map_or(Ok(0), |row| row.int(0)).map(|count| u64::try_from(count).unwrap_or_default())?)
    }

    /// The chains that the index knows.
    pub async fn chains(&self) -> Result<Vec<ChainId>, StoreError> {
        let rows =
            self.db.begin_audit_read().await?.rows("SELECT chain_id FROM audit_chains ORDER BY chain_id", &[]).await?;
        rows.iter().map(|row| Ok(ChainId(row.id(0)?))).collect::<Result<Vec<ChainId>, StoreError>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_an_insert_has_its_own_marks() {
        assert!(insert_sql(2).contains("($1,$2,$3,$4,$5,$6,$7,$8,$9,$10),($11,"));
        assert_eq!(CHUNKS.last(), Some(&1), "every rest can be inserted");
    }
}
