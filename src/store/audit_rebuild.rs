//! A journal that is kept in Postgres, put together again as the files that it was.
//!
//! Its lines stand in the index, and those that the index has not seen in runs. What retention has given up is no part of it
//! any more, though the index may still be asked for it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    AuditStore, DepotError, StoreError,
    audit_depot::Floor,
    audit_evidence::{COLUMNS, kept},
    sql::{Tx, Value, composed, signed, unsigned},
};
use crate::audit::{
    ChainId,
    encode::FORMAT,
    evidence::{Kept, shelf::Shelf},
    reader::{CHAIN_FILE, ChainFile, segment_path},
};

/// Rows read at once: a chunk has eight mebibytes at most.
const ROWS_AT_ONCE: i64 = 4;

/// How much of a journal is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All that was not given up.
    Whole,
    /// As much as a server needs to go on.
    ToGoOn,
    /// These segments and those between them, as far as the index has them.
    Segments(u64, u64),
}

/// Segments that are put together from what the database has of them, in their order.
struct Rebuilt {
    dir: PathBuf,
    open: Option<(u64, File)>,
    /// Up to where the open one is whole.
    end: u64,
    /// The segment that may come next at most.
    next: u64,
    /// The furthest place that was put.
    reached: (u64, u64),
    /// The first thing that is missing.
    hole: Option<String>,
}

impl Rebuilt {
    fn put(&mut self, segment: u64, start: u64, bytes: &[u8]) -> Result<(), DepotError> {
        let path = segment_path(&self.dir, segment);
        let failed = |source| DepotError::Folder { path: path.clone(), source };
        if self.open.as_ref().is_none_or(|(number, _)| *number != segment) {
            self.ended().map_err(failed)?;
            if segment > self.next {
                self.missing(format!("segment {} is missing", self.next));
            }
            self.next = self.next.max(segment + 1);
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(failed)?;
            // Runs of lines that the index has may still be there.
            self.end = file.metadata().map_err(failed)?.len();
            self.open = Some((segment, file));
        }
        if start > self.end {
            self.missing(format!("segment {segment} has a hole from byte {} to {start}", self.end));
        }
        self.end = self.end.max(start.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX)));
        self.reached = self.reached.max((segment, self.end));
        let Some((_, file)) = &self.open else { return Ok(()) };
        file.write_all_at(bytes, start).map_err(failed)
    }

    fn missing(&mut self, what: String) {
        self.hole.get_or_insert(what);
    }

    /// Only whole lines are kept.
    fn ended(&mut self) -> std::io::Result<()> {
        let Some((number, mut file)) = self.open.take() else { return Ok(()) };
        let mut last = [0];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != *b"\n" {
            self.missing(format!("segment {number} ends within a line"));
        }
        Ok(())
    }
}

impl AuditStore {
    /// The chains that are kept here.
    pub async fn kept_chains(&self) -> Result<Vec<ChainId>, StoreError> {
        if !self.db.is_postgres() {
            return Ok(Vec::new());
        }
        let sql = "SELECT chain_id FROM audit_journals ORDER BY taken_at, chain_id";
        let rows = self.db.begin_audit_read().await?.rows(sql, &[]).await?;
        rows.iter().map(|row| Ok(ChainId(row.id(0)?))).collect()
    }

    /// Targets of shipping that have something of this chain.
    pub async fn kept_targets(&self, chain: ChainId) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT target FROM audit_journal_targets WHERE chain_id = $1";
        let rows = self.db.begin_audit_read().await?.rows(sql, &[chain.0.into()]).await?;
        Ok(rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>()?)
    }

    /// Writes the journal of a chain into an empty folder. What is missing of it is left out, and told.
    pub async fn rebuild(&self, chain: ChainId, dir: &Path, extent: Extent) -> Result<Option<String>, DepotError> {
        let mut tx = self.db.begin_audit_read().await?;
        let floor = Floor::of(&mut tx.conn(), chain).await.map_err(StoreError::from)?;
        let first = floor.segment + 1;
        let (from, to) = match extent {
            Extent::Whole => (first, u64::MAX),
            Extent::ToGoOn => (needed(&mut tx, chain).await?.max(first), u64::MAX),
            Extent::Segments(from, to) => (from.max(first), to),
        };
        let mut rebuilt = Rebuilt { dir: dir.to_owned(), open: None, end: 0, next: from, reached: (0, 0), hole: None };
        let chunks = put_chunks(&mut tx, chain, floor, (from, to), &mut rebuilt).await?;
        if to == u64::MAX {
            put_runs(&mut tx, chain, from, &mut rebuilt).await?;
            let sql = "SELECT segment, segment_offset FROM audit_positions WHERE chain_id = $1";
            if let Some(row) = tx.row(sql, &[chain.0.into()]).await? {
                let seen = (unsigned(row.int(0)?), unsigned(row.int(1)?));
                if rebuilt.reached < seen {
                    rebuilt.missing(format!("it ends before byte {} of segment {}, which was indexed", seen.1, seen.0));
                }
            }
        }
        let failed = |source| DepotError::Folder { path: dir.to_owned(), source };
        rebuilt.ended().map_err(failed)?;
        // Of a part no checkpoint may cover more than is there.
        let signed_up_to = if to == u64::MAX { i64::MAX } else { chunks };
        let sql = composed(format!(
            "SELECT {COLUMNS} FROM audit_checkpoints WHERE chain_id = $1 AND last_seq <= $2 ORDER BY last_seq"
        ));
        let rows = tx.rows(sql, &[chain.0.into(), signed_up_to.into()]).await?;
        let shelved = rows.iter().map(kept).collect::<Result<Vec<Kept>, _>>()?;
        let named = serde_json::to_vec(&ChainFile { chain_id: chain, format: FORMAT }).map_err(std::io::Error::from);
        named.and_then(|named| std::fs::write(dir.join(CHAIN_FILE), named)).map_err(failed)?;
        Shelf::open(dir).and_then(|mut shelf| shelf.add(&shelved)).map_err(failed)?;
        let sql = "SELECT target, state FROM audit_journal_targets WHERE chain_id = $1";
        for row in tx.rows(sql, &[chain.0.into()]).await? {
            let path = dir.join(format!("ship-{}.json", row.str(0)?));
            std::fs::write(&path, row.str(1)?).map_err(|source| DepotError::Folder { path, source })?;
        }
        Ok(rebuilt.hole)
    }
}

/// Gives the last line that was put.
async fn put_chunks(
    tx: &mut Tx,
    chain: ChainId,
    floor: Floor,
    (from, to): (u64, u64),
    rebuilt: &mut Rebuilt,
) -> Result<i64, DepotError> {
    let (mut after, mut last) = (signed(floor.last_seq), 0);
    loop {
        let sql = "SELECT first_seq, segment, segment_start, lines, last_seq FROM audit_chunks \
             WHERE chain_id = $1 AND segment BETWEEN $2 AND $3 AND first_seq > $4 ORDER BY first_seq LIMIT $5";
        let values = [chain.0.into(), signed(from), signed(to), after, ROWS_AT_ONCE.into()];
        let rows = tx.rows(sql, &values).await?;
        for row in &rows {
            (after, last) = (Value::Int(row.int(0)?), row.int(4)?);
            rebuilt.put(unsigned(row.int(1)?), unsigned(row.int(2)?), &row.bytes(3)?)?;
        }
        if rows.is_empty() {
            return Ok(last);
        }
    }
}

async fn put_runs(tx: &mut Tx, chain: ChainId, from: u64, rebuilt: &mut Rebuilt) -> Result<(), DepotError> {
    let (mut segment, mut start) = (signed(from), Value::Int(-1));
    loop {
        let sql = "SELECT segment, segment_start, lines FROM audit_journal_runs WHERE chain_id = $1 \
             AND (segment, segment_start) > ($2, $3) ORDER BY segment, segment_start LIMIT $4";
        let rows = tx.rows(sql, &[chain.0.into(), segment, start, (ROWS_AT_ONCE * 4).into()]).await?;
        for row in &rows {
            (segment, start) = (Value::Int(row.int(0)?), Value::Int(row.int(1)?));
            rebuilt.put(unsigned(row.int(0)?), unsigned(row.int(1)?), &row.bytes(2)?)?;
        }
        if rows.is_empty() {
            return Ok(());
        }
    }
}

/// The first segment that a server needs: the last two, and what index, checkpoints or a target have not seen.
async fn needed(tx: &mut Tx, chain: ChainId) -> Result<u64, StoreError> {
    let sql = "SELECT min(segment) FROM ( \
         SELECT max(segment) - 1 AS segment FROM ( \
             SELECT segment FROM audit_positions WHERE chain_id = $1 \
             UNION ALL SELECT max(segment) FROM audit_journal_runs WHERE chain_id = $1) last \
         UNION ALL SELECT coalesce((SELECT segment FROM audit_positions WHERE chain_id = $1), 1) \
         UNION ALL (SELECT segment FROM audit_checkpoints WHERE chain_id = $1 ORDER BY last_seq DESC LIMIT 1) \
         UNION ALL SELECT CAST(CAST(state AS JSON) ->> 'segment' AS BIGINT) FROM audit_journal_targets \
             WHERE chain_id = $1) needed";
    let row = tx.row(sql, &[chain.0.into()]).await?;
    Ok(unsigned(row.map_or(Ok(None), |row| row.maybe_int(0))?.unwrap_or(1)).max(1))
}
