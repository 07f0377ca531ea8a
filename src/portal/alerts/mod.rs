//! Alerts of managed tenants: billing thresholds, uptime targets, breaches that services report.
//!
//! Reading order: [`rules`] what is wrong and how much (pure), [`evaluate`] one link asked of its sources, [`watch`] the
//! same in the background, [`list`] and [`acknowledge`] the endpoints. The life of an alert is the store's.

mod acknowledge;
mod evaluate;
pub(super) mod list;
mod rules;
mod watch;

pub(super) use acknowledge::prepare as prepare_acknowledge;
pub(super) use list::prepare as prepare_list;
pub use watch::Watcher;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::call::Problem;
use crate::{
    connector::rows::Severity,
    domain::{ErrorCode, Millis, TenantId},
    store::{AlertKind, AlertRecord, AlertStatus, StoreError},
};

/// One alert as a partner sees it (contract, section 8, fields of 12 and 13).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Alert")]
pub(in crate::portal) struct AlertView<'a> {
    alert_id: Uuid,
    tenant_id: &'a TenantId,
    tenant_name: Option<&'a str>,
    alert_type: &'a str,
    severity: Severity,
    title: &'a str,
    message: &'a str,
    triggered_at: Option<jiff::Timestamp>,
    acknowledged_at: Option<jiff::Timestamp>,
    resolved_at: Option<jiff::Timestamp>,
    status: AlertStatus,
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    metadata: &'a RawValue,
}

impl<'a> AlertView<'a> {
    fn of(alert: &'a AlertRecord, tenant_name: Option<&'a str>) -> Self {
        let time = |at: Option<Millis>| at.and_then(Millis::timestamp);
        Self {
            alert_id: alert.alert_id,
            tenant_id: &alert.tenant_id,
            tenant_name,
            alert_type: &alert.alert_type,
            severity: alert.severity,
            title: &alert.title,
            message: &alert.message,
            triggered_at: time(Some(alert.triggered_at)),
            acknowledged_at: time(alert.acknowledged_at),
            resolved_at: time(alert.resolved_at),
            status: alert.status,
            metadata: &alert.metadata,
        }
    }
}

/// What a link must grant for its alerts of this kind to be looked for at all.
fn permission(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Sla => "partner.alerts.sla.read",
        AlertKind::Billing => "partner.alerts.billing.read",
    }
}

/// The database failed; nothing can be answered without it.
fn unavailable(error: &StoreError) -> Problem {
    tracing::error!(%error, source = ?std::error::Error::source(error), "alerts cannot be read or written");
    match error {
        StoreError::Unavailable(_) => {
            Problem::new(ErrorCode::UpstreamUnavailable, "the gateway's database does not answer: try again later")
        }
        _ => Problem::new(ErrorCode::InternalError, ""),
    }
}
