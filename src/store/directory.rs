//! Who a caller is and which links their partner has, as fresh as the change feed: the read side of the store.
//!
//! One moka entry a partner (an immutable portfolio) and one a member, unknown ones included. Every look-up checks the
//! entry against the changes seen (`changes`), so an entry that lost a race against a change is in the cache at most as
//! a corpse: it is never answered. Loads run on the runtime that started the directory, whoever asks; loads of the same
//! key are one load.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use prometheus::Histogram;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use super::{
    Database, StoreError,
    admin::{Change, Touch},
    changes::Key,
    feed::{Feed, Known},
    portfolio::{Loaded, load_member, load_portfolio},
};
use crate::{
    config::settings::LinkSettings,
    domain::{Member, PartnerId, Portfolio},
};

/// Longest wait for one load.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while the feed is stale: only home requests still ask, and they must not hang on a database that is away.
const STALE_LOAD_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a load that was overtaken by a change is read again before the caller is refused.
const MOST_ATTEMPTS: usize = 10;
/// Members cached for each partner that may be cached.
const MEMBERS_PER_PARTNER: u64 = 16;
/// A portfolio counts as one partner more for each so many links.
const LINKS_PER_WEIGHT: usize = 1_000;

/// What an answer may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Any request: an answer is refused while the feed is stale.
    Fresh,
    /// Home requests only: while the feed is stale or the database away, what was known last will do.
    HomeOnly,
}

/// Why there is no answer; cross-tenant requests are refused with `LINKS_STALE`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinksUnavailable {
    #[error("the link change feed is older than the staleness bound")]
    Stale,
    #[error("links cannot be loaded")]
    Load(#[source] Arc<StoreError>),
    #[error("links could not be loaded in time")]
    TimedOut,
    #[error("links changed faster than they could be loaded")]
    Overtaken,
}

/// A cached answer. `value` of `None`: there is no such partner or member.
struct Entry<T> {
    era: u64,
    as_of: u64,
    value: Option<Arc<T>>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self { era: self.era, as_of: self.as_of, value: self.value.clone() }
    }
}

type Flight<T> = Shared<BoxFuture<'static, Result<Entry<T>, LinksUnavailable>>>;

/// One cache with its loads under way.
struct Shelf<K, T> {
    cache: moka::sync::Cache<K, Entry<T>, ahash::RandomState>,
    flights: Mutex<HashMap<K, Flight<T>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct MemberKey {
    issuer: Box<str>,
    sub: Box<str>,
}

/// Looks up a `MemberKey` without making one: hashes like it.
#[derive(Hash)]
struct MemberRef<'a> {
    issuer: &'a str,
    sub: &'a str,
}

impl moka::Equivalent<MemberKey> for MemberRef<'_> {
    fn equivalent(&self, key: &MemberKey) -> bool {
        *self.issuer == *key.issuer && *self.sub == *key.sub
    }
}

/// Called between reading and publishing a load: where a test lets a change in.
#[doc(hidden)]
pub type LoadHook = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The read side; shared by all workers.
pub struct Directory {
    db: Database,
    known: Arc<Known>,
    portfolios: Arc<Shelf<PartnerId, Portfolio>>,
    members: Arc<Shelf<MemberKey, Member>>,
    service: Handle,
    feed: JoinHandle<()>,
    /// Tells the feed to end, and is closed when it has.
    stop_feed: watch::Sender<bool>,
    feed_over: watch::Receiver<()>,
    after_read: Option<LoadHook>,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("db", &self.db).field("fresh", &self.is_fresh()).finish_non_exhaustive()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

impl Directory {
    /// Starts the change feed on the current runtime, where all loads will run too. Not fresh until the first poll.
    pub fn start(db: &Database, settings: &LinkSettings) -> Arc<Self> {
        Self::start_with(db, settings, None)
    }

    /// For tests that let a change in between reading and publishing.
    #[doc(hidden)]
    pub fn start_with(db: &Database, settings: &LinkSettings, after_read: Option<LoadHook>) -> Arc<Self> {
        let known = Arc::new(Known::new(settings.max_staleness));
        let (stop_feed, stop) = watch::channel(false);
        let (over, feed_over) = watch::channel(());
        let feed = Feed { db: db.clone(), known: Arc::clone(&known), settings: settings.clone(), stop, _over: over };
        let most = settings.cached_partners.max(1);
        let portfolios = moka::sync::Cache::builder()
            .max_capacity(most)
            .weigher(|_: &PartnerId, entry: &Entry<Portfolio>| {
                let links = entry.value.as_ref().map_or(0, |portfolio| portfolio.links.len());
                u32::try_from(1 + links / LINKS_PER_WEIGHT).unwrap_or(u32::MAX)
            })
            .build_with_hasher(ahash::RandomState::new());
        let members = moka::sync::Cache::builder()
            .max_capacity(most.saturating_mul(MEMBERS_PER_PARTNER))
            .build_with_hasher(ahash::RandomState::new());
        Arc::new(Self {
            db: db.clone(),
            known,
            portfolios: Arc::new(Shelf { cache: portfolios, flights: Mutex::default() }),
            members: Arc::new(Shelf { cache: members, flights: Mutex::default() }),
            service: Handle::current(),
            feed: tokio::spawn(feed.run()),
            stop_feed,
            feed_over,
            after_read,
        })
    }

    /// Waits until the change feed has ended, be it by a panic. Nothing is fresh soon after.
    pub async fn feed_over(&self) {
        // Nothing is ever sent: an error says that the sender is gone.
        while self.feed_over.clone().changed().await.is_ok() {}
    }

    /// Ends the change feed and closes its connection.
    pub async fn end(&self) {
        self.stop_feed.send_replace(true);
        self.feed_over().await;
    }

    /// Whether every change committed more than the staleness bound ago is known. Cheap: for every request.
    pub fn is_fresh(&self) -> bool {
        self.known.is_fresh()
    }

    /// From now on this is told how old changes are when they are known here. The first call counts.
    pub fn observe_latency(&self, histogram: Histogram) {
        self.known.latency.set(histogram).ok();
    }

    /// Grows with every invalidation. Who keeps answers of their own reads it *before* asking, and asks again once it
    /// has grown.
    pub fn epoch(&self) -> u64 {
        self.known.changes.epoch()
    }

    /// A change made by this process, in force here at once instead of at the next poll.
    pub async fn notice(&self, change: &Change) {
        if change.seq == 0 {
            return;
        }
        if change.touched.iter().any(|touch| matches!(touch, Touch::Suspensions | Touch::All)) {
            // Before the epoch grows. Where this fails, the feed does the same at its next poll.
            self.known.reload_suspended(&self.db, false).await.ok();
        }
        self.known.changes.note(change.seq, &change.touched);
    }

    /// Whether an emergency suspension covers this user, session or token; everyone, until the first poll.
    pub fn suspended_subject(&self, issuer: &str, sub: &str, session: Option<&str>, jti: Option<&str>) -> bool {
        self.known.is_suspended(issuer, sub, session, jti)
    }

    /// The same for a token or a certificate alone.
    pub fn suspended_token(&self, id: &str) -> bool {
        self.known.is_suspended_token(id)
    }

    /// The portfolio, if it is cached, valid, and the feed fresh.
    pub fn portfolio_cached(&self, partner: PartnerId) -> Option<Arc<Portfolio>> {
        let entry = self.portfolios.cache.get(&partner)?;
        (self.is_fresh() && self.valid(self.known.changes.partner(partner), &entry)).then_some(entry.value)?
    }

    /// The portfolio of a partner; `None` where there is no such partner.
    pub async fn portfolio(
        self: &Arc<Self>,
        partner: PartnerId,
        reading: Reading,
    ) -> Result<Option<Arc<Portfolio>>, LinksUnavailable> {
        let cached = self.portfolios.cache.get(&partner);
        let db = self.db.clone();
        let load = move || load_portfolio(db.clone(), partner).boxed();
        let key = self.known.changes.partner(partner);
        self.answer(&self.portfolios, partner, key, cached, reading, load).await
    }

    /// The member, if it is cached, valid, and the feed fresh. `Some(None)`: it is known that there is none.
    pub fn member_cached(&self, issuer: &str, sub: &str) -> Option<Option<Arc<Member>>> {
        let entry = self.members.cache.get(&MemberRef { issuer, sub })?;
        (self.is_fresh() && self.valid(self.known.changes.member(issuer, sub), &entry)).then_some(entry.value)
    }

    /// Whom (issuer, `sub`) names; `None` where no partner knows them.
    pub async fn member(
        self: &Arc<Self>,
        issuer: &str,
        sub: &str,
        reading: Reading,
    ) -> Result<Option<Arc<Member>>, LinksUnavailable> {
        let cached = self.members.cache.get(&MemberRef { issuer, sub });
        let key = MemberKey { issuer: issuer.into(), sub: sub.into() };
        let (db, named) = (self.db.clone(), key.clone());
        let load = move || load_member(db.clone(), named.issuer.clone(), named.sub.clone()).boxed();
        let change_key = self.known.changes.member(issuer, sub);
        self.answer(&self.members, key, change_key, cached, reading, load).await
    }

    fn valid<T>(&self, key: Key, entry: &Entry<T>) -> bool {
        self.known.changes.valid(key, entry.era, entry.as_of)
    }

    async fn answer<K, T>(
        &self,
        shelf: &Arc<Shelf<K, T>>,
        key: K,
        change_key: Key,
        cached: Option<Entry<T>>,
        reading: Reading,
        load: impl Fn() -> BoxFuture<'static, Result<Loaded<Option<T>>, StoreError>>,
    ) -> Result<Option<Arc<T>>, LinksUnavailable>
    where
        K: Clone + Eq + Hash + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        let fresh = self.is_fresh();
        match (&cached, reading) {
            (Some(entry), _) if fresh && self.valid(change_key, entry) => return Ok(entry.value.clone()),
            (Some(entry), Reading::HomeOnly) if !fresh => return Ok(entry.value.clone()),
            (_, Reading::Fresh) if !fresh => return Err(LinksUnavailable::Stale),
            _ => {}
        }
        let patience = if fresh { LOAD_TIMEOUT } else { STALE_LOAD_TIMEOUT };
        let mut refusal = LinksUnavailable::Overtaken;
        for _ in 0..MOST_ATTEMPTS {
            let flight = self.join_or_load(shelf, &key, change_key, &load);
            match tokio::time::timeout(patience, flight).await.unwrap_or(Err(LinksUnavailable::TimedOut)) {
                Ok(entry) if self.valid(change_key, &entry) => return Ok(entry.value),
                // A change was seen that this load does not hold: read again.
                Ok(_) => {}
                Err(error) => {
                    refusal = error;
                    break;
                }
            }
        }
        match (cached, reading) {
            (Some(entry), Reading::HomeOnly) => Ok(entry.value),
            _ => Err(refusal),
        }
    }

    /// Waits for the load of this key that is under way, or starts one.
    fn join_or_load<K, T>(
        &self,
        shelf: &Arc<Shelf<K, T>>,
        key: &K,
        change_key: Key,
        load: &impl Fn() -> BoxFuture<'static, Result<Loaded<Option<T>>, StoreError>>,
    ) -> Flight<T>
    where
        K: Clone + Eq + Hash + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        // Held while the task is started, so that the task cannot end and clear its place before it has one.
        let mut flights = shelf.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            return flight.clone();
        }
        let landing = Landing { shelf: Arc::clone(shelf), key: key.clone() };
        let (known, after_read, load) = (Arc::clone(&self.known), self.after_read.clone(), load());
        let task = self.service.spawn(async move {
            let landing = landing;
            // Before anything is read: what is read in an older era is of an older database.
            let era = known.changes.era();
            let loaded = match tokio::time::timeout(LOAD_TIMEOUT, load).await {
                Ok(Ok(loaded)) => loaded,
                Ok(Err(error)) => return Err(LinksUnavailable::Load(Arc::new(error))),
                Err(_) => return Err(LinksUnavailable::TimedOut),
            };
            if let Some(hook) = after_read {
                hook().await;
            }
            let entry = Entry { era, as_of: loaded.as_of, value: loaded.value.map(Arc::new) };
            if known.changes.valid(change_key, entry.era, entry.as_of) {
                landing.shelf.cache.insert(landing.key.clone(), entry.clone());
            }
            Ok(entry)
        });
        let flight = async move { task.await.unwrap_or(Err(LinksUnavailable::TimedOut)) }.boxed().shared();
        flights.insert(key.clone(), flight.clone());
        flight
    }
}

/// Ends a load's time as the one to join, however the load ends.
struct Landing<K: Eq + Hash, T> {
    shelf: Arc<Shelf<K, T>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.shelf.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
