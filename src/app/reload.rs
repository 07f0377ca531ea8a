//! Policies, key files and certificates (`tls`) are read anew on SIGHUP and when a file changes. A bad set changes nothing,
//! says why and is audited (I6).

use std::{path::Path, sync::Arc, time::Duration};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::tls::Certificates;
use crate::{
    audit::{ChangeRecord, Decision, Journal, Kind},
    identity::Verifier,
    policy::{Bundle, Policies, ShadowSet},
};

/// Editors write a file in several steps; the set is read once they are quiet for this long.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(200);

/// What a load of the shadow set is called in the record.
const SHADOW_LOAD: &str = "policy.shadow.load";

/// What can be read anew, and who is told.
#[derive(Clone, Debug)]
pub struct Reloader {
    pub policies: Arc<Policies>,
    pub shadow: Option<Arc<ShadowSet>>,
    pub verifier: Arc<Verifier>,
    pub certificates: Certificates,
    pub journal: Arc<Journal>,
}

impl Reloader {
    /// Reads policies and key files. `cause` is told in the log and in the record.
    pub async fn reload(&self, cause: &'static str) {
        let before = self.policies.current();
        let policies = Arc::clone(&self.policies);
        // Reading and validating a set takes some ten milliseconds of processor time.
        let read = tokio::task::spawn_blocking(move || policies.reload()).await;
        match read {
            Ok(Ok(now)) if now.version() == before.version() => tracing::info!(cause, "policies read again: no change"),
            Ok(Ok(now)) => {
                tracing::info!(cause, version = now.version(), "policies in force");
                self.record("policy.load", Decision::Allow, cause, None, now.version()).await;
            }
            Ok(Err(errors)) => {
                tracing::error!(cause, "policies refused; the old set stays in force\n{errors}");
                self.record("policy.load", Decision::Deny, cause, Some(errors.to_string()), before.version()).await;
            }
            Err(error) => tracing::error!(cause, %error, "reading the policies failed; the old set stays in force"),
        }
        self.reload_shadow(cause).await;
        if let Err(errors) = self.verifier.reload() {
            for error in errors {
                tracing::error!(cause, %error, "keys refused; the old ones stay in force");
            }
        }
        self.reload_certificates(cause).await;
    }

    /// Reads the shadow set, if there is to be one. A bad one leaves the last good one, or none, and harms nothing else.
    pub async fn reload_shadow(&self, cause: &'static str) {
        let Some(shadow) = &self.shadow else { return };
        let (set, before) = (Arc::clone(shadow), shadow.current());
        let before = before.as_deref().map_or("", Bundle::version);
        match tokio::task::spawn_blocking(move || set.reload()).await {
            Ok(Ok((now, true))) => {
                tracing::info!(cause, version = now.version(), "shadow policies are asked");
                self.record(SHADOW_LOAD, Decision::Allow, cause, None, now.version()).await;
            }
            Ok(Ok((_, false))) => tracing::info!(cause, "shadow policies read again: no change"),
            Ok(Err(errors)) => {
                let dir = shadow.dir().display().to_string();
                tracing::error!(cause, dir, "shadow policies refused; the set in force is not affected\n{errors}");
                self.record(SHADOW_LOAD, Decision::Deny, cause, Some(errors.to_string()), before).await;
            }
            Err(error) => tracing::error!(cause, %error, "reading the shadow policies failed"),
        }
    }

    pub(super) async fn record(
        &self,
        act: &str,
        decision: Decision,
        cause: &str,
        reason: Option<String>,
        version: &str,
    ) {
        let change = ChangeRecord {
            decision,
            reason,
            policy_version: Some(version.to_owned()),
            resource_type: Some("policy_set".into()),
            resource_id: Some(cause.to_owned()),
            ..ChangeRecord::new(Kind::Policy, act)
        };
        if let Err(error) = self.journal.append_change(&change).await {
            tracing::error!(%error, "the reload could not be recorded");
        }
    }
}

/// Watches the policy folder until dropped.
pub fn watch(dir: &Path, reloader: Reloader) -> Result<notify::RecommendedWatcher, notify::Error> {
    let (tell, mut told) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files is an event of its own kind and would make us read them for ever.
        if event.is_ok_and(|event| !event.kind.is_access()) && tell.try_send(()).is_err() {
            tracing::trace!("a change of the policies is already noted");
        }
    })?;
    watcher.watch(dir, RecursiveMode::Recursive)?;
    tokio::spawn(async move {
        while told.recv().await.is_some() {
            while tokio::time::timeout(DEBOUNCE, told.recv()).await.is_ok_and(|more| more.is_some()) {}
            reloader.reload("file").await;
        }
    });
    Ok(watcher)
}
