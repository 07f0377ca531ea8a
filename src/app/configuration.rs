//! A changed configuration comes into force: as a whole, while requests go on, or not at all (I6).
//!
//! The new one is read, checked and composed beside the one in force; only then do the workers change over, each between
//! two requests. Whatever is wrong with it leaves everything as it is. What a running process cannot change (sockets, the
//! database, the journal) must be as it was: half of a configuration is never applied.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::compose::Lasting;
use crate::{
    config::{ConfigErrors, settings::Config},
    proxy::worker::{Gateway, Live},
    tls::settings::ServerSettings,
};

/// How long the keys of new issuers are waited for.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the configuration comes from, to be read again.
#[derive(Clone)]
pub struct ConfigSource {
    read: Arc<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>,
    file: Option<PathBuf>,
}

impl ConfigSource {
    /// `file`: the one to be watched.
    pub fn new(file: Option<&Path>, read: impl Fn() -> Result<Config, ConfigErrors> + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), file: file.map(Path::to_path_buf) }
    }

    /// One that never changes, for an embedded gateway: there is nothing to be read again.
    pub fn unchanging(config: &Config) -> Self {
        let config = config.clone();
        Self::new(None, move || Ok(config.clone()))
    }

    pub fn read(&self) -> Result<Config, ConfigErrors> {
        (self.read)()
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl std::fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigSource").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    #[error("{0}")]
    Invalid(ConfigErrors),
    #[error("a running gateway cannot change {}: restart it, or take that change back", .0.join(", "))]
    Fixed(Vec<&'static str>),
    #[error("{0}")]
    Unfit(String),
    #[error("no keys could be had in time for the issuers {0}: their tokens would be refused")]
    Keys(String),
    #[error("reading it failed: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// The new generation, ready to serve.
pub async fn prepare(source: &ConfigSource, lasting: &Lasting, live: &Live) -> Result<Arc<Gateway>, NotTaken> {
    let source = source.clone();
    let config = tokio::task::spawn_blocking(move || source.read()).await?.map_err(NotTaken::Invalid)?;
    let before = live.current();
    let fixed = fixed(&before.settings, &config);
    if !fixed.is_empty() {
        return Err(NotTaken::Fixed(fixed));
    }
    let gateway = lasting.compose(config, &before.upstreams).map_err(|error| NotTaken::Unfit(whole(&error)))?;
    // Without them every token of these issuers would be refused from the change-over until they came.
    let patience = Instant::now() + KEYS_TIMEOUT;
    while !gateway.verifier.ready() {
        if Instant::now() >= patience {
            let missing: Vec<_> = gateway.verifier.missing().iter().map(|name| format!("`{name}`")).collect();
            return Err(NotTaken::Keys(missing.join(", ")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Arc::new(gateway))
}

/// The error with all its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Its tokens come into force with a reload; its socket is opened at the start.
fn admin_address(config: &Config) -> Option<std::net::SocketAddr> {
    config.admin.as_ref().map(|admin| admin.address)
}

fn admin_tls(config: &Config) -> Option<&ServerSettings> {
    config.admin.as_ref()?.tls.as_ref()
}

/// The settings that differ and that were read at the start for good.
fn fixed(one: &Config, other: &Config) -> Vec<&'static str> {
    let differs = [
        ("listen.address", one.listen.address != other.listen.address),
        ("listen.workers", one.listen.workers != other.listen.workers),
        ("[listen.tls]", (&one.listen.tls, &one.listen.clients) != (&other.listen.tls, &other.listen.clients)),
        ("decision.address", decision(one) != decision(other)),
        ("[health]", (one.health, one.api_docs) != (other.health, other.api_docs)),
        ("admin.address", admin_address(one) != admin_address(other)),
        ("[admin.tls]", admin_tls(one) != admin_tls(other)),
        ("[database]", one.database != other.database),
        ("[links]", one.links != other.links),
        ("[policy]", one.policy != other.policy),
        (
            "[audit]",
            (&one.audit, &one.checkpoints, &one.ship, one.retention, one.kept_in_database)
                != (&other.audit, &other.checkpoints, &other.ship, other.retention, other.kept_in_database),
        ),
        ("limits.redis_url and what goes with it", one.limits.shared != other.limits.shared),
        ("limits.max_keys", one.limits.max_keys != other.limits.max_keys),
        ("[exports]", one.exports != other.exports),
        ("[webhooks]", one.webhooks != other.webhooks),
        ("[log]", one.log != other.log),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Who may ask, and how many at once, is asked anew with each connection and question.
fn decision(config: &Config) -> Option<SocketAddr> {
    config.decision.as_ref().map(|decision| decision.address)
}
