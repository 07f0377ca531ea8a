//! The admin API's own description: OpenAPI 3.1, made from the table of operations and from the very types that are read and
//! answered. A test asks every operation whether it agrees.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    answer::List,
    emergency::{Revoked, SuspendBody, Suspended},
    imports,
    insight::PolicySet,
    journal::WaitingChanges,
    links::LinkAccess,
    parameters::query,
    questions::{DecideBody, Decisions, ExplainBody},
    reviews::{Paged, Shadowed},
    table::{IfMatch, Operation, Spec, TABLE, Work},
    webhooks::{Again, RotateBody, Tested, WebhookBody, WithSecret},
};
use crate::{
    audit::{Record, verify::Verification},
    config::settings::RouteClass,
    domain::{ErrorCode, LinkRole, link_rules::LinkInput},
    ops::{
        access::{unused, who},
        explain::Seen,
        journal::{Export, ShownCheckpoint},
        policy::{check, show},
    },
    policy::suite::SuiteReport,
    portal::openapi::error_schema,
    store::{
        HistoryRecord, LinkRecord, PartnerRecord, SuspensionRecord, TenantRecord, UserRecord,
        admin::{ImportReport, PartnerInput, Resealed, SubscriptionRecord, TenantInput, UserInput},
        deliveries::DeliveryRecord,
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
            "description": "Partners, users, tenants, links, imports, approvals, webhooks, policies, reviews of access, suspensions and the audit record. Every \
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
            "role" => json!({"type": "string", "enum": LinkRole::ALL.map(LinkRole::as_str)}),
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
    let content = match body(spec.operation, bodies) {
        Some(body) => Some(json!({"application/json": {"schema": body}})),
        None if spec.work == Work::Import => {
            let types =
                imports::TYPES.iter().map(|(name, _)| ((*name).to_owned(), json!({"schema": {"type": "string"}})));
            Some(Value::Object(types.collect()))
        }
        None => None,
    };
    if let (Some(content), Some(operation)) = (content, operation.as_object_mut()) {
        let body = match spec.work {
            Work::Import => json!({"required": true, "description": IMPORT_ROWS, "content": content}),
            _ => json!({"required": true, "content": content}),
        };
        operation.insert("requestBody".into(), body);
    }
    operation
}

/// What an import takes.
const IMPORT_ROWS: &str = "Rows as `linkgate import` reads them, at most 10,000 and 4 MiB. CSV: the first line names the \
    columns, by the names of the fields of a single one; an empty cell is a field left out. JSON lines: one object a line. \
    A row that is refused is told in the answer, and the others go on.";

fn responses(spec: &Spec, answers: &mut SchemaGenerator) -> Value {
    let status = if is_created(spec.operation) { "201" } else { "200" };
    let text = |description: &str| json!({"description": description, "schema": {"type": "string"}});
    let mut headers = json!({"X-Request-ID": text("Of this call."), "X-Decision-Id": text("Of its audit record.")});
    if let (true, Some(headers)) = (has_version(spec.operation), headers.as_object_mut()) {
        headers.insert("ETag".into(), text("The object's version, for `If-Match`."));
    }
    let mut content = json!({"application/json": {"schema": answer(spec.operation, answers)}});
    use Operation as Op;
    if let (
        Op::ReviewTenant | Op::ReviewPartner | Op::UnusedOfTenant | Op::UnusedOfPartner | Op::UnusedOfLink,
        Some(content),
    ) = (spec.operation, content.as_object_mut())
    {
        content.insert("text/csv".into(), json!({"schema": {"type": "string"}}));
    }
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
        codes.push(Code::Conflict);
    }
    if spec.class == RouteClass::Write || spec.has_body() {
        codes.push(Code::PayloadTooLarge);
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
        Op::LinkPolicy | Op::RolePolicy => schema::<show::Report>(generator),
        Op::ReviewTenant | Op::ReviewPartner => schema::<Paged<who::Report>>(generator),
        Op::UnusedOfTenant | Op::UnusedOfPartner | Op::UnusedOfLink => schema::<Paged<unused::Report>>(generator),
        Op::ImportTenants | Op::ImportPartners | Op::ImportUsers | Op::ImportLinks => schema::<ImportReport>(generator),
        Op::TestWebhook => schema::<Tested>(generator),
        Op::ResealWebhooks => schema::<Resealed>(generator),
        Op::CheckPolicies => schema::<check::Report>(generator),
        Op::TestPolicies => schema::<SuiteReport>(generator),
        Op::ShadowReport => schema::<Shadowed>(generator),
        Op::Decide => schema::<Decisions>(generator),
        Op::Explain | Op::ExplainRecord => schema::<Seen>(generator),
        Op::ExportRecords => schema::<Export>(generator),
        Op::VerifyJournal => schema::<Verification>(generator),
        Op::ListCheckpoints => schema::<List<ShownCheckpoint>>(generator),
        Op::ListOutbox => schema::<List<WaitingChanges>>(generator),
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
        Op::Decide => schema::<DecideBody>(generator),
        Op::Explain => schema::<ExplainBody>(generator),
        _ => return None,
    })
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}
