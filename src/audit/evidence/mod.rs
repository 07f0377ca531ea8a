//! Evidence that someone outside can check: signed checkpoints of the chain, and proofs that a record is in it.
//!
//! Every line of the journal is one leaf of a Merkle tree (RFC 6962). A checkpoint says how many lines there are and what
//! the root over them is, and is signed (Ed25519, C2SP signed note: what tools for transparency logs verify). Whoever keeps
//! a checkpoint elsewhere finds out later whether the journal up to it is still the same, whoever rewrote what. And a
//! tenant is shown its records with the way from the record to the root of the last checkpoint.
//!
//! Reading order: `tree` (leaves, roots, ways), `note` (keys and signatures), `checkpoint` (what is signed), `parts` (how a
//! record over several tenants is shown to one of them), `walk` (from lines to leaves), `signer` (when), `shelf` (where
//! checkpoints lie beside the journal), `proof` (what a tenant gets), `verdict` (what a tenant does with it), `witness`
//! (what `audit verify` does with checkpoints), `prune` (how old segments go without breaking any of it).
//!
//! It is not on the way of a request: lines are read from the journal behind it, and signatures are made at an interval.

pub mod checkpoint;
pub mod note;
pub mod parts;
pub mod proof;
pub mod prune;
pub mod settings;
pub mod shelf;
pub mod signer;
pub mod tree;
pub mod verdict;
mod walk;
pub mod witness;

pub use checkpoint::{Cause, Checkpoint, Kept};
pub use note::{KeyError, Keys, Signer};
pub use proof::RecordProof;
pub use settings::CheckpointSettings;
pub use signer::Checkpointer;
