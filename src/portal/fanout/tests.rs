//! The fan-out over scripted services: what each failure, age and caller makes of an answer.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::Value;

use super::Kind;
use crate::{
    config::settings::ReadSettings,
    connector::rows::{InvoiceRow, InvoiceStatus},
    domain::ErrorCode,
    portal::{
        invoice::tests::row,
        scripted::{Behaviour, Held, Stage, code, settings, status_of},
        sources::SourceError,
    },
};

const INVOICES: &str = "/api/v1/partner/billing/invoices?from_date=2026-01-01";

fn invoices(tenant: &str, count: i64) -> Held {
    let rows = (0..count).map(|at| row(&format!("{tenant}-{at}"), InvoiceStatus::Finalized, 1_000, 100));
    Held { invoices: rows.collect(), ..Held::default() }
}

async fn stage(tenants: &[&str], reads: ReadSettings) -> Stage {
    let stage = Stage::new(tenants, reads).await;
    for tenant in tenants {
        stage.hold(tenant, invoices(tenant, 4));
    }
    stage
}

fn sum(answer: &Value) -> f64 {
    answer["aggregates"]["total_amount"].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_is_its_tenants_own_and_leaves_nothing_behind() {
    let tenants = ["a", "b-500", "c-slow", "d-panic", "e-half", "f-more", "g-forbidden"];
    let reads = ReadSettings { source_timeout: Duration::from_millis(800), ..settings() };
    let mut stage = stage(&tenants, reads).await;
    stage.forbid("g-forbidden");
    let says = |text: &str| Behaviour::Fails(SourceError::Answer(text.into()));
    stage.services.behave("b-500", Kind::Invoices, Some(says("b-500: status 500")));
    stage.services.behave("c-slow", Kind::Invoices, Some(Behaviour::Slow(Duration::from_secs(10))));
    stage.services.behave("d-panic", Kind::Invoices, Some(Behaviour::Panics));
    stage.services.behave("e-half", Kind::Invoices, Some(Behaviour::BreaksOff));
    stage.services.behave("f-more", Kind::Invoices, Some(Behaviour::Truncates));
    let answer = stage.get(INVOICES).await;
    let expected = [
        ("a", "ok"),
        ("b-500", "error"),
        ("c-slow", "timeout"),
        ("d-panic", "error"),
        ("e-half", "error"),
        ("f-more", "truncated"),
        ("g-forbidden", "forbidden"),
    ];
    for (tenant, status) in expected {
        assert_eq!(status_of(&answer, tenant), status, "{tenant}");
    }
    assert_eq!((&answer["partial"], &answer["total_exact"]), (&true.into(), &false.into()));
    // Four whole tenants' rows of 10.00 each would be 240.00; a and f-more answered.
    assert_eq!((&answer["total"], sum(&answer)), (&8.into(), 80.0));
    assert_eq!(answer["sources"].as_array().unwrap().len(), 6, "what is ok is not listed");
    let error = &answer["sources"][0];
    assert_eq!(error["error"], "b-500: status 500");
    assert!(error["as_of"].is_null());
    let all = stage.get(&format!("{INVOICES}&sources=all")).await;
    assert_eq!(all["sources"].as_array().unwrap().len(), 7);
    assert_eq!(all["sources"][0]["status"], "ok");
    assert!(all["sources"][0]["as_of"].is_string());

    let refused = stage.try_get(&format!("{INVOICES}&strict=true")).await.unwrap_err();
    assert_eq!(code(&refused), ErrorCode::UpstreamError);
    assert_eq!(refused.slices.len(), 7, "the record knows how each ended");
    let fine = stage.get(&format!("{INVOICES}&strict=true&tenant_ids=a,g-forbidden")).await;
    assert_eq!((&fine["partial"], &fine["total_exact"]), (&false.into(), &true.into()));
}

#[tokio::test]
async fn equal_questions_share_one_answer_and_warm_ones_ask_nobody() {
    let stage = Arc::new(stage(&["a", "b"], settings()).await);
    stage.services.behave("a", Kind::Invoices, Some(Behaviour::Slow(Duration::from_millis(100))));
    let (one, other) = tokio::join!(stage.get(INVOICES), stage.get(INVOICES));
    assert_eq!(one, other);
    assert_eq!(stage.services.asked(), 2, "one question for each tenant");
    stage.get(INVOICES).await;
    stage.get(&format!("{INVOICES}&offset=2")).await;
    assert_eq!(stage.services.asked(), 2);
    stage.get(&format!("{INVOICES}&search=a-1")).await;
    assert_eq!(stage.services.asked(), 4, "another question");
    stage.get_fresh(INVOICES).await;
    assert_eq!(stage.services.asked(), 6, "no-cache asks");
    stage.get(INVOICES).await;
    assert_eq!(stage.services.asked(), 6, "and what it brought is kept");
}

#[tokio::test]
async fn slices_are_one_partners_under_one_version_of_the_link() {
    let mut stage = stage(&["a", "b"], settings()).await;
    stage.get(INVOICES).await;
    stage.change_link("a");
    stage.get(INVOICES).await;
    assert_eq!(stage.services.asked(), 3, "a changed link's slices are gone, the other's stay");
    stage.other_partner();
    stage.get(INVOICES).await;
    assert_eq!(stage.services.asked(), 5, "another partner gets nothing that was fetched for the first");
}

#[tokio::test]
async fn age_decides_between_ok_refreshed_and_stale() {
    let reads = ReadSettings {
        slice_fresh: Duration::from_millis(100),
        max_slice_age: Duration::from_millis(1_500),
        max_stale_age: Duration::from_millis(4_500),
        ..settings()
    };
    let stage = stage(&["a"], reads).await;
    let first = stage.get(&format!("{INVOICES}&sources=all")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.hold("a", invoices("a", 5));
    let shown = stage.get(&format!("{INVOICES}&sources=all")).await;
    assert_eq!((&shown["total"], status_of(&shown, "a")), (&4.into(), "ok".into()), "old, and good enough");
    assert_eq!(shown["sources"][0]["as_of"], first["sources"][0]["as_of"], "and its age is told");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.get(INVOICES).await["total"], 5, "refreshed meanwhile");

    tokio::time::sleep(Duration::from_millis(1_700)).await;
    let fails = Behaviour::Fails(SourceError::Timeout);
    stage.services.behave("a", Kind::Invoices, Some(fails));
    let stale = stage.get(INVOICES).await;
    assert_eq!((&stale["total"], status_of(&stale, "a")), (&5.into(), "stale".into()));
    assert_eq!(stale["sources"][0]["error"], "no answer in time");
    assert_eq!((&stale["partial"], &stale["total_exact"]), (&true.into(), &false.into()));
    let fresh = stage.get_fresh(INVOICES).await;
    assert_eq!(status_of(&fresh, "a"), "timeout", "who wants nothing cached gets nothing cached");

    tokio::time::sleep(Duration::from_millis(4_500)).await;
    let gone = stage.get(INVOICES).await;
    assert_eq!((&gone["total"], status_of(&gone, "a")), (&0.into(), "timeout".into()));
    assert!(gone["aggregates"]["total_amount"].is_null(), "unknown, not zero");
}

#[tokio::test]
async fn a_request_that_is_given_up_gives_up_its_questions() {
    let stage = stage(&["a", "b"], settings()).await;
    for tenant in ["a", "b"] {
        stage.services.behave(tenant, Kind::Invoices, Some(Behaviour::Slow(Duration::from_secs(60))));
    }
    let left = tokio::time::timeout(Duration::from_millis(100), stage.get(INVOICES)).await;
    assert!(left.is_err());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stage.services.given_up.load(Ordering::SeqCst), 2);
    assert_eq!(stage.portal.fanout.slices.under_way(), 0);
}

#[tokio::test]
async fn the_deadline_holds_whatever_the_services_do() {
    let reads = ReadSettings {
        deadline: Duration::from_millis(400),
        source_timeout: Duration::from_millis(400),
        concurrency: 1,
        ..settings()
    };
    let stage = stage(&["a", "b", "c", "d"], reads).await;
    for tenant in ["b", "c", "d"] {
        stage.services.behave(tenant, Kind::Invoices, Some(Behaviour::Slow(Duration::from_secs(60))));
    }
    let started = std::time::Instant::now();
    let answer = stage.get(INVOICES).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(answer["total"], 4);
    assert_eq!(status_of(&answer, "d"), "timeout");
}

#[tokio::test]
async fn places_are_bounded() {
    let names: Vec<String> = (0..40).map(|at| format!("t{at:02}")).collect();
    let tenants: Vec<&str> = names.iter().map(String::as_str).collect();
    let stage = stage(&tenants, ReadSettings { concurrency_total: 7, concurrency: 20, ..settings() }).await;
    for tenant in &tenants {
        stage.services.behave(tenant, Kind::Invoices, Some(Behaviour::Slow(Duration::from_millis(10))));
    }
    let answer = stage.get(INVOICES).await;
    assert_eq!((&answer["total"], &answer["partial"]), (&160.into(), &false.into()));
    assert!(stage.services.most_under_way.load(Ordering::SeqCst) <= 7);

    let narrow = ReadSettings { concurrency_per_upstream: 3, concurrency_total: 30, ..settings() };
    let stage = self::stage(&tenants, narrow).await;
    assert_eq!(stage.get(INVOICES).await["total"], 160);
    assert!(stage.services.most_under_way.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn a_breaker_leaves_a_failing_tenant_alone() {
    let reads = ReadSettings { breaker_failures: 2, ..settings() };
    let stage = stage(&["a", "b"], reads).await;
    stage.services.behave("b", Kind::Invoices, Some(Behaviour::Fails(SourceError::Answer("b: /total".into()))));
    for _ in 0..2 {
        stage.get_fresh(INVOICES).await;
    }
    let asked = stage.services.asked();
    let answer = stage.get_fresh(INVOICES).await;
    assert_eq!(stage.services.asked(), asked + 1, "a only");
    assert_eq!(status_of(&answer, "b"), "error");
    let error = answer["sources"][0]["error"].as_str().unwrap();
    assert!(error.contains("2 times in a row") && error.contains("b: /total"), "{error}");
}

/// One partner's failures, whatever they come from, take nothing from another.
#[tokio::test]
async fn a_breaker_is_one_partners() {
    let mut stage = stage(&["a"], ReadSettings { breaker_failures: 2, ..settings() }).await;
    let fails = Behaviour::Fails(SourceError::Answer("status 500".into()));
    stage.services.behave("a", Kind::Invoices, Some(fails));
    for _ in 0..3 {
        assert_eq!(status_of(&stage.get_fresh(INVOICES).await, "a"), "error");
    }
    assert_eq!(stage.services.asked(), 2, "its breaker is open");
    stage.services.behave("a", Kind::Invoices, None);
    stage.other_partner();
    let answer = stage.get_fresh(&format!("{INVOICES}&strict=true")).await;
    assert_eq!((&answer["partial"], &answer["total"]), (&false.into(), &4.into()));
}

/// A row of one of 2,000, cheap to make.
fn made(at: usize) -> InvoiceRow {
    let mut row = row(&format!("{at:05}"), InvoiceStatus::Finalized, 1_000, 100);
    row.invoice_date += jiff::SignedDuration::from_secs(at as i64);
    row
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_tenants_of_two_thousand_rows_are_counted_exactly_and_not_kept() {
    let names: Vec<String> = (0..100).map(|at| format!("t{at:03}")).collect();
    let tenants: Vec<&str> = names.iter().map(String::as_str).collect();
    // Nothing here is about time, and the machine may be busy.
    let patient = Duration::from_secs(300);
    let stage = Stage::new(&tenants, ReadSettings { deadline: patient, source_timeout: patient, ..settings() }).await;
    for tenant in &tenants {
        stage.hold(tenant, Held { many_invoices: Some((2_000, made)), ..Held::default() });
    }
    let answer = stage.get(&format!("{INVOICES}&limit=3&offset=99&sort_by=invoice_date")).await;
    assert_eq!(answer["total"], 200_000);
    assert_eq!((&answer["total_exact"], &answer["has_more"]), (&true.into(), &true.into()));
    assert_eq!(sum(&answer), 2_000_000.0);
    assert_eq!(answer["aggregates"]["outstanding_amount"], 200_000.0);
    // Newest first: rows 0 to 99 are the last of each tenant, 100 and on the last but one.
    let items: Vec<_> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["tenant_id"].as_str().unwrap(), item["invoice_id"].as_str().unwrap()))
        .collect();
    assert_eq!(items, [("t099", "01999"), ("t000", "01998"), ("t001", "01998")]);
    let slices = &stage.portal.fanout.slices;
    assert!(slices.rows_bytes() <= 100 * 200 * 1_000, "a slice keeps a page's depth: {} bytes", slices.rows_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_join_without_gap_or_repetition() {
    let stage = stage(&["a", "b", "c"], settings()).await;
    for sort in ["invoice_date", "amount", "status"] {
        let whole = stage.get(&format!("{INVOICES}&sort_by={sort}&sort_order=asc")).await;
        let mut joined = Vec::new();
        for offset in (0..12).step_by(5) {
            let page = stage.get(&format!("{INVOICES}&sort_by={sort}&sort_order=asc&limit=5&offset={offset}")).await;
            assert_eq!(page["has_more"], offset + 5 < 12);
            joined.extend(page["items"].as_array().unwrap().clone());
        }
        assert_eq!(&joined, whole["items"].as_array().unwrap(), "{sort}: all keys are equal, so ties decide");
        let tenants: Vec<_> = joined.iter().map(|item| item["tenant_id"].as_str().unwrap()).collect();
        assert!(tenants.is_sorted());
    }
}

#[tokio::test]
async fn rows_that_a_source_repeats_count_once() {
    let stage = stage(&["a"], settings()).await;
    let mut held = invoices("a", 3);
    held.invoices.extend(invoices("a", 2).invoices);
    stage.hold("a", held);
    let answer = stage.get(INVOICES).await;
    assert_eq!((&answer["total"], sum(&answer)), (&3.into(), 30.0));
}

#[tokio::test]
async fn nobody_to_ask_is_an_empty_list() {
    let mut stage = stage(&["a"], settings()).await;
    stage.forbid("a");
    let answer = stage.get(&format!("{INVOICES}&strict=true")).await;
    assert_eq!((&answer["total"], &answer["items"]), (&0.into(), &Value::Array(Vec::new())));
    assert_eq!((sum(&answer), &answer["partial"]), (0.0, &false.into()));
    assert_eq!(status_of(&answer, "a"), "forbidden");
    assert_eq!(stage.services.asked(), 0, "what is not granted is not fetched (I7)");
}
