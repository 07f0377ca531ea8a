//! What is counted of a set that is asked and not enforced, and of one that is in force and not enforced.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::policy::{Outcome, Verdict};

/// Most rules that have a label of their own; the rest are counted together.
const MAX_RULES: usize = 64;

/// Counters of shadow mode and of the log-only rollout. Labels are rules, which are few; partners and tenants stand in
/// the records, and `linkgate policy shadow report` counts them.
#[derive(Debug)]
pub struct ShadowMetrics {
    pub waived: IntCounter,
    pub(super) agreed: IntCounter,
    pub(super) errors: IntCounter,
    flips: IntCounterVec,
    rules: Mutex<HashSet<String>>,
}

impl ShadowMetrics {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        let waived =
            counter("linkgate_policy_waived_total", "Decisions let through only because policy.enforce is false")?;
        let agreed = counter("linkgate_shadow_agreed_total", "Decisions in which the shadow set agreed")?;
        let errors = counter("linkgate_shadow_errors_total", "Decisions that the shadow set could not make")?;
        let flips = IntCounterVec::new(
            Opts::new("linkgate_shadow_flips_total", "Decisions in which the shadow set differed, by rule"),
            &["direction", "rule"],
        )?;
        for counter in [&waived, &agreed, &errors] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(flips.clone()))?;
        Ok(Self { waived, agreed, errors, flips, rules: Mutex::default() })
    }

    pub(super) fn flip(&self, shadow: &Verdict, live: &Outcome) {
        let (direction, rule) = if shadow.is_allow() {
            ("deny_to_allow", live.policies.first().map(|id| &**id).unwrap_or(NO_PERMIT))
        } else {
            ("allow_to_deny", shadow.policies.first().map(|id| &**id).or(shadow.word()).unwrap_or(NO_PERMIT))
        };
        self.flips.with_label_values(&[direction, &self.bounded(rule)]).inc();
    }

    /// A policy set may be changed for ever; its labels must not grow with it.
    fn bounded(&self, rule: &str) -> String {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if !rules.contains(rule) {
            if rules.len() >= MAX_RULES {
                return "other".to_owned();
            }
            rules.insert(rule.to_owned());
        }
        rule.to_owned()
    }
}

/// A refusal without a determining policy: no role or override permits it.
const NO_PERMIT: &str = "permission";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_rules_are_bounded() {
        let metrics = ShadowMetrics::register(&Registry::new()).unwrap();
        let seen: HashSet<String> = (0..1_000).map(|at| metrics.bounded(&format!("rule-{at}"))).collect();
        assert_eq!(seen.len(), MAX_RULES + 1);
        assert_eq!(metrics.bounded("rule-0"), "rule-0");
        assert_eq!(metrics.bounded("rule-999"), "other");
    }
}
