//! What is only looked at: the policy set in force, and the audit record.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    answer::{Answer, List, trouble},
    ask::{Ask, page},
    desk::Desk,
    table::Operation,
};
use crate::{
    audit::{Decision, Kind, Record, RecordFilter, RecordSource},
    domain::{DecisionId, Millis, PartnerId},
    portal::{Problem, query::Params},
};

pub(super) const DECISIONS: &[(&str, Decision)] = &[("allow", Decision::Allow), ("deny", Decision::Deny)];
pub(super) const KINDS: &[(&str, Kind)] = &[
    ("access", Kind::Access),
    ("link", Kind::Link),
    ("policy", Kind::Policy),
    ("config", Kind::Config),
    ("admin", Kind::Admin),
];

/// The policy set in force.
#[derive(Serialize, JsonSchema)]
pub(super) struct PolicySet {
    version: String,
    /// false: guardrails and role rules are only noted.
    enforced: bool,
    /// Version of the shadow set; null: none is loaded.
    shadow: Option<String>,
    warnings: Vec<String>,
    policies: Vec<PolicyView>,
}

/// One policy.
#[derive(Serialize, JsonSchema)]
pub(super) struct PolicyView {
    id: String,
    effect: &'static str,
    /// Made from the role table and the gates, not by hand.
    generated: bool,
    /// File, line and column.
    place: String,
    text: String,
}

pub(super) fn policies(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    ask.no_query()?;
    let gateway = &desk.gateway;
    let bundle = gateway.policies.current();
    let shadow = gateway.shadow.as_ref().and_then(|shadow| shadow.current());
    let policies = bundle.policies().map(|policy| PolicyView {
        id: policy.id.to_owned(),
        effect: if policy.forbids { "forbid" } else { "permit" },
        generated: policy.generated,
        place: policy.place,
        text: policy.text.to_owned(),
    });
    Answer::ok(&PolicySet {
        version: bundle.version().to_owned(),
        enforced: gateway.settings.policy.enforce,
        shadow: shadow.map(|set| set.version().to_owned()),
        warnings: bundle.warnings().to_vec(),
        policies: policies.collect(),
    })
}

pub(super) async fn records(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    if ask.spec.operation == Operation::ShowRecord {
        ask.no_query()?;
        return Answer::ok(&named_record(desk, ask).await?);
    }
    let mut params = ask.params();
    let paging = params.paging();
    let wanted = page(paging);
    let filter =
        RecordFilter { limit: Some(wanted.limit as usize), offset: wanted.offset as usize, ..filter(&mut params) };
    params.finish()?;
    Answer::ok(&List::of(query(desk, ask, &filter).await?, paging))
}

/// What narrows a question to some records.
pub(super) fn filter(params: &mut Params<'_>) -> RecordFilter {
    RecordFilter {
        id: None,
        request_id: text(params, "request_id"),
        partner_id: params.parsed::<PartnerId>("partner_id", "a UUID"),
        managed_tenant_id: text(params, "managed_tenant_id"),
        user_id: text(params, "user_id"),
        action: text(params, "action"),
        decision: params.word("decision", DECISIONS),
        kind: params.word("kind", KINDS),
        from: instant(params, "from"),
        to: instant(params, "to"),
        limit: None,
        offset: 0,
    }
}

fn text(params: &mut Params<'_>, name: &str) -> Option<String> {
    params.text(name).map(std::borrow::Cow::into_owned)
}

/// Half-open, as at the command line.
pub(super) fn instant(params: &mut Params<'_>, name: &str) -> Option<Millis> {
    let text = params.text(name)?;
    match Millis::parse(&text) {
        Ok(at) => Some(at),
        Err(error) => {
            params.fail(name, error.to_string());
            None
        }
    }
}

async fn query(desk: &Desk, ask: &Ask, filter: &RecordFilter) -> Result<Vec<Record>, Problem> {
    desk.records.query(filter).await.map_err(|error| trouble(ask, error.into()))
}

/// The record that the path names.
pub(super) async fn named_record(desk: &Desk, ask: &Ask) -> Result<Record, Problem> {
    let filter = RecordFilter { id: Some(DecisionId(ask.id()?)), limit: Some(1), ..RecordFilter::default() };
    query(desk, ask, &filter).await?.into_iter().next().ok_or_else(|| ask.unknown())
}
