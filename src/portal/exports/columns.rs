//! The columns of an export: the fields of an invoice (contract, section 8, 4), each as a cell.

use std::borrow::Cow;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{
    connector::rows::{InvoiceRow, LineItem},
    domain::{Currency, money::Number},
    portal::invoice::{days_overdue, status},
};

macro_rules! columns {
    ($($variant:ident $name:literal),+ $(,)?) => {
        /// One field of an invoice, under the contract's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Column { $(#[serde(rename = $name)] $variant),+ }

        /// All columns by name, in the contract's order.
        pub(super) const COLUMNS: &[(&str, Column)] = &[$(($name, Column::$variant)),+];

        impl Column {
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

columns! {
    InvoiceId "invoice_id",
    InvoiceNumber "invoice_number",
    TenantId "tenant_id",
    TenantName "tenant_name",
    CustomerId "customer_id",
    CustomerName "customer_name",
    InvoiceDate "invoice_date",
    DueDate "due_date",
    Status "status",
    Subtotal "subtotal",
    Tax "tax",
    Total "total",
    PaidAmount "paid_amount",
    Balance "balance",
    Currency "currency",
    PaymentDate "payment_date",
    DaysOverdue "days_overdue",
    CreatedAt "created_at",
}

/// The tenant that rows belong to.
#[derive(Clone, Debug)]
pub(super) struct TenantName {
    pub id: String,
    pub name: Option<String>,
}

/// What stands in one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    Empty,
    /// From a service: may hold anything.
    Text(Cow<'a, str>),
    /// A number, day or word of ours.
    Plain(Cow<'a, str>),
}

impl<'a> Cell<'a> {
    fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Empty, |text| Self::Text(text.into()))
    }

    fn plain(text: Option<String>) -> Self {
        text.map_or(Self::Empty, |text| Self::Plain(text.into()))
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Empty => "",
            Self::Text(text) | Self::Plain(text) => text,
        }
    }
}

pub(super) fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// An amount with exactly the digits of its currency.
pub(super) fn money(amount: Decimal, currency: Currency) -> String {
    Number::money(amount, currency).to_string()
}

/// One cell of an invoice.
pub(super) fn cell<'a>(column: Column, tenant: &'a TenantName, row: &'a InvoiceRow, today: Date) -> Cell<'a> {
    let amount = |amount: Option<Decimal>| Cell::plain(amount.map(|amount| money(amount, row.currency)));
    let time = |at: Option<Timestamp>| Cell::plain(at.map(|at| at.to_string()));
    match column {
        Column::InvoiceId => Cell::text(Some(&row.invoice_id)),
        Column::InvoiceNumber => Cell::text(row.invoice_number.as_deref()),
        Column::TenantId => Cell::text(Some(&tenant.id)),
        Column::TenantName => Cell::text(tenant.name.as_deref()),
        Column::CustomerId => Cell::text(row.customer_id.as_deref()),
        Column::CustomerName => Cell::text(row.customer_name.as_deref()),
        Column::InvoiceDate => time(Some(row.invoice_date)),
        Column::DueDate => time(row.due_date),
        Column::Status => Cell::Plain(status(row, today).as_str().into()),
        Column::Subtotal => amount(row.subtotal),
        Column::Tax => amount(row.tax),
        Column::Total => amount(Some(row.total)),
        Column::PaidAmount => amount(Some(row.paid_amount)),
        Column::Balance => amount(Some(row.balance)),
        Column::Currency => Cell::Plain(row.currency.to_string().into()),
        Column::PaymentDate => time(row.payment_date),
        Column::DaysOverdue => Cell::plain(days_overdue(row, today).map(|days| days.to_string())),
        Column::CreatedAt => time(row.created_at),
    }
}

/// Columns that line items add.
pub(super) const LINE_COLUMNS: [&str; 4] = ["line_description", "line_quantity", "line_unit_price", "line_total"];

/// The cells of one line item, in the order of [`LINE_COLUMNS`].
pub(super) fn line_cells(item: &LineItem, currency: Currency) -> [Cell<'_>; 4] {
    let amount = |amount: Option<Decimal>| Cell::plain(amount.map(|amount| money(amount, currency)));
    [
        Cell::text(item.description.as_deref()),
        Cell::plain(item.quantity.map(|quantity| quantity.normalize().to_string())),
        amount(item.unit_price),
        amount(item.total_price),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::connector::rows::InvoiceStatus;

    /// An invoice of 100.00 USD that is due on 2026-02-01.
    pub(in crate::portal::exports) fn invoice(id: &str) -> InvoiceRow {
        InvoiceRow {
            invoice_id: id.into(),
            invoice_number: Some(format!("N-{id}")),
            customer_id: Some("c-1".into()),
            customer_name: Some("Customer".into()),
            invoice_date: "2026-01-15T10:00:00Z".parse().unwrap(),
            due_date: Some("2026-02-01T00:00:00Z".parse().unwrap()),
            status: InvoiceStatus::Finalized,
            subtotal: Some(Decimal::new(9_000, 2)),
            tax: Some(Decimal::new(1_000, 2)),
            total: Decimal::new(10_000, 2),
            paid_amount: Decimal::ZERO,
            balance: Decimal::new(10_000, 2),
            currency: Currency::USD,
            payment_date: None,
            created_at: None,
            line_items: Vec::new(),
        }
    }

    #[test]
    fn every_field_has_its_cell() {
        let (row, tenant) = (invoice("1"), TenantName { id: "t".into(), name: None });
        let cells: Vec<String> = COLUMNS
            .iter()
            .map(|(_, column)| cell(*column, &tenant, &row, "2026-02-03".parse().unwrap()).as_str().to_owned())
            .collect();
        assert_eq!(
            cells.join("|"),
            "1|N-1|t||c-1|Customer|2026-01-15T10:00:00Z|2026-02-01T00:00:00Z|overdue|90.00|10.00|100.00|0.00|100.00|USD||2|"
        );
        let yen = InvoiceRow { currency: "JPY".parse().unwrap(), total: Decimal::from(1234), ..invoice("1") };
        assert_eq!(cell(Column::Total, &tenant, &yen, "2026-02-03".parse().unwrap()).as_str(), "1234");
    }
}
