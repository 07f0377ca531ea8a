//! What all requests share: the bounds, the memory, and how one question is put to one tenant.

use std::sync::Arc;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::{sync::Semaphore, task::AbortHandle, time::Instant};

use super::{
    guard::{Guard, Patience, Whom, budget},
    kind::Kind,
    part::{Loaded, Part},
    slices::{Entry, Flight, Key, Slices},
    upstreams::Upstreams,
};
use crate::{
    config::settings::ReadSettings,
    portal::{
        metrics::Metrics,
        sources::{Site, SourceError},
    },
};

/// What all requests share.
#[derive(Debug)]
pub(in crate::portal) struct Fanout {
    pub(super) settings: ReadSettings,
    upstreams: Arc<dyn Upstreams>,
    guard: Arc<Guard>,
    pub(super) slices: Arc<Slices>,
    /// Refreshes in the background.
    refreshing: Arc<Semaphore>,
    pub(super) metrics: Arc<Metrics>,
}

/// Ends a spawned question when nobody waits for it any more.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Fanout {
    pub(in crate::portal) fn new(
        settings: &ReadSettings,
        upstreams: Arc<dyn Upstreams>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            upstreams,
            guard: Arc::new(Guard::new(settings)),
            slices: Arc::new(Slices::new(settings.slice_cache_bytes, settings.max_stale_age)),
            refreshing: Arc::new(Semaphore::new((settings.concurrency_total / 2).max(1))),
            settings: settings.clone(),
        }
    }

    /// One question to one tenant that nobody's cache answers: within the same bounds, by `until`.
    pub(in crate::portal) async fn direct<T: Send + 'static>(
        &self,
        part: &Part<T>,
        site: &Site,
        until: Instant,
    ) -> Result<Loaded<T>, SourceError> {
        self.ask(part, site.clone(), until, Patience::Waits).await
    }

    /// How many tenants are left alone for now, for each kind of data.
    pub(in crate::portal) fn open_breakers(&self) -> Vec<(Kind, usize)> {
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
                let (tenant, partner) = (site.tenant(), site.link().link.partner_id);
                let upstream = upstreams.upstream(tenant, kind);
                guard.ask(Whom { kind, tenant, partner, upstream }, until, patience, &attempt).await
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
    pub(super) fn fly<T: Send + Sync + 'static>(&self, key: &Key, part: &Part<T>, site: Site, how: How) -> Flight {
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
    pub(super) fn refresh<T: Send + Sync + 'static>(&self, key: &Key, part: &Part<T>, site: Site) {
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
pub(super) struct How {
    pub(super) fresh: bool,
    pub(super) patience: Patience,
}
