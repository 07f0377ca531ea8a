//! Exports made in the background: who asked for what, who works on it, what came of it.
//!
//! Invariants: a job is worked on by the holder of its lease only, and every change of a running job names the lease,
//! so that a worker that was away for too long changes nothing; a lease that ran out is given to the next worker, and
//! first for the partner with the fewest jobs under way; only the user of the partner who asked finds the job.

use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    Database, StoreError,
    sql::{Row, Value, composed},
};
use crate::domain::{Millis, PartnerId};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    Queued,
    Running,
    Completed,
    Failed,
    Expired,
}

impl JobState {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "queued" => Self::Queued,
            "running" => Self::Running,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "expired" => Self::Expired,
            _ => return None,
        })
    }
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub partner_id: PartnerId,
    /// Empty for the legacy issuer.
    pub issuer: String,
    pub sub: String,
}

/// One job; `request` is the portal's own.
#[derive(Clone, Debug)]
pub struct ExportJob<R> {
    pub id: Uuid,
    pub owner: Owner,
    pub request: R,
    pub state: JobState,
    /// How often it was begun.
    pub attempts: i64,
    /// Rows written; grows while the job runs.
    pub row_count: i64,
    pub file_name: Option<String>,
    /// In bytes.
    pub file_size: Option<i64>,
    /// Why it failed, for the one who asked.
    pub error: Option<String>,
    pub created_at: Millis,
    pub completed_at: Option<Millis>,
    pub expires_at: Millis,
}

/// The right to work on a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub job: Uuid,
    pub id: Uuid,
}

/// Whose job may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Anyones,
    /// Of partners none of whose jobs is worked on, by any process.
    Newcomers,
}

/// A file that is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedFile {
    pub name: String,
    pub bytes: u64,
    pub rows: u64,
}

/// All jobs.
#[derive(Clone, Debug)]
pub struct ExportJobs {
    db: Database,
}

const COLUMNS: &str = "id, partner_id, issuer, sub, request, state, attempts, row_count, file_name, file_size, error, \
     created_at, completed_at, expires_at";

fn read<R: DeserializeOwned>(row: &Row) -> Result<ExportJob<R>, StoreError> {
    let state = row.str("state")?;
    let damaged = |what: String| StoreError::Damaged { table: "export_jobs", what };
    Ok(ExportJob {
        id: row.id("id")?,
        owner: Owner {
            partner_id: PartnerId(row.id("partner_id")?),
            issuer: row.text("issuer")?,
            sub: row.text("sub")?,
        },
        request: row.json("request")?,
        state: JobState::parse(state).ok_or_else(|| damaged(format!("state `{state}`")))?,
        attempts: row.int("attempts")?,
        row_count: row.int("row_count")?,
        file_name: row.maybe_text("file_name")?,
        file_size: row.maybe_int("file_size")?,
        error: row.maybe_text("error")?,
        created_at: Millis(row.int("created_at")?),
        completed_at: row.maybe_int("completed_at")?.map(Millis),
        expires_at: Millis(row.int("expires_at")?),
    })
}

/// The job to be taken next at the time `$1`. Leases are counted once for all partners, and not for each job that waits.
fn next(whose: Whose) -> String {
    let newcomers = match whose {
        Whose::Anyones => "",
        Whose::Newcomers => "AND held.jobs IS NULL ",
    };
    format!(
        "SELECT job.id FROM export_jobs job LEFT JOIN (SELECT partner_id, count(*) AS jobs FROM export_jobs \
         WHERE state = 'running' AND lease_until > $1 GROUP BY partner_id) held ON held.partner_id = job.partner_id \
         WHERE job.state IN ('queued', 'running') AND (job.state = 'queued' OR job.lease_until <= $1) {newcomers}\
         ORDER BY coalesce(held.jobs, 0), job.created_at, job.id LIMIT 1"
    )
}

fn count(number: u64) -> Value<'static> {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

impl ExportJobs {
    pub fn new(db: &Database) -> Self {
        Self { db: db.clone() }
    }

    pub(super) fn database(&self) -> &Database {
        &self.db
    }

    /// Queues a job.
    pub async fn create<R: Serialize>(
        &self,
        id: Uuid,
        owner: &Owner,
        request: &R,
        now: Millis,
        expires_at: Millis,
    ) -> Result<(), StoreError> {
        let request = serde_json::to_value(request)
            .map_err(|error| StoreError::Damaged { table: "export_jobs", what: error.to_string() })?;
        self.write(
            "INSERT INTO export_jobs (id, partner_id, issuer, sub, request, state, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, 'queued', $6, $7)",
            &[
                id.into(),
                owner.partner_id.0.into(),
                owner.issuer.as_str().into(),
                owner.sub.as_str().into(),
                Value::Json(&request),
                now.0.into(),
                expires_at.0.into(),
            ],
        )
        .await
        .map(drop)
    }

    /// The owner's own job; `None` also where it is somebody else's.
    pub async fn of<R: DeserializeOwned>(&self, id: Uuid, owner: &Owner) -> Result<Option<ExportJob<R>>, StoreError> {
        let sql = composed(format!(
            "SELECT {COLUMNS} FROM export_jobs WHERE id = $1 AND partner_id = $2 AND issuer = $3 AND sub = $4"
        ));
        let values = [id.into(), owner.partner_id.0.into(), owner.issuer.as_str().into(), owner.sub.as_str().into()];
        let mut tx = self.db.begin_read().await?;
        tx.row(sql, &values).await?.as_ref().map(read).transpose()
    }

    /// How many jobs of this partner wait or run.
    pub async fn unfinished(&self, partner: PartnerId) -> Result<u64, StoreError> {
        let mut tx = self.db.begin_read().await?;
        let sql =
            "SELECT CAST(count(*) AS BIGINT) FROM export_jobs WHERE partner_id = $1 AND state IN ('queued', 'running')";
        let row = tx.row(sql, &[partner.0.into()]).await?;
        let found = row.map(|row| row.int(0)).transpose()?.unwrap_or_default();
        Ok(u64::try_from(found).unwrap_or_default())
    }

    /// Takes a job that waits, or whose lease ran out: of the partner with the fewest under way the oldest. Two workers
    /// never get the same one.
    pub async fn lease<R: DeserializeOwned>(
        &self,
        whose: Whose,
        now: Millis,
        until: Millis,
    ) -> Result<Option<(Lease, ExportJob<R>)>, StoreError> {
        // Looked for without the write lock first: most looks find nothing.
        if self.db.begin_read().await?.row(composed(next(whose)), &[now.0.into()]).await?.is_none() {
            return Ok(None);
        }
        let mut tx = self.db.begin_write().await?;
        let lock = if tx.conn().is_postgres() { " FOR UPDATE OF job SKIP LOCKED" } else { "" };
        let found = tx.row(composed(next(whose) + lock), &[now.0.into()]).await?;
        let Some(found) = found else { return Ok(None) };
        let lease = Lease { job: found.id("id")?, id: Uuid::now_v7() };
        let row = tx
            .row(
                composed(format!(
                    "UPDATE export_jobs SET state = 'running', attempts = attempts + 1, lease = $2, lease_until = $3, \
                     row_count = 0 WHERE id = $1 RETURNING {COLUMNS}"
                )),
                &[lease.job.into(), lease.id.into(), until.0.into()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        tx.commit().await?;
        match read(&row) {
            Ok(job) => Ok(Some((lease, job))),
            Err(error) => {
                // Never again: a row that cannot be read would be taken for ever.
                tracing::error!(export = %lease.job, %error, "an export cannot be read from the database");
                self.fail(lease, "the export could not be read", now).await?;
                Ok(None)
            }
        }
    }

    /// Keeps the lease and tells how far the job is. `false`: it is somebody else's by now.
    pub async fn renew(&self, lease: Lease, until: Millis, rows: u64) -> Result<bool, StoreError> {
        self.held(
            "UPDATE export_jobs SET lease_until = $3, row_count = $4 WHERE id = $1 AND lease = $2",
            lease,
            &[until.0.into(), count(rows)],
        )
        .await
    }

    /// Puts the job back, for whoever comes first.
    pub async fn give_back(&self, lease: Lease) -> Result<bool, StoreError> {
        self.held(
            "UPDATE export_jobs SET state = 'queued', lease = NULL, lease_until = NULL, row_count = 0, \
             attempts = attempts - 1 WHERE id = $1 AND lease = $2",
            lease,
            &[],
        )
        .await
    }

    pub async fn complete(&self, lease: Lease, file: &FinishedFile, now: Millis) -> Result<bool, StoreError> {
        self.held(
            "UPDATE export_jobs SET state = 'completed', lease = NULL, lease_until = NULL, file_name = $3, \
             file_size = $4, row_count = $5, completed_at = $6 WHERE id = $1 AND lease = $2",
            lease,
            &[file.name.as_str().into(), count(file.bytes), count(file.rows), now.0.into()],
        )
        .await
    }

    pub async fn fail(&self, lease: Lease, error: &str, now: Millis) -> Result<bool, StoreError> {
        self.held(
            "UPDATE export_jobs SET state = 'failed', lease = NULL, lease_until = NULL, error = $3, \
             completed_at = $4 WHERE id = $1 AND lease = $2",
            lease,
            &[error.into(), now.0.into()],
        )
        .await
    }

    async fn held(&self, sql: &'static str, lease: Lease, values: &[Value<'_>]) -> Result<bool, StoreError> {
        let mut all = vec![Value::Id(lease.job), Value::Id(lease.id)];
        all.extend_from_slice(values);
        Ok(self.write(sql, &all).await? == 1)
    }

    /// Marks jobs whose time is over, at most `most`, and gives the names of files that nobody may have any more. The
    /// names are given again until [`Self::file_removed`] is told.
    pub async fn expire(&self, now: Millis, most: i64) -> Result<Vec<(Uuid, Option<String>)>, StoreError> {
        let mut tx = self.db.begin_write().await?;
        let rows = tx
            .rows(
                "SELECT id, file_name FROM export_jobs WHERE expires_at <= $1 \
                 AND (state <> 'expired' OR file_name IS NOT NULL) ORDER BY expires_at LIMIT $2",
                &[now.0.into(), most.into()],
            )
            .await?;
        let mut expired = Vec::with_capacity(rows.len());
        for row in &rows {
            let id = row.id("id")?;
            tx.execute(
                "UPDATE export_jobs SET state = 'expired', lease = NULL, lease_until = NULL WHERE id = $1",
                &[id.into()],
            )
            .await?;
            expired.push((id, row.maybe_text("file_name")?));
        }
        tx.commit().await?;
        Ok(expired)
    }

    pub async fn file_removed(&self, id: Uuid) -> Result<(), StoreError> {
        self.write("UPDATE export_jobs SET file_name = NULL WHERE id = $1 AND state = 'expired'", &[id.into()])
            .await
            .map(drop)
    }

    /// Forgets expired jobs without files that expired before this; at most `most`.
    pub async fn forget(&self, before: Millis, most: i64) -> Result<u64, StoreError> {
        self.write(
            "DELETE FROM export_jobs WHERE id IN (SELECT id FROM export_jobs WHERE expires_at <= $1 \
             AND state = 'expired' AND file_name IS NULL ORDER BY expires_at LIMIT $2)",
            &[before.0.into(), most.into()],
        )
        .await
    }

    /// Whether a file of this name belongs to a job, or to the lease of one that runs.
    pub async fn knows_file(&self, lease: Lease, name: &str) -> Result<bool, StoreError> {
        let mut tx = self.db.begin_read().await?;
        let sql = "SELECT id FROM export_jobs WHERE id = $1 AND (lease = $2 OR file_name = $3)";
        Ok(tx.row(sql, &[lease.job.into(), lease.id.into(), name.into()]).await?.is_some())
    }

    async fn write(&self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        let mut tx = self.db.begin_write().await?;
        let changed = tx.execute(sql, values).await?;
        tx.commit().await?;
        Ok(changed)
    }
}
