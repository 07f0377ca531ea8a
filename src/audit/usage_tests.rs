//! What counts as a use, and which token a user's rights are told from.

use super::*;

fn link(n: u128) -> LinkId {
    LinkId(uuid::Uuid::from_u128(n))
}

fn permission(name: &str) -> Permission {
    Permission::parse(name).unwrap()
}

fn claims(role: &str) -> Question {
    Question {
        holds: Some(Claims { roles: vec![role.to_owned()], permissions: Vec::new() }),
        class: "read".to_owned(),
        ..Question::default()
    }
}

fn said<'a>(time: i64, asked: Option<&'a Question>) -> Said<'a> {
    Said {
        time: Millis(time),
        permission: Some(permission("partner.billing.read")),
        decision: Decision::Allow,
        link: Some(link(1)),
        names_tenant: true,
        slices: &[],
        asked,
        user: Some((PartnerId(uuid::Uuid::nil()), "iss", "sub")),
    }
}

fn slice(n: u128, decision: Decision) -> Slice {
    Slice { managed_tenant_id: "t".to_owned(), link_id: Some(link(n)), decision, ..Slice::default() }
}

#[test]
fn what_was_allowed_is_used_together_with_the_switch() {
    let mut usage = Usage::default();
    usage.add(&said(5, None));
    usage.add(&said(3, Some(&claims("a"))));
    usage.add(&Said { decision: Decision::Deny, ..said(9, None) });
    usage.add(&Said { permission: None, ..said(9, None) });
    let uses = &usage.links[&link(1)];
    assert_eq!(uses.of(permission("partner.billing.read")), Use { count: 2, last: Some(Millis(5)) });
    assert_eq!(uses.of(Permission::SWITCH_CONTEXT), Use { count: 2, last: Some(Millis(5)) });
    assert_eq!(uses.of(permission("partner.reports.export")), Use::default());
    assert_eq!(uses.used().iter().count(), 2);
}

#[test]
fn of_a_consolidated_request_each_allowed_slice_is_a_use() {
    let slices = [slice(1, Decision::Allow), slice(2, Decision::Deny), slice(3, Decision::Allow)];
    let mut usage = Usage::default();
    usage.add(&Said { link: None, names_tenant: false, slices: &slices, ..said(5, Some(&claims("a"))) });
    let mut used: Vec<LinkId> = usage.links.keys().copied().collect();
    used.sort_unstable();
    assert_eq!(used, [link(1), link(3)]);
    assert_eq!(usage.links[&link(1)].of(Permission::SWITCH_CONTEXT), Use::default(), "none was named");
}

#[test]
fn the_newest_token_of_a_user_speaks_also_when_it_was_refused() {
    let (old, new) = (claims("old"), claims("new"));
    let mut one = Usage::default();
    one.add(&Said { decision: Decision::Deny, ..said(7, Some(&new)) });
    let mut two = Usage::default();
    two.add(&said(3, Some(&old)));
    for both in [one.clone().and(two.clone()), two.and(one)] {
        let (at, claims) = both.claims.values().next().unwrap();
        assert_eq!((*at, claims.roles.as_slice()), (Millis(7), ["new".to_owned()].as_slice()));
        assert_eq!(both.links[&link(1)].of(permission("partner.billing.read")).count, 1);
    }
}
