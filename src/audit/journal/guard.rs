//! The guard of an open record: completed exactly once, whatever becomes of the request.

use std::{fmt, sync::Arc, time::Instant};

use super::shared::Shared;
use crate::{
    audit::{
        decision::{Decision, reason},
        record::Completion,
    },
    domain::DecisionId,
};

/// A record that was opened and is not completed. Dropped, it is completed as `aborted`.
pub struct OpenRecord {
    shared: Arc<Shared>,
    id: DecisionId,
    seq: u64,
    since: Instant,
    done: bool,
}

impl OpenRecord {
    pub(super) fn new(shared: Arc<Shared>, id: DecisionId, seq: u64) -> Self {
        Self { shared, id, seq, since: Instant::now(), done: false }
    }

    /// What `X-Decision-Id` carries.
    pub fn id(&self) -> DecisionId {
        self.id
    }

    /// Place of the opening in the chain.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Microseconds since the record was opened: a completion's `duration_us` where the caller keeps no clock.
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// What became of it. Never fails: a completion that cannot be written now is kept, and written before any further
    /// opening.
    pub fn complete(mut self, completion: Completion) {
        self.done = true;
        self.shared.complete(self.id, &completion);
    }

    /// The opening was taken back out of the chain: there is nothing to complete.
    pub(super) fn forget(mut self) {
        self.done = true;
    }

    /// The opening is not as durable as promised: the request is refused, and the record says so.
    pub(super) fn refused(self) {
        let completion = Completion {
            status: Some(503),
            duration_us: self.elapsed_us(),
            decision: Some(Decision::Deny),
            reason: Some(reason::AUDIT_UNAVAILABLE.into()),
            ..Completion::default()
        };
        self.complete(completion);
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        if !self.done {
            let completion = Completion { aborted: true, duration_us: self.elapsed_us(), ..Completion::default() };
            self.shared.complete(self.id, &completion);
        }
    }
}

impl fmt::Debug for OpenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenRecord").field("id", &self.id).field("seq", &self.seq).finish_non_exhaustive()
    }
}
