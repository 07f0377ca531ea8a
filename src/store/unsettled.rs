//! Outcomes of claims that the database did not take when they were known: kept here until it does.
//!
//! Invariants: only what a claim's holder knows is kept, and it is written under that claim and no other; there are at
//! most `MOST`, and none is kept longer than its key; what is given up is told in the log.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    StoreError,
    idempotency::{Claim, Claimed, IdempotencyKeys, Scope, Settlement},
};
use crate::domain::Millis;

/// Outcomes at once: an answer is a few hundred bytes.
const MOST: usize = 1_000;
/// Before an outcome is brought again. The longest is short: until then another replica tells that it is not known.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Of one try: a database that hangs holds up no other outcome.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);

/// What one process still has to write.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    waiting: Mutex<VecDeque<Arc<Waiting>>>,
    added: Notify,
}

#[derive(Debug)]
struct Waiting {
    claim: Claim,
    settlement: Settlement,
}

/// How a try ended.
enum Tried {
    /// It is written, or will never be.
    Over,
    /// It waits on, behind the others.
    Waits,
}

impl Unsettled {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false`: there is no room.
    pub(super) fn keep(&self, claim: &Claim, settlement: &Settlement) -> bool {
        let mut waiting = self.lock();
        if waiting.len() >= MOST {
            return false;
        }
        waiting.push_back(Arc::new(Waiting { claim: claim.clone(), settlement: settlement.clone() }));
        drop(waiting);
        self.added.notify_one();
        true
    }

    /// What a caller with this key is told while its outcome is only known here.
    pub(super) fn told(&self, scope: &Scope, request: &[u8; 32], now: Millis) -> Option<Claimed> {
        let waiting = self.lock();
        // The latest: an older one of the same key had lost its claim.
        let known = waiting.iter().rev().find(|known| known.claim.scope == *scope && now < known.claim.expires_at)?;
        Some(match &known.settlement {
            _ if known.claim.request != *request => Claimed::Other,
            Settlement::Answered(answer) => Claimed::Done(answer.clone()),
            // Not yet free in the database.
            Settlement::Freed => Claimed::Running,
            Settlement::GivenUp => Claimed::Unknown,
        })
    }

    /// Brings the outcomes to the database as soon as it takes them; never ends.
    pub(super) async fn bring(&self, keys: &IdempotencyKeys) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.bring_next(keys).await {
                Some(Tried::Over) => pause = FIRST_PAUSE,
                Some(Tried::Waits) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                None => {
                    pause = FIRST_PAUSE;
                    self.added.notified().await;
                    // It was tried just now.
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Each once more, within `limit`; what is left is lost with this process.
    pub(super) async fn bring_last(&self, keys: &IdempotencyKeys, limit: Duration) {
        // Not in the loop's head: the lock would be held as long as the loop.
        let most = self.lock().len();
        let each = async {
            for _ in 0..most {
                self.bring_next(keys).await;
            }
        };
        let in_time = tokio::time::timeout(limit, each).await.is_ok();
        let left = self.lock().len();
        if left > 0 {
            tracing::error!(
                left,
                in_time,
                "outcomes of writes are not kept, because the database did not take them until the stop: their keys will \
                 answer 409"
            );
        }
    }

    /// `None`: nothing waits. It waits on while it is tried, so that it is told and a try that is cut short loses nothing.
    async fn bring_next(&self, keys: &IdempotencyKeys) -> Option<Tried> {
        let next = self.lock().front().cloned()?;
        if next.claim.expires_at <= Millis::now() {
            tracing::warn!("the outcome of a write was not kept until its key expired");
            self.remove(&next);
            return Some(Tried::Over);
        }
        let ended = match tokio::time::timeout(TRY_TIMEOUT, keys.end(&next.claim, &next.settlement)).await {
            Ok(ended) => ended,
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        };
        match ended {
            Ok(held) => {
                // Not held: it was brought before and the answer lost, or the key is another's by now.
                tracing::info!(held, "the outcome of a write is kept now");
                self.remove(&next);
                Some(Tried::Over)
            }
            Err(StoreError::Unavailable(error)) => {
                tracing::debug!(%error, "the outcome of a write cannot be kept yet");
                let mut waiting = self.lock();
                waiting.retain(|one| !Arc::ptr_eq(one, &next));
                waiting.push_back(next);
                Some(Tried::Waits)
            }
            Err(error) => {
                tracing::error!(%error, "the outcome of a write is not kept: its key will answer 409");
                self.remove(&next);
                Some(Tried::Over)
            }
        }
    }

    fn remove(&self, gone: &Arc<Waiting>) {
        self.lock().retain(|one| !Arc::ptr_eq(one, gone));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn claim(scope: u8) -> Claim {
        Claim { scope: [scope; 32], request: [1; 32], id: Uuid::now_v7(), expires_at: Millis(100) }
    }

    #[test]
    fn what_waits_is_told_and_bounded() {
        let unsettled = Unsettled::default();
        for (scope, settlement) in [(1, Settlement::Freed), (2, Settlement::GivenUp)] {
            assert!(unsettled.keep(&claim(scope), &settlement));
        }
        let told = |scope, request, now| unsettled.told(&[scope; 32], &[request; 32], Millis(now));
        assert_eq!(told(1, 1, 0), Some(Claimed::Running));
        assert_eq!(told(2, 1, 0), Some(Claimed::Unknown));
        assert_eq!(told(2, 9, 0), Some(Claimed::Other));
        assert_eq!((told(3, 1, 0), told(2, 1, 100)), (None, None), "nothing of it is known, or its time is over");
        for _ in 2..MOST {
            assert!(unsettled.keep(&claim(3), &Settlement::GivenUp));
        }
        assert!(!unsettled.keep(&claim(4), &Settlement::GivenUp));
    }
}
