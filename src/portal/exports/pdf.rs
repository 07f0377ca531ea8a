//! An export as PDF: a table over as many pages as it needs, totals for each currency, and on every page the partner, the
//! period and the page's number.
//!
//! A PDF is put together in memory, so the number of its invoices is bounded.

use std::{fs::File, io::Write};

use jiff::{Timestamp, civil::Date};

use super::{
    columns::{self, Column, TenantName, cell, line_cells},
    pdf_content::{Invoice, Title, totals},
    pdf_page,
    sheet::{Mark, Sheet, SheetError},
};
use crate::connector::rows::InvoiceRow;

/// A PDF being gathered.
pub(super) struct PdfSheet {
    file: File,
    title: Title,
    columns: Vec<Column>,
    line_items: bool,
    today: Date,
    most: usize,
    invoices: Vec<Invoice>,
    rows: u64,
    /// Tenants seen so far; invoices are sorted within their tenant.
    tenant: Option<String>,
    tenants: usize,
}

impl PdfSheet {
    pub(super) fn begin(
        file: File,
        title: Title,
        columns: &[Column],
        line_items: bool,
        today: Date,
        most: usize,
    ) -> Self {
        Self {
            file,
            title,
            columns: columns.to_vec(),
            line_items,
            today,
            most,
            invoices: Vec::new(),
            rows: 0,
            tenant: None,
            tenants: 0,
        }
    }
}

/// Days are enough on paper.
fn printed(column: Column, tenant: &TenantName, row: &InvoiceRow, today: Date) -> Box<str> {
    let day = |at: Option<Timestamp>| at.map(|at| columns::day(at).to_string()).unwrap_or_default().into();
    match column {
        Column::InvoiceDate => day(Some(row.invoice_date)),
        Column::DueDate => day(row.due_date),
        Column::PaymentDate => day(row.payment_date),
        Column::CreatedAt => day(row.created_at),
        column => short(cell(column, tenant, row, today).as_str()),
    }
}

/// More than any cell shows; a service's text may be of any length.
fn short(text: &str) -> Box<str> {
    const MOST_CHARS: usize = 200;
    text.char_indices().nth(MOST_CHARS).and_then(|(at, _)| text.get(..at)).unwrap_or(text).into()
}

impl Sheet for PdfSheet {
    fn invoice(&mut self, tenant: &TenantName, row: &InvoiceRow) -> Result<(), SheetError> {
        if self.invoices.len() >= self.most {
            return Err(SheetError::TooMany(self.most));
        }
        if self.tenant.as_ref() != Some(&tenant.id) {
            self.tenants += 1;
            self.tenant = Some(tenant.id.clone());
        }
        let items: Vec<[Box<str>; 4]> = if self.line_items {
            let cells = |item| line_cells(item, row.currency).map(|cell| short(cell.as_str()));
            row.line_items.iter().map(cells).collect()
        } else {
            Vec::new()
        };
        self.rows += 1 + items.len() as u64;
        self.invoices.push(Invoice {
            tenant: self.tenants,
            date: row.invoice_date,
            cells: self.columns.iter().map(|column| printed(*column, tenant, row, self.today)).collect(),
            items,
            currency: row.currency,
            total: row.total,
            paid: row.paid_amount,
            balance: row.balance,
        });
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn mark(&mut self) -> Result<Mark, SheetError> {
        Ok(Mark { place: self.invoices.len() as u64, rows: self.rows })
    }

    fn rewind(&mut self, mark: Mark) -> Result<(), SheetError> {
        self.invoices.truncate(usize::try_from(mark.place).unwrap_or(usize::MAX));
        self.rows = mark.rows;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), SheetError> {
        self.invoices.sort_by_key(|invoice| (invoice.tenant, invoice.date));
        let totals = totals(&self.invoices)?;
        let pdf = pdf_page::document(&self.title, &self.columns, &self.invoices, &totals)?;
        self.file.write_all(&pdf)?;
        self.file.flush()?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "pdf_tests.rs"]
mod tests;
