//! What can go wrong in the store, sorted by whose fault it is.
//!
//! A constraint that the database upheld against a race becomes the same refusal that the rules would have given: the
//! names of the constraints in `migrations/` are matched here and nowhere else.

use sqlx::error::{DatabaseError, ErrorKind};

use super::sqlite_fault::SqliteFault;
use crate::{
    domain::{
        ErrorCode,
        link_rules::{FieldError, Refusal},
    },
    identity::VaultError,
};

/// An error of the store. `Display` never includes the source.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The rules, or a constraint, do not allow the change.
    #[error("{0}")]
    Refused(Refusal),
    /// There is no such row.
    #[error("no {what} has the id `{id}`")]
    NotFound { what: &'static str, id: String },
    /// The database cannot be reached, did not answer in time, or failed.
    #[error("{}", outage(.0))]
    Unavailable(#[source] sqlx::Error),
    /// The configured address cannot be used at all.
    #[error("the database address cannot be used: {0}")]
    Address(String),
    #[error("the database is not migrated ({0}): run `linkgate migrate`")]
    NotMigrated(String),
    #[error(
        "the database was migrated by a newer linkgate (version {0} is unknown here, and does more than add): \
         update this binary"
    )]
    Newer(i64),
    #[error("a migration failed: the database is as it was before it")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// A stored value that no writer of ours can have written.
    #[error("row of `{table}` is damaged: {what}")]
    Damaged { table: &'static str, what: String },
    /// A secret cannot be sealed or opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl StoreError {
    /// The code by which an API tells this error.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::NotFound { what: "tenant", .. } => ErrorCode::TenantNotFound,
            Self::NotFound { .. } => ErrorCode::ValidationError,
            Self::Unavailable(_) => ErrorCode::LinksStale,
            Self::Address(_)
            | Self::NotMigrated(_)
            | Self::Newer(_)
            | Self::Migration(_)
            | Self::Damaged { .. }
            | Self::Vault(_) => ErrorCode::InternalError,
        }
    }

    pub(crate) fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    /// Whether the next row of an import can go on: the refusal concerns this row only.
    pub fn concerns_the_input(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NotFound { .. })
    }
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let refusal = match &error {
            sqlx::Error::Database(inner) => constraint_refusal(inner.as_ref()),
            sqlx::Error::ColumnDecode { index, source } => {
                return Self::Damaged { table: "?", what: format!("column `{index}`: {source}") };
            }
            _ => None,
        };
        refusal.map_or(Self::Unavailable(error), Self::Refused)
    }
}

/// What an operator should look at.
fn outage(error: &sqlx::Error) -> String {
    match SqliteFault::of(error) {
        Some(fault) => fault.advice(),
        None => "the database does not answer: is it running, and is the configured address right?".to_owned(),
    }
}

/// The constraints of `migrations/`, by name (Postgres) or by what SQLite says in its place, and their meaning.
fn constraint_refusal(error: &dyn DatabaseError) -> Option<Refusal> {
    let said = match error.constraint() {
        Some(name) => name.to_owned(),
        None => error.message().to_owned(),
    };
    let is = |word: &str| said.contains(word);
    let sqlite = |columns: &str| said.strip_prefix("UNIQUE constraint failed: ") == Some(columns);
    let field = |name: &str, message: &str| {
        Some(Refusal::fields("link", vec![FieldError { field: name.to_owned(), message: message.to_owned() }]))
    };
    match error.kind() {
        ErrorKind::UniqueViolation
            if is("one_full_role_per_tenant") || sqlite("partner_tenant_links.managed_tenant_id") =>
        {
            Some(Refusal::conflict(FULL_ROLE_TAKEN))
        }
        ErrorKind::UniqueViolation
            if is("one_link_per_pair")
                || sqlite("partner_tenant_links.partner_id, partner_tenant_links.managed_tenant_id") =>
        {
            Some(Refusal::conflict("the partner already has a link to this tenant"))
        }
        ErrorKind::UniqueViolation
            if is("one_user_per_subject") || sqlite("partner_users.issuer, partner_users.sub") =>
        {
            Some(Refusal::conflict("a user with this issuer and subject exists already"))
        }
        ErrorKind::UniqueViolation if is("one_suspension_at_a_time") => {
            Some(Refusal::conflict("this is suspended already"))
        }
        ErrorKind::UniqueViolation => Some(Refusal::conflict("a row with this id exists already")),
        ErrorKind::ForeignKeyViolation => Some(Refusal::new(
            ErrorCode::ValidationError,
            "a partner, tenant or parent link that is named does not exist",
        )),
        ErrorKind::CheckViolation if is("own_tenant_is_never_managed") => {
            field("managed_tenant_id", "the partner's own tenant is never a managed tenant")
        }
        ErrorKind::CheckViolation if is("ends_after_it_starts") => field("end_date", "is before the start"),
        ErrorKind::CheckViolation if is("delegated_links_are_delegates") => {
            field("access_role", "a link delegated onward (`parent_link_id`) is always of role `delegate`")
        }
        ErrorKind::CheckViolation => {
            Some(Refusal::new(ErrorCode::ValidationError, format!("a value is out of range (`{said}`)")))
        }
        _ => None,
    }
}

pub(crate) const FULL_ROLE_TAKEN: &str =
    "the tenant already has an active link of a full role (`msp_full` or `enterprise_hq`): revoke that one first";
