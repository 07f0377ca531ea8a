//! One verification key, bound to one algorithm for good.
//!
//! A key is parsed when it is loaded, so a point off its curve or an RSA key below 2048 bits never becomes a key at
//! all. Public keys and HMAC secrets are different variants with different verification: no header can make one
//! stand for the other.

use std::fmt;

use aws_lc_rs::{
    hmac,
    signature::{self, ParsedPublicKey, VerificationAlgorithm},
};

/// JWA algorithms that an issuer may be configured with. There is no `none`, and no other HMAC than HS256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Alg {
    Hs256,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// What kind of public key an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Hmac,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Alg {
    const ALL: [(&'static str, Self); 10] = [
        ("HS256", Self::Hs256),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// Exact spelling only, as RFC 7515 demands.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, alg)| *alg)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, alg)| *alg == self).map_or("", |(name, _)| name)
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::Hs256 => Family::Hmac,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => Family::Rsa,
            Self::Es256 => Family::P256,
            Self::Es384 => Family::P384,
            Self::EdDsa => Family::Ed25519,
        }
    }

    fn verification(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::Hs256 => return None,
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::EdDsa => &signature::ED25519,
        })
    }
}

impl fmt::Display for Alg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A key and the one algorithm that it verifies.
pub(super) struct VerifyingKey {
    /// `None`: the key set names none, or the key is a secret.
    pub(super) kid: Option<String>,
    pub(super) alg: Alg,
    material: Material,
}

enum Material {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl VerifyingKey {
    /// `bytes`: PKCS#1 `RSAPublicKey` for RSA, the uncompressed point for EC, the 32 bytes for Ed25519.
    ///
    /// `None` where they are no key for the algorithm.
    pub(super) fn public(kid: Option<String>, alg: Alg, bytes: &[u8]) -> Option<Self> {
        let key = ParsedPublicKey::new(alg.verification()?, bytes).ok()?;
        Some(Self { kid, alg, material: Material::Public(key) })
    }

    /// HS256.
    pub(super) fn secret(bytes: &[u8]) -> Self {
        Self {
            kid: None,
            alg: Alg::Hs256,
            material: Material::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes))),
        }
    }

    /// HMAC tags are compared in constant time.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }

    /// Same name, algorithm and material.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.kid == other.kid
            && self.alg == other.alg
            && match (&self.material, &other.material) {
                (Material::Public(one), Material::Public(two)) => one.as_ref() == two.as_ref(),
                // Secrets come from the configuration and never change in place.
                _ => false,
            }
    }
}

/// All keys of one issuer at one moment.
#[derive(Default)]
pub(super) struct KeySet(Vec<VerifyingKey>);

/// Why a key set has not exactly one key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// No key of the set has this name: perhaps a new one, which a fetch would bring.
    UnknownKid,
    /// The name is known, but with another algorithm; or several keys fit.
    NotOne,
}

impl KeySet {
    pub(super) fn new(keys: Vec<VerifyingKey>) -> Self {
        Self(keys)
    }

    /// The one key for this algorithm and name. A token without a name needs a set in which one key fits.
    pub(super) fn find(&self, kid: Option<&str>, alg: Alg) -> Result<&VerifyingKey, NoKey> {
        let named = |key: &&VerifyingKey| match (kid, alg) {
            // An issuer with a secret has one key, whatever it is called.
            (_, Alg::Hs256) | (None, _) => true,
            (Some(kid), _) => key.kid.as_deref() == Some(kid),
        };
        let mut fitting = self.0.iter().filter(named).filter(|key| key.alg == alg);
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(NoKey::NotOne),
            (None, _) if kid.is_some() && !self.0.iter().any(|key| named(&key)) => Err(NoKey::UnknownKid),
            (None, _) => Err(NoKey::NotOne),
        }
    }

    /// The same keys, in any order.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|one| other.0.iter().any(|two| one.same_as(two)))
    }
}
