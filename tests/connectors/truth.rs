//! Every kind of data against what the service holds, in both generations.

use std::str::FromStr;

use jiff::Timestamp;
use linkgate::{
    connector::rows::{InvoiceRow, InvoiceStatus, Priority, TicketRow, TicketStatus, UptimeDay},
    portal::{
        query::Period,
        sources::{InvoiceFilter, Scanned, TicketFilter},
    },
    sample::Truth,
};
use rust_decimal::Decimal;
use serde_json::Value;

use crate::rig::{Rig, site, soon};

/// Old and new, in dollars, yen, and with nothing at all.
const TENANTS: [&str; 6] = ["t1", "isp-lagos", "t-tokyo", "t-empty", "g2-a", "g2-tokyo"];

fn truth(rig: &Rig, tenant: &str) -> Truth {
    if tenant.starts_with("g2-") { rig.gen2.truth(tenant) } else { rig.isp.truth(tenant) }
}

/// Smallest units as main units, by moving the point in the text.
fn money(row: &Value, key: &str) -> Decimal {
    let digits = match row["currency"].as_str().unwrap() {
        "JPY" => 0,
        "KWD" => 3,
        _ => 2,
    };
    let text = format!("{:0>4}", row[key].as_u64().unwrap());
    let (main, rest) = text.split_at(text.len() - digits);
    Decimal::from_str(&if digits == 0 { main.to_owned() } else { format!("{main}.{rest}") }).unwrap()
}

/// Naive times are UTC; the newer generation writes an offset.
fn time(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?.trim_end_matches("+00:00");
    Some(format!("{text}Z").parse().unwrap())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn invoice_status(word: &str) -> InvoiceStatus {
    match word {
        "draft" => InvoiceStatus::Draft,
        "open" | "partially_paid" => InvoiceStatus::Finalized,
        "paid" => InvoiceStatus::Paid,
        "overdue" => InvoiceStatus::Overdue,
        "void" => InvoiceStatus::Cancelled,
        other => panic!("{other}"),
    }
}

async fn invoices(rig: &Rig, tenant: &str, filter: &InvoiceFilter) -> (Vec<InvoiceRow>, Scanned) {
    let mut rows = Vec::new();
    let scanned = rig.sources.invoices(&site(tenant), filter, soon(), &mut |row| rows.push(row)).await;
    (rows, scanned.unwrap())
}

#[tokio::test]
async fn invoices_are_what_the_service_holds() {
    let rig = Rig::new().await;
    let mut currencies = std::collections::BTreeSet::new();
    for tenant in TENANTS {
        let raw = truth(&rig, tenant).invoices;
        let filter = InvoiceFilter { line_items: true, ..InvoiceFilter::default() };
        let (rows, scanned) = invoices(&rig, tenant, &filter).await;
        assert_eq!((rows.len(), scanned.truncated), (raw.len(), false), "{tenant}");
        assert_eq!(rows.is_empty(), tenant.ends_with("empty"));
        for (row, raw) in rows.iter().zip(&raw) {
            currencies.insert(row.currency.to_string());
            assert_eq!(row.invoice_id, raw["invoice_id"].as_str().unwrap());
            assert_eq!(row.invoice_number, text(&raw["invoice_number"]));
            assert_eq!(row.customer_id, text(&raw["customer_id"]));
            assert_eq!(row.customer_name, None, "no source says");
            assert_eq!(row.invoice_date, time(&raw["issue_date"]).unwrap());
            assert_eq!(row.due_date, time(&raw["due_date"]));
            assert_eq!(row.created_at, time(&raw["created_at"]));
            assert_eq!(row.payment_date, time(&raw["paid_at"]));
            assert_eq!(row.status, invoice_status(raw["status"].as_str().unwrap()));
            assert_eq!(row.currency.as_str(), raw["currency"].as_str().unwrap());
            assert_eq!(row.subtotal, Some(money(raw, "subtotal")));
            assert_eq!(row.tax, Some(money(raw, "tax_amount")));
            assert_eq!(row.total, money(raw, "total_amount"));
            assert_eq!(row.balance, money(raw, "remaining_balance"));
            assert_eq!(row.paid_amount, money(raw, "total_amount") - money(raw, "remaining_balance"));
            let line = &raw["line_items"][0];
            assert_eq!(row.line_items.len(), 1);
            assert_eq!(row.line_items[0].description, text(&line["description"]));
            assert_eq!(row.line_items[0].quantity, line["quantity"].as_u64().map(Decimal::from));
            let with_currency = |key: &str| serde_json::json!({"currency": raw["currency"], "amount": line[key]});
            assert_eq!(row.line_items[0].total_price, Some(money(&with_currency("total_price"), "amount")));
            assert_eq!(row.line_items[0].unit_price, Some(money(&with_currency("unit_price"), "amount")));
        }
    }
    assert!(["EUR", "JPY", "USD"].iter().all(|code| currencies.contains(*code)), "{currencies:?}");
}

#[tokio::test]
async fn pages_follow_each_other_to_the_end_and_no_further() {
    let rig = Rig::with("[portal]\nmax_rows_per_source = 1500\n").await;
    for (tenant, handle) in [("t1", &rig.isp), ("g2-a", &rig.gen2)] {
        for (count, pages) in [(499, 1), (500, 1), (501, 2), (1_203, 3), (1_500, 3)] {
            handle.set_invoices_per_tenant(count);
            let before = handle.requests();
            let (rows, scanned) = invoices(&rig, tenant, &InvoiceFilter::default()).await;
            assert_eq!((rows.len() as u64, scanned.truncated), (count, false), "{tenant}");
            assert_eq!(handle.requests() - before, pages, "{tenant} {count}");
            let ids: std::collections::HashSet<_> = rows.iter().map(|row| &row.invoice_id).collect();
            assert_eq!(ids.len(), rows.len());
        }
        handle.set_invoices_per_tenant(1_501);
        let (rows, scanned) = invoices(&rig, tenant, &InvoiceFilter::default()).await;
        assert_eq!((rows.len(), scanned.truncated), (1_500, true), "{tenant}");
    }
}

#[tokio::test]
async fn filters_leave_out_nothing_that_fits() {
    let rig = Rig::new().await;
    for tenant in ["t1", "g2-a"] {
        let raw = truth(&rig, tenant).invoices;
        let period = Period::last_days(30, Timestamp::now());
        let filter = InvoiceFilter { period: Some(period), ..InvoiceFilter::default() };
        let (rows, _) = invoices(&rig, tenant, &filter).await;
        let fits: Vec<&str> = raw
            .iter()
            .filter(|row| time(&row["issue_date"]).is_some_and(|at| period.holds(at)))
            .map(|row| row["invoice_id"].as_str().unwrap())
            .collect();
        let found: Vec<&str> =
            rows.iter().filter(|row| period.holds(row.invoice_date)).map(|row| row.invoice_id.as_str()).collect();
        assert!(!fits.is_empty() && fits.len() < raw.len());
        assert_eq!(found, fits);
        assert!(rows.len() < raw.len(), "the service narrows it");
        for status in InvoiceStatus::ALL {
            let filter = InvoiceFilter { status: vec![*status], ..InvoiceFilter::default() };
            let (rows, _) = invoices(&rig, tenant, &filter).await;
            let fits = raw.iter().filter(|row| invoice_status(row["status"].as_str().unwrap()) == *status).count();
            assert_eq!(rows.iter().filter(|row| row.status == *status).count(), fits, "{tenant} {status:?}");
        }
    }
}

#[tokio::test]
async fn tickets_are_what_the_service_holds() {
    let rig = Rig::new().await;
    let status = |word: &str| match word {
        "open" | "in_progress" => TicketStatus::Open,
        "waiting" => TicketStatus::Pending,
        "resolved" => TicketStatus::Resolved,
        "closed" => TicketStatus::Closed,
        other => panic!("{other}"),
    };
    let same = |row: &TicketRow, raw: &Value| {
        assert_eq!(row.ticket_id, raw["id"].as_str().unwrap());
        assert_eq!(row.ticket_number, text(&raw["ticket_number"]));
        assert_eq!(row.customer_id, text(&raw["customer_id"]));
        assert_eq!(row.subject, text(&raw["subject"]));
        assert_eq!(row.status, status(raw["status"].as_str().unwrap()));
        assert_eq!(row.priority.unwrap().as_str(), raw["priority"].as_str().unwrap());
        assert_eq!(row.category, text(&raw["ticket_type"]));
        assert_eq!(row.assigned_to, text(&raw["assigned_to_user_id"]));
        assert_eq!(row.created_at, time(&raw["created_at"]));
        assert_eq!(row.updated_at, time(&raw["updated_at"]));
        assert_eq!(row.sla_breach_at, time(&raw["sla_due_date"]));
        assert_eq!(row.is_sla_breached, raw["sla_breached"].as_bool());
        assert_eq!(row.last_response_at, time(&raw["last_response_at"]));
        assert_eq!((&row.customer_name, &row.assigned_to_name, row.response_count), (&None, &None, None));
    };
    for tenant in TENANTS {
        let raw = truth(&rig, tenant).tickets;
        let site = site(tenant);
        let mut rows = Vec::new();
        let all = TicketFilter::default();
        rig.sources.tickets(&site, &all, soon(), &mut |row| rows.push(row)).await.unwrap();
        assert_eq!(rows.len(), raw.len(), "{tenant}");
        for (row, raw) in rows.iter().zip(&raw) {
            same(row, raw);
            let one = rig.sources.ticket(&site, &row.ticket_id, soon()).await.unwrap().unwrap();
            same(&one, raw);
            assert_eq!(one.resolution_minutes, raw["resolution_time_minutes"].as_u64().map(Decimal::from));
        }
        for status in TicketStatus::ALL {
            let filter = TicketFilter { status: vec![*status], priority: vec![Priority::High, Priority::Urgent] };
            let mut found = Vec::new();
            rig.sources.tickets(&site, &filter, soon(), &mut |row| found.push(row)).await.unwrap();
            let fits = |row: &&TicketRow| row.status == *status && row.priority >= Some(Priority::High);
            assert_eq!(found.iter().filter(fits).count(), rows.iter().filter(fits).count(), "{tenant}");
        }
        let asked = rig.isp.requests() + rig.gen2.requests();
        for id in ["..", "a/../b", "a%2Fb", "", "a\\b", "a?b", "a;b"] {
            assert_eq!(rig.sources.ticket(&site, id, soon()).await.unwrap(), None, "{id}");
        }
        assert_eq!(rig.isp.requests() + rig.gen2.requests(), asked, "such an id is never asked for");
        for id in ["no-such-ticket", "stats"] {
            assert_eq!(rig.sources.ticket(&site, id, soon()).await.unwrap(), None, "{id}");
        }
    }
}

#[tokio::test]
async fn registry_and_figures_are_what_the_service_holds() {
    let rig = Rig::new().await;
    for tenant in TENANTS {
        let (site, truth) = (site(tenant), truth(&rig, tenant));
        let row = rig.sources.tenant(&site, soon()).await.unwrap();
        let raw = &truth.tenant;
        assert_eq!(row.tenant_id, tenant);
        for (found, key) in [
            (&row.name, "name"),
            (&row.slug, "slug"),
            (&row.domain, "domain"),
            (&row.status, "status"),
            (&row.plan_type, "plan_type"),
            (&row.billing_cycle, "billing_cycle"),
            (&row.email, "email"),
            (&row.phone, "phone"),
            (&row.billing_email, "billing_email"),
            (&row.country, "country"),
        ] {
            assert_eq!(found, &text(&raw[key]), "{key}");
        }
        for (found, key) in [
            (row.trial_ends_at, "trial_ends_at"),
            (row.subscription_starts_at, "subscription_starts_at"),
            (row.subscription_ends_at, "subscription_ends_at"),
            (row.created_at, "created_at"),
            (row.updated_at, "updated_at"),
        ] {
            assert_eq!(found, time(&raw[key]), "{key}");
        }
        assert_eq!((row.current_users, row.max_users), (raw["current_users"].as_i64(), raw["max_users"].as_i64()));
        assert_eq!((row.address_line1, row.city, row.postal_code), (None, None, None), "no source says");

        let figures = rig.sources.metrics(&site, soon()).await.unwrap();
        let count = |status: &str| {
            let rows = truth.subscribers.iter().filter(|row| status.is_empty() || row["status"] == status);
            Some(i64::try_from(rows.count()).unwrap())
        };
        assert_eq!(figures.total_subscribers, count(""));
        assert_eq!(figures.active_subscribers, count("active"));
        assert_eq!(figures.suspended_subscribers, count("suspended"));
        let mrr = truth.dashboard["revenue_metrics"]["mrr"].as_f64().unwrap();
        assert_eq!(figures.current_mrr, Decimal::from_f64_retain(mrr).map(|mrr| mrr.normalize()), "{tenant}");
        assert_eq!(figures.currency, None, "the dashboard does not say");
    }
}

#[tokio::test]
async fn traffic_is_counted_in_binary_gigabytes() {
    let rig = Rig::new().await;
    let period = Period::last_days(7, Timestamp::now());
    for tenant in TENANTS {
        let handle = if tenant.starts_with("g2-") { &rig.gen2 } else { &rig.isp };
        let raw = handle.truth_usage(tenant, &period.from.to_string(), &period.to.to_string());
        let row = rig.sources.usage(&site(tenant), period, soon()).await.unwrap();
        let bytes = Decimal::from(raw["total_bandwidth_bytes"].as_u64().unwrap());
        assert_eq!(row.total_data_gb.unwrap() * Decimal::from(1024_u64.pow(3)), bytes, "{tenant}");
        assert_eq!(row.active_subscriber_count, raw["unique_subscribers"].as_i64());
        assert_eq!((row.subscriber_count, row.peak_bandwidth_mbps, row.avg_bandwidth_mbps), (None, None, None));
    }
}

#[tokio::test]
async fn availability_is_told_day_by_day_beyond_the_longest_question() {
    let rig = Rig::new().await;
    let target = Decimal::new(999, 1);
    for tenant in TENANTS {
        let handle = if tenant.starts_with("g2-") { &rig.gen2 } else { &rig.isp };
        for days in [1, 30, 90, 91, 200] {
            let period = Period::last_days(days, Timestamp::now());
            let before = handle.requests();
            let rows = rig.sources.uptime(&site(tenant), period, target, soon()).await.unwrap();
            assert_eq!(handle.requests() - before, u64::try_from(days).unwrap().div_ceil(90), "{tenant} {days}");
            assert_eq!(i64::try_from(rows.len()).unwrap(), days, "{tenant}");
            assert_eq!((rows[0].date, rows[rows.len() - 1].date), (period.first_day(), period.last_day()));
            for row in &rows {
                let next = row.date.tomorrow().unwrap().to_string();
                let raw = handle.truth_uptime(tenant, &row.date.to_string(), &next);
                let raw = &raw[0];
                let expected = UptimeDay {
                    date: raw["date"].as_str().unwrap().parse().unwrap(),
                    uptime_percentage: raw["compliance_percentage"].to_string().parse().unwrap(),
                    downtime_minutes: raw["downtime_minutes"].as_u64().map(Decimal::from),
                    breaches: raw["sla_breaches"].as_i64(),
                };
                assert_eq!(row, &expected, "{tenant}");
            }
        }
    }
}

#[tokio::test]
async fn breaches_are_what_the_service_holds() {
    let rig = Rig::new().await;
    let mut seen = 0;
    for tenant in TENANTS.into_iter().chain(["t2", "t3", "t4"]) {
        let raw = truth(&rig, tenant).breaches;
        let mut rows = Vec::new();
        rig.sources.breaches(&site(tenant), soon(), &mut |row| rows.push(row)).await.unwrap();
        assert_eq!(rows.len(), raw.len(), "{tenant}");
        seen += rows.len();
        for (row, raw) in rows.iter().zip(&raw) {
            assert_eq!(row.breach_id, raw["id"].as_str().unwrap());
            assert_eq!(row.breach_type, text(&raw["breach_type"]));
            let severity = match raw["severity"].as_str().unwrap() {
                "critical" | "high" => "critical",
                "medium" => "warning",
                "low" => "info",
                other => panic!("{other}"),
            };
            assert_eq!(row.severity.as_str(), severity);
            assert_eq!(Some(row.detected_at), time(&raw["detected_at"]));
            assert_eq!((row.ended_at, row.resolved_at), (time(&raw["breach_end"]), time(&raw["resolved_at"])));
            assert_eq!(Some(row.resolved), raw["resolved"].as_bool());
            assert_eq!(row.duration_minutes, raw["duration_minutes"].as_u64().map(Decimal::from));
            assert_eq!(row.target_value.map(|value| value.to_string()), Some(raw["target_value"].to_string()));
            assert_eq!(row.actual_value.map(|value| value.to_string()), Some(raw["actual_value"].to_string()));
        }
    }
    assert!(seen > 10, "{seen}");
}
