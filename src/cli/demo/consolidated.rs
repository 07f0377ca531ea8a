//! Requests to try on the consolidated API: every endpoint once, and the refusals that are its own.

use super::{
    request::{Request, get, patch, post},
    tokens::Tokens,
    world::{city_tenant, place},
};
use crate::{cli::outcome::Failure, domain::ErrorCode};

const BASE: &str = "/api/v1/partner";
const NEW_TICKET: &str = r#"{"subject": "No signal", "description": "since noon, whole street", "priority": "high"}"#;
const CHANGE: &str = r#"{"status": "pending", "comment": {"content": "A technician is on the way."}}"#;
const EXPORT: &str = r#"{"format": "csv", "include_line_items": true}"#;
const REPORT: &str = r#"{"format": "pdf"}"#;
const FOREIGN: &str = r#"{"subject": "x", "description": "y", "tenant_id": "isp-lagos"}"#;

/// `ticket`: a ticket of the tenant at [`place::FULL`].
pub(super) fn list(tokens: &Tokens<'_>, ticket: &str) -> Result<Vec<Request>, Failure> {
    let mut all = reads(tokens)?;
    all.extend(acts(tokens, ticket)?);
    all.extend(refusals(tokens)?);
    all.extend(at_home(tokens)?);
    Ok(all)
}

fn at(path: &str) -> String {
    format!("{BASE}{path}")
}

fn reads(tokens: &Tokens<'_>) -> Result<Vec<Request>, Failure> {
    let full = tokens.of("northwind-full")?;
    let some = format!("{},{}", city_tenant(place::FULL), city_tenant(place::BILLING));
    Ok(vec![
        get("all managed tenants at once", at("/customers?limit=5")).by(full),
        get(
            "the same by its other name, the largest debt first",
            at("/tenants?sort_by=outstanding_balance&sort_order=desc&limit=5"),
        )
        .by(full),
        get("one managed tenant, whole", at(&format!("/customers/{}", city_tenant(place::FULL)))).by(full),
        get("revenue, outstanding and overdue over all tenants", at("/billing/summary")).by(full),
        get("the newest invoices of all tenants", at("/billing/invoices?sort_by=invoice_date&sort_order=desc&limit=5"))
            .by(full),
        get("overdue invoices of two tenants", at(&format!("/billing/invoices?status=overdue&tenant_ids={some}")))
            .by(full),
        get(
            "open tickets of all tenants; those whose link gives none are `forbidden` in sources",
            at("/support/tickets?status=open&limit=5"),
        )
        .by(full),
        get("subscribers and traffic by week", at("/reports/usage?group_by=week")).by(full),
        get("availability against targets, every source told", at("/reports/sla?sources=all")).by(full),
        get("alerts of broken service levels", at("/alerts/sla")).by(full),
        get("alerts of billing thresholds", at("/alerts/billing?status=active")).by(full),
        get("who am I, and where may I work", at("/me")).by(full),
        get("a client that is switched to a tenant reads all of them all the same", at("/billing/invoices?limit=1"))
            .by(full)
            .at(place::FULL),
        get("invoices of all subsidiaries, by the headquarters", at("/billing/invoices?limit=5"))
            .by(tokens.of("baobab-full")?),
        get("an auditor reads", at("/billing/summary")).by(tokens.of("clearwater-auditor")?),
    ])
}

fn acts(tokens: &Tokens<'_>, ticket: &str) -> Result<Vec<Request>, Failure> {
    let full = tokens.of("northwind-full")?;
    let new = || {
        post("a ticket in one tenant", &at("/support/tickets"), NEW_TICKET).by(full).at(place::FULL).expect(201, None)
    };
    let again = Request { what: "the same again, by its key: done once, the answer is the same", ..new() };
    Ok(vec![
        new().header("Idempotency-Key", "demo-1"),
        again.header("Idempotency-Key", "demo-1"),
        patch(
            "a ticket changed and commented, its tenant looked up",
            &at(&format!("/support/tickets/{ticket}")),
            CHANGE,
        )
        .by(full),
        post(
            "an export of invoices as CSV; `export_id` leads to its state and download",
            &at("/billing/invoices/export"),
            EXPORT,
        )
        .by(full)
        .expect(202, None),
        post("the same as PDF", &at("/billing/invoices/export"), REPORT).by(full).expect(202, None),
        get("the state of an export that is not there", at("/billing/exports/00000000-0000-4000-8000-000000000000"))
            .by(full)
            .expect(404, Some(ErrorCode::ExportNotFound)),
        get(
            "an export's file without its link's token",
            at("/billing/exports/00000000-0000-4000-8000-000000000000/download"),
        )
        .by(full)
        .expect(422, Some(ErrorCode::ValidationError)),
        Request::new(
            "an alert that is not there",
            "POST",
            at("/alerts/billing/00000000-0000-4000-8000-000000000000/acknowledge"),
        )
        .by(full)
        .expect(404, Some(ErrorCode::AlertNotFound)),
    ])
}

fn refusals(tokens: &Tokens<'_>) -> Result<Vec<Request>, Failure> {
    let full = tokens.of("northwind-full")?;
    let foreign = city_tenant(place::ENTERPRISE);
    Ok(vec![
        get("a tenant of another partner among the filters", at(&format!("/billing/invoices?tenant_ids={foreign}")))
            .by(full)
            .expect(403, Some(ErrorCode::TenantAccessDenied)),
        get("a tenant of another partner by its id", at(&format!("/customers/{foreign}")))
            .by(full)
            .expect(404, Some(ErrorCode::TenantNotFound)),
        get("a tenant whose link has ended", at(&format!("/customers/{}", city_tenant(place::EXPIRED))))
            .by(full)
            .expect(403, Some(ErrorCode::TenantLinkExpired)),
        get("three mistakes in one query, each told", at("/billing/invoices?limit=0&from_date=tomorrow&colour=red"))
            .by(full)
            .expect(422, Some(ErrorCode::ValidationError)),
        post("a ticket without a tenant", &at("/support/tickets"), NEW_TICKET)
            .by(full)
            .expect(400, Some(ErrorCode::TenantContextRequired)),
        post("a ticket that names another tenant in its body", &at("/support/tickets"), FOREIGN)
            .by(full)
            .at(place::FULL)
            .expect(422, Some(ErrorCode::ValidationError)),
        get("billing for a user of support", at("/alerts/billing"))
            .by(tokens.of("northwind-support")?)
            .expect(403, Some(ErrorCode::Forbidden)),
        get("a user of no partner", at("/customers"))
            .by(tokens.of("lagos-user")?)
            .expect(403, Some(ErrorCode::Forbidden)),
    ])
}

fn at_home(tokens: &Tokens<'_>) -> Result<Vec<Request>, Failure> {
    let admin = tokens.of("lagos-admin")?;
    Ok(vec![
        get("a tenant's own administrator: which partners may work here", "/api/v1/tenant/links").by(admin),
        get("a tenant's own administrator: who did what here", "/api/v1/tenant/access-log?limit=5").by(admin),
        get("a tenant's plain user sees neither", "/api/v1/tenant/access-log")
            .by(tokens.of("lagos-user")?)
            .expect(403, Some(ErrorCode::Forbidden)),
    ])
}
