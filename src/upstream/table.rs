//! Upstreams by name: clusters of endpoints, settings and what is under way, shared by all workers.

use std::{collections::HashMap, sync::Arc};

use tokio::{sync::Notify, time::Instant};

use super::{
    attempts::Attempts,
    bounds::{InFlight, Load, Refused},
    budget::Budget,
    cluster::Cluster,
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
    load: Arc<Load>,
    resolver: Arc<dyn Resolve>,
    /// Somebody could not connect: its names are looked up before their time.
    moved: Notify,
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
            Arc::new(Cluster::new(settings.endpoints.clone(), settings.outlier, known))
        });
        let mut own: HashMap<&Origin, Arc<Cluster>> = HashMap::new();
        let mut tenants = HashMap::with_capacity(settings.tenants.len());
        for (tenant, origin) in &settings.tenants {
            let cluster = own.entry(origin).or_insert_with(|| {
                let mut known = before.into_iter().flat_map(|before| &before.own);
                let known = known.find(|known| known.origins().first() == Some(origin));
                Arc::new(Cluster::new(vec![origin.clone()], settings.outlier, known.map(|known| &**known)))
            });
            tenants.insert(tenant.clone(), Arc::clone(cluster));
        }
        let own: Vec<_> = own.into_values().collect();
        let load = before.map(|before| Arc::clone(&before.load)).unwrap_or_default();
        Ok(Arc::new(Self {
            settings,
            name,
            tls,
            own_channel,
            shared,
            tenants,
            own,
            load,
            resolver,
            moved: Notify::new(),
        }))
    }

    /// Its configuration comes into force. Until then what is shared with the one before is left as it is.
    pub(super) fn take_over(&self) {
        for (cluster, _) in self.clusters() {
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

    /// One request to the tenant's endpoints: the first is chosen here. `None`: it has no address.
    pub fn attempts(&self, tenant: Option<&TenantId>) -> Option<Attempts<'_>> {
        self.cluster(tenant).map(|cluster| Attempts::new(self, cluster))
    }

    /// A place among the requests under way at once; `None` where all are taken or others wait for one.
    pub fn enter(&self) -> Option<InFlight> {
        match self.settings.max_pending {
            0 => self.load.enter(self.settings.max_in_flight),
            _ => self.load.enter_unless_queued(self.settings.max_in_flight),
        }
    }

    /// Waits for a place in the queue, at most until then. To be asked where [`Self::enter`] gave none.
    pub async fn queue(&self, until: Option<Instant>) -> Result<InFlight, Refused> {
        let settings = &self.settings;
        let tally = self.tally();
        if settings.max_pending == 0 {
            tally.refused_full.add();
            return Err(Refused::Full);
        }
        let patience = Instant::now() + settings.queue_timeout;
        let until = until.map_or(patience, |until| until.min(patience));
        let place = self.load.queue(settings.max_in_flight, settings.max_pending, until).await;
        match &place {
            Ok(_) => {}
            Err(Refused::QueueTimeout) => tally.refused_queue_timeout.add(),
            Err(Refused::Full | Refused::QueueFull) => tally.refused_queue_full.add(),
        }
        place
    }

    /// Requests under way now.
    pub fn in_flight(&self) -> usize {
        self.load.in_flight()
    }

    /// Requests in the queue now.
    pub fn pending(&self) -> usize {
        self.load.pending()
    }

    pub fn tally(&self) -> &Tally {
        &self.load.tally
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.load.budget
    }

    pub(super) fn resolver(&self) -> &dyn Resolve {
        &*self.resolver
    }

    pub(super) fn look_up_soon(&self) {
        self.moved.notify_one();
    }

    /// Until somebody could not connect.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// The shared cluster, then those of tenants; each with whether it is the shared one.
    pub(super) fn clusters(&self) -> impl Iterator<Item = (&Arc<Cluster>, bool)> {
        self.shared.iter().map(|cluster| (cluster, true)).chain(self.own.iter().map(|cluster| (cluster, false)))
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
