//! What each endpoint's query may hold.

use serde_json::{Value, json};

use crate::{
    connector::rows::{InvoiceStatus, Priority, Severity, TicketStatus},
    portal::{Endpoint, query::MAX_DEPTH},
};

/// One query parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub description: &'static str,
    pub schema: Value,
    /// A value that is taken.
    pub example: &'static str,
    pub required: bool,
}

impl Parameter {
    fn new(name: &'static str, description: &'static str, schema: Value, example: &'static str) -> Self {
        Self { name, description, schema, example, required: false }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "name": self.name, "in": "query", "required": self.required, "description": self.description,
            "schema": self.schema, "example": self.example,
        })
    }
}

/// All parameters of an endpoint.
pub fn parameters(endpoint: Endpoint) -> Vec<Parameter> {
    match endpoint {
        Endpoint::Customers => join([
            vec![
                text("status", "Tenant statuses, separated by commas.", "active"),
                text("search", "Part of name, slug or domain.", "fiber"),
            ],
            sort(&["name", "created_at", "outstanding_balance"], "name"),
            paging(),
            coverage(),
        ]),
        Endpoint::Customer => coverage(),
        Endpoint::BillingSummary => join([
            dates(),
            vec![
                tenants(),
                words("status", "Invoice statuses.", InvoiceStatus::ALL.iter().map(|word| word.as_str()), "paid"),
                Parameter::new(
                    "currency",
                    "Amounts are given in this currency only.",
                    json!({"type": "string", "pattern": "^[A-Za-z]{3}$", "default": "USD"}),
                    "USD",
                ),
            ],
            coverage(),
        ]),
        Endpoint::Invoices => join([
            dates(),
            vec![
                words("status", "Invoice statuses.", InvoiceStatus::ALL.iter().map(|word| word.as_str()), "paid"),
                tenants(),
                amount("min_amount", "Smallest total."),
                amount("max_amount", "Largest total."),
                text("search", "Part of the invoice's number or the customer's name.", "INV"),
            ],
            sort(&["invoice_date", "amount", "status"], "invoice_date"),
            paging(),
            coverage(),
        ]),
        Endpoint::Tickets => join([
            vec![
                tenants(),
                words("status", "Ticket statuses.", TicketStatus::ALL.iter().map(|word| word.as_str()), "open"),
                words("priority", "Priorities.", Priority::ALL.iter().map(|word| word.as_str()), "high"),
                ids("assigned_to", "Assigned to one of these users, separated by commas.", "u-1"),
                date("created_from", "Opened at this time or later."),
                date("created_to", "Opened at this time or before; a plain date includes its day."),
                text("search", "Part of the ticket's number or subject.", "signal"),
            ],
            paging(),
            coverage(),
        ]),
        Endpoint::UsageReport => join([
            dates_from(
                "First day or instant; 30 days before the last, where not given. The range may touch 1096 of what \
                 `time_series` is divided by; without a series (`group_by=tenant`) it has no such bound.",
            ),
            vec![
                tenants(),
                word(
                    "group_by",
                    "What `time_series` is divided by; `tenant`: there is none. Left out: days, or weeks or \
                      months where those are too many.",
                    &["day", "week", "month", "tenant"],
                    "day",
                ),
            ],
            coverage(),
        ]),
        Endpoint::SlaReport => join([
            dates_from(
                "First day or instant; 30 days before the last, where not given. The range may touch 1096 days.",
            ),
            vec![
                tenants(),
                Parameter::new(
                    "target_percentage",
                    "Target where the link has none.",
                    json!({"type": "number", "minimum": 0, "maximum": 100, "default": 99.9}),
                    "99.9",
                ),
            ],
            coverage(),
        ]),
        Endpoint::SlaAlerts | Endpoint::BillingAlerts => join([
            vec![
                tenants(),
                date("from_date", "Triggered at this time or later."),
                words("status", "States.", ["active", "acknowledged", "resolved"], "active"),
                words("severity", "Severities.", Severity::ALL.iter().map(|word| word.as_str()), "warning"),
            ],
            paging(),
            coverage(),
        ]),
        Endpoint::DownloadExport => {
            vec![Parameter { required: true, ..text("token", "From `download_url`; valid for 15 minutes.", "x") }]
        }
        Endpoint::TenantLinks => join([
            vec![
                word("approval", "With this approval.", &["pending", "approved", "rejected"], "approved"),
                word("is_active", "Active links, or revoked ones.", &["true", "false"], "true"),
                Parameter::new(
                    "usage_days",
                    "Tells of each link which of its rights were used in so many days; 0: not at all.",
                    json!({"type": "integer", "minimum": 0, "maximum": 365, "default": 0}),
                    "90",
                ),
            ],
            paging(),
        ]),
        Endpoint::AccessLog => join([
            dates(),
            vec![
                Parameter::new(
                    "partner_id",
                    "Of this partner.",
                    json!({"type": "string", "format": "uuid"}),
                    "10000000-0000-4000-8000-000000000001",
                ),
                text("user_id", "Of this user.", "u-1"),
                text("action", "Of this permission.", "partner.billing.invoices.read"),
                word("decision", "With this outcome.", &["allow", "deny"], "deny"),
                Parameter::new(
                    "proof",
                    "Each record with the proof that it stands in the signed audit chain, and the checkpoints beside them.",
                    json!({"type": "boolean", "default": false}),
                    "true",
                ),
            ],
            paging(),
        ]),
        Endpoint::CreateExport
        | Endpoint::Export
        | Endpoint::CreateTicket
        | Endpoint::UpdateTicket
        | Endpoint::AcknowledgeSlaAlert
        | Endpoint::AcknowledgeBillingAlert
        | Endpoint::Me
        | Endpoint::ApproveLink => Vec::new(),
    }
}

fn join<const N: usize>(lists: [Vec<Parameter>; N]) -> Vec<Parameter> {
    lists.into_iter().flatten().collect()
}

fn text(name: &'static str, description: &'static str, example: &'static str) -> Parameter {
    Parameter::new(name, description, json!({"type": "string", "minLength": 1, "maxLength": 255}), example)
}

/// What [`Moment`](crate::domain::Moment) takes.
pub(super) fn moment() -> Value {
    json!({
        "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}],
        "description": "Within the years 0001 to 9999, UTC; an offset up to 23:59; no leap second (`:60`). \
            No range begins after 9999-12-30T22:00:00Z.",
    })
}

fn date(name: &'static str, description: &'static str) -> Parameter {
    Parameter::new(name, description, moment(), "2026-01-31")
}

fn amount(name: &'static str, description: &'static str) -> Parameter {
    Parameter::new(name, description, json!({"type": "number"}), "12.50")
}

fn word(name: &'static str, description: &'static str, words: &[&'static str], example: &'static str) -> Parameter {
    Parameter::new(name, description, json!({"type": "string", "enum": words}), example)
}

/// Comma-separated, each one of the words.
fn words(
    name: &'static str,
    description: &'static str,
    words: impl IntoIterator<Item = &'static str>,
    example: &'static str,
) -> Parameter {
    let one = words.into_iter().collect::<Vec<_>>().join("|");
    Parameter::new(name, description, json!({"type": "string", "pattern": format!("^({one})(,({one}))*$")}), example)
}

fn tenants() -> Parameter {
    ids("tenant_ids", "Only these tenants, separated by commas.", "isp-a,isp-b")
}

fn ids(name: &'static str, description: &'static str, example: &'static str) -> Parameter {
    Parameter::new(name, description, json!({"type": "string", "pattern": "^[^,]{1,255}(,[^,]{1,255})*$"}), example)
}

fn dates() -> Vec<Parameter> {
    dates_from("First day or instant; 30 days before the last, where not given.")
}

fn dates_from(first: &'static str) -> Vec<Parameter> {
    vec![date("from_date", first), date("to_date", "Last day or instant, inclusive; today, where not given.")]
}

fn paging() -> Vec<Parameter> {
    vec![
        Parameter::new(
            "limit",
            "Most items of one answer.",
            json!({"type": "integer", "minimum": 1, "maximum": 100, "default": 50}),
            "50",
        ),
        Parameter::new(
            "offset",
            "Items to skip.",
            json!({"type": "integer", "minimum": 0, "maximum": MAX_DEPTH - 1, "default": 0}),
            "0",
        ),
    ]
}

fn sort(words: &[&'static str], default: &'static str) -> Vec<Parameter> {
    vec![
        word("sort_by", "What the items are sorted by; ties by tenant, then id.", words, default),
        word("sort_order", "Direction.", &["asc", "desc"], "asc"),
    ]
}

fn coverage() -> Vec<Parameter> {
    vec![
        Parameter::new(
            "strict",
            "True: 502 instead of a partial answer.",
            json!({"type": "string", "enum": ["true", "false"], "default": "false"}),
            "false",
        ),
        word("sources", "`all`: list every source, not only those that are not ok.", &["all", "failed"], "all"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::periods::MOST_PIECES;

    #[test]
    fn the_bound_of_a_report_is_told_where_its_range_is() {
        for endpoint in [Endpoint::UsageReport, Endpoint::SlaReport] {
            let from = parameters(endpoint).into_iter().find(|parameter| parameter.name == "from_date").unwrap();
            assert!(from.description.contains(&format!("touch {MOST_PIECES} ")), "{endpoint:?}");
        }
    }
}
