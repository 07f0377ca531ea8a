//! A JWKS document to keys.
//!
//! The document is the issuer's, so unknown members are ignored; but every key is either usable as one that verifies
//! signatures with one of the issuer's algorithms, or left out: `use: enc`, other `key_ops`, symmetric keys (`oct`),
//! private keys, other curves, keys that do not parse. A document that leaves nothing is an error, so that it can
//! never replace a good one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    json::{Json, Object},
    key::{Alg, Family, KeySet, VerifyingKey},
};

/// Most keys of one set.
const MAX_KEYS: usize = 64;

/// Why a JWKS document gives no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksProblem {
    #[error("it is no JSON object with an array `keys`")]
    Form,
    #[error("it holds no public key for one of the issuer's algorithms")]
    NoUsableKey,
    #[error("it holds more keys than the bound of 64")]
    TooManyKeys,
}

/// The usable keys of the document for these algorithms.
pub(super) fn parse(document: &[u8], algorithms: &[Alg]) -> Result<KeySet, JwksProblem> {
    let document = Object::parse(document).ok_or(JwksProblem::Form)?;
    let Some(Json::List(entries)) = document.get("keys") else { return Err(JwksProblem::Form) };
    if entries.len() > MAX_KEYS {
        return Err(JwksProblem::TooManyKeys);
    }
    let mut keys: Vec<VerifyingKey> = Vec::new();
    for entry in entries {
        let Json::Object(jwk) = entry else { continue };
        for key in usable(jwk, algorithms) {
            // The same key listed twice is one key; two different keys of one name stay two, and neither is used.
            if !keys.iter().any(|known| known.same_as(&key)) {
                keys.push(key);
            }
        }
    }
    if keys.is_empty() { Err(JwksProblem::NoUsableKey) } else { Ok(KeySet::new(keys)) }
}

/// The `kid` under which the document holds this public key.
pub(super) fn kid_of(document: &[u8], family: Family, public: &[u8]) -> Option<String> {
    let document = Object::parse(document)?;
    let Some(Json::List(entries)) = document.get("keys") else { return None };
    entries.iter().find_map(|entry| {
        let Json::Object(jwk) = entry else { return None };
        let (found, bytes) = material(jwk)?;
        (found == family && bytes == public).then(|| jwk.get("kid").and_then(Json::text).map(str::to_owned))?
    })
}

/// One verification key for each algorithm that issuer and key agree on.
fn usable(jwk: &Object<'_>, algorithms: &[Alg]) -> Vec<VerifyingKey> {
    let kid = match jwk.get("kid") {
        None => None,
        Some(Json::Text(kid)) => Some(kid.to_string()),
        Some(_) => return Vec::new(),
    };
    let for_signatures = match jwk.get("use") {
        None => true,
        Some(usage) => usage.text() == Some("sig"),
    };
    let may_verify = match jwk.get("key_ops") {
        None => true,
        Some(operations) => operations.texts().is_some_and(|list| list.contains(&"verify")),
    };
    // A private key that was published is known to others than the issuer.
    if !for_signatures || !may_verify || jwk.contains("d") {
        return Vec::new();
    }
    let Some((family, bytes)) = material(jwk) else { return Vec::new() };
    let fits = |alg: &Alg| alg.family() == family && named(jwk, *alg);
    algorithms
        .iter()
        .filter(|alg| fits(alg))
        .filter_map(|alg| VerifyingKey::public(kid.clone(), *alg, &bytes))
        .collect()
}

/// Whether the key's own `alg`, if it has one, is this algorithm. RFC 9864 calls EdDSA over this curve `Ed25519`.
fn named(jwk: &Object<'_>, alg: Alg) -> bool {
    match jwk.get("alg") {
        None => true,
        Some(Json::Text(name)) => name == alg.name() || (alg == Alg::EdDsa && name == "Ed25519"),
        Some(_) => false,
    }
}

fn material(jwk: &Object<'_>) -> Option<(Family, Vec<u8>)> {
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(jwk.get(name)?.text()?).ok();
    match (jwk.get("kty")?.text()?, jwk.get("crv").and_then(Json::text)) {
        ("RSA", None) => Some((Family::Rsa, rsa_public_key(&bytes("n")?, &bytes("e")?)?)),
        ("EC", Some("P-256")) => Some((Family::P256, point(&bytes("x")?, &bytes("y")?, 32)?)),
        ("EC", Some("P-384")) => Some((Family::P384, point(&bytes("x")?, &bytes("y")?, 48)?)),
        ("OKP", Some("Ed25519")) => Some((Family::Ed25519, bytes("x").filter(|x| x.len() == 32)?)),
        _ => None,
    }
}

/// The uncompressed form of SEC 1.
fn point(x: &[u8], y: &[u8], size: usize) -> Option<Vec<u8>> {
    (x.len() == size && y.len() == size).then(|| [&[4], x, y].concat())
}

/// PKCS#1 `RSAPublicKey`: a DER sequence of two integers.
fn rsa_public_key(n: &[u8], e: &[u8]) -> Option<Vec<u8>> {
    let body = [der_integer(n)?, der_integer(e)?].concat();
    Some([der_head(0x30, body.len())?, body].concat())
}

fn der_integer(bytes: &[u8]) -> Option<Vec<u8>> {
    let start = bytes.iter().position(|byte| *byte != 0)?;
    let digits = bytes.get(start..)?;
    // A leading one bit would make the integer negative.
    let sign: &[u8] = if digits.first()? & 0x80 == 0 { &[] } else { &[0] };
    Some([&der_head(0x02, sign.len() + digits.len())?, sign, digits].concat())
}

fn der_head(tag: u8, length: usize) -> Option<Vec<u8>> {
    let short = u16::try_from(length).ok()?;
    let [high, low] = short.to_be_bytes();
    Some(match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    })
}
