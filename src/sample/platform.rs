//! The platform service: tenants and log-in.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    control::Control,
    data::{self, Dice},
    reply::{Answer, Body, Call, detail, method_not_allowed, not_found, ok},
};

pub(super) async fn answer(control: &Control, call: Call) -> Response<Body> {
    let bases = [super::Kind::Platform.base(), super::Kind::Gen2.base()];
    if !bases.iter().any(|base| call.request.uri().path().starts_with(base)) {
        return not_found();
    }
    let segments = call.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let answer = match segments.as_slice() {
        ["auth", rest @ ..] => auth(rest, &call),
        ["tenants", ..] if !matches!(*call.method(), Method::GET | Method::HEAD) => Ok(method_not_allowed("GET")),
        ["tenants"] => list(control, &call),
        ["tenants", "current"] => Ok(ok(&call.tenant().map_or(Value::Null, |tenant| control.tenant_row(&tenant)))),
        ["tenants", tenant] => own(&call, tenant).map(|()| ok(&control.tenant_row(tenant))),
        ["tenants", tenant, "stats"] => own(&call, tenant).map(|()| ok(&stats(tenant))),
        ["tenants", tenant, "usage"] => own(&call, tenant).map(|()| ok(&usage(tenant))),
        _ => Ok(not_found()),
    };
    answer.unwrap_or_else(|refused| refused)
}

/// Log-in, refresh and `me`; shared by both services.
pub(super) fn auth(rest: &[&str], call: &Call) -> Answer {
    match (rest, call.method()) {
        (["login"], &Method::POST) => Ok(ok(&json!({
            "access_token": "sample-access-token", "refresh_token": "sample-refresh-token", "token_type": "bearer", "expires_in": 900,
        }))),
        (["refresh"], &Method::POST) => {
            Ok(ok(&json!({"access_token": "sample-access-token", "token_type": "bearer", "expires_in": 900})))
        }
        (["me"], &Method::GET) => {
            let Some(subject) = call.claim("sub") else {
                return Err(detail(StatusCode::UNAUTHORIZED, "Not authenticated"));
            };
            Ok(ok(&json!({"id": subject, "tenant_id": call.tenant(), "roles": call.claim("roles")})))
        }
        (["login" | "refresh"], _) => Ok(method_not_allowed("POST")),
        _ => Ok(not_found()),
    }
}

fn list(control: &Control, call: &Call) -> Answer {
    if !call.has_permission("tenants:read") {
        return Err(detail(StatusCode::FORBIDDEN, "Insufficient permissions"));
    }
    let page = call.number("page", 1, 1..=u64::MAX)?;
    let size = call.number("page_size", 20, 1..=100)?;
    let rows: Vec<Value> =
        call.tenant().iter().filter(|_| page == 1).map(|tenant| control.tenant_row(tenant)).collect();
    Ok(ok(&json!({"total": rows.len(), "items": rows, "page": page, "page_size": size, "total_pages": 1})))
}

/// The path parameter must be the effective tenant, unless a permission says otherwise.
fn own(call: &Call, tenant: &str) -> Result<(), Response<Body>> {
    let is_own = call.require_tenant()? == tenant;
    if is_own || call.has_permission("tenants:read") {
        Ok(())
    } else {
        Err(detail(StatusCode::FORBIDDEN, "Access to this tenant is not allowed"))
    }
}

fn stats(tenant: &str) -> Value {
    let mut dice = Dice::new(tenant, "stats", 0);
    json!({
        "tenant_id": tenant, "total_users": 40, "active_users": dice.below(40), "total_api_calls": dice.below(90_000),
        "total_storage_gb": data::as_float(dice.below(900)) / 10.0, "total_bandwidth_gb": data::as_float(dice.below(50_000)) / 10.0,
        "user_limit": 50, "api_limit": 100_000, "storage_limit": 100, "user_usage_percent": 80.0, "api_usage_percent": 12.5,
        "storage_usage_percent": 33.0, "plan_type": "professional", "status": "active", "days_until_expiry": null,
    })
}

/// A bare array.
fn usage(tenant: &str) -> Value {
    (0..12_u64)
        .map(|month| {
            let mut dice = Dice::new(tenant, "usage", month);
            let ago = i64::try_from(month * 30).unwrap_or(0);
            json!({
                "id": month + 1, "tenant_id": tenant, "period_start": data::days_ago(ago + 30), "period_end": data::days_ago(ago),
                "api_calls": dice.below(90_000), "storage_gb": data::as_float(dice.below(900)) / 10.0, "active_users": dice.below(40),
                "bandwidth_gb": data::as_float(dice.below(50_000)) / 10.0, "metrics": {}, "created_at": data::days_ago(ago),
                "updated_at": data::days_ago(ago),
            })
        })
        .collect()
}
