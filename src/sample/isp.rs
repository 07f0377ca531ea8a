//! The ISP service: invoices, payments, customers, subscribers, metrics and faults. Tickets have a file of their own.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Shared, data,
    reply::{Body, Call, detail, json_reply, method_not_allowed, not_found, ok, slash_redirect},
    tickets,
};

/// An endpoint answers, or fails with the answer to give instead.
pub(super) type Answer = Result<Response<Body>, Response<Body>>;

pub(super) async fn answer(shared: &Shared, call: Call) -> Response<Body> {
    if !call.request.uri().path().starts_with(shared.kind.base()) {
        return not_found();
    }
    let segments = call.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let answer = match segments.as_slice() {
        // Declared with the slash only: without it there is a redirect, and the body must be sent again.
        ["tickets"] | ["customers"] => Ok(slash_redirect(&call)),
        ["tickets", rest @ ..] => tickets::answer(&shared.tickets, rest, call).await,
        ["auth", rest @ ..] => super::platform::auth(rest, &call),
        ["billing", "invoices", rest @ ..] => invoices(rest, call).await,
        ["payments"] => payments(&call),
        ["billing", "payments", "failed"] => failed_payments(&call),
        ["customers", rest @ ..] => customers(rest, &call),
        ["subscribers", "subscribers", rest @ ..] => subscribers(rest, &call),
        ["metrics", "dashboard"] => dashboard(&call),
        ["faults", rest @ ..] => faults(rest, &call),
        _ => Ok(not_found()),
    };
    answer.unwrap_or_else(|refused| refused)
}

async fn invoices(rest: &[&str], call: Call) -> Answer {
    let tenant = call.require_tenant()?;
    match (rest, call.method()) {
        ([], &Method::GET | &Method::HEAD) => list_invoices(&tenant, &call),
        ([], &Method::POST) => {
            let mut body = call.json().await?;
            // Amounts that the client sends are kept as they are: whole minor units.
            body.insert("tenant_id".into(), tenant.into());
            body.insert("invoice_id".into(), json!(uuid::Uuid::new_v4()));
            body.insert("status".into(), "draft".into());
            Ok(json_reply(StatusCode::CREATED, &Value::Object(body)))
        }
        ([], _) => Ok(method_not_allowed("GET, POST")),
        ([id], &Method::GET | &Method::HEAD) => {
            let found = (0..data::invoice_count(&tenant)).map(|at| data::invoice(&tenant, at));
            let found = found.into_iter().find(|row| row.get("invoice_id").and_then(Value::as_str) == Some(*id));
            found.map(|row| ok(&row)).ok_or_else(|| detail(StatusCode::NOT_FOUND, "Invoice not found"))
        }
        ([_], _) => Ok(method_not_allowed("GET")),
        _ => Ok(not_found()),
    }
}

fn list_invoices(tenant: &str, call: &Call) -> Answer {
    let limit = call.number("limit", 100, 1..=1000)?;
    let offset = call.number("offset", 0, 0..=u64::MAX)?;
    let keep = |row: &Value| {
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let same = |name: &str| call.query(name).is_none_or(|wanted| text(name) == wanted);
        // Dates compare as text, inclusive, on the day that the invoice was issued.
        let issued = text("issue_date");
        let day = issued.get(..10).unwrap_or_default();
        same("customer_id")
            && same("status")
            && same("payment_status")
            && call.query("start_date").is_none_or(|from| day >= from.get(..10).unwrap_or(from))
            && call.query("end_date").is_none_or(|to| day <= to.get(..10).unwrap_or(to))
    };
    let rows = (0..data::invoice_count(tenant)).map(|at| data::invoice(tenant, at)).filter(keep);
    let mut page: Vec<Value> = rows
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(usize::try_from(limit + 1).unwrap_or(0))
        .collect();
    let has_more = page.len() as u64 > limit;
    page.truncate(usize::try_from(limit).unwrap_or(0));
    // The fault of this generation: the total is the size of the page.
    Ok(ok(&json!({"total_count": page.len(), "invoices": page, "has_more": has_more})))
}

/// Takes the tenant from the token alone; the header is ignored.
fn payments(call: &Call) -> Answer {
    let tenant = call.token_tenant()?;
    let limit = call.number("limit", 50, 1..=500)?;
    let offset = call.number("offset", 0, 0..=u64::MAX)?;
    let count = data::invoice_count(&tenant);
    let rows: Vec<Value> =
        (offset..count.min(offset.saturating_add(limit))).map(|at| data::payment(&tenant, at)).collect();
    Ok(ok(&json!({"payments": rows, "total_count": count, "limit": limit, "timestamp": jiff::Timestamp::now()})))
}

fn failed_payments(call: &Call) -> Answer {
    let tenant = call.token_tenant()?;
    let rows = (0..data::invoice_count(&tenant)).map(|at| data::payment(&tenant, at));
    let failed: Vec<Value> = rows.filter(|row| row.get("status") == Some(&json!("failed"))).collect();
    let total: f64 = failed.iter().filter_map(|row| row.get("amount")?.as_f64()).sum();
    Ok(ok(&json!({"count": failed.len(), "total_amount": total, "oldest_failure": null, "newest_failure": null})))
}

fn customers(rest: &[&str], call: &Call) -> Answer {
    let tenant = call.require_tenant()?;
    let find =
        |id: &str| (0..data::customer_count(&tenant)).find(|at| data::customer_id(&tenant, *at).to_string() == id);
    match (rest, call.method()) {
        ([""], &Method::GET | &Method::HEAD) => {
            let page = call.number("page", 1, 1..=u64::MAX)?;
            let size = call.number("page_size", 20, 1..=100)?;
            let total = data::customer_count(&tenant);
            let first = page.saturating_sub(1).saturating_mul(size);
            let rows: Vec<Value> =
                (first..total.min(first.saturating_add(size))).map(|at| data::customer(&tenant, at)).collect();
            let has_next = first.saturating_add(size) < total;
            Ok(ok(&json!({
                "customers": rows, "total": total, "page": page, "page_size": size, "has_next": has_next, "has_prev": page > 1,
            })))
        }
        ([id], &Method::GET | &Method::HEAD) => {
            let found = find(id).map(|at| ok(&data::customer(&tenant, at)));
            found.ok_or_else(|| detail(StatusCode::NOT_FOUND, "Customer not found"))
        }
        // Gives a token of the customer's to whoever asks: must never be reachable through the gateway.
        ([id, "impersonate"], &Method::POST) => Ok(ok(
            &json!({"access_token": format!("impersonation-of-{id}"), "token_type": "bearer", "tenant_id": tenant}),
        )),
        ([_] | [_, "impersonate"], _) => Ok(method_not_allowed("GET")),
        _ => Ok(not_found()),
    }
}

fn subscribers(rest: &[&str], call: &Call) -> Answer {
    let tenant = call.require_tenant()?;
    let count = data::subscriber_count(&tenant);
    let find = |id: &str| (0..count).find(|at| data::subscriber_id(&tenant, *at) == id);
    let missing = || detail(StatusCode::NOT_FOUND, "Subscriber not found");
    match (rest, call.method()) {
        ([], &Method::GET | &Method::HEAD) => {
            let limit = call.number("limit", 50, 1..=200)?;
            let offset = call.number("offset", 0, 0..=u64::MAX)?;
            let rows: Vec<Value> =
                (offset..count.min(offset.saturating_add(limit))).map(|at| data::subscriber(&tenant, at)).collect();
            Ok(ok(&json!({"items": rows, "total": count})))
        }
        ([id], &Method::GET | &Method::HEAD) => {
            find(id).map(|at| ok(&data::subscriber(&tenant, at))).ok_or_else(missing)
        }
        ([id, act @ ("activate" | "suspend")], &Method::POST) => {
            let mut row = find(id).map(|at| data::subscriber(&tenant, at)).ok_or_else(missing)?;
            let status = if *act == "activate" { "active" } else { "suspended" };
            if let Some(row) = row.as_object_mut() {
                row.insert("status".into(), status.into());
            }
            Ok(ok(&row))
        }
        ([] | [_], _) => Ok(method_not_allowed("GET")),
        ([_, "activate" | "suspend"], _) => Ok(method_not_allowed("POST")),
        _ => Ok(not_found()),
    }
}

fn dashboard(call: &Call) -> Answer {
    let tenant = call.token_tenant()?;
    let total = data::subscriber_count(&tenant);
    let rows = || (0..total).map(|at| data::subscriber(&tenant, at));
    let with = |status: &str| rows().filter(|row| row.get("status") == Some(&json!(status))).count();
    let balances = (0..data::invoice_count(&tenant)).map(|at| data::invoice(&tenant, at));
    let owed: u64 = balances.filter_map(|row| row.get("remaining_balance")?.as_u64()).sum();
    Ok(ok(&json!({
        "subscriber_metrics": {
            "total": total, "active": with("active"), "suspended": with("suspended"), "pending": with("pending"),
            "disconnected": 0, "terminated": 0, "quarantined": 0, "growth_this_month": 2, "churn_rate": 0.4, "arpu": 31.5,
        },
        "network_metrics": {"devices_online": 41, "devices_offline": 1},
        "support_metrics": {
            "open_tickets": 3, "avg_response_time_minutes": 42.0, "avg_resolution_time_hours": 7.5, "sla_compliance_percent": 98.2,
        },
        "revenue_metrics": {
            "mrr": data::as_float(total) * 31.5, "arr": data::as_float(total) * 378.0,
            "outstanding_ar": data::as_float(owed) / 100.0, "overdue_30_days": data::as_float(owed) / 400.0,
        },
        "timestamp": jiff::Timestamp::now(), "cache_ttl_seconds": 300,
    })))
}

/// Takes the tenant from the context, and wants the token to agree and to be an admin's.
fn faults(rest: &[&str], call: &Call) -> Answer {
    let tenant = call.require_tenant()?;
    if call.token_tenant()? != tenant || !call.has_role(&["tenant_admin", "admin"]) {
        return Err(detail(StatusCode::FORBIDDEN, "Tenant administrator role required"));
    }
    let mut dice = data::Dice::new(&tenant, "faults", 0);
    match rest {
        ["alarms"] => {
            let alarms: Vec<Value> = (0..dice.below(6))
                .map(|at| {
                    json!({
                        "id": dice.uuid(), "tenant_id": tenant, "alarm_id": format!("ALM-{at:04}"),
                        "severity": dice.pick(&["critical", "major", "minor", "warning"]),
                        "status": dice.pick(&["active", "acknowledged", "cleared"]), "source": "olt", "alarm_type": "signal_loss",
                        "title": "Signal loss", "first_occurrence": data::days_ago(2), "last_occurrence": data::days_ago(1),
                        "occurrence_count": 3, "alarm_metadata": {},
                    })
                })
                .collect();
            Ok(ok(&alarms.into()))
        }
        ["sla-breaches"] => {
            let breaches: Vec<Value> = (0..dice.below(4))
                .map(|_| {
                    json!({
                        "id": dice.uuid(), "tenant_id": tenant, "breach_type": "availability", "severity": "high",
                        "detected_at": data::days_ago(9), "duration_minutes": 30 + dice.below(90), "target_value": 99.9,
                        "actual_value": 99.2, "deviation_percent": 0.7, "resolved": true, "resolved_at": data::days_ago(8),
                        "credit_amount": 12.5, "created_at": data::days_ago(9),
                    })
                })
                .collect();
            Ok(ok(&breaches.into()))
        }
        ["sla", "rollup-stats"] => {
            let days = call.number("days", 30, 1..=90)?;
            Ok(ok(&json!({
                "total_downtime_minutes": dice.below(200), "total_breaches": dice.below(4), "worst_day_compliance": 98.7,
                "avg_compliance": 99.9, "days_analyzed": days,
            })))
        }
        _ => Ok(not_found()),
    }
}
