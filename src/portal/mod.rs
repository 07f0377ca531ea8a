//! Floor 3: the consolidated partner API (contract, section 8): one answer over all tenants of a partner.
//!
//! The proxy room identifies the caller, decides every tenant's slice and opens the record; this room fetches what was
//! granted, merges it and says what is missing. It runs on the service runtime and never decides by itself.
//!
//! Reading order: [`endpoint`] what there is, [`call`] what comes in and goes out, [`query`] what may be asked, then one
//! file an endpoint.

pub mod body;
pub mod call;
pub mod endpoint;
pub mod exports;
pub mod partial;
pub mod query;
pub mod sources;

mod managed;

mod me;
mod tenant_admin;
mod writes;

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use call::{Asker, AskingPartner, Call, Granted, Problem, Reply, ReplyBody, Slice};
pub use endpoint::{Audience, Bases, Endpoint, Found, Spec, TenantHeader};
pub use managed::ManagedTenant;

use crate::{
    config::settings::{ExportSettings, PortalSettings},
    domain::TenantId,
    identity::Keyring,
    policy::Policies,
    store::{AuditStore, Database, Directory, IdempotencyKeys},
};

/// What all consolidated requests share.
#[derive(Debug)]
pub struct Portal {
    pub bases: Bases,
    pub settings: PortalSettings,
    policies: Arc<Policies>,
    managed: managed::ManagedTenants,
    sources: sources::Sources,
    keys: IdempotencyKeys,
    database: Database,
    directory: Arc<Directory>,
    records: AuditStore,
    require_approval: bool,
    pub exports: exports::Exports,
}

/// What the portal stands on.
#[derive(Debug)]
pub struct Foundations<'a> {
    pub database: &'a Database,
    pub policies: &'a Arc<Policies>,
    pub directory: &'a Arc<Directory>,
    /// New, widened and re-activated links wait for approval.
    pub require_approval: bool,
    pub exports: &'a ExportSettings,
    pub keyring: Option<&'a Keyring>,
}

/// Which tenants a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrow<'a> {
    All,
    /// `tenant_ids`: one without a link is 403 `no_link`, one that is not live its link's own refusal.
    To(&'a [TenantId]),
    /// The tenant in the path: one without a link is 404.
    One(&'a TenantId),
}

impl<'a> From<&'a Option<Vec<TenantId>>> for Narrow<'a> {
    fn from(tenant_ids: &'a Option<Vec<TenantId>>) -> Self {
        tenant_ids.as_ref().map_or(Self::All, |ids| Self::To(ids))
    }
}

/// What a request asks, found valid.
pub trait Prepared: Send {
    /// The tenants that the question narrows the answer to.
    fn narrow(&self) -> Narrow<'_> {
        Narrow::All
    }

    /// Fetches, merges, answers. Dropped when the client leaves.
    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>>;
}

/// The parts of a request that its question is read from.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub spec: &'static Spec,
    /// The path's parameter, decoded once.
    pub param: Option<&'a str>,
    pub query: &'a str,
    pub headers: &'a http::HeaderMap,
    pub body: &'a [u8],
    pub now: jiff::Timestamp,
}

impl Portal {
    pub fn new(settings: &PortalSettings, on: &Foundations<'_>) -> Self {
        let bases = Bases { partner: settings.base_paths.clone(), tenant: settings.tenant_base_path.clone() };
        Self {
            bases,
            settings: settings.clone(),
            policies: Arc::clone(on.policies),
            managed: managed::ManagedTenants::new(on.database),
            sources: sources::Sources {},
            keys: IdempotencyKeys::new(on.database),
            database: on.database.clone(),
            directory: Arc::clone(on.directory),
            records: AuditStore::new(on.database),
            require_approval: on.require_approval,
            exports: exports::Exports::new(on.exports, on.database, on.keyring),
        }
    }

    /// Reads query and body; every mistake at once.
    pub fn prepare(&self, question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
        match question.spec.endpoint {
            Endpoint::Me => me::prepare(question),
            Endpoint::CreateTicket => writes::create(question),
            Endpoint::UpdateTicket => writes::update(question),
            Endpoint::CreateExport => exports::create(question),
            Endpoint::Export => exports::state(question),
            Endpoint::DownloadExport => exports::download(question),
            Endpoint::TenantLinks => tenant_admin::list(question),
            Endpoint::ApproveLink => tenant_admin::approve(question),
            Endpoint::AccessLog => tenant_admin::access_log(question),
            _ => Err(Problem::new(crate::domain::ErrorCode::RouteNotFound, "")),
        }
    }
}
