//! Importing rows: a refused row is told and the others go on.
//!
//! Rows are written in batches, each batch one transaction with one change number and each row a savepoint in it: a
//! hundred thousand rows then cost hundreds of commits, a refused row leaves nothing behind, and an import that is
//! interrupted has written whole rows only. At its end, early or not, one more record says how many of what there were;
//! each row has its own history and record beside.

use std::{io, time::Duration};

use serde_json::json;

use super::{
    Actor, Admin, Change, Session,
    parties::{PartnerInput, TenantInput},
    users::UserInput,
};
use crate::{
    audit::{ChangeRecord, Kind},
    domain::{
        ErrorCode,
        link_rules::{FieldError, LinkInput, Refusal},
    },
    store::StoreError,
};

/// Rows of one transaction; other writers wait as long.
const BATCH: usize = 200;
/// How often the record of how many is brought to a database that does not take it.
const RECORD_TRIES: u32 = 4;
const RECORD_PAUSE: Duration = Duration::from_millis(500);
/// Refused rows that are told one by one; all are counted.
const MOST_TOLD: usize = 10_000;

/// One row, of whichever kind.
#[derive(Clone, Debug)]
pub enum ImportInput {
    Tenant(TenantInput),
    Partner(PartnerInput),
    User(UserInput),
    Link(Box<LinkInput>),
}

/// A row with its place in the file. A row that could not even be read is refused with the rest.
#[derive(Clone, Debug)]
pub struct ImportRow {
    pub line: u64,
    pub input: Result<ImportInput, Refusal>,
}

/// Why a row was not imported.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct RefusedRow {
    /// Counted from 1, the line of the columns included.
    pub line: u64,
    pub code: &'static str,
    /// The field at fault, where it is one.
    pub field: Option<String>,
    pub reason: String,
}

/// How an import ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct ImportReport {
    pub imported: u64,
    /// Rows refused, those included that `refused` has no room for.
    pub refused_rows: u64,
    /// One entry a field.
    pub refused: Vec<RefusedRow>,
}

/// Why no row is looked at any more, though there may be some.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    #[error(transparent)]
    Database(#[from] StoreError),
    /// A second try would fail as well, or hide what lies between.
    #[error("line {line} cannot be read")]
    Unreadable {
        line: u64,
        #[source]
        error: io::Error,
    },
    #[error("the quote that opens in line {line} is never closed: nothing behind it was read")]
    UnclosedQuote { line: u64 },
    #[error("the reading of the rows broke off")]
    ReadingEnded,
    #[error("interrupted by a signal")]
    Interrupted,
}

/// An import that ended early. What it had taken until then stays, and `report` tells of it.
#[derive(Debug, thiserror::Error)]
#[error("the import stopped after {} rows", report.imported)]
pub struct ImportStopped {
    pub report: ImportReport,
    /// Whether the record says how many were taken; where none was, there is nothing to say.
    pub recorded: bool,
    #[source]
    pub error: Stop,
}

/// Rows that were taken, by what they are.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    tenants: u64,
    partners: u64,
    users: u64,
    links: u64,
}

impl Taken {
    fn count(&mut self, input: &ImportInput) {
        *match input {
            ImportInput::Tenant(_) => &mut self.tenants,
            ImportInput::Partner(_) => &mut self.partners,
            ImportInput::User(_) => &mut self.users,
            ImportInput::Link(_) => &mut self.links,
        } += 1;
    }
}

impl ImportReport {
    fn refuse(&mut self, line: u64, error: &StoreError) {
        self.refused_rows += 1;
        let mut tell = |code: ErrorCode, field: Option<String>, reason: String| {
            if self.refused.len() < MOST_TOLD {
                self.refused.push(RefusedRow { line, code: code.as_str(), field, reason });
            }
        };
        match error {
            StoreError::Refused(refusal) if !refusal.fields.is_empty() => {
                for FieldError { field, message } in &refusal.fields {
                    tell(refusal.code, Some(field.clone()), message.clone());
                }
            }
            StoreError::NotFound { what, .. } => {
                let field = match *what {
                    "tenant" => Some("tenant".to_owned()),
                    "partner" => Some("partner_id".to_owned()),
                    _ => None,
                };
                tell(error.code(), field, error.to_string());
            }
            _ => tell(error.code(), None, error.to_string()),
        }
    }
}

impl Admin {
    /// Imports all rows; `progress` is told how many were read, `changed` of every transaction when it is committed. Fails
    /// only where the database does, or where the rows end with an error; those before it are imported.
    pub async fn import(
        &self,
        actor: &Actor,
        rows: impl IntoIterator<Item = Result<ImportRow, Stop>>,
        mut progress: impl FnMut(u64),
        mut changed: impl FnMut(Change),
    ) -> Result<ImportReport, ImportStopped> {
        let (mut report, mut taken, mut read) = (ImportReport::default(), Taken::default(), 0);
        let mut rows = rows.into_iter();
        loop {
            let (mut batch, mut ended) = (Vec::with_capacity(BATCH), None);
            for row in rows.by_ref().take(BATCH) {
                match row {
                    Ok(row) => batch.push(row),
                    Err(stop) => {
                        ended = Some(stop);
                        break;
                    }
                }
            }
            if batch.is_empty() && ended.is_none() {
                break;
            }
            read += batch.len() as u64;
            let before = (report.refused_rows, report.refused.len(), taken);
            match self.import_batch(actor, batch, &mut report, &mut taken).await {
                Ok(change) => change.into_iter().for_each(&mut changed),
                Err(error) => {
                    // The batch is as if it had not been begun.
                    report.refused_rows = before.0;
                    report.refused.truncate(before.1);
                    return Err(self.import_stopped(actor, report, before.2, error.into(), changed).await);
                }
            }
            progress(read);
            if let Some(stop) = ended {
                return Err(self.import_stopped(actor, report, taken, stop, changed).await);
            }
        }
        match self.import_recorded(actor, &report, taken, false).await {
            Ok(change) => changed(change),
            Err(error) => return Err(ImportStopped { report, recorded: false, error: error.into() }),
        }
        Ok(report)
    }

    /// With the record of what was taken before, where anything was.
    async fn import_stopped(
        &self,
        actor: &Actor,
        report: ImportReport,
        taken: Taken,
        error: Stop,
        changed: impl FnMut(Change),
    ) -> ImportStopped {
        let recorded = if report.imported == 0 {
            Ok(())
        } else {
            self.import_recorded(actor, &report, taken, true).await.map(changed)
        };
        if let Err(error) = &recorded {
            tracing::error!(%error, imported = report.imported, "how many rows an import took is not recorded");
        }
        ImportStopped { report, recorded: recorded.is_ok(), error }
    }

    /// The rows are in: their record is brought more than once to a database that fails.
    async fn import_recorded(
        &self,
        actor: &Actor,
        report: &ImportReport,
        taken: Taken,
        stopped: bool,
    ) -> Result<Change, StoreError> {
        let mut tries = 1;
        loop {
            match self.import_record(actor, report, taken, stopped).await {
                Err(StoreError::Unavailable(error)) if tries < RECORD_TRIES => {
                    tracing::warn!(%error, "the record of an import cannot be written yet");
                    tries += 1;
                    tokio::time::sleep(RECORD_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn import_batch(
        &self,
        actor: &Actor,
        batch: Vec<ImportRow>,
        report: &mut ImportReport,
        taken: &mut Taken,
    ) -> Result<Option<Change>, StoreError> {
        if batch.is_empty() {
            return Ok(None);
        }
        let mut session = self.session(actor).await?;
        let mut imported = 0;
        for row in batch {
            let written = match row.input {
                Ok(input) => session.import_row(&input).await.map(|()| taken.count(&input)),
                Err(refusal) => Err(refusal.into()),
            };
            match written {
                Ok(()) => imported += 1,
                Err(error) if error.concerns_the_input() => report.refuse(row.line, &error),
                Err(error) => return Err(error),
            }
        }
        if imported == 0 {
            return Ok(None);
        }
        let written = session.commit(()).await?;
        report.imported += imported;
        Ok(Some(written.change))
    }

    /// How many of what, as one record.
    async fn import_record(
        &self,
        actor: &Actor,
        report: &ImportReport,
        taken: Taken,
        stopped: bool,
    ) -> Result<Change, StoreError> {
        let mut session = self.session(actor).await?;
        let Taken { tenants, partners, users, links } = taken;
        let mut after = json!({
            "tenants": tenants, "partners": partners, "users": users, "links": links,
            "refused_rows": report.refused_rows,
        });
        if let (true, Some(fields)) = (stopped, after.as_object_mut()) {
            // The rest was not looked at.
            fields.insert("stopped".to_owned(), true.into());
        }
        let record = ChangeRecord {
            resource_type: Some("import".to_owned()),
            after: Some(after),
            ..session.record(Kind::Admin, "import")
        };
        session.enqueue(&record).await?;
        Ok(session.commit(()).await?.change)
    }
}

impl Session<'_> {
    async fn import_row(&mut self, input: &ImportInput) -> Result<(), StoreError> {
        let touched = self.touched.len();
        self.tx.conn().batch("SAVEPOINT import_row").await?;
        let written = match input {
            ImportInput::Tenant(input) => self.create_tenant(input).await.map(drop),
            ImportInput::Partner(input) => self.create_partner(input).await.map(drop),
            ImportInput::User(input) => self.create_user(input).await.map(drop),
            ImportInput::Link(input) => self.grant(input).await.map(drop),
        };
        if written.is_err() {
            self.touched.truncate(touched);
            self.tx.conn().batch("ROLLBACK TO SAVEPOINT import_row").await?;
        }
        self.tx.conn().batch("RELEASE SAVEPOINT import_row").await?;
        written
    }
}
