//! What the fan-out asks of the services: the reads of [`Sources`], behind a trait so that tests can script them.

use std::{fmt::Debug, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use rust_decimal::Decimal;
use tokio::time::Instant;

use super::kind::Kind;
use crate::{
    connector::{
        ResourceKind,
        rows::{BreachRow, InvoiceRow, MetricsRow, TenantRow, TicketRow, UptimeDay, UsageRow},
    },
    domain::TenantId,
    portal::{
        query::Period,
        sources::{Each, InvoiceFilter, Scanned, Site, SourceError, Sources, TicketFilter},
    },
};

type Reading<'a, T> = BoxFuture<'a, Result<T, SourceError>>;

/// The reads of one tenant's services.
pub(in crate::portal) trait Upstreams: Debug + Send + Sync {
    /// The upstream that answers for the tenant and this kind of data; `None`: no connector does.
    fn upstream(&self, tenant: &TenantId, kind: Kind) -> Option<&Arc<str>>;
    fn tenant<'a>(&'a self, site: &'a Site, until: Instant) -> Reading<'a, TenantRow>;
    fn metrics<'a>(&'a self, site: &'a Site, until: Instant) -> Reading<'a, MetricsRow>;
    fn invoices<'a>(
        &'a self,
        site: &'a Site,
        filter: &'a InvoiceFilter,
        until: Instant,
        each: Each<'a, InvoiceRow>,
    ) -> Reading<'a, Scanned>;
    fn tickets<'a>(
        &'a self,
        site: &'a Site,
        filter: &'a TicketFilter,
        until: Instant,
        each: Each<'a, TicketRow>,
    ) -> Reading<'a, Scanned>;
    fn usage<'a>(&'a self, site: &'a Site, period: Period, until: Instant) -> Reading<'a, UsageRow>;
    fn uptime<'a>(
        &'a self,
        site: &'a Site,
        period: Period,
        target: Decimal,
        until: Instant,
    ) -> Reading<'a, Vec<UptimeDay>>;
    fn breaches<'a>(&'a self, site: &'a Site, until: Instant, each: Each<'a, BreachRow>) -> Reading<'a, Scanned>;
}

impl Upstreams for Sources {
    fn upstream(&self, tenant: &TenantId, kind: Kind) -> Option<&Arc<str>> {
        let kind = match kind {
            Kind::Registry => ResourceKind::Tenant,
            Kind::Metrics => ResourceKind::Metrics,
            Kind::Invoices => ResourceKind::Invoices,
            Kind::Tickets => ResourceKind::Tickets,
            Kind::Usage => ResourceKind::Usage,
            Kind::Uptime => ResourceKind::Uptime,
            Kind::Breaches => ResourceKind::Breaches,
        };
        self.upstream_of(tenant, kind)
    }

    fn tenant<'a>(&'a self, site: &'a Site, until: Instant) -> Reading<'a, TenantRow> {
        Self::tenant(self, site, until).boxed()
    }

    fn metrics<'a>(&'a self, site: &'a Site, until: Instant) -> Reading<'a, MetricsRow> {
        Self::metrics(self, site, until).boxed()
    }

    fn invoices<'a>(
        &'a self,
        site: &'a Site,
        filter: &'a InvoiceFilter,
        until: Instant,
        each: Each<'a, InvoiceRow>,
    ) -> Reading<'a, Scanned> {
        Self::invoices(self, site, filter, until, each).boxed()
    }

    fn tickets<'a>(
        &'a self,
        site: &'a Site,
        filter: &'a TicketFilter,
        until: Instant,
        each: Each<'a, TicketRow>,
    ) -> Reading<'a, Scanned> {
        Self::tickets(self, site, filter, until, each).boxed()
    }

    fn usage<'a>(&'a self, site: &'a Site, period: Period, until: Instant) -> Reading<'a, UsageRow> {
        Self::usage(self, site, period, until).boxed()
    }

    fn uptime<'a>(
        &'a self,
        site: &'a Site,
        period: Period,
        target: Decimal,
        until: Instant,
    ) -> Reading<'a, Vec<UptimeDay>> {
        Self::uptime(self, site, period, target, until).boxed()
    }

    fn breaches<'a>(&'a self, site: &'a Site, until: Instant, each: Each<'a, BreachRow>) -> Reading<'a, Scanned> {
        Self::breaches(self, site, until, each).boxed()
    }
}
