//! One upstream's side of TLS: whom to believe, what to show; loaded as a whole, swapped as a whole.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use http::{Uri, uri::Scheme};
use rustls::{ClientConfig, pki_types::ServerName, sign::SingleCertAndKey};
use rustls_platform_verifier::BuilderVerifierExt;

use super::{
    H2, HTTP_1_1, InUse, TlsError, files::Reader, provider, revocation::Lists, server::unique,
    settings::ClientSettings, versions,
};

/// What was read from the files at one time.
#[derive(Debug)]
pub struct LoadedClient {
    /// Offers HTTP/1.1 only.
    pub http1: Arc<ClientConfig>,
    /// Offers HTTP/2 before HTTP/1.1.
    pub any: Arc<ClientConfig>,
    /// Shown to the service.
    pub certificate: Option<InUse>,
    /// Another one for each load: connections made under different ones are not shared.
    pub generation: u64,
    digest: Vec<u8>,
}

/// A configuration that offers HTTP/1.1, and the name that it is to look for.
pub type Handed = (Arc<ClientConfig>, Option<ServerName<'static>>);

/// TLS to one upstream.
#[derive(Debug)]
pub struct ClientTls {
    settings: ClientSettings,
    name: Option<ServerName<'static>>,
    current: ArcSwap<LoadedClient>,
}

impl ClientTls {
    pub fn load(settings: ClientSettings) -> Result<Self, TlsError> {
        let loaded = read(&settings)?;
        // The configuration has tested the name.
        let name = settings.server_name.as_ref().and_then(|name| ServerName::try_from(name.clone()).ok());
        Ok(Self { settings, name, current: ArcSwap::from_pointee(loaded) })
    }

    /// For a client that has its own way of connecting, to an address that asks for TLS: what is in the files now, and the
    /// name to look for where it is not the address's host.
    pub fn read(settings: &ClientSettings, to: &Uri) -> Result<Option<Handed>, TlsError> {
        if to.scheme() != Some(&Scheme::HTTPS) {
            return Ok(None);
        }
        let tls = Self::load(settings.clone())?;
        Ok(Some((Arc::clone(&tls.current.load().http1), tls.name)))
    }

    /// Reads the files again. `Ok(false)`: nothing has changed. On an error what was loaded stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let loaded = read(&self.settings)?;
        if loaded.digest == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(loaded));
        Ok(true)
    }

    pub fn current(&self) -> Arc<LoadedClient> {
        self.current.load_full()
    }

    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// The name that the certificate of the service at this address must have; `None`: its host is no name at all.
    pub fn server_name(&self, authority: &str) -> Option<ServerName<'static>> {
        self.name.clone().or_else(|| server_name(authority))
    }

    /// Every file that is read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pair = self.settings.certificate.iter().flat_map(|files| [files.chain.as_path(), files.key.as_path()]);
        pair.chain(self.settings.ca.iter().map(|path| path.as_path()))
    }
}

/// The host of `host:port` or `[::1]:port`.
fn server_name(authority: &str) -> Option<ServerName<'static>> {
    let authority: http::uri::Authority = authority.parse().ok()?;
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

fn read(settings: &ClientSettings) -> Result<LoadedClient, TlsError> {
    let mut reader = Reader::new();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(settings.tls13_only))
        .map_err(TlsError::Setup)?;
    let builder = if settings.ca.is_empty() {
        builder.with_platform_verifier().map_err(TlsError::SystemRoots)?
    } else {
        builder.with_root_certificates(reader.roots(&settings.ca, &mut Lists::default())?)
    };
    let pair = settings.certificate.as_ref().map(|files| reader.pair(files)).transpose()?;
    let (mut config, certificate) = match pair {
        Some(pair) => {
            let shown = Arc::new(SingleCertAndKey::from(pair.key));
            (builder.with_client_cert_resolver(shown), Some(pair.in_use))
        }
        None => (builder.with_no_client_auth(), None),
    };
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    let mut any = config.clone();
    any.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    Ok(LoadedClient {
        http1: Arc::new(config),
        any: Arc::new(any),
        certificate,
        generation: unique(),
        digest: reader.digest(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_host_without_port_and_brackets() {
        for (authority, expected) in [
            ("isp.example:8443", "isp.example"),
            ("isp.example", "isp.example"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8443", "::1"),
        ] {
            assert_eq!(server_name(authority).unwrap().to_str(), expected, "{authority}");
        }
        assert!(server_name("under_score.example").is_some());
        assert!(server_name("-.example").is_none());
    }
}
