//! Customers as the contract shows them (section 8, fields 1 and 2).

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Customer, parts::Figures};
use crate::{
    domain::{Currency, Millis, TenantId, money::Number},
    portal::partial::Coverage,
};

/// One item of the list.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Customer")]
pub(in crate::portal) struct Item<'a> {
    tenant_id: &'a TenantId,
    name: &'a str,
    slug: Option<&'a str>,
    domain: Option<&'a str>,
    status: &'a str,
    plan_type: Option<&'a str>,
    relationship: Relationship,
    metrics: Metrics,
    billing: Billing<'a>,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
}

#[derive(Serialize, JsonSchema)]
struct Relationship {
    link_id: String,
    access_role: &'static str,
    start_date: Millis,
    end_date: Option<Millis>,
    relationship_type: &'static str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CustomerMetrics")]
struct Metrics {
    outstanding_balance: Option<Number>,
    open_tickets: Option<u64>,
    sla_breach_count_30d: Option<u64>,
    total_subscribers: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CustomerBilling")]
struct Billing<'a> {
    billing_cycle: Option<&'a str>,
    current_mrr: Option<Number>,
    last_invoice_date: Option<Timestamp>,
    /// No source says.
    next_invoice_date: Option<Timestamp>,
}

impl Relationship {
    fn of(customer: &Customer<'_>) -> Self {
        // What is told is what the decisions read: the chain's window, not the row's alone.
        let facts = customer.granted.link();
        let (start_date, end_date) = facts.window();
        Self {
            link_id: facts.link.id.to_string(),
            access_role: facts.link.role.as_str(),
            start_date,
            end_date,
            relationship_type: customer.managed.link.terms.relationship_type.as_str(),
        }
    }
}

fn mrr(customer: &Customer<'_>, figures: &Figures) -> Option<Number> {
    figures.mrr().filter(|_| customer.shows_revenue())
}

impl<'a> Billing<'a> {
    fn of(customer: &'a Customer<'_>, figures: &Figures) -> Self {
        Self {
            billing_cycle: customer.registry.as_ref().and_then(|row| row.billing_cycle.as_deref()),
            current_mrr: mrr(customer, figures),
            last_invoice_date: figures.balance.as_ref().and_then(|balance| balance.last_invoice),
            next_invoice_date: None,
        }
    }
}

impl<'a> Item<'a> {
    pub(super) fn of(customer: &'a Customer<'_>, figures: &Figures) -> Self {
        Self {
            tenant_id: customer.id(),
            name: customer.name(),
            slug: customer.slug(),
            domain: customer.domain(),
            status: customer.status(),
            plan_type: customer.registry.as_ref().and_then(|row| row.plan_type.as_deref()),
            relationship: Relationship::of(customer),
            metrics: Metrics {
                outstanding_balance: figures.balance.as_ref().map(super::parts::Balance::number),
                open_tickets: figures.open_tickets,
                sla_breach_count_30d: figures.breaches,
                total_subscribers: figures.metrics.total_subscribers,
            },
            billing: Billing::of(customer, figures),
            created_at: customer.created_at(),
            updated_at: customer.said(|row| row.updated_at),
        }
    }
}

/// The whole of one customer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CustomerDetail")]
pub(in crate::portal) struct Detail<'a> {
    tenant_id: &'a TenantId,
    name: &'a str,
    slug: Option<&'a str>,
    domain: Option<&'a str>,
    status: &'a str,
    plan_type: Option<&'a str>,
    contact: Contact<'a>,
    address: Address<'a>,
    relationship: FullRelationship<'a>,
    metrics: FullMetrics,
    billing: Billing<'a>,
    subscription: Subscription<'a>,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
    #[serde(flatten)]
    coverage: Coverage,
}

#[derive(Serialize, JsonSchema)]
struct Contact<'a> {
    email: Option<&'a str>,
    phone: Option<&'a str>,
    billing_email: Option<&'a str>,
}

#[derive(Serialize, JsonSchema)]
struct Address<'a> {
    line1: Option<&'a str>,
    city: Option<&'a str>,
    state_province: Option<&'a str>,
    postal_code: Option<&'a str>,
    country: Option<&'a str>,
}

#[derive(Serialize, JsonSchema)]
struct FullRelationship<'a> {
    #[serde(flatten)]
    relationship: Relationship,
    custom_permissions: &'a BTreeMap<String, bool>,
    sla_response_hours: Option<i64>,
    sla_uptime_target: Option<Number>,
    notify_on_sla_breach: bool,
    notify_on_billing_threshold: bool,
    billing_alert_threshold: Option<Number>,
}

#[derive(Serialize, JsonSchema)]
struct FullMetrics {
    current_users: Option<i64>,
    max_users: Option<i64>,
    total_subscribers: Option<i64>,
    active_subscribers: Option<i64>,
    suspended_subscribers: Option<i64>,
    current_mrr: Option<Number>,
    outstanding_balance: Option<Number>,
    avg_uptime_30d: Option<Number>,
    open_tickets: Option<u64>,
    sla_breach_count_30d: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct Subscription<'a> {
    billing_cycle: Option<&'a str>,
    trial_ends_at: Option<Timestamp>,
    subscription_starts_at: Option<Timestamp>,
    subscription_ends_at: Option<Timestamp>,
}

impl<'a> Detail<'a> {
    pub(super) fn of(customer: &'a Customer<'_>, figures: &Figures, coverage: Coverage) -> Self {
        let Item { tenant_id, name, slug, domain, status, plan_type, metrics, relationship, billing, .. } =
            Item::of(customer, figures);
        let terms = &customer.managed.link.terms;
        let row = customer.registry.as_deref();
        let text =
            |of: fn(&crate::connector::rows::TenantRow) -> &Option<String>| row.and_then(|row| of(row).as_deref());
        Self {
            tenant_id,
            name,
            slug,
            domain,
            status,
            plan_type,
            contact: Contact {
                email: text(|row| &row.email),
                phone: text(|row| &row.phone),
                billing_email: text(|row| &row.billing_email),
            },
            address: Address {
                line1: text(|row| &row.address_line1),
                city: text(|row| &row.city),
                state_province: text(|row| &row.state_province),
                postal_code: text(|row| &row.postal_code),
                country: text(|row| &row.country),
            },
            relationship: FullRelationship {
                relationship,
                custom_permissions: &terms.custom_permissions,
                sla_response_hours: terms.sla_response_hours,
                sla_uptime_target: terms.sla_uptime_target.map(Number::ratio),
                notify_on_sla_breach: terms.notify_on_sla_breach,
                notify_on_billing_threshold: terms.notify_on_billing_threshold,
                // Two digits, as the link stores it: it stands for any currency.
                billing_alert_threshold: terms.billing_alert_threshold.map(|it| Number::money(it, Currency::USD)),
            },
            metrics: FullMetrics {
                current_users: row.and_then(|row| row.current_users),
                max_users: row.and_then(|row| row.max_users),
                total_subscribers: metrics.total_subscribers,
                active_subscribers: figures.metrics.active_subscribers,
                suspended_subscribers: figures.metrics.suspended_subscribers,
                current_mrr: billing.current_mrr,
                outstanding_balance: metrics.outstanding_balance,
                avg_uptime_30d: figures.uptime.as_ref().and_then(|uptime| uptime.average).map(Number::ratio),
                open_tickets: metrics.open_tickets,
                sla_breach_count_30d: metrics.sla_breach_count_30d,
            },
            subscription: Subscription {
                billing_cycle: billing.billing_cycle,
                trial_ends_at: row.and_then(|row| row.trial_ends_at),
                subscription_starts_at: row.and_then(|row| row.subscription_starts_at),
                subscription_ends_at: row.and_then(|row| row.subscription_ends_at),
            },
            billing,
            created_at: customer.created_at(),
            updated_at: customer.said(|row| row.updated_at),
            coverage,
        }
    }
}
