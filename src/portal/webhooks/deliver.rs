//! The queue's work in the background: claims what is due, asks whether it may still be told, sends it, and writes how
//! that ended.
//!
//! Invariants: nothing is sent without a lease, so two replicas never send one delivery at once; nothing is sent that
//! the link, as it stands at that moment, does not allow (I7): where that cannot be told, the delivery waits.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::task::{Id, JoinSet};
use uuid::Uuid;

use super::{
    endpoint::Endpoint,
    sender::{Answer, Message, Sender},
};
use crate::{
    config::settings::WebhookSettings,
    domain::{About, EventType, LinkFacts, Millis, Permission},
    identity::{Vault, VaultError},
    policy::Policies,
    portal::{
        metrics::{DeliveryEnd, Metrics},
        unattended,
    },
    store::{
        Database, Directory, Reading, StoreError,
        deliveries::{DeliveryQueue, Job, Tried},
        ending::announce_ends,
    },
};

/// How often the queue is looked at.
const POLL: Duration = Duration::from_secs(1);
/// How often ends of links are looked for.
const ENDS_INTERVAL: Duration = Duration::from_secs(60);
/// A lease is longer than a try by this; a delivery whose process died waits as long.
const LEASE_SLACK: Duration = Duration::from_secs(30);
/// Wait while link data is stale.
const POSTPONED: Duration = Duration::from_secs(5);
/// Wait while a secret cannot be opened: until an operator has put the key back.
const KEYLESS: Duration = Duration::from_secs(60);
/// Longest wait between two tries, jitter aside.
const MOST_BACKOFF: Duration = Duration::from_secs(86_400);
/// Each wait is so many times the one before.
const FACTOR: u32 = 4;
const MAX_ERROR_CHARS: usize = 500;

/// Works on the queue.
#[derive(Debug)]
pub struct Deliverer {
    database: Database,
    queue: DeliveryQueue,
    sender: Sender,
    vault: Vault,
    settings: WebhookSettings,
    directory: Arc<Directory>,
    policies: Arc<Policies>,
    metrics: Arc<Metrics>,
}

/// The body of a delivery.
#[derive(Serialize)]
struct Payload<'a> {
    r#type: &'a str,
    timestamp: Millis,
    data: &'a RawValue,
}

/// Type, time of the event and its data, as the specification wants them.
pub fn payload(event: &str, at: Millis, data: &RawValue) -> Result<Bytes, serde_json::Error> {
    Ok(serde_json::to_vec(&Payload { r#type: event, timestamp: at, data })?.into())
}

impl Deliverer {
    pub fn new(
        settings: &WebhookSettings,
        database: &Database,
        directory: &Arc<Directory>,
        policies: &Arc<Policies>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            database: database.clone(),
            queue: DeliveryQueue::new(database),
            sender: Sender::new(settings),
            vault: Vault::new(&settings.secret_keys),
            settings: settings.clone(),
            directory: Arc::clone(directory),
            policies: Arc::clone(policies),
            metrics: Arc::clone(metrics),
        }
    }

    /// Sends until dropped; tries that are under way are then broken off, and made again when their leases end.
    pub async fn run(self: Arc<Self>) {
        let mut tries: JoinSet<()> = JoinSet::new();
        let mut under_way: HashMap<Id, Uuid> = HashMap::new();
        loop {
            let free = self.settings.concurrency.saturating_sub(tries.len());
            let of_one = self.settings.concurrency_per_subscription;
            let is_full = |under_way: &HashMap<Id, Uuid>, subscription: Uuid| {
                under_way.values().filter(|busy| **busy == subscription).count() >= of_one
            };
            let mut full: Vec<Uuid> = under_way.values().copied().filter(|one| is_full(&under_way, *one)).collect();
            full.sort_unstable();
            full.dedup();
            match self.queue.due(Millis::now(), free, of_one, &full).await {
                Ok(due) => {
                    for (delivery, subscription) in due {
                        if !is_full(&under_way, subscription) {
                            let task = tries.spawn(Arc::clone(&self).one(delivery));
                            under_way.insert(task.id(), subscription);
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "the queue of webhook deliveries cannot be read"),
            }
            let ended = tokio::select! {
                () = tokio::time::sleep(POLL) => None,
                Some(ended) = tries.join_next_with_id() => Some(ended),
            };
            match ended {
                Some(Ok((id, ()))) => {
                    under_way.remove(&id);
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "a webhook delivery ended by a panic");
                    under_way.remove(&error.id());
                }
                None => {}
            }
        }
    }

    /// Looks for ends of links, and for times that a wrong clock has left behind, until dropped.
    pub async fn keep(self: Arc<Self>) {
        loop {
            let now = Millis::now();
            match announce_ends(&self.database, &self.settings.expiry_notice_days, now).await {
                Ok(0) => {}
                Ok(told) => tracing::info!(told, "ends of links are announced"),
                Err(error) => tracing::warn!(%error, "ends of links cannot be looked for"),
            }
            if let Err(error) = self.queue.mend(now).await {
                tracing::warn!(%error, "the queue of webhook deliveries cannot be looked through");
            }
            tokio::time::sleep(jittered(ENDS_INTERVAL, random())).await;
        }
    }

    async fn one(self: Arc<Self>, delivery: Uuid) {
        if let Err(error) = self.try_once(delivery).await {
            // The lease ends by itself, and the delivery is tried again.
            tracing::warn!(%delivery, %error, "a webhook delivery cannot be worked on");
        }
    }

    async fn try_once(&self, delivery: Uuid) -> Result<(), StoreError> {
        let now = Millis::now();
        let until = after(now, self.settings.timeout + LEASE_SLACK, 1);
        let Some(job) = self.queue.claim(delivery, now, until).await? else { return Ok(()) };
        let tried = self.attempt(&job).await;
        match &tried {
            Tried::Dead { error, .. } => {
                tracing::warn!(%delivery, partner = %job.partner_id, event = %job.event, error, "a webhook delivery is dead");
            }
            Tried::Dropped { reason } => {
                tracing::info!(%delivery, event = %job.event, reason, "a webhook delivery is dropped")
            }
            Tried::Delivered { .. } | Tried::Again { .. } | Tried::Postponed { .. } => {}
        }
        self.metrics.delivery(job.event, end(&tried));
        if !self.queue.finish(&job, Millis::now(), &tried).await? {
            tracing::warn!(%delivery, "a webhook delivery took longer than its lease: it may be sent twice");
        }
        Ok(())
    }

    async fn attempt(&self, job: &Job) -> Tried {
        let now = Millis::now();
        let Ok(portfolio) = self.directory.portfolio(job.partner_id, Reading::Fresh).await else {
            return Tried::Postponed { at: after(now, jittered(POSTPONED, random()), 1) };
        };
        let link = portfolio.as_ref().and_then(|portfolio| portfolio.link(job.tenant_id.as_str()));
        let link = link.filter(|link| link.link.id == job.link_id);
        match may_be_told(&self.policies, job, link, now) {
            Ok(true) => {}
            Ok(false) => return Tried::Dropped { reason: "the link does not allow it any more".to_owned() },
            Err(unattended::Undecided) => return Tried::Postponed { at: after(now, jittered(POSTPONED, random()), 1) },
        }
        let secrets = match self.secrets(job) {
            Ok(secrets) => secrets,
            Err(error) => {
                tracing::error!(subscription = %job.subscription_id, %error, "webhook deliveries wait for a key");
                return Tried::Postponed { at: after(now, jittered(KEYLESS, random()), 1) };
            }
        };
        match self.send(job, &secrets, now).await {
            Ok(answer) if answer.status.is_success() => Tried::Delivered { status: answer.status.as_u16() },
            Ok(answer) if answer.status == StatusCode::GONE => Tried::Dead {
                status: Some(answer.status.as_u16()),
                error: "the receiver says that it is gone for good".to_owned(),
            },
            Ok(answer) => {
                let note = if answer.status.is_redirection() { "; redirects are not followed" } else { "" };
                let error = format!("the receiver answered with {}{note}", answer.status);
                self.failed(job, Some(answer.status.as_u16()), answer.retry_after, error)
            }
            Err(error) => self.failed(job, None, None, error),
        }
    }

    /// Every secret that signs now.
    fn secrets(&self, job: &Job) -> Result<Vec<String>, VaultError> {
        let sealed = std::iter::once(&job.secret).chain(&job.previous_secret);
        sealed.map(|text| self.vault.open(job.subscription_id, text)).collect()
    }

    async fn send(&self, job: &Job, secrets: &[String], now: Millis) -> Result<Answer, String> {
        let endpoint = Endpoint::parse(&job.url, &self.settings).map_err(|error| error.to_string())?;
        let data = RawValue::from_string(job.data.clone()).map_err(|_| "the stored event is damaged".to_owned())?;
        let body = payload(job.event.as_str(), job.at, &data).map_err(|error| error.to_string())?;
        let secrets = secrets.iter().map(String::as_str).collect();
        let id = job.event_id.to_string();
        let message = Message { id: &id, timestamp_s: now.0.div_euclid(1_000), body, secrets };
        self.sender.send(&endpoint, message).await.map_err(|error| error.to_string())
    }

    fn failed(&self, job: &Job, status: Option<u16>, asked: Option<Duration>, error: String) -> Tried {
        let error: String = error.chars().take(MAX_ERROR_CHARS).collect();
        let tries = u32::try_from(job.attempts).unwrap_or(u32::MAX);
        if tries.saturating_add(1) >= self.settings.attempts {
            return Tried::Dead { status, error };
        }
        let wait = next_wait(self.settings.first_retry, tries, asked, random());
        Tried::Again { at: after(Millis::now(), wait, 1), status, error }
    }
}

/// As it is counted.
fn end(tried: &Tried) -> DeliveryEnd {
    match tried {
        Tried::Delivered { .. } => DeliveryEnd::Delivered,
        Tried::Again { .. } => DeliveryEnd::Retried,
        Tried::Dead { .. } => DeliveryEnd::Dead,
        Tried::Dropped { .. } => DeliveryEnd::Dropped,
        Tried::Postponed { .. } => DeliveryEnd::Postponed,
    }
}

/// Whether the partner may still have this, by the link as it stands now.
fn may_be_told(
    policies: &Policies,
    job: &Job,
    link: Option<&Arc<LinkFacts>>,
    now: Millis,
) -> Result<bool, unattended::Undecided> {
    // A suspended partner, tenant or link is told nothing, not even that a link was revoked: who listens there may be
    // the reason for it.
    let Some(link) = link.filter(|link| !link.is_suspended()) else { return Ok(false) };
    let Some(permission) = job.event.permission() else { return Ok(true) };
    if (job.event, job.about) == (EventType::StatusChanged, About::Link) {
        // A link that waits for approval again is not live, and its partner is told of that and of nothing else.
        let granted = link.effective(policies.current().roles());
        let held = Permission::parse(permission).is_some_and(|permission| granted.contains(permission));
        let mut parents = link.ancestors.iter();
        return Ok(held && parents.all(|one| one.link.is_active) && link.link.is_active && link.partners_active());
    }
    Ok(unattended::permit(policies, link, permission, now)?.is_some())
}

/// The wait after so many earlier failures: the receiver may ask for a longer one, and for no shorter one.
fn next_wait(first: Duration, failures: u32, asked: Option<Duration>, random: f64) -> Duration {
    jittered(backoff(first, failures), random).max(asked.unwrap_or_default())
}

/// The same before jitter.
fn backoff(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(FACTOR.saturating_pow(failures)).min(MOST_BACKOFF)
}

/// A fifth more or less, so that what failed together is not tried together. `random`: 0 to 1.
pub(in crate::portal) fn jittered(wait: Duration, random: f64) -> Duration {
    wait.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0))
}

/// 0 to 1.
pub(in crate::portal) fn random() -> f64 {
    let [high, low, ..] = *Uuid::new_v4().as_bytes();
    f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX)
}

/// `sign` of 1: later; -1: before.
pub(in crate::portal) fn after(now: Millis, wait: Duration, sign: i64) -> Millis {
    let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    Millis(now.0.saturating_add(wait.saturating_mul(sign)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_tries_take_about_a_day() {
        let waits: Vec<Duration> = (0..7).map(|failures| backoff(Duration::from_secs(15), failures)).collect();
        assert_eq!(waits[..3], [15, 60, 240].map(Duration::from_secs));
        let day = waits.iter().sum::<Duration>().as_secs_f64() / 86_400.0;
        assert!((0.8..=1.0).contains(&day), "{day}");
        assert_eq!(backoff(Duration::from_secs(15), 40), MOST_BACKOFF);
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_wait_only() {
        let wait = |asked: u64| next_wait(Duration::from_secs(15), 1, Some(Duration::from_secs(asked)), 0.5);
        assert_eq!((wait(1), wait(600)), (Duration::from_secs(60), Duration::from_secs(600)));
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let wait = Duration::from_secs(10);
        assert_eq!((jittered(wait, 0.0), jittered(wait, 1.0)), (Duration::from_secs(8), Duration::from_secs(12)));
        for _ in 0..100 {
            assert!((0.0..=1.0).contains(&random()));
        }
    }

    #[test]
    fn a_payload_has_type_time_and_exact_data() {
        let data = RawValue::from_string(r#"{"outstanding":90071992547409.93}"#.into()).unwrap();
        let body = payload("partner.tenant.sla_breach", Millis(0), &data).unwrap();
        let expected = r#"{"type":"partner.tenant.sla_breach","timestamp":"1970-01-01T00:00:00.000Z","data":{"outstanding":90071992547409.93}}"#;
        assert_eq!(body, expected.as_bytes());
    }
}
