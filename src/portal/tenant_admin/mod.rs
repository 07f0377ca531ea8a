//! For a managed tenant's own administrators: who may work in my tenant, and who did what (contract, section 8).
//!
//! Invariant: everything here is about the caller's home tenant. Another tenant's link is answered like one that does
//! not exist, and of a record over several tenants only the own part is shown.

pub(super) mod access_log;
pub(super) mod links;
mod review;

pub(super) use access_log::prepare as access_log;
pub(super) use links::{approve, list};

use super::{Call, Portal, call::Problem};
use crate::{
    domain::{ErrorCode, TenantId},
    store::{StoreError, Turn},
};

fn home(call: &Call) -> Result<&TenantId, Problem> {
    call.asker.home_tenant.as_ref().ok_or_else(|| Problem::new(ErrorCode::InternalError, ""))
}

/// Seconds to wait where too many ask.
const BUSY_SECONDS: u32 = 2;

/// This tenant's turn to walk through the audit index. Waits as long as a consolidated request may take.
async fn turn(portal: &Portal, tenant: &TenantId) -> Result<Turn, Problem> {
    portal.records.turn(tenant, portal.settings.reads.deadline).await.ok_or_else(|| {
        let message = "others look through the audit record just now: try again";
        Problem { retry_after: Some(BUSY_SECONDS), ..Problem::new(ErrorCode::UpstreamUnavailable, message) }
    })
}

/// A refusal of the rules as it is; a database that is away as unavailable.
fn store_problem(error: StoreError) -> Problem {
    match error {
        StoreError::Refused(refusal) => refusal.into(),
        error => {
            tracing::error!(%error, "the store cannot answer a tenant's administrator");
            let code = match error {
                StoreError::Unavailable(_) => ErrorCode::UpstreamUnavailable,
                _ => ErrorCode::InternalError,
            };
            Problem::new(code, "the gateway's database does not answer: try again later")
        }
    }
}
