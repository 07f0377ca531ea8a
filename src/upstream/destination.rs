//! Where one request goes: the endpoints of its tenant, behind the places that lead to them.

use tokio::time::Instant;

use super::{
    asker::Asker,
    bounds::{InFlight, Refused},
    cluster::Cluster,
    share::Held,
    table::Upstream,
};
use crate::domain::TenantId;

/// A cluster of an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'u> {
    pub(super) upstream: &'u Upstream,
    pub(super) cluster: &'u Cluster,
}

impl Upstream {
    /// Where a request for this tenant goes. `None`: it has no address.
    pub fn destination(&self, tenant: Option<&TenantId>) -> Option<Destination<'_>> {
        self.cluster(tenant).map(|cluster| Destination { upstream: self, cluster })
    }
}

impl<'u> Destination<'u> {
    /// A place among the requests under way at once; `None` where all are taken, or those of the asker's organisation, or
    /// others wait for one.
    pub fn enter(self, asker: Asker<'_>) -> Option<InFlight> {
        let bounds = self.cluster.bounds();
        let share = self.share(asker).ok()?;
        let place = match bounds.max_pending {
            0 => self.cluster.load().enter(bounds.max_in_flight),
            _ => self.cluster.load().enter_unless_queued(bounds.max_in_flight),
        };
        place.map(|place| place.within(share))
    }

    /// A place of its organisation's share; `Ok(None)` for whom none is counted: nobody in particular, and a tenant at its
    /// own address.
    fn share(self, asker: Asker<'_>) -> Result<Option<Held>, Refused> {
        let bounds = self.cluster.bounds();
        let counted = |own: &&_| self.cluster.is_shared() || asker.tenant != Some(*own);
        match asker.organisation.filter(counted) {
            Some(organisation) if bounds.share < bounds.max_in_flight => {
                let share = self.cluster.load().shares.take(organisation, bounds.share);
                share.map(Some).ok_or(Refused::Share)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Waits for a place in the queue, at most until then. To be asked where [`Self::enter`] gave none. Nobody waits for
    /// a place of its own organisation's share: that queue would be full of one organisation's requests too.
    pub async fn queue(self, asker: Asker<'_>, until: Option<Instant>) -> Result<InFlight, Refused> {
        let (bounds, tally) = (self.cluster.bounds(), self.upstream.tally());
        let share = self.share(asker).inspect_err(|_| tally.refused_share.add())?;
        if bounds.max_pending == 0 {
            tally.refused_full.add();
            return Err(Refused::Full);
        }
        let patience = Instant::now() + bounds.queue_timeout;
        let until = until.map_or(patience, |until| until.min(patience));
        let place = self.cluster.load().queue(bounds.max_in_flight, bounds.max_pending, until).await;
        match &place {
            Ok(_) => {}
            Err(Refused::QueueTimeout) => tally.refused_queue_timeout.add(),
            Err(Refused::Share | Refused::Full | Refused::QueueFull) => tally.refused_queue_full.add(),
        }
        place.map(|place| place.within(share))
    }
}
