//! Which connector answers for which tenant and kind of data.

use std::{collections::HashMap, sync::Arc};

use super::SourceError;
use crate::{
    connector::{ConnectorSettings, Resource, ResourceKind},
    domain::TenantId,
    upstream::Upstream,
};

/// One endpoint with all that is needed to ask it.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) connector: Arc<ConnectorSettings>,
    /// Position of the connector, for keys of caches.
    pub(super) index: u32,
    pub(super) resource: Arc<Resource>,
    pub(super) upstream: Arc<Upstream>,
    /// Upstreams of the resource's witnesses, by rule.
    pub(super) witnesses: Vec<Option<Arc<Upstream>>>,
}

/// `None`: the tenants of the connector have no source for it.
type Entry = Option<Arc<Route>>;

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Of tenants that a connector names. They win.
    own: HashMap<(TenantId, ResourceKind), Entry, ahash::RandomState>,
    shared: HashMap<ResourceKind, Entry>,
}

impl Table {
    pub(super) fn new(connectors: &[ConnectorSettings], upstreams: &[Arc<Upstream>]) -> Self {
        let named = |name: &str| upstreams.iter().find(|upstream| *upstream.name == *name).map(Arc::clone);
        let mut table = Self::default();
        for (index, connector) in (0_u32..).zip(connectors) {
            let connector = Arc::new(connector.clone());
            let routes = connector.resources.iter().filter_map(|resource| {
                let witnesses = resource.failed_when.iter();
                let witnesses =
                    witnesses.map(|rule| rule.witness.as_ref().and_then(|witness| named(&witness.upstream)));
                let route = Route {
                    connector: Arc::clone(&connector),
                    index,
                    resource: Arc::clone(resource),
                    // The configuration has checked that there is one.
                    upstream: named(&resource.upstream)?,
                    witnesses: witnesses.collect(),
                };
                Some((resource.kind, Some(Arc::new(route))))
            });
            let nothing = connector.without.iter().map(|kind| (*kind, None));
            for (kind, entry) in routes.chain(nothing) {
                match &connector.tenants {
                    Some(tenants) => {
                        table.own.extend(tenants.iter().map(|tenant| ((tenant.clone(), kind), entry.clone())));
                    }
                    None => {
                        table.shared.insert(kind, entry);
                    }
                }
            }
        }
        table
    }

    pub(super) fn route(&self, tenant: &TenantId, kind: ResourceKind) -> Result<&Arc<Route>, SourceError> {
        let own = self.own.get(&(tenant.clone(), kind));
        let entry = own.or_else(|| self.shared.get(&kind)).and_then(Option::as_ref);
        entry.ok_or(SourceError::NoConnector(kind.as_str()))
    }
}

impl Route {
    /// For messages: kind of data and tenant, never what was answered.
    pub(super) fn wrong(&self, tenant: &TenantId, problem: impl std::fmt::Display) -> SourceError {
        SourceError::Answer(self.words(tenant, problem))
    }

    /// The service judged the question.
    pub(super) fn refused(&self, tenant: &TenantId, status: http::StatusCode) -> SourceError {
        SourceError::Refused(self.words(tenant, format_args!("status {}", status.as_u16())))
    }

    fn words(&self, tenant: &TenantId, problem: impl std::fmt::Display) -> String {
        let (kind, connector) = (self.resource.kind.as_str(), &self.connector.name);
        format!("{kind} of tenant `{tenant}` by connector `{connector}`: {problem}")
    }
}
