//! A dead upstream never takes the gateway down: bounds and the queue before them, active checks, the panic rule, and
//! another upstream's requests that notice nothing.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    client::{Answer, Connection, Request},
    endpoints::{get, many, metric, origins, rig},
    faulty::{Fault, Faulty},
    reload::{Edited, until},
    rig::{Rig, Setup},
    upstream::Upstream,
};

const IN_FLIGHT: &str = "linkgate_upstream_requests_in_flight{upstream=\"many\"}";
const PENDING: &str = "linkgate_upstream_requests_pending{upstream=\"many\"}";

fn refused(rig: &Rig, reason: &str) -> f64 {
    metric(rig, &format!("linkgate_upstream_refused_total{{reason=\"{reason}\",upstream=\"many\"}}"))
}

/// A stream that holds a place until it is dropped.
fn stream(rig: &Rig) -> Connection {
    let mut connection = Connection::open(rig.public);
    connection.write(&Request::get("/many/sse").tenant("t-full").bearer(&rig.token()).bytes());
    assert_eq!(connection.head().status, 200);
    connection
}

/// With an upstream that streams under `/many/sse`.
fn bounded(limits: &str) -> (Upstream, Rig) {
    let upstream = Upstream::start();
    let rig = rig(&format!("origin = \"http://{}\"\n{limits}", upstream.address));
    (upstream, rig)
}

#[test]
fn an_open_stream_holds_its_place_and_the_next_request_waits_for_it() {
    let (_upstream, rig) = bounded("max_in_flight = 1\nmax_pending = 1\nqueue_timeout = \"20s\"\n");
    let held = stream(&rig);
    assert_eq!(metric(&rig, IN_FLIGHT), 1.0);
    let served = std::thread::scope(|scope| {
        let queued = scope.spawn(|| get(&rig));
        until("it waits", || metric(&rig, PENDING) == 1.0);
        // The queue is full: told at once, with a record as every answer has.
        let started = Instant::now();
        let full = rig.ask(Request::get("/many/a").tenant("t-full").header("X-Request-ID", "rq-full"));
        assert_eq!((full.status, full.error().as_str()), (503, "UPSTREAM_UNAVAILABLE"));
        assert_eq!(full.header("retry-after"), "1");
        assert!(started.elapsed() < Duration::from_secs(10), "it waited");
        drop(held);
        queued.join().unwrap()
    });
    assert_eq!((served.status, served.text().as_str()), (200, "ok"));
    assert_eq!((refused(&rig, "queue_full"), refused(&rig, "queue_timeout")), (1.0, 0.0));
    until("the record is complete", || {
        let records = rig.records();
        let mut found = records.iter().filter(|record| record["request_id"] == "rq-full");
        found.next().is_some_and(|record| {
            record["lines"] == 2 && record["reason"] == "upstream_queue_full" && record["status"] == 503
        }) && found.next().is_none()
    });
    until("places come back", || metric(&rig, IN_FLIGHT) == 0.0 && metric(&rig, PENDING) == 0.0);
}

#[test]
fn who_waits_too_long_is_told_so() {
    let (upstream, rig) = bounded("max_in_flight = 1\nmax_pending = 5\nqueue_timeout = \"200ms\"\n");
    let _held = stream(&rig);
    let before = upstream.count();
    let late = get(&rig);
    assert_eq!((late.error().as_str(), late.header("retry-after")), ("UPSTREAM_UNAVAILABLE", "1"));
    assert_eq!(refused(&rig, "queue_timeout"), 1.0);
    assert_eq!(upstream.count(), before, "nothing was sent");
}

#[test]
fn a_client_that_leaves_leaves_the_queue_too() {
    let (_upstream, rig) = bounded("max_in_flight = 1\nmax_pending = 5\nqueue_timeout = \"60s\"\n");
    let _held = stream(&rig);
    let mut waiting = Connection::open(rig.public);
    waiting.write(&Request::get("/many/a").tenant("t-full").bearer(&rig.token()).bytes());
    until("it waits", || metric(&rig, PENDING) == 1.0);
    drop(waiting);
    until("it is gone", || metric(&rig, PENDING) == 0.0);
}

/// A sender that takes its time must not use up the service's: the answer comes a second after the last byte.
#[test]
fn a_slow_upload_is_not_held_against_its_endpoint() {
    let upstream = Upstream::start();
    let detection = "response_timeout = \"2s\"\noutlier_detection = { consecutive_failures = 1 }\n";
    // Two, because one alone is never ejected.
    let rig = rig(&format!("{}{detection}", origins(&[upstream.address, Upstream::start().address])));
    let mut connection = Connection::open(rig.public);
    let head = Request::new("POST", "/many/slow/1000").tenant("t-full").bearer(&rig.token());
    connection.write(&head.header("Content-Length", "10").bytes());
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(185));
        connection.write(b"x");
    }
    let answer = connection.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
    assert_eq!(metric(&rig, "linkgate_upstream_ejections_total{upstream=\"many\"}"), 0.0);
}

/// All of them are read in one go, and there is no end to it: neither another request of the same worker nor the time
/// that this one is given may have to wait for that.
#[test]
fn interim_answers_without_end_keep_no_worker_to_themselves() {
    let upstream = Upstream::start();
    let rig = Rig::with(Setup {
        listen: "workers = 1\n".into(),
        routes: many(&format!("origin = \"http://{}\"\nresponse_timeout = \"2s\"\n", upstream.address)),
        ..Setup::default()
    });
    assert_eq!(get(&rig).status, 200);
    let started = Instant::now();
    let mut endless = Connection::open(rig.public);
    endless.write(&Request::get("/many/interim").tenant("t-full").bearer(&rig.token()).bytes());
    until("it arrived", || upstream.count() == 2);
    let mut times = Vec::new();
    while started.elapsed() < Duration::from_millis(1500) {
        let asked = Instant::now();
        assert_eq!(rig.ask(Request::get("/api/invoices").tenant("t-full")).status, 200);
        times.push(asked.elapsed());
    }
    let slowest = times.into_iter().max().unwrap();
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let answer = endless.answer();
    assert_eq!((answer.status, answer.error().as_str()), (504, "UPSTREAM_TIMEOUT"));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

const CHECK: &str = "health_check = { path = \"/healthz?deep=1\", interval = \"500ms\", timeout = \"500ms\", healthy_threshold = 2, unhealthy_threshold = 2 }\n";

fn checks(upstream: &Upstream) -> usize {
    upstream.seen().iter().filter(|seen| seen.target() == "/healthz?deep=1").count()
}

fn state(rig: &Rig, upstream: &Upstream, state: &str) -> f64 {
    let endpoint = upstream.address;
    metric(
        rig,
        &format!("linkgate_upstream_endpoints{{endpoint=\"http://{endpoint}\",state=\"{state}\",upstream=\"many\"}}"),
    )
}

#[test]
fn checks_keep_requests_from_who_is_unhealthy_and_end_with_their_configuration() {
    let (one, two) = (Upstream::start(), Upstream::start());
    // Without it failures of requests would do the same.
    let detection = "outlier_detection = { consecutive_failures = 0 }\n";
    let rig = rig(&format!("{}{CHECK}{detection}", origins(&[one.address, two.address])));
    until("both are checked", || checks(&one) > 0 && checks(&two) > 0);
    let check = one.seen().into_iter().find(|seen| seen.target().starts_with("/healthz")).unwrap();
    assert_eq!(
        (check.one("host"), check.one("user-agent")),
        (one.address.to_string().as_str(), "linkgate-health-check")
    );
    for secret in ["authorization", "x-linkgate-assertion", "x-tenant-id"] {
        assert_eq!(check.one(secret), "", "{secret}");
    }

    one.say(500);
    until("it is found unhealthy", || state(&rig, &one, "unhealthy") == 1.0);
    let asked = |upstream: &Upstream| upstream.count() - checks(upstream);
    let before = asked(&one);
    for _ in 0..20 {
        assert_eq!(get(&rig).status, 200);
    }
    assert_eq!(asked(&one), before, "nobody asks who is unhealthy");

    // The panic rule: where none is healthy, all are asked rather than none.
    two.say(500);
    until("the other one too", || state(&rig, &two, "unhealthy") == 1.0);
    let (first, second) = (asked(&one), asked(&two));
    for _ in 0..30 {
        assert_eq!(get(&rig).status, 500, "what the service says");
    }
    assert!(asked(&one) > first && asked(&two) > second);
    assert_eq!(metric(&rig, "linkgate_upstream_panics_total{upstream=\"many\"}"), 30.0);

    one.say(0);
    until("it is healthy again", || state(&rig, &one, "healthy") == 1.0);
    for _ in 0..20 {
        assert_eq!(get(&rig).status, 200);
    }

    // Reloads: one set of checks each time, and none where the configuration has none.
    let edited = Edited::of(&rig);
    for round in 0..3 {
        assert_eq!(edited.save(&format!("# {round}\n{}", edited.first)), None);
        assert_eq!(state(&rig, &two, "unhealthy"), 1.0, "what is known is kept");
    }
    let (began, so_far) = (Instant::now(), checks(&one));
    std::thread::sleep(Duration::from_secs(3));
    let most = usize::try_from(began.elapsed().as_millis() / 450).unwrap() + 2;
    assert!(checks(&one) - so_far <= most, "{} checks, of {most}: not once a process", checks(&one) - so_far);
    assert_eq!(edited.save(&edited.replaced(CHECK, "")), None);
    assert_eq!(state(&rig, &two, "healthy"), 1.0, "nobody says otherwise any more");
    // One may have been under way.
    std::thread::sleep(Duration::from_millis(500));
    let last = checks(&one);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(checks(&one), last);
}

/// Those that ask the dead upstream, all at once.
const CLIENTS: usize = 40;

/// Requests to the dead upstream, from many clients at once, until told to stop; what they got.
fn load(rig: &Rig, token: &str, ended: &AtomicBool, sent: &AtomicUsize, answers: &Mutex<Vec<Answer>>) {
    while !ended.load(Ordering::Relaxed) {
        let answer = Request::get("/many/a").bearer(token).tenant("t-full").send(rig.public);
        sent.fetch_add(1, Ordering::Relaxed);
        answers.lock().unwrap().push(answer);
        // As a client that is told to wait, only faster.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One of two upstreams is dead under load: the other's requests all succeed, at their usual pace, while everything that
/// the dead one may use is bounded.
fn others_notice_nothing(fault: Fault) {
    let dead = Faulty::start(fault);
    let limits = "max_in_flight = 6\nmax_pending = 6\nqueue_timeout = \"300ms\"\nconnect_timeout = \"2s\"\nresponse_timeout = \"2s\"\n";
    let rig = Rig::with(Setup {
        routes: many(&format!("origin = \"http://{}\"\n{limits}", dead.address)),
        ..Setup::default()
    });
    let token = rig.token();
    let memory = |rig: &Rig| metric(rig, "process_resident_memory_bytes");
    let (ended, sent, answers) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let before = memory(&rig);
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load(&rig, &token, &ended, &sent, &answers));
        }
        until("the dead one is under load", || sent.load(Ordering::Relaxed) > 50);
        for _ in 0..60 {
            let started = Instant::now();
            let answer = Request::get("/api/invoices").bearer(&token).tenant("t-full").send(rig.public);
            times.push(started.elapsed());
            assert_eq!(answer.status, 200, "{fault:?}: {}", answer.text());
        }
        assert!(metric(&rig, IN_FLIGHT) <= 6.0 && metric(&rig, PENDING) <= 6.0);
        ended.store(true, Ordering::Relaxed);
    });
    times.sort_unstable();
    let usual = times[times.len() / 2];
    assert!(
        usual < Duration::from_secs(1),
        "{fault:?}: {usual:?}, where the dead one holds its requests for two seconds"
    );
    let answers = answers.into_inner().unwrap();
    for answer in &answers {
        let code = answer.error();
        assert!(
            ["UPSTREAM_UNAVAILABLE", "UPSTREAM_ERROR", "UPSTREAM_TIMEOUT"].contains(&code.as_str()),
            "{fault:?}: {code}"
        );
    }
    // A connection that the gateway has done with may still be closing while the next one is there.
    let most = dead.most.load(Ordering::SeqCst);
    assert!(most <= CLIENTS / 2, "{fault:?}: {most} connections at once");
    let grown = memory(&rig) - before;
    assert!(grown < 64e6, "{fault:?}: {grown} bytes");
    until("nothing is left", || metric(&rig, IN_FLIGHT) == 0.0 && metric(&rig, PENDING) == 0.0);
    until("no connection is left", || dead.open.load(Ordering::SeqCst) == 0);
    assert_eq!(rig.health("/readyz").status, 200);
}

#[test]
fn others_notice_nothing_of_one_that_refuses() {
    others_notice_nothing(Fault::Refuses);
}

#[test]
fn others_notice_nothing_of_one_that_resets() {
    others_notice_nothing(Fault::Resets);
}

#[test]
fn others_notice_nothing_of_one_that_hangs() {
    others_notice_nothing(Fault::Hangs);
}

#[test]
fn others_notice_nothing_of_one_that_is_a_blackhole() {
    others_notice_nothing(Fault::Blackhole);
}
