//! Policies, key files, certificates (`tls`) and the configuration are read anew on SIGHUP and when a file changes. A bad one changes nothing,
//! says why and is audited (I6).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecursiveMode, Watcher};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{Mutex, mpsc};

use super::{
    background::Background,
    compose::Lasting,
    configuration::{self, ConfigSource},
    tls::{self, Certificates},
};
use crate::{
    audit::{ChangeRecord, Decision, Kind},
    domain::Millis,
    policy::Bundle,
    proxy::worker::Live,
};

/// Editors write a file in several steps; the set is read once they are quiet for this long.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(200);
/// In a folder that is never quiet, such as one with the database in it, nobody waits longer.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(1);

/// What is loaded, as the record calls it.
const POLICY_LOAD: &str = "policy.load";
const SHADOW_LOAD: &str = "policy.shadow.load";
const CONFIG_LOAD: &str = "config.load";

/// Reads anew what can be read anew.
#[derive(Clone)]
pub struct Reloader(Arc<Shared>);

struct Shared {
    lasting: Arc<Lasting>,
    live: Arc<Live>,
    source: ConfigSource,
    /// One reload at a time; `None` once the gateway stops.
    background: Mutex<Option<Background>>,
    /// The text of the configuration file that was taken or refused last.
    seen: std::sync::Mutex<Option<Vec<u8>>>,
    /// Of the certificates of the configuration in force.
    certificates: std::sync::Mutex<Option<notify::RecommendedWatcher>>,
    loads: IntCounterVec,
    taken_at: IntGauge,
}

impl Reloader {
    pub fn new(
        lasting: &Arc<Lasting>,
        live: &Arc<Live>,
        source: ConfigSource,
        background: Background,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let loads = Opts::new("linkgate_config_loads_total", "Configurations read by the running gateway, by result");
        let loads = IntCounterVec::new(loads, &["result"])?;
        let taken_at =
            IntGauge::new("linkgate_config_taken_seconds", "When the configuration in force was taken, in Unix time")?;
        registry.register(Box::new(loads.clone()))?;
        registry.register(Box::new(taken_at.clone()))?;
        for result in ["taken", "refused"] {
            loads.with_label_values(&[result]).reset();
        }
        taken_at.set(Millis::now().0 / 1_000);
        let seen = std::sync::Mutex::new(source.file().and_then(|file| std::fs::read(file).ok()));
        let (lasting, live) = (Arc::clone(lasting), Arc::clone(live));
        let background = Mutex::new(Some(background));
        Ok(Self(Arc::new(Shared {
            lasting,
            live,
            source,
            background,
            seen,
            certificates: std::sync::Mutex::default(),
            loads,
            taken_at,
        })))
    }

    /// No reload comes after this; what runs in the background is the caller's to stop.
    pub async fn end(&self) -> Option<Background> {
        self.0.background.lock().await.take()
    }

    /// Reads configuration, policies and key files. `cause` is told in the log and in the record.
    pub async fn reload(&self, cause: &'static str) {
        self.reload_policies(cause).await;
        self.reload_configuration(cause).await;
        if let Err(errors) = self.0.live.current().verifier.reload() {
            for error in errors {
                tracing::error!(cause, %error, "keys refused; the old ones stay in force");
            }
        }
        self.reload_certificates(cause).await;
    }

    pub(super) fn certificates(&self) -> Certificates {
        Certificates::of(&self.0.live.current())
    }

    /// From now on the files that the configuration in force names.
    pub fn watch_certificates(&self) -> Result<(), notify::Error> {
        let watcher = tls::watch(self)?;
        *self.0.certificates.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = watcher;
        Ok(())
    }

    /// Reads the configuration, whether its file changed or not: it names files that may have.
    async fn reload_configuration(&self, cause: &'static str) {
        let shared = &*self.0;
        let mut background = shared.background.lock().await;
        let Some(background) = &mut *background else { return };
        // Before it is read: what is written meanwhile is read again.
        self.is_new();
        match configuration::prepare(&shared.source, &shared.lasting, &shared.live).await {
            Ok(gateway) => {
                background.change_over(&gateway);
                shared.live.change_over(gateway);
                if let Err(error) = self.watch_certificates() {
                    tracing::error!(%error, "changes of certificates will not be noticed: tell of them by SIGHUP");
                }
                shared.loads.with_label_values(&["taken"]).inc();
                shared.taken_at.set(Millis::now().0 / 1_000);
                tracing::info!(cause, "the configuration that was read is in force");
                self.record(Kind::Config, CONFIG_LOAD, Decision::Allow, cause, None).await;
            }
            Err(error) => {
                shared.loads.with_label_values(&["refused"]).inc();
                tracing::error!(cause, "the configuration was refused; the old one stays in force\n{error}");
                self.record(Kind::Config, CONFIG_LOAD, Decision::Deny, cause, Some(error.to_string())).await;
            }
        }
    }

    /// Whether the file of the configuration holds another text than when this was asked before.
    fn is_new(&self) -> bool {
        let Some(file) = self.0.source.file() else { return false };
        // A file that is away is a change: reading it will say so.
        let text = std::fs::read(file).ok();
        let mut seen = self.0.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let new = *seen != text;
        *seen = text;
        new
    }

    async fn reload_policies(&self, cause: &'static str) {
        let policies = Arc::clone(&self.0.lasting.policies);
        let before = policies.current();
        // Reading and validating a set takes some ten milliseconds of processor time.
        let read = tokio::task::spawn_blocking(move || policies.reload()).await;
        match read {
            Ok(Ok(now)) if now.version() == before.version() => tracing::info!(cause, "policies read again: no change"),
            Ok(Ok(now)) => {
                tracing::info!(cause, version = now.version(), "policies in force");
                self.record_set(POLICY_LOAD, Decision::Allow, cause, None, now.version()).await;
            }
            Ok(Err(errors)) => {
                tracing::error!(cause, "policies refused; the old set stays in force\n{errors}");
                self.record_set(POLICY_LOAD, Decision::Deny, cause, Some(errors.to_string()), before.version()).await;
            }
            Err(error) => tracing::error!(cause, %error, "reading the policies failed; the old set stays in force"),
        }
        self.reload_shadow(cause).await;
    }

    /// Reads the shadow set, if there is to be one. A bad one leaves the last good one, or none, and harms nothing else.
    pub async fn reload_shadow(&self, cause: &'static str) {
        let Some(shadow) = &self.0.lasting.shadow else { return };
        let (set, before) = (Arc::clone(shadow), shadow.current());
        let before = before.as_deref().map_or("", Bundle::version);
        match tokio::task::spawn_blocking(move || set.reload()).await {
            Ok(Ok((now, true))) => {
                tracing::info!(cause, version = now.version(), "shadow policies are asked");
                self.record_set(SHADOW_LOAD, Decision::Allow, cause, None, now.version()).await;
            }
            Ok(Ok((_, false))) => tracing::info!(cause, "shadow policies read again: no change"),
            Ok(Err(errors)) => {
                let dir = shadow.dir().display().to_string();
                tracing::error!(cause, dir, "shadow policies refused; the set in force is not affected\n{errors}");
                self.record_set(SHADOW_LOAD, Decision::Deny, cause, Some(errors.to_string()), before).await;
            }
            Err(error) => tracing::error!(cause, %error, "reading the shadow policies failed"),
        }
    }

    async fn record(&self, kind: Kind, act: &str, decision: Decision, cause: &str, reason: Option<String>) {
        self.put_down(ChangeRecord {
            decision,
            reason,
            resource_type: Some("configuration".into()),
            resource_id: Some(cause.to_owned()),
            ..ChangeRecord::new(kind, act)
        })
        .await;
    }

    async fn record_set(&self, act: &str, decision: Decision, cause: &str, reason: Option<String>, version: &str) {
        self.put_down(ChangeRecord {
            decision,
            reason,
            policy_version: Some(version.to_owned()),
            resource_type: Some("policy_set".into()),
            resource_id: Some(cause.to_owned()),
            ..ChangeRecord::new(Kind::Policy, act)
        })
        .await;
    }

    pub(super) async fn put_down(&self, change: ChangeRecord) {
        if let Err(error) = self.0.lasting.journal.append_change(&change).await {
            tracing::error!(%error, "the reload could not be recorded");
        }
    }
}

/// Watchers of folders; they end when dropped.
pub struct Watching {
    _watchers: Vec<notify::RecommendedWatcher>,
}

/// Watches the folders of policies and the file of the configuration.
pub fn watch_all<'d>(
    policies: impl Iterator<Item = &'d PathBuf>,
    reloader: &Reloader,
) -> Result<Watching, notify::Error> {
    let mut watchers = Vec::new();
    for dir in policies {
        let (watcher, mut told) = watch(dir, RecursiveMode::Recursive)?;
        let reloader = reloader.clone();
        watchers.push(watcher);
        tokio::spawn(async move {
            while quiet(&mut told).await {
                reloader.reload_policies("file").await;
            }
        });
    }
    if let Some(file) = reloader.0.source.file() {
        // Its folder: editors and mounted configuration maps put another file in its place.
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (watcher, mut told) = watch(folder, RecursiveMode::NonRecursive)?;
        let reloader = reloader.clone();
        watchers.push(watcher);
        tokio::spawn(async move {
            while quiet(&mut told).await {
                // Most of what happens in the folder is about other files, such as the database.
                if reloader.is_new() {
                    reloader.reload_configuration("file").await;
                }
            }
        });
    }
    Ok(Watching { _watchers: watchers })
}

/// Waits for a change and until there are no more; false: nobody watches any more.
async fn quiet(told: &mut mpsc::Receiver<()>) -> bool {
    if told.recv().await.is_none() {
        return false;
    }
    let last = tokio::time::Instant::now() + LONGEST_DEBOUNCE;
    while tokio::time::Instant::now() < last
        && tokio::time::timeout(DEBOUNCE, told.recv()).await.is_ok_and(|more| more.is_some())
    {}
    true
}

fn watch(path: &Path, mode: RecursiveMode) -> Result<(notify::RecommendedWatcher, mpsc::Receiver<()>), notify::Error> {
    let (tell, told) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files is an event of its own kind and would make us read them for ever.
        if event.is_ok_and(|event| !event.kind.is_access()) && tell.try_send(()).is_err() {
            tracing::trace!("a change is already noted");
        }
    })?;
    watcher.watch(path, mode)?;
    Ok((watcher, told))
}
