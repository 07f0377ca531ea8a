//! A secret that cannot be printed by accident.

use std::{fmt, sync::Arc};

/// Whether a file of this mode may be read or written by those who are neither its owner nor of its group.
pub fn is_open_to_others(mode: u32) -> bool {
    mode & 0o006 != 0
}

/// Key material or a password; `Debug` shows only that it is there.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The secret itself. Call it where it is used, never to show it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
