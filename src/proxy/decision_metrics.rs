//! Counters of decisions for others. Labels are bounded: a face and an outcome from the lists below.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

/// How is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Envoy,
    Nginx,
    Caddy,
    Traefik,
    Authzen,
}

impl Face {
    pub const ALL: [Self; 5] = [Self::Envoy, Self::Nginx, Self::Caddy, Self::Traefik, Self::Authzen];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Authzen => "authzen",
        }
    }
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allow,
    Deny,
    /// Refused for a reason of ours: what could not be decided or recorded.
    Fault,
}

impl Outcome {
    /// By the status of a refusal.
    pub fn of_refusal(status: u16) -> Self {
        if status >= 500 { Self::Fault } else { Self::Deny }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Fault => "fault",
        }
    }
}

/// Handles for every face, made once.
#[derive(Debug)]
pub struct DecisionMetrics {
    faces: Vec<([IntCounter; 3], Histogram)>,
    /// Questions from nobody that is known.
    pub strangers: IntCounter,
}

impl DecisionMetrics {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let decisions = IntCounterVec::new(
            Opts::new("linkgate_decisions_total", "Decisions for other proxies and services, by face and outcome"),
            &["face", "outcome"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("linkgate_decision_seconds", "Time to a decision, by face")
                .buckets(vec![0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0]),
            &["face"],
        )?;
        let strangers = IntCounter::new(
            "linkgate_decision_strangers_total",
            "Questions refused because whoever asked showed no known secret",
        )?;
        registry.register(Box::new(decisions.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(strangers.clone()))?;
        let outcomes = [Outcome::Allow, Outcome::Deny, Outcome::Fault];
        let faces = Face::ALL.map(|face| {
            let label = face.as_str();
            let counters = outcomes.map(|outcome| decisions.with_label_values(&[label, outcome.as_str()]));
            (counters, seconds.with_label_values(&[label]))
        });
        Ok(Self { faces: faces.into(), strangers })
    }

    pub fn count(&self, face: Face, outcome: Outcome, since: std::time::Instant) {
        if let Some((counters, seconds)) = self.faces.get(face as usize) {
            if let Some(counter) = counters.get(outcome as usize) {
                counter.inc();
            }
            seconds.observe(since.elapsed().as_secs_f64());
        }
    }
}
