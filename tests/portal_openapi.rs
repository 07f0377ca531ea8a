//! The API's description against the contract's lists of fields, and against what the endpoints really take.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::collections::BTreeMap;

use linkgate::portal::{
    Bases, Endpoint, Portal, Question,
    endpoint::TABLE,
    openapi::{document, parameters},
};
use serde_json::{Value, json};

/// What every consolidated answer has beside its own fields.
const COVERAGE: &str = "partial, sources[{tenant_id, status, as_of, error}]";
const LIST: &str = "items[{ITEM}], total, limit, offset, has_more, total_exact";
const INVOICE: &str = "invoice_id, invoice_number, tenant_id, tenant_name, customer_id, customer_name, invoice_date, due_date, status, \
     subtotal, tax, total, paid_amount, balance, currency, payment_date, days_overdue, created_at";
const TICKET: &str = "ticket_id, ticket_number, tenant_id, tenant_name, customer_id, customer_name, subject, status, priority, \
     category, assigned_to, assigned_to_name, created_at, updated_at, sla_breach_at, is_sla_breached, last_response_at, \
     response_count";
const CUSTOMER: &str = "tenant_id, name, slug, domain, status, plan_type, relationship{link_id, access_role, start_date, end_date, \
     relationship_type}, metrics{outstanding_balance, open_tickets, sla_breach_count_30d, total_subscribers}, \
     billing{billing_cycle, current_mrr, last_invoice_date, next_invoice_date}, created_at, updated_at";
const CUSTOMER_DETAIL: &str = "tenant_id, name, slug, domain, status, plan_type, contact{email, phone, billing_email}, \
     address{line1, city, state_province, postal_code, country}, relationship{link_id, access_role, start_date, end_date, \
     relationship_type, custom_permissions, sla_response_hours, sla_uptime_target, notify_on_sla_breach, \
     notify_on_billing_threshold, billing_alert_threshold}, metrics{current_users, max_users, total_subscribers, \
     active_subscribers, suspended_subscribers, current_mrr, outstanding_balance, avg_uptime_30d, open_tickets, \
     sla_breach_count_30d}, billing{billing_cycle, current_mrr, last_invoice_date, next_invoice_date}, \
     subscription{billing_cycle, trial_ends_at, subscription_starts_at, subscription_ends_at}, created_at, updated_at";
const SUMMARY: &str = "summary{total_revenue, total_outstanding, total_overdue, invoice_count, paid_invoice_count, \
     overdue_invoice_count, managed_tenant_count, currency, other_currencies}, by_tenant[{tenant_id, tenant_name, \
     total_revenue, outstanding_balance, overdue_amount, invoice_count, last_payment_date, last_payment_amount}], \
     period{from_date, to_date, days}";
const USAGE: &str = "summary{total_subscribers, active_subscribers, total_data_gb, avg_data_per_subscriber_gb, period_days}, \
     by_tenant[{tenant_id, tenant_name, subscriber_count, active_subscriber_count, total_data_gb, avg_data_per_subscriber_gb, \
     peak_bandwidth_mbps, avg_bandwidth_mbps}], time_series[{date, total_data_gb, active_subscribers}]";
const SLA: &str = "summary{tenant_count, avg_uptime_percentage, tenants_meeting_sla, tenants_breaching_sla, total_breach_count, \
     total_downtime_minutes, worst_uptime_percentage}, by_tenant[{tenant_id, tenant_name, uptime_percentage, downtime_minutes, \
     breach_count, meets_sla, sla_target, worst_day{date, uptime_percentage}, outage_count, mttr_minutes}]";
const ALERT: &str = "alert_id, tenant_id, tenant_name, alert_type, severity, title, message, triggered_at, acknowledged_at, \
     resolved_at, status, metadata";
const ME: &str = "user_id, username, partner{partner_id, name, status, home_tenant_id}, user_permissions, tenants[{tenant_id, name, \
     slug, status, link_id, access_role, start_date, end_date, permissions}]";
const ACCESS: &str = "id, time, partner_id, partner_name, user_id, username, action, method, path, resource_type, resource_id, \
     decision, reason, status, request_id, client_ip, user_agent";

/// What the access log has beside its own fields when it is asked for with `proof=true`.
const PROOF: &str = "proof{chain_id, opening{LINE}, completion{LINE}}, proof_reason";
const LINE: &str = "seq, path, line{type, prev, pub, priv}, parts{hash, shown[{part, salt, text, path}]}";

/// Section 8, endpoint by endpoint. `None`: the contract leaves the fields open, or the answer is a file.
fn promised(endpoint: Endpoint) -> Option<String> {
    let list = |item: &str, more: &str| format!("{}{more}, {COVERAGE}", LIST.replace("ITEM", item));
    Some(match endpoint {
        Endpoint::Customers => list(CUSTOMER, ""),
        Endpoint::Customer => format!("{CUSTOMER_DETAIL}, {COVERAGE}"),
        Endpoint::BillingSummary => format!("{SUMMARY}, {COVERAGE}"),
        Endpoint::Invoices => list(INVOICE, ", aggregates{total_amount, paid_amount, outstanding_amount}"),
        Endpoint::CreateExport => "export_id, status, estimated_completion, download_url, expires_at".into(),
        Endpoint::Export => {
            "export_id, status, format, file_size_bytes, row_count, download_url, created_at, completed_at, expires_at"
                .into()
        }
        Endpoint::Tickets => list(
            TICKET,
            ", aggregates{open_count, pending_count, resolved_count, sla_breach_count, avg_resolution_hours}",
        ),
        Endpoint::CreateTicket => {
            "ticket_id, ticket_number, tenant_id, status, priority, created_by_partner, created_by_partner_id, \
             created_by_partner_name, created_at, sla_breach_at"
                .into()
        }
        Endpoint::UpdateTicket => "ticket_id, ticket_number, status, updated_at, comment_id".into(),
        Endpoint::UsageReport => format!("{USAGE}, {COVERAGE}"),
        Endpoint::SlaReport => format!("{SLA}, {COVERAGE}"),
        Endpoint::SlaAlerts | Endpoint::BillingAlerts => {
            list(ALERT, ", active_count, acknowledged_count, resolved_count")
        }
        Endpoint::AcknowledgeSlaAlert | Endpoint::AcknowledgeBillingAlert => ALERT.into(),
        Endpoint::Me => ME.into(),
        Endpoint::AccessLog => LIST.replace("ITEM", ACCESS),
        Endpoint::DownloadExport | Endpoint::TenantLinks | Endpoint::ApproveLink => return None,
    })
}

/// A field with what is below it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields(BTreeMap<String, Fields>);

/// Reads `a, b{c, d}, e[{f}]`.
fn read(text: &str) -> Fields {
    fn level(text: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Fields {
        let mut fields = Fields::default();
        let mut name = String::new();
        let mut below = Fields::default();
        loop {
            match text.next() {
                Some('[') => {}
                Some(']') => {}
                Some('{') => below = level(text),
                Some(letter) if letter.is_alphanumeric() || letter == '_' => name.push(letter),
                Some(' ') => {}
                end => {
                    let last = matches!(end, Some('}') | None);
                    assert!(last || end == Some(','), "{end:?}");
                    if !name.is_empty() {
                        fields.0.insert(std::mem::take(&mut name), std::mem::take(&mut below));
                    }
                    if last {
                        return fields;
                    }
                }
            }
        }
    }
    level(&mut text.chars().peekable())
}

/// The properties of a schema, references followed; arrays stand for their items.
fn described(schema: &Value, document: &Value) -> Fields {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        return described(target, document);
    }
    for way in ["anyOf", "oneOf", "allOf"] {
        if let Some(ways) = schema[way].as_array() {
            let mut all = Fields::default();
            for one in ways {
                all.0.extend(described(one, document).0);
            }
            if !all.0.is_empty() {
                return all;
            }
        }
    }
    if schema["items"].is_object() {
        return described(&schema["items"], document);
    }
    let mut all = Fields::default();
    if let Some(properties) = schema["properties"].as_object() {
        all.0.extend(properties.iter().map(|(name, schema)| (name.clone(), described(schema, document))));
    }
    all
}

fn bases() -> Bases {
    Bases { partner: vec!["/api/v1/partner".into()], compatible: Vec::new(), tenant: "/api/v1/tenant".into() }
}

fn operation(document: &Value, endpoint: Endpoint) -> &Value {
    let spec = TABLE.iter().find(|spec| spec.endpoint == endpoint).unwrap();
    let base = if spec.path.starts_with("/links") || spec.path == "/access-log" {
        "/api/v1/tenant"
    } else {
        "/api/v1/partner"
    };
    &document["paths"][format!("{base}{}", spec.path)][spec.method.to_ascii_lowercase()]
}

#[test]
fn every_answer_has_the_contracts_fields_and_no_other() {
    let document = document(&bases());
    let mut wrong = Vec::new();
    for spec in TABLE {
        let Some(promised) = promised(spec.endpoint) else { continue };
        let operation = operation(&document, spec.endpoint);
        let responses = operation["responses"].as_object().unwrap();
        let (_, done) = responses.iter().find(|(status, _)| status.starts_with('2')).unwrap();
        let schema = &done["content"]["application/json"]["schema"];
        // The access log has a second form, which only `proof=true` asks for.
        let schema = schema["anyOf"].as_array().map_or(schema, |forms| &forms[0]);
        let found = described(schema, &document);
        if found != read(&promised) {
            wrong.push(format!("{:?}\n  promised {:?}\n  found    {found:?}", spec.endpoint, read(&promised)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_access_log_with_proofs_has_the_fields_of_one_without_and_the_proofs() {
    let document = document(&bases());
    let answer = &operation(&document, Endpoint::AccessLog)["responses"]["200"]["content"]["application/json"];
    let [plain, proven] = &answer["schema"]["anyOf"].as_array().unwrap()[..] else { panic!("{answer}") };
    let proof = PROOF.replace("LINE", LINE);
    let item = |more: &str| LIST.replace("ITEM", &format!("{ACCESS}{more}"));
    assert_eq!(described(plain, &document), read(&item("")));
    let promised = format!("{}, checkpoints[{{chain_id, note}}]", item(&format!(", {proof}")));
    assert_eq!(described(proven, &document), read(&promised));
}

#[test]
fn every_field_is_always_there() {
    // A value that no source gives is null: it is never left out.
    let document = document(&bases());
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let Some(properties) = schema["properties"].as_object() else { continue };
        if name == "Error" || name == "Source" {
            continue;
        }
        let required: Vec<&str> =
            schema["required"].as_array().map_or(Vec::new(), |all| all.iter().filter_map(Value::as_str).collect());
        for property in properties.keys() {
            assert!(required.contains(&property.as_str()), "{name}.{property} may be missing");
        }
    }
}

fn encoded(value: &str) -> String {
    value.replace(',', "%2C")
}

#[test]
fn what_is_described_is_taken_and_nothing_else() {
    let headers = http::HeaderMap::new();
    for spec in TABLE {
        let described = parameters(spec.endpoint);
        let body = match spec.endpoint {
            Endpoint::CreateExport => json!({"format": "csv"}).to_string(),
            Endpoint::CreateTicket => json!({"subject": "a", "description": "b"}).to_string(),
            Endpoint::UpdateTicket => json!({"status": "open"}).to_string(),
            Endpoint::ApproveLink => json!({"approval": "approved"}).to_string(),
            _ => String::new(),
        };
        let ask = |query: &str| {
            Portal::prepare(&Question {
                spec,
                param: Some("11111111-1111-4111-8111-111111111111").filter(|_| spec.path.contains('{')),
                query,
                headers: &headers,
                body: body.as_bytes(),
                now: jiff::Timestamp::now(),
                compatible: false,
            })
        };
        let query = |skip: &str| {
            let pairs = described.iter().filter(|parameter| parameter.name != skip);
            pairs
                .map(|parameter| format!("{}={}", parameter.name, encoded(parameter.example)))
                .collect::<Vec<_>>()
                .join("&")
        };
        if let Err(problem) = ask(&query("")) {
            panic!("{:?} refuses its own example: {problem:?}", spec.endpoint);
        }
        let Err(problem) = ask(&format!("{}&unheard_of=1", query(""))) else {
            panic!("{:?} takes anything", spec.endpoint)
        };
        assert!(problem.fields.iter().any(|error| error.field == "unheard_of"), "{:?}: {problem:?}", spec.endpoint);
        for required in described.iter().filter(|parameter| parameter.required) {
            assert!(ask(&query(required.name)).is_err(), "{:?} needs {}", spec.endpoint, required.name);
        }
    }
}
