//! Failures: each is the documented error, names tenant and connector, tells nothing of the answer, and touches nobody else.

use std::time::Duration;

use jiff::Timestamp;
use linkgate::{
    portal::{
        query::Period,
        sources::{InvoiceFilter, SourceError, TicketFilter},
    },
    sample::Misbehave,
};
use tokio::time::Instant;

use crate::rig::{Rig, site, soon};

async fn invoices(rig: &Rig, tenant: &str, filter: &InvoiceFilter, until: Instant) -> Result<usize, SourceError> {
    let mut rows = 0;
    rig.sources.invoices(&site(tenant), filter, until, &mut |_| rows += 1).await?;
    Ok(rows)
}

fn answer(result: Result<usize, SourceError>) -> String {
    match result {
        Err(SourceError::Answer(text) | SourceError::Refused(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_failure_is_its_own_error_and_nobody_elses() {
    let rig = Rig::new().await;
    let all = InvoiceFilter::default();
    for (tenant, other, handle, connector) in [("t1", "t2", &rig.isp, "old"), ("g2-a", "g2-b", &rig.gen2, "new")] {
        let named = |problem: &str| format!("invoices of tenant `{tenant}` by connector `{connector}`: {problem}");
        for (how, problem) in [
            (Misbehave::Fail, "status 500"),
            (Misbehave::Garbage, "this is no JSON, or a key in it stands twice"),
            (Misbehave::Html, "the answer is no JSON"),
            (Misbehave::Huge(64 << 20), "the answer is longer than 8388608 bytes"),
            (Misbehave::Redirect, "redirected with status 307, which is never followed"),
            (Misbehave::ForeignRows, "`/invoices/0/tenant_id`: the row is not of the tenant that was asked about"),
        ] {
            handle.misbehave(tenant, how);
            assert_eq!(answer(invoices(&rig, tenant, &all, soon()).await), named(problem));
            assert!(invoices(&rig, other, &all, soon()).await.unwrap() > 0, "{how:?}");
        }
        handle.misbehave(tenant, Misbehave::Close);
        let closed = invoices(&rig, tenant, &all, soon()).await;
        assert!(matches!(&closed, Err(SourceError::Unavailable(text)) if text.contains("broke the connection off")));
        handle.misbehave(tenant, Misbehave::Slow(Duration::from_secs(10)));
        let began = Instant::now();
        let slow = invoices(&rig, tenant, &all, Instant::now() + Duration::from_millis(200)).await;
        assert_eq!(slow, Err(SourceError::Timeout));
        assert!(began.elapsed() < Duration::from_secs(2));
        handle.misbehave(tenant, Misbehave::Slow(Duration::from_millis(50)));
        assert!(invoices(&rig, tenant, &all, soon()).await.unwrap() > 0, "slow and in time");
        handle.misbehave(tenant, None);
        assert!(invoices(&rig, tenant, &all, soon()).await.unwrap() > 0, "well again");
    }
}

#[tokio::test]
async fn a_200_without_data_is_a_failure_only_where_something_contradicts_it() {
    let rig = Rig::new().await;
    let all = InvoiceFilter::default();
    let recent = InvoiceFilter { period: Some(Period::last_days(30, Timestamp::now())), ..all.clone() };
    for (tenant, empty, handle) in [("t1", "t-empty", &rig.isp), ("g2-a", "g2-empty", &rig.gen2)] {
        handle.misbehave(tenant, Misbehave::Zeros);
        for filter in [&all, &recent] {
            let told = answer(invoices(&rig, tenant, filter, soon()).await);
            assert!(told.contains("200 without data: nothing at `/invoices`, while `/revenue_metrics/"), "{told}");
        }
        handle.misbehave(tenant, Misbehave::ZeroDashboard);
        let figures = rig.sources.metrics(&site(tenant), soon()).await;
        assert!(
            matches!(&figures, Err(SourceError::Answer(text)) if text.contains("while `/total` of `")),
            "{figures:?}"
        );
        handle.misbehave(tenant, None);

        // What is empty in truth is believed: a tenant that has just begun, and a filter that leaves nothing.
        assert_eq!(invoices(&rig, empty, &all, soon()).await, Ok(0));
        assert_eq!(rig.sources.metrics(&site(empty), soon()).await.unwrap().total_subscribers, Some(0));
        let long_ago: Timestamp = "2001-01-01T00:00:00Z".parse().unwrap();
        let nothing = InvoiceFilter {
            period: Some(Period { from: long_ago, to: long_ago + jiff::SignedDuration::from_hours(24) }),
            ..all.clone()
        };
        assert_eq!(invoices(&rig, tenant, &nothing, soon()).await, Ok(0));
    }
}

#[tokio::test]
async fn a_switched_off_database_and_a_missing_role_are_failures_not_zeros() {
    let rig = Rig::new().await;
    let period = Period::last_days(7, Timestamp::now());
    rig.isp.misbehave("t1", Misbehave::UsageOff);
    let off = rig.sources.usage(&site("t1"), period, soon()).await.unwrap_err();
    assert_eq!(off.to_string(), "usage of tenant `t1` by connector `old`: status 503");
    assert!(rig.sources.usage(&site("t2"), period, soon()).await.is_ok());

    let plain = Rig::with("[connectors.old.credential]\nroles = [\"api_user\"]\n").await;
    let refused = plain.sources.breaches(&site("t1"), soon(), &mut |_| ()).await.unwrap_err();
    assert_eq!(refused, SourceError::Answer("breaches of tenant `t1` by connector `old`: status 403".to_owned()));
}

#[tokio::test]
async fn a_connector_that_does_not_fit_says_where() {
    let told = async |more: &str| {
        let rig = Rig::with(more).await;
        answer(invoices(&rig, "t1", &InvoiceFilter::default(), soon()).await)
    };
    let at = |problem: &str| format!("invoices of tenant `t1` by connector `old`: {problem}");
    for (more, problem) in [
        ("fields = { total = \"/totl_amount\" }", "`/invoices/0/totl_amount`: there is nothing"),
        ("fields = { total = \"/status\" }", "`/invoices/0/status`: expected a number"),
        ("fields = { invoice_date = \"/status\" }", "`/invoices/0/status`: expected a date or time"),
        ("fields = { currency = \"/status\" }", "`/invoices/0/status`: expected a currency code"),
        (
            "fields = { balance = \"/proforma_invoice_id\" }",
            "`/invoices/0/proforma_invoice_id`: there is null where a value is needed",
        ),
        ("rows = \"/items\"", "`/items`: expected a list"),
        ("more = \"/total_count\"", "`/total_count`: expected true or false"),
        ("path = \"/api/isp/v1/nowhere\"", "status 404"),
        ("path = \"/api/isp/v1/tickets\"", "redirected with status 307, which is never followed"),
    ] {
        let told = told(&format!("[connectors.old.invoices]\n{more}\n")).await;
        assert_eq!(told, at(problem), "{more}");
    }
    let lost = Rig::with("[connectors.old.invoices]\npath = \"/api/isp/v1/nowhere\"\n").await;
    let refused = invoices(&lost, "t1", &InvoiceFilter::default(), soon()).await;
    assert!(matches!(refused, Err(SourceError::Refused(_))), "the service is there: {refused:?}");
    let words = "[connectors.old.invoices.fields.status]\npointer = \"/payment_status\"\n";
    assert!(told(words).await.ends_with("/payment_status`: the word is not in the connector's list"));
}

#[tokio::test]
async fn nothing_is_asked_without_a_connector_an_address_or_time() {
    let rig = Rig::with("[connectors.bare]\ntenants = [\"t-bare\"]\nwithout = [\"tickets\", \"usage\"]\n").await;
    let none = rig.sources.tickets(&site("t-bare"), &TicketFilter::default(), soon(), &mut |_| ()).await;
    assert_eq!(none, Err(SourceError::NoConnector("tickets")));
    assert!(rig.sources.metrics(&site("t-bare"), soon()).await.is_ok(), "the rest comes by the connector for all");
    let before = rig.isp.requests();
    let late = invoices(&rig, "t1", &InvoiceFilter::default(), Instant::now()).await;
    assert_eq!((late, rig.isp.requests()), (Err(SourceError::Timeout), before));

    let gone = "127.0.0.1:1";
    let rig = Rig::with(&format!("[upstreams.isp.tenants]\n\"t-gone\" = \"http://{gone}\"\n")).await;
    let unreachable = invoices(&rig, "t-gone", &InvoiceFilter::default(), soon()).await;
    assert_eq!(unreachable, Err(SourceError::Unavailable("`isp` cannot be reached".to_owned())));
    assert!(invoices(&rig, "t1", &InvoiceFilter::default(), soon()).await.is_ok());
}
