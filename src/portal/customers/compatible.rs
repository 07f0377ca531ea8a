//! Customers as older browser clients expect them: flat items under `tenants`, money and percentages as strings.
//!
//! `notes` and `metadata` stand there because the client reads them; what the link holds under these names is the
//! operator's and never told, here as elsewhere.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Customer, parts::Figures};
use crate::{
    domain::{Millis, TenantId, money::Number},
    portal::{partial::Coverage, query::Paging},
};

/// The list.
#[derive(Serialize)]
pub(super) struct Tenants<'a> {
    pub(super) tenants: Vec<Item<'a>>,
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) limit: u64,
    /// Unknown to the client, and no reason to hide what is missing.
    #[serde(flatten)]
    pub(super) coverage: Coverage,
}

impl<'a> Tenants<'a> {
    pub(super) fn new(tenants: Vec<Item<'a>>, total: u64, paging: Paging, coverage: Coverage) -> Self {
        Self { tenants, total, offset: paging.offset, limit: paging.limit, coverage }
    }
}

/// One item, flat.
#[derive(Serialize)]
pub(super) struct Item<'a> {
    tenant_id: &'a TenantId,
    tenant_name: &'a str,
    tenant_slug: Option<&'a str>,
    tenant_domain: Option<&'a str>,
    status: &'a str,
    plan_type: Option<&'a str>,
    link_id: String,
    access_role: &'static str,
    relationship_type: &'static str,
    is_active: bool,
    start_date: Millis,
    end_date: Option<Millis>,
    total_subscribers: Option<i64>,
    open_tickets: Option<u64>,
    sla_breach_count_30d: Option<u64>,
    outstanding_balance: Option<String>,
    current_mrr: Option<String>,
    sla_compliance_pct: Option<String>,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
}

impl<'a> Item<'a> {
    pub(super) fn of(customer: &'a Customer<'_>, figures: &Figures) -> Self {
        let facts = customer.granted.link();
        let (start_date, end_date) = facts.window();
        let uptime = figures.uptime.as_ref().and_then(|uptime| uptime.average);
        Self {
            tenant_id: customer.id(),
            tenant_name: customer.name(),
            tenant_slug: customer.slug(),
            tenant_domain: customer.domain(),
            status: customer.status(),
            plan_type: customer.registry.as_ref().and_then(|row| row.plan_type.as_deref()),
            link_id: facts.link.id.to_string(),
            access_role: facts.link.role.as_str(),
            relationship_type: customer.managed.link.terms.relationship_type.as_str(),
            // Only live links are listed.
            is_active: true,
            start_date,
            end_date,
            total_subscribers: figures.metrics.total_subscribers,
            open_tickets: figures.open_tickets,
            sla_breach_count_30d: figures.breaches,
            outstanding_balance: figures.balance.as_ref().map(|balance| balance.number().to_string()),
            current_mrr: figures.mrr().filter(|_| customer.shows_revenue()).map(|mrr| mrr.to_string()),
            sla_compliance_pct: uptime.map(ratio),
            created_at: customer.created_at(),
            updated_at: customer.said(|row| row.updated_at),
        }
    }
}

fn ratio(value: Decimal) -> String {
    Number::ratio(value).to_string()
}

/// The whole of one customer.
#[derive(Serialize)]
pub(super) struct Detail<'a> {
    #[serde(flatten)]
    item: Item<'a>,
    custom_permissions: &'a BTreeMap<String, bool>,
    sla_response_hours: Option<i64>,
    sla_uptime_target: Option<String>,
    notify_on_sla_breach: bool,
    notify_on_billing_threshold: bool,
    billing_alert_threshold: Option<String>,
    active_subscribers: Option<i64>,
    suspended_subscribers: Option<i64>,
    notes: Option<String>,
    metadata: Map<String, Value>,
    #[serde(flatten)]
    coverage: Coverage,
}

impl<'a> Detail<'a> {
    pub(super) fn of(customer: &'a Customer<'_>, figures: &Figures, coverage: Coverage) -> Self {
        let terms = &customer.managed.link.terms;
        Self {
            item: Item::of(customer, figures),
            custom_permissions: &terms.custom_permissions,
            sla_response_hours: terms.sla_response_hours,
            sla_uptime_target: terms.sla_uptime_target.map(ratio),
            notify_on_sla_breach: terms.notify_on_sla_breach,
            notify_on_billing_threshold: terms.notify_on_billing_threshold,
            billing_alert_threshold: terms.billing_alert_threshold.map(ratio),
            active_subscribers: figures.metrics.active_subscribers,
            suspended_subscribers: figures.metrics.suspended_subscribers,
            notes: None,
            metadata: Map::new(),
            coverage,
        }
    }
}
