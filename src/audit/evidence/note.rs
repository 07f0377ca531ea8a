//! Keys and signed notes (c2sp.org/signed-note): a text, a blank line, and a line for each signature.
//!
//! The form is that of transparency logs, so that their tools read it and their witnesses can add signatures; what is
//! signed is the text with its last newline, as it stands, by plain Ed25519, so that `openssl pkeyutl -verify -rawin`
//! needs nothing of ours. Signatures of unknown keys are passed over; one known key that did not sign refuses the note.

use std::{collections::HashSet, path::Path};

use aws_lc_rs::{
    digest,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use super::tree::sha256;

/// Begins a line with a signature: an em dash and a space.
const DASH: &str = "\u{2014} ";
/// What stands for Ed25519 in the id of a key.
const ED25519_TYPE: u8 = 1;
/// What an Ed25519 key in X.509 form begins with; the key follows.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Longest note read.
pub const NOTE_MAX_BYTES: usize = 1 << 20;

/// A file that holds no usable key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key file `{path}`")]
    Read { path: String, source: std::io::Error },
    #[error("`{0}` holds no PKCS#8 private key in PEM for Ed25519; make one with `openssl genpkey -algorithm ed25519`")]
    Private(String),
    #[error("`{0}` holds no Ed25519 public key: neither a key set (JWKS) nor PEM")]
    Public(String),
}

/// A note that is not what it seems.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("it is no signed note: a text, a blank line, and lines with signatures")]
    Form,
    #[error("none of the given keys signed it; fetch the published ones, or name the right ones with `--key`")]
    UnknownKey,
    #[error("its signature is forged: key `{0}` did not sign this text")]
    Forged(String),
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|source| KeyError::Read { path: path.display().to_string(), source })
}

/// The key that signs. The private part never leaves this type.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("kid", &self.public.kid).finish_non_exhaustive()
    }
}

impl Signer {
    /// From a PKCS#8 file in PEM.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let pem = read(path)?;
        Self::from_pem(&pem).ok_or_else(|| KeyError::Private(path.display().to_string()))
    }

    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()?;
        let public = PublicKey::of(pair.public_key().as_ref())?;
        Some(Self { pair, public })
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The text with its signature line. `name` stands in the text as its first line, by the custom of logs.
    pub fn sign(&self, name: &str, text: &str) -> String {
        let mut signature = self.public.id(name).to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n{DASH}{name} {}\n", STANDARD.encode(signature))
    }
}

/// An Ed25519 public key and its name, which follows from it (RFC 7638).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey {
    pub kid: String,
    bytes: [u8; 32],
}

impl PublicKey {
    fn of(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 32] = bytes.try_into().ok()?;
        let x = URL_SAFE_NO_PAD.encode(bytes);
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, members.as_bytes()));
        Some(Self { kid, bytes })
    }

    fn from_spki(der: &[u8]) -> Option<Self> {
        Self::of(der.strip_prefix(&SPKI_PREFIX)?)
    }

    /// What tells this key in a signature line of `name`.
    fn id(&self, name: &str) -> [u8; 4] {
        let hash = sha256(&[name.as_bytes(), b"\n", &[ED25519_TYPE], &self.bytes]);
        let [a, b, c, d, ..] = hash.0;
        [a, b, c, d]
    }

    fn holds(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.bytes).verify(text.as_bytes(), signature).is_ok()
    }
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    kid: String,
    #[serde(rename = "use", default)]
    usage: String,
    #[serde(default)]
    alg: String,
}

#[derive(Serialize, Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

/// Public keys that checkpoints are checked with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<PublicKey>);

impl Keys {
    /// From a key set (JWKS; keys of other kinds are passed over), a public key in PEM, or a private one.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let bytes = read(path)?;
        Self::parse(&bytes)
            .filter(|keys| !keys.0.is_empty())
            .ok_or_else(|| KeyError::Public(path.display().to_string()))
    }

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.trim_ascii_start().starts_with(b"{") {
            let set: Jwks = serde_json::from_slice(bytes).ok()?;
            let ours = set.keys.iter().filter(|key| key.kty == "OKP" && key.crv == "Ed25519");
            return ours
                .map(|key| PublicKey::of(&URL_SAFE_NO_PAD.decode(&key.x).ok()?))
                .collect::<Option<_>>()
                .map(Self);
        }
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(bytes).ok();
        let public = spki.and_then(|der| PublicKey::from_spki(&der));
        public.or_else(|| Signer::from_pem(bytes).map(|signer| signer.public)).map(|key| Self(vec![key]))
    }

    /// Adds keys that are not there yet.
    pub fn extend(&mut self, more: impl IntoIterator<Item = PublicKey>) {
        let mut known: HashSet<PublicKey> = self.0.iter().cloned().collect();
        self.0.extend(more.into_iter().filter(|key| known.insert(key.clone())));
    }

    pub fn iter(&self) -> std::slice::Iter<'_, PublicKey> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The document in which they are published.
    pub fn to_jwks(&self) -> String {
        let keys = self.0.iter().map(|key| Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: URL_SAFE_NO_PAD.encode(key.bytes),
            kid: key.kid.clone(),
            usage: "sig".to_owned(),
            alg: "EdDSA".to_owned(),
        });
        serde_json::to_string(&Jwks { keys: keys.collect() }).unwrap_or_default()
    }

    /// The text of a note that one of the keys signed as `name`, and which.
    pub fn open<'n>(&self, note: &'n str, name: &str) -> Result<(&'n str, &PublicKey), NoteError> {
        let (text, signatures) = split(note)?;
        for line in signatures.lines() {
            let signed = line.strip_prefix(DASH).and_then(|line| line.split_once(' ')).ok_or(NoteError::Form)?;
            let bytes = STANDARD.decode(signed.1).map_err(|_| NoteError::Form)?;
            let (id, signature) = bytes.split_at_checked(4).ok_or(NoteError::Form)?;
            if signed.0 != name {
                continue;
            }
            if let Some(key) = self.0.iter().find(|key| key.id(name) == id) {
                return if key.holds(text, signature) {
                    Ok((text, key))
                } else {
                    Err(NoteError::Forged(key.kid.clone()))
                };
            }
        }
        Err(NoteError::UnknownKey)
    }
}

/// The text, last newline included, and the lines of signatures. Nothing is checked.
pub fn split(note: &str) -> Result<(&str, &str), NoteError> {
    let middle = note.rfind("\n\n").filter(|_| note.len() <= NOTE_MAX_BYTES).ok_or(NoteError::Form)?;
    let (text, rest) = note.split_at_checked(middle + 1).ok_or(NoteError::Form)?;
    let signatures = rest.strip_prefix('\n').filter(|lines| lines.ends_with('\n')).ok_or(NoteError::Form)?;
    Ok((text, signatures))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let body = STANDARD.encode(pkcs8.as_ref());
        Signer::from_pem(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n").as_bytes())
            .unwrap()
    }

    fn keys(of: &Signer) -> Keys {
        Keys(vec![of.public().clone()])
    }

    #[test]
    fn a_note_of_another_log_is_opened() {
        // The example of c2sp.org/signed-note.
        let note = "This is an example message.\n\n\u{2014} example.com/foo \
             WmEoi3T3UgG74gWw2VnmDGqJzlC43JGDn2pS7VvF+/ZZTUf3yI5pHuTaiLfDLGyTYq3FqbyNKKDeD6ClZ0jnsMcHpgA=\n";
        assert_eq!(Keys::default().open(note, "example.com/foo"), Err(NoteError::UnknownKey));
        assert_eq!(split(note).unwrap().0, "This is an example message.\n");
    }

    #[test]
    fn what_a_key_signed_is_told_from_what_it_did_not() {
        let (own, other) = (signer(), signer());
        let note = own.sign("a/log", "a/log\n1\nx\n");
        assert_eq!(keys(&own).open(&note, "a/log").unwrap(), ("a/log\n1\nx\n", own.public()));
        assert_eq!(keys(&other).open(&note, "a/log"), Err(NoteError::UnknownKey));
        assert_eq!(keys(&own).open(&note, "b/log"), Err(NoteError::UnknownKey), "another log's name");
        let forged = note.replacen("\n1\n", "\n2\n", 1);
        assert_eq!(keys(&own).open(&forged, "a/log"), Err(NoteError::Forged(own.public().kid.clone())));
        for broken in ["", "\n\n", "text\n", "text\n\nno dash\n", &note.replace(DASH, "- "), note.trim_end()] {
            assert_eq!(keys(&own).open(broken, "a/log"), Err(NoteError::Form), "{broken:?}");
        }
        // A witness's line before and behind ours.
        let (text, line) = split(&note).unwrap();
        let witness = other.sign("w", text);
        let witness = split(&witness).unwrap().1;
        for lines in [format!("{witness}{line}"), format!("{line}{witness}")] {
            assert!(keys(&own).open(&format!("{text}\n{lines}"), "a/log").is_ok());
        }
    }

    #[test]
    fn keys_are_read_as_they_are_published() {
        let (one, two) = (signer(), signer());
        let mut both = keys(&one);
        both.extend([two.public().clone(), one.public().clone()]);
        let published = both.to_jwks();
        assert_eq!(Keys::parse(published.as_bytes()), Some(both.clone()));
        assert!(published.contains(&format!("\"kid\":\"{}\"", two.public().kid)) && !published.contains("\"d\""));
        let spki = STANDARD.encode([SPKI_PREFIX.as_slice(), &one.public().bytes].concat());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
        assert_eq!(Keys::parse(pem.as_bytes()), Some(keys(&one)));
        assert_eq!(Keys::parse(b"nothing"), None);
        assert_eq!(Keys::parse(br#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA"}]}"#), Some(Keys::default()));
        assert_eq!(Keys::parse(br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#), None);
    }
}
