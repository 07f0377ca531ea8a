//! Near misses, the log-only rollout, and decisions made again from what a record keeps.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod policy_support;

use std::{collections::BTreeMap, sync::Arc};

use linkgate::{
    audit::RecordedLink,
    domain::{self, Facts, LinkFacts},
    policy::{Bundle, Memo, PolicyErrors, Refusal, Side, decide, judge, near_misses},
};
use policy_support::{Case, Folder, Prepared, RawLink, Rng, random_case};

const READ: &str = "partner.billing.invoices.read";

fn open() -> Case {
    Case::open(RawLink::live("msp_full"), READ)
}

fn owned(facts: &Facts<'_>) -> domain::Case {
    domain::Case {
        user: facts.user.clone(),
        link: facts.link.cloned(),
        permission: facts.permission,
        switch_context: facts.switch_context,
        now: facts.now,
        ip: facts.ip,
        mfa: facts.mfa,
        method: facts.method.into(),
        route_class: facts.route_class.into(),
    }
}

fn changes(bundle: &Bundle, case: &Case) -> Vec<String> {
    let found = near_misses(bundle, &owned(&Prepared::new(bundle, case).facts()));
    found.into_iter().map(|miss| miss.change).collect()
}

fn refused(edit: impl FnOnce(&mut Case, &mut RawLink)) -> Case {
    let mut case = open();
    let mut link = case.link.take().unwrap();
    edit(&mut case, &mut link);
    case.link = Some(link);
    case
}

#[test]
fn each_gate_that_is_closed_alone_has_its_single_change() {
    let bundle = Bundle::load(None).unwrap();
    type Edit = fn(&mut Case, &mut RawLink);
    let gates: [(Edit, &str, usize); 10] = [
        (|case, _| case.user_suspended = true, "with the suspension of the user, session or token lifted", 1),
        (|_, link| link.suspended = true, "with the suspension of partner, tenant, link or everything lifted", 1),
        (|_, link| link.partner_active = false, "with the partner active", 1),
        (|_, link| link.approval = "pending", "with the link approved", 1),
        (|_, link| link.is_active = false, "with the link active", 1),
        (|_, link| link.start = 5_000, "from 1970-01-01T00:00:05.000Z on (start_date)", 1),
        (|_, link| link.end = Some(500), "before 1970-01-01T00:00:00.500Z (end_date)", 1),
        (|_, link| link.cidrs = vec!["203.0.113.0/24"], "from an address in 203.0.113.0/24", 2),
        (|case, link| (case.mfa, link.require_mfa) = (false, true), "with MFA", 2),
        (
            |_, link| link.overrides.push(("billing.read", false)),
            "without the override that denies partner.billing.invoices.read",
            1,
        ),
    ];
    for (edit, change, many) in gates {
        let found = changes(&bundle, &refused(edit));
        assert_eq!(found.first().map(String::as_str), Some(change), "{found:?}");
        assert_eq!(found.len(), many, "{found:?}");
    }
    let two = refused(|_, link| (link.approval, link.is_active) = ("rejected", false));
    assert_eq!(changes(&bundle, &two), Vec::<String>::new(), "no single change opens two gates");
}

#[test]
fn roles_users_links_and_parents_are_tried_too() {
    let bundle = Bundle::load(None).unwrap();
    let has = |case: &Case, wanted: &[&str], not: &[&str]| {
        let found = changes(&bundle, case);
        for change in wanted {
            assert!(found.iter().any(|one| one == change), "{change}: {found:?}");
        }
        for change in not {
            assert!(!found.iter().any(|one| one == change), "{change}: {found:?}");
        }
    };
    let role = Case::open(RawLink::live("msp_billing"), "partner.support.tickets.read");
    has(
        &role,
        &["with the link role msp_full", "with the link role auditor"],
        &["with the link role delegate", "with MFA"],
    );
    let user = refused(|case, _| (case.roles, case.permissions) = (vec![], vec![]));
    let billing = "with the user in the role partner_msp_billing";
    has(&user, &[billing, "with the user holding partner.billing.invoices.read"], &["with the link role msp_billing"]);
    let delegate = Case::open(RawLink::live("delegate"), READ);
    has(&delegate, &["with an override that grants partner.billing.invoices.read"], &[]);
    let mut none = open();
    none.link = None;
    has(&none, &["with a link of the role auditor"], &["with a link of the role delegate"]);
    let child = refused(|_, link| {
        link.role = "delegate";
        link.overrides.push(("partner.billing.*", true));
        link.parents.push(RawLink { id: 77, require_mfa: false, approval: "pending", ..RawLink::live("msp_full") });
    });
    let id = uuid::Uuid::from_u128(77);
    has(&child, &[&format!("with the parent link {id} approved")], &["with the link approved"]);
    // An allow: what would have refused it.
    has(
        &refused(|_, link| (link.require_mfa, link.end) = (true, Some(9_000))),
        &["without MFA", "from 1970-01-01T00:00:09.000Z on (end_date)"],
        &[],
    );
}

#[test]
fn guardrails_are_tried_by_what_they_name_and_by_the_clock() {
    let folder = Folder::new(
        "@id(\"office\") forbid (principal, action, resource) unless { context.ip.isInRange(ip(\"198.51.100.0/28\")) };",
    );
    assert_eq!(changes(&folder.load(), &open()), ["from an address in 198.51.100.0/28", "without the policy office"]);
    let folder = Folder::new(
        "@id(\"freeze\") forbid (principal, action, resource) when { context.now < datetime(\"1970-01-02T00:00:00Z\") };",
    );
    assert_eq!(
        changes(&folder.load(), &open()),
        ["from 1970-01-02T00:00:00.000Z on (named by a policy)", "without the policy freeze"]
    );
    // Named nowhere: a rule that computes with the time of day.
    let folder = Folder::new(
        "@id(\"by-day\") forbid (principal, action, resource) when { context.now.toTime() < duration(\"8h\") };",
    );
    assert_eq!(changes(&folder.load(), &open()), ["at 1970-01-01T08:00:01.000Z", "without the policy by-day"]);
    let folder = Folder::new(
        "@id(\"a\") forbid (principal, action, resource);\n@id(\"b\") forbid (principal, action, resource);",
    );
    assert_eq!(changes(&folder.load(), &open()), Vec::<String>::new(), "either alone still refuses");
    let case = owned(&Prepared::new(&folder.load(), &open()).facts());
    let folder = Folder::new("@id(\"mfa\") forbid (principal, action, resource) when { context.mfa };");
    let found = near_misses(&folder.load(), &case);
    assert_eq!(found.iter().map(|miss| miss.side).collect::<Vec<_>>(), [Side::Request, Side::Policy]);
}

/// What a set that is not enforced lets through was refused by a guardrail or by the roles, and by nothing else.
#[test]
fn a_log_only_set_opens_guardrails_and_roles_and_no_other_gate() {
    let folder = Folder::new(
        "@id(\"g\") forbid (principal, action in [Action::\"billing.read\"], resource) when { context.mfa };",
    );
    let (enforced, log_only) = (folder.load(), folder.load().log_only());
    let (mut memo, mut other, mut rng) = (Memo::new(2_000), Memo::new(2_000), Rng(0x10_9011));
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..20_000 {
        let case = random_case(&mut rng);
        let prepared = Prepared::new(&enforced, &case);
        let facts = prepared.facts();
        let (then, now) = (judge(&enforced, Some(&mut other), &facts), decide(&log_only, Some(&mut memo), &facts));
        let Some(denial) = now.waived else {
            assert_eq!(now.verdict.map(|_| ()), then.result, "{case:#?}");
            continue;
        };
        assert_eq!(then.result, Err(Refusal::Denied(denial)));
        assert_eq!(now.policies, then.policies, "what refused it is told");
        assert!(["permission", "guardrail"].contains(&denial.word()), "{denial:?}");
        *seen.entry(denial.word()).or_default() += 1;
        let link: &LinkFacts = facts.link.unwrap();
        let mut asked = domain::PermissionSet::of(facts.permission);
        if facts.switch_context {
            asked = asked.union(domain::PermissionSet::of(domain::Permission::SWITCH_CONTEXT));
        }
        assert!(link.link.partner_id == facts.user.partner_id && link.closed_gate(facts.now).is_none());
        assert!(!facts.user.suspended && link.admits(facts.ip) && (facts.mfa || !link.requires_mfa()));
        assert!(facts.user.holds.contains_all(asked) && link.link.denied.intersection(asked).is_empty());
        assert!(link.ceiling(enforced.roles()).contains_all(asked), "a parent's ceiling is no role rule: {case:#?}");
    }
    assert!(seen["permission"] > 50 && seen["guardrail"] > 50, "{seen:?}");
}

#[test]
fn a_policy_that_errs_refuses_in_a_log_only_set_too() {
    let folder = Folder::new(
        "@id(\"errs\") permit (principal, action, resource) when { 9223372036854775807 + 1 > 0 && context.mfa };",
    );
    let outcome = decide(&folder.load().log_only(), None, &Prepared::new(&folder.load(), &open()).facts());
    assert_eq!((outcome.verdict.unwrap_err(), outcome.waived), (Refusal::Unavailable, None));
}

/// What a record keeps of a link is all that a decision reads of it.
#[test]
fn a_recorded_link_decides_as_the_link_did() {
    let folder = Folder::new(
        "@id(\"reads\") forbid (principal, action, resource is Link) when { resource.tenant.status == \"suspended\" && resource.starts < context.now };",
    );
    let (bundle, mut rng) = (folder.load(), Rng(0x5ec0));
    let mut linked = 0;
    for _ in 0..3_000 {
        let case = random_case(&mut rng);
        let prepared = Prepared::new(&bundle, &case);
        let facts = prepared.facts();
        let Some(link) = facts.link else { continue };
        linked += 1;
        let written = serde_json::to_string(&RecordedLink::from(Arc::new(link.clone()))).unwrap();
        let read: RecordedLink = serde_json::from_str(&written).unwrap();
        let own = &link.link;
        let again = read.facts(own.id, own.version, own.partner_id, own.tenant_id.clone());
        let then = judge(&bundle, None, &facts);
        assert_eq!(judge(&bundle, None, &Facts { link: Some(&again), ..facts }), then, "{case:#?}\n{written}");
    }
    assert!(linked > 2_000);
}

#[test]
fn a_bad_shadow_set_leaves_the_last_good_one() -> Result<(), PolicyErrors> {
    let folder = Folder::new("@id(\"a\") forbid (principal, action, resource);");
    let shadow = linkgate::policy::ShadowSet::new(folder.path().to_owned());
    assert!(shadow.current().is_none());
    let (first, changed) = shadow.reload()?;
    assert!(changed && !shadow.reload()?.1, "the same set is no change");
    folder.write("guardrails/test.cedar", "@id(\"a\") forbid (principal, action, resource) when { context.nope };");
    assert!(shadow.reload().is_err());
    assert_eq!(shadow.current().unwrap().version(), first.version());
    Ok(())
}
