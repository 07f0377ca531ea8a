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

/// Whether to answer the request with this number (from 0) in its connection, or to close instead.
type Rule = fn(request: usize) -> bool;

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
                        notes.lock().unwrap().push(head);
                        if !rule(request) {
                            return;
                        }
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{METRICS}",
                            METRICS.len()
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
    let service = Scripted::start(|_| true).await;
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
    assert_ne!(header(&heads[0], "x-request-id"), header(&heads[1], "x-request-id"));
}

#[tokio::test]
async fn a_header_with_the_tenants_own_secret_replaces_the_token() {
    let service = Scripted::start(|_| true).await;
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
    let service = Scripted::start(|_| true).await;
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
    let service = Scripted::start(|request| request == 0).await;
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
    let service = Scripted::start(|_| false).await;
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
            Err(SourceError::Unavailable(text)) => {
                assert_eq!(text, "too many requests to `isp` are under way");
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 2);
    assert!(sources.metrics(&site("t1"), soon()).await.is_ok(), "places come back");
}
