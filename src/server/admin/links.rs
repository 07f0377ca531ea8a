//! Links: what a partner may do in a managed tenant, and when. The rules are the store's; four eyes know a token by its name
//! and, where it has one, by its holder's account at the command line.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    answer::{Answer, List, store_problem},
    ask::{Ask, Input, page},
    desk::Desk,
    table::Operation,
};
use crate::{
    domain::{Approval, Gate, LinkId, Millis, PartnerId, TenantId, link_rules::LinkInput},
    ops::standing::Standing,
    policy::{Answer as Verdict, effective},
    portal::{Problem, query::Params},
    store::{LinkRecord, admin::LinkFilter},
};

impl Input for LinkInput {
    const CLEARABLE: &'static [&'static str] =
        &["end_date", "billing_alert_threshold", "sla_response_hours", "sla_uptime_target", "notes", "parent_link_id"];
}

pub(super) const APPROVALS: &[(&str, Approval)] =
    &[("pending", Approval::Pending), ("approved", Approval::Approved), ("rejected", Approval::Rejected)];

/// What a link amounts to now.
#[derive(Serialize, JsonSchema)]
pub(super) struct LinkAccess {
    link_id: LinkId,
    version: i64,
    at: Millis,
    /// Of the policy set that was asked.
    policy_version: String,
    /// Whether it gives access now; `closed` is the first gate that does not let it.
    live: bool,
    closed: Option<&'static str>,
    permissions: Vec<PermissionAnswer>,
    /// As terms and gates have it; guardrails come on top.
    standing: Standing,
}

/// One permission, for a user who holds everything.
#[derive(Serialize, JsonSchema)]
pub(super) struct PermissionAnswer {
    permission: &'static str,
    /// `yes`, `no` or `depends`.
    answer: &'static str,
    /// For `no`: the first gate that is closed.
    gate: Option<&'static str>,
    /// What it depends on: `mfa`, `address`, `time`, `method`, `route_class`, `user`.
    depends_on: Vec<&'static str>,
    /// Hand-written rules that decide, or on which it depends.
    rules: Vec<String>,
}

pub(super) async fn lists(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let mut params = ask.params();
    let paging = params.paging();
    if ask.spec.operation == Operation::ListEnding {
        let days = params.integer("days", 1..=3650, 30);
        let partner: Option<PartnerId> = params.parsed("partner_id", "a UUID");
        let tenant = tenant(&mut params);
        params.finish()?;
        let days = u32::try_from(days).unwrap_or(u32::MAX);
        let found = desk.admin.ending(days, Millis::now()).await.map_err(|error| store_problem(ask, error))?;
        let wanted = page(paging);
        let rows = found
            .into_iter()
            .filter(|link| partner.is_none_or(|id| id == link.partner_id))
            .filter(|link| tenant.as_ref().is_none_or(|id| *id == link.managed_tenant_id))
            .skip(wanted.offset as usize)
            .take(wanted.limit as usize);
        return Answer::ok(&List::of(rows.collect(), paging));
    }
    let mut filter = LinkFilter { partner: params.parsed("partner_id", "a UUID"), ..LinkFilter::default() };
    filter.tenant = tenant(&mut params);
    if ask.spec.operation == Operation::ListApprovals {
        filter.approval = Some(Approval::Pending);
    } else {
        filter.active = params.word("is_active", &[("true", true), ("false", false)]);
        filter.approval = params.word("approval", APPROVALS);
    }
    params.finish()?;
    let rows = desk.admin.links(&filter, page(paging)).await.map_err(|error| store_problem(ask, error))?;
    Answer::ok(&List::of(rows, paging))
}

/// The managed tenant that a list is narrowed to.
fn tenant(params: &mut Params<'_>) -> Option<TenantId> {
    let text = params.text("managed_tenant_id")?;
    TenantId::new(&text).map_err(|error| params.fail("managed_tenant_id", error.to_string())).ok()
}

pub(super) async fn one(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let id = ask.link()?;
    match ask.spec.operation {
        Operation::LinkHistory => {
            let mut params = ask.params();
            let paging = params.paging();
            params.finish()?;
            // An unknown link is not one without history.
            desk.admin.link(id).await.map_err(|error| store_problem(ask, error))?;
            let rows = desk.admin.history(id, page(paging)).await.map_err(|error| store_problem(ask, error))?;
            Answer::ok(&List::of(rows, paging))
        }
        Operation::LinkAccess => {
            ask.no_query()?;
            access(desk, ask, id).await
        }
        _ => {
            ask.no_query()?;
            let found = desk.admin.link(id).await.map_err(|error| store_problem(ask, error))?;
            link(StatusCode::OK, &found)
        }
    }
}

async fn access(desk: &Desk, ask: &Ask, id: LinkId) -> Result<Answer, Problem> {
    let facts = desk.admin.standing(id).await.map_err(|error| store_problem(ask, error))?;
    let (bundle, now) = (desk.gateway.policies.current(), Millis::now());
    let closed = facts.closed_gate(now).map(Gate::as_str);
    let permissions = effective(&bundle, &facts, now).into_iter().map(|row| PermissionAnswer {
        permission: row.permission.name(),
        answer: match row.answer {
            Verdict::Yes => "yes",
            Verdict::No => "no",
            Verdict::Depends => "depends",
        },
        gate: row.gate,
        depends_on: row.on,
        rules: row.rules,
    });
    let answer = LinkAccess {
        link_id: id,
        version: facts.link.version.0,
        at: now,
        policy_version: bundle.version().to_owned(),
        live: closed.is_none(),
        closed,
        permissions: permissions.collect(),
        standing: Standing::of(&facts, bundle.roles(), now),
    };
    Answer::versioned(StatusCode::OK, answer.version, &answer)
}

pub(super) async fn change(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    ask.no_query()?;
    let (admin, actor) = (&desk.admin, &desk.actor);
    if ask.spec.operation == Operation::CreateLink {
        let input: LinkInput = ask.input()?;
        let written = admin.create_link(actor, &input).await;
        return link(StatusCode::CREATED, &desk.done(ask, written).await?);
    }
    let (id, expected) = (ask.link()?, ask.expected()?.version());
    let decide = |word: Approval| LinkInput { approval: Some(word.as_str().to_owned()), ..LinkInput::default() };
    let written = match ask.spec.operation {
        Operation::RevokeLink => admin.revoke_link(actor, id, expected).await,
        Operation::ApproveLink => admin.update_link(actor, id, expected, &decide(Approval::Approved)).await,
        Operation::RejectLink => admin.update_link(actor, id, expected, &decide(Approval::Rejected)).await,
        _ => admin.update_link(actor, id, expected, &ask.input()?).await,
    };
    link(StatusCode::OK, &desk.done(ask, written).await?)
}

fn link(status: StatusCode, record: &LinkRecord) -> Result<Answer, Problem> {
    Answer::versioned(status, record.stamps.version, record)
}
