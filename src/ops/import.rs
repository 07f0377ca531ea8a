//! Rows of a file to import: links, tenants, partners or users, as CSV or as JSON lines.
//!
//! A row that cannot be understood is a refused row and the others go on. A file that cannot be read any further, or a quote
//! in it that is never closed, ends the rows with a [`Stop`]: what lies behind is not guessed. A file whose columns are not
//! understood is refused whole, before anything is written. Columns and fields have the contract's names. What the rules of the store say of a
//! row that was read is `Admin::import`'s.

mod quotes;

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use self::quotes::Quotes;
use crate::{
    domain::{link_rules::Refusal, plain::plain, sheet::harmless, strict_json::StrictJson},
    store::admin::{ImportInput, ImportReport, ImportRow, Stop},
};

/// Longest line of a JSON lines file.
const MOST_LINE_BYTES: u64 = 1 << 20;

/// What the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    Links,
    Tenants,
    Partners,
    Users,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Csv,
    Jsonl,
}

impl What {
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Links => &[
                "partner_id",
                "managed_tenant_id",
                "access_role",
                "custom_permissions",
                "relationship_type",
                "start_date",
                "end_date",
                "is_active",
                "notify_on_sla_breach",
                "notify_on_billing_threshold",
                "billing_alert_threshold",
                "sla_response_hours",
                "sla_uptime_target",
                "notes",
                "metadata",
                "approval",
                "allowed_cidrs",
                "require_mfa",
                "parent_link_id",
            ],
            Self::Tenants => &["tenant_id", "name", "slug", "domain", "status"],
            Self::Partners => &["partner_id", "name", "home_tenant_id", "is_active"],
            Self::Users => &["issuer", "sub", "partner_id", "username", "is_active"],
        }
    }

    fn input(self, fields: Json) -> Result<ImportInput, Refusal> {
        Ok(match self {
            Self::Links => ImportInput::Link(Box::new(typed(fields)?)),
            Self::Tenants => ImportInput::Tenant(typed(fields)?),
            Self::Partners => ImportInput::Partner(typed(fields)?),
            Self::Users => ImportInput::User(typed(fields)?),
        })
    }
}

fn typed<T: DeserializeOwned>(fields: Json) -> Result<T, Refusal> {
    serde_json::from_value(fields).map_err(|error| unreadable(error.to_string()))
}

/// A row that is not even a row.
fn unreadable(reason: impl Into<String>) -> Refusal {
    Refusal::new(crate::domain::ErrorCode::ValidationError, reason)
}

/// The rows of a file. An error is the last of them.
pub type Rows<'s> = Box<dyn Iterator<Item = Result<ImportRow, Stop>> + Send + 's>;

/// The rows of a file, each with its line. The error is about the columns: nothing of the file can be understood.
pub fn rows<'s>(source: impl Read + Send + 's, format: Format, what: What) -> Result<Rows<'s>, String> {
    Ok(match format {
        Format::Csv => Box::new(ending(csv_rows(source, what)?)),
        Format::Jsonl => Box::new(ending(json_rows(source, what))),
    })
}

/// Nothing is asked for behind an error: what failed once may fail for ever.
fn ending(rows: impl Iterator<Item = Result<ImportRow, Stop>>) -> impl Iterator<Item = Result<ImportRow, Stop>> {
    let mut rows = Some(rows);
    std::iter::from_fn(move || {
        let row = rows.as_mut()?.next();
        if !matches!(row, Some(Ok(_))) {
            rows = None;
        }
        row
    })
}

fn json_rows(source: impl Read + Send, what: What) -> impl Iterator<Item = Result<ImportRow, Stop>> {
    let mut reader = BufReader::new(source);
    let mut line = 0;
    std::iter::from_fn(move || {
        loop {
            line += 1;
            let input = match json_line(&mut reader, line == 1, what) {
                Ok(None) => return None,
                Ok(Some(Line::Blank)) => continue,
                Ok(Some(Line::Row(input))) => input,
                Err(error) => return Some(Err(Stop::Unreadable { line, error })),
            };
            return Some(Ok(ImportRow { line, input }));
        }
    })
}

enum Line {
    Blank,
    Row(Result<ImportInput, Refusal>),
}

/// The next line; `None` at the end.
fn json_line(reader: &mut impl BufRead, first: bool, what: What) -> io::Result<Option<Line>> {
    let mut text = Vec::new();
    let read = reader.by_ref().take(MOST_LINE_BYTES + 1).read_until(b'\n', &mut text)?;
    if read == 0 {
        return Ok(None);
    }
    if read as u64 > MOST_LINE_BYTES {
        if !text.ends_with(b"\n") {
            reader.skip_until(b'\n')?;
        }
        return Ok(Some(Line::Row(Err(unreadable(format!("the line is longer than {MOST_LINE_BYTES} bytes"))))));
    }
    // As some editors begin a file, and as the reader of CSV takes it.
    let text = text.strip_prefix(b"\xef\xbb\xbf".as_slice()).filter(|_| first).unwrap_or(&text);
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Some(Line::Blank));
    }
    let row = serde_json::from_slice(text).map_err(|error| unreadable(format!("not a JSON object: {error}"))).and_then(
        |StrictJson(row)| match row {
            // A list would be taken for the fields in the order that we happen to write them in.
            Json::Object(_) => what.input(row),
            _ => Err(unreadable("not a JSON object")),
        },
    );
    Ok(Some(Line::Row(row)))
}

fn csv_rows(source: impl Read, what: What) -> Result<impl Iterator<Item = Result<ImportRow, Stop>>, String> {
    let (source, open) = Quotes::watch(source);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    if let Some(line) = open.before(reader.position().byte()) {
        return Err(Stop::UnclosedQuote { line }.to_string());
    }
    let columns: Vec<String> = header.iter().map(str::to_owned).collect();
    check_columns(&columns, what)?;
    let mut records = reader.into_records();
    Ok(std::iter::from_fn(move || {
        let record = records.next();
        let read = if record.is_some() { records.reader().position().byte() } else { u64::MAX };
        // The quote took in the rest of the file: no cell of it is what was meant.
        if let Some(line) = open.before(read) {
            return Some(Err(Stop::UnclosedQuote { line }));
        }
        Some(match record? {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                let input = csv_fields(&columns, &record).and_then(|fields| what.input(Json::Object(fields)));
                Ok(ImportRow { line, input })
            }
            Err(error) => {
                let line = error.position().map_or_else(|| records.reader().position().line(), csv::Position::line);
                let reason = error.to_string();
                match error.into_kind() {
                    csv::ErrorKind::Io(error) => Err(Stop::Unreadable { line, error }),
                    _ => Ok(ImportRow { line, input: Err(unreadable(reason)) }),
                }
            }
        })
    }))
}

fn check_columns(columns: &[String], what: What) -> Result<(), String> {
    let known = what.columns().join(", ");
    if columns.is_empty() {
        return Err(format!("there is nothing in it: the first line names the columns; known are {known}"));
    }
    let unknown: Vec<&str> =
        columns.iter().map(String::as_str).filter(|column| !what.columns().contains(column)).collect();
    if !unknown.is_empty() {
        let separator = match columns {
            [one] if one.contains(';') => "; columns are separated by commas, not by `;`",
            [one] if one.contains('\t') => "; columns are separated by commas, not by tabs",
            _ => "",
        };
        return Err(format!("unknown columns `{}`; known are {known}{separator}", unknown.join("`, `")));
    }
    let twice = columns.iter().enumerate().find(|(at, name)| columns.iter().take(*at).any(|known| known == *name));
    twice.map_or(Ok(()), |(_, column)| Err(format!("the column `{column}` stands more than once")))
}

/// Cells as the fields of a JSON row; an empty cell is a field left out.
fn csv_fields(columns: &[String], record: &csv::StringRecord) -> Result<Map<String, Json>, Refusal> {
    let mut fields = Map::new();
    for (column, cell) in columns.iter().zip(record.iter()).filter(|(_, cell)| !cell.is_empty()) {
        let value = match column.as_str() {
            "is_active" | "notify_on_sla_breach" | "notify_on_billing_threshold" | "require_mfa" => match cell {
                "true" | "TRUE" | "True" | "1" | "yes" | "t" => Json::Bool(true),
                "false" | "FALSE" | "False" | "0" | "no" | "f" => Json::Bool(false),
                _ => return Err(Refusal::field("row", column, format!("`{cell}` is neither true nor false"))),
            },
            "sla_response_hours" => match cell.parse::<i64>() {
                Ok(hours) => Json::from(hours),
                Err(_) => return Err(Refusal::field("row", column, format!("`{cell}` is not a whole number"))),
            },
            "allowed_cidrs" => cell
                .split([' ', ';', ','])
                .filter(|part| !part.is_empty())
                .map(|part| Json::String(part.to_owned()))
                .collect(),
            "custom_permissions" if !cell.starts_with('{') => overrides(column, cell)?,
            "custom_permissions" | "metadata" => serde_json::from_str(cell)
                .map(|StrictJson(value)| value)
                .map_err(|error| Refusal::field("row", column, format!("not a JSON object: {error}")))?,
            _ => Json::String(cell.to_owned()),
        };
        fields.insert(column.clone(), value);
    }
    Ok(fields)
}

fn overrides(column: &str, cell: &str) -> Result<Json, Refusal> {
    let mut named = BTreeMap::new();
    for part in cell.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let allow = part.split_once('=').and_then(|(name, allow)| Some((name.trim(), allow.trim().parse().ok()?)));
        let (name, allow): (&str, bool) =
            allow.ok_or_else(|| Refusal::field("row", column, format!("`{part}`: write NAME=true or NAME=false")))?;
        if named.insert(name, allow).is_some_and(|before| before != allow) {
            return Err(Refusal::field("row", column, format!("`{name}` is both true and false")));
        }
    }
    Ok(named.into_iter().map(|(name, allow)| (name.to_owned(), Json::Bool(allow))).collect())
}

/// The refused rows as CSV: line, code, field, reason.
pub fn write_refused(report: &ImportReport, out: impl Write) -> Result<(), csv::Error> {
    let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::NonNumeric).from_writer(out);
    writer.write_record(["line", "code", "field", "reason"])?;
    for row in &report.refused {
        let (line, field) = (row.line.to_string(), row.field.as_deref().unwrap_or_default());
        // Field and reason may be words of the file: nothing that a terminal or a spreadsheet would run.
        let (field, reason) = (plain(field), plain(&row.reason));
        writer.write_record([line.as_str(), row.code, harmless(&field).as_ref(), harmless(&reason).as_ref()])?;
    }
    Ok(writer.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::admin::RefusedRow;

    fn rows(what: What, csv: &str) -> Vec<ImportRow> {
        csv_rows(csv.as_bytes(), what).unwrap().map(Result::unwrap).collect()
    }

    /// Good bytes, and then a disk that fails, however often it is asked.
    struct Failing(&'static [u8]);

    impl Read for Failing {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::Error::other("bad sector")) } else { self.0.read(into) }
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_any_further_ends_the_rows() {
        let csv: &[u8] = b"tenant_id\nt1\nt2\nt";
        let json: &[u8] = b"{\"tenant_id\": \"t1\"}\nnonsense\n{";
        for (format, text) in [(Format::Csv, csv), (Format::Jsonl, json)] {
            let read: Vec<_> = super::rows(Failing(text), format, What::Tenants).unwrap().take(10).collect();
            assert_eq!(read.len(), 3, "{read:?}");
            assert!(matches!(&read[2], Err(Stop::Unreadable { error, .. }) if error.to_string() == "bad sector"));
        }
        // While a line too long is passed over.
        let endless = BufReader::new(io::repeat(b'x').take(3 << 20)).chain(Failing(b""));
        let read: Vec<_> = super::rows(endless, Format::Jsonl, What::Tenants).unwrap().take(10).collect();
        assert!(matches!(read.as_slice(), [Err(Stop::Unreadable { line: 1, .. })]), "{read:?}");
    }

    #[test]
    fn a_quote_that_is_never_closed_ends_the_rows_before_it() {
        let ended = |text: &'static str| {
            let read: Vec<_> = super::rows(text.as_bytes(), Format::Csv, What::Tenants).unwrap().collect();
            let stop = read.last().and_then(|row| row.as_ref().err()).map(ToString::to_string);
            (read.iter().filter(|row| row.is_ok()).count(), stop)
        };
        let said = |line: u64| Some(Stop::UnclosedQuote { line }.to_string());
        assert_eq!(ended("tenant_id,name\nt1,A\nt2,\"B\nt3,C\nt4,D\n"), (1, said(3)));
        // In the last field, where the row would be a whole one.
        assert_eq!(ended("name,tenant_id\r\n\r\n\"A \"\"1\"\"\n2\",t1\r\nB,\"t2\r\n"), (1, said(5)));
        assert_eq!(ended("\u{feff}\"tenant_id\"\nt\"1\n t2\n\"t3\""), (3, None));
        let marked = "\u{feff}{\"tenant_id\": \"t1\"}\n\u{feff}{\"tenant_id\": \"t2\"}\n".as_bytes();
        let read: Vec<_> = super::rows(marked, Format::Jsonl, What::Tenants).unwrap().flatten().collect();
        assert!(
            matches!(&*read, [ImportRow { input: Ok(_), .. }, ImportRow { input: Err(_), .. }]),
            "only at the beginning"
        );
        let failure = super::rows("\"tenant_id\nt1\n".as_bytes(), Format::Csv, What::Tenants).err().unwrap();
        assert!(failure.contains("line 1 is never closed"), "{failure}");
    }

    #[test]
    fn what_is_wrong_with_the_columns_is_said_in_words() {
        let refused = |text: &'static str| super::rows(text.as_bytes(), Format::Csv, What::Tenants).err().unwrap();
        assert!(refused("").starts_with("there is nothing in it"), "{}", refused(""));
        assert!(refused("tenant_id;name\nt1;A\n").ends_with("by commas, not by `;`"));
        assert!(refused("tenant_id\tname\nt1\tA\n").ends_with("by commas, not by tabs"));
    }

    #[test]
    fn a_csv_row_becomes_the_fields_of_a_link() {
        let text = "partner_id,managed_tenant_id,access_role,custom_permissions,allowed_cidrs,require_mfa,end_date,metadata\n\
             p,t,auditor,billing.read=false; support.read=true,10.0.0.0/8 192.0.2.0/24,yes,,\"{\"\"a\"\": 1}\"\n";
        let row = rows(What::Links, text).remove(0);
        assert_eq!(row.line, 2);
        let Ok(ImportInput::Link(link)) = row.input else { panic!("no link") };
        assert_eq!(link.custom_permissions.unwrap().len(), 2);
        assert_eq!(link.allowed_cidrs.unwrap(), ["10.0.0.0/8", "192.0.2.0/24"]);
        assert_eq!(link.require_mfa, Some(true));
        assert!(link.end_date.is_none(), "an empty cell is left out");
        assert_eq!(link.metadata.unwrap()["a"], 1);
    }

    #[test]
    fn faults_of_a_row_stay_in_the_row_and_those_of_the_header_stop_the_file() {
        let text = "tenant_id,name\nt1,A\nt2\nt3,C\n";
        let read = rows(What::Tenants, text);
        let good: Vec<bool> = read.iter().map(|row| row.input.is_ok()).collect();
        assert_eq!(good, [true, false, true]);
        assert_eq!(read[1].line, 3);
        let Err(failure) = csv_rows("tenant_id,nme\n".as_bytes(), What::Tenants).map(drop) else { panic!() };
        assert!(failure.contains("`nme`"), "{failure}");
        let twice = rows(What::Links, "custom_permissions\na=true;a=false\n").remove(0).input.unwrap_err();
        assert!(twice.to_string().contains("both"), "{twice}");
    }

    #[test]
    fn json_lines_are_read_one_by_one() {
        let long = format!("{{\"tenant_id\": \"{}\"}}", "x".repeat(2 << 20));
        let text = format!(
            "{{\"tenant_id\": \"a\"}}\n\n{{\"tenant\": \"b\"}}\n{long}\nnot json\n{{\"tenant_id\": \"c\"}}\n[\"d\", \"D\"]"
        );
        let read: Vec<ImportRow> = json_rows(text.as_bytes(), What::Tenants).map(Result::unwrap).collect();
        let seen: Vec<(u64, bool)> = read.iter().map(|row| (row.line, row.input.is_ok())).collect();
        assert_eq!(seen, [(1, true), (3, false), (4, false), (5, false), (6, true), (7, false)]);
    }

    #[test]
    fn a_report_of_refused_rows_runs_nothing_in_a_spreadsheet() {
        let refused =
            RefusedRow { line: 2, code: "X", field: Some("=a".into()), reason: "a;@cmd \u{1b}[2J\u{202e}".into() };
        let report = ImportReport { imported: 0, refused_rows: 1, refused: vec![refused] };
        let mut out = Vec::new();
        write_refused(&report, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\"line\",\"code\",\"field\",\"reason\"\n2,\"X\",\"'=a\",\"a;'@cmd \u{fffd}[2J\u{fffd}\"\n"
        );
    }
}
