//! On whose behalf a request is made, as far as outlier detection and the shares of places tell them apart.
//!
//! What a service answers, and how late, a request can provoke; that it cannot be reached, it cannot. So failures of the
//! first kind are laid at the asker's door until somebody else meets them too: another tenant, asked by another
//! organisation. Who has links to two tenants is one organisation, and a tenant that two organisations ask is one tenant.

use std::sync::LazyLock;

use crate::domain::TenantId;

/// Whose data a request is about, and who asks. Both are the tenant in a home request; a public one has neither.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker<'a> {
    pub tenant: Option<&'a TenantId>,
    /// The asker's home.
    pub organisation: Option<&'a TenantId>,
}

/// What stays of an asker: a few bits of two keyed hashes, in one number that fits an atomic. 0: nobody that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(pub(super) u64);

/// At whose door a failure is laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// No request can provoke it.
    Service,
    Asker(Mark),
}

/// Nobody outside can make two askers look like one.
static KEYS: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);

impl Asker<'_> {
    pub(super) fn mark(self) -> Mark {
        let (Some(tenant), Some(organisation)) = (self.tenant, self.organisation) else { return Mark(0) };
        // Never 0, which stands for nobody.
        let half = |id: &TenantId| KEYS.hash_one(id.as_str()) & u64::from(u32::MAX) | 1;
        Mark(half(tenant) << 32 | half(organisation))
    }
}

impl Mark {
    pub(super) fn is_nobody(self) -> bool {
        self.0 == 0
    }

    /// Neither the tenant nor the organisation is the same.
    pub(super) fn has_nothing_in_common_with(self, other: Self) -> bool {
        let differs = self.0 ^ other.0;
        differs >> 32 != 0 && differs & u64::from(u32::MAX) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(tenant: &str, organisation: &str) -> Mark {
        let [tenant, organisation] = [tenant, organisation].map(|id| TenantId::new(id).unwrap());
        Asker { tenant: Some(&tenant), organisation: Some(&organisation) }.mark()
    }

    #[test]
    fn only_who_shares_neither_tenant_nor_organisation_is_somebody_else() {
        let one = mark("a", "msp");
        assert_eq!(one, mark("a", "msp"));
        for (other, is_other) in
            [(mark("b", "msp"), false), (mark("a", "a"), false), (mark("b", "b"), true), (mark("msp", "msp"), false)]
        {
            assert_eq!(one.has_nothing_in_common_with(other), is_other, "{other:?}");
        }
        assert!(Asker::default().mark().is_nobody() && !one.is_nobody());
    }
}
