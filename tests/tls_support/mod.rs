//! A certification authority for tests, certificates good and bad, and clients that speak TLS.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};

const DAY: Duration = Duration::from_secs(86_400);

/// An authority; its files lie in one folder.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
    root_pem: String,
    /// What its certificates must be shown with: nothing where it is a root.
    between: String,
}

/// A certificate and its key, PEM.
pub struct Leaf {
    pub cert: String,
    pub key: String,
}

impl Leaf {
    /// Puts both in place as operators do: written beside and renamed. Returns what the configuration says of them.
    pub fn put(&self, dir: &Path, name: &str) -> String {
        let place = |ending: &str, text: &str| {
            let path = dir.join(format!("{name}.{ending}"));
            put(&path, text);
            path
        };
        let (cert, key) = (place("pem", &self.cert), place("key", &self.key));
        format!("{{ cert = \"{}\", key_file = \"{}\" }}", cert.display(), key.display())
    }
}

/// A server of this name that asks its clients for a certificate of the same authority.
pub fn mutual_server(authority: &Authority, name: &str) -> ServerConfig {
    let leaf = authority.server(&[name]);
    let mut roots = RootCertStore::empty();
    roots.add(authority.root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(leaf.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap()
}

/// Replaces a file as a whole.
pub fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            root: root.der().clone(),
            root_pem: root.pem(),
            issuer: Issuer::new(params, key),
            between: String::new(),
        }
    }

    /// An authority below this one, with this serial number; it ends as `change` says.
    pub fn below(&self, name: &str, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, &self.issuer).unwrap();
        let between = format!("{}{}", own.pem(), self.between);
        Self { root: self.root.clone(), root_pem: self.root_pem.clone(), issuer: Issuer::new(params, key), between }
    }

    /// The root, and the certificate of an authority below it, as of roots both.
    pub fn pem_with(&self, below: &Self) -> String {
        format!("{}{}", self.root_pem, below.between)
    }

    /// The root as a file.
    pub fn put(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        put(&path, &self.root_pem);
        path
    }

    /// Valid from yesterday until tomorrow, for these DNS names, but for what `change` does.
    pub fn leaf(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = named("leaf");
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() + DAY).into();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { cert: cert.pem() + &self.between, key: key.serialize_pem() }
    }

    pub fn server(&self, names: &[&str]) -> Leaf {
        self.leaf(names, |_| {})
    }

    /// For a client with this SPIFFE id.
    pub fn spiffe(&self, id: &str) -> Leaf {
        self.leaf(&[], |params| params.subject_alt_names.push(SanType::URI(id.try_into().unwrap())))
    }

    /// A revocation list that names these serial numbers.
    pub fn revocations(&self, serials: &[u64]) -> String {
        self.revocations_of(serials, SystemTime::now() - DAY, SystemTime::now() + DAY)
    }

    /// The same, made and to be replaced at these times.
    pub fn revocations_of(&self, serials: &[u64], made: SystemTime, ends: SystemTime) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: (SystemTime::now() - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: made.into(),
            next_update: ends.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// Ended a day ago.
pub fn expired(params: &mut CertificateParams) {
    params.not_before = (SystemTime::now() - 3 * DAY).into();
    params.not_after = (SystemTime::now() - DAY).into();
}

pub fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Example");
    subject.push(DnType::CommonName, name);
    subject
}

/// How a client speaks.
pub struct Client<'a> {
    /// Whom it believes.
    pub roots: Vec<&'a Authority>,
    pub shows: Option<&'a Leaf>,
    pub alpn: &'a [&'a [u8]],
    pub versions: &'a [&'static rustls::SupportedProtocolVersion],
}

impl<'a> Client<'a> {
    pub fn trusting(root: &'a Authority) -> Self {
        Self { roots: vec![root], shows: None, alpn: &[], versions: rustls::ALL_VERSIONS }
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for authority in &self.roots {
            roots.add(authority.root.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.shows {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = CertificateDer::pem_slice_iter(leaf.cert.as_bytes()).collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// The finished handshake, or why there is none.
    pub fn connect(&self, to: SocketAddr, name: &str) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        connect(self.config(), to, name)
    }

    /// As `connect`, with these bytes before the handshake.
    pub fn connect_behind(
        &self,
        to: SocketAddr,
        name: &str,
        first: &[u8],
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut stream = TcpStream::connect(to)?;
        stream.write_all(first)?;
        handshake(self.config(), stream, name)
    }
}

/// With this configuration, whose sessions may be resumed.
pub fn connect(
    config: Arc<ClientConfig>,
    to: SocketAddr,
    name: &str,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    handshake(config, TcpStream::connect(to)?, name)
}

fn handshake(
    config: Arc<ClientConfig>,
    mut stream: TcpStream,
    name: &str,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(config, name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    // In TLS 1.3 the client is done before the server has judged its certificate.
    while session.wants_write() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

/// The names of the certificate that the server showed.
pub fn shown(stream: &StreamOwned<ClientConnection, TcpStream>) -> Vec<String> {
    let leaf = &stream.conn.peer_certificates().unwrap()[0];
    linkgate::tls::CertificateNames::read(leaf).unwrap().dns
}
