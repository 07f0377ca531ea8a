//! What each operation's query may hold, for the description.

use serde_json::{Value, json};

use super::{
    imports,
    insight::{DECISIONS, KINDS},
    journal::{MOST_EXPORTED, MOST_OFFSET},
    links::APPROVALS,
    questions::VIEWERS,
    reviews::{REVIEW_FORMS, UNUSED_FORMS},
    table::Operation,
};
use crate::{portal::query::MAX_DEPTH, store::deliveries::DeliveryStatus};

/// What each operation's query may hold.
pub(super) fn query(operation: Operation) -> Vec<Value> {
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
    let at = || text("at", "At this time: RFC 3339, or a date. Left out: now.", "2026-01-31");
    let period = || {
        [
            text("from", "From this time on: RFC 3339, or a date.", "2026-01-31"),
            text("to", "Before this time.", "2026-02-01"),
        ]
    };
    let records = || {
        let mut all = vec![
            text("request_id", "Of this request.", "req_1"),
            id("partner_id", "Of this partner."),
            text("managed_tenant_id", "About this tenant; parts of consolidated requests included.", "isp-north"),
            text("user_id", "Of this user (`sub`), or `admin:` and the name of a token.", "admin:ci"),
            text("action", "Permission, or name of a change.", "link.revoke"),
            words("decision", "Only with this decision.", DECISIONS.iter().map(|(word, _)| *word).collect()),
            words("kind", "Only of this kind.", KINDS.iter().map(|(word, _)| *word).collect()),
        ];
        all.extend(period());
        all
    };
    let days = |name: &str, description: &str, minimum: u64, default: u64| {
        number(name, description, json!({"type": "integer", "minimum": minimum, "maximum": 3650, "default": default}))
    };
    let segment = || {
        let schema = json!({"type": "integer", "minimum": 1});
        number("from_segment", "Begin at this segment of the journal, and believe its header.", schema)
    };
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
        Op::ListEnding => vec![
            days("days", "Within so many days.", 1, 30),
            id("partner_id", "Only of this partner."),
            text("managed_tenant_id", "Only to this tenant.", "isp-north"),
        ],
        Op::ListWebhooks => vec![id("partner_id", "Only of this partner.")],
        Op::ListDeliveries => vec![
            id("webhook_id", "Only of this subscription."),
            id("partner_id", "Only of this partner."),
            words("status", "Only in this state.", DeliveryStatus::ALL.iter().map(|status| status.as_str()).collect()),
        ],
        Op::ListSuspensions => vec![words("all", "Those that were lifted too.", vec!["true", "false"])],
        Op::ListRecords => records(),
        Op::ListOutbox => vec![],
        Op::ListCheckpoints => {
            let schema = json!({"type": "integer", "minimum": 1});
            vec![number("covering", "Only the first one that covers this record.", schema)]
        }
        Op::ReviewTenant | Op::ReviewPartner => vec![
            at(),
            days("token_days", "Look for users' tokens in the records of so many days before; 0: not at all.", 0, 30),
            words(
                "format",
                "`csv`: a table with one row for each link and permission; `csv_users`: for each link and user.",
                REVIEW_FORMS.to_vec(),
            ),
        ],
        Op::UnusedOfTenant | Op::UnusedOfPartner | Op::UnusedOfLink => vec![
            days("days", "Look at the requests of so many days back from now.", 1, 90),
            words("format", "`csv`: a table with one row for each link and permission.", UNUSED_FORMS.to_vec()),
        ],
        // From here on without pages.
        Op::ImportTenants | Op::ImportPartners | Op::ImportUsers | Op::ImportLinks => {
            let formats = imports::FORMATS.iter().map(|(word, _)| *word).collect();
            return vec![words("format", "What the body is. Left out: as its `Content-Type` says.", formats)];
        }
        Op::LinkPolicy | Op::RolePolicy => return vec![at()],
        Op::TestPolicies => return vec![text("only", "Only cases whose name or file contains this.", "MFA")],
        Op::ShadowReport => {
            return vec![
                text("since", "From this time on: RFC 3339, or a date. Left out: a week.", "2026-01-31"),
                text("until", "Before this time.", "2026-02-01"),
                id("partner_id", "Only requests of this partner."),
                text("managed_tenant_id", "Only decisions about this tenant.", "isp-north"),
            ];
        }
        Op::Explain | Op::ExplainRecord => {
            return vec![
                words("as", "For whom it is explained.", VIEWERS.to_vec()),
                text("managed_tenant_id", "The tenant of `as=tenant`.", "isp-north"),
            ];
        }
        Op::VerifyJournal => return vec![segment()],
        Op::ExportRecords => {
            let limit = json!({"type": "integer", "minimum": 1, "maximum": MOST_EXPORTED, "default": 1_000});
            let offset = json!({"type": "integer", "minimum": 0, "maximum": MOST_OFFSET, "default": 0});
            let mut all = vec![
                segment(),
                number("limit", "Records of a page.", limit),
                number("offset", "Records to skip; `next_offset` of the page before says how many.", offset),
            ];
            all.extend(records());
            return all;
        }
        _ => return vec![],
    };
    more.into_iter().chain(paging).collect()
}
