//! The permission catalogue of the contract's section 4: 26 names, their wildcards, scopes and aliases.
//!
//! A set of permissions is a bit set, so a union, an intersection or a test is one instruction and a link's overrides
//! cost eight bytes. The order of the catalogue is not stored anywhere: databases and files keep names.

use std::fmt;

use serde::Serialize;

/// What kind of act a permission allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Export,
    Context,
}

/// One dotted permission name, an index into the catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Permission(u8);

const CATALOGUE: [(&str, Kind); 26] = [
    ("partner.tenants.list", Kind::Read),
    ("partner.tenants.switch_context", Kind::Context),
    ("partner.billing.read", Kind::Read),
    ("partner.billing.summary.read", Kind::Read),
    ("partner.billing.invoices.read", Kind::Read),
    ("partner.billing.invoices.write", Kind::Write),
    ("partner.billing.invoices.export", Kind::Export),
    ("partner.billing.payments.read", Kind::Read),
    ("partner.billing.payments.write", Kind::Write),
    ("partner.support.tickets.list", Kind::Read),
    ("partner.support.tickets.read", Kind::Read),
    ("partner.support.tickets.create", Kind::Write),
    ("partner.support.tickets.update", Kind::Write),
    ("partner.support.tickets.comment", Kind::Write),
    ("partner.provisioning.subscribers.list", Kind::Read),
    ("partner.provisioning.subscribers.read", Kind::Read),
    ("partner.provisioning.subscribers.activate", Kind::Write),
    ("partner.provisioning.subscribers.suspend", Kind::Write),
    ("partner.provisioning.plans.assign", Kind::Write),
    ("partner.reports.usage.read", Kind::Read),
    ("partner.reports.sla.read", Kind::Read),
    ("partner.reports.revenue.read", Kind::Read),
    ("partner.reports.export", Kind::Export),
    ("partner.alerts.sla.read", Kind::Read),
    ("partner.alerts.billing.read", Kind::Read),
    ("partner.alerts.acknowledge", Kind::Write),
];

/// Scopes: short names for groups, with the leaves they hold.
pub const SCOPES: [(&str, &[&str]); 8] = [
    (
        "billing.read",
        &[
            "partner.billing.read",
            "partner.billing.summary.read",
            "partner.billing.invoices.read",
            "partner.billing.payments.read",
        ],
    ),
    ("billing.export", &["partner.billing.invoices.export"]),
    ("billing.write", &["partner.billing.invoices.write", "partner.billing.payments.write"]),
    ("support.read", &["partner.support.tickets.list", "partner.support.tickets.read"]),
    (
        "support.write",
        &["partner.support.tickets.create", "partner.support.tickets.update", "partner.support.tickets.comment"],
    ),
    (
        "provisioning",
        &[
            "partner.provisioning.subscribers.list",
            "partner.provisioning.subscribers.read",
            "partner.provisioning.subscribers.activate",
            "partner.provisioning.subscribers.suspend",
            "partner.provisioning.plans.assign",
        ],
    ),
    (
        "provisioning.limited",
        &[
            "partner.provisioning.subscribers.list",
            "partner.provisioning.subscribers.read",
            "partner.provisioning.subscribers.activate",
            "partner.provisioning.plans.assign",
        ],
    ),
    ("reports.sla", &["partner.reports.sla.read", "partner.alerts.sla.read"]),
];

/// Short keys seen in existing link data.
const ALIASES: [(&str, &str); 2] = [
    ("support.create_ticket", "partner.support.tickets.create"),
    ("provisioning.activate_service", "partner.provisioning.subscribers.activate"),
];

impl Permission {
    /// Needed beside a route's own permission wherever a request names an active tenant.
    pub const SWITCH_CONTEXT: Self = Self(1);

    /// Exact name only.
    pub fn parse(name: &str) -> Option<Self> {
        CATALOGUE.iter().position(|(known, _)| *known == name).and_then(|at| u8::try_from(at).ok()).map(Self)
    }

    /// Every permission, in catalogue order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0u8..26).map(Self)
    }

    pub fn name(self) -> &'static str {
        CATALOGUE.get(usize::from(self.0)).map_or("", |(name, _)| name)
    }

    pub fn kind(self) -> Kind {
        CATALOGUE.get(usize::from(self.0)).map_or(Kind::Write, |(_, kind)| *kind)
    }

    /// Place in the catalogue, 0 to 25: for tables indexed by permission.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Permission {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// A name that is no permission, wildcard, scope or alias, with the nearest known one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown permission `{name}`; the nearest known name is `{nearest}`")]
pub struct UnknownPermission {
    pub name: String,
    pub nearest: String,
}

/// A set of permissions.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PermissionSet(u32);

impl PermissionSet {
    pub const EMPTY: Self = Self(0);
    pub const ALL: Self = Self((1 << 26) - 1);

    pub fn of(permission: Permission) -> Self {
        Self(1 << permission.0)
    }

    pub fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission.0) != 0
    }

    pub fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::all().filter(move |permission| self.contains(*permission))
    }

    /// The bits, for hashing and compact keys inside one process; never stored.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// What a token claim means: a name or a wildcard. Anything else grants nothing (section 4), so: empty.
    pub fn from_claim(name: &str) -> Self {
        exact_or_wildcard(name).unwrap_or_default()
    }

    /// What a link override or a role table entry means: a name, wildcard, scope or alias.
    pub fn from_name(name: &str) -> Result<Self, UnknownPermission> {
        if let Some(set) = exact_or_wildcard(name) {
            return Ok(set);
        }
        if let Some((_, leaves)) = SCOPES.iter().find(|(scope, _)| *scope == name) {
            return Ok(leaves.iter().filter_map(|leaf| Permission::parse(leaf)).collect());
        }
        if let Some((_, target)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
            return Ok(Permission::parse(target).into_iter().collect());
        }
        Err(UnknownPermission { name: name.to_owned(), nearest: nearest(name) })
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(items: I) -> Self {
        items.into_iter().fold(Self::EMPTY, |set, item| set.union(Self::of(item)))
    }
}

impl fmt::Debug for PermissionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for PermissionSet {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

/// Every wildcard: `partner.*` and one for each level below it that has leaves, sorted.
pub fn wildcards() -> Vec<String> {
    let mut found = std::collections::BTreeSet::new();
    for (name, _) in CATALOGUE {
        for (at, _) in name.match_indices('.') {
            if let Some(level) = name.get(..at) {
                found.insert(format!("{level}.*"));
            }
        }
    }
    found.into_iter().collect()
}

/// The fewest names that hold all of `wanted` and nothing outside `within`: wildcards and scopes before single names.
///
/// The widest group first, which for names in a tree is the fewest. What is in `wanted` and not in `within` is left out.
pub fn cover(wanted: PermissionSet, within: PermissionSet) -> Vec<String> {
    // Of names that say the same the last one is taken: a single name, then the shortest wildcard.
    let scopes = SCOPES.iter().map(|(scope, _)| (*scope).to_owned());
    let leaves = CATALOGUE.iter().map(|(name, _)| (*name).to_owned());
    let named: Vec<(String, PermissionSet)> = scopes
        .chain(wildcards().into_iter().rev())
        .chain(leaves)
        .filter_map(|name| PermissionSet::from_name(&name).ok().map(|set| (name, set)))
        .filter(|(_, set)| within.contains_all(*set))
        .collect();
    let (mut left, mut names) = (wanted.intersection(within), Vec::new());
    while !left.is_empty() {
        // Of equals the narrowest: a name says no more than it must.
        let best = named.iter().max_by_key(|(_, set)| {
            let new = set.intersection(left).iter().count();
            (new, std::cmp::Reverse(set.iter().count()))
        });
        let Some((name, set)) = best.filter(|(_, set)| !set.intersection(left).is_empty()) else { break };
        left = left.without(*set);
        names.push(name.clone());
    }
    names.sort();
    names
}

fn exact_or_wildcard(name: &str) -> Option<PermissionSet> {
    if let Some(one) = Permission::parse(name) {
        return Some(PermissionSet::of(one));
    }
    let level = name.strip_suffix('*').filter(|level| level.ends_with('.'))?;
    let set: PermissionSet = Permission::all().filter(|one| one.name().starts_with(level)).collect();
    (!set.is_empty()).then_some(set)
}

fn nearest(name: &str) -> String {
    let mut known: Vec<String> = CATALOGUE.iter().map(|(leaf, _)| (*leaf).to_owned()).collect();
    known.extend(wildcards());
    known.extend(SCOPES.iter().map(|(scope, _)| (*scope).to_owned()));
    known.extend(ALIASES.iter().map(|(alias, _)| (*alias).to_owned()));
    known.into_iter().min_by_key(|candidate| strsim::damerau_levenshtein(candidate, name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_itself() {
        for permission in Permission::all() {
            assert_eq!(Permission::parse(permission.name()), Some(permission));
        }
        assert_eq!(Permission::SWITCH_CONTEXT.name(), "partner.tenants.switch_context");
        assert_eq!(PermissionSet::ALL.iter().count(), 26);
    }

    #[test]
    fn wildcards_hold_what_stands_below_them() {
        assert_eq!(PermissionSet::from_claim("partner.*"), PermissionSet::ALL);
        assert_eq!(PermissionSet::from_claim("partner.billing.invoices.*").iter().count(), 3);
        assert_eq!(PermissionSet::from_claim("partner.billing.*").iter().count(), 7);
        for bad in ["*", "partner", "partner*", "partner.bill*", "partner.billing.read.*", ".*", ""] {
            assert!(PermissionSet::from_claim(bad).is_empty(), "{bad}");
        }
        for wildcard in wildcards() {
            assert!(!PermissionSet::from_claim(&wildcard).is_empty(), "{wildcard}");
        }
    }

    #[test]
    fn a_set_is_named_by_the_widest_groups_that_hold_nothing_else() {
        let of = |names: &[&str]| {
            names.iter().fold(PermissionSet::EMPTY, |set, name| set.union(PermissionSet::from_name(name).unwrap()))
        };
        assert_eq!(cover(PermissionSet::ALL, PermissionSet::ALL), ["partner.*"]);
        assert_eq!(cover(PermissionSet::EMPTY, PermissionSet::ALL), [""; 0]);
        let reads = of(&["billing.read", "support.read"]);
        assert_eq!(cover(reads, reads), ["billing.read", "support.read"]);
        let writes = PermissionSet::ALL.without(reads);
        let names = cover(writes, writes);
        assert!(names.contains(&"partner.provisioning.*".to_owned()), "{names:?}");
        assert!(names.contains(&"support.write".to_owned()), "{names:?}");
        assert_eq!(names.iter().fold(PermissionSet::EMPTY, |set, name| set.union(of(&[name]))), writes);
        // A group may hold what is not wanted, as long as it is within.
        let invoices = of(&["partner.billing.invoices.read", "partner.billing.invoices.write"]);
        assert_eq!(cover(invoices, of(&["partner.billing.*"])), ["partner.billing.invoices.*"]);
        assert_eq!(cover(of(&["billing.read"]), PermissionSet::EMPTY), [""; 0]);
    }

    #[test]
    fn claims_take_no_scopes_and_overrides_take_them_all() {
        assert!(PermissionSet::from_claim("billing.read").is_empty());
        assert_eq!(PermissionSet::from_name("billing.read").unwrap().iter().count(), 4);
        assert_eq!(
            PermissionSet::from_name("support.create_ticket").unwrap(),
            PermissionSet::from_claim("partner.support.tickets.create")
        );
        for (scope, leaves) in SCOPES {
            assert_eq!(PermissionSet::from_name(scope).unwrap().iter().count(), leaves.len(), "{scope}");
        }
        let error = PermissionSet::from_name("partner.billing.invoice.read").unwrap_err();
        assert_eq!(error.nearest, "partner.billing.invoices.read");
    }
}
