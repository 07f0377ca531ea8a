//! Partner users: create and update.
//!
//! Issuer and subject are who a user is, so they are fixed; a change touches this one member and nothing else.

use serde::Deserialize;
use uuid::Uuid;

use super::{
    Actor, Admin, Session, Touch, Written,
    parties::{Faults, expect_version, filled, json, stamp_values},
    unchanged,
};
use crate::{
    audit::{ChangeRecord, Kind},
    domain::link_rules::Refusal,
    store::{
        StoreError,
        records::{Stamps, USER_COLUMNS, UserRecord},
        sql::{Value, composed},
    },
};

/// What an operator writes about a partner user.
#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserInput {
    /// Empty or left out: the legacy issuer without `iss`.
    pub issuer: Option<String>,
    pub sub: Option<String>,
    pub partner_id: Option<String>,
    pub username: Option<String>,
    pub is_active: Option<bool>,
}

impl Admin {
    pub async fn create_user(&self, actor: &Actor, input: &UserInput) -> Result<Written<UserRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let record = session.create_user(input).await?;
        session.commit(record).await
    }

    /// Issuer and subject are who the user is: they cannot be changed, and neither can the partner.
    pub async fn update_user(
        &self,
        actor: &Actor,
        id: Uuid,
        expected: Option<i64>,
        input: &UserInput,
    ) -> Result<Written<UserRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let sql = composed(format!("SELECT {USER_COLUMNS} FROM partner_users WHERE id = $1"));
        let before = match session.tx.row(sql, &[id.into()]).await? {
            Some(row) => UserRecord::read(&row)?,
            None => return Err(StoreError::not_found("user", id)),
        };
        expect_version(expected, before.stamps.version)?;
        let mut after = before.clone();
        let mut faults = Faults::default();
        let fixed = [
            ("issuer", input.issuer.as_ref().is_some_and(|issuer| *issuer != before.issuer)),
            ("sub", input.sub.as_ref().is_some_and(|sub| *sub != before.sub)),
            ("partner_id", input.partner_id.as_ref().is_some_and(|id| *id != before.partner_id.to_string())),
        ];
        for (field, _) in fixed.into_iter().filter(|(_, differs)| *differs) {
            faults.add(field, "is fixed: deactivate this user and create another");
        }
        if let Some(username) = &input.username {
            after.username = filled(username);
            faults.name("username", username, 0, 255);
        }
        if let Some(active) = input.is_active {
            after.is_active = active;
        }
        faults.check("user")?;
        if after == before {
            return Ok(unchanged(before));
        }
        after.stamps = before.stamps.touched(session.now, &actor.name);
        session.store_user(Some(&before), &after).await?;
        session.commit(after).await
    }
}

impl Session<'_> {
    pub(super) async fn create_user(&mut self, input: &UserInput) -> Result<UserRecord, StoreError> {
        let mut faults = Faults::default();
        let issuer = input.issuer.clone().unwrap_or_default();
        let sub = input.sub.clone().unwrap_or_default();
        let partner = faults.partner("partner_id", input.partner_id.as_deref());
        faults.text("issuer", &issuer, 0, 512);
        faults.text("sub", &sub, 1, 255);
        faults.name("username", input.username.as_deref().unwrap_or_default(), 0, 255);
        faults.check("user")?;
        let Some(partner_id) = partner else {
            return Err(Refusal::field("user", "partner_id", "is required").into());
        };
        self.partner(partner_id).await?;
        let record = UserRecord {
            id: Uuid::now_v7(),
            issuer,
            sub,
            partner_id,
            username: input.username.as_deref().and_then(filled),
            is_active: input.is_active.unwrap_or(true),
            stamps: Stamps::new(self.now, &self.actor.name),
        };
        self.store_user(None, &record).await?;
        Ok(record)
    }

    async fn store_user(&mut self, before: Option<&UserRecord>, after: &UserRecord) -> Result<(), StoreError> {
        const INSERT: &str = "INSERT INTO partner_users (id, issuer, sub, partner_id, username, is_active, version, \
             created_at, updated_at, created_by, updated_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        const UPDATE: &str = "UPDATE partner_users SET issuer = $2, sub = $3, partner_id = $4, username = $5, \
             is_active = $6, version = $7, created_at = $8, updated_at = $9, created_by = $10, updated_by = $11 \
             WHERE id = $1";
        let mut values = vec![
            Value::Id(after.id),
            Value::Text(&after.issuer),
            Value::Text(&after.sub),
            Value::Id(after.partner_id.0),
            Value::MaybeText(after.username.as_deref()),
            Value::Flag(after.is_active),
        ];
        values.extend(stamp_values(&after.stamps));
        self.tx.execute(if before.is_some() { UPDATE } else { INSERT }, &values).await?;
        self.touch(Touch::Member { issuer: after.issuer.clone(), sub: after.sub.clone() });
        let record = ChangeRecord {
            partner_id: Some(after.partner_id),
            resource_type: Some("user".to_owned()),
            resource_id: Some(after.id.to_string()),
            before: before.map(json),
            after: Some(json(after)),
            ..self.record(Kind::Link, if before.is_some() { "user.update" } else { "user.create" })
        };
        self.enqueue(&record).await
    }
}
