//! Spans at a collector: one of the request, one of the call, under the ids that the record and the upstream know.

use serde_json::Value;

use super::{
    client::Request,
    collector::{Collector, Told},
    decision::process::eventually,
    rig::{Rig, Setup},
    tls_support::{Authority, mutual_server},
};

const REMOTE_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const REMOTE_SPAN: &str = "b7ad6b7169203331";

fn rig(collector: &Collector, ratio: &str, listen: &str) -> Rig {
    let section = collector.section(ratio);
    let headers = "[tracing.headers.x-collector-key]\nvalue_env = \"TEST_EDGE_SECRET\"\n";
    Rig::with(Setup { routes: format!("{section}{headers}"), listen: listen.into(), ..Setup::default() })
}

fn by_request<'s>(spans: &'s [Told], id: &str) -> Option<&'s Told> {
    spans.iter().find(|span| span.attribute("linkgate.request_id") == id)
}

/// The value of a metric, all its series added up.
fn metric(rig: &Rig, name: &str) -> f64 {
    let text = rig.health("/metrics").text();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn a_call_stands_under_its_request_with_the_ids_of_record_and_upstream() {
    let collector = Collector::start();
    let rig = rig(&collector, "1.0", "");
    let request = Request::get("/api/tickets/tk-secret-7?token=hush").tenant("t-full").header("X-Request-ID", "rq-1");
    // Not from a trusted proxy: nobody's.
    let answer = rig.ask(request.header("traceparent", &format!("00-{REMOTE_TRACE}-{REMOTE_SPAN}-01")));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let refused = rig.ask(Request::get("/api/invoices").tenant("t-revoked").header("X-Request-ID", "rq-2"));
    assert_eq!(refused.status, 403);
    let dead = rig.ask(Request::get("/dead").tenant("t-full").header("X-Request-ID", "rq-3"));
    assert_eq!(dead.status, 503);
    let unknown = rig.ask(Request::new("BREW", "/no/such/path").header("X-Request-ID", "rq-4"));
    assert_eq!(unknown.status, 404);
    let spans = collector.wait("all spans", |spans| spans.len() >= 6);
    assert_eq!(spans.len(), 6, "{spans:#?}");

    let server = by_request(&spans, "rq-1").unwrap();
    assert_eq!((server.name.as_str(), server.kind, server.parent.as_str()), ("GET /api/tickets/{ticket_id}", 2, ""));
    assert_eq!(server.attribute("http.route"), "/api/tickets/{ticket_id}");
    assert_eq!(server.attribute("linkgate.decision"), "allow");
    assert_eq!(server.attribute("linkgate.decision_id"), answer.header("x-decision-id"));
    assert_eq!(server.attribute("http.response.status_code"), "IntValue(200)");
    let record = rig.records().into_iter().find(|record| record["request_id"] == "rq-1").unwrap();
    assert_eq!(record["trace_id"], Value::from(server.trace.as_str()));
    assert_ne!(server.trace, REMOTE_TRACE);

    let client = spans.iter().find(|span| span.parent == server.id).unwrap();
    assert_eq!((client.name.as_str(), client.kind, client.failed), ("GET up", 3, false));
    assert_eq!(client.trace, server.trace);
    assert_eq!(rig.upstream.last().one("traceparent"), format!("00-{}-{}-01", server.trace, client.id));

    let server = by_request(&spans, "rq-2").unwrap();
    assert_eq!((server.attribute("linkgate.decision"), server.failed), ("deny", false), "{server:?}");
    assert_eq!(server.attribute("linkgate.code"), "TENANT_ACCESS_DENIED");
    assert_eq!(server.attribute("linkgate.reason"), "link_inactive");
    let server = by_request(&spans, "rq-3").unwrap();
    let client = spans.iter().find(|span| span.parent == server.id).unwrap();
    assert_eq!((server.failed, client.failed, client.attribute("error.type")), (true, true, "connect_failed"));
    let server = by_request(&spans, "rq-4").unwrap();
    assert_eq!((server.name.as_str(), server.attribute("http.route")), ("_OTHER", ""));

    // Nothing of the path, the query, the token, the tenant or the user; the collector's own key stands in the head.
    let told = format!("{spans:?}");
    let token = rig.token();
    let (body, signature) = token.rsplit_once('.').unwrap();
    for secret in ["tk-secret-7", "hush", "no/such", "BREW", "t-full", "t-revoked", "user-1", body, signature, "home-1"]
    {
        assert!(!told.contains(secret), "`{secret}` in {told}");
    }
    assert!(spans.iter().all(|span| span.ended_after_begun));
    let (_, key) = super::rig::CALLERS[0];
    assert!(collector.heads().iter().all(|head| head.contains(&format!("x-collector-key: {key}"))));
    assert!(metric(&rig, "linkgate_spans_exported_total") >= 6.0);
    assert_eq!(metric(&rig, "linkgate_spans_dropped_total"), 0.0);
}

#[test]
fn a_trusted_proxys_trace_is_continued_as_it_decided() {
    let collector = Collector::start();
    let rig = rig(&collector, "0.0", "trusted_proxies = [\"127.0.0.0/8\"]\n");
    let ask = |id: &str, parent: &str| {
        let answer = rig.ask(Request::get("/own").header("X-Request-ID", id).header("traceparent", parent));
        assert_eq!(answer.status, 200);
        rig.upstream.last().one("traceparent").to_owned()
    };
    let out = ask("rq-out", &format!("00-{REMOTE_TRACE}-{REMOTE_SPAN}-00"));
    assert!(out.starts_with(&format!("00-{REMOTE_TRACE}-")) && out.ends_with("-00"), "{out}");
    let unread = ask("rq-unread", &format!("00-{REMOTE_TRACE}-{REMOTE_SPAN}-01-more"));
    assert!(!unread.contains(REMOTE_TRACE) && unread.ends_with("-00"), "{unread}");
    let kept = ask("rq-in", &format!("00-{REMOTE_TRACE}-{REMOTE_SPAN}-01"));
    let spans = collector.wait("both spans", |spans| spans.len() >= 2);
    assert_eq!(spans.len(), 2, "the others are not sampled: {spans:#?}");
    let server = by_request(&spans, "rq-in").unwrap();
    assert_eq!((server.trace.as_str(), server.parent.as_str()), (REMOTE_TRACE, REMOTE_SPAN));
    let client = spans.iter().find(|span| span.parent == server.id).unwrap();
    assert_eq!(kept, format!("00-{REMOTE_TRACE}-{}-01", client.id));
}

/// What is no `traceparent`, and what comes from nobody who is believed: a trace of our own begins, and nothing goes on raw.
#[test]
fn a_hostile_context_begins_a_new_trace_and_never_goes_on() {
    let collector = Collector::start();
    let good = format!("00-{REMOTE_TRACE}-{REMOTE_SPAN}-01");
    let told = |rig: &Rig, fields: &[(&str, &str)]| {
        let request = fields.iter().fold(Request::get("/own"), |request, (name, value)| request.header(name, value));
        let answer = rig.ask(request);
        assert_eq!(answer.status, 200, "{fields:?}: {}", answer.text());
        let seen = rig.upstream.last();
        (seen.one("traceparent").to_owned(), seen.one("tracestate").to_owned())
    };
    let ours = |told: &str, fields: &[(&str, &str)]| {
        let parts: Vec<_> = told.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{told} for {fields:?}");
        assert!(!told.contains(REMOTE_TRACE) && !told.contains(REMOTE_SPAN), "{told} for {fields:?}");
    };
    let long = format!("{good}-{}", "x".repeat(4_000));
    let wrong = [
        "",
        "0",
        "00",
        long.as_str(),
        &format!("00-{REMOTE_TRACE}-{REMOTE_SPAN}-01-"),
        &format!("ff-{REMOTE_TRACE}-{REMOTE_SPAN}-01"),
        &format!("00-{}-{REMOTE_SPAN}-01", REMOTE_TRACE.to_uppercase()),
        &format!("00-{}-{REMOTE_SPAN}-01", "0".repeat(32)),
        &format!("00-{REMOTE_TRACE}-{}-01", "0".repeat(16)),
        &format!("00-{REMOTE_TRACE}-{REMOTE_SPAN}-0g"),
        &format!("{good}, {good}"),
        "00-<script>alert(1)</script>-b7ad6b7169203331-01",
    ];
    let from_anybody = rig(&collector, "1.0", "");
    let from_a_proxy = rig(&collector, "1.0", "trusted_proxies = [\"127.0.0.0/8\"]\n");
    for rig in [&from_anybody, &from_a_proxy] {
        for value in wrong {
            let fields = [("traceparent", value), ("tracestate", "a=1")];
            let (parent, state) = told(rig, &fields);
            ours(&parent, &fields);
            // W3C: without a good `traceparent` it is not even read.
            assert_eq!(state, "", "{fields:?}");
        }
        let twice = [("traceparent", good.as_str()), ("Traceparent", good.as_str()), ("tracestate", "a=1")];
        let (parent, state) = told(rig, &twice);
        ours(&parent, &twice);
        assert_eq!(state, "");
    }
    let spoofed = [("traceparent", good.as_str()), ("tracestate", "a=1"), ("Trace_Parent", "x"), ("trace_state", "x")];
    let (parent, state) = told(&from_anybody, &spoofed);
    ours(&parent, &spoofed);
    assert_eq!(state, "", "not from a trusted proxy");
    // From one it goes on with its trace, read and written anew; a wrong one does not take the trace with it.
    for (sent, expected) in [
        (&["a=1 ,, b@c=x y"][..], "a=1,b@c=x y"),
        (&["a=1", "b=2"], "a=1,b=2"),
        (&["A=1"], ""),
        (&["a=1,a=2"], ""),
        (&["a=1;b"], "a=1;b"),
        (&["evil"], ""),
        (&[&"k=v,".repeat(600)], ""),
    ] {
        let mut fields = vec![("traceparent", good.as_str())];
        fields.extend(sent.iter().map(|value| ("tracestate", *value)));
        let (parent, state) = told(&from_a_proxy, &fields);
        assert!(parent.starts_with(&format!("00-{REMOTE_TRACE}-")), "{fields:?}: {parent}");
        assert_eq!(state, expected, "{fields:?}");
    }
    let asked = from_anybody.upstream.count() + from_a_proxy.upstream.count();
    let spans = collector.wait("a span of each request and call", |spans| spans.len() >= 2 * asked);
    let continued = spans.iter().filter(|span| span.kind == 2 && span.trace == REMOTE_TRACE).count();
    assert_eq!(continued, 7);
    assert!(
        spans.iter().filter(|span| span.kind == 2 && span.trace != REMOTE_TRACE).all(|span| span.parent.is_empty())
    );
}

/// By the trace id, so that every replica and every service that looks at it decides alike.
#[test]
fn a_part_of_the_traces_is_sampled_and_services_are_told_which() {
    let collector = Collector::start();
    let rig = rig(&collector, "0.5", "");
    let mut sampled = 0;
    const ASKED: usize = 64;
    for _ in 0..ASKED {
        assert_eq!(rig.ask(Request::get("/own")).status, 200);
        let told = rig.upstream.last().one("traceparent").to_owned();
        let [_, trace, _, flags] = told.split('-').collect::<Vec<_>>()[..] else { panic!("{told}") };
        // The last 56 bits are random; half of all such numbers begin with a digit below 8.
        let below = trace.as_bytes()[18] < b'8';
        assert_eq!(flags, if below { "01" } else { "00" }, "{told}");
        sampled += usize::from(below);
    }
    assert!((1..ASKED).contains(&sampled), "{sampled} of {ASKED}");
    let spans = collector.wait("the sampled ones", |spans| spans.len() >= 2 * sampled);
    assert_eq!(spans.len(), 2 * sampled, "{spans:#?}");
}

#[test]
fn a_collector_that_is_silent_costs_what_its_queue_cannot_hold() {
    let collector = Collector::start();
    collector.fall_silent(true);
    const QUEUE: f64 = 4.0;
    let section = format!("{}queue = {QUEUE}\ntimeout = \"60s\"\n", collector.section("1.0"));
    let rig = Rig::with(Setup { routes: section, ..Setup::default() });
    let ask = || assert_eq!(rig.ask(Request::get("/own")).status, 200);
    ask();
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while collector.unanswered() == 0 {
        assert!(std::time::Instant::now() < patience, "no export came");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // One export waits for its answer; nothing else is sent, and what the queue does not hold is dropped at once.
    let sent = collector.unanswered();
    const ASKED: u32 = 20;
    for _ in 0..ASKED {
        ask();
    }
    let made = f64::from(2 * (1 + ASKED)) - sent as f64;
    assert_eq!(metric(&rig, "linkgate_queue_length{queue=\"spans\"}"), QUEUE);
    assert_eq!(metric(&rig, "linkgate_queue_bound{queue=\"spans\"}"), QUEUE);
    assert_eq!(metric(&rig, "linkgate_spans_dropped_total{reason=\"queue_full\"}"), made - QUEUE);
    assert_eq!(collector.unanswered(), sent);
    assert_eq!(rig.health("/readyz").status, 200);
}

#[test]
fn a_collector_that_is_away_costs_dropped_spans_and_nothing_else() {
    let collector = Collector::start();
    collector.go_away(true);
    let rig = rig(&collector, "1.0", "");
    for _ in 0..5 {
        assert_eq!(rig.ask(Request::get("/own")).status, 200);
    }
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while metric(&rig, "linkgate_spans_dropped_total{reason=\"collector\"}") < 10.0 {
        assert!(std::time::Instant::now() < patience, "{}", rig.health("/metrics").text());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(metric(&rig, "linkgate_spans_exported_total"), 0.0);
    assert_eq!(rig.health("/readyz").status, 200, "a collector is no reason to take traffic away");
    collector.go_away(false);
    assert_eq!(rig.ask(Request::get("/own").header("X-Request-ID", "rq-back")).status, 200);
    collector.wait("spans again", |spans| by_request(spans, "rq-back").is_some());
}

/// Whoever stands before and behind may trace all the same.
#[test]
fn without_a_collector_a_trusted_proxys_trace_goes_through() {
    let rig = Rig::with(Setup { listen: "trusted_proxies = [\"127.0.0.0/8\"]\n".into(), ..Setup::default() });
    for flags in ["01", "00"] {
        let sent = format!("00-{REMOTE_TRACE}-{REMOTE_SPAN}-{flags}");
        let request = Request::get("/api/invoices").tenant("t-full").header("traceparent", &sent);
        let answer = rig.ask(request.header("tracestate", "a=1"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = rig.upstream.last();
        // Sampled, the proxy's own span is the parent: there is none between.
        let parent = told.one("traceparent");
        assert_eq!(parent == sent, flags == "01", "{parent}");
        assert!(
            parent.starts_with(&format!("00-{REMOTE_TRACE}-")) && parent.ends_with(&format!("-{flags}")),
            "{parent}"
        );
        assert_eq!(told.one("tracestate"), "a=1");
        let record = rig.records().into_iter().find(|record| record["id"] == answer.header("x-decision-id")).unwrap();
        assert_eq!(record["trace_id"], REMOTE_TRACE);
    }
}

#[test]
fn without_a_collector_nothing_is_recorded_and_queues_tell_how_full_they_are() {
    let rig = Rig::start();
    assert_eq!(rig.ask(Request::get("/own")).status, 200);
    let told = rig.upstream.last().one("traceparent").to_owned();
    assert!(told.len() == 55 && told.ends_with("-01"), "{told}");
    assert_eq!(metric(&rig, "linkgate_queue_bound{queue=\"spans\"}"), 0.0);
    assert!(metric(&rig, "linkgate_queue_bound{queue=\"handover\"}") > 0.0);
    assert_eq!(metric(&rig, "linkgate_upstream_requests_bound{upstream=\"full\"}"), 1.0);
    assert_eq!(metric(&rig, "linkgate_upstream_fullness_ratio{upstream=\"full\"}"), 0.0);
    let text = rig.health("/metrics").text();
    for name in [
        "linkgate_queue_length{queue=\"handover\"} 0",
        "linkgate_upstream_requests_in_flight{upstream=\"up\"} 0",
        "linkgate_audit_waiting_requests 0",
    ] {
        assert!(text.contains(name), "{name}\n{text}");
    }
    // Revoked by another process: known here by the feed.
    let before = metric(&rig, "linkgate_change_latency_seconds_count");
    rig.revoke("t-full");
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while metric(&rig, "linkgate_change_latency_seconds_count") < before + 1.0 {
        assert!(std::time::Instant::now() < patience, "{}", rig.health("/metrics").text());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(metric(&rig, "linkgate_change_latency_seconds_sum") < 30.0);
}

#[test]
fn a_collector_behind_roots_of_ones_own_is_believed_once_they_are_there() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new("collectors");
    let collector = Collector::secure(mutual_server(&authority, "collector.example"));
    let shown = authority.leaf(&[], |_| {}).put(files.path(), "gateway");
    let ca = Authority::new("former").put(files.path(), "ca.pem");
    let section = collector.section("1.0").replace("http://", "https://");
    let tls = format!(
        "[tracing.tls]\nca = [\"{}\"]\nserver_name = \"collector.example\"\nclient_certificate = {shown}\n",
        ca.display()
    );
    let rig = Rig::with(Setup { routes: format!("{section}{tls}"), ..Setup::default() });
    let ask = |id: &str| rig.ask(Request::get("/api/invoices").tenant("t-full").header("X-Request-ID", id));
    assert_eq!(ask("rq-lost").status, 200);
    eventually("spans are lost", || metric(&rig, "linkgate_spans_dropped_total") >= 2.0);
    authority.put(files.path(), "ca.pem");
    // The batch that fails next has the files read again.
    eventually("spans arrive", || {
        assert_eq!(ask("rq-told").status, 200);
        by_request(&collector.spans(), "rq-told").is_some()
    });
    assert!(by_request(&collector.spans(), "rq-lost").is_none());
}
