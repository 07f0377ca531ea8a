//! An export as CSV: RFC 4180, UTF-8, CRLF, text in quotes, written as rows come, in constant memory.
//!
//! What a spreadsheet would run as a formula is made text by an apostrophe in front. Only text from services is: amounts
//! are written by us, and a negative one must stay a number.

use std::{
    cell::Cell as Counter,
    fs::File,
    io::{self, Seek, SeekFrom, Write},
};

use csv::{QuoteStyle, Terminator, Writer, WriterBuilder};
use jiff::civil::Date;

use super::{
    columns::{Cell, Column, LINE_COLUMNS, TenantName, cell, line_cells},
    sheet::{Mark, Sheet, SheetError},
};
use crate::{connector::rows::InvoiceRow, domain::sheet::harmless};

/// Bytes gathered before they are written.
const BUFFER: usize = 256 * 1024;

/// A CSV being written.
pub(super) struct CsvSheet {
    writer: Writer<Sink>,
    columns: Vec<Column>,
    line_items: bool,
    today: Date,
    rows: u64,
}

struct Sink {
    file: File,
    written: Counter<u64>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written.set(self.written.get() + written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl CsvSheet {
    /// Begins an empty file with its header.
    pub(super) fn begin(file: File, columns: &[Column], line_items: bool, today: Date) -> Result<Self, SheetError> {
        let sink = Sink { file, written: Counter::new(0) };
        let writer = WriterBuilder::new()
            .terminator(Terminator::CRLF)
            .quote_style(QuoteStyle::NonNumeric)
            .buffer_capacity(BUFFER)
            .from_writer(sink);
        let mut sheet = Self { writer, columns: columns.to_vec(), line_items, today, rows: 0 };
        let mut header: Vec<&str> = Vec::new();
        header.extend(line_items.then_some("row_type"));
        header.extend(columns.iter().map(|column| column.name()));
        if line_items {
            header.extend(LINE_COLUMNS);
        }
        sheet.writer.write_record(&header)?;
        Ok(sheet)
    }

    fn field(&mut self, cell: &Cell<'_>) -> Result<(), SheetError> {
        match cell {
            Cell::Text(_) => self.writer.write_field(harmless(cell.as_str()).as_ref())?,
            _ => self.writer.write_field(cell.as_str())?,
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SheetError> {
        self.writer.write_record(None::<&[u8]>)?;
        self.rows += 1;
        Ok(())
    }
}

impl Sheet for CsvSheet {
    fn invoice(&mut self, tenant: &TenantName, row: &InvoiceRow) -> Result<(), SheetError> {
        if self.line_items {
            self.writer.write_field("invoice")?;
        }
        for at in 0..self.columns.len() {
            let Some(column) = self.columns.get(at).copied() else { break };
            self.field(&cell(column, tenant, row, self.today))?;
        }
        if self.line_items {
            for _ in LINE_COLUMNS {
                self.writer.write_field("")?;
            }
        }
        self.end()?;
        if !self.line_items {
            return Ok(());
        }
        for item in &row.line_items {
            self.writer.write_field("line_item")?;
            for at in 0..self.columns.len() {
                let Some(column) = self.columns.get(at).copied() else { break };
                // What says which invoice it is; an amount would be added up twice.
                let says_which = matches!(
                    column,
                    Column::InvoiceId
                        | Column::InvoiceNumber
                        | Column::TenantId
                        | Column::TenantName
                        | Column::Currency
                );
                let cell = if says_which { cell(column, tenant, row, self.today) } else { Cell::Empty };
                self.field(&cell)?;
            }
            for cell in &line_cells(item, row.currency) {
                self.field(cell)?;
            }
            self.end()?;
        }
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn mark(&mut self) -> Result<Mark, SheetError> {
        self.writer.flush()?;
        Ok(Mark { place: self.writer.get_ref().written.get(), rows: self.rows })
    }

    fn rewind(&mut self, mark: Mark) -> Result<(), SheetError> {
        self.writer.flush()?;
        let sink = self.writer.get_ref();
        sink.file.set_len(mark.place)?;
        (&sink.file).seek(SeekFrom::Start(mark.place))?;
        sink.written.set(mark.place);
        self.rows = mark.rows;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), SheetError> {
        self.writer.flush()?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;
