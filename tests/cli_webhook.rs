//! `linkgate webhook` as an operator runs it: the built binary, an SQLite file, a receiver.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod cli_support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    sync::mpsc,
    thread,
};

use cli_support::{PATIENCE, Ran, linkgate, run};
use serde_json::Value;

const PARTNER: &str = "11111111-1111-4111-8111-111111111111";

struct Shell {
    _dir: tempfile::TempDir,
    config: PathBuf,
}

impl Shell {
    fn new(webhooks: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("linkgate.toml");
        let text = format!(
            "[database]\nsqlite = \"linkgate.db\"\n[issuers.main]\nissuer = \"https://login.example\"\n\
             audiences = [\"linkgate\"]\nalgorithms = [\"ES256\"]\njwks_url = \"https://login.example/jwks.json\"\n\
             [webhooks]\n{webhooks}\n"
        );
        std::fs::write(&config, text).unwrap();
        let shell = Self { _dir: dir, config };
        shell.ok(&["migrate"]);
        shell.ok(&["tenant", "create", "home"]);
        shell.ok(&["partner", "create", "--id", PARTNER, "--name", "Blue", "--home-tenant", "home"]);
        shell
    }

    fn run(&self, words: &[&str]) -> Ran {
        let mut all = vec!["--json", "--config", self.config.to_str().unwrap()];
        all.extend(words);
        run(&mut linkgate(&all))
    }

    fn ok(&self, words: &[&str]) -> Value {
        let ran = self.run(words);
        assert_eq!(ran.code, 0, "{words:?}: {}", ran.err);
        serde_json::from_str(&ran.out).unwrap_or(Value::Null)
    }

    fn webhook(&self, words: &[&str]) -> Value {
        self.ok(&[&["webhook"], words].concat())
    }

    fn fails(&self, code: i32, words: &[&str]) -> String {
        let ran = self.run(&[&["webhook"], words].concat());
        assert_eq!(ran.code, code, "{words:?}: {}{}", ran.out, ran.err);
        ran.err
    }
}

#[test]
fn a_subscription_is_made_shown_changed_and_removed() {
    let shell = Shell::new("");
    let url = "https://hooks.example/in";
    let made = shell.webhook(&["create", "--partner", PARTNER, "--url", url, "--events", "sla_breach,link_revoked"]);
    let id = made["id"].as_str().unwrap();
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"));
    assert_eq!(made["events"][0], "partner.tenant.sla_breach");
    let shown = shell.run(&["webhook", "show", id]);
    assert!(!shown.out.contains("whsec_"), "shown once: {}", shown.out);
    let listed = shell.webhook(&["list", "--partner", PARTNER]);
    assert_eq!((listed[0]["id"].as_str(), listed[0]["url"].as_str()), (Some(id), Some(url)));

    let rotated = shell.webhook(&["update", id, "--rotate-secret", "--overlap-hours", "1", "--enabled", "false"]);
    assert_ne!(rotated["secret"].as_str().unwrap(), secret);
    assert_eq!(rotated["enabled"], false);
    assert!(rotated["previous_secret_until"].is_string());
    let changed = shell.webhook(&["update", id, "--events", "ticket_created", "--expect-version", "2"]);
    assert_eq!((changed["events"][0].as_str(), changed.get("secret")), (Some("partner.tenant.ticket_created"), None));
    shell.fails(5, &["update", id, "--description", "x", "--expect-version", "2"]);

    let asked = shell.fails(8, &["delete", id]);
    assert!(asked.contains(url), "{asked}");
    shell.webhook(&["--yes", "delete", id]);
    shell.fails(4, &["show", id]);
    shell.fails(4, &["delete", id, "--yes"]);
}

#[test]
fn what_cannot_be_sent_to_is_refused_at_once() {
    let shell = Shell::new("");
    for url in ["http://hooks.example/", "https://user:pass@hooks.example/", "https://hooks.example:25/", "hooks"] {
        let why = shell.fails(3, &["create", "--partner", PARTNER, "--url", url]);
        assert!(why.contains("the webhook's URL is not taken") && !why.contains("pass"), "{why}");
    }
    let nobody = "22222222-2222-4222-8222-222222222222";
    shell.fails(4, &["create", "--partner", nobody, "--url", "https://hooks.example/"]);
    let unknown = shell.fails(2, &["create", "--partner", PARTNER, "--url", "https://hooks.example/", "--events", "x"]);
    assert!(unknown.contains("partner.tenant.sla_breach"), "{unknown}");
    shell.fails(4, &["redeliver", "22222222-2222-4222-8222-222222222222"]);
    shell.fails(2, &["redeliver"]);
    assert_eq!(shell.webhook(&["deliveries", "--status", "dead"]), Value::Array(Vec::new()));
    shell.fails(2, &["deliveries", "--status", "lost"]);
}

/// The whole life of a key: none, one, another one, each step as an operator takes it.
#[test]
fn secrets_are_encrypted_in_the_database_file() {
    let mut shell = Shell::new("");
    let folder = shell.config.parent().unwrap().to_owned();
    let stored = |secret: &str| {
        let files = ["linkgate.db", "linkgate.db-wal"].map(|name| std::fs::read(folder.join(name)).unwrap_or_default());
        files.iter().any(|bytes| bytes.windows(secret.len()).any(|part| part == secret.as_bytes()))
    };
    let plain = std::fs::read_to_string(&shell.config).unwrap();
    let keys = |shell: &mut Shell, keys: &str| std::fs::write(&shell.config, format!("{plain}{keys}\n")).unwrap();
    let create = ["create", "--partner", PARTNER, "--url", "https://hooks.example/in"];
    let warned = shell.run(&[&["webhook"], &create[..]].concat());
    let made: Value = serde_json::from_str(&warned.out).unwrap();
    let old = made["secret"].as_str().unwrap();
    assert!(stored(old));
    assert!(warned.err.contains("stands unencrypted in the database"), "{}", warned.err);
    assert!(shell.fails(3, &["reseal"]).contains("webhooks.secret_keys"));

    std::fs::write(folder.join("a.key"), "an-example-of-a-key-that-is-long-enough").unwrap();
    keys(&mut shell, "secret_keys = [{ kid = \"a\", key_file = \"a.key\" }]");
    let quiet = shell.run(&[&["webhook"], &create[..]].concat());
    assert!(!quiet.err.contains("unencrypted") && !quiet.out.contains("an-example"), "{}", quiet.err);
    let sealed: Value = serde_json::from_str(&quiet.out).unwrap();
    assert!(!stored(sealed["secret"].as_str().unwrap()));
    let rotated = shell.webhook(&["update", sealed["id"].as_str().unwrap(), "--rotate-secret"]);
    assert!(!stored(rotated["secret"].as_str().unwrap()));
    let done = shell.webhook(&["reseal"]);
    assert_eq!((done["subscriptions"].as_u64(), done["unchanged"].as_u64()), (Some(1), Some(1)));

    std::fs::write(folder.join("b.key"), "another-example-of-a-key-that-is-long").unwrap();
    keys(&mut shell, "secret_keys = [{ kid = \"b\", key_file = \"b.key\" }]");
    let why = shell.fails(1, &["reseal"]);
    assert!(why.contains("the key `a`") && why.contains("put it back"), "{why}");
    let test = shell.fails(1, &["test", made["id"].as_str().unwrap()]);
    assert!(test.contains("the key `a`"), "{test}");
    keys(&mut shell, "secret_keys = [{ kid = \"b\", key_file = \"b.key\" }, { kid = \"a\", key_file = \"a.key\" }]");
    assert_eq!(shell.webhook(&["reseal"])["subscriptions"], 2);
    keys(&mut shell, "secret_keys = [{ kid = \"b\", key_file = \"b.key\" }]");
    assert_eq!(shell.webhook(&["reseal"])["unchanged"], 2, "the first key is needed no more");
}

#[test]
fn a_test_is_posted_signed_and_by_the_gateways_rules() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for (stream, status) in listener.incoming().zip(["204 No Content", "500 Oops"]) {
            let mut stream = stream.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"}}") {
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).unwrap();
                seen.extend_from_slice(&buffer[..count]);
            }
            stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).unwrap();
            tell.send(String::from_utf8(seen).unwrap()).unwrap();
        }
    });
    let shell = Shell::new("allow_http = true\nallow_private = true");
    let made = shell.webhook(&["create", "--partner", PARTNER, "--url", &url]);
    let id = made["id"].as_str().unwrap();
    let tested = shell.webhook(&["test", id]);
    assert_eq!((tested["status"].as_u64(), tested["accepted"].as_bool()), (Some(204), Some(true)));
    let posted = told.recv_timeout(PATIENCE).unwrap();
    assert!(
        posted.contains("webhook-signature: v1,") && posted.contains(r#""type":"partner.webhook.test""#),
        "{posted}"
    );
    assert!(shell.fails(1, &["test", id]).contains("500"));

    let strict = Shell::new("allow_http = true");
    let made = strict.webhook(&["create", "--partner", PARTNER, "--url", &url]);
    let why = strict.fails(1, &["test", made["id"].as_str().unwrap()]);
    assert!(why.contains("a loopback address"), "{why}");
}
