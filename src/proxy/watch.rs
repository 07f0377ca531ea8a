//! The sweep that cuts open streams that may not go on (contract, section 5).
//!
//! A stream is every forwarded exchange from the moment it is sent upstream until its last byte. The sweep asks the very
//! decision code again with the facts of the request and the time of now, so that whatever would refuse the request today
//! cuts the stream too: revoked, expired, suspended, changed overrides, a new guardrail, stale links. A stream at home
//! hangs on no link: the suspension of its user, session or token cuts it, and that the user is no active one any more. And
//! whatever flows on a connection that was
//! opened with a client certificate hangs on that one too, be it a public route's.
//!
//! What is over the total time of its route ends here as well: its own timer is asked only where the upstream is awaited,
//! not while a client reads nothing.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use tokio::time::Instant;

use super::{
    body::Cut,
    cut::CutReason,
    respond::Failure,
    session::Who,
    streams::{Kept, Stream, Watched},
    trail::Trail,
    worker::Worker,
};
use crate::domain::{Gate, Millis};

/// How often open streams are looked at. With the poll of the change feed (100 to 250 ms) well below the promised 1 s.
pub const SWEEP_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);

/// One look at all open streams.
pub async fn sweep(worker: &Rc<Worker>) {
    let open: Vec<Rc<Watched>> = worker.streams.all();
    // Side by side: a load that hangs for one partner must not delay the cut of another's streams.
    futures_util::future::join_all(open.iter().map(|watched| look_at(worker, watched))).await;
}

/// How long a stream may go on while its link is looked up anew: with feed and sweep still within the promised 1 s.
const LOOK_UP_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);

async fn look_at(worker: &Rc<Worker>, watched: &Watched) {
    if watched.cut.reason().is_some() {
        // A client that reads nothing leaves its body unpolled: after the second look the connection goes.
        watched.overdue.set(watched.overdue.get() + 1);
        if watched.overdue.get() == 2 {
            watched.connection.kill();
        }
        return;
    }
    if let Some(why) = ended(worker, watched).await {
        match &watched.stream {
            Stream::Public => tracing::info!(reason = why.as_str(), "open stream of a public route cut"),
            Stream::Home(_) => tracing::info!(reason = why.as_str(), "open stream at home cut"),
            Stream::Forwarded { tenant, .. } => tracing::info!(%tenant, reason = why.as_str(), "open stream cut"),
            Stream::Consolidated { tenants, spec, .. } => {
                tracing::info!(tenants = tenants.len(), path = spec.path, reason = why.as_str(), "open stream cut");
            }
        }
        worker.gateway.metrics.streams_cut.inc();
        watched.cut.cut(why);
    } else if watched.until.is_some_and(|until| until <= Instant::now()) {
        watched.cut.cut(CutReason::TotalTimeout);
    }
}

/// Exchanges of a known caller are watched from here to their last byte; public ones where a certificate opened the
/// connection, or where their time is limited: until `total`.
pub fn of(trail: &Trail, method: &http::Method, cut: &Rc<Cut>, total: Option<Instant>) -> Option<Rc<Watched>> {
    let stream = match (&trail.session, trail.cross, &trail.managed_tenant, &trail.route) {
        (None, ..) if trail.peer.certificate.is_some() || total.is_some() => Stream::Public,
        (Some(session), false, ..) => Stream::Home(RefCell::new(Rc::clone(session))),
        (Some(session), true, Some(tenant), Some(route)) => Stream::Forwarded {
            tenant: tenant.clone(),
            route: Arc::clone(route),
            session: RefCell::new(Rc::clone(session)),
        },
        (None, ..) | (Some(_), true, ..) => return None,
    };
    let watched = Watched::new(Rc::clone(cut), stream, trail.client_ip, method.clone(), &trail.peer);
    Some(Rc::new(Watched { until: total, ..watched }))
}

/// Asks the sweep's question about what was recorded and is told to others to do: the record may have waited for its
/// disk. `method`: of what is to be done.
pub async fn confirm(worker: &Rc<Worker>, trail: &Trail, method: &http::Method) -> Result<(), Failure> {
    let Some(watched) = of(trail, method, &Rc::default(), None) else { return Ok(()) };
    ended(worker, &watched).await.map_or(Ok(()), |why| Err(why.failure()))
}

/// Why a stream may not go on; `None` while it may.
pub async fn ended(worker: &Rc<Worker>, watched: &Watched) -> Option<CutReason> {
    if watched.certificate.is_some() && !worker.certificate_counts(watched.certificate.as_deref(), Millis::now()) {
        return Some(CutReason::Certificate);
    }
    if worker.suspends(watched.certificate.as_deref()) {
        return Some(Gate::Suspension.into());
    }
    let kept = match &watched.stream {
        Stream::Public => return None,
        Stream::Home(session) => return ended_at_home(worker, session).await,
        Stream::Forwarded { session, .. } | Stream::Consolidated { session, .. } => session,
    };
    if !worker.gateway.directory.is_fresh() {
        return Some(CutReason::LinksStale);
    }
    let session = kept.borrow().clone();
    let session = if worker.is_current(&session) {
        session
    } else {
        let looked_up = Box::pin(tokio::time::timeout(LOOK_UP_TIMEOUT, worker.refreshed(&session))).await;
        let Ok(Ok(session)) = looked_up else { return Some(CutReason::LinksStale) };
        kept.replace(Rc::clone(&session));
        session
    };
    match &watched.stream {
        Stream::Public | Stream::Home(_) => None,
        Stream::Forwarded { tenant, route, .. } => {
            super::authorize::still_allowed(worker, &session, watched, (tenant, route), Millis::now()).err()
        }
        Stream::Consolidated { tenants, spec, .. } => {
            super::consolidated::still_allowed(worker, &session, watched, (tenants, *spec), Millis::now()).err()
        }
    }
}

/// Stale links stop nobody at home, nor does a database that is away: what was known last goes on counting.
async fn ended_at_home(worker: &Rc<Worker>, kept: &Kept) -> Option<CutReason> {
    let session = Rc::clone(&kept.borrow());
    if worker.is_suspended(&session.caller) {
        return Some(Gate::Suspension.into());
    }
    if worker.is_current(&session) || !worker.gateway.directory.is_fresh() {
        return None;
    }
    let looked_up = Box::pin(tokio::time::timeout(LOOK_UP_TIMEOUT, worker.refreshed(&session))).await;
    let Ok(Ok(session)) = looked_up else { return None };
    kept.replace(Rc::clone(&session));
    match &session.who {
        Who::Refused(denial) => Some((*denial).into()),
        Who::Plain | Who::Partner(_) if session.suspended => Some(Gate::Suspension.into()),
        Who::Plain | Who::Partner(_) => None,
    }
}
