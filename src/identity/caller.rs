//! Who a verified token says is calling.
//!
//! Made by the verifier, from a verified certificate (`certificate`), or for a user whom a trusted service vouches for
//! (`Attested`). What the issuer is not trusted for is already left out here, so that nothing above can
//! read it by accident. It says nothing on partners' links: those are looked up at the moment of the request.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;

use super::settings::IssuerSettings;
use crate::domain::{Millis, PartnerId, TenantId};

/// How far an `iat` may lie in the future before it is no use for telling a token's age.
const IAT_SKEW_MS: i64 = 60_000;

/// One verified token, as the rest of the gateway sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The issuer's name in the configuration; for logs.
    pub issuer_name: Arc<str>,
    /// The token's `iss`; empty for the legacy issuer without one.
    pub issuer: Arc<str>,
    pub sub: Arc<str>,
    pub username: Option<Arc<str>>,
    pub email: Option<Arc<str>>,
    pub session_id: Option<Arc<str>>,
    pub jti: Option<Arc<str>>,
    /// The token's own tenant. `None`: the caller has no home.
    pub home_tenant: Option<TenantId>,
    /// Empty unless the issuer is trusted for roles.
    pub roles: Vec<Arc<str>>,
    /// Empty unless the issuer is trusted for permissions.
    pub permissions: Vec<Arc<str>>,
    /// `None` unless the issuer is trusted for it.
    pub partner_id: Option<PartnerId>,
    /// False unless the issuer is trusted for it.
    pub is_platform_admin: bool,
    /// `amr` contains `mfa`, or `acr` is in the issuer's list.
    pub mfa: bool,
    pub issued_at: Option<Millis>,
    /// The first instant at which the token is refused: `exp` plus the issuer's leeway.
    pub expires_at: Millis,
    /// Longest age by `iat` for cross-tenant requests; see `too_old`.
    pub max_token_age: Option<Duration>,
    /// SHA-256 of the whole token.
    pub token_digest: [u8; 32],
    /// SHA-256 over issuer, subject, username and email: everything that a signed token says of the user.
    pub user_digest: [u8; 32],
}

impl Caller {
    /// Whether the token is older than the issuer's `max_token_age`, which binds cross-tenant requests only.
    ///
    /// Where an age is demanded, a token that does not tell it (no `iat`, or one in the future) is too old.
    pub fn too_old(&self, now: Millis) -> bool {
        let Some(limit) = self.max_token_age else { return false };
        let Some(issued) = self.issued_at else { return true };
        let age = now.0.saturating_sub(issued.0);
        age < -IAT_SKEW_MS || age > i64::try_from(limit.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A user whom somebody else than a token vouches for. What the issuer is not trusted for is left out as in a token.
#[derive(Clone, Debug, Default)]
pub struct Attested {
    pub sub: String,
    pub username: Option<String>,
    pub session_id: Option<String>,
    pub jti: Option<String>,
    pub roles: Vec<String>,
    pub permissions: Vec<String>,
    pub mfa: bool,
    pub home_tenant: Option<TenantId>,
}

/// How long what was vouched for counts: for one decision.
const ATTESTED_MS: i64 = 1_000;

impl Caller {
    /// Nothing that was vouched for tells a token's age, so an issuer that demands one is not satisfied (see `too_old`).
    pub fn attested(issuer: &IssuerSettings, attested: Attested, now: Millis) -> Self {
        let shared = |texts: Vec<String>| texts.into_iter().map(Arc::from).collect();
        let iss: Arc<str> = issuer.issuer.as_deref().unwrap_or_default().into();
        let user_digest = user_digest(&iss, &attested.sub, attested.username.as_deref(), None);
        Self {
            issuer_name: issuer.name.as_str().into(),
            issuer: iss,
            sub: attested.sub.into(),
            username: attested.username.map(Into::into),
            email: None,
            session_id: attested.session_id.map(Into::into),
            jti: attested.jti.map(Into::into),
            home_tenant: attested.home_tenant,
            roles: if issuer.trusts.roles { shared(attested.roles) } else { Vec::new() },
            permissions: if issuer.trusts.permissions { shared(attested.permissions) } else { Vec::new() },
            partner_id: None,
            is_platform_admin: false,
            mfa: attested.mfa,
            issued_at: None,
            expires_at: Millis(now.0.saturating_add(ATTESTED_MS)),
            max_token_age: issuer.max_token_age,
            token_digest: [0; 32],
            user_digest,
        }
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    to_array(&digest::digest(&digest::SHA256, bytes))
}

fn to_array(digest: &digest::Digest) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Length-prefixed, so that no two users share one.
pub(super) fn user_digest(issuer: &str, sub: &str, username: Option<&str>, email: Option<&str>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [Some(issuer), Some(sub), username, email] {
        context.update(&part.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
        context.update(part.unwrap_or_default().as_bytes());
    }
    to_array(&context.finish())
}
