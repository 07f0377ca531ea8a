//! The queue of webhook deliveries: what is due, whose turn it is, and how each try ended.
//!
//! At least once: a delivery that was claimed and not finished, because its process died, is claimed again when its
//! lease ends. Only the holder of the lease may write how a try ended. Order is not promised.

use serde::Serialize;
use uuid::Uuid;

use super::{
    Database, StoreError,
    records::tenant_id,
    sql::{Row, Value, composed},
};
use crate::domain::{About, EventType, LinkId, Millis, PartnerId, TenantId};

/// A dead letter that is sent once more on its last day gets its tries before it counts as waiting for too long.
const REDELIVERY_MS: i64 = 3 * 86_400_000;

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    Pending,
    Delivered,
    /// Tried for the last time.
    Dead,
    /// Not sent: the link no longer allows it.
    Dropped,
}

impl DeliveryStatus {
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dead, Self::Dropped];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A delivery as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct DeliveryRecord {
    pub id: Uuid,
    /// What the receiver gets as `webhook-id`.
    pub event_id: Uuid,
    pub event: String,
    pub subscription_id: Uuid,
    pub partner_id: PartnerId,
    pub tenant_id: TenantId,
    pub status: DeliveryStatus,
    pub attempts: i64,
    /// `None`: there is no further try.
    pub next_attempt_at: Option<Millis>,
    /// HTTP status of the last try that got an answer.
    pub last_status: Option<i64>,
    pub last_error: Option<String>,
    pub created_at: Millis,
    pub finished_at: Option<Millis>,
}

pub(crate) const DELIVERY_COLUMNS: &str = "d.id, d.event_id, e.type, d.subscription_id, e.partner_id, e.tenant_id, \
     d.status, d.attempts, d.next_attempt_at, d.last_status, d.last_error, d.created_at, d.finished_at";
pub(crate) const DELIVERY_TABLES: &str = "webhook_deliveries d JOIN webhook_events e ON e.id = d.event_id";

impl DeliveryRecord {
    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        let damaged = |what: &str| StoreError::Damaged { table: "webhook_deliveries", what: what.to_owned() };
        let status = DeliveryStatus::parse(row.str("status")?).ok_or_else(|| damaged("status"))?;
        let next = Millis(row.int("next_attempt_at")?);
        Ok(Self {
            id: row.id("id")?,
            event_id: row.id("event_id")?,
            event: row.text("type")?,
            subscription_id: row.id("subscription_id")?,
            partner_id: PartnerId(row.id("partner_id")?),
            tenant_id: tenant_id("webhook_events", row, "tenant_id")?,
            status,
            attempts: row.int("attempts")?,
            next_attempt_at: (status == DeliveryStatus::Pending).then_some(next),
            last_status: row.maybe_int("last_status")?,
            last_error: row.maybe_text("last_error")?,
            created_at: Millis(row.int("created_at")?),
            finished_at: row.maybe_int("finished_at")?.map(Millis),
        })
    }
}

/// Which deliveries; an empty filter means all.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    pub subscription: Option<Uuid>,
    pub partner: Option<PartnerId>,
    pub status: Option<DeliveryStatus>,
}

/// A claimed delivery: everything that a try needs.
#[derive(Clone)]
pub struct Job {
    pub delivery_id: Uuid,
    pub event_id: Uuid,
    pub event: EventType,
    pub about: About,
    pub partner_id: PartnerId,
    pub link_id: LinkId,
    pub tenant_id: TenantId,
    pub at: Millis,
    /// A JSON object.
    pub data: String,
    /// Tries so far.
    pub attempts: i64,
    pub subscription_id: Uuid,
    pub url: String,
    /// As it stands in the database, sealed or not: `Vault::open` with the subscription's id.
    pub secret: String,
    pub previous_secret: Option<String>,
    /// Who holds the lease.
    pub owner: String,
}

impl std::fmt::Debug for Job {
    /// Never the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("delivery_id", &self.delivery_id)
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    Delivered {
        status: u16,
    },
    /// Again at this time.
    Again {
        at: Millis,
        status: Option<u16>,
        error: String,
    },
    Dead {
        status: Option<u16>,
        error: String,
    },
    /// Never sent, and will not be.
    Dropped {
        reason: String,
    },
    /// Not tried: whether it may be sent could not be told. Counts as no try.
    Postponed {
        at: Millis,
    },
}

/// The queue; cheap to clone.
#[derive(Clone, Debug)]
pub struct DeliveryQueue {
    db: Database,
}

impl DeliveryQueue {
    pub fn new(db: &Database) -> Self {
        Self { db: db.clone() }
    }

    pub(super) fn database(&self) -> &Database {
        &self.db
    }

    /// Deliveries that may be tried now, with their subscriptions; at most so many of one subscription, and none of those that
    /// are `full`.
    pub async fn due(
        &self,
        now: Millis,
        most: usize,
        of_one: usize,
        full: &[Uuid],
    ) -> Result<Vec<(Uuid, Uuid)>, StoreError> {
        let count = |number: usize| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let mut values = vec![now.0.into(), count(of_one), count(most)];
        let mut others = String::new();
        for subscription in full {
            values.push((*subscription).into());
            others.push_str(&format!(" AND d.subscription_id <> ${}", values.len()));
        }
        // Not what is left of those that are full: it would take the places of all others, oldest first.
        let sql = composed(format!(
            "SELECT id, subscription_id FROM (\
                SELECT d.id, d.subscription_id, d.next_attempt_at, \
                ROW_NUMBER() OVER (PARTITION BY d.subscription_id ORDER BY d.next_attempt_at, d.id) AS place \
                FROM webhook_deliveries d JOIN webhook_subscriptions s ON s.id = d.subscription_id \
                WHERE d.status = 'pending' AND d.next_attempt_at <= $1 AND s.enabled \
                AND (d.leased_until IS NULL OR d.leased_until <= $1){others}\
             ) AS waiting WHERE place <= $2 ORDER BY next_attempt_at, id LIMIT $3"
        ));
        let rows = self.db.begin_read().await?.rows(sql, &values).await?;
        rows.iter().map(|row| Ok((row.id(0)?, row.id(1)?))).collect()
    }

    /// Takes a delivery until the lease ends; `None` where another replica was faster.
    pub async fn claim(&self, id: Uuid, now: Millis, until: Millis) -> Result<Option<Job>, StoreError> {
        let owner = Uuid::new_v4().to_string();
        let mut tx = self.db.begin_write().await?;
        let sql = "UPDATE webhook_deliveries SET leased_until = $3, lease_owner = $4 WHERE id = $1 \
             AND status = 'pending' AND next_attempt_at <= $2 AND (leased_until IS NULL OR leased_until <= $2)";
        let values = [id.into(), now.0.into(), until.0.into(), owner.as_str().into()];
        if tx.execute(sql, &values).await? != 1 {
            return Ok(None);
        }
        let sql = "SELECT d.id, d.event_id, e.type, e.about, e.partner_id, e.link_id, e.tenant_id, e.at, e.data, \
             d.attempts, d.subscription_id, s.url, s.secret, s.previous_secret, s.previous_until FROM webhook_deliveries d \
             JOIN webhook_events e ON e.id = d.event_id JOIN webhook_subscriptions s ON s.id = d.subscription_id \
             WHERE d.id = $1";
        let Some(row) = tx.row(sql, &[id.into()]).await? else { return Ok(None) };
        let job = job(&row, owner, now)?;
        tx.commit().await?;
        Ok(Some(job))
    }

    /// Writes how a try ended; false where the lease had passed to somebody else.
    pub async fn finish(&self, job: &Job, now: Millis, tried: &Tried) -> Result<bool, StoreError> {
        let (status, counts, next, http, error) = match tried {
            Tried::Delivered { status } => ("delivered", 1, now, Some(*status), None),
            Tried::Again { at, status, error } => ("pending", 1, *at, *status, Some(error)),
            Tried::Dead { status, error } => ("dead", 1, now, *status, Some(error)),
            Tried::Dropped { reason } => ("dropped", 0, now, None, Some(reason)),
            Tried::Postponed { at } => ("pending", 0, *at, None, None),
        };
        let finished = (status != "pending").then_some(now.0);
        let sql = "UPDATE webhook_deliveries SET status = $3, attempts = attempts + $4, next_attempt_at = $5, \
             last_status = coalesce($6, last_status), last_error = $7, finished_at = $8, \
             leased_until = NULL, lease_owner = NULL WHERE id = $1 AND lease_owner = $2 AND status = 'pending'";
        let values = [
            job.delivery_id.into(),
            job.owner.as_str().into(),
            status.into(),
            Value::Int(counts),
            next.0.into(),
            Value::MaybeInt(http.map(i64::from)),
            Value::MaybeText(error.map(String::as_str)),
            Value::MaybeInt(finished),
        ];
        let mut tx = self.db.begin_write().await?;
        let written = tx.execute(sql, &values).await? == 1;
        tx.commit().await?;
        Ok(written)
    }

    /// Forgets what was delivered or dropped before `done`, and dead letters before `dead`. What waits since long before
    /// `dead`, because its subscription or all of them are switched off, is dead from now on.
    pub async fn prune(&self, now: Millis, done: Millis, dead: Millis) -> Result<u64, StoreError> {
        let mut tx = self.db.begin_write().await?;
        let sql = "UPDATE webhook_deliveries SET status = 'dead', finished_at = $1, last_error = $3, \
             leased_until = NULL, lease_owner = NULL WHERE status = 'pending' AND created_at < $2 \
             AND (leased_until IS NULL OR leased_until <= $1)";
        let since = dead.0.saturating_sub(REDELIVERY_MS);
        tx.execute(sql, &[now.0.into(), since.into(), "waited longer than `webhooks.keep_dead`".into()]).await?;
        let sql = "DELETE FROM webhook_deliveries WHERE (status IN ('delivered', 'dropped') AND finished_at < $1) \
             OR (status = 'dead' AND finished_at < $2)";
        let gone = tx.execute(sql, &[done.0.into(), dead.0.into()]).await?;
        let sql = "DELETE FROM webhook_events WHERE at < $1 \
             AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.event_id = webhook_events.id)";
        tx.execute(sql, &[done.0.into()]).await?;
        tx.commit().await?;
        Ok(gone)
    }

    /// A subscription's address and its secret as it stands in the database, for a test from the command line.
    pub async fn target(&self, subscription: Uuid) -> Result<(String, String), StoreError> {
        let sql = "SELECT url, secret FROM webhook_subscriptions WHERE id = $1";
        let row = self.db.begin_read().await?.row(sql, &[subscription.into()]).await?;
        let row = row.ok_or_else(|| StoreError::not_found("webhook", subscription))?;
        Ok((row.text(0)?, row.text(1)?))
    }
}

fn job(row: &Row, owner: String, now: Millis) -> Result<Job, StoreError> {
    let damaged = |what: &str| StoreError::Damaged { table: "webhook_events", what: what.to_owned() };
    let previous_until = row.maybe_int("previous_until")?;
    Ok(Job {
        delivery_id: row.id("id")?,
        event_id: row.id("event_id")?,
        event: row.str("type")?.parse().map_err(|_| damaged("type"))?,
        about: if row.str("about")? == About::Link.as_str() { About::Link } else { About::Tenant },
        partner_id: PartnerId(row.id("partner_id")?),
        link_id: LinkId(row.id("link_id")?),
        tenant_id: tenant_id("webhook_events", row, "tenant_id")?,
        at: Millis(row.int("at")?),
        data: row.text("data")?,
        attempts: row.int("attempts")?,
        subscription_id: row.id("subscription_id")?,
        url: row.text("url")?,
        secret: row.text("secret")?,
        previous_secret: row.maybe_text("previous_secret")?.filter(|_| previous_until.is_some_and(|at| at > now.0)),
        owner,
    })
}
