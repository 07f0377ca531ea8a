//! Policies and key files are read anew on SIGHUP and when a file changes. A bad set changes nothing, says why and is
//! audited (I6).

use std::{path::Path, sync::Arc, time::Duration};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::{
    audit::{ChangeRecord, Decision, Journal, Kind},
    identity::Verifier,
    policy::Policies,
};

/// Editors write a file in several steps; the set is read once they are quiet for this long.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// What can be read anew, and who is told.
#[derive(Clone, Debug)]
pub struct Reloader {
    pub policies: Arc<Policies>,
    pub verifier: Arc<Verifier>,
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
                self.record(Decision::Allow, cause, None, now.version()).await;
            }
            Ok(Err(errors)) => {
                tracing::error!(cause, "policies refused; the old set stays in force\n{errors}");
                self.record(Decision::Deny, cause, Some(errors.to_string()), before.version()).await;
            }
            Err(error) => tracing::error!(cause, %error, "reading the policies failed; the old set stays in force"),
        }
        if let Err(errors) = self.verifier.reload() {
            for error in errors {
                tracing::error!(cause, %error, "keys refused; the old ones stay in force");
            }
        }
    }

    async fn record(&self, decision: Decision, cause: &str, reason: Option<String>, version: &str) {
        let change = ChangeRecord {
            decision,
            reason,
            policy_version: Some(version.to_owned()),
            resource_type: Some("policy_set".into()),
            resource_id: Some(cause.to_owned()),
            ..ChangeRecord::new(Kind::Policy, "policy.load")
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
