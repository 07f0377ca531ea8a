//! A test event to one subscription, sent at once from this process, by the rules of every delivery: signed, to judged
//! addresses, without redirects. Nothing is kept of it in the queue.

use std::time::Duration;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    deliver::payload,
    endpoint::Endpoint,
    sender::{Answer, Message, SendError, Sender},
};
use crate::{
    config::settings::WebhookSettings,
    domain::Millis,
    identity::{Vault, VaultError},
    store::{Database, StoreError, deliveries::DeliveryQueue},
};

/// The event that is sent; no partner can subscribe to it.
const TEST_EVENT: &str = "partner.webhook.test";

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The address that is stored may not be told anything now.
    #[error("{0}")]
    Address(String),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the test event cannot be written")]
    Payload(#[from] serde_json::Error),
}

/// Posts the test event, and says what the receiver answered.
pub async fn trial(database: &Database, settings: &WebhookSettings, id: Uuid) -> Result<Answer, TrialError> {
    let (url, secret) = DeliveryQueue::new(database).target(id).await?;
    let secret = Vault::new(&settings.secret_keys).open(id, &secret)?;
    let endpoint = Endpoint::parse(&url, settings).map_err(|error| TrialError::Address(error.to_string()))?;
    let data = RawValue::from_string(format!("{{\"subscription_id\":\"{id}\"}}"))?;
    let now = Millis::now();
    let message_id = Uuid::now_v7().to_string();
    let timestamp_s = Duration::from_millis(u64::try_from(now.0).unwrap_or_default()).as_secs();
    let message = Message {
        id: &message_id,
        timestamp_s: i64::try_from(timestamp_s).unwrap_or_default(),
        body: payload(TEST_EVENT, now, &data)?,
        secrets: vec![&secret],
    };
    Ok(Sender::new(settings).send(&endpoint, message).await?)
}
