//! The demo's little world: who is who, and who may do what where. Data only.
//!
//! Ids are fixed, so that a line copied from one run means the same in the next. Every gate that a link has in this
//! world can be read from its role, its state and its overrides alone (no address lists, no MFA, no delegation): a
//! program that drives the demo can foretell every answer.

use uuid::Uuid;

use crate::domain::{LinkRole, PartnerId};

/// `iss` of the tokens.
pub(super) const ISSUER: &str = "https://login.demo.linkgate.example";
/// `aud` of the tokens.
pub(super) const AUDIENCE: &str = "linkgate-demo";

pub(super) struct Tenant {
    pub(super) id: String,
    pub(super) name: String,
}

pub(super) struct Partner {
    pub(super) id: PartnerId,
    pub(super) name: &'static str,
    pub(super) home: String,
}

pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) sub: String,
    /// Index into the partners; `None`: a tenant's own user, no partner user.
    pub(super) partner: Option<usize>,
    pub(super) home: String,
    pub(super) roles: &'static [&'static str],
    /// Within what the roles hold already.
    pub(super) permissions: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Expired,
    Revoked,
    NotStarted,
    Pending,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::NotStarted => "not_started",
            Self::Pending => "pending",
        }
    }
}

pub(super) struct Link {
    pub(super) partner: usize,
    pub(super) tenant: String,
    pub(super) role: LinkRole,
    pub(super) state: State,
    pub(super) overrides: &'static [(&'static str, bool)],
}

pub(super) struct World {
    pub(super) tenants: Vec<Tenant>,
    pub(super) partners: Vec<Partner>,
    pub(super) users: Vec<User>,
    pub(super) links: Vec<Link>,
}

/// Partners by index.
pub(super) const NORTHWIND: usize = 0;
pub(super) const BAOBAB: usize = 1;
pub(super) const CLEARWATER: usize = 2;

/// The tenant whose ISP service has an address of its own.
pub(super) const OWN_ADDRESS: usize = 1;

/// Tenants whose data the consolidated API finds on the newer generation.
pub(super) const NEWER: [usize; 3] = [5, 6, 30];

const CITIES: [&str; 39] = [
    "Lagos",
    "Kano",
    "Abuja",
    "Accra",
    "Nairobi",
    "Kigali",
    "Dakar",
    "Tunis",
    "Cairo",
    "Lusaka",
    "Harare",
    "Kampala",
    "Maputo",
    "Windhoek",
    "Gaborone",
    "Bamako",
    "Niamey",
    "Lome",
    "Cotonou",
    "Douala",
    "Libreville",
    "Luanda",
    "Juba",
    "Asmara",
    "Djibouti",
    "Freetown",
    "Monrovia",
    "Conakry",
    "Banjul",
    "Praia",
    "Rabat",
    "Algiers",
    "Tripoli",
    "Maseru",
    "Mbabane",
    "Moroni",
    "Lilongwe",
    "Bangui",
    "Malabo",
];

impl World {
    pub(super) fn new() -> Self {
        let homes = [
            ("northwind", "Northwind Managed Services"),
            ("baobab", "Baobab Holdings"),
            ("clearwater", "Clearwater Audit"),
        ];
        let partners: Vec<Partner> = (1_u128..)
            .zip(homes)
            .map(|(number, (home, name))| Partner {
                id: PartnerId(fixed_uuid(0x10, number)),
                name,
                home: format!("{home}-home"),
            })
            .collect();
        let mut tenants: Vec<Tenant> =
            partners.iter().map(|one| Tenant { id: one.home.clone(), name: format!("{} (home)", one.name) }).collect();
        tenants.extend(
            CITIES.iter().enumerate().map(|(at, city)| Tenant { id: city_tenant(at), name: format!("{city} Fibre") }),
        );
        let users = users(&partners);
        Self { tenants, partners, users, links: links() }
    }

    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }
}

/// Every third tenant id is no UUID, as in real data.
pub(super) fn city_tenant(at: usize) -> String {
    match CITIES.get(at) {
        Some(city) if at.is_multiple_of(3) => format!("isp-{}", city.to_lowercase()),
        _ => fixed_uuid(0x20, at as u128 + 1).to_string(),
    }
}

/// A version 4 UUID that says what it is: kind and number.
fn fixed_uuid(kind: u128, number: u128) -> Uuid {
    uuid::Builder::from_random_bytes((kind << 120 | number).to_be_bytes()).into_uuid()
}

fn users(partners: &[Partner]) -> Vec<User> {
    // (name, partner, roles, permissions)
    let rows: [(&str, usize, &[&str], &[&str]); 9] = [
        ("northwind-full", NORTHWIND, &["partner_msp_full"], &["partner.*"]),
        ("northwind-billing", NORTHWIND, &["partner_msp_billing"], &["partner.billing.invoices.read"]),
        ("northwind-support", NORTHWIND, &["partner_msp_support"], &["partner.support.*"]),
        ("northwind-auditor", NORTHWIND, &["partner_auditor"], &[]),
        ("baobab-full", BAOBAB, &["partner_msp_full"], &[]),
        ("baobab-billing", BAOBAB, &["partner_msp_billing"], &[]),
        ("baobab-support", BAOBAB, &["partner_msp_support"], &[]),
        ("clearwater-full", CLEARWATER, &["partner_msp_full"], &[]),
        ("clearwater-auditor", CLEARWATER, &["partner_auditor"], &["partner.reports.sla.read"]),
    ];
    let of_partners = (1_u128..).zip(rows).filter_map(|(number, (name, partner, roles, permissions))| {
        let home = partners.get(partner)?.home.clone();
        Some(User { name, sub: fixed_uuid(0x30, number).to_string(), partner: Some(partner), home, roles, permissions })
    });
    let plain = User {
        name: "lagos-user",
        sub: fixed_uuid(0x30, 99).to_string(),
        partner: None,
        home: city_tenant(0),
        roles: &["user"],
        permissions: &[],
    };
    let admin = User {
        name: "lagos-admin",
        sub: fixed_uuid(0x30, 98).to_string(),
        partner: None,
        home: city_tenant(0),
        roles: &["tenant_admin"],
        permissions: &[],
    };
    of_partners.chain([plain, admin]).collect()
}

/// What requests and readers refer to by name.
pub(super) mod place {
    /// Northwind's `msp_full` link.
    pub(in super::super) const FULL: usize = 0;
    pub(in super::super) const BILLING: usize = 10;
    pub(in super::super) const SUPPORT: usize = 14;
    pub(in super::super) const AUDITOR: usize = 17;
    pub(in super::super) const RESELLER: usize = 19;
    pub(in super::super) const DELEGATE: usize = 21;
    /// `msp_full`, billing reads and exports denied.
    pub(in super::super) const OVERRIDDEN: usize = 22;
    pub(in super::super) const EXPIRED: usize = 23;
    pub(in super::super) const REVOKED: usize = 24;
    pub(in super::super) const NOT_STARTED: usize = 25;
    pub(in super::super) const PENDING: usize = 26;
    /// Baobab's `enterprise_hq` link.
    pub(in super::super) const ENTERPRISE: usize = 27;
    /// Linked to nobody.
    pub(in super::super) const ALONE: usize = 38;
}

fn links() -> Vec<Link> {
    let none: &[(&str, bool)] = &[];
    let grants: &[(&str, bool)] = &[("billing.read", true), ("support.create_ticket", true)];
    let denials: &[(&str, bool)] = &[("billing.read", false), ("billing.export", false)];
    // (partner, first tenant, how many, role, state, overrides)
    let rows = [
        (NORTHWIND, place::FULL, 10, LinkRole::MspFull, State::Active, none),
        (NORTHWIND, place::BILLING, 4, LinkRole::MspBilling, State::Active, none),
        (NORTHWIND, place::SUPPORT, 3, LinkRole::MspSupport, State::Active, none),
        (NORTHWIND, place::AUDITOR, 2, LinkRole::Auditor, State::Active, none),
        (NORTHWIND, place::RESELLER, 2, LinkRole::Reseller, State::Active, none),
        (NORTHWIND, place::DELEGATE, 1, LinkRole::Delegate, State::Active, grants),
        (NORTHWIND, place::OVERRIDDEN, 1, LinkRole::MspFull, State::Active, denials),
        (NORTHWIND, place::EXPIRED, 1, LinkRole::MspFull, State::Expired, none),
        (NORTHWIND, place::REVOKED, 1, LinkRole::MspFull, State::Revoked, none),
        (NORTHWIND, place::NOT_STARTED, 1, LinkRole::MspFull, State::NotStarted, none),
        (NORTHWIND, place::PENDING, 1, LinkRole::MspFull, State::Pending, none),
        (BAOBAB, place::ENTERPRISE, 8, LinkRole::EnterpriseHq, State::Active, none),
        // Tenants that two partners share, in different roles.
        (BAOBAB, 0, 2, LinkRole::Reseller, State::Active, none),
        (BAOBAB, 35, 1, LinkRole::EnterpriseHq, State::Expired, none),
        (CLEARWATER, 0, 6, LinkRole::Auditor, State::Active, none),
        (CLEARWATER, place::ENTERPRISE, 1, LinkRole::Auditor, State::Active, none),
        (CLEARWATER, 36, 1, LinkRole::Delegate, State::Active, &[("reports.sla", true)]),
        (CLEARWATER, 37, 1, LinkRole::Auditor, State::Revoked, none),
    ];
    rows.into_iter()
        .flat_map(|(partner, first, count, role, state, overrides)| {
            (first..first + count).map(move |at| Link { partner, tenant: city_tenant(at), role, state, overrides })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_world_is_as_large_and_as_varied_as_promised() {
        let world = World::new();
        assert_eq!((world.partners.len(), world.tenants.len()), (3, 42));
        let ids: BTreeSet<_> = world.tenants.iter().map(|tenant| &tenant.id).collect();
        assert_eq!(ids.len(), 42);
        let pairs: BTreeSet<_> = world.links.iter().map(|link| (link.partner, &link.tenant)).collect();
        assert_eq!(pairs.len(), world.links.len());
        for role in LinkRole::ALL {
            assert!(world.links.iter().any(|link| link.role == role && link.state == State::Active), "{role}");
        }
        for state in [State::Expired, State::Revoked, State::NotStarted, State::Pending] {
            assert!(world.links.iter().any(|link| link.state == state), "{state:?}");
        }
        assert!(world.links.iter().any(|link| link.overrides.iter().any(|(_, value)| !value)));
        assert!(world.links.iter().all(|link| ids.contains(&link.tenant)));
        assert!(!world.links.iter().any(|link| link.tenant == city_tenant(place::ALONE)));
    }

    #[test]
    fn no_tenant_has_two_full_links_in_force() {
        let mut full: BTreeMap<&str, usize> = BTreeMap::new();
        for link in World::new().links.iter().filter(|link| link.role.is_full() && link.state != State::Revoked) {
            *full.entry(Box::leak(link.tenant.clone().into_boxed_str())).or_default() += 1;
        }
        assert!(full.values().all(|count| *count == 1), "{full:?}");
    }
}
