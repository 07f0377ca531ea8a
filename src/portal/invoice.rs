//! What the portal says of an invoice beyond what its source says: whether it is overdue by now, and since when.
//!
//! Contract, section 8: overdue = due date before today (UTC), balance above zero, neither draft nor cancelled.

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::periods::{day, days_between};
use crate::connector::rows::{InvoiceRow, InvoiceStatus};

/// The status of today. The source's own `overdue` counts only where there is no due date to compute it from.
pub(super) fn status(row: &InvoiceRow, today: Date) -> InvoiceStatus {
    match row.status {
        InvoiceStatus::Finalized | InvoiceStatus::Overdue => match row.due_date {
            Some(due) if day(due) < today && row.balance > Decimal::ZERO => InvoiceStatus::Overdue,
            None if row.status == InvoiceStatus::Overdue => InvoiceStatus::Overdue,
            _ => InvoiceStatus::Finalized,
        },
        settled => settled,
    }
}

/// Days since the due date; 0 where it is not overdue, `None` where no due date is known.
pub(super) fn days_overdue(row: &InvoiceRow, today: Date) -> Option<i64> {
    if status(row, today) != InvoiceStatus::Overdue {
        return Some(0);
    }
    row.due_date.map(|due| days_between(day(due), today))
}

/// What is still to be paid; nothing on drafts, and nothing on what was cancelled.
pub(super) fn outstanding(row: &InvoiceRow, today: Date) -> Decimal {
    match status(row, today) {
        InvoiceStatus::Finalized | InvoiceStatus::Overdue => row.balance,
        InvoiceStatus::Draft | InvoiceStatus::Paid | InvoiceStatus::Cancelled => Decimal::ZERO,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::portal) fn row(id: &str, status: InvoiceStatus, total: i64, balance: i64) -> InvoiceRow {
        InvoiceRow {
            invoice_id: id.into(),
            invoice_number: Some(format!("INV-{id}")),
            customer_id: Some("c-1".into()),
            customer_name: None,
            invoice_date: "2026-03-01T00:00:00Z".parse().unwrap(),
            due_date: Some("2026-03-15T00:00:00Z".parse().unwrap()),
            status,
            subtotal: None,
            tax: None,
            total: Decimal::new(total, 2),
            paid_amount: Decimal::new(total - balance, 2),
            balance: Decimal::new(balance, 2),
            currency: crate::domain::Currency::USD,
            payment_date: None,
            created_at: None,
            line_items: Vec::new(),
        }
    }

    fn on(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn overdue_begins_the_day_after_the_due_date_and_ends_with_the_balance() {
        let open = row("1", InvoiceStatus::Finalized, 100, 40);
        assert_eq!(status(&open, on("2026-03-15")), InvoiceStatus::Finalized);
        assert_eq!(status(&open, on("2026-03-16")), InvoiceStatus::Overdue);
        assert_eq!(days_overdue(&open, on("2026-03-15")), Some(0));
        assert_eq!(days_overdue(&open, on("2026-04-01")), Some(17));
        let settled = InvoiceRow { balance: Decimal::ZERO, ..open.clone() };
        assert_eq!(status(&settled, on("2026-04-01")), InvoiceStatus::Finalized);
        let early = InvoiceRow { status: InvoiceStatus::Overdue, ..open };
        assert_eq!(status(&early, on("2026-03-10")), InvoiceStatus::Finalized, "the due date decides");
        let undated = InvoiceRow { due_date: None, ..early };
        assert_eq!(status(&undated, on("2026-03-10")), InvoiceStatus::Overdue);
        assert_eq!(days_overdue(&undated, on("2026-03-10")), None);
    }

    #[test]
    fn drafts_paid_and_cancelled_ones_owe_nothing() {
        for settled in [InvoiceStatus::Draft, InvoiceStatus::Paid, InvoiceStatus::Cancelled] {
            let row = row("1", settled, 100, 40);
            assert_eq!(status(&row, on("2027-01-01")), settled);
            assert_eq!(outstanding(&row, on("2027-01-01")), Decimal::ZERO);
        }
        assert_eq!(outstanding(&row("1", InvoiceStatus::Finalized, 100, 40), on("2027-01-01")), Decimal::new(40, 2));
    }
}
