//! Who asks. Each caller shows a secret of its own; a client certificate, once listeners speak TLS, would be told apart
//! here and nowhere else.

use http::{HeaderMap, header};

use crate::{
    config::settings::DecisionCaller,
    proxy::{
        headers::{Single, single},
        worker::Worker,
    },
};

/// By `Authorization: Bearer`: gRPC and AuthZEN, where that field is not the user's.
pub(super) fn by_bearer<'w>(worker: &'w Worker, headers: &HeaderMap) -> Option<&'w DecisionCaller> {
    let shown = match single(headers, header::AUTHORIZATION) {
        Single::One(value) => {
            let (scheme, secret) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(secret)
        }
        Single::Absent | Single::Repeated => None,
    };
    known(worker, shown)
}

/// By a field of its own, where `Authorization` is the user's.
pub(super) fn by_field<'w>(worker: &'w Worker, headers: &HeaderMap, name: &str) -> Option<&'w DecisionCaller> {
    let shown = match single(headers, name) {
        Single::One(value) => Some(value.as_bytes()),
        Single::Absent | Single::Repeated => None,
    };
    known(worker, shown)
}

/// All secrets are compared, each in constant time: how long it takes tells nothing but whether one was shown.
fn known<'w>(worker: &'w Worker, shown: Option<&[u8]>) -> Option<&'w DecisionCaller> {
    let settings = worker.gateway.settings.decision.as_ref();
    let mut found = None;
    if let (Some(settings), Some(shown)) = (settings, shown) {
        for caller in &settings.callers {
            if aws_lc_rs::constant_time::verify_slices_are_equal(caller.secret.expose(), shown).is_ok() {
                found = Some(caller);
            }
        }
    }
    if found.is_none() {
        worker.gateway.metrics.decisions.strangers.inc();
        tracing::debug!("a question for a decision was refused: whoever asks showed no known secret");
    }
    found
}
