//! One listener's side of TLS: certificates by name, ALPN, client certificates; loaded as a whole, swapped as a whole.
//!
//! Session tickets belong to what was loaded: their key is made with it, so nobody resumes a session that was judged by
//! roots or revocation lists of before. A connection that is open, or goes on with a session of before, is judged anew by
//! [`Loaded::still_trusts`].

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    InUse, TlsError,
    certificate::last_second,
    files::Reader,
    names::ByName,
    provider,
    revocation::{Lists, Revoking},
    settings::{ClientAuth, ServerSettings},
    versions,
};

/// Counts over everything that is loaded in the process, so that no two share a number.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// A number that nothing else in the process has.
pub fn unique() -> u64 {
    GENERATIONS.fetch_add(1, Ordering::Relaxed)
}

/// A client's certificate is not trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client's certificate is not trusted any more")]
pub struct Untrusted;

/// What was read from the files at one time.
#[derive(Debug)]
pub struct Loaded {
    pub config: Arc<ServerConfig>,
    pub certificates: Vec<InUse>,
    /// Another one for each load.
    pub generation: u64,
    verifier: Arc<dyn ClientCertVerifier>,
    lists: Arc<Lists>,
    digest: Vec<u8>,
}

impl Loaded {
    /// Judges a client's chain that was good when its connection began: by the roots and revocation lists of now.
    pub fn still_trusts(&self, chain: &[CertificateDer<'_>]) -> Result<(), Untrusted> {
        let (leaf, others) = chain.split_first().ok_or(Untrusted)?;
        self.verifier.verify_client_cert(leaf, others, UnixTime::now()).map(|_| ()).map_err(|_| Untrusted)
    }

    /// Until when time alone cannot change what [`Loaded::still_trusts`] says of a chain that is good `now`: the first end of
    /// one of its certificates, or of a list; a minute at most, in case that the clock moves. In seconds since 1970.
    pub fn holds_until(&self, chain: &[CertificateDer<'_>], now: i64) -> i64 {
        // What cannot be read is asked about again at once.
        let certificates = chain.iter().map(|one| last_second(one).map_or(now, |last| last.saturating_add(1)));
        let ends = certificates.chain(self.lists.ends().iter().copied());
        ends.filter(|end| *end >= now).fold(now.saturating_add(60), i64::min)
    }
}

/// One listener's TLS.
#[derive(Debug)]
pub struct ServerTls {
    settings: ServerSettings,
    protocols: &'static [&'static [u8]],
    current: ArcSwap<Loaded>,
}

impl ServerTls {
    /// `protocols`: what ALPN offers, the preferred one first.
    pub fn load(settings: ServerSettings, protocols: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        let loaded = read(&settings, protocols)?;
        Ok(Self { settings, protocols, current: ArcSwap::from_pointee(loaded) })
    }

    /// Reads the files again. `Ok(false)`: nothing has changed. On an error what was loaded stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let loaded = read(&self.settings, self.protocols)?;
        if loaded.digest == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(loaded));
        Ok(true)
    }

    pub fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// Every file that is read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.settings.certificates.iter().flat_map(|files| [files.chain.as_path(), files.key.as_path()]);
        pairs.chain(self.settings.client_ca.iter().chain(&self.settings.client_crl).map(|path| path.as_path()))
    }
}

fn read(settings: &ServerSettings, protocols: &[&[u8]]) -> Result<Loaded, TlsError> {
    let mut reader = Reader::new();
    let mut by_name = ByName::new(settings.strict_sni);
    let mut certificates = Vec::with_capacity(settings.certificates.len());
    for files in &settings.certificates {
        let pair = reader.pair(files)?;
        by_name.add(pair.key, &pair.names.dns);
        certificates.push(pair.in_use);
    }
    let (verifier, lists) = verifier(settings, &mut reader)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(settings.tls13_only))
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(Arc::clone(&verifier))
        .with_cert_resolver(Arc::new(by_name));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
    // Tickets do without; a table of sessions would be memory that strangers fill.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Loaded {
        config: Arc::new(config),
        certificates,
        generation: unique(),
        verifier,
        lists,
        digest: reader.digest(),
    })
}

fn verifier(
    settings: &ServerSettings,
    reader: &mut Reader,
) -> Result<(Arc<dyn ClientCertVerifier>, Arc<Lists>), TlsError> {
    if settings.client_auth == ClientAuth::None {
        return Ok((Arc::new(NoClientAuth), Arc::default()));
    }
    let mut lists = reader.revocation_lists(&settings.client_crl)?;
    let roots = reader.roots(&settings.client_ca, &mut lists)?;
    let lists = Arc::new(lists);
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if !lists.is_empty() {
        // A certificate whose revocation nobody tells, or tells too late, is refused: the client's own, and those of the
        // authorities between it and the root.
        builder = builder.with_crls(lists.in_order()).enforce_revocation_expiration();
    }
    if settings.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    let inner = builder.build().map_err(TlsError::ClientVerifier)?;
    Ok((Arc::new(Revoking { inner, lists: Arc::clone(&lists) }), lists))
}
