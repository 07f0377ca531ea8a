//! One request's way to its tenants: what memory says, what is asked, and in which order it comes.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    guard::{Patience, budget},
    part::{Outcome, Part},
    shared::{Fanout, How},
    slices::{Entry, Key},
};
use crate::portal::{
    Call, Granted,
    metrics::SliceFrom,
    partial::{Source, Status},
    sources::SourceError,
};

/// One request's way to its tenants.
pub(in crate::portal) struct Reading<'c> {
    fanout: &'c Fanout,
    call: &'c Call,
    policies: u64,
    no_cache: bool,
    until: Instant,
    places: Semaphore,
}

impl Fanout {
    /// The clock starts here. `policies`: the generation that the slices were granted under.
    pub(in crate::portal) fn read<'c>(&'c self, call: &'c Call, policies: u64) -> Reading<'c> {
        Reading {
            fanout: self,
            call,
            policies,
            no_cache: call.no_cache(),
            until: budget(self.settings.deadline),
            places: Semaphore::new(self.settings.concurrency),
        }
    }
}

impl<'c> Reading<'c> {
    /// One tenant's answer to one question.
    pub(in crate::portal) async fn one<T: Send + Sync + 'static>(
        &self,
        part: &Part<T>,
        granted: &Granted,
    ) -> Outcome<T> {
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
    pub(in crate::portal) async fn optional<T: Send + Sync + 'static>(
        &self,
        part: &Part<T>,
        granted: &Granted,
    ) -> Outcome<T> {
        self.one(part, granted).await.unless_nobody()
    }

    /// Does something for every granted tenant, all at once; in the order in which they are done.
    pub(in crate::portal) async fn each<T, F>(&self, work: impl Fn(&'c Granted) -> F) -> Vec<T>
    where
        F: Future<Output = T>,
    {
        self.call.granted().map(work).collect::<FuturesUnordered<_>>().collect().await
    }

    /// Every granted tenant's outcome, in the order in which they come.
    ///
    /// What memory holds is taken first and costs no task: most questions of a warm answer end there.
    pub(in crate::portal) async fn every<T: Send + Sync + 'static>(
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
    pub(in crate::portal) async fn collect<T: Send + Sync + 'static>(
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
    pub(in crate::portal) async fn all<T: Send + Sync + 'static>(
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
