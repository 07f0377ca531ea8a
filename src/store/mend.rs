//! Puts right what a clock that ran ahead has left behind: due times, leases and readings further ahead than any that is set.
//!
//! Left alone they would hold up their work until that clock's time comes. Whoever is late itself takes every time for one
//! that lies ahead, so on Postgres nothing is mended by a process whose clock is behind the database's; on SQLite there is one
//! machine and one clock.

use super::{
    Database, StoreError,
    alerts::AlertStore,
    deliveries::DeliveryQueue,
    export_jobs::ExportJobs,
    sql::{Tx, Value},
};
use crate::domain::Millis;

/// No next try is set further ahead: the longest wait and its jitter are 29 hours.
const LONGEST_WAIT_MS: i64 = 30 * 3_600_000;
/// No lease is given for longer, but that of an export.
const LONGEST_LEASE_MS: i64 = 3_600_000;
/// The longest that can be configured, and more.
const LONGEST_EXPORT_LEASE_MS: i64 = 25 * 3_600_000;
/// So far the clocks of those who read may differ.
const SLACK_MS: i64 = 600_000;
/// More than the time of a question to the database.
const BEHIND_MS: i64 = 60_000;

/// What is wrong, and how it is put right: a condition and an assignment, in which `$1` is now and `$2` the bound.
struct Wrong {
    table: &'static str,
    set: &'static str,
    when: &'static str,
    bound: i64,
}

impl Wrong {
    async fn mend(&self, db: &Database, now: Millis) -> Result<u64, StoreError> {
        let Self { table, set, when, bound } = self;
        let values = [Value::Int(now.0), Value::Int(*bound)];
        // Looked for without the write lock first: there is hardly ever any.
        let look = super::sql::composed(format!("SELECT 1 FROM {table} WHERE {when} AND $1 <= $2 LIMIT 1"));
        let mut tx = db.begin_read().await?;
        if tx.row(look, &values).await?.is_none() || is_behind(&mut tx, now).await? {
            return Ok(0);
        }
        drop(tx);
        let mut tx = db.begin_write().await?;
        let update = super::sql::composed(format!("UPDATE {table} SET {set} WHERE {when} AND $1 <= $2"));
        let mended = tx.execute(update, &values).await?;
        tx.commit().await?;
        tracing::warn!(table, mended, "times that a clock which ran ahead has written are put right");
        Ok(mended)
    }
}

async fn is_behind(tx: &mut Tx, now: Millis) -> Result<bool, StoreError> {
    if !tx.conn().is_postgres() {
        return Ok(false);
    }
    let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
    let there = tx.row(sql, &[]).await?.map(|row| row.int(0)).transpose()?.unwrap_or(i64::MAX);
    Ok(there > now.0.saturating_add(BEHIND_MS))
}

async fn all(db: &Database, now: Millis, wrong: &[Wrong]) -> Result<u64, StoreError> {
    let mut mended = 0;
    for one in wrong {
        mended += one.mend(db, now).await?;
    }
    Ok(mended)
}

impl DeliveryQueue {
    /// Mends times of deliveries; how many.
    pub async fn mend(&self, now: Millis) -> Result<u64, StoreError> {
        let table = "webhook_deliveries";
        let wrong = [
            Wrong {
                table,
                set: "next_attempt_at = $1",
                when: "status = 'pending' AND next_attempt_at > $2",
                bound: now.0.saturating_add(LONGEST_WAIT_MS),
            },
            Wrong {
                table,
                set: "leased_until = NULL, lease_owner = NULL",
                when: "status = 'pending' AND leased_until > $2",
                bound: now.0.saturating_add(LONGEST_LEASE_MS),
            },
        ];
        all(self.database(), now, &wrong).await
    }
}

impl AlertStore {
    /// Mends times of links that are looked at; how many. `latest`: no look is set behind it.
    pub async fn mend(&self, now: Millis, latest: Millis) -> Result<u64, StoreError> {
        let table = "alert_evaluations";
        let wrong = [
            Wrong { table, set: "due_at = $1", when: "due_at > $2", bound: latest.0.saturating_add(SLACK_MS) },
            Wrong {
                table,
                set: "leased_until = NULL, lease_owner = NULL",
                when: "leased_until > $2",
                bound: now.0.saturating_add(LONGEST_LEASE_MS),
            },
            // A reading that was not made yet: it would be newer than every other.
            Wrong { table, set: "read_at = NULL", when: "read_at > $2", bound: now.0.saturating_add(SLACK_MS) },
        ];
        all(self.database(), now, &wrong).await
    }
}

impl ExportJobs {
    /// Mends leases; how many.
    pub async fn mend(&self, now: Millis) -> Result<u64, StoreError> {
        let wrong = [Wrong {
            table: "export_jobs",
            set: "lease_until = $1",
            when: "state = 'running' AND lease_until > $2",
            bound: now.0.saturating_add(LONGEST_EXPORT_LEASE_MS),
        }];
        all(self.database(), now, &wrong).await
    }
}
