//! One link, asked of its sources: the findings, and how far they can be trusted.

use jiff::Timestamp;
use rust_decimal::Decimal;
use tokio::time::Instant;

use super::rules::{self, Outstanding, Uptime};
use crate::{
    connector::rows::{BreachRow, InvoiceStatus, UptimeDay},
    domain::Millis,
    portal::{
        ManagedTenant,
        fanout::{Fanout, Kind, Loaded, Part},
        partial::Status,
        query::Period,
        sources::{InvoiceFilter, Site, SourceError},
    },
    store::{AlertKind, Evaluation},
};

/// A reading and how it ended.
pub(super) struct Reading {
    pub(super) evaluation: Evaluation,
    pub(super) status: Status,
}

/// Something that was not read in full.
struct Gap {
    status: Status,
    message: String,
}

impl From<SourceError> for Gap {
    fn from(error: SourceError) -> Self {
        Self { status: Status::from(&error), message: error.to_string() }
    }
}

fn truncated(what: &str) -> Gap {
    Gap { status: Status::Truncated, message: format!("the source holds more {what} than are read") }
}

/// Reads one link before `until`. A link that wants to hear nothing has nothing wrong.
pub(super) async fn read(
    fanout: &Fanout,
    site: &Site,
    managed: &ManagedTenant,
    kind: AlertKind,
    until: Instant,
    due_at: Millis,
) -> Reading {
    let now = Timestamp::now();
    let mut evaluation = Evaluation {
        partner_id: managed.link.partner_id,
        link_id: managed.link.id,
        tenant_id: managed.link.managed_tenant_id.clone(),
        kind,
        read_at: Millis::from_timestamp(now),
        findings: Vec::new(),
        exhaustive: Vec::new(),
        error: None,
        due_at,
    };
    let gap = if !rules::wanted(kind, &managed.link.terms) {
        evaluation.exhaustive = match kind {
            AlertKind::Billing => vec![rules::BILLING_THRESHOLD],
            AlertKind::Sla => vec![rules::SLA_BREACH, rules::UPTIME_BELOW_TARGET],
        };
        None
    } else {
        match kind {
            AlertKind::Billing => billing(fanout, site, managed, until, &mut evaluation).await,
            AlertKind::Sla => sla(fanout, site, managed, until, now, &mut evaluation).await,
        }
    };
    let status = gap.as_ref().map_or(Status::Ok, |gap| gap.status);
    evaluation.error = gap.map(|gap| gap.message);
    Reading { evaluation, status }
}

/// What one tenant owes, added up while it is read.
fn owed() -> Part<Outstanding> {
    let filter =
        InvoiceFilter { status: vec![InvoiceStatus::Finalized, InvoiceStatus::Overdue], ..InvoiceFilter::default() };
    let question = filter.clone();
    Part::new(Kind::Invoices, &question, move |upstreams, site, until| {
        let filter = filter.clone();
        async move {
            let (mut owed, mut exact) = (Outstanding::default(), true);
            let scanned = upstreams.invoices(&site, &filter, until, &mut |row| exact &= owed.add(&row)).await?;
            if !exact {
                return Err(SourceError::Answer("the amounts are too large to be added".to_owned()));
            }
            Ok(Loaded { value: owed, truncated: scanned.truncated, bytes: 0 })
        }
    })
}

fn breaches() -> Part<Vec<BreachRow>> {
    Part::new(Kind::Breaches, &"breaches", |upstreams, site, until| async move {
        let mut rows = Vec::new();
        let scanned = upstreams.breaches(&site, until, &mut |row| rows.push(row)).await?;
        Ok(Loaded { value: rows, truncated: scanned.truncated, bytes: 0 })
    })
}

fn uptime(period: Period, target: Decimal) -> Part<Vec<UptimeDay>> {
    Part::new(Kind::Uptime, &(period, target), move |upstreams, site, until| async move {
        let days = upstreams.uptime(&site, period, target, until).await?;
        Ok(Loaded { value: days, truncated: false, bytes: 0 })
    })
}

async fn billing(
    fanout: &Fanout,
    site: &Site,
    managed: &ManagedTenant,
    until: Instant,
    into: &mut Evaluation,
) -> Option<Gap> {
    let threshold = managed.link.terms.billing_alert_threshold?;
    let owed = match fanout.direct(&owed(), site, until).await {
        Ok(owed) => owed,
        Err(error) => return Some(error.into()),
    };
    into.findings = rules::billing(into.link_id, &owed.value, threshold, into.read_at);
    if owed.truncated {
        // What was read may reach the threshold; that it does not proves nothing.
        return Some(truncated("invoices"));
    }
    into.exhaustive.push(rules::BILLING_THRESHOLD);
    None
}

async fn sla(
    fanout: &Fanout,
    site: &Site,
    managed: &ManagedTenant,
    until: Instant,
    now: Timestamp,
    into: &mut Evaluation,
) -> Option<Gap> {
    let target = managed.link.terms.sla_uptime_target;
    let ask_uptime = async {
        match target {
            Some(target) => {
                let part = uptime(Period::last_days(rules::DAYS, now), target);
                fanout.direct(&part, site, until).await.map(|days| Some((days.value, target)))
            }
            None => Ok(None),
        }
    };
    let part = breaches();
    let (breaches, uptime) = tokio::join!(fanout.direct(&part, site, until), ask_uptime);
    let mut gap: Option<Gap> = None;
    match breaches {
        Ok(rows) => {
            into.findings.extend(rows.value.iter().filter_map(|row| rules::breach(into.link_id, row, now)));
            if rows.truncated {
                gap = Some(truncated("breaches"));
            } else {
                into.exhaustive.push(rules::SLA_BREACH);
            }
        }
        Err(error) => gap = Some(error.into()),
    }
    let judged = match uptime {
        Ok(Some((days, target))) => rules::uptime(into.link_id, &days, target, into.read_at),
        // Without a target there is nothing to fall below.
        Ok(None) => Uptime::Met,
        Err(error) => {
            gap = gap.or(Some(error.into()));
            Uptime::Unknown
        }
    };
    match judged {
        Uptime::Unknown => {}
        Uptime::Met => into.exhaustive.push(rules::UPTIME_BELOW_TARGET),
        Uptime::Below(finding) => into.findings.push(*finding),
    }
    gap
}
