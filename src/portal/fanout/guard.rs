//! One guarded question to one tenant's service: places, breaker, time, a second try where the first is slow.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use super::{breaker::Breakers, hedge::Hedges, kind::Kind};
use crate::{
    config::settings::ReadSettings,
    domain::{PartnerId, TenantId},
    portal::sources::SourceError,
};

/// What all questions of the process share.
#[derive(Debug)]
pub(super) struct Guard {
    total: Arc<Semaphore>,
    per_upstream: usize,
    /// One entry for each upstream of the configuration that was asked.
    upstreams: Mutex<HashMap<Arc<str>, Arc<Semaphore>, ahash::RandomState>>,
    breakers: Breakers,
    hedges: Hedges,
}

/// Who is asked, for what, and on whose behalf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whom<'a> {
    pub(super) kind: Kind,
    pub(super) tenant: &'a TenantId,
    pub(super) partner: PartnerId,
    /// `None`: nobody answers, so nobody is crowded.
    pub(super) upstream: Option<&'a Arc<str>>,
}

/// Whether a question waits for its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Waits,
    /// Nobody waits for the answer: asked at once or not at all.
    AtOnce,
}

type Places = (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit);

impl Guard {
    pub(super) fn new(settings: &ReadSettings) -> Self {
        Self {
            total: Arc::new(Semaphore::new(settings.concurrency_total)),
            per_upstream: settings.concurrency_per_upstream,
            upstreams: Mutex::default(),
            breakers: Breakers::new(settings.breaker_failures, settings.breaker_pause),
            hedges: Hedges::new(settings.hedge_percent),
        }
    }

    /// Asks, at most twice, and answers by `until`.
    pub(super) async fn ask<T: Send>(
        &self,
        whom: Whom<'_>,
        until: Instant,
        patience: Patience,
        attempt: &(dyn Fn() -> BoxFuture<'static, Result<T, SourceError>> + Send + Sync),
    ) -> Result<T, SourceError> {
        let Whom { kind, tenant, partner, upstream } = whom;
        let pass = self.breakers.enter(kind, tenant, partner)?;
        let came = Instant::now();
        let places = match patience {
            Patience::Waits => timeout_at(until, self.places(upstream)).await.unwrap_or(None),
            Patience::AtOnce => self.places_now(upstream),
        };
        let Some(_places) = places else {
            return Err(SourceError::Unasked("too many questions are under way".into()));
        };
        let started = Instant::now();
        let answer = timeout_at(until, self.hedged(whom, attempt)).await.unwrap_or(Err(SourceError::Timeout));
        match &answer {
            Ok(_) => {
                self.hedges.record(kind, started.elapsed());
                pass.succeeded();
            }
            // Time that was spent on waiting here is no failure of the service.
            Err(SourceError::Timeout) if started - came > started.elapsed() => drop(pass),
            Err(error) => pass.failed(error),
        }
        answer
    }

    pub(super) fn open_breakers(&self) -> HashMap<Kind, usize> {
        self.breakers.open()
    }

    async fn hedged<T: Send>(
        &self,
        whom: Whom<'_>,
        attempt: &(dyn Fn() -> BoxFuture<'static, Result<T, SourceError>> + Send + Sync),
    ) -> Result<T, SourceError> {
        let mut first = attempt();
        let Some(patience) = self.hedges.patience(whom.kind) else { return first.await };
        tokio::select! {
            biased;
            answer = &mut first => return answer,
            () = sleep(patience) => {}
        }
        let Some(_places) = self.places_now(whom.upstream).filter(|_| self.hedges.take()) else { return first.await };
        let mut second = attempt();
        // The first good answer wins; where one fails the other still may not. What is refused is refused to both.
        tokio::select! {
            answer = &mut first => match answer {
                Ok(_) | Err(SourceError::Refused(_)) => answer,
                Err(_) => second.await,
            },
            answer = &mut second => match answer {
                Ok(_) | Err(SourceError::Refused(_)) => answer,
                Err(_) => first.await,
            },
        }
    }

    async fn places(&self, upstream: Option<&Arc<str>>) -> Option<Places> {
        // The narrower one first, so that a crowded upstream does not hold the places of all others.
        let own = match upstream {
            Some(name) => Some(self.of(name).acquire_owned().await.ok()?),
            None => None,
        };
        Some((own, Arc::clone(&self.total).acquire_owned().await.ok()?))
    }

    fn places_now(&self, upstream: Option<&Arc<str>>) -> Option<Places> {
        let own = match upstream {
            Some(name) => Some(self.of(name).try_acquire_owned().ok()?),
            None => None,
        };
        Some((own, Arc::clone(&self.total).try_acquire_owned().ok()?))
    }

    fn of(&self, upstream: &Arc<str>) -> Arc<Semaphore> {
        let mut all = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(Arc::clone(upstream));
        Arc::clone(known.or_insert_with(|| Arc::new(Semaphore::new(self.per_upstream))))
    }
}

/// The end of one tenant's part, from now.
pub(super) fn budget(timeout: Duration) -> Instant {
    Instant::now() + timeout
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    fn settings() -> ReadSettings {
        crate::portal::scripted::settings()
    }

    fn tenant() -> TenantId {
        TenantId::new("t").unwrap()
    }

    fn of(kind: Kind, tenant: &TenantId) -> Whom<'_> {
        Whom { kind, tenant, partner: PartnerId(uuid::Uuid::nil()), upstream: None }
    }

    #[tokio::test]
    async fn a_slow_read_gets_a_second_try_and_the_faster_answer_wins() {
        let guard = Guard::new(&ReadSettings { hedge_percent: 20, ..settings() });
        let quick = || async { Ok(0) }.boxed();
        for _ in 0..200 {
            guard
                .ask(of(Kind::Invoices, &tenant()), budget(Duration::from_secs(5)), Patience::Waits, &quick)
                .await
                .unwrap();
        }
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let first_hangs = move || {
            let number = count.fetch_add(1, Ordering::SeqCst);
            async move {
                if number == 0 {
                    sleep(Duration::from_secs(60)).await;
                }
                Ok(number)
            }
            .boxed()
        };
        let until = budget(Duration::from_secs(5));
        let answer = guard.ask(of(Kind::Invoices, &tenant()), until, Patience::Waits, &first_hangs).await;
        assert_eq!((answer, asked.load(Ordering::SeqCst)), (Ok(1), 2));
    }

    #[tokio::test]
    async fn time_is_kept_and_a_full_house_is_no_failure_of_the_service() {
        let guard = Guard::new(&ReadSettings { concurrency_total: 1, breaker_failures: 1, ..settings() });
        let hangs = || sleep(Duration::from_secs(60)).map(Ok::<(), SourceError>).boxed();
        let (started, tenant) = (Instant::now(), tenant());
        let until = budget(Duration::from_millis(100));
        let (one, other) = tokio::join!(
            guard.ask(of(Kind::Invoices, &tenant), until, Patience::Waits, &hangs),
            guard.ask(of(Kind::Tickets, &tenant), until, Patience::AtOnce, &hangs),
        );
        assert_eq!(one, Err(SourceError::Timeout));
        assert!(matches!(other, Err(SourceError::Unasked(_))));
        assert!(started.elapsed() < Duration::from_secs(2));
        let works = || async { Ok(()) }.boxed();
        let until = budget(Duration::from_secs(5));
        assert_eq!(guard.ask(of(Kind::Tickets, &tenant), until, Patience::Waits, &works).await, Ok(()));
        let refused = guard.ask(of(Kind::Invoices, &tenant), until, Patience::Waits, &works).await;
        assert!(matches!(refused, Err(SourceError::Unavailable(_))), "one failure opens this breaker");
    }

    /// Who holds the places, and how slow his questions are, is nothing that a service can help.
    #[tokio::test]
    async fn time_that_was_waited_for_a_place_is_no_failure_of_the_service() {
        let guard = Guard::new(&ReadSettings { concurrency_total: 1, breaker_failures: 1, ..settings() });
        let hangs = || sleep(Duration::from_secs(60)).map(Ok::<(), SourceError>).boxed();
        let tenant = tenant();
        let holds = guard.ask(of(Kind::Tickets, &tenant), budget(Duration::from_millis(900)), Patience::Waits, &hangs);
        let waits = async {
            tokio::task::yield_now().await;
            guard.ask(of(Kind::Invoices, &tenant), budget(Duration::from_millis(1_000)), Patience::Waits, &hangs).await
        };
        let (_, late) = tokio::join!(holds, waits);
        // On a busy machine it gets no place at all.
        assert!(matches!(late, Err(SourceError::Timeout | SourceError::Unasked(_))), "{late:?}");
        let works = || async { Ok(()) }.boxed();
        let until = budget(Duration::from_secs(5));
        assert_eq!(guard.ask(of(Kind::Invoices, &tenant), until, Patience::Waits, &works).await, Ok(()));
        let refused = guard.ask(of(Kind::Tickets, &tenant), until, Patience::Waits, &works).await;
        assert!(matches!(refused, Err(SourceError::Unavailable(_))), "who had its place all the time did fail");
    }

    #[tokio::test]
    async fn what_a_service_refuses_opens_no_breaker() {
        let guard = Guard::new(&ReadSettings { breaker_failures: 1, ..settings() });
        let refused = || async { Err::<(), _>(SourceError::Refused("status 422".into())) }.boxed();
        let (tenant, until) = (tenant(), budget(Duration::from_secs(5)));
        for _ in 0..3 {
            let told = guard.ask(of(Kind::Invoices, &tenant), until, Patience::Waits, &refused).await;
            assert_eq!(told, Err(SourceError::Refused("status 422".into())), "told as it is");
        }
        let works = || async { Ok(()) }.boxed();
        assert_eq!(guard.ask(of(Kind::Invoices, &tenant), until, Patience::Waits, &works).await, Ok(()));
    }
}
