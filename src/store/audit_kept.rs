//! What becomes of journals that are kept in Postgres: what is tidied behind their servers, what retention takes from them,
//! and what is done with those whose servers are gone.
//!
//! What a chain gave up is a number (`audit_floors`): one statement makes all of it no part of the journal any more, so there
//! is nothing half-way; its rows go with their months. Whatever a server does in the name of its chain looks at the
//! epoch, in the same transaction.

use std::time::Duration;

use super::{
    AuditStore, StoreError,
    audit_depot::{CLOCK, Floor, HEARD, is_own, lock_for_now},
    audit_evidence::forget_proofs,
    sql::{Row, Tx, Value, composed, signed, unsigned},
};
use crate::{
    audit::{ChainId, encode::SegmentHeader, line::Line, mirror::TakenOver},
    domain::Millis,
};

/// A journal whose server is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub chain: ChainId,
    /// Host name of the server.
    pub holder: String,
    /// It was closed: the last line that its server wrote.
    pub ended_seq: Option<u64>,
    /// Up to where retention has given it up.
    pub given_up: u64,
}

/// The oldest segments of a journal, as many as are looked at at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oldest {
    pub first: u64,
    pub last: u64,
    /// There are more.
    pub more: bool,
}

/// A journal that nobody takes, because it cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faulty {
    pub chain: ChainId,
    pub why: String,
}

/// Another server has taken the chain.
fn taken_over() -> StoreError {
    StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(TakenOver)))
}

async fn own(tx: &mut Tx, chain: ChainId, epoch: i64) -> Result<(), StoreError> {
    if is_own(&mut tx.conn(), chain, epoch).await? { Ok(()) } else { Err(taken_over()) }
}

impl AuditStore {
    /// Notes how far targets of shipping are, and drops runs whose lines the index has.
    pub async fn tidy_journal(
        &self,
        chain: ChainId,
        epoch: i64,
        targets: &[(String, String)],
    ) -> Result<(), StoreError> {
        let mut tx = self.db.begin_audit_write().await?;
        own(&mut tx, chain, epoch).await?;
        for (target, position) in targets {
            let sql = "INSERT INTO audit_journal_targets (chain_id, target, state) VALUES ($1, $2, $3) \
                 ON CONFLICT (chain_id, target) DO UPDATE SET state = excluded.state";
            tx.execute(sql, &[chain.0.into(), Value::Text(target), Value::Text(position)]).await?;
        }
        let sql = "DELETE FROM audit_journal_runs USING audit_positions \
             WHERE audit_journal_runs.chain_id = $1 AND audit_positions.chain_id = $1 \
             AND (audit_journal_runs.segment < audit_positions.segment \
             OR (audit_journal_runs.segment = audit_positions.segment AND segment_end <= segment_offset))";
        tx.execute(sql, &[chain.0.into()]).await?;
        Ok(tx.commit().await?)
    }

    /// When the oldest segment was closed; `None` while there is but one, or the index has not seen the next.
    pub async fn first_closed(&self, chain: ChainId) -> Result<Option<Millis>, StoreError> {
        let mut tx = self.db.begin_audit_read().await?;
        let floor = Floor::of(&mut tx.conn(), chain).await?;
        let sql = "SELECT substr(lines, 1, position('\\x0a'::bytea in lines) - 1) FROM audit_chunks \
             WHERE chain_id = $1 AND first_seq > $2 AND segment = $3 AND segment_start = 0 ORDER BY first_seq LIMIT 1";
        let values = [chain.0.into(), signed(floor.last_seq), signed(floor.segment + 2)];
        let Some(row) = tx.row(sql, &values).await? else { return Ok(None) };
        let bytes = row.bytes(0)?;
        let header = Line::parse(&bytes).and_then(|line| line.visible_as::<SegmentHeader>());
        let damaged = |error: crate::audit::line::NotALine| StoreError::Damaged {
            table: "audit_chunks",
            what: format!("the header of segment {} of {chain}: {error}", floor.segment + 2),
        };
        Ok(Some(header.map_err(damaged)?.time))
    }

    /// The oldest segments, of about `bytes` together, and the one behind them.
    pub async fn oldest_segments(&self, chain: ChainId, bytes: u64) -> Result<Option<Oldest>, StoreError> {
        let mut tx = self.db.begin_audit_read().await?;
        let floor = Floor::of(&mut tx.conn(), chain).await?;
        let sql = "SELECT segment, CAST(sum(segment_end - segment_start) AS BIGINT) FROM audit_chunks \
             WHERE chain_id = $1 AND first_seq > $2 GROUP BY segment ORDER BY segment";
        let rows = tx.rows(sql, &[chain.0.into(), signed(floor.last_seq)]).await?;
        let mut oldest: Option<Oldest> = None;
        let mut size = 0;
        for row in &rows {
            let number = unsigned(row.int(0)?);
            match &mut oldest {
                // One, and the header behind it, at least.
                Some(oldest) if size > bytes && oldest.last > oldest.first => {
                    oldest.more = true;
                    break;
                }
                Some(oldest) => oldest.last = number,
                None => oldest = Some(Oldest { first: number, last: number, more: false }),
            }
            size += unsigned(row.int(1)?);
        }
        Ok(oldest)
    }

    /// The chain has told that it gives up its lines up to `last`, which ended with `segment`: they are no part of it any
    /// more. `epoch`: of the server that does it; `None`: it is done from outside, and the rows go at once.
    pub async fn give_up_kept(
        &self,
        chain: ChainId,
        epoch: Option<i64>,
        segment: u64,
        last: u64,
    ) -> Result<(), StoreError> {
        let mut tx = self.db.begin_audit_write().await?;
        match epoch {
            Some(epoch) => own(&mut tx, chain, epoch).await?,
            None => {
                let sql = "DELETE FROM audit_chunks WHERE chain_id = $1 AND segment <= $2";
                tx.execute(sql, &[chain.0.into(), signed(segment)]).await?;
                forget_proofs(&mut tx, chain, last).await?;
            }
        }
        set_floor(&mut tx, chain, segment, last).await?;
        let sql = "DELETE FROM audit_journal_runs WHERE chain_id = $1 AND segment <= $2";
        tx.execute(sql, &[chain.0.into(), signed(segment)]).await?;
        Ok(tx.commit().await?)
    }

    /// Journals of which the database heard nothing for so long; of those that were closed, nothing lately.
    pub async fn gone_journals(&self, silent: Duration) -> Result<Vec<Gone>, StoreError> {
        let heard = i64::try_from(HEARD.as_millis()).unwrap_or(i64::MAX);
        let silent = i64::try_from(silent.as_millis()).unwrap_or(i64::MAX);
        let sql = format!(
            "SELECT chain_id, holder, ended_seq, coalesce(last_seq, 0) \
             FROM audit_journals LEFT JOIN audit_floors USING (chain_id) WHERE fault IS NULL \
             AND taken_at < {CLOCK} - CASE WHEN ended_seq IS NULL THEN $1 ELSE {heard} END ORDER BY taken_at, chain_id"
        );
        let rows = self.db.begin_audit_read().await?.rows(composed(sql), &[silent.into()]).await?;
        let gone = |row: &Row| {
            Ok(Gone {
                chain: ChainId(row.id(0)?),
                holder: row.text(1)?,
                ended_seq: row.maybe_int(2)?.map(unsigned),
                given_up: unsigned(row.int(3)?),
            })
        };
        Ok(rows.iter().map(gone).collect::<Result<_, sqlx::Error>>()?)
    }

    /// The journal of a server that is gone was closed behind its line `last`. Said once.
    pub async fn end_journal(&self, chain: ChainId, epoch: i64, last: u64) -> Result<(), StoreError> {
        let mut tx = self.db.begin_audit_write().await?;
        own(&mut tx, chain, epoch).await?;
        let sql = "UPDATE audit_journals SET ended_seq = coalesce(ended_seq, $2) WHERE chain_id = $1";
        tx.execute(sql, &[chain.0.into(), signed(last)]).await?;
        Ok(tx.commit().await?)
    }

    /// Drops a journal that was closed and has given up all that its server wrote; `false`: somebody has taken it. What
    /// the index has of it goes with its months.
    pub async fn drop_journal(&self, chain: ChainId) -> Result<bool, StoreError> {
        let mut tx = self.db.begin_audit_write().await?;
        if !lock_for_now(&mut tx.conn(), chain).await? {
            return Ok(false);
        }
        let sql = "SELECT chain_id FROM audit_journals JOIN audit_floors USING (chain_id) WHERE chain_id = $1 \
             AND ended_seq <= last_seq AND fault IS NULL FOR UPDATE OF audit_journals";
        if tx.row(sql, &[chain.0.into()]).await?.is_none() {
            return Ok(false);
        }
        for sql in [
            "DELETE FROM audit_journal_runs WHERE chain_id = $1",
            "DELETE FROM audit_journal_targets WHERE chain_id = $1",
            "DELETE FROM audit_journals WHERE chain_id = $1",
        ] {
            tx.execute(sql, &[chain.0.into()]).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// The journal cannot be put together: nobody takes it any more, and nothing of it goes.
    pub async fn set_journal_aside(&self, chain: ChainId, epoch: i64, why: &str) -> Result<(), StoreError> {
        let mut tx = self.db.begin_audit_write().await?;
        own(&mut tx, chain, epoch).await?;
        tx.execute("UPDATE audit_journals SET fault = $2 WHERE chain_id = $1", &[chain.0.into(), why.into()]).await?;
        Ok(tx.commit().await?)
    }

    /// Journals that were set aside.
    pub async fn faulty_journals(&self) -> Result<Vec<Faulty>, StoreError> {
        if !self.db.is_postgres() {
            return Ok(Vec::new());
        }
        let sql = "SELECT chain_id, fault FROM audit_journals WHERE fault IS NOT NULL ORDER BY chain_id";
        let rows = self.db.begin_audit_read().await?.rows(sql, &[]).await?;
        let faulty = |row: &Row| Ok(Faulty { chain: ChainId(row.id(0)?), why: row.text(1)? });
        Ok(rows.iter().map(faulty).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Notes that the server of this chain is there, however little it writes: what its chain has in the index is not taken
    /// for that of a server that is gone.
    pub async fn note_alive(&self, chain: ChainId) -> Result<(), StoreError> {
        if !self.db.is_postgres() {
            return Ok(());
        }
        let mut tx = self.db.begin_audit_write().await?;
        set_floor(&mut tx, chain, 0, 0).await?;
        Ok(tx.commit().await?)
    }
}

/// Raises what a chain has given up, never lowers it.
pub(super) async fn set_floor(tx: &mut Tx, chain: ChainId, segment: u64, last: u64) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO audit_floors (chain_id, segment, last_seq, set_at) VALUES ($1, $2, $3, audit_clock()) \
         ON CONFLICT (chain_id) DO UPDATE SET segment = greatest(audit_floors.segment, excluded.segment), \
         last_seq = greatest(audit_floors.last_seq, excluded.last_seq), set_at = excluded.set_at";
    tx.execute(sql, &[chain.0.into(), signed(segment), signed(last)]).await.map(drop)
}
