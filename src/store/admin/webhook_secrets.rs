//! Secrets of webhook subscriptions at rest: written sealed, and sealed anew when the keys change.
//!
//! What is sealed and how is the vault's affair (`identity::Vault`). A text is opened only to be sealed anew here, and by
//! the sender; nothing here shows one.

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::{Actor, Admin, Session, Written, parties::json, unchanged};
use crate::{
    audit::{ChangeRecord, Kind},
    identity::Vault,
    store::{StoreError, sql::Value},
};

/// What was sealed anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ResealedSecrets")]
pub struct Resealed {
    pub subscriptions: u64,
    /// Of the subscriptions that stood so already.
    pub unchanged: u64,
}

impl Admin {
    /// Seals what it writes by these keys. Without, secrets are written as they are.
    #[must_use]
    pub fn with_vault(mut self, vault: Vault) -> Self {
        self.vault = Arc::new(vault);
        self
    }

    /// Seals every secret with the first key, in one transaction: those that stand open, and those of earlier keys. One
    /// that does not open refuses the whole.
    pub async fn reseal_subscriptions(&self, actor: &Actor) -> Result<Written<Resealed>, StoreError> {
        let mut session = self.session(actor).await?;
        let sql = "SELECT id, secret, previous_secret FROM webhook_subscriptions ORDER BY id";
        let rows = session.tx.rows(sql, &[]).await?;
        let mut done = Resealed::default();
        for row in &rows {
            let (id, secret, previous) = (row.id(0)?, row.text(1)?, row.maybe_text(2)?);
            let current = |text: &str| self.vault.is_current(text);
            if current(&secret) && previous.as_deref().is_none_or(current) {
                done.unchanged += 1;
                continue;
            }
            let anew = |text: &str| Ok::<_, StoreError>(self.vault.seal(id, &self.vault.open(id, text)?)?);
            let (secret, previous) = (anew(&secret)?, previous.as_deref().map(anew).transpose()?);
            let sql = "UPDATE webhook_subscriptions SET secret = $2, previous_secret = $3 WHERE id = $1";
            let values = [Value::Id(id), Value::Text(&secret), Value::MaybeText(previous.as_deref())];
            session.tx.execute(sql, &values).await?;
            done.subscriptions += 1;
        }
        if done.subscriptions == 0 {
            return Ok(unchanged(done));
        }
        let record = ChangeRecord {
            resource_type: Some("webhook".to_owned()),
            after: Some(json(&done)),
            ..session.record(Kind::Admin, "webhook.reseal")
        };
        session.enqueue(&record).await?;
        session.commit(done).await
    }
}

impl Session<'_> {
    /// The text that stands for a subscription's secret in the database.
    pub(super) fn sealed(&self, subscription: Uuid, secret: &str) -> Result<String, StoreError> {
        Ok(self.admin.vault.seal(subscription, secret)?)
    }
}
