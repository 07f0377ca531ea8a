//! Keys that sign anything, issuers, and claims that are good until a test spoils them.

use std::{path::PathBuf, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use linkgate::{
    domain::{Millis, Secret},
    identity::{
        AuthError, Caller, Verifier,
        mint::{DevAlgorithm, DevKey},
        settings::{ClaimNames, IdentitySettings, IssuerSettings, KeySource, Trusts},
    },
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

pub(crate) const NOW: Millis = Millis(1_800_000_000_000);
pub(crate) const NOW_S: i64 = 1_800_000_000;
pub(crate) const ISS: &str = "https://idp.example";
pub(crate) const OWN_ISS: &str = "https://gateway.example";
pub(crate) const SECRET: &[u8] = b"a legacy secret of at least 32 bytes!";
pub(crate) const PARTNER: &str = "6f1c2d3e-4a5b-4c6d-8e7f-0123456789ab";

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A development key that also signs raw bytes, so that any header can be forged around a good signature.
pub(crate) struct Key {
    pub(crate) dev: DevKey,
    pair: Pair,
}

impl Key {
    pub(crate) fn new(algorithm: DevAlgorithm, kid: &str) -> Self {
        let dev = DevKey::generate(algorithm).unwrap().with_kid(kid);
        let der = PrivatePkcs8KeyDer::from_pem_slice(dev.pem().as_bytes()).unwrap();
        let der = der.secret_pkcs8_der();
        let pair = match algorithm {
            DevAlgorithm::Es256 => Pair::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).unwrap()),
            DevAlgorithm::EdDsa => Pair::Ed(Ed25519KeyPair::from_pkcs8(der).unwrap()),
        };
        Self { dev, pair }
    }

    pub(crate) fn es256(kid: &str) -> Self {
        Self::new(DevAlgorithm::Es256, kid)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    pub(crate) fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": self.dev.algorithm(), "kid": self.dev.kid()})
    }

    /// Any text as header and payload, under a good signature.
    pub(crate) fn raw(&self, header: &str, payload: &[u8]) -> String {
        let message = format!("{}.{}", b64(header), b64(payload));
        let signature = b64(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.raw(&self.header().to_string(), claims.to_string().as_bytes())
    }
}

/// Claims that every issuer of these tests accepts.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISS, "aud": "linkgate", "sub": "user-1", "exp": NOW_S + 600, "iat": NOW_S - 10,
        "tenant_id": "home-1", "type": "access",
    })
}

/// The same with one claim set.
pub(crate) fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut all = claims();
    all[name] = value.into();
    all
}

pub(crate) fn without(name: &str) -> Value {
    let mut all = claims();
    all.as_object_mut().unwrap().remove(name);
    all
}

pub(crate) fn issuer(name: &str, keys: KeySource) -> IssuerSettings {
    IssuerSettings {
        name: name.into(),
        issuer: Some(ISS.into()),
        audiences: vec!["linkgate".into(), "linkgate-2".into()],
        algorithms: vec!["ES256".into()],
        keys,
        trusts: Trusts { partner_id: true, roles: true, permissions: true, is_platform_admin: true },
        home_tenants: None,
        max_token_age: None,
        leeway: std::time::Duration::ZERO,
        mfa_acr: vec!["urn:mfa".into()],
        claims: ClaimNames::default(),
        development_key: None,
    }
}

pub(crate) fn legacy() -> IssuerSettings {
    IssuerSettings {
        issuer: None,
        audiences: vec![],
        algorithms: vec!["HS256".into()],
        ..issuer("legacy", KeySource::Hs256(Secret::new(SECRET)))
    }
}

pub(crate) fn settings(issuers: Vec<IssuerSettings>) -> IdentitySettings {
    IdentitySettings { issuers, cookie: None, cache_tokens: 100 }
}

pub(crate) fn verifier(issuers: Vec<IssuerSettings>) -> Arc<Verifier> {
    Arc::new(Verifier::new(&settings(issuers), Some(OWN_ISS)).unwrap())
}

/// A folder of key files that lives as long as the test.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn jwks(&self, name: &str, text: &str) -> KeySource {
        std::fs::write(self.path(name), text).unwrap();
        KeySource::JwksFile(self.path(name))
    }
}

pub(crate) fn verify(verifier: &Verifier, token: &str) -> Result<Arc<Caller>, AuthError> {
    verifier.verify(token, NOW)
}

pub(crate) fn hs256(header: &str, payload: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", b64(tag))
}
