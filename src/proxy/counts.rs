//! Two counts of the request path: partners at doors that stay closed, and what the caches of workers are worth.
//!
//! Both are bounded: partners by number, caches by name.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Most partners that have a label of their own; the rest are counted together, so that an alarm fires too often there
/// rather than not at all.
const MAX_PARTNERS: usize = 256;

/// Refused switches into a tenant, by partner: for the alarm about one that tries doors.
#[derive(Debug)]
pub struct RefusedSwitches {
    counts: IntCounterVec,
    partners: Mutex<HashSet<String>>,
}

impl RefusedSwitches {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counts = IntCounterVec::new(
            Opts::new(
                "linkgate_context_switches_refused_total",
                "Requests that named a tenant which stayed closed to the partner, by partner",
            ),
            &["partner"],
        )?;
        registry.register(Box::new(counts.clone()))?;
        Ok(Self { counts, partners: Mutex::default() })
    }

    pub fn refused(&self, partner: &str) {
        self.counts.with_label_values(&[self.bounded(partner)]).inc();
    }

    fn bounded<'a>(&self, partner: &'a str) -> &'a str {
        let mut partners = self.partners.lock().unwrap_or_else(PoisonError::into_inner);
        if !partners.contains(partner) {
            if partners.len() >= MAX_PARTNERS {
                return "other";
            }
            partners.insert(partner.to_owned());
        }
        partner
    }
}

/// What a worker keeps hot, and how often it was of use.
#[derive(Debug)]
pub struct CacheMetrics {
    pub sessions: Lookups,
    pub decisions: Lookups,
}

/// Look-ups of one kind of cache, of all workers.
#[derive(Debug)]
pub struct Lookups {
    hits: IntCounter,
    misses: IntCounter,
}

impl Lookups {
    /// Adds what was counted since `before`.
    pub fn add(&self, before: (u64, u64), now: (u64, u64)) {
        self.hits.inc_by(now.0.wrapping_sub(before.0));
        self.misses.inc_by(now.1.wrapping_sub(before.1));
    }
}

impl CacheMetrics {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new(
            "linkgate_cache_lookups_total",
            "Look-ups in what workers keep hot: verified tokens with their accounts, and decisions",
        );
        let lookups = IntCounterVec::new(opts, &["cache", "result"])?;
        registry.register(Box::new(lookups.clone()))?;
        let of = |cache: &str| Lookups {
            hits: lookups.with_label_values(&[cache, "hit"]),
            misses: lookups.with_label_values(&[cache, "miss"]),
        };
        Ok(Self { sessions: of("session"), decisions: of("decision") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_partners_are_bounded() {
        let switches = RefusedSwitches::register(&Registry::new()).unwrap();
        let names: Vec<String> = (0..1_000).map(|at| format!("partner-{at}")).collect();
        let seen: HashSet<&str> = names.iter().map(|name| switches.bounded(name)).collect();
        assert_eq!(seen.len(), MAX_PARTNERS + 1);
        assert_eq!(switches.bounded("partner-0"), "partner-0");
        assert_eq!(switches.bounded("partner-999"), "other");
    }
}
