//! Tenants and partners: create and update.
//!
//! They are few and change seldom, so what a change of a partner or tenant touches is told as "everything" rather than
//! worked out: a wrong guess here would leave an access open.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{Actor, Admin, Session, Touch, Written, unchanged};
use crate::{
    audit::{ChangeRecord, Kind},
    domain::{
        About, EventType, LinkId, PartnerId, TenantId,
        link_rules::{FieldError, Refusal},
        plain,
    },
    store::{
        StoreError,
        events::{NewEvent, queue},
        records::{PARTNER_COLUMNS, PartnerRecord, Stamps, TENANT_COLUMNS, TenantRecord},
        sql::{Value, composed},
    },
};

/// What an operator writes about a tenant. A field left out keeps its value; an empty `slug` or `domain` clears it.
#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantInput {
    pub tenant_id: Option<String>,
    pub name: Option<String>,
    pub slug: Option<String>,
    pub domain: Option<String>,
    pub status: Option<String>,
}

/// What an operator writes about a partner.
#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PartnerInput {
    /// Made where it is left out.
    pub partner_id: Option<String>,
    pub name: Option<String>,
    /// Must be a known tenant; fixed once the partner has links.
    pub home_tenant_id: Option<String>,
    pub is_active: Option<bool>,
}

#[derive(Default)]
pub(super) struct Faults(Vec<FieldError>);

impl Faults {
    pub(super) fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), message: message.into() });
    }

    /// A text of at most `most` characters without controls. A subject or issuer is what a token says, letter for letter.
    pub(super) fn text(&mut self, field: &str, text: &str, least: usize, most: usize) {
        if self.long_enough(field, text, least, most) && text.chars().any(char::is_control) {
            self.add(field, "holds a control character");
        }
    }

    /// A name, which people read beside others: nothing in it turns the direction of text either.
    pub(super) fn name(&mut self, field: &str, text: &str, least: usize, most: usize) {
        if self.long_enough(field, text, least, most)
            && let Some(fault) = plain::fault(text)
        {
            self.add(field, fault);
        }
    }

    fn long_enough(&mut self, field: &str, text: &str, least: usize, most: usize) -> bool {
        let fits = (least..=most).contains(&text.chars().count());
        if !fits {
            self.add(field, format!("{least} to {most} characters"));
        }
        fits
    }

    fn tenant(&mut self, field: &str, text: Option<&str>) -> Option<TenantId> {
        match text.map(TenantId::new) {
            Some(Ok(id)) => return Some(id),
            Some(Err(error)) => self.add(field, error.to_string()),
            None => self.add(field, "is required"),
        }
        None
    }

    pub(super) fn partner(&mut self, field: &str, text: Option<&str>) -> Option<PartnerId> {
        match text.map(|text| text.trim().parse()) {
            Some(Ok(id)) => return Some(id),
            Some(Err(_)) => self.add(field, "is not a uuid"),
            None => self.add(field, "is required"),
        }
        None
    }

    pub(super) fn check(self, what: &str) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Refusal::fields(what, self.0))
    }
}

pub(super) fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Refuses a change of a row that has changed since it was read.
pub(super) fn expect_version(expected: Option<i64>, found: i64) -> Result<(), Refusal> {
    match expected {
        Some(expected) if expected != found => Err(Refusal::conflict(format!(
            "it is at version {found}, not {expected}: someone changed it meanwhile; read it again"
        ))),
        _ => Ok(()),
    }
}

impl Admin {
    pub async fn create_tenant(&self, actor: &Actor, input: &TenantInput) -> Result<Written<TenantRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let record = session.create_tenant(input).await?;
        session.commit(record).await
    }

    pub async fn update_tenant(
        &self,
        actor: &Actor,
        id: &TenantId,
        expected: Option<i64>,
        input: &TenantInput,
    ) -> Result<Written<TenantRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let before = session.tenant(id).await?;
        expect_version(expected, before.stamps.version)?;
        let mut after = before.clone();
        apply_tenant(&mut after, input);
        check_tenant(&after, Some(&before), Faults::default())?;
        if after == before {
            return Ok(unchanged(before));
        }
        after.stamps = before.stamps.touched(session.now, &actor.name);
        session.store_tenant(Some(&before), &after).await?;
        session.commit(after).await
    }

    pub async fn create_partner(
        &self,
        actor: &Actor,
        input: &PartnerInput,
    ) -> Result<Written<PartnerRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let record = session.create_partner(input).await?;
        session.commit(record).await
    }

    pub async fn update_partner(
        &self,
        actor: &Actor,
        id: PartnerId,
        expected: Option<i64>,
        input: &PartnerInput,
    ) -> Result<Written<PartnerRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let before = session.partner(id).await?;
        expect_version(expected, before.stamps.version)?;
        let mut after = before.clone();
        let mut faults = Faults::default();
        if let Some(name) = &input.name {
            after.name.clone_from(name);
        }
        if let Some(active) = input.is_active {
            after.is_active = active;
        }
        if let Some(home) = &input.home_tenant_id
            && let Some(home) = faults.tenant("home_tenant_id", Some(home))
        {
            after.home_tenant_id = home;
        }
        if after.name != before.name {
            faults.name("name", &after.name, 1, 255);
        }
        faults.check("partner")?;
        if after == before {
            return Ok(unchanged(before));
        }
        if after.home_tenant_id != before.home_tenant_id {
            session.tenant(&after.home_tenant_id).await?;
            session.refuse_if_linked(id).await?;
        }
        after.stamps = before.stamps.touched(session.now, &actor.name);
        session.store_partner(Some(&before), &after).await?;
        session.commit(after).await
    }
}

fn apply_tenant(record: &mut TenantRecord, input: &TenantInput) {
    if let Some(name) = &input.name {
        record.name.clone_from(name);
    }
    if let Some(slug) = &input.slug {
        record.slug = filled(slug);
    }
    if let Some(domain) = &input.domain {
        record.domain = filled(domain);
    }
    if let Some(status) = &input.status {
        record.status.clone_from(status);
    }
}

/// A name that an older version took is no reason to refuse another change.
fn check_tenant(record: &TenantRecord, before: Option<&TenantRecord>, mut faults: Faults) -> Result<(), Refusal> {
    if before.is_none_or(|before| before.name != record.name) {
        faults.name("name", &record.name, 1, 255);
    }
    faults.text("slug", record.slug.as_deref().unwrap_or_default(), 0, 255);
    faults.text("domain", record.domain.as_deref().unwrap_or_default(), 0, 255);
    faults.text("status", &record.status, 1, 32);
    faults.check("tenant")
}

impl Session<'_> {
    pub(super) async fn tenant(&mut self, id: &TenantId) -> Result<TenantRecord, StoreError> {
        let sql = composed(format!("SELECT {TENANT_COLUMNS} FROM tenants WHERE id = $1"));
        match self.tx.row(sql, &[id.as_str().into()]).await? {
            Some(row) => TenantRecord::read(&row),
            None => Err(StoreError::not_found("tenant", id)),
        }
    }

    pub(super) async fn partner(&mut self, id: PartnerId) -> Result<PartnerRecord, StoreError> {
        let sql = composed(format!("SELECT {PARTNER_COLUMNS} FROM partners WHERE id = $1"));
        match self.tx.row(sql, &[id.0.into()]).await? {
            Some(row) => PartnerRecord::read(&row),
            None => Err(StoreError::not_found("partner", id)),
        }
    }

    pub(super) async fn create_tenant(&mut self, input: &TenantInput) -> Result<TenantRecord, StoreError> {
        let mut faults = Faults::default();
        let id = faults.tenant("tenant_id", input.tenant_id.as_deref());
        let Some(tenant_id) = id else {
            return Err(faults.check("tenant").err().map_or_else(|| StoreError::not_found("tenant", ""), Into::into));
        };
        let mut record = TenantRecord {
            name: tenant_id.to_string(),
            tenant_id,
            slug: None,
            domain: None,
            status: "active".to_owned(),
            stamps: Stamps::new(self.now, &self.actor.name),
        };
        apply_tenant(&mut record, input);
        check_tenant(&record, None, faults)?;
        self.store_tenant(None, &record).await?;
        Ok(record)
    }

    pub(super) async fn create_partner(&mut self, input: &PartnerInput) -> Result<PartnerRecord, StoreError> {
        let mut faults = Faults::default();
        let made = Uuid::now_v7().to_string();
        let id = faults.partner("partner_id", Some(input.partner_id.as_deref().unwrap_or(&made)));
        let home = faults.tenant("home_tenant_id", input.home_tenant_id.as_deref());
        let name = input.name.clone().unwrap_or_default();
        faults.name("name", &name, 1, 255);
        faults.check("partner")?;
        let (Some(partner_id), Some(home_tenant_id)) = (id, home) else {
            return Err(Refusal::field("partner", "partner_id", "is required").into());
        };
        self.tenant(&home_tenant_id).await?;
        let is_active = input.is_active.unwrap_or(true);
        let stamps = Stamps::new(self.now, &self.actor.name);
        let record = PartnerRecord { partner_id, name, home_tenant_id, is_active, stamps };
        self.store_partner(None, &record).await?;
        Ok(record)
    }

    /// The home tenant is part of every link's row and of what its rules were judged by.
    async fn refuse_if_linked(&mut self, partner: PartnerId) -> Result<(), StoreError> {
        let sql = "SELECT id FROM partner_tenant_links WHERE partner_id = $1 LIMIT 1";
        match self.tx.row(sql, &[partner.0.into()]).await? {
            Some(_) => Err(Refusal::conflict("the home tenant of a partner that has links is fixed").into()),
            None => Ok(()),
        }
    }

    async fn store_tenant(&mut self, before: Option<&TenantRecord>, after: &TenantRecord) -> Result<(), StoreError> {
        const INSERT: &str = "INSERT INTO tenants (id, name, slug, domain, status, version, created_at, updated_at, \
             created_by, updated_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        const UPDATE: &str = "UPDATE tenants SET name = $2, slug = $3, domain = $4, status = $5, version = $6, \
             created_at = $7, updated_at = $8, created_by = $9, updated_by = $10 WHERE id = $1";
        let mut values = vec![
            Value::Text(after.tenant_id.as_str()),
            Value::Text(&after.name),
            Value::MaybeText(after.slug.as_deref()),
            Value::MaybeText(after.domain.as_deref()),
            Value::Text(&after.status),
        ];
        values.extend(stamp_values(&after.stamps));
        self.tx.execute(if before.is_some() { UPDATE } else { INSERT }, &values).await?;
        // A new tenant has no links yet, so nobody can have read anything about it.
        if before.is_some() {
            self.touch(Touch::All);
        }
        if let Some(before) = before.filter(|before| before.status != after.status) {
            self.tell_of_status(before, after).await?;
        }
        let record = ChangeRecord {
            resource_type: Some("tenant".to_owned()),
            resource_id: Some(after.tenant_id.to_string()),
            before: before.map(json),
            after: Some(json(after)),
            ..self.record(Kind::Link, if before.is_some() { "tenant.update" } else { "tenant.create" })
        };
        self.enqueue(&record).await
    }

    /// What the webhooks of every partner with a link to the tenant hear of its new status; committed with it.
    async fn tell_of_status(&mut self, before: &TenantRecord, after: &TenantRecord) -> Result<(), StoreError> {
        let sql = "SELECT l.partner_id, l.id FROM partner_tenant_links l WHERE l.managed_tenant_id = $1 AND l.is_active \
             AND EXISTS (SELECT 1 FROM webhook_subscriptions s WHERE s.partner_id = l.partner_id AND s.enabled) \
             ORDER BY l.id";
        for row in self.tx.rows(sql, &[after.tenant_id.as_str().into()]).await? {
            let link = (PartnerId(row.id(0)?), LinkId(row.id(1)?), &after.tenant_id);
            let event = NewEvent::new(EventType::StatusChanged, About::Tenant, link, self.now)
                .with("subject", &"tenant")?
                .with("field", &"status")?
                .with("from", &before.status)?
                .with("to", &after.status)?;
            queue(&mut self.tx, event).await?;
        }
        Ok(())
    }

    async fn store_partner(&mut self, before: Option<&PartnerRecord>, after: &PartnerRecord) -> Result<(), StoreError> {
        const INSERT: &str = "INSERT INTO partners (id, name, home_tenant_id, is_active, version, created_at, \
             updated_at, created_by, updated_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        const UPDATE: &str = "UPDATE partners SET name = $2, home_tenant_id = $3, is_active = $4, version = $5, \
             created_at = $6, updated_at = $7, created_by = $8, updated_by = $9 WHERE id = $1";
        let mut values = vec![
            Value::Id(after.partner_id.0),
            Value::Text(&after.name),
            Value::Text(after.home_tenant_id.as_str()),
            Value::Flag(after.is_active),
        ];
        values.extend(stamp_values(&after.stamps));
        self.tx.execute(if before.is_some() { UPDATE } else { INSERT }, &values).await?;
        // Links delegated onward by other partners hang on this one too.
        self.touch(if before.is_some() { Touch::All } else { Touch::Partner(after.partner_id) });
        let record = ChangeRecord {
            partner_id: Some(after.partner_id),
            partner_name: Some(after.name.clone()),
            partner_tenant_id: Some(after.home_tenant_id.to_string()),
            resource_type: Some("partner".to_owned()),
            resource_id: Some(after.partner_id.to_string()),
            before: before.map(json),
            after: Some(json(after)),
            ..self.record(Kind::Link, if before.is_some() { "partner.update" } else { "partner.create" })
        };
        self.enqueue(&record).await
    }
}

pub(super) fn json(record: &impl Serialize) -> Json {
    serde_json::to_value(record).unwrap_or(Json::Null)
}

pub(super) fn stamp_values(stamps: &Stamps) -> [Value<'_>; 5] {
    [
        stamps.version.into(),
        stamps.created_at.0.into(),
        stamps.updated_at.0.into(),
        stamps.created_by.as_str().into(),
        stamps.updated_by.as_str().into(),
    ]
}
