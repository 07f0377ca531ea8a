//! Open streams of one worker, each with what it was allowed by.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    body::Cut,
    certificate::ClientCertificate,
    peer::{ConnectionSwitch, Peer},
    routes::Route,
    session::Session,
};
use crate::{domain::TenantId, portal::Spec};

/// What a stream was allowed by.
#[derive(Debug)]
pub struct Watched {
    pub cut: Rc<Cut>,
    pub stream: Stream,
    pub ip: IpAddr,
    pub method: http::Method,
    /// When the route's total time is over.
    pub until: Option<Instant>,
    /// What the client showed.
    pub(super) certificate: Option<Rc<ClientCertificate>>,
    /// The connection to end if the stream does not end by itself because its client reads nothing.
    pub connection: Rc<ConnectionSwitch>,
    /// Sweeps since the cut.
    pub(super) overdue: Cell<u32>,
}

/// What flows.
#[derive(Debug)]
pub enum Stream {
    /// An exchange on a public route, on a connection with a certificate or with a total time.
    Public,
    /// An exchange in the caller's own tenant.
    Home(Kept),
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
        Self { cut, stream, ip, method, until: None, certificate, connection, overdue: Cell::new(0) }
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

    pub(super) fn all(&self) -> Vec<Rc<Watched>> {
        self.open.borrow().values().cloned().collect()
    }

    /// Ends the connections of all of them.
    pub fn kill_all(&self) {
        self.all().iter().for_each(|watched| watched.connection.kill());
    }

    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
