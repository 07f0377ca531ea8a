//! Every rule of a link (contract, section 5) in one place, pure: what an operator wrote becomes terms or a refusal.
//!
//! API, command line and import all pass through here before the database sees anything; the database then holds the
//! same rules again where it can, as constraints. Nothing here reads a clock or a table: the caller passes what the
//! rules look at (`Surroundings`), read in the transaction that writes.

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Map, Value};

pub use super::link_input::{LinkInput, network};
use super::{
    Approval, ErrorCode, LinkId, LinkRole, Millis, PartnerId, PermissionSet, RelationshipType, RoleTable, TenantId,
};

/// Most parents above a delegated link.
pub const MAX_PARENTS: usize = 3;
/// Most overrides, and most address ranges, of one link.
pub const MAX_ENTRIES: usize = 256;
const MAX_NOTES_CHARS: usize = 10_000;
const MAX_METADATA_BYTES: usize = 65_536;
const MAX_SLA_HOURS: i64 = 8_784;

/// What is wrong with one field, in words for the one who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    pub field: String,
    pub message: String,
}

/// A change that the rules do not allow. The message names what an operator may know; it is no answer to a partner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
    /// One entry a field; empty where no single field is at fault.
    pub fields: Vec<FieldError>,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Vec::new() }
    }

    /// `VALIDATION_ERROR` about one field of what `subject` says, such as `link`.
    pub fn field(subject: &str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::fields(subject, vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// `VALIDATION_ERROR` about several fields.
    pub fn fields(subject: &str, fields: Vec<FieldError>) -> Self {
        Self { code: ErrorCode::ValidationError, message: format!("the {subject} is not valid"), fields }
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (at, error) in self.fields.iter().enumerate() {
            write!(f, "{} `{}`: {}", if at == 0 { ":" } else { ";" }, error.field, error.message)?;
        }
        Ok(())
    }
}

/// Everything that can be chosen about a link, parsed; not yet judged against its surroundings.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct LinkTerms {
    pub access_role: LinkRole,
    pub custom_permissions: BTreeMap<String, bool>,
    pub relationship_type: RelationshipType,
    pub start_date: Millis,
    /// `None`: ongoing.
    pub end_date: Option<Millis>,
    pub is_active: bool,
    pub notify_on_sla_breach: bool,
    pub notify_on_billing_threshold: bool,
    #[schemars(with = "Option<String>")]
    pub billing_alert_threshold: Option<Decimal>,
    pub sla_response_hours: Option<i64>,
    #[schemars(with = "Option<String>")]
    pub sla_uptime_target: Option<Decimal>,
    pub notes: Option<String>,
    pub metadata: Map<String, Value>,
    pub approval: Approval,
    #[schemars(with = "Vec<String>")]
    pub allowed_cidrs: Vec<IpNet>,
    pub require_mfa: bool,
    pub parent_link_id: Option<LinkId>,
}

impl LinkTerms {
    /// The terms of a link of which only the role was said, from `now` on.
    pub fn new(role: LinkRole, now: Millis) -> Self {
        Self {
            access_role: role,
            custom_permissions: BTreeMap::new(),
            relationship_type: match role {
                LinkRole::EnterpriseHq => RelationshipType::EnterpriseSubsidiary,
                LinkRole::Reseller => RelationshipType::ResellerChannel,
                LinkRole::Auditor => RelationshipType::AuditOnly,
                LinkRole::MspFull | LinkRole::MspBilling | LinkRole::MspSupport | LinkRole::Delegate => {
                    RelationshipType::MspManaged
                }
            },
            start_date: now,
            end_date: None,
            is_active: true,
            notify_on_sla_breach: true,
            notify_on_billing_threshold: true,
            billing_alert_threshold: None,
            sla_response_hours: None,
            sla_uptime_target: None,
            notes: None,
            metadata: Map::new(),
            approval: Approval::Approved,
            allowed_cidrs: Vec::new(),
            require_mfa: false,
            parent_link_id: None,
        }
    }

    /// Whether the window is over at `now`.
    pub fn ended(&self, now: Millis) -> bool {
        self.end_date.is_some_and(|end| end <= now)
    }

    /// The overrides as sets of leaves, (granted, denied). An unknown name denies everything: a denial that lost its
    /// meaning must not open what it once closed.
    pub fn overrides(&self) -> (PermissionSet, PermissionSet) {
        expand_overrides(self.custom_permissions.iter().map(|(name, allow)| (name.as_str(), *allow)))
    }

    /// What role and overrides allow, parents and policies aside.
    pub fn effective(&self, roles: &RoleTable) -> PermissionSet {
        let (granted, denied) = self.overrides();
        let role = roles.link_role(self.access_role);
        let allowed = if self.access_role == LinkRole::Delegate { role.union(granted) } else { role };
        allowed.without(denied)
    }
}

/// See [`LinkTerms::overrides`].
pub fn expand_overrides<'a>(overrides: impl IntoIterator<Item = (&'a str, bool)>) -> (PermissionSet, PermissionSet) {
    let mut sets = (PermissionSet::EMPTY, PermissionSet::EMPTY);
    for (name, allow) in overrides {
        match (PermissionSet::from_name(name), allow) {
            (Ok(set), true) => sets.0 = sets.0.union(set),
            (Ok(set), false) => sets.1 = sets.1.union(set),
            (Err(_), _) => sets.1 = PermissionSet::ALL,
        }
    }
    sets
}

/// Collects every field's fault, so that all are told at once.
#[derive(Default)]
pub(super) struct Faults(Vec<FieldError>);

impl Faults {
    pub(super) fn add(&mut self, field: &str, message: impl fmt::Display) {
        self.0.push(FieldError { field: field.to_owned(), message: message.to_string() });
    }

    /// Parses a field that was given; notes the fault and leaves the target alone where it does not parse.
    pub(super) fn set<T, E: fmt::Display>(&mut self, field: &str, target: &mut T, given: Option<Result<T, E>>) {
        match given {
            Some(Ok(value)) => *target = value,
            Some(Err(error)) => self.add(field, error),
            None => {}
        }
    }

    pub(super) fn into_result(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::fields("link", self.0)) }
    }
}

/// What can be said of the terms without looking around.
pub(super) fn check_alone(terms: &LinkTerms, faults: &mut Faults) {
    for (field, at) in [("start_date", Some(terms.start_date)), ("end_date", terms.end_date)] {
        if at.is_some_and(|at| at.timestamp().is_none()) {
            faults.add(field, "is outside the years -9999 to 9999");
        }
    }
    if terms.end_date.is_some_and(|end| end < terms.start_date) {
        faults.add("end_date", format_args!("is before the start, {}", terms.start_date));
    }
    if terms.sla_response_hours.is_some_and(|hours| !(0..=MAX_SLA_HOURS).contains(&hours)) {
        faults.add("sla_response_hours", format_args!("is out of range: 0 to {MAX_SLA_HOURS}"));
    }
    if terms.notes.as_ref().is_some_and(|notes| notes.chars().count() > MAX_NOTES_CHARS) {
        faults.add("notes", format_args!("at most {MAX_NOTES_CHARS} characters"));
    }
    let metadata = serde_json::to_string(&terms.metadata).unwrap_or_default();
    if metadata.len() > MAX_METADATA_BYTES {
        faults.add("metadata", format_args!("at most {MAX_METADATA_BYTES} bytes"));
    }
    // No database keeps it, and one of the two would refuse the row with a stranger message.
    if metadata.contains("\\u0000") {
        faults.add("metadata", "holds a NUL character");
    }
    if terms.custom_permissions.len() > MAX_ENTRIES {
        faults.add("custom_permissions", format_args!("at most {MAX_ENTRIES} overrides"));
    }
    for name in terms.custom_permissions.keys().take(MAX_ENTRIES) {
        if let Err(unknown) = PermissionSet::from_name(name) {
            faults.add(&format!("custom_permissions.{name}"), unknown);
        }
    }
    if terms.parent_link_id.is_some() && terms.access_role != LinkRole::Delegate {
        faults.add("access_role", "a link delegated onward (`parent_link_id`) is always of role `delegate`");
    }
}

/// The link that a new one is delegated from.
#[derive(Clone, Debug)]
pub struct ParentView {
    pub partner_id: PartnerId,
    pub tenant_id: TenantId,
    /// Links from this one up to the one granted directly, itself included.
    pub chain: Vec<LinkId>,
    /// What it may hand on at most, its own parents included.
    pub effective: PermissionSet,
}

/// What the rules look at beside the terms, read in the transaction that writes.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    pub roles: &'a RoleTable,
    /// The row's own id; `None` while it has none.
    pub link_id: Option<LinkId>,
    pub partner_id: PartnerId,
    pub partner_home: &'a TenantId,
    pub tenant_id: &'a TenantId,
    /// The row that `parent_link_id` names; `None` where it names none or an unknown one.
    pub parent: Option<&'a ParentView>,
    /// Longest chain of links delegated onward from this one.
    pub levels_below: usize,
}

/// Judges terms against their surroundings. Conflicts with other rows are the writer's to find.
pub fn judge(terms: &LinkTerms, around: &Surroundings<'_>) -> Result<(), Refusal> {
    let mut faults = Faults::default();
    check_alone(terms, &mut faults);
    if around.partner_home == around.tenant_id {
        faults.add("managed_tenant_id", "the partner's own tenant is never a managed tenant");
    }
    match (terms.parent_link_id, around.parent) {
        (Some(id), None) => faults.add("parent_link_id", format_args!("no link has the id `{id}`")),
        (Some(_), Some(parent)) => check_parent(parent, around, &mut faults),
        (None, _) => {}
    }
    faults.into_result()?;
    escalations(terms, around)
}

fn check_parent(parent: &ParentView, around: &Surroundings<'_>, faults: &mut Faults) {
    if &parent.tenant_id != around.tenant_id {
        faults.add("parent_link_id", "the parent is a link to another tenant");
    }
    if parent.partner_id == around.partner_id {
        faults.add("parent_link_id", "a link is delegated onward to another partner, not to the same");
    }
    if around.link_id.is_some_and(|own| parent.chain.contains(&own)) {
        faults.add("parent_link_id", "the parent is itself delegated from this link");
    } else if parent.chain.len() + around.levels_below > MAX_PARENTS {
        faults.add("parent_link_id", format_args!("at most {MAX_PARENTS} links may stand above a delegated one"));
    }
}

/// `true` only inside the role's own set; for `delegate` anything, or at most what its parent may do.
fn escalations(terms: &LinkTerms, around: &Surroundings<'_>) -> Result<(), Refusal> {
    let most = match (terms.access_role, around.parent) {
        (LinkRole::Delegate, None) => PermissionSet::ALL,
        (LinkRole::Delegate, Some(parent)) => parent.effective,
        (role, _) => around.roles.link_role(role),
    };
    let fields: Vec<FieldError> = terms
        .custom_permissions
        .iter()
        .filter(|(_, allow)| **allow)
        .filter_map(|(name, _)| {
            let beyond = PermissionSet::from_name(name).ok()?.without(most);
            let first = beyond.iter().next()?;
            Some(FieldError {
                field: format!("custom_permissions.{name}"),
                message: match around.parent {
                    Some(_) => format!("goes beyond the parent link: it does not hold `{first}`"),
                    None => format!("goes beyond role `{}`: it does not hold `{first}`", terms.access_role),
                },
            })
        })
        .collect();
    if fields.is_empty() {
        return Ok(());
    }
    Err(Refusal {
        code: ErrorCode::PermissionEscalation,
        message: "an override grants more than the link may hold".to_owned(),
        fields,
    })
}

/// Whether `after` lets anyone do anything, at any time, from anywhere, that `before` did not.
///
/// In doubt it is yes: the answer then is only that somebody has to approve.
pub fn widens(before: &LinkTerms, after: &LinkTerms, roles: &RoleTable) -> bool {
    let same_role = before.access_role == after.access_role;
    let (granted_before, denied_before) = before.overrides();
    let (granted_after, denied_after) = after.overrides();
    let end = |terms: &LinkTerms| terms.end_date.map_or(i64::MAX, |end| end.0);
    let covered = |net: &IpNet| before.allowed_cidrs.iter().any(|old| old.contains(net));
    !before.effective(roles).contains_all(after.effective(roles))
        // The table of roles may grow: what is denied today but not in the role counts as well.
        || (same_role && !denied_after.contains_all(denied_before))
        || (same_role && after.access_role == LinkRole::Delegate && !granted_before.contains_all(granted_after))
        || before.parent_link_id != after.parent_link_id
        || after.start_date < before.start_date
        || end(after) > end(before)
        || (!before.allowed_cidrs.is_empty()
            && (after.allowed_cidrs.is_empty() || !after.allowed_cidrs.iter().all(covered)))
        || (before.require_mfa && !after.require_mfa)
        || (!before.is_active && after.is_active)
}

/// The approval that a change ends with. `before` is `None` for a grant (a new row, or an old one granted again).
///
/// Where approval is required, whatever is new or wider waits for it, and nobody approves in the same breath.
pub fn approval_after(
    before: Option<&LinkTerms>,
    after: &LinkTerms,
    asked: Option<Approval>,
    roles: &RoleTable,
    required: bool,
) -> Result<Approval, Refusal> {
    let wider = before.is_none_or(|before| widens(before, after, roles));
    match (required && wider, asked) {
        (true, Some(Approval::Approved)) => Err(Refusal::field(
            "link",
            "approval",
            "a new or widened link waits for approval: approve it in a change of its own",
        )),
        (true, Some(Approval::Rejected)) => Ok(Approval::Rejected),
        (true, _) => Ok(Approval::Pending),
        (false, Some(asked)) => Ok(asked),
        (false, None) => Ok(before.map_or(Approval::Approved, |before| before.approval)),
    }
}

#[cfg(test)]
#[path = "link_rules_tests.rs"]
mod tests;
