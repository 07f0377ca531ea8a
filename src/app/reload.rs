//! Policies, key files, certificates (`tls`) and the configuration are read anew on SIGHUP and when a file changes
//! (`watch`). A bad one changes nothing, says why and is audited (I6).

use std::{path::PathBuf, sync::Arc};

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::Mutex;

use super::{
    background::Background,
    compose::Lasting,
    configuration::{self, ConfigSource},
    tls::Certificates,
    watch,
};
use crate::{
    audit::{ChangeRecord, Decision, Kind},
    domain::Millis,
    policy::Bundle,
    proxy::{vitals::never, worker::Live},
    tls::TlsError,
};

/// What is loaded, as the record calls it.
const POLICY_LOAD: &str = "policy.load";
const SHADOW_LOAD: &str = "policy.shadow.load";
const CONFIG_LOAD: &str = "config.load";
const TLS_LOAD: &str = "tls.load";

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

    /// From now on the files that the configuration in force names.
    pub fn watch_certificates(&self) -> Result<(), notify::Error> {
        let watched = watch::files(Certificates::of(&self.0.live.current()).files())?;
        let watcher = watched.map(|(watcher, mut told)| {
            let reloader = self.clone();
            let work = async move {
                while watch::all_written(&mut told).await {
                    reloader.reload_certificates("file").await;
                }
            };
            // Ends with its watcher: another configuration names other files.
            tokio::spawn(self.0.lasting.vitals.clone().watch("certificate_files", work, || true));
            watcher
        });
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

    /// Reads certificates, keys and roots again. A set that cannot be used changes nothing.
    async fn reload_certificates(&self, cause: &'static str) {
        let certificates = Certificates::of(&self.0.live.current());
        let read = match tokio::task::spawn_blocking(move || certificates.reload()).await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(cause, %error, "reading the certificates failed; the old ones stay in use");
                return;
            }
        };
        for (section, result) in read {
            match result {
                Ok(true) => {
                    tracing::info!(cause, section, "certificates in use");
                    self.record_certificates(Decision::Allow, &section, cause, None).await;
                }
                Ok(false) => tracing::info!(cause, section, "certificates read again: no change"),
                Err(error) => {
                    let why = told(&error);
                    tracing::error!(cause, section, "certificates refused; the old ones stay in use: {why}");
                    self.record_certificates(Decision::Deny, &section, cause, Some(why)).await;
                }
            }
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

    async fn record_certificates(&self, decision: Decision, section: &str, cause: &str, reason: Option<String>) {
        self.put_down(ChangeRecord {
            decision,
            reason,
            resource_type: Some("certificates".into()),
            resource_id: Some(format!("{section} ({cause})")),
            ..ChangeRecord::new(Kind::Config, TLS_LOAD)
        })
        .await;
    }

    async fn put_down(&self, change: ChangeRecord) {
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
    let (mut watchers, vitals) = (Vec::new(), &reloader.0.lasting.vitals);
    for dir in policies {
        let (watcher, mut told) = watch::folder(dir)?;
        let (vitals, reloader) = (vitals.clone(), reloader.clone());
        watchers.push(watcher);
        let work = async move {
            while watch::quiet(&mut told).await {
                reloader.reload_policies("file").await;
            }
        };
        tokio::spawn(vitals.watch("policy_files", work, never));
    }
    if let Some(file) = reloader.0.source.file() {
        let (vitals, reloader, file) = (vitals.clone(), reloader.clone(), file.to_owned());
        let work = async move {
            // As if it had just come: it may have changed since it was read.
            let mut seen = None;
            loop {
                seen = watch::changed(&file, seen).await;
                if reloader.is_new() {
                    reloader.reload_configuration("file").await;
                }
            }
        };
        tokio::spawn(vitals.watch("configuration_file", work, never));
    }
    Ok(Watching { _watchers: watchers })
}

/// With what lies behind it: a permission, a damaged structure.
fn told(error: &TlsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
