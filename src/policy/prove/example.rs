//! From the solver's request to one that a person reads: replayed, made ordinary where it can be, and told.
//!
//! A counterexample is believed only as far as it can be replayed: by Cedar on the solver's own entities, and by the
//! policy set on facts as the gateway makes them. Then every fact is tried with an ordinary value in its place, and keeps
//! it if the fault still shows: what is left is what the fault is about.

use cedar_policy::{Entities, Policy, PolicyId, PolicySet, Request};
use cedar_policy_symcc::Env;

use super::{
    super::{
        decide::{Refusal, decide},
        facts::Question,
    },
    draft::{self, ADDRESS, LINK, NOW, OWN_PARTNER, STARTED, TENANT, ordinary_class, set_ceiling, storable},
    plan::Subject,
    tell,
};
use crate::domain::{Approval, Case, LinkRole, Millis, PermissionSet};

/// What a counterexample claims of a request.
#[derive(Clone, Debug)]
pub(super) enum Claim<'a> {
    /// The set allows it, and this policy matches it.
    Allowed(&'a Policy),
    /// This policy fails.
    Fails(&'a PolicyId),
    /// The set allows it, the older one refuses it.
    Wider(&'a Subject),
    /// The set allows it.
    Open,
}

/// How far a counterexample was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmed {
    /// It could not be replayed.
    No,
    /// Cedar decides so for the solver's own entities; the gateway makes no such facts.
    ByCedarOnly,
    /// The policy set decides so for facts as the gateway makes them.
    BySet,
}

/// One request for which an invariant does not hold.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Counterexample {
    pub confirmed: Confirmed,
    /// The request in a few lines: what it is about, and the facts.
    pub facts: Vec<(&'static str, String)>,
    /// The policies that allow it, or the one that fails and why.
    pub policies: Vec<String>,
    /// What the gateway as a whole answers, its gates outside of Cedar included.
    pub gateway: Option<String>,
    /// A line for `linkgate decide`.
    pub question: Option<serde_json::Value>,
}

impl Claim<'_> {
    /// The policies behind it, if the claim holds.
    fn of(
        &self,
        new: &Subject,
        request: &Request,
        entities: &Entities,
        refused: impl FnOnce() -> bool,
    ) -> Option<Vec<String>> {
        let said = new.ask(request, entities);
        match self {
            Self::Allowed(policy) => {
                let only = PolicySet::from_policies([(*policy).clone()]).ok()?;
                let matches = new.bundle.authorizer.is_authorized(request, &only, entities).decision();
                (said.allowed && matches == cedar_policy::Decision::Allow).then_some(said.policies)
            }
            Self::Fails(id) => {
                let found = said.failed.into_iter().find(|(failed, _)| *failed == id.to_string());
                found.map(|(id, why)| vec![format!("{id}: {why}")])
            }
            Self::Wider(_) => (said.allowed && refused()).then_some(said.policies),
            Self::Open => said.allowed.then_some(said.policies),
        }
    }

    fn of_env(&self, new: &Subject, env: &Env) -> Option<Vec<String>> {
        let refused = || match self {
            Self::Wider(old) => !old.ask(&env.request, &env.entities).allowed,
            _ => false,
        };
        self.of(new, &env.request, &env.entities, refused)
    }

    pub(super) fn of_draft(&self, new: &Subject, draft: &Case) -> Option<Vec<String>> {
        let (request, entities) = put(new, draft)?;
        let refused = || match self {
            // Facts are made by each set's own role table, as each gateway would.
            Self::Wider(old) => {
                put(old, draft).is_some_and(|(request, entities)| !old.ask(&request, &entities).allowed)
            }
            _ => false,
        };
        self.of(new, &request, &entities, refused)
    }
}

pub(super) fn put(subject: &Subject, draft: &Case) -> Option<(Request, Entities)> {
    let words = &subject.bundle.words;
    let question = Question::new(words, subject.bundle.roles(), &draft.facts(), None).ok()?;
    Some((question.request(words, draft.permission, None).ok()?, question.entities))
}

impl Counterexample {
    pub(super) fn new(claim: &Claim<'_>, new: &Subject, env: &Env) -> Self {
        let draft = draft::of(env, &new.bundle.words).map(|draft| storable(draft, &new.bundle));
        if let Some(draft) = draft
            && claim.of_draft(new, &draft).is_some()
        {
            return Self::of_draft(claim, new, &simplest(claim, new, draft));
        }
        // Entities as the solver made them: not ours to reword.
        let replayed = claim.of_env(new, env);
        Self {
            confirmed: if replayed.is_some() { Confirmed::ByCedarOnly } else { Confirmed::No },
            facts: tell::entities(env),
            policies: replayed.unwrap_or_default(),
            gateway: None,
            question: None,
        }
    }

    /// Of facts for which the claim is known to hold.
    pub(super) fn of_draft(claim: &Claim<'_>, new: &Subject, draft: &Case) -> Self {
        let policies = claim.of_draft(new, draft);
        let gateway = match decide(&new.bundle, None, &draft.facts()).verdict {
            Ok(_) => "allowed".to_owned(),
            Err(Refusal::Unavailable) => "refused: 503 POLICY_UNAVAILABLE".to_owned(),
            Err(Refusal::Denied(denial)) => match denial.reason {
                Some(reason) => format!("refused: {}, {}", denial.code, reason.as_str()),
                None => format!("refused: {}", denial.code),
            },
        };
        Self {
            confirmed: if policies.is_some() { Confirmed::BySet } else { Confirmed::No },
            facts: tell::lines(draft),
            policies: policies.unwrap_or_default(),
            gateway: Some(gateway),
            question: askable(draft).then(|| tell::question(draft)),
        }
    }
}

type Change = fn(&mut Case);

/// 2026-03-01 and 2026-12-31: ends before and after an ordinary request.
const ENDED: Millis = Millis(1_772_323_200_000);
const NOT_YET_ENDED: Millis = Millis(1_798_675_200_000);
/// 2026-09-01: a start after it.
const NOT_YET_STARTED: Millis = Millis(1_788_220_800_000);

/// Tried from the top; the first of a group that leaves the fault in place is kept.
const ORDINARY: &[&[Change]] = &[
    &[
        |draft| {
            draft.user.partner_id = OWN_PARTNER;
            link(draft, |facts| facts.link.partner_id = OWN_PARTNER);
        },
        |draft| draft.user.partner_id = own(draft),
    ],
    &[|draft| link(draft, |facts| facts.link.role = LinkRole::MspFull)],
    &[|draft| draft.user.suspended = false],
    &[
        |draft| draft.user.holds = PermissionSet::ALL,
        |draft| draft.user.holds = PermissionSet::of(draft.permission),
        |draft| {
            draft.user.holds = PermissionSet::ALL.without(PermissionSet::of(draft.permission));
        },
    ],
    &[|draft| draft.user.issuer = "".into()],
    &[|draft| draft.user.sub = "".into()],
    &[|draft| draft.mfa = true],
    &[|draft| draft.ip = ADDRESS],
    &[|draft| draft.method = "".into()],
    &[|draft| draft.route_class = ordinary_class(draft.permission).into()],
    &[
        |draft| window(draft, NOW, STARTED, None),
        |draft| window(draft, NOW, STARTED, Some(NOT_YET_ENDED)),
        |draft| window(draft, NOW, STARTED, Some(ENDED)),
        |draft| window(draft, NOW, NOT_YET_STARTED, None),
        |draft| window(draft, draft.now, STARTED, None),
    ],
    &[|draft| link(draft, |facts| facts.suspended = false)],
    &[|draft| link(draft, |facts| facts.partner_active = true)],
    &[|draft| link(draft, |facts| facts.link.approval = Approval::Approved)],
    &[|draft| link(draft, |facts| facts.link.is_active = true)],
    &[|draft| link(draft, |facts| facts.link.require_mfa = false)],
    &[|draft| link(draft, |facts| facts.link.allowed_cidrs = Box::default())],
    &[|draft| link(draft, |facts| facts.tenant_status = "active".into())],
    &[|draft| link(draft, |facts| facts.link.tenant_id = ordinary_tenant(facts))],
    &[|draft| link(draft, |facts| facts.link.id = LINK)],
    &[
        |draft| ceiling(draft, PermissionSet::ALL),
        |draft| ceiling(draft, PermissionSet::ALL.without(PermissionSet::of(draft.permission))),
        |draft| ceiling(draft, PermissionSet::of(draft.permission)),
    ],
    &[
        |draft| link(draft, |facts| facts.link.denied = PermissionSet::EMPTY),
        |draft| {
            let asked = PermissionSet::of(draft.permission);
            link(draft, |facts| facts.link.denied = asked);
        },
    ],
    &[
        |draft| link(draft, |facts| facts.link.granted = PermissionSet::EMPTY),
        |draft| {
            let asked = PermissionSet::of(draft.permission);
            link(draft, |facts| facts.link.granted = asked);
        },
    ],
    &[|draft| {
        let asked = PermissionSet::of(draft.permission);
        // What stands below another link is always a delegate.
        link(draft, |facts| {
            if !facts.ancestors.is_empty() {
                (facts.link.role, facts.link.granted) = (LinkRole::Delegate, asked);
            }
        });
    }],
];

fn link(draft: &mut Case, change: impl FnOnce(&mut crate::domain::LinkFacts)) {
    if let Some(facts) = &mut draft.link {
        change(facts);
    }
}

/// Whether `linkgate decide` takes it: no stored link of another role than delegate has links above it.
fn askable(draft: &Case) -> bool {
    draft.link.as_ref().is_none_or(|facts| facts.ancestors.is_empty() || facts.link.role == LinkRole::Delegate)
}

fn own(draft: &Case) -> crate::domain::PartnerId {
    draft.link.as_ref().map_or(OWN_PARTNER, |facts| facts.link.partner_id)
}

fn window(draft: &mut Case, now: Millis, start: Millis, end: Option<Millis>) {
    draft.now = now;
    link(draft, |facts| {
        (facts.link.start, facts.link.end) = (start, end);
        for parent in &mut facts.ancestors {
            parent.link.start = start;
        }
    });
}

fn ceiling(draft: &mut Case, set: PermissionSet) {
    link(draft, |facts| set_ceiling(facts, set));
}

fn ordinary_tenant(facts: &crate::domain::LinkFacts) -> crate::domain::TenantId {
    crate::domain::TenantId::new(TENANT).unwrap_or_else(|_| facts.link.tenant_id.clone())
}

/// Puts ordinary values in the place of whatever does not matter. Each kept step still shows the fault, so that the end
/// does; a few dozen decisions at most.
fn simplest(claim: &Claim<'_>, new: &Subject, mut draft: Case) -> Case {
    for choices in ORDINARY {
        for change in *choices {
            let mut tried = draft.clone();
            change(&mut tried);
            let tried = storable(tried, &new.bundle);
            if claim.of_draft(new, &tried).is_some() {
                draft = tried;
                break;
            }
        }
    }
    draft
}
