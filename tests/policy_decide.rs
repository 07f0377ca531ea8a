//! Single decisions: what hand-written policy can and cannot do, what an error means, what the memo keeps apart.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod policy_support;

use std::sync::Arc;

use linkgate::{
    domain::PermissionSet,
    policy::{Bundle, GateState, Memo, Permit, PermitKind, Refusal, decide, decide_in_full, explain},
};
use policy_support::{Case, Folder, LINK_ROLES, PERMISSIONS, Prepared, RawLink, Told, told};

const READ: &str = "partner.billing.invoices.read";

fn ask(bundle: &Bundle, memo: &mut Memo, case: &Case) -> Told {
    let prepared = Prepared::new(bundle, case);
    told(&decide(bundle, Some(memo), &prepared.facts()))
}

fn open() -> Case {
    Case::open(RawLink::live("msp_full"), READ)
}

#[test]
fn an_allow_names_its_permit_and_a_refusal_its_policies() {
    let bundle = Bundle::load(None).unwrap();
    let outcome = |case: &Case| {
        let prepared = Prepared::new(&bundle, case);
        decide(&bundle, None, &prepared.facts())
    };
    let allowed = outcome(&open());
    assert_eq!(Permit::from(allowed.verdict.unwrap()).kind(), PermitKind::CrossTenant);
    assert_eq!(*allowed.policies, [Arc::<str>::from("linkgate.role.msp_full")]);

    let mut case = open();
    case.link.as_mut().unwrap().suspended = true;
    assert_eq!(*outcome(&case).policies, [Arc::<str>::from("linkgate.gate.suspension")]);
    let case = Case::open(RawLink::live("msp_full").with("billing.read", false), READ);
    assert_eq!(*outcome(&case).policies, [Arc::<str>::from("linkgate.gate.override")]);
    let case = Case::open(RawLink::live("delegate").with("billing.read", true), READ);
    assert_eq!(*outcome(&case).policies, [Arc::<str>::from("linkgate.grant.delegate")]);
    let case = Case::open(RawLink::live("delegate"), READ);
    assert!(outcome(&case).policies.is_empty(), "nothing granted it, and nothing forbade it");
}

#[test]
fn a_policy_that_errs_is_a_refusal_and_not_an_open_door() {
    for policy in [
        "forbid (principal, action in [Action::\"billing.read\"], resource) when { 9223372036854775807 + 1 > 0 && context.mfa };",
        "permit (principal, action in [Action::\"billing.read\"], resource) when { 9223372036854775807 + 1 > 0 };",
        "permit (principal, action in [Action::\"billing.read\"], resource) when { Tenant::\"elsewhere\".status == \"\" };",
        "forbid (principal, action in [Action::\"billing.read\"], resource) when { ip(principal.sub).isLoopback() };",
    ] {
        let folder = Folder::new(&format!("@id(\"errs\") {policy}"));
        let Ok(bundle) = Bundle::load(Some(folder.path())) else {
            assert!(policy.starts_with("forbid"), "a prohibition that can fail is not even loaded");
            continue;
        };
        let mut memo = Memo::new(100);
        for _ in 0..2 {
            let case = open();
            let prepared = Prepared::new(&bundle, &case);
            let outcome = decide(&bundle, Some(&mut memo), &prepared.facts());
            assert_eq!(outcome.verdict, Err(Refusal::Unavailable), "{policy}");
            assert_eq!(*outcome.policies, [Arc::<str>::from("errs")]);
            assert_eq!(decide_in_full(&bundle, &prepared.facts()), Err(Refusal::Unavailable));
            assert!(explain(&bundle, &prepared.facts()).trouble.is_some());
        }
        assert!(memo.is_empty(), "what could not be decided is not remembered");
        // Another action is not concerned; an earlier gate is told first; the switch counts like the route's own.
        let mut other = open();
        other.permission = "partner.support.tickets.read";
        assert_eq!(ask(&bundle, &mut memo, &other), None);
        let mut pending = open();
        pending.link.as_mut().unwrap().approval = "pending";
        assert_eq!(ask(&bundle, &mut memo, &pending), Some(("TENANT_ACCESS_DENIED", "link_pending")));
        let mut switching = open();
        switching.switch_context = true;
        assert_eq!(ask(&bundle, &mut memo, &switching), Some(("POLICY_UNAVAILABLE", "")));
    }
}

#[test]
fn a_permit_adds_to_the_role_and_opens_no_other_gate() {
    let bundle = Folder::new("@id(\"everything\") permit (principal, action, resource);").load();
    let mut memo = Memo::new(1_000);
    let auditor = || Case::open(RawLink::live("auditor"), "partner.billing.invoices.write");
    assert_eq!(ask(&bundle, &mut memo, &auditor()), None, "it adds to what the role grants");

    type Change = fn(&mut Case, &mut RawLink);
    let gates: [(Change, &str); 12] = [
        (|_, link| link.own_partner = false, "no_link"),
        (|case, _| case.user_suspended = true, "access_suspended"),
        (|_, link| link.suspended = true, "access_suspended"),
        (|_, link| link.partner_active = false, "partner_inactive"),
        (|_, link| link.approval = "rejected", "link_pending"),
        (|_, link| link.is_active = false, "link_inactive"),
        (|_, link| link.start = 1_001, "link_not_started"),
        (|_, link| link.end = Some(1_000), ""),
        (|_, link| link.cidrs = vec!["10.0.0.0/8"], "ip_not_allowed"),
        (|case, link| (link.require_mfa, case.mfa) = (true, false), "mfa_required"),
        (|case, _| case.permissions = vec!["partner.billing.*"; 0], "permission"),
        (|_, link| link.overrides = vec![("billing.write", false)], "override"),
    ];
    for (change, reason) in gates {
        let (mut case, mut link) = (auditor(), RawLink::live("auditor"));
        change(&mut case, &mut link);
        case.link = Some(link);
        let (_, told) = ask(&bundle, &mut memo, &case).unwrap_or_else(|| panic!("{reason} was opened: {case:?}"));
        assert_eq!(told, reason);
        let prepared = Prepared::new(&bundle, &case);
        assert_eq!(decide_in_full(&bundle, &prepared.facts()), Ok(false), "Cedar alone closes it too: {reason}");
    }
    // What the links above do not have, a permit below cannot give.
    let mut case = auditor();
    let mut child = RawLink::live("delegate");
    child.parents = vec![RawLink::live("auditor")];
    case.link = Some(child);
    assert_eq!(ask(&bundle, &mut memo, &case), Some(("FORBIDDEN", "permission")));
    // No link at all.
    case.link = None;
    assert_eq!(ask(&bundle, &mut memo, &case), Some(("TENANT_ACCESS_DENIED", "no_link")));
    let prepared = Prepared::new(&bundle, &case);
    assert_eq!(decide_in_full(&bundle, &prepared.facts()), Ok(false));
}

#[test]
fn an_earlier_gate_is_told_before_override_and_guardrail() {
    let bundle = Folder::new("@id(\"no\") forbid (principal, action, resource);").load();
    let mut memo = Memo::new(1_000);
    let told = |memo: &mut Memo, case: Case| ask(&bundle, memo, &case).unwrap().1;
    let link = |role| RawLink::live(role).with("billing.write", false);
    let write = "partner.billing.invoices.write";
    assert_eq!(told(&mut memo, Case::open(link("auditor"), write)), "permission");
    assert_eq!(told(&mut memo, Case::open(link("msp_full"), write)), "override");
    assert_eq!(told(&mut memo, Case::open(RawLink::live("msp_full"), write)), "guardrail");
    // Over both actions: the switch is denied by override, the route's permission is not granted.
    let mut both = Case::open(RawLink::live("auditor").with("partner.tenants.switch_context", false), write);
    both.switch_context = true;
    assert_eq!(told(&mut memo, both), "permission");
    let mut switch = Case::open(RawLink::live("msp_full").with("partner.tenants.switch_context", false), write);
    switch.switch_context = true;
    assert_eq!(told(&mut memo, switch), "override");
}

#[test]
fn the_memo_never_outlives_the_window() {
    let bundle = Bundle::load(None).unwrap();
    let mut memo = Memo::new(100);
    let mut case = open();
    let link = case.link.as_mut().unwrap();
    (link.start, link.end) = (500, Some(2_000));
    let mut parent = RawLink::live("msp_full");
    (parent.start, parent.end) = (600, Some(1_900));
    link.role = "delegate";
    link.overrides = vec![("partner.*", true)];
    link.parents = vec![parent];
    for (now, expected) in [
        (600, None),
        (1_899, None),
        (1_900, Some(("TENANT_LINK_EXPIRED", ""))),
        (i64::MAX, Some(("TENANT_LINK_EXPIRED", ""))),
        (599, Some(("TENANT_ACCESS_DENIED", "link_not_started"))),
        (i64::MIN, Some(("TENANT_ACCESS_DENIED", "link_not_started"))),
        (601, None),
    ] {
        case.now = now;
        assert_eq!(ask(&bundle, &mut memo, &case), expected, "at {now}");
    }
    assert_eq!(memo.hits_and_misses(), (2, 1));
}

#[test]
fn the_memo_keeps_apart_what_a_policy_can_read() {
    let folder = Folder::new(
        r#"
@id("person") forbid (principal, action == Action::"partner.billing.read", resource)
when { principal.sub == "user-2" };
@id("partner") forbid (principal in Partner::"00000000-0000-0000-0000-000000000009", action == Action::"partner.reports.export", resource);
@id("address") forbid (principal, action == Action::"partner.billing.summary.read", resource)
when { context.ip == ip("192.0.2.2") };
@id("mfa") forbid (principal, action == Action::"partner.billing.payments.read", resource) unless { context.mfa };
@id("method") forbid (principal, action == Action::"partner.support.tickets.read", resource)
when { context.method == "POST" };
@id("class") forbid (principal, action == Action::"partner.support.tickets.list", resource)
when { context.route_class == "write" };
@id("status") forbid (principal, action == Action::"partner.support.tickets.create", resource is Link)
when { resource.tenant.status == "suspended" };
@id("tenant") forbid (principal, action == Action::"partner.support.tickets.update", resource in Tenant::"tenant-b");
@id("link") forbid (principal, action == Action::"partner.support.tickets.comment", resource == Link::"00000000-0000-0000-0000-000000000002");
@id("ends") forbid (principal, action == Action::"partner.reports.sla.read", resource is Link) when { resource has ends };
@id("asks-mfa") forbid (principal, action == Action::"partner.reports.usage.read", resource is Link) when { resource.require_mfa };
@id("holds") forbid (principal, action == Action::"partner.reports.revenue.read", resource)
unless { Action::"partner.alerts.acknowledge" in principal.holds };
@id("now") forbid (principal, action == Action::"partner.alerts.sla.read", resource)
when { context.now == datetime("1970-01-01T00:00:02Z") };
@id("issuer") forbid (principal, action == Action::"partner.alerts.billing.read", resource)
when { principal.issuer == "https://other.example.net" };
"#,
    );
    let bundle = folder.load();
    type Change = fn(&mut Case);
    let pairs: [(&'static str, Change); 13] = [
        ("partner.billing.read", |case| case.sub = "user-2"),
        ("partner.billing.summary.read", |case| case.ip = "192.0.2.2"),
        ("partner.billing.payments.read", |case| case.mfa = false),
        ("partner.support.tickets.read", |case| case.method = "POST"),
        ("partner.support.tickets.list", |case| case.route_class = "write"),
        ("partner.support.tickets.create", |case| case.link.as_mut().unwrap().status = "suspended"),
        ("partner.support.tickets.update", |case| case.link.as_mut().unwrap().tenant = "tenant-b"),
        ("partner.support.tickets.comment", |case| case.link.as_mut().unwrap().id = 2),
        ("partner.reports.sla.read", |case| case.link.as_mut().unwrap().end = Some(5_000)),
        ("partner.reports.usage.read", |case| case.link.as_mut().unwrap().require_mfa = true),
        ("partner.reports.revenue.read", |case| case.permissions = vec!["partner.reports.*"]),
        ("partner.alerts.sla.read", |case| case.now = 2_000),
        ("partner.alerts.billing.read", |case| case.issuer = "https://other.example.net"),
    ];
    for (permission, change) in pairs {
        let mut memo = Memo::new(100);
        let allowed = Case::open(RawLink::live("msp_full"), permission);
        let mut denied = allowed.clone();
        change(&mut denied);
        for _ in 0..2 {
            assert_eq!(ask(&bundle, &mut memo, &allowed), None, "{permission}");
            assert_eq!(ask(&bundle, &mut memo, &denied), Some(("FORBIDDEN", "guardrail")), "{permission}");
        }
        let remembered = if permission == "partner.alerts.sla.read" { 0 } else { 2 };
        assert_eq!(memo.len(), remembered, "{permission}");
    }
    // The partner as a group in the scope: an own link each, since a foreign one would be refused before.
    let mut memo = Memo::new(100);
    let case = Case::open(RawLink::live("msp_full"), "partner.reports.export");
    let mut prepared = Prepared::new(&bundle, &case);
    assert_eq!(told(&decide(&bundle, Some(&mut memo), &prepared.facts())), None);
    let nine = linkgate::domain::PartnerId(uuid::Uuid::from_u128(9));
    prepared.user.partner_id = nine;
    prepared.link.as_mut().unwrap().link.partner_id = nine;
    assert_eq!(told(&decide(&bundle, Some(&mut memo), &prepared.facts())), Some(("FORBIDDEN", "guardrail")));
}

#[test]
fn the_memo_keeps_apart_what_section_4_reads() {
    let bundle = Bundle::load(None).unwrap();
    let mut memo = Memo::new(10_000);
    // Every role and permission, twice, with and without the permission, the grant, the denial, the ceiling.
    for round in 0..2 {
        for role in LINK_ROLES {
            for permission in PERMISSIONS {
                for variant in 0..16u8 {
                    let mut link = RawLink::live(role);
                    if variant & 1 != 0 {
                        link.overrides.push((permission, true));
                    }
                    if variant & 2 != 0 {
                        link.overrides.push((permission, false));
                    }
                    if variant & 4 != 0 {
                        link.parents = vec![RawLink::live("msp_billing")];
                    }
                    let mut case = Case::open(link, permission);
                    if variant & 8 != 0 {
                        case.permissions = vec!["partner.support.*"];
                    }
                    let expected = policy_support::oracle(&case, &policy_support::NO_EXTRA);
                    assert_eq!(ask(&bundle, &mut memo, &case), expected, "round {round}: {case:?}");
                }
            }
        }
    }
    let (hits, misses) = memo.hits_and_misses();
    assert!(hits >= misses, "{hits} hits, {misses} misses: the second round asks nothing new");
}

#[test]
fn another_set_never_answers_from_the_first_ones_memo() {
    let folder = Folder::new("");
    let first = folder.load();
    let mut memo = Memo::new(100);
    let case = Case::open(RawLink::live("auditor"), READ);
    assert_eq!(ask(&first, &mut memo, &case), None);
    folder.write("guardrails/test.cedar", "@id(\"no\") forbid (principal, action, resource) when { context.mfa };");
    assert_eq!(ask(&folder.load(), &mut memo, &case), Some(("FORBIDDEN", "guardrail")));
    assert_eq!(ask(&first, &mut memo, &case), None, "each generation has its own entries");
}

#[test]
fn i8_the_memo_is_bounded() {
    let bundle =
        Folder::new("@id(\"who\") forbid (principal, action, resource) when { principal.sub == \"nobody\" };").load();
    let mut memo = Memo::new(50);
    let case = open();
    let mut prepared = Prepared::new(&bundle, &case);
    for user in 0..500 {
        prepared.user.sub = format!("user-{user}").into();
        assert_eq!(told(&decide(&bundle, Some(&mut memo), &prepared.facts())), None);
    }
    assert!(memo.len() <= 50, "{}", memo.len());
}

#[test]
fn users_and_links_of_one_kind_share_an_entry() {
    let bundle = Bundle::load(None).unwrap();
    let mut memo = Memo::new(100);
    for id in 0..100 {
        let mut case = open();
        case.link.as_mut().unwrap().id = id;
        case.now = 1_000 + i64::try_from(id).unwrap();
        let mut prepared = Prepared::new(&bundle, &case);
        prepared.user.sub = format!("user-{id}").into();
        prepared.user.holds = PermissionSet::ALL;
        assert_eq!(told(&decide(&bundle, Some(&mut memo), &prepared.facts())), None);
    }
    assert_eq!((memo.len(), memo.hits_and_misses()), (1, (99, 1)));
}

#[test]
fn explain_lists_every_gate_and_tells_the_first() {
    let bundle =
        Folder::new("@id(\"no-exports\") forbid (principal, action in [Action::\"billing.export\"], resource);").load();
    let mut link = RawLink::live("auditor").with("billing.export", false);
    link.end = Some(10);
    let mut case = Case::open(link, "partner.billing.invoices.export");
    case.permissions = vec![READ];
    let show = |case: &Case| {
        let prepared = Prepared::new(&bundle, case);
        let explanation = explain(&bundle, &prepared.facts());
        let mut text = format!("{:?}", told(&explanation.outcome));
        for gate in &explanation.gates {
            let state = match gate.state {
                GateState::Open => "open",
                GateState::Closed => "CLOSED",
                GateState::Unknown => "unknown",
            };
            let line = format!(
                "\n{:11}{state:8}{}{}",
                gate.gate,
                if gate.told { "told " } else { "" },
                gate.policies.join(", ")
            );
            text.push_str(line.trim_end_matches(' '));
        }
        text
    };
    let mut no_link = case.clone();
    no_link.link = None;
    insta::assert_snapshot!(format!("{}\n\n{}\n\n{}", show(&case), show(&open()), show(&no_link)));
}
