//! Slices by real decisions under the built-in policies, for tests that ask services without a request before it.

use std::sync::{Arc, LazyLock};

use linkgate::{
    domain::{Facts, LinkFacts, Millis, Permission, PermissionSet, Trace, UserFacts},
    policy::{Bundle, decide},
    portal::Granted,
};

static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| Bundle::load(None).unwrap());

/// The slice of a link that must grant this to a user who holds everything.
pub fn decided(link: LinkFacts, permission: &str) -> Granted {
    let user = UserFacts {
        issuer: "https://issuer.test".into(),
        sub: "user-1".into(),
        partner_id: link.link.partner_id,
        holds: PermissionSet::ALL,
        suspended: false,
    };
    let facts = Facts {
        user: &user,
        link: Some(&link),
        permission: Permission::parse(permission).unwrap(),
        switch_context: false,
        now: Millis::now(),
        ip: [127, 0, 0, 1].into(),
        mfa: true,
        method: "GET",
        route_class: "read",
    };
    let permit = decide(&BUNDLE, None, &facts).verdict.unwrap();
    let trace = Trace::of_job("test", uuid::Uuid::new_v4());
    Granted::new(Arc::new(link), permit, PermissionSet::EMPTY, Arc::new(trace))
}
