//! Webhook subscriptions: who is told of what, and where. Every change is audited; secrets are in no record and no list.

use serde::Serialize;
use uuid::Uuid;

use super::{
    Actor, Admin, Page, Session, Written,
    parties::{Faults, expect_version, filled, json, stamp_values},
    unchanged,
};
use crate::{
    audit::{ChangeRecord, Kind},
    domain::{EventType, Millis, PartnerId, link_rules::Refusal},
    store::{
        StoreError,
        deliveries::{DELIVERY_COLUMNS, DELIVERY_TABLES, DeliveryFilter, DeliveryRecord},
        records::Stamps,
        sql::{Row, Value, composed},
    },
};

/// Most subscriptions of one partner.
const MOST_SUBSCRIPTIONS: i64 = 20;

/// One subscription; without its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct SubscriptionRecord {
    pub id: Uuid,
    pub partner_id: PartnerId,
    pub url: String,
    pub description: Option<String>,
    pub events: Vec<EventType>,
    pub enabled: bool,
    /// Until then deliveries are also signed with the secret before the last rotation.
    pub previous_secret_until: Option<Millis>,
    #[serde(flatten)]
    pub stamps: Stamps,
}

pub(crate) const SUBSCRIPTION_COLUMNS: &str = "id, partner_id, url, description, events, enabled, previous_until, \
     version, created_at, updated_at, created_by, updated_by";

impl SubscriptionRecord {
    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id("id")?,
            partner_id: PartnerId(row.id("partner_id")?),
            url: row.text("url")?,
            description: row.maybe_text("description")?,
            events: row.json("events")?,
            enabled: row.flag("enabled")?,
            previous_secret_until: row.maybe_int("previous_until")?.map(Millis),
            stamps: Stamps::read(row)?,
        })
    }
}

/// What an operator writes about a subscription; what is left out stays as it is.
#[derive(Clone, Default)]
pub struct SubscriptionInput {
    /// Found good by the sender's rules before.
    pub url: Option<String>,
    /// Empty clears it.
    pub description: Option<String>,
    pub events: Option<Vec<EventType>>,
    pub enabled: Option<bool>,
    /// A new secret, and until when the old one signs too.
    pub rotate: Option<(String, Millis)>,
}

impl std::fmt::Debug for SubscriptionInput {
    /// Never the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubscriptionInput")
            .field("url", &self.url)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl Admin {
    pub async fn create_subscription(
        &self,
        actor: &Actor,
        partner: PartnerId,
        secret: &str,
        input: &SubscriptionInput,
    ) -> Result<Written<SubscriptionRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        session.partner(partner).await?;
        let count = "SELECT count(*) FROM webhook_subscriptions WHERE partner_id = $1";
        let standing = session.tx.row(count, &[partner.0.into()]).await?.map_or(Ok(0), |row| row.int(0))?;
        if standing >= MOST_SUBSCRIPTIONS {
            return Err(Refusal::conflict(format!("the partner has {MOST_SUBSCRIPTIONS} subscriptions already")).into());
        }
        let mut record = SubscriptionRecord {
            id: Uuid::now_v7(),
            partner_id: partner,
            url: String::new(),
            description: None,
            events: EventType::ALL.to_vec(),
            enabled: true,
            previous_secret_until: None,
            stamps: Stamps::new(session.now, &actor.name),
        };
        apply(&mut record, input)?;
        let events = json(&record.events);
        let secret = session.sealed(record.id, secret)?;
        let mut values = vec![
            Value::Id(record.id),
            Value::Id(partner.0),
            Value::Text(&record.url),
            Value::MaybeText(record.description.as_deref()),
            Value::Json(&events),
            Value::Flag(record.enabled),
            Value::Text(&secret),
        ];
        values.extend(stamp_values(&record.stamps));
        let sql = "INSERT INTO webhook_subscriptions (id, partner_id, url, description, events, enabled, secret, \
             version, created_at, updated_at, created_by, updated_by) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        session.tx.execute(sql, &values).await?;
        session.record_webhook("webhook.create", None, Some(&record)).await?;
        session.commit(record).await
    }

    pub async fn update_subscription(
        &self,
        actor: &Actor,
        id: Uuid,
        expected: Option<i64>,
        input: &SubscriptionInput,
    ) -> Result<Written<SubscriptionRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let before = session.subscription(id).await?;
        expect_version(expected, before.stamps.version)?;
        let mut after = before.clone();
        apply(&mut after, input)?;
        if after == before && input.rotate.is_none() {
            return Ok(unchanged(before));
        }
        after.stamps = before.stamps.touched(session.now, &actor.name);
        if let Some((secret, until)) = &input.rotate {
            let sql = "UPDATE webhook_subscriptions SET previous_secret = secret, previous_until = $3, secret = $2 \
                 WHERE id = $1";
            let secret = session.sealed(id, secret)?;
            session.tx.execute(sql, &[id.into(), secret.as_str().into(), until.0.into()]).await?;
            after.previous_secret_until = Some(*until);
        }
        let events = json(&after.events);
        let mut values = vec![
            Value::Id(id),
            Value::Text(&after.url),
            Value::MaybeText(after.description.as_deref()),
            Value::Json(&events),
            Value::Flag(after.enabled),
        ];
        values.extend(stamp_values(&after.stamps));
        let sql = "UPDATE webhook_subscriptions SET url = $2, description = $3, events = $4, enabled = $5, \
             version = $6, created_at = $7, updated_at = $8, created_by = $9, updated_by = $10 WHERE id = $1";
        session.tx.execute(sql, &values).await?;
        session.record_webhook("webhook.update", Some(&before), Some(&after)).await?;
        session.commit(after).await
    }

    /// Removes a subscription with all its deliveries, sent or not.
    pub async fn delete_subscription(
        &self,
        actor: &Actor,
        id: Uuid,
        expected: Option<i64>,
    ) -> Result<Written<SubscriptionRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let before = session.subscription(id).await?;
        expect_version(expected, before.stamps.version)?;
        session.tx.execute("DELETE FROM webhook_subscriptions WHERE id = $1", &[id.into()]).await?;
        session.record_webhook("webhook.delete", Some(&before), None).await?;
        session.commit(before).await
    }

    pub async fn subscription(&self, id: Uuid) -> Result<SubscriptionRecord, StoreError> {
        let select = format!("SELECT {SUBSCRIPTION_COLUMNS} FROM webhook_subscriptions WHERE id = $1");
        let found = self.one(select, id.into(), SubscriptionRecord::read).await?;
        found.ok_or_else(|| StoreError::not_found("webhook", id))
    }

    /// In the order of their ids.
    pub async fn subscriptions(
        &self,
        partner: Option<PartnerId>,
        page: Page,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let mut conditions = super::lists::Conditions::default();
        conditions.add("partner_id", partner.map(|partner| Value::Id(partner.0)));
        let select = format!("SELECT {SUBSCRIPTION_COLUMNS} FROM webhook_subscriptions");
        self.page(select, "id", conditions, page, SubscriptionRecord::read).await
    }

    /// Newest first.
    pub async fn deliveries(&self, filter: &DeliveryFilter, page: Page) -> Result<Vec<DeliveryRecord>, StoreError> {
        let mut conditions = super::lists::Conditions::default();
        conditions.add("d.subscription_id", filter.subscription.map(Value::Id));
        conditions.add("e.partner_id", filter.partner.map(|partner| Value::Id(partner.0)));
        conditions.add("d.status", filter.status.map(|status| Value::Text(status.as_str())));
        let select = format!("SELECT {DELIVERY_COLUMNS} FROM {DELIVERY_TABLES}");
        self.page(select, "d.created_at DESC, d.id DESC", conditions, page, DeliveryRecord::read).await
    }

    /// Sends deliveries once more, from the first try on: one, or all dead ones of a subscription. How many.
    pub async fn redeliver(&self, actor: &Actor, which: Redeliver) -> Result<Written<u64>, StoreError> {
        let mut session = self.session(actor).await?;
        let now = session.now.0;
        let again = "UPDATE webhook_deliveries SET status = 'pending', attempts = 0, next_attempt_at = $2, \
             finished_at = NULL, leased_until = NULL, lease_owner = NULL";
        let (sql, id) = match which {
            // What is being sent just now is left alone; what waits for its time waits no longer.
            Redeliver::One(id) => (
                format!(
                    "{again} WHERE id = $1 AND (status <> 'pending' OR leased_until IS NULL OR leased_until <= $2)"
                ),
                id,
            ),
            Redeliver::DeadOf(id) => {
                session.subscription(id).await?;
                (format!("{again} WHERE subscription_id = $1 AND status = 'dead'"), id)
            }
        };
        let count = session.tx.execute(composed(sql), &[id.into(), now.into()]).await?;
        if count == 0 {
            if let Redeliver::One(id) = which {
                let sql = "SELECT id FROM webhook_deliveries WHERE id = $1";
                session.tx.row(sql, &[id.into()]).await?.ok_or_else(|| StoreError::not_found("delivery", id))?;
            }
            return Ok(unchanged(0));
        }
        let record = ChangeRecord {
            resource_type: Some(
                if matches!(which, Redeliver::One(_)) { "webhook_delivery" } else { "webhook" }.to_owned(),
            ),
            resource_id: Some(id.to_string()),
            ..session.record(Kind::Admin, "webhook.redeliver")
        };
        session.enqueue(&record).await?;
        session.commit(count).await
    }
}

/// What to send once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redeliver {
    /// One delivery, whatever became of it.
    One(Uuid),
    /// Every dead delivery of this subscription.
    DeadOf(Uuid),
}

fn apply(record: &mut SubscriptionRecord, input: &SubscriptionInput) -> Result<(), Refusal> {
    let mut faults = Faults::default();
    if let Some(url) = &input.url {
        record.url.clone_from(url);
    }
    if let Some(description) = &input.description {
        record.description = filled(description);
        faults.text("description", description, 0, 255);
    }
    if let Some(events) = &input.events {
        record.events.clone_from(events);
        record.events.sort_unstable();
        record.events.dedup();
    }
    if record.events.is_empty() {
        faults.add("events", "name at least one event type");
    }
    if let Some(enabled) = input.enabled {
        record.enabled = enabled;
    }
    faults.text("url", &record.url, 1, 2048);
    faults.check("webhook")
}

impl Session<'_> {
    async fn subscription(&mut self, id: Uuid) -> Result<SubscriptionRecord, StoreError> {
        let sql = composed(format!("SELECT {SUBSCRIPTION_COLUMNS} FROM webhook_subscriptions WHERE id = $1"));
        match self.tx.row(sql, &[id.into()]).await? {
            Some(row) => SubscriptionRecord::read(&row),
            None => Err(StoreError::not_found("webhook", id)),
        }
    }

    async fn record_webhook(
        &mut self,
        action: &str,
        before: Option<&SubscriptionRecord>,
        after: Option<&SubscriptionRecord>,
    ) -> Result<(), StoreError> {
        let Some(one) = after.or(before) else { return Ok(()) };
        let record = ChangeRecord {
            partner_id: Some(one.partner_id),
            resource_type: Some("webhook".to_owned()),
            resource_id: Some(one.id.to_string()),
            before: before.map(json),
            after: after.map(json),
            ..self.record(Kind::Admin, action)
        };
        self.enqueue(&record).await
    }
}
