//! A file of a policy set as it was read: what problems point into.

use std::sync::Arc;

/// One file's text under the name that messages use.
#[derive(Clone, Debug)]
pub(super) struct SourceFile {
    pub(super) name: String,
    pub(super) text: Arc<str>,
}
