//! Secrets of others that have to be kept: sealed in the database, open only where they are used.
//!
//! AES-256-GCM under a key that HKDF makes of the configured bytes; the row's id is authenticated with it, so that a
//! secret cannot be moved to another row. The text in the database names its key: the first of the list seals, every one
//! of it opens, so that keys are changed by putting a new one in front, sealing everything anew, and taking the old one
//! away. Without keys nothing is sealed, and what was written then stays readable: whoever can write to the database can
//! put such a text there too. It guards a copy of the database, not the database against its owner.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::domain::Secret;

/// What begins every sealed text; then key id and Base64 of nonce, text and tag.
const SEALED: &str = "sealed:1:";
/// Keys for one purpose are no use for another.
const PURPOSE: &[u8] = b"linkgate secrets at rest v1";

/// A key as the configuration names it; from its bytes, which are at least 32, comes the one that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultKey {
    /// Stands in every text that it sealed; of `[a-z0-9_-]`.
    pub kid: String,
    pub secret: Secret,
}

/// Seals and opens. The default has no keys.
#[derive(Clone, Debug, Default)]
pub struct Vault {
    keys: Vec<VaultKey>,
}

/// Why a text cannot be sealed or opened. Names keys, never what is sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    #[error(
        "a secret is sealed with the key `{0}`, which `webhooks.secret_keys` does not name: put it back into the list"
    )]
    UnknownKey(String),
    #[error("a sealed secret does not open with the key `{0}`: is the key another one than before?")]
    Unopened(String),
    #[error("a sealed secret is damaged")]
    Damaged,
    #[error("the keys for secrets cannot be used")]
    Unusable,
}

/// The length of a key, for HKDF.
struct KeyBytes;

impl hkdf::KeyType for KeyBytes {
    fn len(&self) -> usize {
        AES_256_GCM.key_len()
    }
}

impl Vault {
    /// The first key seals; all of them open.
    pub fn new(keys: &[VaultKey]) -> Self {
        Self { keys: keys.to_vec() }
    }

    /// The text for the database: of the secret of this row.
    pub fn seal(&self, row: Uuid, secret: &str) -> Result<String, VaultError> {
        let Some(VaultKey { kid, secret: key }) = self.keys.first() else { return Ok(secret.to_owned()) };
        let mut sealed = secret.as_bytes().to_vec();
        let nonce = derived(key)?.seal_in_place_append_tag(Aad::from(row.as_bytes()), &mut sealed);
        let nonce = nonce.map_err(|_| VaultError::Unusable)?;
        let whole = [nonce.as_ref().as_slice(), &sealed].concat();
        Ok(format!("{SEALED}{kid}:{}", URL_SAFE_NO_PAD.encode(whole)))
    }

    /// The secret of this row, from the text in the database.
    pub fn open(&self, row: Uuid, text: &str) -> Result<String, VaultError> {
        let Some(sealed) = text.strip_prefix(SEALED) else { return Ok(text.to_owned()) };
        let (kid, whole) = sealed.split_once(':').ok_or(VaultError::Damaged)?;
        let known = self.keys.iter().find(|known| known.kid == kid);
        let key = known.ok_or_else(|| VaultError::UnknownKey(kid.to_owned()))?;
        let whole = URL_SAFE_NO_PAD.decode(whole).map_err(|_| VaultError::Damaged)?;
        let (nonce, sealed) = whole.split_at_checked(NONCE_LEN).ok_or(VaultError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Damaged)?;
        let mut sealed = sealed.to_vec();
        let opened = derived(&key.secret)?.open_in_place(nonce, Aad::from(row.as_bytes()), &mut sealed);
        let opened = opened.map_err(|_| VaultError::Unopened(kid.to_owned()))?;
        String::from_utf8(opened.to_vec()).map_err(|_| VaultError::Damaged)
    }

    /// Whether the text is as `seal` would write it now: sealed, with the first key.
    pub fn is_current(&self, text: &str) -> bool {
        let of = text.strip_prefix(SEALED).and_then(|sealed| sealed.split_once(':')).map(|(kid, _)| kid);
        of == self.sealing_key()
    }

    /// The id of the key that seals.
    pub fn sealing_key(&self) -> Option<&str> {
        self.keys.first().map(|key| key.kid.as_str())
    }
}

fn derived(secret: &Secret) -> Result<RandomizedNonceKey, VaultError> {
    let unusable = |_| VaultError::Unusable;
    let made = hkdf::Salt::new(hkdf::HKDF_SHA256, PURPOSE).extract(secret.expose());
    let mut key = [0; 32];
    made.expand(&[PURPOSE], KeyBytes).and_then(|made| made.fill(&mut key)).map_err(unusable)?;
    RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kid: &str, byte: u8) -> VaultKey {
        VaultKey { kid: kid.to_owned(), secret: Secret::new(vec![byte; 32]) }
    }

    fn vault(keys: &[VaultKey]) -> Vault {
        Vault::new(keys)
    }

    const ROW: Uuid = Uuid::from_u128(7);
    const TEXT: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn what_is_sealed_opens_in_its_row_with_its_key_alone() {
        let (old, new) = (key("old", 1), key("new", 2));
        let before = vault(std::slice::from_ref(&old));
        let sealed = before.seal(ROW, TEXT).unwrap();
        assert!(sealed.starts_with("sealed:1:old:") && !sealed.contains("MfKQ"), "{sealed}");
        assert_ne!(sealed, before.seal(ROW, TEXT).unwrap(), "a nonce of its own each time");
        assert_eq!(before.open(ROW, &sealed).unwrap(), TEXT);
        assert_eq!(before.open(Uuid::from_u128(8), &sealed), Err(VaultError::Unopened("old".into())));
        let rotated = vault(&[new.clone(), old]);
        assert_eq!(rotated.open(ROW, &sealed).unwrap(), TEXT);
        assert!(before.is_current(&sealed) && !rotated.is_current(&sealed));
        assert!(rotated.is_current(&rotated.seal(ROW, TEXT).unwrap()));
        assert_eq!(vault(&[new]).open(ROW, &sealed), Err(VaultError::UnknownKey("old".into())));
        assert_eq!(vault(&[key("old", 3)]).open(ROW, &sealed), Err(VaultError::Unopened("old".into())));
    }

    #[test]
    fn what_was_written_before_there_were_keys_stays_readable() {
        let (none, some) = (Vault::default(), vault(&[key("k", 1)]));
        assert_eq!(none.seal(ROW, TEXT).unwrap(), TEXT);
        assert_eq!(some.open(ROW, TEXT).unwrap(), TEXT);
        assert!(none.is_current(TEXT) && !some.is_current(TEXT));
        assert_eq!(none.open(ROW, "sealed:1:k:AAAA"), Err(VaultError::UnknownKey("k".into())));
    }

    #[test]
    fn a_sealed_text_that_was_altered_does_not_open_and_nothing_is_shown() {
        let vault = vault(&[key("k", 1)]);
        let sealed = vault.seal(ROW, TEXT).unwrap();
        for at in "sealed:1:k:".len()..sealed.len() {
            let mut altered = sealed.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            assert!(vault.open(ROW, std::str::from_utf8(&altered).unwrap()).is_err(), "{at}");
        }
        for damaged in ["sealed:1:k", "sealed:1:k:", "sealed:1:k:AAAA", "sealed:1:k:*", "sealed:1::"] {
            assert!(vault.open(ROW, damaged).is_err(), "{damaged}");
        }
        assert!(!format!("{vault:?}").contains("[1, 1"), "{vault:?}");
    }
}
