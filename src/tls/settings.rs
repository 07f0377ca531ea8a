//! What the TLS room is configured with: valid by construction, made by `config`.

use std::{path::PathBuf, time::Duration};

/// A certificate chain and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate first, then those that lead to the root.
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// At least one; the first serves clients that name no host, or an unknown one.
    pub certificates: Vec<CertificateFiles>,
    /// Refuse TLS 1.2.
    pub tls13_only: bool,
    /// Refuse clients that name no host of a certificate.
    pub strict_sni: bool,
    /// From connection to finished handshake.
    pub handshake_timeout: Duration,
    /// Handshakes in progress at once, over all workers; further ones are closed at once.
    pub max_handshakes: usize,
    pub client_auth: ClientAuth,
    /// Roots that client certificates must lead to.
    pub client_ca: Vec<PathBuf>,
    /// Revocation lists of those; empty: revocation is not looked at.
    pub client_crl: Vec<PathBuf>,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    None,
    /// Asked for; one that is shown must be good.
    Optional,
    Required,
}

/// One upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// Roots that the service's certificate must lead to; empty: the system's.
    pub ca: Vec<PathBuf>,
    /// Shown to a service that asks for one.
    pub certificate: Option<CertificateFiles>,
    /// The name that the service's certificate must have; `None`: the host of its address.
    pub server_name: Option<String>,
    /// Refuse TLS 1.2.
    pub tls13_only: bool,
}
