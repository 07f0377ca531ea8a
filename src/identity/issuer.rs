//! One configured issuer: its pinned algorithms, its claims, its keys.

use std::{sync::Arc, time::Duration};

use super::{
    error::IdentityError,
    key::{Alg, KeySet, VerifyingKey},
    settings::{IssuerSettings, KeySource},
    source::{FileKeys, KeyFile, RemoteKeys},
};

/// RFC 7518, section 3.2: a key of at least the hash's size.
const MIN_SECRET_BYTES: usize = 32;
const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// An issuer, ready to verify.
pub(super) struct Issuer {
    pub(super) name: Arc<str>,
    /// Empty for the legacy issuer.
    pub(super) iss: Arc<str>,
    pub(super) algorithms: Vec<Alg>,
    pub(super) settings: IssuerSettings,
    pub(super) keys: Keys,
}

/// Where the keys come from, and the keys.
pub(super) enum Keys {
    Secret(Arc<KeySet>),
    File(FileKeys),
    Remote(Arc<RemoteKeys>),
}

impl Issuer {
    pub(super) fn new(settings: &IssuerSettings) -> Result<Self, IdentityError> {
        let name: Arc<str> = settings.name.as_str().into();
        let wrong = |problem| IdentityError::Settings { issuer: name.clone(), problem };
        let mut algorithms = Vec::new();
        for text in &settings.algorithms {
            let alg = Alg::parse(text)
                .ok_or_else(|| IdentityError::UnknownAlgorithm { issuer: name.clone(), algorithm: text.clone() })?;
            if !algorithms.contains(&alg) {
                algorithms.push(alg);
            }
        }
        if algorithms.is_empty() {
            return Err(wrong("list at least one algorithm; there is no default"));
        }
        if settings.leeway > MAX_LEEWAY {
            return Err(wrong("the leeway is at most 60 s"));
        }
        if settings.issuer.as_ref().is_some_and(String::is_empty) {
            return Err(wrong("an empty `iss` is none; leave it out for the legacy issuer"));
        }
        if settings.issuer.is_some() && settings.audiences.is_empty() {
            return Err(wrong("list at least one audience; only the legacy issuer may have none"));
        }
        let keys = match &settings.keys {
            KeySource::Hs256(secret) => {
                if algorithms != [Alg::Hs256] {
                    return Err(wrong("a secret goes with the algorithm HS256 and no other"));
                }
                if secret.expose().len() < MIN_SECRET_BYTES {
                    return Err(wrong("the secret is shorter than 32 bytes"));
                }
                Keys::Secret(Arc::new(KeySet::new(vec![VerifyingKey::secret(secret.expose())])))
            }
            _ if algorithms.contains(&Alg::Hs256) => {
                return Err(wrong("HS256 goes with a secret, never with a key set"));
            }
            KeySource::JwksFile(path) => {
                Keys::File(FileKeys::load(name.clone(), KeyFile::Set(path.clone()), algorithms.clone())?)
            }
            KeySource::DevelopmentKey(path) => {
                Keys::File(FileKeys::load(name.clone(), KeyFile::Development(path.clone()), algorithms.clone())?)
            }
            KeySource::JwksUrl { refresh, max_age, .. } if max_age < refresh => {
                return Err(wrong(
                    "`max_age` is shorter than `refresh`: its keys would be too old before each refresh",
                ));
            }
            KeySource::JwksUrl { url, refresh, min_refetch, max_age } => Keys::Remote(Arc::new(RemoteKeys::new(
                name.clone(),
                url,
                algorithms.clone(),
                super::source::Timing { refresh: *refresh, min_refetch: *min_refetch, max_age: *max_age },
            )?)),
        };
        let iss = settings.issuer.as_deref().unwrap_or_default().into();
        Ok(Self { name, iss, algorithms, settings: settings.clone(), keys })
    }

    /// The keys in force; `None` where there are none, or only ones past their age.
    pub(super) fn current_keys(&self) -> Option<Arc<KeySet>> {
        match &self.keys {
            Keys::Secret(set) => Some(set.clone()),
            Keys::File(file) => Some(file.current()),
            Keys::Remote(remote) => remote.current(),
        }
    }
}
