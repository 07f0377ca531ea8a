//! The configuration that ships in `deploy/`: valid, and its route table says what a security person expects of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

use http::Method;
use linkgate::config::{self, Config, Found, RouteTable, settings::Access};

fn deployed() -> Config {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("signing.pem"), "x").unwrap();
    let env = [("JWT_SECRET_KEY".to_owned(), "0123456789abcdef0123456789abcdef".to_owned())];
    config::load_text(include_str!("../deploy/linkgate.toml"), Some("deploy/linkgate.toml"), dir.path(), env)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

/// `permission`, `home`, `public`, `deny`, `405` or `404`.
fn asked(config: &Config, table: &RouteTable, method: &Method, path: &str) -> String {
    match table.find(method, path) {
        Found::Route { index, .. } => match config.routes[index].access {
            Access::Permission(permission) => permission.name().to_owned(),
            Access::Home => "home".to_owned(),
            Access::Public => "public".to_owned(),
            Access::Deny => "deny".to_owned(),
        },
        Found::MethodNotAllowed { .. } => "405".to_owned(),
        Found::NotFound => "404".to_owned(),
    }
}

#[test]
fn requests_of_the_existing_platform_find_their_rule() {
    let config = deployed();
    let table = RouteTable::compile(&config.routes).unwrap();
    for (method, path, expected) in [
        ("GET", "/api/isp/v1/billing/invoices", "partner.billing.invoices.read"),
        ("POST", "/api/isp/v1/billing/invoices", "partner.billing.invoices.write"),
        ("GET", "/api/isp/v1/billing/invoices/42", "partner.billing.invoices.read"),
        ("DELETE", "/api/isp/v1/billing/invoices/42", "405"),
        ("GET", "/api/isp/v1/billing/invoices/money/invoices/42", "deny"),
        ("GET", "/api/isp/v1/payments", "partner.billing.payments.read"),
        ("GET", "/api/isp/v1/metrics/dashboard", "partner.reports.revenue.read"),
        ("GET", "/api/isp/v1/tickets/", "partner.support.tickets.list"),
        // Without the slash the service would answer with a redirect; here it is no route.
        ("GET", "/api/isp/v1/tickets", "404"),
        ("POST", "/api/isp/v1/tickets/", "partner.support.tickets.create"),
        ("PATCH", "/api/isp/v1/tickets/42", "partner.support.tickets.update"),
        ("POST", "/api/isp/v1/tickets/42/messages", "partner.support.tickets.comment"),
        ("GET", "/api/isp/v1/tickets/stats", "partner.support.tickets.list"),
        ("GET", "/api/isp/v1/customers/", "partner.provisioning.subscribers.list"),
        ("POST", "/api/isp/v1/customers/42/impersonate", "deny"),
        ("GET", "/api/isp/v1/customers/42/impersonate", "deny"),
        ("GET", "/api/isp/v1/subscribers/subscribers/7", "partner.provisioning.subscribers.read"),
        ("GET", "/api/isp/v1/billing/usage/statistics", "partner.reports.usage.read"),
        ("GET", "/api/isp/v1/tenants/t/billing/preview", "partner.billing.read"),
        ("GET", "/api/isp/v1/faults/alarms", "partner.alerts.sla.read"),
        ("GET", "/api/isp/v1/faults/sla/rollup-stats", "partner.reports.sla.read"),
        ("POST", "/api/isp/v1/auth/login", "public"),
        ("POST", "/api/isp/v1/auth/refresh", "public"),
        ("GET", "/api/isp/v1/auth/login", "405"),
        ("POST", "/api/isp/v1/auth/register", "404"),
        ("GET", "/api/isp/v1/partners/partners/portal/dashboard", "home"),
        ("GET", "/api/isp/v1/partners/partner/customers", "deny"),
        ("GET", "/api/platform/v1/tenants", "home"),
        ("GET", "/api/platform/v1/tenants/t", "partner.tenants.list"),
        ("PUT", "/api/platform/v1/tenants/t", "405"),
        ("GET", "/api/platform/v1/tenants/t/stats", "partner.reports.usage.read"),
        ("GET", "/api/platform/v1/platform/billing/invoices", "deny"),
        ("GET", "/", "404"),
        ("GET", "/metrics", "404"),
        ("GET", "/api/isp/v1/admin/settings", "404"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(asked(&config, &table, &method, path), expected, "{method} {path}");
    }
}

#[test]
fn every_rule_that_writes_says_so_and_no_body_can_name_a_tenant() {
    let config = deployed();
    for route in &config.routes {
        let is_safe = route.methods.iter().all(|method| method == "GET");
        let Access::Permission(permission) = route.access else { continue };
        let reads = route.class == linkgate::config::settings::RouteClass::Read;
        // A search is a read that is sent by POST.
        assert!(reads == is_safe || route.path.ends_with("/search"), "{} {permission}", route.path);
        if !reads && (route.path.ends_with("/tickets/") || route.path.ends_with("/invoices")) {
            assert!(route.refuse_body_fields.iter().any(|field| field == "/tenant_id"), "{}", route.path);
        }
    }
}

#[test]
fn the_whole_table_for_review() {
    let config = deployed();
    let rows: Vec<String> = config
        .routes
        .iter()
        .map(|route| {
            let access = match route.access {
                Access::Permission(permission) => permission.name(),
                Access::Home => "home",
                Access::Public => "public",
                Access::Deny => "deny",
            };
            let to = route.upstream.as_deref().unwrap_or("-");
            format!("{:<8} {:<74} {:<9} {:<6} {access}", route.methods.join(","), route.path, to, route.class.as_str())
        })
        .collect();
    insta::assert_snapshot!(rows.join("\n"));
}
