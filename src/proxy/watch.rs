//! The sweep that cuts open streams that may not go on (contract, section 5).
//!
//! A stream is every forwarded exchange from the moment it is sent upstream until its last byte. The sweep asks the very
//! decision code again with the facts of the request and the time of now, so that whatever would refuse the request today
//! cuts the stream too: revoked, expired, suspended, changed overrides, a new guardrail, stale links. A stream at home
//! hangs on no link: only the suspension of its user, session or token cuts it. And whatever flows on a connection that was
//! opened with a client certificate hangs on that one too, be it a public route's.
//!
//! What is over the total time of its route ends here as well: its own timer is asked only where the upstream is awaited,
//! not while a client reads nothing.

use std::rc::Rc;

use tokio::time::Instant;

use super::{
    body::TOTAL_TIMEOUT,
    certificate,
    streams::{Stream, Watched},
    worker::Worker,
};
use crate::domain::{Denial, Gate, Millis};

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
            Stream::Public => tracing::info!(reason = why, "open stream of a public route cut"),
            Stream::Home(_) => tracing::info!(reason = why, "open stream at home cut"),
            Stream::Forwarded { tenant, .. } => tracing::info!(%tenant, reason = why, "open stream cut"),
            Stream::Consolidated { tenants, spec, .. } => {
                tracing::info!(tenants = tenants.len(), path = spec.path, reason = why, "open stream cut");
            }
        }
        worker.gateway.metrics.streams_cut.inc();
        watched.cut.cut(why);
    } else if watched.until.is_some_and(|until| until <= Instant::now()) {
        watched.cut.cut(TOTAL_TIMEOUT);
    }
}

/// Why a stream may not go on; `None` while it may.
pub async fn ended(worker: &Rc<Worker>, watched: &Watched) -> Option<&'static str> {
    if !worker.certificate_counts(watched.certificate.as_deref(), Millis::now()) {
        return Some(certificate::WORD);
    }
    let kept = match &watched.stream {
        Stream::Public => return None,
        Stream::Home(session) => {
            return worker.is_suspended(&session.caller).then_some(Denial::from(Gate::Suspension).word());
        }
        Stream::Forwarded { session, .. } | Stream::Consolidated { session, .. } => session,
    };
    if !worker.gateway.directory.is_fresh() {
        return Some("links_stale");
    }
    let session = kept.borrow().clone();
    let session = if worker.is_current(&session) {
        session
    } else {
        let looked_up = Box::pin(tokio::time::timeout(LOOK_UP_TIMEOUT, worker.refreshed(&session))).await;
        let Ok(Ok(session)) = looked_up else { return Some("links_stale") };
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
