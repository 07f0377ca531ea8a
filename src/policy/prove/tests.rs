//! Proofs with faults planted where no folder of policies can put them: in the generated gates.
//!
//! They need cvc5, which `tests/run` installs; without it they fail. Few environments are asked, to be quick.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use cedar_policy::{Policy, PolicyId};

use super::{
    super::{Bundle, PolicyErrors, generate, source_file::SourceFile},
    *,
};
use crate::domain::{LinkRole, Permission, PermissionSet, permission::Kind};
use crate::policy::WhatIf;

fn bundle() -> Arc<Bundle> {
    Arc::new(Bundle::load(None).unwrap())
}

fn invariants(bundle: &Bundle) -> Invariants {
    Invariants::load(bundle, None, None).unwrap()
}

/// The outcome for a set without some policies and with others, over a few permissions.
fn proved(without: &[&str], with: &[&str], permissions: &[&str]) -> Proof {
    let bundle = bundle();
    let invariants = invariants(&bundle);
    let mut subject = Subject::new(bundle);
    for id in without {
        subject.set.remove_static(PolicyId::new(id)).unwrap();
    }
    for (at, text) in with.iter().enumerate() {
        subject.set.add(Policy::parse(Some(PolicyId::new(format!("planted-{at}"))), *text).unwrap()).unwrap();
    }
    let mut plan = Plan::new(subject, &invariants.list, None).unwrap();
    plan.environments.retain(|env| permissions.contains(&env.action().id().unescaped()));
    assert_eq!(plan.environments.len(), 2 * permissions.len());
    let settings = SolverSettings { binary: "cvc5".into(), timeout: Duration::from_secs(60) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let two = NonZeroUsize::new(2).unwrap();
    runtime.block_on(run(Arc::new(plan), &invariants.list, settings, two, |_, _| ())).unwrap()
}

/// The verdicts that are not proved; each must have a counterexample that the set itself confirms.
fn broken(proof: &Proof) -> Vec<&str> {
    let found = proof.verdicts.iter().filter(|verdict| verdict.state != State::Proved);
    found
        .map(|verdict| {
            assert_eq!(verdict.state, State::Broken, "{verdict:?}");
            let example = verdict.counterexample.as_ref().unwrap();
            assert_eq!(example.confirmed, Confirmed::BySet, "{verdict:?}");
            verdict.name.as_str()
        })
        .collect()
}

/// Every generated gate: taken out, exactly its own invariant is broken. A gate without an invariant fails here too.
#[test]
fn each_gate_has_an_invariant_that_notices_its_loss() {
    let of_gate = [
        ("gate.link", "only-the-own-partners-link", "of another partner"),
        ("gate.suspension", "nothing-under-suspension", "suspended"),
        ("gate.partner", "only-an-active-partner", "partner inactive"),
        ("gate.approval", "only-an-approved-link", "pending"),
        ("gate.active", "only-an-active-link", "revoked"),
        ("gate.started", "nothing-before-start-date", "starts 2026-09-01"),
        ("gate.ended", "nothing-from-end-date-on", "ends 2026-03-01"),
        ("gate.address", "address-list-binds", "only from 203.0.113.0/24"),
        ("gate.mfa", "mfa-where-the-link-asks-for-it", "asks for MFA"),
        ("gate.user", "never-more-than-the-user-holds", "holds everything but partner.billing.read"),
        ("gate.ceiling", "never-more-than-the-links-above", "below a link of role delegate"),
        ("gate.override", "denied-override-wins", "overrides deny partner.billing.read"),
    ];
    let generated = generate::PREFIX.to_owned() + "gate.";
    let gates = bundle().generated().matches(&format!("@id(\"{generated}")).count();
    assert_eq!(of_gate.len(), gates, "a gate has no invariant here");
    for (gate, invariant, fact) in of_gate {
        let proof = proved(&[&format!("{}{gate}", generate::PREFIX)], &[], &["partner.billing.read"]);
        assert_eq!(broken(&proof), [invariant], "without {gate}");
        let verdict = proof.verdicts.iter().find(|verdict| verdict.name == invariant).unwrap();
        assert_eq!(verdict.places, ["partner.billing.read through a link"]);
        let example = verdict.counterexample.as_ref().unwrap();
        let facts: Vec<_> = example.facts.iter().map(|(_, told)| told.as_str()).collect();
        assert!(facts.join("; ").contains(fact), "without {gate}: {facts:?}");
        let question = example.question.as_ref().unwrap().to_string();
        WhatIf::read(&bundle(), question.as_bytes()).unwrap();
    }
}

#[test]
fn a_bare_tenant_that_is_permitted_is_found() {
    let permit = "permit (principal, action, resource is Tenant);";
    assert_eq!(broken(&proved(&[], &[permit], &["partner.billing.read"])), Vec::<&str>::new(), "the gate holds");
    let proof = proved(&["linkgate.gate.link"], &[permit], &["partner.billing.read"]);
    assert_eq!(broken(&proof), ["no-access-without-a-link", "only-the-own-partners-link"]);
    let example = proof.verdicts[0].counterexample.as_ref().unwrap();
    assert!(example.facts.contains(&("link", "none".to_owned())), "{:?}", example.facts);
    assert!(example.question.as_ref().unwrap().get("link").is_none());
    assert_eq!(example.gateway.as_deref(), Some("refused: TENANT_ACCESS_DENIED, no_link"), "the gate in Rust holds");
}

/// What a hand-written permit may add to (the role) and what it may not (everything else).
#[test]
fn a_permit_of_everything_breaks_what_rests_on_roles_and_nothing_else() {
    let proof = proved(&[], &["permit (principal, action, resource);"], &["partner.alerts.acknowledge"]);
    assert_eq!(broken(&proof), ["an-auditor-never-writes", "a-delegate-has-only-its-grants"]);
}

/// Only what can happen with facts as the gateway makes them is reported.
#[test]
fn a_date_that_overflows_is_found_and_one_that_cannot_is_not() {
    let sum = |days: &str| {
        format!(
            "forbid (principal, action, resource is Link) when {{ resource.starts.offset(duration(\"{days}d\")) < context.now && context.now < resource.starts }};"
        )
    };
    assert_eq!(broken(&proved(&[], &[&sum("3650")], &["partner.billing.read"])), Vec::<&str>::new());
    let proof = proved(&[], &[&sum("106751991167")], &["partner.billing.read"]);
    assert_eq!(broken(&proof), ["no-policy-can-fail"]);
    let example = proof.verdicts.last().unwrap().counterexample.as_ref().unwrap();
    assert!(example.policies[0].starts_with("planted-0: "), "{:?}", example.policies);
    assert!(example.gateway.is_some());
}

/// What the solver says alone is neither a fault of the set nor a pass.
#[test]
fn a_counterexample_that_does_not_replay_is_inconclusive() {
    let bundle = bundle();
    let list = invariants(&bundle).list;
    let plan = Plan::new(Subject::new(bundle), &list, None).unwrap();
    let link = draft::ordinary_link(LinkRole::MspFull);
    let permission = Permission::parse("partner.billing.read").unwrap();
    let draft = draft::ordinary(permission, PermissionSet::ALL, link);
    let ordinary = || {
        let (request, entities) = example::put(&plan.new, &draft).unwrap();
        Box::new(cedar_policy_symcc::Env { request, entities })
    };
    let verdict = |name: &str, fails: Option<&str>| {
        let at = list.iter().position(|invariant| invariant.name == name).unwrap();
        let wrong = Answer::Broken { example: ordinary(), fails: fails.map(PolicyId::new) };
        judge(&plan, &plan.questions[at], plan.environments.iter().zip([Some(&wrong)]))
    };
    for (name, fails) in [("only-an-active-link", None), ("no-policy-can-fail", Some("linkgate.gate.mfa"))] {
        let verdict = verdict(name, fails);
        assert_eq!(verdict.state, State::Undecided, "{verdict:?}");
        assert!(verdict.why[0].starts_with("inconclusive: "), "{verdict:?}");
        assert_eq!(verdict.counterexample.unwrap().confirmed, Confirmed::No);
        assert_eq!(verdict.places.len(), 1);
    }
}

#[test]
fn invariants_are_read_strictly() {
    let bundle = bundle();
    let parse = |text: &str| {
        let source = SourceFile { name: "invariants.toml".to_owned(), text: text.into() };
        Invariants::parse(&bundle.words, &source).map_err(PolicyErrors::new)
    };
    let bad = r#"
title = "mine"

[[invariant]]
name = "Bad name"
says = "x"
never_allowed = 'true'

[[invariant]]
name = "unknown-things"
says = "x"
resource = "link"
kinds = ["write"]
never_alowed = 'true'

[[invariant]]
name = "unknown-attribute"
says = "x"
resource = "Link"
allowed_only_if = '''
  resource.approved
    && resource.aproved
'''

[[invariant]]
name = "unknown-attribute"
says = "x"
actions = ["billing.reed"]
allowed_only_if = 'true'

[[invariant]]
name = "two-policies"
says = "x"
never_allowed = 'true }; permit (principal, action, resource) when { true'

[[invariant]]
name = "says-nothing"
says = "x"
allowed_only_if = 'true'

[[invariant]]
name = "two-things"
says = "x"
never_allowed = 'true'
policies_never_fail = true

[[invariant]]
name = "no-says"
never_allowed = 'true'

[[invariant]]
name = "narrow"
says = "x"
kinds = ["writes"]
never_allowed = 'principal.suspended'

[[invariant]]
name = "both"
says = "x"
kinds = ["write"]
actions = ["billing.read"]
never_allowed = 'principal.suspended'

[[invariant]]
name = "not-of-a-tenant"
says = "x"
never_allowed = 'resource.suspended'
"#;
    insta::assert_snapshot!(parse(bad).unwrap_err().to_string());
    assert!(parse("").unwrap_err().to_string().contains("nothing would be proved"));
    let twice = "[[invariant]]\nname = 'a'\nsays = 'x'\nnever_allowed = 'principal.suspended'\n".repeat(2);
    assert!(parse(&twice).unwrap_err().to_string().contains("used twice"));
    let mine = parse("[[invariant]]\nname = 'a'\nsays = 'x'\nnever_allowed = 'principal.suspended'\n").unwrap();
    assert_eq!(mine.missing.len(), invariants(&bundle).list.len());
    assert!(invariants(&bundle).missing.is_empty());
}

/// The invariant on auditors is about every write of the catalogue, whatever is added to it.
#[test]
fn kinds_are_the_catalogues() {
    let bundle = bundle();
    let list = invariants(&bundle).list;
    let auditor = list.iter().find(|one| one.name == "an-auditor-never-writes").unwrap();
    let entry::Rule::Never(policy) = &auditor.rule else { panic!("{auditor:?}") };
    let cedar_policy::ActionConstraint::In(actions) = policy.action_constraint() else { panic!("{policy}") };
    let named: Vec<_> = actions.iter().map(|uid| uid.id().unescaped().to_owned()).collect();
    let writes = Permission::all().filter(|one| one.kind() == Kind::Write);
    assert_eq!(named, writes.map(|one| one.name().to_owned()).collect::<Vec<_>>());
    assert!(named.len() > 5, "{named:?}");
}
