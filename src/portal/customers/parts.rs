//! What is asked of one tenant for its figures.

use jiff::{Timestamp, civil::Date};
use rust_decimal::Decimal;

use crate::{
    connector::rows::{BreachRow, InvoiceRow, InvoiceStatus, MetricsRow, TenantRow, TicketRow, TicketStatus},
    domain::{Currency, money::Number},
    portal::{
        Granted,
        fanout::{Kind, Loaded, Outcome, Part, Reading},
        invoice,
        merge::Seen,
        partial::Source,
        query::Period,
        reports::sla::{self, Uptime},
        sources::{InvoiceFilter, TicketFilter},
    },
};

/// Days that "30d" in a field's name means.
const DAYS: i64 = 30;
/// The target does not change what the days are; services want one.
const TARGET: Decimal = Decimal::from_parts(999, 0, 0, false, 1);

/// What one tenant's invoices come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Balance {
    /// Invoices and what is owed, each currency by itself.
    currencies: Vec<(Currency, u64, Decimal)>,
    /// Of the latest invoice that was issued and not cancelled.
    pub(super) last_invoice: Option<Timestamp>,
}

impl Balance {
    fn count(&mut self, row: &InvoiceRow, today: Date) {
        let owed = invoice::outstanding(row, today);
        match self.currencies.iter_mut().find(|(currency, ..)| *currency == row.currency) {
            Some((_, count, sum)) => {
                *count += 1;
                *sum += owed;
            }
            None => self.currencies.push((row.currency, 1, owed)),
        }
        if !matches!(row.status, InvoiceStatus::Draft | InvoiceStatus::Cancelled) {
            self.last_invoice = self.last_invoice.max(Some(row.invoice_date));
        }
    }

    /// The currency of most of the tenant's invoices, the first by its letters among equals; never a sum over several.
    pub(super) fn main(&self) -> Option<(Currency, Decimal)> {
        let most = self.currencies.iter().max_by(|(one, few, _), (other, many, _)| few.cmp(many).then(other.cmp(one)));
        most.map(|(currency, _, owed)| (*currency, *owed))
    }

    /// What is owed in the main currency; zero where there are no invoices.
    pub(super) fn outstanding(&self) -> Decimal {
        self.main().map_or(Decimal::ZERO, |(_, owed)| owed)
    }

    pub(super) fn number(&self) -> Number {
        let (currency, owed) = self.main().unwrap_or((Currency::USD, Decimal::ZERO));
        Number::money(owed, currency)
    }
}

pub(super) fn registry() -> Part<TenantRow> {
    Part::new(Kind::Registry, &"row", |upstreams, site, until| async move {
        let value = upstreams.tenant(&site, until).await?;
        let bytes = size_of::<TenantRow>() + texts(&value);
        Ok(Loaded { value, truncated: false, bytes })
    })
}

/// Bytes of a row's texts: a service chooses how long they are.
fn texts(row: &TenantRow) -> usize {
    let names = [&row.name, &row.slug, &row.domain, &row.status, &row.plan_type, &row.billing_cycle, &row.email];
    let places = [&row.phone, &row.billing_email, &row.address_line1, &row.city, &row.state_province];
    let texts = names.into_iter().chain(places).chain([&row.postal_code, &row.country]);
    row.tenant_id.len() + texts.flatten().map(String::len).sum::<usize>()
}

pub(super) fn balance(today: Date) -> Part<Balance> {
    Part::new(Kind::Invoices, &today, move |upstreams, site, until| async move {
        let mut balance = Balance::default();
        let mut seen = Seen::default();
        let mut each = |row: InvoiceRow| {
            if seen.is_new(&row.invoice_id) {
                balance.count(&row, today);
            }
        };
        let scanned = upstreams.invoices(&site, &InvoiceFilter::default(), until, &mut each).await?;
        Ok(Loaded { value: balance, truncated: scanned.truncated, bytes: 100 })
    })
}

fn metrics() -> Part<MetricsRow> {
    Part::new(Kind::Metrics, &"row", |upstreams, site, until| async move {
        Ok(Loaded { value: upstreams.metrics(&site, until).await?, truncated: false, bytes: 100 })
    })
}

/// Tickets of status `open`.
fn open_tickets() -> Part<u64> {
    Part::new(Kind::Tickets, &"open", |upstreams, site, until| async move {
        let filter = TicketFilter { status: vec![TicketStatus::Open], ..TicketFilter::default() };
        let mut seen = Seen::default();
        let mut open = 0;
        let mut each = |row: TicketRow| {
            if row.status == TicketStatus::Open && seen.is_new(&row.ticket_id) {
                open += 1;
            }
        };
        let scanned = upstreams.tickets(&site, &filter, until, &mut each).await?;
        Ok(Loaded { value: open, truncated: scanned.truncated, bytes: 8 })
    })
}

/// Breaches that were detected in the period.
fn breaches(period: Period) -> Part<u64> {
    Part::new(Kind::Breaches, &period, move |upstreams, site, until| async move {
        let mut seen = Seen::default();
        let mut count = 0;
        let mut each = |row: BreachRow| {
            if period.holds(row.detected_at) && seen.is_new(&row.breach_id) {
                count += 1;
            }
        };
        let scanned = upstreams.breaches(&site, until, &mut each).await?;
        Ok(Loaded { value: count, truncated: scanned.truncated, bytes: 8 })
    })
}

/// One tenant's figures; `None`: no source says.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) metrics: MetricsRow,
    pub(super) balance: Option<Balance>,
    pub(super) open_tickets: Option<u64>,
    pub(super) breaches: Option<u64>,
    /// Asked for by the detail only.
    pub(super) uptime: Option<Uptime>,
}

impl Figures {
    /// Monthly recurring revenue, in its own currency or that of most invoices.
    pub(super) fn mrr(&self) -> Option<Number> {
        let main = || self.balance.as_ref().and_then(Balance::main).map(|(currency, _)| currency);
        let currency = self.metrics.currency.or_else(main).unwrap_or(Currency::USD);
        self.metrics.current_mrr.map(|amount| Number::money(amount, currency))
    }
}

/// The questions whose answers make the figures.
pub(super) struct Parts {
    metrics: Part<MetricsRow>,
    pub(super) balance: Part<Balance>,
    open_tickets: Part<u64>,
    breaches: Part<u64>,
    uptime: Option<Part<Uptime>>,
}

impl Parts {
    pub(super) fn new(now: Timestamp, with_uptime: bool) -> Self {
        let period = Period::last_days(DAYS, now);
        Self {
            metrics: metrics(),
            balance: balance(crate::portal::periods::day(now)),
            open_tickets: open_tickets(),
            breaches: breaches(period),
            uptime: with_uptime.then(|| sla::uptime(period, TARGET)),
        }
    }

    /// All figures of one tenant at once, and how each question ended.
    pub(super) async fn read(&self, reading: &Reading<'_>, granted: &Granted) -> (Figures, Vec<Source>) {
        let uptime = async {
            match &self.uptime {
                Some(part) => Some(reading.optional(part, granted).await),
                None => None,
            }
        };
        let (metrics, balance, open_tickets, breaches, uptime) = tokio::join!(
            reading.optional(&self.metrics, granted),
            reading.optional(&self.balance, granted),
            reading.optional(&self.open_tickets, granted),
            reading.optional(&self.breaches, granted),
            uptime,
        );
        let mut ends = vec![
            told(&metrics, granted, Kind::Metrics),
            told(&balance, granted, Kind::Invoices),
            told(&open_tickets, granted, Kind::Tickets),
            told(&breaches, granted, Kind::Breaches),
        ];
        ends.extend(uptime.as_ref().map(|outcome| told(outcome, granted, Kind::Uptime)));
        let figures = Figures {
            metrics: metrics.value.map(|row| (*row).clone()).unwrap_or_default(),
            balance: balance.value.map(|balance| (*balance).clone()),
            open_tickets: open_tickets.value.map(|count| *count),
            breaches: breaches.value.map(|count| *count),
            uptime: uptime.and_then(|outcome| outcome.value).map(|uptime| (*uptime).clone()),
        };
        (figures, ends)
    }
}

/// How a question ended, with its kind in the message: several go into one source.
pub(super) fn told<T>(outcome: &Outcome<T>, granted: &Granted, kind: Kind) -> Source {
    let mut source = outcome.source(granted);
    source.error = source.error.map(|error| format!("{}: {error}", kind.as_str()));
    source
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::invoice::tests::row;

    fn today() -> Date {
        "2026-04-01".parse().unwrap()
    }

    #[test]
    fn a_balance_is_in_the_currency_of_most_invoices() {
        let euro = |id: &str, balance| InvoiceRow {
            currency: "EUR".parse().unwrap(),
            ..row(id, InvoiceStatus::Finalized, 1_000, balance)
        };
        let mut balance = Balance::default();
        assert_eq!(balance.number().to_string(), "0.00");
        balance.count(&row("1", InvoiceStatus::Finalized, 900, 900), today());
        balance.count(&euro("2", 100), today());
        assert_eq!(balance.main(), Some(("EUR".parse().unwrap(), Decimal::new(100, 2))), "EUR before USD");
        balance.count(&row("3", InvoiceStatus::Paid, 500, 0), today());
        assert_eq!(balance.main(), Some((Currency::USD, Decimal::new(900, 2))));
    }

    #[test]
    fn the_last_invoice_is_one_that_was_issued() {
        let at = |row: InvoiceRow, date: &str| InvoiceRow { invoice_date: date.parse().unwrap(), ..row };
        let mut balance = Balance::default();
        balance.count(&at(row("1", InvoiceStatus::Draft, 1, 1), "2026-03-30T00:00:00Z"), today());
        assert_eq!(balance.last_invoice, None);
        balance.count(&at(row("2", InvoiceStatus::Paid, 1, 0), "2026-03-20T00:00:00Z"), today());
        balance.count(&at(row("3", InvoiceStatus::Finalized, 1, 1), "2026-03-10T00:00:00Z"), today());
        assert_eq!(balance.last_invoice.unwrap().to_string(), "2026-03-20T00:00:00Z");
    }

    #[test]
    fn the_target_is_the_usual_one() {
        assert_eq!(TARGET, Decimal::new(999, 1));
    }
}
