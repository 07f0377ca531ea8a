//! Upstreams by name: addresses, settings and the count of requests under way, shared by all workers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::settings::{Origin, UpstreamSettings};
use crate::domain::TenantId;

/// One upstream, immutable but for its counter.
#[derive(Debug)]
pub struct Upstream {
    pub settings: UpstreamSettings,
    /// The settings' name, ready for records.
    pub name: Arc<str>,
    in_flight: AtomicUsize,
}

impl Upstream {
    pub fn new(settings: UpstreamSettings) -> Arc<Self> {
        Arc::new(Self { name: settings.name.as_str().into(), settings, in_flight: AtomicUsize::new(0) })
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
    use crate::upstream::settings::{AssertionForm, Credential};

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
            credential: Credential::Drop,
            assertion: AssertionForm::Off,
            audience: "isp".into(),
        })
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
    fn places_are_bounded_and_come_back() {
        let upstream = upstream();
        let first = upstream.enter().unwrap();
        let _second = upstream.enter().unwrap();
        assert!(upstream.enter().is_none());
        drop(first);
        assert!(upstream.enter().is_some());
    }
}
