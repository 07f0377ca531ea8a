//! Near misses: which single change of the facts would have turned the decision round.
//!
//! Nothing is guessed: each candidate is the same question with one fact changed, decided again by the same set, and is
//! told only if the answer is the other one. Candidates come from the facts (windows, networks, overrides) and from what
//! hand-written policies name (networks and instants in their text); a rule that computes with the clock is tried at
//! each hour of the next day and at each day of the next week. Some hundred decisions without a memo: not for the
//! request path.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use super::{
    bundle::Bundle,
    decide::{Verdict, judge, judge_without},
    facts::asked,
    generate::PREFIX,
};
use crate::domain::{
    Approval, Case, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, Permission, PermissionSet, TenantId,
    facts::Ancestor,
};

/// Whose fact it is that would have to change; who may be told of it depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "NearMissSide")]
pub enum Side {
    /// MFA.
    Request,
    User,
    /// The link's own terms, their window and networks included.
    Link,
    /// A link above it.
    Parent,
    Suspension,
    Partner,
    /// A guardrail, and what only guardrails read or name: methods, other networks, other instants.
    Policy,
}

/// One single change that turns the decision round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct NearMiss {
    pub side: Side,
    /// In words: "with MFA", "from an address in 192.0.2.0/24".
    pub change: String,
}

/// Everything that was tried and turned the decision round.
pub fn near_misses(bundle: &Bundle, case: &Case) -> Vec<NearMiss> {
    let base = judge(bundle, None, &case.facts());
    let mut trial = Trial { bundle, case, base: &base, found: Vec::new() };
    trial.request();
    trial.instants();
    trial.user();
    match &case.link {
        Some(link) if link.link.partner_id == case.user.partner_id => {
            trial.link(link);
            trial.parents(link);
        }
        _ => trial.no_link(),
    }
    trial.guardrails();
    trial.found
}

struct Trial<'a> {
    bundle: &'a Bundle,
    case: &'a Case,
    base: &'a Verdict,
    found: Vec<NearMiss>,
}

/// Addresses of documentation networks: "somewhere else".
const ELSEWHERE: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
const HOUR_MS: i64 = 3_600_000;
const CLASSES: [&str; 3] = ["read", "write", "export"];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

impl Trial<'_> {
    /// Tries one change; whether it turned the decision round.
    fn on(&mut self, side: Side, change: impl Into<String>, edit: impl FnOnce(&mut Case)) -> bool {
        let mut case = self.case.clone();
        edit(&mut case);
        let flips = judge(self.bundle, None, &case.facts()).is_allow() != self.base.is_allow();
        if flips {
            self.found.push(NearMiss { side, change: change.into() });
        }
        flips
    }

    fn on_link(&mut self, side: Side, change: impl Into<String>, edit: impl FnOnce(&mut LinkFacts)) -> bool {
        self.on(side, change, |case| {
            if let Some(link) = &mut case.link {
                edit(link);
            }
        })
    }

    fn request(&mut self) {
        let case = self.case;
        self.on(Side::Request, if case.mfa { "without MFA" } else { "with MFA" }, |case| case.mfa = !case.mfa);
        // Each network once, under the nearest that names it.
        let mut nets: BTreeMap<IpNet, Side> = BTreeMap::new();
        let links = case.link.iter().flat_map(sides);
        let of_links = links.flat_map(|(link, side)| link.allowed_cidrs.iter().map(move |net| (*net, side)));
        let of_policies = literals(self.bundle).networks.into_iter().map(|net| (net, Side::Policy));
        for (net, side) in of_links.chain(of_policies) {
            nets.entry(net).or_insert(side);
        }
        for (net, side) in nets.iter().filter(|(net, _)| !net.contains(&case.ip.to_canonical())) {
            self.on(*side, format!("from an address in {net}"), |case| case.ip = net.addr());
        }
        let outside = ELSEWHERE.into_iter().find(|ip| !nets.keys().any(|net| net.contains(ip)));
        if let Some(ip) = outside.filter(|_| nets.keys().any(|net| net.contains(&case.ip.to_canonical()))) {
            self.on(Side::Policy, "from an address outside the networks that link and policies name", |case| {
                case.ip = ip;
            });
        }
        for method in METHODS.into_iter().filter(|method| **method != *case.method) {
            self.on(Side::Policy, format!("with the method {method}"), |case| case.method = method.into());
        }
        for class in CLASSES.into_iter().filter(|class| **class != *case.route_class) {
            self.on(Side::Policy, format!("on a route of class {class}"), |case| case.route_class = class.into());
        }
    }

    fn instants(&mut self) {
        let now = self.case.now;
        let mut edges: Vec<(Millis, Side, &str)> = Vec::new();
        for (link, side) in self.case.link.iter().flat_map(sides) {
            let parent = side == Side::Parent;
            edges.push((link.start, side, if parent { "a parent's start_date" } else { "start_date" }));
            edges.extend(link.end.map(|end| (end, side, if parent { "a parent's end_date" } else { "end_date" })));
        }
        edges.extend(literals(self.bundle).instants.into_iter().map(|at| (at, Side::Policy, "named by a policy")));
        edges.sort_by_key(|(edge, ..)| *edge);
        let mut turned = false;
        for (edge, side, name) in edges {
            let (at, change) = if now < edge {
                (edge, format!("from {edge} on ({name})"))
            } else {
                (Millis(edge.0.saturating_sub(1)), format!("before {edge} ({name})"))
            };
            if edge.timestamp().is_some() {
                turned |= self.on(side, change, |case| case.now = at);
            }
        }
        // A rule may compute with the clock: the first hour or day that turns it round is told.
        let later = |steps: i64, width: i64| (1..=steps).map(move |step| Millis(now.0.saturating_add(step * width)));
        if !turned {
            let _ = later(24, HOUR_MS)
                .chain(later(7, 24 * HOUR_MS).skip(1))
                .any(|at| self.on(Side::Policy, format!("at {at}"), |case| case.now = at));
        }
    }

    fn user(&mut self) {
        let (bundle, case) = (self.bundle, self.case);
        if case.user.suspended {
            self.on(Side::Suspension, "with the suspension of the user, session or token lifted", |case| {
                case.user.suspended = false;
            });
        }
        let asked = asked(&case.facts());
        let missing = asked.without(case.user.holds);
        if missing.is_empty() {
            self.on(Side::User, format!("without the user holding {}", list(asked)), |case| {
                case.user.holds = case.user.holds.without(asked);
            });
            return;
        }
        self.on(Side::User, format!("with the user holding {}", list(missing)), |case| {
            case.user.holds = case.user.holds.union(missing);
        });
        for (role, grants) in bundle.roles().user_roles() {
            self.on(Side::User, format!("with the user in the role {role}"), |case| {
                case.user.holds = case.user.holds.union(grants);
            });
        }
    }

    fn link(&mut self, facts: &LinkFacts) {
        let asked = asked(&self.case.facts());
        if facts.suspended {
            self.on_link(
                Side::Suspension,
                "with the suspension of partner, tenant, link or everything lifted",
                |link| {
                    link.suspended = false;
                },
            );
        }
        if !facts.partner_active {
            self.on_link(Side::Partner, "with the partner active", |link| link.partner_active = true);
        }
        if facts.link.approval != Approval::Approved {
            self.on_link(Side::Link, "with the link approved", |link| link.link.approval = Approval::Approved);
        }
        if !facts.link.is_active {
            self.on_link(Side::Link, "with the link active", |link| link.link.is_active = true);
        }
        if facts.link.require_mfa {
            self.on_link(Side::Link, "without require_mfa on the link", |link| link.link.require_mfa = false);
        }
        if !facts.link.allowed_cidrs.is_empty() {
            self.on_link(Side::Link, "without allowed_cidrs on the link", |link| {
                link.link.allowed_cidrs = Box::default();
            });
        }
        let denied = facts.link.denied.intersection(asked);
        if !denied.is_empty() {
            self.on_link(Side::Link, format!("without the override that denies {}", list(denied)), |link| {
                link.link.denied = link.link.denied.without(denied);
            });
        }
        if facts.link.role == LinkRole::Delegate {
            let missing = asked.without(facts.link.granted);
            if !missing.is_empty() {
                self.on_link(Side::Link, format!("with an override that grants {}", list(missing)), |link| {
                    link.link.granted = link.link.granted.union(missing);
                });
            }
        }
        for role in LinkRole::ALL.into_iter().filter(|role| *role != facts.link.role) {
            self.on_link(Side::Link, format!("with the link role {role}"), |link| link.link.role = role);
        }
        if &*facts.tenant_status != "active" {
            self.on_link(Side::Link, "with the tenant's status active", |link| link.tenant_status = "active".into());
        }
    }

    fn parents(&mut self, facts: &LinkFacts) {
        let asked = asked(&self.case.facts());
        for (at, parent) in facts.ancestors.iter().enumerate() {
            let id = parent.link.id;
            let mut on = |change: String, edit: &dyn Fn(&mut Ancestor)| {
                self.on_link(Side::Parent, change, |link| {
                    if let Some(parent) = link.ancestors.get_mut(at) {
                        edit(parent);
                    }
                })
            };
            on(format!("with the parent link {id} approved"), &|parent| parent.link.approval = Approval::Approved);
            on(format!("with the parent link {id} active"), &|parent| parent.link.is_active = true);
            on(format!("with the partner of the parent link {id} active"), &|parent| parent.partner_active = true);
            on(format!("with the suspension of the parent link {id} lifted"), &|parent| parent.suspended = false);
            on(format!("without require_mfa on the parent link {id}"), &|parent| parent.link.require_mfa = false);
            on(format!("without allowed_cidrs on the parent link {id}"), &|parent| {
                parent.link.allowed_cidrs = Box::default();
            });
            on(format!("with the parent link {id} granting {}", list(asked)), &|parent| {
                parent.link.role = LinkRole::MspFull;
                parent.link.denied = parent.link.denied.without(asked);
            });
        }
    }

    fn no_link(&mut self) {
        let nil = uuid::Uuid::nil();
        let Ok(tenant_id) = TenantId::new("tenant") else { return };
        for role in LinkRole::ALL {
            let link = Link {
                id: LinkId(nil),
                partner_id: self.case.user.partner_id,
                tenant_id: tenant_id.clone(),
                role,
                granted: PermissionSet::EMPTY,
                denied: PermissionSet::EMPTY,
                approval: Approval::Approved,
                is_active: true,
                start: self.case.now,
                end: None,
                allowed_cidrs: Box::default(),
                require_mfa: false,
                version: LinkVersion(1),
            };
            self.on(Side::Link, format!("with a link of the role {role}"), |case| {
                case.link = Some(LinkFacts {
                    link,
                    partner_active: true,
                    suspended: false,
                    tenant_status: "active".into(),
                    ancestors: Box::default(),
                });
            });
        }
    }

    fn guardrails(&mut self) {
        let own: Vec<Arc<str>> = self.base.policies.iter().filter(|id| !id.starts_with(PREFIX)).cloned().collect();
        for id in own {
            if judge_without(self.bundle, &self.case.facts(), &id).is_allow() != self.base.is_allow() {
                self.found.push(NearMiss { side: Side::Policy, change: format!("without the policy {id}") });
            }
        }
    }
}

/// The link and those above it.
fn sides(facts: &LinkFacts) -> impl Iterator<Item = (&Link, Side)> {
    std::iter::once((&facts.link, Side::Link)).chain(facts.ancestors.iter().map(|parent| (&parent.link, Side::Parent)))
}

fn list(set: PermissionSet) -> String {
    set.iter().map(Permission::name).collect::<Vec<_>>().join(" and ")
}

/// What hand-written policies name in their text.
#[derive(Default)]
struct Literals {
    networks: Vec<IpNet>,
    instants: Vec<Millis>,
}

fn literals(bundle: &Bundle) -> Literals {
    let mut found = Literals::default();
    for policy in bundle.full.set.policies().filter(|policy| {
        let id: &str = policy.id().as_ref();
        !id.starts_with(PREFIX)
    }) {
        // A policy without a JSON form gives no candidates; it is decided by all the same.
        if let Ok(json) = policy.to_json() {
            collect(&json, &mut found);
        }
    }
    found
}

fn collect(value: &Value, found: &mut Literals) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                let text = inner.pointer("/0/Value").and_then(Value::as_str);
                match (name.as_str(), text) {
                    ("ip", Some(text)) => {
                        found
                            .networks
                            .extend(text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)));
                    }
                    ("datetime", Some(text)) => found.instants.extend(Millis::parse(text)),
                    _ => collect(inner, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}
