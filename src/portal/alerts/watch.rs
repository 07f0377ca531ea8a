//! Looking at links in the background, each by one replica at a time.
//!
//! A link is asked only while it is live and grants what its alerts are read with (`unattended`): nothing is fetched for
//! a partner that could not fetch it (I7). Every link has its own time, with jitter, so that they never all come due at once.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use uuid::Uuid;

use super::{evaluate, permission};
use crate::{
    domain::{Millis, Trace},
    portal::{
        Portal,
        sources::Site,
        unattended,
        webhooks::deliver::{after, jittered, random},
    },
    store::{Directory, Evaluation, Reading, StoreError, alerts::DueLink},
};

/// Longest time between two looks for links that are due.
const MOST_POLL: Duration = Duration::from_secs(30);
/// Links leased at once, for each that is looked at at once.
const AHEAD: usize = 4;
/// Links that are put on the schedule at once; the next round takes the next ones.
const MOST_ENROLLED: usize = 10_000;
const LEASE_SLACK: Duration = Duration::from_secs(30);

/// Looks at links.
#[derive(Debug)]
pub struct Watcher {
    portal: Arc<Portal>,
    directory: Arc<Directory>,
    /// Whose leases they are.
    owner: String,
}

impl Watcher {
    pub fn new(portal: &Arc<Portal>, directory: &Arc<Directory>) -> Self {
        let owner = Uuid::new_v4().to_string();
        Self { portal: Arc::clone(portal), directory: Arc::clone(directory), owner }
    }

    /// Works until dropped. Leases of links that are being looked at then end by themselves.
    pub async fn run(self) {
        let settings = self.portal.settings.alerts.clone();
        let poll = (settings.interval / 10).min(MOST_POLL);
        loop {
            match self.round().await {
                Ok(0) => {}
                Ok(failed) => tracing::warn!(
                    failed,
                    "links could not be read in full for alerts; why stands in the table alert_evaluations (last_error)"
                ),
                Err(error) => tracing::warn!(%error, "links that are due for alerts cannot be read or written"),
            }
            tokio::time::sleep(jittered(poll, random())).await;
        }
    }

    /// Looks at everything that is due; how many links gave no full answer.
    async fn round(&self) -> Result<usize, StoreError> {
        let settings = &self.portal.settings.alerts;
        let ahead = settings.concurrency.saturating_mul(AHEAD);
        let rounds = u32::try_from(AHEAD).unwrap_or(1);
        let mut failed = 0;
        let now = Millis::now();
        // Well behind the interval with its jitter.
        self.portal.alerts.mend(now, after(now, settings.interval * 2, 1)).await?;
        self.portal.alerts.enrol(now, MOST_ENROLLED).await?;
        // Not before link data is fresh: a link that was revoked meanwhile must not be asked.
        while self.directory.is_fresh() {
            let now = Millis::now();
            let lease = settings.timeout.saturating_mul(rounds) + LEASE_SLACK;
            let due = self.portal.alerts.lease_due(&self.owner, now, after(now, lease, 1), ahead).await?;
            if due.is_empty() {
                break;
            }
            let readings: Vec<Option<Evaluation>> =
                stream::iter(due).map(|link| self.one(link)).buffer_unordered(settings.concurrency).collect().await;
            let readings: Vec<Evaluation> = readings.into_iter().flatten().collect();
            failed += readings.iter().filter(|reading| reading.error.is_some()).count();
            self.portal.alerts.apply(readings).await?;
        }
        Ok(failed)
    }

    async fn one(&self, link: DueLink) -> Option<Evaluation> {
        let settings = &self.portal.settings.alerts;
        let due = after(Millis::now(), jittered(settings.interval, random()), 1);
        let began = Instant::now();
        let reading = self.ask(&link, due).await;
        let complete = reading.as_ref().map(|reading| reading.error.is_none());
        self.portal.metrics.evaluated(link.kind, complete, began.elapsed());
        if reading.is_none()
            && let Err(error) = self.portal.alerts.release(&self.owner, link.link_id, link.kind, due).await
        {
            tracing::warn!(link = %link.link_id, %error, "a lease cannot be given back");
        }
        reading
    }

    /// `None`: the link is not to be asked just now.
    async fn ask(&self, due: &DueLink, due_at: Millis) -> Option<Evaluation> {
        let settings = &self.portal.settings.alerts;
        let portfolio = self.directory.portfolio(due.partner_id, Reading::Fresh).await.ok()??;
        let facts = portfolio.link(due.tenant_id.as_str()).filter(|facts| facts.link.id == due.link_id)?;
        let mut trace = Trace::of_job("alerts", Uuid::now_v7());
        trace.partner_tenant = Some(portfolio.partner.home_tenant_id.clone());
        let trace = Arc::new(trace);
        let permission = permission(due.kind);
        let granted = unattended::decide(&self.portal.policies, facts, permission, Millis::now(), &trace).ok()??;
        let managed = self.portal.managed.of(&portfolio).await.ok()?;
        let managed = managed.get(&due.tenant_id).filter(|managed| managed.link.id == due.link_id)?;
        let until = Instant::now() + settings.timeout;
        let reading =
            evaluate::read(&self.portal.fanout, &Site::from(&granted), managed, due.kind, until, due_at).await;
        if let Some(error) = &reading.evaluation.error {
            let request_id = &trace.request_id;
            tracing::debug!(link = %due.link_id, kind = due.kind.as_str(), %request_id, error, "a link gave no full answer");
        }
        Some(reading.evaluation)
    }
}
