//! Checkpoints and trees of the audit chains: written by the checkpointer of each chain, read for proofs.
//!
//! Any replica answers for all chains, so whatever a proof needs is here: the last checkpoint, the tiles of the tree, and,
//! through the index, the lines themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    AuditStore, StoreError,
    audit_index::unavailable,
    audit_lines::{PLACE, read_places},
    sql::{Row, Tx, Value, composed, signed, unsigned},
};
use crate::{
    audit::{
        ChainId, EvidenceStore, Hash, IndexUnavailable,
        check::Fault,
        evidence::{
            Cause, Checkpoint, Kept, RecordProof,
            proof::{LineProof, ShownCheckpoint},
            tree::{HASH_BYTES, Tile, TileAt, Tiles},
        },
        line::Line,
        run,
    },
    domain::Millis,
};

/// A record that a proof is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provable {
    pub chain_id: ChainId,
    /// Line of the opening.
    pub opening: u64,
    /// Line of the completion; `None` for a request that is still open.
    pub completion: Option<u64>,
    /// The record has parts that are another tenant's.
    pub shared: bool,
}

/// Why a record has no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// Younger than the last checkpoint.
    Pending,
    /// There are no checkpoints, or the lines or their tree are not there any more.
    Unavailable,
}

impl Unproven {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Proofs of records, and the checkpoints that they lead to.
#[derive(Debug, Default)]
pub struct Proofs {
    /// One for each record asked for, in their order.
    pub records: Vec<Result<RecordProof, Unproven>>,
    pub checkpoints: Vec<ShownCheckpoint>,
}

pub(super) const COLUMNS: &str = "note, cause, segment, segment_offset, peaks";

pub(super) fn kept(row: &Row) -> Result<Kept, StoreError> {
    let cause = row.str(1)?;
    let cause = Cause::ALL.into_iter().find(|known| known.as_str() == cause);
    let peaks = row.bytes(4)?;
    let (hashes, rest) = peaks.as_chunks::<HASH_BYTES>();
    let damaged = |what: &str| StoreError::Damaged { table: "audit_checkpoints", what: what.to_owned() };
    if !rest.is_empty() {
        return Err(damaged("peaks: no whole hashes"));
    }
    Ok(Kept {
        note: row.str(0)?.to_owned(),
        cause: cause.ok_or_else(|| damaged("cause: unknown"))?,
        segment: unsigned(row.int(2)?),
        offset: unsigned(row.int(3)?),
        peaks: hashes.iter().copied().map(Hash).collect(),
    })
}

async fn last(tx: &mut Tx, chain: ChainId) -> Result<Option<Kept>, StoreError> {
    let sql =
        composed(format!("SELECT {COLUMNS} FROM audit_checkpoints WHERE chain_id = $1 ORDER BY last_seq DESC LIMIT 1"));
    tx.row(sql, &[chain.0.into()]).await?.as_ref().map(kept).transpose()
}

/// The tiles that are there.
async fn tiles(tx: &mut Tx, chain: ChainId, wanted: &BTreeSet<TileAt>) -> Result<Tiles, StoreError> {
    let mut levels: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (level, tile) in wanted {
        levels.entry(*level).or_default().push(tile.to_string());
    }
    let mut found = Tiles::default();
    for (level, numbers) in levels {
        // Numbers only: nothing of a request is in the text.
        let sql = format!(
            "SELECT tile, hashes FROM audit_tree WHERE chain_id = $1 AND level = $2 AND tile IN ({})",
            numbers.join(",")
        );
        for row in tx.rows(composed(sql), &[chain.0.into(), i64::from(level).into()]).await? {
            found.0.insert((level, unsigned(row.int(0)?)), row.bytes(1)?.to_vec());
        }
    }
    Ok(found)
}

fn said(kept: &Kept) -> Result<Checkpoint, StoreError> {
    kept.checkpoint().map_err(|error| StoreError::Damaged { table: "audit_checkpoints", what: error.to_string() })
}

impl EvidenceStore for AuditStore {
    async fn last(&self, chain: ChainId) -> Result<Option<(Kept, Vec<Tile>)>, IndexUnavailable> {
        let mut tx = self.db.begin_audit_read().await.map_err(unavailable)?;
        let Some(kept) = last(&mut tx, chain).await.map_err(unavailable)? else { return Ok(None) };
        let size = said(&kept).map_err(unavailable)?.size();
        let edge = crate::audit::evidence::tree::edge(size).into_iter().collect();
        let tiles = tiles(&mut tx, chain, &edge).await.map_err(unavailable)?;
        Ok(Some((kept, tiles.0.into_iter().collect())))
    }

    async fn keep(&self, chain: ChainId, checkpoints: &[Kept], tiles: &[Tile]) -> Result<(), IndexUnavailable> {
        let mut tx = self.db.begin_audit_write().await.map_err(unavailable)?;
        for kept in checkpoints {
            add(&mut tx, chain, kept).await.map_err(unavailable)?;
        }
        let sql = "INSERT INTO audit_tree (chain_id, level, tile, hashes) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (chain_id, level, tile) DO UPDATE SET hashes = excluded.hashes";
        for ((level, tile), hashes) in tiles {
            let values = [chain.0.into(), i64::from(*level).into(), signed(*tile), Value::Bytes(hashes)];
            tx.execute(sql, &values).await.map_err(unavailable)?;
        }
        tx.commit().await.map_err(unavailable)
    }
}

async fn add(tx: &mut Tx, chain: ChainId, kept: &Kept) -> Result<(), StoreError> {
    let said = said(kept)?;
    let peaks: Vec<u8> = kept.peaks.iter().flat_map(|hash| hash.0).collect();
    let sql = "INSERT INTO audit_checkpoints (chain_id, last_seq, cause, segment, segment_offset, note, peaks) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (chain_id, last_seq) DO NOTHING";
    let values = [
        chain.0.into(),
        signed(said.head.seq),
        Value::Text(kept.cause.as_str()),
        signed(kept.segment),
        signed(kept.offset),
        Value::Text(&kept.note),
        Value::Bytes(&peaks),
    ];
    tx.execute(sql, &values).await?;
    Ok(())
}

impl AuditStore {
    /// Proofs of these records as `tenant` may see them, all against the last checkpoint of their chains.
    pub async fn prove(&self, records: &[Provable], tenant: &str) -> Result<Proofs, IndexUnavailable> {
        let mut proofs = Proofs { records: vec![Err(Unproven::Unavailable); records.len()], checkpoints: Vec::new() };
        let chains: BTreeSet<uuid::Uuid> = records.iter().map(|record| record.chain_id.0).collect();
        let mut tx = self.db.begin_audit_read().await.map_err(unavailable)?;
        for chain in chains.into_iter().map(ChainId) {
            let Some(kept) = last(&mut tx, chain).await.map_err(unavailable)? else { continue };
            let checkpoint = said(&kept).map_err(unavailable)?;
            let asked: Vec<(usize, Provable)> =
                records.iter().copied().enumerate().filter(|(_, record)| record.chain_id == chain).collect();
            let mut prover = Prover::new(&checkpoint, tenant);
            asked.iter().for_each(|(_, record)| prover.want(record));
            prover.tiles = tiles(&mut tx, chain, &prover.needed).await.map_err(unavailable)?;
            prover.lines = self.lines(&mut tx, chain, prover.wanted.clone()).await?;
            for (at, record) in asked {
                let proven = prover.prove(&record).map_err(IndexUnavailable::Altered)?;
                if let Some(place) = proofs.records.get_mut(at) {
                    *place = proven;
                }
            }
            proofs.checkpoints.push(ShownCheckpoint { chain_id: chain, note: kept.note });
        }
        Ok(proofs)
    }

    /// The lines with these numbers, each checked against its hash; those of segments that were moved away are missing.
    async fn lines(
        &self,
        tx: &mut Tx,
        chain: ChainId,
        mut wanted: BTreeSet<u64>,
    ) -> Result<HashMap<u64, Vec<u8>>, IndexUnavailable> {
        let mut found = HashMap::new();
        while let Some(seq) = wanted.pop_first() {
            let sql = format!(
                "SELECT {PLACE} FROM audit_chunks WHERE chain_id = $1 AND first_seq <= $2 AND last_seq >= $2 LIMIT 1"
            );
            let places = read_places(tx, composed(sql), &[chain.0.into(), signed(seq)]).await?;
            let Some(place) = places.first() else { continue };
            // Each chunk is read once for all lines that it holds.
            let behind = wanted.split_off(&place.last_seq.saturating_add(1));
            let mut here = std::mem::replace(&mut wanted, behind);
            here.insert(seq);
            let lines = self.look(tx, place, move |lines| run::lines(lines, &here)).await?;
            found.extend(lines.unwrap_or_default());
        }
        Ok(found)
    }

    /// Drops what the database knows of lines up to `last`, which ended with `segment`: the chunks, the leaves that no way
    /// needs any more, and checkpoints before that one but those at the ends of segments.
    pub async fn forget(&self, chain: ChainId, segment: u64, last: u64) -> Result<(), IndexUnavailable> {
        let mut tx = self.db.begin_audit_write().await.map_err(unavailable)?;
        let sql = "DELETE FROM audit_chunks WHERE chain_id = $1 AND segment <= $2";
        tx.execute(sql, &[chain.0.into(), signed(segment)]).await.map_err(unavailable)?;
        forget_proofs(&mut tx, chain, last).await.map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    /// Puts a change of this chain's own journal into its outbox: no other server may chain it. Gives its number.
    pub async fn enqueue_for(&self, chain: ChainId, change: &crate::audit::ChangeRecord) -> Result<i64, StoreError> {
        let body = serde_json::to_value(change)
            .map_err(|error| StoreError::Damaged { table: "audit_outbox", what: error.to_string() })?;
        let own = chain.0.to_string();
        let mut tx = self.db.begin_write().await?;
        let sql = "INSERT INTO audit_outbox (id, change_seq, at, body, claimed_by) VALUES ($1, 0, $2, $3, $4) \
             RETURNING seq";
        let values = [Value::Id(change.id.0), Value::Int(Millis::now().0), Value::Json(&body), Value::Text(&own)];
        let seq = tx.row(sql, &values).await?.ok_or(sqlx::Error::RowNotFound)?.int(0)?;
        tx.commit().await?;
        Ok(seq)
    }

    /// Whether the row is in the chain.
    pub async fn is_chained(&self, seq: i64) -> Result<bool, StoreError> {
        let sql = "SELECT seq FROM audit_outbox WHERE seq = $1 AND chained_at IS NOT NULL";
        Ok(self.db.begin_read().await?.row(sql, &[seq.into()]).await?.is_some())
    }

    /// Takes back a row that was not chained yet; `false`: it was.
    pub async fn withdraw(&self, seq: i64) -> Result<bool, StoreError> {
        let mut tx = self.db.begin_write().await?;
        let gone = tx.execute("DELETE FROM audit_outbox WHERE seq = $1 AND chained_at IS NULL", &[seq.into()]).await?;
        tx.commit().await?;
        Ok(gone == 1)
    }
}

/// Of lines up to `last` there are no proofs any more: drops the leaves that no way needs, and checkpoints.
pub(super) async fn forget_proofs(tx: &mut Tx, chain: ChainId, last: u64) -> Result<(), StoreError> {
    let first: u64 = match self::last(tx, chain).await? {
        Some(kept) => said(&kept)?.first,
        None => 1,
    };
    let leaves = last.saturating_add(1).saturating_sub(first);
    let statements = [
        (
            "DELETE FROM audit_tree WHERE chain_id = $1 AND level = 0 AND tile < $2",
            leaves / crate::audit::evidence::tree::TILE,
        ),
        ("DELETE FROM audit_checkpoints WHERE chain_id = $1 AND last_seq < $2 AND cause <> 'segment'", last),
    ];
    for (sql, until) in statements {
        tx.execute(sql, &[chain.0.into(), signed(until)]).await?;
    }
    Ok(())
}

/// Proofs against one checkpoint.
struct Prover<'c> {
    checkpoint: &'c Checkpoint,
    tenant: &'c str,
    needed: BTreeSet<TileAt>,
    wanted: BTreeSet<u64>,
    tiles: Tiles,
    lines: HashMap<u64, Vec<u8>>,
}

impl<'c> Prover<'c> {
    fn new(checkpoint: &'c Checkpoint, tenant: &'c str) -> Self {
        Self {
            checkpoint,
            tenant,
            needed: BTreeSet::new(),
            wanted: BTreeSet::new(),
            tiles: Tiles::default(),
            lines: HashMap::new(),
        }
    }

    /// Leaf of a line, if the checkpoint covers it.
    fn index(&self, seq: u64) -> Option<u64> {
        seq.checked_sub(self.checkpoint.first).filter(|_| seq <= self.checkpoint.head.seq)
    }

    fn is_pending(&self, record: &Provable) -> bool {
        record.opening.max(record.completion.unwrap_or_default()) > self.checkpoint.head.seq
    }

    fn want(&mut self, record: &Provable) {
        if self.is_pending(record) {
            return;
        }
        for seq in [Some(record.opening), record.completion].into_iter().flatten() {
            if let Some(index) = self.index(seq) {
                self.wanted.insert(seq);
                self.needed.extend(Tiles::needed(index, self.checkpoint.size()));
            }
        }
    }

    fn prove(&self, record: &Provable) -> Result<Result<RecordProof, Unproven>, Fault> {
        if self.is_pending(record) {
            return Ok(Err(Unproven::Pending));
        }
        let Some(opening) = self.line(record.opening, record.shared)? else { return Ok(Err(Unproven::Unavailable)) };
        let completion = match record.completion {
            None => None,
            Some(seq) => match self.line(seq, record.shared)? {
                None => return Ok(Err(Unproven::Unavailable)),
                found => found,
            },
        };
        Ok(Ok(RecordProof { chain_id: record.chain_id, opening, completion }))
    }

    fn line(&self, seq: u64, shared: bool) -> Result<Option<LineProof>, Fault> {
        let way = self.index(seq).and_then(|index| self.tiles.way(index, self.checkpoint.size()));
        let (Some(way), Some(bytes)) = (way, self.lines.get(&seq)) else { return Ok(None) };
        Ok(LineProof::new(&Line::parse(bytes)?, self.tenant, shared, way)?)
    }
}
