//! `GET /billing/invoices`: every invoice of the period over all tenants, filtered, sorted, added up.
//!
//! Sums over the whole filtered set are given where all of it is in one currency; else they are null, since amounts are
//! never added across currencies. `outstanding_amount` is the balance of finalized and overdue invoices.

use std::{cmp::Ordering, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use jiff::{Timestamp, civil::Date};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Serialize;

use super::Needle;
use crate::{
    connector::rows::{InvoiceRow, InvoiceStatus},
    domain::{Currency, ErrorCode, TenantId, money::Number},
    portal::{
        Call, Narrow, Portal, Prepared, Problem, Question, Reply,
        fanout::{Kind, Loaded, Part, Upstreams},
        invoice,
        merge::{
            Aggregated, List, Order, Ranked, Seen, Sorted, TopRows, exact, has_more, kept_depth, nothing_known, page,
        },
        partial::{Coverage, Wish},
        periods::day,
        query::{Paging, Params, Period},
        sources::{InvoiceFilter, Site, SourceError},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum By {
    Date,
    Amount,
    Status,
}

const BY: &[(&str, By)] = &[("invoice_date", By::Date), ("amount", By::Amount), ("status", By::Status)];

/// Which invoices, in which order, how many of each source: all that a slice depends on.
#[derive(Clone, Debug)]
struct Wanted {
    period: Period,
    status: Vec<InvoiceStatus>,
    min_amount: Option<Decimal>,
    max_amount: Option<Decimal>,
    search: Option<Needle>,
    order: Order<By>,
    depth: usize,
    /// What is overdue is told by it.
    today: Date,
}

struct Invoices {
    wanted: Wanted,
    tenants: Option<Vec<TenantId>>,
    paging: Paging,
    wish: Wish,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let period = params.period(question.now);
    let words: Vec<_> = InvoiceStatus::ALL.iter().map(|status| (status.as_str(), *status)).collect();
    let status = params.words("status", &words).unwrap_or_default();
    let tenants = params.tenant_ids();
    let (min_amount, max_amount) = (params.decimal("min_amount"), params.decimal("max_amount"));
    if let (Some(min), Some(max)) = (min_amount, max_amount)
        && min > max
    {
        params.fail("min_amount", "must not be above max_amount");
    }
    let search = params.search("search").map(|text| Needle::new(&text));
    let (by, descending) = params.sort(BY, By::Date, true);
    let paging = params.paging();
    let wish = Wish::read(&mut params);
    params.finish()?;
    let order = Order { by, descending };
    let (depth, today) = (kept_depth(paging), day(question.now));
    let wanted = Wanted { period, status, min_amount, max_amount, search, order, depth, today };
    Ok(Box::new(Invoices { wanted, tenants, paging, wish }))
}

/// One invoice with the status of today.
#[derive(Debug)]
struct Invoice {
    row: InvoiceRow,
    days_overdue: Option<i64>,
}

impl Sorted for Invoice {
    type By = By;

    fn id(&self) -> &str {
        &self.row.invoice_id
    }

    fn texts(&self) -> Vec<Option<&str>> {
        let row = &self.row;
        let texts = [&row.invoice_number, &row.customer_id, &row.customer_name];
        [Some(self.id())].into_iter().chain(texts.into_iter().map(Option::as_deref)).collect()
    }

    fn compare(&self, other: &Self, order: Order<By>) -> Ordering {
        match order.by {
            By::Date => order.of(&self.row.invoice_date, &other.row.invoice_date),
            By::Amount => order.of(&self.row.total, &other.row.total),
            By::Status => order.of(self.row.status.as_str(), other.row.status.as_str()),
        }
    }
}

impl Wanted {
    fn holds(&self, row: &InvoiceRow) -> bool {
        let found = |needle: &Needle| {
            let texts = [&row.invoice_number, &row.customer_id, &row.customer_name];
            needle.is_in(texts.into_iter().map(Option::as_deref).chain([Some(&*row.invoice_id)]))
        };
        self.period.holds(row.invoice_date)
            && (self.status.is_empty() || self.status.contains(&row.status))
            && self.min_amount.is_none_or(|min| row.total >= min)
            && self.max_amount.is_none_or(|max| row.total <= max)
            && self.search.as_ref().is_none_or(found)
    }

    async fn read(&self, upstreams: &dyn Upstreams, site: &Site, until: tokio::time::Instant) -> Read {
        let filter = InvoiceFilter { period: Some(self.period), status: self.status.clone(), line_items: false };
        let mut top = TopRows::new(self.depth, self.order);
        let mut totals = Totals::default();
        let mut seen = Seen::default();
        let mut each = |mut row: InvoiceRow| {
            let days_overdue = invoice::days_overdue(&row, self.today);
            row.status = invoice::status(&row, self.today);
            if self.holds(&row) && seen.is_new(&row.invoice_id) {
                totals.count(&row, self.today);
                top.push(site.tenant(), Invoice { row, days_overdue });
            }
        };
        let scanned = upstreams.invoices(site, &filter, until, &mut each).await?;
        let rows = top.into_shared();
        let bytes = rows.iter().map(|row| row.bytes()).sum();
        Ok(Loaded { value: Slice { rows, totals }, truncated: scanned.truncated, bytes })
    }
}

type Read = Result<Loaded<Slice>, SourceError>;

/// One tenant's part of the list.
#[derive(Debug)]
struct Slice {
    rows: Vec<Arc<Invoice>>,
    totals: Totals,
}

/// Sums of a set of invoices, each currency by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Totals {
    count: u64,
    sums: Vec<(Currency, Sums)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    total: Decimal,
    paid: Decimal,
    outstanding: Decimal,
}

impl Totals {
    fn of(&mut self, currency: Currency) -> Option<&mut Sums> {
        let at = self.sums.iter().position(|(known, _)| *known == currency).unwrap_or_else(|| {
            self.sums.push((currency, Sums::default()));
            self.sums.len() - 1
        });
        self.sums.get_mut(at).map(|(_, sums)| sums)
    }

    fn count(&mut self, row: &InvoiceRow, today: Date) {
        self.count += 1;
        let outstanding = invoice::outstanding(row, today);
        self.add(row.currency, Sums { total: row.total, paid: row.paid_amount, outstanding });
    }

    fn add(&mut self, currency: Currency, more: Sums) {
        if let Some(sums) = self.of(currency) {
            sums.total += more.total;
            sums.paid += more.paid;
            sums.outstanding += more.outstanding;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        for (currency, sums) in &other.sums {
            self.add(*currency, *sums);
        }
    }

    /// Null where amounts of several currencies would have to be added.
    fn aggregates(&self, unknown: bool) -> Aggregates {
        let one = match self.sums.as_slice() {
            _ if unknown => None,
            [] => Some((Currency::USD, Sums::default())),
            [one] => Some(*one),
            _ => None,
        };
        let amount = |of: fn(&Sums) -> Decimal| one.map(|(currency, sums)| Number::money(of(&sums), currency));
        Aggregates {
            total_amount: amount(|sums| sums.total),
            paid_amount: amount(|sums| sums.paid),
            outstanding_amount: amount(|sums| sums.outstanding),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InvoiceAggregates")]
pub(in crate::portal) struct Aggregates {
    total_amount: Option<Number>,
    paid_amount: Option<Number>,
    outstanding_amount: Option<Number>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Invoice")]
pub(in crate::portal) struct Item<'a> {
    invoice_id: &'a str,
    invoice_number: Option<&'a str>,
    tenant_id: &'a TenantId,
    tenant_name: Option<&'a str>,
    customer_id: Option<&'a str>,
    customer_name: Option<&'a str>,
    invoice_date: Timestamp,
    due_date: Option<Timestamp>,
    status: InvoiceStatus,
    subtotal: Option<Number>,
    tax: Option<Number>,
    total: Number,
    paid_amount: Number,
    balance: Number,
    currency: Currency,
    payment_date: Option<Timestamp>,
    days_overdue: Option<i64>,
    created_at: Option<Timestamp>,
}

fn item<'a>(found: &'a Ranked<Invoice>, tenant_name: Option<&'a str>) -> Item<'a> {
    let row = &found.row.row;
    let money = |amount| Number::money(amount, row.currency);
    Item {
        invoice_id: &row.invoice_id,
        invoice_number: row.invoice_number.as_deref(),
        tenant_id: &found.tenant,
        tenant_name,
        customer_id: row.customer_id.as_deref(),
        customer_name: row.customer_name.as_deref(),
        invoice_date: row.invoice_date,
        due_date: row.due_date,
        status: row.status,
        subtotal: row.subtotal.map(money),
        tax: row.tax.map(money),
        total: money(row.total),
        paid_amount: money(row.paid_amount),
        balance: money(row.balance),
        currency: row.currency,
        payment_date: row.payment_date,
        days_overdue: found.row.days_overdue,
        created_at: row.created_at,
    }
}

impl Prepared for Invoices {
    fn narrow(&self) -> Narrow<'_> {
        (&self.tenants).into()
    }

    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let Self { wanted, paging, wish, .. } = *self;
            let managed = portal.managed.of(&call.partner()?.portfolio).await?;
            let depth = usize::try_from(paging.offset + paging.limit)
                .map_err(|_| Problem::new(ErrorCode::InternalError, ""))?;
            let mut top = TopRows::new(depth, wanted.order);
            let mut totals = Totals::default();
            let wanted = Arc::new(wanted);
            let part = Part::new(Kind::Invoices, &Arc::clone(&wanted), move |upstreams, site, until| {
                let wanted = Arc::clone(&wanted);
                async move { wanted.read(&*upstreams, &site, until).await }
            });
            let reading = portal.reading(&call);
            let merged = |granted: &crate::portal::Granted, slice: &Arc<Slice>| {
                totals.merge(&slice.totals);
                top.absorb(granted.tenant(), &slice.rows);
            };
            let sources = reading.all(&part, &mut { merged }).await;
            let (total_exact, unknown) = (exact(&sources), nothing_known(&sources));
            let (coverage, outcomes) = Coverage::of(&call, wish, sources)?;
            let rows: Vec<_> = page(top.into_rows(), paging).collect();
            let name = |tenant: &TenantId| managed.get(tenant).map(|managed| &*managed.tenant.name);
            let list = List {
                items: rows.iter().map(|found| item(found, name(&found.tenant))).collect(),
                total: totals.count,
                limit: paging.limit,
                offset: paging.offset,
                has_more: has_more(totals.count, paging),
                total_exact,
                more: Aggregated { aggregates: totals.aggregates(unknown) },
                coverage,
            };
            Ok(Reply::json(200, &list)?.with_slices(outcomes))
        }
        .boxed()
    }
}

/// What is answered, for the API's description.
pub(in crate::portal) type Answer = List<Item<'static>, Aggregated<Aggregates>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::invoice::tests::row;

    fn today() -> Date {
        "2026-04-01".parse().unwrap()
    }

    fn json(totals: &Totals) -> String {
        serde_json::to_string(&totals.aggregates(false)).unwrap()
    }

    #[test]
    fn sums_are_exact_and_never_cross_currencies() {
        let mut totals = Totals::default();
        assert_eq!(json(&totals), r#"{"total_amount":0.00,"paid_amount":0.00,"outstanding_amount":0.00}"#);
        totals.count(&row("1", InvoiceStatus::Finalized, 1_010, 310), today());
        totals.count(&row("2", InvoiceStatus::Draft, 20, 20), today());
        let mut merged = totals.clone();
        merged.merge(&totals);
        assert_eq!(merged.count, 4);
        assert_eq!(json(&merged), r#"{"total_amount":20.60,"paid_amount":14.00,"outstanding_amount":6.20}"#);
        let yen = InvoiceRow { currency: "JPY".parse().unwrap(), ..row("3", InvoiceStatus::Paid, 100, 0) };
        merged.count(&yen, today());
        assert_eq!(json(&merged), r#"{"total_amount":null,"paid_amount":null,"outstanding_amount":null}"#);
        assert_eq!(merged.count, 5);
    }

    #[test]
    fn unknown_is_not_zero() {
        let unknown = serde_json::to_string(&Totals::default().aggregates(true)).unwrap();
        assert_eq!(unknown, r#"{"total_amount":null,"paid_amount":null,"outstanding_amount":null}"#);
    }
}
