//! Acknowledging an alert: a person's act, so it goes the way of all changes, with its audit record.

use uuid::Uuid;

use super::{Actor, Admin, Written, parties::json, unchanged};
use crate::{
    audit::{ChangeRecord, Kind},
    domain::{PartnerId, link_rules::Refusal},
    store::{
        StoreError,
        alerts::{ALERT_COLUMNS, AlertKind, AlertRecord, AlertStatus},
        sql::{Value, composed},
    },
};

impl Admin {
    /// Acknowledges a live alert of the partner's. Done again it changes nothing; a resolved one is a conflict.
    pub async fn acknowledge_alert(
        &self,
        actor: &Actor,
        partner: PartnerId,
        kind: AlertKind,
        id: Uuid,
    ) -> Result<Written<AlertRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        // An evaluation may resolve the alert at the same time: the row decides.
        let sql = format!(
            "UPDATE alerts SET status = 'acknowledged', acknowledged_at = $4, acknowledged_by = $5 \
             WHERE id = $1 AND partner_id = $2 AND kind = $3 AND status = 'active' RETURNING {ALERT_COLUMNS}"
        );
        let key = [id.into(), partner.0.into(), kind.as_str().into()];
        let mut values = key.to_vec();
        values.extend([Value::Int(session.now.0), Value::Text(&actor.name)]);
        let Some(row) = session.tx.row(composed(sql), &values).await? else {
            let sql = format!("SELECT {ALERT_COLUMNS} FROM alerts WHERE id = $1 AND partner_id = $2 AND kind = $3");
            let row = session.tx.row(composed(sql), &key).await?;
            let alert = AlertRecord::read(&row.ok_or_else(|| StoreError::not_found("alert", id))?)?;
            return match alert.status {
                AlertStatus::Resolved => Err(Refusal::conflict("the alert is resolved already").into()),
                AlertStatus::Acknowledged => Ok(unchanged(alert)),
                // It came back between the two statements.
                AlertStatus::Active => Err(Refusal::conflict("the alert changes just now: try again").into()),
            };
        };
        let alert = AlertRecord::read(&row)?;
        let record = ChangeRecord {
            partner_id: Some(partner),
            resource_type: Some("alert".to_owned()),
            resource_id: Some(id.to_string()),
            managed_tenant_id: Some(alert.tenant_id.to_string()),
            link_id: Some(alert.link_id),
            after: Some(json(&alert)),
            ..session.record(Kind::Admin, "alert.acknowledge")
        };
        session.enqueue(&record).await?;
        session.commit(alert).await
    }
}
