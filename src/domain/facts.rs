//! What a decision is made from: the user, the link and its ancestors, and the moment.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use super::{Gate, Link, Millis, PartnerId, Permission, PermissionSet, RoleTable, TenantId};

/// A partner organisation as requests need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    pub id: PartnerId,
    pub name: Arc<str>,
    pub home_tenant_id: TenantId,
    pub active: bool,
    /// An emergency suspension covers the partner, or all partner access.
    pub suspended: bool,
}

/// One row of `partner_users`: whom the token's (issuer, `sub`) is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub partner_id: PartnerId,
    /// An inactive row refuses, in home requests too.
    pub active: bool,
}

/// The user's side of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFacts {
    /// The token's issuer; empty for the legacy issuer without one.
    pub issuer: Arc<str>,
    /// The token's `sub`.
    pub sub: Arc<str>,
    pub partner_id: PartnerId,
    /// Union of roles and permissions, resolved by the role table in force.
    pub holds: PermissionSet,
    /// An emergency suspension covers the user, session or token.
    pub suspended: bool,
}

/// One parent of a delegated link, nearest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    pub link: Link,
    pub partner_active: bool,
    pub suspended: bool,
}

/// A link with everything around it that its gates read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    pub link: Link,
    pub partner_active: bool,
    /// An emergency suspension covers the partner, the tenant, the link, or everything.
    pub suspended: bool,
    /// The tenant's own status; does not by itself end access, it is there for guardrails.
    pub tenant_status: Arc<str>,
    /// Every gate of every parent binds the child. Empty for a link granted directly.
    pub ancestors: Box<[Ancestor]>,
}

impl LinkFacts {
    /// Whether an emergency suspension covers the link or one that it hangs on.
    pub fn is_suspended(&self) -> bool {
        self.suspended || self.ancestors.iter().any(|parent| parent.suspended)
    }

    /// Whether the partner and all who delegated the link to it are active.
    pub fn partners_active(&self) -> bool {
        self.partner_active && self.ancestors.iter().all(|parent| parent.partner_active)
    }

    /// The first closed gate from suspension to window; `None` means that the link is *live* at `now`.
    ///
    /// Natively, to the millisecond, before Cedar is asked: these gates stand outside hand-written policy.
    pub fn closed_gate(&self, now: Millis) -> Option<Gate> {
        let links = || std::iter::once(&self.link).chain(self.ancestors.iter().map(|parent| &parent.link));
        if self.is_suspended() {
            return Some(Gate::Suspension);
        }
        if !self.partners_active() {
            return Some(Gate::Partner);
        }
        if links().any(|link| link.approval != super::Approval::Approved) {
            return Some(Gate::Approval);
        }
        if links().any(|link| !link.is_active) {
            return Some(Gate::Active);
        }
        if links().any(|link| now < link.start) {
            return Some(Gate::Started);
        }
        if links().any(|link| link.end.is_some_and(|end| end <= now)) {
            return Some(Gate::Ended);
        }
        None
    }

    /// Whether the address lists of the link and of all its parents let this caller in.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.link.admits(ip) && self.ancestors.iter().all(|parent| parent.link.admits(ip))
    }

    /// An address that the link and all its parents let in; this machine's own where they have no list.
    pub fn some_address(&self) -> IpAddr {
        let parents = self.ancestors.iter().flat_map(|parent| &parent.link.allowed_cidrs);
        let mut nets = self.link.allowed_cidrs.iter().chain(parents);
        nets.find_map(|net| Some(net.addr()).filter(|ip| self.admits(*ip))).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    pub fn requires_mfa(&self) -> bool {
        self.link.require_mfa || self.ancestors.iter().any(|parent| parent.link.require_mfa)
    }

    /// The latest start and the earliest end along the chain.
    pub fn window(&self) -> (Millis, Option<Millis>) {
        self.ancestors.iter().fold((self.link.start, self.link.end), |(start, end), parent| {
            let end = match (end, parent.link.end) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (one, other) => one.or(other),
            };
            (start.max(parent.link.start), end)
        })
    }

    /// What the parents allow at most: the intersection of their effective sets; everything where there are none.
    pub fn ceiling(&self, roles: &RoleTable) -> PermissionSet {
        self.ancestors
            .iter()
            .fold(PermissionSet::ALL, |set, parent| set.intersection(effective_set(&parent.link, roles)))
    }

    /// What role and overrides allow, parents included, before guardrails.
    pub fn effective(&self, roles: &RoleTable) -> PermissionSet {
        effective_set(&self.link, roles).intersection(self.ceiling(roles))
    }
}

fn effective_set(link: &Link, roles: &RoleTable) -> PermissionSet {
    let role = roles.link_role(link.role);
    let granted = if link.role == super::LinkRole::Delegate { role.union(link.granted) } else { role };
    granted.without(link.denied)
}

/// All links of one partner, as of one change-sequence number: one immutable cache entry.
#[derive(Debug)]
pub struct Portfolio {
    pub partner: Partner,
    pub links: HashMap<TenantId, Arc<LinkFacts>, ahash::RandomState>,
    /// The change sequence read in the same snapshot as the rows.
    pub as_of: u64,
}

impl Portfolio {
    /// The link to this tenant, live or not.
    pub fn link(&self, tenant: &str) -> Option<&Arc<LinkFacts>> {
        self.links.get(tenant)
    }
}

/// Everything one decision reads.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub user: &'a UserFacts,
    /// `None`: the caller's partner has no link to the tenant.
    pub link: Option<&'a LinkFacts>,
    pub permission: Permission,
    /// The request names an active tenant: `partner.tenants.switch_context` is tested together with the permission.
    pub switch_context: bool,
    pub now: Millis,
    pub ip: IpAddr,
    pub mfa: bool,
    /// HTTP method, for guardrails; empty where there is none (`decide`).
    pub method: &'a str,
    /// The route's class (`read`, `write`, `export`), for guardrails.
    pub route_class: &'a str,
}

impl Facts<'_> {
    /// Every gate before the guardrails that is closed, in order: what would still refuse once the first were opened.
    ///
    /// For records and explanations; it decides nothing. A hand-written permit may open the role gate all the same.
    pub fn closed_gates(&self, roles: &RoleTable) -> Vec<Gate> {
        let Some(facts) = self.link else { return vec![Gate::Link] };
        let asked = if self.switch_context {
            PermissionSet::of(self.permission).union(PermissionSet::of(Permission::SWITCH_CONTEXT))
        } else {
            PermissionSet::of(self.permission)
        };
        let links = || std::iter::once(&facts.link).chain(facts.ancestors.iter().map(|parent| &parent.link));
        let role = roles.link_role(facts.link.role);
        let granted = if facts.link.role == super::LinkRole::Delegate { role.union(facts.link.granted) } else { role };
        let closed = [
            (Gate::Suspension, self.user.suspended || facts.is_suspended()),
            (Gate::Partner, !facts.partners_active()),
            (Gate::Approval, links().any(|link| link.approval != super::Approval::Approved)),
            (Gate::Active, links().any(|link| !link.is_active)),
            (Gate::Started, links().any(|link| self.now < link.start)),
            (Gate::Ended, links().any(|link| link.end.is_some_and(|end| end <= self.now))),
            (Gate::Address, !facts.admits(self.ip)),
            (Gate::Mfa, facts.requires_mfa() && !self.mfa),
            (Gate::User, !self.user.holds.contains_all(asked)),
            (Gate::Role, !granted.intersection(facts.ceiling(roles)).contains_all(asked)),
            (Gate::Override, !facts.link.denied.intersection(asked).is_empty()),
        ];
        closed.into_iter().filter(|(_, closed)| *closed).map(|(gate, _)| gate).collect()
    }
}
