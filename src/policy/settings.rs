//! What the policy room is configured with.

use std::path::PathBuf;

/// Where the policy set is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// Folder with `schema.cedarschema`, `roles.toml` and `guardrails/*.cedar`. `None`: the set built into the binary.
    pub dir: Option<PathBuf>,
    /// Bound of the decision memo, in decisions, per worker.
    pub memo_entries: usize,
    /// `false`: guardrails and role rules only note what they would refuse; see [`super::decide`].
    pub enforce: bool,
    /// Folder of a second set: asked beside the one in force, never enforced.
    pub shadow: Option<PathBuf>,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self { dir: None, memo_entries: 65_536, enforce: true, shadow: None }
    }
}
