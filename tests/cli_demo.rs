//! `linkgate demo`: what it prints is true, request by request, and its configuration serves.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod cli_support;

use std::{collections::BTreeSet, time::Instant};

use cli_support::{PATIENCE, Running, linkgate, run, send};
use serde_json::Value;

fn start(arguments: &[&str]) -> (Running, Value) {
    let mut all = vec!["demo", "--json"];
    all.extend_from_slice(arguments);
    let running = Running::start(&mut linkgate(&all));
    let document = serde_json::from_str(&running.line()).unwrap();
    (running, document)
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn host(url: &Value) -> &str {
    url.as_str().unwrap().strip_prefix("http://").unwrap()
}

#[test]
fn every_request_that_it_lists_gets_the_answer_that_it_foretells() {
    let (mut running, document) = start(&[]);
    let requests = document["requests"].as_array().unwrap();
    assert!(requests.len() > 40);
    let mut codes = BTreeSet::new();
    for request in requests {
        let headers: Vec<(String, String)> = request["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
        let body = request["body"].as_str().unwrap_or_default();
        let (status, answer) = send(host(&document["public_url"]), method, path, &headers, body);
        let what = request["what"].as_str().unwrap();
        assert_eq!(Value::from(status), request["expect_status"], "{what}: {answer}");
        if let Some(code) = request["expect_code"].as_str() {
            assert!(answer.contains(&format!("\"{code}\"")), "{what}: {answer}");
            codes.insert(code);
        }
    }
    let refusals =
        ["UNAUTHORIZED", "FORBIDDEN", "TENANT_ACCESS_DENIED", "TENANT_LINK_EXPIRED", "TENANT_CONTEXT_CONFLICT"];
    assert!(refusals.iter().all(|code| codes.contains(code)), "{codes:?}");
    let allowed = requests.iter().find(|one| one["expect_status"] == 200 && one["method"] == "GET").unwrap();
    let tenant = allowed["headers"]["X-Active-Tenant-Id"].as_str().unwrap();
    assert!(!allowed["path"].as_str().unwrap().contains(tenant));

    let folder = document["data_dir"].as_str().unwrap().to_owned();
    assert!(std::path::Path::new(&folder).exists());
    assert_eq!(running.stop(), Some(0));
    assert!(!std::path::Path::new(&folder).exists(), "the temporary folder goes with the demo");
}

#[test]
fn the_document_has_exactly_the_promised_fields() {
    let (_running, document) = start(&[]);
    assert_eq!(
        keys(&document),
        BTreeSet::from([
            "public_url",
            "health_url",
            "data_dir",
            "config_path",
            "users",
            "tenants",
            "links",
            "requests"
        ])
    );
    let list = |name: &str| document[name].as_array().unwrap().clone();
    for user in list("users") {
        assert_eq!(keys(&user), BTreeSet::from(["name", "token", "user_id", "partner_id", "home_tenant_id", "roles"]));
        assert!(user["home_tenant_id"].is_string() && user["user_id"].is_string());
        // Every listed token works at home.
        let headers = [("Authorization".to_owned(), format!("Bearer {}", user["token"].as_str().unwrap()))];
        let (status, body) = send(host(&document["public_url"]), "GET", "/api/isp/v1/billing/invoices", &headers, "");
        assert_eq!(status, 200, "{}: {body}", user["name"]);
    }
    assert_eq!(list("tenants").len(), 42);
    assert!(list("tenants").iter().all(|tenant| keys(tenant) == BTreeSet::from(["tenant_id", "name"])));
    let partners: BTreeSet<String> = list("links").iter().map(|link| link["partner_id"].to_string()).collect();
    assert_eq!(partners.len(), 3);
    let states: BTreeSet<String> =
        list("links").iter().map(|link| link["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states.into_iter().collect::<Vec<_>>(), ["active", "expired", "not_started", "pending", "revoked"]);
    let roles: BTreeSet<String> = list("links").iter().map(|link| link["access_role"].to_string()).collect();
    assert_eq!(roles.len(), 7);
    for link in list("links") {
        assert_eq!(
            keys(&link),
            BTreeSet::from(["link_id", "partner_id", "tenant_id", "access_role", "state", "custom_permissions"])
        );
    }
    for request in list("requests") {
        assert_eq!(
            keys(&request),
            BTreeSet::from(["what", "method", "path", "headers", "body", "expect_status", "expect_code"])
        );
    }
    let (status, _) = send(host(&document["health_url"]), "GET", "/readyz", &[], "");
    assert_eq!(status, 200);
}

#[test]
fn its_configuration_is_valid_by_itself_and_serves() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kept");
    let (mut running, document) = start(&["--dir", folder.to_str().unwrap()]);
    let config = document["config_path"].as_str().unwrap();
    let again = run(&mut linkgate(&["demo", "--dir", folder.to_str().unwrap()]));
    assert_eq!(again.code, 5, "a folder in use is not taken: {}", again.err);

    let user = document["users"][0].clone();
    let arguments = [
        "--config",
        config,
        "token",
        "--sub",
        user["user_id"].as_str().unwrap(),
        "--tenant",
        user["home_tenant_id"].as_str().unwrap(),
    ];
    let minted = run(&mut linkgate(&arguments));
    assert_eq!(minted.code, 0, "{}", minted.err);
    let headers = [("Authorization".to_owned(), format!("Bearer {}", minted.out.trim()))];
    let (status, _) = send(host(&document["public_url"]), "GET", "/api/isp/v1/billing/invoices", &headers, "");
    assert_eq!(status, 200);
    assert_eq!(running.stop(), Some(0));

    let checked = run(&mut linkgate(&["check", "--config", config]));
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
    assert!(!checked.out.contains("warning"), "{}", checked.out);
    let mut server = Running::start(&mut linkgate(&["serve", "--config", config]));
    let until = Instant::now() + PATIENCE;
    loop {
        let is_up = std::net::TcpStream::connect(host(&document["health_url"])).is_ok();
        if is_up && send(host(&document["health_url"]), "GET", "/readyz", &[], "").0 == 200 {
            break;
        }
        assert!(Instant::now() < until, "`serve` did not become ready");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let headers = [("Authorization".to_owned(), format!("Bearer {}", user["token"].as_str().unwrap()))];
    // The sample services stopped with the demo; the gateway itself answers.
    let (status, _) = send(host(&document["public_url"]), "GET", "/api/isp/v1/billing/invoices", &headers, "");
    assert!(matches!(status, 502 | 503), "{status}");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn the_commands_work_beside_the_running_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kept");
    let (_running, document) = start(&["--dir", folder.to_str().unwrap()]);
    let config = document["config_path"].as_str().unwrap();
    let command = |arguments: &[&str]| {
        let mut all = vec!["--json", "--config", config];
        all.extend_from_slice(arguments);
        run(&mut linkgate(&all))
    };
    let listed = command(&["link", "list", "--limit", "100"]);
    let links: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(links.as_array().unwrap().len(), document["links"].as_array().unwrap().len(), "{}", listed.err);

    let request = &document["requests"][0];
    let headers: Vec<(String, String)> = ["Authorization", "X-Active-Tenant-Id"]
        .map(|name| (name.to_owned(), request["headers"][name].as_str().unwrap().to_owned()))
        .into();
    let ask = || send(host(&document["public_url"]), "GET", request["path"].as_str().unwrap(), &headers, "");
    assert_eq!(ask().0, 200);
    let link = document["links"].as_array().unwrap().iter().find(|link| link["tenant_id"] == headers[1].1.as_str());
    let link = link.unwrap()["link_id"].as_str().unwrap();
    assert_eq!(command(&["link", "revoke", link]).code, 8, "without a terminal and --yes the answer is no");
    assert_eq!(command(&["link", "revoke", link, "--yes"]).code, 0);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (status, answer) = ask();
    assert_eq!(status, 403, "{answer}");

    let records: Value = serde_json::from_str(&command(&["audit", "query", "--journal"]).out).unwrap();
    let denied = records.as_array().unwrap().iter().find(|record| record["reason"] == "link_inactive").unwrap();
    let explained = command(&["explain", denied["id"].as_str().unwrap()]);
    assert!(explained.code == 0 && explained.out.contains("link_inactive"), "{}", explained.err);
    assert_eq!(command(&["audit", "verify"]).code, 0);
}

#[test]
fn the_plain_form_prints_a_curl_line_with_the_answer_for_each_request() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kept");
    let running = Running::start(&mut linkgate(&["demo", "--dir", folder.to_str().unwrap()]));
    let mut lines = Vec::new();
    loop {
        let line = running.line();
        if line.starts_with("Stop with") {
            break;
        }
        lines.push(line);
    }
    let curls: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].starts_with("curl -sS ")).collect();
    assert!(curls.len() > 40);
    for at in curls {
        let (what, line) = (&lines[at - 1], &lines[at]);
        let expected = what.strip_prefix("# ").and_then(|what| what.rsplit_once(": expect ")).unwrap().1;
        assert!(expected.split(' ').next().unwrap().parse::<u16>().is_ok(), "{what}");
        assert!(line.contains("'http://127.0.0.1:"), "{line}");
        // A token is named by its file, or stands in the line where the request is one with a bad token.
        if let Some((_, rest)) = line.split_once("$(cat ") {
            let token = std::fs::read_to_string(rest.split(')').next().unwrap()).unwrap();
            assert_eq!(token.split('.').count(), 3);
        }
    }
}

#[test]
fn where_the_folder_is_no_stable_storage_it_says_so_and_promises_less() {
    // Linux has a memory file system here; without one there is nothing to say.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let folder = dir.path().join("kept");
    let running = Running::start(&mut linkgate(&["demo", "--dir", folder.to_str().unwrap()]));
    let told = (0..12).map(|_| running.line()).collect::<Vec<_>>().join("\n");
    assert!(told.contains("no stable storage") && told.contains("`os`"), "{told}");
    let config = std::fs::read_to_string(folder.join("linkgate.toml")).unwrap();
    assert!(config.contains("\nwrites = \"os\"\n"));
}

#[test]
fn its_policy_folders_are_whole_workbenches() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kept");
    let (_running, document) = start(&["--shadow", "--dir", folder.to_str().unwrap()]);
    let command = |arguments: &[&str]| {
        let mut all = vec!["--config", document["config_path"].as_str().unwrap(), "policy"];
        all.extend(arguments);
        run(linkgate(&all).current_dir(dir.path()))
    };
    let next = folder.join("policies-next");
    let sets: [&[&str]; 2] = [&[], &["--policies", next.to_str().unwrap()]];
    for set in sets {
        let name = if set.is_empty() { folder.join("policies") } else { next.clone() };
        for arguments in [&["check"][..], &["test", "--require-coverage"], &["show", "--role", "auditor"]] {
            let ran = command(&[arguments, set].concat());
            assert_eq!(ran.code, 0, "{arguments:?} {set:?}: {}{}", ran.out, ran.err);
            assert!(arguments[0] == "show" || ran.out.contains(name.to_str().unwrap()), "{arguments:?}: {}", ran.out);
        }
        #[cfg(feature = "prove")]
        {
            let ran = command(&[&["prove"][..], set].concat());
            assert_eq!(ran.code, 0, "{set:?}: {}{}", ran.out, ran.err);
            assert!(ran.out.contains(name.join("invariants.toml").to_str().unwrap()), "{}", ran.out);
        }
    }
    let (_, metrics) = send(host(&document["health_url"]), "GET", "/metrics", &[], "");
    assert!(metrics.contains("\nlinkgate_shadow_loaded 1\n"), "{metrics}");
}
