//! What one tenant does, or its service, is not felt by another: places by address, and whose failures count.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{
    client::{Answer, Connection, Request},
    endpoints::{get, get_of_another, metric, origins, rig},
    faulty::{Fault, Faulty},
    http2::{self, Body},
    reload::until,
    rig::Rig,
    upstream::Upstream,
};

fn get_in(rig: &Rig, tenant: &str) -> Answer {
    rig.ask(Request::get("/many/a").tenant(tenant))
}

/// All places and the whole queue of a tenant's own service are taken by requests that hang: only that tenant's requests
/// are refused.
#[test]
fn a_tenants_service_that_hangs_takes_no_place_from_others() {
    let (hangs, other, shared) = (Faulty::start(Fault::Hangs), Upstream::start(), Upstream::start());
    let rig = rig(&format!(
        "{}max_in_flight = 2\ntenant_max_in_flight = 3\norganisation_max_in_flight = 0\nmax_pending = 1\nqueue_timeout = \"60s\"\n\
         [upstreams.many.tenants]\nt-full = \"http://{}\"\nt-auditor = \"http://{}\"\n",
        origins(&[shared.address]),
        hangs.address,
        other.address,
    ));
    let waiting: Vec<Connection> = (0..4)
        .map(|_| {
            let mut connection = Connection::open(rig.public);
            connection.write(&Request::get("/many/a").tenant("t-full").bearer(&rig.token()).bytes());
            connection
        })
        .collect();
    let pending = "linkgate_upstream_requests_pending{upstream=\"many\"}";
    until("its places and its queue are full", || {
        hangs.open.load(Ordering::SeqCst) == 3 && metric(&rig, pending) == 1.0
    });
    let full = get_in(&rig, "t-full");
    assert_eq!((full.error().as_str(), full.header("retry-after")), ("UPSTREAM_UNAVAILABLE", "1"));
    for _ in 0..20 {
        assert_eq!((get_in(&rig, "t-auditor").status, get_in(&rig, "t-support").status), (200, 200));
    }
    assert_eq!((other.count(), shared.count()), (20, 20));
    // The bound of the sum: two for the shared ones and three for each of two addresses.
    let number = |name: &str| metric(&rig, &format!("linkgate_upstream_{name}{{upstream=\"many\"}}"));
    until("the others are done", || number("requests_in_flight") == 3.0);
    assert_eq!((number("requests_bound"), number("fullness_ratio")), (8.0, 1.0));
    let text = rig.health("/metrics").text();
    assert!(!text.contains("t-full") && !text.contains(&hangs.address.to_string()), "no metric names a tenant");
    drop(waiting);
    until("places come back", || number("requests_in_flight") == 0.0 && number("fullness_ratio") == 0.0);
}

/// In however many tenants: what it may not have is left for others, be they another partner's or a tenant's own users.
#[test]
fn one_organisation_has_no_more_than_its_share_of_the_places() {
    let service = Upstream::start();
    let rig = rig(&format!("{}max_in_flight = 4\n", origins(&[service.address])));
    let mut held: Vec<Connection> = ["t-full", "t-auditor"]
        .map(|tenant| {
            let mut connection = Connection::open(rig.public);
            connection.write(&Request::get("/many/sse").tenant(tenant).bearer(&rig.token()).bytes());
            assert_eq!(connection.head().status, 200);
            connection
        })
        .into();
    let refused = rig.ask(Request::get("/many/a").tenant("t-support").header("X-Request-ID", "rq-share"));
    assert_eq!((refused.status, refused.error().as_str()), (503, "UPSTREAM_UNAVAILABLE"));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(rig.ask(Request::get("/many/a")).status, 503, "at home it is the same organisation");
    assert_eq!(get_of_another(&rig).status, 200);
    let at_home = rig.token_with("user-of-t-full", "t-full", serde_json::json!({}));
    assert_eq!(Request::get("/many/a").bearer(&at_home).send(rig.public).status, 200);
    assert_eq!(metric(&rig, "linkgate_upstream_refused_total{reason=\"share\",upstream=\"many\"}"), 2.0);
    until("the record is complete", || {
        let records = rig.records();
        let found = records.iter().find(|record| record["request_id"] == "rq-share");
        found.is_some_and(|record| record["reason"] == "upstream_share" && record["status"] == 503)
    });
    held.pop();
    until("the place comes back", || get_in(&rig, "t-support").status == 200);
}

const EJECTIONS: &str = "linkgate_upstream_ejections_total{upstream=\"many\"}";

/// One organisation, in however many tenants, takes no endpoint away from others by what it asks.
#[test]
fn failures_that_one_organisation_alone_meets_eject_nothing() {
    let (good, bad) = (Upstream::start(), Upstream::start());
    let rig = rig(&origins(&[bad.address, good.address]));
    bad.say(503);
    until("many failed in a row", || {
        get_in(&rig, "t-auditor");
        get(&rig);
        bad.count() > 40
    });
    assert_eq!(metric(&rig, EJECTIONS), 0.0);
    until("somebody else met a failure", || {
        let answer = get_of_another(&rig);
        assert!([200, 503].contains(&answer.status));
        answer.status == 503
    });
    assert_eq!(metric(&rig, EJECTIONS), 1.0);
    assert_eq!((get(&rig).status, get_of_another(&rig).status), (200, 200));
}

/// Who asks what takes too long anywhere, gets no endpoint ejected either.
#[test]
fn answers_that_one_tenants_questions_make_late_eject_nothing() {
    let services = [Upstream::start(), Upstream::start()];
    let rig =
        rig(&format!("{}response_timeout = \"50ms\"\n", origins(&services.each_ref().map(|service| service.address))));
    for _ in 0..30 {
        assert_eq!(rig.ask(Request::get("/many/slow/400").tenant("t-full")).status, 504);
    }
    assert_eq!(metric(&rig, EJECTIONS), 0.0);
}

/// A service that only one tenant uses has its endpoints ejected all the same, once they have failed for as long as they
/// would be left alone.
#[test]
fn who_is_alone_with_a_service_has_its_dead_endpoint_ejected_too() {
    let (good, bad) = (Upstream::start(), Upstream::start());
    let rig = rig(&format!(
        "{}outlier_detection = {{ base_ejection_time = \"1s\", max_ejection_time = \"1h\" }}\n",
        origins(&[bad.address, good.address])
    ));
    bad.say(503);
    let mut first = None;
    until("it is ejected", || {
        if get(&rig).status == 503 {
            first.get_or_insert_with(Instant::now);
        }
        metric(&rig, EJECTIONS) > 0.0
    });
    // Its clock begins a little before ours.
    assert!(first.unwrap().elapsed() > Duration::from_millis(800));
    assert!(bad.count() > 5);
}

/// An HTTP/2 service that lets few streams be open at once on a connection: `sse` never ends.
fn narrow(streams: u32) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&connections);
    let serve = async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let first =
                    futures_util::stream::iter([Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from("ok")))]);
                let endless = request.uri().path().ends_with("/sse");
                let body: Body = if endless {
                    BodyExt::boxed(StreamBody::new(first.chain(futures_util::stream::pending())))
                } else {
                    BodyExt::boxed(StreamBody::new(first))
                };
                Ok::<_, std::convert::Infallible>(Response::new(body))
            });
            tokio::spawn(async move {
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // The gateway has ended it, or the test is over.
                let _ = builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    };
    std::thread::spawn(move || runtime.block_on(serve));
    (address, connections)
}

/// A stream that stays open leaves no room for another one on its connection, as the service says: the next request gets a
/// connection of its own instead of waiting, unseen, for the stream to end.
#[test]
fn a_stream_that_fills_a_connection_holds_up_no_request_behind_it() {
    let (address, connections) = narrow(1);
    let rig = rig(&format!("origin = \"http://{address}\"\nhttp2 = \"always\"\nresponse_timeout = \"20s\"\n"));
    let started = Instant::now();
    rig.block_on(async {
        // One connection of the client's, so that one worker has them all.
        let stream = tokio::net::TcpStream::connect(rig.public).await.unwrap();
        let mut sender = http2::handshake(stream).await;
        let mut ask = |path: &str| sender.send_request(http2::request(&rig, path).body(http2::empty()).unwrap());
        let mut held = ask("/many/sse").await.unwrap();
        assert_eq!(held.status(), StatusCode::OK);
        assert!(held.body_mut().frame().await.is_some());
        for _ in 0..10 {
            let answer = ask("/many/a").await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        }
        drop(held);
    });
    assert!(started.elapsed() < Duration::from_secs(20), "one waited for its time-out");
    assert_eq!(connections.load(Ordering::SeqCst), 2, "one for the stream, one for all others");
}

/// Where no stream may ever begin, each request is answered in its time, and nobody else's waits.
#[test]
fn a_service_that_lets_no_stream_begin_costs_its_own_requests_only() {
    let (address, _) = narrow(0);
    let rig = rig(&format!("origin = \"http://{address}\"\nhttp2 = \"always\"\nresponse_timeout = \"500ms\"\n"));
    for _ in 0..4 {
        let answer = get(&rig);
        assert!(["UPSTREAM_TIMEOUT", "UPSTREAM_ERROR"].contains(&answer.error().as_str()), "{}", answer.text());
        assert_eq!(rig.ask(Request::get("/api/invoices").tenant("t-full")).status, 200);
    }
    until("places come back", || metric(&rig, "linkgate_upstream_requests_in_flight{upstream=\"many\"}") == 0.0);
}
