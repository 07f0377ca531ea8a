//! Webhook subscriptions and their deliveries. A secret is answered once, where it is made; nothing else here shows one.

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    answer::{Answer, List, store_problem, trouble},
    ask::{Ask, Input, invalid, page},
    desk::Desk,
    table::Operation,
};
use crate::{
    domain::{ErrorCode, EventType, Millis, PartnerId},
    ops::Trouble,
    portal::{
        Problem,
        webhooks::{
            Endpoint,
            signature::new_secret,
            trial::{TrialError, trial},
        },
    },
    store::{
        admin::{Redeliver, SubscriptionInput, SubscriptionRecord},
        deliveries::{DeliveryFilter, DeliveryStatus},
    },
};

/// How long the old secret signs too, where nothing is said.
const OVERLAP_HOURS: u32 = 24;
const MOST_OVERLAP_HOURS: u32 = 24 * 30;

/// A subscription as it is written. What is left out stays as it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WebhookBody {
    /// Required in a new one; fixed in one that is there.
    partner_id: Option<String>,
    /// Required in a new one.
    url: Option<String>,
    /// Empty clears it.
    description: Option<String>,
    /// Left out in a new one: all.
    events: Option<Vec<EventType>>,
    enabled: Option<bool>,
}

/// How the secret is changed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RotateBody {
    /// So long the old secret signs too: 24 where it is left out, at most 720.
    overlap_hours: Option<u32>,
}

impl Input for WebhookBody {}
impl Input for RotateBody {}

/// A subscription with the secret that is shown this once.
#[derive(Serialize, JsonSchema)]
pub(super) struct WithSecret {
    #[serde(flatten)]
    subscription: SubscriptionRecord,
    secret: String,
}

/// What came of a test event.
#[derive(Serialize, JsonSchema)]
pub(super) struct Tested {
    id: Uuid,
    /// What the receiver answered with; null: nothing came back.
    status: Option<u16>,
    /// It was a success.
    accepted: bool,
    /// Why nothing came back.
    error: Option<String>,
}

/// How many deliveries will be sent once more.
#[derive(Serialize, JsonSchema)]
pub(super) struct Again {
    deliveries: u64,
}

pub(super) async fn reads(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    match ask.spec.operation {
        Operation::ListWebhooks => {
            let mut params = ask.params();
            let paging = params.paging();
            let partner = params.parsed::<PartnerId>("partner_id", "a UUID");
            params.finish()?;
            let rows = desk.admin.subscriptions(partner, page(paging)).await;
            Answer::ok(&List::of(rows.map_err(|error| store_problem(ask, error))?, paging))
        }
        Operation::ListDeliveries => {
            let mut params = ask.params();
            let paging = params.paging();
            let filter = DeliveryFilter {
                subscription: params.parsed("webhook_id", "a UUID"),
                partner: params.parsed("partner_id", "a UUID"),
                status: params.word("status", &DeliveryStatus::ALL.map(|status| (status.as_str(), status))),
            };
            params.finish()?;
            let rows = desk.admin.deliveries(&filter, page(paging)).await;
            Answer::ok(&List::of(rows.map_err(|error| store_problem(ask, error))?, paging))
        }
        _ => {
            ask.no_query()?;
            let found = desk.admin.subscription(ask.id()?).await.map_err(|error| store_problem(ask, error))?;
            Answer::versioned(StatusCode::OK, found.stamps.version, &found)
        }
    }
}

pub(super) async fn change(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    ask.no_query()?;
    let (admin, actor) = (&desk.admin, &desk.actor);
    match ask.spec.operation {
        Operation::CreateWebhook => create(desk, ask).await,
        Operation::RotateWebhook => rotate(desk, ask).await,
        Operation::DeleteWebhook => {
            let written = admin.delete_subscription(actor, ask.id()?, ask.expected()?.version()).await;
            Answer::ok(&desk.done(ask, written).await?)
        }
        Operation::TestWebhook => test(desk, ask).await,
        Operation::ResealWebhooks => {
            if desk.gateway.settings.webhooks.secret_keys.is_empty() {
                let message =
                    "there is no key to encrypt with: add one under `webhooks.secret_keys` (a `kid` and a `key_file`)";
                return Err(Problem::new(ErrorCode::ValidationError, message));
            }
            let written = admin.reseal_subscriptions(actor).await;
            Answer::ok(&desk.done(ask, written).await?)
        }
        Operation::RedeliverDead => {
            let written = admin.redeliver(actor, Redeliver::DeadOf(ask.id()?)).await;
            Answer::ok(&Again { deliveries: desk.done(ask, written).await? })
        }
        Operation::Redeliver => {
            let written = admin.redeliver(actor, Redeliver::One(ask.id()?)).await;
            Answer::ok(&Again { deliveries: desk.done(ask, written).await? })
        }
        _ => {
            let (id, expected, body) = (ask.id()?, ask.expected()?, ask.input::<WebhookBody>()?);
            if body.partner_id.is_some() {
                return Err(invalid("partner_id", "is fixed: subscribe the other partner"));
            }
            let written = admin.update_subscription(actor, id, expected.version(), &input(desk, body)?).await;
            let record = desk.done(ask, written).await?;
            Answer::versioned(StatusCode::OK, record.stamps.version, &record)
        }
    }
}

/// What is to be written, its address judged by the sender's rules.
fn input(desk: &Desk, body: WebhookBody) -> Result<SubscriptionInput, Problem> {
    if let Some(url) = &body.url {
        Endpoint::parse(url, &desk.gateway.settings.webhooks).map_err(|error| invalid("url", error.to_string()))?;
    }
    let WebhookBody { url, description, events, enabled, .. } = body;
    Ok(SubscriptionInput { url, description, events, enabled, rotate: None })
}

async fn create(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let body: WebhookBody = ask.input()?;
    let Some(partner) = &body.partner_id else { return Err(invalid("partner_id", "is required")) };
    let partner: PartnerId = partner.trim().parse().map_err(|_| invalid("partner_id", "is not a uuid"))?;
    if body.url.is_none() {
        return Err(invalid("url", "is required"));
    }
    let input = input(desk, body)?;
    let secret = secret()?;
    let written = desk.admin.create_subscription(&desk.actor, partner, &secret, &input).await;
    let subscription = desk.done(ask, written).await?;
    with_secret(StatusCode::CREATED, subscription, secret)
}

async fn rotate(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let (id, expected, body) = (ask.id()?, ask.expected()?, ask.input::<RotateBody>()?);
    let hours = body.overlap_hours.unwrap_or(OVERLAP_HOURS);
    if hours > MOST_OVERLAP_HOURS {
        return Err(invalid("overlap_hours", format!("must be at most {MOST_OVERLAP_HOURS}")));
    }
    let until = Millis(Millis::now().0.saturating_add(i64::from(hours) * 3_600_000));
    let secret = secret()?;
    let input = SubscriptionInput { rotate: Some((secret.clone(), until)), ..SubscriptionInput::default() };
    let written = desk.admin.update_subscription(&desk.actor, id, expected.version(), &input).await;
    let subscription = desk.done(ask, written).await?;
    with_secret(StatusCode::OK, subscription, secret)
}

async fn test(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let id = ask.id()?;
    let (status, error) = match trial(&desk.database, &desk.gateway.settings.webhooks, id).await {
        Ok(answer) => (Some(answer.status), None),
        Err(TrialError::Send(error)) => (None, Some(error.to_string())),
        Err(TrialError::Store(error)) => return Err(store_problem(ask, error)),
        Err(TrialError::Address(message)) => return Err(invalid("url", message)),
        Err(error @ TrialError::Vault(_)) => return Err(Problem::new(ErrorCode::Conflict, error.to_string())),
        Err(TrialError::Payload(error)) => return Err(trouble(ask, Trouble::Internal(error.to_string()))),
    };
    let accepted = status.is_some_and(|status| status.is_success());
    Answer::ok(&Tested { id, status: status.map(|status| status.as_u16()), accepted, error })
}

fn secret() -> Result<String, Problem> {
    new_secret().map_err(|error| {
        tracing::error!(%error, "no secret can be made");
        Problem::new(ErrorCode::InternalError, "")
    })
}

fn with_secret(status: StatusCode, subscription: SubscriptionRecord, secret: String) -> Result<Answer, Problem> {
    let version = subscription.stamps.version;
    Answer::versioned(status, version, &WithSecret { subscription, secret })
}
