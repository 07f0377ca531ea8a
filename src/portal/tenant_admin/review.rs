//! What a link amounts to now and which of its rights are used, for the tenant that it leads to: the tenant's own access
//! review, beside each link of `GET /links`.
//!
//! Only what is about this tenant: of a request over several tenants the own slice counts, and of what an answer depends on
//! the kind is told, not the operator's rules. Use is looked up only where it is asked for (`usage_days`), in the index,
//! and not beyond [`MOST_LOOKED_AT`] requests: from when on it is known stands beside it.

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::{store_problem, turn};
use crate::{
    audit::{
        sweep::Wanted,
        usage::{Use, Uses},
    },
    domain::{ErrorCode, Gate, LinkFacts, LinkId, Millis, Permission, PermissionSet, TenantId},
    policy::{Answer, Bundle, effective, granted},
    portal::{Portal, Problem, endpoint::beside},
    store::{IndexedUsage, load_tenant_facts},
};

/// Requests looked through for one answer, up to a chunk of the index more.
const MOST_LOOKED_AT: u64 = 50_000;

/// What a permission of the link lets through now.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EffectivePermission")]
pub(in crate::portal) struct EffectiveView {
    permission: &'static str,
    /// `yes`, or `depends`; what is not allowed is not listed.
    answer: &'static str,
    /// What it depends on: `mfa`, `address`, `time`, `method`, `route_class`, `user`.
    depends_on: Vec<&'static str>,
}

/// One right in use.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsedPermission")]
pub(in crate::portal) struct UsedView {
    permission: &'static str,
    uses: u64,
    last_used_at: Option<String>,
}

/// Which rights of the link were used.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LinkUsage")]
pub(in crate::portal) struct UsageView {
    /// What was asked for.
    since: String,
    /// From here on nothing is missing; null: nothing is recorded.
    known_from: Option<String>,
    /// All that was asked for is known.
    complete: bool,
    used: Vec<UsedView>,
    /// Allowed now, and used by no request that is known.
    unused: Vec<&'static str>,
    /// Their use leaves no record of its own.
    maybe_used: Vec<&'static str>,
}

/// The review of one link.
pub(super) struct Review {
    pub(super) live: bool,
    /// The first closed gate, where it is not live.
    pub(super) closed: Option<&'static str>,
    pub(super) effective: Vec<EffectiveView>,
    pub(super) usage: Option<UsageView>,
}

/// What the reviews of a tenant's links are made from, read once for all of them.
pub(super) struct Reviews {
    facts: HashMap<LinkId, LinkFacts>,
    usage: Option<(Millis, IndexedUsage)>,
    children: HashMap<LinkId, Vec<LinkId>>,
    now: Millis,
}

impl Reviews {
    /// `days`: how far back use is looked for; `None`: not at all.
    pub(super) async fn read(portal: &Portal, tenant: &TenantId, days: Option<u32>) -> Result<Self, Problem> {
        let now = Millis::now();
        let facts = load_tenant_facts(&portal.database, tenant).await.map_err(store_problem)?;
        let usage = match days {
            Some(days) => {
                let since = Millis(now.0.saturating_sub(i64::from(days) * 86_400_000));
                let _turn = turn(portal, tenant).await?;
                let tenant = Some(tenant.to_string());
                let wanted = Wanted { since: Some(since), tenant, ..Wanted::default() };
                let found = portal.records.usage(&wanted, MOST_LOOKED_AT).await.map_err(|error| {
                    tracing::error!(%error, source = ?std::error::Error::source(&error), "use of rights cannot be read");
                    Problem::new(ErrorCode::UpstreamUnavailable, "use cannot be read now: try again later, or ask without")
                })?;
                Some((since, found))
            }
            None => None,
        };
        let mut children: HashMap<LinkId, Vec<LinkId>> = HashMap::new();
        for (id, link) in &facts {
            if let Some(parent) = link.ancestors.first() {
                children.entry(parent.link.id).or_default().push(*id);
            }
        }
        Ok(Self { facts, usage, children, now })
    }

    /// `None`: the link came after the facts were read.
    pub(super) fn of(&self, bundle: &Bundle, id: LinkId, created: Millis) -> Option<Review> {
        let facts = self.facts.get(&id)?;
        let closed = facts.closed_gate(self.now).map(Gate::as_str);
        let rows = effective(bundle, facts, self.now);
        let allowed: PermissionSet = granted(&rows).collect();
        let effective = rows.iter().filter(|row| row.answer != Answer::No).map(|row| EffectiveView {
            permission: row.permission.name(),
            answer: if row.answer == Answer::Yes { "yes" } else { "depends" },
            depends_on: row.on.clone(),
        });
        let usage = self.usage.as_ref().map(|(since, found)| self.usage(id, (*since, created), found, allowed));
        Some(Review { live: closed.is_none(), closed, effective: effective.collect(), usage })
    }

    fn usage(
        &self,
        id: LinkId,
        (since, created): (Millis, Millis),
        found: &IndexedUsage,
        allowed: PermissionSet,
    ) -> UsageView {
        let mut uses = Uses::default();
        let (mut seen, mut next) = (HashSet::new(), vec![id]);
        // What was delegated onward is used through this link too.
        while let Some(one) = next.pop() {
            if seen.insert(one) {
                found.usage.links.get(&one).into_iter().for_each(|more| uses.add(more));
                next.extend(self.children.get(&one).into_iter().flatten());
            }
        }
        let used = uses.used();
        let maybe = used.iter().fold(PermissionSet::EMPTY, |set, one| set.union(beside(one)));
        let maybe = maybe.intersection(allowed).without(used);
        let names = |set: PermissionSet| set.iter().map(Permission::name).collect();
        let told = used.iter().map(|permission| {
            let Use { count, last } = uses.of(permission);
            UsedView { permission: permission.name(), uses: count, last_used_at: last.map(|at| at.to_string()) }
        });
        UsageView {
            since: since.to_string(),
            known_from: found.knows_from.map(|from| from.to_string()),
            complete: found.knows_from.is_some_and(|from| from <= since.max(created)),
            used: told.collect(),
            unused: names(allowed.without(used).without(maybe)),
            maybe_used: names(maybe),
        }
    }
}
