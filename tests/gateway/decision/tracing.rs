//! A decision is a span of the asking proxy's own trace, as far as that trace is the proxy's.

use serde_json::json;

use super::{
    EDGE, PDP,
    grpc::{Told, allowed, metadata, set},
    http::{forwarded, nginx},
    listener,
    process::{Front, eventually},
    record, rig_with,
};
use crate::{
    client::Request,
    collector::{Collector, Told as Span},
    rig::{Rig, Setup},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
/// Of a client, who is nobody.
const OTHER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Nothing is traced but what a believed caller asks for.
fn traced(collector: &Collector) -> Rig {
    rig_with(Setup { routes: collector.section("0.0"), ..Setup::default() })
}

fn parent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{SPAN}-{flags}")
}

fn by_face<'s>(spans: &'s [Span], face: &str) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.attribute("linkgate.face") == face).collect()
}

#[test]
fn envoys_call_tells_its_span_and_the_message_only_what_the_client_says() {
    let collector = Collector::start();
    let rig = traced(&collector);
    let asked = |tenant: &str| {
        Told::new("GET", "/api/invoices")
            .header("authorization", &format!("Bearer {}", rig.token()))
            .header("x-active-tenant-id", tenant)
            .header("traceparent", &parent(OTHER, "01"))
            .header("tracestate", "evil=1")
    };
    let answer = asked("t-full").called_with("traceparent", &parent(TRACE, "01")).send(listener(&rig)).unwrap();
    let told = set(allowed(&answer))["traceparent"].to_owned();
    assert!(allowed(&answer).headers_to_remove.iter().any(|name| name == "tracestate"));
    let refused = asked("t-revoked").called_with("traceparent", &parent(TRACE, "01")).send(listener(&rig)).unwrap();
    // Not sampled: Envoy's word, then ours, because the client's counts for nothing.
    let out = asked("t-full").called_with("traceparent", &parent(TRACE, "00")).send(listener(&rig)).unwrap();
    assert!(set(allowed(&out))["traceparent"].starts_with(&format!("00-{TRACE}-")));
    for broken in [None, Some("00-0-0-01"), Some("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")] {
        let asked = asked("t-full");
        let asked = broken.into_iter().fold(asked, |asked, value| asked.called_with("traceparent", value));
        let told = asked.send(listener(&rig)).unwrap();
        let told = set(allowed(&told))["traceparent"].to_owned();
        assert!(!told.contains(OTHER) && !told.contains(TRACE) && told.ends_with("-00"), "{broken:?}: {told}");
    }
    let spans = collector.wait("two decisions", |spans| by_face(spans, "envoy").len() >= 2);
    assert_eq!(spans.len(), 2, "nothing is forwarded, and the others are not sampled: {spans:#?}");
    for (answer, decision) in [(&answer, "allow"), (&refused, "deny")] {
        let id = metadata(answer, "decision_id");
        let span = spans.iter().find(|span| span.attribute("linkgate.decision_id") == id).unwrap();
        assert_eq!((span.trace.as_str(), span.parent.as_str(), span.kind), (TRACE, SPAN, 2), "{span:?}");
        assert_eq!((span.name.as_str(), span.attribute("http.route")), ("GET /api/invoices", "/api/invoices"));
        assert_eq!((span.attribute("linkgate.decision"), span.failed), (decision, false));
        // The status is Envoy's to tell, unless it is our refusal.
        let status = if decision == "deny" { "IntValue(403)" } else { "" };
        assert_eq!(span.attribute("http.response.status_code"), status);
        assert_eq!(record(&rig, &id)["trace_id"], TRACE);
        if decision == "allow" {
            assert_eq!(told, format!("00-{TRACE}-{}-01", span.id), "the service stands under the decision");
        }
    }
}

#[test]
fn a_check_over_http_is_the_clients_word_unless_the_caller_writes_it_itself() {
    for own in [false, true] {
        let collector = Collector::start();
        let section = format!(
            "[decision]\naddress = \"127.0.0.1:0\"\n[decision.callers.edge]\nsecret_env = \"TEST_EDGE_SECRET\"\nown_traceparent = {own}\n"
        );
        let rig = Rig::with(Setup { extra: section, routes: collector.section("1.0"), ..Setup::default() });
        let checks = [
            ("nginx", nginx(&rig, "GET", "/api/invoices")),
            ("caddy", forwarded(&rig, "caddy", "GET", "/api/invoices")),
            ("traefik", forwarded(&rig, "traefik", "GET", "/api/invoices")),
        ];
        for (face, check) in checks {
            let check = check.tenant("t-full").header("traceparent", &parent(TRACE, "01")).header("tracestate", "a=1");
            let answer = check.send(listener(&rig));
            assert_eq!(answer.status, 200, "{face}: {}", answer.text());
            assert_eq!(answer.header("tracestate"), "");
            let spans = collector.wait(face, |spans| !by_face(spans, face).is_empty());
            let span = by_face(&spans, face)[0];
            let expected = if own { (TRACE, SPAN) } else { (span.trace.as_str(), "") };
            assert_eq!((span.trace.as_str(), span.parent.as_str()), expected, "{face}");
            assert_eq!(own, span.trace == TRACE, "{face}");
            assert_eq!(answer.header("traceparent"), format!("00-{}-{}-01", span.trace, span.id), "{face}");
            assert_eq!(span.attribute("linkgate.decision_id"), answer.header("x-decision-id"));
        }
    }
}

#[test]
fn a_service_that_vouches_for_users_has_each_answer_in_its_trace() {
    let collector = Collector::start();
    let rig = traced(&collector);
    let question = |tenant: &str| json!({"resource": {"type": "tenant", "id": tenant}});
    let body = json!({
        "subject": {"type": "user", "id": "user-1", "properties": {"roles": ["partner_msp_full"]}},
        "action": {"name": "partner.billing.invoices.read"},
        "context": {"ip": "192.0.2.7"},
        "evaluations": [question("t-full"), question("t-revoked")],
    });
    let request = Request::new("POST", "/access/v1/evaluations").bearer(PDP).json(&body.to_string());
    let answer = request.header("traceparent", &parent(TRACE, "01")).send(listener(&rig));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answers = answer.json()["evaluations"].clone();
    let spans = collector.wait("a span for each question", |spans| spans.len() >= 2);
    assert_eq!(spans.len(), 2, "{spans:#?}");
    for (at, decision) in [(0, "allow"), (1, "deny")] {
        let id = answers[at]["context"]["decision_id"].as_str().unwrap();
        let span = spans.iter().find(|span| span.attribute("linkgate.decision_id") == id).unwrap();
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, SPAN));
        assert_eq!((span.attribute("linkgate.decision"), span.attribute("linkgate.face")), (decision, "authzen"));
        assert_eq!(span.name, "POST /access/v1/evaluations");
        assert!(!span.failed, "a refusal is no fault, and nobody went away: {span:?}");
        assert_eq!(record(&rig, id)["trace_id"], TRACE);
    }
    let told = format!("{spans:?}");
    assert!(
        ["user-1", "t-full", "t-revoked", "192.0.2.7", PDP, EDGE].iter().all(|word| !told.contains(word)),
        "{told}"
    );
}

/// Envoy's own tracer, told to send its spans where linkgate's go.
#[test]
fn the_decision_stands_under_the_span_of_a_real_envoy() {
    let collector = Collector::start();
    let rig = traced(&collector);
    let front = Front::envoy_that_traces(&rig, collector.address);
    let answer = Request::get("/api/invoices").bearer(&rig.token()).tenant("t-full").send(front.address);
    assert_eq!(answer.status, 200, "{}", front.log());
    let id = rig.upstream.last().one("x-decision-id").to_owned();
    let mut found = Vec::new();
    eventually("Envoy's spans and ours", || {
        found = collector.spans();
        let ours = found.iter().find(|span| span.attribute("linkgate.decision_id") == id);
        ours.is_some_and(|ours| found.iter().any(|span| span.id == ours.parent && span.trace == ours.trace))
    });
    let ours = found.iter().find(|span| span.attribute("linkgate.decision_id") == id).unwrap();
    assert_eq!(record(&rig, &id)["trace_id"], ours.trace.as_str());
    assert!(rig.upstream.last().one("traceparent").starts_with(&format!("00-{}-", ours.trace)));
}
