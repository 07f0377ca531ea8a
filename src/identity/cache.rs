//! Caches of one worker: tokens verified before, and signatures made before.
//!
//! Plain structs used through `&mut`, bounded by configuration. A verified token is found only by all of its bytes
//! and under the generation of keys and configuration that verified it, and never past its `exp`. Refusals are not
//! cached: a token that is not yet valid becomes so.

use std::sync::Arc;

use http::HeaderValue;
use quick_cache::{Weighter, unsync};

use super::{assertion::Signed, caller::Caller, token::MAX_TOKEN_BYTES};
use crate::domain::{LinkId, LinkVersion, Millis, PartnerId, TenantId};

/// A token of up to this many bytes counts as one against the capacity, a longer one as several.
const USUAL_TOKEN_BYTES: usize = 2048;
/// A signed token with less life left is not served from the cache: the upstream must have time to receive it.
const MIN_LIFE_MS: i64 = 5_000;

/// What is remembered of a verified token: its caller, or something that holds the caller and what was learnt since.
pub trait Remembered: Clone {
    fn caller(&self) -> &Caller;
}

impl Remembered for Arc<Caller> {
    fn caller(&self) -> &Caller {
        self
    }
}

/// Verified tokens, all of one generation of keys and configuration: a newer one empties the cache.
pub struct TokenCache<T = Arc<Caller>> {
    generation: u64,
    entries: unsync::Cache<Box<str>, T, BySize>,
}

#[derive(Clone)]
struct BySize;

impl<T> Weighter<Box<str>, T> for BySize {
    fn weight(&self, token: &Box<str>, _: &T) -> u64 {
        token.len().div_ceil(USUAL_TOKEN_BYTES).max(1) as u64
    }
}

impl<T> std::fmt::Debug for TokenCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}

impl<T: Remembered> TokenCache<T> {
    /// `capacity` in tokens of usual size (2 KiB).
    pub fn new(capacity: usize) -> Self {
        let weight = capacity.max(MAX_TOKEN_BYTES / USUAL_TOKEN_BYTES);
        Self { generation: 0, entries: unsync::Cache::with_weighter(capacity, weight as u64, BySize) }
    }

    /// What is remembered of a token that was verified under this generation and has not expired.
    pub fn get(&mut self, token: &str, generation: u64, now: Millis) -> Option<T> {
        if generation != self.generation {
            self.advance(generation);
            return None;
        }
        let known = self.entries.get(token)?;
        if now < known.caller().expires_at {
            return Some(known.clone());
        }
        self.entries.remove(token);
        None
    }

    /// Only what `Verifier::verify` returned for this very token; `generation` must be read *before* verifying, so
    /// that a change of keys in between makes the entry useless, not wrong.
    pub fn put(&mut self, token: &str, generation: u64, known: T) {
        self.advance(generation);
        if generation == self.generation {
            self.entries.insert(token.into(), known);
        }
    }

    /// Generations only grow: what comes late from an older one is not kept.
    fn advance(&mut self, generation: u64) {
        if generation > self.generation {
            self.entries.clear();
            self.generation = generation;
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Which token a cached signature belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignedForm {
    SessionAssertion,
    Replacement,
}

/// Everything that the claims of a session assertion or replacement token are made from. For its end see
/// `SignedCache::get`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SignedKey {
    pub form: SignedForm,
    /// Place of the upstream in the configuration.
    pub upstream: u32,
    /// Of configuration and policies: what roles grant and how names are mapped.
    pub generation: u64,
    /// `Caller::user_digest`.
    pub user: [u8; 32],
    /// The effective tenant.
    pub tenant: TenantId,
    /// The user's, by what this very token says: another one of the same user may name none.
    pub partner: Option<PartnerId>,
    pub link: Option<(LinkId, LinkVersion)>,
}

/// Signed tokens that serve many requests.
pub struct SignedCache {
    entries: unsync::Cache<SignedKey, Signed>,
}

impl std::fmt::Debug for SignedCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedCache").finish_non_exhaustive()
    }
}

impl SignedCache {
    pub fn new(capacity: usize) -> Self {
        Self { entries: unsync::Cache::new(capacity.max(1)) }
    }

    /// The header value, if it has enough life left and ends no later than what it is wanted for: two tokens of one user
    /// share signatures, but none outlives the token that it is sent with.
    pub fn get(&mut self, key: &SignedKey, now: Millis, not_after: Option<Millis>) -> Option<HeaderValue> {
        let found = self.entries.get(key)?;
        let left = found.expires_at.0.saturating_sub(now.0);
        let ends_in_time = not_after.is_none_or(|end| found.expires_at <= end);
        // A clock that was set back must not keep a signature from the future alive either.
        (found.issued_at <= now && left >= MIN_LIFE_MS && ends_in_time).then(|| found.value.clone())
    }

    pub fn put(&mut self, key: SignedKey, signed: Signed) {
        self.entries.insert(key, signed);
    }
}
