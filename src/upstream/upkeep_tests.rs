//! Tests of the rounds: whoever hangs, in whatever numbers, delays nobody else's.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::{BoxFuture, FutureExt};

use super::*;
use crate::{
    domain::TenantId,
    upstream::{asker::Asker, resolve::Resolve, settings::HealthCheck, table::tests::settings},
};

/// Answers for all names but those that begin with `silent`.
#[derive(Debug, Default)]
struct Names {
    addresses: Vec<SocketAddr>,
    asked: Mutex<HashMap<String, usize>>,
}

impl Names {
    fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        *self.asked.lock().unwrap().entry(host.to_owned()).or_default() += 1;
        async move {
            if host.starts_with("silent") {
                std::future::pending::<()>().await;
            }
            let usual = vec![SocketAddr::from(([127, 0, 0, 1], port))];
            Ok(if self.addresses.is_empty() { usual } else { self.addresses.clone() })
        }
        .boxed()
    }
}

/// Tenants whose names are never answered; more than take turns at once.
const SILENT: usize = LOOKUPS + SLOW_LOOKUPS + 8;

/// Every round of the shared name and of a tenant's own comes when it is due, while names of many other tenants hang for ten
/// seconds each, all of them asked for all the time.
#[tokio::test]
async fn names_that_nobody_answers_for_delay_no_other() {
    let silent: Vec<(String, String)> =
        (0..SILENT).map(|number| (format!("t{number}"), format!("silent-{number}.test:1"))).collect();
    let mut tenants: Vec<(&str, &str)> = silent.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
    tenants.push(("good", "good.test:1"));
    let names = Arc::new(Names::default());
    let resolver: Arc<dyn Resolve> = Arc::clone(&names) as _;
    let mut again = settings(&["shared.test:1"], &tenants);
    again.dns_refresh = Duration::from_millis(100);
    let upstream = Upstream::succeeding(again, resolver, None).unwrap();
    let everybody: Vec<TenantId> = tenants.iter().map(|(id, _)| TenantId::new(id).unwrap()).collect();
    let ask = || {
        for tenant in &everybody {
            let to = upstream.destination(Some(tenant)).unwrap();
            // What a request does that finds no address.
            if to.attempts(Asker::default()).into_picked().is_none() {
                to.cluster.look_up_soon();
            }
        }
    };
    ask();
    let _upkeep = Upkeep::start([&upstream]);
    // One round in which all names wait for each other would take longer than this.
    let until = Instant::now() + Duration::from_secs(25);
    let asked = |name: &str| names.asked(name.split(':').next().unwrap());
    // Those that hang had their turn, too.
    while asked("shared.test") < 30 || asked("good.test") < 30 || silent.iter().any(|(_, name)| asked(name) == 0) {
        assert!(Instant::now() < until, "{} {}", asked("shared.test"), asked("good.test"));
        tokio::time::sleep(Duration::from_millis(10)).await;
        ask();
    }
}

/// A name of a tenant's leads to many addresses that take connections and say nothing: the shared endpoint is checked when
/// it is due all the same, and of the tenant's only a few at once.
#[tokio::test]
async fn endpoints_that_hang_delay_no_others_checks() {
    let silent = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in silent.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    let shared = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = shared.local_addr().unwrap().to_string();
    let mut again = settings(&[&authority], &[("t1", "many.test:1")]);
    let (interval, timeout) = (Duration::from_millis(300), Duration::from_millis(300));
    again.health_check = Some(HealthCheck {
        path: "/healthz".into(),
        interval,
        timeout,
        healthy_threshold: 1,
        unhealthy_threshold: 1,
        expected_statuses: vec![200],
    });
    let addresses = (1..=64).map(|last| SocketAddr::from(([127, 0, 1, last], port))).collect();
    let names: Arc<dyn Resolve> = Arc::new(Names { addresses, ..Names::default() });
    let upstream = Upstream::succeeding(again, names, None).unwrap();
    let tenant = TenantId::new("t1").unwrap();
    let cluster = upstream.cluster(Some(&tenant)).unwrap();
    assert!(cluster.look_up(upstream.resolver(), upstream.tally()).await);
    assert_eq!(cluster.members().len(), 64);
    let _upkeep = Upkeep::start([&upstream]);
    // Five checks of the shared one, each on a connection of its own.
    for _ in 0..5 {
        let (_unanswered, _) = tokio::time::timeout(Duration::from_secs(30), shared.accept()).await.unwrap().unwrap();
    }
    let hanging = connections.load(Ordering::SeqCst);
    assert!(hanging < 64, "{hanging}: the round of the tenant's endpoints was over before");
}
