//! Tickets: a bare array without paging, and a body field that overrides the tenant without any check.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    data::{self, Dice},
    reply::{Answer, Call, detail, json_reply, method_not_allowed, not_found, ok},
};

/// Most tenants whose tickets are kept; beyond it all are forgotten and made anew.
const MAX_TENANTS: usize = 2_000;
/// Most tickets kept of one tenant; beyond it the oldest goes.
const MAX_TICKETS: usize = 500;

/// The 15 kinds of tickets.
const TYPES: [&str; 15] = [
    "general_inquiry",
    "billing_issue",
    "technical_support",
    "outage_report",
    "connectivity_issue",
    "installation_request",
    "equipment_issue",
    "speed_issue",
    "service_upgrade",
    "service_downgrade",
    "cancellation_request",
    "relocation_request",
    "complaint",
    "network_issue",
    "feature_request",
];

type Row = Map<String, Value>;

/// The tickets of all tenants that were asked for, newest first.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<HashMap<String, Vec<Row>>>);

impl Book {
    /// A panic elsewhere leaves rows whole: each change is one push or one insert.
    fn open(&self) -> MutexGuard<'_, HashMap<String, Vec<Row>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of one tenant, newest first.
    pub(super) fn all(&self, tenant: &str) -> Vec<Value> {
        self.with(tenant, |rows| rows.iter().cloned().map(Value::Object).collect())
    }

    /// How many have one of these states.
    pub(super) fn count(&self, tenant: &str, states: &[&str]) -> usize {
        self.with(tenant, |rows| rows.iter().filter(|row| states.contains(&text(row, "status"))).count())
    }

    /// Works on the tickets of one tenant.
    fn with<T>(&self, tenant: &str, work: impl FnOnce(&mut Vec<Row>) -> T) -> T {
        let mut book = self.open();
        if book.len() >= MAX_TENANTS && !book.contains_key(tenant) {
            book.clear();
        }
        work(book.entry(tenant.to_owned()).or_insert_with(|| first_tickets(tenant)))
    }
}

pub(super) async fn answer(book: &Book, rest: &[&str], call: Call) -> Answer {
    let tenant = call.require_tenant()?;
    match (rest, call.method()) {
        ([""], &Method::GET | &Method::HEAD) => list(book, &tenant, &call),
        ([""], &Method::POST) => create(book, tenant, call).await,
        ([""], _) => Ok(method_not_allowed("GET, POST")),
        (["stats"], &Method::GET | &Method::HEAD) => {
            let mut counts = HashMap::new();
            book.with(&tenant, |rows| {
                for row in rows {
                    *counts.entry(text(row, "status").to_owned()).or_insert(0_u32) += 1;
                }
            });
            Ok(ok(&json!(counts)))
        }
        ([id], &Method::GET | &Method::HEAD) => book
            .with(&tenant, |rows| rows.iter().find(|row| text(row, "id") == *id).cloned())
            .map(|row| ok(&Value::Object(row)))
            .ok_or_else(missing),
        ([id], &Method::PATCH) => patch(book, &tenant, id, call).await,
        ([id, "messages"], &Method::POST) => add_message(book, &tenant, id, call).await,
        ([id, "messages"], &Method::GET | &Method::HEAD) => {
            let messages = book.with(&tenant, |rows| {
                rows.iter().find(|row| text(row, "id") == *id).and_then(|row| row.get("messages").cloned())
            });
            messages.map(|messages| ok(&messages)).ok_or_else(missing)
        }
        ([_], _) => Ok(method_not_allowed("GET, PATCH")),
        ([_, "messages"], _) => Ok(method_not_allowed("GET, POST")),
        _ => Ok(not_found()),
    }
}

/// A bare array: no paging, no total.
fn list(book: &Book, tenant: &str, call: &Call) -> Answer {
    let priority = call.query("priority").map(|one| if one == "medium" { "normal" } else { one });
    if priority.is_some_and(|one| !["low", "normal", "high", "urgent"].contains(&one)) {
        return Err(detail(StatusCode::BAD_REQUEST, "Invalid priority"));
    }
    let keep = |row: &&Row| {
        call.query("status").is_none_or(|wanted| text(row, "status") == wanted)
            && priority.is_none_or(|wanted| text(row, "priority") == wanted)
            && call.query("search").is_none_or(|wanted| {
                text(row, "subject").contains(wanted) || text(row, "ticket_number").contains(wanted)
            })
    };
    let rows: Vec<Value> = book.with(tenant, |rows| rows.iter().filter(keep).map(summary).collect());
    Ok(ok(&rows.into()))
}

async fn create(book: &Book, context: String, call: Call) -> Answer {
    let created_by = call.claim("sub").unwrap_or(Value::Null);
    let body = call.json().await?;
    let subject = body.get("subject").and_then(Value::as_str).unwrap_or_default();
    if !(3..=255).contains(&subject.chars().count()) || !body.contains_key("message") {
        return Err(detail(StatusCode::UNPROCESSABLE_ENTITY, "subject and message are required"));
    }
    // Whoever is neither a known partner user nor a customer counts as the tenant's staff, and staff cannot address itself.
    match body.get("target_type").and_then(Value::as_str) {
        None => return Err(detail(StatusCode::UNPROCESSABLE_ENTITY, "target_type is required")),
        Some("partner" | "platform") => {}
        Some(_) => return Err(detail(StatusCode::BAD_REQUEST, "Tenant actors can target partner or platform only")),
    }
    if body.get("ticket_type").is_some_and(|word| !word.as_str().is_some_and(|word| TYPES.contains(&word))) {
        return Err(detail(StatusCode::UNPROCESSABLE_ENTITY, "Unknown ticket_type"));
    }
    // The fault that routes defend against by refusing the field: any tenant may be named here.
    let tenant = body.get("tenant_id").and_then(Value::as_str).map_or(context, str::to_owned);
    let id = uuid::Uuid::new_v4();
    let mut row = ticket(&tenant, &id.to_string(), subject, "open");
    for key in ["priority", "ticket_type", "service_address", "target_type", "partner_id"] {
        if let Some(value) = body.get(key) {
            row.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(metadata) = body.get("metadata") {
        row.insert("context".into(), metadata.clone());
    }
    let message = body.get("message").cloned().unwrap_or_default();
    row.insert("messages".into(), json!([message_row(&id.to_string(), &message, &created_by)]));
    let answer = Value::Object(row.clone());
    book.with(&tenant, |rows| {
        rows.insert(0, row);
        rows.truncate(MAX_TICKETS);
    });
    Ok(json_reply(StatusCode::CREATED, &answer))
}

async fn patch(book: &Book, tenant: &str, id: &str, call: Call) -> Answer {
    let body = call.json().await?;
    let states = ["open", "in_progress", "waiting", "resolved", "closed"];
    if body.get("status").is_some_and(|word| !word.as_str().is_some_and(|word| states.contains(&word))) {
        return Err(detail(StatusCode::UNPROCESSABLE_ENTITY, "Unknown status"));
    }
    let known = ["status", "priority", "assigned_to_user_id", "ticket_type", "service_address", "escalation_level"];
    let changed = book.with(tenant, |rows| {
        let row = rows.iter_mut().find(|row| text(row, "id") == id)?;
        for key in known {
            if let Some(value) = body.get(key) {
                row.insert(key.to_owned(), value.clone());
            }
        }
        row.insert("updated_at".into(), json!(jiff::Timestamp::now()));
        Some(row.clone())
    });
    changed.map(|row| ok(&Value::Object(row))).ok_or_else(missing)
}

async fn add_message(book: &Book, tenant: &str, id: &str, call: Call) -> Answer {
    let sender = call.claim("sub").unwrap_or(Value::Null);
    let body = call.json().await?;
    let Some(message) = body.get("message").filter(|message| message.is_string()) else {
        return Err(detail(StatusCode::UNPROCESSABLE_ENTITY, "message is required"));
    };
    let changed = book.with(tenant, |rows| {
        let row = rows.iter_mut().find(|row| text(row, "id") == id)?;
        let added = message_row(id, message, &sender);
        if let Some(messages) = row.get_mut("messages").and_then(Value::as_array_mut)
            && messages.len() < MAX_TICKETS
        {
            messages.push(added);
        }
        if let Some(status) = body.get("new_status") {
            row.insert("status".into(), status.clone());
        }
        Some(row.clone())
    });
    changed.map(|row| json_reply(StatusCode::CREATED, &Value::Object(row))).ok_or_else(missing)
}

fn missing() -> http::Response<super::reply::Body> {
    detail(StatusCode::NOT_FOUND, "Ticket not found")
}

fn text<'a>(row: &'a Row, key: &str) -> &'a str {
    row.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// List items carry no messages.
fn summary(row: &Row) -> Value {
    let detail_only =
        ["messages", "affected_services", "device_serial_numbers", "first_response_at", "resolution_time_minutes"];
    Value::Object(
        row.iter()
            .filter(|(key, _)| !detail_only.contains(&key.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
    )
}

fn message_row(ticket: &str, body: &Value, sender: &Value) -> Value {
    json!({
        "id": uuid::Uuid::new_v4(), "ticket_id": ticket, "sender_type": "tenant", "sender_user_id": sender, "body": body,
        "attachments": [], "created_at": jiff::Timestamp::now(), "updated_at": jiff::Timestamp::now(),
    })
}

fn first_tickets(tenant: &str) -> Vec<Row> {
    let count = if data::is_empty(tenant) { 0 } else { 4 + Dice::new(tenant, "tickets", 0).below(8) };
    (0..count)
        .map(|number| {
            let mut dice = Dice::new(tenant, "ticket", number);
            let id = dice.uuid().to_string();
            let subject =
                dice.pick(&["No signal since morning", "Invoice is wrong", "Slow in the evening", "Move of address"]);
            let status = dice.pick(&["open", "in_progress", "waiting", "resolved", "closed"]);
            let mut row = ticket(tenant, &id, subject, status);
            let age = i64::try_from(number).unwrap_or(0);
            row.insert("priority".into(), dice.pick(&["low", "normal", "high", "urgent"]).into());
            row.insert("ticket_number".into(), format!("TCK-{:012X}", dice.below(1 << 48)).into());
            row.insert(
                "customer_id".into(),
                json!(data::customer_id(tenant, dice.below(data::customer_count(tenant)))),
            );
            row.insert("ticket_type".into(), dice.pick(&TYPES).into());
            row.insert("created_at".into(), data::days_ago(age + 1).into());
            row.insert("updated_at".into(), data::days_ago(age).into());
            if dice.below(2) == 0 {
                row.insert("assigned_to_user_id".into(), json!(dice.uuid()));
                row.insert("last_response_at".into(), data::days_ago(age).into());
            }
            if dice.below(3) == 0 {
                row.insert("sla_due_date".into(), data::days_ago(age).into());
                row.insert("sla_breached".into(), (status == "open" || dice.below(2) == 0).into());
            }
            if matches!(status, "resolved" | "closed") {
                row.insert("resolution_time_minutes".into(), (30 + dice.below(1_400)).into());
            }
            row.insert("messages".into(), json!([message_row(&id, &subject.into(), &Value::Null)]));
            row
        })
        .collect()
}

fn ticket(tenant: &str, id: &str, subject: &str, status: &str) -> Row {
    let number: String = id.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    let now = jiff::Timestamp::now();
    let row = json!({
        "id": id, "ticket_number": format!("TCK-{}", number.to_uppercase()), "subject": subject, "status": status,
        "priority": "normal", "origin_type": "tenant", "target_type": "tenant", "tenant_id": tenant, "customer_id": null,
        "partner_id": null, "assigned_to_user_id": null, "last_response_at": null, "context": {},
        "ticket_type": "technical_support", "service_address": null, "sla_due_date": null, "sla_breached": false,
        "escalation_level": 0, "created_at": now, "updated_at": now, "messages": [], "affected_services": [],
        "device_serial_numbers": [], "first_response_at": null, "resolution_time_minutes": null,
    });
    row.as_object().cloned().unwrap_or_default()
}
