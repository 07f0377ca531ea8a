//! Each question of a consolidated request is a span of its own under the request's, and its service is told which.

use std::collections::BTreeSet;

use super::{
    client::Request,
    collector::Collector,
    rig::{BASE, P1, Rig, TENANTS, connectors},
    service::Service,
    world::{World, held},
};

#[test]
fn each_question_stands_under_its_request() {
    let collector = Collector::start();
    let world: World = TENANTS.iter().map(|(tenant, _)| ((*tenant).to_owned(), held(tenant, &["USD"]))).collect();
    let service = Service::start(world.clone());
    let links = TENANTS.iter().map(|(tenant, role)| (P1, (*tenant).to_owned(), *role)).collect();
    let configured = format!("{}{}", connectors(service.address), collector.section("1.0"));
    let rig = Rig::over(service, world, links, &configured, "");
    let path = format!("{BASE}/billing/invoices?from_date=2020-01-01");
    let answer = rig.ask(Request::get(&path).header("X-Request-ID", "rq-all").header("Cache-Control", "no-cache"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let heads = rig.service.take_heads();
    assert!(!heads.is_empty());
    let spans = collector.wait("a span for each question", |spans| spans.len() > heads.len());
    assert_eq!(spans.len(), heads.len() + 1, "{spans:#?}");
    let server = spans.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!(server.attribute("linkgate.request_id"), "rq-all");
    assert_eq!(server.attribute("linkgate.decision_id"), answer.header("x-decision-id"));
    assert!(server.attribute("http.route").ends_with("/billing/invoices"), "{server:?}");
    let told: BTreeSet<String> = heads.iter().map(|head| head["traceparent"].clone()).collect();
    let calls = spans.iter().filter(|span| span.kind == 3);
    let made: BTreeSet<String> = calls.map(|span| format!("00-{}-{}-01", server.trace, span.id)).collect();
    assert_eq!(told, made);
    let calls = spans.iter().filter(|span| span.kind == 3);
    for call in calls {
        assert_eq!((call.parent.as_str(), call.attribute("linkgate.upstream")), (server.id.as_str(), "isp"));
    }
    let told = format!("{spans:?}");
    assert!(TENANTS.iter().all(|(tenant, _)| !told.contains(tenant)), "{told}");
}
