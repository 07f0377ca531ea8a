//! Upstreams by name: clusters of endpoints, settings and counts, shared by all workers.

use std::{collections::HashMap, sync::Arc};

use super::{
    bounds::Bounds,
    cluster::{Cluster, Rules},
    resolve::{Resolve, SystemResolver},
    settings::{Http2, Origin, UpstreamSettings},
    tally::Tally,
};
use crate::{
    domain::TenantId,
    tls::{self, ClientTls, TlsError},
};

/// One upstream, immutable but for its counts, its certificates and what is known of its endpoints.
#[derive(Debug)]
pub struct Upstream {
    pub settings: UpstreamSettings,
    /// The settings' name, ready for records.
    pub name: Arc<str>,
    /// Where any address has `https`.
    pub tls: Option<Arc<ClientTls>>,
    /// By which connections of HTTP/2 in cleartext are told from others to the same address.
    own_channel: u64,
    shared: Option<Arc<Cluster>>,
    /// Tenants with the same address have one cluster.
    tenants: HashMap<TenantId, Arc<Cluster>>,
    own: Vec<Arc<Cluster>>,
    tally: Arc<Tally>,
    resolver: Arc<dyn Resolve>,
}

/// What this configuration says of the shared endpoints, or of each tenant's own address.
fn rules(settings: &UpstreamSettings, shared: bool) -> Rules {
    let max_in_flight = if shared { settings.max_in_flight } else { settings.tenant_max_in_flight };
    let bounds = Bounds {
        max_in_flight,
        share: match settings.organisation_max_in_flight {
            None => max_in_flight.div_ceil(2),
            Some(0) => usize::MAX,
            Some(most) => most,
        },
        max_pending: settings.max_pending,
        queue_timeout: settings.queue_timeout,
    };
    Rules { shared, outlier: settings.outlier, bounds }
}

/// Connections that may serve any request to the same endpoint.
const COMMON_CHANNEL: u64 = 0;

impl Upstream {
    /// Reads certificate files, if there is TLS.
    pub fn new(settings: UpstreamSettings) -> Result<Arc<Self>, TlsError> {
        Self::succeeding(settings, Arc::new(SystemResolver), None)
    }

    /// The same, with what is known to `before`, the upstream of that name in the configuration of before: health and
    /// addresses of endpoints that stay, and the requests that are still under way.
    pub fn succeeding(
        settings: UpstreamSettings,
        resolver: Arc<dyn Resolve>,
        before: Option<&Self>,
    ) -> Result<Arc<Self>, TlsError> {
        let secure = settings.endpoints.iter().chain(settings.tenants.values()).any(|origin| origin.https);
        let tls = secure.then(|| ClientTls::load(settings.tls.clone())).transpose()?.map(Arc::new);
        let own_channel = if settings.http2 == Http2::Always { tls::unique() } else { COMMON_CHANNEL };
        let name = settings.name.as_str().into();
        let shared = (!settings.endpoints.is_empty()).then(|| {
            let known = before.and_then(|before| before.shared.as_deref());
            Arc::new(Cluster::new(settings.endpoints.clone(), rules(&settings, true), known))
        });
        let mut own: HashMap<&Origin, Arc<Cluster>> = HashMap::new();
        let mut tenants = HashMap::with_capacity(settings.tenants.len());
        for (tenant, origin) in &settings.tenants {
            let cluster = own.entry(origin).or_insert_with(|| {
                let mut known = before.into_iter().flat_map(|before| &before.own);
                let known = known.find(|known| known.origins().first() == Some(origin));
                Arc::new(Cluster::new(vec![origin.clone()], rules(&settings, false), known.map(|known| &**known)))
            });
            tenants.insert(tenant.clone(), Arc::clone(cluster));
        }
        let own: Vec<_> = own.into_values().collect();
        let tally = before.map(|before| Arc::clone(&before.tally)).unwrap_or_default();
        Ok(Arc::new(Self { settings, name, tls, own_channel, shared, tenants, own, tally, resolver }))
    }

    /// Its configuration comes into force. Until then what is shared with the one before is left as it is.
    pub(super) fn take_over(&self) {
        for cluster in self.clusters() {
            cluster.take_over(self.settings.health_check.is_some());
        }
    }

    /// Connections of one channel may serve each other's requests: made with the same certificates and roots.
    pub(super) fn channel(&self, origin: &Origin) -> u64 {
        match &self.tls {
            Some(tls) if origin.https => tls.generation(),
            _ => self.own_channel,
        }
    }

    /// The tenant's own endpoints, else the shared ones; `None` where neither is configured. Nobody else's, ever.
    pub fn cluster(&self, tenant: Option<&TenantId>) -> Option<&Cluster> {
        tenant.and_then(|tenant| self.tenants.get(tenant)).or(self.shared.as_ref()).map(|cluster| &**cluster)
    }

    /// Requests under way now, to all clusters together.
    pub fn in_flight(&self) -> usize {
        self.clusters().map(|cluster| cluster.load().in_flight()).sum()
    }

    /// Requests in all queues now.
    pub fn pending(&self) -> usize {
        self.clusters().map(|cluster| cluster.load().pending()).sum()
    }

    /// Most requests that can be under way: the places of all clusters together.
    pub fn places(&self) -> usize {
        self.clusters().map(|cluster| cluster.bounds().max_in_flight).fold(0, usize::saturating_add)
    }

    /// The share of its places that is taken in the fullest cluster.
    #[expect(clippy::cast_precision_loss, reason = "a share, to be looked at")]
    pub fn fullness(&self) -> f64 {
        let share =
            |cluster: &Arc<Cluster>| cluster.load().in_flight() as f64 / cluster.bounds().max_in_flight.max(1) as f64;
        self.clusters().map(share).fold(0.0, f64::max)
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn resolver(&self) -> &dyn Resolve {
        &*self.resolver
    }

    /// The shared cluster, then those of tenants.
    pub(super) fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.shared.iter().chain(&self.own)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
pub(super) mod tests;
