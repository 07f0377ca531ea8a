//! Events on their way to webhooks: written in the transaction in which they happen, one delivery a subscription.
//!
//! So an event is never lost and never invented: it is committed with what it tells of. Where nobody subscribed nothing
//! is written. The queue behind it is `deliveries`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Database, StoreError,
    sql::{Tx, Value},
};
use crate::domain::{About, EventType, LinkId, Millis, PartnerId, TenantId};

/// What happened, to be told to one partner.
#[derive(Debug)]
pub struct NewEvent {
    pub event: EventType,
    pub about: About,
    pub partner_id: PartnerId,
    pub link_id: LinkId,
    pub tenant_id: TenantId,
    pub at: Millis,
    /// Beside `partner_id`, `tenant_id`, `tenant_name` and `link_id`, which every event has. Amounts stay exact.
    data: BTreeMap<&'static str, Box<RawValue>>,
}

impl NewEvent {
    pub fn new(event: EventType, about: About, link: (PartnerId, LinkId, &TenantId), at: Millis) -> Self {
        let (partner_id, link_id, tenant_id) = (link.0, link.1, link.2.clone());
        Self { event, about, partner_id, link_id, tenant_id, at, data: BTreeMap::new() }
    }

    /// That a field of a link has another value now.
    pub(super) fn changed_link<T: Serialize>(
        link: (PartnerId, LinkId, &TenantId),
        at: Millis,
        field: &'static str,
        (from, to): (&T, &T),
    ) -> Result<Self, StoreError> {
        let event = Self::new(EventType::StatusChanged, About::Link, link, at);
        event.with("subject", &"link")?.with("field", &field)?.with("from", from)?.with("to", to)
    }

    /// Adds one field of `data`.
    pub fn with(mut self, name: &'static str, value: &impl Serialize) -> Result<Self, StoreError> {
        self.data.insert(name, raw(value)?);
        Ok(self)
    }
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>, StoreError> {
    serde_json::value::to_raw_value(value)
        .map_err(|error| StoreError::Damaged { table: "webhook_events", what: error.to_string() })
}

/// Writes the event and its deliveries; how many subscriptions will be told.
pub(crate) async fn queue(tx: &mut Tx, mut event: NewEvent) -> Result<usize, StoreError> {
    let sql = "SELECT id, events FROM webhook_subscriptions WHERE partner_id = $1 AND enabled ORDER BY id";
    let mut told: Vec<Uuid> = Vec::new();
    for row in tx.rows(sql, &[event.partner_id.0.into()]).await? {
        let wanted: Vec<String> = row.json(1)?;
        if wanted.iter().any(|name| name == event.event.as_str()) {
            told.push(row.id(0)?);
        }
    }
    if told.is_empty() {
        return Ok(0);
    }
    let name = tx.row("SELECT name FROM tenants WHERE id = $1", &[event.tenant_id.as_str().into()]).await?;
    let name = name.map(|row| row.text(0)).transpose()?;
    event.data.insert("partner_id", raw(&event.partner_id)?);
    event.data.insert("tenant_id", raw(&event.tenant_id)?);
    event.data.insert("tenant_name", raw(&name)?);
    event.data.insert("link_id", raw(&event.link_id)?);
    let data = raw(&event.data)?;
    let id = Uuid::now_v7();
    tx.execute(
        "INSERT INTO webhook_events (id, type, partner_id, link_id, tenant_id, about, at, data) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            id.into(),
            event.event.as_str().into(),
            event.partner_id.0.into(),
            event.link_id.0.into(),
            event.tenant_id.as_str().into(),
            event.about.as_str().into(),
            event.at.0.into(),
            data.get().into(),
        ],
    )
    .await?;
    for subscription in &told {
        tx.execute(
            "INSERT INTO webhook_deliveries (id, event_id, subscription_id, status, next_attempt_at, created_at) \
             VALUES ($1, $2, $3, 'pending', $4, $4)",
            &[Uuid::now_v7().into(), id.into(), (*subscription).into(), Value::Int(Millis::now().0)],
        )
        .await?;
    }
    Ok(told.len())
}

/// Writes an event of something that happened outside the database, such as a ticket opened by an upstream.
pub async fn queue_event(db: &Database, event: NewEvent) -> Result<usize, StoreError> {
    let mut tx = db.begin_write().await?;
    let told = queue(&mut tx, event).await?;
    tx.commit().await?;
    Ok(told)
}
