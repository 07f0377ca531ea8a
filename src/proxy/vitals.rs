//! Whether the work that nobody asks for is still done.
//!
//! Each such task has a name. One that ends or panics while the process is not stopping is told in the log, counted, and
//! then either begun again or, where a promise hangs on it, the reason why the process is not ready until it is restarted.

use std::{
    any::Any,
    collections::BTreeSet,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use prometheus::{IntCounterVec, Opts, Registry};

/// Before a task is begun again: what made it end may still be there.
const PAUSE: Duration = Duration::from_secs(1);

/// One of a process; cheap to clone.
#[derive(Clone)]
pub struct Vitals(Arc<State>);

struct State {
    stopping: AtomicBool,
    /// What ended and is not done any more.
    lost: Mutex<BTreeSet<&'static str>>,
    ended: IntCounterVec,
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vitals").field("lost", &self.lost()).finish_non_exhaustive()
    }
}

/// For [`Vitals::watch`] and [`Vitals::keep`]: the task never ends by itself.
pub fn never() -> bool {
    false
}

impl Vitals {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let ended = Opts::new("linkgate_tasks_ended_total", "Background tasks that ended or panicked, by name");
        let ended = IntCounterVec::new(ended, &["task"])?;
        registry.register(Box::new(ended.clone()))?;
        Ok(Self(Arc::new(State { stopping: AtomicBool::new(false), lost: Mutex::default(), ended })))
    }

    /// The process stops: tasks end from here on.
    pub fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// Names of what is not done any more, until a restart.
    pub fn lost(&self) -> Vec<&'static str> {
        self.0.lost.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Does what a promise hangs on, once: without it the process is not ready. `over`: whether it may end.
    pub async fn watch(self, name: &'static str, work: impl Future<Output = ()>, over: impl Fn() -> bool) {
        self.announce(name);
        let panicked = self.caught(name, work).await.is_err();
        if self.is_fault(name, panicked, &over) {
            self.lose(name);
        }
    }

    /// Does what can be begun anew at any time, again and again until it is `over`.
    pub async fn keep<W: Future<Output = ()>>(
        self,
        name: &'static str,
        mut begin: impl FnMut() -> W,
        over: impl Fn() -> bool,
    ) {
        self.announce(name);
        loop {
            let panicked = self.caught(name, begin()).await.is_err();
            if !self.is_fault(name, panicked, &over) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One round of a task whose rounds a promise hangs on. `None`: it panicked, and the process is not ready any more.
    pub async fn round<T>(&self, name: &'static str, work: impl Future<Output = T>) -> Option<T> {
        let done = self.caught(name, work).await.ok();
        if done.is_none() {
            self.lose(name);
        }
        done
    }

    /// From zero on, so that the first end is seen as growth.
    pub fn announce(&self, name: &'static str) {
        self.0.ended.with_label_values(&[name]);
    }

    async fn caught<T>(&self, name: &'static str, work: impl Future<Output = T>) -> Result<T, ()> {
        // Of what the work shares nothing is used again but by others, who see it as after any early return.
        AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
            self.0.ended.with_label_values(&[name]).inc();
            tracing::error!(task = name, panic = said(&*panic), "a background task panicked");
        })
    }

    fn is_fault(&self, name: &'static str, panicked: bool, over: &impl Fn() -> bool) -> bool {
        if self.0.stopping.load(Ordering::Relaxed) || (over() && !panicked) {
            return false;
        }
        if !panicked {
            self.0.ended.with_label_values(&[name]).inc();
            tracing::error!(task = name, "a background task ended that should never end");
        }
        true
    }

    fn lose(&self, name: &'static str) {
        self.0.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        tracing::error!(task = name, "the gateway is not ready any more: restart it");
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::AtomicU64,
    };

    use super::*;

    fn vitals() -> Vitals {
        Vitals::register(&Registry::new()).unwrap()
    }

    fn ended(vitals: &Vitals, name: &str) -> u64 {
        vitals.0.ended.with_label_values(&[name]).get()
    }

    #[tokio::test]
    async fn a_vital_task_that_ends_or_panics_is_counted_and_lost() {
        let vitals = vitals();
        vitals.clone().watch("ends", ready(()), never).await;
        vitals.clone().watch("panics", async { panic!("{} broke", "something") }, never).await;
        assert_eq!(vitals.lost(), ["ends", "panics"]);
        assert_eq!((ended(&vitals, "ends"), ended(&vitals, "panics")), (1, 1));
    }

    #[tokio::test]
    async fn an_end_that_was_asked_for_is_no_fault() {
        let vitals = vitals();
        vitals.clone().watch("over", ready(()), || true).await;
        vitals.clone().keep("over", || ready(()), || true).await;
        let aborted = tokio::spawn(vitals.clone().watch("aborted", pending(), never));
        tokio::task::yield_now().await;
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_cancelled());
        vitals.stopping();
        vitals.clone().watch("stopped", ready(()), never).await;
        assert!(vitals.lost().is_empty());
        assert_eq!(["over", "aborted", "stopped"].map(|name| ended(&vitals, name)), [0; 3]);
    }

    #[tokio::test]
    async fn what_can_be_begun_again_is() {
        let (vitals, begun) = (vitals(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&begun);
        let again = move || {
            let round = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match round {
                    0 => panic!("the first time"),
                    1 => {}
                    _ => pending().await,
                }
            }
        };
        let kept = tokio::spawn(vitals.clone().keep("again", again, never));
        while begun.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(PAUSE / 20).await;
        }
        kept.abort();
        assert_eq!((begun.load(Ordering::Relaxed), ended(&vitals, "again")), (3, 2));
        assert!(vitals.lost().is_empty());
    }

    #[tokio::test]
    async fn a_round_that_panics_says_so_and_is_lost() {
        let vitals = vitals();
        assert_eq!(vitals.round("sweep", ready(7)).await, Some(7));
        assert!(vitals.lost().is_empty());
        assert_eq!(vitals.round("sweep", async { panic!("no more") }).await, None::<()>);
        assert_eq!(vitals.lost(), ["sweep"]);
    }
}
