//! Making one file: tenant after tenant, each decided and read afresh, whole or not at all.
//!
//! Runs on a blocking thread: rows are written as they come, and the sockets stay on the service runtime.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    columns::{self, TenantName},
    csv::CsvSheet,
    files::{Draft, ExportFiles},
    pdf::PdfSheet,
    pdf_content::Title,
    request::{Content, ExportRequest, Format},
    rights::{Barred, Desk},
    sheet::{Sheet, SheetError},
};
use crate::{
    connector::rows::InvoiceRow,
    domain::{Denial, Portfolio, TenantId, Trace},
    portal::{
        invoice::status,
        managed::ManagedTenants,
        sources::{Each, InvoiceFilter, Scanned, Site, SourceError, Sources},
    },
    store::{ExportJob, FinishedFile, Lease},
};

/// How long one tenant's invoices may take to read.
const TENANT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Where invoices come from.
pub trait InvoiceSource: Send + Sync + 'static {
    fn invoices(
        &self,
        site: &Site,
        filter: &InvoiceFilter,
        until: Instant,
        each: Each<'_, InvoiceRow>,
    ) -> impl Future<Output = Result<Scanned, SourceError>> + Send;
}

impl InvoiceSource for Arc<Sources> {
    async fn invoices(
        &self,
        site: &Site,
        filter: &InvoiceFilter,
        until: Instant,
        each: Each<'_, InvoiceRow>,
    ) -> Result<Scanned, SourceError> {
        Sources::every_invoice(self, site, filter, until, each).await
    }
}

/// How often it is asked again whether a tenant may still be read while it is: its pages come one after the other.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What a job is made with.
#[derive(Debug)]
pub struct Workshop<S> {
    pub source: S,
    pub files: Arc<dyn ExportFiles>,
    pub desk: Desk,
    pub(in crate::portal) managed: ManagedTenants,
    pub pdf_rows: usize,
    /// Before each further try of a tenant that could not be read.
    pub pauses: Vec<Duration>,
    /// The longest that one file may take.
    pub longest: Duration,
}

/// Why there is no file. `Display` is for the one who asked.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("access to tenant `{tenant}` ended before all its invoices were read ({})", denial.word())]
    Denied { tenant: TenantId, denial: Denial },
    #[error("tenant `{tenant}` could not be read, {tries} times: {reason}")]
    Unread { tenant: TenantId, tries: usize, reason: String },
    #[error(
        "it took longer than {} minutes and was ended while tenant `{tenant}` was read, after {done} of {all} tenants: \
         narrow the dates, or ask for fewer tenants at a time", longest.as_secs().div_ceil(60)
    )]
    TooLong { longest: Duration, tenant: TenantId, done: usize, all: usize },
    #[error("tenant `{0}` holds more invoices than its service gives out: narrow the dates")]
    Truncated(TenantId),
    #[error("{0}")]
    Sheet(#[from] SheetError),
    #[error("the file cannot be kept")]
    Files(#[from] std::io::Error),
    #[error("it was stopped")]
    Interrupted,
}

/// One tenant's turn failed, and may go better the next time.
enum Turn {
    Again(String),
    Never(JobError),
}

impl From<SheetError> for Turn {
    fn from(error: SheetError) -> Self {
        Self::Never(error.into())
    }
}

/// The name of a job's file under this lease.
pub(super) fn file_name(lease: Lease, format: Format) -> String {
    format!("{}-{}.{}", lease.job.simple(), lease.id.simple(), format.as_str())
}

impl<S: InvoiceSource> Workshop<S> {
    /// Makes the file of one job. `progress`: rows written so far.
    pub async fn make(
        &self,
        lease: Lease,
        job: &ExportJob<ExportRequest>,
        progress: &AtomicU64,
    ) -> Result<FinishedFile, JobError> {
        let request = &job.request;
        let name = file_name(lease, request.content.format);
        let draft = self.files.draft(&name)?;
        let mut sheet = self.sheet(&draft, job).await?;
        // A worker is not held for hours by services that hang one after the other.
        let until = Instant::now() + self.longest;
        for (done, tenant) in request.tenants.iter().enumerate() {
            let read = self.tenant(tenant, job, &mut *sheet, progress);
            let Ok(read) = tokio::time::timeout_at(until, read).await else {
                let all = request.tenants.len();
                return Err(JobError::TooLong { longest: self.longest, tenant: tenant.clone(), done, all });
            };
            read?;
        }
        let rows = sheet.rows();
        sheet.finish()?;
        let bytes = self.files.publish(draft)?;
        Ok(FinishedFile { name, bytes, rows })
    }

    async fn sheet(&self, draft: &Draft, job: &ExportJob<ExportRequest>) -> Result<Box<dyn Sheet>, JobError> {
        let Content { format, columns, line_items, .. } = &job.request.content;
        let today = columns::day(Timestamp::now());
        let file = draft.file.try_clone()?;
        Ok(match format {
            Format::Csv => Box::new(CsvSheet::begin(file, columns, *line_items, today)?),
            Format::Pdf => {
                let partner = self.desk.directory.portfolio(job.owner.partner_id, crate::store::Reading::Fresh).await;
                let partner = partner.ok().flatten().map(|portfolio| portfolio.partner.name.to_string());
                let period = job.request.content.period();
                let title = Title {
                    partner: partner.unwrap_or_default(),
                    from: period.first_day(),
                    to: period.last_day(),
                    made: Timestamp::now(),
                };
                Box::new(PdfSheet::begin(file, title, columns, *line_items, today, self.pdf_rows))
            }
        })
    }

    async fn tenant(
        &self,
        tenant: &TenantId,
        job: &ExportJob<ExportRequest>,
        sheet: &mut dyn Sheet,
        progress: &AtomicU64,
    ) -> Result<(), JobError> {
        let mark = sheet.mark()?;
        let mut tries = 0;
        loop {
            tries += 1;
            let reason = match self.turn(tenant, job, sheet, progress).await {
                Ok(()) => return Ok(()),
                Err(Turn::Never(error)) => return Err(error),
                Err(Turn::Again(reason)) => reason,
            };
            tracing::warn!(export = %job.id, %tenant, tries, reason, "a tenant could not be read for an export");
            sheet.rewind(mark)?;
            progress.store(mark.rows, Ordering::Relaxed);
            match self.pauses.get(tries - 1) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(JobError::Unread { tenant: tenant.clone(), tries, reason }),
            }
        }
    }

    async fn turn(
        &self,
        tenant: &TenantId,
        job: &ExportJob<ExportRequest>,
        sheet: &mut dyn Sheet,
        progress: &AtomicU64,
    ) -> Result<(), Turn> {
        // The same at every try, so that all of a job is found by its id.
        let trace = Arc::new(Trace::of_job("export", job.id));
        let (granted, portfolio) = match self.desk.decide(&job.owner, &job.request.rights, tenant, &trace).await {
            Ok(decided) => decided,
            Err(Barred::Denied(denial)) => {
                return Err(Turn::Never(JobError::Denied { tenant: tenant.clone(), denial }));
            }
            Err(Barred::Unsure(reason)) => return Err(Turn::Again(reason.to_owned())),
        };
        let name = self.named(tenant, &portfolio).await?;
        let content = &job.request.content;
        let filter = InvoiceFilter {
            period: Some(content.period()),
            status: content.status.clone(),
            line_items: content.line_items,
        };
        let today = columns::day(Timestamp::now());
        let mut trouble = None;
        let mut each = |row: InvoiceRow| {
            if trouble.is_some() || !fits(content, &row, today) {
                return;
            }
            match sheet.invoice(&name, &row) {
                Ok(()) => progress.store(sheet.rows(), Ordering::Relaxed),
                Err(error) => trouble = Some(error),
            }
        };
        let until = Instant::now() + TENANT_TIMEOUT;
        let site = Site::from(&granted);
        let read = {
            let mut reading = pin!(self.source.invoices(&site, &filter, until, &mut each));
            loop {
                tokio::select! {
                    biased;
                    read = &mut reading => break read,
                    () = tokio::time::sleep(ASK_AGAIN) => {}
                }
                // Nothing is read on meanwhile: no page is asked for while it is not known whether it may be.
                self.still_allowed(tenant, job, &trace, until).await?;
            }
        };
        if let Some(error) = trouble {
            return Err(error.into());
        }
        match read {
            Ok(Scanned { truncated: false, .. }) => Ok(()),
            Ok(_) => Err(Turn::Never(JobError::Truncated(tenant.clone()))),
            Err(error) => Err(Turn::Again(error.to_string())),
        }
    }

    /// Waits until it is known that the tenant may be read on.
    async fn still_allowed(
        &self,
        tenant: &TenantId,
        job: &ExportJob<ExportRequest>,
        trace: &Arc<Trace>,
        until: Instant,
    ) -> Result<(), Turn> {
        loop {
            match self.desk.decide(&job.owner, &job.request.rights, tenant, trace).await {
                Ok(_) => return Ok(()),
                Err(Barred::Denied(denial)) => {
                    return Err(Turn::Never(JobError::Denied { tenant: tenant.clone(), denial }));
                }
                Err(Barred::Unsure(_)) if Instant::now() < until => tokio::time::sleep(ASK_AGAIN).await,
                Err(Barred::Unsure(reason)) => return Err(Turn::Again(reason.to_owned())),
            }
        }
    }

    async fn named(&self, tenant: &TenantId, portfolio: &Portfolio) -> Result<TenantName, Turn> {
        let managed = self.managed.of(portfolio).await;
        let managed = managed.map_err(|_| Turn::Again("tenants cannot be read now".to_owned()))?;
        let name = managed.get(tenant).map(|found| found.tenant.name.clone());
        Ok(TenantName { id: tenant.as_str().to_owned(), name })
    }
}

/// What a service gives beside what was asked for is left out here.
fn fits(content: &Content, row: &InvoiceRow, today: jiff::civil::Date) -> bool {
    content.period().holds(row.invoice_date)
        && (content.status.is_empty() || content.status.contains(&status(row, today)))
}
