//! The background of exports: jobs are leased, worked on, and cleaned up when their time is over.
//!
//! Invariants: a job is worked on under a lease that is renewed all the while, and given up at the moment it cannot be;
//! a process that dies leaves its jobs to others once their leases end; a stop gives them back at once; the jobs of one
//! partner never have all workers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};
use uuid::Uuid;

use super::{
    job::{InvoiceSource, JobError, Workshop},
    request::ExportRequest,
};
use crate::{
    domain::Millis,
    portal::metrics::{ExportEnd, Metrics},
    store::{ExportJob, ExportJobs, FinishedFile, IdempotencyKeys, Lease, Whose},
};

/// How often the database is asked for a job that another process queued or left.
const POLL: Duration = Duration::from_secs(1);
/// How often what is over is cleaned up, and how much at once.
const CLEAN: Duration = Duration::from_secs(60);
const CLEAN_AT_ONCE: i64 = 500;
/// How long an expired job still says so.
const TOMBSTONE_MS: i64 = 7 * 86_400_000;
/// A file that nobody knows is removed when it is this old.
const STRAY_AGE: Duration = Duration::from_secs(86_400);
/// A job that was begun so often takes its process with it.
const MOST_ATTEMPTS: i64 = 5;
/// How often a finished file is brought to the database before it is left to the next worker.
const FINISH_TRIES: u32 = 5;
const FINISH_PAUSE: Duration = Duration::from_secs(1);

/// Works on jobs until stopped.
#[derive(Debug)]
pub struct ExportWorker<S> {
    pub workshop: Workshop<S>,
    pub jobs: ExportJobs,
    pub keys: IdempotencyKeys,
    pub lease: Duration,
    pub concurrency: usize,
    /// Told when this process queues a job.
    pub queued: Arc<Notify>,
    pub metrics: Arc<Metrics>,
}

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shift {
    Working,
    /// Jobs under way are finished; new ones are another worker's.
    Last,
    /// Jobs under way are given back.
    Over,
}

/// How the work on one job ended.
enum Ended {
    Made(FinishedFile),
    Failed(JobError),
    /// A stop was asked for.
    Stopped,
    /// The lease is somebody else's, or nobody knows.
    Lost,
}

impl<S: InvoiceSource> ExportWorker<S> {
    /// Ends after the last shift, and at once when it is over or nobody is left to say so.
    pub async fn run(self: Arc<Self>, mut shift: watch::Receiver<Shift>) {
        let mut running = JoinSet::new();
        let mut clean_at = Instant::now();
        loop {
            while running.len() < self.concurrency && *shift.borrow() == Shift::Working {
                let Some((lease, job)) = self.next(running.len()).await else { break };
                running.spawn(Arc::clone(&self).work(lease, job, shift.clone()));
            }
            if Instant::now() >= clean_at {
                self.clean(Millis::now()).await;
                clean_at = Instant::now() + CLEAN;
            }
            tokio::select! {
                () = reached(&mut shift, Shift::Last) => break,
                Some(ended) = running.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the work on an export ended by a panic");
                    }
                }
                () = self.queued.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    fn lease_end(&self) -> Millis {
        Millis(Millis::now().0.saturating_add(i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The last free worker is kept for partners that have none: however long the jobs of the others hang, who comes
    /// next is served at once. A worker that is the only one is everybody's.
    async fn next(&self, running: usize) -> Option<(Lease, ExportJob<ExportRequest>)> {
        let is_last = self.concurrency > 1 && running + 1 >= self.concurrency;
        let whose = if is_last { Whose::Newcomers } else { Whose::Anyones };
        match self.jobs.lease(whose, Millis::now(), self.lease_end()).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the database cannot be asked for exports");
                None
            }
        }
    }

    async fn work(self: Arc<Self>, lease: Lease, job: ExportJob<ExportRequest>, shift: watch::Receiver<Shift>) {
        let format = job.request.content.format.as_str();
        let started = Instant::now();
        if job.attempts > MOST_ATTEMPTS {
            self.failed(lease, "it was interrupted too often").await;
            self.metrics.export(format, ExportEnd::Failed, started.elapsed());
            return;
        }
        let ended = self.make(lease, job, shift).await;
        let end = match &ended {
            Ended::Made(_) => ExportEnd::Completed,
            Ended::Failed(_) => ExportEnd::Failed,
            Ended::Stopped => ExportEnd::Stopped,
            Ended::Lost => ExportEnd::Lost,
        };
        self.metrics.export(format, end, started.elapsed());
        match ended {
            Ended::Made(file) => {
                tracing::info!(export = %lease.job, rows = file.rows, bytes = file.bytes, took = ?started.elapsed(), "export completed");
                self.finished(lease, &file).await;
            }
            Ended::Failed(error) => {
                tracing::warn!(export = %lease.job, %error, source = ?std::error::Error::source(&error), "export failed");
                self.failed(lease, &error.to_string()).await;
            }
            Ended::Stopped => {
                if let Err(error) = self.jobs.give_back(lease).await {
                    tracing::warn!(export = %lease.job, %error, "an export cannot be given back: it waits for its lease to end");
                }
            }
            Ended::Lost => tracing::warn!(export = %lease.job, "the lease of an export was lost: it is begun anew"),
        }
    }

    /// Makes the file on a blocking thread and renews the lease meanwhile.
    async fn make(
        self: &Arc<Self>,
        lease: Lease,
        job: ExportJob<ExportRequest>,
        mut shift: watch::Receiver<Shift>,
    ) -> Ended {
        let progress = Arc::new(AtomicU64::new(0));
        // Dropped with this future, which ends the work too: a lease that nobody renews must not be worked under.
        let (abort, mut aborted) = watch::channel(Shift::Working);
        let (this, rows, runtime) = (Arc::clone(self), Arc::clone(&progress), Handle::current());
        let mut making = tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = reached(&mut aborted, Shift::Over) => Err(JobError::Interrupted),
                    made = this.workshop.make(lease, &job, &rows) => made,
                }
            })
        });
        let mut good_until = Instant::now() + self.lease;
        let mut stopping = false;
        let mut lost = false;
        let made = loop {
            tokio::select! {
                made = &mut making => break made,
                () = reached(&mut shift, Shift::Over), if !stopping => {
                    stopping = true;
                    abort.send_replace(Shift::Over);
                }
                () = tokio::time::sleep(self.lease / 3), if !lost => {
                    match self.jobs.renew(lease, self.lease_end(), progress.load(Ordering::Relaxed)).await {
                        Ok(true) => good_until = Instant::now() + self.lease,
                        Ok(false) => lost = true,
                        // Somebody else may take it from then on.
                        Err(_) => lost = Instant::now() + self.lease / 3 >= good_until,
                    }
                    if lost {
                        abort.send_replace(Shift::Over);
                    }
                }
            }
        };
        match made {
            Ok(Ok(file)) if lost => {
                self.remove(&file.name).await;
                Ended::Lost
            }
            _ if lost => Ended::Lost,
            Ok(Ok(file)) => Ended::Made(file),
            Ok(Err(JobError::Interrupted)) => Ended::Stopped,
            Ok(Err(error)) => Ended::Failed(error),
            Err(error) => {
                tracing::error!(%error, "making an export ended by a panic");
                Ended::Failed(JobError::Files(std::io::Error::other("a fault of the gateway")))
            }
        }
    }

    async fn finished(&self, lease: Lease, file: &FinishedFile) {
        for attempt in 1..=FINISH_TRIES {
            match self.jobs.complete(lease, file, Millis::now()).await {
                Ok(true) => return,
                Ok(false) => break,
                Err(error) if attempt == FINISH_TRIES => {
                    // Not removed: the database may have taken it all the same. If not, it is a stray.
                    tracing::error!(export = %lease.job, %error, "a finished export cannot be told to the database: it is made again");
                    return;
                }
                Err(_) => tokio::time::sleep(FINISH_PAUSE).await,
            }
        }
        tracing::warn!(export = %lease.job, "an export was finished after its lease: the file is thrown away");
        self.remove(&file.name).await;
    }

    async fn failed(&self, lease: Lease, reason: &str) {
        if let Err(error) = self.jobs.fail(lease, reason, Millis::now()).await {
            tracing::error!(export = %lease.job, %error, "that an export failed cannot be told to the database");
        }
    }

    async fn remove(&self, name: &str) -> bool {
        let (files, named) = (Arc::clone(&self.workshop.files), name.to_owned());
        match tokio::task::spawn_blocking(move || files.remove(&named)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(name, %error, "the file of an export cannot be removed");
                false
            }
            Err(_) => false,
        }
    }

    /// Expires jobs and keys, and removes what belongs to nobody. Bounded; the next time goes on.
    pub async fn clean(&self, now: Millis) {
        // However many came: what is left over would only grow.
        loop {
            match self.keys.clean(now, CLEAN_AT_ONCE).await {
                Ok(removed) if removed < CLEAN_AT_ONCE.unsigned_abs() => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "old idempotency keys cannot be removed");
                    break;
                }
            }
        }
        if let Err(error) = self.jobs.mend(now).await {
            tracing::warn!(%error, "leases of exports cannot be looked through");
        }
        match self.jobs.expire(now, CLEAN_AT_ONCE).await {
            Ok(expired) => {
                for (id, name) in expired {
                    let Some(name) = name else { continue };
                    if self.remove(&name).await
                        && let Err(error) = self.jobs.file_removed(id).await
                    {
                        tracing::warn!(%error, "that a file was removed cannot be told to the database");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "old exports cannot be expired"),
        }
        if let Err(error) = self.jobs.forget(Millis(now.0.saturating_sub(TOMBSTONE_MS)), CLEAN_AT_ONCE).await {
            tracing::warn!(%error, "old exports cannot be forgotten");
        }
        self.strays(STRAY_AGE).await;
    }

    /// Removes finished files that no job knows: left by a process that died between file and database.
    pub async fn strays(&self, age: Duration) {
        let files = Arc::clone(&self.workshop.files);
        let names = match tokio::task::spawn_blocking(move || files.untouched(age)).await {
            Ok(Ok(names)) => names,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the folder of exports cannot be read");
                return;
            }
            Err(_) => return,
        };
        for name in names {
            let Some(lease) = leased(&name) else { continue };
            if matches!(self.jobs.knows_file(lease, &name).await, Ok(false)) {
                tracing::info!(name, "a file that no export knows is removed");
                self.remove(&name).await;
            }
        }
    }
}

/// Job and lease in a file's name; `None` for what is not ours.
fn leased(name: &str) -> Option<Lease> {
    let (stem, _) = name.split_once('.')?;
    let (job, id) = stem.split_once('-')?;
    Some(Lease { job: Uuid::try_parse(job).ok()?, id: Uuid::try_parse(id).ok()? })
}

/// Waits until it is this late, or nobody is left to say so.
async fn reached(shift: &mut watch::Receiver<Shift>, late: Shift) {
    while *shift.borrow_and_update() < late {
        if shift.changed().await.is_err() {
            return;
        }
    }
}
