//! Where the shadow set said something else than the set in force, and what was let through because `policy.enforce` is
//! false; from the audit journal, by rule, partner and tenant.

use std::{collections::BTreeMap, path::Path};

use schemars::JsonSchema;
use serde::Serialize;

use super::flips::{Direction, Flips, Key, Row};
use crate::{
    audit::{
        Decision, JournalError,
        asked::Other,
        sweep::{Opened, Progress, Wanted, sweep},
    },
    domain::{Millis, words},
};

/// What the shadow set said beside the one in force.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ShadowReport")]
pub struct Report {
    pub since: Millis,
    pub until: Option<Millis>,
    /// Records looked at.
    pub records: u64,
    /// Records in which a shadow set was asked.
    pub shadowed: u64,
    /// Of them, those in which it agreed in everything.
    pub agreed: u64,
    /// Decisions that the shadow set could not make.
    pub errors: u64,
    pub deny_to_allow: u64,
    pub allow_to_deny: u64,
    /// In groups beyond the most that are kept apart.
    pub ungrouped: u64,
    /// Decisions let through because `policy.enforce` is false.
    pub waived: u64,
    /// Records by version of the shadow set.
    pub versions: BTreeMap<String, u64>,
    pub missing_before: Option<Millis>,
    pub flips: Vec<Row>,
    pub waived_by: Vec<Row>,
}

/// Reads the journal in `dir` from `since` on.
pub fn report(
    dir: &Path,
    since: Millis,
    wanted: &Wanted,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Report, JournalError> {
    let workers: Vec<Tally> = (0..threads.max(1)).map(|_| Tally::default()).collect();
    let tenant = wanted.tenant.as_deref();
    let swept = sweep(dir, wanted, workers, progress, |tally: &mut Tally, opened: &Opened<'_>| {
        tally.see(opened, tenant);
    })?;
    let tally = swept.workers.into_iter().fold(Tally::default(), Tally::and);
    let (deny_to_allow, allow_to_deny, ungrouped) = tally.flips.counts();
    Ok(Report {
        since,
        until: wanted.until,
        records: swept.records,
        shadowed: tally.versions.values().sum(),
        agreed: tally.agreed,
        errors: tally.errors,
        deny_to_allow,
        allow_to_deny,
        ungrouped,
        waived: tally.waived.total(),
        versions: tally.versions,
        missing_before: swept.missing_before,
        flips: tally.flips.rows(),
        waived_by: tally.waived.rows(),
    })
}

#[derive(Debug, Default)]
struct Tally {
    agreed: u64,
    errors: u64,
    versions: BTreeMap<String, u64>,
    flips: Flips,
    waived: Flips,
}

impl Tally {
    fn and(mut self, other: Self) -> Self {
        for (version, count) in other.versions {
            *self.versions.entry(version).or_default() += count;
        }
        Self {
            agreed: self.agreed + other.agreed,
            errors: self.errors + other.errors,
            versions: self.versions,
            flips: self.flips.and(other.flips),
            waived: self.waived.and(other.waived),
        }
    }

    fn see(&mut self, opened: &Opened<'_>, tenant: Option<&str>) {
        let ours = |other: &&Other| match (tenant, &other.managed_tenant_id) {
            (Some(wanted), Some(about)) => about == wanted,
            _ => true,
        };
        for other in opened.private.waived.iter().filter(ours) {
            self.waived.add(key(opened, other), opened.visible.id);
        }
        let Some(shadow) = &opened.private.shadow else { return };
        match self.versions.get_mut(&shadow.version) {
            Some(count) => *count += 1,
            None => drop(self.versions.insert(shadow.version.clone(), 1)),
        }
        let mut differs = 0;
        for other in shadow.differs.iter().filter(ours) {
            differs += 1;
            self.errors += u64::from(other.reason.as_deref() == Some(words::POLICY_ERROR));
            self.flips.add(key(opened, other), opened.visible.id);
        }
        self.agreed += u64::from(differs == 0);
    }
}

fn key(opened: &Opened<'_>, other: &Other) -> Key {
    let (visible, private) = (&opened.visible, &opened.private);
    let first = |policies: &[std::sync::Arc<str>]| policies.first().map(|id| id.to_string());
    let about = other.managed_tenant_id.as_deref();
    let slice = opened.slices.iter().find(|slice| Some(slice.managed_tenant_id.as_str()) == about);
    let by = |reason: Option<&str>, policy: Option<String>| match (reason, policy) {
        (Some(reason), Some(policy)) => format!("{reason} ({policy})"),
        (reason, policy) => policy.or(reason.map(str::to_owned)).unwrap_or_else(|| "permission".to_owned()),
    };
    let (direction, refused_by, permitted_by) = match other.decision {
        Decision::Deny => (Direction::AllowToDeny, by(other.reason.as_deref(), first(&other.policies)), None),
        // What refused it then stands in the record, or in its slice.
        Decision::Allow => {
            let live = private.policies.first().filter(|_| about.is_none()).map(ToString::to_string);
            let reason = slice.map_or(visible.reason.as_deref(), |slice| slice.reason.as_deref());
            (Direction::DenyToAllow, by(reason, live), first(&other.policies))
        }
    };
    Key {
        direction,
        partner_id: visible.partner_id,
        partner_name: visible.partner_name.as_deref().map(str::to_owned),
        tenant: about.or(visible.managed_tenant_id.as_deref()).map(str::to_owned),
        refused_by,
        permitted_by,
        action: visible.action.as_deref().unwrap_or_default().to_owned(),
    }
}
