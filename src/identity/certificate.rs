//! A caller who is known by a certificate instead of a token.
//!
//! What a token's claims say stands in the configuration here, and no issuer says it: who may write the configuration is
//! believed. The certificate's digest stands in for the token's id, so that an emergency suspension can name it.

use std::{fmt::Write, sync::Arc};

use super::caller::{Caller, sha256, user_digest};
use crate::domain::{Millis, TenantId};

/// What the configuration says of a certificate's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateUser {
    /// The issuer's name in the configuration.
    pub issuer_name: Arc<str>,
    /// Its `iss`; empty for the legacy issuer.
    pub issuer: Arc<str>,
    pub sub: Arc<str>,
    /// Where no token is needed beside the certificate: what one would say.
    pub alone: Option<CertificateClaims>,
}

/// What a token would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateClaims {
    pub home_tenant: TenantId,
    pub roles: Vec<Arc<str>>,
    pub permissions: Vec<Arc<str>>,
}

impl CertificateUser {
    /// Whether a verified token speaks for the same user.
    pub fn is(&self, caller: &Caller) -> bool {
        self.issuer == caller.issuer && self.sub == caller.sub
    }

    /// The caller, where no token is needed. `certificate`: DER, verified; `ends`: the first instant past its time.
    pub fn caller(&self, certificate: &[u8], ends: Millis) -> Option<Arc<Caller>> {
        let claims = self.alone.as_ref()?;
        let digest = sha256(certificate);
        Some(Arc::new(Caller {
            issuer_name: Arc::clone(&self.issuer_name),
            issuer: Arc::clone(&self.issuer),
            sub: Arc::clone(&self.sub),
            username: None,
            email: None,
            session_id: None,
            jti: Some(certificate_id(certificate)),
            home_tenant: Some(claims.home_tenant.clone()),
            roles: claims.roles.clone(),
            permissions: claims.permissions.clone(),
            partner_id: None,
            is_platform_admin: false,
            // A key that lies in a file is one factor.
            mfa: false,
            issued_at: None,
            expires_at: ends,
            // An age by `iat` is a token's; a certificate has its own end.
            max_token_age: None,
            token_digest: digest,
            user_digest: user_digest(&self.issuer, &self.sub, None, None),
        }))
    }
}

/// What an emergency suspension of a token names a certificate by: `x509:` and its SHA-256 in hex. `certificate`: DER.
pub fn certificate_id(certificate: &[u8]) -> Arc<str> {
    let mut id = "x509:".to_owned();
    for byte in sha256(certificate) {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id.into()
}
