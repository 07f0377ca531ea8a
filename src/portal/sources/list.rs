//! Lists: page after page, handed out row by row, and the doubt about an answer that is suspiciously empty.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use super::{Scanned, Site, SourceError, Sources, table::Route};
use crate::connector::{
    ResourceKind,
    answer::{Kind, Page},
    settings::Paging,
    template::{Placeholder, Values},
};

/// What is asked of one list.
pub(super) struct Listing {
    pub(super) kind: ResourceKind,
    pub(super) values: Values,
    /// Invoices with their lines.
    pub(super) lines: bool,
    /// Most rows handed out.
    pub(super) most: u64,
}

impl Sources {
    /// Reads the list to its end or to as many rows as were asked for. On an error the rows handed out before count for nothing.
    pub(super) async fn list<R: Kind + Send>(
        &self,
        site: &Site,
        listing: Listing,
        until: Instant,
        each: &mut (dyn FnMut(R) + Send),
    ) -> Result<Scanned, SourceError> {
        let route = self.table.route(site.tenant(), listing.kind)?;
        let resource = &route.resource;
        let mut values = listing.values.with(Placeholder::TenantId, site.tenant().as_str());
        values.set(Placeholder::Limit, resource.page_size);
        let is_paged = resource.paging() != Paging::None;
        // Rows read, and rows handed out.
        let (mut read, mut given, mut overflows) = (0_u64, 0_u64, false);
        let mut twice = Twice::default();
        for number in 1_u64.. {
            values.set(Placeholder::Offset, read);
            values.set(Placeholder::Page, number);
            let body = self.ask(site, route, &values, until).await?;
            let page = resource
                .read_page::<R>(&body, site.tenant(), listing.lines, &mut |row| {
                    if is_paged && twice.seen(&row) {
                        return;
                    }
                    if given < listing.most {
                        given += 1;
                        each(row);
                    } else {
                        overflows = true;
                    }
                })
                .map_err(|misfit| route.wrong(site.tenant(), misfit))?;
            if number == 1 {
                self.doubt(site, route, &values, &page.suspicious, until).await?;
            }
            read += page.rows;
            twice.next_page();
            let more = goes_on(route, site, &page, read)?;
            if overflows || more && given >= listing.most {
                return Ok(Scanned { truncated: true });
            }
            if !more {
                break;
            }
        }
        Ok(Scanned { truncated: false })
    }

    /// Asks one endpoint and takes its answer's body.
    pub(super) async fn ask(
        &self,
        site: &Site,
        route: &Arc<Route>,
        values: &Values,
        until: Instant,
    ) -> Result<bytes::Bytes, SourceError> {
        let unfit = |_| route.wrong(site.tenant(), "the id cannot stand in a path");
        let outgoing = route.resource.request(values).map_err(unfit)?;
        self.client.get(site, route, &route.upstream, &outgoing, until).await
    }

    /// An answer that a rule holds for is believed only if no witness contradicts it.
    pub(super) async fn doubt(
        &self,
        site: &Site,
        route: &Arc<Route>,
        values: &Values,
        suspicious: &[usize],
        until: Instant,
    ) -> Result<(), SourceError> {
        for at in suspicious {
            let Some(rule) = route.resource.failed_when.get(*at) else { continue };
            let zero = rule.zero.iter().map(|pointer| format!("`{pointer}`")).collect::<Vec<_>>().join(", ");
            let Some(witness) = &rule.witness else {
                return Err(route.wrong(site.tenant(), format_args!("200 without data: nothing at {zero}")));
            };
            // A filter may have left nothing: then all together are something.
            let unfiltered = values.unfiltered();
            if values.names().any(Placeholder::is_filter) {
                let body = self.ask(site, route, &unfiltered, until).await?;
                let judged = route.resource.judge(&body).map_err(|misfit| route.wrong(site.tenant(), misfit))?;
                if !judged.contains(at) {
                    continue;
                }
            }
            let upstream = route.witnesses.get(*at).and_then(Option::as_ref).unwrap_or(&route.upstream);
            let unfit = |_| route.wrong(site.tenant(), "the id cannot stand in a path");
            let outgoing = witness.request(&unfiltered).map_err(unfit)?;
            let body = self.client.get(site, route, upstream, &outgoing, until).await?;
            let contradicted = witness.contradicts(&body).map_err(|misfit| route.wrong(site.tenant(), misfit))?;
            if let Some(pointer) = contradicted {
                return Err(route.wrong(
                    site.tenant(),
                    format_args!(
                        "200 without data: nothing at {zero}, while `{pointer}` of `{}` says otherwise",
                        outgoing.path
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Rows of the page before: where a row was added meanwhile, its last ones come again, and nothing may count twice.
///
/// Keeps hashes under a random key: memory of one page, whatever the list.
#[derive(Default)]
struct Twice {
    hasher: ahash::RandomState,
    before: HashSet<u64, ahash::RandomState>,
    now: HashSet<u64, ahash::RandomState>,
}

impl Twice {
    fn seen(&mut self, row: &impl Kind) -> bool {
        let Some(hash) = row.id().map(|id| self.hasher.hash_one(id)) else { return false };
        self.now.insert(hash);
        self.before.contains(&hash)
    }

    fn next_page(&mut self) {
        std::mem::swap(&mut self.before, &mut self.now);
        self.now.clear();
    }
}

/// Whether there is a further page.
fn goes_on(route: &Route, site: &Site, page: &Page, read: u64) -> Result<bool, SourceError> {
    let resource = &route.resource;
    if resource.paging() == Paging::None {
        return Ok(false);
    }
    let more = match (page.more, page.total) {
        (Some(more), _) => more,
        (None, Some(total)) => read < total,
        (None, None) => page.rows >= resource.page_size,
    };
    if more && page.rows == 0 && (page.more.is_some() || page.total.is_some()) {
        return Err(route.wrong(site.tenant(), "a page without rows says that there are more"));
    }
    Ok(more && page.rows > 0)
}
