//! The folder that a journal is written into which is kept in the database.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::cli::outcome::tell;

/// Removed with everything in it when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn make() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("linkgate-journal-{}", uuid::Uuid::new_v4()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tell(format_args!("warning: cannot remove `{}`: {error}", self.0.display()));
        }
    }
}
