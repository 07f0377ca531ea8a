//! Refusals that several steps of a consolidated request give.

use crate::{
    domain::{Denial, ErrorCode, Gate},
    portal::Problem,
    proxy::respond::Failure,
};

/// A gate as the refusal that it tells.
pub(super) trait Told {
    fn denial(self) -> Failure;
}

impl Told for Gate {
    fn denial(self) -> Failure {
        Denial::from(self).into()
    }
}

/// What is known of links is too old to decide by.
pub(super) fn stale() -> Failure {
    Failure::new(ErrorCode::LinksStale, "links_stale")
}

/// A refusal that the portal asked for, as it tells it on: nothing was done.
pub(super) fn refusal(failure: Failure) -> Problem {
    let denial = failure.reason.map(|reason| Denial { code: failure.code, reason: Some(reason) });
    let denial =
        denial.or_else(|| (failure.code.status() == 403).then_some(Denial { code: failure.code, reason: None }));
    let message = failure.message.unwrap_or_default();
    Problem { denial, detail: failure.detail, overturns: true, ..Problem::new(failure.code, message) }
}

/// A problem of an endpoint as the answer that it becomes.
pub fn failure(problem: &Problem) -> Failure {
    let mut failure = problem.denial.map_or_else(|| Failure::new(problem.code, problem.detail), Failure::from);
    if !problem.message.is_empty() {
        failure.message = Some(problem.message.clone().into_owned());
    }
    failure.retry_after = problem.retry_after.or(failure.retry_after);
    failure.fields = problem.fields.iter().map(|error| (error.field.clone(), error.message.clone())).collect();
    failure
}
