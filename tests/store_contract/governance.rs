//! Four eyes, ends that are told once, and what a suspension would cover.

use std::sync::Arc;

use linkgate::{
    domain::{Approval, ApprovalRules, LinkId, Millis, link_rules::LinkInput},
    store::{
        Actor, Admin, LinkRecord, StoreError, SuspensionScope,
        admin::{Page, Reach, SubscriptionInput, SuspensionInput},
        ending::{announce_ends, ending},
    },
};
use serde_json::json;

use crate::fixture::{Fixture, change, eventually, link, refused, roles};

const DAY: i64 = 86_400_000;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn strict(f: &Fixture) -> Admin {
    Admin::new(&f.db, roles(), ApprovalRules { required: true, four_eyes: true })
}

fn person(name: &str, account: &str) -> Actor {
    Actor { account: Some(account.to_owned()), ..Actor::new(name) }
}

async fn says(admin: &Admin, actor: &Actor, id: LinkId, word: &str) -> Result<LinkRecord, StoreError> {
    Ok(admin.update_link(actor, id, None, &change(json!({"approval": word}))).await?.value)
}

pub(crate) async fn everyone_who_widened_is_barred_from_approving(f: Arc<Fixture>) {
    let admin = strict(&f);
    let (ann, bob, cyd) = (person("ann", "cli:ann"), person("bob", "cli:bob"), person("cyd", "cli:cyd"));
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let made = admin.create_link(&ann, &link(partner, &tenant, "auditor")).await.unwrap().value;
    assert_eq!((made.terms.approval, &made.sign_off.approved_by), (Approval::Pending, &None));
    for own in [&ann, &person("x", "cli:ann"), &person("ann", "cli:x")] {
        let (code, message) = refused(says(&admin, own, made.id, "approved").await);
        assert_eq!(code, "VALIDATION_ERROR");
        assert!(message.contains("four eyes"), "{message}");
    }
    // A second pair of hands does not clear the first: who waits for a small change approves nothing of their own.
    let wider = change(json!({"access_role": "msp_support"}));
    admin.update_link(&bob, made.id, None, &wider).await.unwrap();
    assert!(says(&admin, &ann, made.id, "approved").await.is_err());
    assert!(says(&admin, &bob, made.id, "approved").await.is_err());
    let done = says(&admin, &cyd, made.id, "approved").await.unwrap();
    let sign_off = done.sign_off.clone();
    assert_eq!((sign_off.approved_by.as_deref(), sign_off.approved_at), (Some("cyd"), Some(done.stamps.updated_at)));
    assert_eq!(sign_off.widened_by.unwrap(), ["ann", "cli:ann", "bob", "cli:bob"]);
    assert_eq!(admin.link(made.id).await.unwrap(), done, "as it was written");
    // Narrowing keeps the approval, revoking too; switching on again asks anew, and bars who did it.
    let narrower = admin.update_link(&ann, made.id, None, &change(json!({"require_mfa": true}))).await.unwrap().value;
    assert_eq!(narrower.sign_off, done.sign_off);
    admin.revoke_link(&ann, made.id, None).await.unwrap();
    let again = admin.update_link(&cyd, made.id, None, &change(json!({"is_active": true}))).await.unwrap().value;
    assert_eq!((again.terms.approval, &again.sign_off.approved_by), (Approval::Pending, &None));
    assert!(says(&admin, &cyd, made.id, "approved").await.is_err());
    says(&admin, &cyd, made.id, "rejected").await.unwrap();
    assert!(says(&admin, &cyd, made.id, "approved").await.is_err(), "a rejection clears nobody");
    says(&admin, &ann, made.id, "approved").await.unwrap();

    // By whose approval, in the history and in the audit record.
    let history = admin.history(made.id, Page::default()).await.unwrap();
    let approved: Vec<_> = history.iter().filter_map(|change| change.after["approved_by"].as_str()).collect();
    assert!(approved.contains(&"cyd") && approved.last() == Some(&"ann"), "{approved:?}");
    for (action, count) in [("link.approve", 2), ("link.reject", 1)] {
        let sql = format!("SELECT count(*) FROM audit_outbox WHERE CAST(body AS TEXT) LIKE '%\"{action}\"%'");
        assert_eq!(f.count(&sql).await, count, "{action}");
    }
    // Granted again is new again; an import is no way around.
    admin.revoke_link(&ann, made.id, None).await.unwrap();
    let base = LinkInput { approval: Some("approved".into()), ..link(partner, &tenant, "auditor") };
    assert!(admin.create_link(&ann, &base).await.is_err());
    // Whoever lets terms in at once, where nobody is asked, is the one who approved them.
    let other = f.tenant("u").await;
    let direct = f.granted(partner, &other, "auditor").await;
    assert_eq!(direct.sign_off.approved_by.as_deref(), Some("cli:tester"));
}

pub(crate) async fn rows_from_before_bar_their_writers(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let pending = LinkInput { approval: Some("pending".into()), ..link(partner, &tenant, "auditor") };
    let old = f.grant(&pending).await.unwrap().value;
    // As the version before wrote it.
    let sql = "UPDATE partner_tenant_links SET version = version + 1, widened_by = NULL, approved_by = NULL, \
               approved_at = NULL, updated_by = 'cli:changer'";
    f.raw(sql).await.unwrap();
    let admin = strict(&f);
    assert_eq!(admin.link(old.id).await.unwrap().sign_off.widened_by, None);
    for writer in ["cli:tester", "cli:changer"] {
        assert!(says(&admin, &Actor::new(writer), old.id, "approved").await.is_err(), "{writer}");
    }
    let done = says(&admin, &Actor::new("cli:other"), old.id, "approved").await.unwrap();
    assert_eq!(done.sign_off.approved_by.as_deref(), Some("cli:other"));
    assert!(f.raw("UPDATE partner_tenant_links SET version = version + 1, approved_by = NULL").await.is_err());
}

pub(crate) async fn an_approval_of_what_changed_meanwhile_is_refused(f: Arc<Fixture>) {
    let admin = strict(&f);
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let made = admin.create_link(&Actor::new("a"), &link(partner, &tenant, "auditor")).await.unwrap().value;
    let approve = change(json!({"approval": "approved"}));
    let read_at = made.stamps.version;
    // Many at once: one widens, others approve what they have read.
    let mut tasks = Vec::new();
    for n in 0..6 {
        let (admin, approve, id) = (strict(&f), approve.clone(), made.id);
        tasks.push(tokio::spawn(async move {
            if n == 0 {
                let wider = change(json!({"access_role": "msp_full"}));
                admin.update_link(&Actor::new("a"), id, None, &wider).await.map(drop)
            } else {
                admin.update_link(&Actor::new(format!("b{n}")), id, Some(read_at), &approve).await.map(drop)
            }
        }));
    }
    for task in tasks {
        if let Err(error) = task.await.unwrap() {
            assert_eq!(error.code().as_str(), "CONFLICT", "{error}");
        }
    }
    let after = admin.link(made.id).await.unwrap();
    assert_eq!(after.terms.approval, Approval::Pending, "the wider terms were approved by nobody");
    assert_eq!(after.terms.access_role.as_str(), "msp_full");
}

pub(crate) async fn a_delegated_link_ends_with_its_parent_and_is_told_once(f: Arc<Fixture>) {
    let now = Millis::now();
    let at = |days: i64| Some(Some(Millis(now.0 + days * DAY - 60_000).to_string()));
    let tenant = f.tenant("t").await;
    let (top, sub, third) = (f.partner("top").await, f.partner("sub").await, f.partner("third").await);
    let long_ago = Some("2024-01-01".to_owned());
    let root = LinkInput { start_date: long_ago.clone(), end_date: at(29), ..link(top, &tenant, "msp_support") };
    let root = f.grant(&root).await.unwrap().value;
    let onward = |partner, parent: LinkId, end| LinkInput {
        start_date: long_ago.clone(),
        parent_link_id: Some(Some(parent.to_string())),
        end_date: end,
        ..link(partner, &tenant, "delegate")
    };
    let child = f.grant(&onward(sub, root.id, None)).await.unwrap().value;
    let below = f.grant(&onward(third, child.id, at(6))).await.unwrap().value;
    let soon = |days| {
        let db = f.db.clone();
        async move { ending(&db, days, now).await.unwrap().into_iter().map(|link| link.link_id).collect::<Vec<_>>() }
    };
    assert_eq!(soon(30).await.len(), 3);
    assert_eq!(soon(30).await[0], below.id, "the next to end first");
    assert_eq!(soon(7).await, [below.id]);
    assert!(soon(5).await.is_empty());
    let gauge = prometheus::IntGauge::new("soon", "links").unwrap();
    let watch = tokio::spawn(linkgate::app::expiry::watch(f.db.clone(), gauge.clone()));
    eventually("the gauge counts it", || gauge.get() == 1).await;
    watch.abort();
    let found = ending(&f.db, 30, now).await.unwrap();
    let of_child = found.iter().find(|link| link.link_id == child.id).unwrap();
    assert_eq!((Some(of_child.end_date), of_child.days_left(now)), (root.terms.end_date, 29));

    for partner in [top, sub, third] {
        let input = SubscriptionInput { url: Some("https://hooks.example/x".into()), ..SubscriptionInput::default() };
        f.admin.create_subscription(&f.actor, partner, SECRET, &input).await.unwrap();
    }
    let days = [30, 7, 1];
    let told_by_all = async |now: Millis| {
        // Four replicas at once, each on connections of its own, as after a restart.
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let db = f.another().await;
            tasks.push(tokio::spawn(async move {
                let told = announce_ends(&db, &days, now).await.unwrap();
                db.close().await;
                told
            }));
        }
        let mut told = 0;
        for task in tasks {
            told += task.await.unwrap();
        }
        told
    };
    // 29, 29 and 6 days ahead: the last one is told at 7, not at 30 as well.
    assert_eq!(told_by_all(now).await, 3);
    assert_eq!(told_by_all(now).await, 0, "however often they start anew");
    // At 7 and at 1 once each for the two that hang on the parent's end; the third ends before that.
    let mut later = Vec::new();
    for day in 1..29 {
        later.push(told_by_all(Millis(now.0 + day * DAY)).await);
    }
    assert_eq!(later.iter().sum::<usize>(), 1 + 2 + 2, "{later:?}");
    assert_eq!((later[21], later[27], later[4]), (2, 2, 1), "{later:?}");
    // A parent that is revoked ends nothing any more: there is nothing left to end.
    f.revoke(root.id).await;
    assert_eq!(soon(30).await, [below.id], "its own end stands; whether it is live is asked when it is told");
}

pub(crate) async fn what_a_suspension_would_cover_is_counted(f: Arc<Fixture>) {
    let (top, sub) = (f.partner("top").await, f.partner("sub").await);
    let (t, u) = (f.tenant("t").await, f.tenant("u").await);
    let root = f.granted(top, &t, "msp_support").await;
    f.granted(top, &u, "auditor").await;
    f.grant(&LinkInput { parent_link_id: Some(Some(root.id.to_string())), ..link(sub, &t, "delegate") }).await.unwrap();
    let over = LinkInput {
        end_date: Some(Some("2020-01-01".into())),
        start_date: Some("2019-01-01".into()),
        ..link(sub, &u, "auditor")
    };
    f.grant(&over).await.unwrap();
    f.user("i", "someone", top).await;
    f.user("k", "someone", sub).await;
    let reach = async |scope, issuer: Option<&str>, subject: &str| {
        let issuer = issuer.map(str::to_owned);
        f.admin.reach(&SuspensionInput { scope, issuer, subject: subject.to_owned(), reason: "r".into() }).await
    };
    let covers = |live_links, partners, tenants| Reach { live_links, partners, tenants, users: None };
    let of_user = |users| Reach { users: Some(users), ..Reach::default() };
    for (scope, issuer, subject, expected) in [
        (SuspensionScope::All, None, String::new(), covers(3, 2, 2)),
        (SuspensionScope::Tenant, None, "t".to_owned(), covers(2, 2, 1)),
        (SuspensionScope::Tenant, None, "u".to_owned(), covers(1, 1, 1)),
        (SuspensionScope::Partner, None, top.to_string(), covers(3, 2, 2)),
        (SuspensionScope::Partner, None, sub.to_string(), covers(1, 1, 1)),
        (SuspensionScope::Link, None, root.id.to_string(), covers(2, 2, 1)),
        (SuspensionScope::User, None, "someone".to_owned(), of_user(2)),
        (SuspensionScope::User, Some("i"), "someone".to_owned(), of_user(1)),
        (SuspensionScope::User, None, "nobody".to_owned(), of_user(0)),
    ] {
        assert_eq!(reach(scope, issuer, &subject).await.unwrap(), expected, "{scope:?} {subject}");
    }
    let nobody = "00000000-0000-4000-8000-000000000001";
    for (scope, subject) in
        [(SuspensionScope::Tenant, "v"), (SuspensionScope::Partner, nobody), (SuspensionScope::Link, nobody)]
    {
        assert!(matches!(reach(scope, None, subject).await, Err(StoreError::NotFound { .. })), "{scope:?}");
    }
}
