//! `GET /customers`.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rust_decimal::Decimal;

use super::{
    Customer, compatible,
    parts::{self, Balance, Figures, Parts},
    view,
};
use crate::{
    connector::rows::TenantRow,
    domain::TenantId,
    portal::{
        Call, Portal, Prepared, Problem, Question, Reply,
        fanout::{Kind, Outcome, Reading},
        lists::Needle,
        merge::{List, Nothing, Order, exact, has_more, page},
        partial::{Coverage, Source, Wish, worst},
        query::{Paging, Params},
    },
};

/// What registries of tenants call their states.
const STATUSES: &[&str] = &[
    "active",
    "suspended",
    "trial",
    "inactive",
    "pending",
    "cancelled",
    "provisioning",
    "provisioned",
    "failed_provisioning",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Name,
    CreatedAt,
    OutstandingBalance,
}

const BY: &[(&str, By)] =
    &[("name", By::Name), ("created_at", By::CreatedAt), ("outstanding_balance", By::OutstandingBalance)];

struct Customers {
    status: Option<Vec<&'static str>>,
    search: Option<Needle>,
    order: Order<By>,
    paging: Paging,
    wish: Wish,
    now: jiff::Timestamp,
    /// In the shape of older clients.
    compatible: bool,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let words: Vec<_> = STATUSES.iter().map(|status| (*status, *status)).collect();
    let status = params.words("status", &words);
    let search = params.search("search").map(|text| Needle::new(&text));
    let (by, descending) = params.sort(BY, By::Name, false);
    let paging = params.paging();
    let wish = Wish::read(&mut params);
    params.finish()?;
    let order = Order { by, descending };
    let compatible = question.compatible;
    Ok(Box::new(Customers { status, search, order, paging, wish, now: question.now, compatible }))
}

impl Customers {
    fn filters(&self) -> bool {
        self.status.is_some() || self.search.is_some()
    }

    fn holds(&self, customer: &Customer<'_>) -> bool {
        let texts = || [Some(customer.name()), customer.slug(), customer.domain()];
        self.status.as_ref().is_none_or(|statuses| self.has_status(customer, statuses))
            && self.search.as_ref().is_none_or(|needle| needle.is_in(texts()))
    }

    fn has_status(&self, customer: &Customer<'_>, statuses: &[&str]) -> bool {
        let status = customer.status();
        // The older client knows two words: whatever works in some way is active to it.
        let status = match status {
            "trial" | "provisioned" if self.compatible => "active",
            _ if self.compatible && status != "active" => "inactive",
            _ => status,
        };
        statuses.contains(&status)
    }

    fn compare(&self, one: &Ordered<'_>, other: &Ordered<'_>) -> Ordering {
        let primary = match self.order.by {
            By::Name => self.order.of(&one.name, &other.name),
            By::CreatedAt => {
                let (one, other) = (one.customer.created_at(), other.customer.created_at());
                self.order.of_known(one.as_ref(), other.as_ref())
            }
            By::OutstandingBalance => self.order.of_known(one.balance.as_ref(), other.balance.as_ref()),
        };
        primary.then_with(|| one.customer.id().cmp(other.customer.id()))
    }
}

/// A customer with what it is ordered by.
struct Ordered<'c> {
    customer: Customer<'c>,
    /// Without regard to case.
    name: String,
    balance: Option<Decimal>,
    /// Where they were asked for already.
    figures: Option<Figures>,
}

/// How the questions beside the registry ended.
type Ends = HashMap<TenantId, Vec<Source>, ahash::RandomState>;

impl Customers {
    /// Whether every tenant will stand on the page: then nothing needs to be known before figures are asked for.
    fn shows_all(&self, call: &Call) -> bool {
        let tenants = call.granted().count() as u64;
        !self.filters() && self.paging.offset == 0 && tenants <= self.paging.limit
    }

    /// What is owed to every customer, where that decides the order.
    async fn balances(&self, reading: &Reading<'_>, parts: &Parts, found: &mut [Ordered<'_>], ends: &mut Ends) {
        if self.order.by != By::OutstandingBalance {
            return;
        }
        for ordered in found.iter_mut() {
            let known = ordered.figures.as_ref().and_then(|figures| figures.balance.as_ref());
            ordered.balance = known.map(Balance::outstanding);
        }
        let asking = |(at, granted)| async move { (at, granted, reading.optional(&parts.balance, granted).await) };
        let mut answers: FuturesUnordered<_> = found
            .iter()
            .enumerate()
            .filter(|(_, it)| it.figures.is_none())
            .map(|(at, it)| (at, it.customer.granted))
            .map(asking)
            .collect();
        while let Some((at, granted, outcome)) = answers.next().await {
            let end = parts::told(&outcome, granted, Kind::Invoices);
            ends.entry(granted.tenant().clone()).or_default().push(end);
            if let Some(ordered) = found.get_mut(at) {
                ordered.balance = outcome.value.map(|balance| balance.outstanding());
            }
        }
    }
}

impl Prepared for Customers {
    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let managed = portal.managed.of(&call.partner()?.portfolio).await?;
            let reading = portal.reading(&call);
            let (registry, parts) = (parts::registry(), Parts::new(self.now, self.compatible));
            let mut ends = Ends::default();
            let mut found = Vec::new();
            let mut registry_ends = Vec::new();
            let mut take = |granted, outcome: Outcome<TenantRow>, figures| {
                registry_ends.push(parts::told(&outcome, granted, Kind::Registry));
                let Some(managed) = managed.get(granted.tenant()).map(Arc::clone) else { return };
                let customer = Customer { granted, managed, registry: outcome.value };
                if self.holds(&customer) {
                    let name = customer.name().to_lowercase();
                    found.push(Ordered { customer, name, balance: None, figures });
                }
            };
            if self.shows_all(&call) {
                let ask = async |granted| {
                    let row = reading.optional(&registry, granted);
                    let (row, (figures, more)) = tokio::join!(row, parts.read(&reading, granted));
                    (granted, row, figures, more)
                };
                for (granted, outcome, figures, more) in reading.each(ask).await {
                    ends.insert(granted.tenant().clone(), more);
                    take(granted, outcome, Some(figures));
                }
            } else {
                reading.every(&registry, &mut |granted, outcome| take(granted, outcome.unless_nobody(), None)).await;
            }
            // What is filtered by an incomplete registry is not known to be all.
            let total_exact = !self.filters() || exact(&registry_ends);
            self.balances(&reading, &parts, &mut found, &mut ends).await;
            found.sort_unstable_by(|one, other| self.compare(one, other));
            let total = found.len() as u64;
            let shown: Vec<Ordered<'_>> = page(found, self.paging).collect();
            let asking = shown.into_iter().map(async |ordered| match ordered.figures {
                Some(figures) => (ordered.customer, figures, Vec::new()),
                None => {
                    let (figures, more) = parts.read(&reading, ordered.customer.granted).await;
                    (ordered.customer, figures, more)
                }
            });
            let mut rows = Vec::new();
            for (customer, figures, more) in futures_util::future::join_all(asking).await {
                ends.entry(customer.id().clone()).or_default().extend(more);
                rows.push((customer, figures));
            }
            let whole = |end: Source| match ends.remove(&end.tenant_id) {
                Some(more) => worst(&end.tenant_id.clone(), [vec![end], more].concat()),
                None => end,
            };
            let sources = registry_ends.into_iter().map(whole).collect();
            let (coverage, outcomes) = Coverage::of(&call, self.wish, sources)?;
            if self.compatible {
                let tenants = rows.iter().map(|(customer, figures)| compatible::Item::of(customer, figures)).collect();
                let list = compatible::Tenants::new(tenants, total, self.paging, coverage);
                return Ok(Reply::json(200, &list)?.with_slices(outcomes));
            }
            let list = List {
                items: rows.iter().map(|(customer, figures)| view::Item::of(customer, figures)).collect(),
                total,
                limit: self.paging.limit,
                offset: self.paging.offset,
                has_more: has_more(total, self.paging),
                total_exact,
                more: Nothing {},
                coverage,
            };
            Ok(Reply::json(200, &list)?.with_slices(outcomes))
        }
        .boxed()
    }
}

/// What is answered, for the API's description.
pub(in crate::portal) type Answer = List<super::view::Item<'static>, Nothing>;
