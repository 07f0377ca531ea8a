//! What goes over the wire: headers, credentials, kept connections, second tries, bounds.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use linkgate::{
    config::Config,
    identity::mint::{DevAlgorithm, DevKey},
    portal::sources::{NewTicket, SourceError, Sources, WriteError},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::rig::{load, site, soon, sources};

/// A service that notes what comes and answers by rule.
struct Scripted {
    origin: String,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

/// The answer to the request with this number (from 0) in its connection; `None`: it is closed instead.
type Rule = fn(request: usize, head: &str) -> Option<&'static str>;

const METRICS: &str =
    r#"{"subscriber_metrics": {"total": 1, "active": 1, "suspended": 0}, "revenue_metrics": {"mrr": 0.1}}"#;

impl Scripted {
    async fn start(rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (heads, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (notes, count) = (Arc::clone(&heads), Arc::clone(&connections));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                *count.lock().unwrap() += 1;
                let notes = Arc::clone(&notes);
                tokio::spawn(async move {
                    for request in 0.. {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            match stream.read_u8().await {
                                Ok(byte) => head.push(byte),
                                Err(_) => return,
                            }
                        }
                        let head = String::from_utf8(head).unwrap().to_lowercase();
                        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                        let mut body = vec![0; length.map_or(0, |text| text.parse().unwrap())];
                        stream.read_exact(&mut body).await.unwrap();
                        let answer = rule(request, &head);
                        notes.lock().unwrap().push(head);
                        let Some(answer) = answer else { return };
                        if answer.starts_with("HTTP/") {
                            // Written as it is; an answer that is cut ends with its connection, others just stop.
                            let _ = stream.write_all(answer.trim_end_matches('!').as_bytes()).await;
                            if answer.ends_with('!') {
                                return;
                            }
                            continue;
                        }
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
                            answer.len()
                        );
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { origin, heads, connections }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Sources that ask it about everything; `more`: lines of the connector, `upstream`: of the upstream.
    fn sources(&self, upstream: &str, more: &str) -> (Sources, Config) {
        let dir = tempfile::tempdir().unwrap();
        DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&dir.path().join("signing.pem")).unwrap();
        let config = configuration(&self.origin, upstream, more, dir.path());
        (sources(&config), config)
    }
}

fn configuration(origin: &str, upstream: &str, more: &str, dir: &Path) -> Config {
    let text = format!(
        r#"
[issuers.main]
issuer = "https://login.example"
audiences = ["linkgate"]
algorithms = ["ES256"]
jwks_url = "https://login.example/jwks.json"
[signing]
issuer = "https://gateway.example"
keys = [{{ kid = "k1", file = "signing.pem" }}]
[upstreams.isp]
origin = "{origin}"
{upstream}
[connectors.one]
preset = "gen1"
upstream = "isp"
{more}
"#
    );
    load(&text, dir)
}

fn header<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

/// The claims of a token, signature unchecked. The head was made lower case, so this takes the raw one.
fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn every_signal_names_the_same_tenant_and_nothing_is_asked_for_compressed() {
    let service = Scripted::start(|_, _| Some(METRICS)).await;
    let (sources, _) = service.sources("audience = \"isp-api\"", "");
    let site = site("t1");
    for _ in 0..3 {
        let row = sources.metrics(&site, soon()).await.unwrap();
        assert_eq!(row.current_mrr.unwrap().to_string(), "0.1", "a tenth is a tenth");
    }
    let heads = service.heads();
    assert_eq!((heads.len(), *service.connections.lock().unwrap()), (3, 1), "the connection is kept");
    for head in &heads {
        assert!(head.starts_with("get /api/isp/v1/metrics/dashboard http/1.1\r\n"), "{head}");
        for (name, value) in [
            ("x-tenant-id", "t1"),
            ("x-active-tenant-id", "t1"),
            ("x-cross-tenant-access", "true"),
            ("x-partner-id", "00000000-0000-0000-0000-000000000a11"),
            ("x-partner-role", "auditor"),
            ("x-link-id", &site.link().link.id.to_string()),
            ("accept", "application/json"),
            ("host", service.origin.strip_prefix("http://").unwrap()),
        ] {
            assert_eq!(header(head, name), [value], "{name}");
        }
        assert!(header(head, "accept-encoding").is_empty());
        assert!(header(head, "authorization")[0].starts_with("bearer "));
        assert_eq!(header(head, "x-linkgate-assertion").len(), 1);
    }
    assert_eq!(header(&heads[0], "authorization"), header(&heads[1], "authorization"), "signed once for many");
    let trace = site.trace();
    let parents: std::collections::HashSet<String> = heads
        .iter()
        .map(|head| {
            assert_eq!(header(head, "x-request-id"), [trace.request_id.as_str()], "who asks is named to the service");
            let value = &header(head, "traceparent")[0];
            let parent = value.strip_prefix(&format!("00-{}-", trace.trace_id.as_str())).unwrap();
            parent.strip_suffix("-01").filter(|id| id.len() == 16).unwrap().to_owned()
        })
        .collect();
    assert_eq!(parents.len(), 3, "each question has a place of its own in the trace");
}

#[tokio::test]
async fn a_header_with_the_tenants_own_secret_replaces_the_token() {
    let service = Scripted::start(|_, _| Some(METRICS)).await;
    let more = "tenant_header = \"X-Org\"\n[connectors.one.credential]\nkind = \"header\"\n\
                [connectors.one.credential.tenants.t1]\nsecret_env = \"SECRET\"\n";
    let (sources, _) = service.sources("assertion = \"off\"", more);
    sources.metrics(&site("t1"), soon()).await.unwrap();
    let heads = service.heads();
    assert_eq!(header(&heads[0], "x-api-key"), ["0123456789abcdef0123456789abcdef"]);
    assert_eq!(header(&heads[0], "x-org"), ["t1"]);
    assert!(header(&heads[0], "authorization").is_empty() && header(&heads[0], "x-linkgate-assertion").is_empty());
    let other = sources.metrics(&site("t2"), soon()).await.unwrap_err();
    assert_eq!(other.to_string(), "metrics of tenant `t2` by connector `one`: no credential is configured");
    assert_eq!(service.heads().len(), 1, "another tenant is not asked about");
}

#[tokio::test]
async fn the_token_is_of_one_tenant_and_short() {
    // Upper and lower case matter here, so the claims are read from the signed token itself.
    let service = Scripted::start(|_, _| Some(METRICS)).await;
    let (_, config) = service.sources("audience = \"isp-api\"", "");
    let connector = &config.connectors[0];
    let linkgate::connector::settings::Credential::Token { subject, roles, permissions } = &connector.credential else {
        panic!("{connector:?}")
    };
    let dir = tempfile::tempdir().unwrap();
    DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&dir.path().join("signing.pem")).unwrap();
    let config = configuration(&service.origin, "", "", dir.path());
    let keyring = linkgate::identity::Keyring::load(config.signing.as_ref().unwrap()).unwrap();
    let site = site("t1");
    let (permission_names, role_names) = Default::default();
    let claims_of = linkgate::identity::ServiceClaims {
        subject,
        tenant: site.tenant(),
        partner: site.link().link.partner_id,
        roles: roles.as_deref(),
        permissions: permissions.as_deref(),
        link_role: site.link().link.role,
        link_permissions: linkgate::domain::PermissionSet::EMPTY,
        not_after: None,
        shape: linkgate::identity::ReplacementShape {
            hs256: None,
            issuer: None,
            audience: Some("isp-api"),
            permission_names: &permission_names,
            role_names: &role_names,
        },
    };
    let signed = keyring.service_token(&claims_of, linkgate::domain::Millis::now()).unwrap();
    let claims = claims(signed.token());
    assert_eq!(claims["tenant_id"], "t1");
    assert_eq!(claims["managed_tenant_ids"], serde_json::json!(["t1"]));
    assert_eq!(claims["roles"], serde_json::json!(["tenant_admin"]));
    assert_eq!(
        (&claims["sub"], &claims["aud"], &claims["linkgate"]),
        (&"linkgate".into(), &"isp-api".into(), &true.into())
    );
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 60);
    assert!(claims.get("is_platform_admin").is_none());
}

#[tokio::test]
async fn a_question_survives_a_connection_that_was_closed_while_idle_and_a_write_is_not_repeated() {
    // Closes instead of answering a second request: what a service does whose keep-alive has just run out.
    let service = Scripted::start(|request, _| (request == 0).then_some(METRICS)).await;
    let (sources, _) = service.sources("", "");
    for _ in 0..3 {
        sources.metrics(&site("t1"), soon()).await.unwrap();
    }
    assert_eq!(service.heads().len(), 5, "the second and the third were sent twice");
    let ticket = NewTicket {
        subject: "No signal".into(),
        description: "x".into(),
        priority: linkgate::connector::rows::Priority::Low,
        category: None,
        customer_id: None,
        tags: Vec::new(),
        notify_customer: None,
        partner_id: "p".into(),
        user_id: "u".into(),
    };
    let sent = sources.create_ticket(&site("t1"), &ticket, soon()).await;
    assert!(matches!(sent, Err(WriteError::Unknown(SourceError::Unavailable(_)))), "{sent:?}");
    let posts = service.heads().iter().filter(|head| head.starts_with("post ")).count();
    assert_eq!(posts, 1);
}

#[tokio::test]
async fn a_service_that_never_answers_is_asked_once_and_its_connection_is_closed() {
    let service = Scripted::start(|_, _| None).await;
    let (sources, _) = service.sources("", "");
    let error = sources.metrics(&site("t1"), soon()).await.unwrap_err();
    assert_eq!(error, SourceError::Unavailable("`isp` broke the connection off".to_owned()));
    assert_eq!(service.heads().len(), 1, "a fresh connection that breaks is no stale one");
}

#[tokio::test]
async fn requests_under_way_are_bounded_for_each_upstream() {
    let rig = crate::rig::Rig::with("").await;
    rig.isp.set_latency(Duration::from_millis(200));
    let mut config = rig.config.clone();
    for upstream in &mut config.upstreams {
        upstream.max_in_flight = 2;
    }
    let sources = Arc::new(sources(&config));
    let asked = (0..4).map(|number| {
        let sources = Arc::clone(&sources);
        tokio::spawn(async move { sources.metrics(&site(&format!("t{number}")), soon()).await })
    });
    let mut refused = 0;
    for one in asked.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(_) => {}
            Err(SourceError::Unasked(text)) => {
                assert_eq!(text, "too many requests to `isp` are under way");
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 2);
    assert!(sources.metrics(&site("t1"), soon()).await.is_ok(), "places come back");
}

/// A service that is asked as the time runs out, because others had its places, did not fail.
#[tokio::test]
async fn time_in_the_queue_is_no_failure_of_the_service() {
    let hangs: Rule = |_, _| Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{");
    let service = Scripted::start(hangs).await;
    let (sources, _) = service.sources("max_in_flight = 1\nmax_pending = 1\nqueue_timeout = \"5s\"", "");
    let (one, other) = (site("t1"), site("t2"));
    let now = tokio::time::Instant::now();
    let (first, second) = tokio::join!(
        sources.metrics(&one, now + Duration::from_millis(900)),
        sources.metrics(&other, now + Duration::from_millis(1_000)),
    );
    assert_eq!(first.unwrap_err(), SourceError::Timeout, "it had its place all the time");
    let crowded = "too many requests to `isp` are under way".to_owned();
    assert_eq!(second.unwrap_err(), SourceError::Unasked(crowded));
}

/// An id stands where a service has words of its own: only an answer that tells the id is the ticket.
#[tokio::test]
async fn a_ticket_is_what_tells_the_id_that_was_asked_for() {
    const OTHER: &str = r#"{"id": "7F9C24E8-3B12-4FEF-91E0-5D2C0AFB2E6D", "ticket_number": "TCK-1", "tenant_id": "t1",
        "customer_id": null, "subject": "s", "status": "open", "priority": "low", "ticket_type": null,
        "assigned_to_user_id": null, "created_at": null, "updated_at": null, "sla_due_date": null, "sla_breached": false,
        "last_response_at": null, "resolution_time_minutes": null}"#;
    fn plain(status: &str) -> &'static str {
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}").leak()
    }
    let service = Scripted::start(|_, head| {
        let (_, rest) = head.split_once("/tickets/")?;
        Some(match rest.split(' ').next()? {
            "stats" => r#"{"open": 3, "closed": 1}"#,
            "open" => "[]",
            "flag" => r#"{"id": true}"#,
            "nothing" => r#"{"id": null, "tenant_id": "t1"}"#,
            status if status.len() == 3 => plain(status),
            _ => OTHER,
        })
    })
    .await;
    let (sources, _) = service.sources("", "");
    let site = site("t1");
    for id in ["stats", "open", "flag", "nothing", "TCK-1", "400", "404", "405", "422"] {
        assert_eq!(sources.ticket(&site, id, soon()).await, Ok(None), "{id}");
    }
    for id in ["401", "403", "429", "500", "503"] {
        let error = sources.ticket(&site, id, soon()).await.unwrap_err();
        assert!(matches!(&error, SourceError::Answer(text) if text.ends_with(&format!("status {id}"))), "{error:?}");
    }
    let found = sources.ticket(&site, "7f9c24e8-3b12-4fef-91e0-5d2c0afb2e6d", soon()).await.unwrap().unwrap();
    assert_eq!(found.ticket_number.as_deref(), Some("TCK-1"));
}

/// A connector for a service with the smallest possible invoices.
const SMALL: &str = r#"
[connectors.one.invoices]
page_size = 2
failed_when = []
rows = "/rows"
tenant = ""
line_items = {}
[connectors.one.invoices.fields]
invoice_id = "/id"
invoice_number = ""
customer_id = ""
invoice_date = "/day"
due_date = ""
subtotal = ""
tax = ""
total = { pointer = "/total", unit = "text" }
paid_amount = { pointer = "/total", minus = "/owed", unit = "text" }
balance = { pointer = "/owed", unit = "text" }
currency = "/in"
payment_date = ""
created_at = ""
status = { pointer = "/state", words = { done = "paid" }, otherwise = "draft" }
"#;

async fn ids(sources: &Sources) -> Result<Vec<String>, SourceError> {
    let mut ids = Vec::new();
    let filter = linkgate::portal::sources::InvoiceFilter::default();
    sources.invoices(&site("t1"), &filter, soon(), &mut |row| ids.push(row.invoice_id)).await?;
    Ok(ids)
}

#[tokio::test]
async fn a_row_that_slips_to_the_next_page_counts_once() {
    let service = Scripted::start(|_, head| {
        Some(if head.contains("offset=0") {
            r#"{"rows": [{"id": "a", "day": "2026-01-02", "total": "5.00", "owed": "1.50", "in": "eur", "state": "done"},
                         {"id": "b", "day": "2026-01-01", "total": "5", "owed": "5", "in": "EUR", "state": "odd"}], "has_more": true}"#
        } else {
            r#"{"rows": [{"id": "b", "day": "2026-01-01", "total": "5", "owed": "5", "in": "EUR", "state": "odd"},
                         {"id": "c", "day": "2025-12-31", "total": "5", "owed": "0", "in": "JPY", "state": "done"}], "has_more": false}"#
        })
    })
    .await;
    let (sources, _) = service.sources("", SMALL);
    assert_eq!(ids(&sources).await.unwrap(), ["a", "b", "c"]);
    assert_eq!(service.heads().len(), 2);
}

#[tokio::test]
async fn a_service_that_promises_more_and_gives_nothing_is_not_asked_for_ever() {
    let service = Scripted::start(|_, _| Some(r#"{"rows": [], "has_more": true}"#)).await;
    let (sources, _) = service.sources("", SMALL);
    let told = ids(&sources).await.unwrap_err().to_string();
    assert!(told.ends_with("a page without rows says that there are more"), "{told}");
    assert_eq!(service.heads().len(), 1);
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_an_error() {
    let service = Scripted::start(|_, _| {
        Some(r#"{"rows": [{"id": "a", "id": "b", "day": "2026-01-02", "total": "5", "owed": "1", "in": "EUR", "state": "done"}], "has_more": false}"#)
    })
    .await;
    let (sources, _) = service.sources("", SMALL);
    let told = ids(&sources).await.unwrap_err().to_string();
    assert!(told.contains("`/rows/0`: this is no JSON, or a key in it stands twice"), "{told}");
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let ask = async |rule: Rule| {
        let (sources, _) = Scripted::start(rule).await.sources("", "");
        let site = site("t1");
        let until = tokio::time::Instant::now() + Duration::from_millis(300);
        sources.metrics(&site, until).await.unwrap_err()
    };
    let stopped =
        |_: usize, _: &str| Some("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{");
    assert_eq!(ask(stopped).await, SourceError::Timeout);
    let cut =
        |_: usize, _: &str| Some("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{!");
    assert_eq!(ask(cut).await, SourceError::Unavailable("`isp` broke the answer off".to_owned()));
    let noise = |_: usize, _: &str| Some("HTTP/9 what\r\n\r\n!");
    assert_eq!(ask(noise).await, SourceError::Unavailable("`isp` broke the connection off".to_owned()));
    let packed = |_: usize, _: &str| {
        Some(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
        )
    };
    assert!(matches!(ask(packed).await, SourceError::Answer(text) if text.ends_with("the answer is no JSON")));
    let none = |_: usize, _: &str| Some("HTTP/1.1 204 No Content\r\n\r\n");
    assert!(matches!(ask(none).await, SourceError::Answer(text) if text.ends_with("status 204")));
}
