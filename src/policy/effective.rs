//! What a link, or a role, amounts to: for each permission yes, no, or what it depends on.
//!
//! Of a user who holds everything and is not suspended, at one instant. The gates are read from the link itself; of each
//! hand-written rule Cedar says what can be said of it for this link (`logic`), and where that is not certain the answer
//! is that it depends on the rule. A property test holds `yes` and `no` against decisions.

use std::net::{IpAddr, Ipv4Addr};

use cedar_policy::{Effect, Entities, Request};
use cedar_policy_core::ast::{Expr, Var};
use serde::Serialize;

use super::{
    bundle::Bundle,
    facts::Question,
    formula::Formula,
    lint::{evaluate, scope_formula},
    logic::{Atoms, Budget, Known, variables},
    reads::{self, Reads},
    slices::names,
    written::Written,
};
use crate::domain::{
    Facts, Gate, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, Permission, PermissionSet,
    TenantId, UserFacts,
};

/// Steps for one rule and one permission; what takes longer "may be".
const BUDGET: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "EffectiveAnswer")]
pub enum Answer {
    Yes,
    No,
    Depends,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "EffectivePermission")]
pub struct Effective {
    pub permission: Permission,
    pub answer: Answer,
    /// For `no`: the first gate that is closed.
    pub gate: Option<&'static str>,
    /// What it depends on: `mfa`, `address`, `time`, `method`, `route_class`, `user`.
    pub on: Vec<&'static str>,
    /// Hand-written rules that decide, or on which it depends.
    pub rules: Vec<String>,
}

/// The table of a link at one instant.
pub fn effective(bundle: &Bundle, link: &LinkFacts, now: Millis) -> Vec<Effective> {
    let standing = Standing::of_link(bundle, link);
    Permission::all().map(|permission| row(bundle, link, now, permission, &standing)).collect()
}

/// A live link of this role without any limit of its own: what the role is worth.
pub fn plain_link(role: LinkRole) -> Option<LinkFacts> {
    let nil = uuid::Uuid::nil();
    let link = Link {
        id: LinkId(nil),
        partner_id: PartnerId(nil),
        tenant_id: TenantId::new("tenant").ok()?,
        role,
        granted: PermissionSet::EMPTY,
        denied: PermissionSet::EMPTY,
        approval: crate::domain::Approval::Approved,
        is_active: true,
        start: Millis(0),
        end: None,
        allowed_cidrs: Box::default(),
        require_mfa: false,
        version: LinkVersion(1),
    };
    Some(LinkFacts {
        link,
        partner_active: true,
        suspended: false,
        tenant_status: "active".into(),
        ancestors: Box::default(),
    })
}

/// The policies of the set that concern links of this role, as they stand.
pub fn role_text(bundle: &Bundle, role: LinkRole) -> String {
    let standing = Standing::of_role(bundle, role);
    let texts: Vec<_> = bundle
        .policies
        .iter()
        .filter(|written| standing.may_match(written))
        .map(|written| format!("// {}\n{}\n", written.place(), written.text()))
        .collect();
    texts.join("\n")
}

fn row(bundle: &Bundle, link: &LinkFacts, now: Millis, permission: Permission, standing: &Standing<'_>) -> Effective {
    let mut row = Effective { permission, answer: Answer::Yes, gate: None, on: Vec::new(), rules: Vec::new() };
    let no = |gate: Gate, rules: Vec<String>| Effective {
        permission,
        answer: Answer::No,
        gate: Some(gate.as_str()),
        on: Vec::new(),
        rules,
    };
    if let Some(gate) = link.closed_gate(now) {
        return no(gate, Vec::new());
    }
    if !link.ceiling(bundle.roles()).contains(permission) {
        return no(Gate::Role, Vec::new());
    }
    let role = bundle.roles().link_role(link.link.role);
    let granted = if link.link.role == LinkRole::Delegate { role.union(link.link.granted) } else { role };
    let mut depends = Vec::new();
    if !granted.contains(permission) {
        let permits: Vec<_> = standing.rules(Effect::Permit, permission).collect();
        if permits.is_empty() {
            return no(Gate::Role, Vec::new());
        }
        row.rules.extend(permits.iter().map(|(written, _)| written.id.clone()));
        if permits.iter().all(|(_, certain)| !certain) {
            depends.extend(permits.iter().map(|(written, _)| *written));
        }
    }
    if link.link.denied.contains(permission) {
        return no(Gate::Override, Vec::new());
    }
    for (written, certain) in standing.rules(Effect::Forbid, permission) {
        if certain {
            return no(Gate::Guardrail, vec![written.id.clone()]);
        }
        row.rules.push(written.id.clone());
        depends.push(written);
    }
    // A permit that can fail refuses wherever it is evaluated, also where the role grants it anyway.
    let failing = standing.rules(Effect::Permit, permission).map(|(written, _)| written);
    depends.extend(failing.filter(|written| !written.faults.is_empty()));
    if link.requires_mfa() {
        row.on.push("mfa");
    }
    if std::iter::once(&link.link)
        .chain(link.ancestors.iter().map(|parent| &parent.link))
        .any(|one| !one.allowed_cidrs.is_empty())
    {
        row.on.push("address");
    }
    for written in &depends {
        if !row.rules.contains(&written.id) {
            row.rules.push(written.id.clone());
        }
        row.on.extend(dependence(reads::of(&written.policy)));
    }
    row.on.sort_unstable();
    row.on.dedup();
    if !row.on.is_empty() || !depends.is_empty() {
        row.answer = Answer::Depends;
    }
    row
}

fn dependence(reads: Reads) -> impl Iterator<Item = &'static str> {
    [
        (Reads::MFA, "mfa"),
        (Reads::IP, "address"),
        (Reads::NOW, "time"),
        (Reads::METHOD, "method"),
        (Reads::ROUTE_CLASS, "route_class"),
        (Reads::PRINCIPAL, "user"),
    ]
    .into_iter()
    .filter_map(move |(one, name)| reads.has(one).then_some(name))
}

/// What can be said of each rule, once the link (or only its role) is known.
pub(super) struct Standing<'a> {
    bundle: &'a Bundle,
    /// By permission, the question with all facts of the link. Empty where only the role is known.
    questions: Vec<(Permission, Option<Request>)>,
    entities: Entities,
    resource: Option<String>,
    tenant: Option<String>,
    role: String,
}

impl<'a> Standing<'a> {
    pub(super) fn of_link(bundle: &'a Bundle, link: &LinkFacts) -> Self {
        let user = UserFacts {
            issuer: "".into(),
            sub: "".into(),
            partner_id: link.link.partner_id,
            holds: PermissionSet::ALL,
            suspended: false,
        };
        let mut standing = Self::of_role(bundle, link.link.role);
        standing.resource = Some(format!("{}", super::schema::uid(&bundle.words.link_type, &link.link.id.to_string())));
        standing.tenant =
            Some(format!("{}", super::schema::uid(&bundle.words.tenant_type, link.link.tenant_id.as_str())));
        // Only hand-written rules are judged; the gates are read from the link itself.
        let Some(permission) = Permission::all().next().filter(|_| bundle.by_hand().next().is_some()) else {
            return standing;
        };
        let facts = Facts {
            user: &user,
            link: Some(link),
            permission,
            switch_context: false,
            now: Millis(0),
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            mfa: false,
            method: "",
            route_class: "",
        };
        // With the schema all actions are among the entities. Facts that do not fit leave every leaf open: "depends".
        let question = Question::new(&bundle.words, bundle.roles(), &facts, Some(&bundle.words.schema));
        if let Ok(question) = question {
            for (permission, request) in &mut standing.questions {
                *request = question.request(&bundle.words, *permission, None).ok();
            }
            standing.entities = question.entities;
        }
        standing
    }

    pub(super) fn of_role(bundle: &'a Bundle, role: LinkRole) -> Self {
        Self {
            bundle,
            questions: Permission::all().map(|permission| (permission, None)).collect(),
            entities: Entities::empty(),
            resource: None,
            tenant: None,
            role: format!("Role::\"{role}\""),
        }
    }

    /// Whether the rule can match a request for any permission.
    pub(super) fn may_match(&self, written: &Written) -> bool {
        Permission::all().any(|permission| self.says(written, permission).is_some())
    }

    /// The hand-written rules of this effect that can match, and whether they do so whatever else the request is.
    fn rules(&self, effect: Effect, permission: Permission) -> impl Iterator<Item = (&'a Written, bool)> + '_ {
        let of_effect = self.bundle.by_hand().filter(move |written| written.policy.effect() == effect);
        of_effect.filter_map(move |written| Some((written, self.says(written, permission)?)))
    }

    /// `None`: it never matches. Otherwise whether it always does.
    fn says(&self, written: &Written, permission: Permission) -> Option<bool> {
        if !names(&self.bundle.words, &written.policy, permission) {
            return None;
        }
        let mut atoms = Atoms::default();
        let scope = scope_formula(&written.policy, &mut atoms);
        let known = Leaf { standing: self, permission };
        let condition = written.policy.as_ref().non_scope_constraints();
        let condition = condition.map_or(Formula::Const(true), |expr| atoms.formula(expr, &known));
        let formula = self.with_ids(scope.and(condition), &mut atoms);
        if !atoms.can_be_true(&formula, &mut Budget(BUDGET)) {
            return None;
        }
        let given = self.with_ids(Formula::Const(true), &mut atoms);
        let always = !atoms.can_be_true(&given.and(formula.negated()), &mut Budget(BUDGET));
        Some(always && written.faults.is_empty())
    }

    /// Adds what is known of this link: its id, its tenant, its role.
    fn with_ids(&self, formula: Formula, atoms: &mut Atoms) -> Formula {
        let resource = self.resource.clone().map(|id| atoms.equals("resource", id));
        let tenant = self.tenant.clone().map(|id| atoms.equals("resource.tenant", id));
        let role = atoms.equals("resource.role", self.role.clone());
        [resource, tenant, Some(role)].into_iter().flatten().fold(formula, Formula::and)
    }
}

/// Leaves that read nothing but the link and the action have one value for this link: Cedar says which.
struct Leaf<'a> {
    standing: &'a Standing<'a>,
    permission: Permission,
}

impl Known for Leaf<'_> {
    fn value(&self, leaf: &Expr) -> Option<bool> {
        if variables(leaf).any(|variable| !matches!(variable, Var::Action | Var::Resource)) {
            return None;
        }
        let (_, request) = self.standing.questions.get(self.permission.index())?;
        evaluate(request.as_ref()?, &self.standing.entities, leaf)
    }
}
