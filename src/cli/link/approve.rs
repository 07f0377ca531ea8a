//! `link approve` and `link reject`: the platform's own word on a link.
//!
//! What is approved is what was shown: the version that the question was asked about is the one that is written over, so
//! terms that changed in between are refused and not approved unseen.

use super::super::{outcome::Failure, store_context::StoreContext};
use crate::{
    domain::{Approval, LinkId, Millis, link_rules::LinkInput},
    ops::standing::Standing,
    store::{Actor, LinkRecord},
};

pub(super) fn decide(
    id: LinkId,
    word: Approval,
    expect_version: Option<i64>,
    actor: Actor,
    context: &StoreContext<'_>,
) -> Result<(), Failure> {
    let (record, facts) =
        context.with(|admin| async move { Ok((admin.link(id).await?, admin.standing(id).await?)) })?;
    if record.terms.approval == word {
        let by = record.sign_off.approved_by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
        return context.console.show(&record, format_args!("link {id} is {} already{by}", word.as_str()));
    }
    let standing = Standing::of(&facts, context.roles, Millis::now());
    context.console.confirm(&question(&record, &standing, word))?;
    let expected = expect_version.or(Some(record.stamps.version));
    let input = LinkInput { approval: Some(word.as_str().to_owned()), ..LinkInput::default() };
    let written = context.with(|admin| async move { Ok(admin.update_link(&actor, id, expected, &input).await?) })?;
    let LinkRecord { partner_id, managed_tenant_id, .. } = &record;
    let text = format!("link {id} of partner {partner_id} to {managed_tenant_id} is {}", word.as_str());
    context.console.show(&written.value, text)
}

/// Everything that somebody who approves has to look at.
fn question(record: &LinkRecord, standing: &Standing, word: Approval) -> String {
    let terms = &record.terms;
    let verb = if word == Approval::Approved { "approves" } else { "rejects" };
    let until = terms.end_date.map_or_else(|| "without end".to_owned(), |end| format!("until {end}"));
    let from = match terms.allowed_cidrs.as_slice() {
        [] => "any address".to_owned(),
        nets => nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    format!(
        "{verb} link {} (version {}): partner {} in tenant {} as {}, from {} {until}, from {from}{}{}, asked for by {}; \
         it grants {}",
        record.id,
        record.stamps.version,
        record.partner_id,
        record.managed_tenant_id,
        terms.access_role,
        terms.start_date,
        if terms.require_mfa { ", with MFA" } else { "" },
        if terms.is_active { "" } else { ", not active" },
        record.sign_off.widened_by.as_ref().map_or_else(|| "?".to_owned(), |names| names.join(", ")),
        standing.granted(),
    )
}
