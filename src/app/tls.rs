//! Certificates of a running gateway: read anew when their files change, and watched for their end.
//!
//! A set that cannot be used changes nothing, is told in the log and recorded, as with policies (I6).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use prometheus::{IntGaugeVec, Opts, Registry};
use tokio::sync::mpsc;

use super::reload::{DEBOUNCE, Reloader};
use crate::{
    audit::Decision,
    proxy::worker::Gateway,
    tls::{ClientTls, InUse, ServerTls, TlsError},
};

/// What a load of certificates is called in the record.
const LOAD: &str = "tls.load";

/// Everything that reads certificates from files.
#[derive(Clone, Debug)]
pub struct Certificates {
    listener: Option<Arc<ServerTls>>,
    /// By the names of their sections.
    upstreams: Vec<(String, Arc<ClientTls>)>,
}

impl Certificates {
    pub fn of(gateway: &Gateway) -> Self {
        let secure = gateway.upstreams.iter().filter_map(|upstream| {
            upstream.tls.as_ref().map(|tls| (format!("upstreams.{}.tls", upstream.name), Arc::clone(tls)))
        });
        Self { listener: gateway.tls.clone(), upstreams: secure.collect() }
    }

    /// Reads everything again; the result of each, by the name of its section.
    fn reload(&self) -> Vec<(String, Result<bool, TlsError>)> {
        let listener = self.listener.iter().map(|tls| ("listen.tls".to_owned(), tls.reload()));
        listener.chain(self.upstreams.iter().map(|(section, tls)| (section.clone(), tls.reload()))).collect()
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        let upstreams = self.upstreams.iter().flat_map(|(_, tls)| tls.files());
        self.listener.iter().flat_map(|tls| tls.files()).chain(upstreams).map(Path::to_owned).collect()
    }

    fn in_use(&self) -> Vec<InUse> {
        let upstreams = self.upstreams.iter().filter_map(|(_, tls)| tls.current().certificate.clone());
        self.listener.iter().flat_map(|tls| tls.current().certificates.clone()).chain(upstreams).collect()
    }
}

impl Reloader {
    /// Reads certificates, keys and roots again.
    pub async fn reload_certificates(&self, cause: &'static str) {
        let certificates = self.certificates();
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

    async fn record_certificates(&self, decision: Decision, section: &str, cause: &str, reason: Option<String>) {
        self.put_down(crate::audit::ChangeRecord {
            decision,
            reason,
            resource_type: Some("certificates".into()),
            resource_id: Some(format!("{section} ({cause})")),
            ..crate::audit::ChangeRecord::new(crate::audit::Kind::Config, LOAD)
        })
        .await;
    }
}

/// With what lies behind it: a permission, a damaged structure.
fn told(error: &TlsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Watches the folders of all files until dropped: files are replaced by renaming, and mounted secrets by a symbolic link
/// beside them whose name begins with two dots.
pub fn watch(reloader: &Reloader) -> Result<Option<RecommendedWatcher>, notify::Error> {
    let files = reloader.certificates().files();
    if files.is_empty() {
        return Ok(None);
    }
    let folders: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent()).map(Path::to_owned).collect();
    let (tell, mut told) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // The folder may hold what we write ourselves.
        let ours =
            event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(|path| concerns(path, &files)));
        if ours && tell.try_send(()).is_err() {
            tracing::trace!("a change of the certificates is already noted");
        }
    })?;
    for folder in &folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    let reloader = reloader.clone();
    tokio::spawn(async move {
        while told.recv().await.is_some() {
            while tokio::time::timeout(DEBOUNCE, told.recv()).await.is_ok_and(|more| more.is_some()) {}
            reloader.reload_certificates("file").await;
        }
    });
    Ok(Some(watcher))
}

fn concerns(path: &Path, files: &BTreeSet<PathBuf>) -> bool {
    let mounted = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
    mounted || files.contains(path)
}

/// The moment at which each certificate in use ends, for the alert before it does.
#[derive(Debug)]
pub struct Ends(IntGaugeVec);

impl Ends {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "When the certificate in use ends, in seconds since 1970, by its file";
        let gauge = IntGaugeVec::new(Opts::new("linkgate_tls_certificate_not_after_seconds", help), &["file"])?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self(gauge))
    }

    /// Sets what is in use now.
    pub fn refresh(&self, certificates: &Certificates) {
        for one in certificates.in_use() {
            self.0.with_label_values(&[&one.file.display().to_string()]).set(one.not_after);
        }
    }
}
