//! hyper's timer for one HTTP/1 connection, which needs one at a time: it is made once and set anew for each request.
//!
//! A new one for each would be an aligned allocation, and an entry into the runtime's wheel and out of it again, with
//! every request. One that is set to later stays where it is in the wheel.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};

type Idle = Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>;

/// The timer of one connection. Behind a lock only because hyper may move it between threads; here it stays on one.
#[derive(Clone, Debug, Default)]
pub(super) struct ReusedTimer {
    idle: Idle,
}

/// A sleep that goes back when dropped. While it lies there it may wake its connection once, for nothing.
struct Reused {
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    idle: Idle,
}

impl Timer for ReusedTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sleep = match idle {
            Some(mut sleep) => {
                sleep.as_mut().reset(deadline.into());
                sleep
            }
            None => Box::pin(tokio::time::sleep_until(deadline.into())),
        };
        Box::pin(Reused { sleep: Some(sleep), idle: Arc::clone(&self.idle) })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        let own = sleep.as_mut().downcast_mut_pin::<Reused>();
        match own.and_then(|own| own.get_mut().sleep.as_mut()) {
            Some(sleep) => sleep.as_mut().reset(new_deadline.into()),
            // Not one of ours: hyper gives back only what it got here.
            None => *sleep = self.sleep_until(new_deadline),
        }
    }
}

impl Sleep for Reused {}

impl Future for Reused {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Reused {
    fn drop(&mut self) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = self.sleep.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timer_that_is_used_again_keeps_its_new_time() {
        let timer = ReusedTimer::default();
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        drop(timer.sleep_until(at(10)));
        let mut again = timer.sleep_until(at(60));
        assert!(timer.idle.lock().unwrap().is_none(), "it is the same one");
        again.as_mut().await;
        assert!(Instant::now() >= at(60));
        // After it went off, to later and to earlier.
        drop(again);
        let mut again = timer.sleep_until(at(60_000));
        timer.reset(&mut again, at(90));
        again.await;
        assert!((at(90)..at(30_000)).contains(&Instant::now()));
        assert!(timer.idle.lock().unwrap().is_some());
    }
}
