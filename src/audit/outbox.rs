//! Brings changes made by the command line into the chain, each exactly once.
//!
//! A change is committed with its outbox row in one transaction. A server claims rows for its own chain, appends them at
//! `disk` level, and marks them. After a crash between append and mark the same rows are claimed again; the journal
//! knows which it holds (its segment headers carry the rows chained last) and appends only what is missing.

use std::{sync::Arc, time::Duration};

use super::{
    check::OUTBOX_REMEMBERED,
    journal::{AuditUnavailable, Journal},
    traits::{IndexUnavailable, OutboxSource},
};

/// Rows claimed at once. No more are ever claimed and not marked, so the journal remembers them all.
pub const CLAIM_MAX: usize = 128;
const _: () = assert!(CLAIM_MAX <= OUTBOX_REMEMBERED);

/// Longest pause after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Why a round ended early; the next one goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(transparent)]
    Index(#[from] IndexUnavailable),
    #[error(transparent)]
    Audit(#[from] AuditUnavailable),
}

/// One relay a journal.
pub struct OutboxRelay<S> {
    journal: Journal,
    source: Arc<S>,
    interval: Duration,
}

impl<S: OutboxSource> OutboxRelay<S> {
    /// `interval`: the pause between two looks at an empty outbox.
    pub fn new(journal: Journal, source: Arc<S>, interval: Duration) -> Self {
        Self { journal, source, interval }
    }

    /// Runs until it is dropped.
    pub async fn run(self) {
        let mut backoff = self.interval;
        loop {
            match self.relay().await {
                Ok(CLAIM_MAX..) => continue,
                Ok(_) => backoff = self.interval,
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, source, "changes wait to be chained");
                    backoff = (backoff * 2).clamp(self.interval, BACKOFF_MAX);
                }
            }
            tokio::time::sleep(backoff).await;
        }
    }

    /// One round: claims, appends what is missing, marks. Gives the number of rows.
    pub async fn relay(&self) -> Result<usize, RelayError> {
        // What is claimed for a journal that takes nothing is kept from those that would chain it.
        if !self.journal.healthy() {
            return Ok(0);
        }
        let chain = self.journal.chain_id();
        let rows = self.source.claim(chain, CLAIM_MAX).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        self.journal.append_outbox(&rows).await?;
        let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
        self.source.mark_chained(chain, &seqs).await?;
        Ok(rows.len())
    }
}
