//! Links that exist in memory only, and slices of them by real decisions under the built-in policies.

use std::sync::{Arc, LazyLock, Mutex};

use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    domain::{
        Approval, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, Permission, PermissionSet,
        RequestId, TenantId, Trace, TraceId,
    },
    policy::{Policies, settings::PolicySettings},
    portal::{Granted, Problem, Standing, unattended},
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

/// What is asked again: as often as there are answers, they are given; then it is allowed.
#[derive(Debug, Default)]
pub(in crate::portal) struct Asked {
    answers: Mutex<Vec<Result<(), Problem>>>,
    pub(in crate::portal) heard: Mutex<Vec<String>>,
}

impl Asked {
    pub(in crate::portal) fn with(answers: impl IntoIterator<Item = Result<(), Problem>>) -> Arc<Self> {
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        Arc::new(Self { answers: Mutex::new(answers), ..Self::default() })
    }
}

impl Standing for Asked {
    fn ask(&self, tenants: Vec<TenantId>, also: Option<Permission>) -> BoxFuture<'_, Result<(), Problem>> {
        let tenants: Vec<_> = tenants.iter().map(TenantId::as_str).collect();
        let also = also.map(|permission| format!(" {}", permission.name())).unwrap_or_default();
        self.heard.lock().unwrap().push(format!("{}{also}", tenants.join("+")));
        let answer = self.answers.lock().unwrap().pop().unwrap_or(Ok(()));
        async { answer }.boxed()
    }
}

pub(in crate::portal) fn trace() -> Arc<Trace> {
    Arc::new(Trace::new(RequestId::generate(), TraceId::generate()))
}
