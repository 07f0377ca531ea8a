//! Changes in the outbox whose server does not come back: seen, and given to the servers that are there.
//!
//! A row belongs to the chain that claimed it, for good (`store::outbox`); this is the one exception, and an operator's
//! act. Which rows that chain had chained is told by its journal, which the caller has found and holds.

use serde::Serialize;
use uuid::Uuid;

use super::{Actor, Admin, Written, parties::json};
use crate::{
    audit::{ChainId, ChangeRecord, Kind},
    domain::{DecisionId, Millis, link_rules::Refusal},
    store::{StoreError, sql::Value},
};

/// Changes that wait to be chained, by who claimed them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The chain; `None`: any server may take them.
    pub claimant: Option<Uuid>,
    pub changes: u64,
    /// When the oldest of them was made.
    pub oldest: Millis,
}

/// One claimed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedRow {
    pub seq: i64,
    /// Id of the record that it becomes.
    pub id: DecisionId,
    /// The chain holds it: only the mark is missing.
    pub chained: bool,
}

/// What became of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Freed {
    /// Any server may take them.
    pub released: u64,
    /// Were in the claimant's chain, and are marked so.
    pub marked: u64,
}

impl Admin {
    /// Oldest first.
    pub async fn outbox_waiting(&self) -> Result<Vec<Waiting>, StoreError> {
        let sql = "SELECT claimed_by, count(*), min(at) FROM audit_outbox WHERE chained_at IS NULL \
             GROUP BY claimed_by ORDER BY 3, 1";
        let rows = self.db.begin_read().await?.rows(sql, &[]).await?;
        rows.iter()
            .map(|row| {
                let claimant = row.maybe_text(0)?.map(|text| text.parse());
                let claimant = claimant.transpose().map_err(|_| StoreError::Damaged {
                    table: "audit_outbox",
                    what: "claimed_by is no id of a chain".to_owned(),
                })?;
                let changes = u64::try_from(row.int(1)?).unwrap_or_default();
                Ok(Waiting { claimant, changes, oldest: Millis(row.int(2)?) })
            })
            .collect()
    }

    /// The rows that a chain claimed and did not mark, ascending. `chained` is not filled in.
    pub async fn outbox_claimed(&self, claimant: ChainId) -> Result<Vec<ClaimedRow>, StoreError> {
        let sql = "SELECT seq, id FROM audit_outbox WHERE claimed_by = $1 AND chained_at IS NULL ORDER BY seq";
        let own = claimant.0.to_string();
        let rows = self.db.begin_read().await?.rows(sql, &[own.as_str().into()]).await?;
        rows.iter().map(|row| Ok(ClaimedRow { seq: row.int(0)?, id: DecisionId(row.id(1)?), chained: false })).collect()
    }

    /// Marks what the claimant had chained and gives the rest to whoever asks. All that it claimed must be among `rows`,
    /// and not have changed since: else its server is at work.
    pub async fn free_outbox(
        &self,
        actor: &Actor,
        claimant: ChainId,
        rows: &[ClaimedRow],
    ) -> Result<Written<Freed>, StoreError> {
        let mut session = self.session(actor).await?;
        let own = claimant.0.to_string();
        let mut freed = Freed { released: 0, marked: 0 };
        for row in rows {
            let (sql, now) = match row.chained {
                true => ("UPDATE audit_outbox SET chained_at = $3", Value::Int(session.now.0)),
                false => ("UPDATE audit_outbox SET claimed_by = NULL, chained_at = $3", Value::MaybeInt(None)),
            };
            let sql = format!("{sql} WHERE seq = $1 AND claimed_by = $2 AND chained_at IS NULL");
            let values = [Value::Int(row.seq), Value::Text(&own), now];
            if session.tx.execute(crate::store::sql::composed(sql), &values).await? != 1 {
                return Err(at_work().into());
            }
            *(if row.chained { &mut freed.marked } else { &mut freed.released }) += 1;
        }
        let left = "SELECT count(*) FROM audit_outbox WHERE claimed_by = $1 AND chained_at IS NULL";
        if session.tx.row(left, &[own.as_str().into()]).await?.map_or(Ok(0), |row| row.int(0))? != 0 {
            return Err(at_work().into());
        }
        let record = ChangeRecord {
            resource_type: Some("audit_outbox".to_owned()),
            resource_id: Some(own.clone()),
            after: Some(json(&freed)),
            ..session.record(Kind::Admin, "audit.outbox_release")
        };
        session.enqueue(&record).await?;
        session.commit(freed).await
    }
}

fn at_work() -> Refusal {
    Refusal::conflict("the claimant's rows changed just now: its server runs, and will chain them itself")
}
