//! Floor 3: the consolidated partner API (contract, section 8): one answer over all tenants of a partner.
//!
//! The proxy room identifies the caller, decides every tenant's slice and opens the record; this room fetches what was
//! granted, merges it and says what is missing. It runs on the service runtime and never decides by itself.
//!
//! Reading order: [`endpoint`] what there is, [`call`] what comes in and goes out, [`query`] what may be asked, `fanout`
//! how many tenants are asked at once, `merge` how their rows become one page, then one file an endpoint.

pub mod body;
pub mod call;
pub mod endpoint;
pub mod exports;
pub mod partial;
pub mod query;
pub mod sources;
pub mod standing;

mod customers;
mod fanout;
mod invoice;
mod lists;
mod managed;
mod merge;
pub mod openapi;
mod periods;
mod reports;

mod me;
mod tenant_admin;
mod writes;

mod unattended;

mod census;
pub mod metrics;

mod alerts;
pub mod events;
#[cfg(test)]
mod scripted;
pub mod webhooks;

use std::{path::Path, sync::Arc};

use futures_util::future::BoxFuture;

pub use alerts::Watcher;
pub use call::{Asker, AskingPartner, Call, Granted, Problem, Reply, ReplyBody, Slice};
pub use census::Counting;
pub use endpoint::{Audience, Bases, Endpoint, Found, Spec, TenantHeader};
pub use managed::ManagedTenant;
pub use standing::Standing;

use crate::{
    config::settings::{ExportSettings, PortalSettings},
    domain::{ApprovalRules, TenantId},
    identity::Keyring,
    policy::Policies,
    store::{AlertKind, AlertStore, AuditStore, Database, Directory, IdempotencyKeys},
};

/// Without it fields of revenue are null.
const REVENUE: &str = "partner.reports.revenue.read";

/// What all consolidated requests share.
#[derive(Debug)]
pub struct Portal {
    pub bases: Bases,
    pub settings: PortalSettings,
    policies: Arc<Policies>,
    managed: managed::ManagedTenants,
    database: Database,
    alerts: AlertStore,
    /// For what must never be asked twice; reads go through the fan-out.
    sources: Arc<sources::Sources>,
    fanout: fanout::Fanout,
    keys: IdempotencyKeys,
    directory: Arc<Directory>,
    records: AuditStore,
    approvals: ApprovalRules,
    pub metrics: Arc<metrics::Metrics>,
    pub exports: exports::Exports,
}

/// What the portal stands on.
#[derive(Debug)]
pub struct Foundations<'a> {
    pub database: &'a Database,
    /// Of the process: what waits in memory outlives a configuration.
    pub keys: &'a IdempotencyKeys,
    pub policies: &'a Arc<Policies>,
    pub directory: &'a Arc<Directory>,
    /// What a tenant's own word on its links is held against.
    pub approvals: ApprovalRules,
    pub exports: &'a ExportSettings,
    pub keyring: Option<&'a Keyring>,
    /// Folder of the audit journal.
    pub journal: &'a Path,
    pub metrics: &'a Arc<metrics::Metrics>,
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
    /// Asked under a base path of older clients.
    pub compatible: bool,
}

impl Portal {
    pub fn new(settings: &PortalSettings, on: &Foundations<'_>, sources: sources::Sources) -> Self {
        let bases = Bases {
            partner: settings.base_paths.clone(),
            compatible: settings.compatibility_base_paths.clone(),
            tenant: settings.tenant_base_path.clone(),
        };
        let sources = Arc::new(sources);
        let upstreams: Arc<dyn fanout::Upstreams> = Arc::<sources::Sources>::clone(&sources);
        Self {
            bases,
            settings: settings.clone(),
            policies: Arc::clone(on.policies),
            managed: managed::ManagedTenants::new(on.database),
            sources,
            database: on.database.clone(),
            alerts: AlertStore::new(on.database),
            fanout: fanout::Fanout::new(&settings.reads, upstreams, on.metrics),
            keys: on.keys.clone(),
            directory: Arc::clone(on.directory),
            records: AuditStore::new(on.database, on.journal),
            approvals: on.approvals,
            metrics: Arc::clone(on.metrics),
            exports: exports::Exports::new(on.exports, on.database, on.keyring, on.metrics),
        }
    }

    /// What makes the files of exports; runs until it is stopped.
    pub fn export_worker(&self) -> exports::ExportWorker<Arc<sources::Sources>> {
        self.exports.worker(Arc::clone(&self.sources), &self.database, &self.policies, &self.directory)
    }

    /// Before metrics are written: sets those that are looked at only then.
    pub fn refresh_metrics(&self) {
        self.metrics.breakers(&self.fanout.open_breakers());
    }

    /// A request's way to its tenants; its time runs from now on.
    fn reading<'c>(&'c self, call: &'c Call) -> fanout::Reading<'c> {
        self.fanout.read(call, self.policies.current().generation())
    }

    /// Reads query and body; every mistake at once.
    pub fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
        match question.spec.endpoint {
            Endpoint::Customers => customers::list::prepare(question),
            Endpoint::Customer => customers::detail::prepare(question),
            Endpoint::BillingSummary => reports::summary::prepare(question),
            Endpoint::Invoices => lists::invoices::prepare(question),
            Endpoint::Tickets => lists::tickets::prepare(question),
            Endpoint::UsageReport => reports::usage::prepare(question),
            Endpoint::SlaReport => reports::sla::prepare(question),
            Endpoint::Me => me::prepare(question),
            Endpoint::CreateTicket => writes::create(question),
            Endpoint::UpdateTicket => writes::update(question),
            Endpoint::CreateExport => exports::create(question),
            Endpoint::Export => exports::state(question),
            Endpoint::DownloadExport => exports::download(question),
            Endpoint::TenantLinks => tenant_admin::list(question),
            Endpoint::ApproveLink => tenant_admin::approve(question),
            Endpoint::AccessLog => tenant_admin::access_log(question),
            Endpoint::SlaAlerts => alerts::prepare_list(AlertKind::Sla, question),
            Endpoint::BillingAlerts => alerts::prepare_list(AlertKind::Billing, question),
            Endpoint::AcknowledgeSlaAlert => alerts::prepare_acknowledge(AlertKind::Sla, question),
            Endpoint::AcknowledgeBillingAlert => alerts::prepare_acknowledge(AlertKind::Billing, question),
        }
    }
}
