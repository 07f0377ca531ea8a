//! The endpoints among which one request may choose: an upstream's shared ones, or those of one tenant's own address. Two
//! clusters have no endpoint in common, so that neither balancing nor failover ever leads from one tenant to another.
//!
//! A cluster has its own places for requests, its own queue and its own retry budget; its names are looked up and its
//! endpoints checked in rounds of its own. So what goes wrong in one is not felt in another.
//!
//! The list is replaced as a whole, by the one look-up at a time that changes it; requests read it without a lock. An
//! address that stays keeps its endpoint, with its health and its connections.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{
    asker::Blame,
    balance::{self, Among},
    bounds::{Bounds, Load},
    budget::Budget,
    endpoint::{Endpoint, Picked},
    resolve::{self, Resolve},
    settings::{Origin, OutlierSettings},
    tally::Tally,
};

type Members = Vec<Arc<Endpoint>>;

/// Rounds of look-ups after which a tenant's name that nobody asks for is forgotten until somebody does.
const IDLE_ROUNDS: u32 = 10;

/// What a cluster is configured with beside its addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Tenants have it in common.
    pub(super) shared: bool,
    pub(super) outlier: OutlierSettings,
    pub(super) bounds: Bounds,
}

#[derive(Debug)]
pub struct Cluster {
    /// As configured.
    origins: Box<[Origin]>,
    rules: Rules,
    load: Arc<Load>,
    members: ArcSwap<Members>,
    /// Serialises ejections and changes of the list.
    changing: Mutex<()>,
    /// Some origin is a host name.
    named: bool,
    /// Used since the last round of look-ups; kept for names only.
    asked: AtomicBool,
    idle_rounds: AtomicU32,
    /// Look-ups that came to an end; and the one on demand.
    rounds: AtomicU64,
    looking_up: tokio::sync::Mutex<()>,
    /// The last look-up failed.
    unresolved: AtomicBool,
    /// Somebody could not connect: its names are looked up before their time.
    moved: Notify,
}

impl Cluster {
    /// Takes over what `before`, the same cluster of the configuration of before, knows of endpoints that stay, and the
    /// requests that are still under way.
    pub(super) fn new(origins: Vec<Origin>, rules: Rules, before: Option<&Self>) -> Self {
        let known = before.map(|before| before.members.load_full()).unwrap_or_default();
        let mut members = Members::new();
        for origin in &origins {
            match literal(origin) {
                Some(address) => members.push(endpoint(&known, origin, address)),
                None => members.extend(known.iter().filter(|known| known.origin() == origin).map(Arc::clone)),
            }
        }
        Self {
            named: origins.iter().any(|origin| literal(origin).is_none()),
            origins: origins.into(),
            rules,
            load: before.map(|before| Arc::clone(&before.load)).unwrap_or_default(),
            // Nobody has asked for a new tenant's names yet.
            asked: AtomicBool::new(!members.is_empty()),
            members: ArcSwap::from_pointee(members),
            changing: Mutex::default(),
            idle_rounds: AtomicU32::new(0),
            rounds: AtomicU64::new(0),
            looking_up: tokio::sync::Mutex::default(),
            unresolved: AtomicBool::new(false),
            moved: Notify::new(),
        }
    }

    /// Its configuration comes into force: what the one before found holds as far as this one would have found it.
    pub(super) fn take_over(&self, checked: bool) {
        let turn = self.turn();
        let members = self.members.load_full();
        for member in members.iter() {
            if !checked {
                member.checked.forget();
            }
            if self.rules.outlier.consecutive_failures == 0 {
                member.outlier.give_back();
            }
        }
        self.replace(&turn, members.to_vec(), super::clock::now());
    }

    /// A panic elsewhere leaves it whole: the list is replaced by one store.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    pub(super) fn is_shared(&self) -> bool {
        self.rules.shared
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.rules.bounds
    }

    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.load.budget
    }

    pub(super) fn look_up_soon(&self) {
        self.moved.notify_one();
    }

    /// Until somebody could not connect.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// All endpoints known now.
    pub(super) fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// An endpoint for a request that was sent to those of `tried` before. `None`: there is none (more).
    pub(super) fn pick(&self, tried: &[u64], tally: &Tally) -> Option<Picked> {
        if self.named && !self.asked.load(Relaxed) {
            self.asked.store(true, Relaxed);
        }
        let members = self.members.load();
        match members.as_slice() {
            [] => None,
            [only] => tried.is_empty().then(|| Picked::only(only)),
            many => {
                let now = super::clock::now();
                let draw = |below| fastrand::usize(..below);
                let (endpoint, among) = balance::choose(many, self.rules.outlier.panic_threshold, tried, now, draw)?;
                if among == Among::All {
                    tally.panics.add();
                }
                Some(Picked::weighed(endpoint))
            }
        }
    }

    /// Takes in that an endpoint failed a request. True: it was ejected.
    pub(super) fn failed(&self, endpoint: &Endpoint, blame: Blame, now: u64) -> bool {
        // Whose own it is takes it away from nobody else.
        let blame = if self.rules.shared { blame } else { Blame::Service };
        if !endpoint.outlier.failed(&self.rules.outlier, blame, now) {
            return false;
        }
        let _turn = self.turn();
        let members = self.members.load();
        // Another worker was faster, or its address is gone.
        if endpoint.outlier.is_ejected(now) || !members.iter().any(|member| member.id() == endpoint.id()) {
            return false;
        }
        if !self.allows(ejected(&members, now) + 1, members.len()) {
            return false;
        }
        let time = endpoint.outlier.eject(&self.rules.outlier, now);
        tracing::warn!(origin = %endpoint.origin(), address = %endpoint.address(), ?time,
            failures = self.rules.outlier.consecutive_failures, "an endpoint failed too often in a row and is ejected");
        true
    }

    /// Whether so many of so many may be ejected.
    fn allows(&self, ejected: usize, of: usize) -> bool {
        ejected * 100 <= usize::try_from(self.rules.outlier.max_ejection_percent).unwrap_or(100) * of
    }

    /// Replaces the list. Where fewer are left than the ejected are allowed among, those whose time is over first come back.
    fn replace(&self, _turn: &MutexGuard<'_, ()>, members: Members, now: u64) {
        let mut out: Vec<_> = members.iter().filter(|member| member.outlier.is_ejected(now)).collect();
        out.sort_unstable_by_key(|member| std::cmp::Reverse(member.outlier.until()));
        while !self.allows(out.len(), members.len())
            && let Some(next) = out.pop()
        {
            next.outlier.give_back();
        }
        self.members.store(Arc::new(members));
    }

    /// From now on the name of this origin has these addresses.
    pub(super) fn resolved(&self, origin: &Origin, addresses: &[SocketAddr], now: u64) {
        let turn = self.turn();
        let known = self.members.load_full();
        let mut members = Members::with_capacity(known.len());
        for configured in &self.origins {
            if configured == origin {
                members.extend(addresses.iter().map(|address| endpoint(&known, origin, *address)));
            } else {
                members.extend(known.iter().filter(|known| known.origin() == configured).map(Arc::clone));
            }
        }
        let same = known.len() == members.len() && known.iter().zip(&members).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            tracing::info!(%origin, ?addresses, "the name has other addresses");
            self.replace(&turn, members, now);
        }
    }

    /// Looks all names up, each for itself: one that nobody answers for delays no other. What cannot be looked up keeps its
    /// last known addresses. False: some failed.
    pub(super) async fn refresh(&self, resolver: &dyn Resolve, tally: &Tally) -> bool {
        let names = self.origins.iter().filter(|origin| literal(origin).is_none());
        let looked_up = names.map(async |origin| match resolve::addresses(resolver, origin).await {
            Ok(addresses) => {
                self.resolved(origin, &addresses, super::clock::now());
                true
            }
            Err(error) => {
                self.unresolved(origin, &error, tally);
                false
            }
        });
        let found = join_all(looked_up).await.into_iter().all(|found| found);
        self.unresolved.store(!found, Relaxed);
        self.rounds.fetch_add(1, Relaxed);
        found
    }

    fn unresolved(&self, origin: &Origin, error: &std::io::Error, tally: &Tally) {
        tally.resolution_failures.add();
        let known = self.members.load().iter().filter(|member| member.origin() == origin).count();
        if self.unresolved.load(Relaxed) {
            tracing::debug!(%origin, %error, known, "a host name still cannot be looked up");
        } else if known == 0 {
            tracing::warn!(%origin, %error, "a host name cannot be looked up, and no address of it is known");
        } else {
            tracing::warn!(%origin, %error, known,
                "a host name cannot be looked up; the addresses known before stay in use");
        }
    }

    /// Looks the names up for a request that finds no endpoint; requests that come together wait for one look-up. False:
    /// there is still none.
    pub(super) async fn look_up(&self, resolver: &dyn Resolve, tally: &Tally) -> bool {
        let before = self.rounds.load(Relaxed);
        let _one = self.looking_up.lock().await;
        if self.members.load().is_empty() && self.rounds.load(Relaxed) == before {
            self.refresh(resolver, tally).await;
        }
        !self.members.load().is_empty()
    }

    /// Whether its names are worth a look-up in this round: a tenant's that nobody has asked for long is forgotten.
    pub(super) fn is_due(&self) -> bool {
        if self.rules.shared {
            return true;
        }
        let asked = self.asked.swap(false, Relaxed);
        if asked {
            self.idle_rounds.store(0, Relaxed);
        } else if self.idle_rounds.fetch_add(1, Relaxed) >= IDLE_ROUNDS {
            let turn = self.turn();
            let known = self.members.load_full();
            let literals = known.iter().filter(|member| literal(member.origin()).is_some()).map(Arc::clone);
            self.replace(&turn, literals.collect(), super::clock::now());
            return false;
        }
        // Where the look-up of a request took too long, this one has the time.
        asked || !self.members.load().is_empty()
    }
}

/// The known one, or a new one.
fn endpoint(known: &[Arc<Endpoint>], origin: &Origin, address: SocketAddr) -> Arc<Endpoint> {
    let same = |known: &&Arc<Endpoint>| known.origin() == origin && known.address() == address;
    known.iter().find(same).map_or_else(|| Endpoint::new(origin, address), Arc::clone)
}

/// The address itself, where no name stands for it.
fn literal(origin: &Origin) -> Option<SocketAddr> {
    let host: IpAddr = origin.host().parse().ok()?;
    Some(SocketAddr::new(host, origin.port()))
}

fn ejected(members: &[Arc<Endpoint>], now: u64) -> usize {
    members.iter().filter(|member| member.outlier.is_ejected(now)).count()
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
