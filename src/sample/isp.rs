//! The ISP service: invoices, payments, customers, subscribers, metrics and faults. Tickets have a file of their own.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Shared,
    control::Misbehave,
    data,
    invoices::Invoice,
    network,
    reply::{Answer, Body, Call, detail, json_reply, json_text, method_not_allowed, not_found, ok, slash_redirect},
    tickets,
};

pub(super) async fn answer(shared: &Shared, call: Call) -> Response<Body> {
    if !call.request.uri().path().starts_with(shared.kind.base()) {
        return not_found();
    }
    if shared.kind == super::Kind::Gen2
        && let Err(refused) = call.agrees()
    {
        return refused;
    }
    let segments = call.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let answer = match segments.as_slice() {
        // Declared with the slash only: without it there is a redirect, and the body must be sent again.
        ["tickets"] | ["customers"] => Ok(slash_redirect(&call)),
        ["tickets", rest @ ..] => tickets::answer(&shared.tickets, rest, call).await,
        ["auth", rest @ ..] => super::platform::auth(rest, &call),
        ["tenants", ..] if shared.kind == super::Kind::Gen2 => {
            return super::platform::answer(&shared.control, call).await;
        }
        ["billing", "invoices", rest @ ..] => invoices(shared, rest, call).await,
        ["payments"] => payments(shared, &call),
        ["billing", "payments", "failed"] => failed_payments(shared, &call),
        ["customers", rest @ ..] => customers(rest, &call),
        ["subscribers", "subscribers", rest @ ..] => subscribers(rest, &call),
        ["metrics", "dashboard"] => dashboard(shared, &call),
        ["radius", "analytics", "tenant", "usage"] => traffic(shared, &call),
        ["faults", rest @ ..] => faults(shared, rest, &call),
        _ => Ok(not_found()),
    };
    answer.unwrap_or_else(|refused| refused)
}

async fn invoices(shared: &Shared, rest: &[&str], call: Call) -> Answer {
    let tenant = call.require_tenant()?;
    match (rest, call.method()) {
        ([], &Method::GET | &Method::HEAD) => list_invoices(shared, &tenant, &call),
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
            let found = shared.shelf(&tenant).rows().find(|row| row.invoice_id.to_string() == *id);
            found.map(|row| ok(&json!(row))).ok_or_else(|| detail(StatusCode::NOT_FOUND, "Invoice not found"))
        }
        ([_], _) => Ok(method_not_allowed("GET")),
        _ => Ok(not_found()),
    }
}

#[derive(serde::Serialize)]
struct InvoicePage {
    total_count: u64,
    invoices: Vec<Invoice>,
    has_more: bool,
}

fn list_invoices(shared: &Shared, tenant: &str, call: &Call) -> Answer {
    let limit = call.number("limit", 100, 1..=1000)?;
    let offset = call.number("offset", 0, 0..=u64::MAX)?;
    let how = shared.control.of(tenant);
    let same = |name: &str, value: &str| call.query(name).is_none_or(|wanted| wanted == value);
    // Dates compare as text, inclusive, on the day that the invoice was issued.
    let bound = |name: &str| call.query(name).map(|day| day.get(..10).unwrap_or(day).to_owned());
    let (from, to) = (bound("start_date"), bound("end_date"));
    let keep = |row: &Invoice| {
        let day = row.issue_date.get(..10).unwrap_or_default();
        same("status", row.status)
            && same("payment_status", row.payment_status)
            && call.query("customer_id").is_none_or(|wanted| wanted == row.customer_id.to_string())
            && from.as_deref().is_none_or(|from| day >= from)
            && to.as_deref().is_none_or(|to| day <= to)
    };
    let mut shelf = shared.shelf(tenant);
    if how == Some(Misbehave::Zeros) {
        // The exception inside is swallowed.
        shelf.count = 0;
    }
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    let take = usize::try_from(limit).unwrap_or(0);
    let issued = shelf.issued(from.as_deref(), to.as_deref());
    let others = ["status", "payment_status", "customer_id"];
    let needs_rows = others.iter().any(|name| call.query(name).is_some());
    let (mut page, found): (Vec<Invoice>, u64) = if needs_rows || !shelf.is_long() {
        let kept: Vec<Invoice> = issued.map(|number| shelf.row(number)).filter(keep).collect();
        let found = kept.len() as u64;
        (kept.into_iter().skip(skip).take(take).collect(), found)
    } else {
        let found = issued.end - issued.start;
        (issued.skip(skip).take(take).map(|number| shelf.row(number)).collect(), found)
    };
    if how == Some(Misbehave::ForeignRows) {
        page.iter_mut().for_each(|row| row.tenant_id = "somebody-else".to_owned());
    }
    let has_more = found > offset.saturating_add(page.len() as u64);
    // The fault of the older generation: the total is the size of the page.
    let total_count = if shared.kind == super::Kind::Gen2 { found } else { page.len() as u64 };
    let text = serde_json::to_string(&InvoicePage { invoices: page, total_count, has_more }).unwrap_or_default();
    Ok(json_text(text))
}

/// Takes the tenant from the token alone; the header is ignored.
fn payments(shared: &Shared, call: &Call) -> Answer {
    let tenant = call.token_tenant()?;
    let limit = call.number("limit", 50, 1..=500)?;
    let offset = call.number("offset", 0, 0..=u64::MAX)?;
    let count = shared.payment_count(&tenant);
    let rows: Vec<Value> =
        (offset..count.min(offset.saturating_add(limit))).map(|at| data::payment(&tenant, at)).collect();
    Ok(ok(&json!({"payments": rows, "total_count": count, "limit": limit, "timestamp": jiff::Timestamp::now()})))
}

fn failed_payments(shared: &Shared, call: &Call) -> Answer {
    let tenant = call.token_tenant()?;
    let rows = (0..shared.payment_count(&tenant)).map(|at| data::payment(&tenant, at));
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

fn dashboard(shared: &Shared, call: &Call) -> Answer {
    let tenant = call.token_tenant()?;
    if !call.has_permission("metrics.read") {
        return Err(detail(StatusCode::FORBIDDEN, "Permission metrics.read required"));
    }
    Ok(ok(&dashboard_of(shared, &tenant)))
}

/// Adds up the service's own rows; amounts of all currencies together, as if each were hundredths.
pub(super) fn dashboard_of(shared: &Shared, tenant: &str) -> Value {
    let zero = shared.control.of(tenant) == Some(Misbehave::ZeroDashboard);
    let with = |status: &str| match zero {
        true => 0,
        false => data::subscribers(tenant).filter(|row| row.get("status") == Some(&json!(status))).count(),
    };
    let total = if zero { 0 } else { data::subscriber_count(tenant) };
    let shelf = shared.shelf(tenant);
    let owed = || shelf.rows().filter(|row| !zero && row.status == "open");
    let today = data::days_ago(30);
    let sum = |late: bool| -> u64 {
        let rows = owed().filter(|row| !late || row.due_date < today);
        rows.map(|row| row.remaining_balance).sum()
    };
    let open = shared.tickets.count(tenant, &["open", "in_progress"]);
    let mrr = data::as_float(total) * 31.5;
    json!({
        "subscriber_metrics": {
            "total": total, "active": with("active"), "suspended": with("suspended"), "pending": with("pending"),
            "disconnected": 0, "terminated": 0, "quarantined": 0, "growth_this_month": 2, "churn_rate": 0.4, "arpu": 31.5,
        },
        "network_metrics": {"devices_online": 41, "devices_offline": 1},
        "support_metrics": {
            "open_tickets": open, "avg_response_time_minutes": 42.0, "avg_resolution_time_hours": 7.5,
            "sla_compliance_percent": 98.2,
        },
        "revenue_metrics": {
            "mrr": mrr, "arr": mrr * 12.0, "outstanding_ar": data::as_float(sum(false)) / 100.0,
            "overdue_30_days": data::as_float(sum(true)) / 100.0,
        },
        "timestamp": jiff::Timestamp::now(), "cache_ttl_seconds": 300,
    })
}

/// Takes the tenant from the token; both dates are required.
fn traffic(shared: &Shared, call: &Call) -> Answer {
    let tenant = call.token_tenant()?;
    let (from, to) = (call.moment("start_date")?, call.moment("end_date")?);
    Ok(ok(&network::traffic(&tenant, shared.whose(&tenant), from, to)))
}

/// Takes the tenant from the context, and wants the token to agree and to be an admin's.
fn faults(shared: &Shared, rest: &[&str], call: &Call) -> Answer {
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
            let rows = network::breaches(&tenant, shared.whose(&tenant)).into_iter();
            let wanted = call.query("resolved").map(|text| json!(text == "true"));
            let rows = rows.filter(|row| wanted.is_none() || row.get("resolved") == wanted.as_ref());
            Ok(ok(&rows.collect()))
        }
        ["sla", "compliance"] => {
            let from = call.moment("from_date")?;
            let to = match call.query("to_date") {
                Some(_) => call.moment("to_date")?,
                None => data::today().at(23, 59, 59, 0),
            };
            let target = call.query("target_percentage").and_then(|text| text.parse().ok()).unwrap_or(99.9);
            let whole_last = shared.kind == super::Kind::Gen2;
            let rows = network::compliance(&tenant, from, to, target, whole_last);
            let rows = rows.map_err(|()| detail(StatusCode::BAD_REQUEST, "Date range cannot exceed 90 days"))?;
            Ok(ok(&rows.into()))
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
