//! Rows of chunks: how they are added, and how small ones become one.
//!
//! With little traffic a batch is a few lines. Its row stays open, its words listed one by one, until enough of them have
//! come together; then they become one row with a filter. A chunk that is large by itself is sealed at once.

use super::{
    StoreError,
    audit_terms::Terms,
    sql::{Row, Tx, Value, composed, signed, unsigned},
};
use crate::audit::{ChainId, Chunk};

/// A lot is sealed before it would grow beyond one of these.
const LOT_RECORDS: u64 = 4096;
const LOT_BYTES: u64 = 8 << 20;
const LOT_CHUNKS: u64 = 256;
/// Share of a lot from which on a chunk is one by itself.
const LARGE: u64 = 2;

/// Chunks of a chain that are still open: all in one segment, one behind the other.
struct OpenLot {
    chunks: u64,
    segment: u64,
    records: u64,
    bytes: u64,
    /// They are of another month than that of now: theirs goes as a whole.
    of_before: bool,
}

impl OpenLot {
    async fn of(tx: &mut Tx, chain: ChainId) -> Result<Self, StoreError> {
        let of_before =
            if tx.conn().is_postgres() { "coalesce(min(month) <> audit_month_of(now()), false)" } else { "false" };
        let sql = composed(format!(
            "SELECT count(*), CAST(coalesce(max(segment), 0) AS BIGINT), CAST(coalesce(sum(records), 0) AS BIGINT), \
             CAST(coalesce(sum(segment_end - segment_start), 0) AS BIGINT), {of_before} \
             FROM audit_chunks WHERE chain_id = $1 AND NOT sealed"
        ));
        let row = tx.row(sql, &[chain.0.into()]).await?.ok_or(sqlx::Error::RowNotFound)?;
        let number = |column: usize| Ok::<_, StoreError>(unsigned(row.int(column)?));
        Ok(Self {
            chunks: number(0)?,
            segment: number(1)?,
            records: number(2)?,
            bytes: number(3)?,
            of_before: row.flag(4)?,
        })
    }

    /// Whether this chunk can be merged into it.
    fn takes(&self, chunk: &Chunk) -> bool {
        self.segment == chunk.segment
            && !self.of_before
            && self.chunks < LOT_CHUNKS
            && self.records + chunk.records <= LOT_RECORDS
            && self.bytes + chunk.end - chunk.start <= LOT_BYTES
    }
}

fn is_large(chunk: &Chunk) -> bool {
    chunk.records >= LOT_RECORDS / LARGE || chunk.end - chunk.start >= LOT_BYTES / LARGE
}

/// Adds a chunk behind all of its chain.
pub(super) async fn add(tx: &mut Tx, chain: ChainId, chunk: &Chunk) -> Result<(), StoreError> {
    let large = is_large(chunk);
    let lot = OpenLot::of(tx, chain).await?;
    if lot.chunks > 0 && (large || !lot.takes(chunk)) {
        seal(tx, chain).await?;
    }
    let words = chunk.words.clone();
    let terms = if large { Terms::sealed(words) } else { Terms::list(words) }.to_bytes();
    let times = chunk.times.map_or((i64::MAX, i64::MIN), |(first, last)| (first.0, last.0));
    let mut values = vec![
        Value::Id(chain.0),
        signed(chunk.segment),
        signed(chunk.start),
        signed(chunk.end),
        signed(chunk.first_seq),
        signed(chunk.last_seq),
        Value::Int(times.0),
        Value::Int(times.1),
        signed(chunk.records),
        Value::Flag(large),
        Value::Bytes(&terms),
    ];
    let columns = "chain_id, segment, segment_start, segment_end, first_seq, last_seq, first_time, last_time, records, \
         sealed, terms";
    let sql = if tx.conn().is_postgres() {
        values.push(Value::Bytes(&chunk.lines));
        format!(
            "INSERT INTO audit_chunks ({columns}, lines) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
        )
    } else {
        format!("INSERT INTO audit_chunks ({columns}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
    };
    tx.execute(composed(sql), &values).await?;
    Ok(())
}

/// Makes one row of all open chunks.
async fn seal(tx: &mut Tx, chain: ChainId) -> Result<(), StoreError> {
    let sql = "SELECT chunk, segment_end, last_seq, first_time, last_time, records, terms FROM audit_chunks \
         WHERE chain_id = $1 AND NOT sealed ORDER BY first_seq";
    let rows = tx.rows(sql, &[chain.0.into()]).await?;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let chunk = first.int(0)?;
    let column = |at: usize| rows.iter().map(|row| row.int(at)).collect::<Result<Vec<i64>, _>>();
    let (first_time, last_time) = (column(3)?.into_iter().min(), column(4)?.into_iter().max());
    let records: i64 = column(5)?.into_iter().sum();
    let terms = merged(&rows)?;
    if tx.conn().is_postgres() {
        // Before the rows are marked: it takes those that are open.
        let sql = "UPDATE audit_chunks SET lines = (SELECT string_agg(lines, ''::bytea ORDER BY first_seq) \
             FROM audit_chunks WHERE chain_id = $1 AND NOT sealed) WHERE chunk = $2";
        tx.execute(sql, &[chain.0.into(), chunk.into()]).await?;
    }
    let sql = "UPDATE audit_chunks SET segment_end = $2, last_seq = $3, first_time = $4, last_time = $5, records = $6, \
         terms = $7, sealed = $8 WHERE chunk = $1";
    let values = [
        chunk.into(),
        Value::Int(last.int(1)?),
        Value::Int(last.int(2)?),
        Value::Int(first_time.unwrap_or(i64::MAX)),
        Value::Int(last_time.unwrap_or(i64::MIN)),
        Value::Int(records),
        Value::Bytes(&terms),
        Value::Flag(true),
    ];
    tx.execute(sql, &values).await?;
    tx.execute("DELETE FROM audit_chunks WHERE chain_id = $1 AND NOT sealed", &[chain.0.into()]).await?;
    Ok(())
}

fn merged(rows: &[Row]) -> Result<Vec<u8>, StoreError> {
    let mut words = Vec::new();
    for row in rows {
        match Terms::stored(row.bytes(6)?).into_words() {
            Some(listed) => words.extend(listed),
            // Only an index that a later version wrote: an empty form, which says look.
            None => return Ok(Vec::new()),
        }
    }
    words.sort_unstable();
    words.dedup();
    Ok(Terms::sealed(words).to_bytes())
}
