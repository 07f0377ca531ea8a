//! What commands share: the configuration in force, a runtime for those that wait, and the database.

use std::path::{Path, PathBuf};

use super::{
    outcome::{Console, Exit, Failure, tell},
    store_context::{StoreContext, runtime},
};
use crate::{
    app::ConfigSource,
    audit::AuditSettings,
    config::{self, Config},
    policy::Bundle,
    store::{AuditStore, Database, StoreError},
};

/// Read where neither `--config` nor `LINKGATE_CONFIG` names a file.
pub const DEFAULT_CONFIG: &str = "linkgate.toml";

/// Said before what is wrong with a configuration that has no file.
pub const NO_FILE: &str =
    "no configuration file: name one with --config, or run `linkgate config print-default > linkgate.toml`";

/// The command line's common part.
#[derive(Clone, Debug)]
pub struct Context {
    /// `--config` or `LINKGATE_CONFIG`.
    pub named: Option<PathBuf>,
    pub console: Console,
}

impl Context {
    /// The file that is read: the named one, else `linkgate.toml` here if there is one, else none (environment only).
    pub fn config_path(&self) -> Option<PathBuf> {
        self.named.clone().or_else(|| Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists()))
    }

    /// Where a running gateway reads its configuration again: the same file, the environment of its start.
    pub fn config_source(&self) -> ConfigSource {
        let path = self.config_path();
        let variables: Vec<_> = environment().collect();
        ConfigSource::new(path.clone().as_deref(), move || config::load(path.as_deref(), variables.iter().cloned()))
    }

    /// The configuration, or every error in it.
    pub fn config(&self) -> Result<Config, Failure> {
        let path = self.config_path();
        config::load(path.as_deref(), environment()).map_err(|errors| {
            let hint = if path.is_none() { format!("{NO_FILE}\n") } else { String::new() };
            Failure::new(Exit::Invalid, format!("{hint}the configuration is invalid\n{errors}"))
        })
    }

    /// For commands that change or list what the database holds: the role table in force judges overrides.
    pub(super) fn store(&self, work: impl FnOnce(&StoreContext<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        let config = self.config()?;
        self.under(&config, config.policy.dir.as_deref(), work)
    }

    /// For commands that must work while the operator's policies do not load: no role is asked, so those of the built-in
    /// set will do.
    pub(super) fn emergency(&self, work: impl FnOnce(&StoreContext<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        self.under(&self.config()?, None, work)
    }

    fn under(
        &self,
        config: &Config,
        policies: Option<&Path>,
        work: impl FnOnce(&StoreContext<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let bundle = Bundle::load(policies)
            .map_err(|errors| Failure::new(Exit::Invalid, format!("{errors}\n\n{}", errors.render())))?;
        work(&StoreContext {
            database: &config.database,
            links: &config.links,
            roles: bundle.roles(),
            console: &self.console,
        })
    }

    /// For commands that ask the audit record: the index where the database answers, else the journal alone.
    pub(super) fn audit<F>(&self, work: F) -> Result<(), Failure>
    where
        F: AsyncFnOnce(&AuditSettings, Option<&AuditStore>) -> Result<(), Failure>,
    {
        self.evidence(async |config, index| work(&config.audit, index).await)
    }

    /// The same for those that need more of the configuration.
    pub(super) fn evidence<F>(&self, work: F) -> Result<(), Failure>
    where
        F: AsyncFnOnce(&Config, Option<&AuditStore>) -> Result<(), Failure>,
    {
        let config = self.config()?;
        runtime()?.block_on(async {
            let database = match open(&config).await {
                Ok(database) => Some(database),
                Err(error) => {
                    tell(format_args!("warning: {error}; the journal alone is asked"));
                    None
                }
            };
            let index = database.as_ref().map(|database| AuditStore::new(database, &config.audit.dir));
            let done = work(&config, index.as_ref()).await;
            let moved = index.as_ref().map(AuditStore::moved_segments).unwrap_or_default();
            if !moved.is_empty() {
                let moved: Vec<String> = moved.iter().map(u64::to_string).collect();
                tell(format_args!(
                    "warning: records of segments that are not in `{}` any more are left out: {}",
                    config.audit.dir.display(),
                    moved.join(", ")
                ));
            }
            if let Some(database) = database {
                database.close().await;
            }
            done
        })
    }
}

async fn open(config: &Config) -> Result<Database, StoreError> {
    let database = Database::open(&config.database).await?;
    database.check_migrated().await?;
    Ok(database)
}

/// An error with all its causes: `Display` alone never includes them.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Every variable whose name and value are UTF-8.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
