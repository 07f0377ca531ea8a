//! README.md is true: its blocks are run, its examples checked, its tables held against the program.
//!
//! The word behind `sh` or `toml` in a fence says what becomes of a block:
//!
//! - `sh tour-demo` starts the demo of the tour; here the built binary does, on free ports.
//! - `sh tour` blocks run in their order in one shell beside that demo.
//! - `sh run` blocks run one by one, each in a folder of its own; `sh run-openssl` and `sh run-setup` in the folder of the
//!   gateway example.
//! - `sh run-admin` blocks run in their order in one shell in that folder, beside a gateway that listens as `sh
//!   run-admin-setup` wrote it.
//! - `sh walk-setup` blocks run before the `sh walk-NAME` blocks of each walk through a deployment (`readme/walks.rs`).
//! - `sh run-elsewhere` is not run here: CI runs `tests/run` itself, `cli_demo` runs `demo`, and a release build takes
//!   longer than a test may. Here they are only held against a list.
//! - `toml NAME` is a whole configuration that `linkgate check` accepts without a warning.
//!
//! A `text` block right behind one shows its output. `…` stands for anything within a line, alone in a line for any
//! number of lines. Without such a block there is no output.
#![cfg(all(feature = "demo", feature = "prove"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice, reason = "tests may stop")]

mod cli_support;
#[path = "readme/page.rs"]
mod page;
mod postgres_support;
#[path = "readme/reference.rs"]
mod reference;
#[path = "readme/walks.rs"]
mod walks;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use cli_support::{Running, linkgate, run, send};
use linkgate::{
    domain::ErrorCode,
    identity::mint::{DevAlgorithm, DevKey},
};
use page::{Block, blocks, differs, page};
use serde_json::Value;

/// What the demo, in cleartext and without shipping, has nothing to say of; `gateway::tls` and `crash::ship` read them by
/// these names.
const NOT_IN_THE_DEMO: [&str; 4] = [
    "linkgate_tls_certificate_not_after_seconds",
    "linkgate_tls_handshakes_total",
    "linkgate_audit_ship_lag_lines",
    "linkgate_audit_ship_stuck",
];

/// Longer than the page says, because a test machine is busier than a reader's.
const PAUSE: &str = "sleep 3";
/// Behind the output of each block: this byte, then its exit code.
const MARK: char = '\u{1e}';

/// On a disk, unlike `/tmp` on some machines.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bin = dir.path().join("target/debug");
    fs::create_dir_all(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_linkgate"), bin.join("linkgate")).unwrap();
    // What the page names of the sources.
    fs::create_dir(dir.path().join("tests")).unwrap();
    symlink(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit_proof.py"),
        dir.path().join("tests/audit_proof.py"),
    )
    .unwrap();
    dir
}

/// One script of all blocks; behind the output of each its exit code.
fn script(blocks: &[(String, &Block)]) -> String {
    blocks.iter().map(|(text, _)| format!("{text}\nprintf '\\036%s\\n' \"$?\"\n")).collect()
}

/// The output and exit code of each block.
fn outputs(text: &str, blocks: &[(String, &Block)]) -> Vec<(String, i32)> {
    let mut parts = text.split(MARK);
    let mut output = parts.next().unwrap().to_owned();
    let mut done = Vec::new();
    for part in parts {
        let (code, next) = part.split_once('\n').unwrap();
        done.push((std::mem::replace(&mut output, next.to_owned()), code.parse().unwrap()));
    }
    assert_eq!(done.len(), blocks.len(), "the shell ended early:\n{text}");
    done
}

/// As a reader's shell: none of linkgate's variables is set.
fn without_linkgates_variables(command: &mut Command) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LINKGATE")) {
        command.env_remove(name);
    }
    // Where the tests run there may be no stable storage; the demo sees to that itself.
    command.env("LINKGATE__AUDIT__WRITES", "os");
}

/// Runs the blocks in one shell; the output and exit code of each.
fn shell(dir: &Path, blocks: &[(String, &Block)]) -> Vec<(String, i32)> {
    fs::write(dir.join("script"), format!("exec 2>&1\n{}", script(blocks))).unwrap();
    let path = format!("{}:{}", dir.join("target/debug").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    without_linkgates_variables(&mut command);
    command.arg("script").current_dir(dir).env("PATH", path).stdin(Stdio::null());
    outputs(&String::from_utf8(command.output().unwrap().stdout).unwrap(), blocks)
}

/// What differs from the page, block by block.
fn compare(done: Vec<(String, i32)>, scripts: &[(String, &Block)]) -> Vec<String> {
    done.into_iter()
        .zip(scripts)
        .filter_map(|((output, code), (_, block))| {
            let difference = match differs(block.output.as_deref().unwrap_or(""), &output) {
                None if code == 0 => return None,
                None => format!("exit code {code}"),
                Some(difference) => difference,
            };
            Some(format!(
                "README.md:{}: {difference}\n{}\n--- gives (exit code {code})\n{output}",
                block.line, block.text
            ))
        })
        .collect()
}

fn run_and_compare(dir: &Path, scripts: &[(String, &Block)]) {
    let wrong = compare(shell(dir, scripts), scripts);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_tour_goes_as_it_is_written() {
    let dir = folder();
    let demo = blocks("sh tour-demo");
    let [demo] = demo.as_slice() else { panic!("one block starts the demo") };
    let arguments = demo.text.trim().strip_prefix("cargo run -- ").unwrap();
    let arguments = arguments.replace("--port 8080", "--port 0").replace("--health-port 8081", "--health-port 0");
    assert!(!arguments.contains("808"), "both ports are free ones here: {arguments}");
    let arguments: Vec<&str> = ["--json"].into_iter().chain(arguments.split(' ')).collect();
    let running = Running::start(linkgate(&arguments).current_dir(dir.path()));
    let document: Value = serde_json::from_str(&running.line()).unwrap();

    let tour = blocks("sh tour");
    assert!(tour.len() > 15);
    let scripts: Vec<_> = tour
        .iter()
        .map(|block| {
            let text = block
                .text
                .replace("http://127.0.0.1:8080", document["public_url"].as_str().unwrap())
                .replace("http://127.0.0.1:8081", document["health_url"].as_str().unwrap())
                .replace("sleep 1", PAUSE);
            assert!(!text.contains(":808"), "{text}");
            // A reader gives journal and index the fraction of a second that they may be behind.
            let is_look = ["audit query", "explain", "policy replay", "shadow report"]
                .iter()
                .any(|look| block.text.contains(look));
            (if is_look { format!("{PAUSE}\n{text}") } else { text }, block)
        })
        .collect();
    run_and_compare(dir.path(), &scripts);

    let host = document["health_url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let (_, metrics) = send(host, "GET", "/metrics", &[], "");
    let named = words(|c| c.is_ascii_lowercase() || c == '_');
    let named: Vec<_> = named.iter().filter(|word| word.starts_with("linkgate_")).collect();
    assert!(named.len() > 5);
    for name in named.into_iter().filter(|name| !NOT_IN_THE_DEMO.contains(*name)) {
        assert!(metrics.contains(&format!("# HELP {name} ")), "there is no metric `{name}`");
    }
}

#[test]
fn every_block_of_its_own_runs() {
    let all = blocks("sh run");
    assert!(all.len() >= 2);
    for block in &all {
        run_and_compare(folder().path(), &[(block.text.clone(), block)]);
    }
}

/// A folder with a key as the page makes it, where there is `openssl`.
fn with_key() -> tempfile::TempDir {
    let dir = folder();
    let openssl = Command::new("openssl").arg("version").output().is_ok_and(|ran| ran.status.success());
    if openssl {
        let make = blocks("sh run-openssl");
        run_and_compare(dir.path(), &[(make[0].text.clone(), &make[0])]);
    } else {
        DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&dir.path().join("signing.pem")).unwrap();
    }
    dir
}

#[test]
fn every_configuration_is_accepted_as_it_stands() {
    let dir = with_key();
    let examples = blocks("toml");
    assert_eq!(examples.len(), 3);
    let secret = dir.path().join("edge.secret");
    fs::write(&secret, "0123456789abcdef".repeat(4)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    for block in &examples {
        let path = dir.path().join(block.info.strip_prefix("toml ").unwrap());
        fs::write(&path, &block.text).unwrap();
        let mut command = linkgate(&["check", "--config", path.to_str().unwrap()]);
        command.env("LINKGATE__AUDIT__WRITES", "os").env("BACKOFFICE_SECRET", "fedcba9876543210".repeat(4));
        let checked = run(command.env("DATABASE_URL", "postgres://linkgate:secret@db.internal/linkgate"));
        assert_eq!(checked.code, 0, "README.md:{}: {}{}", block.line, checked.out, checked.err);
        assert!(!checked.out.contains("warning"), "README.md:{}: {}", block.line, checked.out);
    }
}

#[test]
fn the_first_start_ends_with_a_link() {
    let dir = with_key();
    let gateway = blocks("toml gateway.toml");
    fs::write(dir.path().join("linkgate.toml"), &gateway[0].text).unwrap();
    let setup = blocks("sh run-setup");
    let text = format!("(set -e\n{}) >log", setup[0].text);
    let list = "linkgate link list --json | grep -c msp_billing".to_owned();
    let done = shell(dir.path(), &[(text, &setup[0]), (list, &setup[0])]);
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(done[0], (String::new(), 0), "{log}");
    assert_eq!(done[1], ("1\n".to_owned(), 0));
}

#[test]
fn the_admin_api_answers_as_it_is_written() {
    let dir = with_key();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let at_port = |block: &Block| block.text.replace("8082", &port);
    fs::write(dir.path().join("linkgate.toml"), &blocks("toml gateway.toml")[0].text).unwrap();
    let setup = blocks("sh run-admin-setup");
    run_and_compare(dir.path(), &[(at_port(&setup[0]), &setup[0])]);
    let mut serve = linkgate(&["serve"]);
    serve.env("LINKGATE__LISTEN__ADDRESS", "127.0.0.1:0").env("LINKGATE__HEALTH__ADDRESS", "127.0.0.1:0");
    let running = Running::start(serve.env("LINKGATE__AUDIT__WRITES", "os").current_dir(dir.path()));
    let since = Instant::now();
    while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        assert!(since.elapsed() < cli_support::PATIENCE, "the gateway does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    let calls = blocks("sh run-admin");
    assert!(calls.len() >= 2);
    let scripts: Vec<_> = calls.iter().map(|block| (at_port(block), block)).collect();
    run_and_compare(dir.path(), &scripts);
    drop(running);
}

#[test]
fn every_block_is_of_a_known_kind() {
    let known = [
        "tour-demo",
        "tour",
        "run",
        "run-openssl",
        "run-setup",
        "run-admin-setup",
        "run-admin",
        "run-elsewhere",
        "walk-setup",
        "walk-gateway",
        "walk-sidecar",
        "walk-envoy",
        "walk-nginx",
        "walk-replicas",
    ];
    for block in page::all() {
        let (kind, rest) = block.info.split_once(' ').unwrap_or((&block.info, ""));
        let is_known = match kind {
            "sh" => known.contains(&rest),
            "toml" => rest.ends_with(".toml"),
            // What is asked by AuthZEN; its fields are held by `gateway::decision::authzen`.
            "text" | "json" => rest.is_empty(),
            _ => false,
        };
        assert!(is_known, "README.md:{}: no test knows `{}`", block.line, block.info);
    }
    let elsewhere: Vec<String> = blocks("sh run-elsewhere").iter().map(|block| block.text.trim().to_owned()).collect();
    assert_eq!(
        elsewhere,
        ["cargo run -- demo", "tests/run", "cargo build --profile dist --no-default-features --features mimalloc"]
    );
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run").exists());
    assert!(include_str!("../Cargo.toml").contains("[profile.dist]"));
}

#[test]
fn the_reference_is_the_schema() {
    reference::compare();
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let help = run(&mut linkgate(&["--help"])).out;
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    let rows: Vec<String> = codes
        .lines()
        .map(|line| line.trim().split_once("  ").unwrap())
        .map(|(code, meaning)| format!("| {code} | {meaning} |"))
        .collect();
    assert_eq!(rows.len(), 10);
    let told = page::between("<!-- exit codes: begin -->", "<!-- exit codes: end -->");
    assert_eq!(told.lines().skip(2).collect::<Vec<_>>(), rows);
}

#[test]
fn links_lead_somewhere() {
    let text = page();
    let anchors: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-").replace([',', ':'], ""))
        .collect();
    let targets: Vec<&str> = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(targets.len() > 15);
    for target in targets.into_iter().filter(|target| !target.starts_with("https://")) {
        let found = match target.strip_prefix('#') {
            Some(anchor) => anchors.iter().any(|known| known == anchor),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join(target).exists(),
        };
        assert!(found, "README.md: `{target}` leads nowhere");
    }
}

/// Everything between backticks that consists of such characters only.
fn words(is_part: impl Fn(char) -> bool) -> Vec<&'static str> {
    page()
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| word.chars().all(&is_part))
        .collect()
}

#[test]
fn codes_that_it_names_exist() {
    let named = words(|c| c.is_ascii_uppercase() || c == '_');
    let is_code = |word: &&str| word.contains('_') && !word.starts_with("LINKGATE_");
    let named: Vec<_> = named.into_iter().filter(is_code).collect();
    assert!(named.len() > 10);
    for word in named {
        assert!(ErrorCode::ALL.iter().any(|code| code.as_str() == word), "there is no code `{word}`");
    }
}

#[test]
fn every_rule_of_refusal_names_its_test() {
    let (_, rest) = page().split_once("### Any doubt is a refusal\n").unwrap();
    let rows: Vec<&str> = rest.trim_start().lines().take_while(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() > 20);
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [what, seen, proof] = cells.as_slice() else { panic!("three cells: {row}") };
        assert!(!what.is_empty() && !seen.is_empty(), "{row}");
        // `tests_that_it_names_exist` looks for it.
        assert!(proof.starts_with('`') && proof.ends_with('`') && proof.contains("::"), "no test: {row}");
    }
}

#[test]
fn tests_that_it_names_exist() {
    let named = words(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
    let named: Vec<_> = named.into_iter().filter(|word| word.contains("::")).collect();
    assert!(named.len() > 15);
    for test in named {
        let parts: Vec<&str> = test.split("::").collect();
        let (name, modules) = parts.split_last().unwrap();
        let file = format!("{}/tests/{}.rs", env!("CARGO_MANIFEST_DIR"), modules.join("/"));
        let source = fs::read_to_string(&file).unwrap_or_else(|error| panic!("`{test}`: {file}: {error}"));
        assert!(source.contains(&format!("fn {name}(")), "there is no test `{test}` in {file}");
    }
}
