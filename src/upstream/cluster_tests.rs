//! Tests of clusters: names that move, names that fail, and how many may be ejected at once.

use std::{collections::BTreeSet, io, sync::atomic::AtomicUsize, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use proptest::prelude::*;

use super::*;

/// Says what it is told to say.
#[derive(Debug, Default)]
struct Scripted {
    addresses: Mutex<Vec<SocketAddr>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn say(&self, ports: &[u16]) {
        *self.addresses.lock().unwrap() = ports.iter().map(|port| address(*port)).collect();
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        async move {
            self.asked.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
            let found = self.addresses.lock().unwrap().clone();
            if found.is_empty() { Err(io::Error::other("no such name")) } else { Ok(found) }
        }
        .boxed()
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn origin() -> Origin {
    Origin { https: false, authority: "isp.example:80".into() }
}

fn rules(shared: bool, outlier: OutlierSettings) -> Rules {
    let bounds = Bounds { max_in_flight: 1, share: 1, max_pending: 0, queue_timeout: Duration::ZERO };
    Rules { shared, outlier, bounds }
}

fn named() -> Cluster {
    Cluster::new(vec![origin()], rules(true, OutlierSettings::default()), None)
}

/// A tenant's own.
fn own() -> Cluster {
    Cluster::new(vec![origin()], rules(false, OutlierSettings::default()), None)
}

fn ports(cluster: &Cluster) -> Vec<u16> {
    cluster.members().iter().map(|member| member.address().port()).collect()
}

#[tokio::test]
async fn a_name_that_moves_is_followed_and_one_that_fails_keeps_its_addresses() {
    let (cluster, resolver, tally) = (named(), Scripted::default(), Tally::default());
    assert!(cluster.pick(&[], &tally).is_none(), "not looked up yet");
    resolver.say(&[2, 1, 2]);
    assert!(cluster.refresh(&resolver, &tally).await);
    assert_eq!(ports(&cluster), [1, 2]);
    let stays = Arc::clone(&cluster.members()[1]);
    resolver.say(&[3, 2]);
    assert!(cluster.refresh(&resolver, &tally).await);
    assert_eq!(ports(&cluster), [2, 3]);
    assert!(Arc::ptr_eq(&stays, &cluster.members()[0]), "an address that stays keeps its endpoint");
    resolver.say(&[]);
    assert!(!cluster.refresh(&resolver, &tally).await);
    assert_eq!((ports(&cluster), tally.resolution_failures.get()), (vec![2, 3], 1));
    let many: Vec<u16> = (1..1_000).collect();
    resolver.say(&many);
    assert!(cluster.refresh(&resolver, &tally).await);
    assert_eq!(cluster.members().len(), 64, "bounded, whatever a name server says");
}

#[tokio::test]
async fn requests_that_come_together_wait_for_one_look_up() {
    let (cluster, resolver, tally) = (named(), Scripted::default(), Tally::default());
    let together = async || join_all((0..50).map(|_| cluster.look_up(&resolver, &tally))).await;
    assert_eq!(together().await, [false; 50]);
    assert_eq!(resolver.asked.load(Relaxed), 1, "a failure is told to all who waited");
    resolver.say(&[1]);
    assert_eq!(together().await, [true; 50]);
    assert_eq!(resolver.asked.load(Relaxed), 2);
    assert!(cluster.pick(&[], &tally).is_some());
}

#[tokio::test]
async fn names_that_nobody_asks_for_are_forgotten_until_somebody_does() {
    let (cluster, resolver, tally) = (own(), Scripted::default(), Tally::default());
    resolver.say(&[1]);
    assert!(!{ cluster.is_due() }, "a tenant's name is not looked up before somebody asks");
    assert!(cluster.look_up(&resolver, &tally).await);
    for _ in 0..3 {
        assert!(cluster.pick(&[], &tally).is_some());
        assert!(cluster.is_due());
    }
    assert_eq!((0..100).take_while(|_| cluster.is_due()).count(), 10);
    assert!(cluster.members().is_empty());
    assert!(!cluster.is_due());
    assert!(cluster.pick(&[], &tally).is_none());
    assert!(cluster.look_up(&resolver, &tally).await, "and is found again");
    assert!(named().is_due(), "shared ones are always looked up");
}

#[derive(Clone, Debug)]
enum Step {
    Fail(usize),
    Wait(u64),
    Addresses(BTreeSet<u16>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..8).prop_map(Step::Fail),
        2 => (0_u64..400).prop_map(Step::Wait),
        1 => prop::collection::btree_set(1_u16..9, 1..8).prop_map(Step::Addresses),
    ]
}

proptest! {
    /// Whatever fails, whenever, and however the name moves meanwhile.
    #[test]
    fn never_more_are_ejected_than_allowed(
        steps in prop::collection::vec(step(), 1..200),
        max_ejection_percent in 0_u32..=100,
        consecutive_failures in 1_u32..4,
    ) {
        let origin = origin();
        let outlier = OutlierSettings {
            consecutive_failures,
            base_ejection_time: Duration::from_millis(100),
            max_ejection_time: Duration::from_millis(1_000),
            max_ejection_percent,
            panic_threshold: 0,
        };
        let cluster = Cluster::new(vec![origin.clone()], rules(true, outlier), None);
        let mut now = 1;
        cluster.resolved(&origin, &[1, 2, 3, 4].map(address), now);
        for step in steps {
            match step {
                Step::Fail(which) => {
                    let members = cluster.members();
                    let member = &members[which % members.len()];
                    let ejected = cluster.failed(member, Blame::Service, now);
                    prop_assert_eq!(ejected, ejected && member.outlier.is_ejected(now));
                }
                Step::Wait(time) => now += time,
                Step::Addresses(ports) => {
                    let addresses: Vec<_> = ports.into_iter().map(address).collect();
                    cluster.resolved(&origin, &addresses, now);
                    prop_assert_eq!(cluster.members().len(), addresses.len());
                }
            }
            let members = cluster.members();
            prop_assert!(ejected(&members, now) * 100 <= max_ejection_percent as usize * members.len());
        }
    }
}

#[test]
fn with_two_endpoints_one_may_go_and_with_one_none() {
    let cluster = named();
    let origin = cluster.origins()[0].clone();
    cluster.resolved(&origin, &[1, 2].map(address), 1);
    let members = cluster.members();
    let fails = |member: &Arc<Endpoint>| (0..20).filter(|_| cluster.failed(member, Blame::Service, 1)).count();
    assert_eq!([fails(&members[0]), fails(&members[1])], [1, 0]);
    assert!(!members[0].is_available(1) && members[1].is_available(1));
    cluster.resolved(&origin, &[address(1)], 1);
    assert!(members[0].is_available(1), "the last one left is not left alone");
}

#[test]
fn a_tenants_name_that_was_asked_for_in_vain_gets_a_round_of_its_own() {
    let cluster = own();
    assert!(!cluster.is_due(), "nobody has asked");
    assert!(cluster.pick(&[], &Tally::default()).is_none());
    assert!(cluster.is_due());
    assert!(!cluster.is_due(), "once");
}

/// Says nothing of one name, ever.
#[derive(Debug)]
struct Silent(&'static str);

impl Resolve for Silent {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        async move {
            if host == self.0 {
                std::future::pending::<()>().await;
            }
            Ok(vec![address(port)])
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_name_that_nobody_answers_for_delays_no_other_of_its_service() {
    let origins = ["silent.test:1", "good.test:2"].map(|name| Origin { https: false, authority: name.into() });
    let cluster = Cluster::new(origins.to_vec(), rules(true, OutlierSettings::default()), None);
    let (resolver, tally) = (Silent("silent.test"), Tally::default());
    let found = async {
        while cluster.members().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = cluster.refresh(&resolver, &tally) => panic!("nobody has answered for the other yet"),
        () = found => {}
    }
    assert_eq!(ports(&cluster), [2]);
}
