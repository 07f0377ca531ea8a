//! What `/metrics` says of the consolidated API: counted as it happened, and of no tenant by name.

use std::time::{Duration, Instant};

use super::{
    client::Request,
    rig::{BASE, Rig, TENANTS},
    service::Chaos,
};

const LIST: &str = "/billing/invoices?from_date=2015-01-01";

/// The value of a series, by its line without the number.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("there is no `{series}`:\n{metrics}")).parse().unwrap()
}

fn metrics(rig: &Rig) -> String {
    Request::get("/metrics").send(rig.health).text()
}

fn eventually(rig: &Rig, series: &str, expected: f64) -> String {
    let began = Instant::now();
    loop {
        let found = metrics(rig);
        if value(&found, series) == expected {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "`{series}` does not come to {expected}:\n{found}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn questions_slices_and_breakers_are_counted() {
    let rig = Rig::with("breaker_failures = 2\nhedge_percent = 0\nslice_fresh = \"1m\"\nmax_slice_age = \"2m\"");
    let slices =
        |from: &str| value(&metrics(&rig), &format!(r#"linkgate_slices_total{{from="{from}",kind="invoices"}}"#));
    let questions = |outcome: &str| {
        value(&metrics(&rig), &format!(r#"linkgate_source_questions_total{{kind="invoices",outcome="{outcome}"}}"#))
    };
    assert_eq!(rig.get(LIST)["partial"], false);
    let asked = slices("service");
    // Those whose link reads invoices; the override takes it from one of the six.
    assert_eq!((asked, questions("ok"), slices("cache")), (5.0, 5.0, 0.0));
    rig.get(LIST);
    assert_eq!((slices("service"), slices("cache"), questions("ok")), (5.0, 5.0, 5.0));

    let fresh = || rig.ask(Request::get(&format!("{BASE}{LIST}")).header("Cache-Control", "no-cache"));
    rig.service.misbehave("t-full", "invoices", Some(Chaos::Status(500)));
    let open = r#"linkgate_source_breakers_open{kind="invoices"}"#;
    assert_eq!(value(&metrics(&rig), open), 0.0);
    for _ in 0..3 {
        assert_eq!(fresh().json()["partial"], true);
    }
    // Two were asked and failed, the third was not asked any more.
    assert_eq!((questions("wrong_answer"), questions("unavailable"), slices("nowhere")), (2.0, 1.0, 3.0));
    let text = metrics(&rig);
    assert_eq!(value(&text, open), 1.0);
    for (tenant, _) in TENANTS {
        assert!(!text.contains(tenant), "{tenant} stands in the metrics");
    }
}

#[cfg(feature = "demo")]
#[test]
fn exports_and_what_waits_in_the_database_are_counted() {
    let rig = Rig::start();
    let alerts = rig.get("/alerts/billing");
    let active = alerts["active_count"].as_f64().unwrap();
    assert!(active > 0.0, "{alerts}");
    let text = eventually(&rig, r#"linkgate_export_jobs{state="queued"}"#, 0.0);
    assert!(value(&text, "linkgate_database_counts_age_seconds") < 60.0);
    let body = r#"{"format":"csv","from_date":"2015-01-01"}"#;
    let queued = rig.ask(Request::new("POST", &format!("{BASE}/billing/invoices/export")).json(body));
    assert_eq!(queued.status, 202, "{}", queued.text());
    eventually(&rig, r#"linkgate_exports_total{format="csv",outcome="completed"}"#, 1.0);
    let text = eventually(&rig, r#"linkgate_export_seconds_count{format="csv"}"#, 1.0);
    assert_eq!(value(&text, r#"linkgate_exports_total{format="csv",outcome="failed"}"#), 0.0);
    // Counted in the database within some seconds.
    let began = Instant::now();
    let counted = |text: &str| -> f64 {
        let of = |severity: &str| {
            value(text, &format!(r#"linkgate_alerts{{kind="billing",severity="{severity}",status="active"}}"#))
        };
        ["critical", "warning", "info"].into_iter().map(of).sum()
    };
    while counted(&metrics(&rig)) != active {
        assert!(began.elapsed() < Duration::from_secs(30), "{active} alerts:\n{}", metrics(&rig));
        std::thread::sleep(Duration::from_millis(200));
    }
}
