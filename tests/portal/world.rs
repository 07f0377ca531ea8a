//! What the services hold: rows from a small generator, seeded by the tenant. Amounts are whole cents here, and sums of
//! them are the truth.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use serde_json::{Value, json};

use super::service::Held;

pub struct Dice(u64);

impl Dice {
    pub fn new(text: &str) -> Self {
        Self(
            text.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
        )
    }

    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    pub fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

pub fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

pub fn days_ago(days: i64) -> Date {
    today().checked_sub(days.days()).unwrap()
}

/// Without an offset, as these services write it.
pub fn naive(days: i64) -> String {
    format!("{}T00:00:00", days_ago(days))
}

pub fn invoice(tenant: &str, number: u64, dice: &mut Dice, currencies: &[&str]) -> Value {
    let age = (number * 2 + dice.below(2)) as i64;
    let (subtotal, tax) = (1_000 + dice.below(90_000), dice.below(5_000));
    let total = subtotal + tax;
    let status = dice.pick(&["draft", "void", "partially_paid", "open", "open", "overdue", "paid", "paid", "paid"]);
    let balance = match status {
        "paid" | "void" => 0,
        "partially_paid" => total / 3,
        _ => total,
    };
    json!({
        "tenant_id": tenant, "invoice_id": format!("{tenant}-i{number:03}"), "invoice_number": format!("INV-{number:05}"),
        "idempotency_key": "secret-key", "customer_id": format!("cust-{}", dice.below(4)), "issue_date": naive(age),
        "due_date": naive(age - 14), "currency": dice.pick(currencies), "subtotal": subtotal, "tax_amount": tax,
        "total_amount": total, "remaining_balance": balance, "status": status, "line_items": [],
        "internal_notes": "secret-margin", "extra_data": {"ledger": "secret-ledger"}, "created_at": naive(age), "updated_at": naive(age),
        "paid_at": if status == "paid" { json!(naive((age - 3).max(0))) } else { Value::Null }, "voided_at": null,
    })
}

fn ticket(tenant: &str, number: u64, dice: &mut Dice) -> Value {
    let age = (number * 3) as i64;
    json!({
        "id": format!("{tenant}-k{number:03}"), "ticket_number": format!("TCK-{number:04}"),
        "subject": dice.pick(&["Router is down", "Invoice is wrong", "Slow in the evening"]), "tenant_id": tenant,
        "status": dice.pick(&["open", "in_progress", "waiting", "resolved", "closed"]),
        "priority": dice.pick(&["low", "normal", "high", "urgent"]), "customer_id": format!("cust-{}", dice.below(4)),
        "partner_id": null, "ticket_type": dice.pick(&["billing_issue", "technical_support"]),
        "assigned_to_user_id": dice.pick(&["agent-1", "agent-2"]), "last_response_at": naive(age / 2),
        "sla_due_date": naive(age - 1), "sla_breached": dice.below(3) == 0, "context": {"secret": true},
        "created_at": naive(age), "updated_at": naive(age / 2),
    })
}

fn breach(tenant: &str, number: u64, dice: &mut Dice) -> Value {
    let age = (number * 11) as i64;
    json!({
        "id": format!("{tenant}-b{number}"), "tenant_id": tenant, "sla_instance_id": "s",
        "breach_type": dice.pick(&["availability", "availability", "latency"]), "severity": dice.pick(&["high", "low"]),
        "detected_at": naive(age), "breach_end": naive(age), "duration_minutes": 10 + dice.below(90), "target_value": 99.9,
        "actual_value": 99.1, "deviation_percent": 0.8, "resolved": true, "resolved_at": naive(age), "credit_amount": 1.5,
        "created_at": naive(age),
    })
}

/// One tenant. `currencies`: of its invoices.
pub fn held(tenant: &str, currencies: &[&str]) -> Held {
    let mut dice = Dice::new(tenant);
    let invoices = (0..30 + dice.below(10)).map(|number| invoice(tenant, number, &mut dice, currencies)).collect();
    let tickets = (0..12 + dice.below(8)).map(|number| ticket(tenant, number, &mut dice)).collect();
    let breaches = (0..2 + dice.below(4)).map(|number| breach(tenant, number, &mut dice)).collect();
    let total = 20 + dice.below(80);
    let (active, suspended) = (total / 2, total / 5);
    let compliance = (0..120).map(|age| {
        let missing = if dice.below(4) == 0 { dice.below(300) } else { 0 };
        json!({
            "date": days_ago(age).to_string(), "compliance_percentage": (10_000 - missing) as f64 / 100.0,
            "target_percentage": 99.9, "uptime_minutes": 1_400, "downtime_minutes": dice.below(20), "sla_breaches": u64::from(missing > 0),
        })
    });
    let compliance: Vec<Value> = compliance.collect();
    let traffic = (0..120).map(|age| (days_ago(age).to_string(), (dice.below(9_000) as i64) * 53_687_091)).collect();
    let registry = json!({
        "id": tenant, "name": format!("Registry {tenant}"), "slug": format!("slug-{tenant}"), "domain": format!("{tenant}.example"),
        "email": "noc@example.net", "phone": "+234 1", "status": dice.pick(&["active", "trial", "suspended"]),
        "plan_type": dice.pick(&["starter", "enterprise"]), "billing_cycle": "monthly", "billing_email": "billing@example.net",
        "trial_ends_at": null, "subscription_starts_at": naive(700), "subscription_ends_at": null, "max_users": 50,
        "current_users": dice.below(50), "country": "NG", "settings": {"secret": 1}, "custom_metadata": {"secret": 2},
        "created_at": naive(400 + dice.below(300) as i64), "updated_at": naive(2),
    });
    let owed: u64 = 1;
    let dashboard = json!({
        "subscriber_metrics": {"total": total, "active": active, "suspended": suspended, "pending": 0},
        "revenue_metrics": {"mrr": (total * 3_150) as f64 / 100.0, "arr": 0.0, "outstanding_ar": owed as f64, "overdue_30_days": 0.0},
        "support_metrics": {"open_tickets": 999}, "timestamp": naive(0),
    });
    let subscribers_online = active as i64;
    Held { registry, dashboard, invoices, tickets, breaches, traffic, subscribers_online, compliance }
}

/// Status as the contract means it today.
pub fn invoice_status(row: &Value) -> &'static str {
    let due = &row["due_date"].as_str().unwrap()[..10];
    let past = due < &*today().to_string() && row["remaining_balance"].as_u64().unwrap() > 0;
    match row["status"].as_str().unwrap() {
        "draft" => "draft",
        "void" => "cancelled",
        "paid" => "paid",
        _ if past => "overdue",
        _ => "finalized",
    }
}

pub fn cents(row: &Value, field: &str) -> i64 {
    row[field].as_i64().unwrap()
}

/// What is still to be paid.
pub fn owed(row: &Value) -> i64 {
    if ["finalized", "overdue"].contains(&invoice_status(row)) { cents(row, "remaining_balance") } else { 0 }
}

/// A naive time as the gateway tells it.
pub fn utc(text: &Value) -> Value {
    text.as_str().map_or(Value::Null, |text| format!("{text}Z").into())
}

/// Digits as they stand in the body: `field` of the object in which `marker` stands.
pub fn money(cents: i64) -> f64 {
    // Sample amounts are far below 2^53, and this is the double nearest to the decimal that JSON writes.
    format!("{}.{:02}", cents / 100, cents % 100).parse().unwrap()
}

pub type World = BTreeMap<String, Held>;
