//! Alerts as they are kept: what they say, how they are listed, and who looks at which link now.
//!
//! The life of an alert is written in `alert_life` (what a reading of the sources makes of it) and in
//! `admin::alerts` (acknowledging). Every row belongs to one link; whether that link may be seen is the caller's to know.

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Database, StoreError,
    records::tenant_id,
    sql::{Row, Value, composed},
};
use crate::{
    connector::rows::Severity,
    domain::{LinkId, Millis, PartnerId, TenantId},
};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident $text:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub(crate) fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text)
            }
        }
    )+};
}

words! {
    /// Which list an alert stands in.
    AlertKind { Sla "sla", Billing "billing" }
    /// Where an alert is in its life.
    AlertStatus { Active "active", Acknowledged "acknowledged", Resolved "resolved" }
}

/// One alert.
#[derive(Clone, Debug, Serialize)]
pub struct AlertRecord {
    pub alert_id: Uuid,
    pub partner_id: PartnerId,
    pub link_id: LinkId,
    pub tenant_id: TenantId,
    pub kind: AlertKind,
    pub alert_type: String,
    pub severity: Severity,
    pub title: String,
    pub message: String,
    pub dedup_key: String,
    /// It has an id of its own at its source, so the same one never comes twice.
    pub incident: bool,
    pub triggered_at: Millis,
    pub acknowledged_at: Option<Millis>,
    pub acknowledged_by: Option<String>,
    pub resolved_at: Option<Millis>,
    pub status: AlertStatus,
    /// A JSON object with exact numbers.
    pub metadata: Box<RawValue>,
}

pub(crate) const ALERT_COLUMNS: &str = "id, partner_id, link_id, tenant_id, kind, alert_type, severity, title, message, \
     dedup_key, incident, triggered_at, acknowledged_at, acknowledged_by, resolved_at, status, metadata";

impl AlertRecord {
    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        let damaged = |what: &str| StoreError::Damaged { table: "alerts", what: what.to_owned() };
        Ok(Self {
            alert_id: row.id("id")?,
            partner_id: PartnerId(row.id("partner_id")?),
            link_id: LinkId(row.id("link_id")?),
            tenant_id: tenant_id("alerts", row, "tenant_id")?,
            kind: AlertKind::parse(row.str("kind")?).ok_or_else(|| damaged("kind"))?,
            alert_type: row.text("alert_type")?,
            severity: Severity::parse(row.str("severity")?).ok_or_else(|| damaged("severity"))?,
            title: row.text("title")?,
            message: row.text("message")?,
            dedup_key: row.text("dedup_key")?,
            incident: row.flag("incident")?,
            triggered_at: Millis(row.int("triggered_at")?),
            acknowledged_at: row.maybe_int("acknowledged_at")?.map(Millis),
            acknowledged_by: row.maybe_text("acknowledged_by")?,
            resolved_at: row.maybe_int("resolved_at")?.map(Millis),
            status: AlertStatus::parse(row.str("status")?).ok_or_else(|| damaged("status"))?,
            metadata: RawValue::from_string(row.text("metadata")?).map_err(|_| damaged("metadata"))?,
        })
    }

    pub fn is_live(&self) -> bool {
        self.status != AlertStatus::Resolved
    }
}

/// What of an alert decides whether and where it stands in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertKey {
    pub triggered_at: Millis,
    pub tenant_id: TenantId,
    pub alert_id: Uuid,
    pub link_id: LinkId,
    pub status: AlertStatus,
}

/// Which alerts of a partner.
#[derive(Clone, Debug)]
pub struct AlertFilter {
    pub partner_id: PartnerId,
    pub kind: AlertKind,
    /// Triggered since then. `None`: still live, or so at any time since `default_since`.
    pub since: Option<Millis>,
    pub default_since: Millis,
    /// Empty: any.
    pub severity: Vec<Severity>,
}

/// How a link stands with its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluationState {
    pub link_id: LinkId,
    /// The newest reading that was complete.
    pub read_at: Option<Millis>,
    /// The reading after it failed.
    pub failed: bool,
}

/// A link that is to be looked at, and is ours to look at until the lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueLink {
    pub link_id: LinkId,
    pub partner_id: PartnerId,
    pub tenant_id: TenantId,
    pub kind: AlertKind,
}

/// The alerts' side of the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct AlertStore {
    pub(super) db: Database,
}

/// Most keys of one list.
pub const MOST_LISTED: usize = 50_000;

impl AlertStore {
    pub fn new(db: &Database) -> Self {
        Self { db: db.clone() }
    }

    pub(super) fn database(&self) -> &Database {
        &self.db
    }

    /// Newest first, ties by tenant and id; at most [`MOST_LISTED`].
    pub async fn keys(&self, filter: &AlertFilter) -> Result<Vec<AlertKey>, StoreError> {
        let severities: Vec<String> =
            filter.severity.iter().map(|severity| format!("'{}'", severity.as_str())).collect();
        let severity = match severities.is_empty() {
            true => String::new(),
            false => format!(" AND severity IN ({})", severities.join(", ")),
        };
        let (since, or_live) = match filter.since {
            Some(since) => (since, ""),
            None => (filter.default_since, " OR status <> 'resolved' OR resolved_at >= $3"),
        };
        let sql = format!(
            "SELECT id, link_id, status, triggered_at, tenant_id FROM alerts WHERE partner_id = $1 AND kind = $2 \
             AND (triggered_at >= $3{or_live}){severity} ORDER BY triggered_at DESC, tenant_id, id LIMIT {MOST_LISTED}"
        );
        let values = [filter.partner_id.0.into(), filter.kind.as_str().into(), Value::Int(since.0)];
        let rows = self.db.begin_read().await?.rows(composed(sql), &values).await?;
        let mut keys = rows
            .iter()
            .map(|row| {
                let status = AlertStatus::parse(row.str(2)?)
                    .ok_or_else(|| StoreError::Damaged { table: "alerts", what: "status".to_owned() })?;
                Ok(AlertKey {
                    triggered_at: Millis(row.int(3)?),
                    tenant_id: tenant_id("alerts", row, "tenant_id")?,
                    alert_id: row.id(0)?,
                    link_id: LinkId(row.id(1)?),
                    status,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        // Byte by byte, whatever the database's own order of texts is.
        keys.sort_by(|one, other| {
            let newest = other.triggered_at.cmp(&one.triggered_at);
            newest.then_with(|| (&one.tenant_id, one.alert_id).cmp(&(&other.tenant_id, other.alert_id)))
        });
        Ok(keys)
    }

    /// The rows of these ids, in their order; what was pruned meanwhile is left out.
    pub async fn alerts(&self, ids: &[Uuid]) -> Result<Vec<AlertRecord>, StoreError> {
        let sql = format!("SELECT {ALERT_COLUMNS} FROM alerts WHERE id = $1");
        let mut tx = self.db.begin_read().await?;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(row) = tx.row(composed(sql.as_str()), &[(*id).into()]).await? {
                found.push(AlertRecord::read(&row)?);
            }
        }
        Ok(found)
    }

    pub async fn alert(&self, id: Uuid) -> Result<Option<AlertRecord>, StoreError> {
        Ok(self.alerts(&[id]).await?.pop())
    }

    /// Every link of the partner that was ever looked at.
    pub async fn evaluations(&self, partner: PartnerId, kind: AlertKind) -> Result<Vec<EvaluationState>, StoreError> {
        let sql = "SELECT link_id, read_at, last_error IS NOT NULL FROM alert_evaluations \
             WHERE partner_id = $1 AND kind = $2";
        let rows = self.db.begin_read().await?.rows(sql, &[partner.0.into(), kind.as_str().into()]).await?;
        rows.iter()
            .map(|row| {
                let (link_id, read_at) = (LinkId(row.id(0)?), row.maybe_int(1)?.map(Millis));
                Ok(EvaluationState { link_id, read_at, failed: row.flag(2)? })
            })
            .collect()
    }

    /// Links with a live alert of this kind: they are looked at even where nothing can trigger any more.
    pub async fn links_with_live_alerts(&self, partner: PartnerId, kind: AlertKind) -> Result<Vec<LinkId>, StoreError> {
        let sql = "SELECT DISTINCT link_id FROM alerts WHERE partner_id = $1 AND kind = $2 AND status <> 'resolved'";
        let rows = self.db.begin_read().await?.rows(sql, &[partner.0.into(), kind.as_str().into()]).await?;
        rows.iter().map(|row| Ok(LinkId(row.id(0)?))).collect()
    }

    /// Puts links that want to be looked at on the schedule, if they are not on it yet; at most so many. How many.
    pub async fn enrol(&self, now: Millis, most: usize) -> Result<usize, StoreError> {
        let wanted = |kind: &str, wants: &str| {
            format!(
                "SELECT l.id, l.partner_id, '{kind}' AS kind FROM partner_tenant_links l WHERE l.is_active \
                 AND l.approval = 'approved' AND {wants} AND NOT EXISTS \
                 (SELECT 1 FROM alert_evaluations e WHERE e.link_id = l.id AND e.kind = '{kind}')"
            )
        };
        let sql = format!(
            "{} UNION ALL {} LIMIT $1",
            wanted("billing", "l.notify_on_billing_threshold AND l.billing_alert_threshold IS NOT NULL"),
            wanted("sla", "l.notify_on_sla_breach"),
        );
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        // Looked for without a write: nearly always there is none.
        let rows = self.db.begin_read().await?.rows(composed(sql), &[most.into()]).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let mut tx = self.db.begin_write().await?;
        for row in &rows {
            let sql = "INSERT INTO alert_evaluations (link_id, kind, partner_id, due_at) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (link_id, kind) DO NOTHING";
            tx.execute(sql, &[row.id(0)?.into(), row.str(2)?.into(), row.id(1)?.into(), now.0.into()]).await?;
        }
        tx.commit().await?;
        Ok(rows.len())
    }

    /// Takes links whose time has come, each for one replica at a time. Whether a link is live is not asked here.
    pub async fn lease_due(
        &self,
        owner: &str,
        now: Millis,
        until: Millis,
        most: usize,
    ) -> Result<Vec<DueLink>, StoreError> {
        let sql = "SELECT e.link_id, e.partner_id, l.managed_tenant_id, e.kind FROM alert_evaluations e \
             JOIN partner_tenant_links l ON l.id = e.link_id \
             WHERE e.due_at <= $1 AND (e.leased_until IS NULL OR e.leased_until <= $1) \
             ORDER BY e.due_at, e.link_id, e.kind LIMIT $2";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = self.db.begin_read().await?.rows(sql, &[now.0.into(), most.into()]).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut due = rows
            .iter()
            .map(|row| {
                Ok(DueLink {
                    link_id: LinkId(row.id(0)?),
                    partner_id: PartnerId(row.id(1)?),
                    tenant_id: tenant_id("partner_tenant_links", row, "managed_tenant_id")?,
                    kind: AlertKind::parse(row.str(3)?)
                        .ok_or_else(|| StoreError::Damaged { table: "alert_evaluations", what: "kind".to_owned() })?,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        // In one order everywhere, so that two replicas never wait for each other.
        due.sort_by_key(|link| (link.link_id, link.kind));
        let mut leased = Vec::with_capacity(due.len());
        let mut tx = self.db.begin_write().await?;
        for link in due {
            // Another replica may have been faster.
            let sql = "UPDATE alert_evaluations SET leased_until = $3, lease_owner = $4 \
                 WHERE link_id = $1 AND kind = $2 AND due_at <= $5 AND (leased_until IS NULL OR leased_until <= $5)";
            let values = [link.link_id.0.into(), link.kind.as_str().into(), until.0.into(), owner.into(), now.0.into()];
            if tx.execute(sql, &values).await? == 1 {
                leased.push(link);
            }
        }
        tx.commit().await?;
        Ok(leased)
    }

    /// Gives a lease back without a result: the link is no longer live, or its data cannot be had.
    pub async fn release(&self, owner: &str, link: LinkId, kind: AlertKind, due: Millis) -> Result<(), StoreError> {
        let mut tx = self.db.begin_write().await?;
        let sql = "UPDATE alert_evaluations SET leased_until = NULL, lease_owner = NULL, due_at = $4 \
             WHERE link_id = $1 AND kind = $2 AND lease_owner = $3";
        tx.execute(sql, &[link.0.into(), kind.as_str().into(), owner.into(), due.0.into()]).await?;
        Ok(tx.commit().await?)
    }

    /// Forgets alerts that were resolved before this, and resolves those of links that gave no access for a day: nobody
    /// looks at such a link, so nothing else would.
    pub async fn prune(&self, now: Millis, before: Millis) -> Result<u64, StoreError> {
        let mut tx = self.db.begin_write().await?;
        let sql = "UPDATE alerts SET status = 'resolved', resolved_at = $1 WHERE status <> 'resolved' AND link_id IN \
             (SELECT id FROM partner_tenant_links WHERE (NOT is_active AND updated_at < $2) OR end_date < $2)";
        tx.execute(sql, &[now.0.into(), now.0.saturating_sub(86_400_000).into()]).await?;
        let gone = tx.execute("DELETE FROM alerts WHERE resolved_at < $1", &[before.0.into()]).await?;
        tx.commit().await?;
        Ok(gone)
    }
}
