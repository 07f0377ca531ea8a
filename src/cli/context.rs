//! What commands share: the configuration in force, a runtime for those that wait, and the database.

use std::path::PathBuf;

use super::outcome::{Console, Exit, Failure};
use crate::{
    config::{self, Config},
    store::{Database, StoreError},
};

/// Read where neither `--config` nor `LINKGATE_CONFIG` names a file.
pub const DEFAULT_CONFIG: &str = "linkgate.toml";

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

    /// The configuration, or every error in it.
    pub fn config(&self) -> Result<Config, Failure> {
        let path = self.config_path();
        config::load(path.as_deref(), environment()).map_err(|errors| {
            let hint = if path.is_none() {
                format!("\nno configuration file: name one with --config, or run `linkgate config print-default > {DEFAULT_CONFIG}`")
            } else {
                String::new()
            };
            Failure::new(Exit::Invalid, format!("the configuration is invalid\n{errors}{hint}"))
        })
    }

    /// Runs a future to its end, for commands that ask the database.
    pub fn block_on<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
    }

    /// The database, migrated; to be called inside `block_on`.
    pub async fn database(&self, config: &Config) -> Result<Database, Failure> {
        let database = Database::open(&config.database).await.map_err(database_failure)?;
        database.check_migrated().await.map_err(database_failure)?;
        Ok(database)
    }
}

/// The store's errors as exit codes.
pub fn database_failure(error: StoreError) -> Failure {
    let exit = match &error {
        StoreError::NotFound { .. } => Exit::NotFound,
        StoreError::Refused(refusal) if refusal.code == crate::domain::ErrorCode::Conflict => Exit::Conflict,
        StoreError::Refused(_) => Exit::Invalid,
        _ => Exit::Database,
    };
    Failure::new(exit, chain(&error))
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
