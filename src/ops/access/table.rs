//! CSV for auditors: RFC 4180 (comma, CRLF, text in quotes), UTF-8, a header line; what a spreadsheet would run as a formula
//! begins with an apostrophe, and what a terminal would run is replaced.

use std::io::Write;

use csv::{QuoteStyle, Terminator, Writer, WriterBuilder};

use crate::domain::{Permission, plain::plain, sheet::harmless};

/// A table that is being written.
pub(crate) struct Table<W: Write>(Writer<W>);

impl<W: Write> Table<W> {
    pub(crate) fn begin(out: W, header: &[&str]) -> Result<Self, csv::Error> {
        let mut writer =
            WriterBuilder::new().terminator(Terminator::CRLF).quote_style(QuoteStyle::NonNumeric).from_writer(out);
        writer.write_record(header)?;
        Ok(Self(writer))
    }

    pub(crate) fn row<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) -> Result<(), csv::Error> {
        for cell in cells {
            self.0.write_field(harmless(&plain(cell)).as_ref())?;
        }
        self.0.write_record(None::<&[u8]>)
    }

    pub(crate) fn end(mut self) -> Result<(), csv::Error> {
        Ok(self.0.flush()?)
    }
}

/// A value that may be absent: empty then.
pub(crate) fn cell(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

pub(crate) fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

/// `1 link`, `2 links`.
pub(crate) fn count(number: impl TryInto<u64>, what: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Several values in one cell.
pub(crate) fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn names(permissions: impl IntoIterator<Item = Permission>) -> String {
    joined(permissions.into_iter().map(Permission::name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_cells_come_back_as_text() {
        let hostile = ["=cmd()", "a \"quoted\" name", "x;=cmd()", "a,b", "שלום, עולם", "+1", "\u{1b}[8m", ""];
        let mut out = Vec::new();
        let mut table = Table::begin(&mut out, &["a", "b", "c", "d", "e", "f", "g", "h"]).unwrap();
        table.row(hostile).unwrap();
        table.end().unwrap();
        assert!(out.ends_with(b"\r\n"), "{}", String::from_utf8_lossy(&out));
        let text = String::from_utf8(out.clone()).unwrap();
        assert!(text.contains("\"x;'=cmd()\",\"a,b\""), "text stands in quotes: {text}");
        let mut reader = csv::Reader::from_reader(out.as_slice());
        let read: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
        let expected = ["'=cmd()", "a \"quoted\" name", "x;'=cmd()", "a,b", "שלום, עולם", "'+1", "\u{fffd}[8m", ""];
        assert_eq!(read[0].iter().collect::<Vec<_>>(), expected);
    }
}
