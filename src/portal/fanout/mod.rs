//! One question to many tenants at once: bounded, timed, each tenant by itself, answered from memory where that is
//! fresh enough.
//!
//! An endpoint describes what it wants of one tenant as a [`Part`] and gives it to a [`Reading`], which knows the
//! request: its deadline, its share of places, whether the client wants nothing cached. Every outcome says how it was
//! come by; a failure is one tenant's, never the request's.

mod breaker;
mod guard;
mod hedge;
mod slices;
mod upstreams;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::{
    sync::Semaphore,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

pub(super) use self::upstreams::Upstreams;
use self::{
    guard::{Guard, Patience, Whom, budget},
    slices::{Entry, Flight, Key, Slices},
};
use super::{
    Call, Granted,
    metrics::{Metrics, SliceFrom},
    partial::{Source, Status},
    sources::{Site, SourceError},
};
use crate::config::settings::ReadSettings;

/// What kind of data is asked for: each has breakers and latencies of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Registry,
    Metrics,
    Invoices,
    Tickets,
    Usage,
    Uptime,
    Breaches,
}

impl Kind {
    const COUNT: usize = 7;
    pub(super) const ALL: [Self; Self::COUNT] =
        [Self::Registry, Self::Metrics, Self::Invoices, Self::Tickets, Self::Usage, Self::Uptime, Self::Breaches];

    /// As messages name it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "tenant",
            Self::Metrics => "metrics",
            Self::Invoices => "invoices",
            Self::Tickets => "tickets",
            Self::Usage => "usage",
            Self::Uptime => "uptime",
            Self::Breaches => "breaches",
        }
    }
}

/// What a question brought.
#[derive(Debug)]
pub(super) struct Loaded<T> {
    pub(super) value: T,
    /// The source holds more than was read.
    pub(super) truncated: bool,
    /// Roughly what the value occupies in memory.
    pub(super) bytes: usize,
}

type Load<T> =
    dyn Fn(Arc<dyn Upstreams>, Site, Instant) -> BoxFuture<'static, Result<Loaded<T>, SourceError>> + Send + Sync;

/// One question that can be put to every tenant.
pub(super) struct Part<T> {
    kind: Kind,
    question: Arc<str>,
    load: Arc<Load<T>>,
}

impl<T> Part<T> {
    /// `question` is all that the answer depends on beside tenant and endpoint: equal questions share answers.
    pub(super) fn new<F, R>(kind: Kind, question: &impl fmt::Debug, load: F) -> Self
    where
        F: Fn(Arc<dyn Upstreams>, Site, Instant) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Loaded<T>, SourceError>> + Send + 'static,
    {
        let load: Arc<Load<T>> = Arc::new(move |upstreams, site, until| load(upstreams, site, until).boxed());
        Self { kind, question: format!("{question:?}").into(), load }
    }
}

/// What a truncated source's entry says.
const TRUNCATED: &str = "it holds more rows than are read of one source; narrow the filters";

/// One tenant's outcome.
#[derive(Debug)]
pub(super) struct Outcome<T> {
    /// What is shown; `None` where nothing is.
    pub(super) value: Option<Arc<T>>,
    pub(super) status: Status,
    pub(super) as_of: Option<Timestamp>,
    pub(super) error: Option<SourceError>,
}

impl<T> Outcome<T> {
    /// For what an answer can do without: that no connector is configured is no failure.
    pub(super) fn unless_nobody(self) -> Self {
        match self.error {
            Some(SourceError::NoConnector(_)) if self.value.is_none() => {
                Self { value: None, status: Status::Ok, as_of: None, error: None }
            }
            _ => self,
        }
    }

    pub(super) fn source(&self, granted: &Granted) -> Source {
        Source {
            tenant_id: granted.tenant().clone(),
            status: self.status,
            as_of: self.as_of,
            error: match (&self.error, self.status) {
                (Some(error), _) => Some(error.to_string()),
                (None, Status::Truncated) => Some(TRUNCATED.to_owned()),
                (None, _) => None,
            },
        }
    }
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct Fanout {
    settings: ReadSettings,
    upstreams: Arc<dyn Upstreams>,
    guard: Arc<Guard>,
    slices: Arc<Slices>,
    /// Refreshes in the background.
    refreshing: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// One request's way to its tenants.
pub(super) struct Reading<'c> {
    fanout: &'c Fanout,
    call: &'c Call,
    policies: u64,
    no_cache: bool,
    until: Instant,
    places: Semaphore,
}

/// Ends a spawned question when nobody waits for it any more.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Fanout {
    pub(super) fn new(settings: &ReadSettings, upstreams: Arc<dyn Upstreams>, metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            upstreams,
            guard: Arc::new(Guard::new(settings)),
            slices: Arc::new(Slices::new(settings.slice_cache_bytes, settings.max_stale_age)),
            refreshing: Arc::new(Semaphore::new((settings.concurrency_total / 2).max(1))),
            settings: settings.clone(),
        }
    }

    /// The clock starts here. `policies`: the generation that the slices were granted under.
    pub(super) fn read<'c>(&'c self, call: &'c Call, policies: u64) -> Reading<'c> {
        Reading {
            fanout: self,
            call,
            policies,
            no_cache: call.no_cache(),
            until: budget(self.settings.deadline),
            places: Semaphore::new(self.settings.concurrency),
        }
    }

    /// One question to one tenant that nobody's cache answers: within the same bounds, by `until`.
    pub(super) async fn direct<T: Send + 'static>(
        &self,
        part: &Part<T>,
        site: &Site,
        until: Instant,
    ) -> Result<Loaded<T>, SourceError> {
        self.ask(part, site.clone(), until, Patience::Waits).await
    }

    /// How many tenants are left alone for now, for each kind of data.
    pub(super) fn open_breakers(&self) -> Vec<(Kind, usize)> {
        let open = self.guard.open_breakers();
        Kind::ALL.iter().map(|kind| (*kind, open.get(kind).copied().unwrap_or(0))).collect()
    }

    /// Asks in a task of its own: rows are read on all threads of the runtime, and a fault in one tenant's answer ends
    /// that tenant's task only.
    fn ask<T: Send + 'static>(
        &self,
        part: &Part<T>,
        site: Site,
        until: Instant,
        patience: Patience,
    ) -> impl Future<Output = Result<Loaded<T>, SourceError>> + Send + use<T> {
        let (guard, upstreams, load) = (Arc::clone(&self.guard), Arc::clone(&self.upstreams), Arc::clone(&part.load));
        let (kind, metrics) = (part.kind, Arc::clone(&self.metrics));
        async move {
            let task = tokio::spawn(async move {
                let attempt = || load(Arc::clone(&upstreams), site.clone(), until);
                let (tenant, upstream) = (site.tenant(), upstreams.upstream(site.tenant(), kind));
                guard.ask(Whom { kind, tenant, upstream }, until, patience, &attempt).await
            });
            let _guard = AbortOnDrop(task.abort_handle());
            let answer = task.await.unwrap_or_else(|error| {
                tracing::error!(kind = kind.as_str(), %error, "reading one tenant's answer ended by a panic");
                Err(SourceError::Answer(format!("the {} could not be read: a fault here", kind.as_str())))
            });
            metrics.answered(kind, &answer);
            answer
        }
    }

    /// Sets a question on its way.
    fn fly<T: Send + Sync + 'static>(&self, key: &Key, part: &Part<T>, site: Site, how: How) -> Flight {
        let until = budget(self.settings.source_timeout);
        self.slices.fly(key, how.fresh, || {
            let asking = self.ask(part, site, until, how.patience);
            async move {
                let (asked, as_of) = (Instant::now(), Timestamp::now());
                let loaded = asking.await?;
                let bytes = loaded.bytes;
                Ok(Entry { value: Arc::new(loaded.value), truncated: loaded.truncated, bytes, as_of, asked })
            }
            .boxed()
        })
    }

    /// Asks again in the background, if there is room and nobody does.
    fn refresh<T: Send + Sync + 'static>(&self, key: &Key, part: &Part<T>, site: Site) {
        if self.slices.is_flying(key) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.refreshing).try_acquire_owned() else { return };
        let flight = self.fly(key, part, site, How { fresh: false, patience: Patience::AtOnce });
        tokio::spawn(async move {
            // What fails here is asked for again, and told, by whoever needs it next.
            let _ = flight.await;
            drop(permit);
        });
    }
}

#[derive(Clone, Copy)]
struct How {
    fresh: bool,
    patience: Patience,
}

impl<'c> Reading<'c> {
    /// One tenant's answer to one question.
    pub(super) async fn one<T: Send + Sync + 'static>(&self, part: &Part<T>, granted: &Granted) -> Outcome<T> {
        match self.recall(part, granted) {
            Ok(outcome) => outcome,
            Err(asking) => self.ask(part, granted, asking).await,
        }
    }

    /// What memory says, where that is young enough to be shown; else what to ask with. Waits for nothing.
    #[expect(clippy::result_large_err, reason = "no error but what to ask with, used at once by its one caller")]
    fn recall<T: Send + Sync + 'static>(&self, part: &Part<T>, granted: &Granted) -> Result<Outcome<T>, Asking> {
        let settings = &self.fanout.settings;
        let key = Key::new(granted.link(), self.policies, self.call.spec.endpoint, part.kind, &part.question);
        let known = if self.no_cache { None } else { self.fanout.slices.get(&key) };
        let Some(entry) = known else { return Err(Asking { key, known: None }) };
        let age = entry.asked.elapsed();
        if age >= settings.max_slice_age {
            return Err(Asking { key, known: Some(entry) });
        }
        let aging = age >= refreshed_after(settings.slice_fresh, granted);
        if aging {
            self.fanout.refresh(&key, part, granted.into());
        }
        self.fanout.metrics.slice(part.kind, if aging { SliceFrom::Aging } else { SliceFrom::Cache });
        Ok(shown(&entry, None))
    }

    async fn ask<T: Send + Sync + 'static>(&self, part: &Part<T>, granted: &Granted, asking: Asking) -> Outcome<T> {
        let Asking { key, known } = asking;
        let answer = async {
            let _place = self.places.acquire().await.map_err(|_| SourceError::Timeout)?;
            let how = How { fresh: self.no_cache, patience: Patience::Waits };
            self.fanout.fly(&key, part, granted.into(), how).await
        };
        let (from, outcome) = match timeout_at(self.until, answer).await.unwrap_or(Err(SourceError::Timeout)) {
            Ok(entry) => (SliceFrom::Service, shown(&entry, None)),
            Err(error) => match &known {
                Some(entry) if entry.asked.elapsed() < self.fanout.settings.max_stale_age => {
                    (SliceFrom::Stale, shown(entry, Some(error)))
                }
                _ => {
                    let status = Status::from(&error);
                    (SliceFrom::Nowhere, Outcome { value: None, status, as_of: None, error: Some(error) })
                }
            },
        };
        self.fanout.metrics.slice(part.kind, from);
        outcome
    }

    /// As `one`, for what an answer can do without.
    pub(super) async fn optional<T: Send + Sync + 'static>(&self, part: &Part<T>, granted: &Granted) -> Outcome<T> {
        self.one(part, granted).await.unless_nobody()
    }

    /// Does something for every granted tenant, all at once; in the order in which they are done.
    pub(super) async fn each<T, F>(&self, work: impl Fn(&'c Granted) -> F) -> Vec<T>
    where
        F: Future<Output = T>,
    {
        self.call.granted().map(work).collect::<FuturesUnordered<_>>().collect().await
    }

    /// Every granted tenant's outcome, in the order in which they come.
    ///
    /// What memory holds is taken first and costs no task: most questions of a warm answer end there.
    pub(super) async fn every<T: Send + Sync + 'static>(
        &self,
        part: &Part<T>,
        take: &mut (dyn FnMut(&'c Granted, Outcome<T>) + Send),
    ) {
        let mut answers = FuturesUnordered::new();
        for granted in self.call.granted() {
            match self.recall(part, granted) {
                Ok(outcome) => take(granted, outcome),
                Err(asking) => answers.push(async move { (granted, self.ask(part, granted, asking).await) }),
            }
        }
        while let Some((granted, outcome)) = answers.next().await {
            take(granted, outcome);
        }
    }

    /// What every granted tenant that answered said, and how each ended.
    pub(super) async fn collect<T: Send + Sync + 'static>(
        &self,
        part: &Part<T>,
    ) -> (Vec<(&'c Granted, Arc<T>)>, Vec<Source>) {
        let (mut answered, mut sources) = (Vec::new(), Vec::new());
        let mut take = |granted: &'c Granted, outcome: Outcome<T>| {
            sources.push(outcome.source(granted));
            answered.extend(outcome.value.map(|value| (granted, value)));
        };
        self.every(part, &mut take).await;
        (answered, sources)
    }

    /// Every granted tenant's answer, in the order in which they come, and how each ended.
    pub(super) async fn all<T: Send + Sync + 'static>(
        &self,
        part: &Part<T>,
        sink: &mut (dyn FnMut(&Granted, &Arc<T>) + Send),
    ) -> Vec<Source> {
        let mut sources = Vec::new();
        let mut take = |granted: &'c Granted, outcome: Outcome<T>| {
            if let Some(value) = &outcome.value {
                sink(granted, value);
            }
            sources.push(outcome.source(granted));
        };
        self.every(part, &mut take).await;
        sources
    }
}

/// What is asked with where memory does not say.
struct Asking {
    key: Key,
    /// Too old to be shown, unless the service fails.
    known: Option<Entry>,
}

/// When a slice is asked for again in the background: up to a quarter sooner than configured, differently for each
/// link, so that what was fetched together is not fetched together again while somebody waits.
fn refreshed_after(fresh: Duration, granted: &Granted) -> Duration {
    let [.., last] = *granted.link().link.id.0.as_bytes();
    fresh.mul_f64(1.0 - 0.25 * f64::from(last) / 256.0)
}

/// An entry as it is shown; `failed`: why nothing newer is.
fn shown<T: Send + Sync + 'static>(entry: &Entry, failed: Option<SourceError>) -> Outcome<T> {
    let Ok(value) = Arc::clone(&entry.value).downcast::<T>() else {
        // Kind and endpoint are in the key, and each pair has one type.
        let error = SourceError::Answer("a cached slice is of another type: a fault here".into());
        return Outcome { value: None, status: Status::Error, as_of: None, error: Some(error) };
    };
    let status = match (&failed, entry.truncated) {
        (Some(_), _) => Status::Stale,
        (None, true) => Status::Truncated,
        (None, false) => Status::Ok,
    };
    Outcome { value: Some(value), status, as_of: Some(entry.as_of), error: failed }
}
