//! CSV read back as another program would read it: quoting, formulas, line items, going back to a mark.

use std::io::Read;

use rust_decimal::Decimal;

use super::*;
use crate::{
    connector::rows::LineItem,
    portal::exports::columns::{COLUMNS, tests::invoice},
};

fn tenant() -> TenantName {
    TenantName { id: "t-1".into(), name: Some("Tenant".into()) }
}

fn today() -> Date {
    "2026-01-20".parse().unwrap()
}

/// What a file holds once these have been written.
fn written(columns: &[Column], line_items: bool, write: impl FnOnce(&mut CsvSheet)) -> String {
    let mut file = tempfile::tempfile().unwrap();
    let mut sheet = Box::new(CsvSheet::begin(file.try_clone().unwrap(), columns, line_items, today()).unwrap());
    write(&mut sheet);
    sheet.finish().unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

/// Reads it back as another program would.
fn read(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(false).from_reader(text.as_bytes());
    reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn lines_end_with_crlf_and_awkward_text_comes_back_whole() {
    let huge = "x\"y,".repeat(50_000);
    let names = ["plain", "a,b", "say \"hi\"", "two\r\nlines", "Ünï ☃ 日本", "", &huge];
    let columns = [Column::InvoiceId, Column::CustomerName, Column::Total];
    let text = written(&columns, false, |sheet| {
        for (at, name) in names.iter().enumerate() {
            let row = InvoiceRow { customer_name: Some((*name).to_owned()), ..invoice(&at.to_string()) };
            sheet.invoice(&tenant(), &row).unwrap();
        }
    });
    assert!(text.starts_with(
        "\"invoice_id\",\"customer_name\",\"total\"\r\n0,\"plain\",100.00\r\n1,\"a,b\",100.00\r\n2,\"say \"\"hi\"\"\""
    ));
    assert!(text.ends_with("\r\n"));
    let rows = read(&text);
    assert_eq!(rows.len(), names.len() + 1);
    for (row, name) in rows.iter().skip(1).zip(names) {
        assert_eq!(row[1], name);
    }
}

#[test]
fn formulas_become_text_quoted_or_not_and_amounts_stay_numbers() {
    for (evil, safe) in [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        ("\n=1", "'\n'=1"),
        ("=HYPERLINK(\"http://x\",\"y\")", "'=HYPERLINK(\"http://x\",\"y\")"),
        ("＝1", "'＝1"),
        ("a=1", "a=1"),
        ("x;=cmd()", "x;'=cmd()"),
    ] {
        let fields = [Column::InvoiceId, Column::InvoiceNumber, Column::CustomerId, Column::CustomerName];
        let text = written(&fields, false, |sheet| {
            let row = InvoiceRow {
                invoice_number: Some(evil.into()),
                customer_id: Some(evil.into()),
                customer_name: Some(evil.into()),
                ..invoice(evil)
            };
            sheet.invoice(&TenantName { id: evil.into(), name: Some(evil.into()) }, &row).unwrap();
        });
        assert_eq!(read(&text)[1], [safe; 4], "{evil:?}");
    }
    let text = written(&[Column::TenantId, Column::TenantName, Column::Balance], false, |sheet| {
        let row = InvoiceRow { balance: Decimal::new(-500, 2), ..invoice("1") };
        sheet.invoice(&TenantName { id: "@t".into(), name: Some("=n".into()) }, &row).unwrap();
    });
    assert_eq!(read(&text)[1], ["'@t", "'=n", "-5.00"]);
}

#[test]
fn line_items_are_rows_that_add_nothing_up_twice() {
    let item = LineItem {
        description: Some("=cmd".into()),
        quantity: Some(Decimal::new(20, 1)),
        unit_price: Some(Decimal::new(5_000, 2)),
        total_price: Some(Decimal::new(10_000, 2)),
    };
    let all: Vec<Column> = COLUMNS.iter().map(|(_, column)| *column).collect();
    let text = written(&all, true, |sheet| {
        sheet.invoice(&tenant(), &InvoiceRow { line_items: vec![item], ..invoice("1") }).unwrap();
        assert_eq!(sheet.rows(), 2);
    });
    let rows = read(&text);
    assert_eq!(rows[0].len(), 1 + 18 + 4);
    assert_eq!((rows[1][0].as_str(), rows[2][0].as_str()), ("invoice", "line_item"));
    let at = |name: &str| rows[0].iter().position(|known| known == name).unwrap();
    assert_eq!((rows[2][at("invoice_id")].as_str(), rows[2][at("total")].as_str()), ("1", ""));
    assert_eq!(rows[2][at("line_description")..], ["'=cmd", "2", "50.00", "100.00"]);
}

#[test]
fn what_was_written_behind_a_mark_can_be_taken_back() {
    let text = written(&[Column::InvoiceId], false, |sheet| {
        sheet.invoice(&tenant(), &invoice("kept")).unwrap();
        let mark = sheet.mark().unwrap();
        for n in 0..100_000 {
            sheet.invoice(&tenant(), &invoice(&format!("gone-{n}"))).unwrap();
        }
        sheet.rewind(mark).unwrap();
        sheet.invoice(&tenant(), &invoice("again")).unwrap();
        assert_eq!(sheet.rows(), 2);
    });
    assert_eq!(text, "\"invoice_id\"\r\n\"kept\"\r\n\"again\"\r\n");
}
