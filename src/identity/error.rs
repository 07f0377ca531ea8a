//! What can go wrong with a token, and what can go wrong with the keys.
//!
//! `AuthError` is for logs and metrics: every variant is the same 401 outside, so that an answer teaches nothing.

use std::{path::PathBuf, sync::Arc};

use super::{jwks::JwksProblem, mint::MintError};

/// Why a token was refused. Outside, each of these is `UNAUTHORIZED`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("the token is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the token is malformed: {what}")]
    Malformed { what: &'static str },
    #[error("the token is of the gateway's own making, which is for upstreams only")]
    OwnToken,
    #[error("no issuer is configured for the token's `iss`")]
    UnknownIssuer,
    #[error("issuer `{issuer}` does not accept the token's algorithm")]
    Algorithm { issuer: Arc<str> },
    #[error("issuer `{issuer}` has no key with the token's `kid`")]
    UnknownKid { issuer: Arc<str> },
    #[error("issuer `{issuer}` has not exactly one key that fits the token")]
    NoSingleKey { issuer: Arc<str> },
    #[error("the keys of issuer `{issuer}` could not be had, or are older than `max_age`")]
    KeysUnavailable { issuer: Arc<str> },
    #[error("the signature does not verify")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not yet valid")]
    NotYetValid,
    #[error("the token is meant for another audience")]
    Audience,
    #[error("the token is no access token")]
    TokenType,
    #[error("the claim `{claim}` is missing or of another form than expected")]
    Claim { claim: Arc<str> },
    #[error("issuer `{issuer}` may not speak for the token's home tenant")]
    HomeTenant { issuer: Arc<str> },
}

impl AuthError {
    /// A metric label: one word of a fixed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::Malformed { .. } => "malformed",
            Self::OwnToken => "own_token",
            Self::UnknownIssuer => "issuer",
            Self::Algorithm { .. } => "algorithm",
            Self::UnknownKid { .. } => "unknown_kid",
            Self::NoSingleKey { .. } => "no_single_key",
            Self::KeysUnavailable { .. } => "keys_unavailable",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience => "audience",
            Self::TokenType => "token_type",
            Self::Claim { .. } => "claim",
            Self::HomeTenant { .. } => "home_tenant",
        }
    }
}

/// Keys or settings that cannot be used. For operators.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("issuer `{issuer}`: cannot read the key set `{}`; check the path and its permissions", path.display())]
    ReadJwks {
        issuer: Arc<str>,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("issuer `{issuer}`: the development key is no use")]
    DevelopmentKey {
        issuer: Arc<str>,
        #[source]
        source: MintError,
    },
    #[error("issuer `{issuer}`: the key set is no use: {problem}")]
    Jwks { issuer: Arc<str>, problem: JwksProblem },
    #[error(
        "issuer `{issuer}`: algorithm `{algorithm}` is unknown; use HS256 (with a secret), RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
    )]
    UnknownAlgorithm { issuer: Arc<str>, algorithm: String },
    #[error("issuer `{issuer}`: {problem}")]
    Settings { issuer: Arc<str>, problem: &'static str },
    #[error("issuer `{issuer}`: `{url}` cannot be a key set address: {problem}")]
    Url { issuer: Arc<str>, url: String, problem: &'static str },
    #[error("the TLS client for key set addresses cannot be set up; is a CA bundle installed?")]
    Tls(#[source] rustls::Error),
}
