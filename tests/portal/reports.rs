//! Reports: every figure against what the services hold, added up here in whole units.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    client::Request,
    customers::half_to_even,
    rig::{BASE, Rig, names, status_of},
    world::{cents, days_ago, invoice_status, money, owed, today},
};

const BILLING: [&str; 5] = ["t-auditor", "t-billing", "t-full", "t-reseller", "t-support"];
/// Of them, those whose link shows revenue.
const REVENUE: [&str; 3] = ["t-auditor", "t-billing", "t-full"];
const USAGE: [&str; 5] = ["t-auditor", "t-billing", "t-full", "t-override", "t-support"];

fn rows<'a>(rig: &'a Rig, tenant: &str, currency: &'a str) -> impl Iterator<Item = &'a Value> {
    rig.world[tenant].invoices.iter().filter(move |row| row["currency"] == currency)
}

fn day<'a>(row: &'a Value, field: &str) -> Option<&'a str> {
    row[field].as_str().map(|text| &text[..10])
}

/// Revenue, outstanding, overdue, invoices, paid, overdue invoices.
fn figures(rig: &Rig, tenant: &str, currency: &str, from: &str, to: &str) -> [i64; 6] {
    let within = |row: &&Value, field: &str| day(row, field).is_some_and(|day| from <= day && day <= to);
    let paid_amount = |row: &Value| cents(row, "total_amount") - cents(row, "remaining_balance");
    let issued = || rows(rig, tenant, currency).filter(|row| within(row, "issue_date"));
    let overdue = || rows(rig, tenant, currency).filter(|row| invoice_status(row) == "overdue");
    [
        rows(rig, tenant, currency).filter(|row| within(row, "paid_at")).map(paid_amount).sum(),
        rows(rig, tenant, currency).map(owed).sum(),
        overdue().map(|row| cents(row, "remaining_balance")).sum(),
        issued().count() as i64,
        issued().filter(|row| invoice_status(row) == "paid").count() as i64,
        overdue().count() as i64,
    ]
}

#[test]
fn the_summary_adds_up_one_currency_and_names_the_others() {
    let rig = Rig::start();
    for (query, currency, from, to, days) in [
        ("", "USD", days_ago(29), today(), 30),
        ("?currency=eur", "EUR", days_ago(29), today(), 30),
        (&*format!("?from_date={}&to_date={}", days_ago(50), days_ago(11)), "USD", days_ago(50), days_ago(11), 40),
    ] {
        let answer = rig.get(&format!("/billing/summary{query}"));
        assert_eq!(names(&answer), ["summary", "by_tenant", "period", "partial", "sources"]);
        let (from, to) = (from.to_string(), to.to_string());
        assert_eq!(answer["period"], json!({"from_date": from, "to_date": to, "days": days}));
        let each: Vec<_> =
            BILLING.iter().map(|tenant| (*tenant, figures(&rig, tenant, currency, &from, &to))).collect();
        let sum = |at: usize| each.iter().map(|(_, figures)| figures[at]).sum::<i64>();
        let revenue = each.iter().filter(|(tenant, _)| REVENUE.contains(tenant)).map(|(_, figures)| figures[0]).sum();
        let others: BTreeSet<&str> = ["EUR", "USD"].into_iter().filter(|other| *other != currency).collect();
        let expected = json!({
            "total_revenue": money(revenue), "total_outstanding": money(sum(1)), "total_overdue": money(sum(2)), "invoice_count": sum(3),
            "paid_invoice_count": sum(4), "overdue_invoice_count": sum(5), "managed_tenant_count": 5, "currency": currency,
            "other_currencies": others,
        });
        assert_eq!(answer["summary"], expected, "{query}");
        assert_eq!(names(&answer["summary"]), names(&expected));
        for (found, (tenant, figures)) in answer["by_tenant"].as_array().unwrap().iter().zip(&each) {
            let last = rows(&rig, tenant, currency).filter(|row| row["paid_at"].is_string());
            let last = last.max_by_key(|row| {
                (row["paid_at"].as_str().unwrap().to_owned(), row["invoice_id"].as_str().unwrap().to_owned())
            });
            let expected = json!({
                "tenant_id": tenant, "tenant_name": format!("Own {tenant}"),
                "total_revenue": if REVENUE.contains(tenant) { json!(money(figures[0])) } else { Value::Null },
                "outstanding_balance": money(figures[1]), "overdue_amount": money(figures[2]), "invoice_count": figures[3],
                "last_payment_date": last.map(|row| format!("{}Z", row["paid_at"].as_str().unwrap())),
                "last_payment_amount": last.map(|row| money(cents(row, "total_amount"))),
            });
            assert_eq!(found, &expected, "{query}");
            assert_eq!(names(found), names(&expected));
        }
        assert_eq!(answer["by_tenant"].as_array().unwrap().len(), 5);
        assert_eq!(status_of(&answer, "t-override"), "forbidden");
    }
}

#[test]
fn revenue_is_null_where_nobody_may_see_it() {
    let rig = Rig::start();
    let answer = rig.get("/billing/summary?tenant_ids=t-support,t-reseller");
    assert!(answer["summary"]["total_revenue"].is_null());
    assert!(answer["by_tenant"].as_array().unwrap().iter().all(|tenant| tenant["total_revenue"].is_null()));
    assert!(answer["summary"]["total_outstanding"].is_number());
    let none = rig.get("/billing/summary?tenant_ids=t-override");
    assert_eq!((&none["summary"]["total_revenue"], &none["summary"]["invoice_count"]), (&json!(0.0), &json!(0)));
    assert_eq!((&none["by_tenant"], &none["partial"]), (&json!([]), &json!(false)));
    let overdue = rig.get("/billing/summary?status=overdue&from_date=2020-01-01");
    let count: usize = BILLING
        .iter()
        .map(|tenant| rows(&rig, tenant, "USD").filter(|row| invoice_status(row) == "overdue").count())
        .sum();
    assert_eq!(
        (&overdue["summary"]["invoice_count"], &overdue["summary"]["paid_invoice_count"]),
        (&count.into(), &0.into())
    );
    assert_eq!(overdue["summary"]["total_outstanding"], overdue["summary"]["total_overdue"]);
}

/// Hundredths of a gigabyte of 1024^3 bytes, half to even.
fn gigabytes(bytes: i64) -> f64 {
    half_to_even(bytes * 100, 1 << 30)
}

fn bytes(rig: &Rig, tenant: &str, from: i64, to: i64) -> i64 {
    let (from, to) = (days_ago(from).to_string(), days_ago(to).to_string());
    rig.world[tenant].traffic.iter().filter(|(day, _)| from <= *day && *day <= to).map(|(_, bytes)| bytes).sum()
}

#[test]
fn usage_is_added_up_and_its_series_is_whole() {
    let rig = Rig::start();
    let answer = rig.get("/reports/usage");
    assert_eq!(names(&answer), ["summary", "by_tenant", "time_series", "partial", "sources"]);
    let subscribers = |tenant: &&str| rig.world[*tenant].dashboard["subscriber_metrics"]["total"].as_i64().unwrap();
    let online = |tenant: &&str| rig.world[*tenant].subscribers_online;
    let total: i64 = USAGE.iter().map(|tenant| bytes(&rig, tenant, 29, 0)).sum();
    let averages: f64 = USAGE
        .iter()
        .map(|tenant| bytes(&rig, tenant, 29, 0) as f64 / (1_u64 << 30) as f64 / subscribers(tenant) as f64)
        .sum();
    let summary = &answer["summary"];
    assert_eq!(
        names(summary),
        ["total_subscribers", "active_subscribers", "total_data_gb", "avg_data_per_subscriber_gb", "period_days"]
    );
    assert_eq!(summary["total_subscribers"], USAGE.iter().map(subscribers).sum::<i64>());
    assert_eq!(summary["active_subscribers"], USAGE.iter().map(online).sum::<i64>());
    assert_eq!((&summary["total_data_gb"], &summary["period_days"]), (&json!(gigabytes(total)), &30.into()));
    let average = summary["avg_data_per_subscriber_gb"].as_f64().unwrap();
    assert!((average - averages / 5.0).abs() <= 0.005 + 1e-9, "{average}");
    for (found, tenant) in answer["by_tenant"].as_array().unwrap().iter().zip(USAGE) {
        let held = bytes(&rig, tenant, 29, 0);
        let expected = json!({
            "tenant_id": tenant, "tenant_name": format!("Own {tenant}"), "subscriber_count": subscribers(&tenant),
            "active_subscriber_count": online(&tenant), "total_data_gb": gigabytes(held),
            "avg_data_per_subscriber_gb": half_to_even(held * 100, subscribers(&tenant) << 30),
            "peak_bandwidth_mbps": null, "avg_bandwidth_mbps": null,
        });
        assert_eq!(found, &expected);
        assert_eq!(names(found), names(&expected));
    }
    let series = answer["time_series"].as_array().unwrap();
    assert_eq!(series.len(), 30);
    for (at, point) in series.iter().enumerate() {
        let age = 29 - at as i64;
        let total: i64 = USAGE.iter().map(|tenant| bytes(&rig, tenant, age, age)).sum();
        let expected = json!({"date": days_ago(age).to_string(), "total_data_gb": gigabytes(total), "active_subscribers": USAGE.iter().map(online).sum::<i64>()});
        assert_eq!(point, &expected);
        assert_eq!(names(point), names(&expected));
    }
    assert_eq!(status_of(&answer, "t-reseller"), "forbidden");

    let weeks = rig.get(&format!("/reports/usage?group_by=week&from_date={}&to_date={}", days_ago(27), days_ago(0)));
    let dates: Vec<_> = weeks["time_series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["date"].as_str().unwrap().to_owned())
        .collect();
    assert!((4..=5).contains(&dates.len()));
    assert!(
        dates[1..]
            .iter()
            .all(|date| date.parse::<jiff::civil::Date>().unwrap().weekday() == jiff::civil::Weekday::Monday)
    );
    let sum: f64 =
        weeks["time_series"].as_array().unwrap().iter().map(|point| point["total_data_gb"].as_f64().unwrap()).sum();
    assert!((sum - weeks["summary"]["total_data_gb"].as_f64().unwrap()).abs() < 0.05);
    let months = rig.get(&format!("/reports/usage?group_by=month&from_date={}", days_ago(90)));
    assert!((3..=4).contains(&months["time_series"].as_array().unwrap().len()));
    assert_eq!(rig.get("/reports/usage?group_by=tenant")["time_series"], json!([]));
}

#[test]
fn a_series_of_too_many_questions_is_null_and_says_so() {
    let rig = Rig::start();
    let answer = rig.get(&format!("/reports/usage?from_date={}&group_by=day", days_ago(1_095)));
    let series = answer["time_series"].as_array().unwrap();
    assert!(series.len() == 1_096 && series.iter().all(|point| point["total_data_gb"].is_null()));
    assert!(answer["summary"]["total_data_gb"].is_number());
    assert_eq!((status_of(&answer, "t-full"), &answer["partial"]), ("truncated".into(), &true.into()));
    assert_eq!(rig.service.asked("t-full", "usage"), 1);
}

/// Both reports answer by the day; the one's series can also have longer steps, or none.
#[test]
fn no_report_is_made_of_more_than_so_many_pieces() {
    let rig = Rig::start();
    let ever = "from_date=0001-01-01&to_date=9999-01-01";
    let days = format!("from_date={}", days_ago(1_096));
    let weeks = format!("from_date={}", days_ago(1_097 * 7));
    for path in [
        format!("/reports/usage?{ever}&group_by=day&tenant_ids=t-full"),
        format!("/reports/usage?{ever}&group_by=week"),
        format!("/reports/usage?{ever}&group_by=month"),
        format!("/reports/usage?{ever}"),
        format!("/reports/usage?{days}&group_by=day"),
        format!("/reports/usage?{weeks}&group_by=week"),
        format!("/reports/sla?{ever}"),
        format!("/reports/sla?{days}"),
    ] {
        let refused = rig.ask(Request::get(&format!("{BASE}{path}")));
        let error = &refused.json()["error"];
        assert_eq!((refused.status, &error["code"]), (422, &json!("VALIDATION_ERROR")), "{path}");
        assert_eq!(names(&error["details"]), ["from_date"], "{path}");
        assert!(error["details"]["from_date"].to_string().contains("at most 1096"), "{path}: {error}");
    }
    assert_eq!(rig.service.asked_in_all(), 0, "nothing was asked for it");

    let series = |query: &str| {
        let answer = rig.get(&format!("/reports/usage?{query}&tenant_ids=t-full"));
        assert_eq!(answer["by_tenant"][0]["tenant_id"], "t-full", "{query}");
        answer["time_series"].as_array().unwrap().len()
    };
    assert_eq!(series(&format!("{ever}&group_by=tenant")), 0, "one question for any range");
    assert_eq!(series("from_date=2016-01-01&to_date=2025-12-31&group_by=month"), 120);
    assert_eq!(rig.service.asked("t-full", "usage"), 1 + 1 + 120, "once the range, once each piece");
}

fn days(rig: &Rig, tenant: &str, count: usize) -> Vec<Value> {
    rig.world[tenant].compliance.iter().take(count).cloned().collect()
}

fn hundredths(day: &Value) -> i64 {
    (day["compliance_percentage"].as_f64().unwrap() * 100.0).round() as i64
}

#[test]
fn the_sla_report_averages_days_and_judges_by_each_links_target() {
    let rig = Rig::start();
    let tenants = ["t-auditor", "t-billing", "t-full", "t-override", "t-reseller", "t-support"];
    for (query, count, target) in
        [("", 30, 9_990), (&*format!("?from_date={}&target_percentage=98.5", days_ago(99)), 100, 9_850)]
    {
        let answer = rig.get(&format!("/reports/sla{query}"));
        assert_eq!(names(&answer), ["summary", "by_tenant", "partial", "sources"]);
        let target_of = |tenant: &str| if tenant == "t-full" { 9_970 } else { target };
        let total = |tenant: &str| days(&rig, tenant, count).iter().map(hundredths).sum::<i64>();
        let meets = |tenant: &str| total(tenant) >= target_of(tenant) * count as i64;
        let sum = |tenant: &str, field: &str| {
            days(&rig, tenant, count).iter().map(|day| day[field].as_i64().unwrap()).sum::<i64>()
        };
        for (found, tenant) in answer["by_tenant"].as_array().unwrap().iter().zip(tenants) {
            let all = days(&rig, tenant, count);
            let worst =
                all.iter().min_by_key(|day| (hundredths(day), day["date"].as_str().unwrap().to_owned())).unwrap();
            let first = days_ago(count as i64 - 1).to_string();
            let outages: Vec<i64> = rig.world[tenant]
                .breaches
                .iter()
                .filter(|row| {
                    row["breach_type"] == "availability" && row["detected_at"].as_str().unwrap()[..10] >= *first
                })
                .map(|row| row["duration_minutes"].as_i64().unwrap())
                .collect();
            let mttr =
                (!outages.is_empty()).then(|| half_to_even(outages.iter().sum::<i64>() * 100, outages.len() as i64));
            let expected = json!({
                "tenant_id": tenant, "tenant_name": format!("Own {tenant}"), "uptime_percentage": half_to_even(total(tenant), count as i64),
                "downtime_minutes": sum(tenant, "downtime_minutes") as f64, "breach_count": sum(tenant, "sla_breaches"), "meets_sla": meets(tenant),
                "sla_target": money(target_of(tenant)), "worst_day": {"date": worst["date"], "uptime_percentage": money(hundredths(worst))},
                "outage_count": outages.len(), "mttr_minutes": mttr,
            });
            assert_eq!(found, &expected, "{query}");
            assert_eq!(names(found), names(&expected));
        }
        let all = tenants.iter().map(|tenant| total(tenant)).sum::<i64>();
        let meeting = tenants.iter().filter(|tenant| meets(tenant)).count();
        let expected = json!({
            "tenant_count": 6, "avg_uptime_percentage": half_to_even(all, 6 * count as i64), "tenants_meeting_sla": meeting,
            "tenants_breaching_sla": 6 - meeting, "total_breach_count": tenants.iter().map(|tenant| sum(tenant, "sla_breaches")).sum::<i64>(),
            "total_downtime_minutes": tenants.iter().map(|tenant| sum(tenant, "downtime_minutes")).sum::<i64>() as f64,
            "worst_uptime_percentage": tenants.iter().map(|tenant| half_to_even(total(tenant), count as i64)).fold(100.0, f64::min),
        });
        assert_eq!(answer["summary"], expected, "{query}");
        assert_eq!(names(&answer["summary"]), names(&expected));
    }
    assert_eq!(rig.service.asked("t-full", "compliance"), 3, "100 days are asked for in two questions");
}
