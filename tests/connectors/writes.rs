//! Writes reach the right tenant once, and never again once they may have been received.

use std::time::Duration;

use linkgate::{
    connector::rows::{Priority, TicketStatus},
    portal::sources::{Comment, NewTicket, SourceError, TicketChange, WriteError},
    sample::Misbehave,
};
use tokio::time::Instant;

use crate::rig::{PARTNER, Rig, site, soon};

fn new_ticket() -> NewTicket {
    NewTicket {
        subject: "No signal".into(),
        description: "since noon, \"both\" lines".into(),
        priority: Priority::High,
        category: Some("outage_report".into()),
        customer_id: Some("c-1".into()),
        tags: vec!["vip".into(), "fibre".into()],
        notify_customer: Some(true),
        partner_id: uuid::Uuid::from_u128(PARTNER).to_string(),
        user_id: "u-1".into(),
    }
}

#[tokio::test]
async fn a_ticket_is_opened_changed_and_commented_in_its_tenant_alone() {
    let rig = Rig::new().await;
    for (tenant, other, handle) in [("t1", "t2", &rig.isp), ("g2-a", "g2-b", &rig.gen2)] {
        let (before, elsewhere) = (handle.truth(tenant).tickets.len(), handle.truth(other).tickets);
        let site = site(tenant);
        let opened = rig.sources.create_ticket(&site, &new_ticket(), soon()).await.unwrap();
        let raw = handle.truth(tenant).tickets;
        assert_eq!(raw.len(), before + 1);
        let row = &raw[0];
        assert_eq!(opened.ticket_id, row["id"].as_str().unwrap());
        assert_eq!(opened.priority, Some(Priority::High));
        assert_eq!(opened.category.as_deref(), Some("outage_report"));
        for (key, value) in [
            ("subject", "No signal"),
            ("target_type", "partner"),
            ("tenant_id", tenant),
            ("priority", "high"),
            ("partner_id", &new_ticket().partner_id),
        ] {
            assert_eq!(row[key], value, "{key}");
        }
        assert_eq!(row["messages"][0]["body"], "since noon, \"both\" lines");
        assert_eq!(row["context"]["tags"], serde_json::json!(["vip", "fibre"]));
        assert_eq!(row["context"]["notify_customer"], true);
        assert_eq!(row["context"]["created_by_user_id"], "u-1");

        let change = TicketChange {
            status: Some(TicketStatus::Pending),
            priority: None,
            assigned_to: Some("00000000-0000-0000-0000-000000000007".into()),
        };
        let changed = rig.sources.update_ticket(&site, &opened.ticket_id, &change, soon()).await.unwrap();
        assert_eq!((changed.status, changed.priority), (TicketStatus::Pending, Some(Priority::High)));
        let row = &handle.truth(tenant).tickets[0];
        assert_eq!((&row["status"], &row["assigned_to_user_id"]), (&"waiting".into(), &change.assigned_to.into()));

        let comment = Comment { content: "on our way".into(), is_internal: false, notify_customer: None };
        let stored = rig.sources.comment(&site, &opened.ticket_id, &comment, soon()).await.unwrap();
        let row = &handle.truth(tenant).tickets[0];
        assert_eq!(row["messages"][1]["body"], "on our way");
        assert_eq!(stored.comment_id.as_deref(), row["messages"][1]["id"].as_str());
        assert!(stored.updated_at.is_some());

        let asked = handle.requests();
        let internal = Comment { is_internal: true, ..comment };
        let refused = rig.sources.comment(&site, &opened.ticket_id, &internal, soon()).await;
        assert!(
            matches!(&refused, Err(WriteError::NotSent(SourceError::Answer(text))) if text.ends_with("the service has no place for `is_internal`")),
            "{refused:?}"
        );
        assert_eq!(handle.requests(), asked, "the customer would have read it");
        for id in ["no-such-ticket", "../../customers", "."] {
            let missing = rig.sources.update_ticket(&site, id, &TicketChange::default(), soon()).await;
            assert_eq!(missing, Err(WriteError::NotFound), "{id}");
        }
        assert_eq!(handle.truth(other).tickets, elsewhere, "no other tenant is touched");
    }
}

#[tokio::test]
async fn what_may_have_been_received_is_unknown_and_is_sent_once() {
    let rig = Rig::new().await;
    let site = site("t1");
    for (how, expected) in [
        (Misbehave::Fail, "unknown"),
        (Misbehave::Close, "unknown"),
        (Misbehave::Garbage, "unknown"),
        (Misbehave::Html, "unknown"),
        (Misbehave::Redirect, "refused 307"),
        (Misbehave::Slow(Duration::from_secs(10)), "unknown timeout"),
    ] {
        // A pooled connection is there: a stale one is no reason to send twice.
        rig.sources.metrics(&crate::rig::site("t2"), soon()).await.unwrap();
        rig.isp.misbehave("t1", how);
        let before = rig.isp.requests();
        let until = Instant::now() + Duration::from_millis(500);
        let found = match rig.sources.create_ticket(&site, &new_ticket(), until).await {
            Err(WriteError::Unknown(SourceError::Timeout)) => "unknown timeout".to_owned(),
            Err(WriteError::Unknown(_)) => "unknown".to_owned(),
            Err(WriteError::Refused(status)) => format!("refused {status}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{how:?}");
        assert_eq!(rig.isp.requests() - before, 1, "{how:?}");
    }
    rig.isp.misbehave("t1", None);
    let unknown_type = NewTicket { category: Some("gardening".into()), ..new_ticket() };
    assert_eq!(rig.sources.create_ticket(&site, &unknown_type, soon()).await, Err(WriteError::Refused(422)));
    let late = rig.sources.create_ticket(&site, &new_ticket(), Instant::now()).await;
    assert_eq!(late, Err(WriteError::NotSent(SourceError::Timeout)));

    let rig = Rig::with("[upstreams.isp.tenants]\n\"t-gone\" = \"http://127.0.0.1:1\"\n").await;
    let gone = rig.sources.create_ticket(&crate::rig::site("t-gone"), &new_ticket(), soon()).await;
    assert!(matches!(gone, Err(WriteError::NotSent(SourceError::Unavailable(_)))), "{gone:?}");
}
