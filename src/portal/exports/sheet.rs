//! What a file of any format is written through.

use super::columns::TenantName;
use crate::connector::rows::InvoiceRow;

/// A file being written, row by row.
pub(super) trait Sheet: Send {
    /// One invoice, with its line items where they were asked for.
    fn invoice(&mut self, tenant: &TenantName, row: &InvoiceRow) -> Result<(), SheetError>;

    /// Rows written so far, header aside.
    fn rows(&self) -> u64;

    /// The place to come back to if what follows must be written again.
    fn mark(&mut self) -> Result<Mark, SheetError>;

    /// Forgets everything behind the mark.
    fn rewind(&mut self, mark: Mark) -> Result<(), SheetError>;

    /// Everything is in the file when this is done.
    fn finish(self: Box<Self>) -> Result<(), SheetError>;
}

/// A place in a sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes of a streamed file, invoices of one that is put together at the end.
    pub place: u64,
    pub rows: u64,
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SheetError {
    #[error("the file cannot be written")]
    Io(#[from] std::io::Error),
    #[error("a PDF holds at most {0} invoices: narrow the export, or take a CSV")]
    TooMany(usize),
    #[error("the PDF cannot be put together")]
    Pdf(String),
}

impl From<csv::Error> for SheetError {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => Self::Io(error),
            other => Self::Io(std::io::Error::other(format!("{other:?}"))),
        }
    }
}
