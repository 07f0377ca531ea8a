//! What is wrong with a tenant, from what its sources say: pure, with exact amounts.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    connector::rows::{BreachRow, InvoiceRow, InvoiceStatus, Severity, UptimeDay},
    domain::{Currency, LinkId, Millis, link_rules::LinkTerms, money::Number},
    store::{AlertKind, Finding},
};

pub(super) const BILLING_THRESHOLD: &str = "billing_threshold";
pub(super) const SLA_BREACH: &str = "sla_breach";
pub(super) const UPTIME_BELOW_TARGET: &str = "uptime_below_target";

/// Days over which uptime is averaged, and for which breaches that ended are kept.
pub(super) const DAYS: i64 = 30;

/// Whether a link asks to be told of this at all.
pub(super) fn wanted(kind: AlertKind, terms: &LinkTerms) -> bool {
    match kind {
        AlertKind::Billing => terms.notify_on_billing_threshold && terms.billing_alert_threshold.is_some(),
        AlertKind::Sla => terms.notify_on_sla_breach,
    }
}

/// What is outstanding, by currency: the balance of what is finalized or overdue.
#[derive(Debug, Default)]
pub(super) struct Outstanding(BTreeMap<Currency, Decimal>);

impl Outstanding {
    /// False where the sum cannot be held exactly.
    #[must_use]
    pub(super) fn add(&mut self, invoice: &InvoiceRow) -> bool {
        if !matches!(invoice.status, InvoiceStatus::Finalized | InvoiceStatus::Overdue) {
            return true;
        }
        let sum = self.0.entry(invoice.currency).or_default();
        match sum.checked_add(invoice.balance) {
            Some(new) => {
                *sum = new;
                true
            }
            None => false,
        }
    }
}

#[derive(Serialize)]
struct BillingFacts {
    currency: Currency,
    outstanding_balance: Number,
    billing_alert_threshold: Number,
}

/// One finding a currency that has reached the threshold; critical above twice of it. Nothing owed is never an alert.
pub(super) fn billing(link: LinkId, owed: &Outstanding, threshold: Decimal, now: Millis) -> Vec<Finding> {
    let reached = owed.0.iter().filter(|(_, sum)| **sum >= threshold && **sum > Decimal::ZERO);
    reached
        .map(|(currency, sum)| {
            let money = |amount| Number::money(amount, *currency);
            let critical = threshold.checked_mul(Decimal::TWO).is_some_and(|twice| *sum > twice);
            Finding {
                dedup_key: format!("billing:{link}:{currency}"),
                alert_type: BILLING_THRESHOLD,
                severity: if critical { Severity::Critical } else { Severity::Warning },
                title: "Outstanding balance has reached the threshold".to_owned(),
                message: format!(
                    "{} {currency} is outstanding; the alert threshold is {} {currency}.",
                    money(*sum),
                    money(threshold)
                ),
                since: now,
                resolved_at: None,
                incident: false,
                metadata: facts(&BillingFacts {
                    currency: *currency,
                    outstanding_balance: money(*sum),
                    billing_alert_threshold: money(threshold),
                }),
            }
        })
        .collect()
}

#[derive(Serialize)]
struct BreachFacts<'a> {
    breach_id: &'a str,
    breach_type: Option<&'a str>,
    target_value: Option<Number>,
    actual_value: Option<Number>,
    duration_minutes: Option<Number>,
}

/// `None` for a breach that ended more than [`DAYS`] ago.
pub(super) fn breach(link: LinkId, row: &BreachRow, now: Timestamp) -> Option<Finding> {
    let over = row.resolved || row.resolved_at.is_some();
    let ended = over.then(|| row.resolved_at.or(row.ended_at).unwrap_or(row.detected_at));
    let oldest = now.checked_sub((24 * DAYS).hours()).unwrap_or(Timestamp::MIN);
    if ended.is_some_and(|at| at < oldest) {
        return None;
    }
    // As the service wrote it, digit by digit.
    let exact = |value: Option<Decimal>| value.map(|value| Number { value, digits: value.scale() });
    let what = row.breach_type.as_deref().map(|text| text.replace('_', " "));
    let figures = match (row.actual_value, row.target_value) {
        (Some(actual), Some(target)) => format!(": {actual} against a target of {target}"),
        _ => String::new(),
    };
    Some(Finding {
        dedup_key: format!("breach:{link}:{}", row.breach_id),
        alert_type: SLA_BREACH,
        severity: row.severity,
        title: what.as_ref().map_or_else(|| "SLA breach".to_owned(), |what| format!("SLA breach: {what}")),
        message: format!("The service level was broken{figures}."),
        since: Millis::from_timestamp(row.detected_at),
        resolved_at: ended.map(Millis::from_timestamp),
        incident: true,
        metadata: facts(&BreachFacts {
            breach_id: &row.breach_id,
            breach_type: row.breach_type.as_deref(),
            target_value: exact(row.target_value),
            actual_value: exact(row.actual_value),
            duration_minutes: exact(row.duration_minutes),
        }),
    })
}

#[derive(Serialize)]
struct UptimeFacts {
    uptime_percentage: Number,
    sla_target: Number,
    days: usize,
}

/// What the uptime of the last days makes of a target.
#[derive(Debug)]
pub(super) enum Uptime {
    /// No day is known: nothing can be said.
    Unknown,
    Met,
    Below(Box<Finding>),
}

/// The plain average of the days against the target; critical where it falls short more than twice what the target allows.
pub(super) fn uptime(link: LinkId, days: &[UptimeDay], target: Decimal, now: Millis) -> Uptime {
    let sum = days.iter().try_fold(Decimal::ZERO, |sum, day| sum.checked_add(day.uptime_percentage));
    let Some(average) = sum.and_then(|sum| sum.checked_div(Decimal::from(days.len()))) else {
        return Uptime::Unknown;
    };
    if average >= target {
        return Uptime::Met;
    }
    let allowed = Decimal::ONE_HUNDRED - target;
    let critical = Decimal::ONE_HUNDRED - average > allowed * Decimal::TWO;
    Uptime::Below(Box::new(Finding {
        dedup_key: format!("uptime:{link}"),
        alert_type: UPTIME_BELOW_TARGET,
        severity: if critical { Severity::Critical } else { Severity::Warning },
        title: "Uptime is below the agreed target".to_owned(),
        message: format!(
            "Uptime was {} % over the last {DAYS} days; the target is {} %.",
            Number::ratio(average),
            Number::ratio(target)
        ),
        since: now,
        resolved_at: None,
        incident: false,
        metadata: facts(&UptimeFacts {
            uptime_percentage: Number::ratio(average),
            sla_target: Number::ratio(target),
            days: days.len(),
        }),
    }))
}

/// Numbers and text always can be written.
fn facts(facts: &impl Serialize) -> Box<RawValue> {
    to_raw_value(facts).unwrap_or_else(|error| {
        tracing::error!(%error, "the facts of an alert cannot be written as JSON");
        RawValue::from_string("{}".to_owned()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LINK: LinkId = LinkId(Uuid::nil());
    const NOW: Millis = Millis(1_700_000_000_000);

    fn dec(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn invoice(status: InvoiceStatus, balance: &str, currency: &str) -> InvoiceRow {
        InvoiceRow {
            invoice_id: "i".into(),
            invoice_number: None,
            customer_id: None,
            customer_name: None,
            invoice_date: Timestamp::UNIX_EPOCH,
            due_date: None,
            status,
            subtotal: None,
            tax: None,
            total: dec(balance),
            paid_amount: Decimal::ZERO,
            balance: dec(balance),
            currency: currency.parse().unwrap(),
            payment_date: None,
            created_at: None,
            line_items: Vec::new(),
        }
    }

    fn outstanding(rows: &[InvoiceRow]) -> Outstanding {
        let mut owed = Outstanding::default();
        assert!(rows.iter().all(|row| owed.add(row)));
        owed
    }

    #[test]
    fn a_currency_alerts_on_its_own_from_the_threshold_on() {
        let owed = outstanding(&[
            invoice(InvoiceStatus::Finalized, "600.10", "USD"),
            invoice(InvoiceStatus::Overdue, "399.90", "USD"),
            invoice(InvoiceStatus::Draft, "5000", "USD"),
            invoice(InvoiceStatus::Paid, "5000", "USD"),
            invoice(InvoiceStatus::Cancelled, "5000", "USD"),
            invoice(InvoiceStatus::Finalized, "999.99", "EUR"),
            invoice(InvoiceStatus::Finalized, "2000.001", "KWD"),
        ]);
        let found = billing(LINK, &owed, dec("1000"), NOW);
        let seen: Vec<_> = found.iter().map(|one| (one.dedup_key.as_str(), one.severity)).collect();
        let key = |code: &str| format!("billing:{LINK}:{code}");
        assert_eq!(seen, [(&*key("KWD"), Severity::Critical), (&*key("USD"), Severity::Warning)]);
        assert_eq!(
            found[1].metadata.get(),
            r#"{"currency":"USD","outstanding_balance":1000.00,"billing_alert_threshold":1000.00}"#
        );
        assert_eq!(found[0].message, "2000.001 KWD is outstanding; the alert threshold is 1000.000 KWD.");
    }

    #[test]
    fn exactly_twice_the_threshold_is_a_warning_and_nothing_owed_is_nothing() {
        let owed = outstanding(&[invoice(InvoiceStatus::Overdue, "2000.00", "USD")]);
        assert_eq!(billing(LINK, &owed, dec("1000"), NOW)[0].severity, Severity::Warning);
        let owed = outstanding(&[invoice(InvoiceStatus::Overdue, "2000.01", "USD")]);
        assert_eq!(billing(LINK, &owed, dec("1000"), NOW)[0].severity, Severity::Critical);
        let nothing = outstanding(&[invoice(InvoiceStatus::Overdue, "0", "USD")]);
        assert!(billing(LINK, &nothing, Decimal::ZERO, NOW).is_empty());
    }

    fn day(uptime: &str) -> UptimeDay {
        UptimeDay {
            date: jiff::civil::date(2026, 1, 1),
            uptime_percentage: dec(uptime),
            downtime_minutes: None,
            breaches: None,
        }
    }

    #[test]
    fn uptime_is_judged_against_the_links_target() {
        let judged = |days: &[&str], target: &str| {
            let days: Vec<_> = days.iter().map(|text| day(text)).collect();
            match uptime(LINK, &days, dec(target), NOW) {
                Uptime::Unknown => "unknown".to_owned(),
                Uptime::Met => "met".to_owned(),
                Uptime::Below(finding) => finding.severity.as_str().to_owned(),
            }
        };
        assert_eq!(judged(&[], "99.9"), "unknown");
        assert_eq!(judged(&["99.8", "100"], "99.9"), "met");
        assert_eq!(judged(&["99.7", "100"], "99.9"), "warning");
        assert_eq!(judged(&["99.6", "100"], "99.9"), "warning");
        assert_eq!(judged(&["99.59", "100"], "99.9"), "critical");
        assert_eq!(judged(&["99.99"], "100"), "critical");
    }

    #[test]
    fn a_breach_keeps_its_sources_words_and_old_ones_are_left_alone() {
        let now: Timestamp = "2026-03-15T00:00:00Z".parse().unwrap();
        let row = |resolved_at: Option<&str>| BreachRow {
            breach_id: "b-1".into(),
            breach_type: Some("response_time".into()),
            severity: Severity::Critical,
            detected_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            ended_at: None,
            resolved: resolved_at.is_some(),
            resolved_at: resolved_at.map(|text| text.parse().unwrap()),
            duration_minutes: Some(dec("12.50")),
            target_value: Some(dec("99.90")),
            actual_value: Some(dec("98.1")),
        };
        let open = breach(LINK, &row(None), now).unwrap();
        assert_eq!(open.title, "SLA breach: response time");
        assert_eq!(open.message, "The service level was broken: 98.1 against a target of 99.90.");
        assert_eq!(open.resolved_at, None);
        assert!(open.metadata.get().contains(r#""target_value":99.90,"actual_value":98.1,"duration_minutes":12.50"#));
        assert!(breach(LINK, &row(Some("2026-03-01T00:00:00Z")), now).unwrap().resolved_at.is_some());
        assert!(breach(LINK, &row(Some("2026-01-02T00:00:00Z")), now).is_none());
    }
}
