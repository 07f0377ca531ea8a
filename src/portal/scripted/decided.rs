//! Links that exist in memory only, and slices of them by real decisions under the built-in policies.

use std::sync::{Arc, LazyLock};

use crate::{
    domain::{
        Approval, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, Permission, PermissionSet,
        RequestId, TenantId, Trace, TraceId,
    },
    policy::{Policies, settings::PolicySettings},
    portal::{Granted, unattended},
};

static POLICIES: LazyLock<Policies> = LazyLock::new(|| {
    Policies::new(PolicySettings { dir: None, memo_entries: 16, enforce: true, shadow: None }).unwrap()
});

/// A live link of the role that may do everything.
pub(in crate::portal) fn full_link(tenant: &str) -> LinkFacts {
    let link = Link {
        id: LinkId(uuid::Uuid::nil()),
        partner_id: PartnerId(uuid::Uuid::nil()),
        tenant_id: TenantId::new(tenant).unwrap(),
        role: LinkRole::MspFull,
        granted: PermissionSet::EMPTY,
        denied: PermissionSet::EMPTY,
        approval: Approval::Approved,
        is_active: true,
        start: Millis(0),
        end: None,
        allowed_cidrs: Box::default(),
        require_mfa: false,
        version: LinkVersion(1),
    };
    LinkFacts {
        link,
        partner_active: true,
        suspended: false,
        tenant_status: "active".into(),
        ancestors: Box::default(),
    }
}

/// The slice, which must be allowed, with those of the further permissions that are.
pub(in crate::portal) fn decided(link: LinkFacts, permission: &str, also: &[&str]) -> Granted {
    let link = Arc::new(link);
    let permit = |permission| unattended::permit(&POLICIES, &link, permission, Millis::now()).unwrap();
    let allowed = also.iter().filter(|name| permit(name).is_some()).filter_map(|name| Permission::parse(name));
    let allowed = allowed.map(PermissionSet::of).fold(PermissionSet::EMPTY, PermissionSet::union);
    Granted::new(Arc::clone(&link), permit(permission).unwrap(), allowed, trace())
}

pub(in crate::portal) fn trace() -> Arc<Trace> {
    Arc::new(Trace::new(RequestId::generate(), TraceId::generate()))
}
