//! Where one request goes: the endpoints of its tenant, behind the places that lead to them.

use tokio::time::Instant;

use super::{
    bounds::{InFlight, Refused},
    cluster::Cluster,
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
    /// A place among the requests under way at once; `None` where all are taken or others wait for one.
    pub fn enter(self) -> Option<InFlight> {
        let bounds = self.cluster.bounds();
        match bounds.max_pending {
            0 => self.cluster.load().enter(bounds.max_in_flight),
            _ => self.cluster.load().enter_unless_queued(bounds.max_in_flight),
        }
    }

    /// Waits for a place in the queue, at most until then. To be asked where [`Self::enter`] gave none.
    pub async fn queue(self, until: Option<Instant>) -> Result<InFlight, Refused> {
        let (bounds, tally) = (self.cluster.bounds(), self.upstream.tally());
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
            Err(Refused::Full | Refused::QueueFull) => tally.refused_queue_full.add(),
        }
        place
    }
}
