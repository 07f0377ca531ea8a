//! A tenant checks the access log by itself: with proofs, published keys, and nothing else of the gateway.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use linkgate::audit::evidence::{Keys, verdict};
use serde_json::{Value, json};

use super::{
    client::Request,
    rig::{BASE, Rig, names},
};

fn ask_log(rig: &Rig, home: &str, query: &str) -> Value {
    let request = Request::get(&format!("/api/v1/tenant/access-log?{query}"));
    let answer = request.bearer(&rig.token("admin-1", home, "tenant_admin")).send(rig.public);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The log once all `count` records in it are proven.
fn proven(rig: &Rig, home: &str, count: usize) -> Value {
    let began = Instant::now();
    loop {
        let log = ask_log(rig, home, "proof=true&limit=100");
        let items = log["items"].as_array().unwrap();
        if items.len() == count && items.iter().all(|item| !item["proof"].is_null()) {
            return log;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{count} for {home}: {log}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn published(rig: &Rig) -> String {
    let keys = Request::get("/.well-known/linkgate/audit-keys.json").send(rig.public);
    assert_eq!(keys.status, 200);
    assert_eq!(keys.header("content-type"), "application/json");
    keys.text()
}

fn judged(log: &Value, keys: &str, tenant: &str) -> Result<verdict::Verdict, verdict::NotALog> {
    let keys = Keys::parse(keys.as_bytes()).unwrap();
    verdict::check(log.to_string().as_bytes(), &keys, Some(tenant))
}

/// The checker in another language, which shares nothing with ours.
fn python(log: &Path, keys: &Path) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit_proof.py");
    let done = Command::new("python3").arg(script).args([log, keys]).output().expect("python3 is needed");
    let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (done.status.success(), text)
}

fn save(rig: &Rig, name: &str, text: &str) -> PathBuf {
    let path = rig.dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Requests about one tenant, about several, refused for one of them, and an act upon one.
fn traffic(rig: &Rig) {
    let asked = |path: &str| rig.ask(Request::get(&format!("{BASE}{path}"))).status;
    assert_eq!(asked("/billing/invoices?search=secret-word"), 200);
    assert_eq!(asked("/customers/t-full"), 200);
    assert_eq!(asked("/customers/t-billing"), 200);
    assert_eq!(asked("/support/tickets?tenant_ids=t-full,t-support"), 200);
    let body = r#"{"subject": "a", "description": "b"}"#;
    let create = Request::new("POST", &format!("{BASE}/support/tickets")).json(body);
    assert_eq!(rig.ask(create.header("X-Active-Tenant-Id", "t-full")).status, 201);
    // A ticket of t-full, looked for in all tenants: the others must not learn its number.
    let update = Request::new("PATCH", &format!("{BASE}/support/tickets/t-full-k001")).json(r#"{"status": "pending"}"#);
    rig.ask(update);
}

#[test]
fn every_record_of_the_log_is_proven_to_its_tenant_and_says_nothing_of_others() {
    let rig = Rig::start();
    traffic(&rig);
    let keys = published(&rig);
    let key_file = save(&rig, "keys.json", &keys);
    for (tenant, count) in [("t-full", 5), ("t-override", 2), ("t-billing", 3)] {
        let log = proven(&rig, tenant, count);
        let verdict = judged(&log, &keys, tenant).unwrap();
        assert_eq!((verdict.proven, verdict.wrong, verdict.pending), (count, vec![], vec![]), "{tenant}");
        assert_eq!(verdict.tenant.as_deref(), Some(tenant));
        let log_file = save(&rig, &format!("{tenant}.json"), &log.to_string());
        let (ok, text) = python(&log_file, &key_file);
        assert!(ok && text.contains(&format!("{count} records about {{'{tenant}'}} are proven")), "{text}");
        // Nothing of other tenants, nor of what is private.
        let text = log.to_string();
        for other in ["t-auditor", "t-billing", "t-full", "t-override", "t-reseller", "t-support"] {
            assert!(other == tenant || !text.contains(other), "{tenant} sees {other}: {text}");
        }
        for private in ["secret-word", "s-1\"", "session_id", "policy_version"] {
            assert!(!text.contains(private), "{private}: {text}");
        }
        // The log itself is what it was; the proof adds two names.
        assert_eq!(names(&log["items"][0]).len(), 19);
        assert_eq!(names(&ask_log(&rig, tenant, "limit=1")["items"][0]).len(), 17);
        assert_eq!(names(&ask_log(&rig, tenant, "proof=false")).len(), 6);
    }
}

/// What is done to an answer, and what is said of it.
type Forgery = (&'static str, fn(&mut Value), &'static str);

const FORGERIES: [Forgery; 14] = [
    ("a user", |log| log["items"][0]["user_id"] = json!("somebody"), "`user_id`"),
    ("a time", |log| log["items"][0]["time"] = json!("2026-01-01T00:00:00.000Z"), "`time`"),
    ("a status", |log| log["items"][0]["status"] = json!(403), "`status`"),
    ("a decision", |log| log["items"][0]["decision"] = json!("deny"), "`decision`"),
    ("a reason", |log| log["items"][0]["reason"] = json!("override"), "`reason`"),
    ("an action", |log| log["items"][0]["action"] = json!("partner.tenants.list"), "`action`"),
    ("a hidden action", |log| log["items"][0]["action"] = json!(null), "`action`"),
    ("the visible part", |log| alter(log, "req_", "req-"), "record"),
    ("a place", |log| log["items"][0]["proof"]["opening"]["seq"] = json!(1), "record 1"),
    ("a path", |log| drop(log["items"][0]["proof"]["opening"]["path"].as_array_mut().unwrap().pop()), "length"),
    (
        "another's proof",
        |log| log["items"][0]["proof"] = log["items"][1]["proof"].clone(),
        "is not what the record says",
    ),
    (
        "another's completion",
        |log| {
            log["items"][0]["proof"]["completion"] = log["items"][1]["proof"]["completion"].clone();
        },
        "belongs to another record",
    ),
    ("shown twice", |log| log["items"][1] = log["items"][0].clone(), "twice"),
    ("a withheld proof", |log| log["items"][0]["proof"] = json!(null), "no reason is given"),
];

/// Changes a word in the text of the first record's opening, as it is shown.
fn alter(log: &mut Value, from: &str, to: &str) {
    let opening = &mut log["items"][0]["proof"]["opening"];
    let place = match opening["line"].is_null() {
        true => &mut opening["parts"]["shown"][0]["text"],
        false => &mut opening["line"]["pub"],
    };
    *place = json!(place.as_str().unwrap().replacen(from, to, 1));
}

#[test]
fn a_forged_log_is_found_by_both_checkers() {
    let rig = Rig::start();
    traffic(&rig);
    let keys = published(&rig);
    let key_file = save(&rig, "keys.json", &keys);
    let log = proven(&rig, "t-full", 5);
    assert_eq!(judged(&log, &keys, "t-full").unwrap().proven, 5);
    for (what, forge, words) in FORGERIES {
        let mut forged = log.clone();
        forge(&mut forged);
        assert_ne!(forged, log, "{what} changes nothing");
        let verdict = judged(&forged, &keys, "t-full").unwrap();
        let said = format!("{:?} {:?}", verdict.wrong, verdict.pending);
        assert!(verdict.proven == 4 && said.contains(words), "{what}: {said}");
        if !matches!(what, "shown twice") {
            let (ok, text) = python(&save(&rig, "forged.json", &forged.to_string()), &key_file);
            assert!(!ok, "{what}: {text}");
        }
    }
    // The checkpoint: another root, another key, another chain's.
    let mut forged = log.clone();
    let note = log["checkpoints"][0]["note"].as_str().unwrap();
    forged["checkpoints"][0]["note"] = json!(note.replacen("\nhead ", "\nhead 0", 1));
    assert!(judged(&forged, &keys, "t-full").is_err());
    let other = Rig::start();
    assert!(judged(&log, &published(&other), "t-full").unwrap_err().to_string().contains("none of the given keys"));
    assert!(!python(&save(&rig, "log.json", &log.to_string()), &save(&rig, "other.json", &published(&other))).0);
    forged["checkpoints"] = json!([]);
    assert_eq!(judged(&forged, &keys, "t-full").unwrap().wrong.len(), 5);
    // Another tenant's log is no answer to this one's question.
    let foreign = judged(&proven(&rig, "t-override", 2), &keys, "t-full").unwrap();
    assert_eq!((foreign.proven, foreign.wrong.len()), (0, 2), "{foreign:?}");
    let plain = ask_log(&rig, "t-full", "");
    assert_eq!(judged(&plain, &keys, "t-full").unwrap_err(), verdict::NotALog::WithoutProofs);
}

#[test]
fn what_is_younger_than_the_last_checkpoint_is_pending() {
    let rig = Rig::with_checkpoints_every(Duration::from_secs(3600));
    assert_eq!(rig.ask(Request::get(&format!("{BASE}/customers/t-full"))).status, 200);
    let began = Instant::now();
    let log = loop {
        let log = ask_log(&rig, "t-full", "proof=true");
        // The first checkpoint is signed at once; what comes behind it waits for the next.
        if log["checkpoints"].as_array().is_some_and(|all| !all.is_empty()) && log["items"][0]["status"] == 200 {
            rig.ask(Request::get(&format!("{BASE}/customers/t-full")));
            let log = ask_log(&rig, "t-full", "proof=true");
            if log["total"] == 2 {
                break log;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{log}");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!((&log["items"][0]["proof"], &log["items"][0]["proof_reason"]), (&json!(null), &json!("pending")));
    let verdict = judged(&log, &published(&rig), "t-full").unwrap();
    assert!(verdict.wrong.is_empty() && !verdict.pending.is_empty(), "{verdict:?}");
}

#[test]
fn the_command_checks_a_saved_log_without_configuration() {
    let rig = Rig::start();
    traffic(&rig);
    let keys = save(&rig, "keys.json", &published(&rig));
    let log = proven(&rig, "t-full", 5);
    let file = save(&rig, "log.json", &log.to_string());
    let run = |file: &Path, more: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_linkgate"))
            .current_dir(tempfile::tempdir().unwrap().path())
            .env_clear()
            .args(["audit", "prove-check"])
            .args([file, Path::new("--key"), &keys])
            .args(more)
            .output()
            .unwrap();
        let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (done.status.code(), text)
    };
    let (code, text) = run(&file, &["--tenant", "t-full"]);
    assert!(code == Some(0) && text.contains("5 records about `t-full` are proven"), "{text}");
    assert_eq!(run(&file, &["--tenant", "t-billing"]).0, Some(6));
    let mut forged = log.clone();
    forged["items"][2]["username"] = json!("nobody");
    let (code, text) = run(&save(&rig, "forged.json", &forged.to_string()), &[]);
    assert!(code == Some(6) && text.contains("record 3") && text.contains("`username`"), "{text}");
    forged["items"][2]["proof"] = json!(null);
    let forged = save(&rig, "forged.json", &forged.to_string());
    assert_eq!((run(&forged, &[]).0, run(&forged, &["--allow-pending"]).0), (Some(6), Some(0)));
    assert_eq!(run(&save(&rig, "no.json", "{}"), &[]).0, Some(3));
}
