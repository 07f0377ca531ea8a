//! Why certificate files are not used. Each message names the file and says what to do.

use std::path::PathBuf;

/// A file, or what stands in it, is no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("`{path}` cannot be read")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{path}` holds no {what} in PEM form (`-----BEGIN ...`)")]
    Missing { path: PathBuf, what: &'static str },
    #[error("`{path}` is damaged: what it holds is no {what}")]
    Malformed { path: PathBuf, what: &'static str },
    #[error("the certificate `{path}` ended on {at}: put a renewed one in its place")]
    Expired { path: PathBuf, at: String },
    #[error("the certificate `{path}` is valid only from {at} on: is the clock right?")]
    NotYetValid { path: PathBuf, at: String },
    #[error(
        "the private key `{key}` does not belong to the certificate `{chain}`: put both files of one pair in place"
    )]
    Mismatch { key: PathBuf, chain: PathBuf },
    #[error("the certificate `{chain}` with the key `{key}` cannot be used")]
    Unusable { key: PathBuf, chain: PathBuf, source: rustls::Error },
    #[error("`{path}` holds a certificate that is no root of trust")]
    NoRoot { path: PathBuf, source: rustls::Error },
    #[error("client certificates cannot be verified by these roots and revocation lists")]
    ClientVerifier(#[source] rustls::server::VerifierBuilderError),
    #[error("the system's roots of trust cannot be used: install a CA bundle, or name a `ca`")]
    SystemRoots(#[source] rustls::Error),
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}
