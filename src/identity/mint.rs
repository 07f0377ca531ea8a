//! Development tokens and their keys: for `linkgate token`, the demo and tests.
//!
//! A key pair that an issuer's configuration names as `development_key` can sign tokens of that issuer. `serve`
//! refuses such an issuer on a listener that is not loopback. Nothing on the request's way signs by this file; where such an
//! issuer names no other keys, its key set is the public part of that pair.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    assertion::{assemble, sign_hs256},
    jwks,
    keyring::{KeyPairOf, SigningError, encode_header},
};

/// Algorithms of development keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevAlgorithm {
    Es256,
    EdDsa,
}

/// A development key that cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("cannot read `{}`; check the path and its permissions", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write `{}`; check the folder and its permissions", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` holds no PKCS#8 private key in PEM for Ed25519 or P-256", path.display())]
    Key { path: PathBuf },
    #[error("no key could be made")]
    Generate,
    #[error("the token could not be signed")]
    Sign(#[source] SigningError),
}

/// A key pair with its `kid`.
pub struct DevKey {
    pair: KeyPairOf,
    kid: String,
    pem: String,
}

impl DevKey {
    /// A new key pair; its `kid` is its RFC 7638 thumbprint.
    pub fn generate(algorithm: DevAlgorithm) -> Result<Self, MintError> {
        let der = match algorithm {
            DevAlgorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()),
            DevAlgorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()),
        }
        .map_err(|_| MintError::Generate)?;
        let pem = to_pem(der.as_ref());
        Self::from_pem(pem).ok_or(MintError::Generate)
    }

    /// A PKCS#8 PEM file.
    pub fn read(path: &Path) -> Result<Self, MintError> {
        let pem = std::fs::read_to_string(path).map_err(|source| MintError::Read { path: path.to_owned(), source })?;
        Self::from_pem(pem).ok_or_else(|| MintError::Key { path: path.to_owned() })
    }

    fn from_pem(pem: String) -> Option<Self> {
        let pair = KeyPairOf::from_pem(pem.as_bytes())?;
        let kid = pair.thumbprint();
        Some(Self { pair, kid, pem })
    }

    /// The same key under another name.
    #[must_use]
    pub fn with_kid(mut self, kid: impl Into<String>) -> Self {
        self.kid = kid.into();
        self
    }

    /// Under the name that a JWKS document has for this key; `None` if it does not hold it.
    #[must_use]
    pub fn named_by(self, document: &[u8]) -> Option<Self> {
        let kid = jwks::kid_of(document, self.pair.family(), self.pair.public())?;
        Some(self.with_kid(kid))
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JWA name, as an issuer's `algorithms` list it.
    pub fn algorithm(&self) -> &'static str {
        self.pair.algorithm()
    }

    /// The public key as one JWK, JSON text.
    pub fn jwk(&self) -> String {
        self.pair.jwk(&self.kid)
    }

    /// A JWKS document with this key alone.
    pub fn jwks(&self) -> String {
        jwks_of([self])
    }

    /// The private key. For a file that only its owner reads.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes the private key to a new file (mode 600), over an old one.
    pub fn write_pem(&self, path: &Path) -> Result<(), MintError> {
        write(path, &self.pem, 0o600)
    }

    /// Writes the JWKS document.
    pub fn write_jwks(&self, path: &Path) -> Result<(), MintError> {
        write(path, &self.jwks(), 0o644)
    }
}

/// A JWKS document with several keys.
pub fn jwks_of<'a>(keys: impl IntoIterator<Item = &'a DevKey>) -> String {
    let entries: Vec<String> = keys.into_iter().map(DevKey::jwk).collect();
    format!(r#"{{"keys":[{}]}}"#, entries.join(","))
}

/// Signs these claims as they are: what stands in them is the caller's choice.
pub fn mint(key: &DevKey, claims: &Map<String, Value>) -> Result<String, MintError> {
    let header = encode_header("JWT", key.algorithm(), Some(&key.kid));
    assemble(&header, claims, |message| key.pair.sign(message)).map_err(MintError::Sign)
}

/// The same by HS256, as the legacy issuer does.
pub fn mint_hs256(secret: &[u8], claims: &Map<String, Value>) -> Result<String, MintError> {
    sign_hs256(&encode_header("JWT", "HS256", None), claims, secret).map_err(MintError::Sign)
}

fn to_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<String> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), MintError> {
    use std::os::unix::fs::OpenOptionsExt;
    let open = || {
        // Into place by renaming, so that the mode is the new file's own and no reader sees half a key.
        let mut partial = path.as_os_str().to_owned();
        partial.push(".new");
        let partial = PathBuf::from(partial);
        let _ = std::fs::remove_file(&partial);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    open().map_err(|source| MintError::Write { path: path.to_owned(), source })
}
