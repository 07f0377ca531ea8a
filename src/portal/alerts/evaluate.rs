//! One link, asked of its sources: the findings, and how far they can be trusted.

use jiff::Timestamp;
use tokio::time::Instant;

use super::rules::{self, Outstanding, Uptime};
use crate::{
    connector::rows::InvoiceStatus,
    domain::Millis,
    portal::{
        ManagedTenant,
        partial::Status,
        query::Period,
        sources::{InvoiceFilter, Site, SourceError, Sources},
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
    sources: &Sources,
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
            AlertKind::Billing => billing(sources, site, managed, until, &mut evaluation).await,
            AlertKind::Sla => sla(sources, site, managed, until, now, &mut evaluation).await,
        }
    };
    let status = gap.as_ref().map_or(Status::Ok, |gap| gap.status);
    evaluation.error = gap.map(|gap| gap.message);
    Reading { evaluation, status }
}

async fn billing(
    sources: &Sources,
    site: &Site,
    managed: &ManagedTenant,
    until: Instant,
    into: &mut Evaluation,
) -> Option<Gap> {
    let threshold = managed.link.terms.billing_alert_threshold?;
    let filter =
        InvoiceFilter { status: vec![InvoiceStatus::Finalized, InvoiceStatus::Overdue], ..InvoiceFilter::default() };
    let (mut owed, mut exact) = (Outstanding::default(), true);
    let scanned = sources.invoices(site, &filter, until, &mut |row| exact &= owed.add(&row)).await;
    let scanned = match scanned {
        Ok(scanned) => scanned,
        Err(error) => return Some(error.into()),
    };
    if !exact {
        return Some(Gap { status: Status::Error, message: "the amounts are too large to be added".to_owned() });
    }
    into.findings = rules::billing(into.link_id, &owed, threshold, into.read_at);
    if scanned.truncated {
        // What was read may reach the threshold; that it does not proves nothing.
        return Some(truncated("invoices"));
    }
    into.exhaustive.push(rules::BILLING_THRESHOLD);
    None
}

async fn sla(
    sources: &Sources,
    site: &Site,
    managed: &ManagedTenant,
    until: Instant,
    now: Timestamp,
    into: &mut Evaluation,
) -> Option<Gap> {
    let (link, read_at) = (into.link_id, into.read_at);
    let target = managed.link.terms.sla_uptime_target;
    let mut findings = Vec::new();
    let mut each = |row| findings.extend(rules::breach(link, &row, now));
    let breaches = sources.breaches(site, until, &mut each);
    let uptime = async {
        match target {
            Some(target) => sources.uptime(site, Period::last_days(rules::DAYS, now), target, until).await.map(Some),
            None => Ok(None),
        }
    };
    let (breaches, uptime) = tokio::join!(breaches, uptime);
    let mut gap: Option<Gap> = None;
    match breaches {
        Ok(scanned) if scanned.truncated => gap = Some(truncated("breaches")),
        Ok(_) => into.exhaustive.push(rules::SLA_BREACH),
        Err(error) => {
            // Rows of a list that broke off are true, and there may be others.
            gap = Some(error.into());
        }
    }
    let judged = match (uptime, target) {
        (Ok(Some(days)), Some(target)) => rules::uptime(link, &days, target, read_at),
        // Without a target there is nothing to fall below.
        (Ok(_), _) => Uptime::Met,
        (Err(error), _) => {
            gap = gap.or(Some(error.into()));
            Uptime::Unknown
        }
    };
    match judged {
        Uptime::Unknown => {}
        Uptime::Met => into.exhaustive.push(rules::UPTIME_BELOW_TARGET),
        Uptime::Below(finding) => findings.push(*finding),
    }
    into.findings = findings;
    gap
}
