//! What the database holds, counted now and then: gauges that are the same at every replica.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use prometheus::{Gauge, IntGauge, IntGaugeVec};

use super::registering::Registering;
use crate::{
    connector::rows::Severity,
    domain::Millis,
    store::{AlertKind, AlertStatus, Census, SuspensionScope},
};

#[derive(Debug)]
pub(super) struct DatabaseGauges {
    alerts: IntGaugeVec,
    overdue: Gauge,
    waiting_deliveries: IntGauge,
    oldest_delivery: Gauge,
    waiting_exports: IntGaugeVec,
    oldest_export: Gauge,
    suspensions: IntGaugeVec,
    counts_age: Gauge,
    /// When the database was counted last; the start, before it ever was.
    counted: Mutex<Instant>,
}

impl DatabaseGauges {
    /// Registers everything; all series are there, at zero.
    pub(super) fn register(new: &Registering<'_>) -> Result<Self, prometheus::Error> {
        let gauges = Self {
            alerts: new.gauges(
                "linkgate_alerts",
                "Alerts that are not resolved, in the database",
                &["kind", "severity", "status"],
            )?,
            overdue: new.gauge(
                "linkgate_alert_evaluation_overdue_seconds",
                "How long ago the look was due that is overdue longest; 0: none is",
            )?,
            waiting_deliveries: new.int_gauge(
                "linkgate_webhook_queue_deliveries",
                "Webhook deliveries that are not yet delivered, dropped or dead, in the database",
            )?,
            oldest_delivery: new.gauge(
                "linkgate_webhook_queue_oldest_seconds",
                "Age of the oldest delivery in the queue; 0: it is empty",
            )?,
            waiting_exports: new.gauges(
                "linkgate_export_jobs",
                "Exports that wait or are worked on, in the database",
                &["state"],
            )?,
            oldest_export: new.gauge(
                "linkgate_export_jobs_oldest_seconds",
                "Age of the oldest export that is not finished; 0: all are",
            )?,
            suspensions: new.gauges(
                "linkgate_suspensions",
                "Emergency suspensions in force, in the database, by what they cover",
                &["scope"],
            )?,
            counts_age: new.gauge(
                "linkgate_database_counts_age_seconds",
                "How long ago alerts, deliveries, exports and suspensions were counted in the database",
            )?,
            counted: Mutex::new(Instant::now()),
        };
        gauges.set(&Census::default(), Millis(0));
        Ok(gauges)
    }

    pub(super) fn count(&self, census: &Census, now: Millis) {
        self.set(census, now);
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Before the metrics are written.
    pub(super) fn refresh(&self) {
        let counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        self.counts_age.set(counted.elapsed().as_secs_f64());
    }

    fn set(&self, census: &Census, now: Millis) {
        for kind in AlertKind::ALL {
            for severity in Severity::ALL {
                for status in [AlertStatus::Active, AlertStatus::Acknowledged] {
                    let count = census.alerts.get(&(*kind, *severity, status)).copied().unwrap_or(0);
                    let labels = [kind.as_str(), severity.as_str(), status.as_str()];
                    self.alerts.with_label_values(&labels).set(count);
                }
            }
        }
        // Clocks of replicas differ: what is in the future is no age.
        let age = |since: Option<Millis>| since.map_or(0.0, |at| now.0.saturating_sub(at.0).max(0) as f64 / 1_000.0);
        self.overdue.set(age(census.evaluation_due));
        self.waiting_deliveries.set(census.deliveries);
        self.oldest_delivery.set(age(census.oldest_delivery));
        self.waiting_exports.with_label_values(&["queued"]).set(census.exports_queued);
        self.waiting_exports.with_label_values(&["running"]).set(census.exports_running);
        self.oldest_export.set(age(census.oldest_export));
        for scope in SuspensionScope::ALL.map(SuspensionScope::as_str) {
            self.suspensions.with_label_values(&[scope]).set(census.suspensions.get(scope).copied().unwrap_or(0));
        }
    }
}
