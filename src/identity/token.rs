//! Takes a compact JWS apart, without believing any of it.
//!
//! Base64url must be canonical and unpadded, so that one token has one spelling. The header is read strictly: what it
//! could change about verification is either understood or refused. Keys named or carried by the header (`jku`, `jwk`,
//! `x5u`, `x5c`) are never looked at.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    error::AuthError,
    json::{Json, Object},
};

/// Longest token in bytes; longer ones are refused before anything else is done with them.
pub(super) const MAX_TOKEN_BYTES: usize = 16 * 1024;
const MAX_KID_BYTES: usize = 255;

/// The parts of a token that were read.
pub(super) struct Compact<'a> {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    /// Header and payload as they were signed.
    pub(super) signed: &'a [u8],
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

fn malformed(what: &'static str) -> AuthError {
    AuthError::Malformed { what }
}

impl<'a> Compact<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TooLong { limit: MAX_TOKEN_BYTES });
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("it has not three parts"));
        };
        let signed = token.as_bytes().get(..header.len() + 1 + payload.len()).ok_or(malformed("its parts"))?;
        // The default engine refuses padding and stray trailing bits.
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("it is not base64url"));
        let header = decode(header)?;
        let (alg, kid) = read_header(&header)?;
        let (payload, signature) = (decode(payload)?, decode(signature)?);
        if signature.is_empty() {
            return Err(malformed("it has no signature"));
        }
        Ok(Self { alg, kid, signed, payload, signature })
    }
}

fn read_header(bytes: &[u8]) -> Result<(String, Option<String>), AuthError> {
    let header = Object::parse(bytes).ok_or(malformed("its header is not one JSON object without repeated keys"))?;
    // `crit` names extensions that must be understood (none is); the others change what is signed.
    if ["crit", "b64", "enc", "zip"].into_iter().any(|name| header.contains(name)) {
        return Err(malformed("its header asks for an extension"));
    }
    match header.get("typ") {
        None => {}
        Some(Json::Text(typ)) if typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt") => {}
        Some(_) => return Err(AuthError::TokenType),
    }
    let alg = header.get("alg").and_then(Json::text).ok_or(malformed("its header names no algorithm"))?;
    let kid = match header.get("kid") {
        None => None,
        Some(Json::Text(kid)) if !kid.is_empty() && kid.len() <= MAX_KID_BYTES => Some(kid.to_string()),
        Some(_) => return Err(malformed("its `kid` is no text of 1 to 255 bytes")),
    };
    Ok((alg.to_owned(), kid))
}
