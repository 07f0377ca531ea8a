//! The API's own description: OpenAPI 3.1, made from the table of endpoints and from the very types that are answered.
//!
//! Response schemas are derived from the structs that `serde` writes, so a field cannot be missing here and present
//! there. What a query or body may hold stands in `parameters` and `bodies`; a test asks every endpoint whether it agrees.

mod bodies;
mod parameters;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

pub use self::parameters::{Parameter, parameters};
use super::{
    Audience, Bases, Endpoint, Spec, TenantHeader, alerts, customers, endpoint::TABLE, exports, lists, me, reports,
    tenant_admin, writes,
};
use crate::domain::ErrorCode;

/// The whole document, for the first base path.
pub fn document(bases: &Bases) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for spec in TABLE {
        let base = match spec.audience {
            Audience::Partner => bases.partner.first().map_or("/api/v1/partner", String::as_str),
            Audience::TenantAdmin => &bases.tenant,
        };
        let path = format!("{base}{}", spec.path);
        let item = paths.entry(path).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(spec.method.to_ascii_lowercase(), operation(spec, &mut generator));
        }
    }
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Error".into(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "linkgate: consolidated partner API",
            "version": "1",
            "description": "One answer over all tenants that a partner manages. Each tenant's slice is authorised on its own; \
                what is missing is told in `partial` and `sources`. Money is exact: a JSON number with the currency's minor \
                digits, never summed across currencies.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": schemas,
        },
    })
}

fn operation(spec: &'static Spec, generator: &mut SchemaGenerator) -> Value {
    let mut list: Vec<Value> = parameters(spec.endpoint).iter().map(Parameter::to_json).collect();
    if let Some(name) = spec.path.split('/').find_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        list.push(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1, "maxLength": 255}}));
    }
    if spec.header == TenantHeader::Required || spec.header == TenantHeader::Optional {
        list.push(json!({
            "name": "X-Active-Tenant-Id", "in": "header", "required": spec.header == TenantHeader::Required,
            "description": "The managed tenant that is acted in.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        }));
    }
    if spec.endpoint == Endpoint::CreateTicket || spec.endpoint == Endpoint::UpdateTicket {
        list.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "The same key and body within 24 hours give the same answer and are done once.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        }));
    }
    let mut operation = json!({
        "operationId": operation_id(spec),
        "summary": summary(spec.endpoint),
        "tags": [spec.resource],
        "parameters": list,
        "responses": responses(spec, generator),
    });
    if let Some(permission) = spec.permission
        && let Some(operation) = operation.as_object_mut()
    {
        operation.insert("description".into(), json!(format!("Needs the permission `{permission}`.")));
    }
    if let (Some(body), Some(operation)) = (bodies::body(spec.endpoint), operation.as_object_mut()) {
        operation
            .insert("requestBody".into(), json!({"required": true, "content": {"application/json": {"schema": body}}}));
    }
    operation
}

/// `GET /billing/exports/{export_id}` is `get_billing_exports_by_export_id`.
fn operation_id(spec: &Spec) -> String {
    let audience = if spec.audience == Audience::TenantAdmin { "_tenant" } else { "" };
    let path = spec.path.replace(['{', '}'], "").replace(['/', '-'], "_");
    format!("{}{audience}{path}", spec.method.to_ascii_lowercase())
}

fn summary(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Customers => "All managed tenants",
        Endpoint::Customer => "One managed tenant",
        Endpoint::BillingSummary => "Revenue, outstanding and overdue over all tenants",
        Endpoint::Invoices => "Invoices of all tenants",
        Endpoint::CreateExport => "Begin an export of invoices",
        Endpoint::Export => "State of an export",
        Endpoint::DownloadExport => "The file of an export",
        Endpoint::Tickets => "Tickets of all tenants",
        Endpoint::CreateTicket => "Open a ticket in one tenant",
        Endpoint::UpdateTicket => "Change or comment a ticket",
        Endpoint::UsageReport => "Subscribers and traffic",
        Endpoint::SlaReport => "Availability against targets",
        Endpoint::SlaAlerts => "Alerts of broken service levels",
        Endpoint::BillingAlerts => "Alerts of billing thresholds",
        Endpoint::AcknowledgeSlaAlert | Endpoint::AcknowledgeBillingAlert => "Acknowledge an alert",
        Endpoint::Me => "Who am I, and where may I work",
        Endpoint::TenantLinks => "Links of partners to my tenant",
        Endpoint::ApproveLink => "Approve or reject a link to my tenant",
        Endpoint::AccessLog => "Who did what in my tenant",
    }
}

fn responses(spec: &'static Spec, generator: &mut SchemaGenerator) -> Value {
    let status = match spec.endpoint {
        Endpoint::CreateTicket => "201",
        Endpoint::CreateExport => "202",
        _ => "200",
    };
    let content = match answer(spec.endpoint, generator) {
        Some(schema) => json!({"application/json": {"schema": schema}}),
        None => {
            json!({"text/csv": {"schema": {"type": "string"}}, "application/pdf": {"schema": {"type": "string", "format": "binary"}}})
        }
    };
    let mut all = json!({status: {"description": "Done", "headers": answer_headers(), "content": content}});
    if let Some(all) = all.as_object_mut() {
        for (status, codes) in refusals(spec) {
            let names: Vec<_> = codes.iter().map(|code| format!("`{code}`")).collect();
            all.insert(
                status.to_string(),
                json!({
                    "description": names.join(", "),
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }),
            );
        }
    }
    all
}

fn answer_headers() -> Value {
    let text = |description: &str| json!({"description": description, "schema": {"type": "string"}});
    json!({"X-Request-ID": text("Of this request."), "X-Decision-Id": text("Of its audit record.")})
}

/// Statuses of refusals with their codes.
fn refusals(spec: &Spec) -> Vec<(u16, Vec<ErrorCode>)> {
    use ErrorCode as Code;
    let mut codes = vec![
        Code::BadRequest,
        Code::AmbiguousPath,
        Code::TenantContextConflict,
        Code::Unauthorized,
        Code::Forbidden,
        Code::TenantAccessDenied,
        Code::TenantLinkExpired,
        Code::PayloadTooLarge,
        Code::ValidationError,
        Code::RateLimitExceeded,
        Code::InternalError,
        Code::UpstreamError,
        Code::UpstreamUnavailable,
        Code::AuditUnavailable,
        Code::PolicyUnavailable,
        Code::LinksStale,
        Code::UpstreamTimeout,
    ];
    match spec.endpoint {
        Endpoint::Customer => codes.push(Code::TenantNotFound),
        Endpoint::Export | Endpoint::DownloadExport => codes.push(Code::ExportNotFound),
        Endpoint::CreateTicket => codes.extend([Code::TenantContextRequired, Code::Conflict]),
        Endpoint::UpdateTicket => codes.extend([Code::TenantContextRequired, Code::Conflict, Code::TicketNotFound]),
        Endpoint::AcknowledgeSlaAlert | Endpoint::AcknowledgeBillingAlert => {
            codes.extend([Code::Conflict, Code::RouteNotFound]);
        }
        Endpoint::ApproveLink => codes.extend([Code::Conflict, Code::RouteNotFound]),
        _ => {}
    }
    let mut by_status: Vec<(u16, Vec<ErrorCode>)> = Vec::new();
    for code in codes {
        match by_status.iter_mut().find(|(status, _)| *status == code.status()) {
            Some((_, same)) => same.push(code),
            None => by_status.push((code.status(), vec![code])),
        }
    }
    by_status
}

/// The envelope of section 7.
pub fn error_schema() -> Value {
    let codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object", "required": ["error"],
        "properties": {"error": {
            "type": "object", "required": ["code", "message", "details", "request_id", "timestamp"],
            "properties": {
                "code": {"type": "string", "enum": codes},
                "message": {"type": "string"},
                "details": {
                    "type": "object",
                    "description": "`tenant_id` and `reason` where they say more; for VALIDATION_ERROR one entry a field.",
                    "additionalProperties": {"type": "string"},
                },
                "request_id": {"type": "string"},
                "timestamp": {"type": "string", "format": "date-time"},
            },
        }},
    })
}

/// The schema of an endpoint's answer; `None` where it is a file.
pub fn answer(endpoint: Endpoint, generator: &mut SchemaGenerator) -> Option<Schema> {
    Some(match endpoint {
        Endpoint::Customers => schema::<customers::list::Answer>(generator),
        Endpoint::Customer => schema::<customers::view::Detail<'static>>(generator),
        Endpoint::BillingSummary => schema::<reports::summary::Answer<'static>>(generator),
        Endpoint::Invoices => schema::<lists::invoices::Answer>(generator),
        Endpoint::Tickets => schema::<lists::tickets::Answer>(generator),
        Endpoint::UsageReport => schema::<reports::usage::Answer<'static>>(generator),
        Endpoint::SlaReport => schema::<reports::sla::Answer<'static>>(generator),
        Endpoint::SlaAlerts | Endpoint::BillingAlerts => schema::<alerts::list::Answer<'static>>(generator),
        Endpoint::AcknowledgeSlaAlert | Endpoint::AcknowledgeBillingAlert => {
            schema::<alerts::AlertView<'static>>(generator)
        }
        Endpoint::Me => schema::<me::Answer<'static>>(generator),
        Endpoint::CreateExport => schema::<exports::create::Answer>(generator),
        Endpoint::Export => schema::<exports::state::Answer>(generator),
        Endpoint::CreateTicket => schema::<writes::create::Answer<'static>>(generator),
        Endpoint::UpdateTicket => schema::<writes::update::Answer<'static>>(generator),
        Endpoint::TenantLinks => schema::<tenant_admin::links::ListAnswer>(generator),
        Endpoint::ApproveLink => schema::<tenant_admin::links::LinkView>(generator),
        Endpoint::AccessLog => schema::<tenant_admin::access_log::AnyAnswer>(generator),
        Endpoint::DownloadExport => return None,
    })
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}
