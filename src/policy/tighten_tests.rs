//! Proposals for every role, each held against Cedar once more, and the cases in which there is none.

use super::*;
use crate::domain::LinkId;

fn named(names: &[&str]) -> PermissionSet {
    names.iter().fold(PermissionSet::EMPTY, |set, name| set.union(PermissionSet::from_name(name).unwrap()))
}

fn link(role: LinkRole, overrides: &BTreeMap<String, bool>) -> LinkFacts {
    let mut link = super::super::effective::plain_link(role).unwrap();
    link.link.id = LinkId(uuid::Uuid::from_u128(7));
    (link.link.granted, link.link.denied) = sets(overrides);
    link
}

fn overrides(entries: &[(&str, bool)]) -> BTreeMap<String, bool> {
    entries.iter().map(|(name, allow)| ((*name).to_owned(), *allow)).collect()
}

const NOW: Millis = Millis(1_790_000_000_000);

#[test]
fn unused_groups_are_denied_by_their_widest_names() {
    let bundle = Bundle::load(None).unwrap();
    let there = overrides(&[("partner.billing.payments.write", false)]);
    let link = link(LinkRole::MspFull, &there);
    let needed = named(&["billing.read", "partner.tenants.*"]);
    let found = tighten(&bundle, &link, &there, needed, NOW).unwrap();
    assert!(!found.anew);
    assert_eq!(found.overrides.get("partner.billing.payments.write"), Some(&false), "what is there stays");
    for name in ["partner.provisioning.*", "partner.support.*", "partner.reports.*", "partner.alerts.*"] {
        assert_eq!(found.given.get(name), Some(&false), "{found:?}");
    }
    let mut after = link.clone();
    (after.link.granted, after.link.denied) = sets(&found.overrides);
    assert_eq!(after.effective(bundle.roles()), needed);
    assert_eq!(found.dropped.intersection(needed), PermissionSet::EMPTY);
}

#[test]
fn a_delegate_is_granted_what_it_needs_and_no_more() {
    let bundle = Bundle::load(None).unwrap();
    let there = overrides(&[("partner.support.*", true), ("billing.read", true), ("support.write", false)]);
    let link = link(LinkRole::Delegate, &there);
    let needed = named(&["support.read", "partner.tenants.switch_context"]);
    let found = tighten(&bundle, &link, &there, needed, NOW).unwrap();
    assert!(found.anew);
    let expected = overrides(&[("support.read", true), ("support.write", false), ("partner.tenants.list", false)]);
    assert_eq!(found.overrides, expected);
}

#[test]
fn every_role_and_every_choice_of_rights_comes_out_as_meant() {
    let bundle = Bundle::load(None).unwrap();
    let mut seed = 0x9e37_79b9_u32;
    for role in LinkRole::ALL {
        for _ in 0..20 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let chosen: PermissionSet =
                Permission::all().filter(|one| seed.rotate_left(one.index() as u32) & 3 == 0).collect();
            let there = match role {
                LinkRole::Delegate => overrides(&[("partner.*", true), ("billing.export", false)]),
                _ => overrides(&[("billing.export", false)]),
            };
            let link = link(role, &there);
            let had = link.effective(bundle.roles());
            match tighten(&bundle, &link, &there, chosen, NOW) {
                Ok(found) => {
                    let mut after = link.clone();
                    (after.link.granted, after.link.denied) = sets(&found.overrides);
                    assert_eq!(after.effective(bundle.roles()), had.intersection(chosen), "{role} {found:?}");
                }
                Err(error) => assert_eq!((error, had.without(chosen).is_empty()), (NotTightened::AllNeeded, true)),
            }
        }
    }
}

#[test]
fn there_is_nothing_to_propose_for_a_closed_link_or_one_in_full_use() {
    let bundle = Bundle::load(None).unwrap();
    let none = BTreeMap::new();
    let mut link = link(LinkRole::Auditor, &none);
    assert_eq!(tighten(&bundle, &link, &none, PermissionSet::ALL, NOW), Err(NotTightened::AllNeeded));
    link.link.is_active = false;
    assert_eq!(tighten(&bundle, &link, &none, PermissionSet::EMPTY, NOW), Err(NotTightened::NotLive));
    link.link.is_active = true;
    let nothing = tighten(&bundle, &link, &none, PermissionSet::EMPTY, NOW).unwrap();
    assert_eq!(nothing.overrides, overrides(&[("partner.*", false)]));
}
