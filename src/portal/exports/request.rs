//! What an export is to hold: read from the body, stored with the job, and with whose rights it is made.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::columns::{COLUMNS, Column};
use crate::{
    connector::rows::InvoiceStatus,
    domain::{Moment, TenantId},
    portal::{
        body::Fields,
        call::Problem,
        query::{Period, disorder, period},
    },
};

/// Most tenants that a body may name.
const MAX_TENANTS: usize = 1_000;
/// Most columns that can be read on one page.
const PDF_COLUMNS: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Csv,
    Pdf,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Pdf => "pdf",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Pdf => "application/pdf",
        }
    }
}

/// What goes into the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub format: Format,
    pub from: Timestamp,
    /// Exclusive.
    pub to: Timestamp,
    /// Empty: whatever the status.
    pub status: Vec<InvoiceStatus>,
    pub line_items: bool,
    pub columns: Vec<Column>,
}

impl Content {
    pub fn period(&self) -> Period {
        Period { from: self.from, to: self.to }
    }
}

/// With whose rights: the user's as they were when they asked. Links are judged by what they are when they are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Names of what the user held.
    pub holds: Vec<String>,
    pub ip: IpAddr,
    pub mfa: bool,
}

/// What a job stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    pub content: Content,
    /// Every tenant in the file, ascending.
    pub tenants: Vec<TenantId>,
    pub rights: Rights,
}

const FORMATS: &[(&str, Format)] = &[("csv", Format::Csv), ("pdf", Format::Pdf)];

fn statuses() -> Vec<(&'static str, InvoiceStatus)> {
    InvoiceStatus::ALL.iter().map(|status| (status.as_str(), *status)).collect()
}

/// What a page has room for where the client names nothing.
pub(super) const PDF_DEFAULT: &[Column] = &[
    Column::InvoiceNumber,
    Column::TenantName,
    Column::CustomerName,
    Column::InvoiceDate,
    Column::DueDate,
    Column::Status,
    Column::Total,
    Column::PaidAmount,
    Column::Balance,
    Column::Currency,
];

/// Content and the tenants that it is narrowed to.
pub(super) fn read(body: &[u8], now: Timestamp) -> Result<(Content, Option<Vec<TenantId>>), Problem> {
    let mut fields = Fields::read(body)?;
    let format = fields.required_word("format", FORMATS);
    let (from, to): (Option<Moment>, Option<Moment>) = (fields.moment("from_date"), fields.moment("to_date"));
    let period = period(from, to, now);
    if let Some(fault) = disorder(period.from, period.to, "to_date") {
        fields.fail("from_date", fault);
    }
    let tenants = fields.tenant_ids(MAX_TENANTS);
    let status = fields.words("status", &statuses()).unwrap_or_default();
    let line_items = fields.flag("include_line_items").unwrap_or_default();
    let columns = fields.words("columns", COLUMNS);
    let format = format.unwrap_or(Format::Csv);
    if format == Format::Pdf && columns.as_ref().is_some_and(|columns| columns.len() > PDF_COLUMNS) {
        fields.fail("columns", format!("a page has room for {PDF_COLUMNS} columns: name fewer, or take a CSV"));
    }
    fields.finish()?;
    let columns = columns.unwrap_or_else(|| match format {
        Format::Csv => COLUMNS.iter().map(|(_, column)| *column).collect(),
        Format::Pdf => PDF_DEFAULT.to_vec(),
    });
    Ok((Content { format, from: period.from, to: period.to, status, line_items, columns }, tenants))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-03-15T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_body_is_read_whole_or_refused_field_by_field() {
        let (content, tenants) = read(br#"{"format":"csv"}"#, now()).unwrap();
        assert_eq!((content.columns.len(), content.period().days(), tenants), (18, 30, None));
        let body = br#"{"format":"pdf","from_date":"2026-01-01","to_date":"2026-01-31","tenant_ids":["b","a"],
            "status":["paid","overdue"],"include_line_items":true,"columns":["total","currency"]}"#;
        let (content, tenants) = read(body, now()).unwrap();
        assert_eq!(content.to.to_string(), "2026-02-01T00:00:00Z");
        assert_eq!(content.columns, [Column::Total, Column::Currency]);
        assert_eq!(tenants.unwrap()[0].as_str(), "a");
        let body = br#"{"from_date":"2026-02-01","to_date":"2026-01-31","status":["late"],"columns":["x"],
            "include_line_items":"yes","tenant_id":"t"}"#;
        let told: Vec<_> = read(body, now()).unwrap_err().fields.into_iter().map(|error| error.field).collect();
        assert_eq!(told, ["format", "from_date", "status", "include_line_items", "columns", "tenant_id"]);
        for date in ["0000-01-01", "0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00+25:00", "2016-12-31T23:59:60Z"] {
            for field in ["from_date", "to_date"] {
                let body = format!(r#"{{"format":"csv","{field}":"{date}"}}"#);
                let told = read(body.as_bytes(), now()).unwrap_err().fields;
                assert!(told.len() == 1 && told[0].field == field && told[0].message.contains(date), "{told:?}");
            }
        }
    }

    #[test]
    fn a_job_is_stored_and_read_back() {
        let (content, _) = read(br#"{"format":"csv","status":["paid"]}"#, now()).unwrap();
        let request = ExportRequest {
            content,
            tenants: vec![TenantId::new("t").unwrap()],
            rights: Rights { holds: vec!["partner.tenants.list".into()], ip: [127, 0, 0, 1].into(), mfa: true },
        };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<ExportRequest>(&text).unwrap(), request);
    }
}
