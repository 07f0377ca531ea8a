//! The section `audit`: the journal, its checkpoints, and where its lines are shipped to.

use std::time::Duration;

use super::{DAY, Resolver, collector::RawCollector, millis, seconds, sections::section};
use crate::{
    audit::{
        AuditSettings, Durability,
        evidence::CheckpointSettings,
        ship::settings::{FileSettings, Form, OtlpSettings, ShipSettings},
    },
    config::raw::audit::{RawAudit, RawAuditStore, RawDurability, RawShip, RawShipForm, RawShipOtlp},
    config::settings::DatabaseSettings,
    identity::settings::SigningSettings,
};

const MINUTE: Duration = Duration::from_secs(60);

impl Resolver<'_> {
    pub(super) fn audit(&mut self, raw: &RawAudit, retention: Option<Duration>) -> AuditSettings {
        let at = section("audit");
        AuditSettings {
            dir: self.path(&at.key("dir"), &raw.dir),
            segment_bytes: self.size(&at.key("segment_size"), &raw.segment_size, 1 << 16..=1 << 34),
            segment_age: retention.map(|age| (age / 8).clamp(MINUTE, DAY)),
            writes: durability(raw.writes),
            reads: durability(raw.reads),
            commit_timeout: self.duration(&at.key("commit_timeout"), &raw.commit_timeout, millis(10)..=seconds(60)),
            flush_interval: self.duration(&at.key("flush_interval"), &raw.flush_interval, millis(1)..=seconds(10)),
        }
    }

    pub(super) fn retention(&mut self, raw: &RawAudit, signing: Option<&SigningSettings>) -> Option<Duration> {
        let field = section("audit").key("retention");
        // Only from a signed checkpoint on can a journal without its beginning be verified.
        if raw.retention.is_some() && raw.checkpoint_key_file.is_none() && signing.is_none() {
            self.fail(&field, "needs a key that signs checkpoints: set `audit.checkpoint_key_file`");
        }
        self.optional_duration(&field, raw.retention.as_ref(), seconds(3600)..=DAY * 36_500)
    }

    /// Whether `audit.store` is the database.
    pub(super) fn kept_in_database(&mut self, raw: &RawAudit, database: &DatabaseSettings) -> bool {
        let at = section("audit");
        let kept = raw.store == RawAuditStore::Postgres;
        if kept && !matches!(database, DatabaseSettings::Postgres { .. }) {
            self.fail(&at.key("store"), "needs a Postgres database: name its URL in [database]");
        }
        kept
    }

    pub(super) fn checkpoints(&mut self, raw: &RawAudit, signing: Option<&SigningSettings>) -> CheckpointSettings {
        let at = section("audit");
        let further = at.key("checkpoint_further_keys");
        let key_file = raw.checkpoint_key_file.as_ref();
        let interval = &raw.checkpoint_interval;
        CheckpointSettings {
            key_file: key_file.map(|text| self.readable(&at.key("checkpoint_key_file"), text)),
            signing: signing
                .map(|signing| signing.keys.iter().map(|key| key.path.clone()).collect())
                .unwrap_or_default(),
            further_keys: raw
                .checkpoint_further_keys
                .iter()
                .enumerate()
                .map(|(place, text)| self.readable(&further.index(place), text))
                .collect(),
            interval: self.duration(&at.key("checkpoint_interval"), interval, seconds(1)..=seconds(86_400)),
        }
    }

    pub(super) fn ship(&mut self, raw: &RawShip, audit: &AuditSettings) -> ShipSettings {
        let at = section("audit").key("ship");
        let size = self.size(&at.key("file_size"), &raw.file_size, 1 << 16..=1 << 40);
        let file = raw.file.as_ref().map(|text| {
            let path = self.path(&at.key("file"), text);
            if path.parent() == Some(&audit.dir) {
                self.fail(&at.key("file"), "lies in `audit.dir`, which is the journal's own: name another folder");
            }
            FileSettings { path, size }
        });
        let form = match raw.lines {
            RawShipForm::Public => Form::Public,
            RawShipForm::Full => Form::Full,
        };
        ShipSettings { form, stdout: raw.stdout, file, otlp: self.otlp(&raw.otlp) }
    }
}

impl Resolver<'_> {
    fn otlp(&mut self, raw: &RawShipOtlp) -> Option<OtlpSettings> {
        let at = section("audit").key("ship").key("otlp");
        let RawShipOtlp { endpoint, headers, timeout, tls } = raw;
        let raw = RawCollector { endpoint: endpoint.as_ref(), headers, timeout, tls };
        let (collector, tls) = self.collector(&at, &raw, "https://collector:4318/v1/logs")?;
        Some(OtlpSettings { collector, tls })
    }
}

pub(super) fn durability(raw: RawDurability) -> Durability {
    match raw {
        RawDurability::Memory => Durability::Memory,
        RawDurability::Os => Durability::Os,
        RawDurability::Disk => Durability::Disk,
    }
}
