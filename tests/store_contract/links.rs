//! Granting, changing and revoking: contract, section 5.

use std::sync::Arc;

use linkgate::{
    domain::{Approval, Millis, link_rules::LinkInput},
    store::{
        Actor, Admin, StoreError, SuspensionScope,
        admin::{LinkFilter, Page, PartnerInput, SuspensionInput, TenantInput, UserInput},
    },
};
use serde_json::json;

use crate::fixture::{Fixture, Kind, change, link, refused, roles};

pub(crate) async fn a_link_keeps_every_field(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("Tenant Ünïq 1").await);
    let input = LinkInput {
        partner_id: Some(partner.to_string()),
        managed_tenant_id: Some(tenant.to_string()),
        ..change(json!({
            "access_role": "msp_billing",
            "custom_permissions": {"billing.write": false, "partner.billing.read": true},
            "relationship_type": "reseller_channel",
            "start_date": "2026-01-31T12:00:00.1239999+01:00",
            "end_date": "2027-01-31",
            "notify_on_sla_breach": false,
            "notify_on_billing_threshold": false,
            "billing_alert_threshold": 9_999_999_999_999.99,
            "sla_response_hours": 4,
            "sla_uptime_target": "99.9",
            "notes": "wörds",
            "metadata": {"a": [1, 2.5, "x"], "b": {"c": null}},
            "approval": "pending",
            "allowed_cidrs": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7", "10.0.0.0/8"],
            "require_mfa": true
        }))
    };
    let written = f.grant(&input).await.unwrap();
    let read = f.admin.link(written.value.id).await.unwrap();
    assert_eq!(read, written.value);
    let shown = serde_json::to_value(&read).unwrap();
    for (field, expected) in [
        ("managed_tenant_id", json!("Tenant Ünïq 1")),
        ("partner_tenant_id", json!("home-p")),
        ("access_role", json!("msp_billing")),
        ("custom_permissions", json!({"billing.write": false, "partner.billing.read": true})),
        ("relationship_type", json!("reseller_channel")),
        ("start_date", json!("2026-01-31T11:00:00.123Z")),
        ("end_date", json!("2027-01-31T00:00:00.000Z")),
        ("is_active", json!(true)),
        ("notify_on_sla_breach", json!(false)),
        ("billing_alert_threshold", json!("9999999999999.99")),
        ("sla_response_hours", json!(4)),
        ("sla_uptime_target", json!("99.90")),
        ("notes", json!("wörds")),
        ("metadata", json!({"a": [1, 2.5, "x"], "b": {"c": null}})),
        ("approval", json!("pending")),
        ("allowed_cidrs", json!(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"])),
        ("require_mfa", json!(true)),
        ("parent_link_id", json!(null)),
        ("version", json!(1)),
        ("created_by", json!("cli:tester")),
    ] {
        assert_eq!(shown[field], expected, "{field}");
    }
}

pub(crate) async fn every_rule_refuses_at_the_way_in(f: Arc<Fixture>) {
    let partner = f.partner("p").await;
    let tenant = f.tenant("t").await;
    let home = linkgate::domain::TenantId::new("home-p").unwrap();
    let with = |fields: serde_json::Value| LinkInput {
        partner_id: Some(partner.to_string()),
        managed_tenant_id: Some(tenant.to_string()),
        access_role: Some(fields["access_role"].as_str().unwrap_or("msp_support").to_owned()),
        ..change(fields)
    };
    for (input, code, says) in [
        (link(partner, &home, "auditor"), "VALIDATION_ERROR", "own tenant"),
        (with(json!({"end_date": "2020-01-01"})), "VALIDATION_ERROR", "`end_date`: is before the start"),
        (with(json!({"access_role": "king"})), "VALIDATION_ERROR", "unknown link role `king`"),
        (with(json!({"relationship_type": "friend"})), "VALIDATION_ERROR", "msp_managed"),
        (with(json!({"approval": "yes"})), "VALIDATION_ERROR", "pending, approved, rejected"),
        (with(json!({"start_date": "soon"})), "VALIDATION_ERROR", "`soon` is not a time"),
        (with(json!({"start_date": "0000-01-01"})), "VALIDATION_ERROR", "outside of the years"),
        (with(json!({"start_date": "2026-01-31T12:00"})), "VALIDATION_ERROR", "is not a time"),
        (with(json!({"end_date": "2026-12-31T23:59:60Z"})), "VALIDATION_ERROR", "leap second"),
        (with(json!({"end_date": "2040-01-01T00:00:00+25:00"})), "VALIDATION_ERROR", "offset"),
        (with(json!({"billing_alert_threshold": "10000000000000.00"})), "VALIDATION_ERROR", "out of range"),
        (with(json!({"billing_alert_threshold": "1.001"})), "VALIDATION_ERROR", "two decimal places"),
        (with(json!({"billing_alert_threshold": -1})), "VALIDATION_ERROR", "out of range"),
        (with(json!({"sla_uptime_target": 100.01})), "VALIDATION_ERROR", "out of range"),
        (with(json!({"sla_response_hours": -1})), "VALIDATION_ERROR", "out of range"),
        (with(json!({"allowed_cidrs": ["10.0.0.1/8"]})), "VALIDATION_ERROR", "write `10.0.0.0/8`"),
        (with(json!({"allowed_cidrs": ["office"]})), "VALIDATION_ERROR", "no address range"),
        (with(json!({"allowed_cidrs": ["::ffff:10.0.0.0/104"]})), "VALIDATION_ERROR", "IPv4"),
        (
            with(json!({"custom_permissions": {"partner.billing.invoice.read": false}})),
            "VALIDATION_ERROR",
            "the nearest known name is `partner.billing.invoices.read`",
        ),
        (
            with(json!({"custom_permissions": {"billing.write": true}})),
            "PERMISSION_ESCALATION",
            "goes beyond role `msp_support`",
        ),
        (
            with(json!({"parent_link_id": "00000000-0000-4000-8000-000000000000"})),
            "VALIDATION_ERROR",
            "always of role `delegate`",
        ),
        (
            with(json!({"access_role": "delegate", "parent_link_id": "00000000-0000-4000-8000-000000000000"})),
            "VALIDATION_ERROR",
            "no link has the id",
        ),
        (with(json!({"metadata": {"a": "\u{0}"}})), "VALIDATION_ERROR", "NUL"),
        (with(json!({"notes": "a\u{1b}[2J"})), "VALIDATION_ERROR", "`notes`: holds a control character"),
        (with(json!({"notes": "a\rb"})), "VALIDATION_ERROR", "`notes`: holds a control character"),
        (LinkInput { access_role: None, ..with(json!({})) }, "VALIDATION_ERROR", "`access_role`: is required"),
        (LinkInput { managed_tenant_id: None, ..with(json!({})) }, "VALIDATION_ERROR", "is required"),
    ] {
        let (found, message) = refused(f.grant(&input).await);
        assert_eq!(found, code, "{message}");
        assert!(message.contains(says), "`{message}` says nothing of `{says}`");
    }
    // All faults at once.
    let both = refused(f.grant(&with(json!({"start_date": "soon", "sla_response_hours": 99_999}))).await).1;
    assert!(both.contains("start_date") && both.contains("sla_response_hours"), "{both}");

    let nobody = link("00000000-0000-4000-8000-000000000001".parse().unwrap(), &tenant, "auditor");
    assert!(matches!(f.grant(&nobody).await, Err(StoreError::NotFound { what: "partner", .. })));
    let nowhere = linkgate::domain::TenantId::new("nowhere").unwrap();
    let unknown = refused(f.grant(&link(partner, &nowhere, "auditor")).await);
    assert_eq!(unknown.0, "TENANT_NOT_FOUND");

    f.granted(partner, &tenant, "auditor").await;
    let (code, message) = refused(f.grant(&link(partner, &tenant, "reseller")).await);
    assert_eq!(code, "CONFLICT");
    assert!(message.contains("already has link"), "{message}");
    // A true inside the role's own set is no escalation.
    let inside = with(json!({"custom_permissions": {"support.write": true}}));
    let other = f.partner("q").await;
    f.grant(&LinkInput { partner_id: Some(other.to_string()), ..inside }).await.unwrap();
}

pub(crate) async fn a_change_is_history_audit_and_version_at_once(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let granted = f.grant(&link(partner, &tenant, "auditor")).await.unwrap();
    let id = granted.value.id;
    let updated =
        f.admin.update_link(&f.actor, id, None, &change(json!({"notes": "n", "require_mfa": true}))).await.unwrap();
    assert_eq!(updated.value.stamps.version, 2);
    assert_eq!(updated.change.seq, granted.change.seq + 1);
    assert_eq!(f.count("SELECT seq FROM change_counter").await, i64::try_from(updated.change.seq).unwrap());
    let revoked = f.revoke(id).await;
    assert_eq!((revoked.value.stamps.version, revoked.value.terms.is_active), (3, false));

    let history = f.admin.history(id, Page::default()).await.unwrap();
    let told: Vec<(i64, &str)> = history.iter().map(|one| (one.version, one.change.as_str())).collect();
    assert_eq!(told, [(1, "created"), (2, "updated"), (3, "revoked")]);
    assert!(history[0].before.is_none());
    for pair in history.windows(2) {
        assert_eq!(pair[1].before.as_ref(), Some(&pair[0].after), "each change begins where the last one ended");
    }
    assert_eq!(history[2].after, serde_json::to_value(&revoked.value).unwrap());
    assert!(history.iter().all(|one| one.changed_by == "cli:tester" && one.changed_at <= Millis::now()));
    let of_links = "SELECT count(*) FROM audit_outbox WHERE CAST(body AS TEXT) LIKE '%link.%'";
    assert_eq!(f.count(of_links).await, 3);

    // Nothing to change, nothing changed.
    let before = f.count("SELECT seq FROM change_counter").await;
    let same = f.revoke(id).await;
    assert_eq!((same.change.seq, same.value.stamps.version), (0, 3));
    let same = f.admin.update_link(&f.actor, id, None, &change(json!({"notes": "n"}))).await.unwrap();
    assert_eq!((same.change.seq, same.value.stamps.version), (0, 3));
    assert_eq!(f.count("SELECT seq FROM change_counter").await, before);
}

pub(crate) async fn a_revoked_or_ended_pair_is_granted_again_in_the_same_row(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let first = f.granted(partner, &tenant, "auditor").await;
    f.revoke(first.id).await;
    let again = LinkInput { notes: Some(Some("back".into())), ..link(partner, &tenant, "reseller") };
    let again = f.grant(&again).await.unwrap().value;
    assert_eq!((again.id, again.stamps.version), (first.id, 3));
    assert_eq!(again.stamps.created_at, first.stamps.created_at);
    assert!(again.terms.is_active);
    assert_eq!(again.terms.access_role.as_str(), "reseller");

    let past = change(json!({"start_date": "2020-01-01", "end_date": "2021-01-01"}));
    f.admin.update_link(&f.actor, first.id, None, &past).await.unwrap();
    let third = f.granted(partner, &tenant, "auditor").await;
    assert_eq!((third.id, third.stamps.version, third.terms.end_date), (first.id, 5, None));
    let last = f.admin.history(first.id, Page::default()).await.unwrap().pop().unwrap();
    assert_eq!(last.change, "reactivated");
}

pub(crate) async fn an_update_needs_the_version_it_was_read_at(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let made = f.granted(partner, &tenant, "auditor").await;
    let notes = |text: &str| change(json!({ "notes": text }));
    f.admin.update_link(&f.actor, made.id, Some(1), &notes("a")).await.unwrap();
    let (code, message) = refused(f.admin.update_link(&f.actor, made.id, Some(1), &notes("b")).await);
    assert_eq!(code, "CONFLICT");
    assert!(message.contains("at version 2, not 1"), "{message}");
    assert_eq!(refused(f.admin.revoke_link(&f.actor, made.id, Some(1)).await).0, "CONFLICT");
    assert_eq!(f.admin.link(made.id).await.unwrap().terms.notes.as_deref(), Some("a"));
    let elsewhere = LinkInput { managed_tenant_id: Some("u".into()), ..LinkInput::default() };
    assert_eq!(refused(f.admin.update_link(&f.actor, made.id, None, &elsewhere).await).0, "VALIDATION_ERROR");
}

pub(crate) async fn a_refused_change_leaves_nothing_behind(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let made = f.granted(partner, &tenant, "auditor").await;
    let state = "SELECT (SELECT seq FROM change_counter) * 1000000 + (SELECT count(*) FROM link_history) * 10000 \
         + (SELECT count(*) FROM change_log) * 100 + (SELECT count(*) FROM audit_outbox)";
    let before = f.count(state).await;
    let escalation = change(json!({"custom_permissions": {"billing.write": true}}));
    assert_eq!(refused(f.admin.update_link(&f.actor, made.id, None, &escalation).await).0, "PERMISSION_ESCALATION");
    assert_eq!(refused(f.grant(&link(partner, &tenant, "auditor")).await).0, "CONFLICT");
    assert_eq!(f.count(state).await, before);
}

pub(crate) async fn an_ended_full_role_makes_room(f: Arc<Fixture>) {
    let (one, other, tenant) = (f.partner("one").await, f.partner("other").await, f.tenant("t").await);
    let first = f.granted(one, &tenant, "msp_full").await;
    let (code, message) = refused(f.grant(&link(other, &tenant, "enterprise_hq")).await);
    assert_eq!(code, "CONFLICT");
    assert!(message.contains(&first.id.to_string()), "{message}");
    // One that is no full role, or not active, is in nobody's way.
    let second = f.granted(other, &tenant, "msp_support").await;
    let (code, _) =
        refused(f.admin.update_link(&f.actor, second.id, None, &change(json!({"access_role": "msp_full"}))).await);
    assert_eq!(code, "CONFLICT");

    let past = change(json!({"start_date": "2020-01-01", "end_date": "2021-01-01"}));
    f.admin.update_link(&f.actor, first.id, None, &past).await.unwrap();
    let widened = f.admin.update_link(&f.actor, second.id, None, &change(json!({"access_role": "msp_full"}))).await;
    let seq = widened.unwrap().change.seq;
    let superseded = f.admin.link(first.id).await.unwrap();
    assert!(!superseded.terms.is_active);
    let last = f.admin.history(first.id, Page::default()).await.unwrap().pop().unwrap();
    assert_eq!((last.change.as_str(), last.version), ("superseded", 3));
    assert_eq!(f.count(&format!("SELECT count(*) FROM link_history WHERE seq = {seq}")).await, 2, "one transaction");
}

pub(crate) async fn only_one_of_many_writers_gets_the_full_role(f: Arc<Fixture>) {
    const WRITERS: usize = 8;
    for round in 0..3 {
        let tenant = f.tenant(&format!("contested-{round}")).await;
        let mut partners = Vec::new();
        for n in 0..WRITERS {
            partners.push(f.partner(&format!("{round}-{n}")).await);
        }
        let barrier = Arc::new(tokio::sync::Barrier::new(WRITERS));
        let mut tasks = Vec::new();
        for (n, partner) in partners.into_iter().enumerate() {
            // A handle each, as if each were a process.
            let admin = Admin::new(&f.another().await, roles(), false);
            let role = if n % 2 == 0 { "msp_full" } else { "enterprise_hq" };
            let (input, actor, barrier) = (link(partner, &tenant, role), f.actor.clone(), Arc::clone(&barrier));
            tasks.push(tokio::spawn(async move {
                barrier.wait().await;
                admin.create_link(&actor, &input).await
            }));
        }
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => won += 1,
                Err(error) => {
                    assert_eq!(error.code().as_str(), "CONFLICT", "{error:?}");
                    assert!(error.to_string().contains("full role"), "{error}");
                }
            }
        }
        assert_eq!(won, 1);
        let active =
            format!("SELECT count(*) FROM partner_tenant_links WHERE managed_tenant_id = '{tenant}' AND is_active");
        assert_eq!(f.count(&active).await, 1);
    }
}

pub(crate) async fn approval_falls_back_where_something_widens(f: Arc<Fixture>) {
    let strict = Admin::new(&f.db, roles(), true);
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let base = LinkInput {
        partner_id: Some(partner.to_string()),
        managed_tenant_id: Some(tenant.to_string()),
        ..change(json!({
            "access_role": "msp_support", "start_date": "2026-01-01", "end_date": "2030-01-01",
            "allowed_cidrs": ["10.0.0.0/8"], "require_mfa": true, "custom_permissions": {"support.write": false}
        }))
    };
    let asked = LinkInput { approval: Some("approved".into()), ..base.clone() };
    assert_eq!(refused(strict.create_link(&f.actor, &asked).await).0, "VALIDATION_ERROR");
    let made = strict.create_link(&f.actor, &base).await.unwrap().value;
    assert_eq!(made.terms.approval, Approval::Pending);

    let approve = change(json!({"approval": "approved"}));
    let cases = [
        (json!({"notes": "n"}), Approval::Approved),
        (json!({"end_date": "2029-01-01"}), Approval::Approved),
        (json!({"allowed_cidrs": ["10.1.0.0/16"]}), Approval::Approved),
        (json!({"custom_permissions": {"support.write": false, "billing.read": false}}), Approval::Approved),
        (json!({"end_date": null}), Approval::Pending),
        (json!({"start_date": "2025-12-31"}), Approval::Pending),
        (json!({"allowed_cidrs": ["10.0.0.0/8"]}), Approval::Pending),
        (json!({"allowed_cidrs": []}), Approval::Pending),
        (json!({"require_mfa": false}), Approval::Pending),
        (json!({"custom_permissions": {}}), Approval::Pending),
        (json!({"access_role": "msp_full"}), Approval::Pending),
        (json!({"is_active": false}), Approval::Approved),
        (json!({"is_active": true}), Approval::Pending),
    ];
    strict.update_link(&f.actor, made.id, None, &approve).await.unwrap();
    for (fields, expected) in cases {
        let after = strict.update_link(&f.actor, made.id, None, &change(fields.clone())).await.unwrap().value;
        assert_eq!(after.terms.approval, expected, "{fields}");
        strict.update_link(&f.actor, made.id, None, &approve).await.unwrap();
    }
    let in_one_breath = change(json!({"end_date": "2040-01-01", "start_date": "2020-01-01", "approval": "approved"}));
    assert_eq!(refused(strict.update_link(&f.actor, made.id, None, &in_one_breath).await).0, "VALIDATION_ERROR");
    // Granted again is new again.
    strict.revoke_link(&f.actor, made.id, None).await.unwrap();
    assert_eq!(strict.create_link(&f.actor, &base).await.unwrap().value.terms.approval, Approval::Pending);
}

pub(crate) async fn revoke_all_revokes_everything_of_one_partner(f: Arc<Fixture>) {
    let (one, other) = (f.partner("one").await, f.partner("other").await);
    for n in 0..5 {
        let tenant = f.tenant(&format!("t{n}")).await;
        f.granted(one, &tenant, "auditor").await;
        f.granted(other, &tenant, "auditor").await;
    }
    let before = f.count("SELECT seq FROM change_counter").await;
    let revoked = f.admin.revoke_all(&f.actor, one).await.unwrap();
    assert_eq!(revoked.value.len(), 5);
    assert_eq!(f.count("SELECT seq FROM change_counter").await, before + 1, "one transaction");
    let active = |partner| LinkFilter { partner: Some(partner), active: Some(true), ..LinkFilter::default() };
    assert_eq!(f.admin.links(&active(one), Page::default()).await.unwrap().len(), 0);
    assert_eq!(f.admin.links(&active(other), Page::default()).await.unwrap().len(), 5);
    assert_eq!(f.admin.revoke_all(&f.actor, one).await.unwrap().change.seq, 0);
    let nobody = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    assert!(matches!(f.admin.revoke_all(&f.actor, nobody).await, Err(StoreError::NotFound { what: "partner", .. })));
}

/// Names and reasons that write on the screen of who reads them, or turn their words round.
pub(crate) async fn what_people_are_shown_holds_no_controls(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let link = link(partner, &tenant, "auditor");
    for (bad, says) in
        [("a\u{1b}[2J", "control"), ("a\u{9b}8m", "control"), ("a\nb", "control"), ("a\u{202e}b", "direction")]
    {
        let told = |found: (&str, String), field: &str| {
            assert_eq!(found.0, "VALIDATION_ERROR", "{}", found.1);
            assert!(found.1.contains(&format!("`{field}`")) && found.1.contains(says), "{}", found.1);
        };
        let name = Some(bad.to_owned());
        let new = TenantInput { tenant_id: Some("new".into()), name: name.clone(), ..TenantInput::default() };
        told(refused(f.admin.create_tenant(&f.actor, &new).await), "name");
        let renamed = TenantInput { name: name.clone(), ..TenantInput::default() };
        told(refused(f.admin.update_tenant(&f.actor, &tenant, None, &renamed).await), "name");
        let renamed = PartnerInput { name: name.clone(), ..PartnerInput::default() };
        told(refused(f.admin.update_partner(&f.actor, partner, None, &renamed).await), "name");
        let new = PartnerInput { home_tenant_id: Some(tenant.to_string()), ..renamed };
        told(refused(f.admin.create_partner(&f.actor, &new).await), "name");
        let user = UserInput {
            sub: Some("u".into()),
            partner_id: Some(partner.to_string()),
            username: name,
            ..UserInput::default()
        };
        told(refused(f.admin.create_user(&f.actor, &user).await), "username");
        told(refused(f.admin.create_link(&Actor::new(bad), &link).await), "actor");
        let suspension =
            SuspensionInput { scope: SuspensionScope::User, issuer: None, subject: "u".into(), reason: bad.into() };
        told(refused(f.admin.suspend(&f.actor, &suspension).await), "reason");
    }
    let lines = LinkInput { notes: Some(Some("one\r\n\ttwo\nthree".into())), ..link };
    let kept = f.grant(&lines).await.unwrap().value;
    assert_eq!(kept.terms.notes.as_deref(), Some("one\r\n\ttwo\nthree"));

    // What an older version took stands in the way of no other change.
    let planted = "UPDATE tenants SET name = 'a' || char(27) WHERE id = 't'";
    let planted = if f.kind == Kind::Postgres { planted.replace("char(", "chr(") } else { planted.to_owned() };
    assert_eq!(f.raw(planted).await.unwrap(), 1);
    let off = TenantInput { status: Some("suspended".into()), ..TenantInput::default() };
    assert_eq!(f.admin.update_tenant(&f.actor, &tenant, None, &off).await.unwrap().value.status, "suspended");
}

pub(crate) async fn partners_tenants_and_users_keep_their_fields(f: Arc<Fixture>) {
    let input: TenantInput = serde_json::from_value(json!({
        "tenant_id": "acme", "name": "ACME", "slug": "acme", "domain": "acme.example", "status": "trial"
    }))
    .unwrap();
    let tenant = f.admin.create_tenant(&f.actor, &input).await.unwrap().value;
    assert_eq!(f.admin.tenant(&tenant.tenant_id).await.unwrap(), tenant);
    assert_eq!(refused(f.admin.create_tenant(&f.actor, &input).await).0, "CONFLICT");
    let cleared = TenantInput { slug: Some(String::new()), status: Some("suspended".into()), ..TenantInput::default() };
    let tenant = f.admin.update_tenant(&f.actor, &tenant.tenant_id, Some(1), &cleared).await.unwrap().value;
    assert_eq!((tenant.slug.as_deref(), tenant.status.as_str(), tenant.stamps.version), (None, "suspended", 2));

    let partner = f.partner("p").await;
    let homeless =
        PartnerInput { name: Some("x".into()), home_tenant_id: Some("nowhere".into()), ..PartnerInput::default() };
    assert_eq!(refused(f.admin.create_partner(&f.actor, &homeless).await).0, "TENANT_NOT_FOUND");
    let moved = PartnerInput { home_tenant_id: Some("acme".into()), ..PartnerInput::default() };
    let after = f.admin.update_partner(&f.actor, partner, None, &moved).await.unwrap().value;
    assert_eq!(after.home_tenant_id.as_str(), "acme");
    f.granted(partner, &f.tenant("managed").await, "auditor").await;
    let back = PartnerInput { home_tenant_id: Some("home-p".into()), ..PartnerInput::default() };
    assert_eq!(refused(f.admin.update_partner(&f.actor, partner, None, &back).await).0, "CONFLICT");

    let user = f.user("https://idp", "u1", partner).await;
    assert_eq!(f.admin.user_by_subject("https://idp", "u1").await.unwrap(), Some(user.clone()));
    assert_eq!(f.admin.user_by_subject("", "u1").await.unwrap(), None);
    let twice = UserInput {
        issuer: Some("https://idp".into()),
        sub: Some("u1".into()),
        partner_id: Some(f.partner("q").await.to_string()),
        ..UserInput::default()
    };
    let (code, message) = refused(f.admin.create_user(&f.actor, &twice).await);
    assert_eq!(code, "CONFLICT");
    assert!(message.contains("issuer and subject"), "{message}");
    let other = UserInput { sub: Some("u2".into()), ..UserInput::default() };
    assert_eq!(refused(f.admin.update_user(&f.actor, user.id, None, &other).await).0, "VALIDATION_ERROR");
    let off = UserInput { is_active: Some(false), ..UserInput::default() };
    assert!(!f.admin.update_user(&f.actor, user.id, None, &off).await.unwrap().value.is_active);
    assert_eq!(f.admin.users(Some(partner), Page::default()).await.unwrap().len(), 1);
    assert_eq!(f.admin.tenants(Page { limit: 2, offset: 1 }).await.unwrap().len(), 2);
    assert_eq!(f.admin.partners(Page::default()).await.unwrap().len(), 2);
}
