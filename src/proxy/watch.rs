//! Open streams of one worker, and the sweep that cuts those that may not go on (contract, section 5).
//!
//! A stream is every forwarded exchange from the moment it is sent upstream until its last byte. The sweep asks the very
//! decision code again with the facts of the request and the time of now, so that whatever would refuse the request today
//! cuts the stream too: revoked, expired, suspended, changed overrides, a new guardrail, stale links. A stream at home
//! hangs on no link: only the suspension of its user, session or token cuts it. And whatever flows on a connection that was
//! opened with a client certificate hangs on that one too, be it a public route's.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
};

use super::{
    body::Cut,
    certificate::{self, ClientCertificate},
    flow::Peer,
    route::Route,
    session::Session,
    worker::Worker,
};
use crate::{
    domain::{Denial, Gate, Millis, TenantId},
    portal::Spec,
};

/// How often open streams are looked at. With the poll of the change feed (100 to 250 ms) well below the promised 1 s.
pub const SWEEP_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);

/// What a stream was allowed by.
#[derive(Debug)]
pub struct Watched {
    pub cut: Rc<Cut>,
    pub stream: Stream,
    pub ip: IpAddr,
    pub method: http::Method,
    /// What the client showed.
    certificate: Option<Rc<ClientCertificate>>,
    /// The connection to end if the stream does not end by itself because its client reads nothing.
    pub connection: Rc<ConnectionSwitch>,
    /// Sweeps since the cut.
    overdue: Cell<u32>,
}

/// What flows.
#[derive(Debug)]
pub enum Stream {
    /// An exchange on a public route, on a connection with a certificate.
    Public,
    /// An exchange in the caller's own tenant.
    Home(Rc<Session>),
    /// An exchange with one managed tenant, forwarded.
    Forwarded { tenant: TenantId, route: Arc<Route>, session: Kept },
    /// An answer of the consolidated API that holds data of all these tenants.
    Consolidated { tenants: Box<[TenantId]>, spec: &'static Spec, session: Kept },
}

/// The session of a stream, as it was looked up last.
pub type Kept = RefCell<Rc<Session>>;

impl Watched {
    pub fn new(cut: Rc<Cut>, stream: Stream, ip: IpAddr, method: http::Method, peer: &Peer) -> Self {
        let (certificate, connection) = (peer.certificate.clone(), Rc::clone(&peer.switch));
        Self { cut, stream, ip, method, certificate, connection, overdue: Cell::new(0) }
    }
}

/// Ends a client connection from outside. A tunnel holds it for as long as it uses the connection.
///
/// All of it is one thread's own: to look at it is to read a cell, which the connection does whenever it is polled.
#[derive(Debug)]
pub struct ConnectionSwitch {
    asked: Cell<Asked>,
    waker: RefCell<Option<Waker>>,
    /// Given back when nobody uses the connection any more: its place among the open ones.
    _place: Box<dyn std::any::Any>,
}

/// What a connection is asked to do; it never takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Nothing,
    /// Finish what is open and end.
    Drain,
    /// End at once.
    End,
}

impl ConnectionSwitch {
    pub fn new(place: impl std::any::Any) -> Self {
        Self { asked: Cell::new(Asked::Nothing), waker: RefCell::default(), _place: Box::new(place) }
    }

    pub fn kill(&self) {
        self.ask(Asked::End);
    }

    pub fn drain(&self) {
        self.ask(Asked::Drain);
    }

    fn ask(&self, what: Asked) {
        self.asked.set(self.asked.get().max(what));
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What is asked now. The task is woken when more is; only the connection's own task calls this.
    pub fn asked(&self, cx: &Context<'_>) -> Asked {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.asked.get()
    }
}

/// All open streams of one worker.
#[derive(Debug, Default)]
pub struct OpenStreams {
    next: Cell<u64>,
    open: RefCell<HashMap<u64, Rc<Watched>, ahash::RandomState>>,
}

/// Takes the stream off the list when dropped.
#[derive(Debug)]
pub struct Registration {
    streams: Rc<OpenStreams>,
    key: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.streams.open.borrow_mut().remove(&self.key);
    }
}

impl OpenStreams {
    pub fn register(self: &Rc<Self>, watched: Rc<Watched>) -> Registration {
        let key = self.next.get();
        self.next.set(key.wrapping_add(1));
        self.open.borrow_mut().insert(key, watched);
        Registration { streams: Rc::clone(self), key }
    }

    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One look at all open streams.
pub async fn sweep(worker: &Rc<Worker>) {
    let open: Vec<Rc<Watched>> = worker.streams.open.borrow().values().cloned().collect();
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
    }
}

/// Why a stream may not go on; `None` while it may.
pub async fn ended(worker: &Rc<Worker>, watched: &Watched) -> Option<&'static str> {
    if !certificate::counts(worker, watched.certificate.as_deref(), Millis::now()) {
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
