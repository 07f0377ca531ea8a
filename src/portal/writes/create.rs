//! `POST /support/tickets`: a ticket opened in the tenant that the header names.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
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
    connector::rows::{Priority, TicketRow, TicketStatus},
    domain::ErrorCode,
    portal::{
        Call, Portal, Prepared, Problem, Question, Reply,
        body::{Fields, TextRule},
        call::Granted,
        events,
        query::Params,
        sources::{NewTicket, Site},
        standing::Leave,
    },
};

/// Characters of a description, of the other texts, and entries of `tags`.
const MAX_DESCRIPTION: usize = 50_000;
const MAX_TEXT: usize = 255;
const MAX_TAGS: usize = 50;
const MAX_TAG: usize = 64;

struct Create {
    ticket: NewTicket,
    key: Option<String>,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    Params::new(question.query).finish()?;
    let key = once::key(question.headers)?;
    Ok(Box::new(Create { ticket: read(question.body)?, key }))
}

/// Everything but who asks.
pub(super) fn read(body: &[u8]) -> Result<NewTicket, Problem> {
    let mut fields = Fields::read(body)?;
    let subject = fields.required_text("subject", TextRule::line(MAX_TEXT));
    let description = fields.required_text("description", TextRule::lines(MAX_DESCRIPTION));
    let ticket = NewTicket {
        subject: subject.unwrap_or_default(),
        description: description.unwrap_or_default(),
        priority: fields.word("priority", PRIORITIES).unwrap_or(Priority::Normal),
        category: fields.text("category", TextRule::line(MAX_TEXT)),
        customer_id: fields.text("customer_id", TextRule::line(MAX_TEXT)),
        tags: fields.texts("tags", MAX_TAGS, TextRule::line(MAX_TAG)).unwrap_or_default(),
        notify_customer: fields.flag("notify_customer"),
        partner_id: String::new(),
        user_id: String::new(),
    };
    fields.finish().map(|()| ticket)
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CreatedTicket")]
pub(in crate::portal) struct Answer<'a> {
    ticket_id: &'a str,
    ticket_number: Option<&'a str>,
    tenant_id: &'a str,
    status: TicketStatus,
    priority: Option<Priority>,
    created_by_partner: bool,
    created_by_partner_id: &'a str,
    created_by_partner_name: &'a str,
    created_at: Option<Timestamp>,
    sla_breach_at: Option<Timestamp>,
}

impl Prepared for Create {
    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let asking = call.partner()?;
            let granted =
                call.granted().next().cloned().ok_or_else(|| Problem::new(ErrorCode::TenantContextRequired, ""))?;
            let mut ticket = self.ticket;
            ticket.partner_id = asking.user.partner_id.to_string();
            ticket.user_id = call.asker.user_id.to_string();
            let partner_name = Arc::clone(&asking.portfolio.partner.name);
            let asked = self.key.as_deref().map(|key| Asked::new(key, &call)).transpose()?;
            let tenant = granted.tenant().as_str().to_owned();
            let keys = portal.keys.clone();
            let leave = Leave { standing: call.standing, also: None };
            once(
                keys,
                asked,
                leave.clone(),
                move |seen| seen == tenant,
                move || async move {
                    let (outcome, row) = create(&*portal.sources, &granted, &ticket, &partner_name, leave).await;
                    if let Some(row) = row {
                        events::ticket_created(&portal.database, &granted, &row, &ticket.user_id).await;
                    }
                    outcome
                },
            )
            .await
        }
        .boxed()
    }
}

pub(super) async fn create(
    service: &impl TicketService,
    granted: &Granted,
    ticket: &NewTicket,
    partner_name: &str,
    leave: Leave,
) -> (Outcome, Option<TicketRow>) {
    let tenant = granted.tenant();
    // The claim may have waited for the database, and the call may wait for a place.
    let site = Site::from(granted).asking(leave);
    match service.create_ticket(&site, ticket, Instant::now() + DEADLINE).await {
        Ok(row) => {
            let answer = Answer {
                ticket_id: &row.ticket_id,
                ticket_number: row.ticket_number.as_deref(),
                tenant_id: tenant.as_str(),
                status: row.status,
                priority: row.priority,
                created_by_partner: true,
                created_by_partner_id: &ticket.partner_id,
                created_by_partner_name: partner_name,
                created_at: row.created_at,
                sla_breach_at: row.sla_breach_at,
            };
            (Outcome::done(201, &answer, tenant.as_str(), vec![outcome(tenant, ACTED)]), Some(row))
        }
        Err(error) => {
            tracing::warn!(%tenant, %error, "a ticket was not created, or nobody knows");
            let told = problem(&error, "the ticket was not created", "whether the ticket was created")
                .with_slices(vec![outcome(tenant, "error")]);
            (if may_be_done(&error) { Outcome::Unknown(told) } else { Outcome::NotDone(told) }, None)
        }
    }
}
