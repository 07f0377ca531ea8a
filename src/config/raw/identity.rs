//! The raw mirror of tokens, issuers and keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::{raw, words};
use crate::config::scalar::DurationText;

raw! {
    /// How tokens travel and are cached.
    struct RawIdentity {
        /// A cookie that may carry the token; unsafe methods must then pass a same-origin check. Not set: header only.
        cookie: Option<String> = None,
        /// Verified tokens cached, per worker.
        cache_tokens: u32 = 20_000,
    }

    /// One token issuer. Its keys come from exactly one place.
    struct RawIssuer {
        /// Expected `iss`.
        issuer: Option<String> = None,
        /// Takes only tokens without `iss`. At most one issuer may be so, and it has no `issuer`.
        legacy: bool = false,
        /// Accepted `aud` values; may be empty only for the legacy issuer.
        audiences: Vec<String> = Vec::new(),
        /// Pinned algorithms. HS256 stands alone and needs a secret.
        algorithms: Vec<RawAlgorithm> = Vec::new(),
        /// JWKS file.
        jwks_file: Option<String> = None,
        /// JWKS URL: https, or http on a loopback address.
        jwks_url: Option<String> = None,
        /// How often the URL is fetched anew.
        jwks_refresh: DurationText = DurationText::of("5m"),
        /// Shortest time between fetches caused by an unknown `kid`.
        jwks_min_refetch: DurationText = DurationText::of("10s"),
        /// How long the last good keys are kept through an outage.
        jwks_max_age: DurationText = DurationText::of("24h"),
        /// File that holds the HS256 secret, at least 32 bytes.
        hs256_secret_file: Option<String> = None,
        /// Environment variable that holds the HS256 secret.
        hs256_secret_env: Option<String> = None,
        /// The HS256 secret itself: only as an environment override, never in the file.
        hs256_secret: Option<String> = None,
        /// Claims that this issuer is believed for.
        trusts: Vec<RawTrust> = Vec::new(),
        /// Home tenants that it may speak for. Not set: any.
        home_tenants: Option<Vec<String>> = None,
        /// Longest age by `iat` for cross-tenant requests. Not set: off.
        max_token_age: Option<DurationText> = None,
        /// Clock leeway, at most 60 s.
        leeway: DurationText = DurationText::of("0s"),
        /// `acr` values that show MFA, beside `amr` containing `mfa`.
        mfa_acr: Vec<String> = Vec::new(),
        /// Names of claims.
        claims: RawClaims = RawClaims::default(),
        /// Private key by which `linkgate token` mints for this issuer; only where all listeners that take tokens are loopback ones, and `algorithms` lists what it signs by. No other keys named: its public part is the key set.
        development_key: Option<String> = None,
    }

    /// Names of claims.
    struct RawClaims {
        /// Home tenant.
        tenant_id: String = "tenant_id".to_owned(),
        /// Partner.
        partner_id: String = "partner_id".to_owned(),
        /// User roles.
        roles: String = "roles".to_owned(),
        /// Permissions.
        permissions: String = "permissions".to_owned(),
        /// Session.
        session_id: String = "session_id".to_owned(),
        /// Platform administrator.
        is_platform_admin: String = "is_platform_admin".to_owned(),
        /// User name, for the audit record.
        username: String = "username".to_owned(),
        /// Mail address.
        email: String = "email".to_owned(),
        /// Tells an access token from a refresh token.
        token_type: String = "type".to_owned(),
    }

    /// Keys by which the gateway signs assertions and replacement tokens.
    struct RawSigning {
        /// The gateway's own `iss`; a token that carries it is refused at the door.
        issuer: String = String::new(),
        /// The first key signs; all are published at /.well-known/linkgate/jwks.json.
        keys: Vec<RawSigningKey> = Vec::new(),
    }

    /// One signing key.
    struct RawSigningKey {
        /// Key id.
        kid: String = String::new(),
        /// PKCS#8 PEM file, Ed25519 or P-256.
        file: String = String::new(),
    }
}

words! {
    /// JWA names.
    enum RawAlgorithm {
        Hs256 = "HS256", Rs256 = "RS256", Rs384 = "RS384", Rs512 = "RS512", Ps256 = "PS256", Ps384 = "PS384",
        Ps512 = "PS512", Es256 = "ES256", Es384 = "ES384", EdDsa = "EdDSA",
    }

    /// Claims that an issuer can be believed for.
    enum RawTrust {
        PartnerId = "partner_id", Roles = "roles", Permissions = "permissions", IsPlatformAdmin = "is_platform_admin",
    }
}
