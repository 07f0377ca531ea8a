//! Invoices of many tenants as a file, made in the background (contract, section 8, 5 and 6).
//!
//! Reading order: `create` queues a job, `worker` leases it and `job` makes its file through a `sheet` (`csv`, `pdf`) into
//! `files`; `state` tells how it stands and issues a link, `download` decides everything afresh and sends the file.
//!
//! Invariants: a file is whole or there is none; it holds what its owner was allowed in each tenant when it was read, and
//! is given only to them, and only while they are allowed all of it (I7).

mod columns;
pub(super) mod create;
mod csv;
mod download;
mod files;
mod job;
mod pdf;
mod pdf_content;
mod pdf_page;
mod pdf_text;
mod request;
mod rights;
mod sheet;
pub(super) mod state;
mod token;
mod worker;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::Notify;
use uuid::Uuid;

pub(super) use self::{create::prepare as create, download::prepare as download, state::prepare as state};
pub use self::{
    files::{Draft, ExportFiles, Folder},
    job::{InvoiceSource, Workshop},
    worker::{ExportWorker, Shift},
};
use self::{request::ExportRequest, rights::Desk, token::DownloadLinks};
use super::{Call, Problem, managed::ManagedTenants, metrics::Metrics};
use crate::{
    config::settings::ExportSettings,
    domain::ErrorCode,
    identity::Keyring,
    policy::Policies,
    store::{Database, Directory, ExportJob, ExportJobs, IdempotencyKeys, Owner, StoreError},
};

/// How long a file is kept.
const KEEP_MS: i64 = 7 * 86_400_000;
/// Before the second and the third try of a tenant that could not be read.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];

/// What the endpoints share with the background.
#[derive(Debug)]
pub struct Exports {
    jobs: ExportJobs,
    files: Arc<dyn ExportFiles>,
    links: DownloadLinks,
    settings: ExportSettings,
    queued: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl Exports {
    pub fn new(
        settings: &ExportSettings,
        database: &Database,
        keyring: Option<&Keyring>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let secret = settings.secret.as_ref().map(|secret| secret.expose());
        if secret.is_none() && keyring.is_none() && database.is_postgres() {
            tracing::warn!(
                "neither `exports.secret` nor signing keys are configured: download links work only at the replica that issued them"
            );
        }
        Self {
            jobs: ExportJobs::new(database),
            files: Arc::new(Folder::new(&settings.dir)),
            links: DownloadLinks::new(secret, keyring),
            settings: settings.clone(),
            queued: Arc::default(),
            metrics: Arc::clone(metrics),
        }
    }

    /// What works on the jobs of this database.
    pub fn worker<S: InvoiceSource>(
        &self,
        source: S,
        database: &Database,
        policies: &Arc<Policies>,
        directory: &Arc<Directory>,
    ) -> ExportWorker<S> {
        ExportWorker {
            workshop: Workshop {
                source,
                files: Arc::clone(&self.files),
                desk: Desk { policies: Arc::clone(policies), directory: Arc::clone(directory) },
                managed: ManagedTenants::new(database),
                pdf_rows: self.settings.pdf_rows,
                pauses: PAUSES.to_vec(),
                longest: self.settings.max_duration,
            },
            jobs: self.jobs.clone(),
            keys: IdempotencyKeys::new(database),
            lease: self.settings.lease,
            concurrency: self.settings.concurrency,
            queued: Arc::clone(&self.queued),
            metrics: Arc::clone(&self.metrics),
        }
    }

    pub fn folder(&self) -> PathBuf {
        self.settings.dir.clone()
    }

    /// The caller's own job by the id in the path.
    async fn own(&self, call: &Call) -> Result<(Owner, ExportJob<ExportRequest>), Problem> {
        let owner = owner(call)?;
        let id = call.param.as_deref().and_then(|id| Uuid::try_parse(id).ok()).ok_or_else(unknown)?;
        let job = self.jobs.of(id, &owner).await.map_err(|error| store_problem(&error))?;
        Ok((owner, job.ok_or_else(unknown)?))
    }
}

fn owner(call: &Call) -> Result<Owner, Problem> {
    Ok(Owner {
        partner_id: call.partner()?.user.partner_id,
        issuer: call.asker.issuer.to_string(),
        sub: call.asker.user_id.to_string(),
    })
}

/// The same for what never was and for what is somebody else's.
fn unknown() -> Problem {
    Problem::new(ErrorCode::ExportNotFound, "")
}

fn store_problem(error: &StoreError) -> Problem {
    tracing::error!(%error, source = ?std::error::Error::source(error), "exports cannot be read or written");
    Problem::new(ErrorCode::UpstreamUnavailable, "the gateway's database does not answer: try again later")
}

#[cfg(test)]
mod tests;
