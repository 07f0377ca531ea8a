//! Alerts from what services say, to the list and to a receiver: triggered, told once, made worse, resolved.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use jiff::{Timestamp, ToSpan};
use linkgate::{domain::link_rules::LinkInput, store::admin::SubscriptionInput};
use serde_json::{Value, json};

use super::{
    client::{Answer, Request},
    gateway_rig::{P1, Rig, Setup, actor},
    webhooks::{Receiver, wait},
};

/// A service that answers each tenant's path with what the test says; 503 where it says nothing.
#[derive(Clone)]
struct Service {
    address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Value>>>,
    asked: Arc<Mutex<Vec<String>>>,
    request_ids: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Self {
            address: listener.local_addr().unwrap(),
            answers: Arc::default(),
            asked: Arc::default(),
            request_ids: Arc::default(),
        };
        let shared = service.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let service = shared.clone();
                thread::spawn(move || service.serve(stream.unwrap()));
            }
        });
        service
    }

    fn serve(&self, mut stream: std::net::TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut first, mut line) = (String::new(), String::new());
            if reader.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(id) = line.to_ascii_lowercase().strip_prefix("x-request-id: ") {
                    self.request_ids.lock().unwrap().push(id.trim_end().to_owned());
                }
            }
            let target = first.split(' ').nth(1).unwrap_or_default();
            let path = target.split('?').next().unwrap_or_default().to_owned();
            self.asked.lock().unwrap().push(path.clone());
            let answer = self.answers.lock().unwrap().get(&path).cloned();
            let (status, body) = match answer {
                Some(value) => ("200 OK", value.to_string()),
                None => ("503 Busy", "{}".to_owned()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
                return;
            }
        }
    }

    fn says(&self, tenant: &str, what: &str, value: Value) {
        self.answers.lock().unwrap().insert(format!("/{tenant}/{what}"), value);
    }

    fn owes(&self, tenant: &str, invoices: &[(&str, &str, &str)]) {
        let rows = invoices.iter().enumerate().map(|(number, (status, balance, currency))| {
            json!({"id": format!("i-{number}"), "day": "2026-01-01T00:00:00Z", "status": status, "total": balance,
                   "paid": "0", "balance": balance, "currency": currency})
        });
        self.says(tenant, "invoices", rows.collect());
    }

    fn has_been_asked(&self, path: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|asked| asked == path)
    }
}

fn rig(service: &Service, more: &str) -> Rig {
    let routes = format!(
        r#"
[upstreams.service]
origin = "http://{}"
credential = "drop"
[connectors.service]
upstream = "service"
credential = {{ kind = "none" }}
[connectors.service.invoices]
path = "/{{tenant_id}}/invoices"
unit = "text"
[connectors.service.invoices.fields]
invoice_id = "/id"
invoice_date = "/day"
total = "/total"
paid_amount = "/paid"
balance = "/balance"
currency = "/currency"
status = {{ pointer = "/status", words = {{ open = "finalized", late = "overdue", paid = "paid", draft = "draft" }} }}
[connectors.service.breaches]
path = "/{{tenant_id}}/breaches"
[connectors.service.breaches.fields]
breach_id = "/id"
breach_type = "/type"
detected_at = "/at"
resolved = "/resolved"
resolved_at = "/resolved_at"
target_value = "/target"
actual_value = "/actual"
severity = {{ pointer = "/severity", words = {{ critical = "critical", warning = "warning" }} }}
[connectors.service.uptime]
path = "/{{tenant_id}}/uptime"
[connectors.service.uptime.fields]
date = "/date"
uptime_percentage = "/uptime"
[webhooks]
allow_http = true
allow_private = true
{more}
"#,
        service.address
    );
    Rig::with(Setup { routes, ..Setup::default() })
}

fn list(rig: &Rig, kind: &str, query: &str) -> Answer {
    let path = format!("/api/v1/partner/alerts/{kind}{query}");
    rig.ask(Request::get(&path).header("Cache-Control", "no-cache"))
}

/// The alert of the list, and what its sources say of the tenant.
fn one(rig: &Rig, kind: &str, tenant: &str) -> (Option<Value>, String) {
    let answer = list(rig, kind, &format!("?tenant_ids={tenant}&sources=all"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    (body["items"].get(0).cloned(), body["sources"][0]["status"].as_str().unwrap().to_owned())
}

fn terms(fields: Value) -> LinkInput {
    serde_json::from_value(fields).unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    wait(what, || holds().then_some(()));
}

#[test]
fn a_threshold_alert_is_triggered_told_made_worse_and_resolved() {
    let (service, receiver) = (Service::start(), Receiver::start(&[]));
    let rig = rig(&service, "[alerts]\nbackground = false\n");
    let input = SubscriptionInput { url: Some(receiver.url()), ..SubscriptionInput::default() };
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    rig.block_on(rig.admin().create_subscription(&actor(), P1.parse().unwrap(), secret, &input)).unwrap();
    service.owes("t-full", &[("open", "600.10", "USD"), ("late", "399.90", "USD"), ("paid", "9000", "USD")]);

    // No threshold: nothing is asked.
    assert_eq!(one(&rig, "billing", "t-full"), (None, "ok".to_owned()));
    assert!(!service.has_been_asked("/t-full/invoices"));
    rig.update("t-full", &terms(json!({"billing_alert_threshold": 1000})));
    until("the alert", || one(&rig, "billing", "t-full").0.is_some());
    let (alert, status) = one(&rig, "billing", "t-full");
    let alert = alert.unwrap();
    assert_eq!(status, "ok");
    assert_eq!((&alert["alert_type"], &alert["severity"]), (&json!("billing_threshold"), &json!("warning")));
    let text = list(&rig, "billing", "?tenant_ids=t-full").text();
    assert!(
        text.contains(r#"{"currency":"USD","outstanding_balance":1000.00,"billing_alert_threshold":1000.00}"#),
        "{text}"
    );

    let told = receiver.wait_for(1);
    assert_eq!(told[0].event(), "billing_threshold");
    let data = &told[0].json()["data"];
    assert_eq!((&data["alert_id"], &data["tenant_id"]), (&alert["alert_id"], &json!("t-full")));

    // Another currency is an alert of its own; twice the threshold is critical, and told again.
    service.owes("t-full", &[("open", "2000.01", "USD"), ("open", "1000", "EUR"), ("draft", "9000", "GBP")]);
    let body = list(&rig, "billing", "?tenant_ids=t-full").json();
    let mut seen: Vec<_> = body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["metadata"]["currency"].as_str().unwrap(), one["severity"].as_str().unwrap()))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [("EUR", "warning"), ("USD", "critical")]);
    receiver.wait_for(3);

    // A source that fails resolves nothing.
    service.answers.lock().unwrap().clear();
    let body = list(&rig, "billing", "?tenant_ids=t-full").json();
    assert_eq!((&body["active_count"], &body["partial"]), (&json!(2), &json!(true)));
    assert_eq!(body["sources"][0]["status"], "error");

    service.owes("t-full", &[("open", "999.99", "USD"), ("paid", "1000", "EUR")]);
    let body = list(&rig, "billing", "?tenant_ids=t-full").json();
    assert_eq!((&body["active_count"], &body["resolved_count"]), (&json!(0), &json!(2)));
    // Switched off: nothing is looked for.
    service.owes("t-full", &[("open", "5000", "USD")]);
    rig.update("t-full", &terms(json!({"notify_on_billing_threshold": false})));
    thread::sleep(Duration::from_millis(600));
    let body = list(&rig, "billing", "?tenant_ids=t-full").json();
    assert_eq!(body["active_count"], 0);
    assert_eq!(receiver.posted().len(), 3);
}

#[test]
fn breaches_and_uptime_are_alerts_until_the_services_say_otherwise() {
    let service = Service::start();
    let rig = rig(&service, "[alerts]\nbackground = false\n");
    rig.update("t-full", &terms(json!({"sla_uptime_target": "99.9"})));
    let now = Timestamp::now();
    let hours_ago = |hours: i64| now.checked_sub(hours.hours()).unwrap().to_string();
    let breach = |id: &str, resolved_at: Option<String>| {
        json!({"id": id, "type": "response_time", "severity": "critical", "at": hours_ago(5), "resolved": resolved_at.is_some(),
               "resolved_at": resolved_at, "target": 99.9, "actual": 98.1})
    };
    let day = |days: i64, uptime: f64| {
        let date = now.checked_sub((24 * days).hours()).unwrap().to_string()[..10].to_owned();
        json!({"date": date, "uptime": uptime})
    };
    service.says("t-full", "breaches", json!([breach("b-1", None), breach("b-2", Some(hours_ago(1)))]));
    service.says("t-full", "uptime", json!([day(1, 99.7), day(2, 99.9)]));
    until("both alerts", || {
        let body = list(&rig, "sla", "?tenant_ids=t-full").json();
        body["active_count"] == 2
    });
    let body = list(&rig, "sla", "?tenant_ids=t-full").json();
    assert_eq!((&body["resolved_count"], &body["partial"]), (&json!(1), &json!(false)), "{body}");
    let of = |kind: &str| {
        let all = body["items"].as_array().unwrap().iter();
        all.filter(|one| one["alert_type"] == kind && one["status"] == "active").cloned().collect::<Vec<_>>()
    };
    assert_eq!(of("sla_breach")[0]["metadata"]["breach_id"], "b-1");
    assert_eq!(of("sla_breach")[0]["title"], "SLA breach: response time");
    assert_eq!(of("uptime_below_target")[0]["metadata"]["uptime_percentage"], 99.8);
    assert_eq!(of("uptime_below_target")[0]["severity"], "warning");

    // One half fails: the other half is still read, and nothing of the failed half is resolved.
    service.answers.lock().unwrap().remove("/t-full/breaches");
    service.says("t-full", "uptime", json!([day(1, 100.0), day(2, 100.0)]));
    let body = list(&rig, "sla", "?tenant_ids=t-full").json();
    assert_eq!((&body["active_count"], &body["partial"]), (&json!(1), &json!(true)), "{body}");
    // No longer known to the service: over. What it says again is the same alert.
    service.says("t-full", "breaches", json!([]));
    assert_eq!(list(&rig, "sla", "?tenant_ids=t-full").json()["active_count"], 0);
    service.says("t-full", "breaches", json!([breach("b-1", None)]));
    let again = list(&rig, "sla", "?tenant_ids=t-full&status=active").json();
    assert_eq!(again["items"][0]["alert_id"], of("sla_breach")[0]["alert_id"]);
    rig.update("t-full", &terms(json!({"notify_on_sla_breach": false})));
    until("all is quiet", || list(&rig, "sla", "?tenant_ids=t-full").json()["active_count"] == 0);
}

#[test]
fn the_background_looks_at_links_that_grant_it_and_at_no_others() {
    let service = Service::start();
    let rig = rig(&service, "[alerts]\ninterval = \"1s\"\nfresh_for = \"1h\"\n");
    for tenant in ["t-full", "t-support", "t-revoked", "t-expired", "t-pending"] {
        service.owes(tenant, &[("open", "5000", "USD")]);
    }
    for tenant in ["t-full", "t-support"] {
        rig.update(tenant, &terms(json!({"billing_alert_threshold": 1000})));
    }
    until("the background has looked", || service.has_been_asked("/t-full/invoices"));
    until("the alert is there", || {
        let store = super::alerts::store(&rig);
        let filter = linkgate::store::alerts::AlertFilter {
            partner_id: P1.parse().unwrap(),
            kind: linkgate::store::AlertKind::Billing,
            since: None,
            default_since: linkgate::domain::Millis(0),
            severity: Vec::new(),
        };
        !rig.block_on(store.keys(&filter)).unwrap().is_empty()
    });
    // Listed without asking again.
    let answer = rig.ask(Request::get("/api/v1/partner/alerts/billing?tenant_ids=t-full"));
    assert_eq!(answer.json()["items"][0]["tenant_id"], "t-full");
    let ids = service.request_ids.lock().unwrap().clone();
    assert!(ids.iter().all(|id| id.starts_with("alerts-") && id.len() == 43), "named after the look: {ids:?}");
    assert!(!service.has_been_asked("/t-support/invoices"), "its role may not read billing alerts");
    for tenant in ["t-revoked", "t-expired", "t-pending"] {
        for what in ["invoices", "breaches", "uptime"] {
            assert!(!service.has_been_asked(&format!("/{tenant}/{what}")), "{tenant} {what}");
        }
    }
}
