//! The act of a consolidated request: the portal's work on the service runtime, and what becomes of it.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    again::{Again, Question},
    refusal::failure,
};
use crate::{
    audit::Decision,
    config::settings::RouteClass,
    domain::{ErrorCode, TenantId},
    portal::{Call, Portal, Prepared, Problem, Reply, ReplyBody},
    proxy::{
        account::Ledger,
        body::{Cut, OwnedBody, ResponseBody},
        respond::Failure,
        streams::{Stream, Watched},
        trail::Trail,
    },
};

/// Everything for the act itself.
pub(super) struct Acting {
    pub(super) portal: Arc<Portal>,
    /// How the same is decided anew, and the work's own wish for it.
    pub(super) again: Again,
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) call: Call,
    pub(super) prepared: Box<dyn Prepared>,
    pub(super) ledger: Box<Ledger>,
}

type Answered = Result<Reply, Problem>;

/// The work on the service runtime.
struct Work {
    task: JoinHandle<Answered>,
    again: Again,
    questions: mpsc::Receiver<Question>,
    ledger: Box<Ledger>,
}

impl Work {
    /// Waits for its end, and answers what it asks meanwhile.
    async fn outcome(&mut self) -> Answered {
        let Self { task, again, questions, .. } = self;
        loop {
            tokio::select! {
                answered = &mut *task => {
                    return answered.unwrap_or_else(|error| {
                        tracing::error!(%error, "a consolidated request ended by a panic");
                        Err(Problem::new(ErrorCode::InternalError, ""))
                    });
                }
                Some(question) = questions.recv() => question.answered(again).await,
            }
        }
    }
}

/// The work and its record. A client that leaves ends what is only read; what is written goes on, as far as it is allowed,
/// and the record tells how it ended.
struct UnderWay(Option<Box<Work>>);

impl UnderWay {
    /// What came of it. To be asked once.
    async fn ended(mut self) -> Option<(Answered, Box<Work>)> {
        let answered = self.0.as_mut()?.outcome().await;
        self.0.take().map(|work| (answered, work))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(mut work) = self.0.take() else { return };
        if work.again.spec.class != RouteClass::Write {
            work.task.abort();
            return;
        }
        tokio::task::spawn_local(async move {
            let answered = work.outcome().await;
            let mut ledger = work.ledger;
            match answered {
                Ok(reply) => {
                    ledger.status = StatusCode::from_u16(reply.status).ok();
                    ledger.slices = reply.slices;
                }
                // What was not done after all says why, whoever heard it.
                Err(problem) if problem.overturns => refuse(ledger, &problem),
                Err(problem) => {
                    ledger.status = StatusCode::from_u16(problem.code.status()).ok();
                    ledger.slices = problem.slices;
                }
            }
            // Nobody heard the answer: it is completed as aborted.
        });
    }
}

/// Completes the record of what was allowed and then refused.
fn refuse(mut ledger: Box<Ledger>, problem: &Problem) {
    ledger.slices = problem.slices.clone();
    ledger.overturned = problem.overturns.then_some(Decision::Deny);
    ledger.fail(&failure(problem));
}

pub(super) async fn act(trail: &Trail, acting: Acting) -> Result<Response<ResponseBody>, Failure> {
    let Acting { portal, again, questions, call, prepared, mut ledger } = acting;
    // The record may have waited for its disk: asked once more before the act, as a forwarded request is.
    if let Err(failure) = again.all().await {
        ledger.overturned = Some(Decision::Deny);
        ledger.fail(&failure);
        return Err(failure);
    }
    // Sockets and database connections belong to the service runtime.
    let task = again.worker.gateway.service.spawn(prepared.answer(portal, call));
    let ended = UnderWay(Some(Box::new(Work { task, again, questions, ledger }))).ended().await;
    let (answered, work) = ended.ok_or_else(|| Failure::new(ErrorCode::InternalError, "ledger"))?;
    let Work { again, mut ledger, .. } = *work;
    // What was written is done; what was read is not shown to whom it was taken from meanwhile, be it that there is nothing.
    if again.spec.class != RouteClass::Write
        && let Err(failure) = again.all().await
    {
        let (Ok(Reply { slices, .. }) | Err(Problem { slices, .. })) = answered;
        ledger.slices = slices;
        ledger.overturned = Some(Decision::Deny);
        ledger.fail(&failure);
        return Err(failure);
    }
    match answered {
        Ok(reply) => Ok(respond(&again, trail, reply, ledger)),
        Err(problem) => {
            refuse(ledger, &problem);
            Err(failure(&problem))
        }
    }
}

fn respond(again: &Again, trail: &Trail, mut reply: Reply, mut ledger: Box<Ledger>) -> Response<ResponseBody> {
    let (worker, spec, session) = (&again.worker, again.spec, &again.session);
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
