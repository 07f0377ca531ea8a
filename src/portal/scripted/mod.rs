//! For tests: services that answer as the test says, and a portal that asks them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use rust_decimal::Decimal;
use tokio::time::Instant;

mod decided;
mod stage;

pub(super) use decided::{Asked, decided, full_link};
pub(super) use stage::{Stage, code, settings, status_of};

use super::{
    fanout::{Kind, Upstreams},
    query::Period,
    sources::{Each, InvoiceFilter, Scanned, Site, SourceError, TicketFilter},
};
use crate::{
    connector::rows::{BreachRow, InvoiceRow, MetricsRow, TenantRow, TicketRow, UptimeDay, UsageRow},
    domain::TenantId,
};

/// A row by its number.
type Make = fn(usize) -> InvoiceRow;

/// What one tenant's services hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) registry: Option<TenantRow>,
    pub(super) metrics: Option<MetricsRow>,
    pub(super) invoices: Vec<InvoiceRow>,
    /// Made while they are read: the number, and how.
    pub(super) many_invoices: Option<(usize, Make)>,
    pub(super) tickets: Vec<TicketRow>,
    pub(super) usage: Option<UsageRow>,
    pub(super) uptime: Option<Vec<UptimeDay>>,
    pub(super) breaches: Option<Vec<BreachRow>>,
}

/// How a service behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Slow(Duration),
    Fails(SourceError),
    Panics,
    /// Fails after half of the rows.
    BreaksOff,
    Truncates,
}

#[derive(Debug, Default)]
pub(super) struct Scripted {
    name: Arc<str>,
    pub(super) held: Mutex<HashMap<String, Held>>,
    behaviour: Mutex<HashMap<(String, Kind), Behaviour>>,
    pub(super) asked: AtomicUsize,
    /// Questions that were given up before they were answered.
    pub(super) given_up: AtomicUsize,
    under_way: AtomicUsize,
    pub(super) most_under_way: AtomicUsize,
}

struct UnderWay<'a>(&'a Scripted, bool);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.given_up.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Scripted {
    pub(super) fn behave(&self, tenant: &str, kind: Kind, behaviour: Option<Behaviour>) {
        let key = (tenant.to_owned(), kind);
        let mut all = self.behaviour.lock().unwrap();
        match behaviour {
            Some(behaviour) => all.insert(key, behaviour),
            None => all.remove(&key),
        };
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn ask(&self, site: &Site, kind: Kind) -> Result<(Held, Option<Behaviour>), SourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        let mut guard = UnderWay(self, false);
        let tenant = site.tenant().as_str().to_owned();
        let behaviour = self.behaviour.lock().unwrap().get(&(tenant.clone(), kind)).cloned();
        match &behaviour {
            Some(Behaviour::Slow(time)) => tokio::time::sleep(*time).await,
            Some(Behaviour::Panics) => panic!("a fault in the reading of {tenant}"),
            Some(Behaviour::Fails(error)) => {
                guard.1 = true;
                return Err(error.clone());
            }
            _ => tokio::task::yield_now().await,
        }
        guard.1 = true;
        Ok((self.held.lock().unwrap().get(&tenant).cloned().unwrap_or_default(), behaviour))
    }

    async fn rows<R>(
        &self,
        site: &Site,
        kind: Kind,
        of: impl FnOnce(Held) -> Box<dyn ExactSizeIterator<Item = R> + Send>,
        each: Each<'_, R>,
    ) -> Result<Scanned, SourceError> {
        let (held, behaviour) = self.ask(site, kind).await?;
        let rows = of(held);
        let half = rows.len() / 2;
        for (at, row) in rows.enumerate() {
            if at == half && behaviour == Some(Behaviour::BreaksOff) {
                return Err(SourceError::Answer(format!("{}: the answer breaks off", site.tenant())));
            }
            each(row);
        }
        Ok(Scanned { truncated: behaviour == Some(Behaviour::Truncates) })
    }
}

fn one<T>(found: Option<T>, kind: &'static str) -> Result<T, SourceError> {
    found.ok_or(SourceError::NoConnector(kind))
}

impl Upstreams for Scripted {
    fn upstream(&self, _: &TenantId, kind: Kind) -> Option<&Arc<str>> {
        (kind != Kind::Registry).then_some(&self.name)
    }

    fn tenant<'a>(&'a self, site: &'a Site, _: Instant) -> BoxFuture<'a, Result<TenantRow, SourceError>> {
        async { one(self.ask(site, Kind::Registry).await?.0.registry, "tenant") }.boxed()
    }

    fn metrics<'a>(&'a self, site: &'a Site, _: Instant) -> BoxFuture<'a, Result<MetricsRow, SourceError>> {
        async { one(self.ask(site, Kind::Metrics).await?.0.metrics, "metrics") }.boxed()
    }

    fn invoices<'a>(
        &'a self,
        site: &'a Site,
        _: &'a InvoiceFilter,
        _: Instant,
        each: Each<'a, InvoiceRow>,
    ) -> BoxFuture<'a, Result<Scanned, SourceError>> {
        let of = |held: Held| -> Box<dyn ExactSizeIterator<Item = InvoiceRow> + Send> {
            match held.many_invoices {
                Some((count, make)) => Box::new((0..count).map(make)),
                None => Box::new(held.invoices.into_iter()),
            }
        };
        self.rows(site, Kind::Invoices, of, each).boxed()
    }

    fn tickets<'a>(
        &'a self,
        site: &'a Site,
        _: &'a TicketFilter,
        _: Instant,
        each: Each<'a, TicketRow>,
    ) -> BoxFuture<'a, Result<Scanned, SourceError>> {
        self.rows(site, Kind::Tickets, |held| Box::new(held.tickets.into_iter()), each).boxed()
    }

    fn usage<'a>(&'a self, site: &'a Site, _: Period, _: Instant) -> BoxFuture<'a, Result<UsageRow, SourceError>> {
        async { one(self.ask(site, Kind::Usage).await?.0.usage, "usage") }.boxed()
    }

    fn uptime<'a>(
        &'a self,
        site: &'a Site,
        period: Period,
        _: Decimal,
        _: Instant,
    ) -> BoxFuture<'a, Result<Vec<UptimeDay>, SourceError>> {
        async move {
            let days = one(self.ask(site, Kind::Uptime).await?.0.uptime, "uptime")?;
            let days = days.into_iter().filter(|day| (period.first_day()..=period.last_day()).contains(&day.date));
            Ok(days.collect())
        }
        .boxed()
    }

    fn breaches<'a>(
        &'a self,
        site: &'a Site,
        _: Instant,
        each: Each<'a, BreachRow>,
    ) -> BoxFuture<'a, Result<Scanned, SourceError>> {
        async move {
            let (held, _) = self.ask(site, Kind::Breaches).await?;
            one(held.breaches, "breaches")?.into_iter().for_each(each);
            Ok(Scanned::default())
        }
        .boxed()
    }
}
