//! `GET /billing/summary`: what was earned in the period, and what is owed as of now, in one currency.
//!
//! Revenue is what was paid by payment date; invoices are counted by invoice date; what is outstanding or overdue, and
//! how many invoices are overdue, is as of now whatever the period. Revenue is shown where
//! `partner.reports.revenue.read` holds: the total adds up the tenants whose link shows it, and is null where none does.
//! `managed_tenant_count` counts the tenants that were asked, those that did not answer included.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use jiff::{Timestamp, civil::Date};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    connector::rows::{InvoiceRow, InvoiceStatus},
    domain::{Currency, TenantId, money::Number},
    portal::{
        Call, Granted, Narrow, Portal, Prepared, Problem, Question, REVENUE, Reply,
        fanout::{Kind, Loaded, Part, Upstreams},
        invoice,
        merge::{Seen, nothing_known},
        partial::{Coverage, Wish},
        periods::day,
        query::{Params, Period},
        sources::{InvoiceFilter, Site, SourceError},
    },
};

/// All that a slice depends on.
#[derive(Clone, Debug)]
struct Wanted {
    period: Period,
    status: Vec<InvoiceStatus>,
    currency: Currency,
    today: Date,
}

struct Summary {
    wanted: Wanted,
    tenants: Option<Vec<TenantId>>,
    wish: Wish,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let period = params.period(question.now);
    let words: Vec<_> = InvoiceStatus::ALL.iter().map(|status| (status.as_str(), *status)).collect();
    let status = params.words("status", &words).unwrap_or_default();
    let tenants = params.tenant_ids();
    let currency = params.parsed("currency", "a currency code: three letters, such as USD").unwrap_or(Currency::USD);
    let wish = Wish::read(&mut params);
    params.finish()?;
    let wanted = Wanted { period, status, currency, today: day(question.now) };
    Ok(Box::new(Summary { wanted, tenants, wish }))
}

/// One tenant's figures, or the sum of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Figures {
    revenue: Decimal,
    outstanding: Decimal,
    overdue: Decimal,
    invoices: u64,
    paid: u64,
    overdue_invoices: u64,
    /// When, which invoice's, how much; the last one of all times.
    last_payment: Option<(Timestamp, String, Decimal)>,
    others: BTreeSet<Currency>,
}

impl Figures {
    fn count(&mut self, row: InvoiceRow, wanted: &Wanted) {
        let status = invoice::status(&row, wanted.today);
        if !wanted.status.is_empty() && !wanted.status.contains(&status) {
            return;
        }
        if row.currency != wanted.currency {
            self.others.insert(row.currency);
            return;
        }
        if wanted.period.holds(row.invoice_date) {
            self.invoices += 1;
            self.paid += u64::from(status == InvoiceStatus::Paid);
        }
        self.outstanding += invoice::outstanding(&row, wanted.today);
        if status == InvoiceStatus::Overdue {
            self.overdue += row.balance;
            self.overdue_invoices += 1;
        }
        if let Some(at) = row.payment_date {
            if wanted.period.holds(at) {
                self.revenue += row.paid_amount;
            }
            let paid = (at, row.invoice_id, row.paid_amount);
            if self.last_payment.as_ref().is_none_or(|last| *last < paid) {
                self.last_payment = Some(paid);
            }
        }
    }

    fn add(&mut self, tenant: &Self) {
        self.outstanding += tenant.outstanding;
        self.overdue += tenant.overdue;
        self.invoices += tenant.invoices;
        self.paid += tenant.paid;
        self.overdue_invoices += tenant.overdue_invoices;
        self.others.extend(&tenant.others);
    }
}

async fn read(wanted: &Wanted, upstreams: &dyn Upstreams, site: &Site, until: tokio::time::Instant) -> Read {
    // All dates: what is owed, and the last payment, may be older than the period.
    let filter = InvoiceFilter { period: None, status: wanted.status.clone(), line_items: false };
    let mut figures = Figures::default();
    let mut seen = Seen::default();
    let mut each = |row: InvoiceRow| {
        if seen.is_new(&row.invoice_id) {
            figures.count(row, wanted);
        }
    };
    let scanned = upstreams.invoices(site, &filter, until, &mut each).await?;
    Ok(Loaded { value: figures, truncated: scanned.truncated, bytes: 300 })
}

type Read = Result<Loaded<Figures>, SourceError>;

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BillingSummary")]
pub(in crate::portal) struct Answer<'a> {
    summary: Total,
    by_tenant: Vec<Tenant<'a>>,
    period: Span,
    #[serde(flatten)]
    coverage: Coverage,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BillingTotal")]
struct Total {
    total_revenue: Option<Number>,
    total_outstanding: Option<Number>,
    total_overdue: Option<Number>,
    invoice_count: Option<u64>,
    paid_invoice_count: Option<u64>,
    overdue_invoice_count: Option<u64>,
    managed_tenant_count: usize,
    currency: Currency,
    other_currencies: BTreeSet<Currency>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TenantBilling")]
struct Tenant<'a> {
    tenant_id: &'a TenantId,
    tenant_name: Option<&'a str>,
    total_revenue: Option<Number>,
    outstanding_balance: Number,
    overdue_amount: Number,
    invoice_count: u64,
    last_payment_date: Option<Timestamp>,
    last_payment_amount: Option<Number>,
}

/// A period in plain days.
#[derive(Serialize, JsonSchema)]
struct Span {
    from_date: Date,
    to_date: Date,
    days: i64,
}

impl Total {
    fn of(asked: usize, tenants: &[(&Granted, Arc<Figures>)], wanted: &Wanted, unknown: bool) -> Self {
        let mut sum = Figures::default();
        let mut revenue = (asked == 0).then_some(Decimal::ZERO);
        for (granted, figures) in tenants {
            sum.add(figures);
            if granted.also(REVENUE) {
                revenue = Some(revenue.unwrap_or_default() + figures.revenue);
            }
        }
        let money = |amount| (!unknown).then(|| Number::money(amount, wanted.currency));
        let count = |count| (!unknown).then_some(count);
        Self {
            total_revenue: revenue.map(|amount| Number::money(amount, wanted.currency)),
            total_outstanding: money(sum.outstanding),
            total_overdue: money(sum.overdue),
            invoice_count: count(sum.invoices),
            paid_invoice_count: count(sum.paid),
            overdue_invoice_count: count(sum.overdue_invoices),
            managed_tenant_count: asked,
            currency: wanted.currency,
            other_currencies: sum.others,
        }
    }
}

impl Prepared for Summary {
    fn narrow(&self) -> Narrow<'_> {
        (&self.tenants).into()
    }

    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let Self { wanted, wish, .. } = *self;
            let managed = portal.managed.of(&call.partner()?.portfolio).await?;
            let wanted = Arc::new(wanted);
            let part = {
                let wanted = Arc::clone(&wanted);
                Part::new(Kind::Invoices, &Arc::clone(&wanted), move |upstreams, site, until| {
                    let wanted = Arc::clone(&wanted);
                    async move { read(&wanted, &*upstreams, &site, until).await }
                })
            };
            let (mut tenants, sources) = portal.reading(&call).collect(&part).await;
            tenants.sort_unstable_by(|(one, _), (other, _)| one.tenant().cmp(other.tenant()));
            let unknown = nothing_known(&sources);
            let asked = sources.len();
            let (coverage, outcomes) = Coverage::of(&call, wish, sources)?;
            let money = |amount| Number::money(amount, wanted.currency);
            let by_tenant = tenants.iter().map(|(granted, figures)| Tenant {
                tenant_id: granted.tenant(),
                tenant_name: managed.get(granted.tenant()).map(|managed| &*managed.tenant.name),
                total_revenue: granted.also(REVENUE).then(|| money(figures.revenue)),
                outstanding_balance: money(figures.outstanding),
                overdue_amount: money(figures.overdue),
                invoice_count: figures.invoices,
                last_payment_date: figures.last_payment.as_ref().map(|(at, ..)| *at),
                last_payment_amount: figures.last_payment.as_ref().map(|(.., amount)| money(*amount)),
            });
            let answer = Answer {
                summary: Total::of(asked, &tenants, &wanted, unknown),
                by_tenant: by_tenant.collect(),
                period: Span {
                    from_date: wanted.period.first_day(),
                    to_date: wanted.period.last_day(),
                    days: wanted.period.days(),
                },
                coverage,
            };
            Ok(Reply::json(200, &answer)?.with_slices(outcomes))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::invoice::tests::row;

    fn wanted() -> Wanted {
        let period =
            Period { from: "2026-03-01T00:00:00Z".parse().unwrap(), to: "2026-04-01T00:00:00Z".parse().unwrap() };
        Wanted { period, status: Vec::new(), currency: Currency::USD, today: "2026-03-20".parse().unwrap() }
    }

    fn at(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    fn figures(rows: Vec<InvoiceRow>, wanted: &Wanted) -> Figures {
        let mut figures = Figures::default();
        rows.into_iter().for_each(|row| figures.count(row, wanted));
        figures
    }

    #[test]
    fn revenue_goes_by_payment_date_counts_by_invoice_date_and_debts_are_of_now() {
        let old = "2025-01-01T00:00:00Z".parse().unwrap();
        let rows = vec![
            row("1", InvoiceStatus::Finalized, 1_000, 400),
            InvoiceRow { invoice_date: old, ..row("2", InvoiceStatus::Finalized, 500, 500) },
            InvoiceRow {
                invoice_date: old,
                payment_date: at("2026-03-02T00:00:00Z"),
                ..row("3", InvoiceStatus::Paid, 70, 0)
            },
            InvoiceRow { payment_date: at("2026-04-02T00:00:00Z"), ..row("4", InvoiceStatus::Paid, 30, 0) },
            InvoiceRow { due_date: at("2026-03-25T00:00:00Z"), ..row("5", InvoiceStatus::Finalized, 20, 20) },
            InvoiceRow { currency: "EUR".parse().unwrap(), ..row("6", InvoiceStatus::Finalized, 9, 9) },
            row("7", InvoiceStatus::Draft, 11, 11),
            row("8", InvoiceStatus::Cancelled, 12, 12),
        ];
        let found = figures(rows, &wanted());
        assert_eq!(found.revenue, Decimal::new(70, 2));
        assert_eq!(found.outstanding, Decimal::new(400 + 500 + 20, 2));
        assert_eq!((found.overdue, found.overdue_invoices), (Decimal::new(900, 2), 2));
        assert_eq!((found.invoices, found.paid), (5, 1));
        let (last, id, amount) = found.last_payment.unwrap();
        assert_eq!((last.to_string(), &*id, amount), ("2026-04-02T00:00:00Z".into(), "4", Decimal::new(30, 2)));
        assert_eq!(found.others.iter().map(Currency::as_str).collect::<Vec<_>>(), ["EUR"]);
    }

    #[test]
    fn a_status_narrows_everything() {
        let wanted = Wanted { status: vec![InvoiceStatus::Overdue], ..wanted() };
        let rows = vec![row("1", InvoiceStatus::Finalized, 1_000, 400), row("2", InvoiceStatus::Paid, 100, 0)];
        let found = figures(rows, &wanted);
        assert_eq!((found.invoices, found.paid, found.overdue_invoices), (1, 0, 1));
    }
}
