//! Claims on `Idempotency-Key`s: a write is claimed before it is sent, and its answer kept for who asks again.
//!
//! Invariants: one transaction decides who holds a claim, so of two callers with one key exactly one goes on; a claim
//! that nobody settled (the process ended) stays, because nobody knows what became of it; only the holder of a claim
//! settles or frees it. What it knows and the database does not take waits in memory ([`IdempotencyKeys::settled`]).

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::{Database, StoreError, sql::Value, unsettled::Unsettled};
use crate::domain::Millis;

/// Whose key it is and what for: a digest.
pub type Scope = [u8; 32];

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    pub status: u16,
    /// The tenant that was acted in.
    pub tenant_id: Option<String>,
    /// JSON, as it was sent.
    pub body: String,
}

/// What a key led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Go on; settle or free it in the end.
    Mine(Claim),
    /// Done before, with the same question.
    Done(StoredAnswer),
    /// Used for another question.
    Other,
    /// Somebody is at it.
    Running,
    /// It was sent, and what became of it is not known.
    Unknown,
}

/// The right to act, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub(super) scope: Scope,
    pub(super) request: [u8; 32],
    pub(super) id: Uuid,
    pub(super) expires_at: Millis,
}

/// What becomes of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    Answered(StoredAnswer),
    /// Certainly not done: the key may be used again.
    Freed,
    /// It was sent, and nobody knows what became of it.
    GivenUp,
}

/// All claims. Clones share what waits for the database.
#[derive(Clone, Debug)]
pub struct IdempotencyKeys {
    db: Database,
    unsettled: Arc<Unsettled>,
}

impl IdempotencyKeys {
    pub fn new(db: &Database) -> Self {
        Self { db: db.clone(), unsettled: Arc::default() }
    }

    /// Claims the key, or tells what it was used for. `running_until`: until when a claim of now may still be worked
    /// on; a later caller is told that its outcome is unknown.
    pub async fn claim(
        &self,
        scope: Scope,
        request: [u8; 32],
        now: Millis,
        running_for_ms: i64,
        keep_for_ms: i64,
    ) -> Result<Claimed, StoreError> {
        if let Some(told) = self.unsettled.told(&scope, &request, now) {
            return Ok(told);
        }
        let expires_at = Millis(now.0.saturating_add(keep_for_ms));
        let mut tx = self.db.begin_write().await?;
        tx.execute(
            "DELETE FROM idempotency_keys WHERE scope = $1 AND expires_at <= $2",
            &[Value::Bytes(&scope), now.0.into()],
        )
        .await?;
        let id = Uuid::now_v7();
        let taken = tx
            .execute(
                "INSERT INTO idempotency_keys (scope, request_hash, claim, state, created_at, expires_at) \
                 VALUES ($1, $2, $3, 'running', $4, $5) ON CONFLICT (scope) DO NOTHING",
                &[Value::Bytes(&scope), Value::Bytes(&request), id.into(), now.0.into(), expires_at.0.into()],
            )
            .await?;
        if taken == 1 {
            let claim = Claim { scope, request, id, expires_at };
            if let Err(error) = tx.commit().await {
                // It may be there all the same, and nobody will act upon it.
                self.unsettled.keep(&claim, &Settlement::Freed);
                return Err(error.into());
            }
            return Ok(Claimed::Mine(claim));
        }
        let row = tx
            .row(
                "SELECT request_hash, state, status, tenant_id, answer, created_at FROM idempotency_keys \
                 WHERE scope = $1",
                &[Value::Bytes(&scope)],
            )
            .await?;
        // Freed between the two statements: whoever held it is done with it, and the client may ask again.
        let Some(row) = row else { return Ok(Claimed::Running) };
        if row.bytes("request_hash")? != request {
            return Ok(Claimed::Other);
        }
        Ok(match row.str("state")? {
            "done" => {
                let damaged = |what: &str| StoreError::Damaged { table: "idempotency_keys", what: what.to_owned() };
                let status = row.maybe_int("status")?.and_then(|status| u16::try_from(status).ok());
                Claimed::Done(StoredAnswer {
                    status: status.ok_or_else(|| damaged("no status"))?,
                    tenant_id: row.maybe_text("tenant_id")?,
                    body: row.maybe_text("answer")?.ok_or_else(|| damaged("no answer"))?,
                })
            }
            "running" if now.0 < row.int("created_at")?.saturating_add(running_for_ms) => Claimed::Running,
            _ => Claimed::Unknown,
        })
    }

    /// Writes what became of it. Where the database does not take it now, it waits in memory for [`Self::bring`] and is
    /// told to callers of this process meanwhile; an error where it cannot wait.
    pub async fn settled(&self, claim: &Claim, settlement: &Settlement) -> Result<(), StoreError> {
        match self.end(claim, settlement).await {
            Ok(_) => Ok(()),
            Err(StoreError::Unavailable(error)) if self.unsettled.keep(claim, settlement) => {
                tracing::warn!(%error, "the outcome of a write cannot be kept yet: it waits in memory for the database");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Brings what waits to the database as soon as it takes it; never ends.
    pub async fn bring(self) {
        self.unsettled.bring(&self).await;
    }

    /// The same once, within `limit`, before the process ends.
    pub async fn bring_last(&self, limit: Duration) {
        self.unsettled.bring_last(self, limit).await;
    }

    /// `false`: the claim was not held any more.
    pub(super) async fn end(&self, claim: &Claim, settlement: &Settlement) -> Result<bool, StoreError> {
        match settlement {
            Settlement::Answered(answer) => self.settle(claim, answer).await,
            Settlement::Freed => self.free(claim).await,
            Settlement::GivenUp => self.give_up(claim).await,
        }
    }

    /// Keeps the answer. `false`: the claim was not held any more.
    pub async fn settle(&self, claim: &Claim, answer: &StoredAnswer) -> Result<bool, StoreError> {
        let sql = "UPDATE idempotency_keys SET state = 'done', status = $3, tenant_id = $4, answer = $5 \
             WHERE scope = $1 AND claim = $2";
        self.change(
            sql,
            claim,
            &[
                Value::Int(answer.status.into()),
                Value::MaybeText(answer.tenant_id.as_deref()),
                answer.body.as_str().into(),
            ],
        )
        .await
    }

    /// It was sent, and nobody knows what became of it.
    pub async fn give_up(&self, claim: &Claim) -> Result<bool, StoreError> {
        self.change("UPDATE idempotency_keys SET state = 'unknown' WHERE scope = $1 AND claim = $2", claim, &[]).await
    }

    /// It was certainly not done: the key may be used again.
    pub async fn free(&self, claim: &Claim) -> Result<bool, StoreError> {
        self.change("DELETE FROM idempotency_keys WHERE scope = $1 AND claim = $2", claim, &[]).await
    }

    async fn change(&self, sql: &'static str, claim: &Claim, values: &[Value<'_>]) -> Result<bool, StoreError> {
        let mut all = vec![Value::Bytes(&claim.scope), Value::Id(claim.id)];
        all.extend_from_slice(values);
        let mut tx = self.db.begin_write().await?;
        let changed = tx.execute(sql, &all).await?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Removes keys whose time is over, at most `most`; tells how many.
    pub async fn clean(&self, now: Millis, most: i64) -> Result<u64, StoreError> {
        let mut tx = self.db.begin_write().await?;
        let removed = tx
            .execute(
                "DELETE FROM idempotency_keys WHERE scope IN \
                 (SELECT scope FROM idempotency_keys WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
                &[now.0.into(), most.into()],
            )
            .await?;
        tx.commit().await?;
        Ok(removed)
    }
}
