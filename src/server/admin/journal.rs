//! The audit record beside single records: the journal verified and exported, its checkpoints, and what waits to be chained.

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{
    answer::{Answer, List, store_problem, trouble},
    ask::{Ask, page},
    desk::Desk,
    insight::filter,
    table::Operation,
};
use crate::{
    domain::Millis,
    ops::{Window, journal},
    portal::{Problem, query::Params},
};

/// Records of one export.
pub(super) const MOST_EXPORTED: u64 = 10_000;
/// And about so many bytes of them.
const MOST_EXPORT_BYTES: usize = 16 * 1024 * 1024;
pub(super) const MOST_OFFSET: u64 = 1_000_000_000_000;

/// Changes that wait to be chained.
#[derive(Serialize, JsonSchema)]
pub(super) struct WaitingChanges {
    /// The chain that claimed them; null: any server may take them.
    claimant: Option<Uuid>,
    changes: u64,
    /// When the oldest of them was made.
    oldest: Millis,
}

pub(super) async fn run(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let config = &desk.gateway.settings;
    let mut params = ask.params();
    match ask.spec.operation {
        Operation::VerifyJournal => {
            let from_segment = number(&mut params, "from_segment");
            params.finish()?;
            let found = journal::verify(config, &desk.records, from_segment).await;
            Answer::ok(&found.map_err(|error| trouble(ask, error))?)
        }
        Operation::ExportRecords => {
            let from_segment = number(&mut params, "from_segment");
            let limit = params.integer("limit", 1..=MOST_EXPORTED, 1_000);
            let offset = params.integer("offset", 0..=MOST_OFFSET, 0);
            let filter = filter(&mut params);
            params.finish()?;
            let window = window(offset, limit);
            let found = journal::export(config, from_segment, filter, window, MOST_EXPORT_BYTES).await;
            Answer::ok(&found.map_err(|error| trouble(ask, error))?)
        }
        Operation::ListCheckpoints => {
            let paging = params.paging();
            let covering = number(&mut params, "covering");
            params.finish()?;
            // One more says whether there are more.
            let window = window(paging.offset, paging.limit.saturating_add(1));
            let found = journal::checkpoints(config, covering, window).await;
            Answer::ok(&List::of(found.map_err(|error| trouble(ask, error))?, paging))
        }
        _ => {
            let paging = params.paging();
            params.finish()?;
            let found = desk.admin.outbox_waiting().await.map_err(|error| store_problem(ask, error))?;
            let wanted = page(paging);
            let rows = found.into_iter().skip(wanted.offset as usize).take(wanted.limit as usize);
            let rows =
                rows.map(|one| WaitingChanges { claimant: one.claimant, changes: one.changes, oldest: one.oldest });
            Answer::ok(&List::of(rows.collect(), paging))
        }
    }
}

/// Of a segment or a record: from 1 on.
fn number(params: &mut Params<'_>, name: &str) -> Option<u64> {
    Some(params.integer(name, 1..=u64::MAX, 0)).filter(|number| *number > 0)
}

fn window(offset: u64, limit: u64) -> Window {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Window { offset: number(offset), limit: number(limit) }
}
