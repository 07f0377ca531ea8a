//! What checkpoints are configured with.

use std::{path::PathBuf, time::Duration};

use super::note::{KeyError, Keys, Signer};

/// Keys and interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// `audit.checkpoint_key_file`.
    pub key_file: Option<PathBuf>,
    /// Keys of `[signing]`: the first of them that is Ed25519 signs where no file of its own is named.
    pub signing: Vec<PathBuf>,
    /// Public keys that signed earlier checkpoints, or will sign later ones: published too.
    pub further_keys: Vec<PathBuf>,
    /// Pause between two checkpoints while something is written.
    pub interval: Duration,
}

impl CheckpointSettings {
    /// The key that signs; `None` where none is configured: then there are no checkpoints.
    pub fn signer(&self) -> Result<Option<Signer>, KeyError> {
        if let Some(path) = &self.key_file {
            return Signer::load(path).map(Some);
        }
        for path in &self.signing {
            match Signer::load(path) {
                Ok(signer) => return Ok(Some(signer)),
                // A P-256 key, which signs assertions but no checkpoints.
                Err(KeyError::Private(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// All that checkpoints may be signed by: what is published.
    pub fn keys(&self) -> Result<Keys, KeyError> {
        let mut keys = Keys::default();
        keys.extend(self.signer()?.map(|signer| signer.public().clone()));
        for path in &self.further_keys {
            keys.extend(Keys::load(path)?.iter().cloned());
        }
        Ok(keys)
    }
}
