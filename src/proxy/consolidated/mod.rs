//! The consolidated API's own list of stages: who asks, each tenant's slice decided on its own, limit, question, record,
//! answer (contract, section 8). Fetching and merging is the portal's, on the service runtime.

mod act;
mod again;
mod judge;
mod refusal;
mod target;

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body as _;

use self::{
    act::{Acting, act},
    again::Again,
    judge::decide,
    refusal::{Told, stale},
};
pub use self::{
    refusal::failure,
    target::{Target, find},
};
use super::{
    account, authorize,
    body::ResponseBody,
    cut::CutReason,
    fields, identify, quota,
    respond::Failure,
    said,
    session::{self, Session, Unresolved},
    streams::Watched,
    trail::Trail,
    unread::ClientBody,
    worker::Worker,
};
use crate::{
    audit::Decision,
    domain::{DecisionId, Denial, ErrorCode, Facts, Gate, Millis, Portfolio, TenantId, UserFacts},
    portal::{Call, Narrow, Portal, Prepared, Question, Slice, Spec},
};

/// Longest request body of this API, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Answers a request to the consolidated API.
pub async fn serve(
    worker: &Rc<Worker>,
    trail: &mut Trail,
    request: Request<ClientBody>,
    target: Target,
) -> Result<Response<ResponseBody>, Failure> {
    let (parts, body) = request.into_parts();
    let (session, _, named) = identify::bearer(worker, trail, &parts).await?;
    let decided = decide(worker, trail, &target, &session, &named)?;
    quota::consolidated(worker, trail, target.spec, decided.named.as_ref())?;
    // An empty body can be sent slowly too.
    let waited = !body.is_end_stream();
    let body = read(&parts, body, worker.gateway.settings.listen.body_idle_timeout).await?;
    let prepared = prepare(&target, &parts, &body, trail.now)?;
    // Reading a body takes as long as its sender likes: what was revoked meanwhile must not be acted upon.
    let (session, decided) = if !waited {
        (session, decided)
    } else {
        let session = worker.refreshed(&session).await.map_err(|Unresolved| stale())?;
        trail.now = Millis::now();
        trail.session = Some(Rc::clone(&session));
        let decided = decide(worker, trail, &target, &session, &named)?;
        (session, decided)
    };
    let mut slices = narrow(trail, &*prepared, decided.slices, decided.portfolio)?;
    // A slice that the policies were asked about tells with what; the one that is acted in, the record itself.
    let asked = trail.said.bundle.is_some() && trail.link.is_none();
    trail.slices = slices.iter().map(|slice| recorded(slice, asked)).collect();
    if asked {
        trail.said.narrow(&trail.slices);
    }
    let ledger = account::begin(worker, trail).await?;
    let trace = trail.trace();
    for slice in &mut slices {
        if let Slice::Granted(granted) = slice {
            granted.recorded(&trace);
        }
    }
    let again = Again::new(worker, trail, target.spec, session, &slices);
    let (desk, questions) = again::desk();
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
        trace,
        decision_id: trail.decision_id.unwrap_or_else(DecisionId::generate),
        standing: Arc::new(desk),
    };
    act(trail, Acting { portal: target.portal, again, questions, call, prepared, ledger }).await
}

/// Whether an answer that is still being sent may go on: every tenant in it is decided again.
pub fn still_allowed(
    worker: &Worker,
    session: &Session,
    watched: &Watched,
    (tenants, spec): (&[TenantId], &'static Spec),
    now: Millis,
) -> Result<(), CutReason> {
    if session.suspended {
        return Err(Gate::Suspension.into());
    }
    let Some(permission) = spec.permission() else { return Ok(()) };
    let partner = session.partner().ok_or(CutReason::NotAPartner)?;
    let bundle = worker.gateway.policies.current();
    // A set that came into force since the session was resolved may have another role table.
    let holds = session::held(&session.caller, bundle.roles());
    let user = UserFacts { holds, ..partner.facts.clone() };
    for tenant in tenants {
        let facts = Facts {
            user: &user,
            link: partner.portfolio.link(tenant.as_str()).map(|link| &**link),
            permission,
            switch_context: false,
            now,
            ip: watched.ip,
            mfa: session.caller.mfa,
            method: watched.method.as_str(),
            route_class: spec.class.as_str(),
        };
        let asked = (&facts, spec.class.as_str());
        authorize::why_not(said::put(worker, &bundle, session, asked, None))?;
    }
    Ok(())
}

/// Reads the whole body; this API takes small ones only.
async fn read(parts: &Parts, body: ClientBody, idle: Duration) -> Result<Bytes, Failure> {
    let bad = |detail, message: &str| Failure::new(ErrorCode::BadRequest, detail).saying(message);
    let bytes = fields::read_whole(body, MAX_BODY_BYTES, idle).await?;
    if !bytes.is_empty() && !fields::is_plain_json(&parts.headers) {
        return Err(bad("body_type", "this endpoint takes an uncompressed body of content type application/json only"));
    }
    Ok(bytes)
}

/// The one version of this API.
const API_VERSION: &str = "1";

/// Query and body, read and found valid.
fn prepare(target: &Target, parts: &Parts, body: &[u8], now: Millis) -> Result<Box<dyn Prepared>, Failure> {
    if parts.headers.get_all("x-api-version").iter().any(|version| version.as_bytes() != API_VERSION.as_bytes()) {
        return Err(Failure::new(ErrorCode::BadRequest, "api_version").saying("X-API-Version must be 1"));
    }
    let question = Question {
        spec: target.spec,
        param: target.param.as_deref(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        body,
        now: now.timestamp().unwrap_or(jiff::Timestamp::MAX),
        compatible: target.compatible,
    };
    Portal::prepare(&question).map_err(|problem| failure(&problem))
}

/// Only the slices that were asked for; a tenant that may not be named refuses the whole.
fn narrow(
    trail: &mut Trail,
    prepared: &dyn Prepared,
    slices: Vec<Slice>,
    portfolio: Option<Arc<Portfolio>>,
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

fn recorded(slice: &Slice, asked: bool) -> crate::audit::Slice {
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
        link: asked.then(|| Arc::clone(facts).into()),
    }
}
