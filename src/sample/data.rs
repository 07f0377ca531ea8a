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
    if is_empty(tenant) { 0 } else { 8 + Dice::new(tenant, "customers", 0).below(12) }
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

/// A tenant that has just begun: nothing of it yet.
pub(super) fn is_empty(tenant: &str) -> bool {
    tenant.contains("empty")
}

/// What the tenant charges in; one invoice in eight is in euros all the same.
pub(super) fn currency(tenant: &str) -> &'static str {
    if tenant.contains("tokyo") {
        return "JPY";
    }
    match Dice::new(tenant, "currency", 0).below(9) {
        0 => "JPY",
        1 => "KWD",
        _ => "USD",
    }
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
    if is_empty(tenant) { 0 } else { 20 + Dice::new(tenant, "subscribers", 0).below(80) }
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

pub(super) fn subscribers(tenant: &str) -> impl Iterator<Item = Value> {
    (0..subscriber_count(tenant)).map(|number| subscriber(tenant, number))
}

pub(super) fn tenant_row(tenant: &str) -> Value {
    let mut dice = Dice::new(tenant, "tenant-row", 0);
    let slug: String =
        tenant.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let status = dice.pick(&["active", "active", "active", "trial"]);
    json!({
        "id": tenant, "name": format!("ISP {tenant}"), "slug": slug, "domain": if dice.below(2) == 0 { Value::Null } else { format!("{slug}.example.net").into() }, "email": "noc@example.net", "phone": null,
        "status": status, "plan_type": dice.pick(&["starter", "professional", "enterprise"]),
        "billing_cycle": "monthly", "billing_email": "billing@example.net", "trial_ends_at": if status == "trial" { days_ago(-12).into() } else { Value::Null },
        "subscription_starts_at": days_ago(700), "subscription_ends_at": null, "max_users": 50,
        "max_api_calls_per_month": 100_000, "max_storage_gb": 100, "current_users": dice.below(50),
        "current_api_calls": dice.below(90_000), "current_storage_gb": as_float(dice.below(900)) / 10.0,
        "company_size": "11-50", "industry": "telecommunications", "country": "NG", "timezone": "Africa/Lagos",
        "logo_url": null, "primary_color": null, "features": {}, "settings": {"sla": "gold"}, "custom_metadata": {},
        "created_at": days_ago(800), "updated_at": days_ago(2), "deleted_at": null, "is_trial": status == "trial", "is_active": true,
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
