//! Floor 1: who is calling. Tokens to callers, and the tokens that the gateway itself signs.
//!
//! Inward: `bearer` finds the credential in the headers, `TokenCache` knows tokens that were verified before,
//! `Verifier` verifies the others with the keys of their issuer. Outward: `Keyring` signs assertions and replacement
//! tokens, `SignedCache` lets one signature serve many requests. `mint` makes development tokens. `Vault` seals the
//! secrets of others that have to be kept.
//!
//! Invariants: a token is verified by exactly one issuer's rules, with a key whose algorithm is pinned; whatever is
//! not exactly understood is refused; nothing here knows of partners' links or of policy.

pub mod bearer;
mod json;
mod token;

mod caller;
mod certificate;
mod claims;
mod error;

mod fetch;
mod generation;
mod issuer;
mod jwks;
mod key;
mod source;
mod verifier;

mod assertion;
mod cache;
mod keyring;

mod vault;

pub mod mint;
pub mod settings;

pub use assertion::{
    AssertionClaims, LinkClaim, ReplacementClaims, ReplacementShape, RequestBinding, ServiceClaims, Signed, Subject,
};
pub use bearer::{Presented, Source, bearer, same_origin};
pub use cache::{Remembered, SignedCache, SignedForm, SignedKey, TokenCache};
pub use caller::{Attested, Caller};
pub use certificate::{CertificateClaims, CertificateUser, certificate_id};
pub use error::{AuthError, IdentityError};
pub use keyring::{Keyring, SigningError};
pub use vault::{Vault, VaultError, VaultKey};
pub use verifier::Verifier;
