//! Keys that change while the gateway runs: from a file, or from an address.
//!
//! A document without usable keys never replaces good keys. Keys of an address are kept through an outage up to
//! `max_age` after the last good fetch, then they are gone, and the generation moves on so that cached tokens go with
//! them. Fetches run in one place (`maintain`), one at a time; workers that met an unknown `kid` ask for one and
//! share it. Asked-for fetches start at most once in `min_refetch`, whatever is asked by whomever.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, watch};

use super::{
    error::IdentityError,
    fetch::{FETCH_TIMEOUT, Fetcher},
    generation::Generation,
    jwks,
    key::{Alg, KeySet},
    mint::DevKey,
};

/// Most requests that wait for a fetch at once; further ones are refused without waiting.
const MAX_WAITERS: usize = 1024;
/// Pauses after failed fetches grow to this, or to `refresh` where that is shorter.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(60);
/// A shorter `refresh` would only hammer.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// A file that keys come from.
pub(super) enum KeyFile {
    /// A JWKS document.
    Set(PathBuf),
    /// The private key of `linkgate token`: its public part is the set.
    Development(PathBuf),
}

impl KeyFile {
    fn document(&self, issuer: &Arc<str>) -> Result<Vec<u8>, IdentityError> {
        match self {
            Self::Set(path) => std::fs::read(path).map_err(|source| IdentityError::ReadJwks {
                issuer: issuer.clone(),
                path: path.clone(),
                source,
            }),
            Self::Development(path) => match DevKey::read(path) {
                Ok(key) => Ok(key.jwks().into_bytes()),
                Err(source) => Err(IdentityError::DevelopmentKey { issuer: issuer.clone(), source }),
            },
        }
    }
}

/// Keys of a file.
pub(super) struct FileKeys {
    issuer: Arc<str>,
    file: KeyFile,
    algorithms: Vec<Alg>,
    set: ArcSwap<KeySet>,
}

impl FileKeys {
    pub(super) fn load(issuer: Arc<str>, file: KeyFile, algorithms: Vec<Alg>) -> Result<Self, IdentityError> {
        let set = ArcSwap::from_pointee(KeySet::default());
        let keys = Self { issuer, file, algorithms, set };
        keys.reload()?;
        Ok(keys)
    }

    pub(super) fn current(&self) -> Arc<KeySet> {
        self.set.load_full()
    }

    /// Whether the keys changed. On an error the keys in force stay.
    pub(super) fn reload(&self) -> Result<bool, IdentityError> {
        let document = self.file.document(&self.issuer)?;
        let set = jwks::parse(&document, &self.algorithms)
            .map_err(|problem| IdentityError::Jwks { issuer: self.issuer.clone(), problem })?;
        if set.same_as(&self.set.load()) {
            return Ok(false);
        }
        self.set.store(Arc::new(set));
        Ok(true)
    }
}

/// The intervals of a remote key set.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub(super) refresh: Duration,
    pub(super) min_refetch: Duration,
    pub(super) max_age: Duration,
}

/// Keys behind an address.
pub(super) struct RemoteKeys {
    issuer: Arc<str>,
    algorithms: Vec<Alg>,
    timing: Timing,
    fetcher: Fetcher,
    held: ArcSwapOption<Held>,
    gate: Mutex<Gate>,
    /// Wakes `maintain`; what for stands in the gate.
    wake: Notify,
    /// Counts ended fetches.
    ended: watch::Sender<u64>,
    waiters: AtomicUsize,
}

struct Held {
    set: Arc<KeySet>,
    until: Instant,
}

#[derive(Default)]
struct Gate {
    /// `maintain` runs; without it nobody would answer.
    maintained: bool,
    wanted: bool,
    running: bool,
    last_start: Option<Instant>,
}

impl RemoteKeys {
    pub(super) fn new(
        issuer: Arc<str>,
        url: &str,
        algorithms: Vec<Alg>,
        timing: Timing,
    ) -> Result<Self, IdentityError> {
        let fetcher = Fetcher::new(&issuer, url)?;
        Ok(Self {
            issuer,
            algorithms,
            timing,
            fetcher,
            held: ArcSwapOption::empty(),
            gate: Mutex::new(Gate::default()),
            wake: Notify::new(),
            ended: watch::Sender::new(0),
            waiters: AtomicUsize::new(0),
        })
    }

    /// The keys in force, unless they are past their age.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.held.load().as_ref().filter(|held| Instant::now() < held.until).map(|held| held.set.clone())
    }

    /// Asks for a fetch and waits for its end. False at once where none may start now.
    pub(super) async fn refetch(&self) -> bool {
        // Before asking, so that an end between the two is not missed.
        let mut ended = self.ended.subscribe();
        let waiter = Waiter::enter(&self.waiters);
        if waiter.is_none() || !self.ask() {
            return false;
        }
        tokio::time::timeout(FETCH_TIMEOUT * 2, ended.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    fn ask(&self) -> bool {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if !gate.maintained {
            return false;
        }
        if gate.running || gate.wanted {
            return true;
        }
        if gate.last_start.is_some_and(|last| last.elapsed() < self.timing.min_refetch) {
            return false;
        }
        gate.wanted = true;
        drop(gate);
        self.wake.notify_one();
        true
    }

    /// Asks for a fetch without waiting, at the operator's wish: `min_refetch` does not bind.
    pub(super) fn fetch_soon(&self) {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).wanted = true;
        self.wake.notify_one();
    }

    /// Fetches at start, at each refresh and when asked to; drops keys past their age.
    pub(super) async fn maintain(&self, generation: &Generation) {
        let _running = Maintained::enter(self);
        let mut failures: u32 = 0;
        loop {
            failures = if self.fetch_once(generation).await { 0 } else { failures.saturating_add(1) };
            let next = tokio::time::Instant::now() + self.pause(failures);
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(next) => break,
                    () = self.wake.notified() => {
                        if self.gate.lock().unwrap_or_else(PoisonError::into_inner).wanted {
                            break;
                        }
                    }
                    () = self.aged() => self.drop_keys(generation),
                }
            }
        }
    }

    async fn fetch_once(&self, generation: &Generation) -> bool {
        {
            let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            gate.wanted = false;
            gate.running = true;
            gate.last_start = Some(Instant::now());
        }
        let started = Instant::now();
        let fetched = tokio::select! {
            document = self.fetcher.fetch() => document,
            // Keys do not outlive their age because a fetch hangs.
            () = async { self.aged().await; self.drop_keys(generation); std::future::pending().await } => return false,
        };
        let outcome = match fetched {
            Ok(document) => jwks::parse(&document, &self.algorithms).map_err(|problem| problem.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let good = match outcome {
            Ok(set) => {
                self.hold(set, started, generation);
                true
            }
            Err(problem) => {
                self.complain(&problem);
                false
            }
        };
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).running = false;
        self.ended.send_modify(|count| *count = count.wrapping_add(1));
        good
    }

    fn complain(&self, problem: &str) {
        let issuer = &self.issuer;
        match &*self.held.load() {
            Some(held) => {
                tracing::warn!(%issuer, problem, seconds = held.until.saturating_duration_since(Instant::now()).as_secs(),
                "the key set could not be fetched; the last good one stays for so long (`jwks_max_age`)")
            }
            None => tracing::warn!(%issuer, problem,
                "the key set could not be fetched, and there is none: tokens of this issuer are refused"),
        }
    }

    /// The age counts from the start of the fetch that brought the keys.
    fn hold(&self, set: KeySet, fetched: Instant, generation: &Generation) {
        let until = fetched + self.timing.max_age;
        let before = self.held.load_full();
        let unchanged = before.filter(|held| held.set.same_as(&set)).map(|held| held.set.clone());
        let changed = unchanged.is_none();
        let set = unchanged.unwrap_or_else(|| Arc::new(set));
        self.held.store(Some(Arc::new(Held { set, until })));
        if changed {
            generation.advance();
            tracing::info!(issuer = %self.issuer, "the key set changed");
        }
    }

    /// Resolves when the held keys are past their age; never where none are held.
    async fn aged(&self) {
        let until = self.held.load().as_ref().map(|held| held.until);
        match until {
            Some(until) => tokio::time::sleep_until(until.into()).await,
            None => std::future::pending().await,
        }
    }

    fn drop_keys(&self, generation: &Generation) {
        self.held.store(None);
        generation.advance();
        tracing::error!(issuer = %self.issuer, "the key set is older than `max_age`: tokens of this issuer are refused");
    }

    /// A little less than `refresh`, at random, so that replicas do not fetch in step; growing pauses after failures.
    fn pause(&self, failures: u32) -> Duration {
        let base = match failures {
            0 => self.timing.refresh,
            _ => {
                let first = self.timing.min_refetch.min(Duration::from_secs(1));
                let grown = first.saturating_mul(1 << (failures - 1).min(10));
                grown.min(MAX_RETRY_PAUSE).min(self.timing.refresh)
            }
        };
        let mut random = [0];
        // Without randomness: no jitter.
        let share = aws_lc_rs::rand::fill(&mut random).map_or(0, |()| u32::from(random[0]));
        (base - base / 10 * share / 255).max(MIN_PAUSE)
    }
}

/// One place among those that wait.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let waiter = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < MAX_WAITERS).then_some(waiter)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Marks the gate while `maintain` runs. When its task is dropped, nobody is left waiting for it.
struct Maintained<'a>(&'a RemoteKeys);

impl<'a> Maintained<'a> {
    fn enter(keys: &'a RemoteKeys) -> Self {
        keys.gate.lock().unwrap_or_else(PoisonError::into_inner).maintained = true;
        Self(keys)
    }
}

impl Drop for Maintained<'_> {
    fn drop(&mut self) {
        *self.0.gate.lock().unwrap_or_else(PoisonError::into_inner) = Gate::default();
        self.0.ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}
