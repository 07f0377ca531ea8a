//! What shipping is configured with.

use std::path::PathBuf;

pub use super::form::Form;

/// Where the journal's lines go, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShipSettings {
    pub form: Form,
    pub stdout: bool,
    pub file: Option<FileSettings>,
}

/// A file, and those that it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    pub path: PathBuf,
    /// At this size another one is begun, in bytes.
    pub size: u64,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetSettings {
    Stdout,
    File(FileSettings),
}

impl ShipSettings {
    pub fn targets(&self) -> Vec<TargetSettings> {
        let file = self.file.clone().map(TargetSettings::File);
        self.stdout.then_some(TargetSettings::Stdout).into_iter().chain(file).collect()
    }
}

impl TargetSettings {
    /// For metrics, logs and the name of its position.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File(_) => "file",
        }
    }
}
