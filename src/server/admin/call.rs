//! Life of a call: exact framing, who calls, which operation, may they, the body, the record, the act, the answer.
//!
//! The act runs in a task of its own with its record: a client that leaves half-way leaves no change unnoticed and no
//! record open.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    AdminApi,
    access::{Holder, authenticate},
    answer::{Answer, envelope},
    ask::Ask,
    desk::Desk,
    emergency, imports, insight, journal, links, openapi, parties, questions, reviews,
    table::{Found, Operation, Spec, Work, find},
    webhooks,
};
use crate::{
    audit::{Completion, Decision, Durability, Kind, OpenRecord, Opening, Unkept},
    config::settings::RouteClass,
    domain::{DecisionId, ErrorCode, Millis, RequestId},
    identity::Vault,
    portal::Problem,
    proxy::{
        consolidated,
        headers::{Single, lookalike, single},
        ids::{DECISION_ID, REQUEST_ID, id_header},
        path,
        respond::Failure,
        seldom::Seldom,
        worker::Gateway,
    },
    server::guard,
    store::{Actor, Admin},
};

/// Largest body. A link's metadata may have 64 KiB.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// Of an import, of which one is read at a time.
const MAX_IMPORT_BYTES: usize = 4 * 1024 * 1024;
/// Longest wait until other work of its kind has ended.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest path and query.
const MAX_TARGET_BYTES: usize = 8 * 1024;
/// Longest wait for a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of a call so far: for its record, its answer and the counters.
struct Trail {
    request_id: RequestId,
    ip: IpAddr,
    method: Method,
    user_agent: Option<HeaderValue>,
    began: Instant,
    holder: Option<Holder>,
    spec: Option<&'static Spec>,
    param: Option<String>,
    decision_id: Option<DecisionId>,
}

/// Answers one call. Never fails: whatever goes wrong becomes a response here.
pub(super) async fn handle(api: Arc<AdminApi>, ip: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let given = match single(request.headers(), REQUEST_ID) {
        Single::One(value) => value.to_str().ok().and_then(RequestId::from_client),
        Single::Absent | Single::Repeated => None,
    };
    let mut trail = Trail {
        request_id: given.unwrap_or_else(RequestId::generate),
        ip: ip.to_canonical(),
        method: request.method().clone(),
        user_agent: request.headers().get(header::USER_AGENT).cloned(),
        began: Instant::now(),
        holder: None,
        spec: None,
        param: None,
        decision_id: None,
    };
    // Behind an upgrade the guard lets everything pass: nothing more may be read of such a connection.
    let mut ends = request.headers().contains_key(header::UPGRADE) || trail.method == Method::CONNECT;
    let mut response = match serve(&api, &mut trail, request).await {
        Ok(answer) => answer.into_response(),
        Err(failure) => {
            // Who has no token keeps no place among the few connections.
            ends |= trail.holder.is_none();
            envelope(&failure, &trail.request_id)
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if ends {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Ok(value) = HeaderValue::from_str(trail.request_id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
    if let Some(id) = trail.decision_id {
        headers.insert(DECISION_ID, id_header(id.0));
    }
    let role = trail.holder.as_ref().map(|holder| holder.role);
    api.metrics.count(trail.spec, response.status().as_u16(), role);
    response
}

async fn serve(api: &Arc<AdminApi>, trail: &mut Trail, request: Request<Incoming>) -> Result<Answer, Failure> {
    check(&request)?;
    let gateway = api.live.current();
    let Some(settings) = &gateway.settings.admin else {
        return Err(Failure::new(ErrorCode::RouteNotFound, "admin_off"));
    };
    let holder = authenticate(api, settings, trail.ip, request.headers())?;
    trail.holder = Some(holder.clone());
    match decided(api, trail, &holder, request).await {
        Ok(ask) => act(api, &gateway, trail, holder, ask).await,
        Err(failure) => {
            // A caller that is known, and a call that is not acted upon: both lines at once.
            let completion = Completion {
                status: Some(failure.code.status()),
                duration_us: elapsed_us(trail),
                ..Completion::default()
            };
            let id = DecisionId::generate();
            let recorded = {
                let (pattern, policies) = recorded_as(trail, &holder);
                let opening = opening(trail, &holder, id, Err(failure.word()), &pattern, &policies);
                gateway.journal.try_record(&opening, &completion, durability(&gateway, trail.spec)).await
            };
            recorded.map_err(|unkept| unrecorded(&gateway, trail, id, &unkept))?;
            trail.decision_id = Some(id);
            Err(failure)
        }
    }
}

/// Refuses what is not exact, and what a browser sends for a page.
fn check(request: &Request<Incoming>) -> Result<(), Failure> {
    let (uri, headers) = (request.uri(), request.headers());
    let bad = |detail, message: &str| Err(Failure::new(ErrorCode::BadRequest, detail).saying(message));
    if let Some(why) = guard::refusal_of(uri.path(), uri.query()) {
        let code = if why.starts_with("ambiguous") { ErrorCode::AmbiguousPath } else { ErrorCode::BadRequest };
        return Err(Failure::new(code, "inexact_request").saying(format!("the request is not exact HTTP: {why}")));
    }
    if uri.path_and_query().is_none_or(|target| target.as_str().len() > MAX_TARGET_BYTES) {
        return bad("uri_bytes", "the request target is missing or too long");
    }
    if let Err(ambiguous) = path::check(uri.path()) {
        return Err(Failure::new(ErrorCode::AmbiguousPath, "path").saying(ambiguous.to_string()));
    }
    if lookalike(headers).is_some() {
        return bad("lookalike_header", "a header field is spelled so that it could be taken for another one");
    }
    if !matches!(single(headers, header::HOST), Single::One(_)) {
        return bad("host", "the request names no host, or more than one");
    }
    if headers.contains_key(header::UPGRADE) || request.method() == Method::CONNECT {
        return bad("upgrade", "the admin API speaks HTTP/1.1 and nothing else");
    }
    if headers.contains_key(header::ORIGIN) {
        return Err(Failure::new(ErrorCode::Forbidden, "origin").saying("the admin API is not for pages in a browser"));
    }
    Ok(())
}

/// Which operation, whether the role may, and the body. Nothing is read of a body before the role is known.
async fn decided(
    api: &AdminApi,
    trail: &mut Trail,
    holder: &Holder,
    request: Request<Incoming>,
) -> Result<Ask, Failure> {
    let (parts, body) = request.into_parts();
    let (spec, param) = match find(parts.method.as_str(), parts.uri.path()) {
        Found::Operation(spec, param) => (spec, param.map(std::borrow::Cow::into_owned)),
        Found::OtherMethods(allow) => {
            let mut failure = Failure::new(ErrorCode::MethodNotAllowed, "method");
            failure.allow = Some(allow);
            return Err(failure);
        }
        Found::Nothing => return Err(Failure::new(ErrorCode::RouteNotFound, "route")),
    };
    trail.spec = Some(spec);
    trail.param.clone_from(&param);
    if !spec.allows(holder.role) {
        let needed: Vec<_> = spec.roles.iter().map(|role| role.as_str()).collect();
        let message = format!("your token is of role {}; this needs {}", holder.role.as_str(), needed.join(" or "));
        return Err(Failure::new(ErrorCode::Forbidden, "role").saying(message));
    }
    // Before the body: what waits for its turn holds none.
    let turn = turn(api, spec).await?;
    let most = if spec.work == Work::Import { MAX_IMPORT_BYTES } else { MAX_BODY_BYTES };
    let body = match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Failure::new(ErrorCode::PayloadTooLarge, "body"));
        }
        Ok(Err(_)) => return Err(Failure::new(ErrorCode::BadRequest, "body").saying("the body broke off")),
        Err(_) => return Err(Failure::new(ErrorCode::BadRequest, "body").saying("the body did not come in time")),
    };
    if !body.is_empty() && !spec.has_body() {
        return Err(Failure::new(ErrorCode::BadRequest, "body").saying("this takes no body"));
    }
    let query = parts.uri.query().unwrap_or_default().to_owned();
    Ok(Ask { spec, param: param.unwrap_or_default(), query, headers: parts.headers, body, turn })
}

/// A place among the work of its kind; it is given back when the act has ended, whoever still waits for it.
async fn turn(api: &AdminApi, spec: &Spec) -> Result<Option<OwnedSemaphorePermit>, Failure> {
    let Some(turns) = api.turns.of(spec.work) else { return Ok(None) };
    if let Ok(Ok(turn)) = tokio::time::timeout(TURN_TIMEOUT, turns.acquire_owned()).await {
        return Ok(Some(turn));
    }
    let mut failure = Failure::new(ErrorCode::RateLimitExceeded, "busy")
        .saying("other calls of this kind are still at work, and only so many run at a time: try again");
    failure.retry_after = Some(5);
    Err(failure)
}

/// The record, then the act, then the record's end.
async fn act(
    api: &Arc<AdminApi>,
    gateway: &Arc<Gateway>,
    trail: &mut Trail,
    holder: Holder,
    ask: Ask,
) -> Result<Answer, Failure> {
    let id = DecisionId::generate();
    let opened = {
        let (pattern, policies) = recorded_as(trail, &holder);
        let opening = opening(trail, &holder, id, Ok(()), &pattern, &policies);
        gateway.journal.try_admit(&opening, durability(gateway, trail.spec)).await
    };
    let record = opened.map_err(|unkept| unrecorded(gateway, trail, id, &unkept))?;
    trail.decision_id = Some(id);
    let actor = Actor {
        name: holder.name,
        username: None,
        account: holder.account,
        request_id: Some(trail.request_id.as_str().to_owned()),
        client_ip: Some(trail.ip),
    };
    let roles = Arc::new(gateway.policies.current().roles().clone());
    let settings = &gateway.settings;
    let desk = Desk {
        admin: Admin::new(&api.database, roles, settings.links.approvals)
            .with_vault(Vault::new(&settings.webhooks.secret_keys)),
        gateway: Arc::clone(gateway),
        records: api.records.clone(),
        database: api.database.clone(),
        actor,
        partly: std::sync::OnceLock::new(),
    };
    let began = trail.began;
    let ended = tokio::spawn(async move {
        let done = operate(&desk, &ask).await;
        settle(record, began, done, desk.partly.into_inner())
    })
    .await;
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "an operation of the admin API ended by a panic");
        Err(Failure::new(ErrorCode::InternalError, "panic"))
    })
}

/// Completes the record with what became of the act. `partly`: what one that failed had done until then.
fn settle(
    record: OpenRecord,
    began: Instant,
    done: Result<Answer, Problem>,
    partly: Option<String>,
) -> Result<Answer, Failure> {
    let done = done.map_err(|problem| consolidated::failure(&problem));
    let (status, bytes, reason) = match &done {
        Ok(answer) => (answer.status.as_u16(), answer.bytes(), None),
        Err(failure) => (failure.code.status(), 0, Some(partly.map_or(Cow::Borrowed(failure.word()), Cow::Owned))),
    };
    record.complete(Completion {
        status: Some(status),
        bytes,
        duration_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        // What the rules refuse was not done. Where the gateway or its database failed the caller was allowed, and some of
        // it may be done.
        decision: done.as_ref().is_err_and(|failure| failure.code.status() < 500).then_some(Decision::Deny),
        reason,
        ..Completion::default()
    });
    done
}

async fn operate(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    use Operation as Op;
    match ask.spec.operation {
        Op::OpenApi => {
            ask.no_query()?;
            Answer::ok(&openapi::document())
        }
        Op::ListTenants | Op::CreateTenant | Op::ShowTenant | Op::UpdateTenant => parties::tenants(desk, ask).await,
        Op::ListPartners | Op::CreatePartner | Op::ShowPartner | Op::UpdatePartner => {
            parties::partners(desk, ask).await
        }
        Op::ListUsers | Op::CreateUser | Op::ShowUser | Op::UpdateUser => parties::users(desk, ask).await,
        Op::ListLinks | Op::ListEnding | Op::ListApprovals => links::lists(desk, ask).await,
        Op::ShowLink | Op::LinkHistory | Op::LinkAccess => links::one(desk, ask).await,
        Op::CreateLink | Op::UpdateLink | Op::ApproveLink | Op::RejectLink | Op::RevokeLink => {
            links::change(desk, ask).await
        }
        Op::ListWebhooks | Op::ShowWebhook | Op::ListDeliveries => webhooks::reads(desk, ask).await,
        Op::CreateWebhook
        | Op::UpdateWebhook
        | Op::DeleteWebhook
        | Op::RotateWebhook
        | Op::TestWebhook
        | Op::ResealWebhooks
        | Op::RedeliverDead
        | Op::Redeliver => webhooks::change(desk, ask).await,
        Op::ImportTenants | Op::ImportPartners | Op::ImportUsers | Op::ImportLinks => imports::run(desk, ask).await,
        Op::ReviewTenant
        | Op::ReviewPartner
        | Op::UnusedOfTenant
        | Op::UnusedOfPartner
        | Op::UnusedOfLink
        | Op::ShadowReport => reviews::run(desk, ask).await,
        Op::ShowPolicies => insight::policies(desk, ask),
        Op::LinkPolicy
        | Op::RolePolicy
        | Op::CheckPolicies
        | Op::TestPolicies
        | Op::Decide
        | Op::Explain
        | Op::ExplainRecord => questions::run(desk, ask).await,
        Op::ExportRecords | Op::VerifyJournal | Op::ListCheckpoints | Op::ListOutbox => journal::run(desk, ask).await,
        Op::ListRecords | Op::ShowRecord => insight::records(desk, ask).await,
        Op::RevokeAll | Op::ListSuspensions | Op::ShowSuspension | Op::Suspend | Op::Restore => {
            emergency::run(desk, ask).await
        }
    }
}

/// Path and determining rule, as the record has them.
fn recorded_as(trail: &Trail, holder: &Holder) -> (String, [Arc<str>; 1]) {
    let pattern = trail.spec.map_or_else(|| format!("{}/…", super::table::BASE), Spec::pattern);
    (pattern, [Arc::from(format!("admin.role.{}", holder.role.as_str()))])
}

fn opening<'t>(
    trail: &'t Trail,
    holder: &'t Holder,
    id: DecisionId,
    decided: Result<(), &'t str>,
    pattern: &'t str,
    policies: &'t [Arc<str>],
) -> Opening<'t> {
    Opening {
        kind: Kind::Admin,
        user_id: Some(&holder.name),
        action: Some(trail.spec.map_or("admin.unknown", |spec| spec.action)),
        resource_type: trail.spec.map(|spec| spec.resource),
        resource_id: trail.param.as_deref(),
        decision: if decided.is_ok() { Decision::Allow } else { Decision::Deny },
        reason: decided.err(),
        policies,
        client_ip: Some(trail.ip),
        user_agent: trail.user_agent.as_ref().and_then(|value| value.to_str().ok()),
        ..Opening::new(id, Millis::now(), trail.method.as_str(), pattern, trail.request_id.as_str())
    }
}

/// What names no operation is kept like a write.
fn durability(gateway: &Gateway, spec: Option<&'static Spec>) -> Durability {
    let audit = &gateway.settings.audit;
    match spec.map(|spec| spec.class) {
        Some(RouteClass::Read) => audit.reads,
        _ => audit.writes,
    }
}

fn unrecorded(gateway: &Gateway, trail: &mut Trail, id: DecisionId, unkept: &Unkept) -> Failure {
    static TOLD: Seldom = Seldom::new();
    gateway.metrics.audit_refused.inc();
    trail.decision_id = Some(id).filter(|_| unkept.recorded);
    if let Some(calls) = TOLD.due(Instant::now()) {
        tracing::error!(request_id = %trail.request_id, error = unkept.error.told(), calls,
            "calls of the admin API are refused because they cannot be recorded; this is the last of them");
    }
    Failure::new(ErrorCode::AuditUnavailable, "audit_unavailable")
}

fn elapsed_us(trail: &Trail) -> u64 {
    u64::try_from(trail.began.elapsed().as_micros()).unwrap_or(u64::MAX)
}
