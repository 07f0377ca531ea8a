//! What must never be written down: bearer tokens, tokens of download links, webhook secrets, the gateway's own
//! credentials at the services. Looked for in every log line, the audit journal, error bodies and metrics.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use linkgate::{
    domain::{Millis, PartnerId},
    store::admin::SubscriptionInput,
};

use crate::{
    client::{Answer, Request},
    consolidated::{BASE, Consolidated, UPSTREAM_SECRET},
    gateway::{House, P1, Setup, actor, eventually},
    service::Chaos,
};

const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW_WEBHOOK_SECRET: &str = "whsec_Zm9yIHRoZSB0ZXN0IG9mIGxlYWtzIG9ubHk=";

/// Answers each connection with 500, so that deliveries are tried again and fail in the log.
fn receiver(tried: &Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let tried = Arc::clone(tried);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 8192]);
            let _ = stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            tried.fetch_add(1, Ordering::SeqCst);
        }
    });
    url
}

/// What was said to clients, and what must be nowhere.
#[derive(Default)]
struct Watch {
    bodies: Vec<String>,
    secrets: BTreeSet<String>,
}

impl Watch {
    fn secret(&mut self, text: &str) {
        assert!(text.len() >= 16, "too short to be looked for: {text}");
        self.secrets.insert(text.to_owned());
        // The signature is what makes a token one: cut or split it leaks all the same.
        let signature = text.rsplit('.').next().unwrap();
        if signature.len() >= 16 {
            self.secrets.insert(signature.to_owned());
        }
    }

    /// An answer that is an error; its body goes to whoever asked.
    fn error(&mut self, answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{}", answer.text());
        self.bodies.push(answer.text());
    }
}

/// The last character of a signature may carry bits that count for nothing: another one in its middle.
fn forged(token: &str) -> String {
    let at = token.len() - 10;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

fn journal(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file())
        .map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned())
        .collect()
}

#[test]
fn no_secret_is_written_down_as_json() {
    nothing_leaks("format = \"json\"\nrequests = true\nfilter = \"debug\"\n", "\"level\":\"DEBUG\"");
}

#[test]
fn no_secret_is_written_down_as_text() {
    nothing_leaks("format = \"text\"\nrequests = true\nfilter = \"debug\"\n", "DEBUG");
}

fn nothing_leaks(log: &'static str, debug: &str) {
    let mut portal = Consolidated::over(House::new(), 2, 20);
    portal.setup = Setup { log, ..portal.setup };
    let (tried, mut watch) = (Arc::new(AtomicUsize::new(0)), Watch::default());
    let url = receiver(&tried);
    let admin = portal.house.admin();
    let partner = PartnerId(P1.parse().unwrap());
    let input = SubscriptionInput { url: Some(url), ..SubscriptionInput::default() };
    let created = portal.house.block_on(admin.create_subscription(&actor(), partner, WEBHOOK_SECRET, &input));
    let rotated = SubscriptionInput {
        rotate: Some((NEW_WEBHOOK_SECRET.to_owned(), Millis(Millis::now().0 + 600_000))),
        ..SubscriptionInput::default()
    };
    let id = created.unwrap().value.id;
    portal.house.block_on(admin.update_subscription(&actor(), id, None, &rotated)).unwrap();
    for secret in [WEBHOOK_SECRET, NEW_WEBHOOK_SECRET] {
        watch.secret(secret.strip_prefix("whsec_").unwrap());
    }
    watch.secret(UPSTREAM_SECRET);

    let gateway = portal.start();
    let (one, two) = (portal.house.token1(), portal.house.token2());
    let (forged_one, garbage) = (forged(&one), format!("garbage.{}.token", "x".repeat(40)));
    for token in [&one, &two, &forged_one, &garbage] {
        watch.secret(token);
    }
    let get = |path: &str| Request::get(&format!("{BASE}{path}"));

    // Tokens that are not believed, and tokens where none belongs.
    watch.error(&gateway.ask(&get("/customers").bearer(&forged_one)), 401);
    watch.error(&gateway.ask(&get("/customers").bearer(&garbage)), 401);
    watch.error(&gateway.ask(&get("/customers").bearer(&one).bearer(&two)), 401);
    watch.error(&gateway.ask(&get(&format!("/customers?access_token={one}")).bearer(&one)), 422);
    watch.error(&gateway.ask(&get("/billing/invoices").bearer(&one).tenant(&two)), 403);
    watch.error(&gateway.ask(&Request::get(&format!("/nowhere?token={one}")).bearer(&one)), 404);
    let misplaced = Request::new("POST", &format!("{BASE}/billing/invoices/export"));
    watch.error(&gateway.ask(&misplaced.json(&format!(r#"{{"format":"{one}"}}"#)).bearer(&one)), 422);

    // A download, good and bad.
    let export = portal.queue(&gateway);
    let state = portal.completed(&gateway, &export);
    let link = state["download_url"].as_str().unwrap().to_owned();
    let (path, token) = link.split_once("?token=").unwrap();
    watch.secret(token);
    let forged_link = forged(token);
    watch.secret(&forged_link);
    assert_eq!(gateway.ask(&Request::get(&link).bearer(&one)).status, 200);
    watch.error(&gateway.ask(&Request::get(&link)), 401);
    watch.error(&gateway.ask(&Request::get(&link).bearer(&two)), 404);
    watch.error(&gateway.ask(&Request::get(&format!("{path}?token={forged_link}")).bearer(&one)), 403);
    watch.error(&gateway.ask(&Request::get(&format!("{path}?token={token}&token={token}")).bearer(&one)), 422);
    watch.error(&gateway.ask(&Request::get(&format!("{path}?other={token}")).bearer(&one)), 422);
    watch.error(&gateway.ask(&Request::new("POST", &link).bearer(&one)), 405);

    // An event whose deliveries fail, calls across tenants, and services that misbehave.
    let ticket = Request::new("POST", &format!("{BASE}/support/tickets")).tenant("e-0");
    let body = r#"{"subject":"A line is down","description":"since noon"}"#;
    assert_eq!(gateway.ask(&ticket.json(body).bearer(&one)).status, 201);
    assert_eq!(gateway.ask(&Request::get("/api/invoices").tenant("t-full").bearer(&one)).status, 200);
    for chaos in [Chaos::Status(500), Chaos::Garbage, Chaos::Closes, Chaos::Redirects] {
        portal.service.misbehave("e-0", "invoices", Some(chaos));
        let strict = get("/billing/invoices?strict=true").header("Cache-Control", "no-cache");
        watch.error(&gateway.ask(&strict.bearer(&one)), 502);
    }
    eventually("a delivery is tried again", || tried.load(Ordering::SeqCst) >= 2);
    let metrics = Request::get("/metrics").send(gateway.health).text();
    // The tries' ends are written after their answers.
    thread::sleep(Duration::from_millis(300));
    gateway.terminate();
    assert_eq!(gateway.ended(crate::gateway::PATIENCE), Some(0));

    for credential in portal.service.credentials.lock().unwrap().iter() {
        watch.secret(credential.strip_prefix("Bearer ").unwrap_or(credential));
    }
    for seen in portal.house.upstream.seen() {
        for name in ["authorization", "x-linkgate-assertion"] {
            let credential = seen.one(name);
            if !credential.is_empty() {
                watch.secret(credential.strip_prefix("Bearer ").unwrap_or(credential));
            }
        }
    }
    let (log, journal) = (portal.house.log_text(), journal(&portal.house.journal()));
    // The test means nothing if what it looks through is empty.
    for word in [debug, "/download", "export completed", "linkgate::request"] {
        assert!(log.contains(word), "the log says nothing of `{word}`");
    }
    assert!(journal.contains("/download") && journal.contains("support/tickets"), "the journal is empty");
    assert!(metrics.contains("linkgate_requests_total") && watch.secrets.len() > 12 && watch.bodies.len() >= 15);
    for secret in &watch.secrets {
        let line = log.lines().find(|line| line.contains(secret.as_str()));
        assert_eq!(line, None, "`{secret}` is in the log");
        assert!(!journal.contains(secret.as_str()), "`{secret}` is in the journal");
        assert!(!metrics.contains(secret.as_str()), "`{secret}` is in the metrics");
        let body = watch.bodies.iter().find(|body| body.contains(secret.as_str()));
        assert_eq!(body, None, "`{secret}` is in an error's body");
    }
}
