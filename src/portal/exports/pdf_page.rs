//! The pages of a PDF: A4 across, a head and a foot on each, the table between them, the totals at the end.

use std::{borrow::Cow, collections::BTreeMap};

use krilla::{
    Document,
    color::{luma, rgb},
    geom::{PathBuilder, Rect},
    metadata::Metadata,
    page::PageSettings,
    paint::Fill,
    surface::Surface,
};

use super::{
    columns::{Column, money},
    pdf_content::{Invoice, Title, Totals},
    pdf_text::{Align, Face, Faces},
    sheet::SheetError,
};
use crate::domain::Currency;

/// A4 across, in points.
const WIDTH: f32 = 841.89;
const HEIGHT: f32 = 595.28;
const MARGIN: f32 = 36.0;
const INNER: f32 = WIDTH - 2.0 * MARGIN;
/// Base line of the first row, height of a row, and room for the foot.
const TABLE_TOP: f32 = 92.0;
const ROW: f32 = 13.0;
const FOOT: f32 = 40.0;
const SIZE: f32 = 7.5;
/// Between two columns.
const GAP: f32 = 5.0;

const ROWS_PER_PAGE: usize = 34;
const _: () = assert!(TABLE_TOP + ROW * ROWS_PER_PAGE as f32 <= HEIGHT - FOOT);

/// One printed line.
enum Row<'a> {
    Invoice(&'a Invoice),
    Item(&'a [Box<str>; 4]),
    Empty,
    TotalsHead,
    Totals(Currency, Totals),
    Nothing,
}

/// One column's place.
struct Place {
    column: Column,
    left: f32,
    width: f32,
}

/// The whole document.
pub(super) fn document(
    title: &Title,
    columns: &[Column],
    invoices: &[Invoice],
    totals: &BTreeMap<Currency, Totals>,
) -> Result<Vec<u8>, SheetError> {
    let faces = Faces::load()?;
    let places = places(columns);
    let rows = rows(invoices, totals);
    let pages = rows.len().div_ceil(ROWS_PER_PAGE).max(1);
    let mut document = Document::new();
    document.set_metadata(
        Metadata::new()
            .title(format!("Invoices of {}, {} to {}", title.partner, title.from, title.to))
            .creator("linkgate".to_owned())
            .language("en".to_owned()),
    );
    let settings = PageSettings::from_wh(WIDTH, HEIGHT).ok_or_else(|| SheetError::Pdf("no page".to_owned()))?;
    for at in 0..pages {
        let mut page = document.start_page_with(settings.clone());
        let mut surface = page.surface();
        let drawn = rows.iter().skip(at * ROWS_PER_PAGE).take(ROWS_PER_PAGE);
        frame(&mut surface, &faces, title, (at + 1, pages));
        // A page that holds nothing but totals needs no head of the table.
        if drawn.clone().any(|row| matches!(row, Row::Invoice(_) | Row::Item(_) | Row::Nothing)) {
            head(&mut surface, &faces.bold, &places);
        }
        for (line, row) in drawn.enumerate() {
            let y = TABLE_TOP + ROW * (line as f32 + 0.7);
            draw(&mut surface, &faces, &places, row, y, line);
        }
        surface.finish();
        page.finish();
    }
    document.finish().map_err(|error| SheetError::Pdf(format!("{error:?}")))
}

fn rows<'a>(invoices: &'a [Invoice], totals: &BTreeMap<Currency, Totals>) -> Vec<Row<'a>> {
    let mut rows = Vec::with_capacity(invoices.len() + totals.len() + 2);
    for invoice in invoices {
        rows.push(Row::Invoice(invoice));
        rows.extend(invoice.items.iter().map(Row::Item));
    }
    if invoices.is_empty() {
        rows.push(Row::Nothing);
        return rows;
    }
    rows.push(Row::Empty);
    // The totals' own head is not left alone at the foot of a page.
    while rows.len() % ROWS_PER_PAGE + 2 > ROWS_PER_PAGE {
        rows.push(Row::Empty);
    }
    rows.push(Row::TotalsHead);
    rows.extend(totals.iter().map(|(currency, sums)| Row::Totals(*currency, *sums)));
    rows
}

/// How much of the width a column gets beside the others.
fn weight(column: Column) -> f32 {
    match column {
        Column::TenantName | Column::CustomerName => 3.0,
        Column::InvoiceId | Column::TenantId | Column::CustomerId => 2.4,
        Column::InvoiceNumber => 2.0,
        Column::Subtotal | Column::Tax | Column::Total | Column::PaidAmount | Column::Balance => 1.6,
        Column::InvoiceDate | Column::DueDate | Column::PaymentDate | Column::CreatedAt | Column::Status => 1.2,
        Column::Currency | Column::DaysOverdue => 0.9,
    }
}

fn align(column: Column) -> Align {
    match column {
        Column::Subtotal | Column::Tax | Column::Total | Column::PaidAmount | Column::Balance | Column::DaysOverdue => {
            Align::Right
        }
        _ => Align::Left,
    }
}

fn heading(column: Column) -> &'static str {
    match column {
        Column::InvoiceId => "Invoice id",
        Column::InvoiceNumber => "Invoice",
        Column::TenantId => "Tenant id",
        Column::TenantName => "Tenant",
        Column::CustomerId => "Customer id",
        Column::CustomerName => "Customer",
        Column::InvoiceDate => "Date",
        Column::DueDate => "Due",
        Column::Status => "Status",
        Column::Subtotal => "Subtotal",
        Column::Tax => "Tax",
        Column::Total => "Total",
        Column::PaidAmount => "Paid",
        Column::Balance => "Balance",
        Column::Currency => "Currency",
        Column::PaymentDate => "Paid on",
        Column::DaysOverdue => "Days late",
        Column::CreatedAt => "Created",
    }
}

fn places(columns: &[Column]) -> Vec<Place> {
    let sum: f32 = columns.iter().map(|column| weight(*column)).sum();
    let mut left = MARGIN;
    columns
        .iter()
        .map(|column| {
            let share = INNER * weight(*column) / sum;
            let place = Place { column: *column, left, width: (share - GAP).max(1.0) };
            left += share;
            place
        })
        .collect()
}

fn grey(level: u8) -> Fill {
    Fill { paint: luma::Color::new(level).into(), ..Fill::default() }
}

fn ink() -> Fill {
    Fill { paint: rgb::Color::new(20, 24, 32).into(), ..Fill::default() }
}

fn bar(surface: &mut Surface<'_>, top: f32, height: f32, fill: Fill) {
    let mut path = PathBuilder::new();
    let Some(rect) = Rect::from_xywh(MARGIN - 3.0, top, INNER + 6.0, height) else { return };
    path.push_rect(rect);
    if let Some(path) = path.finish() {
        surface.set_fill(Some(fill));
        surface.draw_path(&path);
    }
    surface.set_fill(Some(ink()));
}

/// What every page has around its table.
fn frame(surface: &mut Surface<'_>, faces: &Faces, title: &Title, (page, pages): (usize, usize)) {
    let half = INNER / 2.0;
    surface.set_fill(Some(ink()));
    faces.bold.draw(surface, &title.partner, MARGIN, 48.0, 14.0, half - GAP, Align::Left);
    faces.regular.draw(surface, "Invoices of managed tenants", MARGIN, 64.0, 9.0, half - GAP, Align::Left);
    let period = format!("{} to {}", title.from, title.to);
    faces.bold.draw(surface, &period, MARGIN + half, 48.0, 11.0, half, Align::Right);
    surface.set_fill(Some(grey(90)));
    let made = title.made.strftime("Made on %Y-%m-%d at %H:%M UTC · days in UTC").to_string();
    faces.regular.draw(surface, &made, MARGIN + half, 64.0, 7.5, half, Align::Right);
    let foot = HEIGHT - FOOT / 2.0;
    let note = "Statuses and balances as of the day this was made. Currencies are never added together.";
    faces.regular.draw(surface, note, MARGIN, foot, 7.0, INNER * 0.7, Align::Left);
    let number = format!("Page {page} of {pages}");
    faces.regular.draw(surface, &number, MARGIN + half, foot, 7.0, half, Align::Right);
    surface.set_fill(Some(ink()));
}

fn head(surface: &mut Surface<'_>, bold: &Face, places: &[Place]) {
    bar(surface, TABLE_TOP - ROW - 3.0, ROW + 1.0, grey(222));
    for place in places {
        bold.draw(surface, heading(place.column), place.left, TABLE_TOP - 7.0, SIZE, place.width, align(place.column));
    }
}

fn draw(surface: &mut Surface<'_>, faces: &Faces, places: &[Place], row: &Row<'_>, y: f32, line: usize) {
    match row {
        Row::Empty => {}
        Row::Nothing => {
            let text = "There are no invoices in this period.";
            faces.regular.draw(surface, text, MARGIN, y, 9.0, INNER, Align::Left);
        }
        Row::Invoice(invoice) => {
            if line % 2 == 1 {
                bar(surface, y - ROW * 0.7, ROW, grey(246));
            }
            for (place, text) in places.iter().zip(&invoice.cells) {
                let align = align(place.column);
                let text = if align == Align::Right { grouped(text).into() } else { Cow::Borrowed(&**text) };
                faces.regular.draw(surface, &text, place.left, y, SIZE, place.width, align);
            }
        }
        Row::Item([description, quantity, price, total]) => {
            surface.set_fill(Some(grey(90)));
            let column = INNER / 8.0;
            let at = |n: f32| MARGIN + n * column;
            faces.regular.draw(surface, description, at(0.0) + 14.0, y, 7.0, 4.0 * column - 14.0 - GAP, Align::Left);
            // Without a head of their own: `2 × 45.00` says what it is.
            let times = match (&**quantity, &**price) {
                ("", price) => price.to_owned(),
                (quantity, "") => format!("{quantity} ×"),
                (quantity, price) => format!("{quantity} × {}", grouped(price)),
            };
            faces.regular.draw(surface, &times, at(4.0), y, 7.0, 2.0 * column - GAP, Align::Right);
            faces.regular.draw(surface, &grouped(total), at(6.0), y, 7.0, column - GAP, Align::Right);
            surface.set_fill(Some(ink()));
        }
        Row::TotalsHead => {
            bar(surface, y - ROW * 0.75, ROW, grey(222));
            totals_row(surface, &faces.bold, ["Totals", "Invoices", "Total", "Paid", "Balance"], y);
        }
        Row::Totals(currency, sums) => {
            let amounts = [sums.total, sums.paid, sums.balance].map(|amount| grouped(&money(amount, *currency)));
            let [total, paid, balance] = &amounts;
            let count = grouped(&sums.invoices.to_string());
            totals_row(surface, &faces.bold, [currency.as_str(), &count, total, paid, balance], y);
        }
    }
}

/// A number with a comma before each three digits of its whole part: what it is on paper is read by people.
fn grouped(number: &str) -> String {
    let digits = number.find(|c: char| c.is_ascii_digit()).unwrap_or(number.len());
    let (sign, number) = number.split_at(digits);
    let (whole, part) = number.find('.').map_or((number, ""), |at| number.split_at(at));
    let mut out = sign.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + part
}

fn totals_row(surface: &mut Surface<'_>, face: &Face, texts: [&str; 5], y: f32) {
    let column = INNER / 5.0;
    for (at, text) in texts.into_iter().enumerate() {
        let align = if at == 0 { Align::Left } else { Align::Right };
        face.draw(surface, text, MARGIN + at as f32 * column, y, 8.5, column - GAP, align);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_grouped_by_three_digits() {
        for (plain, printed) in [
            ("", ""),
            ("0.00", "0.00"),
            ("999.10", "999.10"),
            ("-1000.00", "-1,000.00"),
            ("1234567.891", "1,234,567.891"),
            ("123456", "123,456"),
        ] {
            assert_eq!(grouped(plain), printed);
        }
    }
}
