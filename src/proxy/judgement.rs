//! A decision about a user whom a service vouches for (AuthZEN): the proxy's own stages without a token and a forwarded
//! request. Account, partner and link are looked up; the caller is believed for none of them.

use std::{rc::Rc, sync::Arc};

use http::{Method, Request};

use super::{
    account, active_tenant::Named, authorize, decision_metrics::Face, flow, identify::Identified, inbound::Inbound,
    intake, peer::Peer, quota, resolve, respond::Failure, route::Routed, routes::Route, session::Unresolved, tenant,
    trail::Trail, watch, worker::Worker,
};
use crate::{
    audit::Decision,
    config::settings::{Access, RouteClass, RouteSettings},
    domain::{DecisionId, Denial, ErrorCode, Permission, Reason, RemoteParent, TenantId, permission::Kind},
    identity::{Attested, Caller, settings::IssuerSettings},
    store::Reading,
};

/// What is asked.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The head of the question itself, for its record.
    pub request: Request<()>,
    /// The user's address.
    pub peer: Peer,
    pub issuer: &'a IssuerSettings,
    pub user: Attested,
    pub permission: Permission,
    /// What the user does, for policies that read it.
    pub method: Method,
    pub tenant: TenantId,
    /// The span of the service that asks.
    pub parent: Option<RemoteParent>,
}

/// What was decided.
#[derive(Debug)]
pub enum Judged {
    Allowed(Option<DecisionId>),
    Refused { code: ErrorCode, reason: &'static str, decision_id: Option<DecisionId> },
}

/// Decides and records. Never fails: whatever goes wrong is a refusal.
pub async fn judge(worker: &Rc<Worker>, asked: Asked<'_>) -> Judged {
    let mut trail = intake::begin(worker, asked.peer.clone(), &asked.request, asked.parent);
    trail.face = Some(Face::Authzen);
    match judged(worker, &mut trail, asked).await {
        Ok(()) => {
            trail.traced(None, None);
            Judged::Allowed(trail.decision_id)
        }
        Err(failure) => {
            let (response, failure) = flow::refuse(worker, &mut trail, &failure).await;
            // What it would be to a client; the service is told `false`.
            trail.traced(Some(response.status()), Some((failure.code.as_str(), failure.word())));
            Judged::Refused { code: failure.code, reason: failure.word(), decision_id: trail.decision_id }
        }
    }
}

async fn judged(worker: &Rc<Worker>, trail: &mut Trail, asked: Asked<'_>) -> Result<(), Failure> {
    let Asked { issuer, mut user, permission, method, tenant, .. } = asked;
    // Decided for nobody else than who is looked up: the client's address is the one that the caller tells.
    trail.client_ip = trail.peer.ip;
    let iss = issuer.issuer.as_deref().unwrap_or_default();
    user.home_tenant = home(worker, iss, &user.sub).await.map_err(|Unresolved| unknown())?;
    let at_home = user.home_tenant.as_ref() == Some(&tenant);
    let caller = Arc::new(Caller::attested(issuer, user, trail.now));
    let keys = worker.gateway.verifier.generation();
    let session = resolve::session(worker, caller, keys).await.map_err(|Unresolved| unknown())?;
    trail.session = Some(Rc::clone(&session));
    let route = Arc::new(rule(worker, permission, trail.uri.path()));
    trail.route = Some(Arc::clone(&route));
    // As a token would be refused whose issuer may not speak for its tenant.
    if let (Some(allowed), Some(home)) = (&issuer.home_tenants, &session.caller.home_tenant)
        && !allowed.contains(home)
    {
        return Err(Denial::new(ErrorCode::Forbidden, Reason::IdentityConflict).into());
    }
    if at_home {
        // Links say nothing on it, and silence is no permission.
        return Err(Failure::new(ErrorCode::Forbidden, "own_tenant"));
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method.clone();
    let routed = Box::new(Routed { parts, body: Inbound::Given(None), route, path_tenant: None });
    let identified = Identified { routed, session: Some(session), source: None };
    let placed = tenant::place(trail, identified, Named::Tenant(tenant))?;
    let authorized = authorize::decide(worker, trail, placed)?;
    quota::admit(worker, trail, authorized)?;
    let mut ledger = account::begin(worker, trail).await?;
    // The record may have waited for its disk: asked once more before the service hears of it.
    if let Err(failure) = watch::confirm(worker, trail, &method).await {
        ledger.overturned = Some(Decision::Deny);
        ledger.fail(&failure);
        return Err(failure);
    }
    ledger.decided();
    Ok(())
}

fn unknown() -> Failure {
    Failure::new(ErrorCode::LinksStale, "account_unknown")
}

/// The home of the user's partner; `None` where the user is no partner user.
async fn home(worker: &Rc<Worker>, issuer: &str, sub: &str) -> Result<Option<TenantId>, Unresolved> {
    let directory = &worker.gateway.directory;
    let member = directory.member(issuer, sub, Reading::Fresh).await.map_err(|_| Unresolved)?;
    let Some(member) = member else { return Ok(None) };
    let portfolio = directory.portfolio(member.partner_id, Reading::Fresh).await.map_err(|_| Unresolved)?;
    Ok(portfolio.map(|portfolio| portfolio.partner.home_tenant_id.clone()))
}

/// The rule that a route with this permission would be. `path`: of AuthZEN, where is asked.
fn rule(worker: &Worker, permission: Permission, path: &str) -> Route {
    let class = match permission.kind() {
        Kind::Read | Kind::Context => RouteClass::Read,
        Kind::Write => RouteClass::Write,
        Kind::Export => RouteClass::Export,
    };
    let audit = &worker.gateway.settings.audit;
    Route {
        settings: RouteSettings {
            methods: Vec::new(),
            path: path.to_owned(),
            access: Access::Permission(permission),
            upstream: None,
            class,
            durability: if class == RouteClass::Read { audit.reads } else { audit.writes },
            max_body_bytes: 0,
            response_timeout: None,
            total_timeout: None,
            refuse_body_fields: Vec::new(),
            keep_cache_control: false,
            line: 0,
        },
        upstream: None,
        index: usize::MAX,
        resource_type: Some("tenant".into()),
    }
}
