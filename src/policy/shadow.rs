//! A second policy set that is asked beside the one in force and never enforced.
//!
//! It may be missing: one that cannot be loaded must not keep the gateway from starting, nor take anything from the set
//! in force. The last good one stays, as with the other.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;

use super::{bundle::Bundle, problem::PolicyErrors};

/// The shadow set and where it is read from.
#[derive(Debug)]
pub struct ShadowSet {
    dir: PathBuf,
    current: ArcSwapOption<Bundle>,
    /// One reload at a time, so that an older reading never replaces a newer one.
    reloading: Mutex<()>,
}

impl ShadowSet {
    /// Without a set; [`Self::reload`] loads it.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, current: ArcSwapOption::empty(), reloading: Mutex::new(()) }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `None` while there has been no good one.
    pub fn current(&self) -> Option<Arc<Bundle>> {
        self.current.load_full()
    }

    /// Reads the set again; a bad one is refused and the old one, if there is one, stays. `false`: nothing changed.
    pub fn reload(&self) -> Result<(Arc<Bundle>, bool), PolicyErrors> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = Bundle::load(Some(&self.dir))?;
        if let Some(current) = self.current().filter(|current| current.version() == loaded.version()) {
            return Ok((current, false));
        }
        let loaded = Arc::new(loaded);
        self.current.store(Some(loaded.clone()));
        Ok((loaded, true))
    }
}
