//! What all workers share, and what each keeps for itself.
//!
//! A worker is one thread with a runtime of its own. What it keeps hot (sessions, decisions, signatures, upstream
//! connections, open streams) is its own and needs no lock; what is shared is immutable or behind an arc-swap.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll},
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, Sleep},
};

use super::{
    body::RequestBody,
    certificate::ClientCertificate,
    headers::StripList,
    metrics::Metrics,
    routes::{Route, Routes},
    session::Session,
    streams::OpenStreams,
    vitals::Vitals,
};
use crate::{
    audit::Journal,
    config::settings::Config,
    domain::Millis,
    identity::{Caller, Keyring, SignedCache, TokenCache, Verifier},
    limit::Limits,
    policy::{Memo, Policies, ShadowSet},
    portal::{Portal, metrics::Metrics as PortalMetrics},
    spans::Spans,
    store::Directory,
    tls::ServerTls,
    upstream::{Pool, Upstream},
};

/// Shared by all workers.
#[derive(Debug)]
pub struct Gateway {
    pub settings: Config,
    pub routes: Routes,
    pub upstreams: Vec<Arc<Upstream>>,
    pub policies: Arc<Policies>,
    /// Asked beside them, never enforced.
    pub shadow: Option<Arc<ShadowSet>>,
    pub verifier: Arc<Verifier>,
    pub keyring: Option<Arc<Keyring>>,
    /// Public keys of audit checkpoints, as they are published; `None`: none are configured.
    pub audit_keys: Option<String>,
    pub directory: Arc<Directory>,
    pub journal: Arc<Journal>,
    pub limits: Limits,
    /// Of the public listener; `None`: cleartext.
    pub tls: Option<Arc<ServerTls>>,
    /// Of the admin listener; `None`: cleartext.
    pub admin_tls: Option<Arc<ServerTls>>,
    /// `None`: switched off.
    pub portal: Option<Arc<Portal>>,
    pub metrics: Metrics,
    pub portal_metrics: Arc<PortalMetrics>,
    /// `None`: no spans are made.
    pub spans: Option<Arc<Spans>>,
    pub strip: Arc<StripList>,
    pub no_policies: Arc<[Arc<str>]>,
    /// The runtime that owns database, key fetching and background work.
    pub service: tokio::runtime::Handle,
    /// The drain deadline passed: what ends from now on is ended by the gateway.
    pub stopping: Arc<AtomicBool>,
    /// Keeps the verifier's keys fresh.
    pub upkeep: Upkeep,
    /// Whether what runs beside the requests still does.
    pub vitals: Vitals,
}

/// A task that ends with what it is for.
#[derive(Debug)]
pub struct Upkeep(JoinHandle<()>);

impl Upkeep {
    pub fn of(task: JoinHandle<()>) -> Self {
        Self(task)
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The gateway of the configuration in force. Whoever holds one from before ends its work under it.
#[derive(Debug)]
pub struct Live(watch::Sender<Arc<Gateway>>);

impl Live {
    pub fn new(gateway: Gateway) -> Self {
        Self(watch::Sender::new(Arc::new(gateway)))
    }

    pub fn current(&self) -> Arc<Gateway> {
        Arc::clone(&self.0.borrow())
    }

    pub fn follow(&self) -> watch::Receiver<Arc<Gateway>> {
        self.0.subscribe()
    }

    /// From now on this one.
    pub fn change_over(&self, gateway: Arc<Gateway>) {
        self.0.send_replace(gateway);
    }
}

/// The worker that new requests of a thread are for: another one after each reload.
#[derive(Debug)]
pub struct Duty(RefCell<Rc<Worker>>);

impl Duty {
    pub fn of(worker: Rc<Worker>) -> Rc<Self> {
        Rc::new(Self(RefCell::new(worker)))
    }

    pub fn worker(&self) -> Rc<Worker> {
        Rc::clone(&self.0.borrow())
    }

    pub fn hand_over(&self, worker: Rc<Worker>) {
        self.0.replace(worker);
    }
}

/// How the listener says that a request stands for an inexact one (see `server::guard`).
pub type StandIn = fn(&str, Option<&str>) -> Option<String>;

/// One worker's own.
#[derive(Debug)]
pub struct Worker {
    pub gateway: Arc<Gateway>,
    pub memo: RefCell<Memo>,
    /// The shadow set's own; empty where there is none.
    pub shadow_memo: RefCell<Memo>,
    pub signed: RefCell<SignedCache>,
    pub pool: Pool<RequestBody>,
    pub streams: Rc<OpenStreams>,
    pub stand_in: StandIn,
    /// In the order of the route table.
    pub rules: Box<[Arc<Route>]>,
    sessions: RefCell<TokenCache<Rc<Session>>>,
    /// Look-ups that found a session of now, and those that did not.
    session_lookups: Cell<(u64, u64)>,
    /// What the metrics were told last of sessions and of decisions.
    told: Cell<[(u64, u64); 2]>,
    timers: RefCell<Vec<Pin<Box<Sleep>>>>,
}

/// Most timers of one worker that are kept to be used again.
const IDLE_TIMERS: usize = 1_024;

/// A timer of a worker's, which goes back when dropped: setting one anew costs less than entering it into the runtime's
/// wheel and taking it out again with every request.
#[derive(Debug)]
pub struct Timer<'w> {
    sleep: Option<Pin<Box<Sleep>>>,
    worker: &'w Worker,
}

impl Timer<'_> {
    /// Ready once its time has come.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().map_or(Poll::Ready(()), |sleep| sleep.as_mut().poll(cx))
    }

    pub fn reset(&mut self, at: Instant) {
        if let Some(sleep) = &mut self.sleep {
            sleep.as_mut().reset(at);
        }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let mut idle = self.worker.timers.borrow_mut();
        if idle.len() < IDLE_TIMERS {
            idle.extend(self.sleep.take());
        }
    }
}

/// Most cached signatures of one worker.
const SIGNED_ENTRIES: usize = 50_000;

impl Worker {
    pub fn new(gateway: Arc<Gateway>, stand_in: StandIn) -> Rc<Self> {
        let settings = &gateway.settings;
        Rc::new(Self {
            memo: RefCell::new(Memo::new(settings.policy.memo_entries)),
            shadow_memo: RefCell::new(Memo::new(gateway.shadow.as_ref().map_or(0, |_| settings.policy.memo_entries))),
            signed: RefCell::new(SignedCache::new(SIGNED_ENTRIES)),
            pool: Pool::default(),
            streams: Rc::default(),
            stand_in,
            rules: gateway.routes.rules_of_worker(),
            sessions: RefCell::new(TokenCache::new(settings.identity.cache_tokens)),
            session_lookups: Cell::default(),
            told: Cell::default(),
            timers: RefCell::default(),
            gateway,
        })
    }

    /// A timer that goes off then.
    pub fn timer(&self, at: Instant) -> Timer<'_> {
        let idle = self.timers.borrow_mut().pop();
        let sleep = match idle {
            Some(mut sleep) => {
                sleep.as_mut().reset(at);
                sleep
            }
            None => Box::pin(tokio::time::sleep_until(at)),
        };
        Timer { sleep: Some(sleep), worker: self }
    }

    /// A session that needs no look-up: verified under the keys of now, resolved under the epoch and policies of now.
    pub fn known_session(&self, token: &str, now: Millis) -> Option<Rc<Session>> {
        let known = self.sessions.borrow_mut().get(token, self.gateway.verifier.generation(), now);
        let known = known.filter(|session| self.is_current(session));
        let (hits, misses) = self.session_lookups.get();
        let counted = if known.is_some() { (hits.wrapping_add(1), misses) } else { (hits, misses.wrapping_add(1)) };
        self.session_lookups.set(counted);
        known
    }

    /// The same for the bearer of a connection's certificate, where that is enough.
    pub fn certified_session(&self, certificate: &ClientCertificate) -> Option<Rc<Session>> {
        let session = certificate.kept_session()?;
        let current = session.keys == self.gateway.verifier.generation() && self.is_current(&session);
        current.then_some(session)
    }

    /// Whether the connection's certificate counts at this moment; where none was shown, none is missing.
    pub fn certificate_counts(&self, certificate: Option<&ClientCertificate>, now: Millis) -> bool {
        match (certificate, &self.gateway.tls) {
            (None, _) => true,
            (Some(certificate), Some(tls)) => certificate.is_good(tls, now),
            (Some(_), None) => false,
        }
    }

    /// Adds to the metrics what the caches were asked since the last time: a counter that all workers share has no place
    /// on a request's way.
    pub fn tell_caches(&self) {
        let now = [self.session_lookups.get(), self.memo.borrow().hits_and_misses()];
        let before = self.told.replace(now);
        let caches = &self.gateway.metrics.caches;
        for ((lookups, before), now) in [&caches.sessions, &caches.decisions].into_iter().zip(before).zip(now) {
            lookups.add(before, now);
        }
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

    /// Whether an emergency suspension names the connection's certificate, whatever it stands for.
    pub fn suspends(&self, certificate: Option<&ClientCertificate>) -> bool {
        certificate.is_some_and(|certificate| self.gateway.directory.suspended_token(&certificate.id))
    }

    /// Whether an emergency suspension covers this user, session or token, as far as is known now.
    pub fn is_suspended(&self, caller: &Caller) -> bool {
        let (session, jti) = (caller.session_id.as_deref(), caller.jti.as_deref());
        self.gateway.directory.suspended_subject(&caller.issuer, &caller.sub, session, jti)
    }
}
