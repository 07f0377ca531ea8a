//! The sections `alerts` and `webhooks`.

use super::{DAY, FieldPath, Resolver, millis, seconds, secrets::SecretWays};
use crate::{
    config::{
        raw::portal::{RawAlerts, RawSecretKey, RawWebhooks},
        settings::{AlertSettings, WebhookSettings},
    },
    identity::VaultKey,
};

/// Longest time for which anything is kept.
const TEN_YEARS: u64 = 3_650 * 86_400;
/// Breaches that ended are read for 30 days; forgotten earlier they would come back as new.
const LEAST_KEPT: u64 = 31 * 86_400;
/// Shortest key for secrets at rest, in bytes.
const SECRET_KEY_MIN_BYTES: usize = 32;

impl Resolver<'_> {
    pub(super) fn alerts(&mut self, raw: &RawAlerts, connected: bool) -> AlertSettings {
        let at = FieldPath::default().key("alerts");
        AlertSettings {
            // Without a connector there is nobody to ask, and a warning each time would only hide others.
            background: raw.background && connected,
            interval: self.duration(&at.key("interval"), &raw.interval, seconds(1)..=DAY),
            concurrency: self.concurrency(&at.key("concurrency"), raw.concurrency),
            timeout: self.duration(&at.key("timeout"), &raw.timeout, millis(100)..=seconds(300)),
            fresh_for: self.duration(&at.key("fresh_for"), &raw.fresh_for, seconds(0)..=DAY),
            keep_resolved: self.duration(
                &at.key("keep_resolved"),
                &raw.keep_resolved,
                seconds(LEAST_KEPT)..=seconds(TEN_YEARS),
            ),
        }
    }

    pub(super) fn webhooks(&mut self, raw: &RawWebhooks) -> WebhookSettings {
        let at = FieldPath::default().key("webhooks");
        let most = raw.expiry_notice_days.iter().filter(|days| !(1..=365).contains(*days)).count();
        if most > 0 || raw.expiry_notice_days.len() > 10 {
            self.fail(&at.key("expiry_notice_days"), "holds at most ten numbers, each from 1 to 365");
        }
        let mut days = raw.expiry_notice_days.clone();
        days.sort_unstable();
        days.dedup();
        if !(1..=20).contains(&raw.attempts) {
            self.fail(&at.key("attempts"), "must be from 1 to 20");
        }
        WebhookSettings {
            enabled: raw.enabled,
            timeout: self.duration(&at.key("timeout"), &raw.timeout, millis(100)..=seconds(60)),
            attempts: raw.attempts,
            first_retry: self.duration(&at.key("first_retry"), &raw.first_retry, millis(10)..=DAY),
            concurrency: self.concurrency(&at.key("concurrency"), raw.concurrency),
            concurrency_per_subscription: self
                .concurrency(&at.key("concurrency_per_subscription"), raw.concurrency_per_subscription),
            allow_http: raw.allow_http,
            allow_private: raw.allow_private,
            expiry_notice_days: days,
            keep_delivered: self.duration(
                &at.key("keep_delivered"),
                &raw.keep_delivered,
                seconds(3_600)..=seconds(TEN_YEARS),
            ),
            keep_dead: self.duration(&at.key("keep_dead"), &raw.keep_dead, seconds(3_600)..=seconds(TEN_YEARS)),
            secret_keys: self.secret_keys(&at.key("secret_keys"), &raw.secret_keys),
        }
    }

    fn secret_keys(&mut self, at: &FieldPath, raw: &[RawSecretKey]) -> Vec<VaultKey> {
        let mut keys: Vec<VaultKey> = Vec::with_capacity(raw.len());
        for (place, one) in raw.iter().enumerate() {
            let table = at.index(place);
            let ways = SecretWays {
                table: &table,
                name: "key",
                file: one.key_file.as_ref(),
                env: one.key_env.as_ref(),
                inline: one.key.as_ref(),
            };
            let secret = self.secret(&ways, SECRET_KEY_MIN_BYTES);
            if ways.file.is_none() && ways.env.is_none() && ways.inline.is_none() {
                self.fail(&table, "names no key: use `key_file` or `key_env`");
            }
            if one.kid.is_empty() {
                self.fail(&table.key("kid"), "is missing");
            } else if keys.iter().any(|earlier| earlier.kid == one.kid) {
                self.fail(&table.key("kid"), format!("`{}` stands twice", one.kid));
            } else {
                self.plain_name(&table.key("kid"), &one.kid);
            }
            keys.extend(secret.map(|secret| VaultKey { kid: one.kid.clone(), secret }));
        }
        keys
    }
}
