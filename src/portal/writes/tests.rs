//! Writes over scripted services: looking a ticket up, and honest answers where an outcome is unknown.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

use super::{create, once::Outcome, service::TicketService, update};
use crate::{
    connector::rows::{TicketRow, TicketStatus},
    domain::{Denial, ErrorCode, Gate, Permission, PermissionSet},
    portal::{
        Problem, Standing,
        call::Granted,
        scripted::{Asked, decided, full_link},
        sources::{Comment, NewTicket, Site, SourceError, StoredComment, TicketChange, WriteError},
        standing::Leave,
    },
};

/// Tenants with their ticket `x`, or what asking them ends in; and how writes end.
#[derive(Default)]
struct Scripted {
    holds: HashMap<&'static str, Option<SourceError>>,
    write: Option<WriteError>,
    comment: Option<WriteError>,
    sent: Mutex<Vec<String>>,
}

fn row() -> TicketRow {
    TicketRow {
        ticket_id: "x".into(),
        ticket_number: Some("T-1".into()),
        customer_id: None,
        customer_name: None,
        subject: None,
        status: TicketStatus::Pending,
        priority: None,
        category: None,
        assigned_to: None,
        assigned_to_name: None,
        created_at: None,
        updated_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        sla_breach_at: None,
        is_sla_breached: None,
        last_response_at: None,
        response_count: None,
        resolution_minutes: None,
    }
}

impl Scripted {
    /// As the client of services does it: nothing goes out without leave.
    async fn sends<T>(&self, what: &str, site: &Site, fails: &Option<WriteError>, value: T) -> Result<T, WriteError> {
        site.still_open().await.map_err(WriteError::NotSent)?;
        self.sent.lock().unwrap().push(format!("{what} {}", site.tenant()));
        fails.clone().map_or(Ok(value), Err)
    }
}

impl TicketService for Scripted {
    async fn ticket(&self, site: &Site, _: &str, _: Instant) -> Result<Option<TicketRow>, SourceError> {
        site.still_open().await?;
        match self.holds.get(site.tenant().as_str()) {
            None => Ok(None),
            Some(None) => Ok(Some(row())),
            Some(Some(error)) => Err(error.clone()),
        }
    }

    async fn create_ticket(&self, site: &Site, _: &NewTicket, _: Instant) -> Result<TicketRow, WriteError> {
        self.sends("create", site, &self.write, row()).await
    }

    async fn update_ticket(&self, site: &Site, _: &str, _: &TicketChange, _: Instant) -> Result<TicketRow, WriteError> {
        self.sends("update", site, &self.write, row()).await
    }

    async fn comment(&self, site: &Site, _: &str, _: &Comment, _: Instant) -> Result<StoredComment, WriteError> {
        let stored =
            StoredComment { comment_id: Some("c".into()), updated_at: Some("2026-01-02T00:00:00Z".parse().unwrap()) };
        self.sends("comment", site, &self.comment, stored).await
    }
}

fn granted(tenant: &str, may_comment: bool) -> Granted {
    const COMMENT: &str = "partner.support.tickets.comment";
    let mut link = full_link(tenant);
    if !may_comment {
        link.link.denied = PermissionSet::of(Permission::parse(COMMENT).unwrap());
    }
    decided(link, "partner.support.tickets.update", &[COMMENT])
}

fn leave(standing: Arc<Asked>) -> Leave {
    Leave { standing, also: None }
}

const BOTH: &str = r#"{"status":"pending","comment":{"content":"hi"}}"#;

async fn patch(service: &Scripted, named: bool, body: &str) -> Outcome {
    patch_asking(service, named, body, Asked::with([])).await
}

async fn patch_asking(service: &Scripted, named: bool, body: &str, standing: Arc<Asked>) -> Outcome {
    let standing: Arc<dyn Standing> = standing;
    let wanted = update::read("x", body.as_bytes()).unwrap();
    let slices = if named {
        vec![granted("a", true)]
    } else {
        vec![granted("a", true), granted("b", true), granted("c", false)]
    };
    update::update(service, slices, named, &wanted, &standing).await
}

/// The code, and whether the key may be used again (`free`), is kept or unknown.
fn told(outcome: Outcome) -> (ErrorCode, &'static str, String) {
    match outcome {
        Outcome::Done { body, .. } => panic!("done: {body}"),
        Outcome::Partly { problem, .. } => (problem.code, "kept", problem.message.into_owned()),
        Outcome::NotDone(problem) => (problem.code, "free", problem.message.into_owned()),
        Outcome::Unknown(problem) => (problem.code, "unknown", problem.message.into_owned()),
    }
}

#[tokio::test]
async fn a_ticket_is_looked_up_in_every_tenant() {
    let found = |holds: &[(&'static str, Option<SourceError>)]| Scripted {
        holds: holds.iter().cloned().collect(),
        ..Scripted::default()
    };
    let service = found(&[("b", None), ("a", Some(SourceError::Timeout))]);
    let Outcome::Done { body, tenant, slices, .. } = patch(&service, false, BOTH).await else { panic!() };
    assert_eq!(
        body,
        r#"{"ticket_id":"x","ticket_number":"T-1","status":"pending","updated_at":"2026-01-02T00:00:00Z","comment_id":"c"}"#
    );
    assert_eq!((tenant.as_str(), service.sent.lock().unwrap().join(", ")), ("b", "update b, comment b".to_owned()));
    let acted: Vec<_> = slices.iter().filter(|slice| slice.status == super::ACTED).collect();
    assert_eq!((acted.len(), acted[0].managed_tenant_id.as_str(), slices.len()), (1, "b", 3));
    let twice = found(&[("a", None), ("b", None)]);
    assert_eq!(told(patch(&twice, false, BOTH).await).0, ErrorCode::TenantContextRequired);
    let away = found(&[("a", Some(SourceError::Timeout))]);
    assert_eq!(told(patch(&away, false, BOTH).await).0, ErrorCode::UpstreamUnavailable);
    assert_eq!(told(patch(&found(&[]), false, BOTH).await).0, ErrorCode::TicketNotFound);
    let mute = found(&[("c", None)]);
    assert_eq!(told(patch(&mute, false, BOTH).await).0, ErrorCode::Forbidden);
    for service in [twice, away, mute] {
        assert!(service.sent.lock().unwrap().is_empty(), "nothing was sent");
    }
}

/// Not even where the tenant is named: a path that is no ticket's may be anything.
#[tokio::test]
async fn nothing_is_written_where_no_ticket_was_seen() {
    let away = |error: SourceError| [("a", Some(error))].into_iter().collect();
    for (holds, code, words) in [
        (HashMap::new(), ErrorCode::TicketNotFound, ""),
        (away(SourceError::Timeout), ErrorCode::UpstreamUnavailable, "try again later"),
        (
            away(SourceError::NoConnector("ticket")),
            ErrorCode::UpstreamUnavailable,
            "no connector is configured for ticket",
        ),
    ] {
        let service = Scripted { holds, ..Scripted::default() };
        for body in [BOTH, r#"{"status":"pending"}"#, r#"{"comment":{"content":"hi"}}"#] {
            let (found, key, message) = told(patch(&service, true, body).await);
            assert_eq!((found, key), (code, "free"), "{body}");
            assert!(message.contains(words), "{message}");
        }
        assert!(service.sent.lock().unwrap().is_empty(), "{:?}", service.sent);
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_said_and_not_sent_again() {
    let with = |write: Option<WriteError>, comment: Option<WriteError>| {
        let holds = [("a", None)].into_iter().collect();
        Scripted { holds, write, comment, ..Scripted::default() }
    };
    for (error, code, key) in [
        (WriteError::NotFound, ErrorCode::TicketNotFound, "free"),
        (WriteError::Refused(422), ErrorCode::ValidationError, "free"),
        (WriteError::Refused(409), ErrorCode::Conflict, "free"),
        (WriteError::Refused(500), ErrorCode::UpstreamError, "unknown"),
        (WriteError::NotSent(SourceError::Timeout), ErrorCode::UpstreamUnavailable, "free"),
        (WriteError::Unknown(SourceError::Timeout), ErrorCode::UpstreamTimeout, "unknown"),
        (WriteError::Unknown(SourceError::Answer("x".into())), ErrorCode::UpstreamError, "unknown"),
    ] {
        let service = with(Some(error.clone()), None);
        let (found, kept, message) = told(patch(&service, true, BOTH).await);
        assert_eq!((found, kept), (code, key), "{error:?}");
        assert_eq!(service.sent.lock().unwrap().len(), 1, "once, and no comment behind it");
        assert!(
            key == "free" || message.contains("is not known") && message.ends_with("the comment was not sent"),
            "{message}"
        );
    }
    let half = with(None, Some(WriteError::NotSent(SourceError::Timeout)));
    let (code, kept, message) = told(patch(&half, true, BOTH).await);
    assert_eq!((code, kept), (ErrorCode::UpstreamError, "kept"));
    assert!(
        message.starts_with("the ticket was changed, but not all was done: the comment was not stored"),
        "{message}"
    );
    let service = with(Some(WriteError::Unknown(SourceError::Timeout)), None);
    let ticket = create::read(br#"{"subject":"s","description":"d"}"#).unwrap();
    let (code, kept, _) =
        told(create::create(&service, &granted("a", true), &ticket, "P", leave(Asked::with([]))).await.0);
    assert_eq!((code, kept), (ErrorCode::UpstreamTimeout, "unknown"));
}

fn closed(gate: Gate) -> Result<(), Problem> {
    Err(Problem::from(Denial::from(gate)))
}

/// The look-up, the change and the comment are each asked for right before they are sent.
#[tokio::test]
async fn nothing_is_sent_without_asking_again() {
    const COMMENT: &str = "partner.support.tickets.comment";
    let here = || Scripted { holds: [("a", None)].into_iter().collect(), ..Scripted::default() };
    let asked = Asked::with([]);
    let Outcome::Done { .. } = patch_asking(&here(), true, BOTH, Arc::clone(&asked)).await else { panic!() };
    let both = format!("a {COMMENT}");
    assert_eq!(*asked.heard.lock().unwrap(), ["a", &*both, &*both]);
    // Revoked before the look-up, and during it.
    for (allowed, body) in [(0, BOTH), (1, BOTH), (1, r#"{"comment":{"content":"hi"}}"#)] {
        let service = here();
        let answers = std::iter::repeat_n(Ok(()), allowed).chain([closed(Gate::Active)]);
        let Outcome::NotDone(problem) = patch_asking(&service, true, body, Asked::with(answers)).await else {
            panic!("{allowed}: {body}")
        };
        assert_eq!((problem.denial, problem.overturns), (Some(Gate::Active.into()), true), "{allowed}");
        assert_eq!(problem.slices[0].status, "forbidden");
        assert!(service.sent.lock().unwrap().is_empty(), "{allowed}: {body}");
    }
    let service = Scripted::default();
    let ticket = create::read(br#"{"subject":"s","description":"d"}"#).unwrap();
    let refused = leave(Asked::with([closed(Gate::Suspension)]));
    let (outcome, row) = create::create(&service, &granted("a", true), &ticket, "P", refused).await;
    assert_eq!((told(outcome).1, row.is_none()), ("free", true));
    assert!(service.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_comment_that_is_refused_behind_a_change_hides_neither() {
    let service = Scripted { holds: [("a", None)].into_iter().collect(), ..Scripted::default() };
    let asked = Asked::with([Ok(()), Ok(()), closed(Gate::Override)]);
    let Outcome::Partly { problem, tenant } = patch_asking(&service, true, BOTH, asked).await else { panic!() };
    assert_eq!((problem.denial, &*tenant), (Some(Gate::Override.into()), "a"));
    assert!(problem.message.starts_with("the ticket was changed"), "{}", problem.message);
    assert!(!problem.overturns, "the change was allowed, and made");
    assert_eq!(problem.slices[0].status, super::ACTED);
    assert_eq!(*service.sent.lock().unwrap(), ["update a"]);
}

/// Where several tenants were asked, what one of them says now is no word on the ticket.
#[tokio::test]
async fn that_there_is_no_ticket_is_told_to_whom_it_may_still_be_told() {
    for (named, gate, code) in [
        (true, Gate::Active, ErrorCode::TenantAccessDenied),
        (false, Gate::Active, ErrorCode::LinksStale),
        (false, Gate::Suspension, ErrorCode::TenantAccessDenied),
    ] {
        let tenants = if named { 1 } else { 3 };
        let answers = std::iter::repeat_n(Ok(()), tenants).chain([closed(gate)]);
        let found = told(patch_asking(&Scripted::default(), named, BOTH, Asked::with(answers)).await);
        assert_eq!((found.0, found.1), (code, "free"), "{named} {gate:?}");
    }
}
