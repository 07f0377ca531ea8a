//! What metrics say of the audit: the journal itself, and how far each of those is that read it behind the requests.

use std::sync::Arc;

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

use super::kept::KeptProgress;
use crate::audit::{
    Journal, evidence::signer::CheckpointProgress, indexer::IndexProgress, retention::RetentionProgress,
    ship::ShipProgress,
};

/// How far the readers of the journal are.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) indexed: Arc<IndexProgress>,
    /// `None`: no key signs checkpoints.
    pub(super) signed: Option<Arc<CheckpointProgress>>,
    /// Each target of `[audit.ship]`.
    pub(super) shipped: Vec<Arc<ShipProgress>>,
    /// `None`: nothing goes by itself.
    pub(super) retention: Option<Arc<RetentionProgress>>,
    /// `None`: the journal is not kept in the database.
    pub(super) kept: Option<Arc<KeptProgress>>,
}

/// Gauges that are set when somebody looks.
pub(super) struct AuditGauges {
    progress: Progress,
    healthy: IntGauge,
    last_seq: IntGauge,
    owed: IntGauge,
    unindexed: IntGauge,
    open: IntGauge,
    unsigned: IntGauge,
    unshipped: IntGaugeVec,
    stuck: IntGaugeVec,
    overdue: IntGauge,
    set_aside: IntGauge,
}

impl AuditGauges {
    pub(super) fn register(progress: Progress, registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let by_target = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["target"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        Ok(Self {
            progress,
            healthy: gauge("linkgate_audit_healthy", "1 while the audit journal takes records")?,
            last_seq: gauge("linkgate_audit_last_seq", "Last sequence number of the audit chain")?,
            owed: gauge("linkgate_audit_owed_bytes", "Bytes of audit records not yet written")?,
            unindexed: gauge("linkgate_audit_unindexed_lines", "Lines of the audit chain that the index has not seen")?,
            open: gauge("linkgate_audit_open_records", "Audit records opened and not completed")?,
            unsigned: gauge("linkgate_audit_unsigned_lines", "Lines of the audit chain that no checkpoint covers yet")?,
            unshipped: by_target(
                "linkgate_audit_ship_lag_lines",
                "Lines of the audit chain that a target does not have yet",
            )?,
            stuck: by_target("linkgate_audit_ship_stuck", "1 while a target of the audit journal takes nothing")?,
            overdue: gauge(
                "linkgate_audit_retention_overdue_seconds",
                "For how long the oldest audit records should have been gone",
            )?,
            set_aside: gauge(
                "linkgate_audit_journals_set_aside",
                "Audit journals in the database that cannot be put together and were set aside",
            )?,
        })
    }

    pub(super) fn refresh(&self, journal: &Journal) {
        let status = journal.status();
        let Progress { indexed, signed, shipped, retention, kept } = &self.progress;
        self.healthy.set(i64::from(status.trouble.is_none()));
        self.last_seq.set(number(status.last_seq));
        self.owed.set(i64::try_from(status.owed_bytes).unwrap_or(i64::MAX));
        self.unindexed.set(number(indexed.lag(journal)));
        self.open.set(i64::try_from(status.open_records).unwrap_or(i64::MAX));
        let covered = signed.as_ref().map_or(0, |signed| signed.signed_seq());
        self.unsigned.set(number(status.last_seq.saturating_sub(covered)));
        self.overdue.set(number(retention.as_ref().map_or(0, |retention| retention.overdue_seconds())));
        self.set_aside.set(number(kept.as_ref().map_or(0, |kept| kept.set_aside())));
        for target in shipped {
            self.unshipped.with_label_values(&[target.target()]).set(number(target.lag(journal)));
            self.stuck.with_label_values(&[target.target()]).set(i64::from(target.is_stuck()));
        }
    }
}

fn number(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
