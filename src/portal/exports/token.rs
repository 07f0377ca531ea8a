//! Tokens of download links: an HMAC over export, user, partner and expiry. They open nothing by themselves: the bearer
//! token is asked for as well, and every tenant in the file is decided afresh.

use std::sync::LazyLock;

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::{domain::Millis, identity::Keyring, store::Owner};

/// How long a link is good.
pub(super) const LINK_MS: i64 = 15 * 60 * 1_000;
const MAC_BYTES: usize = 32;
const EXPIRY_BYTES: usize = 8;
const LABEL: &str = "linkgate export downloads";

/// Signs and checks links. The first key signs; all of them are taken.
pub(super) struct DownloadLinks {
    keys: Vec<hmac::Key>,
}

impl std::fmt::Debug for DownloadLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DownloadLinks")
    }
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadToken {
    /// Not one of ours for this export and this user.
    Wrong,
    Expired,
}

impl DownloadLinks {
    /// By the configured secret, else by the signing keys; without either by a key of this process alone, which no
    /// replica has and no restart survives.
    pub(super) fn new(secret: Option<&[u8]>, keyring: Option<&Keyring>) -> Self {
        let keys = match (secret, keyring) {
            (Some(secret), _) => vec![hmac::Key::new(hmac::HMAC_SHA256, secret)],
            (None, Some(keyring)) => keyring.derived(LABEL),
            (None, None) => vec![PASSING.clone()],
        };
        Self { keys }
    }

    /// A token that is good until `until`.
    pub(super) fn issue(&self, export: Uuid, owner: &Owner, until: Millis) -> String {
        let mut bytes = until.0.to_be_bytes().to_vec();
        if let Some(key) = self.keys.first() {
            bytes.extend_from_slice(hmac::sign(key, &message(export, owner, until)).as_ref());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(super) fn check(&self, token: &str, export: Uuid, owner: &Owner, now: Millis) -> Result<(), BadToken> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| BadToken::Wrong)?;
        if bytes.len() != EXPIRY_BYTES + MAC_BYTES {
            return Err(BadToken::Wrong);
        }
        let (until, mac) = bytes.split_first_chunk::<EXPIRY_BYTES>().ok_or(BadToken::Wrong)?;
        let until = Millis(i64::from_be_bytes(*until));
        let message = message(export, owner, until);
        if !self.keys.iter().any(|key| hmac::verify(key, &message, mac).is_ok()) {
            return Err(BadToken::Wrong);
        }
        if until <= now { Err(BadToken::Expired) } else { Ok(()) }
    }
}

/// The same for every configuration that the process has: a reload ends no link.
static PASSING: LazyLock<hmac::Key> = LazyLock::new(passing_key);

fn passing_key() -> hmac::Key {
    let mut bytes = [0; MAC_BYTES];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // Never a key that somebody might guess.
        let parts = [Uuid::new_v4(), Uuid::new_v4()];
        for (to, from) in bytes.iter_mut().zip(parts.iter().flat_map(Uuid::as_bytes)) {
            *to = *from;
        }
    }
    hmac::Key::new(hmac::HMAC_SHA256, &bytes)
}

/// What is signed; parts of varying length with their lengths, so that nothing can be shifted between them.
fn message(export: Uuid, owner: &Owner, until: Millis) -> Vec<u8> {
    let mut message = Vec::with_capacity(64 + owner.issuer.len() + owner.sub.len());
    message.extend_from_slice(export.as_bytes());
    message.extend_from_slice(owner.partner_id.0.as_bytes());
    for part in [&owner.issuer, &owner.sub] {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    message.extend_from_slice(&until.0.to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PartnerId;

    #[test]
    fn a_token_is_good_for_one_export_one_user_and_its_time() {
        let links = DownloadLinks::new(Some(&[7; 32]), None);
        let owner = |partner, issuer: &str, sub: &str| Owner {
            partner_id: PartnerId(Uuid::from_u128(partner)),
            issuer: issuer.into(),
            sub: sub.into(),
        };
        let (id, mine) = (Uuid::from_u128(1), owner(1, "i", "ab"));
        let token = links.issue(id, &mine, Millis(1_000));
        assert_eq!(links.check(&token, id, &mine, Millis(999)), Ok(()));
        assert_eq!(links.check(&token, id, &mine, Millis(1_000)), Err(BadToken::Expired));
        for (id, owner) in [
            (Uuid::from_u128(2), mine.clone()),
            (id, owner(2, "i", "ab")),
            (id, owner(1, "ia", "b")),
            (id, owner(1, "i", "abc")),
        ] {
            assert_eq!(links.check(&token, id, &owner, Millis(0)), Err(BadToken::Wrong));
        }
        let replica = DownloadLinks::new(Some(&[7; 32]), None);
        assert_eq!(replica.check(&token, id, &mine, Millis(0)), Ok(()));
        let stranger = DownloadLinks::new(None, None);
        assert_eq!(stranger.check(&token, id, &mine, Millis(0)), Err(BadToken::Wrong));
        // Any bit of it, the expiry's included.
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            let forged = URL_SAFE_NO_PAD.encode(forged);
            assert_eq!(links.check(&forged, id, &mine, Millis(0)), Err(BadToken::Wrong), "byte {at}");
        }
        for bad in ["", "x", "!!!", token.trim_start_matches(char::is_alphanumeric)] {
            assert_eq!(links.check(bad, id, &mine, Millis(0)), Err(BadToken::Wrong));
        }
    }
}
