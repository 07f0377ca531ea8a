//! What shipping is configured with.

use std::path::PathBuf;

pub use super::form::Form;
use crate::{collector::settings::CollectorSettings, tls::settings::ClientSettings};

/// Where the journal's lines go, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShipSettings {
    pub form: Form,
    pub stdout: bool,
    pub file: Option<FileSettings>,
    pub otlp: Option<OtlpSettings>,
}

/// A file, and those that it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    pub path: PathBuf,
    /// At this size another one is begun, in bytes.
    pub size: u64,
}

/// A collector: where it is, and how it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpSettings {
    pub collector: CollectorSettings,
    pub tls: ClientSettings,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetSettings {
    Stdout,
    File(FileSettings),
    Otlp(Box<OtlpSettings>),
}

impl ShipSettings {
    pub fn targets(&self) -> Vec<TargetSettings> {
        let file = self.file.clone().map(TargetSettings::File);
        let otlp = self.otlp.clone().map(|otlp| TargetSettings::Otlp(Box::new(otlp)));
        self.stdout.then_some(TargetSettings::Stdout).into_iter().chain(file).chain(otlp).collect()
    }
}

impl TargetSettings {
    /// For metrics, logs and the name of its position.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File(_) => "file",
            Self::Otlp(_) => "otlp",
        }
    }
}
