//! `link show`: a link as it is written, and what it amounts to now: its own gates, those of the links above it, and the
//! permissions that are left when all of them have had their say.

use serde::Serialize;

use super::super::{
    outcome::Failure,
    store_context::{StoreContext, fields},
};
use crate::{
    domain::{Approval, LinkId, Millis},
    ops::standing::Standing,
    store::LinkRecord,
};

/// What `link show` prints beside the row.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    record: LinkRecord,
    standing: Standing,
}

pub(super) fn show(id: LinkId, context: &StoreContext<'_>) -> Result<(), Failure> {
    let (record, facts) =
        context.with(|admin| async move { Ok((admin.link(id).await?, admin.standing(id).await?)) })?;
    let standing = Standing::of(&facts, context.roles, Millis::now());
    let waits = match record.terms.approval {
        Approval::Pending => format!("\nit waits for approval: linkgate link approve {id}"),
        Approval::Approved | Approval::Rejected => String::new(),
    };
    let text = format!("{}\n{}{waits}", fields(&record)?, standing.text());
    context.console.show(&Shown { record, standing }, text)
}
