//! What all workers share, and what each keeps for itself.
//!
//! A worker is one thread with a runtime of its own. What it keeps hot (sessions, decisions, signatures, upstream
//! connections, open streams) is its own and needs no lock; what is shared is immutable or behind an arc-swap.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    body::RequestBody,
    headers::StripList,
    metrics::Metrics,
    route::{Route, Routes},
    session::{self, Session, Unresolved},
    watch::OpenStreams,
};
use crate::{
    audit::Journal,
    config::settings::Config,
    domain::Millis,
    identity::{Caller, Keyring, SignedCache, TokenCache, Verifier},
    limit::Limits,
    policy::{Memo, Policies},
    portal::Portal,
    store::Directory,
    upstream::{Pool, Upstream},
};

/// Shared by all workers.
#[derive(Debug)]
pub struct Gateway {
    pub settings: Config,
    pub routes: Routes,
    pub upstreams: Vec<Arc<Upstream>>,
    pub policies: Arc<Policies>,
    pub verifier: Arc<Verifier>,
    pub keyring: Option<Arc<Keyring>>,
    pub directory: Arc<Directory>,
    pub journal: Arc<Journal>,
    pub limits: Limits,
    /// `None`: switched off.
    pub portal: Option<Arc<Portal>>,
    pub metrics: Metrics,
    pub strip: Arc<StripList>,
    pub no_policies: Arc<[Arc<str>]>,
    /// The runtime that owns database, key fetching and background work.
    pub service: tokio::runtime::Handle,
    /// The drain deadline passed: what ends from now on is ended by the gateway.
    pub stopping: AtomicBool,
}

/// How the listener says that a request stands for an inexact one (see `server::guard`).
pub type StandIn = fn(&str, Option<&str>) -> Option<String>;

/// One worker's own.
#[derive(Debug)]
pub struct Worker {
    pub gateway: Arc<Gateway>,
    pub memo: RefCell<Memo>,
    pub signed: RefCell<SignedCache>,
    pub pool: Pool<RequestBody>,
    pub streams: Rc<OpenStreams>,
    pub stand_in: StandIn,
    /// In the order of the route table.
    pub rules: Box<[Arc<Route>]>,
    sessions: RefCell<TokenCache<Rc<Session>>>,
}

/// Most cached signatures of one worker.
const SIGNED_ENTRIES: usize = 50_000;

impl Worker {
    pub fn new(gateway: Arc<Gateway>, stand_in: StandIn) -> Rc<Self> {
        let settings = &gateway.settings;
        Rc::new(Self {
            memo: RefCell::new(Memo::new(settings.policy.memo_entries)),
            signed: RefCell::new(SignedCache::new(SIGNED_ENTRIES)),
            pool: Pool::default(),
            streams: Rc::default(),
            stand_in,
            rules: gateway.routes.rules_of_worker(),
            sessions: RefCell::new(TokenCache::new(settings.identity.cache_tokens)),
            gateway,
        })
    }

    /// A session that needs no look-up: verified under the keys of now, resolved under the epoch and policies of now.
    pub fn known_session(&self, token: &str, now: Millis) -> Option<Rc<Session>> {
        let session = self.sessions.borrow_mut().get(token, self.gateway.verifier.generation(), now)?;
        self.is_current(&session).then_some(session)
    }

    /// The caller of a token that was verified before; its account has to be looked up anew.
    pub fn verified_caller(&self, token: &str, keys: u64, now: Millis) -> Option<Arc<Caller>> {
        self.sessions.borrow_mut().get(token, keys, now).map(|session| Arc::clone(&session.caller))
    }

    pub fn keep_session(&self, token: &str, session: &Rc<Session>) {
        self.sessions.borrow_mut().put(token, session.keys, Rc::clone(session));
    }

    /// Whether keys aside nothing has changed since the session was resolved.
    pub fn is_current(&self, session: &Session) -> bool {
        session.epoch == self.gateway.directory.epoch() && session.policies == self.gateway.policies.load().generation()
    }

    /// The same bearer under the facts of now, for a cross-tenant stream.
    pub async fn refreshed(&self, session: &Rc<Session>) -> Result<Rc<Session>, Unresolved> {
        if self.is_current(session) {
            return Ok(Rc::clone(session));
        }
        session::resolve(self, Arc::clone(&session.caller), session.keys).await
    }
}
