//! Traces of a gateway in a process of its own: the log tells the trace, and a stop sends what is left, within a bound.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]
#![allow(unreachable_pub, dead_code, reason = "one test program; its modules share freely")]

mod cli_support;
#[path = "support/collector.rs"]
mod collector;
#[path = "support/manager.rs"]
mod manager;

use std::time::{Duration, Instant};

use collector::Collector;
use manager::{Gateway, Manager, ask, ended, signal};
use rustix::process::Signal;
use serde_json::Value;

const JSON_LOG: &str = "[log]\nformat = \"json\"\n";

fn stop(manager: &Manager, gateway: Gateway) -> Duration {
    let since = Instant::now();
    signal(&gateway, Signal::TERM);
    manager.hears("STOPPING=1");
    assert_eq!(ended(gateway).code(), Some(0), "{}", manager.log());
    since.elapsed()
}

/// Lines of requests in the log.
fn lines(manager: &Manager) -> Vec<Value> {
    let log = manager.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "linkgate::request").collect()
}

#[test]
fn a_stop_sends_the_last_spans_and_each_line_tells_its_trace() {
    let collector = Collector::start();
    let manager = Manager::new(&format!("{}{JSON_LOG}", collector.section("1.0")));
    let gateway = manager.start();
    // All within the half second that a batch waits for more: without the last flush none would arrive.
    for _ in 0..5 {
        assert!(ask(manager.address()).unwrap().starts_with("HTTP/1.1 200"));
    }
    stop(&manager, gateway);
    let spans = collector.spans();
    assert_eq!(spans.len(), 10, "a span of each request and of its call: {spans:#?}\n{}", manager.log());
    let lines = lines(&manager);
    assert_eq!(lines.len(), 5, "{}", manager.log());
    for line in lines {
        let fields = if line["fields"].is_object() { &line["fields"] } else { &line };
        let trace = fields["trace_id"].as_str().unwrap_or_else(|| panic!("no trace in {line}"));
        let server = spans.iter().find(|span| span.kind == 2 && span.trace == trace).unwrap();
        assert_eq!(server.attribute("linkgate.request_id"), fields["request_id"].as_str().unwrap());
        assert!(spans.iter().any(|span| span.trace == trace && span.parent == server.id));
    }
}

#[test]
fn a_stop_does_not_wait_for_a_collector_that_is_silent() {
    let collector = Collector::start();
    collector.fall_silent(true);
    // It would wait for an answer far longer than anybody waits here.
    let section = format!("{}timeout = \"60s\"\n", collector.section("1.0"));
    let manager = Manager::new(&section);
    let gateway = manager.start();
    assert!(ask(manager.address()).unwrap().starts_with("HTTP/1.1 200"));
    let until = Instant::now() + cli_support::PATIENCE;
    while collector.unanswered() == 0 {
        assert!(Instant::now() < until, "no export came: {}", manager.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(ask(manager.address()).unwrap().starts_with("HTTP/1.1 200"));
    let took = stop(&manager, gateway);
    assert!(took < cli_support::PATIENCE, "{took:?}");
    assert!(manager.log().contains("the last spans did not reach the collector in time"), "{}", manager.log());
}
