//! What the policy room is configured with.

use std::path::PathBuf;

/// Where the policy set is read from.
#[derive(Clone, Debug)]
pub struct PolicySettings {
    /// Folder with `schema.cedarschema`, `roles.toml` and `guardrails/*.cedar`. `None`: the set built into the binary.
    pub dir: Option<PathBuf>,
    /// Bound of the decision memo, in decisions, per worker.
    pub memo_entries: usize,
}
