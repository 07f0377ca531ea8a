//! `GET /support/tickets`: every ticket over all tenants, newest first.
//!
//! Without `created_from` and `created_to` the age of a ticket does not matter: an open ticket stays in sight however
//! old it is. `avg_resolution_hours` is the average over tenants of each tenant's own average.

use std::{cmp::Ordering, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Serialize;

use super::Needle;
use crate::{
    connector::rows::{Priority, TicketRow, TicketStatus},
    domain::{ErrorCode, Moment, TenantId, money::Number},
    portal::{
        Call, Granted, Narrow, Portal, Prepared, Problem, Question, Reply,
        fanout::{Kind, Loaded, Part, Upstreams},
        merge::{
            Aggregated, List, Order, Ranked, Seen, Sorted, TopRows, exact, has_more, kept_depth, nothing_known, page,
        },
        partial::{Coverage, Wish},
        query::{Paging, Params, disorder},
        sources::{Site, SourceError, TicketFilter},
    },
};

/// Which tickets, how many of each source.
#[derive(Clone, Debug)]
struct Wanted {
    filter: TicketFilter,
    assigned_to: Option<Vec<String>>,
    created_from: Option<Timestamp>,
    /// Exclusive.
    created_to: Option<Timestamp>,
    search: Option<Needle>,
    depth: usize,
}

struct Tickets {
    wanted: Wanted,
    tenants: Option<Vec<TenantId>>,
    paging: Paging,
    wish: Wish,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let tenants = params.tenant_ids();
    let statuses: Vec<_> = TicketStatus::ALL.iter().map(|status| (status.as_str(), *status)).collect();
    let status = params.words("status", &statuses).unwrap_or_default();
    let priorities: Vec<_> = Priority::ALL.iter().map(|priority| (priority.as_str(), *priority)).collect();
    let priority = params.words("priority", &priorities).unwrap_or_default();
    let assigned_to = params.list("assigned_to");
    let created_from = params.moment("created_from").map(Moment::start);
    let created_to = params.moment("created_to").map(Moment::end);
    if let (Some(from), Some(to)) = (created_from, created_to)
        && let Some(fault) = disorder(from, to, "created_to")
    {
        params.fail("created_from", fault);
    }
    let search = params.search("search").map(|text| Needle::new(&text));
    let paging = params.paging();
    let wish = Wish::read(&mut params);
    params.finish()?;
    let filter = TicketFilter { status, priority };
    let depth = kept_depth(paging);
    let wanted = Wanted { filter, assigned_to, created_from, created_to, search, depth };
    Ok(Box::new(Tickets { wanted, tenants, paging, wish }))
}

const NEWEST_FIRST: Order<()> = Order { by: (), descending: true };

impl Sorted for TicketRow {
    type By = ();

    fn id(&self) -> &str {
        &self.ticket_id
    }

    fn texts(&self) -> Vec<Option<&str>> {
        let people = [&self.customer_id, &self.customer_name, &self.assigned_to, &self.assigned_to_name];
        let texts = people.into_iter().chain([&self.ticket_number, &self.subject, &self.category]);
        [Some(self.id())].into_iter().chain(texts.map(Option::as_deref)).collect()
    }

    fn compare(&self, other: &Self, order: Order<()>) -> Ordering {
        order.of_known(self.created_at.as_ref(), other.created_at.as_ref())
    }
}

impl Wanted {
    fn holds(&self, row: &TicketRow) -> bool {
        let found = |needle: &Needle| {
            let texts = [&row.ticket_number, &row.subject, &row.customer_name, &row.customer_id];
            needle.is_in(texts.into_iter().map(Option::as_deref).chain([Some(&*row.ticket_id)]))
        };
        (self.filter.status.is_empty() || self.filter.status.contains(&row.status))
            && (self.filter.priority.is_empty() || row.priority.is_some_and(|it| self.filter.priority.contains(&it)))
            && self.assigned_to.as_ref().is_none_or(|ids| row.assigned_to.as_ref().is_some_and(|id| ids.contains(id)))
            && self.created_from.is_none_or(|from| row.created_at.is_some_and(|at| from <= at))
            && self.created_to.is_none_or(|to| row.created_at.is_some_and(|at| at < to))
            && self.search.as_ref().is_none_or(found)
    }

    async fn read(&self, upstreams: &dyn Upstreams, site: &Site, until: tokio::time::Instant) -> Read {
        let mut top = TopRows::new(self.depth, NEWEST_FIRST);
        let mut totals = Totals::default();
        let mut seen = Seen::default();
        let mut each = |row: TicketRow| {
            if self.holds(&row) && seen.is_new(&row.ticket_id) {
                totals.count(&row);
                top.push(site.tenant(), row);
            }
        };
        let scanned = upstreams.tickets(site, &self.filter, until, &mut each).await?;
        let rows = top.into_shared();
        let bytes = rows.iter().map(|row| row.bytes()).sum();
        Ok(Loaded { value: Slice { rows, totals }, truncated: scanned.truncated, bytes })
    }
}

type Read = Result<Loaded<Slice>, SourceError>;

/// One tenant's part of the list.
#[derive(Debug)]
struct Slice {
    rows: Vec<Arc<TicketRow>>,
    totals: Totals,
}

/// What is counted of one tenant's tickets.
#[derive(Clone, Debug, Default)]
struct Totals {
    count: u64,
    open: u64,
    pending: u64,
    resolved: u64,
    breached: u64,
    /// Tickets of which the source says whether their service level was broken.
    judged: u64,
    resolution_minutes: Decimal,
    resolutions: u64,
}

impl Totals {
    fn count(&mut self, row: &TicketRow) {
        self.count += 1;
        match row.status {
            TicketStatus::Open => self.open += 1,
            TicketStatus::Pending => self.pending += 1,
            TicketStatus::Resolved => self.resolved += 1,
            TicketStatus::Closed => {}
        }
        if let Some(breached) = row.is_sla_breached {
            self.judged += 1;
            self.breached += u64::from(breached);
        }
        if let Some(minutes) = row.resolution_minutes {
            self.resolution_minutes += minutes;
            self.resolutions += 1;
        }
    }

    /// The tenant's own average.
    fn resolution_hours(&self) -> Option<Decimal> {
        (self.resolutions > 0).then(|| self.resolution_minutes / Decimal::from(60 * self.resolutions))
    }
}

/// Sums over all tenants.
#[derive(Debug, Default)]
struct Sum {
    totals: Totals,
    hours: Decimal,
    tenants_with_hours: u64,
}

impl Sum {
    fn add(&mut self, tenant: &Totals) {
        self.totals.count += tenant.count;
        self.totals.open += tenant.open;
        self.totals.pending += tenant.pending;
        self.totals.resolved += tenant.resolved;
        self.totals.breached += tenant.breached;
        self.totals.judged += tenant.judged;
        if let Some(hours) = tenant.resolution_hours() {
            self.hours += hours;
            self.tenants_with_hours += 1;
        }
    }

    fn aggregates(&self, unknown: bool) -> Aggregates {
        let known = |count| (!unknown).then_some(count);
        // Tickets of which none is judged say nothing; no tickets at all have no breach.
        let judged = self.totals.judged > 0 || self.totals.count == 0;
        let average = (self.tenants_with_hours > 0).then(|| self.hours / Decimal::from(self.tenants_with_hours));
        Aggregates {
            open_count: known(self.totals.open),
            pending_count: known(self.totals.pending),
            resolved_count: known(self.totals.resolved),
            sla_breach_count: known(self.totals.breached).filter(|_| judged),
            avg_resolution_hours: average.map(Number::ratio),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TicketAggregates")]
pub(in crate::portal) struct Aggregates {
    open_count: Option<u64>,
    pending_count: Option<u64>,
    resolved_count: Option<u64>,
    sla_breach_count: Option<u64>,
    avg_resolution_hours: Option<Number>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Ticket")]
pub(in crate::portal) struct Item<'a> {
    ticket_id: &'a str,
    ticket_number: Option<&'a str>,
    tenant_id: &'a TenantId,
    tenant_name: Option<&'a str>,
    customer_id: Option<&'a str>,
    customer_name: Option<&'a str>,
    subject: Option<&'a str>,
    status: TicketStatus,
    priority: Option<Priority>,
    category: Option<&'a str>,
    assigned_to: Option<&'a str>,
    assigned_to_name: Option<&'a str>,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
    sla_breach_at: Option<Timestamp>,
    is_sla_breached: Option<bool>,
    last_response_at: Option<Timestamp>,
    response_count: Option<i64>,
}

fn item<'a>(found: &'a Ranked<TicketRow>, tenant_name: Option<&'a str>) -> Item<'a> {
    let row = &*found.row;
    Item {
        ticket_id: &row.ticket_id,
        ticket_number: row.ticket_number.as_deref(),
        tenant_id: &found.tenant,
        tenant_name,
        customer_id: row.customer_id.as_deref(),
        customer_name: row.customer_name.as_deref(),
        subject: row.subject.as_deref(),
        status: row.status,
        priority: row.priority,
        category: row.category.as_deref(),
        assigned_to: row.assigned_to.as_deref(),
        assigned_to_name: row.assigned_to_name.as_deref(),
        created_at: row.created_at,
        updated_at: row.updated_at,
        sla_breach_at: row.sla_breach_at,
        is_sla_breached: row.is_sla_breached,
        last_response_at: row.last_response_at,
        response_count: row.response_count,
    }
}

impl Prepared for Tickets {
    fn narrow(&self) -> Narrow<'_> {
        (&self.tenants).into()
    }

    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let Self { wanted, paging, wish, .. } = *self;
            let managed = portal.managed.of(&call.partner()?.portfolio).await?;
            let depth = usize::try_from(paging.offset + paging.limit)
                .map_err(|_| Problem::new(ErrorCode::InternalError, ""))?;
            let mut top = TopRows::new(depth, NEWEST_FIRST);
            let mut sum = Sum::default();
            let wanted = Arc::new(wanted);
            let part = Part::new(Kind::Tickets, &Arc::clone(&wanted), move |upstreams, site, until| {
                let wanted = Arc::clone(&wanted);
                async move { wanted.read(&*upstreams, &site, until).await }
            });
            let reading = portal.reading(&call);
            let merged = |granted: &Granted, slice: &Arc<Slice>| {
                sum.add(&slice.totals);
                top.absorb(granted.tenant(), &slice.rows);
            };
            let sources = reading.all(&part, &mut { merged }).await;
            let (total_exact, unknown) = (exact(&sources), nothing_known(&sources));
            let (coverage, outcomes) = Coverage::of(&call, wish, sources)?;
            let rows: Vec<_> = page(top.into_rows(), paging).collect();
            let name = |tenant: &TenantId| managed.get(tenant).map(|managed| &*managed.tenant.name);
            let list = List {
                items: rows.iter().map(|found| item(found, name(&found.tenant))).collect(),
                total: sum.totals.count,
                limit: paging.limit,
                offset: paging.offset,
                has_more: has_more(sum.totals.count, paging),
                total_exact,
                more: Aggregated { aggregates: sum.aggregates(unknown) },
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

    fn totals(minutes: &[i64]) -> Totals {
        let resolution_minutes = minutes.iter().copied().map(Decimal::from).sum();
        Totals { resolution_minutes, resolutions: minutes.len() as u64, ..Totals::default() }
    }

    #[test]
    fn the_average_is_unweighted_over_tenants() {
        let mut sum = Sum::default();
        sum.add(&totals(&[60, 60, 60, 60]));
        sum.add(&totals(&[125]));
        sum.add(&totals(&[]));
        // (1 + 2.08333...) / 2 = 1.541666...
        let json = serde_json::to_value(sum.aggregates(false)).unwrap();
        assert_eq!(json["avg_resolution_hours"].to_string(), "1.54");
        assert_eq!(json["sla_breach_count"], 0);
    }

    #[test]
    fn what_no_source_says_is_null() {
        let mut sum = Sum::default();
        sum.add(&Totals { count: 3, open: 3, ..Totals::default() });
        let json = serde_json::to_value(sum.aggregates(false)).unwrap();
        assert_eq!((&json["open_count"], json["sla_breach_count"].is_null()), (&3.into(), true));
        assert!(json["avg_resolution_hours"].is_null());
        assert!(serde_json::to_value(Sum::default().aggregates(true)).unwrap()["open_count"].is_null());
    }
}
