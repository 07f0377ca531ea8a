//! The tables that a security review reads: who may do what, without reading code. A change of them IS the review.
//!
//! Every cell is a decision of `decide`, not a look into the role table.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod policy_support;

use std::fmt::Write;

use linkgate::{
    domain::{
        PermissionSet,
        permission::{SCOPES, wildcards},
    },
    policy::{Bundle, decide},
};
use policy_support::{Case, LINK_ROLES, PERMISSIONS, Prepared, RawLink, told};

fn cell(bundle: &Bundle, case: &Case) -> &'static str {
    let prepared = Prepared::new(bundle, case);
    match told(&decide(bundle, None, &prepared.facts())) {
        None => "yes",
        Some((_, "permission")) => ".",
        Some((_, "override")) => "denied",
        Some(other) => panic!("{other:?} in {case:?}"),
    }
}

#[test]
fn link_role_by_permission() {
    let bundle = Bundle::load(None).unwrap();
    let mut table = format!("{:44}", "A user who holds everything, through a link");
    LINK_ROLES.iter().for_each(|role| write!(table, "{role:>14}").unwrap());
    for permission in PERMISSIONS {
        write!(table, "\n{permission:44}").unwrap();
        for role in LINK_ROLES {
            write!(table, "{:>14}", cell(&bundle, &Case::open(RawLink::live(role), permission))).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn user_role_by_permission() {
    let bundle = Bundle::load(None).unwrap();
    let roles = ["partner_msp_full", "partner_msp_billing", "partner_msp_support", "partner_auditor", "somebody_else"];
    let mut table = format!("{:44}", "A user of this role, through an msp_full link");
    roles.iter().for_each(|role| write!(table, "{role:>21}").unwrap());
    for permission in PERMISSIONS {
        write!(table, "\n{permission:44}").unwrap();
        for role in roles {
            let mut case = Case::open(RawLink::live("msp_full"), permission);
            (case.roles, case.permissions) = (vec![role], Vec::new());
            write!(table, "{:>21}", cell(&bundle, &case)).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

/// One row an override, one column a permission: `Y` allowed, `.` not granted (reason `permission`), `x` denied by the
/// override (reason `override`).
#[test]
fn role_by_override_by_permission() {
    let bundle = Bundle::load(None).unwrap();
    let mut names: Vec<String> = PERMISSIONS.iter().map(|name| (*name).to_owned()).collect();
    names.extend(wildcards());
    names.extend(SCOPES.iter().map(|(name, _)| (*name).to_owned()));
    names.extend(["support.create_ticket".to_owned(), "provisioning.activate_service".to_owned()]);
    // Cases borrow names for ever; a test's few kilobytes may.
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();

    let mut table =
        String::from("Y allowed   . not granted (permission)   x denied by the override (override)\n\nColumns:\n");
    for (at, permission) in PERMISSIONS.iter().enumerate() {
        writeln!(table, "  {} {permission}", letter(at)).unwrap();
    }
    for role in LINK_ROLES {
        let row = |link: &RawLink| -> String {
            let cells = PERMISSIONS.iter().map(|permission| cell(&bundle, &Case::open(link.clone(), permission)));
            cells
                .map(|cell| {
                    if cell == "yes" {
                        'Y'
                    } else if cell == "denied" {
                        'x'
                    } else {
                        '.'
                    }
                })
                .collect()
        };
        let plain = row(&RawLink::live(role));
        writeln!(table, "\n{role:50} {}", (0..PERMISSIONS.len()).map(letter).collect::<String>()).unwrap();
        writeln!(table, "  {:48} {plain}", "(no override)").unwrap();
        for value in [false, true] {
            for name in &names {
                let with = row(&RawLink::live(role).with(name, value));
                if value && role != "delegate" {
                    assert_eq!(with, plain, "{role}: an override set to true must grant nothing: {name}");
                } else {
                    writeln!(table, "  {:48} {with}", format!("{name} = {value}")).unwrap();
                }
            }
        }
    }
    insta::assert_snapshot!(table);
}

fn letter(at: usize) -> char {
    char::from(b'a' + u8::try_from(at).unwrap())
}

#[test]
fn the_generated_policies() {
    insta::assert_snapshot!(Bundle::load(None).unwrap().generated());
}

#[test]
fn the_schemas_actions_are_the_catalogue() {
    use cedar_policy::{EntityUid, Schema};
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/policies/schema.cedarschema")).unwrap();
    let (schema, _) = Schema::from_cedarschema_str(&text).unwrap();
    let entities = schema.action_entities().unwrap();
    let uid = |name: &str| -> EntityUid { format!("Action::{name:?}").parse().unwrap() };

    let groups: Vec<String> =
        wildcards().into_iter().chain(SCOPES.iter().map(|(name, _)| (*name).to_owned())).collect();
    let mut ours: Vec<String> = PERMISSIONS.iter().map(|name| (*name).to_owned()).chain(groups.clone()).collect();
    let mut theirs: Vec<String> = schema.actions().map(|uid| uid.id().unescaped().to_owned()).collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    for group in &groups {
        let meant = PermissionSet::from_name(group).unwrap();
        for permission in linkgate::domain::Permission::all() {
            let is_in = entities.is_ancestor_of(&uid(group), &uid(permission.name()));
            assert_eq!(is_in, meant.contains(permission), "{group} {permission}");
        }
    }
}
