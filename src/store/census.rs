//! How much waits in the database, for metrics: alerts, evaluations, deliveries, exports; and which suspensions are in force.
//!
//! Every question is answered from an index over what is not finished, so that what was finished long ago costs nothing.

use std::collections::BTreeMap;

use super::{
    AlertKind, AlertStatus, Database, StoreError, SuspensionScope,
    sql::{Row, Tx},
};
use crate::{connector::rows::Severity, domain::Millis};

/// Counts as of one moment, over all partners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Alerts that are not resolved.
    pub alerts: BTreeMap<(AlertKind, Severity, AlertStatus), i64>,
    /// When the next look at a link is due: in the past where looks are late. `None`: no link is looked at.
    pub evaluation_due: Option<Millis>,
    pub deliveries: i64,
    pub oldest_delivery: Option<Millis>,
    pub exports_queued: i64,
    pub exports_running: i64,
    pub oldest_export: Option<Millis>,
    /// Emergency suspensions in force, by what they cover.
    pub suspensions: BTreeMap<&'static str, i64>,
}

impl Census {
    /// Counts, in one snapshot.
    pub async fn take(db: &Database) -> Result<Self, StoreError> {
        let mut tx = db.begin_read().await?;
        let mut census = Self { alerts: alerts(&mut tx).await?, ..Self::default() };
        let time = |row: &Row, name: &str| row.maybe_int(name).map(|at| at.map(Millis));
        if let Some(row) = tx.row("SELECT min(due_at) AS due FROM alert_evaluations", &[]).await? {
            census.evaluation_due = time(&row, "due")?;
        }
        let sql = "SELECT CAST(count(*) AS BIGINT) AS waiting, min(created_at) AS oldest FROM webhook_deliveries \
             WHERE status = 'pending'";
        if let Some(row) = tx.row(sql, &[]).await? {
            census.deliveries = row.int("waiting")?;
            census.oldest_delivery = time(&row, "oldest")?;
        }
        let sql = "SELECT state, CAST(count(*) AS BIGINT) AS waiting, min(created_at) AS oldest FROM export_jobs \
             WHERE state IN ('queued', 'running') GROUP BY state";
        for row in tx.rows(sql, &[]).await? {
            let waiting = row.int("waiting")?;
            match row.str("state")? {
                "queued" => census.exports_queued = waiting,
                _ => census.exports_running = waiting,
            }
            let oldest = time(&row, "oldest")?;
            census.oldest_export = [census.oldest_export, oldest].into_iter().flatten().min();
        }
        let sql = "SELECT scope, CAST(count(*) AS BIGINT) AS standing FROM suspensions \
             WHERE lifted_at IS NULL GROUP BY scope";
        for row in tx.rows(sql, &[]).await? {
            let scope = SuspensionScope::parse(row.str("scope")?)
                .ok_or_else(|| StoreError::Damaged { table: "suspensions", what: "scope".to_owned() })?;
            census.suspensions.insert(scope.as_str(), row.int("standing")?);
        }
        Ok(census)
    }
}

async fn alerts(tx: &mut Tx) -> Result<BTreeMap<(AlertKind, Severity, AlertStatus), i64>, StoreError> {
    let sql = "SELECT kind, severity, status, CAST(count(*) AS BIGINT) AS alerts FROM alerts \
         WHERE status <> 'resolved' GROUP BY kind, severity, status";
    let damaged = |what: &str| StoreError::Damaged { table: "alerts", what: what.to_owned() };
    let mut counts = BTreeMap::new();
    for row in tx.rows(sql, &[]).await? {
        let kind = AlertKind::parse(row.str("kind")?).ok_or_else(|| damaged("kind"))?;
        let severity = Severity::parse(row.str("severity")?).ok_or_else(|| damaged("severity"))?;
        let status = AlertStatus::parse(row.str("status")?).ok_or_else(|| damaged("status"))?;
        counts.insert((kind, severity, status), row.int("alerts")?);
    }
    Ok(counts)
}
