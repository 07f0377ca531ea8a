//! The rules alone, without a database; `tests/store_contract` has them again at the way in.

use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;

fn roles() -> RoleTable {
    let set = |name: &str| PermissionSet::from_name(name).unwrap();
    RoleTable::new(
        [
            (LinkRole::MspFull, PermissionSet::ALL),
            (LinkRole::MspSupport, set("billing.read").union(set("support.read")).union(set("support.write"))),
            (LinkRole::Auditor, set("billing.read").union(set("support.read"))),
            (LinkRole::Delegate, set("partner.tenants.*")),
        ],
        BTreeMap::new(),
    )
}

fn input(fields: Value) -> LinkInput {
    serde_json::from_value(fields).unwrap()
}

fn terms(fields: Value) -> LinkTerms {
    input(fields).new_terms(Millis(0)).unwrap()
}

fn faults(fields: Value) -> Vec<String> {
    let refusal = input(fields).new_terms(Millis(0)).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::ValidationError);
    refusal.fields.into_iter().map(|fault| fault.field).collect()
}

#[test]
fn null_clears_absent_keeps_and_unknown_is_refused() {
    let base = terms(json!({"access_role": "auditor", "notes": "n", "end_date": "2030-01-01"}));
    let kept = input(json!({})).terms_over(base.clone()).unwrap();
    assert_eq!(kept, base);
    let cleared = input(json!({"notes": null, "end_date": null})).terms_over(base).unwrap();
    assert_eq!((cleared.notes, cleared.end_date), (None, None));
    assert!(serde_json::from_value::<LinkInput>(json!({"role": "auditor"})).is_err());
}

#[test]
fn times_are_cut_to_milliseconds_and_never_in_the_wrong_order() {
    let cut = terms(json!({"access_role": "auditor", "start_date": "2026-01-01T00:00:00.0019999Z"}));
    assert_eq!(cut.start_date.to_string(), "2026-01-01T00:00:00.001Z");
    let same = json!({"access_role": "auditor", "start_date": "2026-01-01", "end_date": "2026-01-01"});
    assert!(terms(same).ended(Millis::now()), "an empty window is allowed, and over");
    let wrong = json!({"access_role": "auditor", "start_date": "2026-01-02", "end_date": "2026-01-01"});
    assert_eq!(faults(wrong), ["end_date"]);
}

#[test]
fn amounts_keep_two_places_and_their_range() {
    for (given, kept) in [
        (json!(0), "0.00"),
        (json!("12.5"), "12.50"),
        (json!(9_999_999_999_999.99), "9999999999999.99"),
        (json!("1.100"), "1.10"),
    ] {
        let kept_as = terms(json!({"access_role": "auditor", "billing_alert_threshold": given}));
        assert_eq!(kept_as.billing_alert_threshold.unwrap().to_string(), kept);
    }
    for bad in [json!("1.005"), json!(-0.01), json!("10000000000000"), json!("1e3"), json!(true), json!("")] {
        assert_eq!(
            faults(json!({"access_role": "auditor", "billing_alert_threshold": bad})),
            ["billing_alert_threshold"]
        );
    }
    assert_eq!(faults(json!({"access_role": "auditor", "sla_uptime_target": "100.01"})), ["sla_uptime_target"]);
}

#[test]
fn all_faults_are_told_at_once() {
    let told = faults(json!({
        "access_role": "king", "approval": "yes", "sla_response_hours": -1, "allowed_cidrs": ["x", "10.0.0.1/8"],
        "custom_permissions": {"nothing.here": true}, "parent_link_id": "no"
    }));
    for field in ["access_role", "approval", "sla_response_hours", "custom_permissions.nothing.here", "parent_link_id"]
    {
        assert!(told.iter().any(|fault| fault == field), "{field} in {told:?}");
    }
    assert_eq!(told.iter().filter(|fault| *fault == "allowed_cidrs").count(), 2);
}

fn judged(fields: Value, parent: Option<&ParentView>) -> Result<(), Refusal> {
    let (home, tenant, roles) = (TenantId::new("home").unwrap(), TenantId::new("t").unwrap(), roles());
    let around = Surroundings {
        roles: &roles,
        link_id: None,
        partner_id: PartnerId(Uuid::from_u128(1)),
        partner_home: &home,
        tenant_id: &tenant,
        parent,
        levels_below: 0,
    };
    judge(&terms(fields), &around)
}

#[test]
fn overrides_never_reach_beyond_role_or_parent() {
    let escalates =
        |result: Result<(), Refusal>| result.is_err_and(|error| error.code == ErrorCode::PermissionEscalation);
    let auditor = |overrides: Value| judged(json!({"access_role": "auditor", "custom_permissions": overrides}), None);
    assert!(auditor(json!({"billing.read": true, "billing.write": false})).is_ok());
    assert!(escalates(auditor(json!({"billing.write": true}))));
    // Beyond in one leaf is beyond, and a denial beside it is no excuse.
    assert!(escalates(auditor(json!({"partner.*": true, "billing.write": false}))));
    let delegate = |overrides: Value, parent: Option<&ParentView>| {
        let id = parent.map(|_| Uuid::from_u128(7).to_string());
        judged(json!({"access_role": "delegate", "custom_permissions": overrides, "parent_link_id": id}), parent)
    };
    assert!(delegate(json!({"partner.*": true}), None).is_ok());
    let parent = ParentView {
        partner_id: PartnerId(Uuid::from_u128(2)),
        tenant_id: TenantId::new("t").unwrap(),
        chain: vec![LinkId(Uuid::from_u128(7))],
        effective: PermissionSet::from_name("support.read").unwrap(),
    };
    assert!(delegate(json!({"support.read": true, "billing.read": false}), Some(&parent)).is_ok());
    assert!(escalates(delegate(json!({"support.write": true}), Some(&parent))));
    let own = ParentView { partner_id: PartnerId(Uuid::from_u128(1)), ..parent.clone() };
    assert!(delegate(json!({}), Some(&own)).is_err());
    let deep = ParentView { chain: (0..4).map(|n| LinkId(Uuid::from_u128(n))).collect(), ..parent };
    assert!(delegate(json!({}), Some(&deep)).is_err());
}

#[test]
fn an_unknown_stored_name_denies_everything() {
    assert_eq!(expand_overrides([("billing.raed", false), ("billing.read", true)]).1, PermissionSet::ALL);
    assert_eq!(expand_overrides([("billing.raed", true)]).1, PermissionSet::ALL);
}

/// Terms over few values, so that two of them often differ in one thing only.
fn any_terms() -> impl Strategy<Value = LinkTerms> {
    let role =
        prop::sample::select(vec![LinkRole::MspFull, LinkRole::MspSupport, LinkRole::Auditor, LinkRole::Delegate]);
    let names = vec!["billing.read", "support.write", "partner.support.*", "partner.billing.invoices.read"];
    let overrides = prop::collection::btree_map(prop::sample::select(names), any::<bool>(), 0..3);
    let cidrs = prop::collection::vec(prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24"]), 0..3);
    (role, overrides, 0_i64..4, prop::option::of(4_i64..8), any::<bool>(), cidrs, any::<bool>()).prop_map(
        |(role, overrides, start, end, active, cidrs, mfa)| LinkTerms {
            custom_permissions: overrides.into_iter().map(|(name, allow)| (name.to_owned(), allow)).collect(),
            end_date: end.map(Millis),
            is_active: active,
            allowed_cidrs: cidrs.into_iter().map(|text| text.parse().unwrap()).collect(),
            require_mfa: mfa,
            ..LinkTerms::new(role, Millis(start))
        },
    )
}

/// Terms, and the same with some fields replaced by other terms'.
fn any_change() -> impl Strategy<Value = (LinkTerms, LinkTerms)> {
    (any_terms(), any_terms(), any::<[bool; 7]>(), any::<[bool; 7]>()).prop_map(|(before, other, a, b)| {
        let mut after = before.clone();
        // Each field with one chance in four, so that many changes are of one field or two.
        let takes: Vec<bool> = a.iter().zip(b).map(|(a, b)| *a && b).collect();
        if takes[0] {
            after.access_role = other.access_role;
        }
        if takes[1] {
            after.custom_permissions = other.custom_permissions;
        }
        if takes[2] {
            after.start_date = other.start_date;
        }
        if takes[3] {
            after.end_date = other.end_date;
        }
        if takes[4] {
            after.is_active = other.is_active;
        }
        if takes[5] {
            after.allowed_cidrs = other.allowed_cidrs;
        }
        if takes[6] {
            after.require_mfa = other.require_mfa;
        }
        (before, after)
    })
}

/// Written from the contract, independently of `widens`: what these terms allow in one situation.
fn allows(terms: &LinkTerms, roles: &RoleTable, now: i64, ip: IpAddr, mfa: bool) -> PermissionSet {
    let open = terms.is_active
        && terms.start_date.0 <= now
        && terms.end_date.is_none_or(|end| now < end.0)
        && (terms.allowed_cidrs.is_empty() || terms.allowed_cidrs.iter().any(|net| net.contains(&ip)))
        && (mfa || !terms.require_mfa);
    if open { terms.effective(roles) } else { PermissionSet::EMPTY }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, max_global_rejects: 20_000, ..ProptestConfig::default() })]

    /// What does not widen lets nothing through that was not let through before.
    #[test]
    fn a_change_that_does_not_widen_opens_nothing((before, after) in any_change()) {
        let roles = roles();
        prop_assume!(!widens(&before, &after, &roles));
        for now in 0..9 {
            for ip in ["10.1.2.3", "10.2.2.3", "192.0.2.1", "203.0.113.1"] {
                for mfa in [false, true] {
                    let ip: IpAddr = ip.parse().unwrap();
                    let (was, is) = (allows(&before, &roles, now, ip, mfa), allows(&after, &roles, now, ip, mfa));
                    prop_assert!(was.contains_all(is), "{:?} at {now} from {ip}, mfa {mfa}", is.without(was));
                }
            }
        }
    }
}

#[test]
fn narrowing_waits_for_nobody_and_nothing_else_is_taken_for_it() {
    let base = json!({"access_role": "msp_support", "end_date": "2030-01-01", "allowed_cidrs": ["10.0.0.0/8"]});
    let before = terms(base);
    let changed = |fields: Value| input(fields).terms_over(before.clone()).unwrap();
    for narrower in [
        json!({"end_date": "2029-01-01"}),
        json!({"allowed_cidrs": ["10.1.0.0/16", "10.2.0.0/16"]}),
        json!({"require_mfa": true}),
        json!({"custom_permissions": {"billing.read": false}}),
        json!({"access_role": "auditor"}),
        json!({"notes": "n"}),
        json!({"is_active": false}),
    ] {
        assert!(!widens(&before, &changed(narrower.clone()), &roles()), "{narrower}");
    }
    for wider in [json!({"end_date": null}), json!({"allowed_cidrs": []}), json!({"access_role": "msp_full"})] {
        assert!(widens(&before, &changed(wider.clone()), &roles()), "{wider}");
    }
}

#[test]
fn nobody_approves_what_they_widen_in_the_same_breath() {
    let before = LinkTerms { approval: Approval::Approved, ..terms(json!({"access_role": "auditor"})) };
    let wider = LinkTerms { access_role: LinkRole::MspFull, ..before.clone() };
    let after = |before: Option<&LinkTerms>, after: &LinkTerms, asked, required| {
        approval_after(before, after, asked, &roles(), required).ok()
    };
    assert_eq!(after(Some(&before), &wider, None, true), Some(Approval::Pending));
    assert_eq!(after(Some(&before), &wider, Some(Approval::Approved), true), None);
    assert_eq!(after(Some(&before), &wider, Some(Approval::Rejected), true), Some(Approval::Rejected));
    assert_eq!(after(Some(&before), &wider, None, false), Some(Approval::Approved));
    assert_eq!(after(None, &before, None, true), Some(Approval::Pending));
    assert_eq!(after(None, &before, None, false), Some(Approval::Approved));
    assert_eq!(after(Some(&wider), &before, Some(Approval::Approved), true), Some(Approval::Approved));
}
