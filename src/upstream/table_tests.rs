//! Tests of the table: whose endpoints a request gets, and what a reload keeps.

use std::time::Duration;

use super::*;
use crate::{
    tls::settings::ClientSettings,
    upstream::settings::{AssertionForm, BudgetSettings, Credential, OutlierSettings},
};

fn origin(authority: &str) -> Origin {
    Origin { https: false, authority: authority.into() }
}

fn settings(endpoints: &[&str], tenants: &[(&str, &str)]) -> UpstreamSettings {
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
    let picks = (0..100).map(|_| upstream.attempts(tenant.as_ref()).unwrap().into_picked().unwrap());
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
        let mut attempts = upstream.attempts(Some(&t1)).unwrap();
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
    assert!(upstream.attempts(None).is_none());
    assert!(upstream.attempts(Some(&TenantId::new("t2").unwrap())).is_none());
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
    let first = upstream.enter().unwrap();
    let _second = upstream.enter().unwrap();
    assert!(upstream.enter().is_none());
    assert_eq!(upstream.queue(None).await.unwrap_err(), Refused::Full);
    drop(first);
    assert!(upstream.enter().is_some());
    assert_eq!(upstream.tally().refused_full.get(), 1);
}

#[test]
fn a_reload_keeps_what_is_known_of_endpoints_that_stay() {
    let old = upstream(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], &[("t1", "127.0.0.1:11")]);
    let cluster = old.cluster(None).unwrap();
    let held = old.enter().unwrap();
    let failing = Arc::clone(&cluster.members()[1]);
    while !cluster.failed(&failing, super::super::clock::now()) {}
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
    assert_eq!(new.in_flight(), 1, "what is under way still counts");
    drop(held);
    assert_eq!(new.in_flight(), 0);
}

#[test]
fn where_detection_is_switched_off_nobody_stays_ejected() {
    let old = upstream(&["127.0.0.1:1", "127.0.0.1:2"], &[]);
    let cluster = old.cluster(None).unwrap();
    while !cluster.failed(&cluster.members()[1], super::super::clock::now()) {}
    let mut again = settings(&["127.0.0.1:1", "127.0.0.1:2"], &[]);
    again.outlier.consecutive_failures = 0;
    let new = Upstream::succeeding(again, Arc::new(SystemResolver), Some(&old)).unwrap();
    assert_eq!(reached(&old, None), ["127.0.0.1:1"], "a configuration that is not in force changes nothing");
    new.take_over();
    assert_eq!(reached(&new, None), ["127.0.0.1:1", "127.0.0.1:2"]);
}
