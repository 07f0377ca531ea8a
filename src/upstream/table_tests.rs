//! Tests of the table: whose endpoints a request gets, and what a reload keeps.

use std::time::Duration;

use super::*;
use crate::{
    tls::settings::ClientSettings,
    upstream::{
        asker::{Asker, Blame, Mark},
        bounds::Refused,
        destination::Destination,
        settings::{AssertionForm, BudgetSettings, Credential, OutlierSettings},
    },
};

fn to<'u>(upstream: &'u Upstream, tenant: Option<&TenantId>) -> Destination<'u> {
    upstream.destination(tenant).unwrap()
}

pub(in crate::upstream) fn origin(authority: &str) -> Origin {
    Origin { https: false, authority: authority.into() }
}

pub(in crate::upstream) fn settings(endpoints: &[&str], tenants: &[(&str, &str)]) -> UpstreamSettings {
    UpstreamSettings {
        name: "isp".into(),
        endpoints: endpoints.iter().map(|authority| origin(authority)).collect(),
        tenants: tenants.iter().map(|(id, authority)| (TenantId::new(id).unwrap(), origin(authority))).collect(),
        dns_refresh: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(1),
        pool_idle: 1,
        pool_idle_timeout: Duration::from_secs(1),
        max_in_flight: 2,
        tenant_max_in_flight: 1,
        organisation_max_in_flight: None,
        max_pending: 0,
        queue_timeout: Duration::from_secs(1),
        outlier: OutlierSettings::default(),
        budget: BudgetSettings::default(),
        health_check: None,
        tls: ClientSettings::default(),
        http2: Http2::Auto,
        http2_streams: 1,
        credential: Credential::Drop,
        assertion: AssertionForm::Off,
        audience: "isp".into(),
    }
}

fn upstream(endpoints: &[&str], tenants: &[(&str, &str)]) -> Arc<Upstream> {
    Upstream::new(settings(endpoints, tenants)).unwrap()
}

/// Where the requests of a tenant go, over many of them.
fn reached(upstream: &Upstream, tenant: Option<&str>) -> Vec<String> {
    let tenant = tenant.map(|id| TenantId::new(id).unwrap());
    let picks = (0..100).map(|_| to(upstream, tenant.as_ref()).attempts(Asker::default()).into_picked().unwrap());
    let mut found: Vec<String> = picks.map(|picked| picked.endpoint().origin().authority.clone()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_tenants_own_endpoint_wins_over_the_shared_ones_and_is_mixed_with_nobodys() {
    let tenants = [("t1", "127.0.0.1:11"), ("t2", "127.0.0.1:12"), ("t3", "127.0.0.1:1")];
    let upstream = upstream(&["127.0.0.1:1", "127.0.0.1:2"], &tenants);
    for (tenant, authority) in tenants {
        assert_eq!(reached(&upstream, Some(tenant)), [authority], "{tenant}");
    }
    for shared in [None, Some("t4")] {
        assert_eq!(reached(&upstream, shared), ["127.0.0.1:1", "127.0.0.1:2"]);
    }
    let ids = |tenant: &str| upstream.cluster(Some(&TenantId::new(tenant).unwrap())).unwrap().members()[0].id();
    let shared: Vec<u64> = upstream.cluster(None).unwrap().members().iter().map(|member| member.id()).collect();
    assert!(!shared.contains(&ids("t3")), "the same address, and yet no endpoint, so no connection, in common");
}

/// However badly a tenant's endpoint fails, the next attempt never leads to another tenant's, nor to a shared one.
#[test]
fn failures_of_a_tenants_endpoint_lead_nowhere_else() {
    let upstream = upstream(&["127.0.0.1:1"], &[("t1", "127.0.0.1:11"), ("t2", "127.0.0.1:12")]);
    let t1 = TenantId::new("t1").unwrap();
    for _ in 0..100 {
        let mut attempts = to(&upstream, Some(&t1)).attempts(Asker::default());
        attempts.failed();
        assert!(
            upstream
                .cluster(Some(&t1))
                .unwrap()
                .pick(&[attempts.into_picked().unwrap().endpoint().id()], upstream.tally())
                .is_none()
        );
    }
    assert_eq!(reached(&upstream, Some("t1")), ["127.0.0.1:11"]);
}

#[test]
fn without_a_shared_endpoint_other_tenants_have_none() {
    let upstream = upstream(&[], &[("t1", "127.0.0.1:11")]);
    assert!(upstream.destination(None).is_none());
    assert!(upstream.destination(Some(&TenantId::new("t2").unwrap())).is_none());
}

#[test]
fn tenants_with_the_same_address_share_their_endpoint() {
    let tenants: Vec<(String, &str)> = (0..1_000).map(|number| (format!("t{number}"), "127.0.0.1:11")).collect();
    let tenants: Vec<(&str, &str)> = tenants.iter().map(|(id, authority)| (id.as_str(), *authority)).collect();
    assert_eq!(upstream(&[], &tenants).clusters().count(), 1);
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

#[tokio::test]
async fn places_are_bounded_and_come_back() {
    let upstream = upstream(&["127.0.0.1:1"], &[]);
    let shared = to(&upstream, None);
    let first = shared.enter(Asker::default()).unwrap();
    let _second = shared.enter(Asker::default()).unwrap();
    assert!(shared.enter(Asker::default()).is_none());
    assert_eq!(shared.queue(Asker::default(), None).await.unwrap_err(), Refused::Full);
    drop(first);
    assert!(shared.enter(Asker::default()).is_some());
    assert_eq!(upstream.tally().refused_full.get(), 1);
}

/// Whoever fills the places to its own address takes none from others, and the sum is what the metrics say.
#[test]
fn each_address_has_places_of_its_own() {
    let upstream =
        upstream(&["127.0.0.1:1"], &[("t1", "127.0.0.1:11"), ("t2", "127.0.0.1:12"), ("t3", "127.0.0.1:11")]);
    let [t1, t2, t3] = ["t1", "t2", "t3"].map(|id| TenantId::new(id).unwrap());
    let held = to(&upstream, Some(&t1)).enter(Asker::default()).unwrap();
    assert!(to(&upstream, Some(&t1)).enter(Asker::default()).is_none());
    assert!(to(&upstream, Some(&t3)).enter(Asker::default()).is_none(), "the same address");
    assert_eq!(upstream.fullness(), 1.0);
    let others = [Some(&t2), None, None].map(|tenant| to(&upstream, tenant).enter(Asker::default()).unwrap());
    assert_eq!((upstream.in_flight(), upstream.places()), (4, 2 + 1 + 1));
    drop((held, others));
    assert_eq!((upstream.in_flight(), upstream.fullness()), (0, 0.0));
    let budget = |tenant| to(&upstream, tenant).cluster.budget();
    let used_up = (0..10_000).any(|_| !budget(Some(&t1)).withdraw(&upstream.settings.budget, 1_000));
    assert!(used_up && budget(Some(&t2)).withdraw(&upstream.settings.budget, 1_000), "and a retry budget");
}

/// Whatever its tenants, one organisation has its share and no more; the tenant at its own address has all places.
#[tokio::test]
async fn each_organisation_has_a_share_of_the_places() {
    let mut bounded = settings(&["127.0.0.1:1"], &[("t1", "127.0.0.1:11")]);
    (bounded.max_in_flight, bounded.tenant_max_in_flight, bounded.max_pending) = (5, 3, 1);
    let [t1, t2, msp, other] = ["t1", "t2", "msp", "other"].map(|id| TenantId::new(id).unwrap());
    fn asker<'a>(tenant: &'a TenantId, organisation: &'a TenantId) -> Asker<'a> {
        Asker { tenant: Some(tenant), organisation: Some(organisation) }
    }
    let upstream = Upstream::new(bounded.clone()).unwrap();
    let shared = to(&upstream, Some(&t2));
    let held = [&t2, &other, &msp].map(|tenant| shared.enter(asker(tenant, &msp)).unwrap());
    assert!(shared.enter(asker(&t2, &msp)).is_none());
    assert_eq!(shared.queue(asker(&t2, &msp), None).await.unwrap_err(), Refused::Share);
    assert_eq!((upstream.tally().refused_share.get(), upstream.in_flight(), upstream.pending()), (1, 3, 0));
    let _home = shared.enter(asker(&t2, &t2)).unwrap();
    drop(shared.enter(asker(&t2, &other)).unwrap());
    let _nobody = shared.enter(Asker::default()).unwrap();
    let [first, ..] = held;
    drop(first);
    let again = shared.enter(asker(&t2, &msp)).unwrap();
    // Full, and nobody of its share is free: what waits would be of the same share.
    assert_eq!(shared.queue(asker(&t2, &msp), None).await.unwrap_err(), Refused::Share);
    drop(again);
    let own = to(&upstream, Some(&t1));
    let _partners = [(); 2].map(|()| own.enter(asker(&t1, &msp)).unwrap());
    assert!(own.enter(asker(&t1, &msp)).is_none());
    let _own = own.enter(asker(&t1, &t1)).unwrap();
    let all = UpstreamSettings { organisation_max_in_flight: Some(0), ..bounded.clone() };
    let one = UpstreamSettings { organisation_max_in_flight: Some(1), ..bounded };
    for (settings, most) in [(all, 5), (one, 1)] {
        let upstream = Upstream::new(settings).unwrap();
        let places: Vec<_> = std::iter::from_fn(|| to(&upstream, None).enter(asker(&t2, &msp))).collect();
        assert_eq!(places.len(), most);
    }
}

/// Nobody else is harmed where the endpoints are the tenant's own: the first row ejects, whoever met it.
#[test]
fn a_row_that_one_tenant_alone_met_ejects_its_own_endpoint_and_no_shared_one() {
    let names = [("isp.test:1", None), ("tenant.test:1", Some(TenantId::new("t1").unwrap()))];
    let upstream = upstream(&["isp.test:1"], &[("t1", "tenant.test:1")]);
    let alone = Blame::Asker(Mark(7 << 32 | 7));
    let ejected = names.map(|(authority, tenant)| {
        let cluster = upstream.cluster(tenant.as_ref()).unwrap();
        let addresses = [1, 2].map(|port| std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        cluster.resolved(&origin(authority), &addresses, 1);
        (0..20).any(|_| cluster.failed(&cluster.members()[0], alone, 1))
    });
    assert_eq!(ejected, [false, true]);
}

#[test]
fn a_reload_keeps_what_is_known_of_endpoints_that_stay() {
    let old = upstream(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], &[("t1", "127.0.0.1:11")]);
    let cluster = old.cluster(None).unwrap();
    let held = to(&old, None).enter(Asker::default()).unwrap();
    let failing = Arc::clone(&cluster.members()[1]);
    while !cluster.failed(&failing, Blame::Service, super::super::clock::now()) {}
    let again = settings(&["127.0.0.1:4", "127.0.0.1:2", "127.0.0.1:1"], &[("t9", "127.0.0.1:11")]);
    let new = Upstream::succeeding(again, Arc::new(SystemResolver), Some(&old)).unwrap();
    let members = new.cluster(None).unwrap().members();
    assert!(Arc::ptr_eq(&members[1], &failing), "with its ejection");
    assert!(Arc::ptr_eq(&members[2], &cluster.members()[0]));
    assert_eq!(reached(&new, None), ["127.0.0.1:1", "127.0.0.1:4"]);
    let own = |upstream: &Upstream, id: &str| {
        Arc::clone(&upstream.cluster(Some(&TenantId::new(id).unwrap())).unwrap().members()[0])
    };
    assert!(Arc::ptr_eq(&own(&old, "t1"), &own(&new, "t9")));
    let own_held = to(&old, Some(&TenantId::new("t1").unwrap())).enter(Asker::default()).unwrap();
    assert_eq!(new.in_flight(), 2, "what is under way still counts");
    assert!(to(&new, Some(&TenantId::new("t9").unwrap())).enter(Asker::default()).is_none());
    drop((held, own_held));
    assert_eq!(new.in_flight(), 0);
}

#[test]
fn where_detection_is_switched_off_nobody_stays_ejected() {
    let old = upstream(&["127.0.0.1:1", "127.0.0.1:2"], &[]);
    let cluster = old.cluster(None).unwrap();
    while !cluster.failed(&cluster.members()[1], Blame::Service, super::super::clock::now()) {}
    let mut again = settings(&["127.0.0.1:1", "127.0.0.1:2"], &[]);
    again.outlier.consecutive_failures = 0;
    let new = Upstream::succeeding(again, Arc::new(SystemResolver), Some(&old)).unwrap();
    assert_eq!(reached(&old, None), ["127.0.0.1:1"], "a configuration that is not in force changes nothing");
    new.take_over();
    assert_eq!(reached(&new, None), ["127.0.0.1:1", "127.0.0.1:2"]);
}
