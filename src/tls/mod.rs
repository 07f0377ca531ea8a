//! Floor 0: certificates, keys and trust from files, made into rustls configurations and made anew when the files change.
//!
//! `server` is one listener's side, `client` one upstream's; `files` reads and judges what lies on disk, `certificate` says
//! whom a certificate names, `revocation` which ones count no more. No socket is opened here: `server` and `upstream` do that. What is loaded is swapped as a whole:
//! files that are wrong change nothing, and connections that are open go on with what they began with.

pub mod settings;

mod certificate;
mod error;
mod files;

mod client;
mod names;
mod revocation;
mod server;

pub use certificate::{CertificateNames, is_subject};
pub use client::{ClientTls, Handed, LoadedClient};
pub use error::TlsError;
pub use server::{Loaded, ServerTls, Untrusted, unique};

use std::{path::PathBuf, sync::Arc};

use rustls::{SupportedProtocolVersion, crypto::CryptoProvider, version};

/// HTTP/2 as ALPN names it.
pub const H2: &[u8] = b"h2";
/// HTTP/1.1 as ALPN names it.
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// A certificate in use, for whoever watches when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    pub file: PathBuf,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// The one provider of the process, as tokens, signatures and digests have it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn versions(tls13_only: bool) -> &'static [&'static SupportedProtocolVersion] {
    static NEW: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    if tls13_only { &NEW } else { &BOTH }
}
