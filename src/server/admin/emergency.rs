//! The emergency overlay over HTTP: suspend, restore, and revoking every link of a partner. For the role `security`.

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    answer::{Answer, List, store_problem},
    ask::{Ask, Input, page},
    desk::Desk,
    table::Operation,
};
use crate::{
    domain::{LinkId, Millis, link_rules::FieldError},
    portal::Problem,
    store::{
        SuspensionRecord, SuspensionScope,
        admin::{Reach, SuspensionInput},
    },
};

/// What has to be said before everything is suspended, as at the command line.
const EVERYTHING: &str = "everything";

/// What to suspend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SuspendBody {
    /// Required.
    scope: Option<SuspensionScope>,
    /// Users only; left out: of any issuer.
    issuer: Option<String>,
    /// `sub`, session id, `jti`, or the id of a partner, tenant or link; left out for `all`.
    subject: Option<String>,
    /// Required: why, for those who will ask.
    reason: Option<String>,
    /// `everything`, for the scope `all`.
    confirm: Option<String>,
}

impl Input for SuspendBody {}

impl SuspendBody {
    fn input(self) -> Result<SuspensionInput, Problem> {
        let mut errors = Vec::new();
        let mut fail = |field: &str, message: &str| {
            errors.push(FieldError { field: field.into(), message: message.into() });
        };
        if self.scope.is_none() {
            fail("scope", "is required");
        }
        if self.reason.is_none() {
            fail("reason", "is required");
        }
        let all = self.scope == Some(SuspensionScope::All);
        if all && self.confirm.as_deref() != Some(EVERYTHING) {
            fail("confirm", "all partner access is suspended: say `everything`");
        }
        if !all && self.confirm.is_some() {
            fail("confirm", "belongs to the scope `all`");
        }
        match (self.scope, self.reason, errors.is_empty()) {
            (Some(scope), Some(reason), true) => {
                Ok(SuspensionInput { scope, issuer: self.issuer, subject: self.subject.unwrap_or_default(), reason })
            }
            _ => Err(Problem::invalid(errors)),
        }
    }
}

/// A suspension that was begun.
#[derive(Serialize, JsonSchema)]
pub(super) struct Suspended {
    #[serde(flatten)]
    record: SuspensionRecord,
    /// What it covered when it was begun.
    covers: Reach,
    /// From then on no replica allows it, whatever became of its connection to the database.
    in_force_by: Millis,
}

/// The links that were revoked.
#[derive(Serialize, JsonSchema)]
pub(super) struct Revoked {
    revoked: Vec<LinkId>,
}

pub(super) async fn run(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    match ask.spec.operation {
        Operation::ListSuspensions => {
            let mut params = ask.params();
            let (paging, all) = (params.paging(), params.flag("all"));
            params.finish()?;
            let wanted = page(paging);
            let rows =
                if all { desk.admin.all_suspensions(wanted).await } else { desk.admin.suspensions(wanted).await };
            Answer::ok(&List::of(rows.map_err(|error| store_problem(ask, error))?, paging))
        }
        Operation::Suspend => {
            ask.no_query()?;
            suspend(desk, ask).await
        }
        Operation::Restore => {
            ask.no_query()?;
            let written = desk.admin.restore(&desk.actor, ask.id()?).await;
            Answer::ok(&desk.done(ask, written).await?)
        }
        Operation::RevokeAll => {
            ask.no_query()?;
            let written = desk.admin.revoke_all(&desk.actor, ask.partner()?).await;
            let revoked = desk.done(ask, written).await?;
            Answer::ok(&Revoked { revoked: revoked.into_iter().map(|link| link.id).collect() })
        }
        _ => {
            ask.no_query()?;
            let found = desk.admin.suspension(ask.id()?).await.map_err(|error| store_problem(ask, error))?;
            Answer::ok(&found)
        }
    }
}

async fn suspend(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let input = ask.input::<SuspendBody>()?.input()?;
    // Also finds a mistyped id before anything is done.
    let covers = desk.admin.reach(&input).await.map_err(|error| store_problem(ask, error))?;
    let written = desk.admin.suspend(&desk.actor, &input).await;
    let record = desk.done(ask, written).await?;
    let staleness = desk.gateway.settings.links.max_staleness;
    let bound = i64::try_from(staleness.as_millis()).unwrap_or(i64::MAX);
    let in_force_by = Millis(Millis::now().0.saturating_add(bound));
    Answer::json(StatusCode::CREATED, &Suspended { record, covers, in_force_by })
}
