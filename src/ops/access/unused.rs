//! `access unused`: for each live link, which of its rights let nothing through for some days, and a tighter override.
//!
//! Nothing is called unused on incomplete facts without saying so: where the record begins later than the days asked for,
//! `complete` is false and `observed_from` says from when on it was looked. A right is kept beside those that were used
//! where its use leaves no record of its own: what an endpoint decides beside its permission, what webhooks are told, and
//! what another partner did through a link delegated onward.

mod show;

use std::collections::{BTreeMap, HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::scene::{Desk, Recorded, Set, Source, State, days_before};
use crate::{
    audit::{
        sweep::Wanted,
        usage::{Use, Uses},
    },
    domain::{EventType, LinkId, LinkRole, Millis, PartnerId, Permission, PermissionSet, TenantId},
    ops::{Trouble, Window, aside},
    policy::{Answer, Tightened, effective, granted, tighten},
    portal::endpoint::beside,
    store::{AccessAt, LinkThen, Side},
};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    pub side: Side,
    /// Looked at are the requests of so many days back from now.
    pub days: u32,
    /// Of the live links.
    pub window: Window,
}

/// Rights that nobody used.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UnusedRights")]
pub struct Report {
    since: Millis,
    until: Millis,
    days: u32,
    policies: String,
    policy_version: String,
    source: Source,
    /// From here on no record is missing; `null`: nothing is recorded.
    knows_from: Option<Millis>,
    /// Of the index: the newest record in it. What a replica has not indexed yet is not seen.
    knows_until: Option<Millis>,
    /// Of all links that are shown.
    pub complete: bool,
    /// Links that are not live, which grant nothing now.
    not_live: usize,
    links: Vec<LinkRow>,
    /// Live links; `links` may be a part of them.
    #[serde(skip)]
    pub total: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UnusedOfLink")]
struct LinkRow {
    link_id: LinkId,
    tenant_id: TenantId,
    tenant_name: String,
    partner_id: PartnerId,
    partner_name: String,
    access_role: LinkRole,
    version: i64,
    created_at: Millis,
    /// Younger than the days asked for: too early to judge.
    new: bool,
    /// Links delegated onward from this one, whose use counts too.
    delegated: usize,
    /// From here on this link's requests were looked at.
    observed_from: Option<Millis>,
    /// All that was asked for was looked at.
    complete: bool,
    permissions: Vec<Right>,
    proposal: Option<Proposal>,
    /// Where there is none.
    no_proposal: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "JudgedRight")]
struct Right {
    permission: Permission,
    answer: Answer,
    verdict: Verdict,
    uses: u64,
    last_used_at: Option<Millis>,
    /// Granted within the days asked for.
    new: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "UseVerdict")]
enum Verdict {
    Used,
    Unused,
    /// Its use leaves no record of its own.
    MaybeUsed,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Unused => "unused",
            Self::MaybeUsed => "maybe_used",
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TighterOverride")]
struct Proposal {
    /// As they are afterwards.
    custom_permissions: BTreeMap<String, bool>,
    denies: PermissionSet,
    /// Applies it, if the link is still as it was read.
    command: String,
}

pub async fn report(asked: &Question, set: &Set, desk: &Desk) -> Result<Report, Trouble> {
    let (side, days, window) = (&asked.side, asked.days, asked.window);
    let now = Millis::now();
    let since = days_before(now, days);
    let access = desk.admin.access_at(side, now).await?;
    let before = desk.admin.access_at(side, since).await?;
    let ids: Vec<LinkId> = access.links.iter().map(|link| link.terms.id).collect();
    let family = Family::of(desk.admin.delegated_from(&ids).await?);
    let recorded = desk.recorded(wanted(side, &access, &family, since)).await?;
    let told = desk.admin.partners_with_webhooks().await?;
    let (set, threads) = (set.clone(), desk.threads.max(1));
    aside(move || {
        let scene = Scene { set: &set, since, now, before: &before, family: &family, recorded: &recorded, told: &told };
        let live: Vec<&LinkThen> =
            access.links.iter().filter(|link| State::of(&link.facts, now).0 == State::Live).collect();
        let shown: Vec<&LinkThen> = window.of(&live).copied().collect();
        let links = scene.rows(&shown, &access, threads)?;
        Ok(Report {
            since,
            until: now,
            days,
            policies: set.name.clone(),
            policy_version: set.bundle.version().to_owned(),
            source: recorded.source,
            knows_from: recorded.knows_from,
            knows_until: recorded.knows_until,
            complete: links.iter().all(|link| link.complete),
            not_live: access.links.len() - live.len(),
            links,
            total: live.len(),
        })
    })
    .await
}

/// No record that may tell of a use of these links is left out.
fn wanted(side: &Side, access: &AccessAt, family: &Family, since: Millis) -> Wanted {
    let (partner_id, tenant) = match side {
        Side::Tenant(id) => (None, Some(id.to_string())),
        // Other partners use what was delegated onward to them.
        Side::Partner(id) => (Some(*id).filter(|_| family.0.is_empty()), None),
        Side::Link(_) => (None, access.links.first().map(|link| link.terms.managed_tenant_id.to_string())),
    };
    Wanted { since: Some(since), until: None, partner_id, tenant }
}

/// Which links were delegated onward from which.
struct Family(HashMap<LinkId, Vec<LinkId>>);

impl Family {
    fn of(pairs: Vec<(LinkId, LinkId)>) -> Self {
        let mut family: HashMap<LinkId, Vec<LinkId>> = HashMap::new();
        for (child, parent) in pairs {
            family.entry(parent).or_default().push(child);
        }
        Self(family)
    }

    /// Everything below, each once.
    fn below(&self, link: LinkId) -> HashSet<LinkId> {
        let (mut found, mut next) = (HashSet::new(), vec![link]);
        while let Some(one) = next.pop() {
            next.extend(self.0.get(&one).into_iter().flatten().copied().filter(|child| found.insert(*child)));
        }
        found.remove(&link);
        found
    }
}

struct Scene<'a> {
    set: &'a Set,
    since: Millis,
    now: Millis,
    before: &'a AccessAt,
    family: &'a Family,
    recorded: &'a Recorded,
    told: &'a HashSet<PartnerId>,
}

impl Scene<'_> {
    /// On several threads: for each link the policies are asked of every permission.
    fn rows(&self, links: &[&LinkThen], access: &AccessAt, threads: usize) -> Result<Vec<LinkRow>, Trouble> {
        let share = links.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let running: Vec<_> = links
                .chunks(share)
                .map(|some| {
                    scope.spawn(move || some.iter().map(|link| self.row(link, access)).collect::<Option<Vec<_>>>())
                })
                .collect();
            let mut rows = Vec::with_capacity(links.len());
            for thread in running {
                let some = thread.join().map_err(|_| Trouble::Internal("a thread ended by a panic".to_owned()))?;
                let missing = || Trouble::Internal("a link names a tenant or partner that is not there".to_owned());
                rows.extend(some.ok_or_else(missing)?);
            }
            Ok(rows)
        })
    }

    fn row(&self, link: &LinkThen, access: &AccessAt) -> Option<LinkRow> {
        let (terms, bundle) = (&link.terms, &self.set.bundle);
        let below = self.family.below(terms.id);
        let mut uses = Uses::default();
        for id in below.iter().chain([&terms.id]) {
            if let Some(more) = self.recorded.usage.links.get(id) {
                uses.add(more);
            }
        }
        let rows = effective(bundle, &link.facts, self.now);
        let allowed: PermissionSet = granted(&rows).collect();
        let used = uses.used().intersection(allowed);
        let maybe = self.unrecorded(uses.used(), terms.partner_id).intersection(allowed).without(used);
        let then = self.before.links.iter().find(|one| one.terms.id == terms.id);
        let held = then.map(|then| then.facts.effective(bundle.roles())).unwrap_or_default();
        let rights = rows.iter().filter(|row| row.answer != Answer::No).map(|row| {
            let Use { count, last } = uses.of(row.permission);
            Right {
                permission: row.permission,
                answer: row.answer,
                verdict: match row.permission {
                    one if used.contains(one) => Verdict::Used,
                    one if maybe.contains(one) => Verdict::MaybeUsed,
                    _ => Verdict::Unused,
                },
                uses: count,
                last_used_at: last,
                new: !held.contains(row.permission),
            }
        });
        // Before it was there nothing could be used.
        let wanted_from = self.since.max(terms.created_at);
        let proposal = tighten(bundle, &link.facts, &terms.custom_permissions, used.union(maybe), self.now);
        let (proposal, no_proposal) = match proposal {
            Ok(found) => (Some(Proposal::of(found, terms.id, terms.version)), None),
            Err(why) => (None, Some(why.to_string())),
        };
        Some(LinkRow {
            link_id: terms.id,
            tenant_id: terms.managed_tenant_id.clone(),
            tenant_name: access.tenants.get(&terms.managed_tenant_id)?.name.clone(),
            partner_id: terms.partner_id,
            partner_name: access.partners.get(&terms.partner_id)?.name.clone(),
            access_role: terms.access_role,
            version: terms.version,
            created_at: terms.created_at,
            new: then.is_none() || link.facts.window().0 > self.since,
            delegated: below.len(),
            observed_from: self.recorded.knows_from.map(|from| from.max(wanted_from)),
            complete: self.recorded.knows_from.is_some_and(|from| from <= wanted_from),
            permissions: rights.collect(),
            proposal,
            no_proposal,
        })
    }

    /// What may have been used beside, without a record of its own.
    fn unrecorded(&self, used: PermissionSet, partner: PartnerId) -> PermissionSet {
        let beside = used.iter().fold(PermissionSet::EMPTY, |set, one| set.union(beside(one)));
        if !self.told.contains(&partner) {
            return beside;
        }
        let events = EventType::ALL.into_iter().filter_map(EventType::permission).filter_map(Permission::parse);
        beside.union(events.collect())
    }
}

impl Proposal {
    fn of(found: Tightened, link: LinkId, version: i64) -> Self {
        let mut command = format!("linkgate link update {link} --expect-version {version}");
        if found.anew {
            command.push_str(" --clear overrides");
        }
        for (name, allow) in &found.given {
            // A shell would take the star of a wildcard for files.
            let quote = if name.contains('*') { "'" } else { "" };
            command.push_str(&format!(" --override {quote}{name}={allow}{quote}"));
        }
        Self { custom_permissions: found.overrides, denies: found.dropped, command }
    }
}
