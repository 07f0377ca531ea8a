//! Customers: every field of list and detail, filters, orders, who sees revenue, and the shape of older clients.

use serde_json::{Value, json};

use super::{
    client::Request,
    rig::{BASE, Rig, TENANTS, names, status_of},
    world::{days_ago, invoice_status, money, owed, utc},
};

/// What is owed in the currency of most of the tenant's invoices.
fn outstanding(rig: &Rig, tenant: &str) -> i64 {
    let rows = &rig.world[tenant].invoices;
    let count = |currency: &str| rows.iter().filter(|row| row["currency"] == currency).count();
    let main = if count("EUR") >= count("USD") { "EUR" } else { "USD" };
    rows.iter().filter(|row| row["currency"] == main).map(owed).sum()
}

fn open_tickets(rig: &Rig, tenant: &str) -> usize {
    let open = |row: &&Value| ["open", "in_progress"].contains(&row["status"].as_str().unwrap());
    rig.world[tenant].tickets.iter().filter(open).count()
}

fn breaches(rig: &Rig, tenant: &str) -> usize {
    let recent = |row: &&Value| row["detected_at"].as_str().unwrap()[..10] >= *days_ago(29).to_string();
    rig.world[tenant].breaches.iter().filter(recent).count()
}

/// Revenue is in the roles msp_full, msp_billing and auditor.
fn shows_revenue(role: &str) -> bool {
    ["msp_full", "msp_billing", "auditor"].contains(&role)
}

fn item(rig: &Rig, tenant: &str, role: &str) -> Value {
    let (row, dashboard) = (&rig.world[tenant].registry, &rig.world[tenant].dashboard);
    let issued = rig.world[tenant].invoices.iter().filter(|row| !["draft", "cancelled"].contains(&invoice_status(row)));
    let last = issued.map(|row| row["issue_date"].as_str().unwrap()).max().unwrap();
    json!({
        "tenant_id": tenant, "name": row["name"], "slug": row["slug"], "domain": row["domain"], "status": row["status"],
        "plan_type": row["plan_type"],
        "relationship": {
            "link_id": rig.links[tenant].to_string(), "access_role": role, "start_date": "2024-01-01T00:00:00.000Z", "end_date": null,
            "relationship_type": "msp_managed",
        },
        "metrics": {
            "outstanding_balance": money(outstanding(rig, tenant)), "open_tickets": open_tickets(rig, tenant),
            "sla_breach_count_30d": breaches(rig, tenant), "total_subscribers": dashboard["subscriber_metrics"]["total"],
        },
        "billing": {
            "billing_cycle": "monthly", "current_mrr": if shows_revenue(role) { dashboard["revenue_metrics"]["mrr"].clone() } else { Value::Null },
            "last_invoice_date": format!("{last}Z"), "next_invoice_date": null,
        },
        "created_at": utc(&row["created_at"]), "updated_at": utc(&row["updated_at"]),
    })
}

fn ids(answer: &Value, list: &str) -> Vec<String> {
    answer[list].as_array().unwrap().iter().map(|item| item["tenant_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_list_has_every_field_and_the_alias_is_the_same() {
    let rig = Rig::start();
    let answer = rig.get("/customers");
    assert_eq!(names(&answer), ["items", "total", "limit", "offset", "has_more", "total_exact", "partial", "sources"]);
    for (found, (tenant, role)) in answer["items"].as_array().unwrap().iter().zip(TENANTS) {
        let expected = item(&rig, tenant, role);
        assert_eq!(found, &expected);
        assert_eq!(names(found), names(&expected));
    }
    assert_eq!((&answer["total"], &answer["partial"]), (&6.into(), &false.into()));
    assert_eq!(rig.get("/tenants"), answer);
    let support = rig.ask_as("partner_msp_support", Request::get(&format!("{BASE}/customers"))).json();
    assert!(
        support["items"].as_array().unwrap().iter().all(|item| item["billing"]["current_mrr"].is_null()),
        "the user's own permission counts too"
    );
}

#[test]
fn figures_are_asked_for_the_page_only_unless_they_decide_the_order() {
    let rig = Rig::start();
    let page = rig.get("/customers?limit=2&offset=1&sort_order=desc");
    assert_eq!(ids(&page, "items"), ["t-reseller", "t-override"]);
    assert_eq!((&page["total"], &page["has_more"]), (&6.into(), &true.into()));
    for (tenant, _) in TENANTS {
        let on_page = ["t-reseller", "t-override"].contains(&tenant);
        assert_eq!(rig.service.asked(tenant, "registry"), 1);
        assert_eq!(rig.service.asked(tenant, "tickets"), usize::from(on_page), "{tenant}");
        assert_eq!(rig.service.asked(tenant, "invoices"), usize::from(on_page), "{tenant}");
    }
    for order in ["asc", "desc"] {
        let mut expected: Vec<&str> = TENANTS.iter().map(|(tenant, _)| *tenant).collect();
        expected
            .sort_by_key(|tenant| if order == "asc" { outstanding(&rig, tenant) } else { -outstanding(&rig, tenant) });
        let answer = rig.get(&format!("/customers?sort_by=outstanding_balance&sort_order={order}&limit=4"));
        assert_eq!(ids(&answer, "items"), expected[..4]);
        let mut expected: Vec<(&str, &str)> = TENANTS
            .iter()
            .map(|(tenant, _)| (rig.world[*tenant].registry["created_at"].as_str().unwrap(), *tenant))
            .collect();
        expected.sort_by(|one, other| {
            if order == "asc" { one.0.cmp(other.0) } else { other.0.cmp(one.0) }.then(one.1.cmp(other.1))
        });
        let answer = rig.get(&format!("/customers?sort_by=created_at&sort_order={order}"));
        assert_eq!(ids(&answer, "items"), expected.iter().map(|(_, tenant)| *tenant).collect::<Vec<_>>());
    }
}

#[test]
fn filters_look_at_what_the_registry_says() {
    let rig = Rig::start();
    for status in ["active", "trial", "suspended", "trial,suspended", "cancelled"] {
        let wanted: Vec<&str> = status.split(',').collect();
        let expected: Vec<&str> = TENANTS
            .iter()
            .map(|(tenant, _)| *tenant)
            .filter(|tenant| wanted.contains(&rig.world[*tenant].registry["status"].as_str().unwrap()))
            .collect();
        assert_eq!(ids(&rig.get(&format!("/customers?status={status}")), "items"), expected, "{status}");
    }
    for (search, expected) in [
        ("REGISTRY%20t-full", vec!["t-full"]),
        ("slug-t-b", vec!["t-billing"]),
        ("auditor.example", vec!["t-auditor"]),
        ("own", vec![]),
    ] {
        assert_eq!(ids(&rig.get(&format!("/customers?search={search}")), "items"), expected, "{search}");
    }
}

#[test]
fn the_detail_has_every_field_and_never_notes_or_metadata() {
    let rig = Rig::start();
    for (tenant, role) in TENANTS {
        let text = rig.get_text(&format!("/customers/{tenant}"));
        assert!(!text.contains("secret") && !text.contains("notes") && !text.contains("metadata"));
        let found: Value = serde_json::from_str(&text).unwrap();
        let short = item(&rig, tenant, role);
        let (row, dashboard) = (&rig.world[tenant].registry, &rig.world[tenant].dashboard);
        let days = rig.world[tenant].compliance.iter().take(30);
        let uptime: i64 = days.map(|day| (day["compliance_percentage"].as_f64().unwrap() * 100.0).round() as i64).sum();
        let mut relationship = short["relationship"].clone();
        for (name, value) in [
            ("custom_permissions", if tenant == "t-override" { json!({"billing.read": false}) } else { json!({}) }),
            ("sla_response_hours", Value::Null),
            ("sla_uptime_target", if tenant == "t-full" { json!(99.70) } else { Value::Null }),
            ("notify_on_sla_breach", true.into()),
            ("notify_on_billing_threshold", true.into()),
            ("billing_alert_threshold", json!(1500.50)),
        ] {
            relationship[name] = value;
        }
        let expected = json!({
            "tenant_id": tenant, "name": row["name"], "slug": row["slug"], "domain": row["domain"], "status": row["status"],
            "plan_type": row["plan_type"],
            "contact": {"email": row["email"], "phone": row["phone"], "billing_email": row["billing_email"]},
            "address": {"line1": null, "city": null, "state_province": null, "postal_code": null, "country": "NG"},
            "relationship": relationship,
            "metrics": {
                "current_users": row["current_users"], "max_users": 50, "total_subscribers": dashboard["subscriber_metrics"]["total"],
                "active_subscribers": dashboard["subscriber_metrics"]["active"], "suspended_subscribers": dashboard["subscriber_metrics"]["suspended"],
                "current_mrr": short["billing"]["current_mrr"], "outstanding_balance": short["metrics"]["outstanding_balance"],
                "avg_uptime_30d": half_to_even(uptime, 30), "open_tickets": short["metrics"]["open_tickets"],
                "sla_breach_count_30d": short["metrics"]["sla_breach_count_30d"],
            },
            "billing": short["billing"],
            "subscription": {
                "billing_cycle": "monthly", "trial_ends_at": null, "subscription_starts_at": utc(&row["subscription_starts_at"]),
                "subscription_ends_at": null,
            },
            "created_at": short["created_at"], "updated_at": short["updated_at"], "partial": false, "sources": [],
        });
        assert_eq!(found, expected, "{tenant}");
        assert_eq!(names(&found), names(&expected));
    }
}

/// The average of so many hundredths, as a number with two digits.
pub fn half_to_even(hundredths: i64, count: i64) -> f64 {
    let (whole, rest) = (hundredths / count, hundredths % count);
    let up = match (2 * rest).cmp(&count) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Equal => whole % 2,
    };
    money(whole + up)
}

#[test]
fn who_is_not_linked_is_not_there() {
    let rig = Rig::start();
    for path in ["/customers/home-2", "/customers/none", "/tenants/t-unknown"] {
        let answer = rig.ask(Request::get(&format!("{BASE}{path}")));
        assert_eq!((answer.status, &*answer.error()), (404, "TENANT_NOT_FOUND"), "{path}");
    }
}

#[test]
fn older_clients_get_the_shape_that_they_know() {
    let rig = Rig::with("compatibility_base_paths = [\"/api/isp/v1/partner\"]");
    let old = |path: &str| rig.ask(Request::get(&format!("/api/isp/v1/partner{path}")).header("X-Tenant-ID", "home-1"));
    let answer = old("/customers?offset=0&limit=50").json();
    assert_eq!(names(&answer)[..4], ["tenants", "total", "offset", "limit"]);
    assert_eq!((&answer["total"], ids(&answer, "tenants").len()), (&6.into(), 6));
    let full = &answer["tenants"][2];
    let short = item(&rig, "t-full", "msp_full");
    let digits = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100);
    assert_eq!(
        (&full["tenant_id"], &full["tenant_name"], &full["tenant_slug"]),
        (&json!("t-full"), &short["name"], &short["slug"])
    );
    assert_eq!((&full["access_role"], &full["is_active"]), (&json!("msp_full"), &json!(true)));
    assert_eq!(full["outstanding_balance"], digits(outstanding(&rig, "t-full")));
    assert_eq!(
        full["current_mrr"],
        digits((rig.world["t-full"].dashboard["revenue_metrics"]["mrr"].as_f64().unwrap() * 100.0).round() as i64)
    );
    assert_eq!(full["total_subscribers"], short["metrics"]["total_subscribers"]);
    assert!(full["sla_compliance_pct"].as_str().is_some_and(|text| text.parse::<f64>().is_ok()));

    let detail = old("/customers/t-full");
    assert!(!detail.text().contains("secret"));
    let detail = detail.json();
    assert_eq!(
        (&detail["sla_uptime_target"], &detail["billing_alert_threshold"]),
        (&json!("99.70"), &json!("1500.50"))
    );
    assert_eq!(
        (&detail["notes"], &detail["metadata"], &detail["custom_permissions"]),
        (&Value::Null, &json!({}), &json!({}))
    );
    assert_eq!(status_of(&detail, "t-full"), "ok");

    let active: Vec<&str> = TENANTS
        .iter()
        .map(|(tenant, _)| *tenant)
        .filter(|tenant| rig.world[*tenant].registry["status"] != "suspended")
        .collect();
    assert_eq!(ids(&old("/customers?status=active").json(), "tenants"), active);
    assert_eq!(ids(&old("/customers?status=inactive").json(), "tenants").len(), 6 - active.len());

    let missing = old("/customers/none");
    let body = missing.json();
    assert_eq!(missing.status, 404);
    assert_eq!(
        (&body["code"], &body["message"], &body["detail"]),
        (&body["error"]["code"], &body["error"]["message"], &body["error"]["message"])
    );
    assert_eq!(old("/billing/summary").status, 404, "older clients ask for customers only");
    let usual = rig.ask(Request::get(&format!("{BASE}/customers/none"))).json();
    assert_eq!(names(&usual), ["error"]);
}
