//! Invoices and tickets: every field, filter, order and sum against what the services hold.

use serde_json::{Value, json};

use super::{
    rig::{Rig, names, status_of},
    world::{cents, days_ago, invoice_status, money, owed, utc},
};

/// Tenants whose invoices partner 1's user may read.
const BILLING: [&str; 5] = ["t-auditor", "t-billing", "t-full", "t-reseller", "t-support"];
const SUPPORT: [&str; 5] = ["t-auditor", "t-full", "t-override", "t-reseller", "t-support"];
const WIDE: &str = "from_date=2020-01-01";

/// Invoices of some tenants, each with its tenant, that pass a test.
fn held<'a>(rig: &'a Rig, tenants: &[&'a str], keep: impl Fn(&Value) -> bool) -> Vec<(&'a str, &'a Value)> {
    let rows = tenants.iter().flat_map(|tenant| rig.world[*tenant].invoices.iter().map(move |row| (*tenant, row)));
    rows.filter(|(_, row)| keep(row)).collect()
}

fn within_30_days(row: &Value) -> bool {
    row["issue_date"].as_str().unwrap()[..10] >= *days_ago(29).to_string()
}

fn ids(answer: &Value, field: &str) -> Vec<String> {
    answer["items"].as_array().unwrap().iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
}

/// All pages joined.
fn all_ids(rig: &Rig, path: &str, field: &str) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page = rig.get(&format!("{path}&limit=37&offset={}", found.len()));
        found.extend(ids(&page, field));
        if page["has_more"] == false {
            assert_eq!(page["total"], found.len());
            return found;
        }
    }
}

#[test]
fn an_invoice_has_every_field_of_the_contract_and_none_of_the_services() {
    let rig = Rig::start();
    let text = rig.get_text(&format!("/billing/invoices?{WIDE}&limit=100"));
    for secret in ["secret", "internal_notes", "idempotency_key", "extra_data"] {
        assert!(!text.contains(secret), "{secret}");
    }
    let answer: Value = serde_json::from_str(&text).unwrap();
    let envelope = ["items", "total", "limit", "offset", "has_more", "total_exact", "aggregates", "partial", "sources"];
    assert_eq!(names(&answer), envelope);
    let fields = [
        "invoice_id",
        "invoice_number",
        "tenant_id",
        "tenant_name",
        "customer_id",
        "customer_name",
        "invoice_date",
        "due_date",
        "status",
        "subtotal",
        "tax",
        "total",
        "paid_amount",
        "balance",
        "currency",
        "payment_date",
        "days_overdue",
        "created_at",
    ];
    let today = super::world::today();
    for item in answer["items"].as_array().unwrap() {
        assert_eq!(names(item), fields);
        let tenant = item["tenant_id"].as_str().unwrap();
        let row = rig.world[tenant].invoices.iter().find(|row| row["invoice_id"] == item["invoice_id"]).unwrap();
        let due: jiff::civil::Date = row["due_date"].as_str().unwrap()[..10].parse().unwrap();
        let overdue = if invoice_status(row) == "overdue" { (today - due).get_days() } else { 0 };
        let expected = json!({
            "invoice_id": row["invoice_id"], "invoice_number": row["invoice_number"], "tenant_id": tenant,
            "tenant_name": format!("Own {tenant}"), "customer_id": row["customer_id"], "customer_name": null,
            "invoice_date": utc(&row["issue_date"]), "due_date": utc(&row["due_date"]), "status": invoice_status(row),
            "subtotal": money(cents(row, "subtotal")), "tax": money(cents(row, "tax_amount")), "total": money(cents(row, "total_amount")),
            "paid_amount": money(cents(row, "total_amount") - cents(row, "remaining_balance")),
            "balance": money(cents(row, "remaining_balance")), "currency": row["currency"], "payment_date": utc(&row["paid_at"]),
            "days_overdue": overdue, "created_at": utc(&row["created_at"]),
        });
        assert_eq!(item, &expected);
    }
    let first = &answer["items"][0];
    let digits = format!(
        "\"total\":{}.{:02},",
        (first["total"].as_f64().unwrap() * 100.0).round() as i64 / 100,
        (first["total"].as_f64().unwrap() * 100.0).round() as i64 % 100
    );
    assert!(text.contains(&digits), "two digits behind the point: {digits}");
}

#[test]
fn totals_and_sums_are_those_of_the_whole_filtered_set() {
    let rig = Rig::start();
    let expected = held(&rig, &BILLING, within_30_days);
    let answer = rig.get("/billing/invoices?limit=2&sources=all");
    assert_eq!(
        (&answer["total"], &answer["total_exact"], &answer["partial"]),
        (&expected.len().into(), &true.into(), &false.into())
    );
    assert_eq!((&answer["limit"], &answer["offset"], &answer["has_more"]), (&2.into(), &0.into(), &true.into()));
    assert_eq!(status_of(&answer, "t-override"), "forbidden");
    assert_eq!(answer["sources"].as_array().unwrap().len(), 6);
    // t-auditor holds euros too: no sum crosses currencies.
    assert!(answer["aggregates"].as_object().unwrap().values().all(Value::is_null));

    let dollars = ["t-billing", "t-full", "t-reseller", "t-support"];
    let answer = rig.get(&format!("/billing/invoices?tenant_ids={}", dollars.join(",")));
    let expected = held(&rig, &dollars, within_30_days);
    let sum = |of: fn(&Value) -> i64| money(expected.iter().map(|(_, row)| of(row)).sum());
    assert_eq!(answer["total"], expected.len());
    assert_eq!(
        answer["aggregates"],
        json!({
            "total_amount": sum(|row| cents(row, "total_amount")),
            "paid_amount": sum(|row| cents(row, "total_amount") - cents(row, "remaining_balance")),
            "outstanding_amount": sum(owed),
        })
    );
    assert_eq!(answer["sources"], json!([]), "only what is not ok, and nobody asked for t-override");
}

#[test]
fn every_filter_keeps_exactly_what_it_names() {
    let rig = Rig::start();
    let amount = |row: &Value| cents(row, "total_amount");
    let day = days_ago(20).to_string();
    let last = days_ago(10).to_string();
    type Keep<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let cases: Vec<(String, Keep<'_>)> = vec![
        ("status=overdue".into(), Box::new(|row| within_30_days(row) && invoice_status(row) == "overdue")),
        (format!("{WIDE}&status=overdue"), Box::new(|row| invoice_status(row) == "overdue")),
        (format!("{WIDE}&status=finalized"), Box::new(|row| invoice_status(row) == "finalized")),
        (
            format!("{WIDE}&status=draft,cancelled"),
            Box::new(|row| ["draft", "cancelled"].contains(&invoice_status(row))),
        ),
        (format!("{WIDE}&status=paid"), Box::new(|row| invoice_status(row) == "paid")),
        (format!("{WIDE}&min_amount=500.01"), Box::new(move |row| amount(row) >= 50_001)),
        (format!("{WIDE}&max_amount=300"), Box::new(move |row| amount(row) <= 30_000)),
        (
            format!("{WIDE}&min_amount=100&max_amount=400.5"),
            Box::new(move |row| (10_000..=40_050).contains(&amount(row))),
        ),
        (
            format!("{WIDE}&search=inv-0000"),
            Box::new(|row| row["invoice_number"].as_str().unwrap().contains("INV-0000")),
        ),
        (format!("{WIDE}&search=CUST-2"), Box::new(|row| row["customer_id"] == "cust-2")),
        (format!("{WIDE}&search=none-such"), Box::new(|_| false)),
        (
            format!("from_date={day}&to_date={last}"),
            Box::new(|row| (&*day..=&*last).contains(&&row["issue_date"].as_str().unwrap()[..10])),
        ),
        (
            format!("from_date={day}T12:00:00Z&to_date={last}T00:00:00%2B00:00"),
            Box::new(|row| {
                row["issue_date"].as_str().unwrap()[..10] > *day && row["issue_date"].as_str().unwrap()[..10] <= *last
            }),
        ),
    ];
    for (query, keep) in cases {
        let mut expected: Vec<_> =
            held(&rig, &BILLING, keep).iter().map(|(_, row)| row["invoice_id"].as_str().unwrap().to_owned()).collect();
        let mut found = all_ids(&rig, &format!("/billing/invoices?{query}"), "invoice_id");
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "{query}");
    }
}

#[test]
fn every_order_is_total_and_pages_join() {
    let rig = Rig::start();
    type Key = fn(&Value) -> (String, i64);
    let orders: [(&str, Key); 3] = [
        ("invoice_date", |row| (row["issue_date"].as_str().unwrap().to_owned(), 0)),
        ("amount", |row| (String::new(), cents(row, "total_amount"))),
        ("status", |row| (invoice_status(row).to_owned(), 0)),
    ];
    for (sort, key) in orders {
        for order in ["asc", "desc"] {
            let mut expected = held(&rig, &BILLING, |_| true);
            expected.sort_by(|(one_tenant, one), (other_tenant, other)| {
                let keys = if order == "asc" { key(one).cmp(&key(other)) } else { key(other).cmp(&key(one)) };
                let id = |row: &Value| row["invoice_id"].as_str().unwrap().to_owned();
                keys.then_with(|| one_tenant.cmp(other_tenant)).then_with(|| id(one).cmp(&id(other)))
            });
            let expected: Vec<_> = expected.iter().map(|(_, row)| row["invoice_id"].as_str().unwrap()).collect();
            let path = format!("/billing/invoices?{WIDE}&sort_by={sort}&sort_order={order}");
            assert_eq!(all_ids(&rig, &path, "invoice_id"), expected, "{sort} {order}");
        }
    }
    let newest = rig.get("/billing/invoices");
    let days: Vec<_> =
        newest["items"].as_array().unwrap().iter().map(|item| item["invoice_date"].as_str().unwrap()).collect();
    assert!(days.is_sorted_by(|one, other| one >= other), "newest first, where nothing is said");
}

fn ticket_status(row: &Value) -> &'static str {
    match row["status"].as_str().unwrap() {
        "open" | "in_progress" => "open",
        "waiting" => "pending",
        "resolved" => "resolved",
        _ => "closed",
    }
}

fn tickets(rig: &Rig, keep: impl Fn(&Value) -> bool) -> Vec<(&str, &Value)> {
    let rows = SUPPORT.iter().flat_map(|tenant| rig.world[*tenant].tickets.iter().map(move |row| (*tenant, row)));
    rows.filter(|(_, row)| keep(row)).collect()
}

#[test]
fn a_ticket_has_every_field_and_sums_cover_the_whole_set() {
    let rig = Rig::start();
    let answer = rig.get("/support/tickets?limit=100");
    let envelope = ["items", "total", "limit", "offset", "has_more", "total_exact", "aggregates", "partial", "sources"];
    assert_eq!(names(&answer), envelope);
    for item in answer["items"].as_array().unwrap() {
        let tenant = item["tenant_id"].as_str().unwrap();
        let row = rig.world[tenant].tickets.iter().find(|row| row["id"] == item["ticket_id"]).unwrap();
        let expected = json!({
            "ticket_id": row["id"], "ticket_number": row["ticket_number"], "tenant_id": tenant, "tenant_name": format!("Own {tenant}"),
            "customer_id": row["customer_id"], "customer_name": null, "subject": row["subject"], "status": ticket_status(row),
            "priority": row["priority"], "category": row["ticket_type"], "assigned_to": row["assigned_to_user_id"],
            "assigned_to_name": null, "created_at": utc(&row["created_at"]), "updated_at": utc(&row["updated_at"]),
            "sla_breach_at": utc(&row["sla_due_date"]), "is_sla_breached": row["sla_breached"],
            "last_response_at": utc(&row["last_response_at"]), "response_count": null,
        });
        assert_eq!(item, &expected);
        assert_eq!(names(item), names(&expected));
    }
    let all = tickets(&rig, |_| true);
    let count = |status: &str| all.iter().filter(|(_, row)| ticket_status(row) == status).count();
    assert_eq!(answer["total"], all.len());
    assert_eq!(
        answer["aggregates"],
        json!({
            "open_count": count("open"), "pending_count": count("pending"), "resolved_count": count("resolved"),
            "sla_breach_count": all.iter().filter(|(_, row)| row["sla_breached"] == true).count(),
            // The list of this generation does not say how long a ticket took.
            "avg_resolution_hours": null,
        })
    );
    assert_eq!(status_of(&answer, "t-billing"), "forbidden");
}

#[test]
fn every_filter_of_tickets_keeps_exactly_what_it_names() {
    let rig = Rig::start();
    let (from, to) = (days_ago(30).to_string(), days_ago(9).to_string());
    type Keep<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let created = |row: &Value| row["created_at"].as_str().unwrap()[..10].to_owned();
    let cases: Vec<(String, Keep<'_>)> = vec![
        ("status=open".into(), Box::new(|row| ticket_status(row) == "open")),
        ("status=pending,closed".into(), Box::new(|row| ["pending", "closed"].contains(&ticket_status(row)))),
        ("priority=high,urgent".into(), Box::new(|row| row["priority"] == "high" || row["priority"] == "urgent")),
        ("assigned_to=agent-2".into(), Box::new(|row| row["assigned_to_user_id"] == "agent-2")),
        (
            format!("created_from={from}&created_to={to}"),
            Box::new(|row| (from.clone()..=to.clone()).contains(&created(row))),
        ),
        ("search=ROUTER".into(), Box::new(|row| row["subject"] == "Router is down")),
        ("search=tck-0003".into(), Box::new(|row| row["ticket_number"] == "TCK-0003")),
        ("search=cust-1".into(), Box::new(|row| row["customer_id"] == "cust-1")),
    ];
    for (query, keep) in cases {
        let mut expected = tickets(&rig, keep);
        expected.sort_by(|(one_tenant, one), (other_tenant, other)| {
            let key =
                |row: &Value| (row["created_at"].as_str().unwrap().to_owned(), row["id"].as_str().unwrap().to_owned());
            key(other)
                .0
                .cmp(&key(one).0)
                .then_with(|| one_tenant.cmp(other_tenant))
                .then_with(|| key(one).1.cmp(&key(other).1))
        });
        let expected: Vec<_> = expected.iter().map(|(_, row)| row["id"].as_str().unwrap()).collect();
        assert_eq!(all_ids(&rig, &format!("/support/tickets?{query}"), "ticket_id"), expected, "{query}");
    }
}
