//! The questions, one method each.

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rust_decimal::Decimal;
use tokio::time::Instant;

use super::{Each, InvoiceFilter, Scanned, Site, SourceError, Sources, TicketFilter, list::Listing};
use crate::{
    connector::{
        ResourceKind,
        answer::Kind,
        fields::{InvoiceField, TicketField},
        rows::{BreachRow, InvoiceRow, InvoiceStatus, MetricsRow, TenantRow, TicketRow, UptimeDay, UsageRow},
        template::{Placeholder, Values},
    },
    domain::moment::midnight,
    portal::query::Period,
};

impl Sources {
    /// The registry's word on the tenant.
    pub async fn tenant(&self, site: &Site, until: Instant) -> Result<TenantRow, SourceError> {
        self.one(site, ResourceKind::Tenant, Values::default(), until).await
    }

    pub async fn metrics(&self, site: &Site, until: Instant) -> Result<MetricsRow, SourceError> {
        self.one(site, ResourceKind::Metrics, Values::default(), until).await
    }

    /// Every invoice that fits, at least; bounded by `max_rows_per_source`.
    pub async fn invoices(
        &self,
        site: &Site,
        filter: &InvoiceFilter,
        until: Instant,
        each: Each<'_, InvoiceRow>,
    ) -> Result<Scanned, SourceError> {
        self.invoice_list(site, filter, self.max_rows, until, each).await
    }

    /// The same without that bound, for files: pages are read one after the other, however many there are.
    pub async fn every_invoice(
        &self,
        site: &Site,
        filter: &InvoiceFilter,
        until: Instant,
        each: Each<'_, InvoiceRow>,
    ) -> Result<Scanned, SourceError> {
        self.invoice_list(site, filter, u64::MAX, until, each).await
    }

    async fn invoice_list(
        &self,
        site: &Site,
        filter: &InvoiceFilter,
        most: u64,
        until: Instant,
        each: Each<'_, InvoiceRow>,
    ) -> Result<Scanned, SourceError> {
        let route = self.table.route(site.tenant(), ResourceKind::Invoices)?;
        let mut values = filter.period.map_or_else(Values::default, within);
        let mut wanted: Vec<InvoiceStatus> = filter.status.clone();
        // What a service calls open may be overdue by now, and the other way round where its job was early.
        if wanted.iter().any(|status| matches!(status, InvoiceStatus::Finalized | InvoiceStatus::Overdue)) {
            wanted.extend([InvoiceStatus::Finalized, InvoiceStatus::Overdue]);
        }
        let wanted: Vec<&str> = wanted.into_iter().map(InvoiceStatus::as_str).collect();
        only(&mut values, Placeholder::Status, &wanted, |ours| route.resource.their_words(InvoiceField::Status, ours));
        let lines = filter.line_items;
        self.list(site, Listing { kind: ResourceKind::Invoices, values, lines, most }, until, each).await
    }

    pub async fn tickets(
        &self,
        site: &Site,
        filter: &TicketFilter,
        until: Instant,
        each: Each<'_, TicketRow>,
    ) -> Result<Scanned, SourceError> {
        let route = self.table.route(site.tenant(), ResourceKind::Tickets)?;
        let mut values = Values::default();
        let status: Vec<&str> = filter.status.iter().map(|word| word.as_str()).collect();
        let priority: Vec<&str> = filter.priority.iter().map(|word| word.as_str()).collect();
        only(&mut values, Placeholder::Status, &status, |ours| route.resource.their_words(TicketField::Status, ours));
        only(&mut values, Placeholder::Priority, &priority, |ours| {
            route.resource.their_words(TicketField::Priority, ours)
        });
        self.list(site, Listing { kind: ResourceKind::Tickets, values, lines: false, most: self.max_rows }, until, each)
            .await
    }

    /// One ticket; `None` where the tenant has none of this id: the service says so, takes no such id (422, where ids
    /// are UUIDs), or answers with something that is not the ticket of this id.
    pub async fn ticket(&self, site: &Site, id: &str, until: Instant) -> Result<Option<TicketRow>, SourceError> {
        let route = self.table.route(site.tenant(), ResourceKind::Ticket)?;
        let values = Values::default().with(Placeholder::TenantId, site.tenant().as_str()).with(Placeholder::Id, id);
        // An id that cannot stand in a path names no ticket.
        let Ok(outgoing) = route.resource.request(&values) else { return Ok(None) };
        let answer = self.client.exchange(site, route, &route.upstream, &outgoing, until).await;
        let answer = answer.map_err(|unsaid| unsaid.error)?;
        if answer.judges_the_question() {
            return Ok(None);
        }
        let body = answer.good(site, route)?;
        let read = route.resource.read_ticket(&body, site.tenant(), id);
        read.map_err(|misfit| route.wrong(site.tenant(), misfit))
    }

    /// Traffic in the period.
    pub async fn usage(&self, site: &Site, period: Period, until: Instant) -> Result<UsageRow, SourceError> {
        self.one(site, ResourceKind::Usage, within(period), until).await
    }

    /// One row a day, each day of the period at most once. `target`: per cent, for services that want one.
    pub async fn uptime(
        &self,
        site: &Site,
        period: Period,
        target: Decimal,
        until: Instant,
    ) -> Result<Vec<UptimeDay>, SourceError> {
        let route = self.table.route(site.tenant(), ResourceKind::Uptime)?;
        let mut days: Vec<UptimeDay> = Vec::new();
        for part in parts(period, route.resource.max_days) {
            let (first, last) = (part.first_day(), part.last_day());
            let values = within(part).with(Placeholder::Target, target.normalize().to_string());
            let listing = Listing { kind: ResourceKind::Uptime, values, lines: false, most: self.max_rows };
            let known = days.len();
            // A service that takes the end for a day of its own tells one day more.
            let mut take = |day: UptimeDay| {
                if first <= day.date && day.date <= last {
                    days.push(day);
                }
            };
            let scanned = self.list(site, listing, until, &mut take).await?;
            if scanned.truncated {
                return Err(route.wrong(site.tenant(), "more rows than one source may have"));
            }
            let part = days.get_mut(known..).unwrap_or_default();
            part.sort_unstable_by_key(|day| day.date);
            if part.windows(2).any(|pair| matches!(pair, [one, next] if one.date == next.date)) {
                return Err(route.wrong(site.tenant(), "a day stands twice"));
            }
        }
        Ok(days)
    }

    pub async fn breaches(
        &self,
        site: &Site,
        until: Instant,
        each: Each<'_, BreachRow>,
    ) -> Result<Scanned, SourceError> {
        let listing =
            Listing { kind: ResourceKind::Breaches, values: Values::default(), lines: false, most: self.max_rows };
        self.list(site, listing, until, each).await
    }

    /// An answer that is one row.
    async fn one<R: Kind + Send>(
        &self,
        site: &Site,
        kind: ResourceKind,
        values: Values,
        until: Instant,
    ) -> Result<R, SourceError> {
        let route = self.table.route(site.tenant(), kind)?;
        let values = values.with(Placeholder::TenantId, site.tenant().as_str());
        let body = self.ask(site, route, &values, until).await?;
        let read = route.resource.read_one(&body, site.tenant());
        let (row, suspicious) = read.map_err(|misfit| route.wrong(site.tenant(), misfit))?;
        self.doubt(site, route, &values, &suspicious, until).await?;
        Ok(row)
    }
}

/// Both forms of both ends, for the service to take what it knows.
fn within(period: Period) -> Values {
    let naive = |at: Timestamp| at.to_zoned(TimeZone::UTC).datetime().to_string();
    let last = period.last_day();
    Values::default()
        .with(Placeholder::From, period.from.to_string())
        .with(Placeholder::To, period.to.to_string())
        .with(Placeholder::FromNaive, naive(period.from))
        .with(Placeholder::ToNaive, naive(period.to))
        .with(Placeholder::FromDay, period.first_day().to_string())
        .with(Placeholder::ToDay, last.to_string())
        .with(Placeholder::NextDay, last.saturating_add(1.day()).to_string())
}

/// These services take one word: it is sent where exactly one of theirs means what is wanted.
fn only(values: &mut Values, place: Placeholder, ours: &[&str], theirs: impl FnOnce(&[&str]) -> Option<Vec<String>>) {
    if ours.is_empty() {
        return;
    }
    if let Some([word]) = theirs(ours).as_deref() {
        values.set(place, word.as_str());
    }
}

/// The period in parts of at most so many days, cut at midnights.
fn parts(period: Period, max_days: Option<i64>) -> Vec<Period> {
    let Some(max_days) = max_days else { return vec![period] };
    let mut parts = Vec::new();
    let mut from = period.from;
    while from < period.to {
        let day = from.to_zoned(TimeZone::UTC).date();
        let to = midnight(day.saturating_add(max_days.days())).min(period.to);
        parts.push(Period { from, to });
        from = to;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_periods_are_asked_for_in_parts() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let period = Period { from: at("2026-01-01T06:00:00Z"), to: at("2026-07-01T00:00:00Z") };
        let days: Vec<_> = parts(period, Some(90)).iter().map(|part| (part.from.to_string(), part.days())).collect();
        assert_eq!(
            days,
            [
                ("2026-01-01T06:00:00Z".to_owned(), 90),
                ("2026-04-01T00:00:00Z".to_owned(), 90),
                ("2026-06-30T00:00:00Z".to_owned(), 1)
            ]
        );
        assert_eq!(parts(period, None), [period]);
        assert_eq!(parts(period, Some(181)), [period]);
    }

    #[test]
    fn one_word_is_sent_and_several_are_not() {
        let sent = |theirs: Option<Vec<String>>, ours: &[&str]| {
            let mut values = Values::default();
            only(&mut values, Placeholder::Status, ours, |_| theirs);
            values.get(Placeholder::Status).cloned()
        };
        let words = |list: &[&str]| Some(list.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(sent(words(&["waiting"]), &["pending"]), Some("waiting".into()));
        assert_eq!(sent(words(&["open", "in_progress"]), &["open"]), None);
        assert_eq!(sent(words(&[]), &["pending"]), None);
        assert_eq!(sent(None, &["pending"]), None);
        assert_eq!(sent(words(&["waiting"]), &[]), None);
    }
}
