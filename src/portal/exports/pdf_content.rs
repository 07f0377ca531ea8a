//! What stands in a PDF: its title, its invoices as they are printed, and their totals.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};
use rust_decimal::Decimal;

use super::sheet::SheetError;
use crate::domain::Currency;

/// What stands at the head of every page.
#[derive(Clone, Debug)]
pub(super) struct Title {
    pub partner: String,
    pub from: Date,
    /// Inclusive.
    pub to: Date,
    pub made: Timestamp,
}

/// One invoice, as it will be printed.
pub(super) struct Invoice {
    pub tenant: usize,
    pub date: Timestamp,
    /// One for each column.
    pub cells: Vec<Box<str>>,
    /// Each with description, quantity, price, total.
    pub items: Vec<[Box<str>; 4]>,
    pub currency: Currency,
    pub total: Decimal,
    pub paid: Decimal,
    pub balance: Decimal,
}

/// What the invoices of one currency come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub invoices: u64,
    pub total: Decimal,
    pub paid: Decimal,
    pub balance: Decimal,
}

/// Exact sums, each currency by itself.
pub(super) fn totals(invoices: &[Invoice]) -> Result<BTreeMap<Currency, Totals>, SheetError> {
    let mut totals: BTreeMap<Currency, Totals> = BTreeMap::new();
    for invoice in invoices {
        let sums = totals.entry(invoice.currency).or_default();
        let add = |to: Decimal, amount| {
            to.checked_add(amount).ok_or_else(|| SheetError::Pdf("a total is too large to be written".to_owned()))
        };
        sums.invoices += 1;
        sums.total = add(sums.total, invoice.total)?;
        sums.paid = add(sums.paid, invoice.paid)?;
        sums.balance = add(sums.balance, invoice.balance)?;
    }
    Ok(totals)
}
