//! Tickets opened and changed in one managed tenant (contract, section 8, 8 and 9).
//!
//! Invariants: one tenant is acted in, by a slice that was granted for this very act; nothing is sent twice, and where
//! it is not known whether something was done the answer says so; a change or comment goes only where a ticket of its id
//! was seen, for a service has words of its own where ids stand (`/tickets/stats`); what was begun is brought to its end
//! and kept even if the client leaves.

pub(super) mod create;
mod once;
mod service;
pub(super) mod update;

use std::time::Duration;

pub(super) use create::prepare as create;
pub(super) use update::prepare as update;

use super::{
    call::Problem,
    sources::{SourceError, WriteError},
};
use crate::{
    audit::SliceOutcome,
    connector::rows::Priority,
    domain::{ErrorCode, TenantId},
};

/// How long a write may take in all: looking up, sending, the comment.
const DEADLINE: Duration = Duration::from_secs(30);

/// Words of `priority`.
const PRIORITIES: &[(&str, Priority)] =
    &[("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High), ("urgent", Priority::Urgent)];

/// The slice outcome that tells the tenant that was acted in from those that were only looked in.
pub(super) const ACTED: &str = "acted";

fn outcome(tenant: &TenantId, status: &'static str) -> SliceOutcome {
    SliceOutcome { managed_tenant_id: tenant.as_str().to_owned(), status: status.into() }
}

/// Whether a write that failed may have been done all the same.
fn may_be_done(error: &WriteError) -> bool {
    match error {
        WriteError::Unknown(_) => true,
        // A service that failed in the middle of it may have done a part.
        WriteError::Refused(status) => *status >= 500,
        WriteError::NotSent(_) | WriteError::NotFound => false,
    }
}

/// A failed write for the client. `what`: "the ticket was not created"; `unsure`: "whether the ticket was created".
fn problem(error: &WriteError, what: &str, unsure: &str) -> Problem {
    match error {
        // Its own word: nobody words a refusal anew.
        WriteError::NotSent(SourceError::Barred(problem)) => Problem::clone(problem),
        WriteError::NotSent(SourceError::NoConnector(kind)) => Problem::new(
            ErrorCode::UpstreamUnavailable,
            format!("{what}: no connector is configured for {kind} of this tenant"),
        ),
        WriteError::NotSent(SourceError::Answer(_) | SourceError::Refused(_)) => {
            Problem::new(ErrorCode::UpstreamError, format!("{what}: the request could not be made for this service"))
        }
        WriteError::NotSent(SourceError::Timeout | SourceError::Unavailable(_) | SourceError::Unasked(_)) => {
            Problem::new(
                ErrorCode::UpstreamUnavailable,
                format!("{what}: the service cannot be reached now; try again later"),
            )
        }
        WriteError::NotFound => Problem::new(ErrorCode::UpstreamError, format!("{what}: the service does not know it")),
        WriteError::Refused(409) => Problem::new(
            ErrorCode::Conflict,
            format!("{what}: the service answered that it conflicts with another change"),
        ),
        WriteError::Refused(status @ (400 | 422)) => Problem::new(
            ErrorCode::ValidationError,
            format!("{what}: the service does not accept these values (status {status})"),
        ),
        WriteError::Refused(status) if *status < 500 => {
            Problem::new(ErrorCode::UpstreamError, format!("{what}: the service refused it with status {status}"))
        }
        WriteError::Refused(status) => Problem::new(
            ErrorCode::UpstreamError,
            format!("the service failed with status {status}: {unsure} is not known; look before you send it again"),
        ),
        WriteError::Unknown(SourceError::Timeout) => Problem::new(
            ErrorCode::UpstreamTimeout,
            format!("the service did not answer in time: {unsure} is not known; look before you send it again"),
        ),
        WriteError::Unknown(_) => Problem::new(
            ErrorCode::UpstreamError,
            format!("the service gave no usable answer: {unsure} is not known; look before you send it again"),
        ),
    }
}

#[cfg(test)]
mod tests;
