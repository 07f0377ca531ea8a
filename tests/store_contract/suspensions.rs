//! The emergency overlay.

use std::sync::Arc;

use linkgate::{
    domain::{Gate, Millis},
    store::{
        Reading, SuspensionScope,
        admin::{Page, SuspensionInput},
    },
};

use crate::fixture::{Fixture, eventually, refused};

fn what(scope: SuspensionScope, subject: &str) -> SuspensionInput {
    SuspensionInput { scope, issuer: None, subject: subject.to_owned(), reason: "incident 7".into() }
}

pub(crate) async fn the_overlay_covers_and_lifts_without_touching_rows(f: Arc<Fixture>) {
    let (partner, other) = (f.partner("p").await, f.partner("q").await);
    let (t, u) = (f.tenant("t").await, f.tenant("u").await);
    let link = f.granted(partner, &t, "auditor").await;
    f.granted(partner, &u, "auditor").await;
    f.granted(other, &t, "auditor").await;
    let directory = f.fresh_directory().await;
    // (suspended, which of (p, t), (p, u), (q, t) it closes)
    let cases = [
        (what(SuspensionScope::Link, &link.id.to_string().to_uppercase()), [true, false, false]),
        (what(SuspensionScope::Tenant, "t"), [true, false, true]),
        (what(SuspensionScope::Partner, &partner.to_string()), [true, true, false]),
        (what(SuspensionScope::All, ""), [true, true, true]),
    ];
    for (input, closed) in cases {
        let written = f.admin.suspend(&f.actor, &input).await.unwrap();
        assert_eq!(refused(f.admin.suspend(&f.actor, &input).await).0, "CONFLICT");
        directory.notice(&written.change).await;
        for ((partner, tenant), closed) in [(partner, "t"), (partner, "u"), (other, "t")].into_iter().zip(closed) {
            let portfolio = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
            let gate = portfolio.link(tenant).unwrap().closed_gate(Millis::now());
            assert_eq!(gate, closed.then_some(Gate::Suspension), "{input:?} {tenant}");
        }
        let lifted = f.admin.restore(&f.actor, written.value.id).await.unwrap();
        directory.notice(&lifted.change).await;
        let portfolio = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
        assert_eq!(portfolio.link("t").unwrap().closed_gate(Millis::now()), None);
        assert_eq!(portfolio.link("t").unwrap().link.version.0, 1, "the row itself was never touched");
    }
    assert!(f.admin.suspensions(Page::default()).await.unwrap().is_empty());
    for bad in [what(SuspensionScope::All, "x"), what(SuspensionScope::Partner, "x"), what(SuspensionScope::Jti, "")] {
        assert_eq!(refused(f.admin.suspend(&f.actor, &bad).await).0, "VALIDATION_ERROR");
    }
}

pub(crate) async fn subjects_are_known_everywhere_within_the_bound(f: Arc<Fixture>) {
    let directory = f.directory();
    assert!(directory.suspended_subject("i", "u", None, None), "before the first poll nobody is let in");
    eventually("the directory is fresh", || directory.is_fresh()).await;
    assert!(!directory.suspended_subject("i", "u", Some("s"), Some("j")));

    let of_one_issuer = SuspensionInput { issuer: Some("i".into()), ..what(SuspensionScope::User, "u") };
    let user = f.admin.suspend(&f.actor, &of_one_issuer).await.unwrap();
    eventually("the user is suspended", || directory.suspended_subject("i", "u", None, None)).await;
    assert!(!directory.suspended_subject("k", "u", None, None), "of another issuer it is someone else");
    let any = f.admin.suspend(&f.actor, &what(SuspensionScope::User, "u")).await.unwrap();
    directory.notice(&any.change).await;
    assert!(directory.suspended_subject("k", "u", None, None));
    for (scope, session, jti) in [(SuspensionScope::Session, Some("s"), None), (SuspensionScope::Jti, None, Some("j"))]
    {
        let subject = session.or(jti).unwrap();
        let written = f.admin.suspend(&f.actor, &what(scope, subject)).await.unwrap();
        directory.notice(&written.change).await;
        assert!(directory.suspended_subject("i", "someone", session, jti));
        let lifted = f.admin.restore(&f.actor, written.value.id).await.unwrap();
        directory.notice(&lifted.change).await;
        assert!(!directory.suspended_subject("i", "someone", session, jti));
    }
    // Lifting one lifts only that one.
    let lifted = f.admin.restore(&f.actor, any.value.id).await.unwrap();
    directory.notice(&lifted.change).await;
    assert!(directory.suspended_subject("i", "u", None, None));
    f.admin.restore(&f.actor, user.value.id).await.unwrap();
    eventually("the user is back", || !directory.suspended_subject("i", "u", None, None)).await;
}
