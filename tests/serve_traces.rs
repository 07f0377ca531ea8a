//! Traces and request lines of a gateway in a process of its own: the log tells each request once, with its trace, and a
//! stop sends what is left, within a bound.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]
#![allow(unreachable_pub, dead_code, reason = "one test program; its modules share freely")]

mod cli_support;
#[path = "support/collector.rs"]
mod collector;
#[path = "support/manager.rs"]
mod manager;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

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

/// Whoever counts failures by their lines must not count those twice that have no record.
#[test]
fn a_request_that_fails_and_is_not_recorded_has_one_line() {
    let route = |path: &str, more: &str| format!("[[routes]]\nmethods = [\"GET\"]\npath = \"{path}\"\n{more}\n");
    let manager = Manager::new(&format!(
        "{}{}[upstreams.dead]\norigin = \"http://127.0.0.1:9\"\ncredential = \"drop\"\nassertion = \"off\"\n{JSON_LOG}",
        route("/dead", "access = \"public\"\nupstream = \"dead\""),
        route("/closed", "access = \"deny\""),
    ));
    let gateway = manager.start();
    // Failed on its way, refused before it, and served.
    for (path, status) in [("/dead", "503"), ("/closed", "401"), ("/open", "200")] {
        let mut stream = TcpStream::connect(manager.address()).unwrap();
        stream.set_read_timeout(Some(cli_support::PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    stop(&manager, gateway);
    let lines = lines(&manager);
    let field = |line: &Value, name: &str| line["fields"].get(name).or(line.get(name)).cloned().unwrap_or_default();
    let told: Vec<(Value, Value)> = lines.iter().map(|line| (field(line, "path"), field(line, "status"))).collect();
    let expected =
        [("/dead", 503), ("/closed", 401), ("/open", 200)].map(|(path, status)| (path.into(), status.into()));
    assert_eq!(told, expected, "{}", manager.log());
    let reasons: Vec<Value> = lines.iter().map(|line| field(line, "reason")).collect();
    assert_eq!(reasons[0], "connect_failed");
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
