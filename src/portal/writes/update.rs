//! `PATCH /support/tickets/{ticket_id}`: a ticket changed in the tenant that it belongs to.
//!
//! It is looked up first, also where the tenant is named: nothing is written to a path that is no ticket's.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    ACTED, DEADLINE, PRIORITIES, may_be_done,
    once::{self, Asked, Outcome, once},
    outcome, problem,
    service::TicketService,
};
use crate::{
    audit::SliceOutcome,
    connector::rows::{TicketRow, TicketStatus},
    domain::{Denial, ErrorCode, Permission, Reason, TenantId},
    portal::{
        Call, Portal, Prepared, Problem, Question, Reply,
        body::{Fields, TextRule},
        call::Granted,
        partial::Status,
        query::Params,
        sources::{Comment, Site, SourceError, TicketChange, WriteError},
        standing::{Leave, Standing},
    },
};

const COMMENT: &str = "partner.support.tickets.comment";
/// Characters of a comment, and of an id.
const MAX_COMMENT: usize = 50_000;
const MAX_ID: usize = 255;
/// Tenants asked at once for a ticket whose tenant is not named.
const LOOKUPS_AT_ONCE: usize = 16;

const STATUSES: &[(&str, TicketStatus)] = &[
    ("open", TicketStatus::Open),
    ("pending", TicketStatus::Pending),
    ("resolved", TicketStatus::Resolved),
    ("closed", TicketStatus::Closed),
];

/// What is to be changed.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) ticket_id: String,
    pub(super) change: TicketChange,
    pub(super) comment: Option<Comment>,
}

impl Wanted {
    /// What is asked before anything of this is sent.
    fn leave(&self, standing: &Arc<dyn Standing>) -> Leave {
        let also = self.comment.as_ref().and_then(|_| Permission::parse(COMMENT));
        Leave { standing: Arc::clone(standing), also }
    }
}

struct Update {
    wanted: Wanted,
    key: Option<String>,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    Params::new(question.query).finish()?;
    let key = once::key(question.headers)?;
    let wanted = read(question.param.unwrap_or_default(), question.body)?;
    Ok(Box::new(Update { wanted, key }))
}

pub(super) fn read(ticket_id: &str, body: &[u8]) -> Result<Wanted, Problem> {
    let mut fields = Fields::read(body)?;
    let change = TicketChange {
        status: fields.word("status", STATUSES),
        priority: fields.word("priority", PRIORITIES),
        assigned_to: fields.text("assigned_to", TextRule::line(MAX_ID)),
    };
    let comment = fields.object("comment").map(|mut inner| {
        let content = inner.required_text("content", TextRule::lines(MAX_COMMENT));
        let comment = Comment {
            content: content.unwrap_or_default(),
            is_internal: inner.flag("is_internal").unwrap_or_default(),
            notify_customer: inner.flag("notify_customer"),
        };
        fields.close(inner);
        comment
    });
    fields.finish()?;
    if change == TicketChange::default() && comment.is_none() {
        return Err(Problem::new(
            ErrorCode::ValidationError,
            "nothing is to be changed: send status, priority, assigned_to or comment",
        ));
    }
    // What no service has an id of is told like what none has.
    if ticket_id.is_empty() || ticket_id.chars().count() > MAX_ID || ticket_id.chars().any(char::is_control) {
        return Err(Problem::new(ErrorCode::TicketNotFound, ""));
    }
    Ok(Wanted { ticket_id: ticket_id.to_owned(), change, comment })
}

impl Prepared for Update {
    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let asked = self.key.as_deref().map(|key| Asked::new(key, &call)).transpose()?;
            let named = call.active.is_some();
            let granted: Vec<Granted> = call.granted().cloned().collect();
            let comments = self.wanted.comment.is_some();
            if comments && granted.iter().all(|slice| !slice.also(COMMENT)) && !granted.is_empty() {
                return Err(no_comment());
            }
            let seen = granted.clone();
            let may_see = move |tenant: &str| {
                seen.iter().any(|slice| slice.tenant().as_str() == tenant && (!comments || slice.also(COMMENT)))
            };
            let (keys, wanted, standing) = (portal.keys.clone(), self.wanted, call.standing);
            let leave = wanted.leave(&standing);
            once(keys, asked, leave, may_see, move || async move {
                update(&*portal.sources, granted, named, &wanted, &standing).await
            })
            .await
        }
        .boxed()
    }
}

fn no_comment() -> Problem {
    let denial = Denial::new(ErrorCode::Forbidden, Reason::Permission);
    Problem { message: "comments are not allowed in this tenant".into(), ..Problem::from(denial) }
}

/// Finds the ticket, in the named tenant or in any, changes, comments.
pub(super) async fn update(
    service: &impl TicketService,
    granted: Vec<Granted>,
    named: bool,
    wanted: &Wanted,
    standing: &Arc<dyn Standing>,
) -> Outcome {
    let until = Instant::now() + DEADLINE;
    let tenants: Vec<TenantId> = granted.iter().map(|slice| slice.tenant().clone()).collect();
    let found = look_up(service, granted, named, &wanted.ticket_id, until, standing).await;
    let (slice, found, mut slices) = match found {
        Ok(found) => found,
        Err(problem) => {
            // That there is no such ticket is told only to whom it may still be told.
            let told = if problem.overturns { Ok(()) } else { standing.ask(tenants, None).await };
            return Outcome::NotDone(match told {
                Ok(()) => problem,
                Err(refused) => of_many(refused, named).with_slices(problem.slices),
            });
        }
    };
    if wanted.comment.is_some() && !slice.also(COMMENT) {
        return Outcome::NotDone(no_comment().with_slices(slices));
    }
    slices.retain(|outcome| outcome.managed_tenant_id != slice.tenant().as_str());
    let site = Site::from(&slice).asking(wanted.leave(standing));
    change(service, &site, found, wanted, until, slices).await
}

/// The refusal of one tenant of several says nothing of the ticket: with what is left the question is another one.
fn of_many(refused: Problem, named: bool) -> Problem {
    let of_the_whole = refused.denial.is_some_and(|denial| denial.reason == Some(Reason::AccessSuspended));
    if named || of_the_whole || refused.denial.is_none() {
        return refused;
    }
    let overturns = refused.overturns;
    let message = "access rights changed while this was answered; ask again";
    Problem { detail: "links_changed", overturns, ..Problem::new(ErrorCode::LinksStale, message) }
}

type Found = (Granted, TicketRow, Vec<SliceOutcome>);

/// Asks every granted tenant for the ticket.
async fn look_up(
    service: &impl TicketService,
    granted: Vec<Granted>,
    named: bool,
    id: &str,
    until: Instant,
    standing: &Arc<dyn Standing>,
) -> Result<Found, Problem> {
    let leave = Leave { standing: Arc::clone(standing), also: None };
    let answers: Vec<(Granted, Result<Option<TicketRow>, SourceError>)> = stream::iter(granted)
        .map(|slice| {
            let site = Site::from(&slice).asking(leave.clone());
            async move {
                let answer = service.ticket(&site, id, until).await;
                (slice, answer)
            }
        })
        .buffer_unordered(LOOKUPS_AT_ONCE)
        .collect()
        .await;
    let mut slices = Vec::with_capacity(answers.len());
    let mut found = Vec::new();
    let mut failed = Vec::new();
    let mut barred = None;
    for (slice, answer) in answers {
        let status = match &answer {
            Ok(_) => Status::Ok,
            Err(error) => {
                tracing::warn!(tenant = %slice.tenant(), %error, "a ticket cannot be looked up");
                Status::from(error)
            }
        };
        slices.push(outcome(slice.tenant(), status.as_str()));
        match answer {
            Ok(Some(row)) => found.push((slice, row)),
            Ok(None) => {}
            Err(SourceError::Barred(problem)) => barred = Some(*problem),
            Err(error) => failed.push(error),
        }
    }
    if let Some(refused) = barred {
        return Err(of_many(refused, named).with_slices(slices));
    }
    let problem = match (found.len(), failed.len()) {
        (1, _) => None,
        (0, 0) => Some(Problem::new(ErrorCode::TicketNotFound, "")),
        (0, _) if named => Some(Problem::new(ErrorCode::UpstreamUnavailable, cannot_be_seen(&failed))),
        (0, failed) => Some(Problem::new(
            ErrorCode::UpstreamUnavailable,
            format!(
                "the ticket was not found, and {failed} of your tenants cannot be asked now: \
                 name the tenant in X-Active-Tenant-Id, or try again later"
            ),
        )),
        _ => Some(Problem::new(
            ErrorCode::TenantContextRequired,
            "more than one of your tenants has a ticket of this id: name the tenant in X-Active-Tenant-Id",
        )),
    };
    match (problem, found.pop()) {
        (None, Some((slice, row))) => Ok((slice, row, slices)),
        (Some(problem), _) => Err(problem.with_slices(slices)),
        (None, None) => Err(Problem::new(ErrorCode::TicketNotFound, "").with_slices(slices)),
    }
}

fn cannot_be_seen(failed: &[SourceError]) -> String {
    match failed {
        [SourceError::NoConnector(kind), ..] => {
            format!("nothing was changed: no connector is configured for {kind} of this tenant")
        }
        _ => "nothing was changed: the ticket cannot be looked up now; try again later".to_owned(),
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UpdatedTicket")]
pub(in crate::portal) struct Answer<'a> {
    ticket_id: &'a str,
    ticket_number: Option<&'a str>,
    status: TicketStatus,
    updated_at: Option<Timestamp>,
    comment_id: Option<&'a str>,
}

async fn change(
    service: &impl TicketService,
    site: &Site,
    found: TicketRow,
    wanted: &Wanted,
    until: Instant,
    mut slices: Vec<SliceOutcome>,
) -> Outcome {
    let tenant = site.tenant();
    let id = &wanted.ticket_id;
    let mut told = |status| {
        slices.push(outcome(tenant, status));
        std::mem::take(&mut slices)
    };
    let changes = wanted.change != TicketChange::default();
    let row = if changes {
        match service.update_ticket(site, id, &wanted.change, until).await {
            Ok(row) => row,
            Err(WriteError::NotFound) => {
                return Outcome::NotDone(Problem::new(ErrorCode::TicketNotFound, "").with_slices(told("ok")));
            }
            Err(WriteError::NotSent(SourceError::Barred(refused))) => {
                return Outcome::NotDone(refused.with_slices(told(Status::Forbidden.as_str())));
            }
            Err(error) => {
                tracing::warn!(%tenant, %error, "a ticket was not changed, or nobody knows");
                let unsaid = if wanted.comment.is_some() { "; the comment was not sent" } else { "" };
                let mut problem = problem(&error, "the ticket was not changed", "whether the ticket was changed");
                problem.message = format!("{}{unsaid}", problem.message).into();
                let problem = problem.with_slices(told("error"));
                return if may_be_done(&error) { Outcome::Unknown(problem) } else { Outcome::NotDone(problem) };
            }
        }
    } else {
        found
    };
    let stored = match &wanted.comment {
        None => None,
        Some(comment) => match service.comment(site, id, comment, until).await {
            Ok(stored) => Some(stored),
            Err(WriteError::NotSent(SourceError::Barred(refused))) if changes => {
                tracing::info!(%tenant, "access ended between the change of a ticket and its comment");
                return half_done(*refused, tenant.as_str(), told(ACTED));
            }
            Err(WriteError::NotSent(SourceError::Barred(refused))) => {
                return Outcome::NotDone(refused.with_slices(told(Status::Forbidden.as_str())));
            }
            Err(error) => {
                tracing::warn!(%tenant, %error, changes, "a comment was not stored, or nobody knows");
                let slices = told("error");
                return comment_failed(&error, changes, tenant.as_str(), slices);
            }
        },
    };
    let answer = Answer {
        ticket_id: &row.ticket_id,
        ticket_number: row.ticket_number.as_deref(),
        status: row.status,
        updated_at: row.updated_at.max(stored.as_ref().and_then(|stored| stored.updated_at)),
        comment_id: stored.as_ref().and_then(|stored| stored.comment_id.as_deref()),
    };
    Outcome::done(200, &answer, tenant.as_str(), told(ACTED))
}

/// The change was made while it was allowed, and the comment is refused: the refusal is the answer, and says so. It does
/// not overturn the decision to allow, by which the ticket was changed.
fn half_done(refused: Problem, tenant: &str, slices: Vec<SliceOutcome>) -> Outcome {
    let message = "the ticket was changed, but not all was done: the comment was not sent, for it may not be sent now";
    let problem = Problem { message: message.into(), overturns: false, ..refused };
    Outcome::Partly { problem: problem.with_slices(slices), tenant: tenant.to_owned() }
}

/// The comment failed. Where the change before it was made, the client must hear of both.
fn comment_failed(error: &WriteError, changed: bool, tenant: &str, slices: Vec<SliceOutcome>) -> Outcome {
    let problem = problem(error, "the comment was not stored", "whether the comment was stored");
    if !changed {
        let problem = match error {
            WriteError::NotFound => Problem::new(ErrorCode::TicketNotFound, ""),
            _ => problem,
        };
        let problem = problem.with_slices(slices);
        return if may_be_done(error) { Outcome::Unknown(problem) } else { Outcome::NotDone(problem) };
    }
    let message = format!("the ticket was changed, but not all was done: {}", problem.message);
    Outcome::Partly {
        problem: Problem::new(ErrorCode::UpstreamError, message).with_slices(slices),
        tenant: tenant.to_owned(),
    }
}
