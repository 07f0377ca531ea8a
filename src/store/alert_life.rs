//! What a reading of the sources makes of a link's alerts: new ones, changed ones, resolved ones.
//!
//! Invariants: readings of one link and kind take turns on its row of `alert_evaluations`, and an older reading never
//! overwrites a newer one; an alert that becomes active is told in the same transaction; an alert that a person
//! acknowledged stays so until it is resolved or becomes worse.

use std::collections::HashMap;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    StoreError,
    alerts::{ALERT_COLUMNS, AlertKind, AlertRecord, AlertStatus, AlertStore},
    events::{NewEvent, queue},
    sql::{Tx, Value, composed},
};
use crate::{
    connector::rows::Severity,
    domain::{About, EventType, LinkId, Millis, PartnerId, TenantId},
};

/// Something that is, or was, wrong with a tenant.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Unique among the partner's live alerts; for an incident among all.
    pub dedup_key: String,
    pub alert_type: &'static str,
    pub severity: Severity,
    pub title: String,
    pub message: String,
    pub since: Millis,
    /// `None`: still so.
    pub resolved_at: Option<Millis>,
    /// It has an id of its own at its source.
    pub incident: bool,
    /// A JSON object.
    pub metadata: Box<RawValue>,
}

/// One reading of one link.
#[derive(Clone, Debug)]
pub struct Evaluation {
    pub partner_id: PartnerId,
    pub link_id: LinkId,
    pub tenant_id: TenantId,
    pub kind: AlertKind,
    /// When the reading began.
    pub read_at: Millis,
    pub findings: Vec<Finding>,
    /// Types of which every live one is among the findings: what is not among them is over.
    pub exhaustive: Vec<&'static str>,
    /// Why the reading is not complete, if it is not.
    pub error: Option<String>,
    /// When the link is to be looked at again.
    pub due_at: Millis,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Alerts that became active, again or for the first time, or became worse.
    pub activated: usize,
    pub resolved: usize,
}

impl AlertStore {
    /// Writes readings, in one transaction.
    pub async fn apply(&self, mut readings: Vec<Evaluation>) -> Result<Applied, StoreError> {
        let mut applied = Applied::default();
        if readings.is_empty() {
            return Ok(applied);
        }
        // In one order everywhere, so that two replicas never wait for each other.
        readings.sort_by_key(|reading| (reading.link_id, reading.kind));
        let mut tx = self.db.begin_write().await?;
        for reading in &readings {
            if take_turn(&mut tx, reading).await? {
                let one = reconcile(&mut tx, reading).await?;
                applied.activated += one.activated;
                applied.resolved += one.resolved;
            }
        }
        tx.commit().await?;
        Ok(applied)
    }
}

/// Locks the link's row until the commit; false where a newer reading was written before.
async fn take_turn(tx: &mut Tx, reading: &Evaluation) -> Result<bool, StoreError> {
    let sql = "INSERT INTO alert_evaluations (link_id, kind, partner_id, read_at, due_at, last_error) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (link_id, kind) DO UPDATE \
         SET read_at = coalesce(excluded.read_at, alert_evaluations.read_at), due_at = excluded.due_at, \
         last_error = excluded.last_error, leased_until = NULL, lease_owner = NULL \
         WHERE alert_evaluations.read_at IS NULL OR alert_evaluations.read_at <= $7";
    let complete = reading.error.is_none().then_some(reading.read_at.0);
    let values = [
        reading.link_id.0.into(),
        reading.kind.as_str().into(),
        reading.partner_id.0.into(),
        Value::MaybeInt(complete),
        reading.due_at.0.into(),
        Value::MaybeText(reading.error.as_deref()),
        reading.read_at.0.into(),
    ];
    Ok(tx.execute(sql, &values).await? == 1)
}

async fn reconcile(tx: &mut Tx, reading: &Evaluation) -> Result<Applied, StoreError> {
    let sql = composed(format!(
        "SELECT {ALERT_COLUMNS} FROM alerts WHERE link_id = $1 AND kind = $2 AND (status <> 'resolved' OR incident)"
    ));
    let rows = tx.rows(sql, &[reading.link_id.0.into(), reading.kind.as_str().into()]).await?;
    let mut known: HashMap<String, AlertRecord> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let alert = AlertRecord::read(row)?;
        known.insert(alert.dedup_key.clone(), alert);
    }
    let mut applied = Applied::default();
    for finding in &reading.findings {
        let activated = match (known.remove(&finding.dedup_key), finding.resolved_at) {
            (None, None) => insert(tx, reading, finding).await?,
            // Never seen while it lasted; only an incident is told apart from later ones, so only it is kept.
            (None, Some(_)) if finding.incident => {
                insert(tx, reading, finding).await?;
                None
            }
            (None, Some(_)) => None,
            (Some(alert), None) => renew(tx, &alert, finding).await?,
            (Some(alert), Some(at)) => {
                applied.resolved += resolve(tx, &alert, at).await?;
                None
            }
        };
        if let Some(alert) = activated {
            applied.activated += 1;
            tell(tx, reading, finding, alert).await?;
        }
    }
    let over =
        known.values().filter(|alert| alert.is_live() && reading.exhaustive.contains(&alert.alert_type.as_str()));
    for alert in over {
        applied.resolved += resolve(tx, alert, reading.read_at).await?;
    }
    Ok(applied)
}

/// `None`: somebody else wrote the same alert meanwhile.
async fn insert(tx: &mut Tx, reading: &Evaluation, finding: &Finding) -> Result<Option<Uuid>, StoreError> {
    let id = Uuid::now_v7();
    let status = if finding.resolved_at.is_some() { AlertStatus::Resolved } else { AlertStatus::Active };
    let sql = "INSERT INTO alerts (id, partner_id, link_id, tenant_id, kind, alert_type, severity, title, message, \
         dedup_key, incident, triggered_at, resolved_at, status, metadata) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT DO NOTHING";
    let values = [
        id.into(),
        reading.partner_id.0.into(),
        reading.link_id.0.into(),
        reading.tenant_id.as_str().into(),
        reading.kind.as_str().into(),
        finding.alert_type.into(),
        finding.severity.as_str().into(),
        finding.title.as_str().into(),
        finding.message.as_str().into(),
        finding.dedup_key.as_str().into(),
        finding.incident.into(),
        finding.since.0.into(),
        Value::MaybeInt(finding.resolved_at.map(|at| at.0)),
        status.as_str().into(),
        finding.metadata.get().into(),
    ];
    Ok((tx.execute(sql, &values).await? == 1).then_some(id))
}

/// Brings a known alert up to date; `Some` where it becomes active by that.
async fn renew(tx: &mut Tx, alert: &AlertRecord, finding: &Finding) -> Result<Option<Uuid>, StoreError> {
    let same = alert.severity == finding.severity
        && alert.title == finding.title
        && alert.message == finding.message
        && alert.metadata.get() == finding.metadata.get();
    // `Critical` is the least of its order. Who acknowledged a warning has not seen the critical state.
    let again = !alert.is_live() || finding.severity < alert.severity;
    if same && !again {
        return Ok(None);
    }
    let reset = if again {
        ", status = 'active', resolved_at = NULL, acknowledged_at = NULL, acknowledged_by = NULL"
    } else {
        ""
    };
    let sql = format!("UPDATE alerts SET severity = $2, title = $3, message = $4, metadata = $5{reset} WHERE id = $1");
    let values = [
        alert.alert_id.into(),
        finding.severity.as_str().into(),
        finding.title.as_str().into(),
        finding.message.as_str().into(),
        finding.metadata.get().into(),
    ];
    tx.execute(composed(sql), &values).await?;
    Ok(again.then_some(alert.alert_id))
}

async fn resolve(tx: &mut Tx, alert: &AlertRecord, at: Millis) -> Result<usize, StoreError> {
    let at = at.max(alert.triggered_at);
    let sql = "UPDATE alerts SET status = 'resolved', resolved_at = $2 WHERE id = $1 AND status <> 'resolved'";
    let resolved = tx.execute(sql, &[alert.alert_id.into(), at.0.into()]).await?;
    Ok(usize::try_from(resolved).unwrap_or_default())
}

async fn tell(tx: &mut Tx, reading: &Evaluation, finding: &Finding, alert: Uuid) -> Result<(), StoreError> {
    let event = match reading.kind {
        AlertKind::Sla => EventType::SlaBreach,
        AlertKind::Billing => EventType::BillingThreshold,
    };
    let link = (reading.partner_id, reading.link_id, &reading.tenant_id);
    let event = NewEvent::new(event, About::Tenant, link, reading.read_at)
        .with("alert_id", &alert)?
        .with("alert_type", &finding.alert_type)?
        .with("severity", &finding.severity)?
        .with("title", &finding.title)?
        .with("message", &finding.message)?
        .with("triggered_at", &finding.since)?
        .with("metadata", &finding.metadata)?;
    queue(tx, event).await?;
    Ok(())
}
