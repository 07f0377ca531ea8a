//! Links delegated onward: always `delegate`, never more than their parents, and bound by every parent's change.

use std::sync::Arc;

use linkgate::{
    domain::{Gate, LinkId, Millis, PartnerId, TenantId, link_rules::LinkInput},
    store::{LinkRecord, Reading, StoreError, Touch, Written, admin::Page},
};
use serde_json::json;

use crate::fixture::{Fixture, Kind, change, link, refused, roles};

async fn delegate(
    f: &Fixture,
    partner: PartnerId,
    tenant: &TenantId,
    parent: LinkId,
    overrides: serde_json::Value,
) -> Result<Written<LinkRecord>, StoreError> {
    f.grant(&LinkInput {
        parent_link_id: Some(Some(parent.to_string())),
        custom_permissions: serde_json::from_value(overrides).unwrap(),
        ..link(partner, tenant, "delegate")
    })
    .await
}

pub(crate) async fn a_delegated_link_is_bounded_by_its_parents(f: Arc<Fixture>) {
    let tenant = f.tenant("t").await;
    let mut partners = Vec::new();
    for n in 0..5 {
        partners.push(f.partner(&format!("p{n}")).await);
    }
    let root = f.granted(partners[0], &tenant, "msp_support").await;
    let (code, message) = refused(delegate(&f, partners[1], &tenant, root.id, json!({"billing.write": true})).await);
    assert_eq!(code, "PERMISSION_ESCALATION");
    assert!(message.contains("goes beyond the parent link"), "{message}");
    let elsewhere = f.tenant("u").await;
    assert!(refused(delegate(&f, partners[1], &elsewhere, root.id, json!({})).await).1.contains("another tenant"));

    let narrow = json!({"support.read": true, "support.write": true, "partner.support.tickets.comment": false});
    let first = delegate(&f, partners[1], &tenant, root.id, narrow).await.unwrap().value;
    // Bound by the whole chain, not by the nearest parent only.
    let denied = json!({"partner.support.tickets.comment": true});
    assert_eq!(refused(delegate(&f, partners[2], &tenant, first.id, denied).await).0, "PERMISSION_ESCALATION");
    let second = delegate(&f, partners[2], &tenant, first.id, json!({"support.read": true})).await.unwrap().value;
    let third = delegate(&f, partners[3], &tenant, second.id, json!({})).await.unwrap().value;
    let (code, message) = refused(delegate(&f, partners[4], &tenant, third.id, json!({})).await);
    assert_eq!(code, "VALIDATION_ERROR");
    assert!(message.contains("at most 3 links"), "{message}");
    // No ring: the parent may not be delegated from the link itself.
    let ring = change(json!({"parent_link_id": third.id.to_string()}));
    assert!(refused(f.admin.update_link(&f.actor, first.id, None, &ring).await).1.contains("delegated from this link"));

    let directory = f.fresh_directory().await;
    let facts = |portfolio: Arc<linkgate::domain::Portfolio>| Arc::clone(portfolio.link("t").unwrap());
    let loaded = facts(directory.portfolio(partners[3], Reading::Fresh).await.unwrap().unwrap());
    let chain: Vec<LinkId> = loaded.ancestors.iter().map(|parent| parent.link.id).collect();
    assert_eq!(chain, [second.id, first.id, root.id], "nearest first");
    assert_eq!(loaded.closed_gate(Millis::now()), None);
    let of_second = facts(directory.portfolio(partners[2], Reading::Fresh).await.unwrap().unwrap());
    assert_eq!(of_second.effective(&roles()), {
        let read = linkgate::domain::PermissionSet::from_name("support.read").unwrap();
        read.union(linkgate::domain::PermissionSet::from_claim("partner.tenants.*"))
            .intersection(roles().link_role(linkgate::domain::LinkRole::MspSupport))
    });
}

pub(crate) async fn a_change_of_a_parent_raises_all_below_at_once(f: Arc<Fixture>) {
    let tenant = f.tenant("t").await;
    let (a, b, c) = (f.partner("a").await, f.partner("b").await, f.partner("c").await);
    let root = f.granted(a, &tenant, "msp_support").await;
    let child = delegate(&f, b, &tenant, root.id, json!({"support.read": true})).await.unwrap().value;
    let grandchild = delegate(&f, c, &tenant, child.id, json!({"support.read": true})).await.unwrap().value;
    let directory = f.fresh_directory().await;
    let live = directory.portfolio(c, Reading::Fresh).await.unwrap().unwrap();
    assert_eq!(live.link("t").unwrap().closed_gate(Millis::now()), None);

    let revoked = f.revoke(root.id).await;
    for partner in [a, b, c] {
        assert!(revoked.change.touched.contains(&Touch::Partner(partner)));
    }
    assert_eq!(f.admin.link(child.id).await.unwrap().stamps.version, 2);
    let below = f.admin.link(grandchild.id).await.unwrap();
    assert_eq!((below.stamps.version, below.terms.is_active), (2, true));
    let history = f.admin.history(grandchild.id, Page::default()).await.unwrap();
    assert_eq!(history[1].change, "parent_changed");
    directory.notice(&revoked.change).await;
    let after = directory.portfolio(c, Reading::Fresh).await.unwrap().unwrap();
    assert_eq!(after.link("t").unwrap().closed_gate(Millis::now()), Some(Gate::Active));
    assert_eq!(after.link("t").unwrap().link.version.0, 2);

    let again = f.granted(a, &tenant, "msp_support").await;
    assert_eq!(again.id, root.id);
    assert_eq!(f.admin.link(grandchild.id).await.unwrap().stamps.version, 3);
}

/// A ring, or a chain deeper than the rules allow, can only be written by hand: it opens nothing.
pub(crate) async fn a_broken_chain_stays_closed(f: Arc<Fixture>) {
    let tenant = f.tenant("t").await;
    let (a, b) = (f.partner("a").await, f.partner("b").await);
    let top = f.granted(a, &tenant, "delegate").await;
    let below = delegate(&f, b, &tenant, top.id, json!({})).await.unwrap().value;
    f.raw(format!(
        "UPDATE partner_tenant_links SET parent_link_id = '{}', version = version + 1 WHERE id = '{}'",
        below.id, top.id
    ))
    .await
    .unwrap();
    let directory = f.fresh_directory().await;
    for partner in [a, b] {
        let portfolio = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
        assert_eq!(portfolio.link("t").unwrap().closed_gate(Millis::now()), Some(Gate::Suspension));
    }
    // A name that means nothing denies everything, whatever it was meant to say.
    let column =
        if f.kind == Kind::Postgres { "'{\"billing.raed\": false}'::jsonb" } else { "'{\"billing.raed\": false}'" };
    let other = f.tenant("u").await;
    let plain = f.granted(a, &other, "msp_full").await;
    f.raw(format!(
        "UPDATE partner_tenant_links SET custom_permissions = {column}, version = version + 1 WHERE id = '{}'",
        plain.id
    ))
    .await
    .unwrap();
    let directory = f.fresh_directory().await;
    let portfolio = directory.portfolio(a, Reading::Fresh).await.unwrap().unwrap();
    assert!(portfolio.link("u").unwrap().effective(&roles()).is_empty());
}
