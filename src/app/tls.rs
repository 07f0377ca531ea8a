//! Certificates of a running gateway: read anew when `reload` says so, and watched for their end.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use prometheus::{IntGaugeVec, Opts, Registry};

use crate::{
    proxy::worker::Gateway,
    tls::{ClientTls, InUse, ServerTls, TlsError},
};

/// Everything that reads certificates from files.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// By the names of their sections.
    listeners: Vec<(&'static str, Arc<ServerTls>)>,
    /// By the names of their sections.
    upstreams: Vec<(String, Arc<ClientTls>)>,
}

impl Certificates {
    pub fn of(gateway: &Gateway) -> Self {
        let secure = gateway.upstreams.iter().filter_map(|upstream| {
            upstream.tls.as_ref().map(|tls| (format!("upstreams.{}.tls", upstream.name), Arc::clone(tls)))
        });
        let listeners = [("listen.tls", &gateway.tls), ("admin.tls", &gateway.admin_tls)];
        let listeners = listeners.into_iter().filter_map(|(section, tls)| Some((section, Arc::clone(tls.as_ref()?))));
        Self { listeners: listeners.collect(), upstreams: secure.collect() }
    }

    /// Reads everything again; the result of each, by the name of its section.
    pub fn reload(&self) -> Vec<(String, Result<bool, TlsError>)> {
        let listeners = self.listeners.iter().map(|(section, tls)| ((*section).to_owned(), tls.reload()));
        listeners.chain(self.upstreams.iter().map(|(section, tls)| (section.clone(), tls.reload()))).collect()
    }

    pub fn files(&self) -> BTreeSet<PathBuf> {
        let upstreams = self.upstreams.iter().flat_map(|(_, tls)| tls.files());
        self.listeners.iter().flat_map(|(_, tls)| tls.files()).chain(upstreams).map(Path::to_owned).collect()
    }

    fn in_use(&self) -> Vec<InUse> {
        let upstreams = self.upstreams.iter().filter_map(|(_, tls)| tls.current().certificate.clone());
        self.listeners.iter().flat_map(|(_, tls)| tls.current().certificates.clone()).chain(upstreams).collect()
    }
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
