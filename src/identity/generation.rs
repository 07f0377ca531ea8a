//! By what cached tokens are known to be of before: a number that grows with every change of keys or configuration.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counts over all verifiers of the process, so that two configurations never share a generation.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// Announces that keys or configuration changed: cached tokens of before are no longer found.
#[derive(Clone)]
pub(super) struct Generation(Arc<AtomicU64>);

impl Generation {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(GENERATIONS.fetch_add(1, Ordering::Relaxed))))
    }

    pub(super) fn advance(&self) {
        self.0.fetch_max(GENERATIONS.fetch_add(1, Ordering::Relaxed), Ordering::AcqRel);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
