//! Webhooks: subscriptions, events that are committed with what they tell of, and the queue of deliveries.

use std::sync::Arc;

use linkgate::{
    domain::{EventType, LinkId, Millis, Secret, link_rules::LinkInput},
    identity::{Vault, VaultKey},
    store::{
        StoreError,
        admin::{Page, Redeliver, SubscriptionInput, TenantInput},
        deliveries::{DeliveryFilter, DeliveryQueue, DeliveryRecord, DeliveryStatus, Tried},
        ending::{announce_ends, forget_notices},
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    alerts::subscribe,
    fixture::{Fixture, change, link},
};

const DAY: i64 = 86_400_000;

async fn deliveries(fixture: &Fixture) -> Vec<DeliveryRecord> {
    let mut all = fixture.admin.deliveries(&DeliveryFilter::default(), Page::default()).await.unwrap();
    all.sort_by_key(|delivery| delivery.id);
    all
}

async fn told(fixture: &Fixture) -> Vec<String> {
    deliveries(fixture).await.into_iter().map(|one| one.event.replace("partner.tenant.", "")).collect()
}

pub(crate) async fn subscriptions_keep_their_fields_and_never_show_a_secret(fixture: Arc<Fixture>) {
    let partner = fixture.partner("p").await;
    let made = subscribe(&fixture, partner).await;
    assert_eq!(made.events, EventType::ALL);
    let (admin, actor) = (&fixture.admin, &fixture.actor);
    let input = SubscriptionInput {
        events: Some(vec![EventType::LinkRevoked, EventType::SlaBreach, EventType::SlaBreach]),
        enabled: Some(false),
        rotate: Some(("whsec_AAAA".into(), Millis(7))),
        ..SubscriptionInput::default()
    };
    let changed = admin.update_subscription(actor, made.id, Some(1), &input).await.unwrap().value;
    assert_eq!(changed.events, [EventType::SlaBreach, EventType::LinkRevoked]);
    assert_eq!((changed.enabled, changed.previous_secret_until, changed.stamps.version), (false, Some(Millis(7)), 2));
    assert_eq!(admin.subscription(made.id).await.unwrap(), changed);
    let stale = admin.update_subscription(actor, made.id, Some(1), &input).await.unwrap_err();
    assert_eq!(stale.code().as_str(), "CONFLICT");
    let empty = SubscriptionInput { events: Some(Vec::new()), ..SubscriptionInput::default() };
    assert!(matches!(admin.update_subscription(actor, made.id, None, &empty).await, Err(StoreError::Refused(_))));

    let (url, secret) = DeliveryQueue::new(&fixture.db).target(made.id).await.unwrap();
    assert_eq!((url.as_str(), secret.as_str()), ("https://hooks.example/in", "whsec_AAAA"));
    let column = match fixture.kind {
        crate::fixture::Kind::Sqlite => "body",
        crate::fixture::Kind::Postgres => "body::text",
    };
    let leaked = fixture.count(&format!("SELECT count(*) FROM audit_outbox WHERE {column} LIKE '%whsec%'")).await;
    assert_eq!(leaked, 0, "a secret is in an audit record");
    let records = fixture.count(&format!("SELECT count(*) FROM audit_outbox WHERE {column} LIKE '%webhook.%'")).await;
    assert_eq!(records, 2);

    admin.delete_subscription(actor, made.id, None).await.unwrap();
    assert!(matches!(admin.subscription(made.id).await, Err(StoreError::NotFound { .. })));
    for _ in 0..20 {
        subscribe(&fixture, partner).await;
    }
    let input = SubscriptionInput { url: Some("https://hooks.example/".into()), ..SubscriptionInput::default() };
    let many = admin.create_subscription(actor, partner, "whsec_AAAA", &input).await.unwrap_err();
    assert_eq!(many.code().as_str(), "CONFLICT", "bounded");
}

fn vault(kids: &[&str]) -> Vault {
    let key = |kid: &&str| VaultKey { kid: (*kid).to_owned(), secret: Secret::new(kid.repeat(32).into_bytes()) };
    Vault::new(&kids.iter().map(key).collect::<Vec<_>>())
}

pub(crate) async fn secrets_are_sealed_at_rest_and_sealed_anew_with_another_key(fixture: Arc<Fixture>) {
    let partner = fixture.partner("p").await;
    let (actor, queue) = (&fixture.actor, DeliveryQueue::new(&fixture.db));
    let plain = async || {
        let like = "LIKE '%whsec_%'";
        let sql = format!("SELECT count(*) FROM webhook_subscriptions WHERE secret {like} OR previous_secret {like}");
        fixture.count(&sql).await
    };
    let opened = async |with: &[&str], id| {
        let (_, text) = queue.target(id).await.unwrap();
        vault(with).open(id, &text).map_err(|error| error.to_string())
    };
    // Written before there was a key: readable ever after.
    let old = subscribe(&fixture, partner).await.id;
    assert_eq!(plain().await, 1);
    assert!(opened(&["one"], old).await.unwrap().starts_with("whsec_"));

    let one = fixture.admin.clone().with_vault(vault(&["one"]));
    let input = SubscriptionInput { url: Some("https://hooks.example/in".into()), ..SubscriptionInput::default() };
    let made = one.create_subscription(actor, partner, "whsec_Qk9P", &input).await.unwrap().value.id;
    assert_eq!(plain().await, 1, "only the old one");
    assert_eq!(opened(&["one"], made).await.unwrap(), "whsec_Qk9P");
    assert!(opened(&["two"], made).await.unwrap_err().contains("the key `one`"));
    let rotate = SubscriptionInput { rotate: Some(("whsec_Qk9Q".into(), Millis(i64::MAX))), ..Default::default() };
    for id in [old, made] {
        one.update_subscription(actor, id, None, &rotate).await.unwrap();
    }
    assert_eq!(plain().await, 1, "the secret before the rotation, of the old one");

    // Another key in front; both secrets of both are sealed with it, and the first key can go.
    let missing = fixture.admin.clone().with_vault(vault(&["two"])).reseal_subscriptions(actor).await.unwrap_err();
    assert!(missing.to_string().contains("put it back into the list"), "{missing}");
    let both = fixture.admin.clone().with_vault(vault(&["two", "one"]));
    let done = both.reseal_subscriptions(actor).await.unwrap().value;
    assert_eq!((done.subscriptions, done.unchanged, plain().await), (2, 0, 0));
    let done = both.reseal_subscriptions(actor).await.unwrap();
    assert_eq!((done.value.subscriptions, done.value.unchanged, done.change.seq), (0, 2, 0), "nothing is left to do");
    assert_eq!(opened(&["two"], made).await.unwrap(), "whsec_Qk9Q");

    // A delivery is signed with both, as long as the old one signs too.
    let tenant = fixture.tenant("t-1").await;
    let link = fixture.granted(partner, &tenant, "msp_full").await.id;
    fixture.revoke(link).await;
    let now = Millis::now();
    for one in deliveries(&fixture).await {
        let job = queue.claim(one.id, now, Millis(now.0 + 1_000)).await.unwrap().unwrap();
        let open = |text: &str| vault(&["two"]).open(job.subscription_id, text).unwrap();
        assert_eq!(open(&job.secret), "whsec_Qk9Q");
        assert_ne!(open(&job.previous_secret.unwrap()), "whsec_Qk9Q");
    }
    let column = if fixture.kind == crate::fixture::Kind::Postgres { "body::text" } else { "body" };
    let told = format!("SELECT count(*) FROM audit_outbox WHERE {column} LIKE '%whsec%' OR {column} LIKE '%sealed:%'");
    assert_eq!(fixture.count(&told).await, 0, "a secret is in an audit record");
}

pub(crate) async fn an_event_is_committed_with_what_it_tells_of(fixture: Arc<Fixture>) {
    let (partner, other) = (fixture.partner("p").await, fixture.partner("other").await);
    let tenant = fixture.tenant("t-1").await;
    let made = fixture.granted(partner, &tenant, "msp_billing").await;
    fixture.granted(other, &tenant, "auditor").await;
    fixture.revoke(made.id).await;
    assert!(told(&fixture).await.is_empty(), "nobody has subscribed");

    subscribe(&fixture, partner).await;
    let (admin, actor) = (&fixture.admin, &fixture.actor);
    fixture.granted(partner, &tenant, "msp_billing").await;
    assert_eq!(told(&fixture).await, ["status_changed"], "active again");
    admin.update_link(actor, made.id, None, &change(json!({"approval": "rejected"}))).await.unwrap();
    admin.update_link(actor, made.id, None, &change(json!({"notes": "nothing that is told"}))).await.unwrap();
    let status = TenantInput { status: Some("suspended".into()), ..TenantInput::default() };
    admin.update_tenant(actor, &tenant, None, &status).await.unwrap();
    let name = TenantInput { name: Some("Another name".into()), ..TenantInput::default() };
    admin.update_tenant(actor, &tenant, None, &name).await.unwrap();
    fixture.revoke(made.id).await;
    let expected = ["status_changed", "status_changed", "status_changed", "link_revoked"];
    assert_eq!(told(&fixture).await, expected, "and the other partner has no subscription");
    // Not active: of no interest to the partner any more.
    let status = TenantInput { status: Some("active".into()), ..TenantInput::default() };
    admin.update_tenant(actor, &tenant, None, &status).await.unwrap();
    assert_eq!(told(&fixture).await.len(), 4);

    // A change that is refused tells nobody.
    let refused = admin.update_link(actor, made.id, None, &change(json!({"end_date": "1999-01-01"}))).await;
    assert!(refused.is_err());
    assert_eq!(told(&fixture).await.len(), 4);

    let queue = DeliveryQueue::new(&fixture.db);
    let now = Millis::now();
    let last = deliveries(&fixture).await.pop().unwrap();
    let job = queue.claim(last.id, now, Millis(now.0 + 1_000)).await.unwrap().unwrap();
    let data: Value = serde_json::from_str(&job.data).unwrap();
    assert_eq!(data["tenant_id"], "t-1");
    assert_eq!(data["tenant_name"], "Another name");
    assert_eq!(data["link_id"], made.id.to_string());
    assert!(data["revoked_at"].is_string());
}

/// What was told since the last call: tenant's partner by its subscription, event, and what changed.
async fn told_to(fixture: &Fixture, known: &mut usize) -> Vec<(Uuid, String, Value)> {
    let all = deliveries(fixture).await;
    let mut told = Vec::new();
    for one in all.iter().skip(*known) {
        let now = Millis::now();
        let queue = DeliveryQueue::new(&fixture.db);
        let job = queue.claim(one.id, now, Millis(now.0 + 60_000)).await.unwrap().unwrap();
        let data: Value = serde_json::from_str(&job.data).unwrap();
        told.push((one.subscription_id, one.event.replace("partner.tenant.", ""), data));
    }
    *known = all.len();
    told
}

/// A link that was delegated onward ends, waits and comes back with those above it, and its partner hears of it.
pub(crate) async fn partners_below_a_link_are_told_what_becomes_of_theirs(fixture: Arc<Fixture>) {
    let tenant = fixture.tenant("t").await;
    let (top, middle, low) = (fixture.partner("top").await, fixture.partner("mid").await, fixture.partner("low").await);
    let delegated = |partner, parent: LinkId| LinkInput {
        parent_link_id: Some(Some(parent.to_string())),
        custom_permissions: serde_json::from_value(json!({"support.read": true})).unwrap(),
        ..link(partner, &tenant, "delegate")
    };
    let root = fixture.granted(top, &tenant, "msp_support").await;
    let child = fixture.grant(&delegated(middle, root.id)).await.unwrap().value;
    let grandchild = fixture.grant(&delegated(low, child.id)).await.unwrap().value;
    let (of_middle, of_low) = (subscribe(&fixture, middle).await.id, subscribe(&fixture, low).await.id);
    let mut known = 0;
    let (admin, actor) = (&fixture.admin, &fixture.actor);

    fixture.revoke(root.id).await;
    let told = told_to(&fixture, &mut known).await;
    assert_eq!(
        told.iter().map(|(to, event, _)| (*to, event.as_str())).collect::<Vec<_>>(),
        [(of_middle, "link_revoked"), (of_low, "link_revoked")]
    );
    for ((_, _, data), own) in told.iter().zip([child.id, grandchild.id]) {
        assert_eq!(data["link_id"], own.to_string(), "one's own link is named");
        assert!(data["revoked_at"].is_string() && !data.to_string().contains(&root.id.to_string()), "{data}");
    }

    // Closed twice: that one of the two opens again is no news, nor that the other does not.
    fixture.revoke(child.id).await;
    let told = told_to(&fixture, &mut known).await;
    assert_eq!(told.len(), 1, "the partner's own link, once; below it nothing changed: {told:?}");
    fixture.granted(top, &tenant, "msp_support").await;
    assert!(told_to(&fixture, &mut known).await.is_empty());
    fixture.grant(&delegated(middle, root.id)).await.unwrap();
    let told = told_to(&fixture, &mut known).await;
    let words = |data: &Value| ["field", "from", "to"].map(|name| data[name].to_string());
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((told[1].0, &*told[1].1), (of_low, "status_changed"));
    assert_eq!(words(&told[1].2), ["\"is_active\"", "false", "true"]);

    for (to, from) in [("pending", "approved"), ("rejected", "pending"), ("approved", "rejected")] {
        admin.update_link(actor, root.id, None, &change(json!({"approval": to}))).await.unwrap();
        let told = told_to(&fixture, &mut known).await;
        assert_eq!(told.iter().map(|(to, ..)| *to).collect::<Vec<_>>(), [of_middle, of_low]);
        for (_, event, data) in &told {
            assert_eq!(
                (&**event, words(data)),
                ("status_changed", ["\"approval\"".into(), format!("\"{from}\""), format!("\"{to}\"")])
            );
        }
    }
    // What changes nothing for those below is told to nobody.
    admin.update_link(actor, root.id, None, &change(json!({"notes": "n"}))).await.unwrap();
    assert!(told_to(&fixture, &mut known).await.is_empty());
    assert_eq!(admin.link(grandchild.id).await.unwrap().stamps.version, 9, "though its version was raised every time");
}

pub(crate) async fn a_delivery_is_claimed_by_one_and_tried_until_it_is_done(fixture: Arc<Fixture>) {
    let partner = fixture.partner("p").await;
    let tenant = fixture.tenant("t-1").await;
    let made = fixture.granted(partner, &tenant, "msp_full").await;
    let subscription = subscribe(&fixture, partner).await;
    fixture.revoke(made.id).await;
    let queue = DeliveryQueue::new(&fixture.db);
    let now = Millis::now();
    let due = queue.due(now, 10, 2, &[]).await.unwrap();
    assert_eq!(due.iter().map(|(_, of)| *of).collect::<Vec<_>>(), [subscription.id]);
    let id = due[0].0;

    let mut tasks = Vec::new();
    for _ in 0..8 {
        let db = fixture.another().await;
        tasks.push(tokio::spawn(async move {
            let claimed = DeliveryQueue::new(&db).claim(id, now, Millis(now.0 + 1_000)).await.unwrap();
            db.close().await;
            claimed
        }));
    }
    let mut jobs = Vec::new();
    for task in tasks {
        jobs.extend(task.await.unwrap());
    }
    assert_eq!(jobs.len(), 1, "one of many claims it");
    let job = jobs.remove(0);
    assert!(queue.due(now, 10, 2, &[]).await.unwrap().is_empty(), "leased");
    assert!(!format!("{job:?}").contains("whsec"));

    // The lease runs out, as if the process had died: somebody else has it, and the first can write nothing.
    let later = Millis(now.0 + 1_000);
    let second = queue.claim(id, later, Millis(later.0 + 1_000)).await.unwrap().unwrap();
    assert!(!queue.finish(&job, later, &Tried::Delivered { status: 200 }).await.unwrap());
    let again = Tried::Again { at: Millis(later.0 + 500), status: Some(503), error: "busy".into() };
    assert!(queue.finish(&second, later, &again).await.unwrap());
    let seen = deliveries(&fixture).await.remove(0);
    assert_eq!((seen.status, seen.attempts, seen.last_status), (DeliveryStatus::Pending, 1, Some(503)));
    assert!(queue.due(later, 10, 2, &[]).await.unwrap().is_empty(), "not before its time");

    let third = Millis(later.0 + 500);
    let job = queue.claim(id, third, Millis(third.0 + 1_000)).await.unwrap().unwrap();
    assert_eq!(job.attempts, 1);
    queue.finish(&job, third, &Tried::Postponed { at: third }).await.unwrap();
    let job = queue.claim(id, third, Millis(third.0 + 1_000)).await.unwrap().unwrap();
    assert_eq!(job.attempts, 1, "waiting is no try");
    queue.finish(&job, third, &Tried::Dead { status: None, error: "no answer in time".into() }).await.unwrap();
    let dead = DeliveryFilter { status: Some(DeliveryStatus::Dead), ..DeliveryFilter::default() };
    assert_eq!(fixture.admin.deliveries(&dead, Page::default()).await.unwrap().len(), 1);
    assert!(queue.due(Millis(third.0 + DAY), 10, 2, &[]).await.unwrap().is_empty());

    // A dead letter can be sent once more, from the first try on.
    let again = fixture.admin.redeliver(&fixture.actor, Redeliver::DeadOf(subscription.id)).await.unwrap();
    assert_eq!(again.value, 1);
    let job = queue.claim(id, Millis::now(), Millis(third.0 + DAY)).await.unwrap().unwrap();
    assert_eq!(job.attempts, 0);
    queue.finish(&job, third, &Tried::Delivered { status: 204 }).await.unwrap();
    let seen = deliveries(&fixture).await.remove(0);
    assert_eq!((seen.status, seen.next_attempt_at, seen.last_error), (DeliveryStatus::Delivered, None, None));
    let missing = fixture.admin.redeliver(&fixture.actor, Redeliver::One(uuid::Uuid::nil())).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { what: "delivery", .. }));

    let kept = Millis(third.0 - DAY);
    assert_eq!(
        queue.prune(now, kept, Millis(third.0 + 1)).await.unwrap(),
        0,
        "delivered ones have a time of their own"
    );
    assert_eq!(queue.prune(now, Millis(third.0 + 1), kept).await.unwrap(), 1);
    assert_eq!(fixture.count("SELECT count(*) FROM webhook_events").await, 0, "an event goes with its last delivery");
}

/// A clock that ran years ahead, and was put right: what it wrote waits for nothing.
pub(crate) async fn times_of_a_clock_that_was_wrong_hold_up_no_delivery(fixture: Arc<Fixture>) {
    let partner = fixture.partner("p").await;
    let tenant = fixture.tenant("t-1").await;
    let made = fixture.granted(partner, &tenant, "msp_full").await;
    subscribe(&fixture, partner).await;
    fixture.revoke(made.id).await;
    let queue = DeliveryQueue::new(&fixture.db);
    let now = Millis::now();
    let ahead = Millis(now.0 + 1_000 * DAY);
    let id = queue.due(now, 10, 2, &[]).await.unwrap()[0].0;
    // Its process died with the lease.
    queue.claim(id, ahead, Millis(ahead.0 + 40_000)).await.unwrap().unwrap();
    assert!(queue.due(now, 10, 2, &[]).await.unwrap().is_empty());
    assert_eq!(queue.mend(now).await.unwrap(), 1);
    assert_eq!(queue.due(now, 10, 2, &[]).await.unwrap().len(), 1);
    let job = queue.claim(id, now, Millis(now.0 + 40_000)).await.unwrap().unwrap();
    let again = |at: i64| Tried::Again { at: Millis(at), status: None, error: "no answer".into() };
    assert!(queue.finish(&job, now, &again(ahead.0)).await.unwrap());
    assert_eq!(queue.mend(now).await.unwrap(), 1);
    assert_eq!(queue.due(now, 10, 2, &[]).await.unwrap().len(), 1);
    let job = queue.claim(id, now, Millis(now.0 + 40_000)).await.unwrap().unwrap();
    assert_eq!(queue.mend(now).await.unwrap(), 0, "a lease of the right clock holds");
    // Whose clock is behind the database's takes all of them for wrong.
    let mended = queue.mend(Millis(now.0 - 1_000 * DAY)).await.unwrap();
    assert_eq!(mended, if fixture.db.is_postgres() { 0 } else { 2 });
    let job = if mended == 0 { job } else { queue.claim(id, now, Millis(now.0 + 40_000)).await.unwrap().unwrap() };
    let sent_now = fixture.admin.redeliver(&fixture.actor, Redeliver::One(id)).await.unwrap();
    assert_eq!(sent_now.value, 0, "it is being sent");
    // The longest wait that a receiver may ask for is kept, until an operator says otherwise.
    assert!(queue.finish(&job, now, &again(now.0 + DAY)).await.unwrap());
    assert_eq!(queue.mend(now).await.unwrap(), 0);
    assert!(queue.due(now, 10, 2, &[]).await.unwrap().is_empty());
    assert_eq!(fixture.admin.redeliver(&fixture.actor, Redeliver::One(id)).await.unwrap().value, 1);
    assert_eq!(queue.due(Millis::now(), 10, 2, &[]).await.unwrap().len(), 1);
}

pub(crate) async fn one_subscription_does_not_hold_up_the_others(fixture: Arc<Fixture>) {
    let (slow, quick) = (fixture.partner("slow").await, fixture.partner("quick").await);
    let (of_slow, of_quick) = (subscribe(&fixture, slow).await, subscribe(&fixture, quick).await);
    for number in 0..5 {
        let tenant = fixture.tenant(&format!("t-{number}")).await;
        let made = fixture.granted(slow, &tenant, "msp_billing").await;
        fixture.revoke(made.id).await;
    }
    let tenant = fixture.tenant("t-quick").await;
    let made = fixture.granted(quick, &tenant, "msp_billing").await;
    fixture.revoke(made.id).await;
    let queue = DeliveryQueue::new(&fixture.db);
    let due: Vec<_> = queue.due(Millis::now(), 3, 2, &[]).await.unwrap().into_iter().map(|(_, of)| of).collect();
    assert_eq!(due, [of_slow.id, of_slow.id, of_quick.id]);
    // As many are under way to the slow one as may be: the places are the others'.
    let due: Vec<_> = queue.due(Millis::now(), 1, 2, &[of_slow.id]).await.unwrap();
    assert_eq!(due.into_iter().map(|(_, of)| of).collect::<Vec<_>>(), [of_quick.id]);
    assert!(queue.due(Millis::now(), 3, 2, &[of_slow.id, of_quick.id]).await.unwrap().is_empty());
    let off = SubscriptionInput { enabled: Some(false), ..SubscriptionInput::default() };
    fixture.admin.update_subscription(&fixture.actor, of_slow.id, None, &off).await.unwrap();
    let due: Vec<_> = queue.due(Millis::now(), 3, 2, &[]).await.unwrap().into_iter().map(|(_, of)| of).collect();
    assert_eq!(due, [of_quick.id], "what waits for a disabled one is kept");
}

pub(crate) async fn the_end_of_a_link_is_announced_once_for_each_number_of_days(fixture: Arc<Fixture>) {
    let partner = fixture.partner("p").await;
    let now = Millis::now();
    let mut links = Vec::new();
    for (number, days) in [10, 20, 1].into_iter().enumerate() {
        let tenant = fixture.tenant(&format!("t-{number}")).await;
        let mut input = link(partner, &tenant, "msp_full");
        // The last one ends within the day.
        input.end_date = Some(Some(Millis(now.0 + days * DAY - 60_000).to_string()));
        links.push(fixture.grant(&input).await.unwrap().value);
    }
    let (days, now) = ([1, 14], Millis::now());
    assert_eq!(announce_ends(&fixture.db, &days, now).await.unwrap(), 0, "nobody has subscribed");
    subscribe(&fixture, partner).await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let db = fixture.another().await;
        tasks.push(tokio::spawn(async move {
            let told = announce_ends(&db, &days, now).await.unwrap();
            db.close().await;
            told
        }));
    }
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    assert_eq!(count, 2, "in ten days and in one, each once");
    assert_eq!(told(&fixture).await, ["link_expiring", "link_expiring"]);
    assert_eq!(
        announce_ends(&fixture.db, &days, Millis(now.0 + 9 * DAY)).await.unwrap(),
        2,
        "ten days on: 1 and 11 left"
    );
    assert_eq!(announce_ends(&fixture.db, &days, Millis(now.0 + 9 * DAY)).await.unwrap(), 0);
    // Another end is announced anew.
    let end = Millis(now.0 + 13 * DAY).to_string();
    let longer = change(json!({"end_date": end}));
    fixture.admin.update_link(&fixture.actor, links[0].id, None, &longer).await.unwrap();
    assert_eq!(announce_ends(&fixture.db, &days, now).await.unwrap(), 1);
}

/// A subscription that is switched off keeps what waits, and not for ever; so do notices of ends that have passed.
pub(crate) async fn what_waits_for_ever_is_forgotten_too(fixture: Arc<Fixture>) {
    let partner = fixture.partner("p").await;
    let tenant = fixture.tenant("t-1").await;
    let subscription = subscribe(&fixture, partner).await;
    let now = Millis::now();
    let end = Millis(now.0 + DAY / 2);
    let input = LinkInput { end_date: Some(Some(end.to_string())), ..link(partner, &tenant, "auditor") };
    let made = fixture.grant(&input).await.unwrap().value;
    // Only links that have started are announced, and this one starts now.
    assert_eq!(announce_ends(&fixture.db, &[1], Millis::now()).await.unwrap(), 1);
    fixture.revoke(made.id).await;
    let off = SubscriptionInput { enabled: Some(false), ..SubscriptionInput::default() };
    fixture.admin.update_subscription(&fixture.actor, subscription.id, None, &off).await.unwrap();
    let queue = DeliveryQueue::new(&fixture.db);
    let days = |days: i64| Millis(now.0 + days * DAY);
    let states = async || deliveries(&fixture).await.iter().map(|one| one.status).collect::<Vec<_>>();
    // As the housekeeping of a day so many days later, with dead letters kept for 30.
    let keep = async |day: i64| queue.prune(days(day), days(day - 7), days(day - 30)).await.unwrap();
    assert_eq!((keep(32).await, states().await), (0, vec![DeliveryStatus::Pending; 2]));
    assert_eq!((keep(34).await, states().await), (0, vec![DeliveryStatus::Dead; 2]), "seen as dead letters first");
    let told = deliveries(&fixture).await.remove(0).last_error.unwrap();
    assert!(told.contains("webhooks.keep_dead"), "{told}");
    assert_eq!(keep(63).await, 0);
    assert_eq!((keep(65).await, states().await), (2, vec![]));
    assert_eq!(fixture.count("SELECT count(*) FROM webhook_events").await, 0);

    assert_eq!(forget_notices(&fixture.db, now).await.unwrap(), 0, "that end is still to come");
    assert_eq!(forget_notices(&fixture.db, days(1)).await.unwrap(), 1);
    assert_eq!(announce_ends(&fixture.db, &[1], days(1)).await.unwrap(), 0, "passed ends are not announced");
}
