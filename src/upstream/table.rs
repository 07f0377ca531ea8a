//! Upstreams by name: addresses, settings and the count of requests under way, shared by all workers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::settings::{Http2, Origin, UpstreamSettings};
use crate::{
    domain::TenantId,
    tls::{self, ClientTls, TlsError},
};

/// One upstream, immutable but for its counter and its certificates.
#[derive(Debug)]
pub struct Upstream {
    pub settings: UpstreamSettings,
    /// The settings' name, ready for records.
    pub name: Arc<str>,
    /// Where any address has `https`.
    pub tls: Option<Arc<ClientTls>>,
    /// By which connections of HTTP/2 in cleartext are told from others to the same address.
    own_channel: u64,
    in_flight: AtomicUsize,
}

/// Connections that may serve any upstream with the same address.
const COMMON_CHANNEL: u64 = 0;

impl Upstream {
    /// Reads certificate files, if there is TLS.
    pub fn new(settings: UpstreamSettings) -> Result<Arc<Self>, TlsError> {
        let secure = settings.origin.iter().chain(settings.tenants.values()).any(|origin| origin.https);
        let tls = secure.then(|| ClientTls::load(settings.tls.clone())).transpose()?.map(Arc::new);
        let own_channel = if settings.http2 == Http2::Always { tls::unique() } else { COMMON_CHANNEL };
        let name = settings.name.as_str().into();
        Ok(Arc::new(Self { name, settings, tls, own_channel, in_flight: AtomicUsize::new(0) }))
    }

    /// Connections of one channel may serve each other's requests: made with the same certificates and roots.
    pub(super) fn channel(&self, origin: &Origin) -> u64 {
        match &self.tls {
            Some(tls) if origin.https => tls.generation(),
            _ => self.own_channel,
        }
    }

    /// The tenant's own address, else the shared one; `None` where neither is configured.
    pub fn origin(&self, tenant: Option<&TenantId>) -> Option<&Origin> {
        tenant.and_then(|tenant| self.settings.tenants.get(tenant)).or(self.settings.origin.as_ref())
    }

    /// A place among the requests under way; `None` when all are taken. The answer is stated at once, nothing queues.
    pub fn enter(self: &Arc<Self>) -> Option<InFlight> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = InFlight(Arc::clone(self));
        (before < self.settings.max_in_flight).then_some(place)
    }

    /// Requests under way now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// One request under way; its drop frees the place.
#[derive(Debug)]
pub struct InFlight(Arc<Upstream>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use super::*;
    use crate::{
        tls::settings::ClientSettings,
        upstream::settings::{AssertionForm, Credential},
    };

    fn upstream() -> Arc<Upstream> {
        let own = Origin { https: false, authority: "own:1".into() };
        Upstream::new(UpstreamSettings {
            name: "isp".into(),
            origin: Some(Origin { https: false, authority: "shared:1".into() }),
            tenants: HashMap::from([(TenantId::new("t1").unwrap(), own)]),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(1),
            pool_idle: 1,
            pool_idle_timeout: Duration::from_secs(1),
            max_in_flight: 2,
            tls: ClientSettings::default(),
            http2: Http2::Auto,
            http2_streams: 1,
            credential: Credential::Drop,
            assertion: AssertionForm::Off,
            audience: "isp".into(),
        })
        .unwrap()
    }

    #[test]
    fn a_tenants_own_address_wins_over_the_shared_one() {
        let upstream = upstream();
        let t1 = TenantId::new("t1").unwrap();
        let t2 = TenantId::new("t2").unwrap();
        assert_eq!(upstream.origin(Some(&t1)).unwrap().authority, "own:1");
        assert_eq!(upstream.origin(Some(&t2)).unwrap().authority, "shared:1");
        assert_eq!(upstream.origin(None).unwrap().authority, "shared:1");
    }

    #[test]
    fn an_address_has_its_usual_port_where_it_names_none() {
        for (https, authority, host, port) in [
            (true, "isp.example", "isp.example", 443),
            (false, "isp.example", "isp.example", 80),
            (true, "isp.example:8443", "isp.example", 8443),
            (true, "[::1]", "::1", 443),
            (true, "[::1]:8443", "::1", 8443),
        ] {
            let origin = Origin { https, authority: authority.into() };
            assert_eq!((origin.host(), origin.port()), (host, port), "{authority}");
        }
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let upstream = upstream();
        let first = upstream.enter().unwrap();
        let _second = upstream.enter().unwrap();
        assert!(upstream.enter().is_none());
        drop(first);
        assert!(upstream.enter().is_some());
    }
}
