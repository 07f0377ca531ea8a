//! The best rows of many sources, in one stable order, without keeping the rest.
//!
//! Each source's rows go through a [`TopRows`] of `offset + limit` places while they are read; the finished sources go
//! through another one. Ties are broken by tenant, then by the row's id, so that paging never shows a row twice or
//! skips one while the data stands still.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashSet},
    fmt::Debug,
    sync::Arc,
};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    partial::{Coverage, Source, Status},
    query::Paging,
};
use crate::domain::TenantId;

/// By what, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Order<B> {
    pub(super) by: B,
    pub(super) descending: bool,
}

impl<B> Order<B> {
    /// The order of two values that are always there.
    pub(super) fn of<T: Ord + ?Sized>(&self, one: &T, other: &T) -> Ordering {
        if self.descending { other.cmp(one) } else { one.cmp(other) }
    }

    /// What is not known comes last, either way.
    pub(super) fn of_known<T: Ord>(&self, one: Option<&T>, other: Option<&T>) -> Ordering {
        match (one, other) {
            (Some(one), Some(other)) => self.of(one, other),
            (one, other) => other.is_some().cmp(&one.is_some()),
        }
    }
}

/// A row that has a place in a list.
pub(super) trait Sorted: Sized + Send + Sync + 'static {
    type By: Copy + Debug + Send + Sync;
    fn id(&self) -> &str;
    fn compare(&self, other: &Self, order: Order<Self::By>) -> Ordering;
    /// Its texts: what of a row may be large.
    fn texts(&self) -> Vec<Option<&str>>;

    /// What it occupies in memory, in bytes: texts are a service's to choose, so they are counted.
    fn bytes(&self) -> usize {
        let texts: usize = self.texts().into_iter().flatten().map(str::len).sum();
        size_of::<Self>() + texts + 64
    }
}

/// A row with its tenant.
#[derive(Debug)]
pub(super) struct Ranked<R: Sorted> {
    pub(super) tenant: TenantId,
    pub(super) row: Arc<R>,
    order: Order<R::By>,
}

impl<R: Sorted> Ord for Ranked<R> {
    fn cmp(&self, other: &Self) -> Ordering {
        ranked((&self.tenant, &*self.row), (&other.tenant, &*other.row), self.order)
    }
}

impl<R: Sorted> PartialOrd for Ranked<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R: Sorted> PartialEq for Ranked<R> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<R: Sorted> Eq for Ranked<R> {}

fn ranked<R: Sorted>(one: (&TenantId, &R), other: (&TenantId, &R), order: Order<R::By>) -> Ordering {
    one.1.compare(other.1, order).then_with(|| one.0.cmp(other.0)).then_with(|| one.1.id().cmp(other.1.id()))
}

/// The first `depth` rows of whatever is pushed.
#[derive(Debug)]
pub(super) struct TopRows<R: Sorted> {
    /// The last of the best on top.
    heap: BinaryHeap<Ranked<R>>,
    depth: usize,
    order: Order<R::By>,
}

impl<R: Sorted> TopRows<R> {
    pub(super) fn new(depth: usize, order: Order<R::By>) -> Self {
        Self { heap: BinaryHeap::new(), depth, order }
    }

    fn takes(&self, tenant: &TenantId, row: &R) -> bool {
        self.heap.len() < self.depth
            || self
                .heap
                .peek()
                .is_some_and(|last| ranked((tenant, row), (&last.tenant, &*last.row), self.order) == Ordering::Less)
    }

    pub(super) fn push(&mut self, tenant: &TenantId, row: R) {
        if self.takes(tenant, &row) {
            self.put(tenant, Arc::new(row));
        }
    }

    /// A source's own best rows, in order: from the first that finds no place, none does.
    pub(super) fn absorb(&mut self, tenant: &TenantId, rows: &[Arc<R>]) {
        for row in rows {
            if !self.takes(tenant, row) {
                return;
            }
            self.put(tenant, Arc::clone(row));
        }
    }

    fn put(&mut self, tenant: &TenantId, row: Arc<R>) {
        self.heap.push(Ranked { tenant: tenant.clone(), row, order: self.order });
        if self.heap.len() > self.depth {
            self.heap.pop();
        }
    }

    pub(super) fn into_rows(self) -> Vec<Ranked<R>> {
        self.heap.into_sorted_vec()
    }

    pub(super) fn into_shared(self) -> Vec<Arc<R>> {
        self.into_rows().into_iter().map(|ranked| ranked.row).collect()
    }
}

/// Rows of one source that were seen: a source that pages by offset gives a row twice when another is added meanwhile.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hasher: ahash::RandomState,
    ids: HashSet<u64, ahash::RandomState>,
}

impl Seen {
    /// Whether the id is new. Sixty-four bits of a keyed hash: two ids of 10,000 meet once in 10^11 sources.
    pub(super) fn is_new(&mut self, id: &str) -> bool {
        self.ids.insert(self.hasher.hash_one(id))
    }
}

/// How many rows a source keeps: the depth asked for, rounded up so that neighbouring pages share slices.
pub(super) fn kept_depth(paging: Paging) -> usize {
    let depth = usize::try_from(paging.offset.saturating_add(paging.limit)).unwrap_or(usize::MAX);
    let mut kept = 100;
    while kept < depth {
        kept *= 2;
    }
    kept
}

/// The envelope of a list. `M`: what stands beside the items, [`Nothing`] or [`Aggregated`].
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ListOf{I}")]
pub(super) struct List<I, M> {
    pub(super) items: Vec<I>,
    pub(super) total: u64,
    pub(super) limit: u64,
    pub(super) offset: u64,
    pub(super) has_more: bool,
    /// Every source was read to its end, just now or recently enough.
    pub(super) total_exact: bool,
    #[serde(flatten)]
    pub(super) more: M,
    #[serde(flatten)]
    pub(super) coverage: Coverage,
}

/// A list without sums.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Nothing {}

/// Sums over the whole filtered set, not the page.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Aggregated{A}")]
pub(super) struct Aggregated<A> {
    pub(super) aggregates: A,
}

/// One page of what was merged.
pub(super) fn page<T>(rows: Vec<T>, paging: Paging) -> impl Iterator<Item = T> {
    let offset = usize::try_from(paging.offset).unwrap_or(usize::MAX);
    rows.into_iter().skip(offset).take(usize::try_from(paging.limit).unwrap_or(usize::MAX))
}

pub(super) fn has_more(total: u64, paging: Paging) -> bool {
    total > paging.offset.saturating_add(paging.limit)
}

/// Whether sums over these sources are the whole truth.
pub(super) fn exact(sources: &[Source]) -> bool {
    sources.iter().all(|source| source.status == Status::Ok)
}

/// Whether nothing is known though somebody was asked: then sums are unknown, not zero.
pub(super) fn nothing_known(sources: &[Source]) -> bool {
    !sources.is_empty() && sources.iter().all(|source| source.as_of.is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Row {
        id: String,
        key: Option<u8>,
    }

    impl Sorted for Row {
        type By = ();
        fn id(&self) -> &str {
            &self.id
        }
        fn compare(&self, other: &Self, order: Order<()>) -> Ordering {
            order.of_known(self.key.as_ref(), other.key.as_ref())
        }
        fn texts(&self) -> Vec<Option<&str>> {
            vec![Some(&self.id)]
        }
    }

    proptest! {
        /// Whatever the split into sources and their order, a page is the page of the whole list sorted.
        #[test]
        fn pages_are_those_of_the_whole_list_sorted(
            sources in prop::collection::vec(prop::collection::vec(prop::option::of(0u8..6), 0..40), 0..8),
            offset in 0u64..60, limit in 1u64..30, descending: bool, backwards: bool,
        ) {
            let order = Order { by: (), descending };
            let paging = Paging { limit, offset };
            let tenant = |at: usize| TenantId::new(&format!("t{at}")).unwrap();
            let rows = |at: usize| sources[at].iter().enumerate().map(move |(number, key)| Row { id: format!("{number:03}"), key: *key });
            let mut merged = TopRows::new((offset + limit) as usize, order);
            let mut numbers: Vec<usize> = (0..sources.len()).collect();
            if backwards {
                numbers.reverse();
            }
            for at in numbers {
                let mut own = TopRows::new(kept_depth(paging), order);
                rows(at).for_each(|row| own.push(&tenant(at), row));
                merged.absorb(&tenant(at), &own.into_shared());
            }
            let found: Vec<_> = page(merged.into_rows(), paging).map(|ranked| (ranked.tenant, (*ranked.row).clone())).collect();

            let mut all: Vec<_> = (0..sources.len()).flat_map(|at| rows(at).map(move |row| (tenant(at), row))).collect();
            all.sort_by(|(one_tenant, one), (other_tenant, other)| {
                let keys = match (one.key, other.key) {
                    (Some(one), Some(other)) if descending => other.cmp(&one),
                    (Some(one), Some(other)) => one.cmp(&other),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (None, None) => Ordering::Equal,
                };
                keys.then_with(|| one_tenant.cmp(other_tenant)).then_with(|| one.id.cmp(&other.id))
            });
            let expected: Vec<_> = all.into_iter().skip(offset as usize).take(limit as usize).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn neighbouring_pages_share_a_depth_and_repeated_rows_are_seen() {
        let depth = |offset, limit| kept_depth(Paging { limit, offset });
        assert_eq!([depth(0, 50), depth(50, 50), depth(51, 50), depth(9_900, 100)], [100, 100, 200, 12_800]);
        let mut seen = Seen::default();
        assert!(seen.is_new("a") && seen.is_new("b") && !seen.is_new("a"));
    }
}
