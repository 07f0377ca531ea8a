//! Invoices: whole smallest units, the lines always in them, internal fields in every row.

use std::ops::Range;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::data::{self, Dice};

/// One row, as both generations have it. Times are naive in the older one and carry an offset in the newer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Invoice {
    pub(super) tenant_id: String,
    pub(super) invoice_id: Uuid,
    invoice_number: String,
    idempotency_key: Uuid,
    created_by: &'static str,
    pub(super) customer_id: Uuid,
    billing_email: &'static str,
    billing_address: Address,
    pub(super) issue_date: String,
    pub(super) due_date: String,
    pub(super) currency: &'static str,
    subtotal: u64,
    tax_amount: u64,
    discount_amount: u64,
    pub(super) total_amount: u64,
    total_credits_applied: Option<u64>,
    pub(super) remaining_balance: u64,
    credit_applications: [u8; 0],
    pub(super) status: &'static str,
    pub(super) payment_status: &'static str,
    line_items: Vec<Line>,
    subscription_id: Option<Uuid>,
    proforma_invoice_id: Option<Uuid>,
    notes: Option<String>,
    internal_notes: &'static str,
    extra_data: Extra,
    created_at: String,
    updated_at: String,
    paid_at: Option<String>,
    voided_at: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Address {
    line1: &'static str,
    city: &'static str,
    country: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Extra {
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
struct Line {
    line_item_id: Uuid,
    description: &'static str,
    quantity: u64,
    unit_price: u64,
    total_price: u64,
    product_id: &'static str,
    subscription_id: Option<Uuid>,
    tax_rate: f64,
    tax_amount: u64,
    discount_percentage: f64,
    discount_amount: u64,
    extra_data: Extra,
}

/// How one service writes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shelf<'t> {
    pub(super) tenant: &'t str,
    pub(super) count: u64,
    /// Times end with it.
    pub(super) offset: &'static str,
}

pub(super) fn count(tenant: &str) -> u64 {
    if data::is_empty(tenant) { 0 } else { 15 + Dice::new(tenant, "invoices", 0).below(30) }
}

impl Shelf<'_> {
    /// Number 0 is the newest.
    pub(super) fn rows(&self) -> impl Iterator<Item = Invoice> {
        (0..self.count).map(|number| self.row(number))
    }

    /// Long lists reach back no further than 400 days, and their dates go down evenly.
    pub(super) fn is_long(&self) -> bool {
        self.count > 100
    }

    /// So many days old.
    fn age(&self, number: u64, dice: &mut Dice) -> i64 {
        let shift = dice.below(4);
        let age = if self.is_long() { number * 400 / self.count } else { number * 4 + shift };
        i64::try_from(age).unwrap_or(0)
    }

    /// Where all rows issued in these days stand, and in a short list some more. A page of a long list must not cost the
    /// making of the whole list: benches would measure that.
    pub(super) fn issued(&self, from: Option<&str>, to: Option<&str>) -> Range<u64> {
        if !self.is_long() {
            return 0..self.count;
        }
        // Dates go down with the number, so each bound is found by halving.
        let first = |before: &dyn Fn(&str) -> bool| {
            let (mut low, mut high) = (0, self.count);
            while low < high {
                let middle = low + (high - low) / 2;
                let day = data::days_ago(i64::try_from(middle * 400 / self.count).unwrap_or(0));
                if before(&day) { high = middle } else { low = middle + 1 }
            }
            low
        };
        let day = |text: &str| text.get(..10).unwrap_or_default().to_owned();
        let start = to.map_or(0, |to| first(&|issued: &str| day(issued).as_str() <= to));
        start..from.map_or(self.count, |from| first(&|issued: &str| day(issued).as_str() < from)).max(start)
    }

    pub(super) fn row(&self, number: u64) -> Invoice {
        let mut dice = Dice::new(self.tenant, "invoice", number);
        let id = dice.uuid();
        let age = self.age(number, &mut dice);
        let at = |days: i64| format!("{}{}", data::days_ago(days), self.offset);
        let subtotal = 1_000 + dice.below(90_000);
        let tax = subtotal * 75 / 1_000;
        let total = subtotal + tax;
        let status = match (dice.below(10), age) {
            (0, _) => "draft",
            (1, _) => "void",
            (2, _) => "partially_paid",
            // Only a job of the service sets it, and it does not run every day.
            (3, 30..) => "overdue",
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
        let no_extra = Extra { ledger: None };
        Invoice {
            tenant_id: self.tenant.to_owned(),
            invoice_id: id,
            invoice_number: format!("INV-{:06}", 1_000_000 - number.min(999_999)),
            idempotency_key: dice.uuid(),
            created_by: "system",
            customer_id: data::customer_id(self.tenant, dice.below(data::customer_count(self.tenant))),
            billing_email: "billing@example.net",
            billing_address: Address { line1: "1 Fibre Road", city: "Lagos", country: "NG" },
            issue_date: at(age),
            due_date: at(age - 14),
            currency: if dice.below(8) == 0 { "EUR" } else { data::currency(self.tenant) },
            subtotal,
            tax_amount: tax,
            discount_amount: 0,
            total_amount: total,
            total_credits_applied: None,
            remaining_balance: balance,
            credit_applications: [],
            status,
            payment_status,
            line_items: vec![Line {
                line_item_id: dice.uuid(),
                description: "Fibre 100 Mbit/s",
                quantity,
                unit_price: subtotal / quantity,
                total_price: subtotal,
                product_id: "fibre-100",
                subscription_id: None,
                tax_rate: 7.5,
                tax_amount: tax,
                discount_percentage: 0.0,
                discount_amount: 0,
                extra_data: no_extra,
            }],
            subscription_id: None,
            proforma_invoice_id: None,
            notes: None,
            internal_notes: "margin 40 %",
            extra_data: Extra { ledger: Some("4711") },
            created_at: at(age),
            updated_at: at(age),
            paid_at: (status == "paid").then(|| at((age - 5).max(0))),
            voided_at: (status == "void").then(|| at(age)),
        }
    }

    pub(super) fn values(&self) -> Vec<Value> {
        self.rows().map(|row| serde_json::to_value(row).unwrap_or_default()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_days_holds_what_a_look_at_every_row_finds() {
        let shelf = Shelf { tenant: "t", count: 350, offset: "" };
        let day_of = |time: &str| time.split('T').next().unwrap().to_owned();
        let days: Vec<String> = shelf.rows().map(|row| day_of(&row.issue_date)).collect();
        assert!(days.is_sorted_by(|newer, older| newer >= older));
        let day = |ago: i64| day_of(&data::days_ago(ago));
        let bounds = [None, Some(day(-1)), Some(day(0)), Some(day(1)), Some(day(200)), Some(day(399)), Some(day(500))];
        for from in &bounds {
            for to in &bounds {
                let (from, to) = (from.as_deref(), to.as_deref());
                let found: Vec<u64> = shelf.issued(from, to).collect();
                let within = |number: &u64| {
                    let day = &*days[usize::try_from(*number).unwrap()];
                    from.is_none_or(|from| day >= from) && to.is_none_or(|to| day <= to)
                };
                let looked: Vec<u64> = (0..shelf.count).filter(within).collect();
                assert_eq!(found, looked, "{from:?} to {to:?}");
            }
        }
        assert_eq!(Shelf { count: 40, ..shelf }.issued(Some(&day(1)), None), 0..40, "a short list is looked through");
    }
}
