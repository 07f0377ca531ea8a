//! Whether what was allowed when a request came may still be done now.
//!
//! A service may be slow and a database away: between the decision and the moment in which something is sent a link can be
//! revoked and a user suspended. What acts asks again right before each thing that it sends. The answer is the proxy's,
//! which alone decides: this room only carries the question.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;

use super::call::Problem;
use crate::domain::{Permission, TenantId};

/// Asks again. An error is the refusal to be told; where nothing can be said it is one too.
pub trait Standing: fmt::Debug + Send + Sync {
    /// About these tenants, by the request's own permission and this further one.
    fn ask(&self, tenants: Vec<TenantId>, also: Option<Permission>) -> BoxFuture<'_, Result<(), Problem>>;
}

/// The question that stands before whatever is sent to one site.
#[derive(Clone, Debug)]
pub(super) struct Leave {
    pub(super) standing: Arc<dyn Standing>,
    pub(super) also: Option<Permission>,
}

impl Leave {
    pub(super) async fn for_tenant(&self, tenant: &TenantId) -> Result<(), Problem> {
        self.standing.ask(vec![tenant.clone()], self.also).await
    }
}
