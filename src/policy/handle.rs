//! The policy set in force, shared by all workers, replaced as a whole or not at all (invariant I6).

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::{bundle::Bundle, problem::PolicyErrors, settings::PolicySettings};

/// The set in force and how to load it again.
#[derive(Debug)]
pub struct Policies {
    settings: PolicySettings,
    current: ArcSwap<Bundle>,
    /// One reload at a time, so that an older reading never replaces a newer one.
    reloading: Mutex<()>,
}

impl Policies {
    /// Loads the first set; without a valid one nothing starts.
    pub fn new(settings: PolicySettings) -> Result<Self, PolicyErrors> {
        let bundle = load(&settings)?;
        Ok(Self { settings, current: ArcSwap::from_pointee(bundle), reloading: Mutex::new(()) })
    }

    pub fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    /// The set in force. Take it once for a request and use that one throughout.
    pub fn current(&self) -> Arc<Bundle> {
        self.current.load_full()
    }

    /// The set in force without counting a reference: for a hot path that lets it go before it waits for anything.
    pub fn load(&self) -> Guard<Arc<Bundle>> {
        self.current.load()
    }

    /// Reads the set again. A bad one is refused and the old one stays; an unchanged one changes nothing, so that what
    /// the memos hold stays good.
    pub fn reload(&self) -> Result<Arc<Bundle>, PolicyErrors> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = load(&self.settings)?;
        let current = self.current();
        if loaded.version() == current.version() && loaded.warnings() == current.warnings() {
            return Ok(current);
        }
        let loaded = Arc::new(loaded);
        self.current.store(loaded.clone());
        Ok(loaded)
    }
}

fn load(settings: &PolicySettings) -> Result<Bundle, PolicyErrors> {
    let bundle = Bundle::load(settings.dir.as_deref())?;
    Ok(if settings.enforce { bundle } else { bundle.log_only() })
}
