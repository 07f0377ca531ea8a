//! Floor 2: partners, tenants, users, links, audit index on SQLite and Postgres.
//!
//! Writing goes through [`Admin`]: each operation is one transaction that raises the change counter, changes the rows,
//! keeps history, logs what was touched and leaves an audit record in the outbox. Reading on the request path goes
//! through [`Directory`]: one immutable [`crate::domain::Portfolio`] a partner, kept fresh by the change feed. The audit
//! index ([`AuditStore`]) is filled behind the journal and asked by `audit query`.
//!
//! SQL that both databases understand is written once, with `$1` placeholders, over the thin layer of `sql`; what
//! differs stands side by side in one place.

mod error;
mod sql;
mod sqlite_fault;

mod database;
mod mend;
mod migrations;
mod small_blocks;
mod sqlite;

mod records;

pub mod admin;

mod access_at;
mod alert_life;
pub mod alerts;
pub mod deliveries;
pub mod ending;
pub mod events;

mod audit_chunks;
mod audit_depot;
mod audit_evidence;
mod audit_index;
mod audit_kept;
mod audit_lines;
mod audit_openings;
mod audit_query;
mod audit_rebuild;
mod audit_retained;
mod audit_retention;
mod audit_terms;
mod audit_turns;
mod outbox;

mod census;
mod changes;
mod directory;
mod feed;
mod managed;
mod portfolio;

mod export_jobs;
mod idempotency;
mod tenant_links;
mod unsettled;

#[doc(hidden)]
pub mod bulk;

pub use access_at::{AccessAt, Known, LinkThen, Side, TermsThen};
pub use admin::{Actor, Admin, Change, Touch, Written};
pub use alert_life::{Applied, Evaluation, Finding};
pub use alerts::{AlertKind, AlertRecord, AlertStatus, AlertStore};
pub use audit_depot::{DepotError, HEARD, PostgresDepot};
pub use audit_evidence::{Proofs, Provable, Unproven};
pub use audit_index::AuditStore;
pub use audit_kept::{Faulty, Gone};
pub use audit_openings::IndexedUsage;
pub use audit_rebuild::Extent;
pub use audit_retained::{KeptJournal, emptied};
pub use audit_turns::Turn;
pub use census::Census;
pub use database::Database;
pub use directory::{Directory, LinksUnavailable, LoadHook, Reading};
pub use error::StoreError;
pub use export_jobs::{ExportJob, ExportJobs, FinishedFile, JobState, Lease, Owner, Whose};
pub use idempotency::{Claim, Claimed, IdempotencyKeys, Scope, Settlement, StoredAnswer};
pub use managed::managed_tenants;
pub use portfolio::load_tenant_facts;
pub use records::{
    HistoryRecord, LinkRecord, PartnerRecord, Stamps, SuspensionRecord, SuspensionScope, TenantRecord, UserRecord,
};
pub use small_blocks::small_blocks;
pub use tenant_links::{TenantLink, TenantLinkFilter, tenant_link, tenant_links};
