//! What each endpoint's request body may hold.

use serde_json::{Value, json};

use super::parameters::moment;
use crate::{
    connector::rows::{InvoiceStatus, Priority, TicketStatus},
    portal::Endpoint,
};

/// The schema of the JSON body; `None`: the endpoint takes none.
pub(super) fn body(endpoint: Endpoint) -> Option<Value> {
    let invoice: Vec<_> = InvoiceStatus::ALL.iter().map(|word| word.as_str()).collect();
    let ticket: Vec<_> = TicketStatus::ALL.iter().map(|word| word.as_str()).collect();
    let priority: Vec<_> = Priority::ALL.iter().map(|word| word.as_str()).collect();
    let date = moment();
    Some(match endpoint {
        Endpoint::CreateExport => json!({
            "type": "object", "additionalProperties": false, "required": ["format"],
            "properties": {
                "format": {"enum": ["csv", "pdf"]},
                "from_date": date, "to_date": date,
                "tenant_ids": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1, "maxLength": 255}},
                "status": {"type": "array", "minItems": 1, "items": {"enum": invoice}},
                "include_line_items": {"type": "boolean"},
                "columns": {"type": "array", "minItems": 1, "items": {"type": "string"}},
            },
        }),
        Endpoint::CreateTicket => json!({
            "type": "object", "additionalProperties": false, "required": ["subject", "description"],
            "properties": {
                "subject": {"type": "string", "minLength": 1, "maxLength": 255},
                "description": {"type": "string", "minLength": 1},
                "priority": {"enum": priority},
                "category": {"type": "string"},
                "customer_id": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "notify_customer": {"type": "boolean"},
            },
        }),
        Endpoint::UpdateTicket => json!({
            "type": "object", "additionalProperties": false, "minProperties": 1,
            "properties": {
                "status": {"enum": ticket},
                "priority": {"enum": priority},
                "assigned_to": {"type": "string"},
                "comment": {
                    "type": "object", "additionalProperties": false, "required": ["content"],
                    "properties": {
                        "content": {"type": "string", "minLength": 1},
                        "is_internal": {"type": "boolean"},
                        "notify_customer": {"type": "boolean"},
                    },
                },
            },
        }),
        Endpoint::ApproveLink => json!({
            "type": "object", "additionalProperties": false, "required": ["approval"],
            "properties": {"approval": {"enum": ["approved", "rejected"]}},
        }),
        _ => return None,
    })
}
