//! Totals, order and bounds of a PDF, and documents of whatever a service says.

use std::io::{Read, Seek};

use rust_decimal::Decimal;

use super::*;
use crate::{
    connector::rows::LineItem,
    domain::Currency,
    portal::exports::{
        columns::{COLUMNS, tests::invoice},
        request::PDF_DEFAULT,
    },
};

fn title() -> Title {
    Title {
        partner: "Ünïted Partners Ελλάδα Кириллица 日本".into(),
        from: "2026-01-01".parse().unwrap(),
        to: "2026-01-31".parse().unwrap(),
        made: "2026-02-01T10:00:00Z".parse().unwrap(),
    }
}

fn sheet(file: &File, columns: &[Column], line_items: bool, most: usize) -> Box<PdfSheet> {
    let today = "2026-02-20".parse().unwrap();
    Box::new(PdfSheet::begin(file.try_clone().unwrap(), title(), columns, line_items, today, most))
}

fn read(mut file: File) -> Vec<u8> {
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn tenant(n: usize) -> TenantName {
    TenantName { id: format!("t-{n}"), name: Some("A tenant with quite a long name that is cut".into()) }
}

const PRINTED: &[Column] =
    &[Column::InvoiceNumber, Column::TenantName, Column::CustomerName, Column::Total, Column::Currency];

#[test]
fn totals_are_exact_and_never_cross_currencies() {
    let file = tempfile::tempfile().unwrap();
    let mut sheet = sheet(&file, PRINTED, false, 100);
    for n in 0..10 {
        let currency = if n % 2 == 0 { Currency::USD } else { "EUR".parse().unwrap() };
        let row = InvoiceRow { currency, total: Decimal::new(10 + n, 2), ..invoice(&n.to_string()) };
        sheet.invoice(&tenant(1), &row).unwrap();
    }
    let totals = totals(&sheet.invoices).unwrap();
    let eur = &totals[&"EUR".parse::<Currency>().unwrap()];
    assert_eq!((eur.invoices, eur.total.to_string().as_str()), (5, "0.75"));
    assert_eq!(totals[&Currency::USD].total.to_string(), "0.70");
}

#[test]
fn invoices_are_sorted_within_their_tenant() {
    let file = tempfile::tempfile().unwrap();
    let mut sheet = sheet(&file, &[Column::InvoiceId], false, 100);
    for (n, id, date) in [(1, "b", "2026-01-03"), (1, "a", "2026-01-02"), (2, "c", "2026-01-01")] {
        let invoice_date = format!("{date}T00:00:00Z").parse().unwrap();
        sheet.invoice(&tenant(n), &InvoiceRow { invoice_date, ..invoice(id) }).unwrap();
    }
    sheet.invoices.sort_by_key(|invoice| (invoice.tenant, invoice.date));
    let order: Vec<&str> = sheet.invoices.iter().map(|invoice| &*invoice.cells[0]).collect();
    assert_eq!(order, ["a", "b", "c"]);
}

#[test]
fn a_bounded_table_is_refused_beyond_its_bound() {
    let file = tempfile::tempfile().unwrap();
    let mut sheet = sheet(&file, PRINTED, false, 2);
    sheet.invoice(&tenant(1), &invoice("1")).unwrap();
    let mark = sheet.mark().unwrap();
    sheet.invoice(&tenant(2), &invoice("2")).unwrap();
    let error = sheet.invoice(&tenant(2), &invoice("3")).unwrap_err();
    assert!(error.to_string().contains("at most 2 invoices"), "{error}");
    sheet.rewind(mark).unwrap();
    sheet.invoice(&tenant(2), &invoice("2")).unwrap();
    assert_eq!((sheet.rows(), sheet.invoices.len()), (2, 2));
}

/// Whatever a service says, a page is made of it.
#[test]
fn awkward_names_and_all_sizes_make_valid_documents() {
    let awkward = [
        "",
        "=1",
        "日本語の会社",
        "مرحبا",
        "חברת החשמל (ישראל) בע״מ 12",
        "e\u{301}",
        "a\u{0}b\r\nc",
        "😀",
        &"x".repeat(10_000),
        "\u{202e}evil",
    ];
    let all: Vec<Column> = COLUMNS.iter().map(|(_, column)| *column).take(12).collect();
    for count in [0, 1, 33, 34, 35, 68, 400] {
        let file = tempfile::tempfile().unwrap();
        let mut sheet = sheet(&file, if count % 2 == 0 { PRINTED } else { &all }, true, 1_000);
        for n in 0..count {
            let name = awkward[n % awkward.len()].to_owned();
            let item = LineItem {
                description: Some(name.clone()),
                quantity: Some(Decimal::ONE),
                unit_price: None,
                total_price: Some(Decimal::ONE),
            };
            let row = InvoiceRow {
                customer_name: Some(name),
                line_items: if n % 7 == 0 { vec![item] } else { Vec::new() },
                ..invoice(&n.to_string())
            };
            sheet.invoice(&tenant(n / 10), &row).unwrap();
        }
        sheet.finish().unwrap();
        let pdf = read(file);
        assert!(pdf.starts_with(b"%PDF-1.") && pdf.trim_ascii_end().ends_with(b"%%EOF"));
        assert!(pdf.len() < 500_000, "{count} rows: {} bytes", pdf.len());
        keep("awkward", count, &pdf);
    }
}

/// For eyes: with `LINKGATE_KEEP_PDF=DIR` what a test made is kept there.
fn keep(name: &str, count: usize, pdf: &[u8]) {
    if let Ok(dir) = std::env::var("LINKGATE_KEEP_PDF") {
        std::fs::write(std::path::Path::new(&dir).join(format!("{name}-{count}.pdf")), pdf).unwrap();
    }
}

/// What a partner usually asks for: the default columns, several currencies, thousands of rows.
#[test]
fn a_usual_export_has_a_page_for_each_so_many_rows_and_names_its_totals() {
    let tenants = [
        "Lagos Fibre",
        "Kowloon Net 九龍",
        "בזק אור",
        "A wholesale carrier with a name that fills more than one column",
    ];
    for (count, pages) in [(0, 1), (3_000, 89)] {
        let file = tempfile::tempfile().unwrap();
        let mut sheet = sheet(&file, PDF_DEFAULT, false, 5_000);
        for n in 0..count {
            let tenant = TenantName { id: format!("t-{}", n % 4), name: Some(tenants[n * 4 / count].into()) };
            let currency = ["USD", "EUR", "JPY", "KWD"][n % 4].parse().unwrap();
            let total = Decimal::from(n * 7_919 % 250_000);
            let customer_name = Some(format!("Customer {} of a company", n % 97));
            sheet
                .invoice(
                    &tenant,
                    &InvoiceRow { currency, total, customer_name, balance: total, ..invoice(&format!("{n:05}")) },
                )
                .unwrap();
        }
        sheet.finish().unwrap();
        let pdf = read(file);
        let text = String::from_utf8_lossy(&pdf);
        assert_eq!(text.matches("/Type/Page/").count() + text.matches("/Type /Page\n").count(), pages, "{count} rows");
        assert!(pdf.len() < 3_000_000, "{count} rows: {} bytes", pdf.len());
        keep("usual", count, &pdf);
    }
}
