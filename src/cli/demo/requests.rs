//! Requests to try, each with the answer to expect: what is allowed, and a refusal of every kind.

use serde_json::{Map, Value, json};

use super::{
    request::{Draft, Request, get, post},
    tokens::Tokens,
    world::{OWN_ADDRESS, World, city_tenant, place},
};
use crate::{cli::outcome::Failure, domain::ErrorCode};

const INVOICES: &str = "/api/isp/v1/billing/invoices?limit=2";
const NEW_INVOICE: &str = r#"{"currency": "USD", "total_amount": 12900}"#;
const TICKETS: &str = "/api/isp/v1/tickets/";
const SUBSCRIBERS: &str = "/api/isp/v1/subscribers/subscribers?limit=2";
const NEW_TICKET: &str = r#"{"subject": "No signal", "message": "since noon", "target_type": "platform"}"#;
const FOREIGN_TICKET: &str =
    r#"{"subject": "Planted", "message": "x", "target_type": "platform", "tenant_id": "isp-lagos"}"#;

/// Builds the list. The order is the order in which a person tries them.
pub(super) fn list(world: &World, tokens: &Tokens<'_>, ticket: &str) -> Result<Vec<Request>, Failure> {
    let mut all = allowed(tokens)?;
    all.extend(by_role(tokens)?);
    all.extend(by_link(tokens)?);
    all.extend(by_caller(world, tokens)?);
    all.extend(by_request(tokens)?);
    all.extend(super::consolidated::list(tokens, ticket)?);
    Ok(all)
}

fn allowed(tokens: &Tokens<'_>) -> Result<Vec<Request>, Failure> {
    let full = tokens.of("northwind-full")?;
    let tenant = city_tenant(place::FULL);
    let own_address = city_tenant(OWN_ADDRESS);
    Ok(vec![
        get("invoices of a managed tenant; the path names none, the header does", INVOICES).by(full).at(place::FULL),
        get("the same as a browser sends it, with the home tenant in X-Tenant-ID", INVOICES)
            .by(full)
            .at(place::FULL)
            .header("X-Tenant-ID", "northwind-home"),
        get("what the service sees: headers set by the gateway, the token replaced", "/api/isp/v1/echo")
            .by(full)
            .at(place::FULL),
        get("invoices at home: no active tenant, no link is asked for", INVOICES).by(full),
        get("a tenant whose service has an address of its own", INVOICES).by(full).active(&own_address),
        get("a path that names the effective tenant", format!("/api/platform/v1/tenants/{tenant}/stats"))
            .by(full)
            .at(place::FULL),
        post("a new ticket for a managed tenant", TICKETS, NEW_TICKET).by(full).at(place::FULL).expect(201, None),
        get("another tenant of an enterprise, by its headquarters", TICKETS)
            .by(tokens.of("baobab-full")?)
            .at(place::ENTERPRISE),
        get("a tenant's own user at home, as before", INVOICES).by(tokens.of("lagos-user")?),
        post(
            "log-in: a public route, neither token nor tenant is read",
            "/api/isp/v1/auth/login",
            r#"{"username": "ada"}"#,
        ),
    ])
}

fn by_role(tokens: &Tokens<'_>) -> Result<Vec<Request>, Failure> {
    let full = tokens.of("northwind-full")?;
    let forbidden = |request: Draft| request.expect(403, Some(ErrorCode::Forbidden));
    Ok(vec![
        get("a link of role msp_billing reads invoices", INVOICES).by(full).at(place::BILLING),
        forbidden(get("a link of role msp_billing gives no tickets", TICKETS).by(full).at(place::BILLING)),
        get("a link of role msp_support reads tickets", TICKETS).by(full).at(place::SUPPORT),
        forbidden(
            post("a link of role msp_support writes no invoices", "/api/isp/v1/billing/invoices", NEW_INVOICE)
                .by(full)
                .at(place::SUPPORT),
        ),
        get("a link of role auditor reads tickets", TICKETS).by(full).at(place::AUDITOR),
        forbidden(post("a link of role auditor never writes", TICKETS, NEW_TICKET).by(full).at(place::AUDITOR)),
        get("a link of role reseller lists subscribers", SUBSCRIBERS).by(full).at(place::RESELLER),
        forbidden(
            get("a link of role reseller gives no revenue", "/api/isp/v1/metrics/dashboard")
                .by(full)
                .at(place::RESELLER),
        ),
        get("a delegate has what its overrides grant: invoices", INVOICES).by(full).at(place::DELEGATE),
        forbidden(get("a delegate has nothing else", TICKETS).by(full).at(place::DELEGATE)),
        forbidden(get("an override denies what the role grants", INVOICES).by(full).at(place::OVERRIDDEN)),
        forbidden(
            post("the link would allow it, the user's own role does not", "/api/isp/v1/billing/invoices", NEW_INVOICE)
                .by(tokens.of("northwind-support")?)
                .at(place::FULL),
        ),
    ])
}

fn by_link(tokens: &Tokens<'_>) -> Result<Vec<Request>, Failure> {
    let full = tokens.of("northwind-full")?;
    let denied =
        |what, place: usize| get(what, INVOICES).by(full).at(place).expect(403, Some(ErrorCode::TenantAccessDenied));
    Ok(vec![
        denied("a tenant of another partner", place::ENTERPRISE),
        denied("a tenant linked to nobody", place::ALONE),
        get("a tenant that does not exist: the same answer", INVOICES)
            .by(full)
            .active("no-such-tenant")
            .expect(403, Some(ErrorCode::TenantAccessDenied)),
        get("a link that has ended", INVOICES)
            .by(full)
            .at(place::EXPIRED)
            .expect(403, Some(ErrorCode::TenantLinkExpired)),
        denied("a link that was revoked", place::REVOKED),
        denied("a link that has not started", place::NOT_STARTED),
        denied("a link that waits for approval", place::PENDING),
    ])
}

fn by_caller(world: &World, tokens: &Tokens<'_>) -> Result<Vec<Request>, Failure> {
    let unauthorized = |request: Draft| request.expect(401, Some(ErrorCode::Unauthorized));
    let user = world.user("northwind-full").ok_or_else(|| Failure::failed("the demo's first user is missing"))?;
    let changed = |claims: Value| tokens.mint(user, claims.as_object().cloned().unwrap_or_else(Map::new));
    let expired = changed(json!({"iat": 1_700_000_000, "exp": 1_700_000_900}))?;
    let refresh = changed(json!({"type": "refresh"}))?;
    let elsewhere = changed(json!({"tenant_id": city_tenant(place::FULL)}))?;
    let other_partner = changed(json!({"partner_id": world.partners.get(1).map(|partner| partner.id)}))?;
    let forged = {
        let full = tokens.of("northwind-full")?;
        let signed = full.rsplit_once('.').map_or(full, |(signed, _)| signed);
        format!("{signed}.{}", "A".repeat(86))
    };
    Ok(vec![
        unauthorized(get("no token", INVOICES).at(place::FULL)),
        unauthorized(get("a token that has expired", INVOICES).by(&expired).at(place::FULL)),
        unauthorized(get("a token with a forged signature", INVOICES).by(&forged).at(place::FULL)),
        unauthorized(get("a refresh token", INVOICES).by(&refresh).at(place::FULL)),
        get("a user of no partner in a foreign tenant", INVOICES)
            .by(tokens.of("lagos-user")?)
            .at(place::SUPPORT)
            .expect(403, Some(ErrorCode::Forbidden)),
        get("a partner user whose token names a foreign home tenant", INVOICES)
            .by(&elsewhere)
            .expect(403, Some(ErrorCode::Forbidden)),
        get("a token that claims another partner than the table says", INVOICES)
            .by(&other_partner)
            .at(place::FULL)
            .expect(403, Some(ErrorCode::Forbidden)),
    ])
}

fn by_request(tokens: &Tokens<'_>) -> Result<Vec<Request>, Failure> {
    let full = tokens.of("northwind-full")?;
    let two = format!("{},{}", city_tenant(place::FULL), city_tenant(place::BILLING));
    let other = city_tenant(place::BILLING);
    let customer = "/api/isp/v1/customers/00000000-0000-4000-8000-000000000000/impersonate";
    Ok(vec![
        get("two tenants in one header", INVOICES)
            .by(full)
            .active(&two)
            .expect(400, Some(ErrorCode::TenantContextConflict)),
        get("a path that names another tenant than the header", format!("/api/platform/v1/tenants/{other}/stats"))
            .by(full)
            .at(place::FULL)
            .expect(400, Some(ErrorCode::TenantContextConflict)),
        post("a body field that would override the tenant", TICKETS, FOREIGN_TICKET)
            .by(full)
            .at(place::FULL)
            .expect(400, Some(ErrorCode::BadRequest)),
        get("an ambiguous path", "/api/isp/v1/tickets/%2e%2e/customers/")
            .by(full)
            .at(place::FULL)
            .expect(400, Some(ErrorCode::AmbiguousPath)),
        post("a route that nobody may use", customer, "{}")
            .by(full)
            .at(place::FULL)
            .expect(403, Some(ErrorCode::Forbidden)),
        get("a home route in another tenant", "/api/platform/v1/tenants")
            .by(full)
            .at(place::FULL)
            .expect(403, Some(ErrorCode::Forbidden)),
        get("a path that no rule names", "/api/isp/v1/admin/settings")
            .by(full)
            .at(place::FULL)
            .expect(404, Some(ErrorCode::RouteNotFound)),
        Draft::new("a method that the path does not serve", "DELETE", INVOICES)
            .by(full)
            .at(place::FULL)
            .expect(405, Some(ErrorCode::MethodNotAllowed)),
    ])
}
