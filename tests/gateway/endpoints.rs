//! Several endpoints behind one upstream: balancing, failover, names that move, endpoints that are left alone.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::{BoxFuture, FutureExt};
use linkgate::upstream::Resolve;

use super::{
    client::{Answer, Connection, Request},
    faulty::{Fault, Faulty},
    reload::{Edited, until},
    rig::{HOME2, Rig, Setup},
    upstream::Upstream,
};

/// A route of its own to an upstream of its own, whose table is `upstream`.
pub fn many(upstream: &str) -> String {
    format!(
        "[[routes]]\nmethods = [\"*\"]\npath = \"/many/{{*rest}}\"\npermission = \"partner.tenants.list\"\nupstream = \"many\"\n\
         [upstreams.many]\ncredential = \"drop\"\nassertion = \"off\"\n{upstream}\n"
    )
}

pub fn origins(addresses: &[SocketAddr]) -> String {
    origins_of("http", addresses)
}

pub fn origins_of(scheme: &str, addresses: &[SocketAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(|address| format!("\"{scheme}://{address}\"")).collect();
    format!("endpoints = [{}]\n", all.join(", "))
}

pub fn rig(upstream: &str) -> Rig {
    Rig::with(Setup { routes: many(upstream), ..Setup::default() })
}

pub fn get(rig: &Rig) -> Answer {
    rig.ask(Request::get("/many/a").tenant("t-full"))
}

/// The same for another partner in another tenant.
pub fn get_of_another(rig: &Rig) -> Answer {
    let token = rig.token_with("user-2", HOME2, serde_json::json!({"roles": ["partner_msp_full"]}));
    Request::get("/many/a").tenant("t-other").bearer(&token).send(rig.public)
}

fn post(rig: &Rig) -> Answer {
    rig.ask(Request::new("POST", "/many/a").tenant("t-full").json("{}"))
}

/// A metric's value; fails where it is not there.
pub fn metric(rig: &Rig, line: &str) -> f64 {
    let text = rig.health("/metrics").text();
    let found = text.lines().find_map(|found| found.strip_prefix(line).and_then(|rest| rest.strip_prefix(' ')));
    found.unwrap_or_else(|| panic!("{line} is not among\n{text}")).parse().unwrap()
}

#[test]
fn requests_go_to_all_endpoints_each_with_its_own_host() {
    let services = [Upstream::start(), Upstream::start(), Upstream::start()];
    let rig = rig(&origins(&services.each_ref().map(|service| service.address)));
    for _ in 0..90 {
        assert_eq!(get(&rig).status, 200);
    }
    for service in &services {
        let seen = service.seen();
        assert!(seen.len() > 10, "{}", seen.len());
        assert!(seen.iter().all(|seen| seen.one("host") == service.address.to_string()));
    }
}

/// A dead endpoint costs no request: what was not sent goes to another one, whatever its method; and there is one record.
#[test]
fn who_cannot_be_reached_is_passed_over_and_left_alone() {
    let (good, dead) = (Upstream::start(), Faulty::start(Fault::Refuses));
    let rig = rig(&origins(&[dead.address, good.address]));
    for _ in 0..30 {
        assert_eq!((get(&rig).status, post(&rig).status), (200, 200));
    }
    assert_eq!(good.count(), 60, "each once");
    assert_eq!(metric(&rig, "linkgate_upstream_ejections_total{upstream=\"many\"}"), 1.0);
    let retries = metric(&rig, "linkgate_upstream_retries_total{upstream=\"many\"}");
    assert_eq!(retries, 5.0, "as many as it takes to be ejected");
    let state = |endpoint: SocketAddr, state: &str| {
        metric(
            &rig,
            &format!(
                "linkgate_upstream_endpoints{{endpoint=\"http://{endpoint}\",state=\"{state}\",upstream=\"many\"}}"
            ),
        )
    };
    assert_eq!((state(dead.address, "healthy"), state(dead.address, "ejected")), (0.0, 1.0));
    assert_eq!((state(good.address, "healthy"), state(good.address, "ejected")), (1.0, 0.0));
    let records = || rig.records().into_iter().filter(|record| record["status"] == 200).collect::<Vec<_>>();
    until("all records are complete", || records().len() >= 60);
    let records = records();
    assert_eq!(records.len(), 60, "one a request");
    assert!(records.iter().all(|record| record["upstream"] == "many" && record["lines"] == 2));
}

/// A service that says 503 is left alone too, and what it said is what the client gets: it may have acted.
#[test]
fn who_answers_with_gateway_errors_is_left_alone() {
    let (good, bad) = (Upstream::start(), Upstream::start());
    let rig = rig(&origins(&[bad.address, good.address]));
    bad.say(503);
    let mut answers = Vec::new();
    // Two partners, each in a tenant of its own.
    until("it is left alone", || {
        answers.extend([get(&rig).status, get_of_another(&rig).status]);
        metric(&rig, "linkgate_upstream_ejections_total{upstream=\"many\"}") == 1.0
    });
    let failed = bad.count();
    assert!(failed >= 5, "{failed}");
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), failed);
    assert!(answers.iter().all(|status| [200, 503].contains(status)), "{answers:?}");
    for _ in 0..20 {
        assert_eq!((get(&rig).status, get_of_another(&rig).status), (200, 200));
    }
    assert_eq!(bad.count(), failed);
}

/// A body that was begun may have done its work: the request fails, and no other endpoint sees it.
#[test]
fn what_was_begun_is_never_sent_twice() {
    let (good, bad) = (Upstream::start(), Faulty::start(Fault::Resets));
    let rig =
        rig(&format!("{}outlier_detection = {{ consecutive_failures = 0 }}\n", origins(&[bad.address, good.address])));
    let answers: Vec<u16> = (0..40).map(|_| post(&rig).status).collect();
    let failed = answers.iter().filter(|status| **status == 502).count();
    assert!(failed > 0, "{answers:?}");
    assert_eq!(good.count(), 40 - failed, "each at most once");
}

/// Only while all places of the budget are not used up.
#[test]
fn without_a_budget_nothing_is_tried_again() {
    let (good, dead) = (Upstream::start(), Faulty::start(Fault::Refuses));
    let none = "retry_budget = { ratio_percent = 0, min_per_second = 0 }\n";
    let rig = rig(&format!("{}{none}", origins(&[dead.address, good.address])));
    let answers: Vec<Answer> = (0..40).map(|_| get(&rig)).collect();
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert_eq!(refused.len(), 5, "as many as it takes to be ejected");
    for answer in refused {
        assert_eq!((answer.error().as_str(), answer.header("retry-after")), ("UPSTREAM_UNAVAILABLE", "1"));
    }
    assert_eq!(metric(&rig, "linkgate_upstream_retry_budget_exhausted_total{upstream=\"many\"}"), 5.0);
    assert_eq!(metric(&rig, "linkgate_upstream_retries_total{upstream=\"many\"}"), 0.0);
}

/// A tenant's requests reach its own service or none: neither the shared endpoints nor another tenant's, which are all well.
#[test]
fn a_tenants_requests_fail_over_to_nobody_elses_service() {
    let (shared, other, dead) = (Upstream::start(), Upstream::start(), Faulty::start(Fault::Refuses));
    let tenants = format!(
        "[upstreams.many.tenants]\nt-full = \"http://{}\"\nt-auditor = \"http://{}\"\n",
        dead.address, other.address
    );
    let rig = rig(&format!("{}{tenants}", origins(&[shared.address])));
    for _ in 0..20 {
        assert_eq!(get(&rig).error(), "UPSTREAM_UNAVAILABLE");
    }
    assert_eq!((shared.count(), other.count()), (0, 0));
    assert_eq!(rig.ask(Request::get("/many/a").tenant("t-auditor")).status, 200);
    assert_eq!(rig.ask(Request::get("/many/a").tenant("t-support")).status, 200);
    assert_eq!((shared.count(), other.count()), (1, 1));
    let text = rig.health("/metrics").text();
    assert!(!text.contains(&dead.address.to_string()), "a tenant's address is no label");
}

/// Names as the test says; no name server is asked.
#[derive(Debug, Default)]
pub struct Names {
    known: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
    asked: AtomicUsize,
}

impl Names {
    pub fn say(&self, name: &str, addresses: &[SocketAddr]) {
        self.known.lock().unwrap().insert(name.to_owned(), addresses.to_vec());
    }

    /// Waits until all are looked up that are looked up at all.
    fn looked_up(&self) {
        let before = self.asked.load(Ordering::SeqCst);
        until("names are looked up anew", || self.asked.load(Ordering::SeqCst) >= before + 4);
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let found = self.known.lock().unwrap().get(host).cloned().unwrap_or_default();
        async move { if found.is_empty() { Err(io::Error::other("no such name")) } else { Ok(found) } }.boxed()
    }
}

fn named(names: &Arc<Names>, upstream: &str) -> Rig {
    let resolver: Arc<dyn Resolve> = Arc::clone(names) as _;
    Rig::with(Setup { routes: many(&format!("dns_refresh = \"100ms\"\n{upstream}")), resolver, ..Setup::default() })
}

#[test]
fn a_name_is_followed_to_all_its_addresses_and_kept_where_it_cannot_be_looked_up() {
    let names = Arc::new(Names::default());
    let (one, two, three) = (Upstream::start(), Upstream::start(), Upstream::start());
    let rig = named(&names, "origin = \"http://isp.test:8000\"\n");
    let unknown = get(&rig);
    assert_eq!((unknown.error().as_str(), unknown.header("retry-after")), ("UPSTREAM_UNAVAILABLE", "1"));

    names.say("isp.test", &[one.address, two.address]);
    until("the name is found", || get(&rig).status == 200);
    names.looked_up();
    for _ in 0..40 {
        assert_eq!(get(&rig).status, 200);
    }
    assert!(one.count() > 5 && two.count() > 5, "{} {}", one.count(), two.count());
    assert_eq!(one.last().one("host"), "isp.test:8000");

    names.say("isp.test", &[three.address]);
    until("it has moved", || three.count() > 0 || get(&rig).status != 200);
    names.looked_up();
    let before = (one.count(), two.count());
    for _ in 0..20 {
        assert_eq!(get(&rig).status, 200);
    }
    assert_eq!((one.count(), two.count()), before, "nobody asks who is gone");

    let failures = "linkgate_upstream_resolution_failures_total{upstream=\"many\"}";
    let so_far = metric(&rig, failures);
    names.say("isp.test", &[]);
    names.looked_up();
    assert_eq!(get(&rig).status, 200, "the last known address");
    assert!(metric(&rig, failures) > so_far);
    let text = rig.health("/metrics").text();
    assert!(text.contains("endpoint=\"http://isp.test:8000\""));
    assert!(!text.contains(&three.address.to_string()), "what a name server says is no label");
}

/// A service that comes back elsewhere is found when the first connection to where it was fails, not an hour later.
#[test]
fn a_failed_connection_is_a_reason_to_look_a_name_up() {
    let names = Arc::new(Names::default());
    let (gone, here) = (Faulty::start(Fault::Refuses), Upstream::start());
    names.say("isp.test", &[gone.address]);
    let resolver: Arc<dyn Resolve> = Arc::clone(&names) as _;
    let slow = "dns_refresh = \"1h\"\norigin = \"http://isp.test\"\n";
    let rig = Rig::with(Setup { routes: many(slow), resolver, ..Setup::default() });
    assert_eq!(get(&rig).error(), "UPSTREAM_UNAVAILABLE");
    names.say("isp.test", &[here.address]);
    until("it is found", || get(&rig).status == 200);
    let asked = names.asked.load(Ordering::SeqCst);
    for _ in 0..20 {
        assert_eq!(get(&rig).status, 200);
    }
    assert_eq!(names.asked.load(Ordering::SeqCst), asked, "and not looked up with each request");
}

#[test]
fn a_tenants_name_is_followed_too_and_mixed_with_nobodys() {
    let names = Arc::new(Names::default());
    let (one, two, shared) = (Upstream::start(), Upstream::start(), Upstream::start());
    names.say("tenant.test", &[one.address]);
    names.say("shared.test", &[shared.address]);
    let tenants = "origin = \"http://shared.test\"\n[upstreams.many.tenants]\nt-full = \"http://tenant.test\"\n";
    let rig = named(&names, tenants);
    assert_eq!(get(&rig).status, 200);
    assert_eq!((one.count(), shared.count()), (1, 0));
    names.say("tenant.test", &[two.address]);
    until("it has moved", || {
        assert_eq!(get(&rig).status, 200);
        two.count() > 0
    });
    // It never answers for another, whatever name servers say: its name is gone, and the address known last stays.
    names.say("tenant.test", &[]);
    names.looked_up();
    assert_eq!(get(&rig).status, 200);
    assert_eq!(shared.count(), 0);
}

#[test]
fn a_reload_keeps_who_is_left_alone_and_what_names_were() {
    let names = Arc::new(Names::default());
    let (good, dead) = (Upstream::start(), Faulty::start(Fault::Refuses));
    names.say("isp.test", &[dead.address, good.address]);
    let rig = named(&names, "origin = \"http://isp.test\"\n");
    let ejections = "linkgate_upstream_ejections_total{upstream=\"many\"}";
    until("it is left alone", || {
        assert_eq!(get(&rig).status, 200);
        metric(&rig, ejections) > 0.0
    });
    let retries = "linkgate_upstream_retries_total{upstream=\"many\"}";
    let before = metric(&rig, retries);
    names.say("isp.test", &[]);
    let edited = Edited::of(&rig);
    assert_eq!(edited.save(&format!("# again\n{}", edited.first)), None);
    for _ in 0..20 {
        assert_eq!(get(&rig).status, 200, "without a name server");
    }
    assert_eq!((metric(&rig, retries), metric(&rig, ejections)), (before, 1.0));
    // Where it is taken out of the configuration nobody is left alone.
    let other = edited.first.replace("http://isp.test", &format!("http://{}", good.address));
    assert_eq!(edited.save(&other), None);
    assert_eq!(get(&rig).status, 200);
}

/// A hanging one holds its requests, an idle one answers at once: least requests keeps all others away from it, long before
/// its first failure is known.
#[test]
fn who_hangs_gets_no_more_requests() {
    let (good, hangs) = (Upstream::start(), Faulty::start(Fault::Hangs));
    let rig = rig(&origins(&[hangs.address, good.address]));
    let mut held = Vec::new();
    until("it holds a request", || {
        let mut connection = Connection::open(rig.public);
        connection.write(&Request::get("/many/a").tenant("t-full").bearer(&rig.token()).bytes());
        held.push(connection);
        // What the other one got is answered before it is asked again.
        until("the request is somewhere", || good.count() + hangs.open.load(Ordering::SeqCst) == held.len());
        hangs.open.load(Ordering::SeqCst) > 0
    });
    until("nothing else is under way", || {
        metric(&rig, "linkgate_upstream_requests_in_flight{upstream=\"many\"}") == 1.0
    });
    for _ in 0..30 {
        assert_eq!(get(&rig).status, 200);
    }
    assert_eq!(hangs.open.load(Ordering::SeqCst), 1);
}
