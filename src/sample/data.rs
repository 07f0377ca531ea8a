//! Rows made from a tenant's id: the same tenant has the same rows in every run of one day.

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use serde_json::{Value, json};
use uuid::Uuid;

/// A small generator (splitmix64), seeded by text: reproducible, and good enough for sample rows.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(tenant: &str, what: &str, number: u64) -> Self {
        let text = tenant.bytes().chain([0]).chain(what.bytes()).chain(number.to_le_bytes());
        Self(text.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `below` - 1; 0 where `below` is 0.
    pub(super) fn below(&mut self, below: u64) -> u64 {
        self.next().checked_rem(below).unwrap_or(0)
    }

    pub(super) fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let at = self.below(words.len() as u64);
        usize::try_from(at).ok().and_then(|at| words.get(at)).copied().unwrap_or_default()
    }

    pub(super) fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes((u128::from(self.next()) << 64 | u128::from(self.next())).to_le_bytes())
            .into_uuid()
    }
}

pub(super) fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// Midnight of a day so many days ago, written without an offset: these services do that.
pub(super) fn days_ago(days: i64) -> String {
    let day = today().checked_sub(days.days()).unwrap_or_else(|_| today());
    format!("{day}T00:00:00")
}

pub(super) fn customer_count(tenant: &str) -> u64 {
    8 + Dice::new(tenant, "customers", 0).below(12)
}

pub(super) fn customer_id(tenant: &str, number: u64) -> Uuid {
    Dice::new(tenant, "customer", number).uuid()
}

const FIRST: [&str; 8] = ["Ada", "Bayo", "Chidi", "Dana", "Emeka", "Farida", "Grace", "Hugo"];
const LAST: [&str; 8] = ["Adeyemi", "Berg", "Costa", "Diallo", "Eze", "Fischer", "Garba", "Haas"];

pub(super) fn customer(tenant: &str, number: u64) -> Value {
    let mut dice = Dice::new(tenant, "customer-row", number);
    let (first, last) = (dice.pick(&FIRST), dice.pick(&LAST));
    let cents = dice.below(500_000);
    json!({
        "id": customer_id(tenant, number), "tenant_id": tenant, "customer_number": format!("CUST-{number:06}"),
        "first_name": first, "last_name": last, "display_name": format!("{first} {last}"),
        "email": format!("{}.{}@example.net", first.to_lowercase(), last.to_lowercase()),
        "status": dice.pick(&["active", "active", "active", "suspended", "prospect"]),
        "customer_type": dice.pick(&["individual", "business"]), "tier": dice.pick(&["basic", "standard", "premium"]),
        // Decimals travel as strings here.
        "lifetime_value": money_text(cents), "average_order_value": money_text(cents / 7), "avg_uptime_percent": "99.95",
        "internal_notes": "pays late, do not tell", "extra_data": {"import": "2023"},
        "created_at": days_ago(400 + i64::try_from(number).unwrap_or(0)), "updated_at": days_ago(3),
    })
}

pub(super) fn invoice_count(tenant: &str) -> u64 {
    15 + Dice::new(tenant, "invoices", 0).below(30)
}

/// Amounts are whole minor units; number 0 is the newest invoice.
pub(super) fn invoice(tenant: &str, number: u64) -> Value {
    let mut dice = Dice::new(tenant, "invoice", number);
    let id = dice.uuid();
    let age = i64::try_from(number * 4 + dice.below(4)).unwrap_or(0);
    let subtotal = 1_000 + dice.below(90_000);
    let tax = subtotal * 75 / 1_000;
    let total = subtotal + tax;
    let status = match (dice.below(10), age) {
        (0, _) => "draft",
        (1, _) => "void",
        (2, _) => "partially_paid",
        (3..=5, _) => "open",
        (_, 60..) => "paid",
        _ => dice.pick(&["paid", "open"]),
    };
    let balance = match status {
        "paid" | "void" => 0,
        "partially_paid" => total / 2,
        _ => total,
    };
    let payment_status = match status {
        "paid" => "succeeded",
        "partially_paid" => "processing",
        _ => "pending",
    };
    let quantity = 1 + dice.below(3);
    json!({
        "tenant_id": tenant, "invoice_id": id, "invoice_number": format!("INV-{:06}", 1_000 - number.min(999)),
        "idempotency_key": dice.uuid(), "created_by": "system", "customer_id": customer_id(tenant, dice.below(customer_count(tenant))),
        "billing_email": "billing@example.net", "billing_address": {"line1": "1 Fibre Road", "city": "Lagos", "country": "NG"},
        "issue_date": days_ago(age), "due_date": days_ago(age - 14), "currency": if dice.below(8) == 0 { "EUR" } else { "USD" },
        "subtotal": subtotal, "tax_amount": tax, "discount_amount": 0, "total_amount": total,
        "total_credits_applied": null, "remaining_balance": balance, "credit_applications": [],
        "status": status, "payment_status": payment_status,
        "line_items": [{
            "line_item_id": dice.uuid(), "description": "Fibre 100 Mbit/s", "quantity": quantity,
            "unit_price": subtotal / quantity, "total_price": subtotal, "product_id": "fibre-100", "subscription_id": null,
            "tax_rate": 7.5, "tax_amount": tax, "discount_percentage": 0.0, "discount_amount": 0, "extra_data": {},
        }],
        "subscription_id": null, "proforma_invoice_id": null, "notes": null,
        "internal_notes": "margin 40 %", "extra_data": {"ledger": "4711"},
        "created_at": days_ago(age), "updated_at": days_ago(age),
        "paid_at": if status == "paid" { Value::from(days_ago((age - 5).max(0))) } else { Value::Null },
        "voided_at": if status == "void" { Value::from(days_ago(age)) } else { Value::Null },
    })
}

/// The list item of payments: floats in major units, and no link to an invoice.
pub(super) fn payment(tenant: &str, number: u64) -> Value {
    let mut dice = Dice::new(tenant, "payment", number);
    let cents = 500 + dice.below(80_000);
    let age = i64::try_from(number * 3).unwrap_or(0);
    json!({
        "payment_id": dice.uuid(), "amount": as_float(cents) / 100.0, "currency": "USD",
        "status": dice.pick(&["succeeded", "succeeded", "succeeded", "failed", "pending"]),
        "customer_id": customer_id(tenant, dice.below(customer_count(tenant))), "payment_method_type": "card",
        "provider": "paystack", "created_at": days_ago(age), "processed_at": days_ago(age), "failure_reason": null,
    })
}

pub(super) fn subscriber_count(tenant: &str) -> u64 {
    20 + Dice::new(tenant, "subscribers", 0).below(80)
}

pub(super) fn subscriber_id(tenant: &str, number: u64) -> String {
    format!("sub-{:08x}", Dice::new(tenant, "subscriber", number).below(1 << 32))
}

pub(super) fn subscriber(tenant: &str, number: u64) -> Value {
    let mut dice = Dice::new(tenant, "subscriber-row", number);
    json!({
        "id": subscriber_id(tenant, number), "tenant_id": tenant, "username": format!("pppoe{number:05}"),
        "status": dice.pick(&["active", "active", "active", "suspended", "pending"]), "service_type": "fiber_internet",
        "download_speed_kbps": 102_400, "upload_speed_kbps": 51_200, "static_ipv4": null, "mac_address": null,
        "metadata": {"olt": "olt-3"}, "created_at": days_ago(200), "updated_at": days_ago(1),
    })
}

pub(super) fn tenant_row(tenant: &str) -> Value {
    let mut dice = Dice::new(tenant, "tenant-row", 0);
    let slug: String =
        tenant.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    json!({
        "id": tenant, "name": format!("ISP {tenant}"), "slug": slug, "domain": null, "email": "noc@example.net", "phone": null,
        "status": dice.pick(&["active", "active", "active", "trial"]), "plan_type": dice.pick(&["starter", "professional", "enterprise"]),
        "billing_cycle": "monthly", "billing_email": "billing@example.net", "trial_ends_at": null,
        "subscription_starts_at": days_ago(700), "subscription_ends_at": null, "max_users": 50,
        "max_api_calls_per_month": 100_000, "max_storage_gb": 100, "current_users": dice.below(50),
        "current_api_calls": dice.below(90_000), "current_storage_gb": as_float(dice.below(900)) / 10.0,
        "company_size": "11-50", "industry": "telecommunications", "country": "NG", "timezone": "Africa/Lagos",
        "logo_url": null, "primary_color": null, "features": {}, "settings": {"sla": "gold"}, "custom_metadata": {},
        "created_at": days_ago(800), "updated_at": days_ago(2), "deleted_at": null, "is_trial": false, "is_active": true,
        "trial_expired": false, "has_exceeded_user_limit": false, "has_exceeded_api_limit": false, "has_exceeded_storage_limit": false,
    })
}

pub(super) fn money_text(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// Sample amounts are far below 2^53.
pub(super) fn as_float(number: u64) -> f64 {
    number as f64
}
