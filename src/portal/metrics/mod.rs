//! Counters of the consolidated API and its background work. Label values are words of this code: never a tenant, a
//! partner, an address or anything that a service says, so that the number of series is fixed.
//!
//! Counters are of this process. The gauges of `database` are of all processes: every replica shows the same, so take one
//! of them, not their sum.

mod database;
mod ends;
mod registering;

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

pub(super) use self::ends::{DeliveryEnd, ExportEnd, SliceFrom};
use self::{database::DatabaseGauges, registering::Registering};
use super::{
    fanout::{kind::Kind, part::Loaded},
    sources::SourceError,
};
use crate::{
    domain::{EventType, Millis},
    store::{AlertKind, Census},
};

/// How one question to one tenant's service ended.
const ANSWERS: [&str; 7] = ["ok", "truncated", "timeout", "unavailable", "refused", "wrong_answer", "no_connector"];
const EVALUATIONS: [&str; 3] = ["complete", "incomplete", "skipped"];
const FORMATS: [&str; 2] = ["csv", "pdf"];

/// All of them.
#[derive(Debug)]
pub struct Metrics {
    answers: IntCounterVec,
    slices: IntCounterVec,
    breakers: IntGaugeVec,
    evaluations: IntCounterVec,
    evaluation_seconds: HistogramVec,
    deliveries: IntCounterVec,
    exports: IntCounterVec,
    export_seconds: HistogramVec,
    database: DatabaseGauges,
}

/// Series that begin at zero: a rate over one that appears with its first event misses that event.
fn begin(vec: &IntCounterVec, first: &[&str], second: &[&str]) {
    for one in first {
        for other in second {
            let _: IntCounter = vec.with_label_values(&[one, other]);
        }
    }
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let new = Registering(registry);
        let metrics = Self {
            answers: new.counters(
                "linkgate_source_questions_total",
                "Questions to tenants' services, by kind of data and outcome; a list of many pages is one",
                &["kind", "outcome"],
            )?,
            slices: new.counters(
                "linkgate_slices_total",
                "Slices of consolidated answers, by kind of data and where they came from",
                &["kind", "from"],
            )?,
            breakers: new.gauges(
                "linkgate_source_breakers_open",
                "Tenants whose service is left alone after failures in a row, for one partner or more, by kind of data",
                &["kind"],
            )?,
            evaluations: new.counters(
                "linkgate_alert_evaluations_total",
                "Looks at links for alerts in the background, by kind and outcome",
                &["kind", "outcome"],
            )?,
            evaluation_seconds: new.seconds(
                "linkgate_alert_evaluation_seconds",
                "Time that a look at one link for alerts took",
                "kind",
            )?,
            deliveries: new.counters(
                "linkgate_webhook_deliveries_total",
                "Tries of webhook deliveries, by event and outcome",
                &["event", "outcome"],
            )?,
            exports: new.counters(
                "linkgate_exports_total",
                "Exports that this process worked on, by format and outcome",
                &["format", "outcome"],
            )?,
            export_seconds: new.seconds(
                "linkgate_export_seconds",
                "Time that exports took which were completed",
                "format",
            )?,
            database: DatabaseGauges::register(&new)?,
        };
        metrics.begin();
        Ok(metrics)
    }

    fn begin(&self) {
        let kinds = Kind::ALL.map(Kind::as_str);
        begin(&self.answers, &kinds, &ANSWERS);
        begin(&self.slices, &kinds, &SliceFrom::ALL.map(SliceFrom::as_str));
        let alerts: Vec<&str> = AlertKind::ALL.iter().map(|kind| kind.as_str()).collect();
        begin(&self.evaluations, &alerts, &EVALUATIONS);
        begin(&self.deliveries, &EventType::ALL.map(EventType::as_str), &DeliveryEnd::ALL.map(DeliveryEnd::as_str));
        begin(&self.exports, &FORMATS, &ExportEnd::ALL.map(ExportEnd::as_str));
        for format in FORMATS {
            let _: Histogram = self.export_seconds.with_label_values(&[format]);
        }
        for kind in alerts {
            let _: Histogram = self.evaluation_seconds.with_label_values(&[kind]);
        }
        self.breakers(&Kind::ALL.map(|kind| (kind, 0)));
    }

    /// How a question to a service ended.
    pub(super) fn answered<T>(&self, kind: Kind, answer: &Result<Loaded<T>, SourceError>) {
        let outcome = match answer {
            Ok(loaded) if loaded.truncated => "truncated",
            Ok(_) => "ok",
            Err(error) => error.word(),
        };
        self.answers.with_label_values(&[kind.as_str(), outcome]).inc();
    }

    pub(super) fn slice(&self, kind: Kind, from: SliceFrom) {
        self.slices.with_label_values(&[kind.as_str(), from.as_str()]).inc();
    }

    /// A look at one link; `complete` is `None` where the link was not to be asked.
    pub(super) fn evaluated(&self, kind: AlertKind, complete: Option<bool>, took: Duration) {
        let outcome = match complete {
            Some(true) => "complete",
            Some(false) => "incomplete",
            None => "skipped",
        };
        self.evaluations.with_label_values(&[kind.as_str(), outcome]).inc();
        if complete.is_some() {
            self.evaluation_seconds.with_label_values(&[kind.as_str()]).observe(took.as_secs_f64());
        }
    }

    pub(super) fn delivery(&self, event: EventType, end: DeliveryEnd) {
        self.deliveries.with_label_values(&[event.as_str(), end.as_str()]).inc();
    }

    /// `format`: as the request names it.
    pub(super) fn export(&self, format: &'static str, end: ExportEnd, took: Duration) {
        self.exports.with_label_values(&[format, end.as_str()]).inc();
        if end == ExportEnd::Completed {
            self.export_seconds.with_label_values(&[format]).observe(took.as_secs_f64());
        }
    }

    /// Open breakers of each kind of data, as of now.
    pub(super) fn breakers(&self, open: &[(Kind, usize)]) {
        for (kind, count) in open {
            self.breakers.with_label_values(&[kind.as_str()]).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    /// What the database holds.
    pub(super) fn count(&self, census: &Census, now: Millis) {
        self.database.count(census, now);
    }

    /// Before the metrics are written.
    pub fn refresh(&self) {
        self.database.refresh();
    }

    /// For tests: of nobody's registry.
    #[cfg(test)]
    pub(super) fn unseen() -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self::register(&Registry::new()).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(registry: &Registry) -> String {
        prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn every_series_is_there_from_the_start_and_no_more_come() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let before = written(&registry);
        for line in [
            r#"linkgate_source_questions_total{kind="invoices",outcome="timeout"} 0"#,
            r#"linkgate_slices_total{from="cache",kind="tickets"} 0"#,
            r#"linkgate_webhook_deliveries_total{event="partner.tenant.sla_breach",outcome="dead"} 0"#,
            r#"linkgate_exports_total{format="pdf",outcome="lost"} 0"#,
            r#"linkgate_alerts{kind="sla",severity="critical",status="active"} 0"#,
        ] {
            assert!(before.contains(line), "{line}\n{before}");
        }
        for kind in Kind::ALL {
            let wrong = |text: &str| Err::<Loaded<()>, _>(SourceError::Answer(text.to_owned()));
            metrics.answered(kind, &wrong("tenant `t-1` says something new each time"));
            metrics.answered(kind, &Err::<Loaded<()>, _>(SourceError::Refused("status 422".to_owned())));
            metrics.answered(kind, &Ok(Loaded { value: (), truncated: true, bytes: 0 }));
            SliceFrom::ALL.iter().for_each(|from| metrics.slice(kind, *from));
        }
        for end in DeliveryEnd::ALL {
            EventType::ALL.iter().for_each(|event| metrics.delivery(*event, end));
        }
        for end in ExportEnd::ALL {
            FORMATS.iter().for_each(|format| metrics.export(format, end, Duration::from_secs(3)));
        }
        for complete in [None, Some(true), Some(false)] {
            metrics.evaluated(AlertKind::Sla, complete, Duration::from_secs(1));
        }
        metrics.count(&Census { deliveries: 9, ..Census::default() }, Millis(0));
        let after = written(&registry);
        assert_eq!(after.lines().count(), before.lines().count());
        assert!(after.contains(r#"linkgate_source_questions_total{kind="usage",outcome="wrong_answer"} 1"#), "{after}");
        assert!(after.contains(r#"linkgate_export_seconds_count{format="csv"} 1"#), "only what was completed");
        assert!(after.contains(r#"linkgate_alert_evaluation_seconds_count{kind="sla"} 2"#), "not what was skipped");
        assert!(!after.contains("t-1"));
    }

    #[test]
    fn ages_are_seconds_and_never_negative() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let census = Census {
            deliveries: 3,
            oldest_delivery: Some(Millis(1_500)),
            evaluation_due: Some(Millis(20_000)),
            ..Census::default()
        };
        metrics.count(&census, Millis(10_000));
        let text = written(&registry);
        assert!(text.contains("linkgate_webhook_queue_oldest_seconds 8.5"), "{text}");
        assert!(text.contains("linkgate_webhook_queue_deliveries 3"));
        assert!(text.contains("linkgate_alert_evaluation_overdue_seconds 0\n"));
        assert!(text.contains("linkgate_export_jobs_oldest_seconds 0\n"));
    }
}
