//! `GET /customers` and `GET /customers/{tenant_id}`: the tenants of a partner with their figures.
//!
//! Names, status and dates come from the registry of tenants, and from our own table where the registry does not say or
//! does not answer. Figures are asked for the tenants of the page only, unless they decide the order.

pub(super) mod detail;
pub(super) mod list;

mod compatible;
mod parts;
pub(super) mod view;

use std::sync::Arc;

use jiff::Timestamp;

use super::{Granted, ManagedTenant, REVENUE};
use crate::{connector::rows::TenantRow, domain::TenantId};

/// A tenant before its figures.
#[derive(Clone, Debug)]
struct Customer<'c> {
    granted: &'c Granted,
    managed: Arc<ManagedTenant>,
    /// `None`: the registry did not answer.
    registry: Option<Arc<TenantRow>>,
}

impl Customer<'_> {
    fn id(&self) -> &TenantId {
        self.granted.tenant()
    }

    fn said<T>(&self, of: impl FnOnce(&TenantRow) -> Option<T>) -> Option<T> {
        self.registry.as_deref().and_then(of)
    }

    fn name(&self) -> &str {
        self.registry.as_ref().and_then(|row| row.name.as_deref()).unwrap_or(&self.managed.tenant.name)
    }

    fn slug(&self) -> Option<&str> {
        self.registry.as_ref().and_then(|row| row.slug.as_deref()).or(self.managed.tenant.slug.as_deref())
    }

    fn domain(&self) -> Option<&str> {
        self.registry.as_ref().and_then(|row| row.domain.as_deref()).or(self.managed.tenant.domain.as_deref())
    }

    fn status(&self) -> &str {
        self.registry.as_ref().and_then(|row| row.status.as_deref()).unwrap_or(&self.managed.tenant.status)
    }

    fn created_at(&self) -> Option<Timestamp> {
        self.said(|row| row.created_at)
    }

    /// Whether revenue may be shown.
    fn shows_revenue(&self) -> bool {
        self.granted.also(REVENUE)
    }
}
