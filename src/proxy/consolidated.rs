//! The consolidated API's own list of stages: who asks, each tenant's slice decided on its own, limit, question, record,
//! answer (contract, section 8). Fetching and merging is the portal's, on the service runtime.

use std::{borrow::Cow, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::{
    account::{self, Ledger},
    body::{OwnedBody, ResponseBody},
    flow::Trail,
    identify, path, quota,
    respond::Failure,
    session::{PartnerUser, Session, Unresolved, Who},
    tenant::Named,
    worker::Worker,
};
use crate::{
    audit::Decision,
    domain::{
        DecisionId, Denial, ErrorCode, Facts, Gate, LinkFacts, Millis, Permission, PermissionSet, Reason, TenantId,
    },
    policy::{self, Permit, Refusal},
    portal::{
        Asker, Audience, Call, Found, Granted, Narrow, Portal, Prepared, Problem, Question, Reply, ReplyBody, Slice,
        Spec, TenantHeader,
    },
};

/// Longest request body of this API, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long the whole of a body may take.
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// An endpoint that the path led to.
#[derive(Debug)]
pub struct Target {
    portal: Arc<Portal>,
    spec: &'static Spec,
    /// Decoded once.
    param: Option<String>,
}

/// Finds the endpoint; `None` where the path is none of this API's.
pub fn find(worker: &Worker, trail: &mut Trail, request: &Request<Incoming>) -> Result<Option<Target>, Failure> {
    let Some(portal) = &worker.gateway.portal else { return Ok(None) };
    match portal.bases.find(request.method().as_str(), request.uri().path()) {
        Found::Nothing => Ok(None),
        Found::NotFound => Err(Failure::new(ErrorCode::RouteNotFound, "route")),
        Found::MethodNotAllowed(allow) => {
            let mut failure = Failure::new(ErrorCode::MethodNotAllowed, "method");
            failure.allow = Some(allow);
            Err(failure)
        }
        Found::Endpoint { spec, index, param } => {
            let param = match param {
                Some(raw) => Some(path::decode_once(raw).map(Cow::into_owned).ok_or_else(|| {
                    Failure::new(ErrorCode::AmbiguousPath, "path").saying("ambiguous path: not UTF-8 once decoded")
                })?),
                None => None,
            };
            trail.endpoint = Some((spec, index));
            trail.resource_id = param.as_deref().map(Into::into);
            Ok(Some(Target { portal: Arc::clone(portal), spec, param }))
        }
    }
}

/// Answers a request to the consolidated API.
pub async fn serve(
    worker: &Rc<Worker>,
    trail: &mut Trail,
    request: Request<Incoming>,
    target: Target,
) -> Result<Response<ResponseBody>, Failure> {
    let (parts, body) = request.into_parts();
    let (session, _, named) = identify::bearer(worker, trail, &parts).await?;
    let decided = decide(worker, trail, &target, &session, &named)?;
    quota::consolidated(worker, trail, &target.spec.limit, decided.named.as_ref())?;
    let body = read(&parts, body).await?;
    let prepared = prepare(&target, &parts, &body, trail.now)?;
    // Reading a body takes as long as its sender likes: what was revoked meanwhile must not be acted upon.
    let (session, decided) = if body.is_empty() {
        (session, decided)
    } else {
        let session = worker.refreshed(&session).await.map_err(|Unresolved| stale())?;
        trail.now = Millis::now();
        trail.session = Some(Rc::clone(&session));
        let decided = decide(worker, trail, &target, &session, &named)?;
        (session, decided)
    };
    let slices = narrow(trail, &*prepared, decided.slices, decided.portfolio)?;
    trail.slices = slices.iter().map(recorded).collect();
    let ledger = account::begin(worker, trail).await?;
    let call = Call {
        spec: target.spec,
        param: target.param,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
        asker: decided.asker,
        slices,
        active: decided.named,
        now: trail.now,
        request_id: trail.request_id.as_str().to_owned(),
        decision_id: trail.decision_id.unwrap_or_else(DecisionId::generate),
    };
    act(worker, trail, Acting { portal: target.portal, spec: target.spec, session, call, prepared, ledger }).await
}

fn stale() -> Failure {
    Failure::new(ErrorCode::LinksStale, "links_stale")
}

/// What the gates let through.
struct Decided {
    asker: Asker,
    portfolio: Option<Arc<crate::domain::Portfolio>>,
    slices: Vec<Slice>,
    /// The tenant that the header names, where the endpoint heeds it.
    named: Option<TenantId>,
}

/// Every gate of the caller, and of each tenant's slice.
fn decide(
    worker: &Worker,
    trail: &mut Trail,
    target: &Target,
    session: &Rc<Session>,
    named: &Named,
) -> Result<Decided, Failure> {
    let spec = target.spec;
    let home = session.caller.home_tenant.as_ref();
    let heeded = match named {
        Named::Nothing => None,
        Named::Tenant(tenant) if home == Some(tenant) => None,
        Named::Tenant(tenant) => Some(Some(tenant)),
        Named::Impossible => Some(None),
    };
    let heeded = heeded.filter(|_| spec.header != TenantHeader::Ignored);
    trail.managed_tenant = heeded.flatten().cloned();
    match &session.who {
        Who::Refused(denial) => return Err((*denial).into()),
        Who::Plain if spec.audience == Audience::Partner => {
            return Err(Denial::new(ErrorCode::Forbidden, Reason::NotAPartner).into());
        }
        Who::Plain | Who::Partner(_) => {}
    }
    if session.suspended {
        return Err(Gate::Suspension.denial());
    }
    if spec.audience == Audience::TenantAdmin {
        return tenant_admin(trail, target, session, heeded.is_some());
    }
    if session.caller.too_old(trail.now) {
        return Err(Failure::new(ErrorCode::Unauthorized, "token_too_old")
            .saying("this token is too old for work in other tenants; log in again"));
    }
    if !worker.gateway.directory.is_fresh() {
        return Err(stale());
    }
    let Some(partner) = session.partner() else {
        return Err(Failure::new(ErrorCode::InternalError, "no_partner"));
    };
    if partner.portfolio.partner.suspended {
        return Err(Gate::Suspension.denial());
    }
    if !partner.portfolio.partner.active {
        return Err(Gate::Partner.denial());
    }
    let judge = Judge { worker, trail, session, partner, spec };
    let acts_there = matches!(spec.header, TenantHeader::Required | TenantHeader::Optional);
    let (slices, named) = match heeded {
        Some(tenant) if acts_there => {
            let link = tenant.and_then(|tenant| partner.portfolio.link(tenant.as_str()));
            let slice = judge.one(link);
            trail.cross = true;
            trail.link = link.map(Arc::clone);
            (vec![slice?], tenant.cloned())
        }
        _ if spec.header == TenantHeader::Required => {
            return Err(Failure::new(ErrorCode::TenantContextRequired, "no_active_tenant"));
        }
        heeded => {
            if let Some(tenant) = heeded {
                let link = tenant.and_then(|tenant| partner.portfolio.link(tenant.as_str()));
                if let Some(gate) = link.map_or(Some(Gate::Link), |link| link.closed_gate(trail.now)) {
                    trail.cross = true;
                    return Err(gate.denial());
                }
            }
            let slices = judge.all();
            (slices?, None)
        }
    };
    let portfolio = Some(Arc::clone(&partner.portfolio));
    Ok(Decided { asker: asker(trail, session, partner), portfolio, slices, named })
}

/// An administrator of a managed tenant works at home, by a role of the token.
fn tenant_admin(trail: &mut Trail, target: &Target, session: &Rc<Session>, abroad: bool) -> Result<Decided, Failure> {
    if abroad {
        trail.cross = true;
        return Err(Denial::new(ErrorCode::Forbidden, Reason::HomeOnly).into());
    }
    let roles = &target.portal.settings.tenant_admin_roles;
    let is_admin = session.caller.roles.iter().any(|role| roles.iter().any(|known| **known == **role));
    if !is_admin || session.caller.home_tenant.is_none() {
        return Err(Denial::new(ErrorCode::Forbidden, Reason::Permission).into());
    }
    let asker = Asker {
        user_id: Arc::clone(&session.caller.sub),
        issuer: Arc::clone(&session.caller.issuer),
        home_tenant: session.caller.home_tenant.clone(),
        username: session.caller.username.clone(),
        partner: None,
        expires_at: session.caller.expires_at,
        ip: trail.client_ip,
        mfa: session.caller.mfa,
    };
    Ok(Decided { asker, portfolio: None, slices: Vec::new(), named: None })
}

fn asker(trail: &Trail, session: &Session, partner: &PartnerUser) -> Asker {
    Asker {
        user_id: Arc::clone(&session.caller.sub),
        issuer: Arc::clone(&session.caller.issuer),
        home_tenant: session.caller.home_tenant.clone(),
        username: session.caller.username.clone(),
        partner: Some(crate::portal::AskingPartner {
            user: partner.facts.clone(),
            portfolio: Arc::clone(&partner.portfolio),
        }),
        expires_at: session.caller.expires_at,
        ip: trail.client_ip,
        mfa: session.caller.mfa,
    }
}

trait Told {
    fn denial(self) -> Failure;
}

impl Told for Gate {
    fn denial(self) -> Failure {
        Denial::from(self).into()
    }
}

/// Asks the policies about slices.
struct Judge<'a> {
    worker: &'a Worker,
    trail: &'a Trail,
    session: &'a Session,
    partner: &'a PartnerUser,
    spec: &'static Spec,
}

impl Judge<'_> {
    /// The slice that is acted in: a refusal of it is the refusal of the whole.
    fn one(&self, link: Option<&Arc<LinkFacts>>) -> Result<Slice, Failure> {
        let permission =
            self.spec.permission().ok_or_else(|| Failure::new(ErrorCode::InternalError, "no_permission"))?;
        let verdict = self.ask(link.map(|link| &**link), permission, true)?;
        let denied = |denial: Denial| Failure::from(denial);
        let permit = verdict.map_err(denied)?;
        let link = link.ok_or_else(|| Gate::Link.denial())?;
        Ok(Slice::Granted(Granted::new(Arc::clone(link), permit, self.also(link, true)?)))
    }

    /// Every live link, ascending by tenant; 403 for a user who lacks the permission everywhere.
    fn all(&self) -> Result<Vec<Slice>, Failure> {
        let permission = self.spec.permission();
        if permission.is_some_and(|permission| !self.partner.facts.holds.contains(permission)) {
            return Err(Gate::User.denial());
        }
        let links = self.partner.portfolio.links.values();
        let mut live: Vec<_> = links.filter(|link| link.closed_gate(self.trail.now).is_none()).collect();
        live.sort_unstable_by(|one, other| one.link.tenant_id.cmp(&other.link.tenant_id));
        live.into_iter()
            .map(|link| {
                let Some(permission) = permission else { return Ok(Slice::Live(Arc::clone(link))) };
                Ok(match self.ask(Some(link), permission, false)? {
                    Ok(permit) => Slice::Granted(Granted::new(Arc::clone(link), permit, self.also(link, false)?)),
                    Err(denial) => Slice::Forbidden { link: Arc::clone(link), denial },
                })
            })
            .collect()
    }

    /// Which of the endpoint's further permissions hold on this link.
    fn also(&self, link: &Arc<LinkFacts>, switch_context: bool) -> Result<PermissionSet, Failure> {
        let mut also = PermissionSet::EMPTY;
        for permission in self.spec.also.iter().filter_map(|name| Permission::parse(name)) {
            if self.ask(Some(link), permission, switch_context)?.is_ok() {
                also = also.union(PermissionSet::of(permission));
            }
        }
        Ok(also)
    }

    fn ask(
        &self,
        link: Option<&LinkFacts>,
        permission: Permission,
        switch_context: bool,
    ) -> Result<Result<Permit, Denial>, Failure> {
        let gateway = &self.worker.gateway;
        let bundle = gateway.policies.current();
        if bundle.generation() != self.session.policies {
            // The session was resolved under another role table; the next request is resolved anew.
            return Err(Failure::new(ErrorCode::PolicyUnavailable, "policies_changed"));
        }
        let facts = Facts {
            user: &self.partner.facts,
            link,
            permission,
            switch_context,
            now: self.trail.now,
            ip: self.trail.client_ip,
            mfa: self.session.caller.mfa,
            method: self.trail.method.as_str(),
            route_class: self.spec.class.as_str(),
        };
        let outcome = policy::decide(&bundle, Some(&mut self.worker.memo.borrow_mut()), &facts);
        match outcome.verdict {
            Ok(permit) => Ok(Ok(permit)),
            Err(Refusal::Denied(denial)) => Ok(Err(denial)),
            Err(Refusal::Unavailable) => {
                gateway.metrics.policy_errors.inc();
                tracing::error!(request_id = %self.trail.request_id, permission = %permission, "a policy failed to evaluate; the request is refused");
                Err(Failure::new(ErrorCode::PolicyUnavailable, "policy_error"))
            }
        }
    }
}

/// Reads the whole body; this API takes small ones only.
async fn read(parts: &Parts, mut body: Incoming) -> Result<Bytes, Failure> {
    let bad = |detail, message: &str| Failure::new(ErrorCode::BadRequest, detail).saying(message);
    let reading = Limited::new(&mut body, MAX_BODY_BYTES).collect();
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Err(_) => return Err(bad("body_timeout", "the request body took too long")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(Failure::new(ErrorCode::PayloadTooLarge, "body_bytes"));
        }
        Ok(Err(_)) => return Err(bad("body_broken", "the request body broke off")),
        Ok(Ok(body)) => body.to_bytes(),
    };
    if !bytes.is_empty() && !super::fields::is_plain_json(&parts.headers) {
        return Err(bad("body_type", "this endpoint takes an uncompressed body of content type application/json only"));
    }
    Ok(bytes)
}

/// Query and body, read and found valid.
fn prepare(target: &Target, parts: &Parts, body: &[u8], now: Millis) -> Result<Box<dyn Prepared>, Failure> {
    let question = Question {
        spec: target.spec,
        param: target.param.as_deref(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        body,
        now: now.timestamp().unwrap_or(jiff::Timestamp::MAX),
    };
    target.portal.prepare(&question).map_err(|problem| failure(&problem))
}

/// Only the slices that were asked for; a tenant that may not be named refuses the whole.
fn narrow(
    trail: &mut Trail,
    prepared: &dyn Prepared,
    slices: Vec<Slice>,
    portfolio: Option<Arc<crate::domain::Portfolio>>,
) -> Result<Vec<Slice>, Failure> {
    let (wanted, unknown) = match prepared.narrow() {
        Narrow::All => return Ok(slices),
        Narrow::To(tenants) => (tenants, Failure::from(Denial::from(Gate::Link))),
        Narrow::One(tenant) => (std::slice::from_ref(tenant), Failure::new(ErrorCode::TenantNotFound, "no_link")),
    };
    for tenant in wanted {
        let link = portfolio.as_ref().and_then(|portfolio| portfolio.link(tenant.as_str()));
        let refused = match link.map(|link| link.closed_gate(trail.now)) {
            None => Some(unknown.clone()),
            Some(Some(gate)) => Some(gate.denial()),
            Some(None) => None,
        };
        if let Some(failure) = refused {
            trail.managed_tenant = Some(tenant.clone());
            trail.cross = true;
            return Err(failure);
        }
    }
    Ok(slices.into_iter().filter(|slice| wanted.contains(&slice.link().link.tenant_id)).collect())
}

fn recorded(slice: &Slice) -> crate::audit::Slice {
    let facts = slice.link();
    let denial = match slice {
        Slice::Granted(_) | Slice::Live(_) => None,
        Slice::Forbidden { denial, .. } => Some(denial),
    };
    crate::audit::Slice {
        managed_tenant_id: facts.link.tenant_id.as_str().to_owned(),
        link_id: Some(facts.link.id),
        link_version: Some(facts.link.version),
        decision: if denial.is_some() { Decision::Deny } else { Decision::Allow },
        reason: denial.map(|denial| denial.word().to_owned()),
        status: None,
    }
}

/// Everything for the act itself.
struct Acting {
    portal: Arc<Portal>,
    spec: &'static Spec,
    session: Rc<Session>,
    call: Call,
    prepared: Box<dyn Prepared>,
    ledger: Ledger,
}

/// Ends the work on the service runtime when the client leaves.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn act(worker: &Rc<Worker>, trail: &Trail, acting: Acting) -> Result<Response<ResponseBody>, Failure> {
    let Acting { portal, spec, session, call, prepared, mut ledger } = acting;
    let granted: Vec<Arc<LinkFacts>> = call.granted().map(|slice| Arc::clone(slice.link())).collect();
    // Sockets and database connections belong to the service runtime.
    let task = worker.gateway.service.spawn(prepared.answer(portal, call));
    let _guard = AbortOnDrop(task.abort_handle());
    let answered = task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a consolidated request ended by a panic");
        Err(Problem::new(ErrorCode::InternalError, ""))
    });
    let answered = match answered {
        // What was written is done; what was read is not shown to whom it was taken from meanwhile.
        Ok(reply) if spec.class != crate::config::settings::RouteClass::Write => {
            still_granted(worker, trail, spec, &session, &granted).await.map(|()| reply)
        }
        Ok(reply) => Ok(reply),
        Err(problem) => {
            ledger.slices = problem.slices.clone();
            Err(failure(&problem))
        }
    };
    match answered {
        Ok(reply) => Ok(respond(trail, reply, ledger)),
        Err(failure) => {
            if failure.code.status() == 403 {
                ledger.overturned = Some(Decision::Deny);
            }
            ledger.fail(&failure);
            Err(failure)
        }
    }
}

/// Asks once more about what was fetched, where any link or policy changed since.
async fn still_granted(
    worker: &Rc<Worker>,
    trail: &Trail,
    spec: &'static Spec,
    session: &Rc<Session>,
    granted: &[Arc<LinkFacts>],
) -> Result<(), Failure> {
    let fresh = worker.refreshed(session).await.map_err(|Unresolved| stale())?;
    if !worker.gateway.directory.is_fresh() {
        return Err(stale());
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
    let judge = Judge { worker, trail, session: &fresh, partner, spec };
    for was in granted {
        let link = partner.portfolio.link(was.link.tenant_id.as_str()).ok_or_else(changed)?;
        // Windows are judged by the clock of now, not by that of the request.
        if link.closed_gate(Millis::now()).is_some() {
            return Err(changed());
        }
        if let Some(permission) = spec.permission()
            && judge.ask(Some(link), permission, false)?.is_err()
        {
            return Err(changed());
        }
    }
    Ok(())
}

fn respond(trail: &Trail, mut reply: Reply, mut ledger: Ledger) -> Response<ResponseBody> {
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
        ReplyBody::Bytes(bytes) => OwnedBody::bytes(bytes, Box::new(ledger)),
        ReplyBody::Stream { length, chunks } => OwnedBody::stream(length, chunks, Box::new(ledger)),
    };
    let mut response = Response::new(ResponseBody::Owned(Box::new(body)));
    *response.status_mut() = status;
    *response.headers_mut() = reply.headers;
    response
}

fn failure(problem: &Problem) -> Failure {
    let mut failure = problem.denial.map_or_else(|| Failure::new(problem.code, ""), Failure::from);
    if !problem.message.is_empty() {
        failure.message = Some(problem.message.clone().into_owned());
    }
    failure.fields = problem.fields.iter().map(|error| (error.field.clone(), error.message.clone())).collect();
    failure
}
