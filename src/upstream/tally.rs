//! What an upstream counts of itself, for the metrics: plain numbers that outlast reloads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Counts since the start, of all workers.
        #[derive(Debug, Default)]
        pub struct Tally { $($(#[$doc])* pub $name: Count,)+ }
    };
}

counts! {
    /// Endpoints ejected by outlier detection.
    ejections,
    /// Requests that the panic rule let go to any endpoint.
    panics,
    /// Refused: the organisation has its share already.
    refused_share,
    /// Refused: all places taken, and no queue.
    refused_full,
    /// Refused: the queue was full too.
    refused_queue_full,
    /// Refused: waited in the queue for too long.
    refused_queue_timeout,
    /// Requests sent to another endpoint after one could not be reached.
    retries,
    /// Retries that the budget did not allow.
    budget_exhausted,
    /// Look-ups of host names that failed.
    resolution_failures,
    /// Active checks that were as expected.
    checks_good,
    /// Active checks that were not.
    checks_bad,
}

/// One of them.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
