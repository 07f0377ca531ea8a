//! Why an open stream may not go on (contract, section 5): the word in records and logs, and the answer where none began.

use std::fmt;

use super::{body::TOTAL_TIMEOUT, certificate, forward, respond::Failure};
use crate::domain::{Denial, ErrorCode, Gate, Reason, words};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutReason {
    /// The certificate that the connection was opened with counts no more.
    Certificate,
    LinksStale,
    PolicyError,
    /// The user is no active partner's any more.
    NotAPartner,
    LinkExpired,
    LinkRevoked,
    /// The route's total time is over.
    TotalTimeout,
    /// Any other gate that closed.
    Denied(Denial),
}

impl CutReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => certificate::WORD,
            Self::LinksStale => "links_stale",
            Self::PolicyError => words::POLICY_ERROR,
            Self::NotAPartner => Reason::NotAPartner.as_str(),
            Self::LinkExpired => "link_expired",
            Self::LinkRevoked => "link_revoked",
            Self::TotalTimeout => TOTAL_TIMEOUT,
            Self::Denied(denial) => denial.word(),
        }
    }

    /// A stream that was cut before its answer began ends like a request that is made now.
    pub fn failure(self) -> Failure {
        let mut failure = match self {
            // The sweep saw it before the call's own timer.
            Self::TotalTimeout => return forward::late(),
            Self::Certificate => certificate::counts_no_more(),
            Self::LinksStale => Failure::new(ErrorCode::LinksStale, ""),
            Self::PolicyError => Failure::new(ErrorCode::PolicyUnavailable, ""),
            Self::NotAPartner => Denial::new(ErrorCode::Forbidden, Reason::NotAPartner).into(),
            Self::LinkExpired => Denial::from(Gate::Ended).into(),
            Self::LinkRevoked => Denial::from(Gate::Active).into(),
            Self::Denied(denial) => denial.into(),
        };
        failure.detail = self.as_str();
        failure
    }
}

impl fmt::Display for CutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Denial> for CutReason {
    fn from(denial: Denial) -> Self {
        match denial {
            ended if ended == Denial::from(Gate::Ended) => Self::LinkExpired,
            closed if closed == Denial::from(Gate::Active) => Self::LinkRevoked,
            other => Self::Denied(other),
        }
    }
}

impl From<Gate> for CutReason {
    fn from(gate: Gate) -> Self {
        Denial::from(gate).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_answered_as_what_it_is() {
        let told = |why: CutReason| {
            let failure = why.failure();
            (why.as_str(), failure.code, failure.reason, failure.detail)
        };
        for (why, word, code, reason) in [
            (CutReason::Certificate, "client_certificate", ErrorCode::Unauthorized, None),
            (CutReason::LinksStale, "links_stale", ErrorCode::LinksStale, None),
            (CutReason::PolicyError, "policy_error", ErrorCode::PolicyUnavailable, None),
            (CutReason::NotAPartner, "not_a_partner", ErrorCode::Forbidden, Some(Reason::NotAPartner)),
            (Gate::Ended.into(), "link_expired", ErrorCode::TenantLinkExpired, None),
            (Gate::Active.into(), "link_revoked", ErrorCode::TenantAccessDenied, Some(Reason::LinkInactive)),
            (Gate::Link.into(), "no_link", ErrorCode::TenantAccessDenied, Some(Reason::NoLink)),
            (Gate::Suspension.into(), "access_suspended", ErrorCode::TenantAccessDenied, Some(Reason::AccessSuspended)),
            (Gate::Role.into(), "permission", ErrorCode::Forbidden, Some(Reason::Permission)),
        ] {
            assert_eq!(told(why), (word, code, reason, word));
        }
    }
}
