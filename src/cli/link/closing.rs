//! Which changes of a link take the tenant from its partner: `link update` asks before them, as `link revoke` does.

use super::super::store_context::StoreContext;
use crate::domain::{
    Approval, Millis,
    link_rules::{LinkInput, LinkTerms, approval_after},
};

/// Whether the change is about when and whether the link gives access at all.
pub(super) fn touches_gates(input: &LinkInput) -> bool {
    input.is_active.is_some() || input.approval.is_some() || input.start_date.is_some() || input.end_date.is_some()
}

/// In words, what of the change closes the link; `None` where nothing does, and where the change is not valid: the store
/// then tells why.
pub(super) fn what_closes(before: &LinkTerms, input: &LinkInput, context: &StoreContext<'_>) -> Option<String> {
    let after = input.terms_over(before.clone()).ok()?;
    let now = Millis::now();
    let mut told = Vec::new();
    if before.is_active && !after.is_active {
        told.push("it is revoked".to_owned());
    }
    let asked = input.approval.as_ref().map(|_| after.approval);
    let approval = approval_after(Some(before), &after, asked, context.roles, context.links.approvals.required).ok()?;
    let open = before.is_active && before.approval == Approval::Approved;
    match (approval, asked) {
        (Approval::Rejected, _) if before.approval != Approval::Rejected => told.push("it is rejected".to_owned()),
        (Approval::Pending, Some(_)) if open => told.push("it waits for approval".to_owned()),
        (Approval::Pending, None) if open => told.push("it is widened and waits for approval".to_owned()),
        _ => {}
    }
    if let Some(end) = after.end_date.filter(|_| !before.ended(now) && after.ended(now)) {
        told.push(format!("its end is {end}"));
    }
    if before.start_date <= now && after.start_date > now {
        told.push(format!("its start is {}", after.start_date));
    }
    (!told.is_empty()).then(|| format!("{}; its partner has no access by it then", told.join(", ")))
}
