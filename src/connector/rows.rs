//! Rows under the contract's names and in the contract's words, whatever the service calls them.
//!
//! A connector projects: a row holds what is named here and nothing else, so internal fields of a service never pass
//! through. `None` is "this source does not say": it becomes `null`, never zero.

use jiff::{Timestamp, civil::Date};
use rust_decimal::Decimal;

use crate::domain::Currency;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident $text:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub enum $name { $(#[serde(rename = $text)] $variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            pub const WORDS: &[&str] = &[$($text),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text)
            }
        }
    )+};
}

pub(super) use words;

words! {
    /// Contract, section 8: `partially_paid` is finalized, `void` is cancelled, past due is overdue.
    InvoiceStatus { Draft "draft", Finalized "finalized", Paid "paid", Overdue "overdue", Cancelled "cancelled" }
    /// `in_progress` is open, `waiting` is pending.
    TicketStatus { Open "open", Pending "pending", Resolved "resolved", Closed "closed" }
    Priority { Low "low", Normal "normal", High "high", Urgent "urgent" }
    Severity { Critical "critical", Warning "warning", Info "info" }
}

/// What the registry says of one tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantRow {
    pub tenant_id: String,
    pub name: Option<String>,
    pub slug: Option<String>,
    pub domain: Option<String>,
    pub status: Option<String>,
    pub plan_type: Option<String>,
    pub billing_cycle: Option<String>,
    pub email: Option<String>,
    pub phone: Option<String>,
    pub billing_email: Option<String>,
    pub address_line1: Option<String>,
    pub city: Option<String>,
    pub state_province: Option<String>,
    pub postal_code: Option<String>,
    pub country: Option<String>,
    pub current_users: Option<i64>,
    pub max_users: Option<i64>,
    pub trial_ends_at: Option<Timestamp>,
    pub subscription_starts_at: Option<Timestamp>,
    pub subscription_ends_at: Option<Timestamp>,
    pub created_at: Option<Timestamp>,
    pub updated_at: Option<Timestamp>,
}

/// Figures of one tenant, as of now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsRow {
    pub total_subscribers: Option<i64>,
    pub active_subscribers: Option<i64>,
    pub suspended_subscribers: Option<i64>,
    /// Monthly recurring revenue, in `currency` or, where that is unknown, in the tenant's own.
    pub current_mrr: Option<Decimal>,
    pub currency: Option<Currency>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InvoiceRow {
    pub invoice_id: String,
    pub invoice_number: Option<String>,
    pub customer_id: Option<String>,
    pub customer_name: Option<String>,
    pub invoice_date: Timestamp,
    pub due_date: Option<Timestamp>,
    /// As the source means it; whether it is overdue by now is the portal's to say.
    pub status: InvoiceStatus,
    pub subtotal: Option<Decimal>,
    pub tax: Option<Decimal>,
    pub total: Decimal,
    /// Credits count as paid.
    pub paid_amount: Decimal,
    pub balance: Decimal,
    pub currency: Currency,
    pub payment_date: Option<Timestamp>,
    pub created_at: Option<Timestamp>,
    /// Only where the question asked for them.
    pub line_items: Vec<LineItem>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LineItem {
    pub description: Option<String>,
    pub quantity: Option<Decimal>,
    pub unit_price: Option<Decimal>,
    pub total_price: Option<Decimal>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TicketRow {
    pub ticket_id: String,
    pub ticket_number: Option<String>,
    pub customer_id: Option<String>,
    pub customer_name: Option<String>,
    pub subject: Option<String>,
    pub status: TicketStatus,
    pub priority: Option<Priority>,
    pub category: Option<String>,
    pub assigned_to: Option<String>,
    pub assigned_to_name: Option<String>,
    pub created_at: Option<Timestamp>,
    pub updated_at: Option<Timestamp>,
    /// When the service level is, or was, broken.
    pub sla_breach_at: Option<Timestamp>,
    pub is_sla_breached: Option<bool>,
    pub last_response_at: Option<Timestamp>,
    pub response_count: Option<i64>,
    /// From creation to resolution.
    pub resolution_minutes: Option<Decimal>,
}

/// Traffic and subscribers of one tenant in one period. One gigabyte is 1024^3 bytes here, as in the sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageRow {
    pub subscriber_count: Option<i64>,
    pub active_subscriber_count: Option<i64>,
    pub total_data_gb: Option<Decimal>,
    pub peak_bandwidth_mbps: Option<Decimal>,
    pub avg_bandwidth_mbps: Option<Decimal>,
}

/// One day of one tenant's availability.
#[derive(Clone, Debug, PartialEq)]
pub struct UptimeDay {
    pub date: Date,
    /// 0 to 100.
    pub uptime_percentage: Decimal,
    pub downtime_minutes: Option<Decimal>,
    pub breaches: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BreachRow {
    pub breach_id: String,
    pub breach_type: Option<String>,
    pub severity: Severity,
    pub detected_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub resolved: bool,
    pub resolved_at: Option<Timestamp>,
    pub duration_minutes: Option<Decimal>,
    pub target_value: Option<Decimal>,
    pub actual_value: Option<Decimal>,
}
