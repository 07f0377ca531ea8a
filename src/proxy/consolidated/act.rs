//! The act of a consolidated request: the portal's work on the service runtime, and what becomes of it.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use tokio::task::JoinHandle;

use super::{
    judge::Judge,
    refusal::{Told, failure, stale},
};
use crate::{
    audit::Decision,
    config::settings::RouteClass,
    domain::{ErrorCode, Gate, LinkFacts, Millis, TenantId},
    portal::{Audience, Call, Portal, Prepared, Problem, Reply, ReplyBody, Spec},
    proxy::{
        account::Ledger,
        body::{Cut, OwnedBody, ResponseBody},
        respond::Failure,
        session::{Session, Unresolved},
        streams::{Stream, Watched},
        trail::Trail,
        worker::Worker,
    },
};

/// Everything for the act itself.
pub(super) struct Acting {
    pub(super) portal: Arc<Portal>,
    pub(super) spec: &'static Spec,
    pub(super) session: Rc<Session>,
    pub(super) call: Call,
    pub(super) prepared: Box<dyn Prepared>,
    pub(super) ledger: Box<Ledger>,
}

type Answered = Result<Reply, Problem>;

/// The work on the service runtime, and its record. A client that leaves ends what is only read; what is written goes on, and
/// the record tells how it ended.
struct UnderWay {
    work: Option<(JoinHandle<Answered>, Box<Ledger>)>,
    writes: bool,
}

impl UnderWay {
    fn new(task: JoinHandle<Answered>, ledger: Box<Ledger>, spec: &Spec) -> Self {
        Self { work: Some((task, ledger)), writes: spec.class == RouteClass::Write }
    }

    /// What came of it. To be asked once.
    async fn ended(mut self) -> (Answered, Option<Box<Ledger>>) {
        let answered = match &mut self.work {
            Some((task, _)) => outcome(task).await,
            None => Err(Problem::new(ErrorCode::InternalError, "")),
        };
        (answered, self.work.take().map(|(_, ledger)| ledger))
    }
}

async fn outcome(task: &mut JoinHandle<Answered>) -> Answered {
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a consolidated request ended by a panic");
        Err(Problem::new(ErrorCode::InternalError, ""))
    })
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some((mut task, mut ledger)) = self.work.take() else { return };
        if !self.writes {
            task.abort();
            return;
        }
        tokio::task::spawn_local(async move {
            match outcome(&mut task).await {
                Ok(reply) => {
                    ledger.status = StatusCode::from_u16(reply.status).ok();
                    ledger.slices = reply.slices;
                }
                Err(problem) => {
                    ledger.status = StatusCode::from_u16(problem.code.status()).ok();
                    ledger.slices = problem.slices;
                }
            }
            // Nobody heard the answer: it is completed as aborted.
            drop(ledger);
        });
    }
}

pub(super) async fn act(worker: &Rc<Worker>, trail: &Trail, acting: Acting) -> Result<Response<ResponseBody>, Failure> {
    let Acting { portal, spec, session, call, prepared, mut ledger } = acting;
    let granted: Vec<Arc<LinkFacts>> = call.granted().map(|slice| Arc::clone(slice.link())).collect();
    // The record may have waited for its disk: asked once more before the act, as a forwarded request is.
    if let Err(failure) = still_granted(worker, trail, spec, &session, &granted).await {
        ledger.overturned = Some(Decision::Deny);
        ledger.fail(&failure);
        return Err(failure);
    }
    // Sockets and database connections belong to the service runtime.
    let task = worker.gateway.service.spawn(prepared.answer(portal, call));
    let (answered, ledger) = UnderWay::new(task, ledger, spec).ended().await;
    let mut ledger = ledger.ok_or_else(|| Failure::new(ErrorCode::InternalError, "ledger"))?;
    let answered = match answered {
        // What was written is done; what was read is not shown to whom it was taken from meanwhile.
        Ok(reply) if spec.class != RouteClass::Write => {
            still_granted(worker, trail, spec, &session, &granted).await.map(|()| reply)
        }
        Ok(reply) => Ok(reply),
        Err(problem) => {
            ledger.slices = problem.slices.clone();
            Err(failure(&problem))
        }
    };
    match answered {
        Ok(reply) => Ok(respond(worker, trail, spec, &session, reply, ledger)),
        Err(failure) => {
            if failure.code.status() == 403 {
                ledger.overturned = Some(Decision::Deny);
            }
            ledger.fail(&failure);
            Err(failure)
        }
    }
}

/// Asks once more about what is to be done or was fetched: windows by the clock, the rest where anything changed since.
async fn still_granted(
    worker: &Rc<Worker>,
    trail: &Trail,
    spec: &'static Spec,
    session: &Rc<Session>,
    granted: &[Arc<LinkFacts>],
) -> Result<(), Failure> {
    if worker.is_suspended(&session.caller) {
        return Err(Gate::Suspension.denial());
    }
    // At home no link is asked for, and stale links stop nobody.
    if spec.audience == Audience::TenantAdmin {
        return Ok(());
    }
    let fresh = worker.refreshed(session).await.map_err(|Unresolved| stale())?;
    if !worker.gateway.directory.is_fresh() {
        return Err(stale());
    }
    // Windows are judged by the clock of now, not by that of the request: they end without any change.
    let now = Millis::now();
    if let Some(gate) = granted.iter().find_map(|link| link.closed_gate(now)) {
        return Err(gate.denial());
    }
    if Rc::ptr_eq(&fresh, session) {
        return Ok(());
    }
    let changed = || {
        Failure::new(ErrorCode::LinksStale, "links_changed")
            .saying("access rights changed while this was answered; ask again")
    };
    if fresh.suspended {
        return Err(Gate::Suspension.denial());
    }
    let partner = fresh.partner().ok_or_else(changed)?;
    let judge = Judge::new(worker, trail, &fresh, partner, spec);
    for was in granted {
        let link = partner.portfolio.link(was.link.tenant_id.as_str()).ok_or_else(changed)?;
        if link.closed_gate(now).is_some() {
            return Err(changed());
        }
        if let Some(permission) = spec.permission()
            // A tenant that the header names is acted in: `switch_context` is needed there too.
            && judge.ask(link, permission, trail.cross)?.is_err()
        {
            return Err(changed());
        }
    }
    Ok(())
}

fn respond(
    worker: &Rc<Worker>,
    trail: &Trail,
    spec: &'static Spec,
    session: &Rc<Session>,
    mut reply: Reply,
    mut ledger: Box<Ledger>,
) -> Response<ResponseBody> {
    let tenants = reply.slices.iter().filter_map(|slice| TenantId::new(&slice.managed_tenant_id).ok()).collect();
    ledger.slices = reply.slices;
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    ledger.status = Some(status);
    let length = match &reply.body {
        ReplyBody::Bytes(bytes) => Some(bytes.len() as u64),
        ReplyBody::Stream { length, .. } => *length,
    };
    if trail.method == Method::HEAD {
        // The length that GET would have; the body is not sent, and that is no broken answer.
        reply.body = ReplyBody::Bytes(Bytes::new());
        if let Some(length) = length {
            reply.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    let body = match reply.body {
        ReplyBody::Bytes(bytes) => OwnedBody::bytes(bytes, ledger),
        ReplyBody::Stream { length, chunks } => {
            // From here to its last byte: what would be refused now cuts it (contract, section 5).
            let cut = Rc::new(Cut::default());
            let stream = Stream::Consolidated { tenants, spec, session: RefCell::new(Rc::clone(session)) };
            let watched = Watched::new(Rc::clone(&cut), stream, trail.client_ip, trail.method.clone(), &trail.peer);
            ledger.registration = Some(worker.streams.register(Rc::new(watched)));
            OwnedBody::stream(length, chunks, cut, ledger)
        }
    };
    let mut response = Response::new(ResponseBody::Owned(Box::new(body)));
    *response.status_mut() = status;
    *response.headers_mut() = reply.headers;
    response
}
