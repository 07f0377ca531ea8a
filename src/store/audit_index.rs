//! The audit index: what the audit room asks of a database, filled.
//!
//! The journal is the truth, this is an index of it. A batch is stored together with the position it reaches, and only
//! if the stored position is the one that the batch starts from: so every record is here exactly once, whatever fails
//! in between. A row is the record as JSON beside the few columns that it can be asked by; rows lie in lots
//! (`audit_lots`), which is what `audit_query` finds them by. On SQLite the index is a file of its own with a relaxed
//! commit: what a crash takes away, position included, is indexed again.

use super::{
    Database, StoreError,
    audit_lots::{LOT_RECORDS, STRIDE, Terms},
    sql::{Row, Tx, Value, composed},
};
use crate::audit::{
    ChainHead, ChainHeads, ChainId, Completed, IndexBatch, IndexPosition, IndexSink, IndexUnavailable, Record,
};

/// Rows of one insert; a statement is prepared for each of these sizes only.
const CHUNKS: [usize; 3] = [64, 8, 1];
const COLUMNS: usize = 12;

/// The audit side of the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditStore {
    pub(super) db: Database,
}

impl AuditStore {
    pub fn new(db: &Database) -> Self {
        Self { db: db.clone() }
    }

    /// The chains that the index knows.
    pub async fn chains(&self) -> Result<Vec<ChainId>, StoreError> {
        let sql = "SELECT chain_id FROM audit_chains ORDER BY chain_id";
        let rows = self.db.begin_audit_read().await?.rows(sql, &[]).await?;
        rows.iter().map(|row| Ok(ChainId(row.id(0)?))).collect()
    }
}

pub(super) fn unavailable(error: impl Into<StoreError>) -> IndexUnavailable {
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
        insert(&mut tx, batch.chain_id, &batch.records).await.map_err(unavailable)?;
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

pub(super) fn read(row: &Row) -> Result<Record, StoreError> {
    serde_json::from_str(row.str("body")?)
        .map_err(|error| StoreError::Damaged { table: "audit_records", what: error.to_string() })
}

/// A lot that is being filled.
struct Lot {
    lot: i64,
    records: usize,
    first_time: i64,
    last_time: i64,
    terms: Terms,
}

impl Lot {
    async fn open(tx: &mut Tx, chain: ChainId) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT l.lot, l.records, l.first_time, l.last_time, l.terms FROM audit_chains c \
             JOIN audit_lots l ON l.lot = c.open_lot WHERE c.chain_id = $1";
        let Some(row) = tx.row(sql, &[chain.0.into()]).await? else { return Ok(None) };
        let records = usize::try_from(row.int(1)?).unwrap_or(usize::MAX);
        let terms = Terms::stored(row.bytes(4)?);
        let lot = Self { lot: row.int(0)?, records, first_time: row.int(2)?, last_time: row.int(3)?, terms };
        Ok((records < LOT_RECORDS).then_some(lot))
    }

    async fn begin(tx: &mut Tx, chain: ChainId) -> Result<Self, StoreError> {
        let terms = Terms::new();
        let sql = "INSERT INTO audit_lots (chain_id, records, first_time, last_time, terms) \
             VALUES ($1, 0, 0, 0, $2) RETURNING lot";
        let row = tx.row(sql, &[chain.0.into(), Value::Bytes(terms.bytes())]).await?;
        let lot = row.ok_or(sqlx::Error::RowNotFound)?.int(0)?;
        let sql = "UPDATE audit_chains SET open_lot = $2 WHERE chain_id = $1";
        tx.execute(sql, &[chain.0.into(), lot.into()]).await?;
        Ok(Self { lot, records: 0, first_time: i64::MAX, last_time: i64::MIN, terms })
    }

    /// The place of the next record, which is now this one's.
    fn place(&mut self, record: &Record) -> i64 {
        let n = self.lot * STRIDE + i64::try_from(self.records).unwrap_or(STRIDE - 1);
        self.records += 1;
        self.first_time = self.first_time.min(record.time.0);
        self.last_time = self.last_time.max(record.time.0);
        self.terms.add(record);
        n
    }

    async fn save(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let sql = "UPDATE audit_lots SET records = $2, first_time = $3, last_time = $4, terms = $5 WHERE lot = $1";
        let records = i64::try_from(self.records).unwrap_or(i64::MAX);
        let values = [
            self.lot.into(),
            records.into(),
            self.first_time.into(),
            self.last_time.into(),
            Value::Bytes(self.terms.bytes()),
        ];
        tx.execute(sql, &values).await?;
        Ok(())
    }
}

async fn insert(tx: &mut Tx, chain: ChainId, records: &[Record]) -> Result<(), StoreError> {
    let mut rest = records;
    let mut open = None;
    while !rest.is_empty() {
        let mut lot = match open.take() {
            Some(lot) => lot,
            None => match Lot::open(tx, chain).await? {
                Some(lot) => lot,
                None => Lot::begin(tx, chain).await?,
            },
        };
        let room = LOT_RECORDS.saturating_sub(lot.records).min(rest.len());
        let size = CHUNKS.into_iter().find(|size| *size <= room).unwrap_or(1);
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        insert_chunk(tx, &mut lot, chunk).await?;
        rest = after;
        if lot.records >= LOT_RECORDS || rest.is_empty() {
            lot.save(tx).await?;
        } else {
            open = Some(lot);
        }
    }
    Ok(())
}

/// SQLite looks numbered marks up by name, one after another for each: with some hundred of them that costs more than
/// the insert itself. It gets plain ones.
fn insert_sql(rows: usize, postgres: bool) -> String {
    let row = |at: usize| {
        let mark = |column: usize| if postgres { format!("${}", at * COLUMNS + column) } else { "?".to_owned() };
        let marks: Vec<String> = (1..=COLUMNS).map(mark).collect();
        format!("({})", marks.join(","))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO audit_records (n, id, time, kind, partner_id, user_id, managed_tenant_id, action, decision, \
         request_id, has_slices, body) VALUES {}",
        rows.join(",")
    )
}

async fn insert_chunk(tx: &mut Tx, lot: &mut Lot, chunk: &[Record]) -> Result<(), StoreError> {
    let bodies = chunk.iter().map(body).collect::<Result<Vec<_>, _>>()?;
    let mut values = Vec::with_capacity(chunk.len() * COLUMNS);
    for (record, body) in chunk.iter().zip(&bodies) {
        values.extend([
            Value::Int(lot.place(record)),
            Value::Id(record.id.0),
            Value::Int(record.time.0),
            Value::Text(record.kind.as_str()),
            Value::MaybeId(record.partner_id.map(|id| id.0)),
            Value::MaybeText(record.user_id.as_deref()),
            Value::MaybeText(record.managed_tenant_id.as_deref()),
            Value::MaybeText(record.action.as_deref()),
            Value::Text(record.decision.as_str()),
            Value::MaybeText(record.request_id.as_deref()),
            Value::Flag(!record.slices.is_empty()),
            Value::Text(body),
        ]);
    }
    let postgres = tx.conn().is_postgres();
    tx.execute(composed(insert_sql(chunk.len(), postgres)), &values).await?;
    Ok(())
}

/// Joins a completion to a record of an earlier batch.
async fn complete(tx: &mut Tx, completed: Completed) -> Result<(), StoreError> {
    let id = completed.id;
    let row = tx.row("SELECT body, n FROM audit_records WHERE id = $1", &[id.0.into()]).await?;
    // Only where the index was begun after the opening was archived away; the journal still has both.
    let Some(row) = row else {
        tracing::warn!(id = %id.0, "a completion in the audit journal belongs to no indexed record");
        return Ok(());
    };
    let (mut record, lot) = (read(&row)?, row.int("n")? / STRIDE);
    let slices = record.slices.len();
    record.complete(completed);
    let body = body(&record)?;
    let sql = "UPDATE audit_records SET decision = $2, has_slices = $3, body = $4 WHERE id = $1";
    let values = [id.0.into(), record.decision.as_str().into(), (!record.slices.is_empty()).into(), Value::Text(&body)];
    tx.execute(sql, &values).await?;
    if record.slices.len() != slices {
        // Tenants that only the completion names: the lot can now be asked by them too.
        let sql = "SELECT terms FROM audit_lots WHERE lot = $1";
        let stored = tx.row(sql, &[lot.into()]).await?.ok_or(sqlx::Error::RowNotFound)?;
        let mut terms = Terms::stored(stored.bytes(0)?);
        terms.add(&record);
        let sql = "UPDATE audit_lots SET terms = $2 WHERE lot = $1";
        tx.execute(sql, &[lot.into(), Value::Bytes(terms.bytes())]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_an_insert_has_its_own_marks() {
        assert!(insert_sql(2, false).ends_with("(?,?,?,?,?,?,?,?,?,?,?,?),(?,?,?,?,?,?,?,?,?,?,?,?)"));
        assert!(insert_sql(2, true).contains("($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12),($13,"));
        assert_eq!(CHUNKS.last(), Some(&1), "every rest can be inserted");
        assert!(i64::try_from(LOT_RECORDS).unwrap() <= STRIDE);
    }
}
