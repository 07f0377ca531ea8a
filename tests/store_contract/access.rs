//! Access at a time: links as they were, with what bound them then.

use std::{sync::Arc, time::Duration};

use linkgate::{
    domain::{Approval, ApprovalRules, Gate, LinkId, LinkRole, Millis, Permission, TenantId, link_rules::LinkInput},
    store::{
        Actor, Admin, Known, Side, StoreError, SuspensionScope,
        admin::{PartnerInput, SuspensionInput},
        bulk::{Fill, fill, partner_id, tenant_id},
    },
};
use serde_json::json;

use crate::fixture::{Fixture, change, link, roles};

/// A time that all changes so far are not after, and all later ones are.
async fn between() -> Millis {
    let at = Millis::now();
    while Millis::now() <= at {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    at
}

async fn says(admin: &Admin, who: &str, id: LinkId, fields: serde_json::Value) {
    admin.update_link(&Actor::new(who), id, None, &change(fields)).await.unwrap();
}

pub(crate) async fn a_link_is_told_as_it_was(f: Arc<Fixture>) {
    let admin = Admin::new(&f.db, roles(), ApprovalRules { required: true, four_eyes: true });
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let other = f.tenant("u").await;
    let before = between().await;
    let id = admin.create_link(&Actor::new("ann"), &link(partner, &tenant, "auditor")).await.unwrap().value.id;
    f.granted(f.partner("q").await, &other, "auditor").await;
    let pending = between().await;
    says(&admin, "bob", id, json!({"approval": "approved"})).await;
    let approved = between().await;
    says(&admin, "cyd", id, json!({"access_role": "msp_support", "require_mfa": true})).await;
    let widened = between().await;
    says(&admin, "bob", id, json!({"approval": "approved"})).await;
    let again = between().await;
    let suspension =
        SuspensionInput { scope: SuspensionScope::Tenant, issuer: None, subject: "t".into(), reason: "r".into() };
    let suspension = admin.suspend(&f.actor, &suspension).await.unwrap().value.id;
    let suspended = between().await;
    admin.restore(&f.actor, suspension).await.unwrap();
    let restored = between().await;
    admin.revoke_link(&f.actor, id, None).await.unwrap();
    let revoked = between().await;

    // (at, version, role, first closed gate, approved by)
    let expected = [
        (pending, 1, LinkRole::Auditor, Some(Gate::Approval), None),
        (approved, 2, LinkRole::Auditor, None, Some("bob")),
        (widened, 3, LinkRole::MspSupport, Some(Gate::Approval), None),
        (again, 4, LinkRole::MspSupport, None, Some("bob")),
        (suspended, 4, LinkRole::MspSupport, Some(Gate::Suspension), Some("bob")),
        (restored, 4, LinkRole::MspSupport, None, Some("bob")),
        (revoked, 5, LinkRole::MspSupport, Some(Gate::Active), Some("bob")),
    ];
    for side in [Side::Tenant(tenant.clone()), Side::Partner(partner), Side::Link(id)] {
        assert!(admin.access_at(&side, before).await.unwrap().links.is_empty(), "{side:?}");
        for (at, version, role, gate, by) in &expected {
            let found = admin.access_at(&side, *at).await.unwrap();
            let [one] = found.links.as_slice() else { panic!("{side:?} at {at}: {found:?}") };
            let (terms, facts) = (&one.terms, &one.facts);
            assert_eq!((terms.id, terms.version, one.version_now), (id, *version, 5), "{at}");
            assert_eq!((terms.access_role, facts.link.role), (*role, *role), "{at}");
            assert_eq!(facts.closed_gate(*at), *gate, "{at}");
            assert_eq!(terms.approved_by.as_deref(), *by, "{at}");
            assert_eq!(facts.requires_mfa(), *role == LinkRole::MspSupport, "{at}");
            assert_eq!(one.suspended_by, (*at == suspended).then_some(suspension));
            assert_eq!(terms.created_by, "ann");
        }
    }
    let then = admin.access_at(&Side::Link(id), widened).await.unwrap();
    let asked = then.links[0].terms.widened_by.clone().unwrap();
    assert!(asked.contains(&"cyd".to_owned()) && then.links[0].terms.approval == Approval::Pending, "{asked:?}");
    for nobody in [Side::Tenant(TenantId::new("nobody").unwrap()), Side::Link(LinkId(partner.0))] {
        assert!(matches!(admin.access_at(&nobody, revoked).await, Err(StoreError::NotFound { .. })));
    }
}

pub(crate) async fn parents_of_then_bind_a_link_of_then(f: Arc<Fixture>) {
    let (top, sub) = (f.partner("top").await, f.partner("sub").await);
    let tenant = f.tenant("t").await;
    let root = f.granted(top, &tenant, "msp_support").await.id;
    let child = LinkInput {
        parent_link_id: Some(Some(root.to_string())),
        custom_permissions: Some([("support.read".to_owned(), true)].into()),
        ..link(sub, &tenant, "delegate")
    };
    let child = f.grant(&child).await.unwrap().value.id;
    let whole = between().await;
    says(&f.admin, "x", root, json!({"custom_permissions": {"partner.support.tickets.read": false}})).await;
    let narrowed = between().await;
    f.revoke(root).await;
    let revoked = between().await;
    for side in [Side::Partner(sub), Side::Link(child), Side::Tenant(tenant.clone())] {
        for (at, reads, gate) in [(whole, true, None), (narrowed, false, None), (revoked, false, Some(Gate::Active))] {
            let found = f.admin.access_at(&side, at).await.unwrap();
            let one = found.links.iter().find(|one| one.terms.id == child).unwrap();
            assert_eq!(one.facts.ancestors.len(), 1);
            let allowed = one.facts.effective(&roles());
            assert_eq!(allowed.contains(permission("partner.support.tickets.read")), reads, "{at}");
            assert!(allowed.contains(permission("partner.support.tickets.list")), "{at}");
            assert_eq!(one.facts.closed_gate(at), gate, "{at}");
        }
    }
    assert_eq!(f.admin.delegated_from(&[root]).await.unwrap(), [(child, root)]);
}

fn permission(name: &str) -> Permission {
    Permission::parse(name).unwrap()
}

pub(crate) async fn what_has_no_history_is_told_as_of_now(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    f.user("i", "early", partner).await;
    let id = f.granted(partner, &tenant, "auditor").await.id;
    let then = between().await;
    f.user("i", "late", partner).await;
    let off = PartnerInput { is_active: Some(false), ..PartnerInput::default() };
    f.admin.update_partner(&f.actor, partner, None, &off).await.unwrap();
    let now = between().await;
    let past = f.admin.access_at(&Side::Link(id), then).await.unwrap();
    let users: Vec<&str> = past.users[&partner].iter().map(|user| user.sub.as_str()).collect();
    assert_eq!(users, ["early"]);
    assert_eq!(Known::of(&past.partners[&partner].stamps, then), Known::Now);
    assert_eq!(past.links[0].facts.closed_gate(then), None, "it may have been active then");
    let present = f.admin.access_at(&Side::Link(id), now).await.unwrap();
    assert_eq!(present.users[&partner].len(), 2);
    assert_eq!(Known::of(&present.partners[&partner].stamps, now), Known::Then);
    assert_eq!(present.links[0].facts.closed_gate(now), Some(Gate::Partner));
}

pub(crate) async fn a_thousand_links_are_one_question(f: Arc<Fixture>) {
    let sizes =
        Fill { partners: 1_000, links_per_partner: 1, tenants: 1, issuer: "i".into(), role: LinkRole::MspBilling };
    fill(&f.db, &sizes).await.unwrap();
    let began = std::time::Instant::now();
    let found = f.admin.access_at(&Side::Tenant(tenant_id(0).unwrap()), Millis::now()).await.unwrap();
    println!("1,000 links of one tenant: {:?}", began.elapsed());
    assert_eq!((found.links.len(), found.partners.len(), found.users.len()), (1_000, 1_000, 1_000));
    let one = f.admin.access_at(&Side::Partner(partner_id(7)), Millis::now()).await.unwrap();
    assert_eq!(one.links.len(), 1);
}
