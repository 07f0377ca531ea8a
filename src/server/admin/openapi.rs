//! The admin API's own description: OpenAPI 3.1, made from the table of operations and from the very types that are read and
//! answered. A test asks every operation whether it agrees.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    answer::List,
    emergency::{Revoked, SuspendBody, Suspended},
    insight::{DECISIONS, KINDS, PolicySet},
    links::{APPROVALS, LinkAccess},
    table::{IfMatch, Operation, Spec, TABLE},
    webhooks::{Again, RotateBody, WebhookBody, WithSecret},
};
use crate::{
    audit::Record,
    config::settings::RouteClass,
    domain::{ErrorCode, link_rules::LinkInput},
    portal::{openapi::error_schema, query::MAX_DEPTH},
    store::{
        HistoryRecord, LinkRecord, PartnerRecord, SuspensionRecord, TenantRecord, UserRecord,
        admin::{PartnerInput, SubscriptionRecord, TenantInput, UserInput},
        deliveries::{DeliveryRecord, DeliveryStatus},
        ending::Ending,
    },
};

/// The whole document.
pub fn document() -> Value {
    let settings = |settings: SchemaSettings| {
        settings.with(|settings| settings.definitions_path = "/components/schemas".into()).into_generator()
    };
    let mut answers = settings(SchemaSettings::draft2020_12().for_serialize());
    let mut bodies = settings(SchemaSettings::draft2020_12().for_deserialize());
    let mut paths: Map<String, Value> = Map::new();
    for spec in TABLE {
        let item = paths.entry(spec.pattern()).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(spec.method.to_ascii_lowercase(), operation(spec, &mut answers, &mut bodies));
        }
    }
    let mut schemas = answers.take_definitions(true);
    schemas.extend(bodies.take_definitions(true));
    schemas.insert("Error".into(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "linkgate: admin API",
            "version": "1",
            "description": "Partners, users, tenants, links, approvals, webhooks, policies, suspensions and the audit record. Every \
                call is recorded. An object's version is its `ETag`; changes name it in `If-Match`: one over another version, or \
                over none, is refused with 409 `CONFLICT`.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    })
}

fn operation(spec: &Spec, answers: &mut SchemaGenerator, bodies: &mut SchemaGenerator) -> Value {
    let mut parameters = query(spec.operation);
    if let Some(name) = spec.parameter() {
        let schema = match name {
            "tenant_id" => json!({"type": "string", "minLength": 1, "maxLength": 255}),
            _ => json!({"type": "string", "format": "uuid"}),
        };
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
    }
    if spec.if_match != IfMatch::No {
        let description = match spec.if_match {
            IfMatch::VersionOrAny => "The version that was read, or `*`.",
            _ => "The version that was read.",
        };
        let schema = json!({"type": "string"});
        parameters.push(json!({
            "name": "If-Match", "in": "header", "required": true, "description": description, "schema": schema, "example": "\"3\"",
        }));
    }
    let roles: Vec<_> = spec.roles.iter().map(|role| role.as_str()).collect();
    let mut operation = json!({
        "operationId": spec.action.strip_prefix("admin.").unwrap_or(spec.action).replace('.', "_"),
        "summary": spec.summary,
        "description": format!("For tokens of role {}.", roles.join(", ")),
        "x-roles": roles,
        "tags": [spec.resource],
        "parameters": parameters,
        "responses": responses(spec, answers),
    });
    if let (Some(body), Some(operation)) = (body(spec.operation, bodies), operation.as_object_mut()) {
        operation
            .insert("requestBody".into(), json!({"required": true, "content": {"application/json": {"schema": body}}}));
    }
    operation
}

fn responses(spec: &Spec, answers: &mut SchemaGenerator) -> Value {
    let status = if is_created(spec.operation) { "201" } else { "200" };
    let text = |description: &str| json!({"description": description, "schema": {"type": "string"}});
    let mut headers = json!({"X-Request-ID": text("Of this call."), "X-Decision-Id": text("Of its audit record.")});
    if let (true, Some(headers)) = (has_version(spec.operation), headers.as_object_mut()) {
        headers.insert("ETag".into(), text("The object's version, for `If-Match`."));
    }
    let content = json!({"application/json": {"schema": answer(spec.operation, answers)}});
    let mut all = json!({status: {"description": "Done", "headers": headers, "content": content}});
    use ErrorCode as Code;
    let mut codes = vec![
        Code::BadRequest,
        Code::AmbiguousPath,
        Code::Unauthorized,
        Code::Forbidden,
        Code::ValidationError,
        Code::RateLimitExceeded,
        Code::InternalError,
        Code::UpstreamUnavailable,
        Code::AuditUnavailable,
    ];
    if spec.parameter().is_some() {
        codes.push(if spec.resource == "tenant" { Code::TenantNotFound } else { Code::RouteNotFound });
    }
    if spec.class == RouteClass::Write {
        codes.extend([Code::Conflict, Code::PayloadTooLarge]);
    }
    if spec.resource == "link" && spec.class == RouteClass::Write {
        codes.push(Code::PermissionEscalation);
    }
    if let Some(all) = all.as_object_mut() {
        for code in codes {
            let entry = all.entry(code.status().to_string()).or_insert_with(|| {
                let content = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}});
                json!({"description": "", "content": content})
            });
            let known = entry.get("description").and_then(Value::as_str).unwrap_or_default();
            let joint = if known.is_empty() { "" } else { ", " };
            let description = format!("{known}{joint}`{code}`");
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("description".into(), description.into());
            }
        }
    }
    all
}

fn is_created(operation: Operation) -> bool {
    use Operation as Op;
    matches!(
        operation,
        Op::CreateTenant | Op::CreatePartner | Op::CreateUser | Op::CreateLink | Op::CreateWebhook | Op::Suspend
    )
}

/// Whether the answer carries an `ETag`.
fn has_version(operation: Operation) -> bool {
    use Operation as Op;
    matches!(
        operation,
        Op::CreateTenant
            | Op::ShowTenant
            | Op::UpdateTenant
            | Op::CreatePartner
            | Op::ShowPartner
            | Op::UpdatePartner
            | Op::CreateUser
            | Op::ShowUser
            | Op::UpdateUser
            | Op::CreateLink
            | Op::ShowLink
            | Op::UpdateLink
            | Op::LinkAccess
            | Op::ApproveLink
            | Op::RejectLink
            | Op::RevokeLink
            | Op::CreateWebhook
            | Op::ShowWebhook
            | Op::UpdateWebhook
            | Op::RotateWebhook
    )
}

fn answer(operation: Operation, generator: &mut SchemaGenerator) -> Schema {
    use Operation as Op;
    match operation {
        Op::OpenApi => schema::<Map<String, Value>>(generator),
        Op::ListTenants => schema::<List<TenantRecord>>(generator),
        Op::CreateTenant | Op::ShowTenant | Op::UpdateTenant => schema::<TenantRecord>(generator),
        Op::ListPartners => schema::<List<PartnerRecord>>(generator),
        Op::CreatePartner | Op::ShowPartner | Op::UpdatePartner => schema::<PartnerRecord>(generator),
        Op::RevokeAll => schema::<Revoked>(generator),
        Op::ListUsers => schema::<List<UserRecord>>(generator),
        Op::CreateUser | Op::ShowUser | Op::UpdateUser => schema::<UserRecord>(generator),
        Op::ListLinks | Op::ListApprovals => schema::<List<LinkRecord>>(generator),
        Op::ListEnding => schema::<List<Ending>>(generator),
        Op::LinkHistory => schema::<List<HistoryRecord>>(generator),
        Op::LinkAccess => schema::<LinkAccess>(generator),
        Op::CreateLink | Op::ShowLink | Op::UpdateLink | Op::ApproveLink | Op::RejectLink | Op::RevokeLink => {
            schema::<LinkRecord>(generator)
        }
        Op::ListWebhooks => schema::<List<SubscriptionRecord>>(generator),
        Op::ShowWebhook | Op::UpdateWebhook | Op::DeleteWebhook => schema::<SubscriptionRecord>(generator),
        Op::CreateWebhook | Op::RotateWebhook => schema::<WithSecret>(generator),
        Op::RedeliverDead | Op::Redeliver => schema::<Again>(generator),
        Op::ListDeliveries => schema::<List<DeliveryRecord>>(generator),
        Op::ShowPolicies => schema::<PolicySet>(generator),
        Op::ListRecords => schema::<List<Record>>(generator),
        Op::ShowRecord => schema::<Record>(generator),
        Op::ListSuspensions => schema::<List<SuspensionRecord>>(generator),
        Op::ShowSuspension | Op::Restore => schema::<SuspensionRecord>(generator),
        Op::Suspend => schema::<Suspended>(generator),
    }
}

fn body(operation: Operation, generator: &mut SchemaGenerator) -> Option<Schema> {
    use Operation as Op;
    Some(match operation {
        Op::CreateTenant | Op::UpdateTenant => schema::<TenantInput>(generator),
        Op::CreatePartner | Op::UpdatePartner => schema::<PartnerInput>(generator),
        Op::CreateUser | Op::UpdateUser => schema::<UserInput>(generator),
        Op::CreateLink | Op::UpdateLink => schema::<LinkInput>(generator),
        Op::CreateWebhook | Op::UpdateWebhook => schema::<WebhookBody>(generator),
        Op::RotateWebhook => schema::<RotateBody>(generator),
        Op::Suspend => schema::<SuspendBody>(generator),
        _ => return None,
    })
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What each operation's query may hold.
fn query(operation: Operation) -> Vec<Value> {
    use Operation as Op;
    let one = |name: &str, description: &str, schema: Value, example: &str| {
        json!({
            "name": name, "in": "query", "required": false, "description": description, "schema": schema, "example": example,
        })
    };
    let id = |name: &str, description: &str| {
        one(name, description, json!({"type": "string", "format": "uuid"}), "11111111-1111-4111-8111-111111111111")
    };
    let text = |name: &str, description: &str, example: &str| {
        one(name, description, json!({"type": "string", "minLength": 1}), example)
    };
    let words = |name: &str, description: &str, words: Vec<&str>| {
        let example = words.first().copied().unwrap_or_default().to_owned();
        one(name, description, json!({"type": "string", "enum": words}), &example)
    };
    let number = |name: &str, description: &str, schema: Value| one(name, description, schema, "1");
    let paging = [
        number("limit", "Rows of a page.", json!({"type": "integer", "minimum": 1, "maximum": 100, "default": 50})),
        number(
            "offset",
            "Rows to skip; with `limit` at most 10,000.",
            json!({"type": "integer", "minimum": 0, "maximum": MAX_DEPTH - 1, "default": 0}),
        ),
    ];
    let more = match operation {
        Op::ListTenants | Op::ListPartners | Op::LinkHistory => vec![],
        Op::ListUsers => vec![
            id("partner_id", "Only of this partner."),
            text("issuer", "Of the tokens; goes with `sub`. Left out: the legacy issuer.", "https://login.example"),
            text("sub", "The one user whose tokens say this.", "4711"),
        ],
        Op::ListLinks => vec![
            id("partner_id", "Only of this partner."),
            text("managed_tenant_id", "Only to this tenant.", "isp-north"),
            words("is_active", "Only active links, or only revoked ones.", vec!["true", "false"]),
            words("approval", "Only in this state.", APPROVALS.iter().map(|(word, _)| *word).collect()),
        ],
        Op::ListApprovals => vec![
            id("partner_id", "Only of this partner."),
            text("managed_tenant_id", "Only to this tenant.", "isp-north"),
        ],
        Op::ListEnding => vec![number(
            "days",
            "Within so many days.",
            json!({"type": "integer", "minimum": 1, "maximum": 3650, "default": 30}),
        )],
        Op::ListWebhooks => vec![id("partner_id", "Only of this partner.")],
        Op::ListDeliveries => vec![
            id("webhook_id", "Only of this subscription."),
            id("partner_id", "Only of this partner."),
            words("status", "Only in this state.", DeliveryStatus::ALL.iter().map(|status| status.as_str()).collect()),
        ],
        Op::ListSuspensions => vec![words("all", "Those that were lifted too.", vec!["true", "false"])],
        Op::ListRecords => vec![
            text("request_id", "Of this request.", "req_1"),
            id("partner_id", "Of this partner."),
            text("managed_tenant_id", "About this tenant; parts of consolidated requests included.", "isp-north"),
            text("user_id", "Of this user (`sub`), or `admin:` and the name of a token.", "admin:ci"),
            text("action", "Permission, or name of a change.", "link.revoke"),
            words("decision", "Only with this decision.", DECISIONS.iter().map(|(word, _)| *word).collect()),
            words("kind", "Only of this kind.", KINDS.iter().map(|(word, _)| *word).collect()),
            text("from", "From this time on: RFC 3339, or a date.", "2026-01-31"),
            text("to", "Before this time.", "2026-02-01"),
        ],
        _ => return vec![],
    };
    more.into_iter().chain(paging).collect()
}
