//! What a checkpoint says: which chain, how far, under which root, when, by whom (c2sp.org/tlog-checkpoint).
//!
//! ```text
//! linkgate/audit/0197f1a2-...            which chain: the origin, and the name under which the key signs
//! 20852                                  leaves of the tree
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2M=     root over them
//! records 1-20852                        first and last line of the chain that is in the tree
//! head 5b0c...                           hash of the last one
//! time 2026-01-31T12:00:00.000Z          when it was signed, by the gateway's clock
//! by linkgate 0.1.0
//! key K7a...                             `kid` of the key in the published set
//! ```
//!
//! The first three lines are those of every transparency log. The reader takes exactly this form and nothing else.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    note::{self, Keys, NoteError, Signer},
    tree::{Frontier, to_hash},
};
use crate::{
    audit::chain::{ChainHead, ChainId, Hash},
    domain::Millis,
};

const ORIGIN: &str = "linkgate/audit/";

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Checkpoint {
    #[schemars(with = "String")]
    pub chain_id: ChainId,
    /// The first line in the tree: 1, unless the journal had lost its beginning before the first checkpoint.
    pub first: u64,
    /// The last line in the tree.
    pub head: ChainHead,
    /// Root over the lines from `first` to `head.seq`.
    #[schemars(with = "String")]
    pub root: Hash,
    pub time: Millis,
    /// Of linkgate.
    pub version: String,
    /// Of the key.
    pub kid: String,
}

/// Why a text is no checkpoint that can be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("it is no checkpoint of an audit chain: {0}")]
    Content(&'static str),
}

/// What made it due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "CheckpointCause")]
pub enum Cause {
    /// The interval passed and something was written.
    Interval,
    /// A segment was closed: it ends with the segment's last line.
    Segment,
    /// A clean stop.
    Stop,
}

impl Cause {
    pub const ALL: [Self; 3] = [Self::Interval, Self::Segment, Self::Stop];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Segment => "segment",
            Self::Stop => "stop",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A checkpoint with what is needed to go on behind it. None of that needs to be believed: the peaks must have the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// As signed.
    pub note: String,
    pub cause: Cause,
    /// Where the next line begins.
    pub segment: u64,
    pub offset: u64,
    /// Right edge of the tree (see [`Frontier`]).
    pub peaks: Vec<Hash>,
}

impl Checkpoint {
    /// Leaves of the tree.
    pub fn size(&self) -> u64 {
        self.head.seq.saturating_add(1).saturating_sub(self.first)
    }

    /// Name of the log, by which a key signs.
    pub fn origin(chain: ChainId) -> String {
        format!("{ORIGIN}{chain}")
    }

    fn text(&self) -> String {
        let Self { chain_id, first, head, root, time, version, kid } = self;
        let (origin, size, root) = (Self::origin(*chain_id), self.size(), STANDARD.encode(root.0));
        format!(
            "{origin}\n{size}\n{root}\nrecords {first}-{}\nhead {}\ntime {time}\nby linkgate {version}\nkey {kid}\n",
            head.seq, head.hash
        )
    }

    /// Signed now.
    pub fn signed(
        signer: &Signer,
        chain_id: ChainId,
        first: u64,
        head: ChainHead,
        frontier: &Frontier,
    ) -> (Self, String) {
        let checkpoint = Self {
            chain_id,
            first,
            head,
            root: frontier.root(),
            time: Millis::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kid: signer.public().kid.clone(),
        };
        let note = signer.sign(&Self::origin(chain_id), &checkpoint.text());
        (checkpoint, note)
    }

    /// What the note says, if one of the keys signed it.
    pub fn open(note: &str, keys: &Keys) -> Result<Self, CheckpointError> {
        let said = Self::unverified(note)?;
        let (_, key) = keys.open(note, &Self::origin(said.chain_id))?;
        if key.kid != said.kid {
            return Err(CheckpointError::Content("it names another key than the one that signed it"));
        }
        Ok(said)
    }

    /// What the note says, whoever signed it.
    pub fn unverified(note: &str) -> Result<Self, CheckpointError> {
        let (text, _) = note::split(note)?;
        let said = Self::read(text).ok_or(CheckpointError::Content("a line is not as it should be"))?;
        // One form only: what can be written differently could be read differently.
        if said.text() != text || said.first == 0 || said.first > said.head.seq {
            return Err(CheckpointError::Content("its lines do not fit together"));
        }
        Ok(said)
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let chain_id = ChainId(lines.next()?.strip_prefix(ORIGIN)?.parse().ok()?);
        let _size = lines.next()?;
        let root = STANDARD.decode(lines.next()?).ok().filter(|bytes| bytes.len() == 32)?;
        let mut named = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let (first, last) = named("records")?.split_once('-')?;
        let head = ChainHead { seq: last.parse().ok()?, hash: named("head")?.parse().ok()? };
        let time = Millis::parse(named("time")?).ok()?;
        let version = named("by linkgate")?.to_owned();
        let kid = named("key")?.to_owned();
        Some(Self { chain_id, first: first.parse().ok()?, head, root: to_hash(&root), time, version, kid })
    }
}

impl Kept {
    /// What it says; the signature is not checked.
    pub fn checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::unverified(&self.note)
    }

    /// The tree up to it, if the peaks have the root that is signed.
    pub fn frontier(&self, checkpoint: &Checkpoint) -> Option<Frontier> {
        Frontier::of(checkpoint.size(), self.peaks.clone()).filter(|frontier| frontier.root() == checkpoint.root)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
    use uuid::Uuid;

    use super::*;
    use crate::audit::evidence::tree::leaf;

    pub(crate) fn signer() -> Signer {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let body = STANDARD.encode(pkcs8.as_ref());
        Signer::from_pem(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n").as_bytes())
            .unwrap()
    }

    pub(crate) fn keys(of: &Signer) -> Keys {
        let mut keys = Keys::default();
        keys.extend([of.public().clone()]);
        keys
    }

    #[test]
    fn a_checkpoint_reads_back_equal_and_no_line_of_it_can_be_changed() {
        let signer = signer();
        let mut frontier = Frontier::default();
        (0..9_u8).for_each(|n| frontier.push(leaf(&[n]), |_, _, _| ()));
        let head = ChainHead { seq: 9, hash: leaf(b"head") };
        let (said, note) = Checkpoint::signed(&signer, ChainId(Uuid::from_u128(7)), 1, head, &frontier);
        assert_eq!(Checkpoint::open(&note, &keys(&signer)), Ok(said.clone()));
        assert_eq!(said.size(), 9);
        for line in 0..8 {
            let forged: Vec<String> = note
                .lines()
                .enumerate()
                .map(|(at, text)| if at == line { format!("{text}0") } else { text.to_owned() })
                .collect();
            let forged = forged.join("\n") + "\n";
            assert!(Checkpoint::open(&forged, &keys(&signer)).is_err(), "line {line}");
        }
        let kept = Kept { note, cause: Cause::Interval, segment: 1, offset: 10, peaks: frontier.peaks().to_vec() };
        assert_eq!(kept.frontier(&said), Some(frontier));
        let other = Kept { peaks: kept.peaks.iter().rev().copied().collect(), ..kept };
        assert_eq!(other.frontier(&said), None, "peaks that have another root");
    }
}
