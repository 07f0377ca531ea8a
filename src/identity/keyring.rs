//! The gateway's own keys: they sign assertions and replacement tokens, and are published for upstreams to check.
//!
//! The first key signs; the others are published ahead of their use, so that a rotation finds every upstream
//! prepared. Key pairs are parsed once. The private part never leaves this module.

use std::{path::PathBuf, sync::Arc};

use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

use super::{key::Family, settings::SigningSettings};

/// The type of assertions: one of its own (RFC 8725, section 3.11), so that no verifier of access tokens takes an assertion for one.
pub(super) const ASSERTION_TYP: &str = "linkgate-assertion+jwt";

/// Keys that cannot be loaded, or a signature that failed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("cannot read the signing key `{}`; check the path and its permissions", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "`{}` holds no PKCS#8 private key in PEM for Ed25519 or P-256; make one with `openssl genpkey -algorithm ed25519`",
        path.display()
    )]
    Key { path: PathBuf },
    #[error("no signing key is configured; list at least one")]
    NoKeys,
    #[error("two signing keys have the `kid` `{0}`; names must differ")]
    RepeatedKid(String),
    #[error("the gateway's own `iss` is empty; upstreams need one to tell its tokens")]
    NoIssuer,
    #[error("the signature could not be made")]
    Sign,
    #[error("a claim cannot be written as JSON")]
    Claims(#[source] serde_json::Error),
}

/// A private key with its algorithm.
pub(super) enum KeyPairOf {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl KeyPairOf {
    /// From the PEM text of a PKCS#8 key.
    pub(super) fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        let der = der.secret_pkcs8_der();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            return Some(Self::Ed25519(pair));
        }
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok().map(Self::P256)
    }

    pub(super) fn family(&self) -> Family {
        match self {
            Self::Ed25519(_) => Family::Ed25519,
            Self::P256(_) => Family::P256,
        }
    }

    /// The JWA name.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
        }
    }

    /// 32 bytes for Ed25519, the uncompressed point for P-256.
    pub(super) fn public(&self) -> &[u8] {
        match self {
            Self::Ed25519(pair) => pair.public_key().as_ref(),
            Self::P256(pair) => pair.public_key().as_ref(),
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let signature = match self {
            Self::Ed25519(pair) => pair.try_sign(message),
            Self::P256(pair) => pair.sign(&SystemRandom::new(), message),
        };
        Ok(signature.map_err(|_| SigningError::Sign)?.as_ref().to_vec())
    }

    /// The members that RFC 7638 hashes, in its order, as JSON text without the braces.
    fn required_members(&self) -> String {
        match self {
            Self::Ed25519(_) => {
                format!(r#""crv":"Ed25519","kty":"OKP","x":"{}""#, URL_SAFE_NO_PAD.encode(self.public()))
            }
            Self::P256(_) => {
                let coordinates = self.public().get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                format!(r#""crv":"P-256","kty":"EC","x":"{x}","y":"{y}""#)
            }
        }
    }

    /// The public key as one JWK, JSON text.
    pub(super) fn jwk(&self, kid: &str) -> String {
        let kid = serde_json::Value::from(kid);
        format!(r#"{{{},"use":"sig","alg":"{}","kid":{kid}}}"#, self.required_members(), self.algorithm())
    }

    /// RFC 7638: a name that follows from the key.
    pub(super) fn thumbprint(&self) -> String {
        let members = format!("{{{}}}", self.required_members());
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, members.as_bytes()))
    }
}

/// The private key's bytes as the start of derivations; nothing of the key can be read from what comes out.
fn root(pem: &[u8]) -> Option<hmac::Key> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
    Some(derive(&hmac::Key::new(hmac::HMAC_SHA256, der.secret_pkcs8_der()), "linkgate derived secrets"))
}

fn derive(from: &hmac::Key, label: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(from, label.as_bytes()).as_ref())
}

/// The header of a token of this key and type, base64url, with its dot.
pub(super) fn encode_header(typ: &str, alg: &str, kid: Option<&str>) -> String {
    let kid = kid.map(|kid| format!(r#","kid":{}"#, serde_json::Value::from(kid))).unwrap_or_default();
    let mut header = URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"{typ}","alg":"{alg}"{kid}}}"#));
    header.push('.');
    header
}

/// The gateway's signing keys and its `iss`.
pub struct Keyring {
    pub(super) issuer: Arc<str>,
    pub(super) signer: KeyPairOf,
    /// Prepared headers: they never change.
    pub(super) assertion_header: String,
    pub(super) replacement_header: String,
    jwks: String,
    /// One for each key, in their order: what [`Self::derived`] starts from.
    roots: Vec<hmac::Key>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").finish_non_exhaustive()
    }
}

impl Keyring {
    /// Reads all key files.
    pub fn load(settings: &SigningSettings) -> Result<Self, SigningError> {
        if settings.issuer.is_empty() {
            return Err(SigningError::NoIssuer);
        }
        let mut signer = None;
        let mut published: Vec<(String, String)> = Vec::with_capacity(settings.keys.len());
        let mut roots = Vec::with_capacity(settings.keys.len());
        for key in &settings.keys {
            if published.iter().any(|(kid, _)| *kid == key.kid) {
                return Err(SigningError::RepeatedKid(key.kid.clone()));
            }
            let pem =
                std::fs::read(&key.path).map_err(|source| SigningError::Read { path: key.path.clone(), source })?;
            let pair = KeyPairOf::from_pem(&pem).ok_or_else(|| SigningError::Key { path: key.path.clone() })?;
            published.push((key.kid.clone(), pair.jwk(&key.kid)));
            roots.push(root(&pem).ok_or_else(|| SigningError::Key { path: key.path.clone() })?);
            signer.get_or_insert((key.kid.clone(), pair));
        }
        let (kid, signer) = signer.ok_or(SigningError::NoKeys)?;
        let documents: Vec<String> = published.into_iter().map(|(_, jwk)| jwk).collect();
        Ok(Self {
            issuer: settings.issuer.as_str().into(),
            assertion_header: encode_header(ASSERTION_TYP, signer.algorithm(), Some(&kid)),
            replacement_header: encode_header("JWT", signer.algorithm(), Some(&kid)),
            signer,
            jwks: format!(r#"{{"keys":[{}]}}"#, documents.join(",")),
            roots,
        })
    }

    /// Secrets for a use of their own, one for each key: all replicas with these keys have the same ones. The first is
    /// the one to use; the others are those of keys that are coming or going.
    pub fn derived(&self, label: &str) -> Vec<hmac::Key> {
        self.roots.iter().map(|root| derive(root, label)).collect()
    }

    /// What `/.well-known/linkgate/jwks.json` answers.
    pub fn jwks_json(&self) -> &str {
        &self.jwks
    }

    /// The gateway's own `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}
