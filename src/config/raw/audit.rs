//! The raw mirror of the section `audit`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    collector::RawCollectorHeader,
    form::{raw, words},
    tls::RawClientTls,
};
use crate::config::scalar::{DurationText, SizeText};

raw! {
    /// The audit journal.
    struct RawAudit {
        /// Folder of the journal; one server at a time.
        dir: String = "audit".to_owned(),
        /// Where the journal is kept.
        store: RawAuditStore = RawAuditStore::Disk,
        /// Size at which a segment is closed.
        segment_size: SizeText = SizeText::of("64MiB"),
        /// How old records get: what is older goes by itself, once it is signed, indexed and shipped. Not set: nothing goes.
        retention: Option<DurationText> = None,
        /// Durability of routes of class write and export, before the upstream is called.
        writes: RawDurability = RawDurability::Disk,
        /// Durability of routes of class read.
        reads: RawDurability = RawDurability::Os,
        /// Longest wait for stable storage before a request is refused.
        commit_timeout: DurationText = DurationText::of("2s"),
        /// How often buffered records are written at the latest.
        flush_interval: DurationText = DurationText::of("100ms"),
        /// PKCS#8 PEM file of an Ed25519 key that signs checkpoints of the chain. Not set: the first Ed25519 key of [signing].
        checkpoint_key_file: Option<String> = None,
        /// Public keys (JWKS or PEM) that signed earlier checkpoints or will sign later ones; published too.
        checkpoint_further_keys: Vec<String> = Vec::new(),
        /// Pause between two checkpoints while something is written.
        checkpoint_interval: DurationText = DurationText::of("60s"),
        /// Where the lines of the journal are shipped to.
        ship: RawShip = RawShip::default(),
    }

    /// Where the lines of the journal are shipped to. Nowhere, unless a target is set.
    struct RawShip {
        /// What of a line is shipped.
        lines: RawShipForm = RawShipForm::Public,
        /// To standard output.
        stdout: bool = false,
        /// To a collector that speaks OpenTelemetry's OTLP over HTTP.
        otlp: RawShipOtlp = RawShipOtlp::default(),
        /// To this file.
        file: Option<String> = None,
        /// Size at which the file is renamed to `FILE.SEQ`, by the number of its first line, and another one is begun.
        file_size: SizeText = SizeText::of("64MiB"),
    }
}

raw! {
    /// A collector that gets the lines of the journal as log records.
    struct RawShipOtlp {
        /// Where they are posted, with the path, such as `https://collector:4318/v1/logs`. Not set: to none.
        endpoint: Option<String> = None,
        /// Headers of each export, by name: what the collector asks for.
        headers: BTreeMap<String, RawCollectorHeader> = BTreeMap::new(),
        /// TLS to an `https` address.
        tls: RawClientTls = RawClientTls::default(),
        /// Longest wait for the collector's answer.
        timeout: DurationText = DurationText::of("10s"),
    }
}

words! {
    /// How durable an audit record is before the upstream is called.
    enum RawDurability {
        /// Batched; may be lost with the process.
        Memory = "memory",
        /// Survives the death of the process.
        Os = "os",
        /// On stable storage.
        Disk = "disk",
    }

    /// Where the journal is kept.
    enum RawAuditStore {
        /// In the folder, which lies on a volume.
        Disk = "disk",
        /// In the Postgres database; the folder is a working copy that may be lost with the replica.
        Postgres = "postgres",
    }

    /// What of a line of the journal is shipped.
    enum RawShipForm {
        /// What a tenant may see, and salted digests of the rest.
        Public = "public",
        /// The whole line, as it is in the journal.
        Full = "full",
    }
}
