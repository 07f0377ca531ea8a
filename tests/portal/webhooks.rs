//! Webhooks from the event to a receiver that is a socket of the test.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use linkgate::{
    config::settings::{DatabaseSettings, LinkSettings},
    connector::rows::{Priority, TicketRow, TicketStatus},
    domain::Secret,
    identity::{Vault, VaultKey},
    portal::events::ticket_created,
    store::{
        Admin, Database, Directory, Reading, SuspensionScope,
        admin::{Page, Redeliver, SubscriptionInput, SubscriptionRecord, SuspensionInput, TenantInput},
        deliveries::{DeliveryFilter, DeliveryRecord, DeliveryStatus},
    },
};
use serde_json::{Value, json};

use super::{
    decided::decided,
    gateway_rig::{P1, Rig, Setup, actor},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OPEN: &str = "allow_http = true\nallow_private = true\nattempts = 3\nfirst_retry = \"10ms\"\ntimeout = \"1s\"\n";

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Posted {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Posted {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or_else(|| panic!("no {name}: {:?}", self.headers), |(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn event(&self) -> String {
        self.json()["type"].as_str().unwrap().replace("partner.tenant.", "")
    }

    /// By another library than the one that signed.
    fn is_signed_with(&self, secret: &str) -> bool {
        use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut signed = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp")).into_bytes();
        signed.extend_from_slice(&self.body);
        let key = jsonwebtoken::EncodingKey::from_secret(&key);
        let mac = jsonwebtoken::crypto::sign(&signed, &key, jsonwebtoken::Algorithm::HS256).unwrap();
        let expected = format!("v1,{}", STANDARD.encode(URL_SAFE_NO_PAD.decode(mac).unwrap()));
        self.header("webhook-signature").split(' ').any(|one| one == expected)
    }
}

/// Answers with the given heads in turn, then with 200; keeps what was posted.
pub struct Receiver {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<Posted>>>,
    answers: Arc<Mutex<VecDeque<String>>>,
}

impl Receiver {
    pub fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            posted: Arc::default(),
            answers: Arc::new(Mutex::new(answers.iter().map(|&answer| answer.to_owned()).collect())),
        };
        let (posted, answers) = (Arc::clone(&receiver.posted), Arc::clone(&receiver.answers));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut lines = Vec::new();
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                        break;
                    }
                    lines.push(line.trim_end().to_owned());
                }
                let headers: Vec<(String, String)> = lines
                    .iter()
                    .skip(1)
                    .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.into(), value.into())))
                    .collect();
                let named = |name: &str| headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                let length = named("content-length").and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_err() {
                    continue;
                }
                posted.lock().unwrap().push(Posted { headers, body });
                let answer = answers.lock().unwrap().pop_front().unwrap_or_else(|| "200 OK".to_owned());
                let mut stream = stream;
                // A body that never ends is nothing to wait for.
                let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 1000000\r\n\r\nx").as_bytes());
            }
        });
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    pub fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    pub fn wait_for(&self, count: usize) -> Vec<Posted> {
        wait("posts", || Some(self.posted()).filter(|posted| posted.len() >= count))
    }
}

pub fn wait<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn rig(webhooks: &str) -> Rig {
    let routes = format!("[alerts]\nbackground = false\n[webhooks]\n{webhooks}");
    Rig::with(Setup { routes, ..Setup::default() })
}

fn subscribe(rig: &Rig, url: &str) -> SubscriptionRecord {
    let input = SubscriptionInput { url: Some(url.to_owned()), ..SubscriptionInput::default() };
    rig.block_on(rig.admin().create_subscription(&actor(), P1.parse().unwrap(), SECRET, &input)).unwrap().value
}

fn deliveries(rig: &Rig) -> Vec<DeliveryRecord> {
    let admin: Admin = rig.admin();
    let mut all = rig.block_on(admin.deliveries(&DeliveryFilter::default(), Page::default())).unwrap();
    all.sort_by_key(|delivery| delivery.id);
    all
}

/// Waits until the first delivery has come to this.
fn comes_to(rig: &Rig, status: DeliveryStatus) -> DeliveryRecord {
    wait(status.as_str(), || deliveries(rig).into_iter().next().filter(|one| one.status == status))
}

fn set_status(rig: &Rig, tenant: &str, status: &str) {
    let input = TenantInput { status: Some(status.into()), ..TenantInput::default() };
    let tenant = linkgate::domain::TenantId::new(tenant).unwrap();
    rig.block_on(rig.admin().update_tenant(&actor(), &tenant, None, &input)).unwrap();
}

#[test]
fn a_revocation_is_told_signed_and_tried_again_under_the_same_id() {
    let receiver = Receiver::start(&["503 Busy", "500 Oops"]);
    let rig = rig(OPEN);
    subscribe(&rig, &receiver.url());
    rig.revoke("t-full");
    let posted = receiver.wait_for(3);
    let ids: Vec<&str> = posted.iter().map(|one| one.header("webhook-id")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]) && posted.iter().all(|one| one.body == posted[0].body));
    let last = &posted[2];
    assert!(last.is_signed_with(SECRET));
    assert!(!last.is_signed_with("whsec_AAAA"));
    assert_eq!(last.header("content-type"), "application/json");
    let body = last.json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["type", "timestamp", "data"]);
    assert_eq!(body["type"], "partner.tenant.link_revoked");
    assert_eq!(body["data"]["tenant_id"], "t-full");
    assert_eq!(body["data"]["link_id"], rig.links["t-full"].to_string());
    let done = comes_to(&rig, DeliveryStatus::Delivered);
    assert_eq!((done.attempts, done.last_status), (3, Some(200)));
    assert_eq!(receiver.posted().len(), 3, "and no more");
}

#[test]
fn a_secret_that_is_sealed_in_the_database_signs_as_it_was_given() {
    let receiver = Receiver::start(&[]);
    let rig = rig(&format!("{OPEN}secret_keys = [{{ kid = \"k1\", key_file = \"signing.pem\" }}]\n"));
    let key = std::fs::read(rig.dir.path().join("signing.pem")).unwrap();
    // A file's last line end is no part of the key.
    let key = Secret::new(key.trim_ascii_end().to_vec());
    let vault = Vault::new(&[VaultKey { kid: "k1".into(), secret: key }]);
    let admin = rig.admin().with_vault(vault);
    let input = SubscriptionInput { url: Some(receiver.url()), ..SubscriptionInput::default() };
    let made = rig.block_on(admin.create_subscription(&actor(), P1.parse().unwrap(), SECRET, &input)).unwrap().value;
    let lost = Vault::new(&[VaultKey { kid: "lost".into(), secret: Secret::new(vec![7; 32]) }]);
    let admin = rig.admin().with_vault(lost);
    rig.block_on(admin.create_subscription(&actor(), P1.parse().unwrap(), SECRET, &input)).unwrap();
    rig.revoke("t-full");
    let posted = receiver.wait_for(1).remove(0);
    assert!(posted.is_signed_with(SECRET));
    // Sealed with a key that the gateway does not have: kept, and sent unsigned never.
    let rest = wait("the first is delivered", || {
        let (done, rest): (Vec<_>, Vec<_>) =
            deliveries(&rig).into_iter().partition(|one| one.subscription_id == made.id);
        done.iter().all(|one| one.status == DeliveryStatus::Delivered).then_some(rest)
    });
    assert_eq!((rest.len(), rest[0].status, rest[0].attempts), (1, DeliveryStatus::Pending, 0));
    assert_eq!(receiver.posted().len(), 1);
}

#[test]
fn a_dead_letter_can_be_seen_and_sent_again() {
    let receiver = Receiver::start(&["500 A", "500 B", "500 C"]);
    let rig = rig(OPEN);
    subscribe(&rig, &receiver.url());
    rig.revoke("t-full");
    let dead = comes_to(&rig, DeliveryStatus::Dead);
    assert_eq!((dead.attempts, dead.last_status), (3, Some(500)));
    assert_eq!(receiver.posted().len(), 3);
    rig.block_on(rig.admin().redeliver(&actor(), Redeliver::One(dead.id))).unwrap();
    comes_to(&rig, DeliveryStatus::Delivered);
    assert_eq!(receiver.posted().len(), 4);
    let metrics = rig.health("/metrics").text();
    for (outcome, count) in [("retried", 2), ("dead", 1), ("delivered", 1), ("dropped", 0)] {
        let line = format!(
            "linkgate_webhook_deliveries_total{{event=\"partner.tenant.link_revoked\",outcome=\"{outcome}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[test]
fn a_receiver_that_is_gone_is_not_asked_again() {
    let receiver = Receiver::start(&["410 Gone"]);
    let rig = rig(OPEN);
    subscribe(&rig, &receiver.url());
    rig.revoke("t-full");
    assert_eq!(comes_to(&rig, DeliveryStatus::Dead).attempts, 1);
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = Receiver::start(&[]);
    let redirect = format!("307 Temporary Redirect\r\nlocation: {}", elsewhere.url());
    let receiver = Receiver::start(&[&redirect, &redirect, &redirect]);
    let rig = rig(OPEN);
    subscribe(&rig, &receiver.url());
    rig.revoke("t-full");
    let dead = comes_to(&rig, DeliveryStatus::Dead);
    assert!(dead.last_error.unwrap().contains("redirects are not followed"));
    assert!(elsewhere.posted().is_empty());
}

#[test]
fn a_name_that_leads_to_this_machine_is_refused_unless_it_is_allowed() {
    let receiver = Receiver::start(&[]);
    let rig = rig("allow_http = true\nattempts = 1\n");
    subscribe(&rig, &format!("http://localhost:{}/in", receiver.address.port()));
    rig.revoke("t-full");
    let dead = comes_to(&rig, DeliveryStatus::Dead);
    let why = dead.last_error.unwrap();
    assert!(why.contains("a loopback address"), "{why}");
    assert!(receiver.posted().is_empty());
}

#[test]
fn plain_http_needs_the_operators_word() {
    let receiver = Receiver::start(&[]);
    let rig = rig("allow_private = true\nattempts = 1\n");
    subscribe(&rig, &receiver.url());
    rig.revoke("t-full");
    assert!(comes_to(&rig, DeliveryStatus::Dead).last_error.unwrap().contains("use https"));
    assert!(receiver.posted().is_empty());
}

#[test]
fn nothing_is_told_of_a_link_that_was_revoked_meanwhile() {
    let receiver = Receiver::start(&["503 Busy"]);
    let rig = rig(&OPEN.replace("10ms", "3s"));
    subscribe(&rig, &receiver.url());
    set_status(&rig, "t-full", "suspended");
    let posted = receiver.wait_for(1);
    assert_eq!(posted[0].event(), "status_changed");
    assert_eq!(posted[0].json()["data"]["to"], "suspended");
    rig.revoke("t-full");
    let dropped = comes_to(&rig, DeliveryStatus::Dropped);
    assert_eq!(dropped.attempts, 1);
    let posted = wait("the revocation", || Some(receiver.posted()).filter(|all| all.len() >= 2));
    let events: Vec<String> = posted.iter().map(Posted::event).collect();
    assert_eq!(events, ["status_changed", "link_revoked"]);
}

/// Who listens there may be the reason for the suspension: not even a revocation is told.
#[test]
fn a_suspended_partner_tenant_or_link_is_told_nothing() {
    let receiver = Receiver::start(&[]);
    let rig = rig(OPEN);
    subscribe(&rig, &receiver.url());
    let (full, billing) = (rig.links["t-full"].to_string(), rig.links["t-billing"].to_string());
    let suspend = |scope, subject: &str| {
        let input = SuspensionInput { scope, issuer: None, subject: subject.into(), reason: "r".into() };
        let id = rig.block_on(rig.admin().suspend(&actor(), &input)).unwrap().value.id;
        thread::sleep(Duration::from_secs(1));
        id
    };
    let restore = |id| drop(rig.block_on(rig.admin().restore(&actor(), id)).unwrap());
    let dropped = |count: usize| {
        wait("the drop", || {
            let all = deliveries(&rig);
            Some(all.len() == count && all.iter().all(|one| one.status == DeliveryStatus::Dropped)).filter(|all| *all)
        });
        assert!(receiver.posted().is_empty());
    };
    let tenant = suspend(SuspensionScope::Tenant, "t-full");
    set_status(&rig, "t-full", "suspended");
    dropped(1);
    restore(tenant);
    let link = suspend(SuspensionScope::Link, &billing);
    let rejected = json!({"approval": "rejected"});
    rig.update("t-billing", &serde_json::from_value(rejected).unwrap());
    dropped(2);
    restore(link);
    let partner = suspend(SuspensionScope::Partner, P1);
    rig.revoke("t-full");
    dropped(3);
    restore(partner);
    thread::sleep(Duration::from_secs(1));
    set_status(&rig, "t-auditor", "suspended");
    let told = receiver.wait_for(1);
    assert_eq!((told.len(), &told[0].json()["data"]["tenant_id"]), (1, &json!("t-auditor")));
    assert!(!told[0].json().to_string().contains(&full));
}

#[test]
fn a_link_tells_only_what_its_role_may_read() {
    let receiver = Receiver::start(&[]);
    let rig = rig(OPEN);
    let overrides = json!({"custom_permissions": {"partner.tenants.list": false}});
    rig.update("t-billing", &serde_json::from_value(overrides).unwrap());
    subscribe(&rig, &receiver.url());
    set_status(&rig, "t-billing", "suspended");
    comes_to(&rig, DeliveryStatus::Dropped);
    assert!(receiver.posted().is_empty());
}

#[test]
fn a_guardrail_binds_where_no_user_asks() {
    let receiver = Receiver::start(&[]);
    let policy = r#"@id("nothing-of-suspended-tenants")
forbid (principal, action in [Action::"partner.tenants.list"], resource is Link)
when { resource.tenant.status == "suspended" };"#;
    let routes = format!("[alerts]\nbackground = false\n[webhooks]\n{OPEN}");
    let guardrails = vec![("test.cedar", policy.to_owned())];
    let rig = Rig::with(Setup { routes, guardrails, ..Setup::default() });
    subscribe(&rig, &receiver.url());
    set_status(&rig, "t-full", "suspended");
    comes_to(&rig, DeliveryStatus::Dropped);
    // An address list and MFA are a caller's matter: the link's partner is told all the same.
    set_status(&rig, "t-cidr", "closed");
    set_status(&rig, "t-mfa", "closed");
    let told: Vec<_> = receiver.wait_for(2).iter().map(|one| one.json()["data"]["tenant_id"].clone()).collect();
    assert!(told.contains(&json!("t-cidr")) && told.contains(&json!("t-mfa")), "{told:?}");
    assert_eq!(receiver.posted().len(), 2);
}

#[test]
fn a_rotated_secret_signs_beside_the_old_one_until_its_time_is_over() {
    let receiver = Receiver::start(&[]);
    let rig = rig(OPEN);
    let made = subscribe(&rig, &receiver.url());
    let rotate = |secret: &str, ms: i64| {
        let until = linkgate::domain::Millis(linkgate::domain::Millis::now().0 + ms);
        let input = SubscriptionInput { rotate: Some((secret.to_owned(), until)), ..SubscriptionInput::default() };
        rig.block_on(rig.admin().update_subscription(&actor(), made.id, None, &input)).unwrap();
    };
    let (new, newest) = ("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "whsec_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB");
    rotate(new, 60_000);
    rig.revoke("t-full");
    let first = receiver.wait_for(1).remove(0);
    assert!(first.is_signed_with(SECRET) && first.is_signed_with(new));
    rotate(newest, 0);
    rig.revoke("t-billing");
    let second = receiver.wait_for(2).remove(1);
    assert!(second.is_signed_with(newest) && !second.is_signed_with(new) && !second.is_signed_with(SECRET));
}

#[test]
fn a_created_ticket_is_told_by_ids_and_states_only() {
    let receiver = Receiver::start(&[]);
    let rig = rig(OPEN);
    subscribe(&rig, &receiver.url());
    let path = rig.dir.path().join("linkgate.db");
    let settings = DatabaseSettings::Sqlite { path };
    let ticket = TicketRow {
        ticket_id: "4711".into(),
        ticket_number: Some("TCK-4711".into()),
        customer_id: Some("customer-1".into()),
        customer_name: Some("Ada".into()),
        subject: Some("No signal at home".into()),
        status: TicketStatus::Open,
        priority: Some(Priority::High),
        category: None,
        assigned_to: None,
        assigned_to_name: None,
        created_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        updated_at: None,
        sla_breach_at: None,
        is_sla_breached: None,
        last_response_at: None,
        response_count: None,
        resolution_minutes: None,
    };
    rig.block_on(async {
        let db = Database::open(&settings).await.unwrap();
        let links = LinkSettings {
            max_staleness: Duration::from_secs(1),
            heartbeat: Duration::from_millis(50),
            cached_partners: 10,
            approvals: false.into(),
        };
        let directory = Directory::start(&db, &links);
        while !directory.is_fresh() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let portfolio = directory.portfolio(P1.parse().unwrap(), Reading::Fresh).await.unwrap().unwrap();
        let link = portfolio.link("t-full").unwrap();
        let granted = decided((**link).clone(), "partner.support.tickets.create");
        ticket_created(&db, &granted, &ticket, "user-1").await;
    });
    let posted = receiver.wait_for(1).remove(0);
    assert_eq!(posted.event(), "ticket_created");
    let text = String::from_utf8(posted.body.clone()).unwrap();
    assert!(!text.contains("No signal") && !text.contains("Ada") && !text.contains("customer-1"), "{text}");
    let data = &posted.json()["data"];
    assert_eq!((&data["ticket_id"], &data["priority"]), (&json!("4711"), &json!("high")));
    assert_eq!((&data["tenant_id"], &data["created_by"]), (&json!("t-full"), &json!("user-1")));
}

#[test]
fn a_link_that_ends_soon_is_announced() {
    let receiver = Receiver::start(&[]);
    let end = linkgate::domain::Millis(linkgate::domain::Millis::now().0 + 5 * 86_400_000).to_string();
    // The first look is at the start: subscribed and ending before it.
    let first = rig("enabled = false\n");
    first.update("t-full", &serde_json::from_value(json!({"end_date": end})).unwrap());
    subscribe(&first, &receiver.url());
    let path = first.dir.path().join("linkgate.db");
    let settings = linkgate::config::settings::DatabaseSettings::Sqlite { path };
    let now = linkgate::domain::Millis::now();
    let told = first.block_on(async {
        let db = linkgate::store::Database::open(&settings).await.unwrap();
        linkgate::store::ending::announce_ends(&db, &[1, 14], now).await.unwrap()
    });
    assert_eq!(told, 1);
    let waiting = deliveries(&first).remove(0);
    assert_eq!((waiting.event.as_str(), waiting.tenant_id.as_str()), ("partner.tenant.link_expiring", "t-full"));
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(deliveries(&first)[0].status, DeliveryStatus::Pending, "kept while webhooks are off");
    assert!(receiver.posted().is_empty());
}
