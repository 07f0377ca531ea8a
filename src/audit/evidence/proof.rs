//! What a tenant gets with a record: the lines that hold it, as far as it may see them, and their ways to a signed root.
//!
//! Texts are given as strings, exactly as they were hashed, so that no tool on the way can spoil them by writing the JSON
//! differently. What the tenant may not see is there as a digest only. `verdict` checks all of it, and the README says how
//! to write another checker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::Checkpoint,
    parts::{Kind, Part, Parts, climb, leaf_of},
    tree,
};
use crate::audit::{
    chain::{ChainId, Hash, Unplaced, private_digest},
    line::{Line, NotALine},
};

/// The proof of one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RecordProof")]
pub struct RecordProof {
    /// Which checkpoint it belongs to.
    #[schemars(with = "String")]
    pub chain_id: ChainId,
    pub opening: LineProof,
    /// `null` for a request that is still open.
    pub completion: Option<LineProof>,
}

/// One line of the journal, as far as it is shown, and its way to the root. Either `line` or `parts` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LineProof")]
pub struct LineProof {
    /// Number of the line; its leaf is this number less the checkpoint's first record.
    pub seq: u64,
    /// Neighbours from the leaf up to the root, in hex (RFC 6962).
    #[schemars(with = "Vec<String>")]
    pub path: Vec<Hash>,
    pub line: Option<ShownLine>,
    pub parts: Option<ShownParts>,
}

/// A line about one tenant: all that goes into its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ShownLine")]
pub struct ShownLine {
    /// `open` or `complete`.
    #[serde(rename = "type")]
    pub line_type: String,
    /// Hash of the line before.
    #[schemars(with = "String")]
    pub prev: Hash,
    /// The visible part, as written.
    #[serde(rename = "pub")]
    pub visible: String,
    /// Digest of the private part.
    #[serde(rename = "priv")]
    #[schemars(with = "String")]
    pub private: Hash,
}

/// A line about several tenants: the parts that this one may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ShownParts")]
pub struct ShownParts {
    /// Hash of the line.
    #[schemars(with = "String")]
    pub hash: Hash,
    pub shown: Vec<ShownPart>,
}

/// One part of a line about several tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ShownPart")]
pub struct ShownPart {
    /// `whole`, `common` or `slice`.
    pub part: String,
    #[schemars(with = "String")]
    pub salt: Hash,
    /// As written.
    pub text: String,
    /// Neighbours up to the root over the parts, in hex.
    #[schemars(with = "Vec<String>")]
    pub path: Vec<Hash>,
}

/// A checkpoint beside the proofs that lead to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Checkpoint")]
pub struct ShownCheckpoint {
    #[schemars(with = "String")]
    pub chain_id: ChainId,
    /// The signed note.
    pub note: String,
}

impl LineProof {
    /// What `tenant` is shown of a line. `shared`: the record has parts that are another tenant's. `None`: the line says
    /// nothing that could be shown to this tenant.
    pub fn new(line: &Line<'_>, tenant: &str, shared: bool, path: Vec<Hash>) -> Result<Option<Self>, NotALine> {
        let is_own = |text: &str| names(text).is_some_and(|named| named == tenant);
        let opening = line.line_type == crate::audit::encode::LineType::Open;
        let proof = Self { seq: line.seq, path, line: None, parts: None };
        let Some(parts) = Parts::of(line)? else {
            // A completion does not name the tenant; that it belongs to the opening is seen by its id.
            let shown = ShownLine {
                line_type: line.line_type.as_str().to_owned(),
                prev: line.prev,
                visible: line.visible.to_owned(),
                private: private_digest(line.private.as_bytes()),
            };
            let allowed = !opening || is_own(line.visible);
            return Ok(allowed.then_some(Self { line: Some(shown), ..proof }));
        };
        let named_other = opening && names(line.visible).is_some_and(|named| named != tenant);
        if named_other && !shared {
            // Nothing of the log asks for it: only where the named tenant is this one, or none is named, all is shown.
            return Ok(None);
        }
        let all = if opening && shared { Kind::Common } else { Kind::Whole };
        let shown: Vec<ShownPart> = parts
            .shown(|part| part.kind == all || (opening && part.kind == Kind::Slice && is_own(&part.text)))
            .into_iter()
            .map(|(part, path)| ShownPart {
                part: part.kind.as_str().to_owned(),
                salt: part.salt,
                text: part.text,
                path,
            })
            .collect();
        let concerned = !opening || shown.len() > 1 || (!shared && is_own(line.visible));
        Ok(concerned.then_some(Self { parts: Some(ShownParts { hash: line.hash, shown }), ..proof }))
    }

    /// Whether what is shown leads to the root; says what does not.
    pub(super) fn leads_to(&self, checkpoint: &Checkpoint) -> Result<(), String> {
        let hash = match (&self.line, &self.parts) {
            (Some(line), None) => leaf_of(line.hash(self.seq), None),
            (None, Some(parts)) => leaf_of(parts.hash, Some(parts.root()?)),
            _ => return Err("either `line` or `parts` must be there".to_owned()),
        };
        let index =
            self.seq.checked_sub(checkpoint.first).ok_or("it lies before the first record of the checkpoint")?;
        match tree::climb(index, checkpoint.size(), hash, &self.path) {
            Some(root) if root == checkpoint.root => Ok(()),
            Some(_) => Err(format!("what is shown is not what record {} of the chain holds", self.seq)),
            None => Err(format!("the path of record {} has not the length that its place asks for", self.seq)),
        }
    }

    /// The text of a part, or of the visible part of a line about one tenant, which is all of it.
    pub(super) fn text(&self, kind: Kind) -> Option<&str> {
        match (&self.line, &self.parts) {
            (Some(line), _) if kind == Kind::Whole => Some(&line.visible),
            (_, Some(parts)) => {
                parts.shown.iter().find(|shown| shown.part == kind.as_str()).map(|shown| shown.text.as_str())
            }
            _ => None,
        }
    }
}

/// The tenant that a part is about.
fn names(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct About {
        managed_tenant_id: Option<String>,
    }
    serde_json::from_str(text).ok().and_then(|about: About| about.managed_tenant_id)
}

impl ShownLine {
    fn hash(&self, seq: u64) -> Hash {
        Unplaced::new(&self.line_type, self.visible.as_bytes(), self.private, &[]).place(seq, self.prev)
    }
}

impl ShownParts {
    /// The one root that all parts lead to.
    fn root(&self) -> Result<Hash, String> {
        let mut root = None;
        for shown in &self.shown {
            let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == shown.part);
            let kind = kind.ok_or_else(|| format!("there is no part `{}`", shown.part))?;
            let digest = Part { kind, salt: shown.salt, text: shown.text.clone() }.digest();
            let found = climb(digest, &shown.path);
            if *root.get_or_insert(found) != found {
                return Err("its parts are not of one record".to_owned());
            }
        }
        root.ok_or_else(|| "no part is shown".to_owned())
    }
}
