//! Token in, caller out.
//!
//! The issuer is found by the token's unverified `iss`; from there on only that issuer's algorithms, keys and rules
//! count, and the caller is made of claims only after the signature verified. `verify` blocks on nothing. Keys of an
//! address are fetched by `maintain` on the service runtime; the workers only ask for it (`refetch`) and wait.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{
    caller::Caller,
    claims,
    error::{AuthError, IdentityError},
    generation::Generation,
    issuer::{Issuer, Keys},
    json::{Json, Object},
    key::{Alg, NoKey},
    settings::IdentitySettings,
    token::Compact,
};
use crate::domain::Millis;

/// Claim by which the gateway marks tokens that it made for upstreams.
pub(super) const OWN_TOKEN_CLAIM: &str = "linkgate";

/// Verifies tokens of all configured issuers.
pub struct Verifier {
    issuers: Vec<Issuer>,
    own_issuer: Option<Arc<str>>,
    generation: Generation,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads key files; keys behind addresses are fetched by `maintain`. `own_issuer`: the gateway's own `iss`.
    pub fn new(settings: &IdentitySettings, own_issuer: Option<&str>) -> Result<Self, IdentityError> {
        let mut issuers: Vec<Issuer> = Vec::with_capacity(settings.issuers.len());
        for one in &settings.issuers {
            let issuer = Issuer::new(one)?;
            let wrong = |problem| Err(IdentityError::Settings { issuer: issuer.name.clone(), problem });
            if issuers.iter().any(|known| known.iss == issuer.iss) {
                return wrong("another issuer has the same `iss`; only one may be without");
            }
            if own_issuer == Some(&*issuer.iss) {
                return wrong("its `iss` is the gateway's own, whose tokens are for upstreams only");
            }
            issuers.push(issuer);
        }
        Ok(Self { issuers, own_issuer: own_issuer.map(Arc::from), generation: Generation::new() })
    }

    /// Whether every issuer has keys that may be used.
    pub fn ready(&self) -> bool {
        self.issuers.iter().all(|issuer| issuer.current_keys().is_some())
    }

    /// Names of the issuers without usable keys, for `/readyz`.
    pub fn missing(&self) -> Vec<Arc<str>> {
        let without = |issuer: &&Issuer| issuer.current_keys().is_none();
        self.issuers.iter().filter(without).map(|issuer| issuer.name.clone()).collect()
    }

    /// Another value whenever keys or configuration changed; part of the key of every cached token.
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Who is calling, or why the token is refused. `UnknownKid` and `KeysUnavailable` may be tried once more after
    /// `refetch`.
    pub fn verify(&self, token: &str, now: Millis) -> Result<Arc<Caller>, AuthError> {
        let parts = Compact::parse(token)?;
        let claims = Object::parse(&parts.payload)
            .ok_or(AuthError::Malformed { what: "its claims are not one JSON object without repeated keys" })?;
        let issuer = self.issuer_of(&claims)?;
        let of = || issuer.name.clone();
        let alg = Alg::parse(&parts.alg)
            .filter(|alg| issuer.algorithms.contains(alg))
            .ok_or_else(|| AuthError::Algorithm { issuer: of() })?;
        let keys = issuer.current_keys().ok_or_else(|| AuthError::KeysUnavailable { issuer: of() })?;
        let key = keys.find(parts.kid.as_deref(), alg).map_err(|missing| match missing {
            NoKey::UnknownKid => AuthError::UnknownKid { issuer: of() },
            NoKey::NotOne => AuthError::NoSingleKey { issuer: of() },
        })?;
        if !key.verifies(parts.signed, &parts.signature) {
            return Err(AuthError::Signature);
        }
        claims::caller(issuer, &claims, token, now).map(Arc::new)
    }

    fn issuer_of(&self, claims: &Object<'_>) -> Result<&Issuer, AuthError> {
        if claims.contains(OWN_TOKEN_CLAIM) {
            return Err(AuthError::OwnToken);
        }
        let iss = match claims.get("iss") {
            None => "",
            Some(Json::Text(iss)) if !iss.is_empty() => iss.as_ref(),
            Some(_) => return Err(AuthError::Claim { claim: "iss".into() }),
        };
        if !iss.is_empty() && self.own_issuer.as_deref() == Some(iss) {
            return Err(AuthError::OwnToken);
        }
        self.issuers.iter().find(|issuer| &*issuer.iss == iss).ok_or(AuthError::UnknownIssuer)
    }

    /// Keeps the keys of all addresses fresh until dropped. Run exactly once, on the service runtime.
    pub async fn maintain(self: Arc<Self>) {
        let loops = self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            Keys::Remote(remote) => Some(remote.maintain(&self.generation)),
            Keys::Secret(_) | Keys::File(_) => None,
        });
        join_all(loops).await;
    }

    /// After `UnknownKid` or `KeysUnavailable`: asks for a fetch of that issuer's keys and waits for it.
    ///
    /// True: a fetch has ended since, verify once more. At most one fetch runs at a time, all callers share it, and
    /// none starts within `min_refetch` of the one before: then the answer is false at once.
    pub async fn refetch(&self, error: &AuthError) -> bool {
        let (AuthError::UnknownKid { issuer } | AuthError::KeysUnavailable { issuer }) = error else { return false };
        match self.issuers.iter().find(|known| known.name == *issuer).map(|known| &known.keys) {
            Some(Keys::Remote(remote)) => remote.refetch().await,
            _ => false,
        }
    }

    /// Reads key files anew (SIGHUP) and asks for a fetch of every address. A bad file leaves the old keys in force.
    pub fn reload(&self) -> Result<(), Vec<IdentityError>> {
        let mut errors = Vec::new();
        for issuer in &self.issuers {
            match &issuer.keys {
                Keys::Secret(_) => {}
                Keys::File(file) => match file.reload() {
                    Ok(true) => self.generation.advance(),
                    Ok(false) => {}
                    Err(error) => errors.push(error),
                },
                Keys::Remote(remote) => remote.fetch_soon(),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}
