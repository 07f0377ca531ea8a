//! `linkgate webhook`: who is told of what, where, and what became of it.

use std::fmt;

use clap::{Args, Subcommand};
use serde::Serialize;
use uuid::Uuid;

use super::{
    outcome::{Exit, Failure, tell},
    store_context::{ActorArgs, PageArgs, StoreContext, runtime, yes},
};
use crate::{
    config::settings::WebhookSettings,
    domain::{EventType, Millis, PartnerId, ids::InvalidId},
    identity::Vault,
    portal::webhooks::{
        Endpoint,
        signature::new_secret,
        trial::{TrialError, trial},
    },
    store::{
        Actor, Database,
        admin::{Redeliver, Resealed, SubscriptionInput, SubscriptionRecord},
        deliveries::{DeliveryFilter, DeliveryStatus},
    },
};

/// Subscribe partners to events, and see what became of them.
#[derive(Debug, Args)]
pub struct WebhookArgs {
    #[command(flatten)]
    actor: ActorArgs,
    #[command(subcommand)]
    command: WebhookCommand,
}

#[derive(Debug, Subcommand)]
enum WebhookCommand {
    /// Subscribe a partner; the secret is shown once
    ///
    /// Example: linkgate webhook create --partner <UUID> --url https://hooks.example/linkgate --events sla_breach,link_revoked
    Create {
        #[arg(long, value_name = "UUID")]
        partner: PartnerId,
        /// Where events are posted to
        #[arg(long)]
        url: String,
        /// Event types, such as sla_breach [default: all]
        #[arg(long, value_delimiter = ',', value_name = "EVENT")]
        events: Option<Vec<EventType>>,
        /// For people
        #[arg(long)]
        description: Option<String>,
        /// Make it disabled: nothing is kept for it yet
        #[arg(long)]
        disabled: bool,
    },
    /// List subscriptions in the order of their ids
    List {
        /// Only of this partner
        #[arg(long, value_name = "UUID")]
        partner: Option<PartnerId>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one subscription
    Show {
        /// Its id, as `webhook list` shows it
        #[arg(value_parser = webhook_id)]
        id: Uuid,
    },
    /// Change the given fields, or the secret
    Update {
        /// Its id, as `webhook list` shows it
        #[arg(value_parser = webhook_id)]
        id: Uuid,
        #[arg(long)]
        url: Option<String>,
        /// Event types, all of them that are wanted from now on
        #[arg(long, value_delimiter = ',', value_name = "EVENT")]
        events: Option<Vec<EventType>>,
        /// Empty clears it
        #[arg(long)]
        description: Option<String>,
        /// `false` keeps what waits and adds nothing until it is `true` again
        #[arg(long, value_name = "BOOL")]
        enabled: Option<bool>,
        /// Make a new secret and show it; the old one signs too for a while
        #[arg(long)]
        rotate_secret: bool,
        /// Hours for which the old secret signs too
        #[arg(long, value_name = "HOURS", default_value_t = 24, requires = "rotate_secret",
              value_parser = clap::value_parser!(u32).range(0..=720))]
        overlap_hours: u32,
        /// Refuse if it is not at this version
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<i64>,
    },
    /// Remove a subscription with all its deliveries
    Delete {
        /// Its id, as `webhook list` shows it
        #[arg(value_parser = webhook_id)]
        id: Uuid,
    },
    /// Post a test event now and say what came back
    Test {
        /// Its id, as `webhook list` shows it
        #[arg(value_parser = webhook_id)]
        id: Uuid,
    },
    /// Encrypt every secret with the first key of `webhooks.secret_keys`
    ///
    /// After a key was added or put in front: then the earlier keys can be taken out of the list.
    Reseal,
    /// List deliveries, newest first
    Deliveries {
        /// Only of this subscription
        #[arg(long, value_name = "UUID", value_parser = webhook_id)]
        subscription: Option<Uuid>,
        /// Only of this partner
        #[arg(long, value_name = "UUID")]
        partner: Option<PartnerId>,
        /// pending, delivered, dead or dropped
        #[arg(long, value_parser = status)]
        status: Option<DeliveryStatus>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Send a delivery once more, whatever became of it
    Redeliver {
        /// Id of the delivery
        #[arg(required_unless_present = "dead_of", conflicts_with = "dead_of")]
        id: Option<Uuid>,
        /// All dead ones of this subscription
        #[arg(long, value_name = "UUID", value_parser = webhook_id)]
        dead_of: Option<Uuid>,
    },
}

fn status(text: &str) -> Result<DeliveryStatus, String> {
    DeliveryStatus::parse(text).ok_or_else(|| "one of pending, delivered, dead, dropped".to_owned())
}

/// A subscription with the secret that is shown this once.
#[derive(Serialize)]
struct WithSecret<'a> {
    #[serde(flatten)]
    subscription: &'a SubscriptionRecord,
    secret: &'a str,
}

#[derive(Serialize)]
struct Tested {
    id: Uuid,
    status: u16,
    accepted: bool,
}

#[derive(Serialize)]
struct Again {
    deliveries: u64,
}

fn secret() -> Result<String, Failure> {
    new_secret().map_err(Failure::failed)
}

fn invalid(error: impl fmt::Display) -> Failure {
    Failure::new(Exit::Invalid, error)
}

/// Told where a secret is made: only then does one stand in the database.
fn warn_of_plain_secrets(settings: &WebhookSettings) {
    if settings.secret_keys.is_empty() {
        tell(format_args!(
            "warning: this secret stands unencrypted in the database: add a key under `webhooks.secret_keys`, then run \
             `linkgate webhook reseal`"
        ));
    }
}

fn webhook_id(text: &str) -> Result<Uuid, InvalidId> {
    text.parse().map_err(|_| InvalidId { what: "webhook", list: "webhook list" })
}

pub fn run(args: WebhookArgs, settings: &WebhookSettings, context: &StoreContext<'_>) -> Result<(), Failure> {
    let actor = args.actor.actor();
    match args.command {
        WebhookCommand::Create { partner, url, events, description, disabled } => {
            Endpoint::parse(&url, settings).map_err(invalid)?;
            let secret = secret()?;
            let input =
                SubscriptionInput { url: Some(url), description, events, enabled: Some(!disabled), rotate: None };
            let made = context.with(|admin| {
                let (admin, secret) = (admin.with_vault(Vault::new(&settings.secret_keys)), secret.clone());
                async move { Ok(admin.create_subscription(&actor, partner, &secret, &input).await?) }
            })?;
            warn_of_plain_secrets(settings);
            context.show(&WithSecret { subscription: &made.value, secret: &secret })
        }
        WebhookCommand::List { partner, page } => {
            let found = context.with(|admin| async move { Ok(admin.subscriptions(partner, page.page()).await?) })?;
            context.console.list(&found, &["webhook", "partner", "url", "events", "enabled"], |one| {
                let events: Vec<&str> = one.events.iter().map(|event| event.as_str()).collect();
                vec![
                    one.id.to_string(),
                    one.partner_id.to_string(),
                    one.url.clone(),
                    events.join("\n"),
                    yes(one.enabled),
                ]
            })
        }
        WebhookCommand::Show { id } => {
            context.show(&context.with(|admin| async move { Ok(admin.subscription(id).await?) })?)
        }
        WebhookCommand::Update {
            id,
            url,
            events,
            description,
            enabled,
            rotate_secret,
            overlap_hours,
            expect_version,
        } => {
            if let Some(url) = &url {
                Endpoint::parse(url, settings).map_err(invalid)?;
            }
            let rotated = if rotate_secret { Some(secret()?) } else { None };
            let until = Millis(Millis::now().0.saturating_add(i64::from(overlap_hours) * 3_600_000));
            let rotate = rotated.clone().map(|secret| (secret, until));
            let input = SubscriptionInput { url, description, events, enabled, rotate };
            let vault = Vault::new(&settings.secret_keys);
            let written = context.with(|admin| async move {
                let admin = admin.with_vault(vault);
                Ok(admin.update_subscription(&actor, id, expect_version, &input).await?)
            })?;
            match &rotated {
                Some(secret) => {
                    warn_of_plain_secrets(settings);
                    context.show(&WithSecret { subscription: &written.value, secret })
                }
                None => context.show(&written.value),
            }
        }
        WebhookCommand::Delete { id } => {
            let found = context.with(|admin| async move { Ok(admin.subscription(id).await?) })?;
            context.console.confirm(&format!(
                "removes webhook {id} to {} with all its deliveries, those that wait included",
                found.url
            ))?;
            let gone = context.with(|admin| async move { Ok(admin.delete_subscription(&actor, id, None).await?) })?;
            context.show(&gone.value)
        }
        WebhookCommand::Test { id } => test(id, settings, context),
        WebhookCommand::Reseal => reseal(actor, settings, context),
        WebhookCommand::Deliveries { subscription, partner, status, page } => {
            let filter = DeliveryFilter { subscription, partner, status };
            let found = context.with(|admin| async move { Ok(admin.deliveries(&filter, page.page()).await?) })?;
            let header = ["delivery", "event", "tenant", "status", "tries", "next try", "last answer"];
            context.console.list(&found, &header, |one| {
                let status = one.last_status.map(|status| status.to_string());
                vec![
                    one.id.to_string(),
                    one.event.clone(),
                    one.tenant_id.to_string(),
                    one.status.as_str().to_owned(),
                    one.attempts.to_string(),
                    one.next_attempt_at.map(|at| at.to_string()).unwrap_or_default(),
                    one.last_error.clone().or(status).unwrap_or_default(),
                ]
            })
        }
        WebhookCommand::Redeliver { id, dead_of } => {
            let which = match (id, dead_of) {
                (Some(id), _) => Redeliver::One(id),
                (None, Some(subscription)) => Redeliver::DeadOf(subscription),
                (None, None) => return Err(Failure::new(Exit::Usage, "name a delivery, or --dead-of a webhook")),
            };
            let count = context.with(|admin| async move { Ok(admin.redeliver(&actor, which).await?) })?;
            let deliveries = count.value;
            context.console.show(&Again { deliveries }, format!("{deliveries} will be sent once more"))
        }
    }
}

fn reseal(actor: Actor, settings: &WebhookSettings, context: &StoreContext<'_>) -> Result<(), Failure> {
    let vault = Vault::new(&settings.secret_keys);
    let Some(kid) = vault.sealing_key().map(str::to_owned) else {
        return Err(Failure::new(
            Exit::Invalid,
            "there is no key to encrypt with: add one under `webhooks.secret_keys` (a `kid` and a `key_file`)",
        ));
    };
    let done = context.with(|admin| async move { Ok(admin.with_vault(vault).reseal_subscriptions(&actor).await?) })?;
    let Resealed { subscriptions, unchanged } = done.value;
    let text = format!("{subscriptions} encrypted with the key `{kid}`; {unchanged} stood so already");
    context.console.show(&done.value, text)
}

/// Sends from this process, by the rules of the running gateway.
fn test(id: Uuid, settings: &WebhookSettings, context: &StoreContext<'_>) -> Result<(), Failure> {
    let answer = runtime()?.block_on(async {
        let db = Database::open(context.database).await?;
        db.check_migrated().await?;
        let answer = trial(&db, settings, id).await;
        db.close().await;
        answer.map_err(|error| match error {
            TrialError::Store(error) => error.into(),
            TrialError::Address(message) => invalid(message),
            error => Failure::failed(error),
        })
    })?;
    let tested = Tested { id, status: answer.status.as_u16(), accepted: answer.status.is_success() };
    if !tested.accepted {
        return Err(Failure::failed(format!("the receiver answered with {}", answer.status)));
    }
    context.console.show(&tested, format!("the receiver answered with {}", answer.status))
}
