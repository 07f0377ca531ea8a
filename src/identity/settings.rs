//! What the identity room is configured with: valid by construction, made by `config`.

use std::{path::PathBuf, time::Duration};

use crate::domain::{Secret, TenantId};

/// All issuers and how the token travels.
#[derive(Clone, Debug)]
pub struct IdentitySettings {
    pub issuers: Vec<IssuerSettings>,
    /// A cookie that may carry the token; unsafe methods then must pass a same-origin check. `None`: header only.
    pub cookie: Option<String>,
    /// Bound of the verified-token cache, in tokens, per worker.
    pub cache_tokens: usize,
}

/// One token issuer. Its algorithms are pinned; its keys come from one place.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// Name in the configuration; shown in logs and errors, never to callers.
    pub name: String,
    /// Expected `iss`. `None` only for one legacy issuer, which takes only tokens that carry no `iss`.
    pub issuer: Option<String>,
    /// Accepted `aud` values; empty only for the legacy issuer.
    pub audiences: Vec<String>,
    /// JWA names: HS256, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA. HS256 only with a secret.
    pub algorithms: Vec<String>,
    pub keys: KeySource,
    pub trusts: Trusts,
    /// Home tenants that this issuer may speak for; `None`: any.
    pub home_tenants: Option<Vec<TenantId>>,
    /// Longest age by `iat` for cross-tenant requests; off by default.
    pub max_token_age: Option<Duration>,
    /// Clock leeway, zero by default, at most 60 s.
    pub leeway: Duration,
    /// `acr` values that show MFA, beside `amr` containing `mfa`.
    pub mfa_acr: Vec<String>,
    pub claims: ClaimNames,
    /// `linkgate token` may mint for it with this key; `serve` then refuses a listener that is not loopback.
    pub development_key: Option<PathBuf>,
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    JwksFile(PathBuf),
    JwksUrl {
        url: String,
        /// How often keys are fetched anew.
        refresh: Duration,
        /// Shortest time between fetches caused by an unknown `kid`.
        min_refetch: Duration,
        /// How long the last good keys are kept through an outage.
        max_age: Duration,
    },
    Hs256(Secret),
    /// The public part of the development key in this PEM file: the key set of an issuer that is nobody but `linkgate token`.
    DevelopmentKey(PathBuf),
}

/// Claims that this issuer is believed for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trusts {
    pub partner_id: bool,
    pub roles: bool,
    pub permissions: bool,
    pub is_platform_admin: bool,
}

/// Names of the claims that differ between deployments.
#[derive(Clone, Debug)]
pub struct ClaimNames {
    pub tenant_id: String,
    pub partner_id: String,
    pub roles: String,
    pub permissions: String,
    pub session_id: String,
    pub is_platform_admin: String,
    pub username: String,
    pub email: String,
    /// The claim that tells an access token from a refresh token.
    pub token_type: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            tenant_id: "tenant_id".into(),
            partner_id: "partner_id".into(),
            roles: "roles".into(),
            permissions: "permissions".into(),
            session_id: "session_id".into(),
            is_platform_admin: "is_platform_admin".into(),
            username: "username".into(),
            email: "email".into(),
            token_type: "type".into(),
        }
    }
}

/// Keys by which the gateway signs assertions and replacement tokens.
#[derive(Clone, Debug)]
pub struct SigningSettings {
    /// The gateway's own `iss`; a token carrying it is refused at the door.
    pub issuer: String,
    /// All published at `/.well-known/linkgate/jwks.json`; the first one signs, the others are published ahead.
    pub keys: Vec<SigningKey>,
}

/// One PKCS#8 PEM file, Ed25519 (EdDSA) or P-256 (ES256); the algorithm is read from the key.
#[derive(Clone, Debug)]
pub struct SigningKey {
    pub kid: String,
    pub path: PathBuf,
}
