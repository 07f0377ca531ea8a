//! The audit index: what the audit room asks of a database, filled.
//!
//! The journal is the truth, this is an index of it. A batch is stored together with the position it reaches, and only
//! if the stored position is the one that the batch starts from: so every line is here exactly once, whatever fails
//! in between. A row is a chunk of lines (`audit_chunks`) with the words that its records can be asked by
//! (`audit_terms`), which is what `audit_query` finds them by. On SQLite a chunk points into the journal, which is on
//! the same machine; on Postgres it holds the lines too, because every replica has a journal of its own. On SQLite the
//! index is a file of its own with a relaxed commit: what a crash takes away, position included, is indexed again.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Database, StoreError, audit_chunks,
    sql::{Tx, Value, signed, unsigned},
};
use crate::audit::{ChainHead, ChainHeads, ChainId, Hash, IndexBatch, IndexPosition, IndexSink, IndexUnavailable};

/// The audit side of the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditStore {
    pub(super) db: Database,
    /// `audit.dir`: where an index on SQLite points to.
    pub(super) journal: PathBuf,
    /// Segments that were asked for and are there no more.
    pub(super) moved: Arc<Mutex<BTreeSet<u64>>>,
}

impl AuditStore {
    /// `journal` is `audit.dir`.
    pub fn new(db: &Database, journal: &Path) -> Self {
        Self { db: db.clone(), journal: journal.to_owned(), moved: Arc::default() }
    }

    pub fn database(&self) -> &Database {
        &self.db
    }

    /// Segments that answers would have needed and that were moved out of the journal: their records are left out.
    pub fn moved_segments(&self) -> Vec<u64> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// The chains that the index knows.
    pub async fn chains(&self) -> Result<Vec<ChainId>, StoreError> {
        let sql = "SELECT chain_id FROM audit_positions UNION SELECT chain_id FROM audit_chains ORDER BY chain_id";
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
    fn keeps_lines(&self) -> bool {
        self.db.is_postgres()
    }

    async fn position(&self, chain: ChainId) -> Result<Option<IndexPosition>, IndexUnavailable> {
        let mut tx = self.db.begin_audit_read().await.map_err(unavailable)?;
        read_position(&mut tx, chain).await.map_err(unavailable)
    }

    async fn store(&self, batch: IndexBatch) -> Result<(), IndexUnavailable> {
        let mut tx = self.db.begin_audit_write().await.map_err(unavailable)?;
        if !advance(&mut tx, &batch).await.map_err(unavailable)? {
            return Err(IndexUnavailable::new(Misplaced(batch.chain_id)));
        }
        for chunk in &batch.chunks {
            audit_chunks::add(&mut tx, batch.chain_id, chunk).await.map_err(unavailable)?;
        }
        self.learn(&mut tx, batch.chain_id, batch.late).await?;
        tx.commit().await.map_err(unavailable)
    }
}

impl ChainHeads for AuditStore {
    async fn head(&self, chain: ChainId) -> Result<Option<ChainHead>, IndexUnavailable> {
        let mut tx = self.db.begin_audit_read().await.map_err(unavailable)?;
        read_head(&mut tx, chain).await.map_err(unavailable)
    }
}

async fn read_position(tx: &mut Tx, chain: ChainId) -> Result<Option<IndexPosition>, StoreError> {
    let sql = "SELECT segment, segment_offset, head_seq, head_hash FROM audit_positions WHERE chain_id = $1";
    let Some(row) = tx.row(sql, &[chain.0.into()]).await? else { return Ok(None) };
    let number = |column: usize| Ok::<_, StoreError>(unsigned(row.int(column)?));
    let head = ChainHead { seq: number(2)?, hash: hash(row.str(3)?)? };
    Ok(Some(IndexPosition { segment: number(0)?, offset: number(1)?, head }))
}

/// Also the head of the index before this one (`audit_chains`): what it saw must be in the journal still.
async fn read_head(tx: &mut Tx, chain: ChainId) -> Result<Option<ChainHead>, StoreError> {
    let sql = "SELECT head_seq, head_hash FROM audit_positions WHERE chain_id = $1 UNION ALL \
         SELECT head_seq, head_hash FROM audit_chains WHERE chain_id = $1 ORDER BY 1 DESC LIMIT 1";
    let Some(row) = tx.row(sql, &[chain.0.into()]).await? else { return Ok(None) };
    Ok(Some(ChainHead { seq: unsigned(row.int(0)?), hash: hash(row.str(1)?)? }))
}

fn hash(text: &str) -> Result<Hash, StoreError> {
    text.parse().map_err(|error| StoreError::Damaged { table: "audit_positions", what: format!("head_hash: {error}") })
}

/// Moves the position, if it is still where the batch starts. The row is locked until the commit.
async fn advance(tx: &mut Tx, batch: &IndexBatch) -> Result<bool, StoreError> {
    let to = batch.position;
    let (chain, hash) = (Value::Id(batch.chain_id.0), to.head.hash.to_string());
    let mut values = vec![chain, signed(to.segment), signed(to.offset), signed(to.head.seq), Value::Text(&hash)];
    let moved = match batch.after {
        None => {
            let sql = "INSERT INTO audit_positions (chain_id, segment, segment_offset, head_seq, head_hash) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (chain_id) DO NOTHING";
            tx.execute(sql, &values).await?
        }
        Some(from) => {
            let sql = "UPDATE audit_positions SET segment = $2, segment_offset = $3, head_seq = $4, head_hash = $5 \
                 WHERE chain_id = $1 AND segment = $6 AND segment_offset = $7 AND head_seq = $8 AND head_hash = $9";
            let from_hash = from.head.hash.to_string();
            values.extend([signed(from.segment), signed(from.offset), signed(from.head.seq), Value::Text(&from_hash)]);
            tx.execute(sql, &values).await?
        }
    };
    Ok(moved == 1)
}
